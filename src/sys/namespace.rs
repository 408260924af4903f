//! Questions to namespaces: `ioctl_nsfs(2)`.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use super::{check, fd::adopt};

const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// The user namespace that owns a namespace. EPERM: it is not visible from here.
pub fn owner(namespace: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    // SAFETY: the descriptor is borrowed, and the request takes no argument.
    check(libc::c_long::from(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) })).map(adopt)
}

/// The kind of a namespace, `CLONE_NEW*`. ENOTTY: the descriptor is no namespace.
pub fn kind(namespace: BorrowedFd<'_>) -> nix::Result<i32> {
    // SAFETY: the descriptor is borrowed, and the request takes no argument.
    check(libc::c_long::from(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) }))
}
