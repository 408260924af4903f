//! A container as it stands in the state directory, found by its id, and the lock against all others who change it.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::renameat,
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{
    ALL, Id, Intent, Record, Root, SOCKET, claim,
    files::{Files, Traces, directory, is_current},
    lock::Lock,
};
use crate::{
    error::{Code, Context as _, Error, Result},
    state::Status,
};

/// How long a verb waits for another one, in milliseconds.
pub const LOCK_LIMIT: u16 = 5000;

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
    directory: Lock,
}

/// What came of an attempt to lock.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Locked(Locked),
    /// Another pura holds it.
    Busy(Entry),
    /// Another pura has removed the container meanwhile.
    Gone,
}

impl Entry {
    /// Opens the entry, if there is a directory of that name. Any failure but absence is an error: `delete --force` must
    /// not take it for success.
    pub fn open(root: Root, id: &Id) -> nix::Result<Option<Self>> {
        match directory(root.directory.as_fd(), id.as_str()) {
            Ok(directory) => Ok(Some(Self { root, id: id.clone(), directory })),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn files(&self) -> Files<'_> {
        Files::of(self.directory.as_fd())
    }

    /// What was recorded when it was created: nothing while it is being created, or when the file is damaged.
    pub fn record(&self) -> Option<Record> {
        self.files().record()
    }

    /// What was about to be made.
    pub fn intent(&self) -> Option<Intent> {
        self.files().intent()
    }

    /// What may be alive, as record or intent name it; nothing when neither can be read.
    pub fn traces(&self) -> Option<Traces> {
        self.files().traces()
    }

    /// Whether the record is lost, and the status with it.
    pub fn is_damaged(&self) -> bool {
        self.files().is_damaged()
    }

    /// The config as it was at `create`.
    pub fn config(&self) -> Result<Vec<u8>> {
        self.files().config().doing(Code::StateDamaged, || format!("read the config of {:?}", self.id.as_str()))
    }

    /// The kernel's answer to what the files say.
    pub fn status(&self) -> Status {
        self.files().status(self.record().as_ref())
    }

    /// The status, for one who has the record.
    pub fn status_of(&self, record: &Record) -> Status {
        self.files().status(Some(record))
    }

    /// Locks the entry against all other verbs that change it; waits for them, but not for ever.
    pub fn lock(self, verb: &str) -> Result<Locked> {
        let id = self.id.clone();
        match self.try_lock(LOCK_LIMIT) {
            Attempt::Locked(locked) => Ok(locked),
            Attempt::Gone => Err(super::missing(&id, verb)),
            Attempt::Busy(entry) => {
                let creator = entry.intent().map(|intent| intent.creator.pid);
                let who = creator.map_or_else(String::new, |pid| format!(" (perhaps process {pid})"));
                let why = format!("another pura is at work on it{who}");
                Err(Error::new(Code::Locked, format!("{verb} {:?}", id.as_str()), why))
            }
        }
    }

    /// The same, within `limit` milliseconds.
    pub fn try_lock(self, limit: u16) -> Attempt {
        let Self { root, id, directory } = self;
        let directory = match Lock::take(directory, limit) {
            Ok(directory) => directory,
            Err((directory, _)) => return Attempt::Busy(Self { root, id, directory }),
        };
        // It may have been removed between open and lock, and the name be another container's by now.
        match is_current(&root, id.as_str(), directory.as_fd()) {
            Ok(false) => Attempt::Gone,
            Ok(true) | Err(_) => Attempt::Locked(Locked { root, id, directory }),
        }
    }
}

impl Locked {
    fn files(&self) -> Files<'_> {
        Files::of(self.directory.as_fd())
    }

    /// As [`Entry::record`].
    pub fn record(&self) -> Option<Record> {
        self.files().record()
    }

    /// As [`Entry::intent`].
    pub fn intent(&self) -> Option<Intent> {
        self.files().intent()
    }

    /// As [`Entry::traces`].
    pub fn traces(&self) -> Option<Traces> {
        self.files().traces()
    }

    /// As [`Entry::is_damaged`].
    pub fn is_damaged(&self) -> bool {
        self.files().is_damaged()
    }

    /// As [`Entry::status`].
    pub fn status(&self) -> Status {
        self.files().status(self.record().as_ref())
    }

    /// The config as it was at `create`.
    pub fn config(&self) -> Result<Vec<u8>> {
        self.files().config().doing(Code::StateDamaged, || format!("read the config of {:?}", self.id.as_str()))
    }

    /// Connects to the init that waits for `start`.
    pub fn connect(&self) -> nix::Result<OwnedFd> {
        claim::connect(self.directory.as_fd())
    }

    /// Removes the socket: init waits no longer.
    pub fn forget_socket(&self) {
        let _ = unlinkat(self.directory.as_fd(), SOCKET, UnlinkatFlags::NoRemoveDir);
    }

    /// Whether anything but the intent is there.
    pub fn has_more_than_intent(&self) -> bool {
        self.files().has_more_than_intent()
    }

