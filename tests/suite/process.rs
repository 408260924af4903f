//! The rest of what a config says about the process: scheduling, I/O priority, memory policy, personality, labels, clocks,
//! groups, and a program that is pura itself.

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{Bundle, Pura, pura_binary};

/// A number of `/proc/PID/stat`, counted as in proc(5), from 3 on.
fn stat_field(stat: &str, number: usize) -> Result<i64> {
    let after = stat.rsplit_once(')').context("stat")?.1;
    Ok(after.split_whitespace().nth(number - 3).context("stat")?.parse()?)
}

#[test]
fn create_without_a_process_succeeds_and_its_start_fails() -> Result<()> {
    requires!(userns);
    for field in ["process", "args", "[]"] {
        let mut bundle = Bundle::new()?;
        match field {
            "[]" => bundle.args(&[]),
            "process" => drop(bundle.config.as_object_mut().context("config")?.remove(field)),
            _ => drop(bundle.config["process"].as_object_mut().context("process")?.remove(field)),
        }
        drop(bundle.created()?);
        assert_eq!(bundle.status()?, "created");
        bundle.verb("start")?.fails(1, 803, &["process.args"])?;
        assert_eq!(bundle.status()?, "created", "a start that cannot be changed the container");
        bundle.delete()?;
    }
    Ok(())
}

#[test]
fn an_empty_program_name_fails_create_with_the_phrase_that_engines_know() -> Result<()> {
    let bundle = Bundle::with_args(&[""])?;
    bundle.is_refused(601, &["executable file not found in $PATH", "no such file or directory"])
}

#[test]
fn the_scheduler_applies_with_its_nice_value() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["read", "/proc/self/stat"])?;
    let own = stat_field(&fs::read_to_string("/proc/self/stat")?, 19)?;
    let higher = own.max(15);
    for (scheduler, policy, nice) in [
        (json!({"policy": "SCHED_BATCH", "nice": higher}), 3, higher),
        (json!({"policy": "SCHED_OTHER", "nice": 19}), 0, 19),
        (json!({"policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}), 5, own),
        (json!({"policy": "SCHED_OTHER"}), 0, own),
    ] {
        bundle.config["process"]["scheduler"] = scheduler;
        let outcome = bundle.run()?;
        let stat = outcome.succeeds()?;
        assert_eq!((stat_field(stat, 41)?, stat_field(stat, 19)?), (policy, nice), "{}", bundle.config["process"]);
    }
    Ok(())
}

#[test]
fn a_scheduler_that_makes_no_sense_is_refused_by_field() -> Result<()> {
    let mut bundle = Bundle::new()?;
    for (scheduler, word) in [
        (json!({"policy": "SCHED_OTHER", "priority": 5}), "process.scheduler.priority: 5"),
        (json!({"policy": "SCHED_FIFO"}), "process.scheduler.priority: 0"),
        (json!({"policy": "SCHED_FIFO", "priority": 100}), "process.scheduler.priority: 100"),
        (json!({"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice: 20"),
        (json!({"policy": "SCHED_BATCH", "runtime": 5}), "process.scheduler.runtime: 5"),
        (json!({"policy": "SCHED_ISO"}), "SCHED_ISO"),
        (json!({"policy": "SCHED_NONE"}), "SCHED_NONE"),
        (json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NONE"]}), "SCHED_FLAG_NONE"),
    ] {
        bundle.config["process"]["scheduler"] = scheduler;
        bundle.is_refused(803, &[word])?;
    }
    Ok(())
}

#[test]
fn a_priority_above_the_callers_is_refused_before_anything_is_made() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::new()?;
    for scheduler in [
        json!({"policy": "SCHED_FIFO", "priority": 1}),
        json!({"policy": "SCHED_RR", "priority": 9}),
        json!({"policy": "SCHED_OTHER", "nice": -1}),
        json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 2_000_000, "period": 2_000_000}),
    ] {
        bundle.config["process"]["scheduler"] = scheduler;
        bundle.is_refused(510, &["process.scheduler", "only real root may"])?;
    }
    bundle.config["process"]["scheduler"] = Value::Null;
    bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_RT", "priority": 4});
    bundle.is_refused(510, &["IOPRIO_CLASS_RT", "process.ioPriority"])
}

#[test]
fn real_root_raises_priorities_from_outside() -> Result<()> {
    requires!(root, busybox);
    let mut bundle = Bundle::with_args(&["sh", "-c", "cat /proc/self/stat; busybox ionice"])?;
    bundle.share_user();
    bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_RR", "priority": 3});
    bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_RT", "priority": 6});
    let outcome = bundle.run()?;
    let output = outcome.succeeds()?;
    assert_eq!(stat_field(output, 41).or_else(|_| stat_field(output.lines().next().unwrap_or_default(), 41))?, 2);
    assert!(output.contains("realtime: prio 6"), "{output}");
    Ok(())
}

#[test]
fn the_io_priority_applies_and_8_fails() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::with_args(&["/bin/busybox", "ionice"])?;
    for (class, priority, shown) in [("IOPRIO_CLASS_IDLE", 0, "idle"), ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6")] {
        bundle.config["process"]["ioPriority"] = json!({"class": class, "priority": priority});
        let outcome = bundle.run()?;
        assert_eq!(outcome.succeeds()?.trim_end(), shown);
    }
    for priority in [8, -1] {
        bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": priority});
        bundle.is_refused(803, &["process.ioPriority.priority", "between 0 and 7"])?;
    }
    Ok(())
}

#[test]
fn linux32_changes_uname_and_flags_fail() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::with_args(&["/bin/busybox", "uname", "-m"])?;
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX"});
    let own = bundle.run()?.succeeds()?.to_owned();
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX32", "flags": []});
    let outcome = bundle.run()?;
    assert_ne!(outcome.succeeds()?, own);
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]});
    bundle.is_refused(803, &["linux.personality.flags", "ADDR_NO_RANDOMIZE"])?;
    bundle.config["linux"]["personality"] = json!({"domain": "WINDOWS"});
    bundle.is_refused(803, &["WINDOWS"])
}

