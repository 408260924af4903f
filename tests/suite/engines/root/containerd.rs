//! containerd, its shim, and `ctr`.

use std::fs;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use super::{Engine, IMAGE, remove_cgroups};
use crate::{
    engines::{Answer, screen::Screen},
    harness::{Pura, Running, eventually, judged, leftovers::names, pura_binary},
};

/// containerd, which ends with the value.
#[derive(Debug)]
struct Containerd<'a> {
    engine: &'a Engine,
    daemon: Running,
    /// Names its containers' cgroups too.
    namespace: String,
    /// The binary, and its state.
    places: [String; 2],
}

impl<'a> Containerd<'a> {
    /// containerd with the image.
    fn new(engine: &'a Engine) -> Result<Self> {
        let archive = engine.path("image.oci").to_string_lossy().into_owned();
        engine.call(&["save", "--quiet", "--format=oci-archive", "--output", &archive, IMAGE])?.must_end(0, "")?;
        let [root, state, socket, ttrpc] = ["d", "ds", "s.sock", "t.sock"].map(|name| engine.path(name));
        let unused =
            ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"];
        let settings = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = {unused:?}\n[grpc]\naddress = \
             {socket:?}\n[ttrpc]\naddress = {ttrpc:?}\n"
        );
        fs::write(engine.path("containerd.toml"), settings)?;
        let line = ["containerd".into(), "--config".into(), engine.path("containerd.toml").into_os_string()];
        let daemon = Pura::through(engine.dir.path(), &line).spawn()?;
        let namespace = engine.path("").file_name().unwrap_or_default().to_string_lossy().into_owned();
        let places = [pura_binary(), engine.path("r/pura")].map(|path| path.to_string_lossy().into_owned());
        let containerd = Self { engine, daemon, namespace, places };
        eventually("containerd answers", || Ok(containerd.ctr(&["version"])?.0.code() == 0))?;
        // Unpacked by `run`: containerd 2 itself would do so for its default snapshotter only.
        containerd.ctr(&["images", "import", "--no-unpack", &archive])?.must_end(0, "")?;
        Ok(containerd)
    }

    fn words<'w>(&'w self, socket: &'w str, words: &[&'w str]) -> Vec<&'w str> {
        [&["ctr", "--address", socket, "--namespace", &self.namespace][..], words].concat()
    }

    fn ctr(&self, words: &[&str]) -> Result<Answer> {
        let socket = self.engine.path("s.sock").to_string_lossy().into_owned();
        let words = self.words(&socket, words);
        self.engine.call_by("env", &words)
    }

    /// `ctr` on a terminal.
    fn screen(&self, words: &[&str]) -> Result<Screen> {
        let socket = self.engine.path("s.sock").to_string_lossy().into_owned();
        Screen::new(self.engine, &self.words(&socket, words))
    }

    /// The words of `ctr run`.
    fn run<'w>(&'w self, options: &[&'w str], id: &'w str, program: &[&'w str]) -> Vec<&'w str> {
        let [binary, root] = &self.places;
        let usual = ["run", "--snapshotter=native", "--runc-binary", binary, "--runc-root", root];
        [&usual[..], options, &["localhost/busybox:latest", id], program].concat()
    }

    /// Kills a container and removes it.
    fn remove(&self, id: &str) -> Result<()> {
        self.ctr(&["task", "kill", "--signal=KILL", id])?.must_end(0, "")?;
        eventually("its end", || {
            let tasks = self.ctr(&["task", "ls"])?.0.stdout;
            Ok(tasks.lines().any(|line| line.starts_with(id) && line.contains("STOPPED")))
        })?;
        // Its status is that of the task in some versions.
        self.ctr(&["task", "rm", id])?;
        self.ctr(&["container", "rm", id])?.must_end(0, "")?;
        Ok(())
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        drop(self.daemon.signal(Signal::SIGTERM));
        drop(judged(self.daemon.wait()));
        remove_cgroups(&self.namespace);
    }
}

#[test]
fn containerd_runs_containers_through_its_shim() -> Result<()> {
    requires!(root, busybox, podman, containerd);
    let engine = Engine::new("pura")?;
    let containerd = Containerd::new(&engine)?;
    let run = |options: &[&str], id: &str, program: &[&str]| containerd.ctr(&containerd.run(options, id, program));
    run(&["--rm"], "c1", &["/bin/sh", "-c", "echo out; exit 3"])?.must_end(3, "out")?;
    let options = ["--rm", "--cwd=/tmp", "--env=A=b", "--read-only"];
    run(&options, "c1", &["/bin/sh", "-c", "echo $PWD $A; touch /x"])?.must_end(1, "/tmp b")?;
    run(&["--rm", "--net-host"], "c1", &["/bin/ls", "/sys/class/net"])?.must_end(0, "lo")?;
    run(&["--rm", "--privileged"], "c1", &["/bin/grep", "CapEff", "/proc/self/status"])?.must_end(0, "CapEff")?;
    run(&["--rm"], "c1", &["nocmd"])?.must_end(1, "executable file not found in $PATH")?;
    run(&["-d"], "c2", &["/bin/sleep", "1000"])?.must_end(0, "")?;
    let exec =
        |id: &str, script: &str| containerd.ctr(&["task", "exec", "--exec-id", id, "c2", "/bin/sh", "-c", script]);
    exec("e1", "hostname; exit 4")?.must_end(4, "")?;
    containerd.ctr(&["task", "ls"])?.must_end(0, "RUNNING")?;
    let pid = containerd.ctr(&["task", "ls"])?.0.stdout;
    let pid = pid.lines().find(|line| line.starts_with("c2")).and_then(|line| line.split_whitespace().nth(1));
    containerd.ctr(&["task", "ps", "c2"])?.must_end(0, pid.unwrap_or("no task"))?;
    containerd.ctr(&["task", "metrics", "c2"])?.must_end(0, "c2")?;
    containerd.ctr(&["task", "checkpoint", "c2"])?.must_end(1, "unrecognized subcommand 'checkpoint'")?;
    exec("e2", "true")?.must_end(0, "")?;
    containerd.remove("c2")?;
    containerd.ctr(&["task", "kill", "c2"])?.must_end(1, "not found")?;
    let state = engine.path("r/pura").join(&containerd.namespace);
    ensure!(state.exists() && names(&state)?.is_empty(), "containers are left in {}", state.display());
    Ok(())
}

#[test]
fn containerd_pauses_and_resumes_in_the_cgroup_that_was_asked_for() -> Result<()> {
    requires!(root, busybox, podman, containerd);
    let engine = Engine::new("pura")?;
    let containerd = Containerd::new(&engine)?;
    let cgroup = format!("/{}/asked", containerd.namespace);
    let words = containerd.run(&["-d", "--cgroup", &cgroup], "c1", &["/bin/sleep", "1000"]);
    containerd.ctr(&words)?.must_end(0, "")?;
    let tasks = containerd.ctr(&["task", "ls"])?.0.stdout;
    let pid = tasks.lines().find_map(|line| line.strip_prefix("c1")).unwrap_or_default();
    let pid = pid.split_whitespace().next().unwrap_or_default();
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    ensure!(own.lines().any(|line| line.strip_prefix("0::") == Some(&cgroup)), "{own}");
    containerd.ctr(&["task", "pause", "c1"])?.must_end(0, "")?;
    containerd.ctr(&["task", "ls"])?.must_end(0, "PAUSED")?;
    containerd.ctr(&["task", "exec", "--exec-id=e1", "c1", "/bin/true"])?.must_end(1, "paused")?;
    containerd.ctr(&["task", "resume", "c1"])?.must_end(0, "")?;
    containerd.ctr(&["task", "exec", "--exec-id=e2", "c1", "/bin/true"])?.must_end(0, "")?;
    containerd.remove("c1")
}

#[test]
fn containerd_refuses_or_sets_limits() -> Result<()> {
    requires!(root, busybox, podman, containerd);
    let engine = Engine::new("pura")?;
    let containerd = Containerd::new(&engine)?;
    let program = ["/bin/cat", "/sys/fs/cgroup/memory.max"];
    let limited = containerd.ctr(&containerd.run(&["--rm", "--memory-limit=67108864"], "c1", &program))?;
    // PURA-463 where version 1 has the controller, PURA-461 where nobody has.
    limited.must_end(0, "67108864").or_else(|_| limited.must_end(1, "cannot set memory.max to 67108864"))?;
    Ok(())
}

#[test]
fn ctr_has_a_terminal_in_the_container() -> Result<()> {
    requires!(root, busybox, podman, containerd);
    let engine = Engine::new("pura")?;
    let containerd = Containerd::new(&engine)?;
    let program = ["/bin/sh", "-c", "tty; read -r word; echo got $word; exit 5"];
    let talk = |mut screen: Screen| -> Result<()> {
        screen.shows("/dev/pts/0")?;
        screen.types("a word")?;
        screen.shows("got a word")?;
        screen.ends(5)
    };
    talk(containerd.screen(&containerd.run(&["--rm", "-t"], "c1", &program))?)?;
    containerd.ctr(&containerd.run(&["-d"], "c2", &["/bin/sleep", "1000"]))?.must_end(0, "")?;
    let exec = ["task", "exec", "-t", "--exec-id=e1", "c2"];
    talk(containerd.screen(&[&exec[..], &program].concat())?)?;
    containerd.remove("c2")
}
