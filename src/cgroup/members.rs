//! Who lives in a cgroup, their end, and its own.

use std::{
    ffi::CString,
    fs,
    io::{self, Read as _, Seek as _, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::statfs::CGROUP2_SUPER_MAGIC,
    unistd::{AccessFlags, access},
};

use crate::sys;

/// Whether a child of the caller's may be born in the cgroup: `cgroups(7)`, delegation.
pub fn may_enter(directory: &Path) -> bool {
    access(&directory.join("cgroup.procs"), AccessFlags::W_OK).is_ok()
}

/// One line of `cgroup.events`; nothing when the cgroup is gone.
pub fn event(directory: &Path, name: &str) -> Option<bool> {
    let path = CString::new(directory.join("cgroup.events").into_os_string().into_encoded_bytes()).ok()?;
    let events = String::from_utf8(sys::path::read::<128>(&path).ok()?).ok()?;
    events.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(|value| value == "1")
}

/// How long a change may pass unseen.
const GLANCE: Duration = Duration::from_secs(1);

/// A file of a cgroup whose change is an exceptional condition: `cgroups(7)`.
#[derive(Debug)]
pub struct Watch(fs::File);

impl Watch {
    /// Watches from now on.
    pub fn of(file: &Path) -> io::Result<Self> {
        let mut watch = Self(fs::File::open(file)?);
        watch.arm();
        Ok(watch)
    }

    /// What to poll for.
    pub fn wanted(&self) -> PollFd<'_> {
        PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)
    }

    /// Reading re-arms the notification.
    pub fn arm(&mut self) {
        drop(self.0.read_to_string(&mut String::new()));
        drop(self.0.rewind());
    }

    /// Waits for a change until `end`, but not long: the file may have been unreadable when it changed. Whether to look
    /// again.
    pub fn wait(&mut self, end: Instant) -> bool {
        let left = end.saturating_duration_since(Instant::now());
        let limit = PollTimeout::try_from(left.min(GLANCE)).unwrap_or(PollTimeout::MAX);
        let waited = sys::retry(|| poll(&mut [self.wanted()], limit));
        self.arm();
        !left.is_zero() && waited.is_ok()
    }
}

/// Whether the directory is there and no cgroup at all: what a damaged state names is not to be touched.
pub fn is_other(directory: &Path) -> bool {
    nix::sys::statfs::statfs(directory).is_ok_and(|found| found.filesystem_type() != CGROUP2_SUPER_MAGIC)
}

/// Ends every process of the cgroup, at once, frozen or not: `cgroup.kill` (Linux 5.14), else one by one.
pub fn kill(directory: &Path) {
    let file = fs::OpenOptions::new().write(true).open(directory.join("cgroup.kill"));
    if file.and_then(|mut file| file.write_all(b"1")).is_ok() {
        return;
    }
    signal_all(directory, libc::SIGKILL);
}

/// Sends a signal to every process of the cgroup and of those below it; how many there were.
pub fn signal_all(directory: &Path, signal: i32) -> usize {
    let sent = |pid: &i32| sys::pidfd::find(*pid).and_then(|process| sys::pidfd::send(process.as_fd(), signal)).is_ok();
    processes(directory).iter().filter(|pid| sent(pid)).count()
}

/// The processes of the cgroup and of those below it, as the caller sees them.
pub fn processes(directory: &Path) -> Vec<i32> {
    let mut all: Vec<_> = children(directory).iter().flat_map(|child| processes(child)).collect();
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    all
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Waits until nobody lives in the cgroup, at most `limit` milliseconds; whether that is so.
pub fn wait_empty(directory: &Path, limit: u16) -> bool {
    let Ok(mut watch) = Watch::of(&directory.join("cgroup.events")) else { return true };
    let end = Instant::now() + Duration::from_millis(u64::from(limit));
    loop {
        if event(directory, "populated") != Some(true) {
            return true;
        }
        if !watch.wait(end) {
            return event(directory, "populated") != Some(true);
        }
    }
}

/// Removes the cgroup and those below it. EBUSY passes when the last process has been reaped: tried again, not for ever.
pub fn remove(directory: &Path) -> io::Result<()> {
    for child in children(directory) {
        remove(&child)?;
    }
    for _ in 0..REMOVE_ATTEMPTS {
        match fs::remove_dir(directory) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                if !wait_empty(directory, REMOVE_STEP) {
                    continue;
                }
                let _ = poll(&mut [], PollTimeout::from(1_u8));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => return done,
        }
    }
    fs::remove_dir(directory)
}

const REMOVE_ATTEMPTS: u8 = 50;
const REMOVE_STEP: u16 = 100;
