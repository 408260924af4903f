//! The place of a sweep: bundles, a state directory, and pura as the user calls it.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::wait::WaitStatus;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    children::Children,
    choice::program,
    op::{Before, Config, HOOK, Op, PROGRAM},
    snapshot::{self, Snapshot},
};

/// Longest time for one command.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// For one to which nothing has happened: only the machine can be slow.
const LONG: Duration = Duration::from_mins(1);

pub(crate) struct Scene {
    pub(crate) children: Children,
    pub(crate) config: Config,
    pub(crate) id: String,
    dir: TempDir,
    user: Option<(u32, u32)>,
    pura: PathBuf,
    cgroups: Option<PathBuf>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Nothing: not in time.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Scene {
    pub(crate) fn new(config: Config, user: Option<(u32, u32)>) -> Result<Self> {
        let dir = TempDir::with_prefix("pura-sweep.")?;
        let scene = Self {
            children: Children::new()?,
            config,
            id: format!("sweep{}", std::process::id()),
            dir,
            user,
            pura: program("PURA_BIN", "pura")?,
            cgroups: snapshot::delegated(),
        };
        scene.furnish()?;
        Ok(scene)
    }

    fn furnish(&self) -> Result<()> {
        for name in ["out", "tmp", "pids", "shared"] {
            fs::create_dir(self.path(name))?;
        }
        let root = self.path("rootfs");
        for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "mnt"] {
            fs::create_dir_all(root.join(name))?;
        }
        let probe = program("PURA_PROBE", PROGRAM)?;
        let program = root.join("bin").join(PROGRAM);
        fs::copy(&probe, &program)?;
        for name in [root.join("bin").join(HOOK), self.path(HOOK)] {
            fs::hard_link(&program, name)?;
        }
        for (name, word) in [("all", "all"), ("sleep", "sleep")] {
            let bundle = self.path(name);
            fs::create_dir(&bundle)?;
            fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(&self.spec(word)?)?)?;
        }
        if let Some((uid, gid)) = self.user {
            let given = Command::new("chown").arg("-R").arg(format!("{uid}:{gid}")).arg(self.dir.path()).status()?;
            ensure!(given.success(), "chown: {given}");
        }
        Ok(())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Whether limits can be set.
    pub(crate) fn has_controller(&self) -> bool {
        let of = |dir: &Path| fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
        self.cgroups.as_deref().is_some_and(|dir| of(dir).split_whitespace().any(|name| name == "pids"))
    }

    pub(crate) fn has_cgroup(&self) -> bool {
        self.cgroups.is_some()
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::of(self.dir.path(), self.cgroups.as_deref(), &self.id)
    }

