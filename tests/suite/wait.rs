//! `pura wait`: until a container has stopped, and how its program ended.

use std::fs;

use anyhow::Result;

use crate::harness::{Bundle, eventually};

/// Whether this kernel tells others than the parent how a process ended.
fn kernel_tells() -> Result<bool> {
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return Ok(false) };
    Ok((major, minor) >= (6, 15))
}

fn holds_pidfd(pid: i32) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.any(|link| link.to_string_lossy().contains("pidfd"))
}

#[test]
fn wait_returns_when_the_program_has_ended_with_its_exit_status() -> Result<()> {
    requires!(userns);
    for (program, signal, status) in
        [(&["trap"][..], "USR1", (64 + libc::SIGUSR1).to_string()), (&["sleep"], "KILL", "137".to_owned())]
    {
        let bundle = Bundle::probing(program)?;
        // In the foreground, so that its exit status is fetched.
        let mut run = bundle.with_bundle("run", &["--keep", "c1"])?.spawn()?;
        assert_eq!(run.line()?, "ready");
        let mut wait = bundle.pura(&["wait", "c1"]).spawn()?;
        eventually("wait holds a pidfd", || Ok(holds_pidfd(wait.pid)))?;
        bundle.pura(&["kill", "c1", signal]).output()?.succeeds_silently()?;
        run.wait()?;
        assert_eq!(wait.line()?, if kernel_tells()? { status } else { "unknown".to_owned() });
        wait.wait()?.succeeds_silently()?;
        // It has stopped before.
        assert_eq!(bundle.verb("wait")?.succeeds()?, "unknown\n");
        bundle.verb("delete")?.succeeds_silently()?;
    }
    Ok(())
}

#[test]
fn wait_for_a_container_that_is_not_there_fails() -> Result<()> {
    let bundle = Bundle::new()?;
    bundle.verb("wait")?.fails(1, 703, &["c1"])?;
    Ok(())
}
