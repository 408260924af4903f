//! `pura start`: lets the program of a created container run.

use std::ffi::OsStr;

use nix::errno::Errno;

use super::{Call, delete};
use crate::{
    bundle,
    error::{Code, Error, Result, plain},
    hooks::{Hooks, Kind},
    launch, spec,
    state::Status,
    store::{Id, Identity, Locked, Roots},
};

/// Returns when the program runs, or with the reason why it does not.
pub(super) fn start(call: Call<'_>, id: &OsStr) -> Result<u8> {
    let id = Id::parse(id)?;
    let roots = Roots::find(call.globals)?;
    let entry = roots.open(&id, "start")?.lock("start")?;
    let refuse =
        |code, why: &str| Err(Error::new(code, format!("start {:?}", id.as_str()), format!("the container {why}")));
    match entry.status() {
        Status::Created => {}
        Status::Running | Status::Paused => return refuse(Code::WrongStatus, "is already running"),
        Status::Stopped => return refuse(Code::NotRunning, "has stopped"),
        Status::Creating => return refuse(Code::WrongStatus, "is still being created"),
    }
    let spec = bundle::recorded(&entry.config()?)?;
    spec::require_program(&spec)?;
    let program =
        spec.process().as_ref().and_then(|process| process.args().as_ref()?.first().cloned()).unwrap_or_default();
    let connection = match entry.connect() {
        Ok(connection) => connection,
        Err(errno) => return Err(not_waiting(&entry, errno)),
    };
    // For those that have hooks only: nobody else needs the bundle.
    let record = spec.hooks().as_ref().and_then(|_| entry.record());
    let (bundle, init) = record.map(|record| (record.bundle, record.init)).unwrap_or_default();
    let hooks = Hooks { spec: &spec, id: id.as_str(), bundle: &bundle };
    launch::release(&connection)?;
    // Only now: a `start` that is killed before the release leaves a container that can still be started. And no earlier
    // than the program runs: while startContainer hooks do, the container is `created`.
    let started = if hooks.any_in_start() {
        let started = launch::started(&connection, &program, &hooks);
        entry.forget_socket();
        started
    } else {
        entry.forget_socket();
        launch::started(&connection, &program, &hooks)
    };
    match started {
        // Else init could live on, waiting for an agent that is gone.
        Err(error) if matches!(error.code(), Code::Hook | Code::SeccompAgent) => {
            destroy(call, entry);
            Err(error)
        }
        started => started.and_then(|()| {
            // Unlocked: a hook that hangs must not keep anyone from deleting the container.
            drop(entry);
            poststart(call, &roots, &hooks, init)
        }),
    }
}

/// Runs what is to run once the program does; if a hook fails, the container is destroyed: `runtime.md` "Lifecycle" 9.
fn poststart(call: Call<'_>, roots: &Roots, hooks: &Hooks<'_>, init: Identity) -> Result<u8> {
    let Err(error) = hooks.run(Kind::Poststart, Status::Running, init.pid) else { return Ok(0) };
    let entry = Id::parse(hooks.id.as_ref()).and_then(|id| roots.open(&id, "start")?.lock("start"));
    // It may be gone by now, and the id be another container's.
    if let Some(entry) = entry.ok().filter(|entry| entry.record().is_some_and(|record| record.init == init)) {
        destroy(call, entry);
    }
    Err(error)
}

/// The hook's failure is the one to report.
fn destroy(call: Call<'_>, entry: Locked) {
    if let Err(error) = delete::destroy(call, entry, true) {
        call.log.error(&error);
    }
}

/// Init is alive, and waits no longer: another `start` was killed right after the release.
fn not_waiting(entry: &Locked, errno: Errno) -> Error {
    let what = format!("start {:?}", entry.id.as_str());
    if errno == Errno::ECONNREFUSED && entry.status() != Status::Stopped {
        entry.forget_socket();
        return Error::new(Code::WrongStatus, what, "the container is already running");
    }
    Error::new(Code::NotRunning, what, format!("init waits no longer: {}", plain(errno)))
}
