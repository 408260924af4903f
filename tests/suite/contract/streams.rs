//! Standard streams and terminals, as engines pass and wait for them.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt as _, net::UnixListener},
    },
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::json;

use super::python;
use crate::{
    console::accept,
    harness::{Bundle, own_uid},
};

/// A user other than the caller, in a container with many ids.
fn as_another(script: &str) -> Result<Bundle> {
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
    bundle.share_user();
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    Ok(bundle)
}

#[test]
fn a_program_of_another_user_may_open_its_pipes_again() -> Result<()> {
    requires!(userns, subids, busybox);
    let again = "echo again >/proc/self/fd/1 && echo ok";
    let bundle = as_another(again)?;
    let mut run = bundle.with_bundle("run", &["c1"])?.spawn()?;
    assert_eq!((run.line()?, run.line()?), ("again".to_owned(), "ok".to_owned()));
    run.wait()?.succeeds()?;
    let running = bundle.created()?;
    bundle.verb("start")?.succeeds_silently()?;
    assert_eq!(running.rest()?, ["again", "ok"]);
    bundle.delete()?;
    // And of an exec.
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.share_user();
    let _running = bundle.started()?;
    let mut exec = bundle.pura(&["exec", "--user", "1000:1000", "c1", "/bin/sh", "-c", again]).spawn()?;
    assert_eq!((exec.line()?, exec.line()?), ("again".to_owned(), "ok".to_owned()));
    exec.wait()?.succeeds()?;
    bundle.delete()
}

#[test]
fn a_file_or_device_that_is_a_stream_keeps_its_owner() -> Result<()> {
    requires!(userns, subids, busybox);
    let bundle = as_another("echo written")?;
    let file = bundle.path("out");
    let run = bundle.with_bundle("run", &["c1"])?;
    let null = fs::metadata("/dev/null")?;
    let script = "exec \"$@\" >\"$0\" </dev/null";
    let out = file.display().to_string();
    bundle.through(&["sh", "-c", script, &out], &run).output()?.succeeds_silently()?;
    assert_eq!((fs::read_to_string(&file)?.as_str(), fs::metadata(&file)?.uid()), ("written\n", own_uid()));
    let after = fs::metadata("/dev/null")?;
    assert_eq!((null.uid(), null.gid(), null.mode()), (after.uid(), after.gid(), after.mode()));
    Ok(())
}

#[test]
fn real_roots_devices_keep_their_owner_when_they_are_the_streams_of_another_user() -> Result<()> {
    requires!(root);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let before = fs::metadata("/dev/null")?;
    for user in [&[][..], &[(0, 100_000, 65_536)]] {
        if !user.is_empty() {
            bundle.push("/linux/namespaces", json!({"type": "user"}))?;
            bundle.map(user, user);
        }
        let run = bundle.with_bundle("run", &["c1"])?;
        let script = "exec \"$@\" </dev/null >/dev/null";
        let outcome = bundle.through(&["sh", "-c", script, "sh"], &run).output()?;
        assert!(outcome.stderr.is_empty() || !user.is_empty(), "{outcome:#?}");
        let after = fs::metadata("/dev/null")?;
        assert_eq!((before.uid(), before.gid(), before.mode()), (after.uid(), after.gid(), after.mode()));
    }
    Ok(())
}

/// Words of a call whose output goes where go-runc puts it: one pipe for both.
const CAPTURED: [&str; 4] = ["sh", "-c", "exec \"$@\" 2>&1", "sh"];

#[test]
fn output_of_a_create_or_exec_with_a_terminal_ends_when_that_returns() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["process"]["terminal"] = true.into();
    let socket = bundle.path("socket");
    let listener = UnixListener::bind(&socket)?;
    let socket = socket.display().to_string();
    let create = bundle.with_bundle("create", &["--console-socket", &socket, "c1"])?;
    let begin = Instant::now();
    let mut create = bundle.through(&CAPTURED, &create).spawn()?;
    assert!(create.rest()?.is_empty());
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
    create.wait()?.succeeds()?;
    let _master = accept(&listener)?;
    // The streams of the terminal are those of init already.
    let init = bundle.pid()?;
    for number in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{init}/fd/{number}"))?.to_string_lossy(), "/dev/pts/0");
    }
    let words: [&[&str]; 5] = [
        &["start", "c1"],
        &["exec", "-d", "-t", "--console-socket", &socket, "c1", "/bin/pura-probe", "sleep"],
        &["state", "c1"],
        &["kill", "c1", "0"],
        &["delete", "--force", "c1"],
    ];
    for words in words {
        let mut call = bundle.through(&CAPTURED, &bundle.pura(words)).spawn()?;
        let said = call.rest()?;
        assert!(said.is_empty() || words[0] == "state", "{said:?}");
        call.wait()?.succeeds()?;
    }
    Ok(())
}

#[test]
fn nothing_keeps_the_output_of_a_verb_that_starts_no_program() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.created()?;
    for words in [&["start", "c1"][..], &["state", "c1"], &["kill", "c1", "0"], &["delete", "-f", "c1"]] {
        let mut call = bundle.through(&CAPTURED, &bundle.pura(words)).spawn()?;
        call.rest()?;
        call.wait()?.succeeds()?;
    }
    Ok(())
}

