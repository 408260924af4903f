//! What callers pass along without meaning to: variables, descriptors, signals. And what they do not pass along.

use std::fs;

use anyhow::{Result, ensure};
use nix::unistd::getpid;
use serde_json::json;

use super::python;
use crate::harness::{Bundle, Outcome, own_uid, skip};

/// `env -i VARIABLES pura WORDS`: nothing but these.
fn bare(bundle: &Bundle, variables: &[&str], words: &[&str]) -> Result<Outcome> {
    let pura = crate::harness::Pura::new(bundle.dir(), words);
    bundle.through(&[&["env", "-i"], variables].concat(), &pura).output()
}

/// All verbs of a life, each with the variables of the engine that makes it.
fn lives(bundle: &Bundle, create: &[&str], others: &[&str]) -> Result<()> {
    let id = format!("bare-{}-{}", getpid(), bundle.dir().file_name().unwrap_or_default().display());
    bundle.write()?;
    let path = bundle.path("bundle").display().to_string();
    let judge = || -> Result<()> {
        bare(bundle, create, &["create", "--bundle", &path, &id])?.succeeds_silently()?;
        let state = bare(bundle, others, &["state", &id])?;
        ensure!(state.succeeds()?.contains("\"created\""), "{state:#?}");
        bare(bundle, others, &["start", &id])?.succeeds_silently()?;
        bare(bundle, others, &["exec", &id, "/bin/pura-probe", "exit", "7"])?.ends(7)?;
        bare(bundle, others, &["kill", &id, "0"])?.succeeds_silently()?;
        bare(bundle, others, &["delete", "--force", &id])?.succeeds_silently()?;
        bare(bundle, others, &["state", &id])?.fails(1, 703, &[])?;
        Ok(())
    };
    let judged = judge();
    if judged.is_err() {
        drop(bare(bundle, others, &["delete", "--force", &id]));
    }
    judged
}

#[test]
fn every_verb_works_with_an_empty_environment() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    lives(&bundle, &[], &[])?;
    lives(&bundle, &["XDG_RUNTIME_DIR="], &[])?;
    lives(&bundle, &[], &["XDG_RUNTIME_DIR=", "HOME=/nowhere", "USER=root", "LOGNAME=root"])
}

#[test]
fn start_kill_and_delete_find_what_a_full_environment_created_by_the_runtime_directory_alone() -> Result<()> {
    requires!(userns);
    let runtime = format!("/run/user/{}", own_uid());
    let bundle = Bundle::probing(&["sleep"])?;
    let own = bundle.path("xdg");
    fs::create_dir(&own)?;
    fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let own = format!("XDG_RUNTIME_DIR={}", own.display());
    let full = [
        own.as_str(),
        "HOME=/root",
        "USER=root",
        "PATH=/usr/bin:/bin",
        "DBUS_SESSION_BUS_ADDRESS=unix:path=/nowhere",
        "_CONTAINERS_USERNS_CONFIGURED=done",
        "_CONTAINERS_ROOTLESS_UID=1101",
        "CONTAINERS_CONF=/nowhere",
        "TMPDIR=/nowhere",
        "LOGLEVEL=5",
        "LANG=xx_YY.UTF-8",
    ];
    lives(&bundle, &full, &[&own])?;
    lives(&bundle, &[&own], &full)?;
    if fs::metadata(&runtime).is_err() {
        return skip("runtime directory", &format!("{runtime} is missing"));
    }
    // What is not said is /run/user/UID.
    lives(&bundle, &[&format!("XDG_RUNTIME_DIR={runtime}")], &[])
}

