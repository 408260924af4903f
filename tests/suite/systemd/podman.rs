//! Podman with `--cgroup-manager=systemd`, and pura as its runtime.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output},
};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::harness::{busybox, own_uid, pura_binary, text};

/// Podman, with storage of its own; the container's root is a directory.
struct Podman {
    dir: TempDir,
}

impl Podman {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("e").rand_bytes(3).tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        for name in ["bin", "proc", "sys", "dev", "tmp", "etc", "run"] {
            fs::create_dir_all(dir.path().join("root").join(name))?;
        }
        let copied = Command::new("cp").arg(busybox()?).arg(dir.path().join("root/bin/busybox")).status()?;
        ensure!(copied.success(), "cp: {copied}");
        Ok(Self { dir })
    }

    fn call(&self, words: &[&str]) -> Result<Output> {
        let path = |name: &str| self.dir.path().join(name).to_string_lossy().into_owned();
        let mut podman = Command::new("podman");
        podman.args([
            "--root",
            &path("s"),
            "--runroot",
            &path("r"),
            "--storage-driver",
            "vfs",
            "--events-backend",
            "file",
        ]);
        podman.args(["--cgroup-manager", "systemd", "--runtime"]).arg(pura_binary()).args(words);
        if own_uid() != 0 {
            podman.env("XDG_RUNTIME_DIR", env::var_os("XDG_RUNTIME_DIR").unwrap_or_default());
        }
        Ok(podman.output()?)
    }

    /// Insists on success; standard output.
    fn succeeds(&self, words: &[&str]) -> Result<String> {
        let output = self.call(words)?;
        ensure!(output.status.success(), "podman {words:?}: {} {}", output.status, text(&output.stderr));
        Ok(text(&output.stdout).trim().to_owned())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        drop(self.call(&["rm", "--all", "--force", "--time=0"]));
        let storage = self.dir.path().join("s");
        // Files of subordinate ids are the tester's in Podman's user namespace only.
        if own_uid() != 0 {
            drop(Command::new("podman").args(["unshare", "rm", "-rf"]).arg(storage).output());
            // Ends the process that keeps that namespace, in a scope of its own.
            drop(self.call(&["system", "migrate"]));
        }
    }
}

#[test]
fn podman_finds_its_container_in_the_scope_that_it_asked_for() -> Result<()> {
    requires!(userns, busybox, podman, systemd);
    if own_uid() != 0 {
        requires!(subids);
    }
    let podman = Podman::new()?;
    let root = podman.dir.path().join("root").to_string_lossy().into_owned();
    let create = |options: &[&str], command: &[&str]| {
        let base = ["run", "--network=none", "--log-driver=none", "--security-opt=label=disable"];
        podman.succeeds(&[&base[..], options, &["--rootfs", &root, "/bin/busybox"], command].concat())
    };
    create(&["--rm"], &["true"])?;
    let id = create(&["--detach", "--memory=64m", "--pids-limit=50"], &["sleep", "1000"])?;
    let pid: i32 = podman.succeeds(&["inspect", "--format", "{{.State.Pid}}", &id])?.parse()?;
    let group = super::cgroup_of(pid)?;
    let unit = format!("libpod-{id}.scope");
    assert!(group.contains(&unit), "{group}");
    for (name, wanted) in [("ActiveState", "active"), ("MemoryMax", "67108864"), ("TasksMax", "50")] {
        assert_eq!(super::show(&unit, name)?, wanted, "{name}");
    }
    podman.succeeds(&["exec", &id, "/bin/busybox", "true"])?;
    podman.succeeds(&["stats", "--no-stream", "--format", "{{.PIDS}}", &id])?;
    podman.succeeds(&["pause", &id])?;
    podman.succeeds(&["unpause", &id])?;
    podman.succeeds(&["stop", "--time=1", &id])?;
    podman.succeeds(&["rm", &id])?;
    assert_eq!(super::show(&unit, "LoadState")?, "not-found");
    Ok(())
}
