//! What copying a tree takes, without allocating: directory entries, content, extended attributes.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use nix::errno::Errno;

/// Reads entries of a directory into `buffer`, as `getdents64(2)` lays them out; how many bytes, 0 at the end.
pub fn entries(directory: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<usize> {
    let raw = directory.as_raw_fd();
    // SAFETY: pointer and length are those of one live buffer.
    let length = unsafe { libc::syscall(libc::SYS_getdents64, raw, buffer.as_mut_ptr(), buffer.len()) };
    usize::try_from(Errno::result(length)?).map_err(|_negative| Errno::EINVAL)
}

/// Goes on with the entries of a directory behind one of them: its `d_off`.
pub fn continue_after(directory: BorrowedFd<'_>, offset: i64) -> nix::Result<()> {
    nix::unistd::lseek(directory, offset, nix::unistd::Whence::SeekSet).map(drop)
}

/// Copies as much of a file as the kernel likes to at once: `sendfile(2)`; how many bytes, 0 at the end.
pub fn send(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> nix::Result<usize> {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: both descriptors are borrowed; without an offset the file's own is used.
    let count = unsafe { libc::sendfile(to, from, std::ptr::null_mut(), 1 << 30) };
    usize::try_from(Errno::result(count)?).map_err(|_negative| Errno::EINVAL)
}

/// Reads the names of a file's extended attributes, each with its NUL: `flistxattr(2)`. ERANGE: they do not fit.
pub fn attributes(file: BorrowedFd<'_>, names: &mut [u8]) -> nix::Result<usize> {
    // SAFETY: pointer and length are those of one live buffer.
    let length = unsafe { libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    usize::try_from(Errno::result(length)?).map_err(|_negative| Errno::EINVAL)
}

/// Copies one extended attribute by way of `buffer`: `xattr(7)`. ERANGE: it does not fit.
pub fn attribute(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> nix::Result<()> {
    // SAFETY: the name is a C string; pointer and length are those of one live buffer.
    let length = unsafe { libc::fgetxattr(from.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let length = usize::try_from(Errno::result(length)?).map_err(|_negative| Errno::EINVAL)?;
    let value = buffer.get(..length).ok_or(Errno::ERANGE)?;
    // SAFETY: the name is a C string; pointer and length are those of one live slice.
    Errno::result(unsafe { libc::fsetxattr(to.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
        .map(drop)
}
