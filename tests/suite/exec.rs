//! `pura exec`: a further process in a container.

use std::{fs, os::unix::fs::MetadataExt as _};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::fallback;
use crate::harness::{Bundle, Facts, Outcome, Running, eventually, own_uid, processes};

/// A container that runs until it is told to end, and the end of this value.
fn running() -> Result<(Bundle, Running)> {
    let bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.started()?;
    Ok((bundle, running))
}

fn exec(bundle: &Bundle, flags: &[&str], program: &[&str]) -> Result<Outcome> {
    bundle.pura(&["exec"]).args(flags).args(&["c1"]).args(program).output()
}

fn probe(bundle: &Bundle, flags: &[&str], words: &[&str]) -> Result<Facts> {
    exec(bundle, flags, &[&["/bin/pura-probe"], words].concat())?.facts()
}

#[test]
fn exec_returns_the_status_of_its_program() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    for status in [0, 7, 255] {
        exec(&bundle, &[], &["/bin/pura-probe", "exit", &status.to_string()])?.ends(status)?;
    }
    exec(&bundle, &[], &["/bin/pura-probe", "signal-self", "9"])?.ends(137)?;
    bundle.delete()
}

#[test]
fn exec_is_in_every_namespace_of_the_container() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    let init = bundle.pid()?;
    let facts = probe(&bundle, &[], &["ns"])?;
    for kind in ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup"] {
        let of_init = fs::read_link(format!("/proc/{init}/ns/{kind}"))?;
        assert_eq!(facts.get(&format!("ns.{kind}"))?, of_init.to_string_lossy(), "{kind}");
    }
    bundle.delete()
}

#[test]
fn exec_works_in_a_created_container_too() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.created()?;
    assert_eq!(probe(&bundle, &[], &["ids"])?.get("uid")?, "0");
    bundle.delete()
}

/// A container of the probe's with all ids that the tester has.
fn with_all_ids() -> Result<Bundle> {
    let mut bundle = Bundle::probing(&["sleep"])?;
    let linux = bundle.config["linux"].as_object_mut().context("linux")?;
    linux.retain(|key, _| key != "uidMappings" && key != "gidMappings");
    Ok(bundle)
}

#[test]
fn the_end_of_the_container_is_told_to_whoever_waits_for_an_exec() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let exec = |words: &[&str]| bundle.pura(&[&["exec", "c1", "/bin/pura-probe"], words].concat()).spawn();
    let mut first = exec(&["sleep"])?;
    assert_eq!(first.line()?, "ready");
    bundle.pura(&["kill", "c1", "KILL"]).output()?.succeeds_silently()?;
    let outcome = first.wait()?;
    assert_eq!(outcome.code(), 137);
    assert!(
        outcome.stderr.starts_with("pura: warning: container \"c1\" ended, and with it what exec ran"),
        "{outcome:?}"
    );
    assert!(outcome.stderr.ends_with("[PURA-612]\n"), "{outcome:?}");
    bundle.delete()
}

#[test]
fn a_program_that_kill_ends_in_a_container_that_goes_on_is_137_without_a_word() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    exec(&bundle, &[], &["/bin/pura-probe", "signal-self", "9"])?.ends(137)?;
    bundle.delete()
}

#[test]
fn flags_set_user_groups_environment_and_directory() -> Result<()> {
    requires!(userns, subids);
    let bundle = with_all_ids()?;
    let _running = bundle.started()?;
    let flags = ["-u", "5:6", "-g", "7", "-e", "A=b c", "--cwd", "/tmp"];
    let facts = probe(&bundle, &flags, &["ids", "env", "cwd"])?;
    assert_eq!((facts.get("uid")?, facts.get("gid")?, facts.get("groups")?), ("5", "6", "7"));
    assert_eq!((facts.get("env.A")?, facts.get("cwd")?), ("b c", "/tmp"));
    bundle.delete()
}

