//! Which directory holds the state. USER, HOME and the variables of engines never choose it: they differ between the
//! verbs of one container.

use std::{
    fmt,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::stat::{Mode, mkdirat},
    unistd::{AccessFlags, faccessat, geteuid},
};

use super::{Entry, Id};
use crate::{
    cli::Globals,
    error::{Code, Context as _, Error, Result, Warning, plain},
    host::{ids, probe},
    sys,
};

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// 0700, and sticky, which keeps cleaners of runtime directories away: XDG Base Directory Specification.
pub(super) const PRIVATE: Mode = Mode::S_IRWXU.union(Mode::S_ISVTX);

/// A directory of containers that was found good.
#[derive(Debug, Clone)]
pub struct Root {
    pub(super) directory: Rc<OwnedFd>,
    /// Its path, absolute.
    pub path: PathBuf,
    /// Its inode: ids are unique only within one directory.
    pub inode: u64,
    /// The device that the inode is on.
    device: u64,
}

/// The directories in which containers may be: one with `--root`, else all that are acceptable.
#[derive(Debug)]
pub struct Roots {
    candidates: Vec<Candidate>,
}

#[derive(Debug, Clone)]
struct Candidate {
    path: PathBuf,
    /// Made when it is missing, with its parents: the user named it.
    explicit: bool,
    /// Its use is worth a warning, and this is what it replaces.
    instead_of: Option<String>,
    /// The parent must belong to us and to nobody else.
    private_parent: bool,
}

/// Why a candidate cannot be used.
#[derive(Debug)]
enum Refusal {
    /// There is none.
    Absent,
    /// It is not ours, or not ours alone.
    Unfit(String),
    /// It could not even be looked at.
    Failed(Errno),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        if errno == Errno::ENOENT {
            Self::Absent
        } else if [Errno::EACCES, Errno::EPERM, Errno::ENOTDIR, Errno::ELOOP].contains(&errno) {
            Self::Unfit(plain(errno))
        } else {
            Self::Failed(errno)
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str(&plain(Errno::ENOENT)),
            Self::Unfit(why) => f.write_str(why),
            Self::Failed(errno) => f.write_str(&plain(*errno)),
        }
    }
}