#[test]
fn a_group_of_resctrl_fails_without_resctrl_before_anything_is_made() -> Result<()> {
    if fs::read_to_string("/proc/self/mountinfo")?.contains(" - resctrl ") {
        return crate::harness::skip("kernel without resctrl", "it is mounted here");
    }
    for rdt in [json!({}), json!({"closID": "gold", "memBwSchema": "MB:0=20"}), json!({"enableMonitoring": true})] {
        let mut bundle = Bundle::probing(&["true"])?;
        bundle.config["linux"]["intelRdt"] = rdt;
        bundle.is_refused(511, &["linux.intelRdt", "resctrl"])?;
    }
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["linux"]["intelRdt"] = json!({"closID": "../gold"});
    bundle.is_refused(803, &["closID", "../gold"])
}

#[test]
fn the_memory_policy_applies() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["read", "/proc/self/numa_maps"])?;
    for (policy, shown) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), " bind:0"),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), " interleave=static:0"),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), " prefer:0"),
        (json!({"mode": "MPOL_LOCAL"}), " local"),
        (json!({"mode": "MPOL_DEFAULT"}), " default"),
    ] {
        bundle.config["linux"]["memoryPolicy"] = policy;
        let outcome = bundle.run()?;
        let maps = outcome.succeeds()?;
        assert!(maps.contains(shown), "{shown}: {maps}");
    }
    bundle.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "1000"});
    bundle.is_refused(511, &["linux.memoryPolicy"])
}

#[test]
fn a_memory_policy_that_makes_no_sense_is_refused_by_field() -> Result<()> {
    let mut bundle = Bundle::new()?;
    for (policy, word) in [
        (json!({"mode": "MPOL_BIND"}), "MPOL_BIND needs nodes"),
        (json!({"mode": "MPOL_DEFAULT", "nodes": "0"}), "MPOL_DEFAULT takes no nodes"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NONE"]}), "MPOL_F_NONE"),
        (json!({"mode": "MPOL_NONE"}), "MPOL_NONE"),
        (json!({"mode": "MPOL_BIND", "nodes": "3-1"}), "3-1"),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}), "MPOL_F_NUMA_BALANCING"),
    ] {
        bundle.config["linux"]["memoryPolicy"] = policy;
        bundle.is_refused(803, &[word])?;
    }
    Ok(())
}

#[test]
fn a_label_without_its_security_module_fails_and_unconfined_does_not() -> Result<()> {
    requires!(userns);
    let on = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.starts_with('Y'));
    let mut bundle = Bundle::probing(&["true"])?;
    for label in ["", "unconfined"] {
        bundle.config["process"]["apparmorProfile"] = label.into();
        bundle.run()?.succeeds_silently()?;
    }
    bundle.config["process"]["selinuxLabel"] = "".into();
    bundle.config["linux"]["mountLabel"] = "".into();
    bundle.run()?.succeeds_silently()?;
    if !on("/sys/module/apparmor/parameters/enabled") {
        bundle.config["process"]["apparmorProfile"] = "some-profile".into();
        let words = ["some-profile", "`/proc/self/attr/apparmor/exec`", "AppArmor is off", "process.apparmorProfile"];
        bundle.is_refused(509, &words)?;
        bundle.config["process"]["apparmorProfile"] = "".into();
    }
    if fs::metadata("/sys/fs/selinux/enforce").is_err() {
        bundle.config["process"]["selinuxLabel"] = "system_u:system_r:container_t:s0".into();
        bundle.is_refused(508, &["container_t", "`/proc/self/attr/exec`", "SELinux is off"])?;
        bundle.config["process"]["selinuxLabel"] = "".into();
        bundle.config["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0".into();
        bundle.is_refused(508, &["linux.mountLabel", "SELinux is off"])?;
    }
    Ok(())
}

