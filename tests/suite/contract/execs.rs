//! Further processes in a container, as engines start them.

use std::{
    fs,
    os::{fd::AsRawFd as _, unix::net::UnixListener},
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    console::accept,
    harness::{Bundle, Facts, Outcome, Running, processes},
};

fn running() -> Result<(Bundle, Running)> {
    let bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.started()?;
    Ok((bundle, running))
}

fn exec(bundle: &Bundle, flags: &[&str], words: &[&str]) -> Result<Outcome> {
    bundle.pura(&["exec"]).args(flags).args(&["c1", "/bin/pura-probe"]).args(words).output()
}

/// A process file, and the call of exec with it.
fn by_file(bundle: &Bundle, flags: &[&str], process: &Value) -> Result<Outcome> {
    let file = bundle.path("process");
    fs::write(&file, process.to_string())?;
    bundle.pura(&["exec", "--process"]).args(&[&file]).args(flags).args(&["c1"]).output()
}

#[test]
fn a_process_file_gives_everything_and_the_bundle_is_never_asked() -> Result<()> {
    requires!(userns, subids);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.share_user();
    let _running = bundle.started()?;
    fs::rename(bundle.path("bundle/config.json"), bundle.path("away"))?;
    let caps = json!(["CAP_KILL", "CAP_CHOWN"]);
    let process = json!({
        "cwd": "/tmp", "args": ["/bin/pura-probe", "ids", "caps", "cwd", "umask", "env", "oom", "rlimits"],
        "env": ["A=b c", "PATH=/bin", format!("PURA_TEST={}", bundle.dir().display())],
        "user": {"uid": 5, "gid": 6, "additionalGids": [7, 6], "umask": 0o077},
        "capabilities": {"bounding": caps, "permitted": caps, "effective": caps, "inheritable": caps, "ambient": caps},
        "noNewPrivileges": true, "oomScoreAdj": 900,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 30, "hard": 30}]
    });
    let outcome = by_file(&bundle, &[], &process)?;
    let facts = outcome.facts()?;
    let wanted = [
        ("uid", "5"),
        ("gid", "6"),
        ("groups", "6,7"),
        ("cwd", "/tmp"),
        ("umask", "0077"),
        ("env.A", "b c"),
        ("NoNewPrivs", "1"),
        ("CapAmb", "0000000000000021"),
        ("CapBnd", "0000000000000021"),
        ("oom_score_adj", "900"),
        ("rlimit.nofile", "30:30"),
    ];
    for (name, value) in wanted {
        assert_eq!(facts.get(name)?, value, "{name}");
    }
    bundle.delete()
}

#[test]
fn flags_beside_a_process_file_are_told_of_and_have_no_effect() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let process = json!({"cwd": "/", "args": ["/bin/pura-probe", "ids"], "user": {"uid": 0, "gid": 0}});
    let facts = by_file(&bundle, &["--user", "7", "--no-new-privs"], &process)?.facts()?;
    assert_eq!(facts.get("uid")?, "0");
    let file = bundle.path("process");
    let strict = |flags: &[&str]| bundle.pura(&["--strict", "exec", "--process"]).args(&[&file]).args(flags).output();
    strict(&["--user", "7", "--no-new-privs", "c1"])?.fails(125, 1, &["not as --user, --no-new-privs"])?;
    strict(&["c1"])?.succeeds()?;
    bundle.delete()
}

#[test]
fn flags_change_the_containers_own_process() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["process"]["user"]["umask"] = 0o027.into();
    let _running = bundle.started()?;
    let flags = ["--cap", "CAP_KILL", "-c", "NET_RAW", "--no-new-privs", "--env=X=1", "--cwd=/tmp", "--env", "X=2"];
    let outcome = exec(&bundle, &flags, &["caps", "env", "cwd", "umask"])?;
    let facts = outcome.facts()?;
    let wanted = 1 << 5 | 1 << 13;
    assert_eq!(u64::from_str_radix(facts.get("CapEff")?, 16)? & wanted, wanted);
    assert_eq!(facts.all("env.X"), ["2"]);
    assert_eq!((facts.get("cwd")?, facts.get("umask")?, facts.get("NoNewPrivs")?), ("/tmp", "0027", "1"));
    bundle.delete()
}