#[test]
fn stale_variables_of_engines_and_service_managers_neither_count_nor_reach_the_program() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["env", "fds"])?;
    let stale = [
        ("_OCI_SYNCPIPE", "3"),
        ("_OCI_STARTPIPE", "4"),
        ("_OCI_ATTACHPIPE", "5"),
        ("NOTIFY_SOCKET", "/nowhere/notify"),
        ("LISTEN_FDS", "3"),
        ("LISTEN_FDNAMES", "a:b:c"),
        ("LISTEN_PID", "1"),
        ("WATCHDOG_PID", "1"),
        ("CRI_O_EXTERNAL", "1"),
    ];
    let mut run = bundle.with_bundle("run", &["c1"])?;
    for (name, value) in stale {
        run = run.env(name, value);
    }
    let outcome = run.output()?;
    let facts = outcome.facts()?;
    for (name, _) in stale {
        assert!(facts.get(&format!("env.{name}")).is_err(), "{name} has leaked");
    }
    assert_eq!(facts.below("fd.").len(), 3);
    // Those of the config are the program's, whatever pura's own are: podman puts them there itself.
    let mut bundle = Bundle::probing(&["env"])?;
    for own in ["LISTEN_FDS=2", "LISTEN_PID=1", "NOTIFY_SOCKET=/run/notify"] {
        bundle.push("/process/env", json!(own))?;
    }
    let run = bundle.with_bundle("run", &["--preserve-fds", "2", "c1"])?.env("LISTEN_FDS", "9").env("LISTEN_PID", "2");
    let facts = run.output()?.facts()?;
    assert_eq!(facts.all("env.LISTEN_FDS"), ["2"]);
    assert_eq!((facts.get("env.LISTEN_PID")?, facts.get("env.NOTIFY_SOCKET")?), ("1", "/run/notify"));
    Ok(())
}

/// Leaks fifty descriptors into pura: pipes, sockets, directories, with gaps, one of them number 1000. 4 and 7 are meant.
const LEAKY: &str = r"
kept = [4, 7]
readers = []
def move(fd, to):
    os.dup2(fd, to, inheritable=True)
    os.close(fd)
numbers = iter(range(20, 400, 3))
meant = os.open('/dev/null', os.O_RDONLY)
for number in kept:
    os.dup2(meant, number, inheritable=True)
for n in range(20):
    reader, writer = os.pipe()
    high = 500 + n
    os.dup2(reader, high, inheritable=False); os.close(reader); readers.append(high)
    move(writer, 1000 if n == 0 else next(numbers))
for n in range(10):
    ours, theirs = socket.socketpair()
    high = 600 + n
    os.dup2(ours.fileno(), high, inheritable=False); ours.close(); readers.append(high)
    move(theirs.detach(), next(numbers))
for path in ['/', '/proc', '/tmp', '/dev/null', '/etc/passwd'] * 4:
    move(os.open(path, os.O_RDONLY), next(numbers))
def leak(*verb):
    subprocess.run(pura + list(verb), close_fds=False, timeout=50, check=True, **quiet)
def close():
    for fd in [1000] + list(range(20, 400, 3)):
        try: os.close(fd)
        except OSError: pass
def see_end():
    for fd in readers:
        ready = select.select([fd], [], [], 20)[0]
        assert ready and os.read(fd, 1) == b'', 'somebody holds the other end of %d' % fd
def held(pid):
    all = {int(n): os.readlink('/proc/%d/fd/%s' % (pid, n)) for n in os.listdir('/proc/%d/fd' % pid)}
    # The program's own.
    return {n: to for n, to in all.items() if to != 'anon_inode:[signalfd]'}
";

#[test]
fn a_waiting_init_and_its_program_hold_nothing_of_fifty_leaked_descriptors() -> Result<()> {
    requires!(userns, python);
    let bundle = Bundle::probing(&["sleep"])?;
    let script = format!(
        "{LEAKY}
leak('create', '--bundle', bundle, '--preserve-fds', '5', 'c1')
close(); see_end()
waiting = held(init())
extra = {{n: to for n, to in waiting.items() if n > 2 and n not in kept}}
assert all(n in waiting for n in kept), waiting
# What is init's own: where start comes in, its root.
assert all(to.startswith('socket:') or to == '/' or '/rootfs' in to for to in extra.values()), extra
assert len(extra) <= 3, extra
call('start', 'c1', check=True)
running = held(init())
assert sorted(running) == [0, 1, 2] + kept, running
call('delete', '--force', 'c1', check=True)
"
    );
    python(&bundle, &script, &[])?.succeeds_silently()
}

