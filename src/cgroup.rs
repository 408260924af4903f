//! The container's cgroup, on the parent's side: where it is, and the leaf that init is born in.
//!
//! Version 2 only. The leaf is made before clone and entered by it: moving a process costs milliseconds, because the
//! kernel waits for an RCU grace period.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    unistd::{AccessFlags, access},
};
use oci_spec::runtime::{LinuxResources, Spec};

use crate::{
    cli::CgroupDriver,
    error::{Code, Context as _, Error, Result, Warning},
    host::Host,
};

/// Where the container's processes will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The directory, below the mount point of cgroup2.
    pub directory: PathBuf,
}

/// Chooses the leaf, or none; nothing is made. A cgroup that is asked for and cannot be had is a warning, a limit an
/// error, because it would be silently absent.
pub fn choose(
    spec: &Spec,
    host: &Host,
    driver: CgroupDriver,
    default_name: &str,
) -> Result<(Option<Leaf>, Vec<Warning>)> {
    let linux = spec.linux().as_ref();
    if let Some(resources) = linux.and_then(|linux| linux.resources().as_ref()) {
        refuse_limits(resources, host)?;
    }
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref()).filter(|path| !path.as_os_str().is_empty());
    let Some(mount) = host.cgroup.mount.as_deref().filter(|_| driver != CgroupDriver::Disabled) else {
        return Ok((None, Vec::new()));
    };
    let own = mount.join(host.cgroup.own.trim_start_matches('/'));
    // systemd's form, slice:prefix:name, names no directory that is ours to make.
    let asked = path
        .filter(|path| !path.as_os_str().as_bytes().contains(&b':'))
        .map(|path| asked(path, mount, &own))
        .transpose()?;
    if let Some(asked) = &asked
        && may_make(asked)
    {
        return Ok((Some(Leaf { directory: asked.clone() }), Vec::new()));
    }
    let fallback = own.join(default_name);
    if may_make(&fallback) {
        return Ok((Some(Leaf { directory: fallback }), Vec::new()));
    }
    let what = "no cgroup of its own: limits and pause are not available to this container";
    let warning =
        asked.map(|asked| Warning::new(Code::NoCgroup, format!("{what}, because {asked:?} cannot be made by you")));
    Ok((None, warning.into_iter().collect()))
}

/// The name of the leaf when the config names none. Ids are unique only in one state directory, hence its inode.
pub fn default_name(id: &str, state_inode: u64) -> String {
    format!("pura-{id}.{state_inode:x}")
}

/// The directory that linux.cgroupsPath means: from the hierarchy's root, or from the caller's cgroup.
fn asked(path: &Path, mount: &Path, own: &Path) -> Result<PathBuf> {
    if path.components().any(|part| part == Component::ParentDir) {
        let why = format!("{path:?} contains \"..\"");
        return Err(Error::new(Code::Field, "read linux.cgroupsPath", why));
    }
    Ok(match path.strip_prefix("/") {
        Ok(below) => mount.join(below),
        Err(_relative) => own.join(path),
    })
}

/// Whether the caller may make the directory: the nearest ancestor that exists is theirs to write.
fn may_make(directory: &Path) -> bool {
    for ancestor in directory.ancestors() {
        match access(ancestor, AccessFlags::W_OK) {
            // The leaf itself exists: it can be used when it is empty and ours.
            Ok(()) => return true,
            Err(Errno::ENOENT) => {}
            Err(_) => return false,
        }
    }
    false
}

/// Makes the leaf and opens it. An existing one is used when nobody lives in it.
pub fn prepare(leaf: &Leaf) -> Result<OwnedFd> {
    let directory = &leaf.directory;
    let what = || format!("make the cgroup {directory:?}");
    match fs::create_dir(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_populated(directory)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(directory).doing(Code::CgroupRefused, what)?;
        }
        Err(error) => return Err(error).doing(Code::CgroupRefused, what),
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(directory, flags, nix::sys::stat::Mode::empty())
        .doing(Code::CgroupRefused, || format!("open the cgroup {directory:?}"))
}

fn refuse_populated(directory: &Path) -> Result<()> {
    let events = fs::read_to_string(directory.join("cgroup.events")).unwrap_or_default();
    if events.lines().any(|line| line == "populated 1") {
        let why = "the cgroup is not empty";
        return Err(Error::new(Code::CgroupBusy, format!("use the cgroup {directory:?}"), why));
    }
    Ok(())
}

/// Limits are not applied by this version: each that is asked for is an error, never ignored.
fn refuse_limits(resources: &LinuxResources, host: &Host) -> Result<()> {
    let Some(limit) = first_limit(resources) else { return Ok(()) };
    let what = format!("set linux.resources.{limit}");
    if !host.cgroup.unified {
        let why = "this host has cgroup v1 or a hybrid, on which pura sets no limits";
        return Err(Error::new(Code::CgroupV1, what, why)
            .fix("boot with systemd.unified_cgroup_hierarchy=1; for Podman, pids_limit=0 in containers.conf"));
    }
    Err(Error::new(Code::Unsupported, what, "limits are not supported by this version of pura")
        .fix("remove it from config.json"))
}

