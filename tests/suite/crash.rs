//! SIGKILL of pura at any moment: what is left, `delete --force` removes.

use std::{collections::HashMap, fs};

use anyhow::{Context as _, Result};

use crate::harness::{Bundle, Outcome};

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
