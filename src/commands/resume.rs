//! `pura resume`: a paused container goes on.

use std::ffi::OsStr;

use super::{Call, living};
use crate::{
    cgroup::freezer,
    error::{Code, Error, Result},
    state::Status,
};

/// Thaws the container's cgroup.
pub(super) fn resume(call: Call<'_>, id: &OsStr) -> Result<u8> {
    let living = living::lock(call, id, "resume")?;
    let what = || format!("resume {:?}", living.record.id);
    if living.status != Status::Paused {
        let why = format!("container is {}, not paused", living.status);
        return Err(Error::new(Code::WrongStatus, what(), why));
    }
    freezer::thaw(&living.cgroup("resume", Code::Freezer)?, what).map(|()| 0)
}
