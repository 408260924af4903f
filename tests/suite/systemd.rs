//! The systemd driver, with a real systemd: in the guest of `tests/lab/systemd`, as an ordinary user with a session and as root;
//! and what becomes of it where none can be reached.

mod podman;
mod session;
mod unreachable;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{Bundle, Outcome, Pura, Running, eventually, own_uid, text};

const SLEEP: &[&str] = &["/bin/pura-probe", "sleep"];

/// The id of a test's only container.
const ID: &str = "c1";

/// A bundle whose container is in a scope of a name that no other test has.
struct Scoped {
    bundle: Bundle,
    /// The unit.
    unit: String,
}

impl Scoped {
    fn new(args: &[&str]) -> Result<Self> {
        Self::below("", args)
    }

    /// In this slice.
    fn below(slice: &str, args: &[&str]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut bundle = Bundle::with_args(args)?;
        bundle.config["linux"]["cgroupsPath"] = json!(format!("{slice}:puratest:{name}"));
        Ok(Self { bundle, unit: format!("puratest-{name}.scope") })
    }

    /// `pura --systemd-cgroup VERB --bundle BUNDLE c1`
    fn call(&self, verb: &str) -> Result<Pura> {
        self.bundle.write()?;
        let call = self.bundle.pura(&["--systemd-cgroup", verb, "--bundle"]).args(&[self.bundle.path("bundle")]);
        Ok(in_session(call.args(&[ID])))
    }

    /// `pura VERB c1 ...`: what engines send after `create`.
    fn verb(&self, words: &[&str]) -> Result<Outcome> {
        in_session(self.bundle.pura(words)).output()
    }

    fn created(&self) -> Result<Running> {
        let mut running = self.call("create")?.spawn()?;
        running.wait()?.succeeds_silently()?;
        Ok(running)
    }

    fn started(&self) -> Result<Running> {
        let running = self.created()?;
        self.verb(&["start", ID])?.succeeds_silently()?;
        ensure!(running.line()? == "ready");
        Ok(running)
    }

    fn delete(&self) -> Result<()> {
        self.verb(&["delete", "--force", ID])?.succeeds_silently()?;
        self.is_gone()
    }

    /// Insists that systemd knows the unit no longer, and that its cgroup is gone.
    fn is_gone(&self) -> Result<()> {
        assert_eq!(show(&self.unit, "LoadState")?, "not-found", "{}", self.unit);
        let top = show("-.slice", "ControlGroup")?;
        let found = Command::new("find").arg(format!("/sys/fs/cgroup{top}")).args(["-name", &self.unit]).output()?;
        ensure!(found.stdout.is_empty(), "{}", text(&found.stdout));
        Ok(())
    }

    fn property(&self, name: &str) -> Result<String> {
        show(&self.unit, name)
    }

    /// The cgroup of the container, as its state says.
    fn cgroup(&self) -> Result<PathBuf> {
        let state = self.bundle.state()?;
        Ok(PathBuf::from(state["pura"]["cgroup"].as_str().with_context(|| format!("no cgroup: {state}"))?))
    }

    fn limit(&self, file: &str) -> Result<String> {
        Ok(fs::read_to_string(self.cgroup()?.join(file)).with_context(|| file.to_owned())?.trim().to_owned())
    }
}

/// The session of the tester's account; root has none, and needs none.
fn in_session(call: Pura) -> Pura {
    match env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) => call.env("XDG_RUNTIME_DIR", directory),
        None => call,
    }
}

fn systemctl(words: &[&str]) -> Result<String> {
    let user: &[&str] = if own_uid() == 0 { &[] } else { &["--user"] };
    let output = Command::new("systemctl").args(user).args(words).output()?;
    ensure!(output.status.success(), "systemctl {words:?}: {}", text(&output.stderr));
    Ok(text(&output.stdout).trim().to_owned())
}

fn show(unit: &str, property: &str) -> Result<String> {
    systemctl(&["show", "--value", "--property", property, "--", unit])
}

/// Where a process is.
fn cgroup_of(pid: i32) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/cgroup"))?.trim().trim_start_matches("0::").to_owned())
}

