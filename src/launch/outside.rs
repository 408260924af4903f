//! What the parent does for init, from outside: what only real root may do, and not from inside a user namespace.

use nix::unistd::Pid;

use crate::{
    error::{Code, Context as _, Result},
    plan::Plan,
    sys,
};

/// Raises limits and priorities of init, once nothing of its set-up can be hindered by them.
pub(super) fn raise(plan: &Plan, init: Pid) -> Result<()> {
    for &(resource, soft, hard) in &plan.raised {
        let what = || format!("raise a resource limit (RLIMIT number {resource}) to {soft} (hard {hard})");
        sys::process::set_rlimit(init.as_raw(), resource, soft, hard).doing(Code::Rlimit, what)?;
    }
    if let Some(score) = plan.lowered_oom_score {
        let written = std::fs::write(format!("/proc/{init}/oom_score_adj"), score.to_string());
        written.doing(Code::Rlimit, || format!("set the OOM score {score}"))?;
    }
    if let Some(wanted) = &plan.raised_scheduling {
        let set = sys::schedule::set(init.as_raw(), wanted);
        set.doing(Code::Scheduling, || "schedule the program (process.scheduler)".to_owned())?;
    }
    if let Some(priority) = plan.raised_io_priority {
        let set = sys::schedule::set_io_priority(init.as_raw(), priority);
        set.doing(Code::Scheduling, || "set the I/O priority (process.ioPriority)".to_owned())?;
    }
    Ok(())
}
