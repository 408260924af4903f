//! Callers with little: few descriptors, no room, no directory, signals that are ignored, and signals in the midst.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    harness::{Bundle, Outcome, Program, eventually, own_cgroup, skip},
    storm::no_cgroup_of,
};

/// A call of pura after a line of shell, with both outputs in one.
fn after(bundle: &Bundle, line: &str, verb: &[&str]) -> Result<Outcome> {
    let pura =
        if ["create", "run"].contains(&verb[0]) { bundle.with_bundle(verb[0], &verb[1..])? } else { bundle.pura(verb) };
    bundle.through(&["sh", "-c", &format!("{line}; exec \"$@\""), "sh"], &pura).output()
}

#[test]
fn every_verb_works_for_a_caller_who_has_little() -> Result<()> {
    requires!(userns);
    for line in [
        "ulimit -n 20",
        "trap '' CHLD",
        "mkdir gone; cd gone; rmdir ../gone",
        "umask 000",
        "ulimit -c 0; ulimit -s 256",
    ] {
        let bundle = Bundle::probing(&["sleep"])?;
        let call = |verb: &[&str]| after(&bundle, &format!("cd {}; {line}", bundle.dir().display()), verb);
        let works = |verb: &[&str]| -> Result<()> {
            call(verb)?.succeeds().map(drop).with_context(|| format!("{line}: {verb:?}"))
        };
        for verb in [
            &["create", "c1"][..],
            &["start", "c1"],
            &["state", "c1"],
            &["list"],
            &["exec", "c1", "/bin/pura-probe", "true"],
            &["kill", "c1", "TERM"],
        ] {
            works(verb)?;
        }
        bundle.becomes("stopped")?;
        works(&["delete", "c1"])?;
        let mut ending = Bundle::probing(&["exit", "7"])?;
        ending.config["hostname"] = json!("narrow");
        after(&ending, line, &["run", "c1"])?.ends(7)?;
    }
    Ok(())
}

#[test]
fn too_few_descriptors_are_an_error_that_leaves_nothing() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["true"])?;
    let mut enough = 0;
    for count in 4..32 {
        let outcome = after(&bundle, &format!("ulimit -n {count}"), &["run", "c1"])?;
        if !outcome.status.success() {
            ensure!(outcome.code() == 125 && outcome.stderr.starts_with("pura: cannot "), "{count}: {outcome:?}");
        } else if enough == 0 {
            enough = count;
        }
        bundle.is_clean().with_context(|| format!("{count}: {outcome:?}"))?;
    }
    assert!((4..=16).contains(&enough), "{enough}");
    Ok(())
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_no_death() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let limited = |verb: &[&str]| -> Result<(i32, String)> {
        let pura = if ["create", "run"].contains(&verb[0]) {
            bundle.with_bundle(verb[0], &verb[1..])?
        } else {
            bundle.pura(verb)
        };
        // Into a pipe: what a limit forbids are files.
        let mut call = bundle.through(&["sh", "-c", "ulimit -f 0; exec \"$@\" 2>&1", "sh"], &pura).spawn()?;
        let code = call.wait()?.code();
        Ok((code, call.rest()?.join("\n")))
    };
    for (verb, code) in [("create", 1), ("run", 125)] {
        let (status, said) = limited(&[verb, "c1"])?;
        ensure!(status == code && said.contains("ulimit -f") && said.ends_with("[PURA-712]"), "{status}: {said}");
        bundle.is_clean()?;
        no_cgroup_of(&bundle)?;
    }
    // Whoever writes no file does not feel it.
    let _running = bundle.created()?;
    for verb in [
        &["start", "c1"][..],
        &["state", "c1"],
        &["list"],
        &["exec", "c1", "/bin/pura-probe", "true"],
        &["kill", "c1", "0"],
        &["delete", "--force", "c1"],
    ] {
        let (status, said) = limited(verb)?;
        ensure!(status == 0, "{verb:?}: {status}: {said}");
    }
    Ok(())
}

