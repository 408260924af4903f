//! Network: only what a fresh network namespace needs.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::check;

/// `IFF_UP | IFF_RUNNING`, as wide as `ifreq` wants them.
const UP: i16 = 0x41;

/// Brings the loopback interface up: `netdevice(7)`. Gives the socket back, open: a sweep closes it with others.
pub fn loopback_up() -> nix::Result<OwnedFd> {
    // SAFETY: plain numbers; the result is checked before it is used.
    let raw =
        check(libc::c_long::from(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: `ifreq` is plain bytes, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = UP;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives until the call returns.
    check(libc::c_long::from(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) }))
        .map(|_| socket)
}
