//! cgroups: where containers live, that they stand still, that all of them end.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Bundle, Pura, eventually, own_cgroup};

/// The cgroup that the state names.
fn leaf(bundle: &Bundle) -> Result<PathBuf> {
    let state = bundle.state()?;
    Ok(PathBuf::from(state["pura"]["cgroup"].as_str().with_context(|| format!("no cgroup: {state}"))?))
}

fn read(bundle: &Bundle, name: &str) -> Result<String> {
    let path = leaf(bundle)?.join(name);
    Ok(fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim().to_owned())
}

/// A name that no other test has, below the caller's cgroup.
fn fresh(bundle: &Bundle, name: &str) -> Result<PathBuf> {
    let dir = bundle.dir().file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(own_cgroup()?.join(format!("{name}-{dir}")))
}

fn asking(path: &str) -> Result<Bundle> {
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["linux"]["cgroupsPath"] = path.into();
    Ok(bundle)
}

#[test]
fn init_and_exec_are_in_the_leaf_and_it_goes_with_the_container() -> Result<()> {
    requires!(userns, cgroup);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let leaf = leaf(&bundle)?;
    let line = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid()?))?;
    assert!(line.trim().ends_with(leaf.strip_prefix("/sys/fs/cgroup")?.to_str().context("utf-8")?), "{line}");
    let mut exec = bundle.pura(&["exec", "--detach", "c1", "/bin/pura-probe", "sleep"]).spawn()?;
    exec.wait()?.succeeds()?;
    let pids = fs::read_to_string(leaf.join("cgroup.procs"))?;
    assert_eq!(pids.lines().count(), 2, "{pids}");
    bundle.delete()?;
    assert!(!leaf.exists());
    Ok(())
}

#[test]
fn exec_enters_the_cgroup_and_then_its_namespace() -> Result<()> {
    requires!(userns, busybox, cgroup);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.share("cgroup");
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    let _running = bundle.started()?;
    let of_init = fs::read_link(format!("/proc/{}/ns/cgroup", bundle.pid()?))?;
    let exec = bundle.pura(&["exec", "c1", "/bin/busybox", "readlink", "/proc/self/ns/cgroup"]).output()?;
    assert_eq!(exec.succeeds()?.trim(), of_init.to_string_lossy());
    let mut exec = bundle.pura(&["exec", "--detach", "c1", "/bin/pura-probe", "sleep"]).spawn()?;
    exec.wait()?.succeeds()?;
    let pids = read(&bundle, "cgroup.procs")?;
    assert_eq!(pids.lines().count(), 2, "{pids}");
    bundle.delete()
}

#[test]
fn one_cgroups_path_is_one_cgroup_and_one_that_leads_out_makes_nothing() -> Result<()> {
    requires!(userns, cgroup);
    for path in ["../up", "a/../../up", "/../up", "/", ".", "./."] {
        asking(path)?.is_refused(803, &["linux.cgroupsPath"])?;
    }
    assert!(!own_cgroup()?.join("../up").exists());
    let probe = Bundle::new()?;
    let target = fresh(&probe, "asked")?;
    let inside = target.strip_prefix("/sys/fs/cgroup")?;
    for path in
        [format!("/{}", inside.display()), target.file_name().unwrap_or_default().to_string_lossy().into_owned()]
    {
        let bundle = asking(&path)?;
        let _running = bundle.started()?;
        assert_eq!(leaf(&bundle)?, target);
        bundle.delete()?;
        assert!(!target.exists());
    }
    Ok(())
}

#[test]
fn a_populated_or_frozen_cgroup_is_no_place_for_a_container() -> Result<()> {
    requires!(userns, cgroup);
    let first = asking("")?;
    let target = fresh(&first, "used")?;
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut first = first;
    first.config["linux"]["cgroupsPath"] = name.clone().into();
    let _running = first.started()?;
    asking(&name)?.is_refused(408, &["is not empty", "cgroupsPath"])?;
    assert_eq!(first.status()?, "running");
    first.delete()?;
    fs::create_dir(&target)?;
    fs::write(target.join("cgroup.freeze"), "1")?;
    asking(&name)?.is_refused(408, &["is frozen"])?;
    asking(&format!("{name}/below"))?.is_refused(408, &["is frozen"])?;
    assert!(!target.join("below").exists());
    fs::write(target.join("cgroup.freeze"), "0")?;
    Ok(fs::remove_dir(&target)?)
}

