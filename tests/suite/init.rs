//! `run --init`: process 1 is pura-init, and the program is its child.

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    console::on_terminal_after,
    harness::{Bundle, Pura, own_uid, pura_binary},
};

fn shell(script: &str) -> Result<Bundle> {
    Bundle::with_args(&["/bin/sh", "-c", script])
}

/// `pura run --init` of the bundle.
fn run(bundle: &Bundle) -> Result<Pura> {
    bundle.with_bundle("run", &["--init", "c1"])
}

/// `pura run --init FLAGS --rootfs ROOT -- sh -c SCRIPT`
fn command(bundle: &Bundle, flags: &[&str], script: &str) -> Pura {
    let root = bundle.rootfs("").display().to_string();
    let fixed = ["run", "--init", "--userns=single", "--rootfs", &root];
    bundle.pura(&[&fixed, flags, &["--", "/bin/sh", "-c", script]].concat())
}

/// A copy of a program, in a directory of the test's own.
fn copy_to(bundle: &Bundle, name: &str, directory: &Path) -> Result<OsString> {
    fs::create_dir_all(directory)?;
    let (from, to) = (pura_binary().with_file_name(name), directory.join(name));
    anyhow::ensure!(
        std::process::Command::new("cp").arg(&from).arg(&to).status()?.success(),
        "{}",
        bundle.dir().display()
    );
    Ok(to.into())
}

#[test]
fn the_program_is_a_child_of_process_1_and_its_status_is_that_of_run() -> Result<()> {
    requires!(userns, busybox);
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)] {
        let bundle = shell(script)?;
        run(&bundle)?.output()?.ends(status)?;
        bundle.is_clean()?;
    }
    let bundle = shell("cat /proc/1/comm; tr '\\0' ' ' </proc/1/cmdline; echo; grep ^PPid: /proc/$$/status; echo $0")?;
    let outcome = run(&bundle)?.output()?;
    let lines: Vec<_> = outcome.succeeds()?.lines().collect();
    assert_eq!(lines[0], "pura-init");
    assert!(lines[1].starts_with("pura-init /bin/sh /bin/sh -c "), "{lines:?}");
    assert_eq!(lines[2..], ["PPid:\t1", "/bin/sh"]);
    bundle.is_clean()
}

#[test]
fn a_program_without_handlers_ends_with_the_first_signal() -> Result<()> {
    requires!(userns, busybox);
    // As process 1 it would get neither.
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGUSR1, 138)] {
        let bundle = Bundle::with_args(&["/bin/busybox", "tail", "-f", "/etc/passwd"])?;
        let mut running = run(&bundle)?.spawn()?;
        running.line()?;
        running.signal(signal)?;
        let outcome = running.wait()?;
        outcome.ends(status)?;
        assert!(!outcome.stderr.contains("PURA-615"), "{outcome:?}");
        bundle.is_clean()?;
    }
    let bundle = Bundle::with_args(&["/bin/busybox", "tail", "-f", "/etc/passwd"])?;
    let mut running = run(&bundle)?.spawn()?;
    running.line()?;
    bundle.pura(&["kill", "c1", "TERM"]).output()?.succeeds_silently()?;
    running.wait()?.ends(143)?;
    bundle.is_clean()
}

#[test]
fn a_program_with_handlers_gets_every_signal_and_decides_itself() -> Result<()> {
    requires!(userns);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGWINCH] {
        let bundle = Bundle::probing(&["trap"])?;
        let mut running = run(&bundle)?.spawn()?;
        assert_eq!(running.line()?, "ready");
        running.signal(signal)?;
        running.wait()?.ends(64 + signal as i32)?;
    }
    Ok(())
}

