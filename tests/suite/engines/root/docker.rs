//! Docker: a daemon of its own, which leaves the host's firewall and bridges alone.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use super::{Engine, IMAGE, remove_cgroups};
use crate::{
    engines::{Answer, screen::Screen},
    harness::{Pura, Running, eventually, judged, leftovers::names, pura_binary},
};

/// dockerd, which ends with the value.
#[derive(Debug)]
struct Docker {
    engine: Engine,
    daemon: Running,
    /// Of its containers.
    cgroup: String,
}

impl Docker {
    /// A daemon that knows pura by that name, and also as its `runc`: `BuildKit` asks for that one alone.
    fn new() -> Result<Self> {
        let engine = Engine::bare("pura")?;
        fs::copy(pura_binary(), engine.path("bin/runc"))?;
        fs::set_permissions(engine.path("bin/runc"), fs::Permissions::from_mode(0o755))?;
        let cgroup = engine.path("").file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = |name: &str| engine.path(name).to_string_lossy().into_owned();
        fs::write(engine.path("daemon.json"), "{}")?;
        // In mounts of its own, which end with it.
        let line = format!(
            "unshare --mount --propagation=private dockerd --config-file={} --data-root={} --exec-root={} --pidfile={} \
             --host=unix://{} --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs --cgroup-parent=/{cgroup} \
             --add-runtime=pura={}",
            path("daemon.json"),
            path("d"),
            path("e"),
            path("p"),
            path("s.sock"),
            path("bin/pura")
        );
        let line: Vec<_> = line.split_whitespace().map(Into::into).collect();
        let daemon = Pura::through(engine.dir.path(), &line)
            .env("HOME", engine.path("tmp"))
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", path("bin")))
            .spawn()?;
        let docker = Self { engine, daemon, cgroup };
        eventually("dockerd answers", || Ok(docker.call(&["version"])?.0.code() == 0))?;
        let tar = docker.engine.path("image.tar").to_string_lossy().into_owned();
        docker.call(&["import", &tar, IMAGE])?.must_end(0, "")?;
        Ok(docker)
    }

    fn call(&self, words: &[&str]) -> Result<Answer> {
        let host = format!("unix://{}", self.engine.path("s.sock").display());
        self.engine.call_by("docker", &[&["--host", &host][..], words].concat())
    }

    /// Docker on a terminal.
    fn screen(&self, words: &[&str]) -> Result<Screen> {
        let host = format!("unix://{}", self.engine.path("s.sock").display());
        Screen::new(&self.engine, &[&["docker", "--host", &host][..], words].concat())
    }

    /// `docker run --rm --runtime=pura OPTIONS IMAGE sh -c SCRIPT`.
    fn run(&self, options: &[&str], script: &str) -> Result<Answer> {
        let usual = ["run", "--rm", "--runtime=pura"];
        let network: &[&str] =
            if options.iter().any(|word| word.starts_with("--network")) { &[] } else { &["--network=none"] };
        self.call(&[&usual[..], network, options, &[IMAGE, "sh", "-c", script]].concat())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let left = self.call(&["ps", "--all", "--quiet"]).map(|ids| ids.0.stdout).unwrap_or_default();
        for id in left.lines() {
            drop(self.call(&["rm", "--force", id]));
        }
        drop(self.daemon.signal(Signal::SIGTERM));
        drop(judged(self.daemon.wait()));
        remove_cgroups(&self.cgroup);
    }
}