#[test]
fn a_container_lives_in_a_scope_of_its_own_from_create_to_delete() -> Result<()> {
    requires!(userns, systemd);
    let scoped = Scoped::new(SLEEP)?;
    let _running = scoped.created()?;
    let pid = scoped.bundle.pid()?;
    let group = scoped.property("ControlGroup")?;
    assert!(group.ends_with(&scoped.unit), "{group}");
    assert_eq!((cgroup_of(pid)?, scoped.cgroup()?), (group.clone(), Path::new("/sys/fs/cgroup").join(&group[1..])));
    for (name, wanted) in [("ActiveState", "active"), ("Delegate", "yes"), ("Transient", "yes")] {
        assert_eq!(scoped.property(name)?, wanted, "{name}");
    }
    scoped.verb(&["start", ID])?.succeeds_silently()?;
    scoped.bundle.becomes("running")?;
    // Init has become the program where it was.
    assert_eq!(cgroup_of(scoped.bundle.pid()?)?, group);
    let inside = ["exec", ID, "/bin/busybox", "cat", "/proc/self/cgroup"];
    assert_eq!(scoped.verb(&inside)?.succeeds()?.trim(), format!("0::{group}"));
    scoped.verb(&["pause", ID])?.succeeds_silently()?;
    scoped.bundle.becomes("paused")?;
    scoped.verb(&["resume", ID])?.succeeds_silently()?;
    scoped.verb(&["kill", ID, "KILL"])?.succeeds_silently()?;
    scoped.bundle.becomes("stopped")?;
    scoped.verb(&["delete", ID])?.succeeds_silently()?;
    scoped.is_gone()
}

#[test]
fn a_foreground_run_leaves_no_scope() -> Result<()> {
    requires!(userns, busybox, systemd);
    let scoped = Scoped::new(&["/bin/busybox", "cat", "/proc/self/cgroup"])?;
    let outcome = scoped.call("run")?.output()?;
    assert!(outcome.succeeds()?.trim().ends_with(&scoped.unit), "{}", outcome.stdout);
    scoped.is_gone()?;
    let failing = Scoped::new(&["/no/such/program"])?;
    failing.call("run")?.output()?.fails(127, 602, &["no such file or directory"])?;
    failing.is_gone()
}

#[test]
fn the_scope_is_where_the_slice_says_and_has_a_name_by_default() -> Result<()> {
    requires!(userns, systemd);
    let default = if own_uid() == 0 { "system.slice" } else { "user.slice" };
    for (slice, wanted) in [
        ("", default.to_owned()),
        ("puratest.slice", "puratest.slice".to_owned()),
        ("puratest-a-b.slice", "puratest.slice/puratest-a.slice/puratest-a-b.slice".to_owned()),
    ] {
        let scoped = Scoped::below(slice, SLEEP)?;
        let _running = scoped.created()?;
        let group = cgroup_of(scoped.bundle.pid()?)?;
        assert!(group.ends_with(&format!("/{wanted}/{}", scoped.unit)), "{slice}: {group}");
        scoped.delete()?;
    }
    let mut scoped = Scoped::new(SLEEP)?;
    scoped.bundle.config["linux"]["cgroupsPath"] = json!("");
    let _running = scoped.created()?;
    let group = cgroup_of(scoped.bundle.pid()?)?;
    assert!(group.contains(&format!("/{default}/pura-{ID}.")), "{group}");
    scoped.delete()
}

#[test]
fn the_root_of_a_cgroup_namespace_is_the_scope() -> Result<()> {
    requires!(userns, busybox, systemd);
    let mut scoped = Scoped::new(&["/bin/busybox", "cat", "/proc/self/cgroup"])?;
    scoped.bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    assert_eq!(scoped.call("run")?.output()?.succeeds()?.trim(), "0::/");
    scoped.is_gone()
}

fn resources() -> Value {
    json!({
        "memory": {"limit": 67_108_864, "reservation": 33_554_432},
        "cpu": {"shares": 2048, "quota": 33_333, "period": 100_000},
        "pids": {"limit": 100},
    })
}

