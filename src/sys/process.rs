//! Processes: birth, attributes, end.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::{
        stat::Mode,
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, pipe2, read, write},
};

use super::{
    absent::{Newer, told},
    check, retry,
};

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the child's id: its own until it is reaped, so that no descriptor is needed.
    Parent(Pid),
}

/// The cgroup that a child is born in.
#[derive(Debug, Clone, Copy)]
pub struct Home<'a> {
    /// Its directory.
    pub cgroup: BorrowedFd<'a>,
    /// It was there before, and processes may have been ended by its `cgroup.kill`: whoever is then cloned into it ends
    /// at once (Linux 6.14 and later compare it with the caller's cgroup), so the child is moved.
    pub is_used: bool,
}

/// Clones into new namespaces (`flags`, `CLONE_NEW*`) and, when given, into a cgroup: `clone3(2)`.
///
/// ENOSPC: a `user.max_*_namespaces` is reached. Falls back to `clone(2)` where clone3 is not there: slower with a cgroup,
/// into which the parent has to move the child, and EOPNOTSUPP when it may not; ENOSYS for a time namespace.
/// The child is a copy, as after `fork(2)`, but libc does not know: it must not call `raise` or anything of pthread.
pub fn clone(flags: u64, home: Option<Home<'_>>) -> nix::Result<Fork> {
    debug_assert!(single_threaded(), "clone copies only the calling thread; a lock held by another would never open");
    if let Some(home) = home.filter(|home| home.is_used) {
        return clone_and_move(flags, home.cgroup);
    }
    let cgroup = home.map(|home| home.cgroup);
    // SAFETY: `clone_args` is plain integers, for which zero means "not asked for".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | CLONE_CLEAR_SIGHAND;
    // A sibling ends with the signal that we end with, and the kernel wants no other: `clone(2)`.
    let is_sibling = flags & u64::from(libc::CLONE_PARENT.unsigned_abs()) != 0;
    arguments.exit_signal = if is_sibling { 0 } else { u64::from(libc::SIGCHLD.unsigned_abs()) };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: no CLONE_VM and no stack, so both sides go on with memory of their own; the kernel reads `size` bytes.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) });
    match pid {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) => Ok(Fork::Parent(Pid::from_raw(pid))),
        Err(errno) => match (told(Newer::Clone3, errno), cgroup) {
            (Errno::ENOSYS, Some(cgroup)) => clone_and_move(flags, cgroup),
            (Errno::ENOSYS, None) => old_clone(flags),
            (errno, _) => Err(errno),
        },
    }
}

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The child does nothing, and makes no namespace either, before the parent has moved it into the cgroup: `cgroups(7)`.
fn clone_and_move(flags: u64, cgroup: BorrowedFd<'_>) -> nix::Result<Fork> {
    let refused = |_why| Errno::EOPNOTSUPP;
    let opened = retry(|| openat(cgroup, c"cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()));
    let processes = opened.map_err(refused)?;
    let (gate, key) = pipe2(OFlag::O_CLOEXEC)?;
    let child = match clone(flags, None)? {
        Fork::Parent(child) => child,
        Fork::Child => {
            drop((key, processes));
            // End of file: the parent has died, or may not move us.
            return if retry(|| read(&gate, &mut [0])) == Ok(1) { Ok(Fork::Child) } else { exit_now(1) };
        }
    };
    let moved = retry(|| write(&processes, child.to_string().as_bytes())).and_then(|_| retry(|| write(&key, b"g")));
    if let Err(why) = moved {
        drop(key);
        // ECHILD: it is a sibling, for another to reap.
        let _ = wait(child);
        return Err(refused(why));
    }
    Ok(Fork::Parent(child))
}

fn old_clone(flags: u64) -> nix::Result<Fork> {
    // Its bit is one of the exit signal's here: only clone3 can ask for a time namespace.
    if flags & u64::from(libc::CLONE_NEWTIME.unsigned_abs()) != 0 {
        return Err(Errno::ENOSYS);
    }
    let flags = flags | u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: a null stack means a copy of ours, as for fork(2); no flag makes the kernel write to our memory.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) })?;
    Ok(if pid == 0 { Fork::Child } else { Fork::Parent(Pid::from_raw(pid)) })
}

