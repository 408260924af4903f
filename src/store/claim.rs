//! The making of a container's state, in the order that lets a kill at any instant leave what `delete --force` can
//! clean: intent before effect.

use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, renameat},
    sys::{
        socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
        stat::{Mode, mkdirat},
    },
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{
    ALL, Attempt, CONFIG, Entry, INTENT, Id, Identity, Intent, LOCK_LIMIT, NEW_STATE, Record, Root, SOCKET, STATE,
    files::{self, Files},
    lock::Lock,
    root::PRIVATE,
};
use crate::{
    cgroup::event,
    error::{Code, Context as _, Error, Result, Warning},
    state::Status,
    sys,
};

/// How often an id is claimed, while others take each claim away.
const ATTEMPTS: u8 = 100;

/// A container that is being made. Dropped before [`Claim::keep`], it takes back what it has written.
#[derive(Debug)]
pub struct Claim {
    root: Option<Root>,
    id: Id,
    /// Locked from the claim until it is committed: `flock(2)` on the directory itself, which needs no file for it.
    directory: Option<Directory>,
    intent: Option<File>,
    /// A cgroup that the entry alone names: while that is so, the entry stays too.
    cgroup: Option<Guarded>,
    kept: bool,
}

/// What keeps an entry.
#[derive(Debug)]
enum Guarded {
    /// A cgroup of the container's own, as long as it is there.
    Own(PathBuf),
    /// One that was there before, as long as anybody lives in it.
    Found(PathBuf),
}

impl Guarded {
    fn held(&self) -> Option<&Path> {
        match self {
            Self::Own(cgroup) => Some(cgroup.as_path()).filter(|cgroup| cgroup.exists()),
            Self::Found(cgroup) => Some(cgroup.as_path()).filter(|cgroup| event(cgroup, "populated") == Some(true)),
        }
    }
}

#[derive(Debug)]
enum Directory {
    Locked(Lock),
    Free(OwnedFd),
}

impl Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Locked(directory) => directory.as_fd(),
            Self::Free(directory) => directory.as_fd(),
        }
    }

    /// Lets other verbs at the container.
    fn unlocked(self) -> Self {
        match self {
            Self::Locked(directory) => directory.release().map_or_else(Self::Locked, Self::Free),
            Self::Free(directory) => Self::Free(directory),
        }
    }
}

