//! How things end: failures that leave nothing, a runtime or a caller that dies, and processes that nobody reaps.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::Write as _,
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use serde_json::json;

use super::python;
use crate::harness::{Bundle, eventually, probe_binary, processes};

/// What spoils a bundle.
type Change = fn(&mut Bundle) -> Result<()>;

/// Causes of a failing create, of every stage: the command line, the config, the machine, init, the hooks, the program.
const CAUSES: [(&str, Change); 24] = [
    ("no object", |bundle| {
        bundle.config = json!([]);
        Ok(())
    }),
    ("version", |bundle| set(bundle, "/ociVersion", json!("9.0.0"))),
    ("no such root", |bundle| set(bundle, "/root/path", json!("/no/root"))),
    ("a root that is a file", |bundle| set(bundle, "/root/path", json!("/etc/passwd"))),
    ("no such program", |bundle| set(bundle, "/process/args", json!(["/bin/nope"]))),
    ("not in PATH", |bundle| set(bundle, "/process/args", json!(["nope"]))),
    ("a directory", |bundle| set(bundle, "/process/args", json!(["/etc"]))),
    ("not executable", |bundle| set(bundle, "/process/args", json!(["/etc/passwd"]))),
    ("scheduler", |bundle| set(bundle, "/process/scheduler", json!({"policy": "SCHED_X"}))),
    ("relative cwd", |bundle| set(bundle, "/process/cwd", json!("x"))),
    ("cwd below a file", |bundle| set(bundle, "/process/cwd", json!("/etc/passwd/x"))),
    ("terminal", |bundle| set(bundle, "/process/terminal", json!(true))),
    ("user", |bundle| set(bundle, "/process/user", json!({"uid": 77, "gid": 0}))),
    ("limit", |bundle| set(bundle, "/process/rlimits", json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]))),
    ("environment", |bundle| set(bundle, "/process/env", json!(["NOTHING"]))),
    ("bind source", |bundle| bundle.mount("/mnt", "bind", "/no/source", &["rbind"])),
    ("file over directory", |bundle| bundle.mount("/tmp", "bind", "/etc/passwd", &["rbind"])),
    ("filesystem", |bundle| bundle.mount("/mnt", "nofs", "none", &[])),
    ("mount option", |bundle| bundle.mount("/mnt", "tmpfs", "tmpfs", &["size=bogus"])),
    ("destination", |bundle| bundle.mount("relative/../..", "tmpfs", "tmpfs", &[])),
    ("namespace", |bundle| {
        bundle.share("network");
        bundle.push("/linux/namespaces", json!({"type": "network", "path": "/etc/passwd"}))
    }),
    ("kernel parameter", |bundle| set(bundle, "/linux/sysctl", json!({"kernel.threads-max": "1"}))),
    ("hook", |bundle| set(bundle, "/hooks", json!({"createRuntime": [{"path": "/bin/false"}]}))),
    ("filter", |bundle| set(bundle, "/linux/seccomp", json!({"defaultAction": "SCMP_ACT_BOGUS"}))),
];

/// Sets what a pointer of JSON names, in an object that is there.
fn set(bundle: &mut Bundle, pointer: &str, value: serde_json::Value) -> Result<()> {
    let (object, key) = pointer.rsplit_once('/').context("a pointer")?;
    let object = if object.is_empty() { Some(&mut bundle.config) } else { bundle.config.pointer_mut(object) };
    object.context("no such object")?[key] = value;
    Ok(())
}

#[test]
fn a_failed_create_leaves_nothing_for_a_delete_that_says_nothing() -> Result<()> {
    requires!(userns);
    for (cause, change) in CAUSES {
        let mut bundle = Bundle::probing(&["sleep"])?;
        change(&mut bundle)?;
        let pid_file = bundle.path("pid");
        let flags = ["--pid-file", &pid_file.to_string_lossy(), "c1"];
        let outcome = bundle.with_bundle("create", &flags)?.output()?;
        assert!(outcome.code() == 1 && outcome.stderr.lines().count() == 1, "{cause}: {outcome:#?}");
        assert!(!pid_file.exists(), "{cause} left a pid-file");
        bundle.is_clean().context(cause)?;
        bundle.delete().context(cause)?;
        bundle.verb("state")?.fails(1, 703, &[])?;
    }
    Ok(())
}

