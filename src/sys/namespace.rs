//! Questions to namespaces: `ioctl_nsfs(2)`.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use super::{check, fd::adopt};

const NS_GET_USERNS: libc::Ioctl = 0xb701;
/// `_IOR(0xb7, 5, __u64)`, `linux/nsfs.h`.
const NS_GET_MNTNS_ID: libc::Ioctl = 0x8008_b705_u32 as libc::Ioctl;
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

/// The id of a mount namespace, which no other one gets before the next boot, unlike its inode number (Linux 6.11). ENOTTY:
/// the kernel has none, or it is another kind of namespace.
pub fn mounts_id(namespace: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut id = 0_u64;
    let done = {
        // SAFETY: the descriptor is borrowed, and the kernel writes the eight bytes of `id`.
        unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_MNTNS_ID, &raw mut id) }
    };
    check(libc::c_long::from(done)).map(|_zero| id)
}