#[test]
fn limits_are_properties_of_the_unit_and_in_the_files() -> Result<()> {
    requires!(userns, systemd);
    let mut scoped = Scoped::new(SLEEP)?;
    scoped.bundle.config["linux"]["resources"] = resources();
    let _running = scoped.created()?;
    for (name, wanted) in [
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("CPUWeight", "174"),
        ("CPUQuotaPerSecUSec", "340ms"),
        ("TasksMax", "100"),
    ] {
        assert_eq!(scoped.property(name)?, wanted, "{name}");
    }
    // systemd rounds to hundredths of a processor, the file does not.
    let exact =
        [("memory.max", "67108864"), ("memory.low", "33554432"), ("cpu.max", "33333 100000"), ("pids.max", "100")];
    for (file, wanted) in exact {
        assert_eq!(scoped.limit(file)?, wanted, "{file}");
    }
    scoped.delete()
}

/// What is no property of a unit, or not exactly: the files are written after systemd has made them.
#[test]
fn limits_that_systemd_does_not_know_are_in_the_files_of_the_scope() -> Result<()> {
    requires!(userns, systemd);
    let mut scoped = Scoped::new(SLEEP)?;
    scoped.bundle.config["linux"]["resources"] = json!({
        "cpu": {"quota": 50_000, "period": 100_000, "burst": 20_000},
        "unified": {"memory.oom.group": "1", "cgroup.max.depth": "7"},
    });
    let disk = fs::read_to_string("/sys/block/ubda/dev").unwrap_or_default();
    let throttled = disk.trim().split_once(':');
    if let Some((major, minor)) = throttled {
        let number = |text: &str| text.parse::<u32>().unwrap_or_default();
        scoped.bundle.config["linux"]["resources"]["blockIO"] = json!({
            "throttleReadBpsDevice": [{"major": number(major), "minor": number(minor), "rate": 1_048_576}],
        });
    }
    let _running = scoped.created()?;
    for (file, wanted) in [("cpu.max.burst", "20000"), ("memory.oom.group", "1"), ("cgroup.max.depth", "7")] {
        assert_eq!(scoped.limit(file)?, wanted, "{file}");
    }
    if throttled.is_some() {
        let wanted = format!("{} rbps=1048576 wbps=max riops=max wiops=max", disk.trim());
        assert_eq!(scoped.limit("io.max")?, wanted);
    }
    // systemd writes its own again, and leaves these alone.
    systemctl(&["daemon-reload"])?;
    systemctl(&["set-property", "--runtime", &scoped.unit, "TasksMax=77"])?;
    assert_eq!((scoped.limit("pids.max")?.as_str(), scoped.limit("cpu.max.burst")?.as_str()), ("77", "20000"));
    assert_eq!(scoped.limit("io.max").unwrap_or_default().contains("rbps=1048576"), throttled.is_some());
    scoped.delete()
}

/// Huge pages and RDMA are no controllers of systemd's: pura gives them on, where that is the caller's to do.
#[test]
fn a_controller_that_systemd_does_not_know_is_given_on_or_named() -> Result<()> {
    requires!(userns, systemd);
    let mut scoped = Scoped::new(SLEEP)?;
    scoped.bundle.config["linux"]["resources"] = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152}]});
    let outcome = scoped.call("create")?.output()?;
    if own_uid() == 0 && fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?.contains("hugetlb") {
        outcome.succeeds_silently()?;
        assert_eq!(scoped.limit("hugetlb.2MB.max")?, "2097152");
        return scoped.delete();
    }
    outcome.fails_with_any(1, &[410, 461], &["hugetlb.2MB.max"])?;
    scoped.bundle.is_clean()?;
    scoped.is_gone()
}

#[test]
fn real_roots_scopes_have_its_rules_for_devices() -> Result<()> {
    requires!(root, busybox, systemd);
    let device = |allow: bool| json!({"allow": allow, "type": "c", "major": 1, "minor": 11, "access": "w"});
    let all = json!({"allow": false, "access": "rwm"});
    for (rules, is_open) in [(json!([all, device(true)]), true), (json!([all, device(false)]), false)] {
        let mut scoped = Scoped::new(&["/bin/busybox", "sh", "-c", "exec 3>/dev/host && echo opened"])?;
        scoped.bundle.share_user();
        scoped.bundle.mount("/dev/host", "bind", "/dev/kmsg", &["bind"])?;
        scoped.bundle.config["linux"]["resources"] = json!({"devices": rules});
        let outcome = scoped.call("run")?.output()?;
        assert_eq!(outcome.stdout == "opened\n", is_open, "{outcome:?}");
        assert_eq!(outcome.stderr.contains("Operation not permitted"), !is_open, "{outcome:?}");
        scoped.is_gone()?;
    }
    Ok(())
}

