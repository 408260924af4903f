//! `pura delete`: removes a container and all that was made for it.

use std::{ffi::OsStr, fs, os::fd::AsFd as _, path::PathBuf};

use super::{Call, kill};
use crate::{
    cgroup,
    error::{Code, Error, Result},
    host::probe,
    state::Status,
    store::{Entry, Id, Identity, Locked, Roots, finish_removals, temporary_pid_file},
    sys,
};

/// How long a killed process is waited for, in milliseconds.
const LIMIT: u16 = 10_000;

/// Removes what is stopped or only created; with `force`, whatever it is, and a missing one is no error.
pub(super) fn delete(call: Call<'_>, id: &OsStr, force: bool, regex: bool) -> Result<u8> {
    let roots = Roots::find(call.globals)?;
    roots.existing().for_each(|root| finish_removals(&root));
    if regex {
        for entry in kill::matching(&roots, id)? {
            remove(entry, force)?;
        }
        return Ok(0);
    }
    let id = Id::parse(id)?;
    match roots.open(&id, "delete") {
        Ok(entry) => remove(entry, force)?,
        Err(_missing) if force => {}
        Err(error) => return Err(error),
    }
    Ok(0)
}

fn remove(entry: Entry, force: bool) -> Result<()> {
    let locked = if force { lock_by_force(entry)? } else { entry.lock("delete")? };
    let what = || format!("delete {:?}", locked.id.as_str());
    if !force {
        match locked.status() {
            Status::Created => {}
            Status::Stopped if locked.record().is_some() => {}
            Status::Stopped => {
                let why = "its creation was never finished";
                return Err(Error::new(Code::IdLeftOver, what(), why).fix(format!("pura delete --force {}", locked.id)));
            }
            status @ (Status::Creating | Status::Running | Status::Paused) => {
                let why = format!("container is {status}, not stopped");
                return Err(
                    Error::new(Code::StillRunning, what(), why).fix(format!("pura delete --force {}", locked.id))
                );
            }
        }
    }
    let (record, intent) = (locked.record(), locked.intent());
    if record.is_none() && intent.is_none() && locked.has_foreign_files() {
        return Err(Error::new(
            Code::StateDamaged,
            what(),
            "its directory has files that pura did not make, and none of pura's",
        ));
    }
    // Each of the two is enough alone, and both are only believed as far as the kernel agrees.
    let init = record.as_ref().map(|record| record.init).or_else(|| intent.as_ref()?.init);
    let named = record.as_ref().and_then(|record| record.cgroup.clone()).or_else(|| intent.as_ref()?.cgroup.clone());
    let lost = record.is_none() && intent.is_none();
    let leaf = if lost { default_leaf(&locked.id) } else { named };
    end(&locked, init, leaf.as_deref())?;
    if let Some(path) = intent.and_then(|intent| intent.pid_file) {
        let _ = fs::remove_file(temporary_pid_file(&path, locked.id.as_str()));
    }
    locked.remove()
}

/// The lock, even from a pura that hangs: it is killed, after the check that it still is the one.
fn lock_by_force(entry: Entry) -> Result<Locked> {
    let entry = match entry.try_lock(5000) {
        Ok(locked) => return Ok(locked),
        Err(entry) => entry,
    };
    if let Some(creator) = entry.intent().and_then(|intent| intent.creator.open()) {
        let _ = sys::pidfd::send(creator.as_fd(), libc::SIGKILL);
        sys::pidfd::wait(&creator, LIMIT);
    }
    entry.lock("delete")
}

/// The cgroup that `create` would have used, for a container of which nothing is written any more.
fn default_leaf(id: &Id) -> Option<PathBuf> {
    let cgroup = probe::cgroup();
    let directory = cgroup.mount?.join(cgroup.own.trim_start_matches('/')).join(format!("pura-{id}"));
    directory.is_dir().then_some(directory)
}

/// Ends every process of the container and removes its cgroup.
fn end(entry: &Locked, init: Option<Identity>, leaf: Option<&std::path::Path>) -> Result<()> {
    let what = || format!("delete {:?}", entry.id.as_str());
    let process = init.and_then(Identity::open);
    if let Some(leaf) = leaf {
        cgroup::kill(leaf);
    }
    if let Some(process) = &process {
        // Process 1 takes its PID namespace along.
        let _ = sys::pidfd::send(process.as_fd(), libc::SIGKILL);
        if !sys::pidfd::wait(process, LIMIT) {
            return Err(Error::new(
                Code::Survivors,
                what(),
                format!("process {} survives", init.unwrap_or_default().pid),
            ));
        }
    }
    let Some(leaf) = leaf else { return Ok(()) };
    if !cgroup::wait_empty(leaf, LIMIT) {
        let alive = fs::read_to_string(leaf.join("cgroup.procs")).unwrap_or_default();
        let pids: Vec<_> = alive.lines().collect();
        return Err(Error::new(
            Code::Survivors,
            what(),
            format!("processes survive in its cgroup: {}", pids.join(" ")),
        ));
    }
    cgroup::remove(leaf).map_err(|error| {
        let why = format!("its cgroup {} cannot be removed: {}", leaf.display(), error.to_string().to_lowercase());
        Error::new(Code::Survivors, what(), why)
    })
}
