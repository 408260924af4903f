//! The specification's own examples: accepted, and created where this caller may have what they ask for; else refused by
//! field.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{Bundle, own_gid, own_uid, subordinate};

const CONFIG: &str = include_str!("../fixtures/spec-examples/config.json");
const FIELDS: &str = include_str!("../fixtures/spec-examples/fields.json");

/// What comes of an example.
enum Comes {
    /// It runs.
    Runs,
    /// It is refused with this code, and these words are in the line.
    Refused(u32, &'static str),
    /// It runs or is refused with one of these codes: the machine decides.
    Depends(&'static [u32]),
}

use Comes::{Depends, Refused, Runs};

/// Each example of a field, for an ordinary user, and why it is refused.
const EXAMPLES: &[(&str, Comes, &str)] = &[
    ("root", Runs, ""),
    ("mounts", Refused(304, "/volumes/testing"), "the host has no such directory"),
    ("process", Runs, "with two ids and the groups of the example mapped"),
    ("apparmorProfile", Depends(&[509]), "the profile is not loaded, or the module is off"),
    ("selinuxLabel", Depends(&[508]), "the module is off, or knows no such label"),
    ("hostname", Runs, ""),
    ("domainname", Runs, ""),
    ("annotations", Runs, ""),
    ("namespaces", Refused(217, "linux.namespaces["), "the host has no such namespaces"),
    ("mappings", Refused(112, "1000"), "the ids are not the caller's"),
    ("devices", Depends(&[340]), "the host has no such devices"),
    ("netDevices", Depends(&[220]), "who has no power over the network moves no devices"),
    ("cgroupsPath", Depends(LIMITS), "limits need a delegated cgroup"),
    ("resources.devices", Runs, ""),
    ("resources.memory", Depends(LIMITS), "limits need a delegated cgroup"),
    ("resources.cpu", Depends(LIMITS), "limits need a delegated cgroup, and some have none on version 2"),
    ("resources.blockIO", Depends(LIMITS), "limits need a delegated cgroup, and some have none on version 2"),
    ("resources.hugepageLimits", Depends(LIMITS), "limits need a delegated cgroup"),
    ("resources.network", Depends(LIMITS), "version 2 has no such controllers"),
    ("resources.pids", Depends(LIMITS), "limits need a delegated cgroup"),
    ("resources.rdma", Depends(LIMITS), "limits need a delegated cgroup"),
    ("resources.unified", Depends(LIMITS), "limits need a delegated cgroup"),
    ("intelRdt", Depends(&[511]), "only real root may write to resctrl"),
    ("sysctl", Runs, ""),
    ("seccomp", Runs, ""),
    ("rootfsPropagation", Runs, ""),
    ("maskedPaths", Runs, ""),
    ("readonlyPaths", Runs, ""),
    ("mountLabel", Depends(&[508]), "the module is off, or knows no such label"),
];

/// No cgroup of version 2, none delegated, or a limit that it does not have.
const LIMITS: &[u32] = &[804, 461, 463];

/// Lays an example over a config: objects are merged, everything else is replaced.
fn lay_over(config: &mut Value, example: &Value) {
    match (config.as_object_mut(), example.as_object()) {
        (Some(config), Some(example)) => {
            for (key, value) in example {
                lay_over(config.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
        _ => config.clone_from(example),
    }
}

/// A bundle with the ids of the examples: root, 1, and the groups up to 6.
fn bundle() -> Result<Bundle> {
    let mut bundle = Bundle::probing(&["ids", "caps", "rlimits", "mounts", "hostname", "oom"])?;
    bundle.map(&[(0, own_uid(), 1), (1, subordinate("uid")?, 10)], &[(0, own_gid(), 1), (1, subordinate("gid")?, 10)]);
    // The working directory of the example, for its user.
    std::fs::set_permissions(bundle.rootfs("root"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(bundle)
}

#[test]
fn every_example_of_a_field_runs_or_is_refused_by_name() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let fields: Value = serde_json::from_str(FIELDS)?;
    let fields = fields.as_object().context("fields")?;
    let listed: Vec<_> = EXAMPLES.iter().map(|(name, ..)| *name).collect();
    assert!(fields.len() == listed.len() && fields.keys().all(|name| listed.contains(&name.as_str())), "{listed:?}");
    for (name, comes, why) in EXAMPLES {
        let mut bundle = bundle()?;
        let env = bundle.config["process"]["env"].clone();
        lay_over(&mut bundle.config, &fields[*name]);
        // How the harness finds the program, also when the example has an environment of its own.
        bundle.config["process"]["env"] = env;
        let outcome = bundle.with_bundle("plan", &[])?.output()?;
        let run = bundle.run()?;
        let is_planned = outcome.status.success();
        match comes {
            Runs => {
                ensure!(is_planned && run.status.success(), "{name}: {outcome:#?} {run:#?}");
            }
            Refused(code, words) => drop(run.fails(125, *code, &[words]).with_context(|| (*why).to_owned())?),
            Depends(codes) => {
                if !run.status.success() {
                    run.fails_with_any(125, codes, &[]).with_context(|| format!("{name}: {why}"))?;
                }
            }
        }
        bundle.is_clean()?;
    }
    Ok(())
}

/// What the example of a whole config asks for that an ordinary user, or this test's image, has not: each has to go before
/// it runs.
const LACKED: &[(&str, &str)] = &[
    ("/process/terminal", "there is no console socket"),
    ("/process/apparmorProfile", "the profile is not loaded"),
    ("/process/selinuxLabel", "the label is not known"),
    ("/linux/mountLabel", "the label is not known"),
    ("/linux/devices", "the host may lack them"),
    ("/linux/netDevices", "the devices are not there, nor the caller's to move"),
    ("/linux/resources", "limits need a delegated cgroup, and some are of version 1"),
    ("/linux/cgroupsPath", "it is not delegated"),
    ("/hooks", "the host has no such programs"),
];

#[test]
fn the_example_of_a_whole_config_runs_without_what_this_caller_lacks() -> Result<()> {
    requires!(unprivileged, userns, subids, busybox);
    let mut bundle = bundle()?;
    let base = bundle.config.clone();
    bundle.config = serde_json::from_str(CONFIG)?;
    // As it is, it is read, and refused for all of that.
    bundle.is_refused_with_any(&[112, 220, 463, 461, 511, 650, 804], &[])?;
    for (pointer, _) in LACKED {
        let (parent, key) = pointer.rsplit_once('/').context("pointer")?;
        let parent = bundle.config.pointer_mut(parent).and_then(Value::as_object_mut).context("parent")?;
        ensure!(parent.remove(key).is_some(), "the example has no {pointer}");
    }
    for key in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][key] = base["linux"][key].clone();
    }
    bundle.push("/process/env", format!("PURA_TEST={}", bundle.dir().display()).into())?;
    bundle.with_bundle("plan", &[])?.output()?.succeeds()?;
    bundle.run()?.ends(0)?;
    // The same with a program that tells what it finds.
    bundle.config["process"]["args"] = base["process"]["args"].clone();
    let facts = bundle.run()?.facts()?;
    for (fact, value) in [
        ("uid", "1"),
        ("gid", "1"),
        ("groups", "5,6"),
        ("hostname", "slartibartfast"),
        ("CapBnd", "0000000020000420"),
        ("CapAmb", "0000000000000400"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("oom_score_adj", "100"),
    ] {
        assert_eq!(facts.get(fact)?, value, "{fact}");
    }
    assert!(facts.mount("/")?.has("ro") && facts.mount("/proc/sys")?.has("ro"), "{facts:?}");
    Ok(())
}
