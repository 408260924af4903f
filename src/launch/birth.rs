//! The birth of init, in the namespaces that only the caller's user namespace may join.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{errno::Errno, unistd::Pid};

use super::{
    Launch, inputs,
    link::{self, Heard, Report},
    outside, shown,
};
use crate::{
    error::{Code, Context as _, Error, Result},
    host::refusal,
    plan::{Op, Plan},
    sys::{
        fd::Slots,
        process::{self, Fork},
    },
};

/// What the birth stumbles over, besides a join: the clone itself.
const CLONE: u32 = u32::MAX;

/// And from here on the parameters of joined namespaces.
const PARAMETERS: u32 = 1 << 16;

/// And from here on what shows them.
const SHOWN: u32 = 1 << 17;

/// Index of a join, or one of the constants above, and the cause.
type Stumble = (u32, Errno);

impl Launch<'_> {
    /// Clones init. The parent joins first what init is to be born in; but a parent that has hooks to run, which have to
    /// see the caller's namespaces, may not be able to come back, and lets another process do both. A second time, it has
    /// joined them.
    pub(super) fn bear(&self, slots: &mut Slots, is_again: bool) -> Result<Fork> {
        if !self.plan.joined_first.is_empty() && self.hooks.any_outside() {
            return self.bear_by_proxy(slots);
        }
        if is_again {
            return process::clone(self.plan.clone_flags, self.cgroup).map_err(|errno| self.explain((CLONE, errno)));
        }
        let clocks = own_clocks(self.plan)?;
        let born = self.bear_with(slots, self.plan.clone_flags).map_err(|stumble| self.explain(stumble))?;
        if let (Some(clocks), Fork::Parent(init)) = (clocks, &born) {
            let back = process::set_namespace(clocks.as_fd(), libc::CLONE_NEWTIME);
            back.doing(Code::Join, || "return to the caller's time namespace".to_owned()).inspect_err(|_| {
                let _ = crate::sys::signal::send(*init, libc::SIGKILL);
                let _ = process::wait(*init);
            })?;
        }
        Ok(born)
    }

    /// A copy of us joins, and clones init as our child, not its own; then it ends.
    fn bear_by_proxy(&self, slots: &mut Slots) -> Result<Fork> {
        let (ours, theirs) = link::pair().doing(Code::Exhausted, || "make a link".to_owned())?;
        let copied = process::copy().map_err(|errno| self.explain((CLONE, errno)))?;
        let Fork::Parent(proxy) = copied else {
            let report =
                match self.bear_with(slots, self.plan.clone_flags | u64::from(libc::CLONE_PARENT.unsigned_abs())) {
                    Ok(Fork::Child) => return Ok(Fork::Child),
                    Ok(Fork::Parent(init)) => Report::Born(init.as_raw().unsigned_abs()),
                    Err((step, errno)) => Report::Failed { step, errno },
                };
            let _ = link::report(theirs.as_fd(), report);
            process::exit_now(0)
        };
        drop(theirs);
        let heard = link::receive(ours.as_fd());
        let _ = process::wait(proxy);
        match heard {
            Heard::Report(Report::Born(init)) => Ok(Fork::Parent(Pid::from_raw(i32::try_from(init).unwrap_or(0)))),
            Heard::Report(Report::Failed { step, errno }) => Err(self.explain((step, errno))),
            other @ (Heard::End
            | Heard::Nonsense
            | Heard::Report(
                Report::At(_)
                | Report::Warned { .. }
                | Report::Hook { .. }
                | Report::Reborn
                | Report::Hooked
                | Report::Unconfined { .. }
                | Report::Unheard { .. },
            )) => Err(Error::new(Code::Bug, "start the container", format!("the process that clones said {other:?}"))),
        }
    }

    /// Joins, one after the other, sets and mounts what belongs to the joined, and clones.
    fn bear_with(&self, slots: &mut Slots, flags: u64) -> std::result::Result<Fork, Stumble> {
        // Before a join: whose procfs is at `/proc` after that is for others to say.
        let proc = (!self.plan.parameters.is_empty()).then(crate::sys::procfs::outer).transpose();
        let proc = proc.map_err(|errno| (PARAMETERS, errno))?;
        for (index, &(slot, kind)) in (0..).zip(&self.plan.joined_first) {
            let joined = slots.get(slot.index()).and_then(|namespace| process::set_namespace(namespace, kind));
            joined.map_err(|errno| (index, errno))?;
        }
        inputs::write_parameters(self.plan, proc).map_err(|(index, errno)| (PARAMETERS + index, errno))?;
        shown::mount(self.plan, slots).map_err(|(index, errno)| (SHOWN + index, errno))?;
        process::clone(flags, self.cgroup).map_err(|errno| (CLONE, errno))
    }

    fn explain(&self, (step, errno): Stumble) -> Error {
        if step == CLONE {
            return refusal::explain(self.plan.clone_flags, self.host, errno);
        }
        if let Some(index) = step.checked_sub(SHOWN) {
            return shown::explain(self.plan, index, errno);
        }
        if let Some(index) = step.checked_sub(PARAMETERS) {
            return inputs::explain_parameter(self.plan, index, errno);
        }
        if errno == Errno::ESRCH {
            return Error::new(Code::NotRunnable, "join the container", "container not running (it has just stopped)");
        }
        if errno == Errno::ENOSYS {
            return Error::new(Code::Kernel, "join namespaces", "the kernel or a seccomp filter lacks setns")
                .fix("a seccomp profile that allows setns");
        }
        let joined = usize::try_from(step).ok().and_then(|index| self.plan.joined_first.get(index));
        let path = joined.map_or_else(|| "of the config".to_owned(), |(slot, _)| self.plan.namespace_path(*slot));
        Error::new(Code::Join, format!("join the {path} namespace"), crate::error::plain(errno))
    }
}

/// Takes on, in the parent itself, what its child inherits, because the host's `/proc` is out of its reach: labels for
/// exec, the OOM score. And the CPUs that `exec` starts on, before it enters the container's cgroup.
pub fn take_on(plan: &Plan) -> Result<()> {
    for &inherited in &plan.inherited {
        if let Op::Label { file, label: text, .. } | Op::WriteProc { file, line: text } = inherited {
            let written = crate::sys::path::write(plan.text(file), plan.text(text).to_bytes());
            let code = if let Op::Label { module, .. } = inherited { module.code() } else { Code::Rlimit };
            written.doing(code, || plan.describe(inherited))?;
        }
    }
    let [initial, _] = &plan.affinity;
    outside::run_on(0, initial.as_ref(), "initial")
}

/// The caller's time namespace, for the way back: the times at which processes started are shown in the clocks of the
/// reader, and every other verb reads init's in the caller's.
fn own_clocks(plan: &Plan) -> Result<Option<OwnedFd>> {
    if !plan.joined_first.iter().any(|(_, kind)| *kind == libc::CLONE_NEWTIME) {
        return Ok(None);
    }
    inputs::namespace(Path::new("/proc/self/ns/time")).map(Some)
}