#[test]
fn docker_runs_containers() -> Result<()> {
    requires!(root, busybox, docker);
    let docker = Docker::new()?;
    let said = docker.run(&[], "echo out; echo err >&2; exit 7")?;
    ensure!(said.must_end(7, "err")? == "out", "{said:?}");
    docker.run(&[], "sh -c 'kill -9 $$'; exit $?")?.must_end(137, "")?;
    let host = fs::read_link("/proc/self/ns/user")?;
    let own = docker.run(&[], "readlink /proc/self/ns/user")?;
    ensure!(own.must_end(0, "user:[")? != host.to_string_lossy(), "the container has the user namespace of the host");
    let field = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t\\n' '  '";
    docker.run(&[], field)?.must_end(0, "CapEff: 00000000a80425fb")?;
    docker.run(&[], field)?.must_end(0, "Seccomp: 2")?;
    docker.run(&["--cap-drop=all"], field)?.must_end(0, "CapEff: 0000000000000000")?;
    docker.run(&["--security-opt=no-new-privileges"], field)?.must_end(0, "NoNewPrivs: 1")?;
    docker.run(&["--privileged"], field)?.must_end(0, "Seccomp: 0")?;
    docker.run(&["--user=1000", "--workdir=/tmp", "--env=A=b"], "id -u; echo $PWD $A")?.must_end(0, "1000\n/tmp b")?;
    docker.run(&["--read-only", "--tmpfs=/t"], "touch /t/x && touch /x")?.must_end(1, "Read-only file system")?;
    docker.run(&["--init"], "ps")?.must_end(0, "docker-init")?;
    docker
        .run(&["--network=host"], "readlink /proc/self/ns/net")?
        .must_end(0, &fs::read_link("/proc/self/ns/net")?.to_string_lossy())?;
    docker.run(&["--pid=host"], "[ $(ls -d /proc/[0-9]* | wc -l) -gt 3 ] && echo many")?.must_end(0, "many")?;
    docker.run(&["--hostname=web"], "hostname")?.must_end(0, "web")?;
    docker.run(&["--shm-size=1m"], "df /dev/shm | grep 1024")?.must_end(0, "/dev/shm")?;
    docker.run(&["--ulimit=nofile=30:30"], "ulimit -n")?.must_end(0, "30")?;
    docker.run(&["--device=/dev/null:/dev/x"], "echo gone >/dev/x; cat /dev/x; echo null")?.must_end(0, "null")?;
    let volume = format!("--volume={}:/v:ro", docker.engine.path("volume").display());
    docker.run(&[&volume], "cat /v/file; touch /v/x")?.must_end(1, "of the host")?;
    docker.run(&["--tty"], "tty")?.must_end(0, "/dev/pts/0")?;
    let run = |program: &str| docker.call(&["run", "--rm", "--runtime=pura", "--network=none", IMAGE, program]);
    run("nocmd")?.must_end(127, "executable file not found in $PATH")?;
    run("/etc")?.must_end(126, "is a directory")?;
    run("/etc/passwd")?.must_end(126, "permission denied")?;
    let limited = docker.run(&["--memory=64m"], "cat /sys/fs/cgroup/memory.max")?;
    // PURA-463 where version 1 has the controller; where nobody has, Docker asks for no limit.
    let is_dropped = limited.0.stderr.contains("Limitation discarded");
    let refused = || limited.must_end(125, "cannot set memory.max to 67108864");
    if !is_dropped {
        limited.must_end(0, "67108864").or_else(|_| refused())?;
    }
    Ok(())
}

