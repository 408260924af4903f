//! Mounts by `mount(2)` alone, where `open_tree(2)`, `move_mount(2)` or `mount_setattr(2)` is not there.
//!
//! `mount(2)` takes only paths. A path of the container could be swapped, so a descriptor is named by its number in
//! `/proc/self/fd`, from a directory that is known to be that: [`procfs::own`].

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, ResolveFlag},
    mount::{MsFlags, mount},
    unistd::fchdir,
};

use super::{
    check,
    mountinfo::Mounts,
    path::{IN_ROOT, REFERENCE, mount_id_of, open, open_host, read_link_at, stat},
    procfs,
};

/// What `statvfs(3)` calls it; `MS_RELATIME` is another number.
const ST_RELATIME: u64 = 4096;
/// The same of `MS_NOSYMFOLLOW`: Linux 5.10.
pub(super) const ST_NOSYMFOLLOW: u64 = 0x2000;
const MS_NOSYMFOLLOW: u64 = 256;
const NONE: Option<&CStr> = None;

/// Binds what is behind `from`, with `recursive` all that is mounted below it too, on what is behind `on`: the new mount.
///
/// ENOSYS: there is no `/proc` that could name them. ESTALE: `on` was moved meanwhile.
pub fn bind(from: BorrowedFd<'_>, on: BorrowedFd<'_>, recursive: bool) -> nix::Result<OwnedFd> {
    let numbers = Numbers::enter()?;
    let flags = if recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
    let mut said = [0_u8; 4096];
    let (source, target) = (Number::of(from), Number::of(on));
    mount(Some(source.text()?), target.text()?, NONE, flags, NONE)?;
    // The descriptor has what is covered now; what covers it is found by its path.
    let length = read_link_at(numbers.directory.as_fd(), target.text()?, &mut said)?;
    let path = said.get(..=length).and_then(|said| CStr::from_bytes_until_nul(said).ok()).ok_or(Errno::ENAMETOOLONG)?;
    drop(numbers);
    let attached = at(path)?;
    let (wanted, found) = (stat(from)?, stat(attached.as_fd())?);
    let is_it = (wanted.st_dev, wanted.st_ino) == (found.st_dev, found.st_ino);
    if is_it && mount_id_of(attached.as_fd())? != mount_id_of(on)? { Ok(attached) } else { Err(Errno::ESTALE) }
}

/// A path that the kernel has told: there are no links in it.
fn at(path: &CStr) -> nix::Result<OwnedFd> {
    let root = open_host(c"/", REFERENCE | OFlag::O_DIRECTORY)?;
    // The last part may be one that was mounted itself.
    open(root.as_fd(), path, REFERENCE | OFlag::O_NOFOLLOW, IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS)
}

/// Sets and clears `MOUNT_ATTR_*` of a mount that is attached, and with `recursive` of all below it.
///
/// One that another covers is out of reach and stays as it is: whoever may uncover it may change it too. EPERM: one that is
/// to be cleared is locked.
pub fn set_attributes(mount: BorrowedFd<'_>, set: u64, clear: u64, recursive: bool) -> nix::Result<()> {
    remount(mount, set, clear)?;
    if !recursive {
        return Ok(());
    }
    let below = Mounts::below(mount_id_of(mount)?)?;
    below.each(|id, path| {
        let found = at(path)?;
        if mount_id_of(found.as_fd())? == id { remount(found.as_fd(), set, clear) } else { Ok(()) }
    })
}

fn remount(target: BorrowedFd<'_>, set: u64, clear: u64) -> nix::Result<()> {
    let flags = changed(as_mount_flags(mount_flags(target)?), set, clear);
    let _numbers = Numbers::enter()?;
    let flags = MsFlags::from_bits_retain(flags) | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    mount(NONE, Number::of(target).text()?, NONE, flags, NONE)
}

/// Changes the propagation of the mount whose root is behind a descriptor.
pub fn set_propagation(target: BorrowedFd<'_>, flags: u64) -> nix::Result<()> {
    let _numbers = Numbers::enter()?;
    mount(NONE, Number::of(target).text()?, NONE, MsFlags::from_bits_retain(flags), NONE)
}

/// The directory in which each of our descriptors has its number for a name, as the current one until it is dropped.
struct Numbers {
    directory: OwnedFd,
    before: OwnedFd,
}

impl Numbers {
    fn enter() -> nix::Result<Self> {
        let own = procfs::own(c"self/fd", REFERENCE | OFlag::O_DIRECTORY);
        let directory = own.map_err(|_none| Errno::ENOSYS)?;
        let before = open_host(c".", REFERENCE | OFlag::O_DIRECTORY)?;
        fchdir(&directory)?;
        Ok(Self { directory, before })
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        // It was the current one, so it can be entered; and steps that need another enter it themselves.
        let _ = fchdir(&self.before);
    }
}

/// A descriptor's number as text.
struct Number([u8; 12]);

impl Number {
    fn of(descriptor: BorrowedFd<'_>) -> Self {
        let number = descriptor.as_raw_fd().unsigned_abs();
        let mut text = [0; 12];
        let length = number.checked_ilog10().unwrap_or(0) as usize + 1;
        let mut rest = number;
        for digit in text.iter_mut().take(length).rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        Self(text)
    }