#[test]
fn a_detached_exec_with_a_terminal_leaves_a_pid_file_and_the_terminal_of_the_container() -> Result<()> {
    requires!(userns, busybox);
    let (bundle, _running) = running()?;
    let (socket, pid_file) = (bundle.path("socket"), bundle.path("pid"));
    let listener = UnixListener::bind(&socket)?;
    let words = ["exec", "--detach", "--tty", "--console-socket", &socket.to_string_lossy(), "--pid-file"];
    let exec = bundle.pura(&words).args(&[&pid_file]).args(&["c1", "/bin/sh", "-c", "tty; read line; echo got $line"]);
    exec.output()?.succeeds_silently()?;
    let pid: i32 = fs::read_to_string(&pid_file)?.parse()?;
    for number in 0..3 {
        let target = fs::read_link(format!("/proc/{pid}/fd/{number}"))?;
        assert_eq!(target.to_string_lossy(), "/dev/pts/0");
    }
    let master = accept(&listener)?;
    assert!(master.as_raw_fd() > 2);
    let mut master = fs::File::from(master);
    std::io::Write::write_all(&mut master, b"hello\n")?;
    let mut shown = Vec::new();
    drop(std::io::Read::read_to_end(&mut master, &mut shown));
    assert!(String::from_utf8_lossy(&shown).contains("got hello"), "{shown:?}");
    bundle.delete()
}

#[test]
fn preserved_descriptors_with_gaps_reach_an_exec_and_no_others_do() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    let script = "exec 5</dev/null 8</dev/null 9</; exec \"$@\"";
    for (flags, wanted) in [(&[][..], &["0", "1", "2"][..]), (&["--preserve-fds", "6"], &["0", "1", "2", "5", "8"])] {
        let pura = bundle.pura(&["exec"]).args(flags).args(&["c1", "/bin/pura-probe", "fds"]);
        let facts = bundle.through(&["sh", "-c", script, "sh"], &pura).output()?.facts()?;
        let open: Vec<&str> = facts.below("fd.").into_iter().map(|(number, _)| number).collect();
        assert_eq!(open, wanted);
    }
    bundle.delete()
}

#[test]
fn a_failed_exec_leaves_no_pid_file_and_no_process() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    let pid_file = bundle.path("pid").display().to_string();
    let before = processes(bundle.dir())?;
    let good = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/bin/pura-probe", "sleep"]});
    let with = |key: &str, value: Value| {
        let mut process = good.clone();
        process[key] = value;
        process.to_string()
    };
    let flag = ["--detach", "--pid-file", &pid_file];
    let files = [
        String::new(),
        "{".to_owned(),
        good.to_string().replace('}', ""),
        "[]".to_owned(),
        "null".to_owned(),
        "{}".to_owned(),
        json!({"process": good}).to_string(),
        with("args", json!([])),
        with("args", json!(["/bin/nope"])),
        with("args", json!(["nope"])),
        with("args", json!(["/etc"])),
        with("args", json!(["/etc/passwd"])),
        with("cwd", json!("relative")),
        with("cwd", json!("/nowhere")),
        with("user", json!({"uid": 4_294_967_295_u32, "gid": 0})),
        with("user", json!({"uid": 77, "gid": 0})),
        with("terminal", json!(true)),
        with("rlimits", json!([{"type": "RLIMIT_BOGUS", "soft": 1, "hard": 1}])),
        with("env", json!(["NOTHING"])),
        with("selinuxLabel", json!("u:r:t:s0")),
    ];
    let selinux = fs::metadata("/sys/fs/selinux/enforce").is_ok();
    for content in files.iter().filter(|content| !selinux || !content.contains("selinux")) {
        let file = bundle.path("process");
        fs::write(&file, content)?;
        let outcome = bundle.pura(&["exec", "--process"]).args(&[&file]).args(&flag).args(&["c1"]).output()?;
        assert!([1, 2].contains(&outcome.code()) && outcome.stderr.lines().count() == 1, "{content}: {outcome:#?}");
        assert!(!bundle.path("pid").exists(), "{content} left a pid-file");
    }
    let calls: [&[&str]; 6] = [
        &["--process", "/nowhere/process", "c1"],
        &["--pid-file", "/nowhere/pid", "c1", "/bin/pura-probe", "sleep"],
        &["--console-socket", "/nowhere/socket", "--tty", "c1", "/bin/pura-probe", "sleep"],
        &["--pidfd-socket", "/nowhere/socket", "c1", "/bin/pura-probe", "sleep"],
        &["--cap", "BOGUS", "c1", "/bin/pura-probe", "sleep"],
        &["--user", "x", "c1", "/bin/pura-probe", "sleep"],
    ];
    for words in calls {
        let outcome = bundle.pura(&["exec"]).args(&flag).args(words).output()?;
        assert!(outcome.code() != 0 && outcome.stderr.lines().count() == 1, "{outcome:#?}");
        assert!(!bundle.path("pid").exists(), "{words:?} left a pid-file");
    }
    let after = || Ok(processes(bundle.dir())?.len() == before.len());
    crate::harness::eventually("no process is left", after)?;
    assert_eq!(fs::read_dir(bundle.dir())?.flatten().filter(|entry| entry.file_name() == ".pid.c1").count(), 0);
    bundle.delete()
}

