//! Mount points below the container's root. No path of the container is ever resolved in another way.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, ResolveFlag},
    sys::statfs::{PROC_SUPER_MAGIC, fstatfs},
};

use crate::{
    plan::Target,
    sys::path::{IN_ROOT, REFERENCE, create_directory, create_file, open},
};

/// `PATH_MAX`, with its NUL.
const LONGEST: usize = 4096;

/// Below the root, and by no link.
const STRAIGHT: ResolveFlag = IN_ROOT.union(ResolveFlag::RESOLVE_NO_SYMLINKS);

/// Finds a mount point as [`reach`] does. EXDEV: links have led to something in procfs, where a mount would redirect what the
/// runtime and the program read (CVE-2019-16884); what the config may mount there, it names without a link.
pub(super) fn find(root: BorrowedFd<'_>, path: &CStr, target: Target) -> nix::Result<OwnedFd> {
    let Reached { opened, by_link } = walk(root, path, target)?;
    if by_link && fstatfs(&opened)?.filesystem_type() == PROC_SUPER_MAGIC { Err(Errno::EXDEV) } else { Ok(opened) }
}

/// Opens `path` below `root`, and makes it when it is missing: parents as directories, the last part as `target` says.
///
/// Never `O_CREAT` and never a whole path: each part is made by name in a directory that was opened before, so that a
/// container that shares the root and swaps links cannot lead us out (CVE-2021-30465, CVE-2024-45310).
pub(super) fn reach(root: BorrowedFd<'_>, path: &CStr, target: Target) -> nix::Result<OwnedFd> {
    walk(root, path, target).map(|reached| reached.opened)
}

/// What a path leads to.
struct Reached {
    opened: OwnedFd,
    /// A link of the image was on the way.
    by_link: bool,
}

fn walk(root: BorrowedFd<'_>, path: &CStr, target: Target) -> nix::Result<Reached> {
    let last = match target {
        Target::File | Target::Present => REFERENCE,
        Target::Itself => REFERENCE | OFlag::O_NOFOLLOW,
        Target::Directory | Target::RealDirectory => REFERENCE | OFlag::O_DIRECTORY,
    };
    // Without links, as nearly always: the one call says so.
    let (mut found, mut by_link) = (open(root, path, last, STRAIGHT), false);
    if matches!(found, Err(Errno::ELOOP)) && target != Target::RealDirectory {
        (found, by_link) = (open(root, path, last, IN_ROOT), true);
    }
    match found {
        Err(Errno::ENOENT) if !matches!(target, Target::Present | Target::Itself) => {}
        found => return found.map(|opened| Reached { opened, by_link }),
    }
    let mut buffer = [0_u8; LONGEST];
    let mut path = terminated(&mut buffer, path.to_bytes())?;
    let mut other = [0_u8; LONGEST];
    for _ in 0..MOST_LINKS {
        match make(root, path, target, by_link)? {
            Made::Whole(opened) => return Ok(Reached { opened, by_link }),
            Made::Link { link, start, end } if target != Target::RealDirectory => {
                by_link = true;
                let length = follow(link.as_fd(), path, (start, end), &mut other)?;
                buffer = [0; LONGEST];
                path = terminated(&mut buffer, other.get(..length).unwrap_or_default())?;
            }
            Made::Link { .. } => return Err(Errno::ELOOP),
        }
    }
    Err(Errno::ELOOP)
}

/// Links that lead to what is missing, one after the other: as many as the kernel follows, `path_resolution(7)`.
const MOST_LINKS: usize = 40;

/// How far the making came.
enum Made {
    /// All is there; this is the last part.
    Whole(OwnedFd),
    /// The part of the path from `start` to `end` is a link, open here, to something that is missing.
    Link { link: OwnedFd, start: usize, end: usize },
}