#[test]
fn orphans_are_reaped() -> Result<()> {
    requires!(userns, busybox);
    let orphan = "echo $$ >/tmp/pid; until grep -q '^PPid:.1$' /proc/$$/status; do :; done; exit 3";
    let script = format!(
        "echo \"{}\" >/tmp/orphan; (sh /tmp/orphan &); until test -s /tmp/pid; do :; done; \
         while test -d /proc/$(cat /tmp/pid); do :; done; echo reaped",
        orphan.replace('$', "\\$")
    );
    let mut bundle = shell(&script)?;
    assert_eq!(run(&bundle)?.output()?.succeeds()?, "reaped\n");
    // In the PID namespace of the caller orphans are not adopted by process 1 of that.
    bundle.share("pid");
    bundle.unmount("/proc");
    bundle.args(&["/bin/sh", "-c", "(sleep 0.01 &); exit 4"]);
    run(&bundle)?.output()?.ends(4)?;
    bundle.is_clean()
}

#[test]
fn a_container_with_it_is_one_like_any_other() -> Result<()> {
    requires!(userns, busybox);
    let bundle = shell("echo ready; exec sleep 600")?;
    let mut running = bundle.with_bundle("run", &["--init", "--detach", "c1"])?.spawn()?;
    running.wait()?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    assert_eq!(bundle.status()?, "running");
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", bundle.pid()?))?, "pura-init\n");
    let outcome = bundle.pura(&["exec", "c1", "cat", "/proc/1/comm"]).output()?;
    assert_eq!(outcome.succeeds()?, "pura-init\n");
    bundle.verb("kill")?.succeeds_silently()?;
    bundle.becomes("stopped")?;
    bundle.verb("delete")?.succeeds_silently()?;
    bundle.is_clean()
}

#[test]
fn it_is_confined_as_the_program_is() -> Result<()> {
    requires!(userns, busybox);
    let script = "for process in 1 $$; do grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/$process/status; done; \
                  readlink /proc/1/root; ls -l /proc/1/fd | grep -c /";
    for uid in [0, 1] {
        let mut bundle = shell(script)?;
        if uid != 0 {
            requires!(subids);
            bundle.share_user();
            bundle.config["process"]["user"] = json!({"uid": uid, "gid": uid});
        }
        bundle.config["process"]["noNewPrivileges"] = true.into();
        let held = ["CAP_KILL", "CAP_CHOWN"];
        bundle.config["process"]["capabilities"] =
            json!({"bounding": held, "effective": held, "permitted": held, "inheritable": held, "ambient": held});
        bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]});
        let outcome = run(&bundle)?.output()?;
        let lines: Vec<_> = outcome.succeeds()?.lines().collect();
        let (own, program) = lines.split_at(lines.len() / 2 - 1);
        assert_eq!(own, &program[..own.len()], "{lines:?}");
        assert!(own.contains(&"Seccomp:\t2") && own.contains(&"NoNewPrivs:\t1"), "{lines:?}");
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn nothing_of_pura_can_be_written_from_inside() -> Result<()> {
    requires!(userns, busybox);
    let script =
        "readlink /proc/1/exe; (echo evil >/proc/1/exe) 2>&1; (echo evil >>/proc/1/exe) 2>&1; ls /proc/1/fd | wc -l";
    let bundle = shell(script)?;
    let outcome = run(&bundle)?.output()?;
    let seen = outcome.succeeds()?.to_owned();
    assert!(!seen.contains("/pura\n") && seen.ends_with("\n4\n"), "{seen}");
    assert_eq!(seen.lines().count(), 4, "{seen}");
    if own_uid() == 0 {
        return Ok(());
    }
    // One that the caller owns, whose ids the container has: a copy runs.
    let libexec = bundle.path("libexec");
    let own = copy_to(&bundle, "pura-init", &libexec)?;
    let before = fs::read(&own)?;
    let outcome = run(&bundle)?.env("PURA_LIBEXEC", &libexec).output()?;
    assert!(outcome.succeeds()?.starts_with("/memfd:pura"), "{outcome:?}");
    assert_eq!(outcome.stdout.matches("can't create").count(), 2, "{outcome:?}");
    assert!(fs::read(&own)? == before, "it was written");
    bundle.is_clean()
}