/// What a script says about each way in which the place for the state has no room: what it was, status, files that are left.
const FULL: &str = r#"
    state=$1; shift; mkdir -p "$state"
    tell() { left=$(ls -A "$state" | grep -v '^fill' | tr '\n' ' '); echo "$1 $2 $(tail -n 1 "$state.err") left:$left"; }
    again() { "$@" --root "$state" run -b "$bundle" c1 2>"$state.err"; tell again $?; }
    bundle=$1; shift
    for inodes in 2 3 4 5 6; do
        mount -t tmpfs -o size=1m,nr_inodes=$inodes,mode=700 none "$state"
        "$@" --root "$state" run -b "$bundle" c1 2>"$state.err"; tell inodes=$inodes $?
        mount -t tmpfs -o remount,nr_inodes=100 none "$state"; again "$@"; umount "$state"
    done
    for free in 0 1 2 3 4 5 6; do
        mount -t tmpfs -o size=64k,mode=700 none "$state"
        head -c $(((16 - free) * 4096)) /dev/zero >"$state/fill" 2>/dev/null
        "$@" --root "$state" run -b "$bundle" c1 2>"$state.err"; tell pages=$free $?
        rm "$state/fill"; again "$@"; umount "$state"
    done
    mount -t tmpfs -o size=64k,mode=700,ro none "$state"
    "$@" --root "$state" run -b "$bundle" c1 2>"$state.err"; tell read-only $?
    "$@" --root "$state" list >/dev/null 2>"$state.err"; tell list $?
    mount -t tmpfs -o remount,rw none "$state"; again "$@"; umount "$state"
"#;

#[test]
fn a_state_directory_without_room_is_an_error_that_leaves_nothing_and_room_mends_it() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    bundle.write()?;
    let paths = [bundle.path("small"), bundle.path("bundle")].map(|path| path.display().to_string());
    let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", FULL, "sh", &paths[0], &paths[1]];
    let bare = crate::harness::Pura::new(bundle.dir(), &[] as &[&str]);
    let outcome = bundle.through(&words, &bare).output()?;
    let lines: Vec<&str> = outcome.succeeds()?.lines().collect();
    let mut refused = 0;
    for line in &lines {
        let mut parts = line.splitn(3, ' ');
        let (what, status, rest) = (parts.next().context("what")?, parts.next().context("status")?, parts.next());
        let rest = rest.context("rest")?;
        ensure!(rest.ends_with("left:"), "something is left: {line}");
        match (what, status) {
            ("again" | "list", _) => ensure!(status == "0", "{line}"),
            ("read-only", _) => ensure!(status == "125" && rest.contains("read-only"), "{line}"),
            (_, "125") => {
                refused += 1;
                ensure!(rest.starts_with("pura: cannot ") && rest.contains("[PURA-712]"), "{line}");
            }
            (_, _) => ensure!(status == "0", "{line}"),
        }
    }
    ensure!(refused >= 5 && lines.len() == 27, "{lines:#?}");
    Ok(())
}

/// strace makes pura get the signal at the call.
fn interrupted(bundle: &Bundle, verb: &str, call: &str, (signal, when): (&str, u32)) -> Result<Outcome> {
    let inject = format!("inject={call}:signal={signal}:when={when}");
    let trace = format!("trace={call}");
    let words = ["strace", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    bundle.through(&words, &bundle.with_bundle(verb, &["c1"])?).output()
}

#[test]
fn a_request_to_end_at_any_moment_leaves_nothing_of_a_run() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["true"])?;
    let calls = [
        "openat",
        "mkdirat",
        "flock",
        "write",
        "close",
        "socketpair",
        "clone3",
        "recvmsg",
        "sendmsg",
        "sendto",
        "recvfrom",
        "renameat",
        "unlinkat",
        "newfstatat",
        "read",
    ];
    let mut cut_off = 0;
    for (number, call) in calls.iter().enumerate() {
        for when in [1, 2, 3, 5, 8] {
            let signal = ["INT", "HUP", "TERM"][(number + usize::try_from(when)?) % 3];
            let outcome = interrupted(&bundle, "run", call, (signal, when))?;
            let place = || format!("{signal} at {call} {when}: {outcome:?}");
            // Cut off before there was anything, or to the end: process 1 does not hear it.
            ensure!([0, 129, 130, 143].contains(&outcome.code()), place());
            cut_off += u32::from(outcome.code() != 0);
            bundle.is_clean().with_context(place)?;
        }
    }
    assert!(cut_off > 3, "{cut_off}");
    no_cgroup_of(&bundle)
}

#[test]
fn a_request_to_end_at_any_moment_of_create_leaves_a_container_or_nothing() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["sleep"])?;
    for call in ["mkdirat", "flock", "write", "clone3", "renameat", "close", "rt_sigprocmask"] {
        for when in [1, 2, 4] {
            let outcome = interrupted(&bundle, "create", call, ("TERM", when))?;
            let place = || format!("{call} {when}: {outcome:?}");
            let state = bundle.verb("state")?;
            if state.status.success() {
                assert_eq!(bundle.status()?, "created", "{}", place());
                bundle.verb("start")?.succeeds_silently().with_context(place)?;
                bundle.delete()?;
            } else {
                ensure!(outcome.code() == 143, place());
                state.fails(1, 703, &[]).with_context(place)?;
            }
            bundle.is_clean().with_context(place)?;
        }
    }
    no_cgroup_of(&bundle)
}

