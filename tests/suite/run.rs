//! run: create, start, wait and delete in one.

use std::fs;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::harness::{Bundle, eventually};

#[test]
fn run_returns_the_exit_status_of_the_program() -> Result<()> {
    requires!(userns);
    for status in [0, 1, 7, 125, 126, 127, 255] {
        let bundle = Bundle::probing(&["exit", &status.to_string()])?;
        bundle.run()?.ends(status)?;
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn run_returns_128_and_the_signal_that_ended_the_program() -> Result<()> {
    requires!(userns);
    for (signal, status) in [("KILL", 137), ("9", 137)] {
        let bundle = Bundle::probing(&["sleep"])?;
        let mut running = bundle.with_bundle("run", &["c1"])?.spawn()?;
        assert_eq!(running.line()?, "ready");
        bundle.pura(&["kill", "c1", signal]).output()?.succeeds_silently()?;
        running.wait()?.ends(status)?;
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn run_forwards_signals_to_the_program() -> Result<()> {
    requires!(userns);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
        let bundle = Bundle::probing(&["trap"])?;
        let mut running = bundle.with_bundle("run", &["c1"])?.spawn()?;
        assert_eq!(running.line()?, "ready");
        running.signal(signal)?;
        running.wait()?.ends(64 + signal as i32)?;
    }
    Ok(())
}

#[test]
fn a_second_request_to_end_kills_a_process_1_that_has_no_handler_for_it() -> Result<()> {
    requires!(userns, busybox);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT] {
        let bundle = Bundle::with_args(&["/bin/busybox", "tail", "-f", "/etc/passwd"])?;
        let mut running = bundle.with_bundle("run", &["c1"])?.spawn()?;
        running.line()?;
        running.signal(signal)?;
        eventually("the warning", || Ok(running.stderr()?.contains("[PURA-615]")))?;
        let said = running.stderr()?;
        assert!(said.contains(&format!("no handler for {signal}")) && said.contains("within 2 seconds"), "{said}");
        // However slow the machine is, two of them follow each other within two seconds in the end.
        eventually("its end", || Ok(running.signal(signal).is_err()))?;
        assert_eq!(running.wait()?.code(), 128 + libc::SIGKILL);
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn without_a_pid_namespace_the_first_request_to_end_is_heard() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::with_args(&["/bin/busybox", "tail", "-f", "/etc/passwd"])?;
    bundle.share("pid");
    bundle.unmount("/proc");
    let mut running = bundle.with_bundle("run", &["c1"])?.spawn()?;
    running.line()?;
    running.signal(Signal::SIGINT)?;
    running.wait()?.ends(128 + libc::SIGINT)?;
    Ok(())
}

#[test]
fn a_terminal_that_goes_kills_nobody_and_a_program_that_goes_on_is_told_of() -> Result<()> {
    requires!(userns, busybox);
    for (signal, script, words) in [
        (Signal::SIGHUP, "busybox tail -f /etc/passwd", "no handler for SIGHUP"),
        (Signal::SIGTERM, "trap '' TERM; busybox tail -f /etc/passwd", "catches or ignores SIGTERM and goes on"),
    ] {
        let bundle = Bundle::with_args(&["/bin/sh", "-c", &format!("exec 3>&1; {script}; exit 1")])?;
        let mut running = bundle.with_bundle("run", &["c1"])?.spawn()?;
        running.line()?;
        eventually("the warning", || {
            running.signal(signal)?;
            Ok(running.stderr()?.contains("[PURA-615]"))
        })?;
        assert!(running.stderr()?.contains(words), "{}", running.stderr()?);
        running.signal(signal)?;
        assert_eq!(bundle.status()?, "running");
        bundle.pura(&["kill", "c1", "KILL"]).output()?.succeeds_silently()?;
        assert_eq!(running.wait()?.code(), 128 + libc::SIGKILL);
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn run_shows_the_container_while_it_runs_and_removes_it_afterwards() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let mut running = bundle.with_bundle("run", &["c1"])?.spawn()?;
    assert_eq!(running.line()?, "ready");
    assert_eq!(bundle.status()?, "running");
    bundle.verb("kill")?.succeeds_silently()?;
    running.wait()?.succeeds()?;
    bundle.verb("state")?.fails(1, 703, &["does not exist"])?;
    bundle.is_clean()
}

#[test]
fn run_with_keep_leaves_a_stopped_container() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["exit", "3"])?;
    bundle.with_bundle("run", &["--keep", "c1"])?.output()?.ends(3)?;
    assert_eq!(bundle.status()?, "stopped");
    bundle.verb("delete")?.succeeds_silently()
}

#[test]
fn run_detached_returns_while_the_program_runs() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let mut running = bundle.with_bundle("run", &["--detach", "c1"])?.spawn()?;
    running.wait()?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    assert_eq!(bundle.status()?, "running");
    bundle.delete()
}

#[test]
fn run_writes_a_pid_file_only_when_it_succeeds() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    let pid_file = bundle.path("pid");
    let flags = ["--pid-file", &pid_file.to_string_lossy(), "c1"];
    bundle.with_bundle("run", &flags)?.output()?.succeeds()?;
    assert!(fs::read_to_string(&pid_file)?.parse::<u32>().is_ok(), "the pid-file is no number");
    fs::remove_file(&pid_file)?;
    bundle.args(&["/bin/nope"]);
    bundle.with_bundle("run", &flags)?.output()?.fails(127, 602, &["/bin/nope"])?;
    assert!(!pid_file.exists(), "a failed run left a pid-file");
    Ok(())
}

#[test]
fn a_program_that_cannot_run_has_the_status_of_a_shell() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    fs::write(bundle.rootfs("bin/script"), "#!/nowhere/sh\n")?;
    fs::write(bundle.rootfs("bin/garbage"), "neither ELF nor script\n")?;
    for name in ["bin/script", "bin/garbage"] {
        make_executable(&bundle, name)?;
    }
    let cases = [
        ("nocmd", 127, 601, "\"nocmd\": executable file not found in $PATH: no such file or directory"),
        ("/bin/nope", 127, 602, "\"/bin/nope\": no such file or directory"),
        ("/etc/passwd", 126, 603, "exec: \"/etc/passwd\": permission denied"),
        ("/etc", 126, 604, "exec: \"/etc\": is a directory: permission denied"),
        ("/bin/script", 127, 605, "/bin/script"),
        ("/bin/garbage", 126, 610, "/bin/garbage"),
    ];
    for (program, status, code, words) in cases {
        bundle.args(&[program]);
        bundle.run()?.fails(status, code, &[words])?;
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn every_other_failure_of_run_is_125() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    bundle.config["root"]["path"] = "nowhere".into();
    bundle.run()?.fails(125, 301, &["nowhere"])?;
    bundle.pura(&["run", "--no-such-flag", "c1"]).output()?.fails(125, 1, &["--no-such-flag"])?;
    bundle.is_clean()
}

fn make_executable(bundle: &Bundle, name: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(bundle.rootfs(name), fs::Permissions::from_mode(0o755))?)
}
