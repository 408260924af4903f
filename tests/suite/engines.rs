//! Engines with pura as their runtime: the real programs, with images made here, and nothing pulled.

mod build;
mod buildah;
mod container;
mod podman;
mod root;
mod screen;

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::harness::{
    Outcome, Pura, busybox, eventually, has_failed,
    leftovers::{self, names},
    own_cgroup, own_uid, pura_binary, text,
};

/// The one image: a busybox and two accounts.
const IMAGE: &str = "localhost/busybox";

/// The names that pura has in turn.
const NAMES: [&str; 2] = ["pura", "crun"];

/// Podman and Buildah, with storage, configuration and run-time directory of their own.
#[derive(Debug)]
struct Engine {
    dir: TempDir,
}

impl Engine {
    /// Podman that knows pura under a name, with the image.
    fn new(runtime: &str) -> Result<Self> {
        let engine = Self::bare(runtime)?;
        let tar = engine.path("image.tar");
        engine.call(&["import", "--quiet", &tar.to_string_lossy(), IMAGE])?.must_end(0, "")?;
        Ok(engine)
    }

    /// The directories and the image's tar, for engines that do not share Podman's storage.
    fn bare(runtime: &str) -> Result<Self> {
        // Short: with long paths, Podman 4.3 never hears of a container's end, and waits for 20 seconds.
        let dir = tempfile::Builder::new().prefix("e").rand_bytes(3).tempdir()?;
        let engine = Self { dir };
        for (name, mode) in [("r", 0o700), ("tmp", 0o755), ("bin", 0o755), ("volume", 0o755)] {
            fs::create_dir(engine.path(name))?;
            fs::set_permissions(engine.path(name), Permissions::from_mode(mode))?;
        }
        let binary = engine.path("bin").join(runtime);
        fs::copy(pura_binary(), &binary)?;
        fs::set_permissions(&binary, Permissions::from_mode(0o755))?;
        fs::write(engine.path("volume/file"), "of the host\n")?;
        fs::write(engine.path("containers.conf"), engine.configuration(runtime))?;
        fs::write(engine.path("storage.conf"), engine.storage())?;
        engine.pack()?;
        Ok(engine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn storage(&self) -> String {
        let [graph, run] = ["s", "r/s"].map(|name| self.path(name));
        format!("[storage]\ndriver = \"vfs\"\ngraphroot = {graph:?}\nrunroot = {run:?}\n")
    }

    fn configuration(&self, runtime: &str) -> String {
        let [binary, state, run] = [&format!("bin/{runtime}"), "r/pura", "r/t"].map(|name| self.path(name));
        // Root may lack the power to raise limits; and its state has the whole machine's place otherwise.
        let rooted = own_uid() == 0;
        let limits = if rooted { "default_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n" } else { "" };
        let places = if rooted { format!("tmp_dir = {run:?}\n") } else { String::new() };
        let flags = if rooted {
            format!("[engine.runtimes_flags]\n{runtime} = [\"root={}\"]\n", state.display())
        } else {
            String::new()
        };
        format!(
            "[containers]\npids_limit = 0\n{limits}[engine]\n{places}runtime = {runtime:?}\ncgroup_manager = \"cgroupfs\"\n\
             events_logger = \"file\"\nruntime_supports_json = [{runtime:?}]\nruntime_supports_nocgroup = [{runtime:?}]\n\
             [engine.runtimes]\n{runtime} = [{binary:?}]\n{flags}"
        )
    }

    /// Makes the image, as a tar of a root file system.
    fn pack(&self) -> Result<()> {
        let root = self.path("image");
        for name in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777))?;
        fs::copy(busybox()?, root.join("bin/busybox"))?;
        let listed = Command::new(busybox()?).arg("--list").output()?;
        for applet in text(&listed.stdout).lines().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(applet))?;
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
        let tar = self.path("image.tar");
        let packed = Command::new("tar")
            .args(["--owner=0", "--group=0", "-C"])
            .arg(&root)
            .arg("-cf")
            .arg(&tar)
            .arg(".")
            .status()?;
        ensure!(packed.success(), "tar: {packed}");
        Ok(())
    }

    /// Calls Podman.
    fn call(&self, words: &[&str]) -> Result<Answer> {
        self.call_by("podman", words)
    }

    /// Calls one of the family.
    fn call_by(&self, program: &str, words: &[&str]) -> Result<Answer> {
        let line: Vec<OsString> = std::iter::once(program).chain(words.iter().copied()).map(Into::into).collect();
        let mut call = Pura::through(self.dir.path(), &line).cwd(&self.path("tmp"));
        for (name, value) in self.environment() {
            call = call.env(name, value);
        }
        Ok(Answer(call.output()?))
    }

    /// What tells the family where its files are.
    fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let mut all = vec![
            ("HOME", self.dir.path().to_owned()),
            ("CONTAINERS_CONF", self.path("containers.conf")),
            ("CONTAINERS_STORAGE_CONF", self.path("storage.conf")),
        ];
        if own_uid() != 0 {
            all.push(("XDG_RUNTIME_DIR", self.path("r")));
        }
        all
    }

    /// A container that runs until it is told to end.
    fn detach(&self, options: &[&str], name: &str, script: &str) -> Result<()> {
        let words = ["--network=none", "--name", name, IMAGE, "sh", "-c", script];
        self.call(&[&["run", "-d"][..], options, &words].concat())?.must_end(0, "")?;
        Ok(())
    }

    /// `podman run --rm --network=none OPTIONS IMAGE sh -c SCRIPT`.
    fn run(&self, options: &[&str], script: &str) -> Result<Answer> {
        let has_network = options.iter().any(|option| option.starts_with("--network"));
        let network: &[&str] = if has_network { &[] } else { &["--network=none"] };
        self.call(&[&["run", "--rm"][..], network, options, &[IMAGE, "sh", "-c", script]].concat())
    }

    /// Removes all that an engine keeps: its files may belong to subordinate ids, and its pause process holds the
    /// namespace that can remove them.
    fn clear(&self) -> Result<()> {
        // Where storage.conf does not count, Podman has a place of its own below HOME.
        if ["s", ".local/share/containers/storage"].iter().any(|place| self.path(place).exists()) {
            let ids = self.call(&["ps", "--all", "--quiet", "--no-trunc"])?;
            self.call(&["rm", "--all", "--force", "--time=0"])?.must_end(0, "")?;
            let cgroups = cgroups()?;
            for id in ids.must_end(0, "")?.lines() {
                let left = cgroups.iter().find(|name| name.to_string_lossy().contains(id));
                ensure!(left.is_none(), "the cgroup {left:?} is left");
            }
        }
        if own_uid() != 0 {
            let dirs = ["s", "r/s", ".local"].map(|name| self.path(name).to_string_lossy().into_owned());
            self.call(&["unshare", "rm", "-rf", &dirs[0], &dirs[1], &dirs[2]])?;
        }
        for place in ["r/libpod/tmp/pause.pid", "r/libpod/pause.pid"] {
            let Ok(pid) = fs::read_to_string(self.path(place)) else { continue };
            let pid = Pid::from_raw(pid.trim().parse().context("pause.pid")?);
            let _ = kill(pid, Signal::SIGKILL);
        }
        eventually("end of the engine's processes", || Ok(leftovers::processes(self.dir.path())?.is_empty()))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let cleared = self.clear();
        leftovers::kill_all(self.dir.path());
        assert!(cleared.is_ok() || has_failed(), "{cleared:?}");
    }
}

/// Where leaves may be that pura made: beside the suite's own cgroup, and below it.
fn cgroups() -> Result<Vec<PathBuf>> {
    let Ok(own) = own_cgroup() else { return Ok(Vec::new()) };
    let beside = own.parent().map(names).transpose()?.unwrap_or_default();
    Ok([names(&own)?, beside].concat())
}

/// What an engine answered.
#[derive(Debug)]
struct Answer(Outcome);

impl Answer {
    /// Insists on failure.
    fn must_fail(&self) -> Result<()> {
        ensure!(self.0.code() != 0, "it succeeded: {:?}", self.0);
        Ok(())
    }

    /// Insists on a status, and on `words` in the output; returns the output without the last line's end.
    fn must_end(&self, status: i32, words: &str) -> Result<&str> {
        let Outcome { line, stdout, stderr, .. } = &self.0;
        let shown = || format!("{line}\nwanted: {status}, {words:?}\nstatus: {}\n{stdout}\n{stderr}", self.0.code());
        ensure!(self.0.code() == status && (stdout.contains(words) || stderr.contains(words)), shown());
        Ok(stdout.trim_end())
    }
}
