//! `SCMP_ACT_NOTIFY`: the seccomp agent is told once for each filter, and answers; nobody to tell is an error.

use std::{
    fs::{self, File},
    io::Read as _,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    process::{Command, Stdio},
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::harness::Bundle;

const ANSWER: &str = include_str!("../fixtures/seccomp/answer.py");

/// What an agent was told over one connection.
struct Told {
    notice: Value,
    descriptor: OwnedFd,
}

/// An agent that listens in the bundle's directory.
struct Agent {
    listener: UnixListener,
    path: PathBuf,
}

impl Agent {
    fn new(bundle: &mut Bundle, name: &str) -> Result<Self> {
        // Bound by a short path: the limit on paths is ours too.
        let directory = bundle.path("agents").join(name);
        fs::create_dir_all(&directory)?;
        let held = File::open(&directory)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/agent.sock", held.as_raw_fd()))?;
        let path = directory.join("agent.sock");
        bundle.config["linux"]["seccomp"]["listenerPath"] = path.to_string_lossy().into();
        Ok(Self { listener, path })
    }

    /// Takes one connection, on which there is one notice with a descriptor, and then its end.
    fn hear(&self) -> JoinHandle<Result<Told>> {
        let listener = self.listener.try_clone();
        std::thread::spawn(move || {
            let (mut stream, _) = listener?.accept()?;
            let mut text = vec![0; 65536];
            let (length, descriptor) = pura::sys::message::receive(stream.as_fd(), &mut text)?;
            text.truncate(length);
            stream.read_to_end(&mut text)?;
            Ok(Told {
                notice: serde_json::from_slice(&text)?,
                descriptor: descriptor.context("no descriptor came with the first bytes")?,
            })
        })
    }

    /// The same, and then the answer to the first call that waits. Returns what was told, and the process and the call.
    fn answer(&self, errno: i32) -> JoinHandle<Result<(Value, String)>> {
        let heard = self.hear();
        std::thread::spawn(move || {
            let told = joined(heard)?;
            let mut python = Command::new("/usr/bin/python3");
            python.args(["-c", ANSWER, &errno.to_string()]).stdin(Stdio::from(told.descriptor));
            let output = python.output()?;
            anyhow::ensure!(output.status.success(), "{output:?}");
            Ok((told.notice, String::from_utf8(output.stdout)?))
        })
    }
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_panic| anyhow::anyhow!("the agent panicked"))?
}

/// A bundle whose program makes a directory, which an agent has to allow.
fn asking(names: &[&str]) -> Result<Bundle> {
    let mut bundle = Bundle::with_args(&["/bin/pura-probe", "mkdir", "/tmp/made"])?;
    bundle.config["annotations"] = json!({"key": "va\"lue"});
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "meta \"data\"",
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]
    });
    Ok(bundle)
}

/// `mkdir(2)` on every architecture.
const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