#[test]
fn a_created_container_takes_an_exec_and_starts_afterwards() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.created()?;
    exec(&bundle, &[], &["exit", "7"])?.ends(7)?;
    exec(&bundle, &["--detach"], &["sleep"])?.succeeds()?;
    assert_eq!(bundle.status()?, "created");
    bundle.verb("start")?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    bundle.delete()
}

/// In which namespaces a process is, but for those that a joining container shares with no one.
fn namespaces(facts: &Facts) -> Vec<String> {
    facts.below("ns.").into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[test]
fn exec_is_where_the_container_is_when_that_has_joined_another() -> Result<()> {
    requires!(userns);
    let (first, _first) = running()?;
    let pid = first.pid()?;
    let mut second = Bundle::probing(&["sleep"])?;
    second.share_user();
    for (kind, file) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("pid", "pid"), ("uts", "uts")] {
        second.share(kind);
        second.push("/linux/namespaces", json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}))?;
    }
    second.config.as_object_mut().map(|config| config.remove("hostname"));
    let _second = second.started()?;
    let init = second.pid()?;
    let facts = exec(&second, &[], &["ns"])?.facts()?;
    for (name, value) in facts.below("ns.") {
        assert_eq!(value, fs::read_link(format!("/proc/{init}/ns/{name}"))?.to_string_lossy(), "{name}");
    }
    let of_first = exec(&first, &[], &["ns"])?.facts()?;
    let shared = namespaces(&facts).iter().filter(|one| namespaces(&of_first).contains(one)).count();
    assert!(shared >= 5, "{facts:?} {of_first:?}");
    second.delete()?;
    first.delete()
}

#[test]
fn exec_works_for_a_caller_who_is_root_of_a_namespace_that_the_container_shares() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.share_user();
    let create = bundle.with_bundle("create", &["c1"])?;
    let script = "\"$@\" >/dev/null || exit 91; pura=$1; root=$3
        $pura --root $root start c1 >/dev/null || exit 92
        $pura --root $root exec c1 /bin/pura-probe ids ns || exit 93
        echo shared=$(readlink /proc/self/ns/user)
        $pura --root $root delete --force c1 || exit 94";
    let words = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"];
    let facts = bundle.through(&words, &create).output()?.facts()?;
    assert_eq!((facts.get("uid")?, facts.get("ns.user")?), ("0", facts.get("shared")?));
    Ok(())
}

#[test]
fn a_cgroup_that_is_asked_for_is_entered_or_the_exec_fails() -> Result<()> {
    requires!(userns, cgroup);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    let path = bundle.path("bundle").display().to_string();
    bundle.pura(&["--cgroup-manager", "disabled", "create", "--bundle", &path, "c1"]).output()?.succeeds_silently()?;
    for asked in ["/", "sub", "../x"] {
        exec(&bundle, &["--cgroup", asked], &["true"])?.fails(125, 406, &[asked, "no cgroup of its own"])?;
    }
    bundle.delete()?;
    let _running = bundle.started()?;
    let own = bundle.state()?["pura"]["cgroup"].as_str().unwrap_or_default().to_owned();
    fs::create_dir(format!("{own}/sub"))?;
    let pid_file = bundle.path("pid");
    for (flags, wanted) in [(&[][..], ""), (&["--cgroup", "/"], ""), (&["--cgroup", "sub"], "/sub")] {
        let exec = bundle.pura(&["exec", "-d", "--pid-file"]).args(&[&pid_file]).args(flags);
        exec.args(&["c1", "/bin/pura-probe", "sleep"]).output()?.ends(0)?;
        let pid = fs::read_to_string(&pid_file)?;
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let wanted = format!("0::{}{wanted}", own.trim_start_matches("/sys/fs/cgroup"));
        assert!(cgroup.lines().any(|line| line == wanted), "{cgroup}");
    }
    exec(&bundle, &["--cgroup", "absent"], &["true"])?.fails(125, 406, &["absent", "does not exist"])?;
    exec(&bundle, &["--cgroup", "../x"], &["true"])?.fails(125, 406, &["\"..\""])?;
    bundle.delete()
}