impl Roots {
    /// Names the candidates, in order; none is touched yet.
    pub fn find(globals: &Globals) -> Result<Self> {
        if let Some(path) = &globals.root {
            let path = crate::bundle::absolute(path)?;
            return Ok(Self {
                candidates: vec![Candidate { path, explicit: true, instead_of: None, private_parent: false }],
            });
        }
        let mut candidates = Vec::new();
        let mut add = |path: PathBuf, instead_of: Option<String>, private_parent| {
            // XDG_RUNTIME_DIR mostly is the directory that comes next; paths are compared without their extra slashes.
            if candidates.iter().all(|known: &Candidate| known.path != path) {
                candidates.push(Candidate { path, explicit: false, instead_of, private_parent });
            }
        };
        if geteuid().is_root() && probe::is_initial(probe::own_userns()) {
            add(PathBuf::from("/run/pura"), None, false);
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
        let why = match &runtime {
            None => "XDG_RUNTIME_DIR is not set".to_owned(),
            Some(value) => format!("XDG_RUNTIME_DIR={} is unusable", value.display()),
        };
        if let Some(value) = runtime.map(PathBuf::from).filter(|value| value.is_absolute()) {
            add(value.join("pura"), None, true);
        }
        let uid = outer_uid();
        add(PathBuf::from(format!("/run/user/{uid}/pura")), Some(why.clone()), true);
        add(PathBuf::from(format!("/tmp/pura-{uid}")), Some(why), false);
        Ok(Self { candidates })
    }

    /// The first directory in which a container can be made; a fallback comes with a warning.
    pub fn create(&self) -> Result<(Root, Option<Warning>)> {
        let mut reasons = Vec::new();
        for candidate in &self.candidates {
            match candidate.make() {
                Ok(root) => return Ok((root, candidate.warning())),
                Err(why) => reasons.push(format!("{}: {why}", candidate.path.display())),
            }
        }
        Err(self.refuse(&reasons))
    }

    /// As [`Roots::create`], but only looks: what would be made is not.
    pub fn look(&self) -> Result<(PathBuf, Option<Warning>)> {
        let mut reasons = Vec::new();
        for candidate in &self.candidates {
            match candidate.look() {
                Ok(()) => return Ok((candidate.path.clone(), candidate.warning())),
                Err(why) => reasons.push(format!("{}: {why}", candidate.path.display())),
            }
        }
        Err(self.refuse(&reasons))
    }

    fn refuse(&self, reasons: &[String]) -> Error {
        // One that the user named is simply read-only, not one of several that will not do.
        let read_only = self.candidates.iter().all(|candidate| candidate.explicit)
            && reasons.iter().all(|reason| reason.ends_with(&plain(Errno::EROFS)));
        let code = if read_only { Code::StateRefused } else { Code::NoStateDir };
        Error::new(code, "keep the container's state", reasons.join("; ")).fix("--root DIR")
    }

    /// Every directory that is there and ours, once, in order. One that the user named, or that cannot even be looked at, is no
    /// silent absence: its containers would be.
    pub fn existing(&self) -> Result<Vec<Root>> {
        let mut found: Vec<Root> = Vec::with_capacity(self.candidates.len());
        for candidate in &self.candidates {
            match candidate.open() {
                // A link above it makes two paths of one directory.
                Ok(root) if found.iter().any(|known| known.is(&root)) => {}
                Ok(root) => found.push(root),
                Err(Refusal::Absent) => {}
                Err(Refusal::Unfit(_)) if !candidate.explicit => {}
                Err(refusal) => {
                    let what = format!("read the state in {}", candidate.path.display());
                    return Err(Error::new(Code::NoStateDir, what, refusal.to_string()));
                }
            }
        }
        Ok(found)
    }

    /// Refuses a directory that the user named and that is not there, for one who would look into it in vain.
    pub fn insist(&self) -> Result<()> {
        let absent = |candidate: &&Candidate| candidate.explicit && matches!(candidate.open(), Err(Refusal::Absent));
        self.candidates.iter().find(absent).map_or(Ok(()), |candidate| {
            let what = format!("list the containers in {}", candidate.path.display());
            Err(Error::new(Code::NoStateDir, what, plain(Errno::ENOENT))
                .fix("--root as the containers were created with"))
        })
    }

    /// The container of an id, wherever it is; `verb` is for the error.
    pub fn open(&self, id: &Id, verb: &str) -> Result<Entry> {
        for root in self.existing()? {
            let found = Entry::open(root, id).doing(Code::StateDamaged, || format!("{verb} {:?}", id.as_str()))?;
            if let Some(entry) = found {
                return Ok(entry);
            }
        }
        Err(super::missing(id, verb))
    }
}

/// The uid that the host sees, so that the namespace of rootless Podman and a shell outside name the same directory.
fn outer_uid() -> u32 {
    let own = geteuid().as_raw();
    if probe::is_initial(probe::own_userns()) {
        return own;
    }
    let map = std::fs::read("/proc/self/uid_map").map(|text| ids::parse(&text)).unwrap_or_default();
    map.iter().find_map(|extent| extent.outside_of(own)).unwrap_or(own)
}

impl Candidate {
    /// Opens the directory; makes it when it is missing.
    fn make(&self) -> std::result::Result<Root, Refusal> {
        if self.explicit {
            // It is there but for the first time.
            let opened = match self.open() {
                Err(Refusal::Absent) => {
                    make_all(&self.path)?;
                    self.open()
                }
                opened => opened,
            };
            return opened.and_then(writable);
        }
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(Refusal::Unfit("it is no path".to_owned()));
        };
        let parent = open_directory(parent)?;
        if self.private_parent {
            check(parent.as_fd(), 0o077)?;
        }
        match mkdirat(&parent, name, PRIVATE) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.open().and_then(writable)
    }

    /// What its use is worth.
    fn warning(&self) -> Option<Warning> {
        self.instead_of.as_ref().map(|why| {
            Warning::new(Code::StateDirFallback, format!("state is kept in {}, because {why}", self.path.display()))
        })
    }

    /// Whether [`Candidate::make`] would do: it is there, or its parent is ours to write.
    fn look(&self) -> std::result::Result<(), Refusal> {
        match self.open() {
            Err(Refusal::Absent) => {}
            opened => return opened.and_then(writable).map(drop),
        }
        let there = self.path.ancestors().skip(1).find(|above| self.explicit && above.exists()).or(self.path.parent());
        let parent = open_directory(there.unwrap_or(&self.path))?;
        if self.private_parent {
            check(parent.as_fd(), 0o077)?;
        }
        Ok(faccessat(&parent, ".", AccessFlags::W_OK, AtFlags::empty())?)
    }