#[test]
fn an_empty_cgroup_that_was_there_is_used_and_stays() -> Result<()> {
    requires!(userns, cgroup);
    let probe = Bundle::new()?;
    let target = fresh(&probe, "there")?;
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    fs::create_dir(&target)?;
    let is_as_before = |what: &str| -> Result<()> {
        let events = fs::read_to_string(target.join("cgroup.events")).with_context(|| what.to_owned())?;
        assert_eq!(events, "populated 0\nfrozen 0\n", "{what}");
        Ok(())
    };
    let mut bundle = asking(&name)?;
    let running = bundle.started()?;
    assert_eq!(leaf(&bundle)?, target);
    bundle.delete()?;
    is_as_before("delete")?;
    drop(running);
    let running = bundle.started()?;
    bundle.verb("pause")?.succeeds_silently()?;
    bundle.pura(&["delete", "--force", "c1"]).output()?.succeeds_silently()?;
    is_as_before("delete of a paused one")?;
    drop(running);
    bundle.config["process"]["args"] = json!(["/bin/pura-probe", "true"]);
    bundle.run()?.succeeds_silently()?;
    is_as_before("run")?;
    bundle.config["process"]["args"] = json!(["/nowhere"]);
    assert!(!bundle.run()?.status.success());
    is_as_before("a run that failed")?;
    bundle.is_clean()?;
    Ok(fs::remove_dir(&target)?)
}

#[test]
fn a_paused_container_stands_still_and_goes_on() -> Result<()> {
    requires!(userns, cgroup);
    let bundle = Bundle::probing(&["trap", "0"])?;
    let _running = bundle.started()?;
    bundle.verb("resume")?.fails(1, 707, &["not paused"])?;
    bundle.verb("pause")?.succeeds_silently()?;
    assert_eq!(bundle.status()?, "paused");
    assert!(read(&bundle, "cgroup.events")?.contains("frozen 1"));
    let listed = bundle.pura(&["list", "--format", "json"]).output()?;
    assert_eq!(serde_json::from_str::<Value>(listed.succeeds()?)?[0]["status"], "paused");
    bundle.verb("pause")?.fails(1, 707, &["already paused"])?;
    bundle.pura(&["exec", "c1", "/bin/pura-probe", "true"]).output()?.fails(125, 612, &["paused", "pura resume c1"])?;
    let mut tired = bundle.pura(&["exec", "--ignore-paused", "c1", "/bin/pura-probe", "true"]).spawn()?;
    let place = PathBuf::from(format!("/proc/{}", tired.pid));
    // Not by wchan, which a kernel without kallsyms (User-Mode Linux) does not tell.
    eventually("it sleeps on the cgroup's events", || {
        let mut targets = fs::read_dir(place.join("fd"))?.flatten().flat_map(|entry| fs::read_link(entry.path()));
        let watches = targets.any(|target| target.ends_with("cgroup.events"));
        Ok(watches && fs::read_to_string(place.join("stat"))?.contains(") S "))
    })?;
    tired.signal(Signal::SIGTERM)?;
    assert_eq!(tired.wait()?.code(), 143);
    let mut waiting = bundle.pura(&["exec", "--ignore-paused", "c1", "/bin/pura-probe", "true"]).spawn()?;
    bundle.verb("resume")?.succeeds_silently()?;
    waiting.wait()?.succeeds()?;
    assert_eq!(bundle.status()?, "running");
    bundle.delete()
}

#[test]
fn a_container_that_is_not_running_is_not_paused() -> Result<()> {
    requires!(userns, cgroup);
    let bundle = Bundle::probing(&["sleep"])?;
    for verb in ["pause", "resume", "events"] {
        bundle.verb(verb)?.fails(1, 703, &["does not exist"])?;
    }
    let _running = bundle.created()?;
    bundle.verb("pause")?.fails(1, 707, &["created, not running"])?;
    bundle.pura(&["kill", "c1", "KILL"]).output()?.succeeds_silently()?;
    bundle.becomes("stopped")?;
    for verb in ["pause", "resume", "events"] {
        bundle.verb(verb)?.fails(1, 612, &["container not running"])?;
    }
    bundle.pura(&["update", "--memory", "1g", "c1"]).output()?.fails(1, 612, &["container not running"])?;
    bundle.delete()
}

