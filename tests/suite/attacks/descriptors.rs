//! Descriptors of the runtime and of its caller as a way out: CVE-2024-21626 and its like.

use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result};

use super::is_refusal;
use crate::harness::{Bundle, Pura};

/// A working directory that is a way out, if a descriptor of the host is open there.
fn ways_out() -> impl Iterator<Item = String> {
    let numbered = (3..=15).map(|number| format!("/proc/self/fd/{number}"));
    numbered
        .chain(["/proc/self/root/..", "/proc/1/root", "/proc/self/cwd/..", "/proc/thread-self/fd/4"].map(Into::into))
}

/// With a directory of the host open at 3 and 9, as a careless caller leaves it.
fn leaking(bundle: &Bundle, pura: &Pura) -> Pura {
    bundle.through(&["sh", "-c", "exec 3</ 9</tmp; exec \"$@\"", "sh"], pura)
}

#[test]
fn no_working_directory_is_a_descriptor_of_the_host_in_run_or_exec() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", "pwd; ls /proc/self/cwd/"])?;
    for (number, cwd) in ways_out().enumerate() {
        let link = format!("link{number}");
        symlink(&cwd, bundle.rootfs(&link))?;
        for cwd in [cwd, format!("/{link}")] {
            bundle.config["process"]["cwd"] = cwd.as_str().into();
            let outcome = leaking(&bundle, &bundle.with_bundle("run", &["c1"])?).output()?;
            is_refusal(&outcome).context(cwd)?;
        }
    }
    bundle.config["process"]["cwd"] = "/".into();
    bundle.args(&["/bin/pura-probe", "sleep"]);
    let _running = bundle.started()?;
    for cwd in ways_out().chain((0..15).map(|number| format!("/link{number}"))) {
        let exec = bundle.pura(&["exec", "--cwd", &cwd, "c1", "/bin/busybox", "ls", "-a", "."]);
        is_refusal(&leaking(&bundle, &exec).output()?).context(cwd)?;
    }
    bundle.delete()
}

#[test]
fn a_directory_that_the_caller_left_open_is_not_seen_by_a_program_an_exec_or_a_hook() -> Result<()> {
    requires!(userns, busybox);
    let list = "for n in /proc/self/fd/*; do busybox readlink $n; done; true";
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", list])?;
    let said = bundle.path("said");
    let hook = format!("ls -l /proc/self/fd >{}", said.display());
    bundle.config["hooks"] = serde_json::json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", hook]}]});
    // Nor pura's own: its log, its state, a cgroup.
    let is_theirs = |line: &str| {
        let is_end = [" /", "/tmp", "/log"].iter().any(|end| line.ends_with(end));
        is_end || line == "/" || line.contains("/state") || line.contains("cgroup")
    };
    let is_closed = |text: &str| !text.lines().any(is_theirs);
    bundle.write()?;
    let (log, path) = (bundle.path("log").display().to_string(), bundle.path("bundle").display().to_string());
    let run = bundle.pura(&["--log", &log, "run", "-b", &path, "c1"]);
    let outcome = leaking(&bundle, &run).output()?;
    assert!(is_closed(outcome.succeeds()?), "{outcome:#?}");
    let told = std::fs::read_to_string(&said)?;
    assert!(told.contains("->") && is_closed(&told), "{told}");
    bundle.config["hooks"] = serde_json::Value::Null;
    bundle.args(&["/bin/pura-probe", "sleep"]);
    let _running = bundle.started()?;
    let outcome = leaking(&bundle, &bundle.pura(&["exec", "c1", "/bin/sh", "-c", list])).output()?;
    assert!(is_closed(outcome.succeeds()?), "{outcome:#?}");
    bundle.delete()
}