#[test]
fn systemd_writes_the_same_limits_when_it_writes_them_again() -> Result<()> {
    requires!(userns, systemd);
    let mut scoped = Scoped::new(SLEEP)?;
    scoped.bundle.config["linux"]["resources"] = resources();
    let _running = scoped.created()?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["set-property", "--runtime", &scoped.unit, "Description=other"])?;
    for (file, wanted) in [("memory.max", "67108864"), ("memory.low", "33554432"), ("pids.max", "100")] {
        assert_eq!(scoped.limit(file)?, wanted, "{file}");
    }
    scoped.delete()
}

#[test]
fn annotations_are_properties_of_the_unit() -> Result<()> {
    requires!(userns, systemd);
    let mut scoped = Scoped::new(SLEEP)?;
    scoped.bundle.config["annotations"] = json!({
        "org.systemd.property.KillSignal": "10",
        "org.systemd.property.TimeoutStopUSec": "uint64 10000000",
        "org.systemd.property.RuntimeMaxSec": "3600.5",
        "org.systemd.property.CollectMode": "'inactive'",
        "org.systemd.property.After": "['basic.target', 'sockets.target']",
        "org.systemd.property.Description": "\"of the test\"",
    });
    let _running = scoped.created()?;
    for (name, wanted) in [
        ("KillSignal", "10"),
        ("TimeoutStopUSec", "10s"),
        ("RuntimeMaxUSec", "1h 500ms"),
        ("CollectMode", "inactive"),
        ("Description", "of the test"),
    ] {
        assert_eq!(scoped.property(name)?, wanted, "{name}");
    }
    assert!(scoped.property("After")?.contains("sockets.target"));
    scoped.delete()
}

#[test]
fn what_systemd_would_not_take_is_refused_before_anything_is_made() -> Result<()> {
    requires!(userns, systemd);
    for (path, annotations, words) in [
        ("/a/b", json!({}), "slice:prefix:name"),
        ("a:b", json!({}), "slice:prefix:name"),
        ("a--b.slice:x:y", json!({}), "no slice"),
        ("a.slice:x:y z", json!({}), "no name of a scope"),
        ("", json!({"org.systemd.property.Delegate": "false"}), "no such property"),
        ("", json!({"org.systemd.property.KillSignal": "'x'"}), "is not a number"),
        ("", json!({"run.oci.systemd.subgroup": "a/b"}), "no name of a cgroup"),
    ] {
        let mut scoped = Scoped::new(SLEEP)?;
        scoped.bundle.config["linux"]["cgroupsPath"] = json!(path);
        scoped.bundle.config["annotations"] = annotations;
        scoped.call("create")?.output()?.fails(1, 803, &[words])?;
        scoped.bundle.is_clean()?;
    }
    // Taken by pura, and not by systemd.
    let mut scoped = Scoped::new(SLEEP)?;
    scoped.bundle.config["annotations"] = json!({"org.systemd.property.CollectMode": "'never'"});
    scoped.call("create")?.output()?.fails(1, 460, &[&scoped.unit])?;
    scoped.bundle.is_clean()?;
    scoped.is_gone()
}

#[test]
fn a_name_that_is_taken_is_an_error_and_its_owner_goes_on() -> Result<()> {
    requires!(userns, systemd);
    let first = Scoped::new(SLEEP)?;
    let _running = first.started()?;
    let mut second = Scoped::new(SLEEP)?;
    second.bundle.config["linux"]["cgroupsPath"] = first.bundle.config["linux"]["cgroupsPath"].clone();
    second.call("create")?.output()?.fails(1, 460, &[&first.unit])?;
    second.bundle.is_clean()?;
    assert_eq!((first.bundle.status()?.as_str(), first.property("ActiveState")?.as_str()), ("running", "active"));
    first.delete()
}

