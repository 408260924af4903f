//! Processes by descriptor: no recycled id is ever signalled or waited for.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::WaitStatus,
    unistd::Pid,
};

use super::{check, fd::adopt, retry};

/// Opens a process by id: `pidfd_open(2)` (Linux 5.3). ESRCH: there is none.
pub fn open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(adopt)
}

/// Sends a signal; 0 only asks whether that is possible: `pidfd_send_signal(2)` (Linux 5.1). ESRCH: it has ended.
pub fn send(process: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    // SAFETY: the descriptor is borrowed; without a siginfo the kernel fills one as for kill(2).
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, 0_usize, 0) }).map(drop)
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
    let mut wanted = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    retry(|| poll(&mut wanted, PollTimeout::from(limit))) == Ok(1)
}
