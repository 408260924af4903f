//! A user namespace for an idmapped mount: made, mapped and kept open; nobody ever runs in it.
//!
//! Init makes it where the filesystem is the container's own: the kernel wants power over both, and a namespace that the
//! parent makes is a sibling of ours. The parent makes it where the filesystem is its own.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::socket::{MsgFlags, recv, send},
};

use super::line::Line;
use crate::{
    launch::link,
    sys::{
        self,
        path::REFERENCE,
        process::{Attribute, Fork, exit_now, holder, prctl},
        retry,
    },
};

/// A new child of our user namespace with these maps: "inside outside count", one per line.
pub(crate) fn make(uids: &CStr, gids: &CStr) -> nix::Result<OwnedFd> {
    let (ours, theirs) = link::pair()?;
    match holder(libc::CLONE_NEWUSER)? {
        Fork::Child => {
            drop(ours);
            let _ = hold(theirs.as_fd());
            exit_now(0)
        }
        Fork::Parent(child) => {
            drop(theirs);
            let made = map(ours.as_fd(), uids, gids);
            // The end of file is what the child waits for.
            drop(ours);
            let _ = sys::process::wait(child);
            made
        }
    }
}

/// The child: says who it is, in the words of the procfs that both see, and waits to be dispensable.
fn hold(link: BorrowedFd<'_>) -> nix::Result<()> {
    prctl(Attribute::DeathSignal, libc::SIGKILL.unsigned_abs().into())?;
    // Its maps have to be ours to write: files of an undumpable process belong to root. Only where nobody of another
    // container can see it: the plan asks for a PID namespace of our own.
    prctl(Attribute::Dumpable, 1)?;
    let own = sys::path::open_host(c"/proc/self", REFERENCE | OFlag::O_NOFOLLOW)?;
    let mut name = [0_u8; 16];
    let length = sys::path::read_link(own.as_fd(), &mut name)?;
    retry(|| send(link.as_raw_fd(), name.get(..length).unwrap_or_default(), MsgFlags::MSG_NOSIGNAL))?;
    retry(|| recv(link.as_raw_fd(), &mut [0_u8; 1], MsgFlags::empty())).map(drop)
}

fn map(link: BorrowedFd<'_>, uids: &CStr, gids: &CStr) -> nix::Result<OwnedFd> {
    let mut name = [0_u8; 16];
    let length = retry(|| recv(link.as_raw_fd(), &mut name, MsgFlags::empty()))?;
    let name = name.get(..length).filter(|name| !name.is_empty()).ok_or(Errno::ESRCH)?;
    let path = |file: &[u8]| {
        let mut path = Line::default();
        for part in [b"/proc/", name, file] {
            path.add(part);
        }
        path
    };
    for (file, lines) in [(b"/uid_map", uids), (b"/gid_map", gids)] {
        drop(sys::path::write(path(file).text()?, lines.to_bytes())?);
    }
    sys::path::open_host(path(b"/ns/user").text()?, OFlag::O_RDONLY)
}
