//! A bundle of its own for each test, with the state root and the temporary files of its containers.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    command::{Outcome, Pura, Running},
    eventually,
    facts::Facts,
    has_failed, judged, leftovers,
    machine::busybox,
    probe_binary,
};

/// The id of a test's only container.
pub(crate) const ID: &str = "c1";

/// A directory with `bundle/config.json`, `bundle/rootfs`, `state` (the `--root`) and `tmp` (pura's TMPDIR). When the
/// test ends well, it insists that nothing is left of its containers.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// What `config.json` becomes with the next call that reads it.
    pub(crate) config: Value,
    dir: TempDir,
}

/// The tester's user id.
pub(crate) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The tester's group id.
pub(crate) fn own_gid() -> u32 {
    nix::unistd::getegid().as_raw()
}

impl Bundle {
    /// The base: one mapped id, private namespaces, the usual mounts, no capability; the program prints all facts.
    pub(crate) fn new() -> Result<Self> {
        let dir = TempDir::with_prefix("pura-suite.")?;
        for name in ["bundle", "state", "tmp"] {
            fs::create_dir(dir.path().join(name))?;
        }
        make_rootfs(&dir.path().join("bundle/rootfs"))?;
        let config = base(dir.path());
        Ok(Self { config, dir })
    }

    /// The base with another program.
    pub(crate) fn with_args(args: &[&str]) -> Result<Self> {
        let mut bundle = Self::new()?;
        bundle.args(args);
        Ok(bundle)
    }

    /// The base with the probe doing `words`.
    pub(crate) fn probing(words: &[&str]) -> Result<Self> {
        Self::with_args(&[&["/bin/pura-probe"], words].concat())
    }

    /// Sets `process.args`.
    pub(crate) fn args(&mut self, args: &[&str]) {
        self.config["process"]["args"] = json!(args);
    }

    /// Adds to the array at `pointer`, such as `/mounts`.
    pub(crate) fn push(&mut self, pointer: &str, value: Value) -> Result<()> {
        let array = self.config.pointer_mut(pointer).and_then(Value::as_array_mut);
        array.with_context(|| format!("{pointer} is no array of the config"))?.push(value);
        Ok(())
    }

    /// Adds a mount.
    pub(crate) fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> Result<()> {
        self.push("/mounts", json!({"destination": destination, "type": kind, "source": source, "options": options}))
    }

