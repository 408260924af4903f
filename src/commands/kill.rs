//! `pura kill`: signals to a container.

use std::{ffi::OsStr, os::fd::AsFd as _};

use super::Call;
use crate::{
    error::{Code, Error, Result, plain},
    signal,
    state::Status,
    store::{Entry, Id, Roots},
    sys,
};

/// Which processes of which containers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// Every process, not only process 1.
    pub(super) all: bool,
    /// The id is a pattern.
    pub(super) regex: bool,
}

/// Sends a signal, TERM when none is named.
pub(super) fn kill(call: Call<'_>, id: &OsStr, typed: Option<&OsStr>, reach: Reach) -> Result<u8> {
    let number = typed.map_or(Ok(libc::SIGTERM), signal::parse)?;
    let roots = Roots::find(call.globals)?;
    if !reach.regex {
        send(&roots.open(&Id::parse(id)?, "signal")?, number, reach.all)?;
        return Ok(0);
    }
    for entry in matching(&roots, id)? {
        if entry.status() != Status::Stopped {
            send(&entry, number, reach.all)?;
        }
    }
    Ok(0)
}

/// The containers whose whole id a regular expression matches.
pub(super) fn matching(roots: &Roots, pattern: &OsStr) -> Result<Vec<Entry>> {
    let text = pattern.to_string_lossy();
    let pattern = regex::Regex::new(&format!("^(?:{text})$"));
    let pattern = pattern.map_err(|_error| {
        Error::new(Code::Usage, "read the command line", format!("{text:?} is no regular expression"))
    })?;
    let mut found = Vec::new();
    for root in roots.existing() {
        for id in root.ids().into_iter().filter(|id| pattern.is_match(id.as_str())) {
            found.extend(root.again().and_then(|root| Entry::open(root, &id)));
        }
    }
    Ok(found)
}

fn send(entry: &Entry, number: i32, all: bool) -> Result<()> {
    let what = || format!("signal {:?}", entry.id.as_str());
    let record = entry.record();
    if all {
        return send_to_all(entry, number);
    }
    let stopped = || Error::new(Code::NotRunning, what(), "container not running: no such process");
    let record = record.ok_or_else(stopped)?;
    if entry.status_of(&record) == Status::Stopped {
        return Err(stopped());
    }
    // Opened first, then compared: never a process that has taken over the id.
    let init = record.init.open().ok_or_else(stopped)?;
    match sys::pidfd::send(init.as_fd(), number) {
        Err(nix::errno::Errno::ESRCH) => Err(stopped()),
        sent => sent.map_err(|errno| Error::new(Code::NotRunning, what(), plain(errno))),
    }
}

/// Every process of the cgroup; without one of its own, process 1. Nothing left to signal is no failure.
fn send_to_all(entry: &Entry, number: i32) -> Result<()> {
    let record = entry.record();
    let cgroup = record.as_ref().and_then(|record| record.cgroup.clone()).or_else(|| entry.intent()?.cgroup);
    if let Some(cgroup) = cgroup {
        if number == libc::SIGKILL {
            crate::cgroup::kill(&cgroup);
        } else {
            crate::cgroup::signal_all(&cgroup, number);
        }
        return Ok(());
    }
    if let Some(init) = record.and_then(|record| record.init.open()) {
        let _ = sys::pidfd::send(init.as_fd(), number);
    }
    Ok(())
}
