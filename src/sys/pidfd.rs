//! Processes by descriptor: no recycled id is ever signalled or waited for.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

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

/// Waits until the process has ended, at most `limit` milliseconds; whether it has.
pub fn wait(process: &OwnedFd, limit: u16) -> bool {
    let mut wanted = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    retry(|| poll(&mut wanted, PollTimeout::from(limit))) == Ok(1)
}