    /// Removes the mounts on and below `destination`.
    pub(crate) fn unmount(&mut self, destination: &str) {
        if let Some(mounts) = self.config["mounts"].as_array_mut() {
            mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|path| path.starts_with(destination)));
        }
    }

    /// Removes the namespace entry of one type.
    pub(crate) fn share(&mut self, kind: &str) {
        if let Some(namespaces) = self.config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != kind);
        }
    }

    /// Leaves the user namespace to pura: no entry, no mappings.
    pub(crate) fn share_user(&mut self) {
        self.share("user");
        if let Some(linux) = self.config["linux"].as_object_mut() {
            linux.remove("uidMappings");
            linux.remove("gidMappings");
        }
    }

    /// Sets both id maps to lines of (inside, outside, count).
    pub(crate) fn map(&mut self, uids: &[(u32, u32, u32)], gids: &[(u32, u32, u32)]) {
        let lines = |lines: &[(u32, u32, u32)]| -> Value {
            let line = |(inside, outside, count): &(u32, u32, u32)| json!({"containerID": inside, "hostID": outside, "size": count});
            lines.iter().map(line).collect()
        };
        self.config["linux"]["uidMappings"] = lines(uids);
        self.config["linux"]["gidMappings"] = lines(gids);
    }

    /// The test's directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path in the root file system: no leading slash.
    pub(crate) fn rootfs(&self, name: &str) -> PathBuf {
        self.dir.path().join("bundle/rootfs").join(name)
    }

    /// Writes `config.json`.
    pub(crate) fn write(&self) -> Result<()> {
        Ok(fs::write(self.path("bundle/config.json"), serde_json::to_vec_pretty(&self.config)?)?)
    }

    /// `pura --root STATE ARGUMENTS`
    pub(crate) fn pura<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Pura {
        Pura::new(self.dir(), &[OsString::from("--root"), self.path("state").into()]).args(arguments)
    }

    /// `pura --root STATE VERB --bundle BUNDLE ARGUMENTS`, with `config.json` as it stands.
    pub(crate) fn with_bundle(&self, verb: &str, arguments: &[&str]) -> Result<Pura> {
        self.write()?;
        Ok(self.pura(&[verb, "--bundle"]).args(&[self.path("bundle")]).args(arguments))
    }

    /// A program with arguments that starts pura in the end, in the same surroundings.
    pub(crate) fn through<S: AsRef<OsStr>>(&self, words: &[S], pura: &Pura) -> Pura {
        let words = words.iter().map(|word| word.as_ref().to_owned());
        Pura::through(self.dir(), &words.chain(pura.words()).collect::<Vec<_>>())
    }

    /// `pura run`, to its end.
    pub(crate) fn run(&self) -> Result<Outcome> {
        self.with_bundle("run", &[ID])?.output()
    }

    /// `pura --strict run`, to its end.
    pub(crate) fn run_strictly(&self) -> Result<Outcome> {
        self.write()?;
        self.pura(&["--strict", "run", "--bundle"]).args(&[self.path("bundle")]).args(&[ID]).output()
    }

    /// The facts that the probe prints in a foreground run.
    pub(crate) fn facts(&self) -> Result<Facts> {
        self.run()?.facts()
    }

    /// `pura create`
    pub(crate) fn create(&self) -> Result<Outcome> {
        self.with_bundle("create", &[ID])?.output()
    }

    /// `pura create`, successfully, then the value that reads what the program says.
    pub(crate) fn created(&self) -> Result<Running> {
        let mut running = self.with_bundle("create", &[ID])?.spawn()?;
        let outcome = running.wait()?;
        outcome.succeeds_silently()?;
        Ok(running)
    }

    /// Insists that `pura create` fails with exit status 1 and one line, and leaves nothing at all.
    pub(crate) fn is_refused(&self, code: u32, words: &[&str]) -> Result<()> {
        self.is_refused_with_any(&[code], words)
    }

    /// As `is_refused`, where more than one code is right.
    pub(crate) fn is_refused_with_any(&self, codes: &[u32], words: &[&str]) -> Result<()> {
        let pid_file = self.path("pid");
        let flags = ["--pid-file", &pid_file.to_string_lossy(), ID];
        self.with_bundle("create", &flags)?.output()?.fails_with_any(1, codes, words)?;
        ensure!(!pid_file.exists(), "a failed create left a pid-file");
        self.is_clean()
    }

    /// `pura VERB c1`
    pub(crate) fn verb(&self, verb: &str) -> Result<Outcome> {
        self.pura(&[verb, ID]).output()
    }

    /// Creates and starts the probe's `sleep` and the like, and waits until it says `ready`.
    pub(crate) fn started(&self) -> Result<Running> {
        let running = self.created()?;
        self.verb("start")?.succeeds_silently()?;
        let line = running.line()?;
        ensure!(line == "ready", "wanted ready: {line}");
        Ok(running)
    }

    /// `pura state`, as JSON.
    pub(crate) fn state(&self) -> Result<Value> {
        let outcome = self.verb("state")?;
        judged(serde_json::from_str(outcome.succeeds()?).with_context(|| format!("{outcome:?}")))
    }

    /// The status that `pura state` shows.
    pub(crate) fn status(&self) -> Result<String> {
        Ok(self.state()?["status"].as_str().unwrap_or_default().to_owned())
    }

    /// The pid that `pura state` shows of a living container: never one that kill(2) takes for a group.
    pub(crate) fn pid(&self) -> Result<i32> {
        let state = self.state()?;
        let pid = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1);
        judged(pid.with_context(|| format!("wanted a pid: {state}")))
    }

    /// Waits for a status.
    pub(crate) fn becomes(&self, status: &str) -> Result<()> {
        eventually(status, || Ok(self.status()? == status))
    }

    /// `pura delete --force`, successfully and without a word.
    pub(crate) fn delete(&self) -> Result<()> {
        self.pura(&["delete", "--force", ID]).output()?.succeeds_silently()
    }

    /// Insists that nothing is left: no process, mount, state or temporary file.
    pub(crate) fn is_clean(&self) -> Result<()> {
        judged(leftovers::none(self.dir()))
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let left = if has_failed() { Ok(()) } else { self.is_clean() };
        leftovers::kill_all(self.dir());
        remove(self.dir());
        assert!(left.is_ok(), "{left:?}");
    }
}

/// Removes what the tester may not: directories of subordinate ids, which are the tester's in a user namespace only.
fn remove(dir: &Path) {
    drop(Command::new("chmod").args(["-R", "u+rwx"]).arg(dir).stderr(Stdio::null()).status());
    if fs::remove_dir_all(dir).is_err() && dir.exists() {
        let words = ["--user", "--map-root-user", "--map-auto", "rm", "-rf", "--"];
        drop(Command::new("unshare").args(words).arg(dir).stderr(Stdio::null()).status());
    }
}

/// A root file system of static programs: the probe, and busybox where there is one.
fn make_rootfs(root: &Path) -> Result<()> {
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    let busybox = busybox().ok();
    // By cp, not by us: another test's child could inherit our descriptor, and exec of a file that is open for writing
    // fails with ETXTBSY.
    let copied = Command::new("cp").arg(probe_binary()).args(busybox).arg(root.join("bin")).status()?;
    ensure!(copied.success(), "cp: {copied}");
    for name in ["sh", "cat", "sleep", "ls", "touch", "true"] {
        symlink("busybox", root.join("bin").join(name))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
    Ok(())
}

fn base(dir: &Path) -> Value {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let safe = ["nosuid", "noexec", "nodev"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/pura-probe", "all"],
            "env": ["PATH=/bin", format!("PURA_TEST={}", dir.display())],
            "cwd": "/",
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "pura",
        "mounts": [
            mount("/proc", "proc", &safe),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &safe),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"},
                {"type": "user"}
            ],
            "uidMappings": [{"containerID": 0, "hostID": own_uid(), "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": own_gid(), "size": 1}]
        }
    })
}
