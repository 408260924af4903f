//! SIGKILL of pura at any moment: what is left, `delete --force` removes. And system calls that fail: pura says so, or does
//! without, and never hangs. `tests/crash` does both at every call; here stands what it once found.

use std::{collections::HashMap, fs, time::Instant};

use anyhow::{Context as _, Result};

use crate::harness::{Bundle, Outcome, Pura};

/// Calls that change nothing outside the process: a kill there is a kill at the next one.
const INNER: [&str; 16] = [
    "brk",
    "mmap",
    "munmap",
    "mprotect",
    "madvise",
    "mremap",
    "rt_sigprocmask",
    "rt_sigaction",
    "getpid",
    "gettid",
    "geteuid",
    "getegid",
    "getuid",
    "getgid",
    "getrandom",
    "prlimit64",
];

#[test]
fn a_kill_at_any_system_call_of_create_leaves_what_delete_with_force_removes() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["sleep"])?;
    let points = points(&bundle, "create")?;
    bundle.delete()?;
    for (call, count) in every(&points, 60) {
        let outcome = killed(&bundle, "create", call, *count)?;
        bundle.delete().with_context(|| format!("killed at {call} {count}: {outcome:#?}"))?;
        bundle.is_clean().with_context(|| format!("killed at {call} {count}"))?;
    }
    // The id is as good as new.
    let _running = bundle.started()?;
    bundle.delete()
}

#[test]
fn a_kill_at_any_system_call_of_start_or_delete_is_no_obstacle_either() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["sleep"])?;
    for verb in ["start", "delete"] {
        let mut running = bundle.created()?;
        let points = points(&bundle, verb)?;
        bundle.delete()?;
        for (call, count) in every(&points, 25) {
            running = bundle.created()?;
            let outcome = killed(&bundle, verb, call, *count)?;
            bundle.delete().with_context(|| format!("{verb} killed at {call} {count}: {outcome:#?}"))?;
            bundle.is_clean().with_context(|| format!("{verb} killed at {call} {count}"))?;
        }
        drop(running);
    }
    Ok(())
}

/// The system calls of the parent in `pura VERB`: names, and the how-manieth of that name each is.
fn points(bundle: &Bundle, verb: &str) -> Result<Vec<(String, u32)>> {
    let trace = bundle.path("trace");
    traced(bundle, verb, &["-o", &trace.to_string_lossy()])?.succeeds_silently()?;
    let mut counts: HashMap<String, u32> = HashMap::new();
    let mut points = Vec::new();
    for line in fs::read_to_string(trace)?.lines() {
        let Some((name, _)) = line.split_once('(') else { continue };
        if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && name != "execve" {
            let count = counts.entry(name.to_owned()).or_default();
            *count += 1;
            if !INNER.contains(&name) {
                points.push((name.to_owned(), *count));
            }
        }
    }
    Ok(points)
}

/// At most `most` of the points, evenly spread.
fn every(points: &[(String, u32)], most: usize) -> impl Iterator<Item = &(String, u32)> {
    points.iter().step_by(points.len().div_ceil(most).max(1))
}

/// `pura VERB c1`, killed when it makes a system call for the `count`th time.
fn killed(bundle: &Bundle, verb: &str, call: &str, count: u32) -> Result<Outcome> {
    let inject = format!("inject={call}:signal=KILL:when={count}");
    traced(bundle, verb, &["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject])
}

/// strace that follows no child: init and mappers run free.
fn traced(bundle: &Bundle, verb: &str, flags: &[&str]) -> Result<Outcome> {
    let pura = if verb == "create" { bundle.with_bundle("create", &["c1"])? } else { bundle.pura(&[verb, "c1"]) };
    bundle.through(&[&["strace", "-qq"], flags].concat(), &pura).output()
}

#[test]
fn an_error_of_any_system_call_of_create_leaves_nothing_if_it_fails_at_all() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["sleep"])?;
    let points = points(&bundle, "create")?;
    bundle.delete()?;
    let pid_file = bundle.path("pid");
    let flags = ["--pid-file", &pid_file.to_string_lossy(), "c1"];
    let mut failures = 0;
    for (call, count) in every(&points, 80).filter(|(call, _)| call != "exit_group") {
        let inject = format!("inject={call}:error=ENOMEM:when={count}");
        let words = ["strace", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject];
        let outcome = bundle.through(&words, &bundle.with_bundle("create", &flags)?).output()?;
        let place = || format!("ENOMEM at {call} {count}: {outcome:#?}");
        if outcome.status.success() {
            bundle.delete().with_context(place)?;
            drop(fs::remove_file(&pid_file));
        } else {
            failures += 1;
            assert!(!pid_file.exists(), "{}", place());
        }
        bundle.is_clean().with_context(place)?;
    }
    assert!(failures > 10, "{failures}");
    Ok(())
}

