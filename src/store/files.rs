//! What the files of one container say, whatever of them survives, and what the kernel says to that.

use std::{
    ffi::CString,
    fs::File,
    io::{ErrorKind, Read as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, ResolveFlag},
    sys::stat::Mode,
    unistd::{AccessFlags, UnlinkatFlags, faccessat, unlinkat},
};

use super::{
    CONFIG, INTENT, Identity, Intent, LARGEST, Record, Root, SOCKET, STATE, identity::is_this_boot, record::VERSION,
};
use crate::{
    cgroup::{self, freezer},
    resctrl::Group,
    state::Status,
    sys::path::open_at,
};

/// Bytes that one read of a file asks for.
const ONE_READ: usize = 4096;

/// The directory of a container, for reading.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files<'a> {
    directory: BorrowedFd<'a>,
    /// That is the one above, and this the container's name in it.
    name: Option<&'a str>,
}

/// What of a container may be alive. Nothing after a reboot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// Process 1.
    pub init: Option<Identity>,
    /// The cgroup's directory.
    pub cgroup: Option<PathBuf>,
    /// The container did not make it.
    pub cgroup_stays: bool,
    /// The systemd unit that the cgroup is, or is below.
    pub unit: Option<String>,
    /// The id of its mount namespace, where only that tells its processes.
    pub mounts: Option<u64>,
    /// Its group in resctrl.
    pub resctrl: Option<Group>,
    /// The pura that made it, or makes it.
    pub creator: Option<Identity>,
    /// Where its pid-file was to be.
    pub pid_file: Option<PathBuf>,
    /// It may have poststop hooks.
    pub poststop: bool,
}

impl<'a> Files<'a> {
    /// Those of an open directory.
    pub(super) fn of(directory: BorrowedFd<'a>) -> Self {
        Self { directory, name: None }
    }

    /// Those of a directory that is only looked into, once: it may be another one at the next look.
    pub(super) fn below(directory: BorrowedFd<'a>, name: &'a str) -> Self {
        Self { directory, name: Some(name) }
    }

    fn path(self, file: &str) -> CString {
        self.name.map_or_else(|| c_string(&[file]), |name| c_string(&[name, "/", file]))
    }

    pub(super) fn record(self) -> Option<Record> {
        let record: Record = serde_json::from_slice(&self.read(STATE, LARGEST).ok()?).ok()?;
        (record.version == VERSION).then_some(record)
    }

    pub(super) fn intent(self) -> Option<Intent> {
        let bytes = self.read(INTENT, LARGEST).ok()?;
        Intent::parse(&String::from_utf8_lossy(&bytes)).filter(|intent| intent.version == VERSION)
    }

    pub(super) fn config(self) -> std::io::Result<Vec<u8>> {
        self.read(CONFIG, u64::MAX)
    }

    /// From the record or the intent: each is enough alone. Nothing when neither can be read.
    pub(super) fn traces(self) -> Option<Traces> {
        let (record, intent) = (self.record(), self.intent());
        if record.is_none() && intent.is_none() {
            return None;
        }
        let pid_file = intent.as_ref().and_then(|intent| intent.pid_file.clone());
        let poststop = record.as_ref().is_none_or(|record| record.poststop);
        // If they disagree about the boot, one is damaged: the other may name what is alive.
        let record = record.filter(|record| is_this_boot(&record.boot_id));
        let intent = intent.filter(|intent| is_this_boot(&intent.boot_id));
        let creator = intent.as_ref().map(|intent| intent.creator);
        // What was there when the cgroup was to be made is known for certain only after that.
        let stays = record.as_ref().map(|record| record.cgroup_stays);
        let cgroup_stays = stays.or(intent.as_ref().map(|intent| intent.cgroup_stays)).unwrap_or_default();
        let unit = record.as_ref().and_then(|record| record.unit.clone());
        let unit = unit.or_else(|| intent.as_ref().and_then(|intent| intent.unit.clone()));
        let (late, early, resctrl) =
            intent.map_or((None, None, None), |intent| (intent.init, intent.cgroup, intent.resctrl));
        let mounts = record.as_ref().and_then(|record| record.mounts);
        let (init, cgroup, group) =
            record.map_or((None, None, None), |record| (Some(record.init), record.cgroup, record.resctrl));
        Some(Traces {
            init: init.or(late),
            cgroup: cgroup.or(early),
            unit,
            mounts,
            cgroup_stays,
            resctrl: group.or(resctrl),
            creator,
            pid_file,
            poststop,
        })
    }