    /// The words of the command that is swept.
    pub(crate) fn words(&self, op: Op) -> Vec<String> {
        let pids = self.path("pids/pid").display().to_string();
        let bundle = self.path("all").display().to_string();
        let id = self.id.as_str();
        let words: &[&str] = match op {
            Op::Run => &["run", "--pid-file", &pids, "--bundle", &bundle, id],
            Op::Create => &["create", "--pid-file", &pids, "--bundle", &bundle, id],
            Op::Start => &["start", id],
            Op::Exec => &["exec", "--pid-file", &pids, id, "/bin/pura-probe", "all"],
            Op::Kill => &["kill", id, "TERM"],
            Op::Delete => &["delete", id],
            Op::DeleteForce => &["delete", "--force", id],
            Op::Pause => &["pause", id],
            Op::Resume => &["resume", id],
            Op::Update => &["update", "--pids-limit", "50", id],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// `pura WORDS`; output goes to the files `NAME` and `NAME.err`, because a container keeps it open.
    pub(crate) fn command(&self, words: &[String], name: &str, is_traced: bool) -> Result<Command> {
        let mut command = if is_traced {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("traced").arg(&self.pura);
            command
        } else {
            let mut command = Command::new(&self.pura);
            command.stdin(Stdio::null());
            command
        };
        command.args(["--log-level", "warning", "--log"]).arg(self.path("out/log"));
        command.arg("--root").arg(self.path("state")).args(words);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TMPDIR", self.path("tmp"));
        command.env("XDG_RUNTIME_DIR", self.path("tmp")).current_dir(self.dir.path());
        command.stdout(File::create(self.out(name))?).stderr(File::create(self.out(&format!("{name}.err")))?);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        Ok(command)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.path("out").join(name)
    }

    /// What a command has said.
    pub(crate) fn said(&self, name: &str) -> String {
        fs::read(self.out(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Warnings since the last time.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let log = self.said("log");
        drop(fs::remove_file(self.out("log")));
        log.lines()
            .filter(|line| line.contains("level=warning") || line.contains("\"warning\""))
            .map(str::to_owned)
            .collect()
    }

    /// Runs a command that is not disturbed, but may have to do with what is left.
    pub(crate) fn call(&self, words: &[&str], name: &str) -> Result<Outcome> {
        self.call_within(LIMIT, words, name)
    }

    fn call_within(&self, limit: Duration, words: &[&str], name: &str) -> Result<Outcome> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let status = self.children.run(&mut self.command(&words, name, false)?, limit)?;
        Ok(Outcome { status: status.map(code), stdout: self.said(name), stderr: self.said(&format!("{name}.err")) })
    }

    /// Makes what the command needs.
    pub(crate) fn prepare(&self, op: Op) -> Result<()> {
        let before = op.before();
        let id = self.id.as_str();
        if before == Before::Nothing {
            return Ok(());
        }
        let bundle = self.path(if op == Op::Start { "all" } else { "sleep" }).display().to_string();
        self.expect(&["create", "--bundle", &bundle, id], "program")?;
        if before == Before::Created {
            return Ok(());
        }
        self.expect(&["start", id], "start")?;
        let end = Instant::now() + LONG;
        while !self.said("program").contains("ready") {
            ensure!(Instant::now() < end, "the program never got ready: {}", self.said("program.err"));
            std::thread::sleep(Duration::from_millis(1));
        }
        if before == Before::Paused {
            self.expect(&["pause", id], "pause")?;
        }
        Ok(())
    }

    /// A command that has to succeed.
    pub(crate) fn expect(&self, words: &[&str], name: &str) -> Result<Outcome> {
        let outcome = self.call_within(LONG, words, name)?;
        ensure!(outcome.status == Some(0), "pura {words:?}: {outcome:?}");
        Ok(outcome)
    }

    /// What `pura state` shows.
    pub(crate) fn state(&self) -> Result<Value> {
        let outcome = self.call(&["state", &self.id], "state")?;
        Ok(serde_json::from_str(&outcome.stdout).unwrap_or_default())
    }

    /// What the program of `name` has found out about itself, without what differs each time.
    pub(crate) fn fingerprint(&self, name: &str) -> Result<Vec<String>> {
        let text = self.said(name);
        let pid = text.lines().find_map(|line| line.strip_prefix("pid=")).unwrap_or_default().to_owned();
        let mut lines = Vec::new();
        for line in text.lines() {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            lines.push(if let Some(kind) = key.strip_prefix("ns.") {
                let own = fs::read_link(format!("/proc/self/ns/{kind}")).context("ns")?;
                format!("{key}={}", if own.to_string_lossy() == value { "ours" } else { "its own" })
            } else if ["pid", "pgrp", "sid"].contains(&key) && value == pid {
                format!("{key}=pid")
            } else if key == "mount" {
                line.replace(|c: char| c.is_ascii_digit(), "N")
            } else {
                line.to_owned()
            });
        }
        Ok(lines)
    }

    fn spec(&self, word: &str) -> Result<Value> {
        let mut spec = base(&self.path("rootfs"), word);
        let own = self.user.unwrap_or((nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()));
        spec["mounts"].as_array_mut().context("mounts")?.push(json!({
            "destination": "/mnt", "type": "bind", "source": self.path("shared"), "options": ["rbind", "ro", "nosuid"]
        }));
        let linux = spec["linux"].as_object_mut().context("linux")?;
        let line =
            |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
        match self.config {
            Config::Root => {}
            Config::One | Config::Hooks => {
                linux.insert("uidMappings".to_owned(), json!([line(0, own.0, 1)]));
                linux.insert("gidMappings".to_owned(), json!([line(0, own.1, 1)]));
            }
            Config::Many => {
                let (uids, gids) = (subordinate("/etc/subuid", own.0)?, subordinate("/etc/subgid", own.0)?);
                linux.insert("uidMappings".to_owned(), json!([line(0, own.0, 1), line(1, uids, 60_000)]));
                linux.insert("gidMappings".to_owned(), json!([line(0, own.1, 1), line(1, gids, 60_000)]));
                spec["process"]["user"] = json!({"uid": 7, "gid": 8, "umask": 23, "additionalGids": [9, 10]});
            }
        }
        if self.config != Config::Root {
            spec["linux"]["namespaces"].as_array_mut().context("namespaces")?.push(json!({"type": "user"}));
        }
        if self.config == Config::Hooks {
            let outside = json!([{"path": self.path(HOOK), "args": [HOOK, "true"]}]);
            let inside = json!([{"path": "/bin/hook", "args": [HOOK, "true"]}]);
            spec["hooks"] = json!({
                "createRuntime": outside, "createContainer": outside, "startContainer": inside,
                "poststart": outside, "poststop": outside
            });
        }
        Ok(spec)
    }
}

/// First of the subordinate ids of an account.
fn subordinate(file: &str, uid: u32) -> Result<u32> {
    let accounts = fs::read_to_string("/etc/passwd")?;
    let number = uid.to_string();
    let account = accounts.lines().map(|line| line.split(':')).find(|words| words.clone().nth(2) == Some(&number));
    let name = account.and_then(|mut words| words.next()).unwrap_or_default();
    let text = fs::read_to_string(file)?;
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let first = lines.find_map(|words| match words.as_slice() {
        [owner, first, _] if *owner == name || *owner == number => first.parse().ok(),
        _ => None,
    });
    first.with_context(|| format!("{file} has no line for {uid}"))
}

/// The exit status as a shell shows it.
pub(crate) fn code(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => 255,
    }
}

/// A config in which every confinement can be seen from inside.
fn base(root: &Path, word: &str) -> Value {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let capabilities = ["CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0, "umask": 23},
            "args": ["/bin/pura-probe", word],
            "env": ["PATH=/bin", "SWEEP=yes"],
            "cwd": "/root",
            "noNewPrivileges": true,
            "oomScoreAdj": 100,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024}]
        },
        "root": {"path": root, "readonly": true},
        "hostname": "swept",
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"},
                {"type": "cgroup"}
            ],
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "80"},
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys"],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["kexec_load", "swapon"], "action": "SCMP_ACT_ERRNO"}]
            }
        }
    })
}
