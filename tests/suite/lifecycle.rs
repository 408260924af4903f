//! create and start: what is there in between, and what each of them refuses.

use std::{fs, os::unix::fs::symlink, process::Command};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::harness::{Bundle, Facts, probe_binary, processes, text};

#[test]
fn a_container_is_created_then_running_then_stopped_then_gone() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.created()?;
    assert_eq!(bundle.status()?, "created");
    bundle.verb("start")?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    assert_eq!(bundle.status()?, "running");
    bundle.verb("kill")?.succeeds_silently()?;
    assert!(running.rest()?.is_empty());
    bundle.becomes("stopped")?;
    bundle.verb("delete")?.succeeds_silently()?;
    bundle.verb("state")?.fails(1, 703, &["container \"c1\" does not exist"])?;
    bundle.is_clean()
}

#[test]
fn nothing_of_the_program_runs_before_start() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["write", "/tmp/ran"])?;
    let running = bundle.created()?;
    assert!(!bundle.rootfs("tmp/ran").exists(), "the program ran during create");
    bundle.verb("start")?.succeeds_silently()?;
    running.rest()?;
    assert!(bundle.rootfs("tmp/ran").exists(), "the program did not run after start");
    bundle.delete()
}

#[test]
fn editing_or_deleting_config_json_after_create_changes_nothing() -> Result<()> {
    requires!(userns);
    for edit in ["{}", "not JSON", ""] {
        let bundle = Bundle::probing(&["write", "/tmp/ran"])?;
        let running = bundle.created()?;
        let config = bundle.path("bundle/config.json");
        if edit.is_empty() {
            fs::remove_file(config)?;
        } else {
            fs::write(config, edit)?;
        }
        bundle.pura(&["exec", "c1", "/bin/pura-probe", "exit", "7"]).output()?.ends(7)?;
        bundle.verb("start")?.succeeds_silently()?;
        running.rest()?;
        assert!(bundle.rootfs("tmp/ran").exists(), "after {edit:?} the program did not run");
        bundle.becomes("stopped")?;
        bundle.verb("delete")?.succeeds_silently()?;
    }
    Ok(())
}

#[test]
fn the_path_of_the_root_may_vanish_after_create() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.created()?;
    fs::rename(bundle.path("bundle"), bundle.path("elsewhere"))?;
    assert_eq!(bundle.status()?, "created");
    bundle.verb("start")?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    bundle.pura(&["exec", "c1", "/bin/pura-probe", "exit", "7"]).output()?.ends(7)?;
    bundle.verb("kill")?.succeeds_silently()?;
    running.rest()?;
    bundle.becomes("stopped")?;
    bundle.verb("delete")?.succeeds_silently()
}

#[test]
fn a_used_id_is_refused_and_its_container_unchanged() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let before = bundle.state()?;
    bundle.create()?.fails_with_any(1, &[705, 730], &["\"c1\"", "already exists"])?;
    bundle.run()?.fails_with_any(125, &[705, 730], &["\"c1\"", "already exists"])?;
    assert_eq!(bundle.state()?, before);
    bundle.delete()
}

#[test]
fn the_id_of_a_failed_create_and_of_a_deleted_container_is_usable_at_once() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    let good = bundle.config.clone();
    for _ in 0..3 {
        bundle.args(&["/bin/nope"]);
        bundle.is_refused(602, &["\"/bin/nope\": no such file or directory"])?;
        bundle.config.clone_from(&good);
        let _running = bundle.created()?;
        bundle.delete()?;
    }
    Ok(())
}

#[test]
fn create_and_not_start_fails_for_a_program_that_cannot_run() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    let cases: [(&[&str], u32, &str); 5] = [
        (&["nocmd"], 601, "\"nocmd\": executable file not found in $PATH: no such file or directory"),
        (&[""], 601, "\"\": executable file not found in $PATH: no such file or directory"),
        (&["/bin/nope"], 602, "\"/bin/nope\": no such file or directory"),
        (&["/etc/passwd"], 603, "exec: \"/etc/passwd\": permission denied"),
        (&["/etc"], 604, "exec: \"/etc\": is a directory: permission denied"),
    ];
    for (args, code, words) in cases {
        bundle.args(args);
        bundle.is_refused(code, &[words])?;
    }
    Ok(())
}

