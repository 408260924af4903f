//! `openat2(2)` in user space, where it is not there: the same answers, by small steps that cannot be raced.
//!
//! Each part of the path is opened by name in a directory that is held open, and never followed by the kernel: a link is
//! read, and what it says is walked in its place; `..` is the directory that was held before. So whoever renames or
//! replaces something meanwhile changes what is found, as with openat2, but never leads out of the root. Magic links are
//! refused where openat2 refuses them; here they would lead nowhere anyway, because only their text would count.
//!
//! Nothing is allocated. Differences: paths, with what links have put into them, are limited to 4095 bytes and 128
//! directories (ENAMETOOLONG), and `fs.protected_symlinks` has no say.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, ResolveFlag, openat},
    sys::{
        stat::Mode,
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
};

use super::{
    path::{REFERENCE, mount_id_of, read_link, stat},
    remount::{ST_NOSYMFOLLOW, mount_flags},
    retry,
};

/// `PATH_MAX`, with its NUL.
const LONGEST: usize = 4096;

/// Directories in directories: a descriptor each.
const DEEPEST: usize = 128;

/// As many links as the kernel follows: `path_resolution(7)`.
const MOST_LINKS: u32 = 40;

/// Inode of procfs's root: `PROC_ROOT_INO`, `include/linux/proc_ns.h`.
const PROC_ROOT: u64 = 1;

