//! The birth of init, in the namespaces that only the caller's user namespace may join.

use nix::errno::Errno;

use super::{
    Launch,
    link::{self, Heard, Report},
};
use crate::{
    error::{Code, Context as _, Error, Result},
    plan::Plan,
    sys::{
        fd::Slots,
        process::{self, Fork},
    },
};

impl Launch<'_> {
    /// Clones init. The parent joins first what init is to be born in; but a parent that has hooks to run, which have to
    /// see the caller's namespaces, may not be able to come back, and lets another process do both.
    pub(super) fn bear(&self, slots: &Slots) -> Result<Fork> {
        if !self.plan.joined_first.is_empty() && self.hooks.any_outside() {
            return self.bear_by_proxy(slots);
        }
        join(self.plan, slots).map_err(|(index, errno)| refused_join(self.plan, index, errno))?;
        process::clone(self.plan.clone_flags, self.cgroup).map_err(|errno| self.refused(errno))
    }

    /// A copy of us joins, and clones init as our child, not its own; then it ends.
    fn bear_by_proxy(&self, slots: &Slots) -> Result<Fork> {
        let (ours, theirs) = link::pair().doing(Code::Exhausted, || "make a link".to_owned())?;
        let copied = process::copy().map_err(|errno| self.refused(errno))?;
        let Fork::Parent(proxy) = copied else {
            let report = match self.bear_sibling(slots) {
                Ok(Fork::Child) => return Ok(Fork::Child),
                Ok(Fork::Parent(init)) => Report::Reborn(init.as_raw().unsigned_abs()),
                Err((step, errno)) => Report::Failed { step, errno },
            };
            let _ = link::report(std::os::fd::AsFd::as_fd(&theirs), report);
            process::exit_now(0)
        };
        drop(theirs);
        let heard = link::receive(std::os::fd::AsFd::as_fd(&ours));
        let _ = process::wait(proxy);
        match heard {
            Heard::Report(Report::Reborn(init)) => {
                Ok(Fork::Parent(nix::unistd::Pid::from_raw(i32::try_from(init).unwrap_or(0))))
            }
            Heard::Report(Report::Failed { step: CLONE, errno }) => Err(self.refused(errno)),
            Heard::Report(Report::Failed { step, errno }) => Err(refused_join(self.plan, step, errno)),
            other @ (Heard::End
            | Heard::Nonsense
            | Heard::Report(Report::At(_) | Report::Warned { .. } | Report::Hook { .. })) => {
                Err(Error::new(Code::Bug, "start the container", format!("the process that clones said {other:?}")))
            }
        }
    }

    fn bear_sibling(&self, slots: &Slots) -> std::result::Result<Fork, (u32, Errno)> {
        join(self.plan, slots)?;
        let flags = self.plan.clone_flags | u64::from(libc::CLONE_PARENT.unsigned_abs());
        process::clone(flags, self.cgroup).map_err(|errno| (CLONE, errno))
    }

    /// Why clone made no process.
    fn refused(&self, errno: Errno) -> Error {
        crate::host::refusal::explain(self.plan.clone_flags, self.host, errno)
    }
}

/// The step of a proxy that is not one of its joins.
const CLONE: u32 = u32::MAX;

/// Joins, one after the other; a failure comes with its index.
fn join(plan: &Plan, slots: &Slots) -> std::result::Result<(), (u32, Errno)> {
    for (index, &(slot, kind)) in (0..).zip(&plan.joined_first) {
        let joined = slots.get(slot.index()).and_then(|namespace| process::set_namespace(namespace, kind));
        joined.map_err(|errno| (index, errno))?;
    }
    Ok(())
}

fn refused_join(plan: &Plan, index: u32, errno: Errno) -> Error {
    if errno == Errno::ESRCH {
        return Error::new(Code::NotRunnable, "join the container", "container not running (it has just stopped)");
    }
    let joined = usize::try_from(index).ok().and_then(|index| plan.joined_first.get(index));
    let path = joined.map_or_else(|| "of the config".to_owned(), |(slot, _)| plan.namespace_path(*slot));
    Error::new(Code::Join, format!("join the namespace {path}"), crate::error::plain(errno))
}