#[test]
fn start_of_a_running_a_stopped_or_a_missing_container_fails() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.verb("start")?.fails(1, 703, &["container \"c1\" does not exist"])?;
    let running = bundle.started()?;
    bundle.verb("start")?.fails(1, 707, &["\"c1\"", "already running"])?;
    assert_eq!(bundle.status()?, "running");
    bundle.verb("kill")?.succeeds_silently()?;
    running.rest()?;
    bundle.becomes("stopped")?;
    bundle.verb("start")?.fails_with_any(1, &[706, 707], &["\"c1\"", "has stopped"])?;
    assert_eq!(bundle.status()?, "stopped");
    bundle.delete()
}

#[test]
fn of_two_simultaneous_starts_one_succeeds() -> Result<()> {
    requires!(userns);
    for _ in 0..5 {
        let bundle = Bundle::probing(&["sleep"])?;
        let running = bundle.created()?;
        let mut calls = [bundle.pura(&["start", "c1"]).spawn()?, bundle.pura(&["start", "c1"]).spawn()?];
        let outcomes = [calls[0].wait()?, calls[1].wait()?];
        let started = outcomes.iter().filter(|outcome| outcome.status.success()).count();
        assert_eq!(started, 1, "{outcomes:#?}");
        assert_eq!(running.line()?, "ready");
        bundle.delete()?;
    }
    Ok(())
}

#[test]
fn create_without_a_process_succeeds_and_its_start_fails() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    bundle.config.as_object_mut().context("config")?.remove("process");
    let _running = bundle.created()?;
    assert_eq!(bundle.status()?, "created");
    bundle.verb("start")?.fails_with_any(1, &[707, 803], &["process"])?;
    bundle.delete()
}

#[test]
fn start_reports_an_exec_that_fails() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::with_args(&["/bin/garbage"])?;
    let program = bundle.rootfs("bin/garbage");
    fs::copy(bundle.rootfs("bin/pura-probe"), &program)?;
    let _running = bundle.created()?;
    fs::write(&program, "neither ELF nor script\n")?;
    bundle.verb("start")?.fails(1, 610, &["\"/bin/garbage\""])?;
    bundle.becomes("stopped")?;
    bundle.delete()
}

#[test]
fn start_fails_when_init_died_waiting() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.created()?;
    kill(Pid::from_raw(bundle.pid()?), Signal::SIGKILL)?;
    bundle.becomes("stopped")?;
    bundle.verb("start")?.fails_with_any(1, &[706, 707], &["\"c1\"", "has stopped"])?;
    bundle.verb("delete")?.succeeds_silently()
}

#[test]
fn the_pid_file_is_a_bare_number_and_the_pid_of_state() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let (pid_file, victim) = (bundle.path("pid"), bundle.path("victim"));
    // A planted link is replaced, not followed.
    fs::write(&victim, "precious")?;
    symlink(&victim, &pid_file)?;
    let flags = ["--pid-file", &pid_file.to_string_lossy(), "c1"];
    bundle.with_bundle("create", &flags)?.output()?.succeeds_silently()?;
    let pid = bundle.pid()?;
    assert_eq!(fs::read_to_string(&pid_file)?, pid.to_string());
    assert_eq!(fs::read_to_string(victim)?, "precious");
    bundle.verb("start")?.succeeds_silently()?;
    bundle.becomes("running")?;
    assert_eq!(bundle.pid()?, pid);
    bundle.delete()
}