#[test]
fn the_affinity_of_exec_is_not_that_of_the_program() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["read", "/proc/self/status"])?;
    let allowed = |status: &str| status.lines().find(|line| line.starts_with("Cpus_allowed_list")).map(str::to_owned);
    let before = bundle.run()?;
    bundle.config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    let after = bundle.run()?;
    assert_eq!(allowed(before.succeeds()?), allowed(after.succeeds()?));
    Ok(())
}

#[test]
fn the_oom_score_applies_without_a_pid_namespace_too() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["oom"])?;
    bundle.share("pid");
    bundle.unmount("/proc");
    bundle.mount("/proc", "none", "/proc", &["rbind"])?;
    bundle.config["process"]["oomScoreAdj"] = 700.into();
    assert_eq!(bundle.facts()?.get("oom_score_adj")?, "700");
    Ok(())
}

/// Whether the user's kernel has time namespaces.
fn has_time() -> bool {
    fs::metadata("/proc/self/ns/time_for_children").is_ok()
}

/// Seconds that `/proc/uptime` of the test shows.
fn uptime(text: &str) -> Result<f64> {
    Ok(text.split_whitespace().next().context("uptime")?.parse()?)
}

#[test]
fn clocks_are_shifted_in_a_new_time_namespace() -> Result<()> {
    requires!(userns);
    ensure!(has_time(), "the kernel of a test machine has time namespaces");
    let mut bundle = Bundle::probing(&["read", "/proc/uptime"])?;
    bundle.push("/linux/namespaces", json!({"type": "time"}))?;
    let plain = uptime(bundle.run()?.succeeds()?)?;
    bundle.config["linux"]["timeOffsets"] =
        json!({"boottime": {"secs": 86400, "nanosecs": 5}, "monotonic": {"secs": 1}});
    let shifted = uptime(bundle.run()?.succeeds()?)?;
    assert!((86_400.0..87_400.0).contains(&(shifted - plain)), "{plain} {shifted}");
    bundle.args(&["/bin/pura-probe", "session", "maps"]);
    let facts = bundle.facts()?;
    assert_eq!(facts.get("pid")?, "1");
    Ok(())
}

#[test]
fn the_second_process_of_a_start_is_the_one_that_all_verbs_know() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.push("/linux/namespaces", json!({"type": "time"}))?;
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 86400}});
    bundle.config["process"]["oomScoreAdj"] = 600.into();
    let pid_file = bundle.path("pid");
    let mut running = bundle.with_bundle("create", &["--pid-file", &pid_file.to_string_lossy(), "c1"])?.spawn()?;
    running.wait()?.succeeds_silently()?;
    let pid = bundle.pid()?;
    assert_eq!(fs::read_to_string(pid_file)?, pid.to_string());
    assert_eq!(bundle.status()?, "created");
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")), "{status}");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?.trim_end(), "600");
    assert_ne!(fs::read_link(format!("/proc/{pid}/ns/time"))?, fs::read_link("/proc/self/ns/time")?);
    bundle.verb("start")?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    assert_eq!((bundle.status()?, bundle.pid()?), ("running".to_owned(), pid));
    bundle.verb("kill")?.succeeds_silently()?;
    assert!(running.rest()?.is_empty());
    bundle.becomes("stopped")?;
    bundle.verb("delete")?.succeeds_silently()
}

#[test]
fn a_failure_after_the_second_clone_leaves_nothing() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::with_args(&["/bin/nope"])?;
    bundle.push("/linux/namespaces", json!({"type": "time"}))?;
    bundle.config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 10}});
    bundle.is_refused(602, &["/bin/nope"])
}

#[test]
fn offsets_that_cannot_be_are_refused() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 86400}});
    bundle.is_refused(806, &["linux.timeOffsets", "time namespace"])?;
    bundle.push("/linux/namespaces", json!({"type": "time"}))?;
    for (offsets, code, word) in [
        (json!({"boottime": {"secs": 1, "nanosecs": 1_000_000_000}}), 216, "1000000000"),
        (json!({"realtime": {"secs": 1}}), 803, "realtime"),
        (json!({"boottime": {"secs": -9_000_000_000_i64}}), 216, "linux.timeOffsets"),
    ] {
        bundle.config["linux"]["timeOffsets"] = offsets;
        bundle.is_refused(code, &[word])?;
    }
    Ok(())
}

