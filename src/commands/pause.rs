//! `pura pause`: every process of a container stands still.

use std::ffi::OsStr;

use super::{Call, living};
use crate::{
    cgroup::freezer,
    error::{Code, Error, Result},
    state::Status,
};

/// Freezes the container's cgroup; returns when nothing in it moves any more.
pub(super) fn pause(call: Call<'_>, id: &OsStr) -> Result<u8> {
    let living = living::lock(call, id, "pause")?;
    let what = || format!("pause {:?}", living.record.id);
    match living.status {
        Status::Running => {}
        Status::Paused => return Err(Error::new(Code::WrongStatus, what(), "container is already paused")),
        other @ (Status::Creating | Status::Created | Status::Stopped) => {
            return Err(Error::new(Code::WrongStatus, what(), format!("container is {other}, not running")));
        }
    }
    // Never by SIGSTOP, which the program's parents see and which SIGCONT undoes.
    freezer::freeze(&living.cgroup("pause", Code::Freezer)?, what).map(|()| 0)
}