#[test]
fn update_tells_systemd_and_changes_the_files() -> Result<()> {
    requires!(userns, systemd);
    let mut scoped = Scoped::new(SLEEP)?;
    scoped.bundle.config["linux"]["resources"] = resources();
    let _running = scoped.started()?;
    scoped.verb(&["update", "--memory", "134217728", "--pids-limit", "50", "--cpu-quota", "50000", ID])?.succeeds()?;
    let holds = |memory: &str, tasks: &str| -> Result<()> {
        assert_eq!((scoped.limit("memory.max")?.as_str(), scoped.property("MemoryMax")?.as_str()), (memory, memory));
        assert_eq!((scoped.limit("pids.max")?.as_str(), scoped.property("TasksMax")?.as_str()), (tasks, tasks));
        Ok(())
    };
    holds("134217728", "50")?;
    assert_eq!(
        (scoped.limit("cpu.max")?, scoped.property("CPUQuotaPerSecUSec")?),
        ("50000 100000".into(), "500ms".into())
    );
    // A file that refuses its value takes all back, systemd's view too.
    fs::write(
        scoped.bundle.path("resources"),
        json!({"memory": {"limit": 99_999_744}, "pids": {"limit": 7}, "unified": {"cpu.max": "nonsense"}}).to_string(),
    )?;
    let file = scoped.bundle.path("resources").to_string_lossy().into_owned();
    scoped.verb(&["update", "--resources", &file, ID])?.fails(1, 410, &["cpu.max"])?;
    holds("134217728", "50")?;
    scoped.delete()
}

#[test]
fn a_scope_that_is_stopped_by_systemd_is_a_container_that_has_stopped() -> Result<()> {
    requires!(userns, systemd);
    let scoped = Scoped::new(SLEEP)?;
    let _running = scoped.started()?;
    systemctl(&["kill", "--signal=KILL", &scoped.unit])?;
    scoped.bundle.becomes("stopped")?;
    eventually("the end of the scope", || Ok(scoped.property("LoadState")? == "not-found"))?;
    scoped.verb(&["delete", ID])?.succeeds_silently()?;
    scoped.is_gone()
}

#[test]
fn a_container_whose_systemd_is_gone_is_updated_with_a_warning_and_deleted() -> Result<()> {
    requires!(userns, unprivileged, systemd);
    let scoped = Scoped::new(SLEEP)?;
    let _running = scoped.started()?;
    let nowhere = scoped.bundle.path("nowhere");
    let log = scoped.bundle.path("log").to_string_lossy().into_owned();
    let alone = |words: &[&str]| {
        let call = scoped.bundle.pura(&[&["--log-level", "warning", "--log", &log], words].concat());
        call.env("XDG_RUNTIME_DIR", &nowhere).output()
    };
    alone(&["update", "--pids-limit", "30", ID])?.succeeds_silently()?;
    assert_eq!(scoped.limit("pids.max")?, "30");
    let said = fs::read_to_string(&log)?;
    assert!(said.contains("new limits of") && said.contains("does not exist") && said.contains("[PURA-460]"), "{said}");
    alone(&["exec", ID, "/bin/pura-probe", "true"])?.succeeds_silently()?;
    alone(&["delete", "--force", ID])?.succeeds_silently()?;
    // systemd puts away by itself what nobody lives in.
    eventually("the end of the scope", || Ok(scoped.property("LoadState")? == "not-found"))?;
    scoped.is_gone()
}

#[test]
fn a_scope_that_has_failed_is_forgotten_with_its_container() -> Result<()> {
    requires!(userns, busybox, systemd);
    let mut scoped = Scoped::new(&["/bin/busybox", "tail", "/dev/zero"])?;
    scoped.bundle.config["linux"]["resources"] = json!({"memory": {"limit": 8_388_608, "swap": 8_388_608}});
    // Without this a failed unit stays until somebody asks.
    scoped.bundle.config["annotations"] = json!({"org.systemd.property.CollectMode": "'inactive'", "org.systemd.property.RuntimeMaxUSec": "uint64 3600000000"});
    let _running = scoped.created()?;
    scoped.verb(&["start", ID])?.succeeds_silently()?;
    scoped.bundle.becomes("stopped")?;
    scoped.delete()
}

