//! `pura state`: the state of a container, as JSON.

use std::ffi::OsStr;

use super::Call;
use crate::{
    error::{Code, Error, Result},
    state::State,
    store::{Id, Roots},
};

/// The state, in the form of runtime.md "State".
pub(super) fn state(call: Call<'_>, id: &OsStr) -> Result<String> {
    let id = Id::parse(id)?;
    let entry = Roots::find(call.globals)?.open(&id, "show the state of")?;
    let what = || format!("show the state of {:?}", id.as_str());
    let state = State::of(&entry).ok_or_else(|| {
        Error::new(Code::StateDamaged, what(), "its files are damaged, or another runtime's")
            .fix(format!("pura delete --force {id}"))
    })?;
    let json =
        serde_json::to_string_pretty(&state).map_err(|error| Error::new(Code::Bug, what(), error.to_string()))?;
    Ok(json + "\n")
}