#[test]
fn an_exec_is_never_less_confined_than_init() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["process"]["noNewPrivileges"] = true.into();
    let kept = json!(["CAP_KILL"]);
    bundle.config["process"]["capabilities"] = json!({"bounding": kept, "effective": kept, "permitted": kept});
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}]);
    let _running = bundle.started()?;
    let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/bin/pura-probe", "caps", "rlimits"]});
    let file = bundle.path("process.json");
    fs::write(&file, serde_json::to_vec(&process)?)?;
    let outcome = bundle.pura(&["exec", "--process"]).args(&[&file]).args(&["c1"]).output()?;
    let facts = outcome.facts()?;
    assert_eq!((facts.get("CapBnd")?, facts.get("CapInh")?), ("0000000000000020", "0000000000000000"));
    assert_eq!((facts.get("NoNewPrivs")?, facts.get("rlimit.nofile")?), ("1", "99:100"));
    bundle.delete()
}

#[test]
fn the_program_has_no_descriptor_but_the_standard_ones() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    let facts = probe(&bundle, &[], &["fds"])?;
    let open: Vec<_> = facts.below("fd.").into_iter().map(|(name, _)| name.to_owned()).collect();
    assert!(open.iter().all(|name| ["0", "1", "2"].iter().any(|number| name.ends_with(number))), "{open:?}");
    bundle.delete()
}

#[test]
fn a_detached_exec_leaves_its_pid_and_a_failed_one_does_not() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    let file = bundle.path("exec.pid");
    let path = file.display().to_string();
    exec(&bundle, &["--detach", "--pid-file", &path], &["/bin/pura-probe", "sleep"])?.ends(0)?;
    let pid: u32 = fs::read_to_string(&file)?.parse()?;
    assert_eq!(fs::metadata(format!("/proc/{pid}"))?.uid(), own_uid());
    fs::remove_file(&file)?;
    for program in [&["/bin/nope"][..], &["nope"], &["/etc"]] {
        let outcome = exec(&bundle, &["--detach", "--pid-file", &path], program)?;
        assert!(outcome.code() != 0 && !file.exists(), "{outcome:#?}");
    }
    bundle.delete()
}

#[test]
fn what_cannot_be_run_is_said_in_the_words_of_engines() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    for (program, status, code, words) in [
        ("nope", 127, 601, "\"nope\": executable file not found in $PATH: no such file or directory"),
        ("/bin/nope", 127, 602, "\"/bin/nope\": no such file or directory"),
        ("/etc/passwd", 126, 603, "exec: \"/etc/passwd\": permission denied"),
        ("/etc", 126, 604, "exec: \"/etc\": is a directory"),
    ] {
        exec(&bundle, &[], &[program])?.fails(status, code, &[words])?;
    }
    exec(&bundle, &["--cwd", "/nowhere"], &["/bin/pura-probe", "true"])?.fails(125, 611, &["chdir to cwd"])?;
    bundle.delete()
}

#[test]
fn a_container_that_does_not_run_is_refused() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["true"])?;
    exec(&bundle, &[], &["true"])?.fails(125, 703, &["container \"c1\" does not exist"])?;
    let _running = bundle.created()?;
    bundle.verb("start")?.succeeds_silently()?;
    bundle.becomes("stopped")?;
    exec(&bundle, &[], &["true"])?.fails(125, 612, &["container not running"])?;
    bundle.verb("delete")?.succeeds_silently()
}

/// `pura exec` whose child has a signal sent when it begins.
fn exec_with(bundle: &Bundle, signal: &str, flags: &[&str]) -> Result<Running> {
    let inject = format!("inject=setsid:signal={signal}");
    let words = ["strace", "--quiet=all", "-f", "-o", "/dev/null", "-e", "trace=setsid", "-e", &inject];
    bundle.through(&words, &bundle.pura(&["exec"]).args(flags).args(&["c1", "/bin/pura-probe", "true"])).spawn()
}

