//! `linux.resources.devices`: which of the host's devices real root's containers may open. `/dev/kmsg` stands for them,
//! because every machine has it, and who may write it is a matter of its mode.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::harness::{Bundle, Outcome};

/// A container of real root's with these rules, in which a shell runs.
fn ruled(rules: &Value, script: &str) -> Result<Bundle> {
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
    bundle.share_user();
    bundle.mount("/dev/host", "bind", "/dev/kmsg", &["bind"])?;
    if !rules.is_null() {
        bundle.config["linux"]["resources"] = json!({"devices": rules});
    }
    Ok(bundle)
}

const OPEN: &str = "exec 3>/dev/host && echo opened";

fn device(allow: bool, access: &str) -> Value {
    json!({"allow": allow, "type": "c", "major": 1, "minor": 11, "access": access})
}

fn deny_all() -> Value {
    json!({"allow": false, "access": "rwm"})
}

#[track_caller]
fn is_denied(outcome: &Outcome) {
    assert!(outcome.code() != 0 && outcome.stderr.contains("Operation not permitted"), "{outcome:?}");
    assert!(!outcome.stderr.contains("PURA"), "{outcome:?}");
}

#[test]
fn root_opens_devices_as_the_last_rule_that_names_them_says() -> Result<()> {
    requires!(root, busybox);
    let cases = [
        (Value::Null, true),
        (json!([]), true),
        (json!([deny_all()]), false),
        (json!([deny_all(), device(true, "w")]), true),
        (json!([deny_all(), device(true, "r")]), false),
        (json!([deny_all(), device(true, "r"), device(true, "w")]), true),
        (json!([device(true, "rwm"), deny_all()]), false),
        (json!([{"allow": true}, {"allow": false, "type": "c", "major": 1}]), false),
        (json!([{"allow": true}, device(false, "r")]), true),
        (json!([deny_all(), {"allow": true, "type": "b"}]), false),
    ];
    for (rules, is_open) in cases {
        let outcome = ruled(&rules, OPEN)?.run_strictly()?;
        if is_open {
            assert_eq!(outcome.succeeds()?, "opened\n", "{rules}");
        } else {
            is_denied(&outcome);
        }
    }
    Ok(())
}

#[test]
fn root_always_has_the_devices_of_every_container() -> Result<()> {
    requires!(root, busybox);
    let script = "for name in null zero full random urandom; do exec 3<>/dev/$name || exit 1; done; exec 3<>/dev/ptmx";
    ruled(&json!([deny_all(), {"allow": false, "type": "c"}]), script)?.run_strictly()?.succeeds_silently()
}

#[test]
fn root_in_the_hosts_user_namespace_may_make_a_node_and_not_open_it() -> Result<()> {
    requires!(root, busybox);
    let mut bundle = ruled(&json!([deny_all()]), "mknod /tmp/node c 1 11 && echo made && exec 3>/tmp/node")?;
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["nosuid"])?;
    let capabilities = json!(["CAP_MKNOD"]);
    bundle.config["process"]["capabilities"] =
        json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
    bundle.write()?;
    let words = ["--userns=inherit", "run", "-b"];
    let outcome = bundle.pura(&words).args(&[bundle.path("bundle")]).args(&["c1"]).output()?;
    assert_eq!(outcome.stdout, "made\n", "{outcome:?}");
    is_denied(&outcome);
    Ok(())
}

