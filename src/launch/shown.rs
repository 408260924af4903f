//! What shows a joined namespace: mounted by the parent, detached, once it has joined it; init only attaches it.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd as _, OwnedFd},
};

use nix::errno::Errno;

use super::link;
use crate::{
    error::{Code, Error},
    plan::{Plan, Showing, explain_showing},
    sys::{
        fd::Slots,
        message,
        mount::detached_with,
        process::{self, Attribute, Fork, exit_now, prctl},
    },
};

/// Mounts all of them. A failure comes with the index.
pub(super) fn mount(plan: &Plan, slots: &mut Slots) -> Result<(), (u32, Errno)> {
    for (index, (slot, shown)) in (0..).zip(&plan.shown) {
        // The kernel takes the IPC namespace of whoever asks, but for a PID namespace only children enter.
        let mounted = if shown.kind == "proc" { by_child(shown) } else { one(shown) };
        slots.put(slot.index(), mounted.map_err(|errno| (index, errno))?);
    }
    Ok(())
}

fn one(shown: &Showing) -> nix::Result<OwnedFd> {
    let text = |text: &str| CString::new(text).map_err(|_nul| Errno::EINVAL);
    let kind = text(shown.kind)?;
    // As mount(8) shows it: without a source it would be "none".
    let mut options = vec![(c"source".to_owned(), Some(kind.clone()))];
    for word in &shown.options {
        let (key, value) = word.split_once('=').map_or((word.as_str(), None), |(key, value)| (key, Some(value)));
        options.push((text(key)?, value.map(text).transpose()?));
    }
    let options: Vec<(&CStr, Option<&CStr>)> =
        options.iter().map(|(key, value)| (key.as_c_str(), value.as_deref())).collect();
    detached_with(&kind, &options)
}

/// A child, which is inside, mounts and passes the mount back. ENOMEM: nobody enters any more, for process 1 is dead.
fn by_child(shown: &Showing) -> nix::Result<OwnedFd> {
    let (ours, theirs) = link::pair()?;
    let Fork::Parent(child) = process::copy()? else {
        // Who is in there may have our ids.
        let mounted = prctl(Attribute::Dumpable, 0).and_then(|()| one(shown));
        let errno = mounted.as_ref().err().map_or(0, |errno| *errno as i32);
        let _ = message::send(theirs.as_fd(), &errno.to_ne_bytes(), mounted.as_ref().ok().map(|mount| mount.as_fd()));
        exit_now(0)
    };
    drop(theirs);
    let mut errno = [0; 4];
    let received = message::receive(ours.as_fd(), &mut errno);
    let _ = process::wait(child);
    match (received?, i32::from_ne_bytes(errno)) {
        ((4, Some(mount)), 0) => Ok(mount),
        ((4, None), errno) if errno != 0 => Err(Errno::from_raw(errno)),
        _ => Err(Errno::ESRCH),
    }
}

/// Why one of them could not be mounted.
pub(super) fn explain(plan: &Plan, index: u32, errno: Errno) -> Error {
    let shown = usize::try_from(index).ok().and_then(|index| plan.shown.get(index));
    let unknown = || Error::new(Code::Bug, "mount what shows a joined namespace", crate::error::plain(errno));
    shown.map_or_else(unknown, |(_, shown)| explain_showing(shown, errno))
}
