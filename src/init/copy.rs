//! `tmpcopyup`: what a tmpfs covers, copied into it. The covered tree is the image's: each name is opened below the
//! directory that holds it, links are never followed, and what is mounted below stays out.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, ResolveFlag},
    sys::{
        stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchown, fchownat, symlinkat},
};

use crate::sys::{
    copy,
    path::{REFERENCE, create_directory, create_new, create_node, open, read_link, stat},
    retry,
};

/// Directories in directories, as deep as they are copied: two descriptors each.
const DEEPEST: usize = 128;

/// The longest name of a file, with its NUL: `NAME_MAX`.
const NAME: usize = 256;

const INSIDE: ResolveFlag = ResolveFlag::RESOLVE_BENEATH.union(ResolveFlag::RESOLVE_NO_XDEV);
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const CONTENT: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

/// Labels belong to the mount, not to the copy.
const LABEL: &CStr = c"security.selinux";

/// Copies all that is below `from` to below `to`, and with `owner` the owner of `from` itself.
///
/// What could not be copied as it is, for want of power over it, is given back as its last errno. ENAMETOOLONG: the tree
/// is too deep. ENOSPC: the tmpfs is full.
pub(super) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>, owner: bool) -> nix::Result<Option<Errno>> {
    let top = Level { from: open(from, c".", DIRECTORY, INSIDE)?, to: open(to, c".", DIRECTORY, INSIDE)? };
    let mut copy = Copy { levels: [const { None }; DEEPEST], depth: 0, missed: None };
    if owner {
        let found = stat(top.from.as_fd())?;
        copy.note(fchown(&top.to, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid))))?;
    }
    copy.enter(top)?;
    while copy.go_on()? {}
    Ok(copy.missed)
}

/// A directory that is being copied.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
}

struct Copy {
    levels: [Option<Level>; DEEPEST],
    depth: usize,
    missed: Option<Errno>,
}

impl Copy {
    fn enter(&mut self, level: Level) -> nix::Result<()> {
        *self.levels.get_mut(self.depth).ok_or(Errno::ENAMETOOLONG)? = Some(level);
        self.depth += 1;
        Ok(())
    }

    /// Copies the next entries of the innermost directory, up to a directory, which is entered; false at the end of all.
    fn go_on(&mut self) -> nix::Result<bool> {
        let Some(place) = self.depth.checked_sub(1) else { return Ok(false) };
        let Some(level) = self.levels.get_mut(place).and_then(Option::take) else { return Ok(false) };
        let mut buffer = [0_u8; 8192];
        let length = copy::entries(level.from.as_fd(), &mut buffer)?;
        if length == 0 {
            self.depth = place;
            // The outermost has its mode and times from its mount.
            if place > 0 {
                self.finish(&level)?;
            }
            return Ok(true);
        }
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((entry, more)) = Entry::first(rest) {
            rest = more;
            if matches!(entry.name.to_bytes(), b"." | b"..") {
                continue;
            }
            if let Some(below) = self.one(&level, entry.name)? {
                // The buffer is lost: the directory goes on behind this entry later.
                copy::continue_after(level.from.as_fd(), entry.offset)?;
                self.depth = place;
                self.enter(level)?;
                self.enter(below)?;
                return Ok(true);
            }
        }
        self.depth = place;
        self.enter(level)?;
        Ok(true)
    }