/// pura, of which strace makes the calls fail that `inject` says; with `path`, only those on that file.
fn failing(bundle: &Bundle, inject: &str, path: Option<&str>, pura: &Pura) -> Result<Outcome> {
    let call = inject.split(':').next().unwrap_or_default();
    let (trace, inject) = (format!("trace={call}"), format!("inject={inject}"));
    let mut words = vec!["strace", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    words.extend(path.map(|path| ["-P", path]).into_iter().flatten());
    bundle.through(&words, pura).output()
}

#[test]
fn a_failure_before_the_first_file_is_open_is_told_like_any_other() -> Result<()> {
    requires!(strace);
    let bundle = Bundle::new()?;
    let outcome = failing(&bundle, "poll:error=ENOMEM:when=1", None, &bundle.pura(&["list"]))?;
    outcome.fails(1, 903, &["the standard descriptors", "out of memory"]).map(drop)
}

#[test]
fn a_state_directory_that_cannot_be_read_to_its_end_keeps_nobody_for_ever() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    for words in [&["list"][..], &["delete", "--force", "c1"]] {
        drop(failing(&bundle, "getdents64:error=EIO", None, &bundle.pura(words))?);
    }
    bundle.delete()
}

#[test]
fn a_lock_that_cannot_be_given_up_is_no_reason_to_panic() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["sleep"])?;
    let refused = "flock:error=ENOMEM:when=2";
    failing(&bundle, refused, None, &bundle.with_bundle("create", &["c1"])?)?.succeeds()?;
    failing(&bundle, refused, None, &bundle.pura(&["start", "c1"]))?.succeeds()?;
    failing(&bundle, refused, None, &bundle.pura(&["delete", "--force", "c1"]))?.succeeds_silently()?;
    bundle.is_clean()
}

#[test]
fn an_oom_score_of_the_caller_that_cannot_be_read_changes_nothing_of_what_is_asked_for() -> Result<()> {
    requires!(userns, strace);
    let mut bundle = Bundle::probing(&["oom"])?;
    bundle.config["process"]["oomScoreAdj"] = serde_json::json!(321);
    let inject = "openat:error=EIO:when=1";
    let path = Some("/proc/self/oom_score_adj");
    let outcome = failing(&bundle, inject, path, &bundle.with_bundle("run", &["c1"])?)?;
    // strace has something to say about a path that is a link.
    assert!(outcome.status.success() && outcome.stdout == "oom_score_adj=321\n", "{outcome:#?}");
    Ok(())
}

#[test]
fn the_end_of_the_program_is_not_missed_when_the_wait_for_it_is_interrupted() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["exit", "7"])?;
    failing(&bundle, "wait4:error=EINTR:when=1", None, &bundle.with_bundle("run", &["c1"])?)?.ends(7).map(drop)
}

#[test]
fn an_open_that_a_signal_interrupts_is_tried_again_by_every_verb() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["sleep"])?;
    let every_other = "openat:error=EINTR:when=2+2";
    let pid_file = bundle.path("pid");
    let pid_file = pid_file.to_string_lossy();
    let create = bundle.with_bundle("create", &["--pid-file", &pid_file, "c1"])?;
    failing(&bundle, every_other, None, &create)?.succeeds_silently()?;
    for words in [
        &["start", "c1"][..],
        &["state", "c1"],
        &["list"],
        &["exec", "c1", "/bin/pura-probe", "true"],
        &["kill", "c1", "0"],
        &["delete", "--force", "c1"],
    ] {
        failing(&bundle, every_other, None, &bundle.pura(words))?.succeeds().with_context(|| format!("{words:?}"))?;
    }
    bundle.is_clean()
}

#[test]
fn a_process_that_cannot_be_looked_at_is_not_taken_for_dead_and_deleted() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let stat = format!("/proc/{}/stat", bundle.pid()?);
    let outcome = failing(&bundle, "openat:error=EIO", Some(&stat), &bundle.pura(&["delete", "c1"]))?;
    outcome.fails(1, 708, &["not stopped"])?;
    assert_eq!(bundle.status()?, "running");
    bundle.delete()
}

#[test]
fn a_freezer_that_could_not_be_looked_at_once_is_looked_at_again() -> Result<()> {
    requires!(userns, strace, cgroup);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let record: serde_json::Value = serde_json::from_slice(&fs::read(bundle.path("state/c1/state.json"))?)?;
    let events = format!("{}/cgroup.events", record["cgroup"].as_str().context("no cgroup")?);
    for when in 1..9 {
        let begin = Instant::now();
        let inject = format!("openat:error=EIO:when={when}");
        drop(failing(&bundle, &inject, Some(&events), &bundle.pura(&["pause", "c1"]))?);
        assert!(begin.elapsed().as_secs() < 8, "{when}: {:?}", begin.elapsed());
        drop(bundle.verb("resume")?);
    }
    bundle.delete()
}

#[test]
fn an_exec_that_is_killed_leaves_no_pid_file_under_another_name() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    fs::create_dir(bundle.path("pids"))?;
    let pid_file = bundle.path("pids/pid");
    let pid_file = pid_file.to_string_lossy();
    let words = ["exec", "--pid-file", &*pid_file, "c1", "/bin/pura-probe", "true"];
    for call in ["write", "linkat", "renameat"] {
        drop(failing(&bundle, &format!("{call}:signal=KILL:when=1"), None, &bundle.pura(&words))?);
        let left: Vec<_> = fs::read_dir(bundle.path("pids"))?.flatten().map(|entry| entry.file_name()).collect();
        assert!(left.iter().all(|name| name == "pid"), "{call}: {left:?}");
    }
    bundle.delete()
}