#[test]
fn the_payload_may_have_a_cgroup_below_the_scope() -> Result<()> {
    requires!(userns, busybox, systemd);
    for (annotations, below) in [
        (json!({"run.oci.systemd.subgroup": "container"}), "container"),
        (json!({"run.oci.delegate-cgroup": "inner"}), "inner"),
        (json!({"run.oci.systemd.subgroup": "container", "run.oci.delegate-cgroup": "inner"}), "container/inner"),
    ] {
        let mut scoped = Scoped::new(SLEEP)?;
        scoped.bundle.config["annotations"] = annotations;
        scoped.bundle.config["linux"]["resources"] = json!({"pids": {"limit": 100}});
        scoped.bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
        let _running = scoped.started()?;
        let group = scoped.property("ControlGroup")?;
        assert_eq!(cgroup_of(scoped.bundle.pid()?)?, format!("{group}/{below}"));
        // The limit is the scope's, and the payload is counted.
        let scope = Path::new("/sys/fs/cgroup").join(&group[1..]);
        assert_eq!(fs::read_to_string(scope.join("pids.max"))?.trim(), "100");
        assert_eq!(fs::read_to_string(scope.join(below).join("pids.max"))?.trim(), "max");
        let inside = ["exec", ID, "/bin/busybox", "cat", "/proc/self/cgroup"];
        assert_eq!(scoped.verb(&inside)?.succeeds()?.trim(), "0::/");
        scoped.verb(&["update", "--pids-limit", "60", ID])?.succeeds()?;
        assert_eq!(fs::read_to_string(scope.join("pids.max"))?.trim(), "60");
        scoped.delete()?;
    }
    Ok(())
}

#[test]
fn a_pura_that_is_killed_amidst_leaves_what_delete_force_can_clean() -> Result<()> {
    requires!(userns, busybox, systemd);
    let mut scoped = Scoped::new(SLEEP)?;
    // Hooks run when init is in the scope already.
    let shell = crate::harness::busybox()?;
    scoped.bundle.config["hooks"] =
        json!({"createRuntime": [{"path": shell, "args": ["sh", "-c", "kill -9 $PPID"], "env": []}]});
    let outcome = scoped.call("create")?.output()?;
    assert_eq!(outcome.code(), 137, "{outcome:?}");
    scoped.delete()
}

#[test]
fn a_caller_in_a_user_namespace_has_the_session_of_its_user() -> Result<()> {
    requires!(userns, unprivileged, systemd);
    let mut scoped = Scoped::new(SLEEP)?;
    scoped.bundle.share_user();
    let call = scoped.call("create")?;
    let words = ["unshare", "--user", "--map-root-user"];
    let mut running = in_session(scoped.bundle.through(&words, &call)).spawn()?;
    running.wait()?.succeeds_silently()?;
    assert!(cgroup_of(scoped.bundle.pid()?)?.ends_with(&scoped.unit));
    let delete = in_session(scoped.bundle.pura(&["delete", "--force", ID]));
    in_session(scoped.bundle.through(&words, &delete)).output()?.succeeds_silently()?;
    scoped.is_gone()
}

#[test]
fn the_address_of_a_bus_is_the_last_resort() -> Result<()> {
    requires!(userns, unprivileged, systemd);
    let address = format!("unix:path={}/bus", env::var("XDG_RUNTIME_DIR")?);
    let scoped = Scoped::new(SLEEP)?;
    fs::create_dir(scoped.bundle.path("empty"))?;
    let call = scoped.call("create")?.env("XDG_RUNTIME_DIR", scoped.bundle.path("empty"));
    let mut running = call.env("DBUS_SESSION_BUS_ADDRESS", address).spawn()?;
    running.wait()?.succeeds_silently()?;
    assert_eq!(scoped.property("ActiveState")?, "active");
    scoped.delete()
}

#[test]
fn a_plan_shows_the_scope_and_starts_nothing() -> Result<()> {
    requires!(userns, systemd);
    let mut scoped = Scoped::new(SLEEP)?;
    scoped.bundle.config["linux"]["resources"] = resources();
    scoped.bundle.write()?;
    let call = scoped.bundle.pura(&["--systemd-cgroup", "plan", "--bundle"]).args(&[scoped.bundle.path("bundle")]);
    let outcome = in_session(call).output()?;
    let plan = outcome.succeeds()?;
    for words in [&scoped.unit, "MemoryMax 67108864", "set memory.max to 67108864", "put it into the container's scope"]
    {
        assert!(plan.contains(words), "{words}: {plan}");
    }
    scoped.is_gone()
}
