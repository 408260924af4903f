//! A container as it stands in the state directory, whatever of it survives.

use std::{
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, renameat},
    sys::stat::Mode,
    unistd::{AccessFlags, UnlinkatFlags, faccessat, unlinkat},
};
use serde::{Deserialize, Serialize};

use super::{CONFIG, INTENT, Id, Intent, LARGEST, NEW_STATE, Record, Root, SOCKET, STATE, claim};
use crate::{
    error::{Code, Context as _, Error, Result},
    state::Status,
    sys,
};

/// A process for longer than its id: a recycled id has another start time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The id, in the caller's PID namespace.
    pub pid: i32,
    /// When it was started, in clock ticks since boot: field 22 of `proc_pid_stat(5)`.
    pub start_time: u64,
}

impl Identity {
    /// The process that has the id now; nothing when there is none, or only a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start_time })
    }

    /// Whether this very process is alive.
    pub fn is_alive(self) -> bool {
        self.pid > 0 && Self::of(self.pid) == Some(self)
    }

    /// A descriptor for this very process, if it is alive: opened first, then compared.
    pub fn open(self) -> Option<OwnedFd> {
        let process = sys::pidfd::open(self.pid).ok()?;
        self.is_alive().then_some(process)
    }

    /// The line of the intent.
    pub fn line(self) -> String {
        format!("{} {}\n", self.pid, self.start_time)
    }

    /// Reads such a line.
    pub fn parse(line: &str) -> Option<Self> {
        let (pid, start_time) = line.split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
    }
}

/// The boot that is running: ids of another mean nothing.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim_end().to_owned()).unwrap_or_default()
}

/// A container's directory, open.
#[derive(Debug)]
pub struct Entry {
    /// The directory it is in.
    pub root: Root,
    /// Its id.
    pub id: Id,
    directory: OwnedFd,
}

/// An entry that nobody else changes.
#[derive(Debug)]
pub struct Locked {
    /// The directory it is in.
    pub root: Root,
    /// Its id.
    pub id: Id,
    directory: Flock<OwnedFd>,
}

impl Entry {
    /// Opens the entry, if there is a directory of that name.
    pub fn open(root: Root, id: &Id) -> Option<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = openat(&root.directory, id.as_str(), flags, Mode::empty()).ok()?;
        Some(Self { root, id: id.clone(), directory })
    }

    /// What was recorded when it was created: nothing while it is being created, or when the file is damaged.
    pub fn record(&self) -> Option<Record> {
        record(self.directory.as_fd())
    }

    /// What was about to be made.
    pub fn intent(&self) -> Option<Intent> {
        intent(self.directory.as_fd())
    }

    /// The kernel's answer to what the files say.
    pub fn status(&self) -> Status {
        status(self.directory.as_fd(), self.record().as_ref())
    }

    /// The status, for one who has the record.
    pub fn status_of(&self, record: &Record) -> Status {
        status(self.directory.as_fd(), Some(record))
    }

    /// The config as it was at `create`.
    pub fn config(&self) -> Result<Vec<u8>> {
        read(self.directory.as_fd(), CONFIG, u64::MAX)
            .doing(Code::StateDamaged, || format!("read the config of {:?}", self.id.as_str()))
    }

    /// Locks the entry against all other verbs that change it; waits for them, but not for ever.
    pub fn lock(self, verb: &str) -> Result<Locked> {
        match self.try_lock(LOCK_LIMIT) {
            Ok(locked) => Ok(locked),
            Err(entry) => {
                let creator = entry.intent().map(|intent| intent.creator.pid);
                let who = creator.map_or_else(String::new, |pid| format!(" (perhaps process {pid})"));
                Err(Error::new(
                    Code::Locked,
                    format!("{verb} {:?}", entry.id.as_str()),
                    format!("another pura is at work on it{who}"),
                ))
            }
        }
    }

    /// The same; gives the entry back when the lock is not free within `limit` milliseconds.
    pub fn try_lock(self, limit: u16) -> std::result::Result<Locked, Self> {
        let Self { root, id, mut directory } = self;
        let mut waited = 0;
        loop {
            match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                Ok(directory) => return Ok(Locked { root, id, directory }),
                Err((back, errno)) if errno == Errno::EWOULDBLOCK && waited < limit => {
                    directory = back;
                    // flock(2) has no time limit of its own, and its release no descriptor to wait for.
                    let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(LOCK_STEP));
                    waited += u16::from(LOCK_STEP);
                }
                Err((directory, _)) => return Err(Self { root, id, directory }),
            }
        }
    }

    /// Removes an entry's files, the intent last, and the directory.
    pub(super) fn remove_files(root: &Root, id: &Id, directory: BorrowedFd<'_>) -> nix::Result<()> {
        for name in [SOCKET, NEW_STATE, STATE, CONFIG, INTENT] {
            match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        unlinkat(&root.directory, id.as_str(), UnlinkatFlags::RemoveDir)
    }
}

const LOCK_LIMIT: u16 = 5000;
const LOCK_STEP: u8 = 10;

