//! `features`: the whole document, held to the structure of features.md and to what `create` and `plan` really take.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::harness::Bundle;

/// What a value of the document is.
enum Shape {
    Switch,
    Version,
    /// Words, each once, and at least one: an empty list would say that nothing of the kind is known.
    Words,
    Texts,
    Object(&'static [(&'static str, Self)]),
}

/// An object of one switch.
const ENABLED: Shape = Shape::Object(&[("enabled", Shape::Switch)]);

/// features.md and features-linux.md of 1.3.
const DOCUMENT: Shape = Shape::Object(&[
    ("ociVersionMin", Shape::Version),
    ("ociVersionMax", Shape::Version),
    ("hooks", Shape::Words),
    ("mountOptions", Shape::Words),
    ("annotations", Shape::Texts),
    ("potentiallyUnsafeConfigAnnotations", Shape::Words),
    (
        "linux",
        Shape::Object(&[
            ("namespaces", Shape::Words),
            ("capabilities", Shape::Words),
            (
                "cgroup",
                Shape::Object(&[
                    ("v1", Shape::Switch),
                    ("v2", Shape::Switch),
                    ("systemd", Shape::Switch),
                    ("systemdUser", Shape::Switch),
                    ("rdma", Shape::Switch),
                ]),
            ),
            (
                "seccomp",
                Shape::Object(&[
                    ("enabled", Shape::Switch),
                    ("actions", Shape::Words),
                    ("operators", Shape::Words),
                    ("archs", Shape::Words),
                    ("knownFlags", Shape::Words),
                    ("supportedFlags", Shape::Words),
                ]),
            ),
            ("apparmor", ENABLED),
            ("selinux", ENABLED),
            (
                "intelRdt",
                Shape::Object(&[
                    ("enabled", Shape::Switch),
                    ("schemata", Shape::Switch),
                    ("monitoring", Shape::Switch),
                ]),
            ),
            ("memoryPolicy", Shape::Object(&[("modes", Shape::Words), ("flags", Shape::Words)])),
            ("mountExtensions", Shape::Object(&[("idmap", ENABLED)])),
            ("netDevices", ENABLED),
        ]),
    ),
]);

fn check(value: &Value, shape: &Shape, at: &str) -> Result<()> {
    let is_so = match shape {
        Shape::Switch => value.is_boolean(),
        Shape::Version => value.as_str().is_some_and(|version| version.starts_with("1.")),
        Shape::Words => {
            let all: Option<Vec<_>> = value.as_array().map(|all| all.iter().filter_map(Value::as_str).collect());
            let all = all.with_context(|| format!("{at}: {value}"))?;
            let once: BTreeSet<_> = all.iter().filter(|word| !word.is_empty()).collect();
            !once.is_empty() && Some(once.len()) == value.as_array().map(Vec::len)
        }
        Shape::Texts => value.as_object().is_some_and(|all| all.values().all(Value::is_string)),
        Shape::Object(fields) => {
            let all = value.as_object().with_context(|| format!("{at}: {value}"))?;
            for (key, value) in all {
                let known = fields.iter().find(|(name, _)| name == key);
                check(value, &known.with_context(|| format!("{at}.{key} is no field of the schema"))?.1, key)?;
            }
            true
        }
    };
    ensure!(is_so, "{at}: {value}");
    Ok(())
}

fn features() -> Result<Value> {
    let outcome = Bundle::new()?.pura(&["features"]).output()?;
    Ok(serde_json::from_str(outcome.succeeds()?)?)
}

fn words<'a>(features: &'a Value, pointer: &str) -> Result<Vec<&'a str>> {
    let all = features.pointer(pointer).and_then(Value::as_array).with_context(|| pointer.to_owned())?;
    Ok(all.iter().filter_map(Value::as_str).collect())
}

#[test]
fn the_document_has_the_fields_of_the_schema_and_no_others() -> Result<()> {
    let features = features()?;
    check(&features, &DOCUMENT, "features")?;
    // Absent means unknown, so that what is known, supported or not, is said.
    let Shape::Object(fields) = DOCUMENT else { return Ok(()) };
    for (name, _) in fields {
        assert!(!features[name].is_null(), "{name}");
    }
    for name in
        ["cgroup", "seccomp", "apparmor", "selinux", "intelRdt", "memoryPolicy", "mountExtensions", "netDevices"]
    {
        assert!(features["linux"][name].is_object(), "{name}");
    }
    Ok(())
}

#[test]
fn every_word_for_mounts_is_listed_and_none_takes_a_value() -> Result<()> {
    let attributes = "ro rw nosuid suid nodev dev noexec exec nosymfollow symfollow noatime atime relatime norelatime \
                      strictatime nostrictatime nodiratime diratime";
    let of_the_filesystem =
        "defaults sync async dirsync lazytime nolazytime iversion noiversion mand nomand silent loud";
    let of_the_mount = "bind rbind remount private rprivate shared rshared slave rslave unbindable runbindable";
    let recursive = "rro rrw rnosuid rsuid rnodev rdev rnoexec rexec rnosymfollow rsymfollow rnodiratime rdiratime \
                     rnoatime ratime rrelatime rnorelatime rstrictatime rnostrictatime";
    let extensions = "tmpcopyup idmap ridmap copy-symlink src-nofollow dest-nofollow";
    let features = features()?;
    let listed = words(&features, "/mountOptions")?;
    for word in [attributes, of_the_filesystem, of_the_mount, recursive, extensions].join(" ").split_whitespace() {
        assert!(listed.contains(&word), "{word}");
    }
    assert!(listed.iter().all(|word| !word.contains(['=', ','])), "{listed:?}");
    Ok(())
}

