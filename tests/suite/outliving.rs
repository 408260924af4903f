//! Processes that outlive process 1, in a container without a PID namespace and a cgroup of its own.

use anyhow::Result;
use serde_json::json;

use crate::harness::{Bundle, Outcome, eventually, processes, skip};

/// What stays behind: a child, and a grandchild in a session of its own, that ignore their parent's end.
const LEAVE: &str =
    "(trap '' HUP; exec sleep 1000) & (busybox setsid sh -c 'trap \"\" HUP; sleep 1000 & sleep 1000' &) ;";

fn leaving(then: &str) -> Result<Bundle> {
    let mut bundle = Bundle::with_args(&["/bin/busybox", "sh", "-c", &format!("{LEAVE} {then}")])?;
    bundle.share("pid");
    bundle.unmount("/proc");
    Ok(bundle)
}

fn run(bundle: &Bundle) -> Result<Outcome> {
    bundle.write()?;
    bundle.pura(&["--cgroup-manager", "disabled", "run", "-b"]).args(&[bundle.path("bundle")]).args(&["c1"]).output()
}

/// More than once, for the end may come at any time after exec.
fn is_ended_by_run(bundle: &Bundle) -> Result<()> {
    for _ in 0..5 {
        run(bundle)?.ends(3)?;
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn run_ends_whoever_outlives_its_program() -> Result<()> {
    requires!(userns, busybox);
    is_ended_by_run(&leaving("exit 3")?)
}

#[test]
fn run_ends_whoever_outlives_its_program_as_another_user() -> Result<()> {
    requires!(userns, busybox, subids);
    let mut bundle = leaving("exit 3")?;
    bundle.share_user();
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    is_ended_by_run(&bundle)
}

#[test]
fn root_ends_whoever_outlives_its_program_too() -> Result<()> {
    requires!(root, busybox);
    let mut bundle = leaving("exit 3")?;
    bundle.share_user();
    is_ended_by_run(&bundle)
}

#[test]
fn run_ends_whoever_outlives_its_program_in_a_joined_pid_namespace() -> Result<()> {
    requires!(userns, busybox);
    let first = Bundle::probing(&["sleep"])?;
    let running = first.started()?;
    let pid = first.pid()?;
    let mut bundle = leaving("exit 3")?;
    bundle.share_user();
    for (kind, file) in [("user", "user"), ("pid", "pid")] {
        bundle.push("/linux/namespaces", json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}))?;
    }
    is_ended_by_run(&bundle)?;
    assert_eq!(first.status()?, "running");
    drop(running);
    first.delete()
}

#[test]
fn delete_and_kill_all_end_whoever_has_outlived_process_1() -> Result<()> {
    requires!(userns, busybox);
    if !has_ids_of_mount_namespaces()? {
        return skip("mount namespace ids", "they came with Linux 6.11");
    }
    for words in [&["kill", "--all", "c1", "KILL"][..], &["delete", "c1"], &["delete", "--force", "c1"]] {
        let bundle = leaving("exit 0")?;
        bundle.write()?;
        let create = bundle.pura(&["--cgroup-manager", "disabled", "create", "-b"]).args(&[bundle.path("bundle")]);
        let mut running = create.args(&["c1"]).spawn()?;
        running.wait()?.succeeds_silently()?;
        bundle.verb("start")?.succeeds_silently()?;
        bundle.becomes("stopped")?;
        eventually("three run", || Ok(processes(bundle.dir())?.len() >= 3))?;
        bundle.pura(words).output()?.succeeds_silently()?;
        eventually("all have ended", || Ok(processes(bundle.dir())?.is_empty()))?;
        if words[0] == "kill" {
            bundle.verb("delete")?.succeeds_silently()?;
        }
        drop(running);
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn kill_all_sends_any_signal_to_every_process_without_a_cgroup() -> Result<()> {
    requires!(userns, busybox);
    // None of them ends: with process 1, the others would before they have said it.
    let each = "trap 'echo got' USR1; echo ready; while :; do sleep 1000 & wait $!; done";
    let script = format!("each() {{ {each}; }}; each & (each &); each");
    for shares in [true, false] {
        let mut bundle = Bundle::with_args(&["/bin/sh", "-c", &script])?;
        if shares {
            bundle.share("pid");
            bundle.unmount("/proc");
        }
        bundle.write()?;
        let create = bundle.pura(&["--cgroup-manager", "disabled", "create", "-b"]).args(&[bundle.path("bundle")]);
        let mut running = create.args(&["c1"]).spawn()?;
        running.wait()?.succeeds_silently()?;
        bundle.verb("start")?.succeeds_silently()?;
        for _ in 0..3 {
            assert_eq!(running.line()?, "ready");
        }
        bundle.pura(&["kill", "--all", "c1", "USR1"]).output()?.succeeds_silently()?;
        for _ in 0..3 {
            assert_eq!(running.line()?, "got", "shares its PID namespace: {shares}");
        }
        bundle.pura(&["kill", "--all", "c1", "KILL"]).output()?.succeeds_silently()?;
        bundle.becomes("stopped")?;
        bundle.delete()?;
        drop(running);
        bundle.is_clean()?;
    }
    Ok(())
}

fn has_ids_of_mount_namespaces() -> Result<bool> {
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 11))
}