#[test]
fn a_key_that_reaches_mappers_and_init_too_leaves_nothing_of_a_run() -> Result<()> {
    requires!(userns, subids);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    let begin = std::time::Instant::now();
    bundle.run()?.succeeds_silently()?;
    let whole = begin.elapsed();
    for moment in 0..24_u32 {
        let run = bundle.with_bundle("run", &["c1"])?;
        let mut running = bundle.through(&["setsid"], &run).spawn()?;
        // Until setsid has made the group there is nobody to tell.
        eventually("its group", || Ok(nix::unistd::getpgid(Some(Pid::from_raw(running.pid)))?.as_raw() == running.pid))
            .or_else(|error| if running.stderr()?.is_empty() { Ok(()) } else { Err(error) })?;
        std::thread::park_timeout(whole * moment / 24);
        let signal = if moment % 2 == 0 { Signal::SIGINT } else { Signal::SIGHUP };
        let _ = killpg(Pid::from_raw(running.pid), signal);
        let outcome = running.wait()?;
        let ends = outcome.code() == 128 + signal as i32
            || outcome.status.success()
            || outcome.code() == 125 && outcome.stderr.starts_with("pura: cannot ");
        ensure!(ends, "{signal} at {moment}/24 of {whole:?}: {outcome:?}");
        bundle.is_clean().with_context(|| format!("{signal} at {moment}/24 of {whole:?}: {outcome:?}"))?;
    }
    no_cgroup_of(&bundle)
}

#[test]
fn delete_with_force_ends_those_whom_another_holds_by_tracing_them() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("x86_64", "the calls are those of that architecture");
    }
    requires!(userns);
    let mut bundle = Bundle::new()?;
    let mut program = Program::new();
    let ready = program.string("ready\n");
    // fork; seize process 2 with PTRACE_O_TRACEEXIT, stop it, say so, and wait for ever. Process 2 cannot seize itself.
    program.call(57, &[]);
    program.call(101, &[0x4206, 2, 0, 0x40]);
    program.keep_errno();
    program.call(101, &[0x4207, 2, 0, 0]);
    program.call(1, &[1, ready, 6]);
    program.call(34, &[]);
    program.write(&bundle.rootfs("bin/holder"))?;
    bundle.args(&["/bin/holder"]);
    let _running = bundle.started()?;
    let traced = || -> Result<bool> {
        let found = crate::harness::processes(bundle.dir())?;
        let status = |pid: i32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        Ok(found
            .iter()
            .any(|(pid, _)| status(*pid).lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))))
    };
    eventually("one that is traced", traced)?;
    let begin = std::time::Instant::now();
    bundle.delete()?;
    ensure!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
    bundle.is_clean()
}

#[test]
fn delete_with_force_ends_a_container_that_has_frozen_itself() -> Result<()> {
    requires!(userns, busybox, cgroup);
    let mut bundle =
        Bundle::with_args(&["/bin/sh", "-c", "echo ready; echo 1 >/sys/fs/cgroup/cgroup.freeze; sleep 1000"])?;
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "rw"])?;
    let _running = bundle.started()?;
    bundle.becomes("paused")?;
    let begin = std::time::Instant::now();
    bundle.delete()?;
    ensure!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
    bundle.is_clean()?;
    no_cgroup_of(&bundle)
}

#[test]
fn a_caller_who_may_have_two_processes_gets_an_error_or_a_container_and_nothing_is_left() -> Result<()> {
    requires!(userns, cgroup, controllers);
    let mut bundle = Bundle::probing(&["true"])?;
    let tight = own_cgroup()?.parent().context("no parent")?.join("tight");
    for own_ids in [true, false] {
        if !own_ids {
            bundle.share_user();
        }
        for most in [1, 2, 3] {
            fs::create_dir(&tight)?;
            fs::write(tight.join("pids.max"), most.to_string())?;
            let line = format!("echo $$ >{}/cgroup.procs", tight.display());
            let outcome = after(&bundle, &line, &["run", "c1"])?;
            fs::remove_dir(&tight)?;
            let is_told = outcome.code() == 125 && outcome.stderr.starts_with("pura: cannot ");
            ensure!(outcome.status.success() || is_told, "{most}: {outcome:?}");
            bundle.is_clean()?;
            no_cgroup_of(&bundle)?;
        }
    }
    Ok(())
}