impl Claim {
    /// Claims the id: mkdir decides who has it.
    pub fn new(root: Root, id: &Id, intent: &Intent, config: &[u8]) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            match mkdirat(&root.directory, id.as_str(), PRIVATE) {
                Ok(()) => {}
                Err(Errno::EEXIST) => return Err(taken(root, id)),
                Err(errno) => return Err(refused(errno, id)),
            }
            let root = Some(root.clone());
            let mut claim = Self { root, id: id.clone(), directory: None, intent: None, cgroup: None, kept: false };
            match claim.begin() {
                // Another's `delete --force` took it for a creation that had been cut off.
                Err(Errno::ENOENT) => claim.kept = true,
                begun => {
                    begun.map_err(|errno| refused(errno, id))?;
                    claim.write(intent, config)?;
                    return Ok(claim);
                }
            }
        }
        Err(refused(Errno::ENOENT, id))
    }

    /// Locks the new directory, and makes the first file in it.
    fn begin(&mut self) -> nix::Result<()> {
        let root = self.root.as_ref().ok_or(Errno::EBADF)?;
        let directory = files::directory(root.directory.as_fd(), self.id.as_str())?;
        // Free, but for the moment in which another `create` of this id finds out that it is too late.
        let directory = Lock::take(directory, LOCK_LIMIT).map_err(|(_, errno)| errno)?;
        self.directory = Some(Directory::Locked(directory));
        self.intent = Some(self.open(INTENT)?);
        Ok(())
    }

    fn write(&mut self, intent: &Intent, config: &[u8]) -> Result<()> {
        let line = intent.line()?;
        let Some(file) = &mut self.intent else { return Err(refused(Errno::EBADF, &self.id)) };
        file.write_all(line.as_bytes()).map_err(|error| refused(errno_of(&error), &self.id))?;
        self.file(CONFIG)?.write_all(config).map_err(|error| refused(errno_of(&error), &self.id))
    }

    fn open(&self, name: &str) -> nix::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = self.directory.as_ref().ok_or(Errno::EBADF)?;
        sys::path::open_at(directory.as_fd(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
    }

    fn file(&self, name: &str) -> Result<File> {
        self.open(name).map_err(|errno| refused(errno, &self.id))
    }

    /// What is weaker about the claim than could be.
    pub fn warning(&self) -> Option<Warning> {
        if let Some(Directory::Locked(directory)) = &self.directory { directory.warning() } else { None }
    }

    /// The container's id.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The directory's path.
    pub fn path(&self) -> PathBuf {
        self.root.as_ref().map(|root| root.path.join(self.id.as_str())).unwrap_or_default()
    }

    /// Makes the socket on which init waits for `start`. A socket, and not a FIFO, because init, which has its final ids
    /// by then, could not open one in this directory; and because the answer comes back on it.
    pub fn listen(&self) -> Result<OwnedFd> {
        let what = || format!("listen for the start of {:?}", self.id.as_str());
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
            .doing(Code::Exhausted, what)?;
        let address = socket_address(self.directory.as_ref().map_or(-1, |directory| directory.as_fd().as_raw_fd()))
            .doing(Code::StateRefused, what)?;
        bind(listener.as_raw_fd(), &address).doing(Code::StateRefused, what)?;
        listen(&listener, Backlog::new(1).unwrap_or(Backlog::MAXALLOWABLE)).doing(Code::StateRefused, what)?;
        Ok(listener)
    }

    /// Adds init to the intent: from now on it can be found and ended without any other file.
    pub fn record_init(&mut self, init: Identity) -> Result<()> {
        let id = self.id.clone();
        let Some(file) = &mut self.intent else { return Err(refused(Errno::EBADF, &id)) };
        file.write_all(init.line().as_bytes()).map_err(|error| refused(errno_of(&error), &id))
    }

    /// Records the container as created: complete, or not at all.
    pub fn commit(&mut self, record: &Record) -> Result<()> {
        let json =
            serde_json::to_vec(record).map_err(|error| Error::new(Code::Bug, "write the state", error.to_string()))?;
        self.file(NEW_STATE)?.write_all(&json).map_err(|error| refused(errno_of(&error), &self.id))?;
        let directory = self.directory.as_ref().ok_or_else(|| refused(Errno::EBADF, &self.id))?;
        renameat(directory.as_fd(), NEW_STATE, directory.as_fd(), STATE).map_err(|errno| refused(errno, &self.id))?;
        self.directory = self.directory.take().map(Directory::unlocked);
        Ok(())
    }

    /// Says that the intent's cgroup has been made, or is in use if it stays: as long as it cannot be removed, or emptied,
    /// the entry is not removed either, because nothing else would lead to it.
    pub fn guard(&mut self, cgroup: &Path, stays: bool) {
        let cgroup = cgroup.to_path_buf();
        self.cgroup = Some(if stays { Guarded::Found(cgroup) } else { Guarded::Own(cgroup) });
    }

    /// Leaves the container to those who come after.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Removes the container's files, when its program has ended and its cgroup is gone. Another verb may be at the same:
    /// whoever comes second finds nothing left, and a new container of the same id is not touched. Whether we came first.
    pub fn remove(mut self) -> Result<bool> {
        self.kept = true;
        if let Some(cgroup) = self.cgroup.as_ref().and_then(Guarded::held) {
            let why = format!("its cgroup {} cannot be removed", cgroup.display());
            return Err(Error::new(Code::Survivors, format!("remove {:?}", self.id.as_str()), why)
                .fix(format!("pura delete --force {}", self.id)));
        }
        // Those that a container has whose program ran; whatever else is there belongs to another.
        match self.undo(&[STATE, CONFIG, INTENT]) {
            Err(Errno::ENOENT) => Ok(false),
            Err(Errno::ENOTEMPTY) => Ok(true),
            undone => undone.map_err(|errno| refused(errno, &self.id)),
        }
    }

    /// Whether there was anything of ours.
    fn undo(&mut self, files: &[&str]) -> nix::Result<bool> {
        let (Some(root), Some(directory)) = (self.root.take(), self.directory.take()) else { return Ok(false) };
        let directory = match directory {
            Directory::Locked(directory) => directory,
            Directory::Free(directory) => Lock::take(directory, LOCK_LIMIT).map_err(|(_, errno)| errno)?,
        };
        if !files::is_current(&root, self.id.as_str(), directory.as_fd())? {
            return Ok(false);
        }
        Files::of(directory.as_fd()).remove(files)?;
        directory.clear();
        unlinkat(&root.directory, self.id.as_str(), UnlinkatFlags::RemoveDir).map(|()| true)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.kept || self.cgroup.as_ref().is_some_and(|cgroup| cgroup.held().is_some()) {
            return;
        }
        if self.directory.is_some() {
            let _ = self.undo(&ALL);
        } else if let Some(root) = self.root.take() {
            let _ = unlinkat(&root.directory, self.id.as_str(), UnlinkatFlags::RemoveDir);
        }
    }
}

/// The address of the socket through the directory's descriptor: `sun_path` holds 107 bytes, and paths are longer.
pub(super) fn socket_address(directory: i32) -> nix::Result<UnixAddr> {
    UnixAddr::new(format!("/proc/self/fd/{directory}/{SOCKET}").as_str())
}