    /// Opens the directory if it is there, ours, and nobody else's to write. Where everybody may make directories, it
    /// must be as we make it.
    fn open(&self) -> std::result::Result<Root, Refusal> {
        let directory = open_directory(&self.path)?;
        let shared = !self.explicit && !self.private_parent;
        let (device, inode) = check(directory.as_fd(), if shared { 0o077 } else { 0o022 })?;
        Ok(Root { directory: Rc::new(directory), path: self.path.clone(), inode, device })
    }
}

fn open_directory(path: &Path) -> nix::Result<OwnedFd> {
    sys::retry(|| nix::fcntl::open(path, DIRECTORY, Mode::empty()))
}

/// Refuses a directory of another owner, or one in which others may do what `forbidden` says; its device and inode.
fn check(directory: BorrowedFd<'_>, forbidden: u32) -> std::result::Result<(u64, u64), Refusal> {
    let stat = sys::path::stat(directory)?;
    if stat.st_uid != geteuid().as_raw() {
        return Err(Refusal::Unfit(format!("it belongs to uid {}", stat.st_uid)));
    }
    if stat.st_mode & forbidden != 0 {
        return Err(Refusal::Unfit(format!("others may use it (mode {:o})", stat.st_mode & 0o7777)));
    }
    Ok((stat.st_dev, stat.st_ino))
}

fn writable(root: Root) -> std::result::Result<Root, Refusal> {
    faccessat(&root.directory, ".", AccessFlags::W_OK, AtFlags::empty())?;
    Ok(root)
}

/// Makes a directory and its missing parents, 0700. Another pura may be at the same.
fn make_all(path: &Path) -> nix::Result<()> {
    match nix::unistd::mkdir(path, PRIVATE) {
        Err(Errno::ENOENT) => {
            make_all(path.parent().ok_or(Errno::ENOENT)?)?;
            match nix::unistd::mkdir(path, PRIVATE) {
                Err(Errno::EEXIST) => Ok(()),
                done => done,
            }
        }
        Err(Errno::EEXIST) => Ok(()),
        done => done,
    }
}

impl Root {
    /// Whether both are one directory.
    fn is(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// The names in the directory that could be containers.
    pub fn ids(&self) -> Vec<Id> {
        let Ok(again) = sys::path::open_at(&self.directory, ".", DIRECTORY, Mode::empty()) else { return Vec::new() };
        let Ok(mut directory) = nix::dir::Dir::from_fd(again) else { return Vec::new() };
        let names = directory
            .iter()
            // What follows an error is the same error, for ever.
            .map_while(std::result::Result::ok)
            .filter_map(|entry| Id::parse(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes())).ok());
        let mut ids: Vec<_> = names.collect();
        ids.sort_unstable();
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn candidate(path: &Path, private_parent: bool) -> Candidate {
        Candidate { path: path.to_path_buf(), explicit: !private_parent, instead_of: None, private_parent }
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let path = parent.path().join("pura");
        let root = candidate(&path, true).make().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o1700);
        drop(root);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(candidate(&path, true).open().unwrap_err().to_string().contains("others may use it"));
    }

    #[test]
    fn a_link_is_no_state_directory_and_its_target_stays_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("target");
        std::fs::create_dir(&target).unwrap();
        let path = parent.path().join("pura");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(candidate(&path, true).make().is_err());
        assert!(candidate(&path, false).make().is_err());
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_of_two_paths_is_found_once() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(parent.path(), &link).unwrap();
        let candidates = vec![candidate(&parent.path().join("pura"), true), candidate(&link.join("pura"), true)];
        let root = candidates[0].make().unwrap();
        let found = Roots { candidates }.existing().unwrap();
        assert_eq!(found.iter().map(|found| &found.path).collect::<Vec<_>>(), [&root.path]);
    }

    #[test]
    fn a_named_directory_is_made_with_its_parents() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        assert_eq!(candidate(&path, false).make().unwrap().path, path);
    }

    #[test]
    fn a_named_directory_that_is_refused_is_no_empty_one() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let named =
            |path: &Path| Roots::find(&Globals { root: Some(path.to_path_buf()), ..Globals::default() }).unwrap();
        assert_eq!(named(parent.path()).existing().unwrap_err().code(), Code::NoStateDir);
        assert!(named(&parent.path().join("absent")).existing().unwrap().is_empty());
    }
}