#[cfg(debug_assertions)]
fn single_threaded() -> bool {
    // One that has joined a container sees the container's /proc, or none: then there is nothing to tell.
    // The number of links is that of a directory and one for each thread.
    std::fs::metadata("/proc/self/task").map_or(true, |tasks| std::os::unix::fs::MetadataExt::nlink(&tasks) <= 3)
}

#[cfg(not(debug_assertions))]
fn single_threaded() -> bool {
    true
}

/// Makes a copy of this process, as `fork(2)` does, for a process that may not allocate.
pub fn copy() -> nix::Result<Fork> {
    old_clone(0)
}

/// Clones again, inside, as a sibling: `CLONE_PARENT`. Needed where only children enter a namespace. The caller's parent,
/// not the caller, will reap the child. EINVAL: the caller is the first process of a PID namespace.
pub fn sibling() -> nix::Result<Option<Pid>> {
    let flags = u64::from(libc::CLONE_PARENT.unsigned_abs()) | u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: as in `old_clone`.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) })?;
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// Makes a child that only holds new namespaces (`flags`, `CLONE_NEW*`) open. For init too: nothing is allocated.
pub fn holder(flags: i32) -> nix::Result<Fork> {
    old_clone(u64::from(flags.unsigned_abs()))
}

/// `prctl(2)` with one number. The caller chooses among options that touch no memory.
pub fn prctl(option: Attribute, value: u64) -> nix::Result<()> {
    // SAFETY: every `Attribute` is an option whose arguments are plain numbers.
    check(libc::c_long::from(unsafe { libc::prctl(option as i32, value, 0_u64, 0_u64, 0_u64) })).map(drop)
}

/// Attributes of a process that `prctl(2)` sets with one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Attribute {
    /// The signal that the parent's death sends; 0 for none.
    DeathSignal = libc::PR_SET_PDEATHSIG,
    /// Whether others of the same ids may look inside.
    Dumpable = libc::PR_SET_DUMPABLE,
    /// Whether permitted capabilities survive a change of user.
    KeepCapabilities = libc::PR_SET_KEEPCAPS,
    /// Exec grants no privilege, for good.
    NoNewPrivileges = libc::PR_SET_NO_NEW_PRIVS,
}

/// Replaces the session keyring by an anonymous one: `keyctl(2)`. EDQUOT: the user's keys are used up.
pub fn new_keyring() -> nix::Result<()> {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING with a null name reads no memory.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0_usize) }).map(drop)
}

/// Waits until the child ends.
pub fn wait(child: Pid) -> nix::Result<WaitStatus> {
    retry(|| waitpid(child, None))
}

/// A child that has ended, whichever it is, with the status that a shell shows of it: 128 + n when signal n, a real-time one
/// perhaps, ended it. Nothing while all live; ECHILD when there is none.
pub fn reap() -> nix::Result<Option<(Pid, i32)>> {
    let mut end = 0;
    // SAFETY: the kernel writes the status, which is ours.
    let pid = check(libc::c_long::from(unsafe { libc::waitpid(-1, &raw mut end, libc::WNOHANG) }))?;
    let status = if libc::WIFSIGNALED(end) { 128 + libc::WTERMSIG(end) } else { libc::WEXITSTATUS(end) };
    Ok((pid != 0).then(|| (Pid::from_raw(pid), status)))
}

/// `_exit(2)`: runs no destructor and flushes nothing.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any integer and touches none of our memory.
    unsafe { libc::_exit(code) }
}

/// Writes `message` to standard error without allocating, then ends the process.
pub fn die(message: &str) -> ! {
    // SAFETY: pointer and length are those of one live `str`.
    unsafe { libc::write(2, message.as_ptr().cast(), message.len()) };
    exit_now(70)
}