fn refused(errno: Errno, id: &Id) -> Error {
    let why = if errno == Errno::ENOSPC || errno == Errno::EDQUOT {
        "the state directory is full".to_owned()
    } else if errno == Errno::EROFS {
        "the state directory is read-only".to_owned()
    } else if errno == Errno::EFBIG {
        "the limit on the size of files (ulimit -f) is too low".to_owned()
    } else {
        crate::error::plain(errno)
    };
    let fix = if errno == Errno::EFBIG { "ulimit -f unlimited" } else { "--root DIR" };
    Error::new(Code::StateRefused, format!("keep the state of {:?}", id.as_str()), why).fix(fix)
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The id exists: in use, or left over.
fn taken(root: Root, id: &Id) -> Error {
    let what = format!("create {:?}", id.as_str());
    // A lock that is held says that a creator is at work, before its intent does.
    let status = match Entry::open(root, id).map(|entry| entry.map(|entry| entry.try_lock(0))) {
        Ok(Some(Attempt::Locked(entry))) => entry.status(),
        Ok(Some(Attempt::Busy(entry))) => {
            let status = entry.status();
            if status == Status::Stopped { Status::Creating } else { status }
        }
        Ok(None | Some(Attempt::Gone)) | Err(_) => Status::Creating,
    };
    if status == Status::Stopped {
        let why = "that id already exists: a stopped or unfinished container has it";
        return Error::new(Code::IdLeftOver, what, why).fix(format!("pura delete --force {id}"));
    }
    Error::new(Code::IdInUse, what, format!("that id already exists, and is {status}")).fix("another id")
}

/// Connects to the init that waits behind a socket. ECONNREFUSED: it waits no longer.
pub(super) fn connect(directory: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let stream = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    let address = socket_address(directory.as_raw_fd())?;
    sys::retry(|| nix::sys::socket::connect(stream.as_raw_fd(), &address))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Sleeper, Store, intent, record};

    #[test]
    fn a_claim_that_is_not_kept_leaves_nothing() {
        let store = Store::new();
        let mut claim = store.claim("c1").unwrap();
        drop(claim.listen().unwrap());
        claim.commit(&record("c1", Identity::default())).unwrap();
        drop(claim);
        assert_eq!(store.names(), Vec::<String>::new());
        store.claim("c1").unwrap().keep();
        assert_eq!(store.names(), ["c1"]);
    }

    #[test]
    fn an_id_in_use_is_told_from_one_that_is_left_over() {
        let (store, mut sleeper) = (Store::new(), Sleeper::new());
        let claim = store.claim("new").unwrap();
        assert_eq!(store.claim("new").unwrap_err().code(), Code::IdInUse);
        drop(claim);
        store.running("c1", sleeper.identity());
        let error = store.claim("c1").unwrap_err();
        assert_eq!(error.code(), Code::IdInUse);
        assert!(error.to_string().contains("already exists, and is running"), "{error}");
        sleeper.end();
        assert_eq!(store.claim("c1").unwrap_err().code(), Code::IdLeftOver);
        assert!(store.entry("c1").record().is_some());
    }

    #[test]
    fn the_entry_stays_while_the_cgroup_that_it_names_does() {
        let (store, cgroup) = (Store::new(), tempfile::tempdir().unwrap());
        let mut claim = store.claim("c1").unwrap();
        claim.guard(cgroup.path(), false);
        assert_eq!(claim.remove().unwrap_err().code(), Code::Survivors);
        assert_eq!(store.names(), ["c1"]);
        let mut other = store.claim("c2").unwrap();
        other.guard(&cgroup.path().join("gone"), false);
        assert!(other.remove().unwrap());
        for (word, is_removed) in [("1", false), ("0", true)] {
            std::fs::write(cgroup.path().join("cgroup.events"), format!("populated {word}\n")).unwrap();
            let mut found = store.claim(&format!("c3.{word}")).unwrap();
            found.guard(cgroup.path(), true);
            assert_eq!(found.remove().is_ok(), is_removed);
        }
        assert_eq!(store.names(), ["c1", "c3.1"]);
    }

    #[test]
    fn a_container_of_the_same_id_survives_the_end_of_the_one_before() {
        let (store, sleeper) = (Store::new(), Sleeper::new());
        let mut before = store.claim("c1").unwrap();
        before.commit(&record("c1", Identity::default())).unwrap();
        store.entry("c1").lock("delete").unwrap().remove().unwrap();
        std::fs::create_dir(store.path("c1")).unwrap();
        assert!(!before.remove().unwrap());
        assert_eq!(store.names(), ["c1"]);
        std::fs::remove_dir(store.path("c1")).unwrap();
        store.running("c1", sleeper.identity());
    }

    #[test]
    fn a_socket_is_reached_however_long_its_path_is() {
        let store = Store::new();
        let id = Id::parse("x".repeat(240).as_ref()).unwrap();
        let claim = Claim::new(store.root(), &id, &intent(), b"{}").unwrap();
        let listener = claim.listen().unwrap();
        let directory = files::directory(store.root().directory.as_fd(), id.as_str()).unwrap();
        assert!(connect(directory.as_fd()).is_ok());
        drop(listener);
        // Another test's child may have inherited it, and keeps it until its exec. Where its backlog is full, connect waits.
        let refused = std::iter::repeat_with(|| connect(directory.as_fd())).find_map(nix::Result::err);
        assert_eq!(refused, Some(Errno::ECONNREFUSED));
    }
}
