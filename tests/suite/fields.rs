//! config.json, field by field: what no one knows is ignored, what is no value of a field is refused by its name.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::harness::{Bundle, Outcome};

/// A config with at least one object of every kind that pura reads.
fn full() -> Result<Bundle> {
    let mut bundle = Bundle::probing(&["true"])?;
    let process = &mut bundle.config["process"];
    process["consoleSize"] = json!({"height": 10, "width": 20});
    process["capabilities"] = json!({"bounding": ["CAP_KILL"]});
    process["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
    process["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 19});
    process["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    process["execCPUAffinity"] = json!({"final": "0"});
    bundle.config["hooks"] = json!({});
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let path = if kind == "startContainer" { "/bin/pura-probe" } else { "/bin/true" };
        bundle.config["hooks"][kind] = json!([{"path": path, "args": ["x", "true"]}]);
    }
    let linux = &mut bundle.config["linux"];
    linux["resources"] = json!({
        "devices": [{"allow": false}], "memory": {}, "cpu": {}, "pids": {"limit": 0}, "hugepageLimits": [], "rdma": {},
        "unified": {}
    });
    linux["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "flags": [],
        "syscalls": [{
            "names": ["reboot"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]
        }]
    });
    linux["devices"] = json!([{"path": "/dev/full", "type": "c", "major": 1, "minor": 7}]);
    linux["personality"] = json!({"domain": "LINUX"});
    linux["memoryPolicy"] = json!({"mode": "MPOL_DEFAULT"});
    linux["rootfsPropagation"] = "rprivate".into();
    Ok(bundle)
}

#[test]
fn a_misspelt_key_is_shown_by_plan_and_refused_under_strict_and_engines_hear_nothing() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["process"]["noNewPrivilege"] = true.into();
    bundle.config["linux"]["maskPaths"] = json!(["/x"]);
    let words = "linux.maskPaths (perhaps maskedPaths), process.noNewPrivilege (perhaps noNewPrivileges)";
    let plan = bundle.with_bundle("plan", &["c1"])?.output()?;
    assert!(plan.succeeds()?.lines().any(|line| line.starts_with("warning: ") && line.contains(words)), "{plan:?}");
    bundle.run()?.succeeds_silently()?;
    let log = bundle.path("log");
    let heard = bundle.pura(&["--log-level", "warning", "--log"]).args(&[&log]).args(&["run", "-b"]);
    heard.args(&[bundle.path("bundle")]).args(&["c1"]).output()?.succeeds_silently()?;
    assert!(fs::read_to_string(&log)?.contains(words), "it is not in the log");
    for (verb, status) in [("create", 1), ("run", 125)] {
        let strict = bundle.pura(&["--strict", verb, "-b"]).args(&[bundle.path("bundle")]).args(&["c1"]);
        strict.output()?.fails(status, 808, &["keys that the specification does not know", words])?;
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn what_is_missing_because_it_is_misspelt_is_told_with_what_stands_there() -> Result<()> {
    for (key, typed, wanted) in
        [("cwd", "cdw", "missing field `cwd`"), ("args", "arg", "process.args: there is no program")]
    {
        let mut bundle = Bundle::probing(&["true"])?;
        let process = bundle.config["process"].as_object_mut().context("process")?;
        let value = process.remove(key).context(key)?;
        process.insert(typed.to_owned(), value);
        let words = format!("process.{typed} (perhaps {key}) is no key of the specification");
        bundle.run()?.fails(125, 803, &[wanted, &words])?;
        bundle.is_clean()?;
    }
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config.as_object_mut().context("config")?.remove("ociVersion");
    bundle.run()?.fails(125, 805, &["ociVersion: it is missing"])?;
    bundle.is_clean()
}

/// Adds a key to every object below, wherever the specification, and not the user, chooses the keys.
fn everywhere(value: &mut Value, key: &str, unknown: &Value) {
    match value {
        Value::Object(all) => {
            for (name, below) in all.iter_mut() {
                let is_free = ["annotations", "unified", "rdma"].contains(&name.as_str());
                if !is_free {
                    everywhere(below, key, unknown);
                }
            }
            all.insert(key.to_owned(), unknown.clone());
        }
        Value::Array(all) => all.iter_mut().for_each(|below| everywhere(below, key, unknown)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn an_unknown_key_at_every_level_is_ignored() -> Result<()> {
    requires!(userns);
    let unknown = json!({"any": ["thing", 1, null], "deep": [[{"user": [], "root": [[]]}]], "process": []});
    for unknown in [unknown, Value::Null, json!([[1], []]), json!("text")] {
        let mut bundle = full()?;
        everywhere(&mut bundle.config, "org.example.unknown", &unknown);
        bundle.run()?.succeeds_silently()?;
    }
    Ok(())
}

#[test]
fn what_is_for_other_platforms_is_ignored() -> Result<()> {
    requires!(userns);
    let mut bundle = full()?;
    bundle.config["windows"] = json!({"layerFolders": ["C:\\layer"], "network": {"allowUnqualifiedDNSQuery": true}});
    bundle.config["solaris"] = json!({"milestone": "svc:/x", "anet": []});
    bundle.config["zos"] = json!({"namespaces": [{"type": "ipc"}]});
    bundle.config["freebsd"] = json!({"jail": {"host": "new"}});
    bundle.config["process"]["commandLine"] = "cmd".into();
    bundle.config["process"]["user"]["username"] = "containeradministrator".into();
    bundle.run()?.succeeds_silently()
}

#[test]
fn an_unknown_value_of_every_enumeration_is_refused_by_its_field() -> Result<()> {
    for (pointer, place) in [
        ("/process/rlimits/0/type", "process.rlimits[0].type"),
        ("/process/scheduler/policy", "process.scheduler.policy"),
        ("/process/ioPriority/class", "process.ioPriority.class"),
        ("/linux/namespaces/2/type", "linux.namespaces[2].type"),
        ("/linux/rootfsPropagation", "linux.rootfsPropagation"),
        ("/linux/devices/0/type", "linux.devices[0].type"),
        ("/linux/resources/devices/0/type", "linux.resources.devices[0].type"),
        ("/linux/seccomp/defaultAction", "linux.seccomp.defaultAction"),
        ("/linux/seccomp/architectures/0", "linux.seccomp.architectures[0]"),
        ("/linux/seccomp/syscalls/0/action", "linux.seccomp.syscalls[0].action"),
        ("/linux/seccomp/syscalls/0/args/0/op", "linux.seccomp.syscalls[0].args[0].op"),
        ("/linux/personality/domain", "linux.personality.domain"),
        ("/linux/memoryPolicy/mode", "linux.memoryPolicy.mode"),
    ] {
        let mut bundle = full()?;
        let (parent, key) = pointer.rsplit_once('/').context("pointer")?;
        let parent = bundle.config.pointer_mut(parent).context("parent")?;
        match key.parse::<usize>() {
            Ok(position) => parent[position] = "BOGUS".into(),
            Err(_name) => parent[key] = "BOGUS".into(),
        }
        bundle.is_refused(803, &[place, "BOGUS"])?;
    }
    for (pointer, place) in [
        ("/process/scheduler", "process.scheduler.flags[0]"),
        ("/linux/seccomp", "linux.seccomp.flags[0]"),
        ("/linux/memoryPolicy", "linux.memoryPolicy.flags[0]"),
    ] {
        let mut bundle = full()?;
        bundle.config.pointer_mut(pointer).context("parent")?["flags"] = json!(["BOGUS"]);
        bundle.is_refused(803, &[place, "BOGUS"])?;
    }
    Ok(())
}

#[test]
fn a_value_of_another_type_is_refused_by_its_field() -> Result<()> {
    for (pointer, key, value) in [
        ("/process", "noNewPrivileges", json!("true")),
        ("/linux", "maskedPaths", json!("/proc")),
        ("/process", "oomScoreAdj", json!("0")),
        ("/process", "terminal", json!(1)),
        ("/process", "args", json!([1])),
        ("/process/user", "uid", json!(1.5)),
        ("/root", "readonly", json!("yes")),
        ("", "hostname", json!(["h"])),
        ("", "mounts", json!({})),
        ("", "annotations", json!({"a": 1})),
        ("/linux", "uidMappings", json!([{"containerID": "0"}])),
    ] {
        let mut bundle = full()?;
        let parent = bundle.config.pointer_mut(pointer).context("parent")?;
        parent[key] = value;
        let place = format!(
            "{}{}{key}",
            pointer.trim_start_matches('/').replace('/', "."),
            if pointer.is_empty() { "" } else { "." }
        );
        bundle.is_refused(803, &[&place])?;
    }
    Ok(())
}

#[test]
fn a_null_in_the_place_of_every_optional_value_is_absent() -> Result<()> {
    requires!(userns);
    for pointer in [
        "/annotations",
        "/hooks",
        "/hooks/poststop",
        "/hooks/prestart/0/env",
        "/hooks/prestart/0/timeout",
        "/process/env",
        "/process/rlimits",
        "/process/capabilities",
        "/process/capabilities/bounding",
        "/process/user/additionalGids",
        "/process/user/umask",
        "/process/scheduler",
        "/process/ioPriority",
        "/process/execCPUAffinity",
        "/process/consoleSize",
        "/process/terminal",
        "/process/oomScoreAdj",
        "/process/apparmorProfile",
        "/process/selinuxLabel",
        "/mounts/0/options",
        "/mounts/0/uidMappings",
        "/linux/devices",
        "/linux/sysctl",
        "/linux/resources",
        "/linux/resources/devices",
        "/linux/cgroupsPath",
        "/linux/seccomp",
        "/linux/seccomp/syscalls",
        "/linux/seccomp/architectures",
        "/linux/seccomp/flags",
        "/linux/seccomp/syscalls/0/args",
        "/linux/maskedPaths",
        "/linux/readonlyPaths",
        "/linux/rootfsPropagation",
        "/linux/personality",
        "/linux/memoryPolicy",
        "/linux/timeOffsets",
        "/linux/intelRdt",
        "/linux/netDevices",
        "/root/readonly",
        "/domainname",
        "/linux/namespaces/0/path",
    ] {
        let mut bundle = full()?;
        let (parent, key) = pointer.rsplit_once('/').context("pointer")?;
        bundle.config.pointer_mut(parent).context("parent")?[key] = Value::Null;
        if pointer == "/process/env" {
            // Without it the program has no mark by which it could be found, and needs none: it ends at once.
            bundle.args(&["/bin/pura-probe", "true"]);
        }
        bundle.run()?.succeeds_silently().with_context(|| pointer.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_nul_in_any_string_is_refused() -> Result<()> {
    for pointer in [
        "/ociVersion",
        "/hostname",
        "/root/path",
        "/process/cwd",
        "/process/args/0",
        "/process/env/0",
        "/mounts/0/type",
        "/mounts/0/source",
        "/mounts/0/destination",
        "/mounts/0/options/0",
        "/hooks/poststop/0/path",
        "/hooks/poststop/0/args/0",
        "/linux/devices/0/path",
        "/linux/seccomp/syscalls/0/names/0",
        "/linux/cgroupsPath",
        "/annotations/a",
        "/linux/sysctl/net.x",
        "/org.example.unknown",
    ] {
        let mut bundle = full()?;
        bundle.config["annotations"] = json!({"a": "b"});
        bundle.config["linux"]["sysctl"] = json!({"net.x": "1"});
        bundle.config["linux"]["cgroupsPath"] = "x".into();
        bundle.config["org.example.unknown"] = "x".into();
        let value = bundle.config.pointer_mut(pointer).context("value")?;
        *value = format!("{}\u{0}x", value.as_str().context("a string")?).into();
        bundle.is_refused_with_any(&[802, 803, 805], &["NUL"]).with_context(|| pointer.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_known_key_that_stands_twice_is_refused() -> Result<()> {
    for key in [
        "hostname",
        "process",
        "user",
        "uid",
        "args",
        "path",
        "mounts",
        "destination",
        "linux",
        "namespaces",
        "type",
        "rlimits",
        "soft",
        "bounding",
        "hooks",
        "poststop",
        "seccomp",
        "defaultAction",
        "names",
        "domain",
        "resources",
        "containerID",
    ] {
        let bundle = full()?;
        bundle.write()?;
        let file = bundle.path("bundle/config.json");
        let text = fs::read_to_string(&file)?;
        let twice = text.replacen(&format!("\"{key}\":"), &format!("\"{key}\": null, \"{key}\":"), 1);
        assert_ne!(twice, text, "{key}");
        fs::write(&file, twice)?;
        let outcome = bundle.pura(&["create", "--bundle"]).args(&[bundle.path("bundle")]).args(&["c1"]).output()?;
        let judged = outcome.fails(1, 803, &[key]);
        judged.with_context(|| format!("{key} twice"))?;
        bundle.is_clean()?;
    }
    Ok(())
}

/// `exec` of a process object as text.
fn exec(bundle: &Bundle, process: &str) -> Result<Outcome> {
    let file = bundle.path("process.json");
    fs::write(&file, process)?;
    bundle.pura(&["exec", "--process"]).args(&[&file]).args(&["c1"]).output()
}

#[test]
fn the_process_of_an_exec_is_read_as_the_config_is() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["/bin/pura-probe", "caps", "oom"]);
    process["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_OF_TOMORROW"]});
    process["scheduler"] = json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    process["oomScoreAdj"] = 777.into();
    process["org.example.unknown"] = json!([[1]]);
    let facts = exec(&bundle, &process.to_string())?.facts()?;
    assert_eq!((facts.get("CapBnd")?, facts.get("oom_score_adj")?), ("0000000000000020", "777"));
    for (key, value, code, words) in [
        ("user", json!([]), 803, &["user"][..]),
        ("cwd", json!("/\u{0}"), 803, &["NUL"]),
        ("scheduler", json!({"policy": "BOGUS"}), 803, &["process.scheduler.policy", "BOGUS"]),
        ("oomScoreAdj", json!(1001), 803, &["oomScoreAdj", "1001"]),
    ] {
        let mut bad = process.clone();
        bad[key] = value;
        exec(&bundle, &bad.to_string())?.fails(125, code, words)?;
    }
    let twice = process.to_string().replacen("\"cwd\":", "\"cwd\":\"/\",\"cwd\":", 1);
    exec(&bundle, &twice)?.fails(125, 803, &["cwd"])?;
    bundle.delete()
}