/// Makes what is missing of `path`, part by part. Unless links are on the way already, one that is there now is an error.
fn make(root: BorrowedFd<'_>, path: &CStr, target: Target, by_link: bool) -> nix::Result<Made> {
    let bytes = path.to_bytes();
    let resolve = if by_link { IN_ROOT } else { STRAIGHT };
    let (mut above, mut from) = existing(root, bytes, resolve)?;
    while let Some((start, end)) = part(bytes, from) {
        let mut name = [0_u8; LONGEST];
        let name = terminated(&mut name, bytes.get(start..end).unwrap_or_default())?;
        let parent = above.as_ref().map_or(root, |above| above.as_fd());
        let is_file = part(bytes, end).is_none() && target == Target::File;
        match make_one(parent, name, is_file) {
            // Another container on the same root was faster, or a link has the name.
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        // A directory, as nearly always: the open alone says that it is one, and no link.
        if !is_file {
            match open(parent, name, REFERENCE | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY, IN_ROOT) {
                Err(Errno::ENOTDIR | Errno::ELOOP) => {}
                opened => {
                    above = Some(opened?);
                    from = end;
                    continue;
                }
            }
        }
        let opened = open(parent, name, REFERENCE | OFlag::O_NOFOLLOW, IN_ROOT)?;
        if crate::sys::path::stat(opened.as_fd())?.st_mode & libc::S_IFMT == libc::S_IFLNK {
            return Ok(Made::Link { link: opened, start, end });
        }
        above = Some(opened);
        from = end;
    }
    above.map(Made::Whole).ok_or(Errno::ENOENT)
}

/// Writes the path anew, with what the link says in the place of the link; how long it has become.
///
/// Only text: whatever comes out is looked up below the root again.
fn follow(link: BorrowedFd<'_>, path: &CStr, part: (usize, usize), into: &mut [u8; LONGEST]) -> nix::Result<usize> {
    let mut said = [0_u8; LONGEST];
    let length = crate::sys::path::read_link(link, &mut said)?;
    let said = said.get(..length).ok_or(Errno::ENAMETOOLONG)?;
    let bytes = path.to_bytes();
    let before = if said.first() == Some(&b'/') { 0 } else { part.0 };
    let pieces = [bytes.get(..before).unwrap_or_default(), said, bytes.get(part.1..).unwrap_or_default()];
    let mut at = 0;
    for piece in pieces {
        let end = at + piece.len();
        into.get_mut(at..end).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(piece);
        at = end;
    }
    Ok(at)
}

/// The longest prefix of `path` that is there, open, and where it ends; mostly only the last part is missing.
fn existing(root: BorrowedFd<'_>, path: &[u8], resolve: ResolveFlag) -> nix::Result<(Option<OwnedFd>, usize)> {
    let mut end = path.len();
    while let Some(start) = last_part(path, end) {
        let mut prefix = [0_u8; LONGEST];
        let prefix = terminated(&mut prefix, path.get(..start).unwrap_or_default())?;
        if prefix.to_bytes().iter().all(|byte| *byte == b'/') {
            break;
        }
        match open(root, prefix, REFERENCE | OFlag::O_DIRECTORY, resolve) {
            Err(Errno::ENOENT) => end = start,
            opened => return opened.map(|opened| (Some(opened), start)),
        }
    }
    Ok((None, 0))
}

/// Makes one name, by which nothing is ever reached that is not in the directory itself.
fn make_one(above: BorrowedFd<'_>, name: &CStr, file: bool) -> nix::Result<()> {
    if matches!(name.to_bytes(), b"." | b"..") {
        return Err(Errno::EINVAL);
    }
    if file { create_file(above, name) } else { create_directory(above, name) }
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
    fn no_link_leads_into_procfs() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/proc", root.path().join("to-proc")).unwrap();
        std::os::unix::fs::symlink("real", root.path().join("link")).unwrap();
        std::fs::create_dir(root.path().join("real")).unwrap();
        let directory = std::fs::File::open("/").unwrap();
        let found = |path: &str, target| {
            let path = format!("{}/{path}", root.path().display());
            find(directory.as_fd(), &std::ffi::CString::new(path).unwrap(), target)
        };
        for path in ["to-proc", "to-proc/1", "to-proc/self/attr", "link/../to-proc/1/attr/"] {
            for target in [Target::Directory, Target::Present] {
                assert_eq!(found(path, target).unwrap_err(), Errno::EXDEV, "{path} {target:?}");
            }
        }
        assert_eq!(found("to-proc/meminfo", Target::File).unwrap_err(), Errno::EXDEV);
        assert_eq!(found("to-proc/meminfo", Target::Itself).unwrap_err(), Errno::EXDEV);
        found("to-proc", Target::Itself).unwrap();
        found("link", Target::Directory).unwrap();
        found("link/made", Target::Directory).unwrap();
        assert!(root.path().join("real/made").is_dir());
        find(directory.as_fd(), c"/proc/meminfo", Target::File).unwrap();
        reach(directory.as_fd(), c"/proc/self", Target::Directory).unwrap();
    }

    #[test]
    fn missing_parents_are_made_and_links_stay_inside() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        let directory = std::fs::File::open(root.path()).unwrap();
        find(directory.as_fd(), c"/a/b/file", Target::File).unwrap();
        assert!(root.path().join("a/b/file").is_file());
        // The link leads out: below the root, the same path is made, and outside nothing is.
        find(directory.as_fd(), c"/link/x", Target::Directory).unwrap();
        assert!(!outside.path().join("x").exists());
        assert!(root.path().join(outside.path().strip_prefix("/").unwrap()).join("x").is_dir());
        std::os::unix::fs::symlink("../loop", root.path().join("loop")).unwrap();
        assert_eq!(find(directory.as_fd(), c"/loop/x", Target::Directory).unwrap_err(), Errno::ELOOP);
        find(directory.as_fd(), c"../../b", Target::Directory).unwrap();
        assert!(root.path().join("b").is_dir());
        assert_eq!(find(directory.as_fd(), c"/link", Target::RealDirectory).unwrap_err(), Errno::ELOOP);
    }
}
