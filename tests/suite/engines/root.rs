//! Engines of real root. Its containers have a user namespace too.

use std::fs;

use anyhow::{Result, ensure};

use super::{Engine, IMAGE};
use crate::harness::{Outcome, Pura, Running, eventually, pura_binary};

#[test]
fn podman_runs_containers_of_root() -> Result<()> {
    requires!(root, busybox, podman);
    let null = fs::metadata("/dev/null").map(|null| (mode(&null), owner(&null)))?;
    let engine = Engine::new("pura")?;
    let volume = format!("--volume={}:/v", engine.path("volume").display());
    let inside = |options: &[&str], script: &str| engine.run(options, script);
    let host = fs::read_link("/proc/self/ns/user")?;
    let own = inside(&[], "readlink /proc/self/ns/user")?;
    ensure!(own.must_end(0, "user:[")? != host.to_string_lossy(), "the container has the user namespace of the host");
    inside(&[], "exit 7")?.must_end(7, "")?;
    inside(&["--runtime-flag=userns=inherit"], "readlink /proc/self/ns/user")?.must_end(0, &host.to_string_lossy())?;
    inside(&["--privileged"], "grep CapEff /proc/self/status")?.must_end(0, "CapEff")?;
    inside(&["--uidmap=0:100000:1000"], "tr -s ' ' </proc/self/uid_map")?.must_end(0, " 0 100000 1000")?;
    inside(&["--device=/dev/null:/dev/x/y"], "echo gone >/dev/x/y; cat /dev/x/y; echo null")?.must_end(0, "null")?;
    inside(&["--tty"], "tty")?.must_end(0, "/dev/pts/0")?;
    inside(&["--pid=host"], "ls -d /proc/[0-9]* | wc -l")?.must_end(0, "")?;
    inside(&["--read-only"], "touch /x")?.must_end(1, "Read-only file system")?;
    inside(&["--sysctl=net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward")?.must_end(0, "1")?;
    inside(&[&volume], "cat /v/file")?.must_end(0, "of the host")?;
    engine.call(&["run", "-d", "--name=c1", "--network=none", IMAGE, "sleep", "1000"])?.must_end(0, "")?;
    engine.call(&["exec", "c1", "id", "-u"])?.must_end(0, "0")?;
    inside(&["--pid=container:c1", "--ipc=container:c1"], "ps")?.must_end(0, "sleep 1000")?;
    engine.call(&["rm", "-f", "-t", "0", "c1"])?.must_end(0, "c1")?;
    ensure!(fs::metadata("/dev/null").map(|null| (mode(&null), owner(&null)))? == null, "the host's /dev/null changed");
    Ok(())
}

fn mode(file: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(file)
}

fn owner(file: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::uid(file)
}

/// containerd, which ends with the value.
#[derive(Debug)]
struct Containerd<'a> {
    engine: &'a Engine,
    _daemon: Running,
}

impl<'a> Containerd<'a> {
    fn new(engine: &'a Engine) -> Result<Self> {
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
        let containerd = Self { engine, _daemon: daemon };
        eventually("containerd answers", || Ok(containerd.ctr(&["version"])?.code() == 0))?;
        Ok(containerd)
    }

    fn ctr(&self, words: &[&str]) -> Result<Outcome> {
        let socket = self.engine.path("s.sock");
        let line = ["ctr".into(), "--address".into(), socket.into_os_string()];
        Pura::through(self.engine.dir.path(), &line).args(words).output()
    }
}

#[test]
fn containerd_runs_containers_through_its_shim() -> Result<()> {
    requires!(root, busybox, podman, containerd);
    let engine = Engine::new("pura")?;
    let archive = engine.path("image.oci").to_string_lossy().into_owned();
    engine.call(&["save", "--quiet", "--format=oci-archive", "--output", &archive, IMAGE])?.must_end(0, "")?;
    let containerd = Containerd::new(&engine)?;
    let image = format!("{IMAGE}:latest");
    let said = |outcome: Outcome, status: i32, words: &str| -> Result<()> {
        ensure!(outcome.code() == status && outcome.stdout.contains(words), "wanted {status}, {words:?}: {outcome:?}");
        Ok(())
    };
    said(containerd.ctr(&["images", "import", "--snapshotter=native", &archive])?, 0, "")?;
    let binary = pura_binary().to_string_lossy().into_owned();
    let run = |options: &[&str], id: &str, program: &[&str]| {
        let usual = ["run", "--snapshotter=native", "--runc-binary", &binary];
        containerd.ctr(&[&usual[..], options, &[&image, id], program].concat())
    };
    said(run(&["--rm"], "c1", &["/bin/sh", "-c", "echo out; exit 3"])?, 3, "out")?;
    said(run(&["-d"], "c2", &["/bin/sleep", "1000"])?, 0, "")?;
    said(containerd.ctr(&["task", "exec", "--exec-id=e1", "c2", "/bin/sh", "-c", "hostname; exit 4"])?, 4, "")?;
    said(containerd.ctr(&["task", "ls"])?, 0, "RUNNING")?;
    said(containerd.ctr(&["task", "kill", "--signal=KILL", "c2"])?, 0, "")?;
    eventually("its end", || Ok(containerd.ctr(&["task", "ls"])?.stdout.contains("STOPPED")))?;
    said(containerd.ctr(&["task", "rm", "c2"])?, 137, "").or_else(|_| said(containerd.ctr(&["task", "ls"])?, 0, ""))?;
    said(containerd.ctr(&["container", "rm", "c2"])?, 0, "")?;
    let gone = containerd.ctr(&["task", "kill", "c2"])?;
    ensure!(gone.stderr.contains("not found"), "{gone:?}");
    Ok(())
}
