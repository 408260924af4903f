//! `pura wait`: until a container has stopped.

use std::ffi::OsStr;

use super::Call;
use crate::{
    error::{Code, Context as _, Result},
    store::{Id, Roots},
    supervise, sys,
};

/// How long whoever started the container may take to fetch its exit status, in milliseconds: the kernel tells it to
/// others after that.
const LIMIT: u16 = 2000;

/// A line with the exit status of the program, or `unknown`: the container had stopped before, or the kernel is older
/// than Linux 6.15, and tells nobody but the parent.
pub(super) fn wait(call: Call<'_>, id: &OsStr) -> Result<String> {
    let id = Id::parse(id)?;
    let entry = Roots::find(call.globals)?.open(&id, "wait for")?;
    let what = || format!("wait for {:?}", id.as_str());
    let init = entry.traces().and_then(|traces| traces.init);
    let init = init.map_or(Ok(None), crate::store::Identity::open).doing(Code::NotRunning, what)?;
    let unknown = || "unknown\n".to_owned();
    let Some(init) = init else { return Ok(unknown()) };
    sys::pidfd::wait_for_end(&init).doing(Code::Exhausted, what)?;
    let status = if sys::pidfd::wait_until_reaped(&init, LIMIT) { sys::pidfd::ending(&init) } else { None };
    Ok(status.map_or_else(unknown, |status| format!("{}\n", supervise::exit_status(status))))
}