    /// The kernel's answer to what the files say.
    pub(super) fn status(self, record: Option<&Record>) -> Status {
        if let Some(record) = record {
            return self.status_of(record.init, &record.boot_id, record.cgroup.as_deref());
        }
        let creator = self.intent().filter(|intent| intent.creator.is_alive() && is_this_boot(&intent.boot_id));
        if creator.is_some() { Status::Creating } else { Status::Stopped }
    }

    /// The same, of a container that has been created.
    pub(super) fn status_of(self, init: Identity, boot_id: &str, cgroup: Option<&Path>) -> Status {
        // The cheap test first; the boot only matters when it says alive.
        if !init.is_alive() || !is_this_boot(boot_id) {
            return Status::Stopped;
        }
        if self.has(SOCKET) {
            return Status::Created;
        }
        let frozen = cgroup.filter(|directory| freezer::is_frozen(directory));
        match frozen.map(|directory| cgroup::event(directory, "populated")) {
            // What ends in a frozen cgroup leaves it empty before it is gone itself.
            Some(Some(false)) if init.is_ending() => Status::Stopped,
            None | Some(Some(false)) => Status::Running,
            Some(Some(true) | None) => Status::Paused,
        }
    }

    /// Whether the record is lost, so that the status cannot be told: its file cannot be read, or there is none although
    /// init outlives its creator.
    pub(super) fn is_damaged(self) -> bool {
        if self.record().is_some() {
            return false;
        }
        let orphan = || {
            let intent = self.intent().filter(|intent| is_this_boot(&intent.boot_id) && !intent.creator.is_alive());
            intent.and_then(|intent| intent.init).is_some_and(Identity::is_alive)
        };
        self.has(STATE) || orphan()
    }

    /// Whether anything but the intent is there: with that alone, nothing has been made.
    pub(super) fn has_more_than_intent(self) -> bool {
        let Ok(mut names) = directory(self.directory, ".").and_then(nix::dir::Dir::from_fd) else { return true };
        let known = [".", "..", INTENT];
        names.iter().any(|entry| {
            entry.map_or(true, |entry| !known.iter().any(|name| entry.file_name().to_bytes() == name.as_bytes()))
        })
    }

    /// Removes files that pura has made, in the order given. Another's file stays, and then the directory does too.
    pub(super) fn remove(self, files: &[&str]) -> nix::Result<()> {
        for name in files {
            match unlinkat(self.directory, self.path(name).as_c_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn has(self, name: &str) -> bool {
        faccessat(self.directory, self.path(name).as_c_str(), AccessFlags::F_OK, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    fn read(self, name: &str, most: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_into(&mut bytes, name, most)?;
        Ok(bytes)
    }

    /// Reads a file into what may have been used for another one.
    pub(super) fn read_into(self, bytes: &mut Vec<u8>, name: &str, most: u64) -> std::io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let path = self.path(name);
        let opened = match self.name {
            None => open_at(self.directory, path.as_c_str(), flags, Mode::empty()),
            // No link may lead to where another's files are.
            Some(_) => crate::sys::path::open(self.directory, &path, flags, ResolveFlag::RESOLVE_NO_SYMLINKS),
        };
        let mut file = File::from(opened?);
        bytes.resize(ONE_READ, 0);
        let count = loop {
            match file.read(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => break done?,
            }
        };
        bytes.truncate(count);
        // A read that leaves room has met the end; nearly every file is that short.
        if count == ONE_READ {
            file.take(most - ONE_READ as u64).read_to_end(bytes)?;
        }
        Ok(())
    }
}

/// Parts of a path, together, in the one allocation that it takes.
pub(super) fn c_string(parts: &[&str]) -> CString {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum::<usize>() + 1);
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
    }
    CString::new(bytes).unwrap_or_default()
}

/// Opens a directory below another one, for reading.
pub(super) fn directory<P: ?Sized + nix::NixPath>(parent: BorrowedFd<'_>, name: &P) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open_at(parent, name, flags, Mode::empty())
}

/// Whether a name still leads to the open directory: another verb may have moved it away meanwhile, and a new container
/// may have taken the name.
pub(super) fn is_current(root: &Root, name: &str, open: BorrowedFd<'_>) -> nix::Result<bool> {
    let ours = crate::sys::path::stat(open)?;
    match nix::sys::stat::fstatat(root.directory.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
