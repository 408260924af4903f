//! What a container needs, tried for real in a child that is thrown away: in namespaces of its own, so that nothing of it
//! is seen outside, and nothing is left.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MsFlags, mount},
    sys::wait::WaitStatus,
    unistd::{pipe2, read, write},
};

use crate::{
    seccomp::{Instruction, NEW_LISTENER},
    sys::{
        self,
        process::{self, Fork},
    },
};

/// What is tried, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Probe {
    /// A process in a new user namespace.
    User,
    /// Its maps.
    Maps,
    /// A mount namespace in which mounts are private.
    Mounts,
    /// `ipc`
    Ipc,
    /// `uts`
    Uts,
    /// `net`
    Net,
    /// `cgroup`
    Cgroup,
    /// `time`
    Time,
    /// `pid`
    Pid,
    /// A tmpfs.
    Tmpfs,
    /// A new procfs.
    Proc,
    /// A new sysfs.
    Sys,
    /// An overlay.
    Overlay,
    /// `pivot_root(2)`
    Pivot,
    /// A session keyring.
    Keyring,
    /// A seccomp filter.
    Filter,
    /// A seccomp filter with an agent.
    Agent,
    /// Calls that are not there, a bit each: no errno.
    Calls,
}

const COUNT: usize = Probe::Calls as usize + 1;

/// The errno of each probe, 0 for success; nothing for what could not be tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Results(pub(super) [Option<i32>; COUNT]);

impl Results {
    /// Nothing when it went well or was not tried.
    pub(super) fn failure(&self, probe: Probe) -> Option<Errno> {
        self.0.get(probe as usize).copied().flatten().filter(|errno| *errno != 0).map(Errno::from_raw)
    }

    /// Calls that are not there.
    pub(super) fn lacking(&self) -> Vec<&'static str> {
        let bits = self.0.get(Probe::Calls as usize).copied().flatten().unwrap_or(0);
        sys::names(u8::try_from(bits).unwrap_or(0))
    }

    /// Whether it was tried.
    pub(super) fn is_tried(&self, probe: Probe) -> bool {
        self.0.get(probe as usize).is_some_and(Option::is_some)
    }

    /// Takes down a result.
    pub(super) fn note(&mut self, probe: u8, errno: i32) {
        if let Some(place) = self.0.get_mut(usize::from(probe)) {
            *place = Some(errno);
        }
    }
}

/// Tries everything. `uid` and `gid` are the caller's; without `new_user` its own user namespace is used, as containers do.
pub(super) fn run(new_user: bool, uid: u32, gid: u32) -> Results {
    let mut results = Results::default();
    let Ok((reader, writer)) = pipe2(OFlag::O_CLOEXEC) else { return results };
    let flags = if new_user { u64::from(libc::CLONE_NEWUSER.unsigned_abs()) } else { 0 };
    let child = match process::clone(flags, None) {
        Ok(Fork::Child) => {
            drop(reader);
            attempt(new_user.then_some((uid, gid)), &writer);
            process::exit_now(0)
        }
        Ok(Fork::Parent(child)) => child,
        Err(errno) => {
            results.note(Probe::User as u8, errno as i32);
            return results;
        }
    };
    results.note(Probe::User as u8, 0);
    drop(writer);
    let mut said = [0; 2];
    while let Ok(2) = sys::retry(|| read(&reader, &mut said)) {
        let [probe, errno] = said;
        results.note(probe, errno.into());
    }
    let _ = process::wait(child);
    results
}

