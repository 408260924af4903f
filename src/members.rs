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

use crate::{
    store::{Identity, Traces},
    sys,
};

/// For how long new ones are looked for.
const LIMIT: Duration = Duration::from_secs(5);

/// What tells the processes of one container.
#[derive(Debug)]
pub enum Members {
    /// The inode numbers of its namespaces.
    Held {
        /// Of its mount namespace.
        mounts: u64,
        /// Of its user namespace.
        users: u64,
        /// A number belongs to the namespace only as long as somebody holds it.
        held: [OwnedFd; 2],
    },
    /// The id of its mount namespace, which no other one has in this boot: init may have died long ago.
    Recorded(u64),
}

impl Members {
    /// Of a container with these traces and this config; nothing when they cannot be told from others.
    pub fn find(traces: &Traces, config: impl FnOnce() -> Option<Spec>) -> Option<Self> {
        traces.mounts.map_or_else(|| Self::of(traces.init?, &config()?), Self::recorded)
    }

    /// The same, of a container without a PID namespace of its own: of any other nobody outlives init.
    pub fn outliving(traces: &Traces, config: impl FnOnce() -> Option<Spec>) -> Option<Self> {
        let shares = |spec: &Spec| joined(spec, Kind::Pid) != Some(false);
        Self::find(traces, || config().filter(shares))
    }

    /// Of a container whose init is alive.
    fn of(init: Identity, config: &Spec) -> Option<Self> {
        if joined(config, Kind::Mount) == Some(true) {
            return None;
        }
        let open = |kind: &str| Some(OwnedFd::from(File::open(format!("/proc/{}/ns/{kind}", init.pid)).ok()?));
        Self::hold([open("mnt")?, open("user")?]).filter(|_| init.is_alive())
    }

    /// Of a container whose mount namespace is open.
    pub fn within(mounts: OwnedFd) -> Option<Self> {
        let users = sys::namespace::owner(mounts.as_fd()).ok()?;
        Self::hold([mounts, users])
    }

    fn hold(held: [OwnedFd; 2]) -> Option<Self> {
        let [mounts, users] = held.each_ref().map(|namespace| Some(sys::path::stat(namespace.as_fd()).ok()?.st_ino));
        // Its own from the first moment on; whatever went wrong, it must never be ours.
        let is_own = mounts != inode("self", "mnt");
        let (mounts, users) = (mounts?, users?);
        is_own.then_some(Self::Held { mounts, users, held })
    }

    fn recorded(id: u64) -> Option<Self> {
        // As above.
        mounts_id("self").is_some_and(|own| own != id).then_some(Self::Recorded(id))
    }

    /// Sends each a signal.
    pub fn signal(&self, signal: i32) {
        for process in self.all() {
            send(process, signal);
        }
    }

    /// Ends all, and says who they were. Stopped first: who is stopped starts nobody else, so that there is an end to it.
    pub fn kill(&self) -> Vec<Identity> {
        let (begin, mut known) = (Instant::now(), Vec::new());
        while begin.elapsed() < LIMIT {
            let found = self.all().into_iter().filter(|process| !known.contains(process)).collect::<Vec<_>>();
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

    fn all(&self) -> Vec<Identity> {
        let is_one = |pid: i32| {
            let pid = pid.to_string();
            match self {
                Self::Held { mounts, users, .. } => {
                    inode(&pid, "mnt") == Some(*mounts) && inode(&pid, "user") == Some(*users)
                }
                Self::Recorded(id) => mounts_id(&pid) == Some(*id),
            }
        };
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

fn inode(process: &str, kind: &str) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{process}/ns/{kind}")).ok()?.ino())
}

fn mounts_id(process: &str) -> Option<u64> {
    sys::namespace::mounts_id(File::open(format!("/proc/{process}/ns/mnt")).ok()?.as_fd()).ok()
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
        let why = "our own mount namespace is none of a container";
        assert!(Members::of(Identity::own().unwrap(), &spec).is_none(), "{why}");
        assert!(Members::within(File::open("/proc/self/ns/mnt").unwrap().into()).is_none(), "{why}");
        assert!(mounts_id("self").and_then(Members::recorded).is_none(), "{why}");
        let dead = Identity { pid: i32::MAX, start_time: 1 };
        assert!(Members::of(dead, &spec).is_none());
        assert!(Members::Recorded(u64::MAX).all().is_empty());
    }
}