#[test]
fn all_namespaces_hooks_and_capabilities_are_listed_whatever_the_kernel_has() -> Result<()> {
    let features = features()?;
    let namespaces = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
    assert_eq!(words(&features, "/linux/namespaces")?, namespaces);
    let hooks = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    assert_eq!(words(&features, "/hooks")?, hooks);
    let capabilities = words(&features, "/linux/capabilities")?;
    // CAP_CHECKPOINT_RESTORE came with Linux 5.9; before, its number is above the kernel's last one.
    for name in ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"] {
        assert!(capabilities.contains(&name), "{name}");
    }
    assert_eq!(capabilities.len(), 41);
    Ok(())
}

#[test]
fn every_listed_namespace_capability_and_hook_is_accepted_by_create() -> Result<()> {
    requires!(userns, busybox);
    let features = features()?;
    let mut bundle = Bundle::probing(&["sleep"])?;
    let namespaces = words(&features, "/linux/namespaces")?;
    bundle.config["linux"]["namespaces"] = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    let capabilities = words(&features, "/linux/capabilities")?;
    bundle.config["process"]["capabilities"] = json!({"bounding": capabilities, "permitted": capabilities});
    let notes = bundle.path("notes");
    for kind in words(&features, "/hooks")? {
        let script = format!("echo {kind} >>{}", notes.display());
        // A startContainer hook is found in the image, where it cannot write the notes.
        let script = if kind == "startContainer" { "true".to_owned() } else { script };
        bundle.config["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    }
    let mut running = bundle.with_bundle("create", &["c1"])?.spawn()?;
    let outcome = running.wait()?;
    assert!(outcome.status.success() && !outcome.stderr.contains("unknown"), "{outcome:#?}");
    bundle.verb("start")?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    bundle.delete()?;
    let written = std::fs::read_to_string(notes)?;
    let all: Vec<_> = words(&features, "/hooks")?.into_iter().filter(|kind| *kind != "startContainer").collect();
    assert_eq!(written.split_whitespace().collect::<Vec<_>>(), all);
    Ok(())
}

#[test]
fn every_listed_word_for_seccomp_is_accepted_by_create() -> Result<()> {
    requires!(userns);
    let features = features()?;
    let mut bundle = Bundle::probing(&["true"])?;
    // One call for each action, and one rule for each operator. NOTIFY is about a listener, which this container has not.
    let calls = ["chroot", "mknod", "mount", "umount2", "pivot_root", "swapon", "swapoff", "reboot", "sethostname"];
    let actions = words(&features, "/linux/seccomp/actions")?.into_iter().filter(|action| *action != "SCMP_ACT_NOTIFY");
    let rules = actions.zip(calls).map(|(action, call)| json!({"names": [call], "action": action}));
    let tests = words(&features, "/linux/seccomp/operators")?.into_iter().map(|op| {
        let test = json!([{"index": 5, "value": 77, "valueTwo": 77, "op": op}]);
        json!({"names": ["init_module"], "action": "SCMP_ACT_ERRNO", "args": test})
    });
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": words(&features, "/linux/seccomp/archs")?,
        "flags": words(&features, "/linux/seccomp/supportedFlags")?,
        "syscalls": rules.chain(tests).collect::<Vec<_>>()
    });
    bundle.run_strictly()?.succeeds_silently()?;
    let supported: BTreeSet<_> = words(&features, "/linux/seccomp/supportedFlags")?.into_iter().collect();
    let known: BTreeSet<_> = words(&features, "/linux/seccomp/knownFlags")?.into_iter().collect();
    assert!(supported.is_subset(&known), "{supported:?} {known:?}");
    bundle.config["linux"]["seccomp"]["flags"] = json!(known);
    bundle.run()?.succeeds_silently()
}

#[test]
fn every_listed_memory_policy_has_a_plan() -> Result<()> {
    requires!(userns);
    let features = features()?;
    let mut bundle = Bundle::probing(&["true"])?;
    let mut planned = |policy: Value| -> Result<()> {
        bundle.config["linux"]["memoryPolicy"] = policy;
        bundle.with_bundle("plan", &[])?.output()?.ends(0)?;
        Ok(())
    };
    for mode in words(&features, "/linux/memoryPolicy/modes")? {
        let nodes = if ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&mode) { "" } else { "0" };
        planned(json!({"mode": mode, "nodes": nodes}))?;
    }
    for flag in words(&features, "/linux/memoryPolicy/flags")? {
        planned(json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}))?;
    }
    Ok(())
}

#[test]
fn annotations_that_act_are_said_to_be_unsafe() -> Result<()> {
    let features = features()?;
    let unsafe_ones = words(&features, "/potentiallyUnsafeConfigAnnotations")?;
    for key in [
        "org.pura.proc",
        "org.pura.root-emulation",
        "run.oci.hooks.stderr",
        "run.oci.hooks.stdout",
        "run.oci.keep_original_groups",
        "run.oci.seccomp_fail_unknown_syscall",
    ] {
        let is_covered = |known: &&str| key == *known || known.ends_with('.') && key.starts_with(known);
        assert!(unsafe_ones.iter().any(is_covered), "{key}: {unsafe_ones:?}");
    }
    Ok(())
}

#[test]
fn idmapped_mounts_are_listed_although_file_systems_of_the_host_are_refused() -> Result<()> {
    requires!(unprivileged, userns);
    assert_eq!(features()?["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.mount("/v", "bind", "rootfs/tmp", &["bind", "idmap"])?;
    bundle.is_refused(312, &["/v"])
}