    fn text(&self) -> nix::Result<&CStr> {
        CStr::from_bytes_until_nul(&self.0).map_err(|_full| Errno::EBADF)
    }
}

/// What a mount is, `ST_*`: `fstatvfs(3)`.
pub fn mount_flags(mount: BorrowedFd<'_>) -> nix::Result<u64> {
    // SAFETY: `statvfs` is plain integers, for which zero is a value.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is borrowed, and one `statvfs` is written, which lives until the call returns.
    check(libc::c_long::from(unsafe { libc::fstatvfs(mount.as_raw_fd(), &raw mut found) }))?;
    Ok(found.f_flag)
}

/// The attributes of the mount behind a descriptor that a remount must keep: as `MS_*`.
pub fn locked_flags(mount: BorrowedFd<'_>) -> nix::Result<u64> {
    mount_flags(mount).map(|flags| as_mount_flags(flags) & !libc::MS_STRICTATIME)
}

/// `ST_*` as `MS_*`, all that a remount has to say for things to stay as they are.
fn as_mount_flags(flags: u64) -> u64 {
    // ST_RDONLY, NOSUID, NODEV, NOEXEC, NOATIME and NODIRATIME have the values of their MS_ names.
    let same = flags & 0b1100_0000_1111;
    let has = |flag: u64, then: u64| if flags & flag == 0 { 0 } else { then };
    let time = match (flags & libc::MS_NOATIME, flags & ST_RELATIME) {
        (0, 0) => libc::MS_STRICTATIME,
        (0, _) => libc::MS_RELATIME,
        _ => 0,
    };
    same | time | has(ST_NOSYMFOLLOW, MS_NOSYMFOLLOW)
}

/// `MS_*` after `MOUNT_ATTR_*` have been set and cleared.
fn changed(flags: u64, set: u64, clear: u64) -> u64 {
    const TIMES: u64 = libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;
    let plain = |attributes: u64| {
        let has = |attribute: u64, flag: u64| if attributes & attribute == 0 { 0 } else { flag };
        // RDONLY, NOSUID, NODEV and NOEXEC have the values of their MS_ names.
        attributes & 0b1111
            | has(libc::MOUNT_ATTR_NODIRATIME, libc::MS_NODIRATIME)
            | has(libc::MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW)
    };
    let flags = flags & !plain(clear) | plain(set);
    if clear & libc::MOUNT_ATTR__ATIME == 0 {
        return flags;
    }
    // An enumeration, of which only the whole can be cleared.
    let time = match set & libc::MOUNT_ATTR__ATIME {
        libc::MOUNT_ATTR_NOATIME => libc::MS_NOATIME,
        libc::MOUNT_ATTR_STRICTATIME => libc::MS_STRICTATIME,
        _ => libc::MS_RELATIME,
    };
    flags & !TIMES | time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_has_its_number_for_a_name() {
        let directory = std::fs::File::open("/proc/self/fd").unwrap();
        for minimum in [0, 10, 200] {
            let copy = nix::fcntl::fcntl(&directory, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(minimum)).unwrap();
            let copy = super::super::fd::adopt(copy);
            let number = Number::of(copy.as_fd());
            assert_eq!(number.text().unwrap().to_str().unwrap(), copy.as_raw_fd().to_string());
        }
    }

    #[test]
    fn attributes_become_flags_and_others_stay() {
        use libc::{
            MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
            MOUNT_ATTR_STRICTATIME, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOSUID, MS_RDONLY, MS_RELATIME,
            MS_STRICTATIME,
        };
        for (flags, set, clear, wanted) in [
            (MS_NOSUID | MS_RELATIME, MOUNT_ATTR_RDONLY, 0, MS_NOSUID | MS_RELATIME | MS_RDONLY),
            (MS_RDONLY | MS_NODEV, 0, MOUNT_ATTR_RDONLY, MS_NODEV),
            (MS_RELATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME, MS_NOATIME),
            (MS_NOATIME, 0, MOUNT_ATTR__ATIME, MS_RELATIME),
            (MS_NOATIME, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME, MS_STRICTATIME),
            (MS_RELATIME, MOUNT_ATTR_NODIRATIME, 0, MS_RELATIME | MS_NODIRATIME),
            (MS_RELATIME, MOUNT_ATTR_NOSYMFOLLOW, 0, MS_RELATIME | MS_NOSYMFOLLOW),
            (MS_RELATIME | MS_NOSYMFOLLOW, 0, MOUNT_ATTR_NOSYMFOLLOW, MS_RELATIME),
        ] {
            assert_eq!(changed(flags, set, clear), wanted, "{flags:#x} +{set:#x} -{clear:#x}");
        }
    }

    #[test]
    fn a_remount_says_all_that_is_to_stay() {
        let all = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        assert_eq!(as_mount_flags(0b1111 | ST_RELATIME), all | libc::MS_RELATIME);
        assert_eq!(as_mount_flags(0), libc::MS_STRICTATIME);
        assert_eq!(as_mount_flags(libc::MS_NOATIME | ST_NOSYMFOLLOW), libc::MS_NOATIME | MS_NOSYMFOLLOW);
    }
}
