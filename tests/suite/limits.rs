//! Limits that the kernel enforces: on a machine whose controllers are delegated, such as the guest of `tests/lab/uml`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::harness::{Bundle, eventually};

fn limited(resources: Value, words: &[&str]) -> Result<Bundle> {
    let mut bundle = Bundle::with_args(words)?;
    bundle.config["linux"]["resources"] = resources;
    Ok(bundle)
}

const SLEEP: &[&str] = &["/bin/pura-probe", "sleep"];

fn leaf(bundle: &Bundle) -> Result<PathBuf> {
    let state = bundle.state()?;
    Ok(PathBuf::from(state["pura"]["cgroup"].as_str().with_context(|| format!("no cgroup: {state}"))?))
}

fn value(leaf: &Path, file: &str) -> Result<String> {
    Ok(fs::read_to_string(leaf.join(file)).with_context(|| file.to_owned())?.trim().to_owned())
}

/// Creates a container with these resources, and insists on the files.
fn has(resources: Value, files: &[(&str, &str)]) -> Result<()> {
    let bundle = limited(resources, SLEEP)?;
    let _running = bundle.started()?;
    let leaf = leaf(&bundle)?;
    for (file, wanted) in files {
        assert_eq!(value(&leaf, file)?, *wanted, "{file}: {}", bundle.config["linux"]["resources"]);
    }
    bundle.delete()?;
    assert!(!leaf.exists());
    Ok(())
}

#[test]
fn each_limit_is_in_its_file() -> Result<()> {
    requires!(userns, controllers);
    has(
        json!({
            "memory": {"limit": 67_108_864, "reservation": 33_554_432},
            "cpu": {"shares": 1024, "quota": 50_000, "period": 200_000},
            "pids": {"limit": 100},
        }),
        &[
            ("memory.max", "67108864"),
            ("memory.low", "33554432"),
            ("cpu.weight", "100"),
            ("cpu.max", "50000 200000"),
            ("pids.max", "100"),
        ],
    )?;
    has(json!({"memory": {"limit": -1, "reservation": 4096}}), &[("memory.max", "max"), ("memory.low", "4096")])
}

#[test]
fn swap_is_what_is_left_of_both_together() -> Result<()> {
    requires!(userns, controllers);
    let limit = 67_108_864;
    for (swap, wanted) in [(limit, "0"), (2 * limit, "67108864"), (-1, "max")] {
        let bundle = limited(json!({"memory": {"limit": limit, "swap": swap}}), SLEEP)?;
        let _running = bundle.started()?;
        let leaf = leaf(&bundle)?;
        // Some kernels account for no swap.
        if leaf.join("memory.swap.max").exists() {
            assert_eq!(value(&leaf, "memory.swap.max")?, wanted);
        }
        bundle.delete()?;
    }
    Ok(())
}

#[test]
fn weights_of_disks_are_scaled_for_the_file_that_is_there() -> Result<()> {
    requires!(userns, controllers);
    for (weight, scaled) in [(10, "1"), (1000, "10000")] {
        let bundle = limited(json!({"blockIO": {"weight": weight}}), SLEEP)?;
        let outcome = bundle.create()?;
        if !outcome.status.success() {
            // A kernel without either scheduler.
            outcome.fails(1, 410, &["io.bfq.weight"])?;
            continue;
        }
        let leaf = leaf(&bundle)?;
        let (file, wanted) = if leaf.join("io.bfq.weight").exists() {
            ("io.bfq.weight", format!("{weight}"))
        } else {
            ("io.weight", scaled.to_owned())
        };
        assert!(value(&leaf, file)?.trim_start_matches("default ").starts_with(&wanted), "{file}");
        bundle.delete()?;
    }
    Ok(())
}