#[test]
fn a_detached_exec_holds_nothing_of_fifty_leaked_descriptors() -> Result<()> {
    requires!(userns, python);
    let bundle = Bundle::probing(&["sleep"])?;
    let file = bundle.path("exec.pid").display().to_string();
    let script = format!(
        "{LEAKY}
subprocess.run(pura + ['create', '--bundle', bundle, 'c1'], check=True, timeout=50, **quiet)
call('start', 'c1', check=True)
leak('exec', '--detach', '--preserve-fds', '5', '--pid-file', words[0], 'c1', '/bin/pura-probe', 'sleep')
close(); see_end()
running = held(int(open(words[0]).read()))
assert sorted(running) == [0, 1, 2] + kept, running
# Nor does any other verb keep them, or pass them on.
call('delete', '--force', 'c1', check=True)
"
    );
    python(&bundle, &script, &[&file])?.succeeds_silently()
}

#[test]
fn signals_that_the_caller_ignores_or_blocks_do_not_reach_an_exec_or_a_created_program() -> Result<()> {
    requires!(userns, python, busybox);
    let bundle = Bundle::with_args(&["/bin/busybox", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])?;
    let script = "
def hostile():
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGRTMIN + 3, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD])
def lines(*verb):
    return subprocess.run(pura + list(verb), preexec_fn=hostile, restore_signals=False, timeout=50, check=True,
        stdout=subprocess.PIPE).stdout.decode()
wanted = 'SigBlk:\\t0000000000000000\\nSigIgn:\\t0000000000000000\\n'
found = lines('run', '--bundle', bundle, 'c1')
assert found == wanted, found
reader, writer = os.pipe()
subprocess.run(pura + ['create', '--bundle', bundle, 'c1'], preexec_fn=hostile, restore_signals=False, timeout=50,
    check=True, stdout=writer)
assert lines('exec', 'c1', '/bin/busybox', 'grep', '-E', '^Sig(Blk|Ign)', '/proc/self/status') == wanted
os.close(writer)
lines('start', 'c1')
assert os.fdopen(reader).read() == wanted
lines('delete', '--force', 'c1')
";
    python(&bundle, script, &[])?.succeeds_silently()
}

#[test]
fn the_root_may_be_a_mount_that_only_create_sees() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.share_user();
    let mount = bundle.path("mount");
    fs::create_dir(&mount)?;
    bundle.config["root"]["path"] = mount.display().to_string().into();
    let create = bundle.with_bundle("create", &["c1"])?;
    // The caller's namespace, and one more of mounts for create, as podman's --userns=auto.
    let script = r#"from=$1; on=$2; shift 2; pura=$1; root=$3
        unshare --mount sh -c 'mount --bind "$0" "$1" && shift && exec "$@"' "$from" "$on" "$@" >/dev/null || exit 91
        [ -z "$(ls $on)" ] || exit 92
        pura() { $pura --root $root "$@"; }
        pura state c1 | grep -q '"created"' || exit 93
        pura start c1 >/dev/null || exit 94
        pura exec c1 /bin/pura-probe exit 7; [ $? = 7 ] || exit 95
        pura kill c1 KILL || exit 96
        until pura state c1 | grep -q '"stopped"'; do :; done
        pura delete c1 || exit 97"#;
    let (from, on) = (bundle.rootfs("").display().to_string(), mount.display().to_string());
    let words = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", &from, &on];
    bundle.through(&words, &create).output()?.succeeds_silently()
}
