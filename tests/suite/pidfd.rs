//! `--pidfd-socket`, and the annotation that means the same: a pidfd of the process, over a socket.

use std::{
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{
    console::{accept, socket},
    harness::Bundle,
};

/// The process behind a pidfd: `proc_pid_fdinfo(5)`.
fn process_of(pidfd: &OwnedFd) -> Result<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:")).with_context(|| info.clone())?;
    Ok(line.trim().parse()?)
}

#[test]
fn a_pidfd_of_init_goes_over_the_socket_of_the_option_and_of_the_annotation() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    let (option, flag) = socket(&bundle, &"x".repeat(60))?;
    let (annotation, path) = socket(&bundle, "annotated")?;
    bundle.config["annotations"] = json!({"run.oci.pidfd_receiver": path});
    let mut create = bundle.with_bundle("create", &["--pidfd-socket", &flag, "c1"])?.spawn()?;
    create.wait()?.succeeds_silently()?;
    let pid = bundle.pid()?;
    for listener in [option, annotation] {
        assert_eq!(process_of(&accept(&listener)?)?, pid);
    }
    assert_eq!(bundle.state()?["annotations"]["run.oci.pidfd_receiver"], path.as_str());
    bundle.delete()
}

#[test]
fn the_path_of_the_annotation_starts_at_the_bundle() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    let (listener, _path) = socket(&bundle, "near")?;
    bundle.config["annotations"] = json!({"run.oci.pidfd_receiver": "../deep/near/console.sock"});
    bundle.run()?.succeeds_silently()?;
    accept(&listener).map(drop)
}

#[test]
fn exec_sends_a_pidfd_of_its_own_process() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let (listener, flag) = socket(&bundle, "exec")?;
    let pid_file = bundle.path("pid").display().to_string();
    let words = ["exec", "--detach", "--pid-file", &pid_file, "--pidfd-socket", &flag, "c1", "/bin/pura-probe", "trap"];
    let mut exec = bundle.pura(&words).spawn()?;
    exec.wait()?.succeeds_silently()?;
    assert_eq!(process_of(&accept(&listener)?)?, fs::read_to_string(pid_file)?.parse::<i32>()?);
    bundle.delete()
}

#[test]
fn a_pidfd_socket_that_is_none_is_refused() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    let file = bundle.path("file");
    fs::write(&file, "")?;
    for path in [Path::new("/nowhere/socket"), &bundle.path("missing"), &file] {
        let path = path.display().to_string();
        bundle.with_bundle("create", &["--pidfd-socket", &path, "c1"])?.output()?.fails(1, 617, &[&path])?;
        bundle.is_clean()?;
        bundle.config["annotations"] = json!({"run.oci.pidfd_receiver": path});
        bundle.is_refused(617, &[&path, "annotations"])?;
        bundle.config["annotations"] = json!({});
    }
    let running = bundle.created()?;
    let words = ["exec", "--pidfd-socket", "/nowhere/socket", "c1", "/bin/pura-probe", "true"];
    bundle.pura(&words).output()?.fails(125, 617, &["/nowhere/socket"])?;
    drop(running);
    bundle.delete()
}
