//! `pura delete`: removes a container and all that was made for it.

use std::{ffi::OsStr, os::fd::AsFd as _};

use super::{Call, kill};
use crate::{
    error::{Code, Error, Result, plain},
    state::Status,
    store::{Attempt, Entry, Id, Identity, LOCK_LIMIT, Locked, Roots, clean_up_pid_file, finish_removals, missing},
    sys, teardown,
};

/// Removes what is stopped or only created; with `force`, whatever it is, and a missing one is no error.
pub(super) fn delete(call: Call<'_>, id: &OsStr, force: bool, regex: bool) -> Result<u8> {
    let roots = Roots::find(call.globals)?;
    roots.existing()?.iter().for_each(finish_removals);
    if regex {
        return kill::each(kill::matching(&roots, id)?, call, |entry| remove(call, entry, force));
    }
    let opened = roots.open(&Id::parse(id)?, "delete");
    match opened.and_then(|entry| remove(call, entry, force)) {
        Err(error) if force && error.code() == Code::NoContainer => Ok(0),
        done => done.map(|()| 0),
    }
}

fn remove(call: Call<'_>, entry: Entry, force: bool) -> Result<()> {
    let locked = if force { lock_by_force(entry)? } else { entry.lock("delete")? };
    if !force {
        check(&locked)?;
    }
    destroy(call, locked, force)
}

/// Ends and removes a container, its pid-file too.
pub(super) fn destroy(call: Call<'_>, locked: Locked, force: bool) -> Result<()> {
    let id = locked.id.clone();
    let traces = locked.traces().unwrap_or_default();
    let destroyed = teardown::destroy(locked, call.log);
    // Under --strict a poststop hook may have failed, when all else was gone.
    if destroyed.as_ref().is_err_and(|error| error.code() != Code::Hook) {
        return destroyed;
    }
    if let Some(path) = traces.pid_file {
        clean_up_pid_file(&path, id.as_str(), traces.init.filter(|_| force).map(|init| init.pid));
    }
    destroyed
}

/// Refuses what only `--force` may delete.
fn check(entry: &Locked) -> Result<()> {
    let status = entry.status();
    let (code, why) = match status {
        Status::Creating | Status::Running | Status::Paused => {
            (Code::StillRunning, format!("container is {status}, not stopped"))
        }
        Status::Stopped if entry.is_damaged() => (Code::StateDamaged, "its state is damaged".to_owned()),
        Status::Stopped if entry.intent().is_none() && entry.record().is_none() => {
            (Code::IdLeftOver, "its creation was never finished".to_owned())
        }
        Status::Created | Status::Stopped => return Ok(()),
    };
    let error = Error::new(code, format!("delete {:?}", entry.id.as_str()), why);
    Err(error.fix(format!("pura delete --force {}", entry.id)))
}

/// The lock, even from a pura that hangs: the creator is killed, or the init that a `start` waits for, after the check
/// that it still is the one.
fn lock_by_force(entry: Entry) -> Result<Locked> {
    let id = entry.id.clone();
    let entry = match entry.try_lock(LOCK_LIMIT) {
        Attempt::Locked(locked) => return Ok(locked),
        Attempt::Busy(entry) => entry,
        Attempt::Gone => return Err(missing(&id, "delete")),
    };
    let traces = entry.traces().unwrap_or_default();
    let holder = if entry.record().is_some() { traces.init } else { traces.creator };
    let refuse = |errno| Error::new(Code::Locked, format!("delete {:?}", id.as_str()), plain(errno));
    if let Some(process) = holder.map_or(Ok(None), Identity::open).map_err(refuse)? {
        let _ = sys::pidfd::send(process.as_fd(), libc::SIGKILL);
        sys::pidfd::wait(&process, teardown::LIMIT);
    }
    entry.lock("delete")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::Globals,
        log::Log,
        store::testing::{Sleeper, Store},
    };

    fn delete_in(store: &Store, id: &str, force: bool, regex: bool) -> Result<u8> {
        let (globals, log): (Globals, _) = (store.globals(), Log::default());
        delete(Call { globals: &globals, log: &log, preserved: &[] }, id.as_ref(), force, regex)
    }

    #[test]
    fn a_running_container_is_deleted_by_force_only() {
        let (store, sleeper) = (Store::new(), Sleeper::new());
        store.running("c1", sleeper.identity());
        let error = delete_in(&store, "c1", false, false).unwrap_err();
        assert!(
            error.to_string().contains("container is running, not stopped; fix: pura delete --force c1"),
            "{error}"
        );
        assert!(sleeper.identity().is_alive());
        assert_eq!(delete_in(&store, "c1", true, false), Ok(0));
        assert!(!sleeper.identity().is_alive() && store.names().is_empty());
    }

    #[test]
    fn a_missing_container_is_an_error_but_by_force() {
        let store = Store::new();
        drop(store.root());
        let error = delete_in(&store, "c1", false, false).unwrap_err();
        assert!(error.to_string().contains("container \"c1\" does not exist"), "{error}");
        assert_eq!(delete_in(&store, "c1", true, false), Ok(0));
        assert_eq!(delete_in(&store, "..", true, false).unwrap_err().code(), Code::BadId);
    }

    #[test]
    fn a_damaged_state_needs_force() {
        let (store, sleeper) = (Store::new(), Sleeper::new());
        store.running("c1", sleeper.identity());
        std::fs::write(store.path("c1").join("state.json"), "").unwrap();
        assert_eq!(delete_in(&store, "c1", false, false).unwrap_err().code(), Code::StateDamaged);
        assert_eq!(delete_in(&store, "c1", true, false), Ok(0));
        assert!(!sleeper.identity().is_alive());
    }

    #[test]
    fn an_unfinished_creation_can_be_deleted() {
        let store = Store::new();
        store.claim("c1").unwrap().keep();
        assert_eq!(delete_in(&store, "c1", false, false), Ok(0));
        assert!(store.names().is_empty());
    }

    #[test]
    fn of_several_the_failing_one_does_not_spare_the_others() {
        let (store, sleeper) = (Store::new(), Sleeper::new());
        store.running("a-runs", sleeper.identity());
        store.claim("a-stopped").unwrap().keep();
        store.claim("b").unwrap().keep();
        assert_eq!(delete_in(&store, "a-.*", false, true).unwrap_err().code(), Code::StillRunning);
        let mut names = store.names();
        names.sort_unstable();
        assert_eq!(names, ["a-runs", "b"]);
        assert_eq!(delete_in(&store, "(", false, true).unwrap_err().code(), Code::Usage);
    }
}
