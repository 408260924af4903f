//! The making of a container's state, in the order that lets a kill at any instant leave what `delete --force` can
//! clean: intent before effect.

use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag, openat, renameat},
    sys::{
        socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
        stat::{Mode, mkdirat},
    },
};

use super::{CONFIG, Entry, INTENT, Id, Identity, Intent, NEW_STATE, Record, Root, SOCKET, STATE, root::PRIVATE};
use crate::{
    error::{Code, Context as _, Error, Result},
    state::Status,
    sys,
};

/// A container that is being made. Dropped before [`Claim::keep`], it takes back what it has written.
#[derive(Debug)]
pub struct Claim {
    root: Option<Root>,
    id: Id,
    /// Locked from the claim until it is committed: `flock(2)` on the directory itself, which needs no file for it.
    directory: Option<Directory>,
    intent: Option<File>,
    kept: bool,
}

#[derive(Debug)]
enum Directory {
    Locked(Flock<OwnedFd>),
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
            Self::Locked(directory) => directory.unlock().map_or_else(|(locked, _)| Self::Locked(locked), Self::Free),
            Self::Free(directory) => Self::Free(directory),
        }
    }
}

impl Claim {
    /// Claims the id: mkdir decides who has it.
    pub fn new(root: Root, id: &Id, intent: &Intent, config: &[u8]) -> Result<Self> {
        match mkdirat(&root.directory, id.as_str(), PRIVATE) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Err(taken(root, id)),
            Err(errno) => return Err(refused(errno, id)),
        }
        let mut claim = Self { root: Some(root), id: id.clone(), directory: None, intent: None, kept: false };
        claim.write(intent, config)?;
        Ok(claim)
    }

    fn write(&mut self, intent: &Intent, config: &[u8]) -> Result<()> {
        let id = self.id.clone();
        let Some(root) = &self.root else { return Err(refused(Errno::EBADF, &id)) };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory =
            openat(&root.directory, id.as_str(), flags, Mode::empty()).map_err(|errno| refused(errno, &id))?;
        let directory =
            Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| refused(errno, &id))?;
        self.directory = Some(Directory::Locked(directory));
        let mut file = self.file(INTENT)?;
        file.write_all(intent.line()?.as_bytes()).map_err(|error| refused(errno_of(&error), &id))?;
        self.intent = Some(file);
        self.file(CONFIG)?.write_all(config).map_err(|error| refused(errno_of(&error), &id))
    }

    fn file(&self, name: &str) -> Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = self.directory.as_ref().ok_or_else(|| refused(Errno::EBADF, &self.id))?;
        let file = openat(directory.as_fd(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        file.map(File::from).map_err(|errno| refused(errno, &self.id))
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

    /// Leaves the container to those who come after.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Removes the container's files, when its program has ended. Another verb may be at the same: whoever comes second
    /// finds nothing left, and a new container of the same id is not touched, because its directory is not empty.
    pub fn remove(mut self) -> Result<()> {
        self.kept = true;
        let (Some(root), Some(directory)) = (self.root.take(), self.directory.take()) else { return Ok(()) };
        let directory = match directory {
            Directory::Locked(directory) => directory,
            Directory::Free(directory) => {
                Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| refused(errno, &self.id))?
            }
        };
        match Entry::remove_files(&root, &self.id, directory.as_fd()) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY) => Ok(()),
            Err(errno) => Err(refused(errno, &self.id)),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let (Some(root), Some(directory)) = (self.root.take(), self.directory.take()) {
            let _ = Entry::remove_files(&root, &self.id, directory.as_fd());
        } else if let Some(root) = self.root.take() {
            let _ = nix::unistd::unlinkat(&root.directory, self.id.as_str(), nix::unistd::UnlinkatFlags::RemoveDir);
        }
    }
}

/// The address of the socket through the directory's descriptor: `sun_path` holds 107 bytes, and paths are longer.
pub(super) fn socket_address(directory: i32) -> nix::Result<UnixAddr> {
    UnixAddr::new(format!("/proc/self/fd/{directory}/{SOCKET}").as_str())
}

fn refused(errno: Errno, id: &Id) -> Error {
    let why = match errno {
        Errno::ENOSPC | Errno::EDQUOT => "the state directory is full".to_owned(),
        Errno::EROFS => "the state directory is read-only".to_owned(),
        errno => crate::error::plain(errno),
    };
    Error::new(Code::StateRefused, format!("keep the state of {:?}", id.as_str()), why).fix("--root DIR")
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The id exists: in use, or left over.
fn taken(root: Root, id: &Id) -> Error {
    let what = format!("create {:?}", id.as_str());
    let status = Entry::open(root, id).map_or(Status::Stopped, |entry| entry.status());
    if status == Status::Stopped {
        let why = "that id already exists: a stopped or unfinished container has it";
        return Error::new(Code::IdLeftOver, what, why).fix(format!("pura delete --force {id}"));
    }
    Error::new(Code::IdInUse, what, format!("that id already exists, and is {status}")).fix("another id")
}

/// Connects to the init that waits behind a socket. ECONNREFUSED: it waits no longer.
pub(super) fn connect(directory: std::os::fd::BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let stream = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    let address = socket_address(directory.as_raw_fd())?;
    sys::retry(|| nix::sys::socket::connect(stream.as_raw_fd(), &address))?;
    Ok(stream)
}
