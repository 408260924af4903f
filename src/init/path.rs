//! Mount points below the container's root. No path of the container is ever resolved in another way.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, ResolveFlag},
};

use crate::{
    plan::Target,
    sys::path::{IN_ROOT, REFERENCE, create_directory, create_file, open},
};

/// `PATH_MAX`, with its NUL.
const LONGEST: usize = 4096;

/// Opens `path` below `root`, and makes it when it is missing: parents as directories, the last part as `target` says.
///
/// Never `O_CREAT` and never a whole path: each part is made by name in a directory that was opened before, so that a
/// container that shares the root and swaps links cannot lead us out (CVE-2021-30465, CVE-2024-45310).
pub(super) fn find(root: BorrowedFd<'_>, path: &CStr, target: Target) -> nix::Result<OwnedFd> {
    let last = if target == Target::File { REFERENCE } else { REFERENCE | OFlag::O_DIRECTORY };
    let resolve = match target {
        Target::Directory | Target::File => IN_ROOT,
        Target::RealDirectory => IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS,
    };
    match open(root, path, last, resolve) {
        Err(Errno::ENOENT) => make(root, path, target),
        done => done,
    }
}

/// Makes what is missing of `path`, part by part, and opens the last one.
fn make(root: BorrowedFd<'_>, path: &CStr, target: Target) -> nix::Result<OwnedFd> {
    let bytes = path.to_bytes();
    let (mut above, mut from) = existing(root, bytes)?;
    while let Some((start, end)) = part(bytes, from) {
        let mut name = [0_u8; LONGEST];
        let name = terminated(&mut name, bytes.get(start..end).unwrap_or_default())?;
        let parent = above.as_ref().map_or(root, |above| above.as_fd());
        let is_file = part(bytes, end).is_none() && target == Target::File;
        make_one(parent, name, is_file)?;
        let kind = if is_file { OFlag::empty() } else { OFlag::O_DIRECTORY };
        above = Some(open(parent, name, REFERENCE | OFlag::O_NOFOLLOW | kind, IN_ROOT)?);
        from = end;
    }
    above.ok_or(Errno::ENOENT)
}

/// The longest prefix of `path` that is there, open, and where it ends; mostly only the last part is missing.
fn existing(root: BorrowedFd<'_>, path: &[u8]) -> nix::Result<(Option<OwnedFd>, usize)> {
    let mut end = path.len();
    while let Some(start) = last_part(path, end) {
        let mut prefix = [0_u8; LONGEST];
        let prefix = terminated(&mut prefix, path.get(..start).unwrap_or_default())?;
        if prefix.to_bytes().iter().all(|byte| *byte == b'/') {
            break;
        }
        match open(root, prefix, REFERENCE | OFlag::O_DIRECTORY, IN_ROOT) {
            Err(Errno::ENOENT) => end = start,
            opened => return opened.map(|opened| (Some(opened), start)),
        }
    }
    Ok((None, 0))
}

/// Makes one name. A link that leads nowhere has the name already, and nothing is made through it: EEXIST becomes ELOOP.
fn make_one(above: BorrowedFd<'_>, name: &CStr, file: bool) -> nix::Result<()> {
    if matches!(name.to_bytes(), b"." | b"..") {
        return Err(Errno::EINVAL);
    }
    let made = if file { create_file(above, name) } else { create_directory(above, name) };
    match made {
        Err(Errno::EEXIST) => match open(above, name, REFERENCE | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY, IN_ROOT) {
            // Another container on the same root was faster.
            Ok(_directory) if !file => Ok(()),
            _ => Err(Errno::ELOOP),
        },
        done => done,
    }
}

/// The next part of a path at or after `from`: its bounds.
fn part(path: &[u8], from: usize) -> Option<(usize, usize)> {
    let tail = path.get(from..)?;
    let start = from + tail.iter().position(|byte| *byte != b'/')?;
    let length = path.get(start..)?.iter().position(|byte| *byte == b'/');
    Some((start, length.map_or(path.len(), |length| start + length)))
}

/// Where the last part of the path before `end` starts.
fn last_part(path: &[u8], end: usize) -> Option<usize> {
    let head = path.get(..end)?;
    let length = head.iter().rposition(|byte| *byte != b'/')? + 1;
    Some(head.get(..length)?.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1))
}

/// `bytes` as a C string in `buffer`.
fn terminated<'a>(buffer: &'a mut [u8; LONGEST], bytes: &[u8]) -> nix::Result<&'a CStr> {
    let room = buffer.get_mut(..bytes.len()).ok_or(Errno::ENAMETOOLONG)?;
    room.copy_from_slice(bytes);
    CStr::from_bytes_until_nul(buffer.as_slice()).map_err(|_full| Errno::ENAMETOOLONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Vec<&str> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some((start, end)) = part(path.as_bytes(), from) {
            found.push(&path[start..end]);
            from = end;
        }
        found
    }

    #[test]
    fn a_path_is_taken_apart_at_its_slashes() {
        assert_eq!(parts("/a//bc/d/"), ["a", "bc", "d"]);
        assert_eq!(parts("a"), ["a"]);
        assert!(parts("///").is_empty());
    }

    #[test]
    fn the_last_part_is_found_from_the_end() {
        assert_eq!(last_part(b"/a//bc/", 7), Some(4));
        assert_eq!(last_part(b"/a//bc/", 4), Some(1));
        assert_eq!(last_part(b"a", 1), Some(0));
        assert_eq!(last_part(b"///", 3), None);
    }

    #[test]
    fn missing_parents_are_made_and_links_stay_inside() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        let directory = std::fs::File::open(root.path()).unwrap();
        find(directory.as_fd(), c"/a/b/file", Target::File).unwrap();
        assert!(root.path().join("a/b/file").is_file());
        // The link leads to a path that does not exist below the root: nothing is made, outside least of all.
        assert!(find(directory.as_fd(), c"/link/x", Target::Directory).is_err());
        assert!(!outside.path().join("x").exists());
        find(directory.as_fd(), c"../../b", Target::Directory).unwrap();
        assert!(root.path().join("b").is_dir());
        assert_eq!(find(directory.as_fd(), c"/link", Target::RealDirectory).unwrap_err(), Errno::ELOOP);
    }
}
