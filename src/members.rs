//! The processes of a container that are in no cgroup of its own: told by its mount namespace, which it shares with no
//! other container unless the config says so.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    time::{Duration, Instant},
};

use oci_spec::runtime::{LinuxNamespaceType as Kind, Spec};

use crate::{store::Identity, sys};

/// For how long new ones are looked for.
const LIMIT: Duration = Duration::from_secs(5);

/// What tells the processes of one container.
#[derive(Debug)]
pub struct Members {
    mounts: u64,
    users: u64,
    /// An inode number belongs to the namespace only as long as somebody holds it.
    _held: [OwnedFd; 2],
}

impl Members {
    /// Of a container whose init is alive; nothing when they cannot be told from others.
    pub fn of(init: Identity, config: &Spec) -> Option<Self> {
        if joined(config, Kind::Mount) == Some(true) {
            return None;
        }
        let open = |kind: &str| Some(OwnedFd::from(File::open(format!("/proc/{}/ns/{kind}", init.pid)).ok()?));
        let held = [open("mnt")?, open("user")?];
        let (mounts, users) = (inode(init.pid, "mnt")?, inode(init.pid, "user")?);
        // Its own from the first moment on; whatever went wrong, it must never be ours.
        let is_own = mounts != inode(i32::try_from(std::process::id()).ok()?, "mnt")?;
        (is_own && init.is_alive()).then_some(Self { mounts, users, _held: held })
    }

    /// The same, of a container without a PID namespace of its own: of any other nobody outlives init.
    pub fn outliving(init: Identity, config: &Spec) -> Option<Self> {
        if joined(config, Kind::Pid) == Some(false) { None } else { Self::of(init, config) }
    }

    /// Sends each a signal.
    pub fn signal(&self, signal: i32) {
        for process in self.find() {
            send(process, signal);
        }
    }

    /// Ends all, and says who they were. Stopped first: who is stopped starts nobody else, so that there is an end to it.
    pub fn kill(&self) -> Vec<Identity> {
        let (begin, mut known) = (Instant::now(), Vec::new());
        while begin.elapsed() < LIMIT {
            let found = self.find().into_iter().filter(|process| !known.contains(process)).collect::<Vec<_>>();
            if found.is_empty() {
                break;
            }
            for process in &found {
                send(*process, libc::SIGSTOP);
            }
            known.extend(found);
        }
        for process in &known {
            send(*process, libc::SIGKILL);
        }
        known
    }

    fn find(&self) -> Vec<Identity> {
        let is_one = |pid: i32| inode(pid, "mnt") == Some(self.mounts) && inode(pid, "user") == Some(self.users);
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // Asked again: the id may have passed to another in between.
        pids.filter(|pid| is_one(*pid)).filter_map(Identity::of).filter(|process| is_one(process.pid)).collect()
    }
}

/// Whether a namespace is joined, or new; nothing when the config has none of the kind.
fn joined(config: &Spec, kind: Kind) -> Option<bool> {
    let mut all = config.linux().as_ref()?.namespaces().iter().flatten();
    let path = all.find(|namespace| namespace.typ() == kind)?.path().as_ref();
    Some(path.is_some_and(|path| !path.as_os_str().is_empty()))
}

fn inode(pid: i32, kind: &str) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok()?.ino())
}

/// To this very process, if it still is.
fn send(process: Identity, signal: i32) {
    if let Ok(Some(process)) = process.open() {
        let _ = sys::pidfd::send(process.as_fd(), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_outside_is_ever_one_of_them() {
        let spec = Spec::default();
        assert!(
            Members::of(Identity::own().unwrap(), &spec).is_none(),
            "our own mount namespace is none of a container"
        );
        let dead = Identity { pid: i32::MAX, start_time: 1 };
        assert!(Members::of(dead, &spec).is_none());
    }
}