/// In the child: one probe after the other, until one fails on which the next ones stand.
fn attempt(ids: Option<(u32, u32)>, writer: &OwnedFd) {
    let try_out = |probe: Probe, result: nix::Result<()>| {
        let errno = result.err().map_or(0, |errno| u8::try_from(errno as i32).unwrap_or(u8::MAX));
        // One write(2) each: whoever is killed by a filter has told of what went before.
        sys::retry(|| write(writer, &[probe as u8, errno])).is_ok() && errno == 0
    };
    if !try_out(Probe::Maps, ids.map_or(Ok(()), map)) {
        return;
    }
    let private = || sys::mount::set_propagation(c"/", libc::MS_REC | libc::MS_PRIVATE);
    if !try_out(Probe::Mounts, process::unshare(libc::CLONE_NEWNS).and_then(|()| private())) {
        return;
    }
    try_out(Probe::Filter, filter(0));
    try_out(Probe::Agent, filter(NEW_LISTENER));
    try_out(Probe::Keyring, process::new_keyring());
    for (probe, kind) in [
        (Probe::Ipc, libc::CLONE_NEWIPC),
        (Probe::Uts, libc::CLONE_NEWUTS),
        (Probe::Net, libc::CLONE_NEWNET),
        (Probe::Cgroup, libc::CLONE_NEWCGROUP),
        (Probe::Time, libc::CLONE_NEWTIME),
    ] {
        try_out(probe, process::unshare(kind));
    }
    let _ = sys::retry(|| write(writer, &[Probe::Calls as u8, sys::lacking()]));
    if !try_out(Probe::Tmpfs, new(c"tmpfs", c"/dev", Some(c"mode=755"))) {
        return;
    }
    try_out(Probe::Sys, directory(c"/dev/s").and_then(|()| new(c"sysfs", c"/dev/s", None)));
    try_out(Probe::Overlay, overlay());
    if try_out(Probe::Pid, process::unshare(libc::CLONE_NEWPID)) {
        try_out(Probe::Proc, procfs());
    }
    let root = sys::path::open_host(c"/dev", OFlag::O_PATH | OFlag::O_CLOEXEC);
    try_out(Probe::Pivot, root.and_then(|root| sys::mount::pivot(root.as_fd())));
}

fn map((uid, gid): (u32, u32)) -> nix::Result<()> {
    let line = |id: u32| format!("0 {id} 1");
    sys::path::write(c"/proc/self/setgroups", b"deny")?;
    sys::path::write(c"/proc/self/uid_map", line(uid).as_bytes())?;
    sys::path::write(c"/proc/self/gid_map", line(gid).as_bytes()).map(drop)
}

fn new(kind: &CStr, on: &CStr, data: Option<&CStr>) -> nix::Result<()> {
    mount(Some(kind), on, Some(kind), MsFlags::empty(), data)
}

fn directory(path: &CStr) -> nix::Result<()> {
    nix::unistd::mkdir(path, nix::sys::stat::Mode::S_IRWXU)
}

fn overlay() -> nix::Result<()> {
    [c"/dev/l", c"/dev/u", c"/dev/w"].into_iter().try_for_each(directory)?;
    let data = c"lowerdir=/dev/l,upperdir=/dev/u,workdir=/dev/w,userxattr";
    new(c"overlay", c"/dev/l", Some(data))
}

/// Only a process inside the new PID namespace may mount its procfs.
fn procfs() -> nix::Result<()> {
    directory(c"/dev/p")?;
    match process::copy()? {
        Fork::Child => process::exit_now(new(c"proc", c"/dev/p", None).err().map_or(0, |errno| errno as i32)),
        Fork::Parent(child) => {
            let status = process::wait(child)?;
            let WaitStatus::Exited(_, errno) = status else { return Err(Errno::EINTR) };
            if errno == 0 { Ok(()) } else { Err(Errno::from_raw(errno)) }
        }
    }
}

/// A filter that allows everything.
fn filter(flags: u32) -> nix::Result<()> {
    const RETURN: u16 = 6;
    const ALLOW: u32 = 0x7fff_0000;
    let allow = Instruction { code: RETURN, when_true: 0, when_false: 0, constant: ALLOW };
    sys::seccomp::attach(flags, &[allow]).map(drop)
}