impl Locked {
    /// As [`Entry::record`].
    pub fn record(&self) -> Option<Record> {
        record(self.directory.as_fd())
    }

    /// As [`Entry::intent`].
    pub fn intent(&self) -> Option<Intent> {
        intent(self.directory.as_fd())
    }

    /// As [`Entry::status`].
    pub fn status(&self) -> Status {
        status(self.directory.as_fd(), self.record().as_ref())
    }

    /// As [`Entry::config`].
    pub fn config(&self) -> Result<Vec<u8>> {
        read(self.directory.as_fd(), CONFIG, u64::MAX)
            .doing(Code::StateDamaged, || format!("read the config of {:?}", self.id.as_str()))
    }

    /// Connects to the init that waits for `start`.
    pub fn connect(&self) -> nix::Result<OwnedFd> {
        claim::connect(self.directory.as_fd())
    }

    /// Removes the socket: init waits no longer.
    pub fn forget_socket(&self) {
        let _ = unlinkat(self.directory.as_fd(), SOCKET, UnlinkatFlags::NoRemoveDir);
    }

    /// Whether there is a file that no pura of this version has made.
    pub fn has_foreign_files(&self) -> bool {
        let known = [INTENT, CONFIG, SOCKET, STATE, NEW_STATE, ".", ".."];
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let again = openat(self.directory.as_fd(), ".", flags, Mode::empty());
        let Ok(mut names) = again.and_then(nix::dir::Dir::from_fd) else { return true };
        names.iter().flatten().any(|entry| !known.iter().any(|name| entry.file_name().to_bytes() == name.as_bytes()))
    }

    /// Removes the entry: first out of sight, so that the id is free or whole, then file by file.
    pub fn remove(self) -> Result<()> {
        let what = || format!("remove the state of {:?}", self.id.as_str());
        let aside = format!(".rm-{}-{}", self.id, std::process::id());
        renameat(&self.root.directory, self.id.as_str(), &self.root.directory, aside.as_str())
            .doing(Code::StateRefused, what)?;
        for name in [SOCKET, NEW_STATE, STATE, CONFIG, INTENT] {
            let _ = unlinkat(self.directory.as_fd(), name, UnlinkatFlags::NoRemoveDir);
        }
        unlinkat(&self.root.directory, aside.as_str(), UnlinkatFlags::RemoveDir).doing(Code::StateRefused, what)
    }
}

/// Finishes what a killed `delete` has left: entries that are out of sight already.
pub fn finish_removals(root: &Root) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let Ok(mut names) = openat(&root.directory, ".", flags, Mode::empty()).and_then(nix::dir::Dir::from_fd) else {
        return;
    };
    for entry in names.iter().flatten() {
        let name = entry.file_name();
        if name.to_bytes().starts_with(b".rm-")
            && let Ok(directory) = openat(&root.directory, name, flags, Mode::empty())
        {
            for file in [SOCKET, NEW_STATE, STATE, CONFIG, INTENT] {
                let _ = unlinkat(&directory, file, UnlinkatFlags::NoRemoveDir);
            }
            let _ = unlinkat(&root.directory, name, UnlinkatFlags::RemoveDir);
        }
    }
}

fn read(directory: BorrowedFd<'_>, name: &str, most: u64) -> std::io::Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(directory, name, flags, Mode::empty())?);
    let mut bytes = Vec::with_capacity(4096);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn record(directory: BorrowedFd<'_>) -> Option<Record> {
    let record: Record = serde_json::from_slice(&read(directory, STATE, LARGEST).ok()?).ok()?;
    (record.version == super::record::VERSION).then_some(record)
}

fn intent(directory: BorrowedFd<'_>) -> Option<Intent> {
    let bytes = read(directory, INTENT, LARGEST).ok()?;
    Intent::parse(&String::from_utf8_lossy(&bytes)).filter(|intent| intent.version == super::record::VERSION)
}

fn status(directory: BorrowedFd<'_>, record: Option<&Record>) -> Status {
    let Some(record) = record else {
        let creator = intent(directory).filter(|intent| intent.creator.is_alive() && intent.boot_id == boot_id());
        return if creator.is_some() { Status::Creating } else { Status::Stopped };
    };
    // The cheap test first; the boot only matters when it says alive.
    if !record.init.is_alive() || record.boot_id != boot_id() {
        return Status::Stopped;
    }
    if faccessat(directory, SOCKET, AccessFlags::F_OK, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
        return Status::Created;
    }
    if record.cgroup.as_deref().is_some_and(crate::cgroup::is_frozen) { Status::Paused } else { Status::Running }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_id_is_another_process() {
        let own = Identity::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive() && own.open().is_some());
        let other = Identity { start_time: own.start_time + 1, ..own };
        assert!(!other.is_alive() && other.open().is_none());
    }

    #[test]
    fn the_identity_survives_its_line() {
        let identity = Identity { pid: 12, start_time: 34 };
        assert_eq!(Identity::parse(identity.line().trim_end()), Some(identity));
        assert_eq!(Identity::parse("12"), None);
    }
}