#[test]
fn a_time_namespace_is_joined_with_its_user_namespace() -> Result<()> {
    requires!(userns);
    let mut first = Bundle::probing(&["sleep"])?;
    first.push("/linux/namespaces", json!({"type": "time"}))?;
    first.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 86400}});
    let running = first.started()?;
    let pid = first.pid()?;
    let mut second = Bundle::probing(&["read", "/proc/uptime"])?;
    second.share_user();
    second.push("/linux/namespaces", json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}))?;
    second.push("/linux/namespaces", json!({"type": "time", "path": format!("/proc/{pid}/ns/time")}))?;
    let own = uptime(&fs::read_to_string("/proc/uptime")?)?;
    let shifted = uptime(second.run()?.succeeds()?)?;
    assert!((86_400.0..87_400.0).contains(&(shifted - own)), "{own} {shifted}");
    // And state knows init, although its start is shown in other clocks inside.
    second.args(&["/bin/pura-probe", "sleep"]);
    let other = second.started()?;
    assert_eq!(second.status()?, "running");
    second.delete()?;
    drop(other);
    drop(running);
    first.delete()
}

#[test]
fn new_clocks_are_shifted_in_a_joined_user_namespace_too() -> Result<()> {
    requires!(userns);
    let first = Bundle::probing(&["sleep"])?;
    let running = first.started()?;
    let pid = first.pid()?;
    let mut second = Bundle::probing(&["read", "/proc/uptime"])?;
    second.share_user();
    second.push("/linux/namespaces", json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}))?;
    second.push("/linux/namespaces", json!({"type": "time"}))?;
    second.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 86400}});
    let own = uptime(&fs::read_to_string("/proc/uptime")?)?;
    let shifted = uptime(second.run()?.succeeds()?)?;
    assert!((86_400.0..87_400.0).contains(&(shifted - own)), "{own} {shifted}");
    drop(running);
    first.delete()
}

#[test]
fn a_joined_pid_namespace_has_the_pid_of_the_callers_view_in_the_pid_file() -> Result<()> {
    requires!(userns);
    let first = Bundle::probing(&["sleep"])?;
    let running = first.started()?;
    let pid = first.pid()?;
    let mut second = Bundle::probing(&["sleep"])?;
    second.share_user();
    second.share("pid");
    second.push("/linux/namespaces", json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}))?;
    second.push("/linux/namespaces", json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}))?;
    second.config["process"]["oomScoreAdj"] = 650.into();
    let pid_file = second.path("pid");
    let mut other = second.with_bundle("create", &["--pid-file", &pid_file.to_string_lossy(), "c1"])?.spawn()?;
    other.wait()?.succeeds_silently()?;
    let inner = second.pid()?;
    assert_eq!(fs::read_to_string(&pid_file)?, inner.to_string());
    // Its namespaces are not for us to read: it shares them with container code, and hides until exec.
    let status = fs::read_to_string(format!("/proc/{inner}/status"))?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    assert_eq!(ids.split_whitespace().count(), 2, "{status}");
    second.verb("start")?.succeeds_silently()?;
    assert_eq!(other.line()?, "ready");
    second.verb("kill")?.succeeds_silently()?;
    assert!(other.rest()?.is_empty());
    second.becomes("stopped")?;
    second.delete()?;
    drop(running);
    first.delete()
}

#[test]
fn the_callers_groups_are_kept_when_an_annotation_says_so() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["ids"])?;
    for value in ["1", "true"] {
        bundle.config["annotations"] = json!({"run.oci.keep_original_groups": value});
        bundle.run_strictly()?.facts()?;
    }
    bundle.config["process"]["user"]["additionalGids"] = json!([0]);
    bundle.run_strictly()?.fails(125, 123, &["run.oci.keep_original_groups"])?;
    bundle.run()?.facts()?;
    bundle.config["annotations"] = json!({"run.oci.keep_original_groups": "0"});
    bundle.run_strictly()?.facts()?;
    Ok(())
}

#[test]
fn kept_groups_make_no_setgroups_call() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut bundle = Bundle::probing(&["ids"])?;
    bundle.share_user();
    let plan =
        |bundle: &Bundle| -> Result<String> { Ok(bundle.with_bundle("plan", &[])?.output()?.succeeds()?.to_owned()) };
    assert!(plan(&bundle)?.contains("drop the supplementary groups"));
    bundle.config["annotations"] = json!({"run.oci.keep_original_groups": "1"});
    assert!(!plan(&bundle)?.contains("drop the supplementary groups"));
    bundle.run()?.facts()?;
    Ok(())
}