/// Opens a path below `root` as `openat2(2)` would, for the flags of `resolve` that pura uses: `IN_ROOT` or `BENEATH`,
/// `NO_MAGICLINKS`, `NO_SYMLINKS`, `NO_XDEV`. Never with `O_CREAT`.
///
/// ENOSYS: `NO_XDEV` needs the mount ids of `statx(2)`, Linux 5.8.
pub(super) fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlag, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
    let mut walk = Walk {
        root,
        home: if resolve.contains(ResolveFlag::RESOLVE_NO_XDEV) { Some(mount_id_of(root)?) } else { None },
        above: [const { None }; DEEPEST],
        depth: 0,
        links: 0,
        rest: [0; LONGEST],
        at: 0,
        end: 0,
        flags,
        resolve,
    };
    walk.put(path.to_bytes())?;
    if walk.end == 0 {
        return Err(Errno::ENOENT);
    }
    walk.start()?;
    loop {
        if let Some(opened) = walk.step()? {
            return Ok(opened);
        }
    }
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// The mount that must not be left.
    home: Option<u64>,
    /// The directories from the root to where the walk is.
    above: [Option<OwnedFd>; DEEPEST],
    depth: usize,
    links: u32,
    /// What is still to be walked: `rest[at..end]`.
    rest: [u8; LONGEST],
    at: usize,
    end: usize,
    flags: OFlag,
    resolve: ResolveFlag,
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        let innermost = self.depth.checked_sub(1).and_then(|last| self.above.get(last)?.as_ref());
        innermost.map_or(self.root, OwnedFd::as_fd)
    }

    /// Replaces the rest by `text` and, after a slash, what the rest was.
    fn put(&mut self, text: &[u8]) -> nix::Result<()> {
        let length = self.end - self.at;
        let behind = text.len();
        if behind + length >= LONGEST {
            return Err(Errno::ENAMETOOLONG);
        }
        self.rest.copy_within(self.at..self.end, behind);
        self.rest.get_mut(..behind).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(text);
        (self.at, self.end) = (0, behind + length);
        Ok(())
    }

    fn byte(&self) -> Option<u8> {
        self.rest.get(self.at..self.end)?.first().copied()
    }

    /// At the beginning of a path or of what a link says: a slash leads to the root, or out.
    fn start(&mut self) -> nix::Result<()> {
        if self.byte() == Some(b'/') {
            if !self.resolve.contains(ResolveFlag::RESOLVE_IN_ROOT) {
                return Err(Errno::EXDEV);
            }
            self.leave_to(0);
        }
        self.skip();
        Ok(())
    }

    fn skip(&mut self) {
        while self.byte() == Some(b'/') {
            self.at += 1;
        }
    }

    fn leave_to(&mut self, depth: usize) {
        for place in self.above.iter_mut().skip(depth) {
            *place = None;
        }
        self.depth = depth;
    }

    /// Walks one part; the last one gives what was looked for.
    fn step(&mut self) -> nix::Result<Option<OwnedFd>> {
        let begin = self.at;
        while self.byte().is_some_and(|byte| byte != b'/') {
            self.at += 1;
        }
        let has_slash = self.byte().is_some();
        let mut name = [0_u8; 256];
        let bytes = self.rest.get(begin..self.at).unwrap_or_default();
        name.get_mut(..bytes.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(bytes);
        let name = CStr::from_bytes_until_nul(&name).map_err(|_full| Errno::ENAMETOOLONG)?;
        self.skip();
        let is_last = self.byte().is_none();
        match name.to_bytes() {
            // Nothing but slashes is the directory itself.
            b"" | b"." => {}
            b".." => match self.depth.checked_sub(1) {
                Some(depth) => self.leave_to(depth),
                None if self.resolve.contains(ResolveFlag::RESOLVE_IN_ROOT) => {}
                None => return Err(Errno::EXDEV),
            },
            _ => return self.enter(name, is_last, has_slash),
        }
        // The kernel's "." of a directory is that directory.
        if is_last { self.finish(c".").map(Some) } else { Ok(None) }
    }

    fn enter(&mut self, name: &CStr, is_last: bool, has_slash: bool) -> nix::Result<Option<OwnedFd>> {
        let opened = openat_retried(self.here(), name, REFERENCE | OFlag::O_NOFOLLOW)?;
        let kind = stat(opened.as_fd())?.st_mode & libc::S_IFMT;
        let is_wanted_itself = is_last && !has_slash && self.flags.contains(OFlag::O_NOFOLLOW);
        if kind == libc::S_IFLNK && !is_wanted_itself {
            self.stays(opened.as_fd())?;
            self.follow(opened.as_fd())?;
            // A link to the root itself leaves nothing to be walked.
            return if self.byte().is_none() { self.finish(c".").map(Some) } else { Ok(None) };
        }
        self.stays(opened.as_fd())?;
        let wants_directory = !is_last || has_slash || self.flags.contains(OFlag::O_DIRECTORY);
        if wants_directory && kind != libc::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        if !is_last {
            *self.above.get_mut(self.depth).ok_or(Errno::ENAMETOOLONG)? = Some(opened);
            self.depth += 1;
            return Ok(None);
        }
        if self.flags.contains(OFlag::O_PATH) { Ok(Some(opened)) } else { self.finish(name).map(Some) }
    }

    /// Opens a name of the directory that has been reached, which is no link: one that has become one is ELOOP.
    fn finish(&self, name: &CStr) -> nix::Result<OwnedFd> {
        let opened = openat_retried(self.here(), name, self.flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)?;
        self.stays(opened.as_fd())?;
        Ok(opened)
    }

    fn stays(&self, opened: BorrowedFd<'_>) -> nix::Result<()> {
        match self.home {
            Some(home) if mount_id_of(opened)? != home => Err(Errno::EXDEV),
            _ => Ok(()),
        }
    }

    /// Puts what a link says in the place of the link.
    fn follow(&mut self, link: BorrowedFd<'_>) -> nix::Result<()> {
        self.links += 1;
        if self.links > MOST_LINKS || self.resolve.contains(ResolveFlag::RESOLVE_NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        // Links of procfs that are only text are all in its root: "self" and its like. The others are magic.
        let is_magic = fstatfs(link)?.filesystem_type() == PROC_SUPER_MAGIC && stat(self.here())?.st_ino != PROC_ROOT;
        if is_magic || mount_flags(link)? & ST_NOSYMFOLLOW != 0 {
            return Err(Errno::ELOOP);
        }
        let mut said = [0_u8; LONGEST];
        let length = read_link(link, &mut said)?;
        let said = said.get(..length).filter(|said| said.len() < LONGEST).ok_or(Errno::ENAMETOOLONG)?;
        if said.is_empty() {
            return Err(Errno::ENOENT);
        }
        // The slashes behind the link's name were skipped: one has to stand between, and at the end it has a meaning.
        if let Some(before) = self.at.checked_sub(1).filter(|before| self.rest.get(*before) == Some(&b'/')) {
            self.at = before;
        }
        self.put(said)?;
        self.start()
    }
}

fn openat_retried(directory: BorrowedFd<'_>, name: &CStr, flags: OFlag) -> nix::Result<OwnedFd> {
    retry(|| openat(directory, name, flags, Mode::empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        ffi::CString,
        fs,
        os::unix::fs::symlink,
        path::{Path, PathBuf},
    };

    /// What was found, or why not.
    fn seen(opened: nix::Result<OwnedFd>) -> Result<(u64, u64, u32), Errno> {
        let found = stat(opened?.as_fd())?;
        Ok((found.st_dev, found.st_ino, found.st_mode))
    }

    fn both(root: BorrowedFd<'_>, path: &str, flags: OFlag, resolve: ResolveFlag) {
        let path = CString::new(path).unwrap();
        let kernel = || seen(super::super::path::open(root, &path, flags, resolve));
        // A walk that the kernel starts anew, because something changed meanwhile, counts links on from where it was.
        let kernel = (0..9).map(|_| kernel()).find(|found| *found != Err(Errno::ELOOP)).unwrap_or(Err(Errno::ELOOP));
        let ours = seen(open(root, &path, flags, resolve));
        assert_eq!(ours, kernel, "{path:?} {flags:?} {resolve:?}");
    }

    const IN_ROOT: ResolveFlag = super::super::path::IN_ROOT;
    const BENEATH: ResolveFlag = ResolveFlag::RESOLVE_BENEATH.union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

    fn resolves() -> [ResolveFlag; 5] {
        [
            IN_ROOT,
            BENEATH,
            IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS,
            BENEATH | ResolveFlag::RESOLVE_NO_XDEV,
            BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS,
        ]
    }

    fn flags() -> [OFlag; 6] {
        let read = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        [
            REFERENCE,
            REFERENCE | OFlag::O_NOFOLLOW,
            REFERENCE | OFlag::O_DIRECTORY,
            REFERENCE | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW,
            read,
            read | OFlag::O_NOFOLLOW,
        ]
    }

    fn everywhere(root: BorrowedFd<'_>, path: &str) {
        for flags in flags() {
            for resolve in resolves() {
                both(root, path, flags, resolve);
            }
        }
    }

    /// Numbers that look random and are the same each time: a linear congruential generator.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % limit
        }

        /// A path of a few parts, most of which are somewhere in the tree.
        fn path(&mut self) -> String {
            const PARTS: [&str; 14] = ["a", "b", "c", "f", "l0", "l1", "l2", "l3", "l4", "l5", "..", ".", "", "absent"];
            let mut path = if self.below(3) == 0 { "/".to_owned() } else { String::new() };
            for at in 0..=self.below(5) {
                path += if at > 0 { "/" } else { "" };
                path += PARTS[self.below(PARTS.len())];
            }
            if self.below(5) == 0 { path + "/" } else { path }
        }
    }

    /// Directories three deep, each with a file and six links.
    fn plant(numbers: &mut Numbers, root: &Path) {
        let mut all = vec![PathBuf::new()];
        for outer in ["a", "b", "c"] {
            all.push(outer.into());
            for middle in ["a", "b"] {
                all.push(Path::new(outer).join(middle));
                all.push(Path::new(outer).join(middle).join("c"));
            }
        }
        for directory in all.iter().map(|directory| root.join(directory)) {
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("f"), "").unwrap();
            for link in 0..6 {
                let says = numbers.path();
                symlink(if says.is_empty() { "." } else { &says }, directory.join(format!("l{link}"))).unwrap();
            }
        }
    }

    #[test]
    fn the_kernel_gives_the_same_answers_on_trees_full_of_links() {
        let mut numbers = Numbers(1);
        for _ in 0..4 {
            let above = tempfile::tempdir().unwrap();
            let root = above.path().join("root");
            plant(&mut numbers, &root);
            let directory = fs::File::open(&root).unwrap();
            for _ in 0..500 {
                everywhere(directory.as_fd(), &numbers.path());
            }
        }
    }

    #[test]
    fn the_kernel_gives_the_same_answers_in_procfs() {
        let root = fs::File::open("/").unwrap();
        for path in [
            "proc/self",
            "proc/self/status",
            "proc/self/fd/0",
            "proc/self/fd/0/x",
            "proc/self/root",
            "proc/self/root/etc",
            "proc/self/cwd/.",
            "proc/self/exe",
            "proc/self/ns/mnt",
            "proc/mounts",
            "proc/net/dev",
            "proc/thread-self/comm",
        ] {
            everywhere(root.as_fd(), path);
        }
        let proc = fs::File::open("/proc").unwrap();
        for path in ["self/fd", "sys/kernel/hostname", "self/../mounts", "self/../..", "sys/kernel/../../self/root"] {
            everywhere(proc.as_fd(), path);
        }
    }

    #[test]
    fn loops_and_long_paths_end() {
        let root = tempfile::tempdir().unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        for number in 1..=42 {
            symlink(format!("s{}", number - 1), root.path().join(format!("s{number}"))).unwrap();
        }
        fs::write(root.path().join("s0"), "").unwrap();
        let directory = fs::File::open(root.path()).unwrap();
        for path in ["loop", "loop/x", "s39", "s40", "s41", "", "/", "//", ".", "..", "s0/", "s0/.", "s0/..", "s1/"] {
            everywhere(directory.as_fd(), path);
        }
        let name = "n".repeat(256);
        everywhere(directory.as_fd(), &name);
        fs::create_dir_all(root.path().join("d/".repeat(DEEPEST + 2))).unwrap();
        let deep = |depth: usize| {
            seen(open(directory.as_fd(), &CString::new("d/".repeat(depth)).unwrap(), REFERENCE, IN_ROOT))
        };
        assert!(deep(DEEPEST).is_ok());
        assert_eq!(deep(DEEPEST + 2), Err(Errno::ENAMETOOLONG));
    }

    #[test]
    fn what_is_swapped_meanwhile_never_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        let above = tempfile::tempdir().unwrap();
        let root = above.path().join("root");
        fs::create_dir_all(root.join("d/e")).unwrap();
        symlink("../../..", root.join("d/l")).unwrap();
        symlink(outside.path(), root.join("other")).unwrap();
        for place in [outside.path(), above.path()] {
            fs::write(place.join("secret"), "").unwrap();
        }
        let (from, to) = (root.join("d"), root.join("other"));
        let stop = std::sync::atomic::AtomicBool::new(false);
        let swap = || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
                renameat2(AT_FDCWD, &from, AT_FDCWD, &to, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(swap);
            let directory = fs::File::open(&root).unwrap();
            let mut out = Vec::new();
            for _ in 0..5000 {
                let paths = [c"d/secret", c"d/e/../../../secret", c"d/l/secret", c"other/../secret"];
                out.extend(paths.into_iter().filter(|path| open(directory.as_fd(), path, REFERENCE, IN_ROOT).is_ok()));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(out, Vec::<&CStr>::new());
        });
    }
}