#[test]
fn root_changes_the_rules_with_update_and_exec_obeys_them() -> Result<()> {
    requires!(root, busybox);
    let mut bundle = ruled(&json!([deny_all()]), "")?;
    bundle.config["process"]["args"] = json!(["/bin/pura-probe", "sleep"]);
    let _running = bundle.started()?;
    let open = || bundle.pura(&["exec", "c1", "/bin/sh", "-c", OPEN]).output();
    is_denied(&open()?);
    let file = bundle.path("resources");
    let update = |rules: Value| {
        fs::write(&file, json!({"devices": rules}).to_string())?;
        bundle.pura(&["--strict", "update", "-r", &file.to_string_lossy(), "c1"]).output()
    };
    for (rules, is_open) in [
        (json!([deny_all(), device(true, "w")]), true),
        // Nothing is asked for: as before.
        (json!([]), true),
        (json!([deny_all()]), false),
        (json!([{"allow": true, "access": "rwm"}]), true),
        (json!([{"allow": true}, device(false, "rw")]), false),
    ] {
        update(rules.clone())?.succeeds_silently()?;
        let outcome = open()?;
        if is_open {
            assert_eq!(outcome.succeeds()?, "opened\n", "{rules}");
        } else {
            is_denied(&outcome);
        }
    }
    update(json!([{"allow": false, "access": "x"}]))?.fails(1, 803, &["devices[0]", "\"x\""])?;
    is_denied(&open()?);
    bundle.delete()
}

#[test]
fn root_leaves_no_rules_on_a_cgroup_that_stays() -> Result<()> {
    requires!(root, busybox);
    let mounts = fs::read_to_string("/proc/mounts")?;
    let hierarchy = mounts.lines().find_map(|line| line.split(' ').nth(1).filter(|_| line.contains(" cgroup2 ")));
    let name = format!("pura-rules-{}", std::process::id());
    let cgroup = PathBuf::from(hierarchy.context("cgroup2")?).join(&name);
    fs::create_dir(&cgroup)?;
    let run = |rules: Value, end: &str| -> Result<Outcome> {
        let mut bundle = ruled(&rules, OPEN)?;
        bundle.config["linux"]["cgroupsPath"] = format!("/{name}").into();
        if end == "run" {
            return bundle.run();
        }
        let _running = bundle.created()?;
        bundle.verb("start")?.succeeds_silently()?;
        bundle.becomes("stopped")?;
        bundle.verb("delete")
    };
    for end in ["run", "delete"] {
        let ruled = run(json!([deny_all()]), end)?;
        assert_eq!(ruled.code() == 0, end == "delete", "{ruled:?}");
        assert_eq!(run(Value::Null, "run")?.succeeds()?, "opened\n", "after {end}");
    }
    Ok(fs::remove_dir(cgroup)?)
}

#[test]
fn root_sees_the_rules_in_the_plan_and_is_warned_where_there_is_no_cgroup() -> Result<()> {
    requires!(root, busybox);
    let bundle = ruled(&json!([deny_all(), device(true, "rw")]), OPEN)?;
    let plan = bundle.with_bundle("plan", &[])?.output()?;
    assert!(plan.succeeds()?.contains("deny all devices, allow c 1:11 rw"), "{plan:?}");
    bundle.write()?;
    let words = ["--cgroup-manager", "disabled", "--strict", "create", "-b"];
    let outcome = bundle.pura(&words).args(&[bundle.path("bundle")]).args(&["c1"]).output()?;
    outcome.fails(1, 464, &["linux.resources.devices", "no cgroup of its own"])?;
    bundle.is_clean()
}

#[test]
fn rules_are_judged_for_everybody_and_moot_for_all_but_root() -> Result<()> {
    requires!(userns);
    for (rule, word) in [
        (json!({"allow": true, "type": "p"}), "type \"p\""),
        (json!({"allow": true, "access": "rx"}), "\"rx\""),
        (json!({"allow": true, "type": "c", "major": -2}), "-2"),
        (json!({"allow": true, "type": "c", "minor": 4_294_967_296_i64}), "4294967296"),
    ] {
        let mut bundle = Bundle::probing(&["true"])?;
        bundle.config["linux"]["resources"] = json!({"devices": [rule]});
        bundle.is_refused(803, &["devices[0]", word])?;
    }
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["linux"]["resources"] = json!({"devices": [deny_all()]});
    bundle.run_strictly()?.succeeds_silently()
}