#[test]
fn without_a_cgroup_pause_update_and_events_say_so() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    let words = ["--cgroup-manager", "disabled", "create", "-b"];
    let mut running = bundle.pura(&words).args(&[bundle.path("bundle")]).args(&["c1"]).spawn()?;
    running.wait()?.succeeds_silently()?;
    bundle.verb("start")?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    let is_unified = fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok();
    let remedy = if is_unified { "Delegate=yes" } else { "boot with systemd.unified_cgroup_hierarchy=1" };
    bundle.verb("pause")?.fails(1, 409, &["no cgroup of its own", remedy])?;
    bundle.verb("events")?.fails(1, 405, &["no cgroup of its own"])?;
    bundle.pura(&["update", "--pids-limit", "9", "c1"]).output()?.fails(1, 405, &["no cgroup of its own"])?;
    assert_eq!(bundle.status()?, "running");
    let pid = bundle.pid()?;
    let pids = bundle.pura(&["ps", "--format", "json", "c1"]).output()?;
    assert_eq!(pids.succeeds()?, format!("[{pid}]\n"));
    bundle.delete()
}

#[test]
fn kill_ends_a_paused_container_and_delete_needs_force() -> Result<()> {
    requires!(userns, cgroup);
    for words in [&["kill", "c1", "KILL"][..], &["kill", "--all", "c1", "KILL"]] {
        let bundle = Bundle::probing(&["trap"])?;
        let _running = bundle.started()?;
        bundle.verb("pause")?.succeeds_silently()?;
        bundle.verb("delete")?.fails(1, 708, &["paused, not stopped"])?;
        assert_eq!(bundle.status()?, "paused");
        bundle.pura(words).output()?.succeeds_silently()?;
        bundle.becomes("stopped")?;
        bundle.verb("delete")?.succeeds_silently()?;
    }
    let bundle = Bundle::probing(&["trap"])?;
    let _running = bundle.started()?;
    bundle.verb("pause")?.succeeds_silently()?;
    bundle.delete()
}

#[test]
fn kill_all_reaches_every_process_even_without_a_pid_namespace() -> Result<()> {
    requires!(userns, cgroup, busybox);
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", "sleep 1000 & sleep 1000 & echo ready; wait"])?;
    bundle.share("pid");
    bundle.unmount("/proc");
    let _running = bundle.started()?;
    let leaf = leaf(&bundle)?;
    eventually("three processes", || Ok(fs::read_to_string(leaf.join("cgroup.procs"))?.lines().count() == 3))?;
    let pids = bundle.pura(&["ps", "-f", "json", "c1"]).output()?;
    assert_eq!(serde_json::from_str::<Vec<i32>>(pids.succeeds()?)?.len(), 3);
    bundle.pura(&["kill", "--all", "c1", "KILL"]).output()?.succeeds_silently()?;
    bundle.becomes("stopped")?;
    eventually("an empty cgroup", || Ok(fs::read_to_string(leaf.join("cgroup.events"))?.contains("populated 0")))?;
    bundle.pura(&["kill", "--all", "c1", "KILL"]).output()?.succeeds_silently()?;
    bundle.delete()
}

#[test]
fn ps_lists_the_processes_as_the_caller_sees_them() -> Result<()> {
    requires!(userns, cgroup, ps);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let pid = bundle.pid()?;
    let json = bundle.pura(&["ps", "--format", "json", "c1"]).output()?;
    assert_eq!(json.succeeds()?, format!("[{pid}]\n"));
    for words in [&["ps", "c1"][..], &["ps", "c1", "-e", "-o", "comm,pid"]] {
        let table = bundle.pura(words).output()?;
        let lines: Vec<_> = table.succeeds()?.lines().collect();
        assert_eq!(lines.len(), 2, "{table:?}");
        assert!(lines[0].contains("PID") && lines[1].contains(&pid.to_string()), "{table:?}");
    }
    bundle.pura(&["ps", "c1", "-o", "comm"]).output()?.fails(1, 908, &["no column PID"])?;
    bundle.pura(&["ps", "c1", "--no-such"]).output()?.fails(1, 908, &["ps fails with these options: error: "])?;
    bundle.pura(&["kill", "c1", "KILL"]).output()?.succeeds_silently()?;
    bundle.becomes("stopped")?;
    let json = bundle.pura(&["ps", "--format", "json", "c1"]).output()?;
    assert_eq!(json.succeeds()?, "[]\n");
    bundle.delete()
}

