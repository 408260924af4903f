//! The order of everything. Each step that must precede another says so, and a test holds it to that.

#[cfg(test)]
mod laws;

use oci_spec::runtime::Spec;

pub use super::draft::Order;
use super::{Meeting, Op, Plan, Slot, draft::Draft, ids};
use crate::{cli::UsernsMode, error::Result, host::Host, sys::process::Attribute};

/// Compiles the plan of `create` and `run`.
pub fn container(spec: &Spec, host: &Host, mode: UsernsMode, order: &Order<'_>) -> Result<Plan> {
    let (ids, warnings) = ids::decide(spec, host, mode)?;
    let mut draft = Draft::new(spec, host, order, ids);
    draft.plan.warnings = warnings;
    draft.compile_filter(None)?;

    die_with_parent(&mut draft);
    // Early, not at exec: the writer of a pipe that the caller leaked to us must see end-of-file while we wait.
    draft.step(Op::Sweep { kept: u16::MAX });
    // While our /proc files are still ours: they belong to root as soon as we are not dumpable, change ids or join a user
    // namespace; and while /proc/self is the host's.
    draft.early_limits()?;
    draft.labels()?;
    // Before there is anything of the container, a cgroup namespace, and with the caller's ids, by which systemd judges.
    if order.scope {
        draft.step(Op::Meet(Meeting::Scope));
    }
    // Before anything that needs a capability: those come with the user namespace.
    draft.namespaces()?;
    // Once it is the last process that will be in there first, and while the host's /proc is there.
    draft.pass_mounts();
    draft.step(Op::NewSession);
    // Before the first mount: nothing that we mount may appear outside.
    draft.isolate_mounts()?;
    // With the ids of the caller, who may pass directories that container root may not.
    let sources = draft.open_sources();
    draft.become_owner();
    draft.assemble_late()?;
    // As container root, whose the files are, and through a procfs that no mount of the config can have covered
    // (CVE-2025-52881).
    draft.sysctls();
    // No step: the parent moves them, as late as it can.
    draft.network_devices()?;
    draft.mounts(&sources);
    draft.refuse()?;
    draft.devices()?;
    // With all mounts made and the old root still in place: `config.md` "POSIX-platform Hooks".
    draft.create_hooks()?;
    draft.enter_root();
    let terminal = draft.open_terminal(true)?;
    // After the mounts that they cover, and after the root has been entered, so that no path of theirs is outside.
    draft.names()?;
    draft.masks()?;
    draft.working_directory()?;
    // After mount points and the working directory have been made.
    draft.readonly_root();
    // With all mounts as they are to be: none is made in there.
    draft.join_mounts();
    draft.home();
    draft.process_attributes()?;
    // Before the capabilities that they need are dropped.
    draft.limits()?;
    let dropped_last = draft.identity();
    draft.tell_closed_nodes();
    draft.stay_visible();
    draft.program()?;
    draft.take_terminal(terminal);
    draft.learn_pid();
    draft.step(Op::Sweep { kept: Slot::FIRST_OF_SETUP });
    // Before the meeting: the parent of `create` ends as soon as it has released init, which must not die of that. Until
    // then, end-of-file on the link is what init dies of.
    draft.step(Op::Prctl { attribute: Attribute::DeathSignal, value: 0 });
    // Last of all that can fail for a reason of the config: create has to report it.
    draft.step(Op::Meet(Meeting::Created));
    if order.waits {
        draft.step(Op::AwaitStart);
    }
    // After everything that confines the program: these come from the image too.
    draft.start_hooks(dropped_last)?;
    // Last: a signal that arrives earlier must not be lost with us half dressed.
    draft.default_signals();
    // After all that needs a system call: a profile is for the program, and need not allow what pura does.
    draft.attach_filter(dropped_last);
    draft.execute()?;
    Ok(draft.plan)
}

/// Until `Created`, init dies with the parent. To be repeated after each change of ids, which clears it: `prctl(2)`.
pub(super) fn die_with_parent(draft: &mut Draft<'_>) {
    draft.step(Op::Prctl { attribute: Attribute::DeathSignal, value: libc::SIGKILL.unsigned_abs().into() });
}
