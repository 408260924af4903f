//! The seccomp filter: when it is attached, what has to be kept until then, and who is told.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};

use super::{Op, draft::Draft, ids::UserNamespace};
use crate::{
    agent::Notice,
    error::{Code, Error, Result, Warning},
    hooks,
    seccomp::{self, Filter, Machine},
    state::Status,
};

/// How calls begin that only architectures have for which pura is not built, or others than this one: syscalls(2).
const FOREIGN: [&str; 6] = ["arm_", "ppc_", "riscv_", "s390_", "spu_", "sys_debug_"];

/// Unknown names in a list of what is denied, where a mistyped one leaves a call allowed. In a list of what is allowed, as
/// engines have, it only leaves one denied, and mostly is newer than pura.
fn undenied<'a>(profile: &LinuxSeccomp, unknown: &'a [String]) -> Vec<&'a str> {
    let allows = |action| matches!(action, LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog);
    if !allows(profile.default_action()) {
        return Vec::new();
    }
    let rules = || profile.syscalls().iter().flatten().filter(|rule| !allows(rule.action()));
    let is_foreign = |name: &str| FOREIGN.iter().any(|prefix| name.starts_with(prefix));
    let is_denied = |name: &&String| !is_foreign(name) && rules().any(|rule| rule.names().contains(name));
    unknown.iter().filter(is_denied).map(String::as_str).collect()
}

/// An annotation that replaces the profile.
const RAW: &str = "run.oci.seccomp_bpf_data";

/// An annotation that makes a call that no architecture knows an error.
const STRICT: &str = "run.oci.seccomp_fail_unknown_syscall";

/// What `seccomp(2)` wants without `no_new_privs`: linux/capability.h.
const CAP_SYS_ADMIN: u8 = 21;

/// The same as a mask.
pub(super) const ADMIN: u64 = 1 << CAP_SYS_ADMIN;

impl Draft<'_> {
    /// Compiles the profile, before anything depends on it. `joined` is the status and init of the container, for `exec`.
    pub(super) fn compile_filter(&mut self, joined: Option<(Status, i32)>) -> Result<()> {
        let profile = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let refuse = |code, why: &'static str| Error::new(code, "attach the seccomp filter", why).at("linux.seccomp");
        let filter = match (self.annotation(RAW), profile) {
            (Some(program), _) => seccomp::raw(program, profile)?,
            (None, Some(profile)) => {
                let Some(machine) = Machine::own() else {
                    return Err(refuse(Code::Seccomp, "pura does not know the system calls of this architecture"));
                };
                seccomp::compile(profile, machine)?
            }
            (None, None) => return Ok(()),
        };
        self.check_own_calls(&filter)?;
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
        if !filter.unknown.is_empty() && self.annotation(STRICT).is_some_and(|value| value != "0") {
            let why = format!("nothing here is named {}", filter.unknown.join(", "));
            let error = Error::new(Code::Seccomp, "compile the seccomp profile", why);
            return Err(error.at("linux.seccomp.syscalls").fix(format!("drop the annotation {STRICT}, or the names")));
        }
        if !filter.unknown.is_empty() {
            let undenied = profile.map(|profile| undenied(profile, &filter.unknown)).unwrap_or_default();
            if undenied.is_empty() {
                let names = filter.unknown.join(" ");
                self.note(format!("linux.seccomp: calls that are unknown here are skipped: {names}"));
            } else {
                let names = undenied.join(" ");
                let what =
                    format!("the seccomp profile allows what it does not name, and no call here is named {names}");
                self.warn(Warning::new(Code::Seccomp, what).fix("the right names in linux.seccomp.syscalls"));
            }
        }
        if let Some(path) = profile.and_then(|profile| profile.listener_path().as_ref()).filter(|_| filter.notifies()) {
            let (status, init) = joined.map_or((Status::Created, None), |(status, init)| (status, Some(init)));
            let id = self.order.state.file_name().unwrap_or_default().to_string_lossy();
            let state = hooks::state(self.spec, &id, self.order.bundle, status)?;
            let metadata = profile.and_then(|profile| profile.listener_metadata().as_deref());
            self.plan.notice = Some(Notice::new(path, metadata, &state, init)?);
        }
        self.plan.filter = Some(filter);
        Ok(())
    }

    /// Whether all calls that pura makes under the filter can be made: nobody answers before the agent is told, and what
    /// comes after that must not depend on the agent either. `close` is left to exec, unless hooks come before.
    fn check_own_calls(&self, filter: &Filter) -> Result<()> {
        if !filter.notifies() {
            return Ok(());
        }
        let refuse =
            |why| Err(Error::new(Code::Seccomp, "attach the seccomp filter", why).at("linux.seccomp.syscalls"));
        let has_hooks = !hooks::Kind::StartContainer.of(self.spec).is_empty();
        let own =
            [("sendmsg", true), ("execve", true), ("capset", !self.forbids_new_privileges()), ("close", has_hooks)];
        if let Some((name, _)) = own.iter().find(|(name, is_made)| *is_made && filter.holds_up(name)) {
            return refuse(format!(
                "SCMP_ACT_NOTIFY on {name} would hold up pura itself, which makes that call under it"
            ));
        }
        if !filter.allows("sendmsg") {
            return refuse("the profile forbids sendmsg, by which the seccomp agent is told".to_owned());
        }
        Ok(())
    }

    /// Init learns its number, for the agent.
    pub(super) fn learn_pid(&mut self) {
        if self.plan.notice.is_some() {
            self.step_for(Op::LearnPid, "linux.seccomp.listenerPath");
        }
    }

    /// Ends the connection to the agent before exec does, for one that reads to its end before it answers hooks.
    pub(super) fn leave_agent(&mut self) {
        if self.plan.notice.is_some() {
            self.step_for(Op::LeaveAgent, "linux.seccomp.listenerPath");
        }
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
        let Some((flags, place)) = self.plan.filter.as_ref().map(|filter| (filter.flags, filter.place)) else { return };
        self.step_for(Op::Seccomp { flags }, place);
        // At once: from here on calls may wait for an answer.
        if self.plan.notice.is_some() {
            self.step_for(Op::TellAgent, "linux.seccomp.listenerPath");
        }
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
