//! Terminals: relayed in the foreground, passed over a socket otherwise.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use nix::pty::{Winsize, openpty};
use serde_json::json;

use crate::harness::{Bundle, own_uid};

/// Runs a command with a terminal of ours as its standard streams; what it shows there, with Unix line ends.
pub(crate) fn on_terminal(words: &[std::ffi::OsString], typed: &str) -> Result<(String, Option<i32>)> {
    on_terminal_after(words, "", typed)
}

/// The same; nothing is typed before `cue` is shown.
pub(crate) fn on_terminal_after(words: &[std::ffi::OsString], cue: &str, typed: &str) -> Result<(String, Option<i32>)> {
    let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None)?;
    let (program, arguments) = words.split_first().context("no program")?;
    let stdio = || -> Result<Stdio> { Ok(Stdio::from(pty.slave.try_clone()?)) };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin");
    let mut child = command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?).spawn()?;
    drop(command);
    let mut master = File::from(pty.master);
    drop(pty.slave);
    let mut shown = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&shown).contains(cue) && master.read(&mut byte).unwrap_or(0) > 0 {
        shown.extend(byte);
    }
    master.write_all(typed.as_bytes())?;
    // EIO is the end: nobody has the other side open.
    drop(master.read_to_end(&mut shown));
    Ok((String::from_utf8_lossy(&shown).replace('\r', ""), child.wait()?.code()))
}

/// As `on_terminal`, with keys that are typed when `until` has been shown, again and again up to the end.
fn typed_when(words: &[std::ffi::OsString], until: &str, keys: &[u8]) -> Result<(String, Option<i32>)> {
    let pty = openpty(None, None)?;
    let (program, arguments) = words.split_first().context("no program")?;
    let stdio = || -> Result<Stdio> { Ok(Stdio::from(pty.slave.try_clone()?)) };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin");
    let mut child = command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?).spawn()?;
    drop(command);
    let mut master = File::from(pty.master);
    drop(pty.slave);
    let (mut shown, mut buffer) = (String::new(), [0; 4096]);
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        shown.push_str(&String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()));
        if shown.contains(until) {
            master.write_all(keys)?;
        }
    }
    Ok((shown.replace('\r', ""), child.wait()?.code()))
}

#[test]
fn control_c_that_the_program_does_not_get_is_told_and_the_second_one_kills() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::with_args(&["/bin/busybox", "tail", "-f", "/etc/group"])?;
    bundle.config["process"]["terminal"] = true.into();
    let words = bundle.with_bundle("run", &["c1"])?.words();
    // What the terminal echoes of the first one brings the next.
    let (shown, status) = typed_when(&words, "root:x:0:", &[3])?;
    // The terminal shows keys as they come, between the pieces of a line too.
    let shown = shown.replace("^C", "");
    assert!(shown.contains("no handler for SIGINT") && shown.contains("[PURA-615]\n"), "{shown}");
    assert_eq!(status, Some(128 + libc::SIGKILL), "{shown}");
    bundle.is_clean()
}

#[test]
fn keys_of_a_program_that_catches_them_or_of_a_shells_child_are_no_affair_of_puras() -> Result<()> {
    requires!(userns, busybox);
    for script in [
        "trap 'n=x$n; [ $n = xxxx ] && exit 9' INT; echo ready; while :; do sleep 1; done",
        "stty -isig -icanon; echo ready; dd bs=1 count=4 >/dev/null 2>&1; exit 9",
    ] {
        let bundle = with_shell(script)?;
        let words = bundle.with_bundle("run", &["c1"])?.words();
        let (shown, status) = typed_when(&words, "ready", &[3, 3, 3, 3])?;
        assert!(!shown.contains("PURA-615") && status == Some(9), "{shown} {status:?}");
        bundle.is_clean()?;
    }
    Ok(())
}

fn with_shell(script: &str) -> Result<Bundle> {
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
    bundle.config["process"]["terminal"] = true.into();
    Ok(bundle)
}

#[test]
fn a_foreground_run_relays_a_terminal_of_the_container_with_the_callers_size() -> Result<()> {
    requires!(userns, busybox);
    let bundle = with_shell("tty; stty size; test -c /dev/console && echo console; exit 5")?;
    let words = bundle.with_bundle("run", &["c1"])?.words();
    let (shown, status) = on_terminal(&words, "")?;
    assert_eq!((shown.as_str(), status), ("/dev/pts/0\n33 77\nconsole\n", Some(5)));
    Ok(())
}

#[test]
fn the_size_of_the_config_counts_before_the_callers() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = with_shell("stty size")?;
    bundle.config["process"]["consoleSize"] = json!({"height": 11, "width": 22});
    let (listener, flag) = socket(&bundle, "size")?;
    let create = bundle.with_bundle("create", &["--console-socket", &flag, "c1"])?;
    let _created = create.spawn()?.wait()?;
    let mut master = File::from(accept(&listener)?);
    bundle.verb("start")?.succeeds_silently()?;
    let mut shown = String::new();
    drop(master.read_to_string(&mut shown));
    assert_eq!(shown.trim_end(), "11 22");
    bundle.becomes("stopped")?;
    bundle.verb("delete")?.succeeds_silently()
}