#[test]
fn a_joined_user_namespace_has_the_joined_uts_namespace_in_it() -> Result<()> {
    requires!(userns);
    let first = Bundle::probing(&["sleep"])?;
    let running = first.started()?;
    let pid = first.pid()?;
    let mut second = Bundle::probing(&["ns"])?;
    second.share_user();
    second.push("/linux/namespaces", json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}))?;
    second.push("/linux/namespaces", json!({"type": "uts", "path": format!("/proc/{pid}/ns/uts")}))?;
    second.config["linux"]["namespaces"]
        .as_array_mut()
        .context("namespaces")?
        .retain(|namespace| namespace["type"] != "uts" || namespace["path"].is_string());
    let facts = second.facts()?;
    assert_eq!(facts.get("ns.uts")?, fs::read_link(format!("/proc/{pid}/ns/uts"))?.to_string_lossy());
    drop(running);
    first.delete()
}

#[test]
fn pura_itself_is_no_program_for_a_container() -> Result<()> {
    requires!(userns);
    for program in ["/proc/self/exe", "/script", "/deeper"] {
        let bundle = Bundle::with_args(&[program])?;
        for (name, interpreter) in [("script", "/proc/self/exe"), ("deeper", "/script")] {
            let path = bundle.rootfs(name);
            fs::write(&path, format!("#! {interpreter} -x\n"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        bundle.is_refused(603, &[program, "it is pura itself"])?;
        bundle.run()?.fails(126, 603, &[program])?;
    }
    Ok(())
}

/// A copy of pura that the user owns.
fn own_copy(bundle: &Bundle) -> Result<Vec<OsString>> {
    let copy = bundle.path("pura-copy");
    ensure!(Command::new("cp").arg(pura_binary()).arg(&copy).status()?.success());
    Ok(vec![copy.into(), "--root".into(), bundle.path("state").into()])
}

#[test]
fn a_binary_that_the_container_may_write_runs_from_a_sealed_copy() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    let words = own_copy(&bundle)?;
    let call = |verb: &[OsString]| Pura::through(bundle.dir(), &[words.as_slice(), verb].concat());
    let create: Vec<OsString> = ["create".into(), "--bundle".into(), bundle.path("bundle").into(), "c1".into()].into();
    let mut running = call(&create).spawn()?;
    running.wait()?.succeeds_silently()?;
    let program = fs::read_link(format!("/proc/{}/exe", bundle.pid()?))?;
    assert!(program.to_string_lossy().starts_with("/memfd:pura"), "{program:?}");
    call(&["start".into(), "c1".into()]).output()?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    bundle.delete()
}

#[test]
fn a_binary_is_copied_otherwise_where_files_in_memory_are_refused() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let mut shared = Bundle::probing(&["sleep"])?;
    shared.share_user();
    is_copied(&bundle, &[], " (deleted)")?;
    // Who has power over mounts.
    is_copied(&shared, &["unshare", "--user", "--map-root-user", "--mount"], "/")
}

/// EACCES is what `vm.memfd_noexec` says.
fn is_copied(bundle: &Bundle, unshare: &[&str], wanted: &str) -> Result<()> {
    bundle.write()?;
    let words = own_copy(bundle)?;
    let create: Vec<OsString> = ["create".into(), "--bundle".into(), bundle.path("bundle").into(), "c1".into()].into();
    let pura = Pura::through(bundle.dir(), &[words.as_slice(), create.as_slice()].concat());
    let call = crate::fallback::hidden(bundle, "13", "memfd_create", &pura);
    let call = if unshare.is_empty() { call } else { bundle.through(unshare, &call) };
    let mut running = call.spawn()?;
    running.wait()?.succeeds_silently()?;
    let program = fs::read_link(format!("/proc/{}/exe", bundle.pid()?))?;
    let program = program.to_string_lossy();
    let is_original = *program == *words[0].to_string_lossy();
    ensure!(program.ends_with(wanted) && !program.contains("memfd") && !is_original, "{program}");
    bundle.delete()
}

#[test]
fn a_binary_that_the_container_cannot_write_is_not_copied() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.created()?;
    let program = fs::read_link(format!("/proc/{}/exe", bundle.pid()?))?;
    assert_eq!(program, fs::canonicalize(pura_binary())?);
    bundle.delete()?;
    drop(running);
    Ok(())
}
