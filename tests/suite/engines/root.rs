//! Engines of real root. Its containers have a user namespace too.

mod containerd;
mod docker;

use std::fs;

use anyhow::{Result, ensure};

use super::{Engine, IMAGE};

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

/// Removes the cgroups that an engine made for its containers to be in: they outlive them, whatever the runtime.
fn remove_cgroups(name: &str) {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain(["/sys/fs/cgroup".into()]) {
        for place in [hierarchy.join(name).join("buildkit"), hierarchy.join(name)] {
            drop(fs::remove_dir(place));
        }
    }
}

#[test]
fn the_callers_groups_are_kept_on_request() -> Result<()> {
    requires!(root, busybox, podman);
    let engine = Engine::new("pura")?;
    let run = |option: &str| {
        let program = ["podman", "run", "--rm", "--network=none", option, IMAGE, "id", "-G"];
        engine.call_by("setpriv", &[&["--groups=0,4321", "--"][..], &program].concat())
    };
    ensure!(run("--group-add=keep-groups")?.must_end(0, "")? == "0 4321", "the caller's groups are lost");
    ensure!(run("--group-add=7")?.must_end(0, "")? == "0 7", "the caller's groups are kept without being asked for");
    Ok(())
}
