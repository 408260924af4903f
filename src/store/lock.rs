//! The lock on a container's directory, against all others who change it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::{readlinkat, renameat},
    unistd::{UnlinkatFlags, symlinkat, unlinkat},
};

use super::{Identity, boot_id, is_this_boot};
use crate::{
    error::{Code, Warning},
    sys,
};

/// How long another one is waited for at a time, in milliseconds.
const STEP: u8 = 10;

/// The link that stands for the lock where there are no others. It says who made it.
const LINK: &str = "lock";

/// A directory that nobody else changes.
#[derive(Debug)]
pub(super) enum Lock {
    /// `flock(2)` on the directory itself: no file is needed for it, and it ends with its process.
    Kernel(OwnedFd),
    /// A link in it, because a filesystem of a network may know no locks: `symlink(2)` fails where there is one already.
    Link(Linked),
}

/// A directory with the link, which goes with the value.
#[derive(Debug)]
pub(super) struct Linked(OwnedFd);

impl Lock {
    /// Locks a directory. Gives the descriptor back when the lock is not free within `limit` milliseconds.
    pub(super) fn take(directory: OwnedFd, limit: u16) -> Result<Self, (OwnedFd, Errno)> {
        let mut waited = 0;
        loop {
            let errno = match sys::fd::lock(directory.as_fd()) {
                Ok(()) => return Ok(Self::Kernel(directory)),
                Err(Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS) => match link(directory.as_fd()) {
                    Ok(()) => return Ok(Self::Link(Linked(directory))),
                    Err(errno) => errno,
                },
                Err(errno) => errno,
            };
            if errno != Errno::EWOULDBLOCK || waited >= limit {
                return Err((directory, errno));
            }
            // flock(2) has no time limit of its own, and its release no descriptor to wait for.
            let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(STEP));
            waited += u16::from(STEP);
        }
    }

    /// Lets others at the directory; or goes on without.
    pub(super) fn release(self) -> Result<OwnedFd, Self> {
        match self {
            Self::Kernel(locked) if sys::fd::unlock(locked.as_fd()).is_ok() => Ok(locked),
            Self::Kernel(locked) => Err(Self::Kernel(locked)),
            Self::Link(linked) => linked.0.try_clone().map_err(|_no_descriptor| Self::Link(linked)),
        }
    }

    /// Removes what stands for the lock, before the directory goes.
    pub(super) fn clear(&self) {
        if let Self::Link(linked) = self {
            linked.remove();
        }
    }

    /// What is weaker about it.
    pub(super) fn warning(&self) -> Option<Warning> {
        let what =
            "the filesystem of the state directory knows no locks: a link stands for one, which other hosts do not see";
        matches!(self, Self::Link(_)).then(|| Warning::new(Code::NoLocks, what).fix("--root DIR, on a local disk"))
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Kernel(locked) => locked.as_fd(),
            Self::Link(linked) => linked.0.as_fd(),
        }
    }
}

impl Linked {
    fn remove(&self) {
        let _ = unlinkat(&self.0, LINK, UnlinkatFlags::NoRemoveDir);
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Makes the link. EWOULDBLOCK: somebody who is alive has it.
fn link(directory: BorrowedFd<'_>) -> nix::Result<()> {
    let own = Identity::own().ok_or(Errno::ESRCH)?;
    let says = format!("{}-{}-{}", own.pid, own.start_time, boot_id());
    match symlinkat(says.as_str(), directory, LINK) {
        Err(Errno::EEXIST) => {}
        made => return made,
    }
    let read = |name: &str| readlinkat(directory, name).map(|text| text.to_string_lossy().into_owned());
    let Ok(there) = read(LINK) else { return Err(Errno::EWOULDBLOCK) };
    if is_held(&there) {
        return Err(Errno::EWOULDBLOCK);
    }
    // By a name of our own, so that of two who find a dead one's link neither removes the other's new one.
    let aside = format!("{LINK}.{}", own.pid);
    renameat(directory, LINK, directory, aside.as_str())?;
    if let Ok(found) = read(&aside).as_deref()
        && found != there
    {
        let _ = symlinkat(found, directory, LINK);
    }
    let _ = unlinkat(directory, aside.as_str(), UnlinkatFlags::NoRemoveDir);
    match symlinkat(says.as_str(), directory, LINK) {
        Err(Errno::EEXIST) => Err(Errno::EWOULDBLOCK),
        made => made,
    }
}

/// Whether whoever made a link that says this is alive.
fn is_held(says: &str) -> bool {
    let mut words = says.splitn(3, '-');
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (Some(pid), Some(start_time)) = (number(), number()) else { return false };
    let identity = Identity { pid: i32::try_from(pid).unwrap_or(0), start_time };
    words.next().is_some_and(is_this_boot) && identity.is_alive()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        std::fs::File::open(path).unwrap().into()
    }

    #[test]
    fn a_link_is_a_lock_as_long_as_its_maker_lives() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (open(directory.path()), open(directory.path()));
        link(first.as_fd()).unwrap();
        let held = Linked(first);
        assert_eq!(link(second.as_fd()), Err(Errno::EWOULDBLOCK));
        drop(held);
        assert_eq!(link(second.as_fd()), Ok(()));
        drop(Linked(second));
        // Whoever made this one is dead: no process has so great a number.
        for says in ["4194304-1-x", "nonsense", &format!("{}-1-{}", std::process::id(), boot_id())] {
            std::os::unix::fs::symlink(says, directory.path().join(LINK)).unwrap();
            let next = open(directory.path());
            assert_eq!(link(next.as_fd()), Ok(()), "{says}");
            drop(Linked(next));
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{says}");
        }
    }
}