#[test]
fn a_command_has_it_too_and_so_has_a_terminal() -> Result<()> {
    requires!(userns, overlay, busybox);
    let bundle = Bundle::new()?;
    assert_eq!(command(&bundle, &[], "cat /proc/1/comm; exit 5").output()?.ends(5)?, "pura-init\n");
    let script = "tty; cat /proc/1/comm; trap 'echo trapped; exit 9' INT; echo ready; until false; do sleep 0.01; done";
    // Control-C: the terminal's foreground processes are sent it once, and get it once.
    let words = command(&bundle, &["-t"], script).words();
    let (shown, status) = on_terminal_after(&words, "ready", "\u{3}")?;
    assert!(shown.contains("/dev/pts/0\n") && shown.contains("pura-init\n"), "{shown}");
    assert_eq!((status, shown.matches("trapped").count()), (Some(9), 1), "{shown}");
    bundle.is_clean()
}

#[test]
fn a_program_that_cannot_run_is_refused_as_without_it() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    fs::write(bundle.rootfs("bin/garbage"), "neither ELF nor script\n")?;
    fs::write(bundle.rootfs("bin/script"), "#!/nowhere/sh\n")?;
    for name in ["bin/garbage", "bin/script"] {
        fs::set_permissions(bundle.rootfs(name), fs::Permissions::from_mode(0o755))?;
    }
    for (program, status, code) in [
        ("nocmd", 127, 601),
        ("/bin/nope", 127, 602),
        ("/etc/passwd", 126, 603),
        ("/bin/script", 127, 605),
        ("/bin/garbage", 126, 610),
    ] {
        bundle.args(&[program]);
        run(&bundle)?.output()?.fails(status, code, &[program])?;
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn descriptors_and_variables_reach_the_program_and_the_number_is_its_own() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = shell("ls /proc/$$/fd | tr '\\n' ' '; echo; echo $LISTEN_FDS $(($LISTEN_PID - $$)) $A")?;
    bundle.config["process"]["env"] = json!(["PATH=/bin", "A=b"]);
    let script = "exec 3</dev/null 4</dev/null; LISTEN_FDS=2 LISTEN_PID=$$ exec \"$@\"";
    let outcome = bundle.through(&["sh", "-c", script, "sh"], &run(&bundle)?).output()?;
    let lines: Vec<_> = outcome.succeeds()?.lines().map(str::trim).collect();
    assert!(lines[0].starts_with("0 1 2 3 4") && lines[1] == "2 0 b", "{lines:?}");
    Ok(())
}

#[test]
fn the_plan_shows_it_and_a_missing_one_or_a_profile_without_execveat_is_an_error() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    let plan = bundle.with_bundle("plan", &["--init"])?.output()?;
    let last = plan.succeeds()?.lines().rfind(|line| line.contains("become ")).unwrap_or_default().to_owned();
    assert!(last.contains("/pura-init\", whose child is \"/bin/pura-probe\"  (--init)"), "{}", plan.stdout);
    assert!(!bundle.with_bundle("plan", &[])?.output()?.succeeds()?.contains("pura-init"));
    // pura alone.
    let alone = copy_to(&bundle, "pura", &bundle.path("alone"))?;
    let words: Vec<OsString> = [alone.clone()].into_iter().chain(run(&bundle)?.words().into_iter().skip(1)).collect();
    Pura::through(bundle.dir(), &words).output()?.fails(125, 908, &["pura-init is not installed", "fix: "])?;
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["execveat"], "action": "SCMP_ACT_ERRNO"}]});
    run(&bundle)?.output()?.fails(125, 505, &["execveat", "--init"])?;
    bundle.pura(&["create", "--init", "c1"]).output()?.fails(2, 1, &["--init"])?;
    bundle.is_clean()
}