#[test]
fn events_print_what_is_used_until_the_end() -> Result<()> {
    requires!(userns, cgroup);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let once = bundle.pura(&["events", "--stats", "c1"]).output()?;
    let stats: Value = serde_json::from_str(once.succeeds()?)?;
    assert_eq!((&stats["type"], &stats["id"]), (&"stats".into(), &"c1".into()));
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().is_some_and(|total| total > 0), "{stats}");
    for key in ["memory", "pids", "blkio", "hugetlb"] {
        assert!(stats["data"][key].is_object(), "{stats}");
    }
    let mut events = bundle.pura(&["events", "--interval", "10ms", "c1"]).spawn()?;
    assert_eq!(serde_json::from_str::<Value>(&events.line()?)?["type"], "stats");
    bundle.pura(&["kill", "c1", "KILL"]).output()?.succeeds_silently()?;
    events.wait()?.succeeds()?;
    bundle.delete()
}

#[test]
fn a_limit_without_its_controller_fails_naming_it_and_leaves_nothing() -> Result<()> {
    requires!(cgroup);
    let own = own_cgroup()?;
    let parent = own.parent().context("parent")?;
    let names = || -> Result<Vec<_>> {
        let mut names = Vec::new();
        for directory in [&own, parent] {
            for entry in fs::read_dir(directory)? {
                names.extend(entry?.file_name().into_string().ok().filter(|name| name.contains("-missing")));
            }
        }
        Ok(names)
    };
    if !fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?.contains("pids") {
        let limited = ["run", "--pids-limit", "9", "--rootfs", "/usr", "--", "true"];
        Pura::new(Bundle::new()?.dir(), &limited).output()?.fails(125, 461, &["(--pids-limit)"])?;
    }
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["linux"]["cgroupsPath"] = "leaf-missing".into();
    bundle.config["linux"]["resources"] = json!({"unified": {"nosuch.max": "1"}});
    bundle.is_refused(461, &["nosuch", "linux.resources.unified"])?;
    assert!(names()?.is_empty());
    Ok(())
}

#[test]
fn an_unknown_size_of_huge_pages_is_refused() -> Result<()> {
    requires!(cgroup);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["linux"]["resources"] = json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 3_145_728}]});
    // Where the controller is, the file is not.
    bundle.is_refused_with_any(&[410, 461], &["hugetlb.3MB.max"])
}

#[test]
fn what_cannot_be_limited_is_refused_by_name_before_anything_is_made() -> Result<()> {
    let cases = [
        (json!({"memory": {"swappiness": 60}}), 804, "memory.swappiness"),
        (json!({"memory": {"kernel": 1_000_000}}), 804, "memory.kernel"),
        (json!({"memory": {"disableOOMKiller": true}}), 804, "memory.disableOOMKiller"),
        (json!({"cpu": {"realtimeRuntime": 100}}), 804, "cpu.realtimeRuntime"),
        (json!({"network": {"classID": 7}}), 804, "network.classID"),
        (json!({"blockIO": {"leafWeight": 10}}), 804, "blockIO.leafWeight"),
        (json!({"memory": {"limit": 1000, "swap": 999}}), 803, "memory.swap"),
        (json!({"memory": {"swap": 1000}}), 803, "memory.swap"),
        (json!({"hugepageLimits": [{"pageSize": "2mb", "limit": 1}]}), 803, "hugepageLimits[0]"),
        (json!({"unified": {"a/memory.max": "1"}}), 803, "a/memory.max"),
        (json!({"unified": {"cgroup.procs": "1"}}), 803, "cgroup.procs"),
    ];
    for (resources, code, word) in cases {
        let mut bundle = Bundle::probing(&["true"])?;
        bundle.config["linux"]["resources"] = resources;
        bundle.is_refused(code, &[word])?;
    }
    Ok(())
}

#[test]
fn what_asks_for_nothing_needs_no_controller() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["linux"]["resources"] = json!({
        "memory": {"limit": -1, "reservation": 0, "swap": -1, "kernel": -1, "disableOOMKiller": false},
        "cpu": {"shares": 0, "quota": -1, "period": 100_000, "cpus": ""},
        "pids": {}, "blockIO": {"weight": 0}, "network": {}, "hugepageLimits": [], "rdma": {}, "unified": {},
    });
    bundle.run()?.succeeds_silently()?;
    // The default of every cgroup, which containerd asks for.
    bundle.config["linux"]["resources"] = json!({"cpu": {"shares": 1024}});
    bundle.run()?.succeeds_silently()
}