#[test]
fn init_becomes_a_child_of_the_callers_subreaper() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let create = bundle.with_bundle("create", &["c1"])?;
    let outcome = bundle.through(&[probe_binary().as_os_str(), "adopt".as_ref()], &create).output()?;
    let children = outcome.facts()?.all("child").len();
    // The subreaper has ended since, but while it lived init, and no one else of ours, was its child.
    assert_eq!(children, 1, "{outcome:#?}");
    bundle.delete()
}

#[test]
fn after_create_only_init_is_left() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.created()?;
    let left = processes(bundle.dir())?;
    let pids: Vec<i32> = left.iter().map(|(pid, _)| *pid).collect();
    assert_eq!(pids, [bundle.pid()?], "{left:?}");
    bundle.delete()
}

#[test]
fn pura_works_when_started_with_its_standard_descriptors_closed() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["write", "/tmp/ran"])?;
    let run = bundle.with_bundle("run", &["c1"])?;
    bundle.through(&["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"], &run).output()?.succeeds_silently()?;
    assert!(bundle.rootfs("tmp/ran").exists(), "the program did not run");
    Ok(())
}

#[test]
fn the_program_has_the_standard_descriptors_and_those_it_was_promised() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["fds"])?;
    bundle.write()?;
    let cases: [(&[&str], &[&str]); 2] =
        [(&[], &["0", "1", "2"]), (&["--preserve-fds", "6"], &["0", "1", "2", "5", "8"])];
    for (flags, wanted) in cases {
        let run = bundle.with_bundle("run", &[flags, &["c1"]].concat())?;
        // 5 and 8 are open, 9 is too, but nobody asks for it.
        let script = "exec 5</dev/null 8</dev/null 9</; exec \"$@\"";
        let outcome = bundle.through(&["sh", "-c", script, "sh"], &run).output()?;
        let facts = outcome.facts()?;
        let open: Vec<&str> = facts.below("fd.").into_iter().map(|(number, _)| number).collect();
        assert_eq!(open, wanted, "with {flags:?}");
    }
    Ok(())
}

#[test]
fn descriptors_of_a_service_manager_reach_the_program_with_their_variables() -> Result<()> {
    requires!(userns);
    let listening = |bundle: &Bundle, pid: &str, flags: &[&str]| -> Result<Facts> {
        let run = bundle.with_bundle("run", &[flags, &["c1"]].concat())?;
        let names = "LISTEN_FDS=2 LISTEN_FDNAMES=http:admin";
        let script = format!("exec 3</dev/null 4</dev/null 5</dev/null; LISTEN_PID={pid} {names} exec \"$@\"");
        bundle.through(&["sh", "-c", &script, "sh"], &run).output()?.facts()
    };
    let open = |facts: &Facts| facts.below("fd.").into_iter().map(|(number, _)| number.to_owned()).collect::<Vec<_>>();
    let mut bundle = Bundle::probing(&["fds", "env"])?;
    let facts = listening(&bundle, "$$", &[])?;
    assert_eq!(open(&facts), ["0", "1", "2", "3", "4"]);
    for (name, value) in [("FDS", "2"), ("PID", "1"), ("FDNAMES", "http:admin")] {
        assert_eq!(facts.get(&format!("env.LISTEN_{name}"))?, value);
    }
    assert_eq!(open(&listening(&bundle, "$$", &["--preserve-fds", "3"])?), ["0", "1", "2", "3", "4", "5"]);
    // Another process's: variables that were left to us.
    let facts = listening(&bundle, "1", &[])?;
    assert_eq!(open(&facts), ["0", "1", "2"]);
    assert!(facts.get("env.LISTEN_FDS").is_err());
    bundle.push("/process/env", json!("LISTEN_FDS=1"))?;
    assert_eq!(listening(&bundle, "$$", &[])?.get("env.LISTEN_FDS")?, "1");
    // Its number is not known.
    bundle.share("pid");
    bundle.config["annotations"] = json!({"org.pura.proc": "bind"});
    assert!(listening(&bundle, "$$", &[])?.get("env.LISTEN_PID").is_err());
    Ok(())
}