#[test]
fn keys_reach_the_program_and_control_c_is_a_signal() -> Result<()> {
    requires!(userns, busybox);
    let bundle = with_shell("read line; echo got $line; trap 'exit 9' INT; kill -INT $$; exit 1")?;
    let words = bundle.with_bundle("run", &["c1"])?.words();
    let (shown, status) = on_terminal(&words, "hello\n")?;
    assert!(shown.ends_with("got hello\n") && status == Some(9), "{shown} {status:?}");
    Ok(())
}

#[test]
fn a_terminal_goes_over_the_socket_even_by_a_long_path() -> Result<()> {
    requires!(userns, busybox);
    let bundle = with_shell("echo from inside; tty")?;
    let (listener, flag) = socket(&bundle, &"x".repeat(60))?;
    let mut create = bundle.with_bundle("create", &["--console-socket", &flag, "c1"])?.spawn()?;
    create.wait()?.succeeds_silently()?;
    let mut master = File::from(accept(&listener)?);
    bundle.verb("start")?.succeeds_silently()?;
    let mut shown = String::new();
    drop(master.read_to_string(&mut shown));
    assert_eq!(shown.replace('\r', ""), "from inside\n/dev/pts/0\n");
    bundle.becomes("stopped")?;
    bundle.verb("delete")?.succeeds_silently()
}

#[test]
fn exec_gives_a_terminal_too() -> Result<()> {
    requires!(userns, busybox);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let words = bundle.pura(&["exec", "-t", "c1", "/bin/sh", "-c", "tty; stty size; exit 4"]).words();
    let (shown, status) = on_terminal(&words, "")?;
    assert_eq!((shown.as_str(), status), ("/dev/pts/0\n33 77\n", Some(4)));
    bundle.delete()
}

#[test]
fn a_terminal_without_anybody_at_its_other_end_is_refused() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["process"]["terminal"] = true.into();
    bundle.is_refused(650, &["cannot create: a terminal is asked for", "--console-socket"])
}

#[test]
fn a_console_socket_that_is_none_is_refused() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["process"]["terminal"] = true.into();
    let file = bundle.path("file");
    fs::write(&file, "")?;
    for path in [Path::new("/nowhere/socket"), &bundle.path("missing"), &file] {
        let path = path.display().to_string();
        let outcome = bundle.with_bundle("create", &["--console-socket", &path, "c1"])?.output()?;
        outcome.fails(1, 613, &[&path])?;
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn the_terminal_belongs_to_the_programs_user() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = with_shell("ls -ln /dev/pts/0")?;
    bundle.map(&[(1000, own_uid(), 1)], &[(1000, crate::harness::own_gid(), 1)]);
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let words = bundle.with_bundle("run", &["c1"])?.words();
    let (shown, _) = on_terminal(&words, "")?;
    assert_eq!(shown.split_whitespace().nth(2), Some("1000"), "{shown}");
    Ok(())
}

/// A socket by a long path in the test's directory, and that path.
pub(crate) fn socket(bundle: &Bundle, name: &str) -> Result<(UnixListener, String)> {
    // Bound by a short relative path: the limit on paths is ours too.
    let directory = bundle.path("deep").join(name);
    fs::create_dir_all(&directory)?;
    let held = File::open(&directory)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/console.sock", held.as_raw_fd()))?;
    Ok((listener, directory.join("console.sock").display().to_string()))
}

/// The descriptor that comes over the next connection.
pub(crate) fn accept(listener: &UnixListener) -> Result<OwnedFd> {
    let (stream, _) = listener.accept()?;
    // Receiving a descriptor takes unsafe code, which is in one place.
    let (_, descriptor) = pura::sys::message::receive(stream.as_fd(), &mut [0; 64])?;
    descriptor.context("no descriptor came")
}

#[test]
fn all_standard_streams_and_the_console_are_one_terminal() -> Result<()> {
    requires!(userns, busybox);
    let script = "for n in 0 1 2; do busybox readlink /proc/self/fd/$n; done; busybox stat -c '%t:%T' /dev/console /dev/pts/0; \
                  echo by the console >/dev/console; echo by its own name >/dev/tty";
    let bundle = with_shell(script)?;
    let words = bundle.with_bundle("run", &["c1"])?.words();
    let (shown, _) = on_terminal(&words, "")?;
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.get(..3), Some(&["/dev/pts/0"; 3][..]), "{shown}");
    assert!(lines.get(3).is_some() && lines.get(3) == lines.get(4), "{shown}");
    assert_eq!(lines.get(5..), Some(&["by the console", "by its own name"][..]), "{shown}");
    Ok(())
}

#[test]
fn a_size_without_a_terminal_is_ignored() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["session"])?;
    bundle.config["process"]["consoleSize"] = json!({"height": 11, "width": 22});
    let facts = bundle.facts()?;
    assert_eq!(facts.get("tty")?, "no");
    Ok(())
}
