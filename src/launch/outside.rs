//! What the parent does for init, from outside: what only real root may do, and not from inside a user namespace; and
//! what has to wait until init is in its cgroup.

use nix::{errno::Errno, unistd::Pid};

use crate::{
    error::{Code, Context as _, Error, Result, plain},
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
    let [_, last] = &plan.affinity;
    run_on(init.as_raw(), last.as_ref(), "final")
}

/// Where a process runs, 0 for this one: a part of `process.execCPUAffinity`.
pub(super) fn run_on(process: i32, cpus: Option<&[u64; 16]>, part: &str) -> Result<()> {
    let Some(cpus) = cpus else { return Ok(()) };
    let set = sys::schedule::set_affinity(process, cpus);
    set.map_err(|errno| {
        let why = if errno == Errno::EINVAL { "none of the CPUs is there for it".to_owned() } else { plain(errno) };
        Error::new(Code::Scheduling, "run on the CPUs that the config names", why)
            .at(format!("process.execCPUAffinity.{part}"))
    })
}