/// The first limit that is more than absent, 0 or -1: those are no requests. Device rules are no limit, and moot: a user
/// namespace may not make nodes.
fn first_limit(resources: &LinuxResources) -> Option<&'static str> {
    let asks = |value: Option<i64>| value.is_some_and(|value| value > 0);
    let memory = resources.memory().as_ref();
    let cpu = resources.cpu().as_ref();
    let unsigned = |value: Option<u64>| value.is_some_and(|value| value > 0);
    let text = |value: Option<&String>| value.is_some_and(|value| !value.is_empty());
    let found = [
        (memory.is_some_and(|memory| asks(memory.limit())), "memory.limit"),
        (memory.is_some_and(|memory| asks(memory.reservation())), "memory.reservation"),
        (memory.is_some_and(|memory| asks(memory.swap())), "memory.swap"),
        (memory.is_some_and(|memory| memory.disable_oom_killer() == Some(true)), "memory.disableOOMKiller"),
        (memory.is_some_and(|memory| memory.swappiness().is_some()), "memory.swappiness"),
        (cpu.is_some_and(|cpu| unsigned(cpu.shares())), "cpu.shares"),
        (cpu.is_some_and(|cpu| asks(cpu.quota())), "cpu.quota"),
        (cpu.is_some_and(|cpu| unsigned(cpu.burst())), "cpu.burst"),
        (cpu.is_some_and(|cpu| asks(cpu.idle())), "cpu.idle"),
        (cpu.is_some_and(|cpu| asks(cpu.realtime_runtime()) || unsigned(cpu.realtime_period())), "cpu.realtimeRuntime"),
        (cpu.is_some_and(|cpu| text(cpu.cpus().as_ref())), "cpu.cpus"),
        (cpu.is_some_and(|cpu| text(cpu.mems().as_ref())), "cpu.mems"),
        (resources.pids().as_ref().is_some_and(|pids| pids.limit() > 0), "pids.limit"),
        (resources.block_io().is_some(), "blockIO"),
        (resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty()), "hugepageLimits"),
        (resources.network().is_some(), "network"),
        (resources.rdma().as_ref().is_some_and(|limits| !limits.is_empty()), "rdma"),
        (resources.unified().as_ref().is_some_and(|files| !files.is_empty()), "unified"),
    ];
    found.into_iter().find_map(|(asked, name)| asked.then_some(name))
}

/// Whether a child of the caller's may be born in the cgroup: `cgroups(7)`, delegation.
pub fn may_enter(directory: &Path) -> bool {
    access(&directory.join("cgroup.procs"), AccessFlags::W_OK).is_ok()
}

/// Whether the cgroup is frozen: `cgroup.events`.
pub fn is_frozen(directory: &Path) -> bool {
    event(directory, "frozen") == Some(true)
}

/// One line of `cgroup.events`; nothing when the cgroup is gone.
fn event(directory: &Path, name: &str) -> Option<bool> {
    let events = fs::read_to_string(directory.join("cgroup.events")).ok()?;
    events.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(|value| value == "1")
}

/// Ends every process of the cgroup, at once, frozen or not: `cgroup.kill` (Linux 5.14), else one by one.
pub fn kill(directory: &Path) {
    if fs::write(directory.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    signal_all(directory, libc::SIGKILL);
}

/// Sends a signal to every process of the cgroup and of those below it; how many there were.
pub fn signal_all(directory: &Path, signal: i32) -> usize {
    let mut count = 0;
    for child in children(directory) {
        count += signal_all(&child, signal);
    }
    let processes = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse().ok()) {
        let sent = crate::sys::pidfd::find(pid)
            .and_then(|process| crate::sys::pidfd::send(std::os::fd::AsFd::as_fd(&process), signal));
        count += usize::from(sent.is_ok());
    }
    count
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Waits until nobody lives in the cgroup, at most `limit` milliseconds; whether that is so.
pub fn wait_empty(directory: &Path, limit: u16) -> bool {
    let Ok(events) = fs::File::open(directory.join("cgroup.events")) else { return true };
    loop {
        if event(directory, "populated") != Some(true) {
            return true;
        }
        // A change of cgroup.events is an exceptional condition: cgroups(7).
        let mut wanted = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&events), nix::poll::PollFlags::POLLPRI)];
        if crate::sys::retry(|| nix::poll::poll(&mut wanted, nix::poll::PollTimeout::from(limit))) != Ok(1) {
            return event(directory, "populated") != Some(true);
        }
        // Reading re-arms the notification.
        drop(io::Read::read_to_string(&mut &events, &mut String::new()));
        drop(io::Seek::rewind(&mut &events));
    }
}

/// Removes the cgroup and those below it. EBUSY passes when the last process has been reaped: tried again, not for ever.
pub fn remove(directory: &Path) -> io::Result<()> {
    for child in children(directory) {
        remove(&child)?;
    }
    for _ in 0..REMOVE_ATTEMPTS {
        match fs::remove_dir(directory) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                if !wait_empty(directory, REMOVE_STEP) {
                    continue;
                }
                let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(1_u8));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => return done,
        }
    }
    fs::remove_dir(directory)
}

const REMOVE_ATTEMPTS: u8 = 50;
const REMOVE_STEP: u16 = 100;