#[test]
fn a_container_that_stops_meanwhile_is_said_to_have_stopped_and_a_killed_child_is_no_bug() -> Result<()> {
    requires!(userns, strace);
    let (bundle, _running) = running()?;
    let pid_file = bundle.path("exec.pid").display().to_string();
    let flags = ["--pid-file", &pid_file];
    exec_with(&bundle, "KILL", &flags)?.wait()?.fails(
        125,
        706,
        &["init was killed (SIGKILL) before the program ran"],
    )?;
    // Nobody is to know of it: there, the program is one that was killed.
    exec_with(&bundle, "KILL", &[])?.wait()?.ends(137)?;
    let mut exec = exec_with(&bundle, "STOP", &flags)?;
    eventually("the child stands still", || {
        let stands = |pid: i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") t "));
        Ok(processes(bundle.dir())?.iter().any(|(pid, _)| stands(*pid)))
    })?;
    bundle.pura(&["kill", "c1", "KILL"]).output()?.succeeds_silently()?;
    exec.wait()?.fails(125, 612, &["container not running (stopped)"])?;
    bundle.delete()
}

#[test]
fn a_bad_process_file_is_named() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    let file = bundle.path("process.json");
    let with = |content: &str| -> Result<Outcome> {
        fs::write(&file, content)?;
        bundle.pura(&["exec", "--process"]).args(&[&file]).args(&["c1"]).output()
    };
    with("{")?.fails(125, 802, &["process.json"])?;
    with("[]")?.fails(125, 803, &["process.json"])?;
    let bad: Value = json!({"cwd": "/", "user": {"uid": -1}, "args": ["x"]});
    with(&bad.to_string())?.fails(125, 803, &["process.json"])?;
    with(r#"{"cwd":"x","user":{},"args":["true"]}"#)?.fails(125, 803, &["use /", "process.json: process.cwd"])?;
    with(r#"{"cwd":"/","user":{}}"#)?.fails(125, 803, &["process.json: process.args"])?;
    fs::remove_file(&file)?;
    bundle.pura(&["exec", "--process"]).args(&[&file]).args(&["c1"]).output()?.fails(125, 716, &["does not exist"])?;
    bundle.delete()
}

#[test]
fn a_user_id_is_a_number_of_32_bits_and_nothing_else() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    for user in ["4294967295", "4294967296", "-1", "0x0", "1:", "root", ""] {
        let outcome = exec(&bundle, &[&format!("--user={user}")], &["/bin/pura-probe", "ids"])?;
        assert!(outcome.code() == 125 && outcome.stderr.contains("PURA-001"), "{user:?}: {outcome:#?}");
        assert!(user != "root" || outcome.stderr.contains("fix: its number: pura exec ID id"), "{outcome:#?}");
    }
    bundle.delete()
}

#[test]
fn what_an_option_asks_for_is_named_by_the_option() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    for (flags, code, words) in [
        (["-e", "A"], 803, "cannot use the command line: --env: \"A\" is not NAME=VALUE"),
        (["-u", "70000"], 120, "(--user)"),
        (["--cwd", "x"], 803, "--cwd: \"x\" is not absolute"),
    ] {
        exec(&bundle, &flags, &["/bin/pura-probe", "true"])?.fails(125, code, &[words])?;
    }
    if fs::metadata("/sys/fs/selinux/enforce").is_err() {
        exec(&bundle, &["--process-label", "u:r:t:s0"], &["true"])?.fails(125, 508, &["(--process-label)"])?;
    }
    bundle.delete()
}

#[test]
fn a_capability_that_only_root_would_keep_is_a_warning() -> Result<()> {
    requires!(userns, subids);
    let bundle = with_all_ids()?;
    let _running = bundle.started()?;
    let strictly = |user: &str| {
        let words = ["--strict", "exec", "-u", user, "-c", "CAP_NET_RAW", "c1", "/bin/pura-probe", "caps"];
        bundle.pura(&words).output()
    };
    strictly("5:5")?.fails(125, 501, &["user 5 does not get --cap \"CAP_NET_RAW\""])?;
    let effective = u64::from_str_radix(strictly("0:0")?.facts()?.get("CapEff")?, 16)?;
    assert_eq!(effective >> 13 & 1, 1, "{effective:x}");
    bundle.delete()
}

