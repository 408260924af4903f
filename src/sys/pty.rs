//! Pseudoterminals: `pts(4)`, `ioctl_tty(2)`.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::{check, fd::adopt};

/// Filesystem of real pseudoterminals: include/uapi/linux/magic.h.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Rows and columns.
pub type Size = (u16, u16);

/// The other end of a master that was opened: by descriptor, because a path could have been swapped (CVE-2025-52565).
/// ENODEV: the master is no pseudoterminal's.
pub fn peer(master: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives until the call returns.
    check(libc::c_long::from(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }))?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open(2) flags as a number.
    let peer =
        check(libc::c_long::from(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })).map(adopt)?;
    if nix::sys::statfs::fstatfs(&peer)?.filesystem_type().0 != DEVPTS_MAGIC {
        return Err(nix::errno::Errno::ENODEV);
    }
    Ok(peer)
}

/// The size of a terminal. ENOTTY: it is none.
pub fn size(terminal: BorrowedFd<'_>) -> nix::Result<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize`, which lives until the call returns.
    check(libc::c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) }))?;
    Ok((size.ws_row, size.ws_col))
}

/// Sets the size of a terminal; its foreground processes get SIGWINCH.
pub fn set_size(terminal: BorrowedFd<'_>, (rows, columns): Size) -> nix::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one `winsize`, which lives until the call returns.
    check(libc::c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })).map(drop)
}

/// Makes a terminal the controlling one of this session, whose leader calls.
pub fn control(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes a number; 0 steals from nobody.
    check(libc::c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) })).map(drop)
}

/// Makes a descriptor the standard input, output and error.
pub fn become_standard(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    for standard in 0..=2 {
        // SAFETY: plain numbers; what was open as `standard` is closed, and nobody in this process owns that.
        check(libc::c_long::from(unsafe { libc::dup2(terminal.as_raw_fd(), standard) }))?;
    }
    Ok(())
}

/// Gives a terminal to a user, its group left alone.
pub fn give(terminal: BorrowedFd<'_>, uid: u32) -> nix::Result<()> {
    nix::unistd::fchown(terminal, Some(nix::unistd::Uid::from_raw(uid)), None)
}

/// A terminal that passes every key on; what it was before comes back when this is dropped.
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Sets the terminal. ENOTTY: it is none.
    pub fn set(terminal: BorrowedFd<'_>) -> nix::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        let terminal = terminal
            .try_clone_to_owned()
            .map_err(|error| nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        tcsetattr(&terminal, SetArg::TCSADRAIN, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}
