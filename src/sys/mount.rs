//! Mounts: `mount(2)`, `open_tree(2)`, `move_mount(2)`, `mount_setattr(2)`, `pivot_root(2)`.
//!
//! nix does not allocate when it is given `&CStr`.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    mount::{MntFlags, MsFlags, umount2},
    unistd::{chdir, fchdir, pivot_root},
};

use super::{
    absent::{Newer, told},
    check,
    fd::adopt,
};

const NONE: Option<&CStr> = None;
const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC.unsigned_abs();
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const AT_RECURSIVE: u32 = 0x8000;
const AT_EMPTY_PATH: u32 = libc::AT_EMPTY_PATH.unsigned_abs();
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

/// Mounts a new filesystem of `kind` over the directory `on`: `mount(2)` on ".", so that no path is left to be swapped.
/// Changes the current directory. ENOTDIR when `on` is a file.
pub fn mount_on(on: BorrowedFd<'_>, kind: &CStr, source: &CStr, flags: u64, data: &CStr) -> nix::Result<()> {
    fchdir(on)?;
    nix::mount::mount(Some(source), c".", Some(kind), flags_of(flags), Some(data))
}

fn flags_of(flags: u64) -> MsFlags {
    MsFlags::from_bits_retain(flags)
}

/// Changes the propagation of the mount whose root is behind a descriptor: `mount_setattr(2)` (Linux 5.12).
pub fn set_propagation_of(mount: BorrowedFd<'_>, flags: u64) -> nix::Result<()> {
    let recursive = flags & libc::MS_REC != 0;
    change(
        mount,
        &libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: flags & !libc::MS_REC, userns_fd: 0 },
        recursive,
    )
}

/// Changes the propagation of the mount at a path of the host or, after `pivot_root`, of the container's own root.
pub fn set_propagation(path: &CStr, flags: u64) -> nix::Result<()> {
    nix::mount::mount(NONE, path, NONE, flags_of(flags), NONE)
}

/// Changes flags of the mount whose root is the current directory and of its filesystem: `mount(2)` with `MS_REMOUNT`.
pub fn remount_here(flags: u64, data: &CStr) -> nix::Result<()> {
    nix::mount::mount(NONE, c".", NONE, flags_of(flags) | MsFlags::MS_REMOUNT, Some(data))
}

/// Copies the mount, and with `recursive` all below it, at `path` into a detached tree: `open_tree(2)` (Linux 5.2).
///
/// EINVAL of what is mounted nowhere: Linux before 6.15. EINVAL, not recursive: the mount hides others that this user namespace may not uncover (`mount_namespaces(7)`).
pub fn open_tree(directory: BorrowedFd<'_>, path: &CStr, recursive: bool) -> nix::Result<OwnedFd> {
    let mut flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | if recursive { AT_RECURSIVE } else { 0 };
    if path.is_empty() {
        flags |= AT_EMPTY_PATH;
    }
    // SAFETY: the descriptor is borrowed and the path a C string.
    let tree = check(unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), path.as_ptr(), flags) });
    tree.map(adopt).map_err(|errno| told(Newer::OpenTree, errno))
}

/// As [`open_tree`], of the one mount that a path is on; a link that is the last part is taken itself.
pub fn open_link(directory: BorrowedFd<'_>, path: &CStr) -> nix::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_SYMLINK_NOFOLLOW.unsigned_abs();
    // SAFETY: the descriptor is borrowed and the path a C string.
    let tree = check(unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), path.as_ptr(), flags) });
    tree.map(adopt).map_err(|errno| told(Newer::OpenTree, errno))
}

/// Shows the ids of a detached tree through the maps of a user namespace: `mount_setattr(2)` (Linux 5.12).
///
/// EPERM: the filesystem belongs to a user namespace over which we have no power. EINVAL: it cannot be mapped at all.
pub fn map_ids(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> nix::Result<()> {
    let userns_fd = u64::from(namespace.as_raw_fd().unsigned_abs());
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let size = size_of::<libc::mount_attr>();
    // SAFETY: both descriptors are borrowed, and the kernel reads `size` bytes of `attributes`.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, &raw const attributes, size)
    };
    check(done).map(drop).map_err(|errno| told(Newer::MountSetattr, errno))
}

