//! Processes by descriptor: no recycled id is ever signalled or waited for.

use std::{
    ffi::CString,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        stat::Mode,
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Pid, read},
};

use super::{
    absent::{Newer, told},
    check,
    fd::adopt,
    path::open_host,
    retry,
};

/// How often a process is looked at that cannot be waited for, in milliseconds.
const INTERVAL: u8 = 5;

/// Opens a process by id: `pidfd_open(2)` (Linux 5.3). ESRCH: there is none.
pub fn open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let opened = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
    opened.map(adopt).map_err(|errno| told(Newer::PidfdOpen, errno))
}

/// The same; where the call is not there, the process's directory in `/proc`, which is bound to it as well.
pub fn find(pid: i32) -> nix::Result<OwnedFd> {
    match open(pid) {
        Err(Errno::ENOSYS) => {}
        opened => return opened,
    }
    let path = CString::new(format!("/proc/{pid}")).unwrap_or_default();
    match open_host(&path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Err(Errno::ENOENT) => Err(Errno::ESRCH),
        opened => opened,
    }
}

/// Sends a signal; 0 only asks whether that is possible: `pidfd_send_signal(2)` (Linux 5.1), which takes a directory of
/// `/proc` too. ESRCH: it has ended. ENOSYS: the call is not there, and no other is sure to reach the same process.
pub fn send(process: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    // SAFETY: the descriptor is borrowed; without a siginfo the kernel fills one as for kill(2).
    let sent = check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, 0_usize, 0) });
    sent.map(drop).map_err(|errno| told(Newer::PidfdSendSignal, errno))
}

/// `PIDFD_GET_INFO`: 64 bytes, read and written; include/uapi/linux/pidfd.h.
const GET_INFO: libc::Ioctl = 0xc040_ff0b;
/// `PIDFD_INFO_EXIT` (Linux 6.15)
const INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info`, of which only the ends matter here.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    between: [u32; 13],
    exit_code: i32,
}

/// Waits until the process has ended, however long that takes.
pub fn wait_for_end(process: &OwnedFd) -> nix::Result<()> {
    let mut wanted = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    retry(|| poll(&mut wanted, PollTimeout::NONE)).map(drop)
}

/// Waits until its parent has fetched the exit status, at most `limit` milliseconds; whether it has.
pub fn wait_until_reaped(process: &OwnedFd, limit: u16) -> bool {
    // No event but POLLHUP, which always counts (Linux 6.9).
    let mut wanted = [PollFd::new(process.as_fd(), PollFlags::empty())];
    retry(|| poll(&mut wanted, PollTimeout::from(limit))) == Ok(1)
}

/// How a process ended whose parent has fetched that. Nothing before Linux 6.15.
pub fn ending(process: &OwnedFd) -> Option<WaitStatus> {
    let mut info = Info { mask: INFO_EXIT, ..Info::default() };
    // SAFETY: the descriptor is owned by the caller, and the kernel writes at most the size that the request names, which
    // is that of `info`.
    let done = unsafe { libc::ioctl(process.as_raw_fd(), GET_INFO, &raw mut info) };
    // Whose status it is, the descriptor says.
    let ending = || WaitStatus::from_raw(Pid::from_raw(0), info.exit_code).ok();
    if done == 0 && info.mask & INFO_EXIT != 0 { ending() } else { None }
}

/// Waits until the process has ended, at most `limit` milliseconds; whether it has.
pub fn wait(process: &OwnedFd, limit: u16) -> bool {
    // Nobody can write to a pidfd, but a directory is always ready for everything.
    let mut wanted = [PollFd::new(process.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
    if retry(|| poll(&mut wanted, PollTimeout::from(limit))) != Ok(1) {
        return false;
    }
    let [answer] = wanted.map(|wanted| wanted.revents().unwrap_or(PollFlags::empty()));
    if !answer.contains(PollFlags::POLLOUT) {
        return true;
    }
    let deadline = Instant::now() + Duration::from_millis(limit.into());
    while !has_ended(process) {
        if Instant::now() >= deadline {
            return false;
        }
        let _ = poll(&mut [], PollTimeout::from(INTERVAL));
    }
    true
}

/// Whether the process behind a directory of `/proc` is gone, or a zombie: `proc_pid_stat(5)`.
fn has_ended(process: &OwnedFd) -> bool {
    let mut stat = [0; 512];
    let opened = retry(|| openat(process, c"stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()));
    let Ok(length) = opened.and_then(|stat_file| retry(|| read(&stat_file, &mut stat))) else { return true };
    let said = stat.get(..length).unwrap_or_default();
    // The name, in parentheses, may hold anything.
    let behind = said.iter().rposition(|byte| *byte == b')').map_or(said.len(), |end| end + 2);
    matches!(said.get(behind), Some(b'Z' | b'X') | None)
}

/// Waits until a child has ended, without reaping it, by asking again and again: where there are no pidfds.
///
/// ETIMEDOUT: past `limit`. ECANCELED: `interrupt` can be read.
pub fn wait_for_child(child: Pid, limit: PollTimeout, interrupt: Option<BorrowedFd<'_>>) -> nix::Result<()> {
    let began = Instant::now();
    // nix's own `as_millis` panics when there is none.
    let limit = u64::try_from(i32::from(limit)).ok().map(Duration::from_millis);
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while retry(|| waitid(Id::Pid(child), flags)) == Ok(WaitStatus::StillAlive) {
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            return Err(Errno::ETIMEDOUT);
        }
        let interrupted = match interrupt {
            Some(interrupt) => poll(&mut [PollFd::new(interrupt, PollFlags::POLLIN)], PollTimeout::from(INTERVAL)),
            None => poll(&mut [], PollTimeout::from(INTERVAL)),
        };
        if interrupted == Ok(1) {
            return Err(Errno::ECANCELED);
        }
    }
    Ok(())
}