#[test]
fn shares_are_weights_and_no_processes_are_one() -> Result<()> {
    requires!(userns, controllers);
    for (shares, weight) in [(2, "1"), (262_144, "10000")] {
        has(json!({"cpu": {"shares": shares}}), &[("cpu.weight", weight)])?;
    }
    // The default alone needs no file.
    has(json!({"cpu": {"shares": 1024, "quota": 50_000}}), &[("cpu.weight", "100")])?;
    has(json!({"cpu": {"shares": 1024}, "pids": {"limit": 0}}), &[("pids.max", "1")])?;
    has(json!({"pids": {"limit": 5}, "cpu": {"quota": -1}}), &[("pids.max", "5")])?;
    // Without another limit too: 0 is a value here, and the controller is there.
    has(json!({"pids": {"limit": 0}}), &[("pids.max", "1")])
}

#[test]
fn unified_files_are_written_last_and_one_that_is_unknown_to_the_kernel_fails() -> Result<()> {
    requires!(userns, controllers);
    let resources = json!({
        "memory": {"limit": 67_108_864},
        "unified": {"memory.max": "134217728", "memory.high": "100003840", "cgroup.max.depth": "3"},
    });
    has(resources, &[("memory.max", "134217728"), ("memory.high", "100003840"), ("cgroup.max.depth", "3")])?;
    for (file, code) in [("memory.nosuch", 410), ("nosuch.max", 461)] {
        let bundle = limited(json!({"unified": {file: "1"}}), SLEEP)?;
        bundle.is_refused(code, &[file, "linux.resources.unified"])?;
    }
    limited(json!({"unified": {"memory.max": "much"}}), SLEEP)?.is_refused(410, &["memory.max to much"])
}

#[test]
fn a_program_that_takes_more_memory_is_killed_and_the_event_is_told() -> Result<()> {
    requires!(userns, controllers, busybox);
    let hungry = ["/bin/busybox", "tail", "/dev/zero"];
    let bundle = limited(json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}}), &hungry)?;
    assert_eq!(bundle.run()?.code(), 137);
    let running = bundle.created()?;
    let events = bundle.pura(&["events", "c1"]).spawn()?;
    // It watches before the program starts.
    eventually("a watch", || {
        let open = fs::read_dir(format!("/proc/{}/fd", events.pid))?;
        let files = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        Ok(files.into_iter().any(|file| file.ends_with("memory.events")))
    })?;
    bundle.verb("start")?.succeeds_silently()?;
    assert_eq!(serde_json::from_str::<Value>(&events.line()?)?, json!({"type": "oom", "id": "c1"}));
    bundle.becomes("stopped")?;
    drop(running);
    bundle.delete()
}

#[test]
fn no_more_processes_than_allowed_are_started() -> Result<()> {
    requires!(userns, controllers, busybox);
    let script = "for i in 1 2 3 4 5 6; do sleep 1000 & done; echo none";
    let bundle = limited(json!({"pids": {"limit": 4}}), &["/bin/sh", "-c", script])?;
    let outcome = bundle.run()?;
    assert!(outcome.code() != 0 && outcome.stdout.is_empty() && outcome.stderr.contains("fork"), "{outcome:?}");
    Ok(())
}

#[test]
fn a_fork_bomb_is_held_and_ends_with_its_container() -> Result<()> {
    requires!(userns, controllers, busybox);
    let bundle =
        limited(json!({"pids": {"limit": 20}}), &["/bin/sh", "-c", "bomb() { bomb | bomb & }; bomb; exec sleep 1000"])?;
    let _running = bundle.created()?;
    bundle.verb("start")?.succeeds_silently()?;
    let leaf = leaf(&bundle)?;
    // Refused forks are counted.
    eventually("the bomb meets its limit", || {
        Ok(!value(&leaf, "pids.events")?.starts_with("max 0") && value(&leaf, "pids.current")?.parse::<u32>()? <= 20)
    })?;
    bundle.delete()?;
    assert!(!leaf.exists());
    bundle.is_clean()
}

