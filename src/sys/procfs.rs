//! Handles of procfs, for what is written below `/proc/sys`: never a path that somebody may have covered.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, ResolveFlag},
    sys::statfs::{PROC_SUPER_MAGIC, fstatfs},
};

use super::{
    mount::detached,
    path::{REFERENCE, open, open_host, stat},
    retry,
};

/// Inode of procfs's root: `PROC_ROOT_INO`, `include/linux/proc_ns.h`.
const ROOT_INODE: u64 = 1;

/// A procfs that is mounted nowhere, so that nothing in it is covered.
///
/// EPERM: the PID namespace is not ours, or the visible procfs has covered parts: `mount_namespaces(7)`.
pub fn fresh() -> nix::Result<OwnedFd> {
    detached(c"proc")
}

/// The procfs at `/proc`, checked to be the root of one (CVE-2025-52881). ENODEV: something else is there.
pub fn outer() -> nix::Result<OwnedFd> {
    let proc = open_host(c"/proc", REFERENCE | OFlag::O_DIRECTORY)?;
    let is_procfs = fstatfs(&proc)?.filesystem_type() == PROC_SUPER_MAGIC;
    if is_procfs && stat(proc.as_fd())?.st_ino == ROOT_INODE { Ok(proc) } else { Err(Errno::ENODEV) }
}

/// Opens what is our own in procfs, `self/...`, checked to be the kernel's. EXDEV: something is mounted over it.
pub fn own(path: &CStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    open(outer()?.as_fd(), path, flags, resolve)
}

/// Writes a short text to a file of a procfs, in one `write(2)`. EXDEV: something is mounted over it.
pub fn write(proc: BorrowedFd<'_>, path: &CStr, text: &[u8]) -> nix::Result<()> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_XDEV
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let file = open(proc, path, OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, resolve)?;
    match retry(|| nix::unistd::write(&file, text))? {
        count if count == text.len() => Ok(()),
        _ => Err(Errno::EIO),
    }
}
