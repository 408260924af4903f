//! What verbs need that change or watch a container that is alive.

use std::{ffi::OsStr, path::PathBuf};

use super::Call;
use crate::{
    cgroup,
    error::{Code, Error, Result},
    host::probe,
    state::Status,
    store::{Entry, Id, Locked, Record, Roots},
};

/// A container that has processes.
#[derive(Debug)]
pub(super) struct Living<E> {
    /// Open, and for verbs that change it locked, as long as this lives.
    _held: E,
    pub(super) record: Record,
    pub(super) status: Status,
}

/// Opens a container that is created, running or paused.
pub(super) fn open(call: Call<'_>, id: &OsStr, verb: &str) -> Result<Living<Entry>> {
    let entry = Roots::find(call.globals)?.open(&Id::parse(id)?, verb)?;
    let record = entry.record();
    let status = entry.status();
    check(record, status, verb, entry.id.as_str()).map(|record| Living { _held: entry, record, status })
}

/// The same, against all other verbs that change it.
pub(super) fn lock(call: Call<'_>, id: &OsStr, verb: &str) -> Result<Living<Locked>> {
    let entry = Roots::find(call.globals)?.open(&Id::parse(id)?, verb)?.lock(verb)?;
    let record = entry.record();
    let status = entry.status();
    check(record, status, verb, entry.id.as_str()).map(|record| Living { _held: entry, record, status })
}

fn check(record: Option<Record>, status: Status, verb: &str, id: &str) -> Result<Record> {
    let refuse = |code, why: &str| Error::new(code, format!("{verb} {id:?}"), why.to_owned());
    match status {
        Status::Created | Status::Running | Status::Paused => {}
        Status::Creating => return Err(refuse(Code::WrongStatus, "container is still being created")),
        Status::Stopped => return Err(refuse(Code::NotRunnable, "container not running (stopped)")),
    }
    record.ok_or_else(|| refuse(Code::StateDamaged, "its state is damaged"))
}

impl<E> Living<E> {
    /// Its own cgroup; the error is `code`'s.
    pub(super) fn cgroup(&self, verb: &str, code: Code) -> Result<PathBuf> {
        self.record.cgroup.clone().ok_or_else(|| {
            Error::new(code, format!("{verb} {:?}", self.record.id), "the container has no cgroup of its own")
                .fix(cgroup::remedy(&probe::cgroup()))
        })
    }
}