    /// Copies one entry; a directory is made and given back.
    fn one(&mut self, level: &Level, name: &CStr) -> nix::Result<Option<Level>> {
        let (from, to) = (level.from.as_fd(), level.to.as_fd());
        let found = match open(from, name, REFERENCE | OFlag::O_NOFOLLOW, INSIDE) {
            // A mount of its own, or gone.
            Err(Errno::EXDEV | Errno::ENOENT) => return Ok(None),
            found => found?,
        };
        let is = stat(found.as_fd())?;
        match is.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                create_directory(to, name)?;
                return match self.readable(open(from, name, DIRECTORY, INSIDE))? {
                    Some(from) => Ok(Some(Level { from, to: open(to, name, DIRECTORY, INSIDE)? })),
                    None => Ok(None),
                };
            }
            libc::S_IFREG => {
                let Some(content) = self.readable(open(from, name, CONTENT, INSIDE))? else { return Ok(None) };
                let made = create_new(to, name)?;
                while retry(|| copy::send(content.as_fd(), made.as_fd()))? > 0 {}
                self.finish(&Level { from: content, to: made })?;
            }
            libc::S_IFLNK => {
                let mut said = [0_u8; 4096];
                let length = read_link(found.as_fd(), &mut said)?;
                // A link that fills the buffer has no NUL behind it.
                let said = CStr::from_bytes_until_nul(said.get(..=length).ok_or(Errno::ENAMETOOLONG)?);
                symlinkat(said.map_err(|_none| Errno::ENAMETOOLONG)?, to, name)?;
                self.dress(to, name, &is)?;
            }
            // A device cannot be made in a user namespace.
            kind => match create_node(to, name, kind | 0o600, is.st_rdev) {
                Err(errno) => self.note(Err(errno))?,
                Ok(()) => self.dress(to, name, &is)?,
            },
        }
        Ok(None)
    }

    /// Owner, extended attributes, mode and times of an open file or directory. The owner first: a change of owner takes
    /// setuid bits and capabilities away.
    fn finish(&mut self, level: &Level) -> nix::Result<()> {
        let is = stat(level.from.as_fd())?;
        self.note(fchown(&level.to, Some(Uid::from_raw(is.st_uid)), Some(Gid::from_raw(is.st_gid))))?;
        let mut names = [0_u8; 4096];
        match copy::attributes(level.from.as_fd(), &mut names) {
            Err(errno) => self.note(Err(errno))?,
            Ok(length) => {
                for name in names.get(..length).unwrap_or_default().split_inclusive(|byte| *byte == 0) {
                    let Ok(name) = CStr::from_bytes_until_nul(name) else { continue };
                    if name != LABEL {
                        let mut value = [0_u8; 4096];
                        self.note(copy::attribute(level.from.as_fd(), level.to.as_fd(), name, &mut value))?;
                    }
                }
            }
        }
        fchmod(&level.to, Mode::from_bits_truncate(is.st_mode))?;
        let (accessed, modified) = times(&is);
        futimens(&level.to, &accessed, &modified)
    }

    /// The same, without attributes, for what is not opened.
    fn dress(&mut self, to: BorrowedFd<'_>, name: &CStr, is: &libc::stat) -> nix::Result<()> {
        let owner = (Some(Uid::from_raw(is.st_uid)), Some(Gid::from_raw(is.st_gid)));
        self.note(fchownat(to, name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW))?;
        if is.st_mode & libc::S_IFMT != libc::S_IFLNK {
            // The name is a node of our own making, which nobody else can reach yet.
            fchmodat(to, name, Mode::from_bits_truncate(is.st_mode), FchmodatFlags::FollowSymlink)?;
        }
        let (accessed, modified) = times(is);
        utimensat(to, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)
    }

    fn readable(&mut self, opened: nix::Result<OwnedFd>) -> nix::Result<Option<OwnedFd>> {
        match opened {
            Err(errno) => self.note(Err(errno)).map(|()| None),
            Ok(opened) => Ok(Some(opened)),
        }
    }

    /// Goes on where the caller has not the power, or the tmpfs not the kind of attribute, and remembers it.
    fn note(&mut self, done: nix::Result<()>) -> nix::Result<()> {
        match done {
            // EINVAL: an owner who is not mapped, or an attribute for one.
            Err(errno @ (Errno::EACCES | Errno::EPERM | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ERANGE)) => {
                self.missed = Some(errno);
                Ok(())
            }
            done => done,
        }
    }
}

fn times(is: &libc::stat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(is.st_atime, is.st_atime_nsec), TimeSpec::new(is.st_mtime, is.st_mtime_nsec))
}

/// An entry of a directory.
#[derive(Debug)]
struct Entry<'a> {
    name: &'a CStr,
    /// Where the directory goes on behind it.
    offset: i64,
}

impl<'a> Entry<'a> {
    /// The first of several, and the rest. `struct linux_dirent64`: inode (8), offset (8), length (2), type (1), name.
    fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let offset = i64::from_ne_bytes(bytes.get(8..16)?.try_into().ok()?);
        let length = usize::from(u16::from_ne_bytes(bytes.get(16..18)?.try_into().ok()?));
        let name = CStr::from_bytes_until_nul(bytes.get(19..length)?).ok()?;
        (name.count_bytes() < NAME).then_some((Self { name, offset }, bytes.get(length..)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    };

    #[test]
    fn a_tree_is_copied_with_modes_times_and_links() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // More entries than fit into the buffer, and directories between them.
        for number in 0..600 {
            fs::write(from.path().join(format!("file-with-a-rather-long-name-{number}")), number.to_string()).unwrap();
            if number % 100 == 0 {
                fs::create_dir_all(from.path().join(format!("dir{number}/a/b/c"))).unwrap();
                fs::write(from.path().join(format!("dir{number}/a/b/c/file")), "deep").unwrap();
            }
        }
        fs::set_permissions(from.path().join("dir100/a"), fs::Permissions::from_mode(0o2711)).unwrap();
        symlink("dir0/a", from.path().join("link")).unwrap();
        nix::unistd::mkfifo(&from.path().join("pipe"), Mode::from_bits_truncate(0o640)).unwrap();
        let open = |path: &std::path::Path| fs::File::open(path).unwrap();
        let missed = tree(open(from.path()).as_fd(), open(to.path()).as_fd(), true).unwrap();
        assert_eq!(missed, None);
        for number in 0..600 {
            let name = format!("file-with-a-rather-long-name-{number}");
            assert_eq!(fs::read_to_string(to.path().join(name)).unwrap(), number.to_string());
        }
        for name in ["dir0", "dir500"] {
            assert_eq!(fs::read_to_string(to.path().join(name).join("a/b/c/file")).unwrap(), "deep");
        }
        let both = |name: &str| [&from, &to].map(|root| fs::symlink_metadata(root.path().join(name)).unwrap());
        for name in ["dir100/a", "link", "pipe", "file-with-a-rather-long-name-7"] {
            let [old, new] = both(name);
            assert_eq!((old.mode(), old.mtime_nsec(), old.uid()), (new.mode(), new.mtime_nsec(), new.uid()), "{name}");
        }
        assert_eq!(fs::read_link(to.path().join("link")).unwrap(), std::path::Path::new("dir0/a"));
    }

    #[test]
    fn a_tree_without_end_is_refused() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(from.path().join("d/".repeat(DEEPEST))).unwrap();
        let open = |path: &std::path::Path| fs::File::open(path).unwrap();
        let refused = tree(open(from.path()).as_fd(), open(to.path()).as_fd(), false);
        assert_eq!(refused, Err(Errno::ENAMETOOLONG));
    }
}