#[test]
fn update_changes_what_it_names_and_leaves_the_rest() -> Result<()> {
    requires!(userns, controllers);
    let bundle = limited(
        json!({"memory": {"limit": 67_108_864}, "cpu": {"quota": 50_000, "period": 100_000}, "pids": {"limit": 50}}),
        SLEEP,
    )?;
    let _running = bundle.started()?;
    let leaf = leaf(&bundle)?;
    let update = |words: &[&str]| bundle.pura(&[&["update"], words, &["c1"]].concat()).output();
    update(&["--memory", "128m", "--cpu-share", "2048"])?.succeeds_silently()?;
    assert_eq!((value(&leaf, "memory.max")?, value(&leaf, "cpu.weight")?), ("134217728".into(), "174".into()));
    assert_eq!((value(&leaf, "cpu.max")?, value(&leaf, "pids.max")?), ("50000 100000".into(), "50".into()));
    update(&["--cpu-period", "200000"])?.succeeds_silently()?;
    assert_eq!(value(&leaf, "cpu.max")?, "50000 200000");
    update(&["--pids-limit=-1", "--memory=-1"])?.succeeds_silently()?;
    assert_eq!((value(&leaf, "pids.max")?, value(&leaf, "memory.max")?), ("max".into(), "max".into()));
    let file = bundle.path("resources");
    for (text, wanted) in [(r#"{"pids":{"limit":9}}"#, "9"), (r#"{"pids":{}}"#, "9"), (r#"{"pids":{"limit":0}}"#, "1")]
    {
        fs::write(&file, text)?;
        update(&["--resources", &file.to_string_lossy()])?.succeeds_silently()?;
        assert_eq!(value(&leaf, "pids.max")?, wanted, "{text}");
    }
    fs::write(&file, r#"{"pids":{"limit":11},"devices":[{"allow":false,"access":"rwm"}]}"#)?;
    let shell = format!("exec \"$@\" <{}", file.display());
    let pura = bundle.pura(&["update", "-r", "-", "c1"]);
    bundle.through(&["sh", "-c", &shell, "sh"], &pura).output()?.succeeds_silently()?;
    assert_eq!(value(&leaf, "pids.max")?, "11");
    bundle.delete()
}

#[test]
fn burst_and_quota_are_raised_together() -> Result<()> {
    requires!(userns, controllers);
    let bundle = limited(json!({"cpu": {"quota": 10_000, "period": 100_000, "burst": 5000}}), SLEEP)?;
    let _running = bundle.started()?;
    let leaf = leaf(&bundle)?;
    for (quota, burst) in [("50000", "40000"), ("10000", "1000")] {
        let words = ["update", "--cpu-quota", quota, "--cpu-burst", burst, "c1"];
        bundle.pura(&words).output()?.succeeds_silently()?;
        assert_eq!(
            (value(&leaf, "cpu.max.burst")?, value(&leaf, "cpu.max")?),
            (burst.into(), format!("{quota} 100000"))
        );
    }
    bundle.pura(&["update", "--cpu-quota", "10", "--cpu-burst", "20", "c1"]).output()?.fails(1, 803, &["cpu.burst"])?;
    bundle.delete()
}

#[test]
fn a_failed_update_keeps_the_old_limits() -> Result<()> {
    requires!(userns, controllers);
    let bundle = limited(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 50}, "cpu": {"shares": 2}}), SLEEP)?;
    let _running = bundle.started()?;
    let leaf = leaf(&bundle)?;
    let file = bundle.path("resources");
    let cases = [
        (r#"{"memory":{"limit":134217728},"pids":{"limit":9},"unified":{"cpu.weight":"0"}}"#, 410, "cpu.weight to 0"),
        (r#"{"memory":{"limit":134217728},"unified":{"memory.nosuch":"0"}}"#, 410, "memory.nosuch"),
        (r#"{"memory":{"limit":4096,"checkBeforeUpdate":true},"pids":{"limit":9}}"#, 410, "checkBeforeUpdate"),
        (r#"{"memory":{"limit":134217728},"unified":{"nosuch.max":"1"}}"#, 461, "nosuch"),
        (r#"{"memory":{"limit":134217728,"swappiness":1}}"#, 804, "swappiness"),
        (r#"{"memory":[]}"#, 803, "memory"),
        ("{", 802, "line 1"),
    ];
    for (text, code, word) in cases {
        fs::write(&file, text)?;
        let words = ["update", "-r", &file.to_string_lossy(), "c1"];
        bundle.pura(&words).output()?.fails(1, code, &[word])?;
        assert_eq!(
            (value(&leaf, "memory.max")?, value(&leaf, "pids.max")?),
            ("67108864".into(), "50".into()),
            "{text}"
        );
        assert_eq!(value(&leaf, "cpu.weight")?, "1", "{text}");
    }
    for flag in ["--kernel-memory", "--cpu-rt-runtime", "--l3-cache-schema"] {
        bundle.pura(&["update", flag, "1", "c1"]).output()?.fails(1, 804, &[flag])?;
    }
    bundle.delete()
}

#[test]
fn a_command_without_a_bundle_has_limits_too() -> Result<()> {
    requires!(userns, controllers);
    let bundle = Bundle::new()?;
    let rootfs = bundle.rootfs("").display().to_string();
    let options = ["run", "--rootfs", &rootfs, "--read-only", "--name", "c1", "--keep", "-d"];
    let limits = ["-m", "64m", "--cpus", "1.5", "--pids-limit", "20"];
    let command = ["--", "/bin/pura-probe", "sleep"];
    let mark = format!("PURA_TEST={}", bundle.dir().display());
    let words = [&options[..], &["-e", &mark], &limits, &command].concat();
    let mut running = bundle.pura(&words).spawn()?;
    running.wait()?;
    let lines = [running.line()?, running.line()?];
    assert!(lines.contains(&"ready".to_owned()) && lines.contains(&"c1".to_owned()), "{lines:?}");
    let leaf = leaf(&bundle)?;
    for (file, wanted) in [("memory.max", "67108864"), ("cpu.max", "150000 100000"), ("pids.max", "20")] {
        assert_eq!(value(&leaf, file)?, wanted);
    }
    bundle.delete()
}

#[test]
fn the_plan_shows_each_file_and_makes_no_cgroup() -> Result<()> {
    requires!(userns, controllers);
    let bundle = limited(json!({"memory": {"limit": 67_108_864}, "blockIO": {"weight": 10}}), SLEEP)?;
    let outcome = bundle.with_bundle("plan", &[])?.output()?;
    let plan = outcome.succeeds()?;
    for line in
        ["set memory.max to 67108864 (linux.resources.memory.limit)", "set io.bfq.weight to 10, or io.weight to 1"]
    {
        assert!(plan.contains(line), "{plan}");
    }
    let directory = plan.lines().find_map(|line| line.strip_prefix("cgroup: ")).context("cgroup")?;
    assert!(!Path::new(directory).exists());
    bundle.is_clean()
}

#[test]
fn what_was_made_for_a_cgroups_path_goes_when_a_limit_fails() -> Result<()> {
    requires!(userns, controllers);
    let mut bundle = limited(json!({"memory": {"limit": 67_108_864}, "unified": {"memory.nosuch": "1"}}), SLEEP)?;
    let own = crate::harness::own_cgroup()?;
    let parent = own.parent().context("parent")?;
    let name = format!("made-{}", bundle.dir().file_name().unwrap_or_default().to_string_lossy());
    let path = format!("/{}/{name}/deep", parent.strip_prefix("/sys/fs/cgroup")?.display());
    bundle.config["linux"]["cgroupsPath"] = path.into();
    bundle.is_refused(410, &["memory.nosuch"])?;
    assert!(!parent.join(&name).exists());
    bundle.config["linux"]["resources"] = json!({"memory": {"limit": 67_108_864}});
    let _running = bundle.started()?;
    assert_eq!(value(&parent.join(&name).join("deep"), "memory.max")?, "67108864");
    bundle.delete()?;
    fs::remove_dir(parent.join(name))?;
    Ok(())
}

#[test]
fn where_processes_live_no_controller_is_given_on_and_one_who_is_alone_makes_room() -> Result<()> {
    requires!(userns, controllers);
    let limit = json!({"memory": {"limit": 67_108_864}});
    let mut bundle = limited(limit, SLEEP)?;
    // The tests themselves are in the cgroup above this one.
    bundle.config["linux"]["cgroupsPath"] = "below".into();
    bundle.is_refused(407, &["processes live in", "Delegate=yes", "linux.resources.memory.limit"])?;
    let own = crate::harness::own_cgroup()?;
    assert!(!own.join("below").exists());
    bundle.config["linux"]["cgroupsPath"] = "".into();
    let name = format!("alone-{}", bundle.dir().file_name().unwrap_or_default().to_string_lossy());
    let alone = own.parent().context("parent")?.join(name);
    fs::create_dir(&alone)?;
    let enter = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", alone.display());
    let pura = bundle.with_bundle("create", &["c1"])?;
    bundle.through(&["sh", "-c", &enter, "sh"], &pura).output()?.succeeds_silently()?;
    let leaf = leaf(&bundle)?;
    assert_eq!(leaf.parent(), Some(alone.as_path()));
    assert_eq!(value(&leaf, "memory.max")?, "67108864");
    bundle.delete()?;
    fs::remove_dir(alone.join("pura-caller"))?;
    fs::remove_dir(alone)?;
    Ok(())
}

#[test]
fn processors_and_memory_nodes_are_those_that_are_listed() -> Result<()> {
    requires!(userns, controllers, cpuset, busybox);
    let show = "grep -E '^(Cpus|Mems)_allowed_list' /proc/self/status";
    let mut bundle = limited(json!({"cpu": {"cpus": "0", "mems": "0"}}), &["/bin/sh", "-c", show])?;
    let outcome = bundle.run()?;
    let lists: Vec<&str> = outcome.succeeds()?.split_whitespace().skip(1).step_by(2).collect();
    assert_eq!(lists, ["0", "0"]);
    bundle.config["process"]["args"] = json!(SLEEP);
    let _running = bundle.started()?;
    let leaf = leaf(&bundle)?;
    bundle.pura(&["update", "--cpuset-cpus", "0-0", "--cpuset-mems", "0", "c1"]).output()?.succeeds_silently()?;
    assert_eq!((value(&leaf, "cpuset.cpus")?, value(&leaf, "cpuset.mems")?), ("0".into(), "0".into()));
    bundle.pura(&["update", "--cpuset-cpus", "much", "c1"]).output()?.fails(1, 410, &["cpuset.cpus to much"])?;
    assert_eq!(value(&leaf, "cpuset.cpus")?, "0");
    bundle.delete()?;
    // As on a command line.
    let rootfs = bundle.rootfs("").display().to_string();
    let words = [
        "run",
        "--rootfs",
        &rootfs,
        "--read-only",
        "--userns=single",
        "--cpuset-cpus",
        "0",
        "--",
        "/bin/sh",
        "-c",
        show,
    ];
    let outcome = bundle.pura(&words).output()?;
    assert!(outcome.code() == 0 && outcome.stdout.starts_with("Cpus_allowed_list:\t0\n"), "{outcome:?}");
    Ok(())
}

#[test]
fn huge_pages_are_limited_used_and_reserved() -> Result<()> {
    requires!(userns, controllers, hugetlb);
    let bundle = limited(json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}), SLEEP)?;
    let _running = bundle.started()?;
    let leaf = leaf(&bundle)?;
    for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
        assert_eq!(value(&leaf, file)?, "4194304", "{file}");
    }
    let stats = bundle.pura(&["events", "--stats", "c1"]).output()?;
    assert_eq!(serde_json::from_str::<Value>(stats.succeeds()?)?["data"]["hugetlb"]["2MB"]["usage"], 0);
    bundle.delete()?;
    limited(json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}), SLEEP)?.is_refused(410, &["hugetlb.3MB.max"])
}

#[test]
fn an_rdma_device_that_is_not_there_is_named() -> Result<()> {
    requires!(userns, controllers, rdma);
    let bundle = limited(json!({"rdma": {"nosuch0": {"hcaHandles": 2}}}), SLEEP)?;
    bundle.is_refused(410, &["rdma.max", "nosuch0", "linux.resources.rdma"])
}