/// A create with a terminal for whoever listens at `path`: how it ended, in bounded time.
fn create_for(bundle: &mut Bundle, path: &str) -> Result<crate::harness::Outcome> {
    bundle.config["process"]["terminal"] = true.into();
    let begin = Instant::now();
    let outcome = bundle.with_bundle("create", &["--console-socket", path, "c1"])?.output()?;
    assert!(begin.elapsed() < Duration::from_secs(30), "it took {:?}", begin.elapsed());
    Ok(outcome)
}

#[test]
fn a_console_socket_that_nobody_serves_is_an_error_and_no_hang() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    let socket = bundle.path("socket");
    let path = socket.display().to_string();
    create_for(&mut bundle, &path)?.fails(1, 613, &[&path, "does not exist"])?;
    drop(UnixListener::bind(&socket)?);
    create_for(&mut bundle, &path)?.fails(1, 613, &[&path, "connection refused"])?;
    fs::remove_file(&socket)?;
    // Accepted and closed at once.
    let listener = UnixListener::bind(&socket)?;
    let closing = std::thread::spawn(move || listener.accept().map(drop));
    create_for(&mut bundle, &path)?.fails(1, 613, &["the terminal"])?;
    assert!(closing.join().is_ok());
    fs::remove_file(&socket)?;
    bundle.is_clean()
}

#[test]
fn a_console_socket_that_accepts_nobody_is_an_error_and_no_hang() -> Result<()> {
    requires!(userns, python);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["process"]["terminal"] = true.into();
    let socket = bundle.path("socket").display().to_string();
    // The one place of its queue is taken.
    let script = "
listener = socket.socket(socket.AF_UNIX); listener.bind(words[0]); listener.listen(0)
first = socket.socket(socket.AF_UNIX); first.connect(words[0])
begin = time.monotonic()
done = call('create', '--bundle', bundle, '--console-socket', words[0], 'c1', stderr=subprocess.PIPE)
assert done.returncode == 1 and time.monotonic() - begin < 30
sys.stdout.write(done.stderr.decode())
";
    let outcome = python(&bundle, script, &[&socket])?;
    let text = outcome.succeeds()?;
    assert!(text.contains("nobody accepts the connection; fix: ") && text.contains("[PURA-613]"), "{text}");
    bundle.is_clean()
}

#[test]
fn a_console_socket_gets_one_connection_and_one_short_message() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["process"]["terminal"] = true.into();
    let socket = bundle.path("socket");
    let listener = UnixListener::bind(&socket)?;
    let path = socket.display().to_string();
    create_for(&mut bundle, &path)?.succeeds_silently()?;
    let (mut stream, _) = listener.accept()?;
    let mut bytes = [0; 4096];
    let (length, descriptor) = pura::sys::message::receive(std::os::fd::AsFd::as_fd(&stream), &mut bytes)?;
    assert!(length > 0 && length < 4096 && descriptor.is_some(), "{length}");
    assert_eq!(std::io::Read::read(&mut stream, &mut bytes)?, 0);
    listener.set_nonblocking(true)?;
    assert!(listener.accept().is_err(), "there is a second connection");
    bundle.delete()
}

#[test]
fn a_console_socket_without_a_terminal_is_an_error_in_the_foreground_only() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let socket = bundle.path("socket");
    let _listener = UnixListener::bind(&socket)?;
    let flags = ["--console-socket", &socket.to_string_lossy(), "c1"];
    bundle.with_bundle("create", &flags)?.output()?.succeeds_silently()?;
    bundle.delete()?;
    bundle.with_bundle("run", &flags)?.output()?.fails(125, 613, &["no terminal"])?;
    Ok(())
}

#[test]
fn the_streams_of_a_caller_may_be_sockets_and_its_own_terminal() -> Result<()> {
    requires!(userns, busybox);
    // Passed on as they are: a log driver of podman's gives the user's terminal to the container.
    let bundle = Bundle::with_args(&["/bin/busybox", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo all"])?;
    let words = bundle.with_bundle("run", &["c1"])?.words();
    let (shown, status) = crate::console::on_terminal(&words, "")?;
    assert_eq!((shown.as_str(), status), ("all\n", Some(0)));
    let bundle = Bundle::with_args(&["/bin/busybox", "echo", "over a socket"])?;
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let words = bundle.with_bundle("run", &["c1"])?.words();
    let mut run = std::process::Command::new(&words[0]);
    run.args(&words[1..]).env_clear().stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)));
    let status = run.stdout(Stdio::from(OwnedFd::from(theirs))).status()?;
    drop(run);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut ours, &mut said)?;
    assert_eq!((said.as_str(), status.code()), ("over a socket\n", Some(0)));
    Ok(())
}

#[test]
fn a_resize_of_the_callers_terminal_reaches_the_program_of_an_exec() -> Result<()> {
    requires!(userns, busybox, python);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let inside = "stty size; trap 'stty size; exit 5' WINCH; echo armed; while :; do :; done";
    // As BuildKit: the terminal is not pura's own, and the signal comes from the engine.
    let script = "
import fcntl, struct, termios
master, slave = os.openpty()
def resize(*size): fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', *size, 0, 0))
resize(33, 77)
pura = subprocess.Popen(pura + ['exec', '--tty', 'c1', '/bin/sh', '-c', words[0]], stdin=slave, stdout=slave)
shown = b''
while b'armed' not in shown: shown += os.read(master, 1000)
assert b'33 77' in shown, shown
resize(11, 22)
pura.send_signal(signal.SIGWINCH)
while b'11 22' not in shown: shown += os.read(master, 1000)
assert pura.wait(50) == 5, shown
";
    python(&bundle, script, &[inside])?.succeeds_silently()?;
    bundle.delete()
}