#[test]
fn options_that_cannot_be_carried_out_leave_nothing_either() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let (file, pid_file) = (bundle.path("file"), bundle.path("pid").display().to_string());
    fs::write(&file, "")?;
    let below_a_file = file.join("pid").display().to_string();
    let cases: [&[&str]; 7] = [
        &["--pid-file", "/nowhere/pid", "c1"],
        &["--pid-file", &below_a_file, "c1"],
        &["--pid-file", &pid_file, "--pidfd-socket", "/nowhere/socket", "c1"],
        &["--pid-file", &pid_file, "--preserve-fds", "-1", "c1"],
        &["--pid-file", &pid_file, "--config", "/nowhere/config", "c1"],
        &["--pid-file", &pid_file, "bad/id"],
        &["--pid-file", &pid_file, ""],
    ];
    for words in cases {
        let outcome = bundle.with_bundle("create", words)?.output()?;
        assert!([1, 2].contains(&outcome.code()) && outcome.stderr.lines().count() == 1, "{outcome:#?}");
        assert!(!bundle.path("pid").exists(), "{words:?} left a pid-file");
        bundle.is_clean()?;
        bundle.delete()?;
    }
    Ok(())
}

#[test]
fn a_poller_never_sees_half_a_pid_file_nor_one_of_a_container_that_is_not_there() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let pid_file = bundle.path("pid");
    let flags = ["--pid-file", &pid_file.to_string_lossy(), "c1"];
    for _ in 0..8 {
        let mut create = bundle.with_bundle("create", &flags)?.spawn()?;
        // As BuildKit does: again and again, until it is there.
        let mut seen = String::new();
        eventually("a pid-file", || {
            seen = fs::read_to_string(&pid_file).unwrap_or_default();
            Ok(!seen.is_empty() || pid_file.exists())
        })?;
        create.wait()?.succeeds()?;
        assert_eq!(seen, bundle.pid()?.to_string());
        bundle.delete()?;
        drop(fs::remove_file(&pid_file));
    }
    Ok(())
}

#[test]
fn a_detached_exec_becomes_a_child_of_the_callers_subreaper() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let pid_file = bundle.path("pid");
    let exec = bundle.pura(&["exec", "-d", "--pid-file"]).args(&[&pid_file]).args(&["c1", "/bin/pura-probe", "sleep"]);
    let outcome = bundle.through(&[probe_binary().as_os_str(), "adopt".as_ref()], &exec).output()?;
    assert_eq!(outcome.facts()?.all("child"), [fs::read_to_string(&pid_file)?]);
    bundle.delete()
}

#[test]
fn init_does_not_inherit_the_death_signal_of_the_runtime() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::with_args(&["/bin/pura-probe", "sleep"])?;
    let create = bundle.with_bundle("create", &["c1"])?;
    let mut create = bundle.through(&["setpriv", "--pdeathsig", "KILL"], &create).spawn()?;
    create.wait()?.succeeds()?;
    // Its parent has gone: had init inherited the signal, it would be gone too.
    assert_eq!(bundle.status()?, "created");
    let start = bundle.through(&["setpriv", "--pdeathsig", "KILL"], &bundle.pura(&["start", "c1"])).output()?;
    start.succeeds_silently()?;
    assert_eq!(create.line()?, "ready");
    let pid_file = bundle.path("pid");
    let exec = bundle.pura(&["exec", "-d", "--pid-file"]).args(&[&pid_file]).args(&["c1", "/bin/pura-probe", "sleep"]);
    bundle.through(&["setpriv", "--pdeathsig", "KILL"], &exec).output()?.succeeds()?;
    let pid = fs::read_to_string(pid_file)?;
    assert_eq!(bundle.status()?, "running");
    kill(Pid::from_raw(pid.parse()?), None)?;
    bundle.delete()
}

#[test]
fn the_death_of_the_caller_in_the_midst_of_create_leaves_what_delete_removes() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    let (begun, go) = (bundle.path("begun"), bundle.path("go"));
    mkfifo(&go, Mode::S_IRWXU)?;
    let script = format!("echo begun >{}; read line <{}", begun.display(), go.display());
    bundle.config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    let pid_file = bundle.path("pid");
    let flags = ["--pid-file", &pid_file.to_string_lossy(), "c1"];
    let create = bundle.with_bundle("create", &flags)?;
    let words = ["sh", "-c", "setpriv --pdeathsig KILL \"$@\" & wait", "sh"];
    let caller = bundle.through(&words, &create).spawn()?;
    eventually("the hook runs", || Ok(begun.exists()))?;
    caller.signal(Signal::SIGKILL)?;
    let are_gone = || Ok(processes(bundle.dir())?.iter().all(|(_, line)| line.contains("read line")));
    eventually("runtime and init die", are_gone)?;
    // Nobody is left who would end the hook.
    fs::OpenOptions::new().write(true).read(true).open(&go)?.write_all(b"go\n")?;
    assert!(!pid_file.exists(), "there is a pid-file");
    assert_eq!(bundle.pura(&["delete", "c1"]).output()?.stdout, "");
    bundle.delete()?;
    bundle.is_clean()
}

