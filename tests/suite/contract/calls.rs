//! Every call that an engine is known to make, word for word.

use std::{
    ffi::OsString,
    fs,
    os::unix::{
        fs::{DirBuilderExt as _, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Bundle, Outcome, Pura, eventually, judged, pura_binary};

use Before::{Created, Nothing, Paused, Running, Stopped};

/// What there is when the call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Created,
    Running,
    Paused,
    Stopped,
}

/// An id as engines make them, 64 hexadecimal digits. Real root's have one place for all tests.
fn fresh_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{:032x}{:032x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Caller, what there is, the call, and its exit status. In braces: what the test puts there. `--root` is left out by
/// podman and Buildah, which choose the directory by `XDG_RUNTIME_DIR`.
const CALLS: &[(&str, Before, &str, i32)] = &[
    ("podman", Created, "start {id}", 0),
    ("podman", Running, "kill {id} 15", 0),
    ("podman", Running, "kill {id} 9", 0),
    ("podman", Running, "kill {id} 37", 0),
    ("podman", Running, "kill --all {id} 15", 0),
    ("podman", Stopped, "kill --all {id} 9", 0),
    ("podman", Running, "delete --force {id}", 0),
    ("podman", Created, "delete --force {id}", 0),
    ("podman", Stopped, "delete --force {id}", 0),
    ("podman", Nothing, "delete --force {id}", 0),
    ("podman", Running, "checkpoint --image-path {dir}/i --work-path {bundle} --leave-running --leave-running {id}", 2),
    ("podman", Running, "checkpoint --image-path {dir}/i --work-path {bundle} --tcp-established --file-locks {id}", 2),
    ("podman", Running, "checkpoint --image-path {dir}/i --work-path {bundle} --pre-dump --parent-path ../p {id}", 2),
    ("podman", Nothing, "checkpoint --help", 2),
    ("podman", Nothing, "restore --lsm-mount-context", 2),
    ("podman", Nothing, "--version", 0),
    ("podman < 5.3", Running, "state {id}", 0),
    ("podman, runtime flags", Created, "--log-level=info --rootless=auto --cgroup-manager disabled start {id}", 0),
    ("podman, runtime flags", Running, "--debug --cgroup-manager=cgroupfs --userns auto kill {id} 15", 0),
    ("podman, runtime flags", Running, "--rootless --strict --systemd-cgroup delete --force {id}", 0),
    ("podman, runtime flags", Nothing, "--log=file:{log} --log-format=text --debug --version", 0),
    (
        "conmon",
        Nothing,
        "--log-format=json --log {log} create --bundle {bundle} --pid-file {pid} --preserve-fds 1 {id}",
        0,
    ),
    (
        "conmon",
        Nothing,
        "--systemd-cgroup --log-format=json --log {log} create --bundle {bundle} --pid-file {pid} --no-pivot \
         --no-new-keyring --preserve-fds 2 --console-socket {socket} {id}",
        0,
    ),
    ("conmon", Nothing, "--cgroup-manager disabled create --bundle {bundle} --pid-file {pid} {id}", 0),
    (
        "conmon",
        Running,
        "--log-format=json --log {log} exec --pid-file {pid} --process {process} --detach --preserve-fds 2 {id}",
        0,
    ),
    (
        "conmon <= 2.1.10",
        Running,
        "exec --pid-file {pid} --process {process} --detach --tty --console-socket {socket} {id}",
        0,
    ),
    (
        "conmon",
        Nothing,
        "restore --bundle {bundle} --pid-file {pid} --no-pivot --no-new-keyring --detach --image-path {dir}/i \
         --work-path {bundle} --tcp-established --tcp-close --file-locks --lsm-profile=selinux:l {id}",
        2,
    ),
    ("conmon of CRI-O", Nothing, "--root={root} create --bundle {bundle} --pid-file {pid} {id}", 0),
    (
        "Buildah",
        Nothing,
        "--systemd-cgroup create --bundle {bundle} --pid-file {bundle}/pid --no-new-keyring --no-pivot \
         --console-socket {socket} buildah-buildah{id}",
        0,
    ),
    ("Buildah", Nothing, "create --bundle {bundle} --pid-file {bundle}/pid --no-new-keyring {id}", 0),
    ("Buildah", Created, "start {id}", 0),
    ("Buildah", Created, "state {id}", 0),
    ("Buildah", Running, "kill {id}", 0),
    ("Buildah", Running, "kill {id} SIGKILL", 0),
    ("Buildah", Created, "delete {id}", 0),
    ("Buildah", Stopped, "delete {id}", 0),
    ("CRI-O", Created, "--root {root} --systemd-cgroup start {id}", 0),
    ("CRI-O", Running, "--root {root} --systemd-cgroup exec --process {process} {id}", 7),
    ("CRI-O", Running, "--root {root} --systemd-cgroup state {id}", 0),
    ("CRI-O", Stopped, "--root {root} --systemd-cgroup state {id}", 0),
    ("CRI-O", Running, "--root {root} --systemd-cgroup kill {id} 15", 0),
    ("CRI-O", Running, "--root {root} --systemd-cgroup kill {id} KILL", 0),
    ("CRI-O", Stopped, "--root {root} --systemd-cgroup kill -a {id} 9", 0),
    ("CRI-O", Stopped, "--root {root} --systemd-cgroup delete --force {id}", 0),
    (
        "CRI-O",
        Running,
        "--root {root} checkpoint --file-locks --image-path {dir}/i --work-path {dir}/w --leave-running {id}",
        2,
    ),
    ("CRI-O", Nothing, "features", 0),
    (
        "conmon-rs",
        Nothing,
        "--root=/nowhere --systemd-cgroup --root={root} --systemd-cgroup create --bundle {bundle} --pid-file {pid} \
         --console-socket={socket} {id}",
        0,
    ),
    (
        "conmon-rs",
        Running,
        "--root={root} --systemd-cgroup --root={root} --systemd-cgroup exec -d --console-socket={socket} --tty \
         --pid-file={pid} {id} /bin/pura-probe exit 3",
        0,
    ),
    (
        "conmon-rs",
        Running,
        "--root={root} --log=journald:{id} --log-level=info exec -d --pid-file={pid} {id} /bin/pura-probe exit 3",
        0,
    ),
    (
        "containerd",
        Nothing,
        "--root {root} --log {log} --log-format json --systemd-cgroup create --bundle {bundle} --pid-file {pid} \
         --console-socket {socket} --no-pivot --no-new-keyring {id}",
        0,
    ),
    (
        "containerd",
        Nothing,
        "--root {root} --log {log} --log-format json create --bundle {bundle} --pid-file {pid} {id}",
        0,
    ),
    ("containerd", Created, "--root {root} --log {log} --log-format json start {id}", 0),
    (
        "containerd",
        Running,
        "--root {root} --log {log} --log-format json exec --process {process} --detach --pid-file {pid} {id}",
        0,
    ),
    (
        "containerd",
        Running,
        "--root {root} --log {log} --log-format json exec --process {process} --console-socket {socket} --detach \
         --pid-file {pid} {id}",
        0,
    ),
    ("containerd", Running, "--root {root} --log {log} --log-format json kill {id} 15", 0),
    ("containerd", Running, "--root {root} --log {log} --log-format json kill --all {id} 9", 0),
    ("containerd", Stopped, "--root {root} --log {log} --log-format json kill --all {id} 9", 0),
    ("containerd", Stopped, "--root {root} --log {log} --log-format json delete {id}", 0),
    ("containerd", Running, "--root {root} --log {log} --log-format json delete --force {id}", 0),
    (
        "containerd",
        Running,
        "--root {root} checkpoint --image-path {dir}/i --work-path {dir}/w --parent-path p --tcp-established \
         --ext-unix-sk --shell-job --file-locks --empty-ns network --leave-running {id}",
        2,
    ),
    (
        "containerd",
        Nothing,
        "--root {root} restore --image-path {dir}/i --work-path {dir}/w --detach --pid-file {pid} --no-pivot \
         -no-subreaper --bundle {bundle} {id}",
        2,
    ),
    ("go-runc", Nothing, "--debug --log {log} --root {root} --rootless=true create --bundle {bundle} {id}", 0),
    (
        "go-runc",
        Nothing,
        "--rootless=false --root {root} create -no-subreaper --bundle {bundle} --preserve-fds 3 {id}",
        0,
    ),
    ("go-runc", Nothing, "create --bundle {bundle} --pidfd-socket {pidfd} {id}", 0),
    ("go-runc", Nothing, "list --format=json", 0),
    ("dockerd", Nothing, "features", 0),
    ("dockerd", Nothing, "--version", 0),
    ("BuildKit", Nothing, "--log {log} --log-format json run --bundle {bundle} --no-pivot --keep {id}", 0),
    ("BuildKit", Running, "--log {log} --log-format json exec --process {process} --pid-file {pid} {id}", 7),
    ("BuildKit", Running, "--log {log} --log-format json exec --process {process} {id}", 7),
    ("BuildKit", Running, "--log {log} --log-format json state {id}", 0),
    ("BuildKit", Running, "--log {log} --log-format json kill {id} 9", 0),
    ("BuildKit", Stopped, "--log {log} --log-format json delete {id}", 0),
];

/// The same, of verbs that need a cgroup of the container's own. What is read from standard input is there.
const CGROUP_CALLS: &[(&str, Before, &str, i32)] = &[
    ("podman", Running, "pause {id}", 0),
    ("podman", Paused, "resume {id}", 0),
    ("podman", Paused, "kill {id} 9", 0),
    ("podman", Paused, "delete --force {id}", 0),
    ("podman", Running, "update --resources={resources} {id}", 0),
    ("CRI-O", Running, "--root {root} --systemd-cgroup pause {id}", 0),
    ("CRI-O", Paused, "--root {root} --systemd-cgroup resume {id}", 0),
    ("CRI-O", Running, "--root {root} update --resources - {id}", 0),
    ("containerd", Running, "--root {root} --log {log} --log-format json pause {id}", 0),
    ("containerd", Paused, "--root {root} --log {log} --log-format json resume {id}", 0),
    ("containerd", Stopped, "--root {root} --log {log} --log-format json resume {id}", 1),
    ("containerd", Running, "--root {root} --log {log} --log-format json update --resources=- {id}", 0),
    ("go-runc", Running, "events --stats {id}", 0),
];

/// Of verbs that do with less.
const PS_CALLS: &[(&str, Before, &str, i32)] = &[
    ("containerd", Running, "--root {root} --log {log} --log-format json ps --format json {id}", 0),
    ("containerd", Stopped, "--root {root} --log {log} --log-format json ps --format json {id}", 0),
    ("go-runc", Created, "ps --format table {id} -ef", 0),
    ("runc's manual", Running, "exec --ignore-paused {id} /bin/pura-probe exit 7", 7),
];

/// One call with all that it needs.
struct Scene {
    id: String,
    bundle: Bundle,
    binary: PathBuf,
    root: Option<PathBuf>,
    sockets: Vec<UnixListener>,
}

impl Scene {
    fn new(line: &str, binary: &Path) -> Result<Self> {
        let words: Vec<_> = line.split_whitespace().collect();
        let terminal = line.contains("{socket}");
        // A detached exec leaves a program; the status of another is to be seen.
        let of_exec = words.contains(&"exec");
        let mut bundle = Bundle::probing(if words.contains(&"run") { &["true"] } else { &["sleep"] })?;
        bundle.config["process"]["terminal"] = (terminal && !of_exec).into();
        for name in ["xdg", "root"] {
            fs::DirBuilder::new().mode(0o700).create(bundle.path(name))?;
        }
        let mut process = bundle.config["process"].clone();
        process["args"] = serde_json::json!(["/bin/pura-probe", "exit", "7"]);
        process["terminal"] = (terminal && of_exec).into();
        fs::write(bundle.path("process"), process.to_string())?;
        fs::write(bundle.path("resources"), "{\"devices\": [{\"allow\": false, \"access\": \"rwm\"}]}")?;
        bundle.write()?;
        let root = line.contains("{root}").then(|| bundle.path("root"));
        let sockets = ["socket", "pidfd"].into_iter().filter(|name| line.contains(&format!("{{{name}}}")));
        let sockets = sockets.map(|name| UnixListener::bind(bundle.path(name))).collect::<std::io::Result<_>>()?;
        Ok(Self { id: fresh_id(), bundle, binary: binary.to_owned(), root, sockets })
    }

    /// Calls pura with the words of a line.
    fn call(&self, line: &str) -> Result<Outcome> {
        self.calling(line).output()
    }

    fn calling(&self, line: &str) -> Pura {
        let words = line.split_whitespace().map(|word| {
            let mut word = word.replace("{id}", &self.id).replace("{dir}", &self.bundle.dir().to_string_lossy());
            for name in ["bundle", "root", "log", "pid", "process", "resources", "socket", "pidfd"] {
                word = word.replace(&format!("{{{name}}}"), &self.bundle.path(name).to_string_lossy());
            }
            word.into()
        });
        let words: Vec<_> = std::iter::once(self.binary.clone().into()).chain(words).collect();
        let reads = ["sh", "-c", "exec \"$@\" <\"$0\""].map(OsString::from);
        let reads = reads.into_iter().chain([self.bundle.path("resources").into()]);
        // The file is what `-` means.
        let words = if line.contains("- {id}") { reads.chain(words).collect() } else { words };
        Pura::through(self.bundle.dir(), &words).env("XDG_RUNTIME_DIR", self.bundle.path("xdg"))
    }

    /// Another call about the same container.
    fn aside(&self, line: &str) -> Result<Outcome> {
        let root = if self.root.is_some() { "--root {root} " } else { "" };
        self.call(&format!("{root}{line}"))
    }

    /// Brings about what there is to be. A terminal is for the call itself.
    fn prepare(&self, before: Before) -> Result<()> {
        if before == Nothing {
            return Ok(());
        }
        self.aside("create --bundle {bundle} {id}")?.succeeds_silently()?;
        if before == Created {
            return Ok(());
        }
        self.aside("start {id}")?.succeeds_silently()?;
        if before == Paused {
            return self.aside("pause {id}")?.succeeds_silently();
        }
        if before == Stopped {
            self.aside("kill {id} KILL")?.succeeds_silently()?;
            eventually("it has stopped", || Ok(self.aside("state {id}")?.succeeds()?.contains("\"stopped\"")))?;
        }
        Ok(())
    }

    fn clean_up(&self) -> Result<()> {
        self.aside("delete --force {id}")?.succeeds_silently()?;
        self.aside("delete --force buildah-buildah{id}")?.succeeds_silently()?;
        self.bundle.is_clean()?;
        for place in ["xdg/pura", "root"] {
            let left: Vec<_> = fs::read_dir(self.bundle.path(place)).into_iter().flatten().collect();
            ensure!(left.is_empty(), "{place}: {left:?}");
        }
        Ok(())
    }
}

/// Verbs that have nothing to say.
const SILENT: [&str; 7] = ["create", "start", "kill", "delete", "pause", "resume", "update"];

/// Makes the calls; `binary` is pura under some name.
fn are_answered(calls: &[(&str, Before, &str, i32)], binary: &Path) -> Result<()> {
    for (caller, before, line, status) in calls {
        let judge = || -> Result<()> {
            let scene = Scene::new(line, binary)?;
            scene.prepare(*before)?;
            let outcome = scene.call(line)?;
            let is_silent = SILENT.iter().any(|verb| line.contains(&format!("{verb} ")));
            if *status == 2 {
                outcome.fails(2, 1, &[])?;
                let forbidden = ["flag needs an argument", "requires an argument"];
                ensure!(forbidden.iter().all(|phrase| !outcome.stderr.contains(phrase)), "{outcome:#?}");
            } else if *status == 1 {
                outcome.fails_with_any(1, &[612], &[])?;
            } else if is_silent {
                outcome.succeeds_silently()?;
            } else {
                outcome.ends(*status)?;
            }
            if line.contains("--pid-file") && *status == 0 {
                let at = if line.contains("{bundle}/pid") { "bundle/pid" } else { "pid" };
                let text = fs::read_to_string(scene.bundle.path(at))?;
                ensure!(text.parse::<u32>().is_ok(), "{text:?}");
            }
            for listener in &scene.sockets {
                crate::console::accept(listener)?;
            }
            scene.clean_up()
        };
        judged(judge()).with_context(|| format!("{caller}: {line}"))?;
    }
    Ok(())
}

#[test]
fn every_call_of_every_engine_is_answered_as_it_expects() -> Result<()> {
    requires!(userns);
    are_answered(CALLS, &pura_binary())?;
    are_answered(PS_CALLS, &pura_binary())
}

#[test]
fn nothing_depends_on_the_name_of_the_binary() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::new()?;
    let name = bundle.path("crun");
    symlink(pura_binary(), &name)?;
    are_answered(CALLS, &name)?;
    are_answered(PS_CALLS, &name)
}

#[test]
fn every_call_about_the_cgroup_of_a_container_is_answered_too() -> Result<()> {
    requires!(userns, cgroup);
    are_answered(CGROUP_CALLS, &pura_binary())
}

#[test]
fn the_words_of_a_command_are_never_options() -> Result<()> {
    requires!(userns, busybox);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    for words in [
        &["--detach", "-t", "--root=/x", "--", "-h", "--version"][..],
        &["--process", "/nowhere", "--pid-file", "/nowhere/pid"],
        &["-d", "--help", "-no-subreaper", "exec", "c1"],
    ] {
        for dashes in [&[][..], &["--"]] {
            let call = [&["exec", "c1"][..], dashes, &["/bin/busybox", "echo"], words].concat();
            assert_eq!(bundle.pura(&call).output()?.succeeds()?.trim_end(), words.join(" "));
        }
    }
    bundle.delete()
}

#[test]
fn an_unknown_flag_is_named_at_every_verb() -> Result<()> {
    let bundle = Bundle::new()?;
    for verb in ["create", "start", "state", "kill", "delete", "list", "features", "spec", "run", "exec"] {
        for words in [&[verb, "--invalid", "c1"][..], &["--invalid", verb, "c1"], &[verb, "--invalid=x", "c1"]] {
            let outcome = bundle.pura(words).output()?;
            let foreground = ["run", "exec"].contains(&verb);
            outcome.fails(if foreground { 125 } else { 2 }, 1, &["--invalid"])?;
        }
    }
    let outcome = bundle.pura(&["exec", "--detach", "--invalid", "c1", "true"]).output()?;
    outcome.fails(2, 1, &["--invalid"])?;
    Ok(())
}

#[test]
fn of_a_flag_that_is_repeated_in_both_spellings_the_last_counts() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    let (path, first, last) = (bundle.path("bundle"), bundle.path("first"), bundle.path("last"));
    let words = [
        "create".into(),
        "--bundle=/nowhere".into(),
        format!("--pid-file={}", first.display()),
        "--preserve-fds=9".into(),
        "--no-pivot".into(),
        "--no-pivot".into(),
        "--pid-file".into(),
        last.display().to_string(),
        "--preserve-fds".into(),
        "0".into(),
        "--bundle".into(),
        path.display().to_string(),
        "c1".into(),
    ];
    bundle.pura(&words).output()?.succeeds_silently()?;
    assert!(!first.exists() && last.exists());
    bundle.delete()
}