#[test]
fn a_container_of_docker_lives_through_all_its_verbs() -> Result<()> {
    requires!(root, busybox, docker, ps);
    let docker = Docker::new()?;
    let loops = "trap 'exit 5' TERM; trap 'echo one' USR1; echo up; while :; do sleep 0.05; done";
    let call = |words: &[&str]| docker.call(words);
    call(&["run", "-d", "--runtime=pura", "--network=none", "--name=c1", IMAGE, "sh", "-c", loops])?.must_end(0, "")?;
    call(&["exec", "-u", "1000", "-w", "/tmp", "-e", "A=b", "c1", "sh", "-c", "echo $(id -u) $PWD $A; exit 4"])?
        .must_end(4, "1000 /tmp b")?;
    call(&["exec", "c1", "nocmd"])?.must_fail()?;
    call(&["exec", "-d", "c1", "touch", "/tmp/made"])?.must_end(0, "")?;
    eventually("the detached exec", || Ok(call(&["exec", "c1", "test", "-e", "/tmp/made"])?.0.code() == 0))?;
    call(&["top", "c1"])?.must_end(0, "trap")?;
    call(&["cp", "c1:/etc/group", "out"])?.must_end(0, "")?;
    ensure!(fs::read_to_string(docker.engine.path("tmp/out"))?.contains("user:x:1000"), "cp brought no file out");
    call(&["commit", "c1", "localhost/committed"])?.must_end(0, "")?;
    call(&["pause", "c1"])?.must_end(0, "c1")?;
    call(&["inspect", "--format={{.State.Status}} {{.HostConfig.Runtime}}", "c1"])?.must_end(0, "paused pura")?;
    call(&["exec", "c1", "true"])?.must_end(1, "paused")?;
    call(&["unpause", "c1"])?.must_end(0, "c1")?;
    call(&["exec", "c1", "true"])?.must_end(0, "")?;
    call(&["kill", "--signal=USR1", "c1"])?.must_end(0, "c1")?;
    eventually("the trap", || Ok(call(&["logs", "c1"])?.0.stdout.contains("one")))?;
    let mut screen = docker.screen(&["exec", "-it", "c1", "sh", "-c", "tty; read -r word; echo got $word; exit 6"])?;
    screen.shows("/dev/pts/0")?;
    screen.types("a word")?;
    screen.shows("got a word")?;
    screen.ends(6)?;
    call(&["stop", "--time=50", "c1"])?.must_end(0, "c1")?;
    call(&["inspect", "--format={{.State.ExitCode}}", "c1"])?.must_end(0, "5")?;
    call(&["start", "c1"])?.must_end(0, "c1")?;
    call(&["restart", "--time=1", "c1"])?.must_end(0, "c1")?;
    call(&["kill", "c1"])?.must_end(0, "c1")?;
    call(&["wait", "c1"])?.must_end(0, "137")?;
    call(&["rm", "c1"])?.must_end(0, "c1")?;
    let state = docker.engine.path("e/runtime-pura/moby");
    ensure!(names(&state)?.is_empty(), "containers are left in {}", state.display());
    Ok(())
}

#[test]
fn docker_builds_with_and_without_buildkit() -> Result<()> {
    requires!(root, busybox, docker);
    let docker = Docker::new()?;
    let host = fs::read_link("/proc/self/ns/user")?;
    let directory = docker.engine.path("tmp/context");
    fs::create_dir(&directory)?;
    for (kit, tag) in [("0", "localhost/classic"), ("1", "localhost/kit")] {
        let build = |file: &str| -> Result<Answer> {
            fs::write(directory.join("Dockerfile"), file)?;
            let socket = format!("DOCKER_HOST=unix://{}", docker.engine.path("s.sock").display());
            let kit = format!("DOCKER_BUILDKIT={kit}");
            docker.engine.call_by("env", &[&kit, &socket, "docker", "build", "--network=none", "--tag", tag, "context"])
        };
        build("FROM localhost/busybox\nRUN readlink /proc/self/ns/user >/etc/ns\nUSER 1000\nRUN id -u >/tmp/id\n")?
            .must_end(0, "")?;
        let made = docker.call(&["run", "--rm", "--network=none", tag, "cat", "/etc/ns", "/tmp/id"])?;
        let made = made.must_end(0, "\n1000")?;
        ensure!(
            made.starts_with("user:[") && !made.contains(&*host.to_string_lossy()),
            "pura did not build it: {made}"
        );
        let failed = build("FROM localhost/busybox\nRUN exit 3\n")?;
        failed.must_fail().and_then(|()| failed.must_end(failed.0.code(), "code: 3"))?;
    }
    Ok(())
}