    /// Removes the entry: first out of sight, so that the id is free or whole, then file by file.
    pub fn remove(self) -> Result<()> {
        let aside = format!(".rm-{}-{}", self.id, std::process::id());
        let what = || format!("remove the state of {:?}", self.id.as_str());
        renameat(&self.root.directory, self.id.as_str(), &self.root.directory, aside.as_str())
            .doing(Code::StateRefused, what)?;
        let removed = self.files().remove(&ALL);
        self.directory.clear();
        let removed = removed.and_then(|()| unlinkat(&self.root.directory, aside.as_str(), UnlinkatFlags::RemoveDir));
        match removed {
            // Another pura finishes removals too.
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::ENOTEMPTY) => {
                let left = self.root.path.join(aside);
                Err(Error::new(
                    Code::StateDamaged,
                    what(),
                    format!("{} has files that pura did not make", left.display()),
                ))
            }
            Err(errno) => Err(errno).doing(Code::StateRefused, what),
        }
    }
}

/// Finishes what a killed `delete` has left: entries that are out of sight already, and that nobody works on.
pub fn finish_removals(root: &Root) {
    let names = directory(root.directory.as_fd(), ".").and_then(nix::dir::Dir::from_fd);
    let Ok(mut names) = names else { return };
    // What follows an error is the same error, for ever.
    for entry in names.iter().map_while(std::result::Result::ok) {
        let name = entry.file_name();
        if !name.to_bytes().starts_with(b".rm-") {
            continue;
        }
        if let Ok(Ok(left)) = directory(root.directory.as_fd(), name).map(|left| Lock::take(left, 0)) {
            let _ = Files::of(left.as_fd()).remove(&ALL);
            left.clear();
            let _ = unlinkat(&root.directory, name, UnlinkatFlags::RemoveDir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Sleeper, Store};
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn the_status_is_what_the_kernel_says() {
        let (store, mut sleeper) = (Store::new(), Sleeper::new());
        let claim = store.claim("c0").unwrap();
        assert_eq!(store.entry("c0").status(), Status::Stopped);
        claim.keep();
        store.running("c1", sleeper.identity());
        assert_eq!(store.entry("c1").status(), Status::Running);
        fs::write(store.path("c1").join(SOCKET), "").unwrap();
        assert_eq!(store.entry("c1").status(), Status::Created);
        sleeper.end();
        assert_eq!(store.entry("c1").status(), Status::Stopped);
    }

    #[test]
    fn only_who_is_in_a_frozen_cgroup_is_paused() {
        let (store, mut sleeper, cgroup) = (Store::new(), Sleeper::new(), tempfile::tempdir().unwrap());
        store.running("c1", sleeper.identity());
        let record = Record { cgroup: Some(cgroup.path().to_owned()), ..store.entry("c1").record().unwrap() };
        fs::write(store.path("c1").join("state.json"), serde_json::to_vec(&record).unwrap()).unwrap();
        let mut status = |events: &str, ends: bool| {
            fs::write(cgroup.path().join("cgroup.events"), events).unwrap();
            if ends {
                sleeper.end();
            }
            store.entry("c1").status()
        };
        assert_eq!(status("populated 1\nfrozen 0\n", false), Status::Running);
        assert_eq!(status("populated 1\nfrozen 1\n", false), Status::Paused);
        assert_eq!(status("populated 0\nfrozen 1\n", false), Status::Running);
        assert_eq!(status("populated 0\nfrozen 1\n", true), Status::Stopped);
    }

    #[test]
    fn a_lost_record_is_damage_and_an_absent_one_is_not() {
        let (store, mut sleeper) = (Store::new(), Sleeper::new());
        store.claim("c0").unwrap().keep();
        assert!(!store.entry("c0").is_damaged());
        store.running("c1", sleeper.identity());
        assert!(!store.entry("c1").is_damaged());
        for content in ["", "{}", "{\"version\":1", "not JSON"] {
            fs::write(store.path("c1").join("state.json"), content).unwrap();
            assert!(store.entry("c1").is_damaged(), "{content:?}");
            assert_eq!(store.entry("c1").traces().unwrap().init, Some(sleeper.identity()));
        }
        fs::remove_file(store.path("c1").join("state.json")).unwrap();
        assert!(store.entry("c1").is_damaged(), "init is alive, its creator is not");
        sleeper.end();
        assert!(!store.entry("c1").is_damaged());
    }

    #[test]
    fn a_lock_that_another_holds_is_waited_for_and_no_longer_than_said() {
        let store = Store::new();
        store.claim("c1").unwrap().keep();
        let Attempt::Locked(held) = store.entry("c1").try_lock(0) else { panic!("not locked") };
        assert!(matches!(store.entry("c1").try_lock(20), Attempt::Busy(_)));
        drop(held);
        assert!(matches!(store.entry("c1").try_lock(0), Attempt::Locked(_)));
    }

    #[test]
    fn a_removal_that_was_killed_is_finished_and_one_at_work_left_alone() {
        let store = Store::new();
        for name in ["killed", "at-work"] {
            store.claim(name).unwrap().keep();
        }
        let Attempt::Locked(_at_work) = store.entry("at-work").try_lock(0) else { panic!("not locked") };
        for name in ["killed", "at-work"] {
            fs::rename(store.path(name), store.path(&format!(".rm-{name}-1"))).unwrap();
        }
        finish_removals(&store.root());
        assert_eq!(store.names(), [".rm-at-work-1"]);
    }

    #[test]
    fn a_link_or_a_file_is_no_container() {
        let store = Store::new();
        symlink("/", store.path("link")).unwrap();
        fs::write(store.path("file"), "").unwrap();
        for name in ["link", "file", "none"] {
            let id = Id::parse(name.as_ref()).unwrap();
            assert!(Entry::open(store.root(), &id).unwrap().is_none(), "{name}");
        }
    }
}
