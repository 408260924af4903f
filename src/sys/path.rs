//! Paths below a descriptor: `openat2(2)`, and what is done to a file by name in a directory.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag},
};

use super::{
    absent::{Newer, told},
    check, retry, walk,
};

/// `O_PATH`, closed by exec.
pub const REFERENCE: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// Links are followed but never lead out, and magic links of procfs are refused.
pub const IN_ROOT: ResolveFlag = ResolveFlag::RESOLVE_IN_ROOT.union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

/// How often EAGAIN, which a rename or a mount anywhere on the machine causes, is tried again.
const ATTEMPTS: u32 = 64;

/// Opens a path below `root`: `openat2(2)` (Linux 5.6), or, where it is not there, the same by small steps. EXDEV or
/// ELOOP: the path leads where `resolve` forbids.
pub fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlag, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags).resolve(resolve);
    for _ in 0..ATTEMPTS {
        match retry(|| nix::fcntl::openat2(root, path, how)) {
            Err(Errno::EAGAIN) => {}
            Err(errno) if told(Newer::OpenAt2, errno) == Errno::ENOSYS => {
                return walk::open(root, path, flags, resolve);
            }
            done => return done,
        }
    }
    // Where others mount without a pause, the kernel may never answer. Small steps do not care.
    walk::open(root, path, flags, resolve)
}

/// Opens a name in a directory of pura's own, or a path of the host: a network file system lets a signal interrupt that.
pub fn open_at<P: ?Sized + nix::NixPath>(
    directory: impl AsFd,
    path: &P,
    flags: OFlag,
    mode: nix::sys::stat::Mode,
) -> nix::Result<OwnedFd> {
    retry(|| nix::fcntl::openat(directory.as_fd(), path, flags | OFlag::O_CLOEXEC, mode))
}

/// Opens a path of the host: one that the caller, not the container, has chosen.
pub fn open_host(path: &CStr, flags: OFlag) -> nix::Result<OwnedFd> {
    retry(|| nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty()))
}

/// Creates an empty regular file by name in a directory, without opening it: `mknodat(2)`. EEXIST as it is.
pub fn create_file(directory: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    // SAFETY: the descriptor is borrowed, the name a C string; a regular file takes no device number.
    check(libc::c_long::from(unsafe { libc::mknodat(directory.as_raw_fd(), name.as_ptr(), libc::S_IFREG | 0o644, 0) }))
        .map(drop)
}

/// Creates a directory, 0755, by name in a directory: `mkdirat(2)`.
pub fn create_directory(directory: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    // SAFETY: the descriptor is borrowed and the name a C string.
    check(libc::c_long::from(unsafe { libc::mkdirat(directory.as_raw_fd(), name.as_ptr(), 0o755) })).map(drop)
}

/// Makes a node by name in a directory: `mknodat(2)`. EPERM: a device, from a user namespace. EEXIST as it is.
pub fn create_node(directory: BorrowedFd<'_>, name: &CStr, mode: u32, device: libc::dev_t) -> nix::Result<()> {
    // SAFETY: the descriptor is borrowed, the name a C string.
    check(libc::c_long::from(unsafe { libc::mknodat(directory.as_raw_fd(), name.as_ptr(), mode, device) })).map(drop)
}

/// Creates a file that was not there and opens it for writing: 0600.
pub fn create_new(directory: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    retry(|| nix::fcntl::openat(directory, name, flags, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR))
}

/// The id of the mount that a path of the host is on, as `/proc/self/mountinfo` counts: `statx(2)` (Linux 5.8).
pub fn mount_id(path: &CStr) -> nix::Result<u64> {
    mount_id_at(AT_FDCWD, path, 0)
}

/// The same, of what a descriptor refers to. ENOSYS: the kernel does not tell.
pub fn mount_id_of(descriptor: BorrowedFd<'_>) -> nix::Result<u64> {
    mount_id_at(descriptor, c"", libc::AT_EMPTY_PATH)
}

fn mount_id_at(directory: BorrowedFd<'_>, path: &CStr, flags: i32) -> nix::Result<u64> {
    // SAFETY: `statx` is plain integers, for which zero is a value.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let (raw, wanted) = (directory.as_raw_fd(), libc::STATX_MNT_ID);
    // SAFETY: the path is a C string, and the kernel writes one `statx`, which lives until the call returns.
    Errno::result(unsafe { libc::statx(raw, path.as_ptr(), flags, wanted, &raw mut found) })?;
    if found.stx_mask & wanted == 0 { Err(Errno::ENOSYS) } else { Ok(found.stx_mnt_id) }
}