#[test]
fn an_agent_is_told_once_with_the_state_and_its_answer_is_what_the_program_gets() -> Result<()> {
    requires!(userns, python);
    for no_new_privs in [true, false] {
        let mut bundle = asking(&MKDIR)?;
        bundle.config["process"]["noNewPrivileges"] = no_new_privs.into();
        let agent = Agent::new(&mut bundle, &"long/".repeat(24))?;
        assert!(agent.path.as_os_str().len() > 107);
        let answered = agent.answer(29);
        assert_eq!(bundle.run()?.succeeds()?, "errno=29\n", "{no_new_privs}");
        let (notice, asked) = joined(answered)?;
        let pid = asked.split_whitespace().next().context("no pid")?;
        // As a caller sees it, and not as the container does.
        assert!(pid.parse::<i64>()? > 1, "{asked}");
        let wanted = json!({
            "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": pid.parse::<i64>()?, "metadata": "meta \"data\"",
            "state": {
                "ociVersion": "1.3.0", "id": "c1", "status": "created", "pid": pid.parse::<i64>()?,
                "bundle": bundle.path("bundle"), "annotations": {"key": "va\"lue"}
            }
        });
        assert_eq!(notice, wanted);
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn a_created_container_tells_its_agent_at_start_and_exec_tells_it_again() -> Result<()> {
    requires!(userns, python);
    let mut bundle = asking(&MKDIR)?;
    bundle.args(&["/bin/pura-probe", "sleep"]);
    let agent = Agent::new(&mut bundle, "x")?;
    let heard = agent.hear();
    let running = bundle.created()?;
    let init = bundle.pid()?;
    assert!(!heard.is_finished());
    bundle.verb("start")?.succeeds_silently()?;
    let told = joined(heard)?;
    assert_eq!((&told.notice["pid"], &told.notice["state"]["pid"]), (&init.into(), &init.into()));
    let kind = fs::read_link(format!("/proc/self/fd/{}", told.descriptor.as_raw_fd()))?;
    assert_eq!(kind.to_string_lossy(), "anon_inode:seccomp notify");
    assert_eq!(running.line()?, "ready");
    let answered = agent.answer(30);
    let outcome = bundle.pura(&["exec", "c1", "/bin/pura-probe", "mkdir", "/tmp/made"]).output()?;
    assert_eq!(outcome.succeeds()?, "errno=30\n");
    let (notice, asked) = joined(answered)?;
    assert_eq!(asked.split_whitespace().next(), Some(notice["pid"].to_string().as_str()));
    assert_eq!((&notice["state"]["pid"], &notice["state"]["status"]), (&init.into(), &"running".into()));
    assert_ne!(notice["pid"], notice["state"]["pid"]);
    drop(told);
    bundle.delete()
}

#[test]
fn an_agent_that_reads_to_the_end_is_not_kept_waiting_by_its_own_calls() -> Result<()> {
    requires!(userns, busybox);
    // Calls that init makes too, before the program runs or when it fails; none of them waits for the agent then.
    let mut bundle = asking(&["close", "close_range", "exit_group", "sendto", "mkdirat", "mkdir", "bind", "connect"])?;
    bundle.args(&["/bin/pura-probe", "sleep"]);
    let agent = Agent::new(&mut bundle, "x")?;
    let heard = agent.hear();
    let _running = bundle.created()?;
    bundle.verb("start")?.succeeds_silently()?;
    drop(joined(heard)?);
    bundle.delete()?;
    // With hooks, too, which come before exec.
    let mut hooked = asking(&MKDIR)?;
    hooked.args(&["/bin/pura-probe", "sleep"]);
    hooked.config["hooks"] =
        json!({"startContainer": [{"path": "/bin/busybox", "args": ["busybox", "mkdir", "/tmp/made"]}]});
    let second = Agent::new(&mut hooked, "x")?;
    let answered = second.answer(0);
    let _hooked = hooked.created()?;
    hooked.verb("start")?.succeeds_silently()?;
    joined(answered)?;
    hooked.delete()
}

#[test]
fn all_flags_are_accepted_beside_an_agent() -> Result<()> {
    requires!(userns, python);
    let mut bundle = asking(&MKDIR)?;
    bundle.config["linux"]["seccomp"]["flags"] = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    let agent = Agent::new(&mut bundle, "x")?;
    let answered = agent.answer(29);
    assert_eq!(bundle.run()?.succeeds()?, "errno=29\n");
    joined(answered)?;
    Ok(())
}

#[test]
fn metadata_without_a_path_or_a_dead_agent_fails_and_a_path_without_notify_is_ignored() -> Result<()> {
    requires!(userns);
    let mut bundle = asking(&MKDIR)?;
    bundle.is_refused(803, &["linux.seccomp.listenerMetadata", "linux.seccomp.listenerPath"])?;
    let file = bundle.path("file");
    fs::write(&file, "")?;
    let dead = Agent::new(&mut bundle, "x")?;
    drop(dead.listener);
    for (path, why) in [
        (&dead.path, "connection refused"),
        (&file, "not a socket"),
        (&bundle.path("missing"), "does not exist"),
        (&bundle.path("bundle"), "not a socket"),
    ] {
        bundle.config["linux"]["seccomp"]["listenerPath"] = path.to_string_lossy().into();
        bundle.is_refused(506, &["linux.seccomp.listenerPath", &path.to_string_lossy(), why])?;
    }
    bundle.config["linux"]["seccomp"]["listenerPath"] = "agent.sock".into();
    bundle.is_refused(803, &["linux.seccomp.listenerPath", "not absolute"])?;
    // Nobody is told, and nobody has to be there.
    bundle.config["linux"]["seccomp"]["syscalls"][0]["action"] = "SCMP_ACT_ERRNO".into();
    for path in [json!("agent.sock"), json!(dead.path)] {
        bundle.config["linux"]["seccomp"]["listenerPath"] = path;
        assert_eq!(bundle.run()?.succeeds()?, "errno=1\n");
    }
    bundle.is_clean()
}

#[test]
fn an_agent_that_goes_before_it_is_told_fails_start_and_leaves_nothing() -> Result<()> {
    requires!(userns);
    // Init could neither report nor end by these calls: nobody answers.
    for names in [&MKDIR[..], &["mkdir", "sendto", "close", "exit_group", "exit"]] {
        let mut bundle = asking(names)?;
        let agent = Agent::new(&mut bundle, "x")?;
        let running = bundle.created()?;
        drop(agent.listener.accept()?);
        bundle.verb("start")?.fails(1, 506, &["linux.seccomp.listenerPath", "tell the seccomp agent"])?;
        assert_eq!(running.rest()?, [""; 0]);
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn run_and_exec_fail_for_an_agent_that_hangs_up() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = asking(&["mkdir", "exit_group"])?;
    // Held up between the connection and the filter until the agent has hung up.
    let gone = bundle.path("gone");
    let script = format!("while ! test -e {}; do :; done", gone.display());
    bundle.config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    let agent = Agent::new(&mut bundle, "x")?;
    let listener = agent.listener.try_clone()?;
    let hung_up = std::thread::spawn(move || -> Result<()> {
        drop(listener.accept()?);
        Ok(fs::write(gone, "")?)
    });
    bundle.run()?.fails(125, 506, &["tell the seccomp agent", "linux.seccomp.listenerPath"])?;
    joined(hung_up)?;
    bundle.is_clean()
}

#[test]
fn notify_is_refused_where_nobody_could_answer() -> Result<()> {
    requires!(userns);
    for (names, no_new_privs, code) in [
        (&["mkdir", "write"][..], true, 803),
        (&["sendmsg"], true, 803),
        (&["execve"], true, 505),
        (&["capset"], false, 505),
    ] {
        let mut bundle = asking(names)?;
        bundle.config["process"]["noNewPrivileges"] = no_new_privs.into();
        bundle.config["linux"]["seccomp"]["listenerPath"] = "/nowhere".into();
        let name = names.last().context("no name")?;
        bundle.is_refused(code, &["SCMP_ACT_NOTIFY", name, "linux.seccomp.syscalls"])?;
    }
    let mut bundle = asking(&MKDIR)?;
    bundle.config["linux"]["seccomp"] =
        json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/nowhere", "syscalls": []});
    bundle.is_refused(803, &["linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY"])?;
    let mut bundle = asking(&["close"])?;
    bundle.config["linux"]["seccomp"]["listenerPath"] = "/nowhere".into();
    bundle.config["hooks"] = json!({"startContainer": [{"path": "/bin/true"}]});
    bundle.is_refused(505, &["SCMP_ACT_NOTIFY on close"])?;
    let mut bundle = asking(&MKDIR)?;
    bundle.config["linux"]["seccomp"]["listenerPath"] = "/nowhere".into();
    bundle.push("/linux/seccomp/syscalls", json!({"names": ["sendmsg"], "action": "SCMP_ACT_ERRNO"}))?;
    bundle.is_refused(505, &["forbids sendmsg"])
}
