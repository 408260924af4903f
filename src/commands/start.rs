//! `pura start`: lets the program of a created container run.

use std::ffi::OsStr;

use nix::errno::Errno;

use super::Call;
use crate::{
    bundle,
    error::{Code, Error, Result, plain},
    launch, spec,
    state::Status,
    store::{Id, Locked, Roots},
};

/// Returns when the program runs, or with the reason why it does not.
pub(super) fn start(call: Call<'_>, id: &OsStr) -> Result<u8> {
    let id = Id::parse(id)?;
    let entry = Roots::find(call.globals)?.open(&id, "start")?.lock("start")?;
    let refuse =
        |code, why: &str| Err(Error::new(code, format!("start {:?}", id.as_str()), format!("the container {why}")));
    match entry.status() {
        Status::Created => {}
        Status::Running | Status::Paused => return refuse(Code::WrongStatus, "is already running"),
        Status::Stopped => return refuse(Code::NotRunning, "has stopped"),
        Status::Creating => return refuse(Code::WrongStatus, "is still being created"),
    }
    let (spec, _) = bundle::parse(&entry.config()?, std::path::Path::new("config.json"))?;
    spec::require_program(&spec)?;
    let program =
        spec.process().as_ref().and_then(|process| process.args().as_ref()?.first().cloned()).unwrap_or_default();
    let connection = match entry.connect() {
        Ok(connection) => connection,
        Err(errno) => return Err(not_waiting(&entry, errno)),
    };
    launch::release(&connection)?;
    // Only now: a `start` that is killed before the release leaves a container that can still be started.
    entry.forget_socket();
    launch::started(&connection, &program)?;
    Ok(0)
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