#[test]
fn the_program_starts_with_default_signals_whatever_the_caller_ignores_or_blocks() -> Result<()> {
    requires!(userns, busybox);
    let bundle = Bundle::with_args(&["/bin/busybox", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])?;
    let run = bundle.with_bundle("run", &["c1"])?;
    let outcome = bundle.through(&["sh", "-c", "trap '' PIPE USR1 INT TERM; exec \"$@\"", "sh"], &run).output()?;
    assert_eq!(outcome.succeeds()?, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    Ok(())
}

#[test]
fn the_suite_does_not_run_as_root_by_accident() -> Result<()> {
    let output = Command::new("id").arg("-u").output()?;
    if text(&output.stdout) == "0\n" {
        requires!(unprivileged);
    }
    Ok(())
}

/// What `/proc` says of where a process is, by namespace, and its cgroup.
fn whereabouts(pid: i32) -> Result<Vec<String>> {
    let mut all = vec![fs::read_to_string(format!("/proc/{pid}/cgroup"))?];
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts"] {
        all.push(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string());
    }
    Ok(all)
}

#[test]
fn after_create_namespaces_and_cgroup_are_final() -> Result<()> {
    requires!(userns);
    for kind in ["cgroup", "time"] {
        let mut bundle = Bundle::probing(&["sleep"])?;
        bundle.push("/linux/namespaces", serde_json::json!({"type": kind}))?;
        let running = bundle.created()?;
        let created = whereabouts(bundle.pid()?)?;
        bundle.verb("start")?.succeeds_silently()?;
        assert_eq!(running.line()?, "ready");
        assert_eq!(whereabouts(bundle.pid()?)?, created);
        let own = whereabouts(i32::try_from(std::process::id())?)?;
        let new = created.iter().zip(&own).skip(1).filter(|(inside, outside)| inside != outside).count();
        // Seven kinds, of which the PID namespace shows twice.
        assert!(new >= 8, "{created:?} {own:?}");
        bundle.delete()?;
    }
    Ok(())
}

#[test]
fn init_ends_with_the_status_of_a_shell_when_start_cannot_run_the_program() -> Result<()> {
    requires!(userns);
    for (text, status, code) in [("neither ELF nor script\n", 126, 610), ("#!/nowhere/sh\n", 127, 605)] {
        let bundle = Bundle::with_args(&["/bin/program"])?;
        let program = bundle.rootfs("bin/program");
        fs::copy(bundle.rootfs("bin/pura-probe"), &program)?;
        let create = bundle.with_bundle("create", &["c1"])?;
        let parent = bundle.through(&[probe_binary().as_os_str(), "reap".as_ref()], &create).spawn()?;
        assert_eq!(parent.line()?, "ready");
        fs::write(&program, text)?;
        bundle.verb("start")?.fails(1, code, &["\"/bin/program\""])?;
        assert_eq!(parent.line()?, format!("exited={status}"));
        bundle.verb("delete")?.succeeds_silently()?;
    }
    Ok(())
}

#[test]
fn every_verb_works_with_its_standard_descriptors_closed() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let script = format!("exec \"$@\" {closed}");
        for words in
            [&["create", "c1"][..], &["start", "c1"], &["state", "c1"], &["kill", "c1", "9"], &["delete", "-f", "c1"]]
        {
            let pura = if words[0] == "create" { bundle.with_bundle("create", &["c1"])? } else { bundle.pura(words) };
            let outcome = bundle.through(&["sh", "-c", &script, "sh"], &pura).output()?;
            // Nowhere to write a state to is an error; nothing else is.
            let may_fail = words[0] == "state" && closed.contains(">&-");
            assert!(outcome.code() == 0 || may_fail, "{closed}: {outcome:#?}");
        }
        bundle.is_clean()?;
    }
    Ok(())
}