/// The file type and permission bits behind a descriptor, and its device numbers: `fstat(2)`.
pub fn stat(descriptor: BorrowedFd<'_>) -> nix::Result<libc::stat> {
    nix::sys::stat::fstat(descriptor)
}

/// Whether the effective ids may execute what `path` leads to, and what it is: `faccessat2(2)`, `stat(2)`.
///
/// EISDIR for a directory, EACCES for whatever else is no regular file.
pub fn executable(path: &CStr) -> nix::Result<File> {
    let stat = nix::sys::stat::stat(path)?;
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => {}
        libc::S_IFDIR => return Err(Errno::EISDIR),
        _ => return Err(Errno::EACCES),
    }
    // The real ids are the effective ones by now, so the plain call says what exec will.
    // SAFETY: the path is a C string.
    check(libc::c_long::from(unsafe { libc::access(path.as_ptr(), libc::X_OK) }))?;
    Ok(File { device: stat.st_dev, inode: stat.st_ino })
}

/// Which file it is, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// The filesystem's device number.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// Whether the current directory lies below the current root; the kernel says "(unreachable)" when it does not.
pub fn inside_root() -> nix::Result<bool> {
    let mut buffer = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: pointer and length are those of one live buffer.
    check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    Ok(buffer.first() == Some(&b'/'))
}

/// Reads a small file of the host, of procfs or cgroupfs, in one read: the kernel makes its text anew for each.
pub fn read<const SIZE: usize>(path: &CStr) -> nix::Result<Vec<u8>> {
    let file = open_host(path, OFlag::O_RDONLY | OFlag::O_NOCTTY)?;
    let mut text = vec![0; SIZE];
    let mut length = 0;
    // A full buffer alone means that there may be more.
    loop {
        let room = text.get_mut(length..).unwrap_or_default();
        let wanted = room.len();
        let count = retry(|| nix::unistd::read(&file, room))?;
        length += count;
        if count < wanted {
            text.truncate(length);
            return Ok(text);
        }
        text.resize(length + SIZE, 0);
    }
}

/// Reads a file of the host to its end, however long: `id_map` files come a page at a time.
pub fn read_to_end(path: &CStr) -> nix::Result<Vec<u8>> {
    let file = open_host(path, OFlag::O_RDONLY | OFlag::O_NOCTTY)?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match retry(|| nix::unistd::read(&file, &mut buffer))? {
            0 => return Ok(bytes),
            length => bytes.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        }
    }
}

/// Writes a whole short text to a file that exists: one `write(2)`, as `uid_map` demands. Gives the file back, open.
pub fn write(path: &CStr, text: &[u8]) -> nix::Result<OwnedFd> {
    let file = open_host(path, OFlag::O_WRONLY)?;
    match retry(|| nix::unistd::write(&file, text))? {
        count if count == text.len() => Ok(file),
        _ => Err(Errno::EIO),
    }
}

/// What a link says that was opened itself: `readlinkat(2)` with an empty path. How long that is.
pub fn read_link(link: BorrowedFd<'_>, into: &mut [u8]) -> nix::Result<usize> {
    read_link_at(link, c"", into)
}

/// What the link with a name in a directory says: `readlinkat(2)`. How long that is.
pub fn read_link_at(directory: BorrowedFd<'_>, name: &CStr, into: &mut [u8]) -> nix::Result<usize> {
    let raw = directory.as_raw_fd();
    // SAFETY: the descriptor is borrowed, the path a C string, and pointer and length are those of one live buffer.
    let length = unsafe { libc::readlinkat(raw, name.as_ptr(), into.as_mut_ptr().cast(), into.len()) };
    usize::try_from(Errno::result(length)?).map_err(|_negative| Errno::EINVAL)
}

/// The current directory as a descriptor argument.
pub fn here() -> BorrowedFd<'static> {
    AT_FDCWD
}

/// Whether a file of the host has file capabilities: the attribute `security.capability`, `xattr(7)`.
pub fn has_capabilities(path: &std::path::Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: both strings end with NUL; with a size of 0 nothing is written.
    unsafe { libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) > 0 }
}