/// Attaches a detached tree at what `on` and `path` lead to (an empty path: `on` itself): `move_mount(2)` (Linux 5.2).
/// ENOTDIR: one is a directory and the other is not.
pub fn move_mount(tree: BorrowedFd<'_>, on: BorrowedFd<'_>, path: &CStr) -> nix::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | if path.is_empty() { MOVE_MOUNT_T_EMPTY_PATH } else { 0 };
    let (tree, on) = (tree.as_raw_fd(), on.as_raw_fd());
    // SAFETY: both descriptors are borrowed, both paths C strings.
    let moved = check(unsafe { libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), on, path.as_ptr(), flags) });
    moved.map(drop).map_err(|errno| told(Newer::MoveMount, errno))
}

/// Sets and clears attributes of a mount: `mount_setattr(2)` (Linux 5.12). EPERM: one that is to be cleared is locked.
pub fn set_attributes(mount: BorrowedFd<'_>, set: u64, clear: u64, recursive: bool) -> nix::Result<()> {
    change(mount, &libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 }, recursive)
}

fn change(mount: BorrowedFd<'_>, attributes: &libc::mount_attr, recursive: bool) -> nix::Result<()> {
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let size = size_of::<libc::mount_attr>();
    // SAFETY: the descriptor is borrowed, and the kernel reads `size` bytes of `attributes`.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, &raw const *attributes, size)
    };
    check(done).map(drop).map_err(|errno| told(Newer::MountSetattr, errno))
}

/// A new filesystem that is mounted nowhere: `fsopen(2)`, `fsmount(2)` (Linux 5.2).
pub fn detached(kind: &CStr) -> nix::Result<OwnedFd> {
    detached_with(kind, &[])
}

/// The same, with options, as `fsconfig(2)` takes them: a key, and a value or none. EINVAL: one is refused.
pub fn detached_with(kind: &CStr, options: &[(&CStr, Option<&CStr>)]) -> nix::Result<OwnedFd> {
    // SAFETY: the name is a C string.
    let context = check(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) }).map(adopt)?;
    let raw = context.as_raw_fd();
    for (key, value) in options {
        let command = if value.is_some() { FSCONFIG_SET_STRING } else { FSCONFIG_SET_FLAG };
        let value = value.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: the descriptor is owned here, the key a C string; so is the value, or null for a flag, which takes none.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, raw, command, key.as_ptr(), value, 0) })?;
    }
    // SAFETY: the descriptor is owned here; the command takes neither key nor value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, raw, FSCONFIG_CMD_CREATE, 0_usize, 0_usize, 0) })?;
    // SAFETY: the descriptor is owned here; the rest are plain numbers.
    check(unsafe { libc::syscall(libc::SYS_fsmount, raw, FSMOUNT_CLOEXEC, 0) }).map(adopt)
}

/// Binds `source` on `name`, a file of the current directory: `mount(2)`.
pub fn bind_here(source: &CStr, name: &CStr) -> nix::Result<()> {
    nix::mount::mount(Some(source), name, NONE, MsFlags::MS_BIND, NONE)
}

/// Makes `root`, a mount point, the new `/`, and detaches the old one: `pivot_root(2)`.
///
/// EINVAL: it is no mount point, or the old root is the kernel's initramfs.
pub fn pivot(root: BorrowedFd<'_>) -> nix::Result<()> {
    fchdir(root)?;
    // The old root lands on top of the new one, and there it is detached: pivot_root(2), "pivot_root(".", ".")".
    pivot_root(c".", c".")?;
    umount2(c".", MntFlags::MNT_DETACH)?;
    chdir(c"/")
}

/// The way out of an initramfs, whose root has no parent mount and cannot be pivoted: moves `root` over `/` and enters
/// it with `chroot(2)`.
pub fn move_root(root: BorrowedFd<'_>) -> nix::Result<()> {
    fchdir(root)?;
    nix::mount::mount(Some(c"."), c"/", NONE, MsFlags::MS_MOVE, NONE)?;
    nix::unistd::chroot(c".")?;
    chdir(c"/")
}

/// Makes a directory the root and the current directory of this process: `chroot(2)`.
pub fn change_root(root: BorrowedFd<'_>) -> nix::Result<()> {
    fchdir(root)?;
    nix::unistd::chroot(c".")
}

/// Binds a directory on itself, with all that is mounted below: `mount(2)`.
pub fn bind_on_itself(path: &CStr) -> nix::Result<()> {
    nix::mount::mount(Some(path), path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
}