/// The system calls of the parent in `pura exec`: names, and the how-manieth of that name each is.
fn points(trace: &PathBuf) -> Result<Vec<(String, u32)>> {
    let inner =
        ["brk", "mmap", "munmap", "mprotect", "madvise", "mremap", "rt_sigprocmask", "rt_sigaction", "getrandom"];
    let mut counts: HashMap<String, u32> = HashMap::new();
    let mut points = Vec::new();
    for line in fs::read_to_string(trace)?.lines() {
        let Some((name, _)) = line.split_once('(') else { continue };
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && name != "execve" {
            let count = counts.entry(name.to_owned()).or_default();
            *count += 1;
            if !inner.contains(&name) {
                points.push((name.to_owned(), *count));
            }
        }
    }
    Ok(points)
}

#[test]
fn a_kill_at_any_system_call_of_exec_leaves_a_program_with_its_pid_file_or_nothing() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let pid_file = bundle.path("pid");
    let traced = |flags: &[&str]| {
        let words = ["exec", "-d", "--pid-file", &pid_file.to_string_lossy(), "c1", "/bin/pura-probe", "sleep"];
        bundle.through(&[&["strace", "-qq"], flags].concat(), &bundle.pura(&words)).output()
    };
    let others = || -> Result<Vec<i32>> {
        let init = bundle.pid()?;
        Ok(processes(bundle.dir())?.into_iter().map(|(pid, _)| pid).filter(|pid| *pid != init).collect())
    };
    let trace = bundle.path("trace");
    traced(&["-o", &trace.to_string_lossy()])?.succeeds()?;
    let end = || -> Result<()> {
        for pid in others()? {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        drop(fs::remove_file(&pid_file));
        eventually("the exec has ended", || Ok(others()?.is_empty()))
    };
    end()?;
    let points = points(&trace)?;
    for (call, count) in points.iter().step_by(points.len().div_ceil(40).max(1)) {
        let inject = format!("inject={call}:signal=KILL:when={count}");
        let outcome = traced(&["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject])?;
        // Either its init had been released, and has been recorded before, or it dies with the runtime.
        let judged = eventually("all or nothing", || {
            let left: HashSet<_> = others()?.into_iter().collect();
            let written = fs::read_to_string(&pid_file).ok().map(|text| text.parse::<i32>()).transpose()?;
            Ok(left.is_empty() || (left.len() == 1 && written.is_some_and(|pid| left.contains(&pid))))
        });
        judged.with_context(|| format!("killed at {call} {count}: {outcome:#?}"))?;
        end()?;
        bundle.pura(&["exec", "c1", "/bin/pura-probe", "exit", "7"]).output()?.ends(7)?;
        assert_eq!(bundle.status()?, "running", "killed at {call} {count}");
    }
    bundle.delete()?;
    bundle.is_clean()
}

/// A caller that adopts what pura leaves, and does not reap it.
const CARELESS: &str = "
libc.prctl(36, 1, 0, 0, 0)
def timed(*verb):
    begin = time.monotonic()
    done = call(*verb, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seconds = time.monotonic() - begin
    assert seconds < 15, (verb, seconds)
    return done.returncode, (done.stdout + done.stderr).decode()
def state():
    status, text = timed('state', 'c1')
    assert status == 0, text
    return json.loads(text)
def create(start=True):
    subprocess.run(pura + ['create', '--bundle', bundle, 'c1'], check=True, timeout=50, **quiet)
    if start: call('start', 'c1', check=True)
    return init()
def letter(pid):
    return open('/proc/%d/stat' % pid).read().rsplit(') ', 1)[1][0]
def becomes_zombie(pid):
    for _ in range(2000):
        if letter(pid) == 'Z': return
        time.sleep(0.005)
    raise AssertionError(letter(pid))
";

#[test]
fn an_init_that_is_somebody_elses_zombie_has_stopped_and_can_be_deleted() -> Result<()> {
    requires!(userns, python);
    let bundle = Bundle::probing(&["sleep"])?;
    let script = format!(
        "{CARELESS}
for start in [False, True]:
    for force in [False, True]:
        pid = create(start)
        os.kill(pid, 9)
        becomes_zombie(pid)
        found = state()
        assert (found['status'], found['pid']) == ('stopped', 0), found
        status, text = timed('kill', 'c1', '15')
        assert status == 1 and 'container not running' in text and 'no such process' in text, text
        assert timed('kill', '--all', 'c1', '9') == (0, '')
        status, text = timed('exec', '-d', 'c1', '/bin/pura-probe', 'true')
        assert status == 1 and 'container not running' in text, text
        status, text = timed('start', 'c1')
        assert status == 1 and 'has stopped' in text, text
        assert timed('delete', *(['--force'] if force else []), 'c1') == (0, '')
        assert letter(pid) == 'Z'
        os.waitpid(pid, 0)
"
    );
    python(&bundle, &script, &[])?.succeeds_silently()
}

#[test]
fn delete_with_force_ends_a_container_whose_init_nobody_reaps() -> Result<()> {
    requires!(userns, python);
    let bundle = Bundle::probing(&["sleep"])?;
    let script = format!(
        "{CARELESS}
for start in [False, True]:
    pid = create(start)
    assert timed('delete', '--force', 'c1') == (0, '')
    assert timed('delete', '--force', 'c1') == (0, '')
    os.waitpid(pid, 0)
"
    );
    python(&bundle, &script, &[])?.succeeds_silently()
}

#[test]
fn an_exec_that_nobody_reaps_holds_up_no_verb_for_long() -> Result<()> {
    requires!(userns, python);
    let bundle = Bundle::probing(&["sleep"])?;
    let file = bundle.path("exec.pid").display().to_string();
    let script = format!(
        "{CARELESS}
pid = create()
subprocess.run(pura + ['exec', '-d', '--pid-file', words[0], 'c1', '/bin/pura-probe', 'sleep'], check=True, timeout=50, **quiet)
of_exec = int(open(words[0]).read())
os.kill(pid, 9)
becomes_zombie(of_exec)
# Init waits in the kernel until somebody reaps the other one.
for _ in range(2000):
    if state()['status'] == 'stopped': break
assert letter(pid) == 'S', letter(pid)
found = state()
assert (found['status'], found['pid']) == ('stopped', 0), found
status, text = timed('kill', 'c1', '9')
assert status == 1 and 'no such process' in text, text
assert timed('kill', '--all', 'c1', '9') == (0, '')
assert timed('delete', *words[1:], 'c1') == (0, '')
os.waitpid(of_exec, 0)
becomes_zombie(pid)
os.waitpid(pid, 0)
"
    );
    for flags in [&[][..], &["--force"]] {
        python(&bundle, &script, &[&[file.as_str()], flags].concat())?.succeeds_silently()?;
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn a_second_create_of_an_id_changes_nothing_for_the_first() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let pid_file = bundle.path("pid");
    let _running = bundle.started()?;
    let before = bundle.state()?;
    let flags = ["--pid-file", &pid_file.to_string_lossy(), "c1"];
    bundle.with_bundle("create", &flags)?.output()?.fails(1, 705, &["already exists"])?;
    assert!(!pid_file.exists(), "a failed create left a pid-file");
    assert_eq!(bundle.state()?, before);
    bundle.delete()
}

#[test]
fn two_runtimes_share_a_root_without_touching_each_others_entries() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let foreign = bundle.path("state/other");
    fs::create_dir(&foreign)?;
    fs::write(foreign.join("state.json"), json!({"id": "other", "init_process_pid": std::process::id()}).to_string())?;
    fs::write(foreign.join("status"), "{}")?;
    let _running = bundle.started()?;
    let listed = bundle.pura(&["list", "-q"]).output()?;
    assert_eq!(listed.succeeds()?.trim_end(), "c1");
    for words in
        [&["kill", "other", "9"][..], &["delete", "other"], &["delete", "--force", "other"], &["state", "other"]]
    {
        let outcome = bundle.pura(words).output()?;
        assert!(outcome.code() == 1 && outcome.stderr.lines().count() == 1, "{outcome:#?}");
    }
    for words in [&["kill", "--regex", ".*", "KILL"][..], &["delete", "--force", "c1"]] {
        bundle.pura(words).output()?.succeeds_silently()?;
    }
    assert!(foreign.join("state.json").exists() && foreign.join("status").exists());
    fs::remove_dir_all(foreign)?;
    bundle.is_clean()
}

#[test]
fn after_delete_nothing_in_the_state_directory_has_the_name() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    for _ in 0..2 {
        let running = bundle.started()?;
        bundle.delete()?;
        drop(running);
        let left: Vec<_> = fs::read_dir(bundle.path("state"))?.flatten().map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    Ok(())
}