/// Sets the three user ids and the three group ids at once, group first: `setresgid(2)`, `setresuid(2)`.
///
/// Raw calls, because libc's wrappers synchronise threads, of which a cloned process has none.
pub fn set_ids(uid: u32, gid: u32) -> nix::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Replaces the supplementary groups: `setgroups(2)`; raw for the same reason as [`set_ids`].
pub fn set_groups(groups: &[u32]) -> nix::Result<()> {
    // SAFETY: pointer and length are those of one live slice of the kernel's gid_t.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets a resource limit of a process, 0 for this one: `prlimit(2)`. EPERM: raising a hard limit.
pub fn set_rlimit(process: i32, resource: u32, soft: u64, hard: u64) -> nix::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one `rlimit64`, which lives until the call returns; the old value is not asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, process, resource, &raw const limit, 0_usize) }).map(drop)
}

/// The resource limit of this process, soft then hard.
pub fn rlimit(resource: u32) -> nix::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit64`, which lives until the call returns.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, 0_usize, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Joins a namespace, or those of a process that `kinds` names: `setns(2)`, on a pidfd since Linux 5.8.
///
/// EINVAL: another kind, or one that is already ours. What `pidfd::find` gives for a pidfd is joined one kind after the
/// other.
pub fn set_namespace(of: BorrowedFd<'_>, kinds: i32) -> nix::Result<()> {
    let join = |descriptor: BorrowedFd<'_>, wanted| {
        nix::sched::setns(descriptor, nix::sched::CloneFlags::from_bits_retain(wanted))
    };
    let joined = join(of, kinds);
    if joined != Err(Errno::EINVAL) {
        return joined;
    }
    // All are opened first: afterwards we may not be allowed to.
    let mut opened = [const { None }; NAMESPACES.len()];
    for (place, (kind, name)) in opened.iter_mut().zip(NAMESPACES).filter(|(_, (kind, _))| kinds & kind != 0) {
        match retry(|| openat(of, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())) {
            Err(Errno::ENOTDIR) => return joined,
            found => *place = Some((found?, kind)),
        }
    }
    opened.iter().flatten().try_for_each(|(namespace, kind)| join(namespace.as_fd(), *kind))
}

/// The namespaces of a directory of a process: the user namespace first, which gives power over the others.
const NAMESPACES: [(i32, &CStr); 8] = [
    (libc::CLONE_NEWUSER, c"ns/user"),
    (libc::CLONE_NEWCGROUP, c"ns/cgroup"),
    (libc::CLONE_NEWIPC, c"ns/ipc"),
    (libc::CLONE_NEWUTS, c"ns/uts"),
    (libc::CLONE_NEWNET, c"ns/net"),
    (libc::CLONE_NEWPID, c"ns/pid"),
    (libc::CLONE_NEWTIME, c"ns/time"),
    (libc::CLONE_NEWNS, c"ns/mnt"),
];

/// Makes new namespaces: `unshare(2)`. ENOSPC: a `user.max_*_namespaces` is reached.
pub fn unshare(kinds: i32) -> nix::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::from_bits_retain(kinds))
}

/// Sets the host name of the UTS namespace: `sethostname(2)`. EINVAL: over 64 bytes.
pub fn set_hostname(name: &CStr) -> nix::Result<()> {
    // SAFETY: pointer and length are those of one live string.
    check(libc::c_long::from(unsafe { libc::sethostname(name.as_ptr(), name.count_bytes()) })).map(drop)
}

/// Sets the NIS domain name of the UTS namespace: `setdomainname(2)`.
pub fn set_domainname(name: &CStr) -> nix::Result<()> {
    // SAFETY: pointer and length are those of one live string.
    check(libc::c_long::from(unsafe { libc::setdomainname(name.as_ptr(), name.count_bytes()) })).map(drop)
}

/// What the kernel told this process at exec, `AT_*`, without a system call: `getauxval(3)`. 0 for what it did not say.
pub fn auxiliary(kind: libc::c_ulong) -> libc::c_ulong {
    // SAFETY: it takes a number and gives one; the table that it reads stays as the kernel made it.
    unsafe { libc::getauxval(kind) }
}

/// Sets the file mode creation mask, which cannot fail: `umask(2)`.
pub fn set_umask(mask: u32) -> nix::Result<()> {
    let _ = nix::sys::stat::umask(Mode::from_bits_truncate(mask));
    Ok(())
}
