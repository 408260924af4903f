//! The seccomp filter: when it is attached, and what has to be kept until then.

use super::{Op, draft::Draft, ids::UserNamespace};
use crate::{
    error::{Code, Error, Result},
    seccomp::{self, Machine},
};

/// What `seccomp(2)` wants without `no_new_privs`: linux/capability.h.
const CAP_SYS_ADMIN: u8 = 21;

/// The same as a mask.
pub(super) const ADMIN: u64 = 1 << CAP_SYS_ADMIN;

impl Draft<'_> {
    /// Compiles the profile, before anything depends on it.
    pub(super) fn compile_filter(&mut self) -> Result<()> {
        let Some(profile) = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) else {
            return Ok(());
        };
        let refuse = |code, why: &'static str| Error::new(code, "attach the seccomp filter", why).at("linux.seccomp");
        let Some(machine) = Machine::own() else {
            return Err(refuse(Code::Seccomp, "pura does not know the system calls of this architecture"));
        };
        let filter = seccomp::compile(profile, machine)?;
        if !filter.allows("execve") {
            return Err(refuse(Code::Seccomp, "the profile forbids execve, so that no program could be started"));
        }
        let is_privileged = match self.plan.ids.user_namespace {
            UserNamespace::Reuse | UserNamespace::Inherit => self.host.caller.has(CAP_SYS_ADMIN),
            UserNamespace::Create { .. } | UserNamespace::Join { .. } | UserNamespace::JoinOwner { .. } => true,
        };
        if !self.forbids_new_privileges() {
            let fix = "\"noNewPrivileges\": true";
            if !is_privileged {
                let why = "without noNewPrivileges it takes CAP_SYS_ADMIN, which the caller lacks";
                return Err(refuse(Code::SeccompPrivilege, why).fix(fix));
            }
            if !filter.allows("capset") {
                let why = "the profile forbids capset, which comes after it without noNewPrivileges";
                return Err(refuse(Code::Seccomp, why).fix(fix));
            }
        }
        if !filter.unknown.is_empty() {
            if self.annotation("run.oci.seccomp_fail_unknown_syscall").is_some_and(|value| value != "0") {
                let unknown = filter.unknown.join(" ");
                let why =
                    format!("there are no calls {unknown}, and run.oci.seccomp_fail_unknown_syscall forbids that");
                return Err(Error::new(Code::Seccomp, "compile the seccomp profile", why).at("linux.seccomp"));
            }
            self.note(format!("linux.seccomp: calls that are unknown here are skipped: {}", filter.unknown.join(" ")));
        }
        self.plan.filter = Some(filter);
        Ok(())
    }

    /// Whether `CAP_SYS_ADMIN` has to be kept for the filter.
    pub(super) fn keeps_admin(&self) -> bool {
        self.plan.filter.is_some() && !self.forbids_new_privileges()
    }

    /// Attaches the filter, once, and then drops what was kept for it: the step `dropped` of the identity.
    pub(super) fn attach_filter(&mut self, dropped: Option<Op>) {
        if self.plan.ops.iter().any(|op| matches!(op, Op::Seccomp { .. })) {
            return;
        }
        let Some(flags) = self.plan.filter.as_ref().map(|filter| filter.flags) else { return };
        self.step_for(Op::Seccomp { flags }, "linux.seccomp");
        if let Some(capabilities) = dropped {
            self.step_for(capabilities, "process.capabilities");
        }
    }

    fn forbids_new_privileges(&self) -> bool {
        let process = self.spec.process().as_ref();
        // What the caller has given up is given up for all that it starts.
        self.host.caller.no_new_privs || process.is_some_and(|process| process.no_new_privileges() == Some(true))
    }
}