#[test]
fn exec_has_the_scheduling_of_its_process_object_and_refuses_pura_itself() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    let file = bundle.path("process.json");
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["/bin/pura-probe", "read", "/proc/self/stat"]);
    process["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 19});
    fs::write(&file, process.to_string())?;
    let outcome = exec(&bundle, &["--process", &file.to_string_lossy()], &[])?;
    let stat: Vec<_> = outcome.succeeds()?.split_whitespace().map(str::to_owned).collect();
    assert_eq!((stat[18].as_str(), stat[40].as_str()), ("19", "3"));
    process["scheduler"] = Value::Null;
    process["selinuxLabel"] = "system_u:system_r:container_t:s0".into();
    fs::write(&file, process.to_string())?;
    if fs::metadata("/sys/fs/selinux/enforce").is_err() {
        let flags = ["--process", &file.to_string_lossy()];
        exec(&bundle, &flags, &[])?.fails(125, 508, &["`/proc/self/attr/exec`"])?;
    }
    exec(&bundle, &[], &["/proc/self/exe"])?.fails(126, 603, &["it is pura itself"])?;
    bundle.delete()
}

#[test]
fn exec_is_in_the_time_of_the_container() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.push("/linux/namespaces", json!({"type": "time"}))?;
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 86400}});
    let _running = bundle.started()?;
    let init = bundle.pid()?;
    let facts = probe(&bundle, &[], &["ns"])?;
    assert_eq!(facts.get("ns.time")?, fs::read_link(format!("/proc/{init}/ns/time"))?.to_string_lossy());
    bundle.delete()
}

#[test]
fn exec_takes_labels_of_its_own() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    let program = ["/bin/pura-probe", "true"];
    exec(&bundle, &["--apparmor", "unconfined", "--process-label", ""], &program)?.succeeds_silently()?;
    let is_on = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.starts_with('Y'));
    if !is_on("/sys/module/apparmor/parameters/enabled") {
        exec(&bundle, &["--apparmor", "some-profile"], &program)?.fails(125, 509, &["some-profile", "is off"])?;
    }
    if fs::metadata("/sys/fs/selinux/enforce").is_err() {
        exec(&bundle, &["--process-label", "u:r:t:s0"], &program)?.fails(125, 508, &["u:r:t:s0", "is off"])?;
    }
    bundle.delete()
}

#[test]
fn what_an_exec_has_to_do_without_is_said_whoever_waits_for_it() -> Result<()> {
    requires!(userns);
    let (bundle, _running) = running()?;
    let (log, pid_file) = (bundle.path("log"), bundle.path("pid"));
    let (log_file, pid_file) = (log.to_string_lossy(), pid_file.to_string_lossy());
    for announced in [vec![], vec!["--pid-file", &*pid_file]] {
        let said = |globals: &[&str]| {
            let words = [globals, &["--log-level", "warning", "--log", &*log_file, "exec"], &announced].concat();
            let exec = bundle.pura(&words).args(&["c1", "/bin/pura-probe", "write", "/ran"]);
            // 122: EDQUOT, the user's keys are used up.
            fallback::hidden(&bundle, "122", "keyctl", &exec).output()
        };
        said(&[])?.succeeds_silently()?;
        fs::remove_file(bundle.rootfs("ran"))?;
        let text = fs::read_to_string(&log)?;
        assert!(text.contains("PURA-521") && text.lines().count() == 1, "{text}");
        fs::remove_file(&log)?;
        said(&["--strict"])?.fails(125, 521, &["keyring"])?;
        fs::remove_file(&log)?;
        assert!(!bundle.rootfs("ran").exists());
    }
    bundle.delete()
}
