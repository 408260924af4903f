//! The seccomp filter: when it is attached, what has to be kept until then, and who is told.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};

use super::{Op, draft::Draft, ids::UserNamespace};
use crate::{
    agent::Notice,
    cli::RootEmulation,
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

/// An annotation by which calls that change ids succeed without effect.
const EMULATION: &str = "org.pura.root-emulation";

/// What `seccomp(2)` wants without `no_new_privs`: linux/capability.h.
const CAP_SYS_ADMIN: u8 = 21;

/// The same as a mask.
pub(super) const ADMIN: u64 = 1 << CAP_SYS_ADMIN;

impl Draft<'_> {
    /// Compiles the profile, before anything depends on it. `joined` is the status and init of the container, for `exec`.
    pub(super) fn compile_filter(&mut self, joined: Option<(Status, i32)>) -> Result<()> {
        let profile = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let refuse = |code, why: &'static str| Error::new(code, "attach the seccomp filter", why).at("linux.seccomp");
        let is_privileged = match self.plan.ids.user_namespace {
            UserNamespace::Reuse | UserNamespace::Inherit => self.host.caller.has(CAP_SYS_ADMIN),
            UserNamespace::Create { .. } | UserNamespace::Join { .. } | UserNamespace::JoinOwner { .. } => true,
        };
        let is_permitted = is_privileged || self.forbids_new_privileges();
        let emulates = self.emulates_root(is_permitted);
        let Some(filter) = self.filter(profile, emulates)? else { return Ok(()) };
        self.plan.root_emulation = emulates;
        // What a container is to have is its own; an exec has what that has.
        if emulates && joined.is_none() && !self.plan.ids.is_single() {
            let what = "with root emulation chown and the like do nothing, though more ids than one are mapped";
            self.warn(Warning::new(Code::EmulationNeedless, what).fix("--root-emulation=auto"));
        }
        self.check_own_calls(&filter)?;
        if !filter.allows("execve") {
            return Err(refuse(Code::Seccomp, "the profile forbids execve, so that no program could be started"));
        }
        if self.order.reaper.is_some() && !filter.allows("execveat") {
            return Err(refuse(Code::Seccomp, "the profile forbids execveat, by which --init starts pura-init"));
        }
        let fix = "\"noNewPrivileges\": true";
        if !is_permitted {
            let why = "without noNewPrivileges it takes CAP_SYS_ADMIN, which the caller lacks";
            return Err(refuse(Code::SeccompPrivilege, why).fix(fix));
        }
        if self.drops_admin() && !filter.allows("capset") {
            let why = "the profile forbids capset, which comes after it without noNewPrivileges";
            return Err(refuse(Code::Seccomp, why).fix(fix));
        }
        if !filter.unknown.is_empty() && self.annotation(STRICT).is_some_and(|value| value != "0") {
            let why = format!("nothing here is named {}", filter.unknown.join(", "));
            let error = Error::new(Code::Seccomp, "compile the seccomp profile", why);
            return Err(error.at("linux.seccomp.syscalls").fix(format!("drop the annotation {STRICT}, or the names")));
        }
        self.tell_unknown(profile, &filter);
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

    /// The filter; nothing where neither the config nor root emulation wants one.
    fn filter(&self, profile: Option<&LinuxSeccomp>, emulates: bool) -> Result<Option<Filter>> {
        let refuse = |why: String| Error::new(Code::Seccomp, "attach the seccomp filter", why);
        if let Some(program) = self.annotation(RAW) {
            if emulates {
                let why = format!("root emulation cannot be added to the program of {RAW}");
                return Err(refuse(why).fix("leave one of the two out"));
            }
            return seccomp::raw(program, profile).map(Some);
        }
        if profile.is_none() && !emulates {
            return Ok(None);
        }
        let unknown = || refuse("pura does not know the system calls of this architecture".to_owned());
        let machine = Machine::own().ok_or_else(|| unknown().at("linux.seccomp"))?;
        match profile {
            Some(profile) if emulates => seccomp::emulating_root(profile, machine),
            Some(profile) => seccomp::compile(profile, machine),
            None => seccomp::emulating_root(&seccomp::permissive(machine), machine),
        }
        .map(Some)
    }

    /// Tells of names that no call has here: a note, or a warning where a mistyped one stays allowed.
    fn tell_unknown(&mut self, profile: Option<&LinuxSeccomp>, filter: &Filter) {
        if filter.unknown.is_empty() {
            return;
        }
        let undenied = profile.map(|profile| undenied(profile, &filter.unknown)).unwrap_or_default();
        if undenied.is_empty() {
            let names = filter.unknown.join(" ");
            self.note(format!("linux.seccomp: calls that are unknown here are skipped: {names}"));
            return;
        }
        let names = undenied.join(" ");
        let what = format!("the seccomp profile allows what it does not name, and no call here is named {names}");
        self.warn(Warning::new(Code::Seccomp, what).fix("the right names in linux.seccomp.syscalls"));
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
        let own = [("sendmsg", true), ("execve", true), ("capset", self.drops_admin()), ("close", has_hooks)];
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

    /// Whether the filter is to answer calls that change ids. On request in any case; without one, where a person runs a
    /// program as root with one id, and the config confines it in no way of its own.
    fn emulates_root(&self, is_permitted: bool) -> bool {
        let annotated = self.annotation(EMULATION).map(|value| match value {
            "1" => RootEmulation::On,
            "auto" => RootEmulation::Auto,
            _ => RootEmulation::Off,
        });
        let has_profile = self.spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
        match self.order.root_emulation.or(annotated) {
            Some(RootEmulation::On) => true,
            Some(RootEmulation::Off) => false,
            None if self.order.waits || has_profile => false,
            Some(RootEmulation::Auto) | None => {
                let is_root = self.spec.process().as_ref().is_some_and(|process| process.user().uid() == 0);
                let is_alone = is_root && self.plan.ids.is_single();
                is_alone && is_permitted && Machine::own().is_some() && self.annotation(RAW).is_none()
            }
        }
    }

    /// Whether a capability that was kept for the filter has to be dropped under it. A filter that answers capset leaves
    /// that to exec, which takes from the program what neither the bounding nor the ambient set has: `capabilities(7)`.
    fn drops_admin(&self) -> bool {
        !self.forbids_new_privileges() && !self.plan.root_emulation
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
        if let Some(capabilities) = dropped.filter(|_| self.drops_admin()) {
            self.step_for(capabilities, "process.capabilities");
        }
    }

    fn forbids_new_privileges(&self) -> bool {
        let process = self.spec.process().as_ref();
        // What the caller has given up is given up for all that it starts.
        self.host.caller.no_new_privs || process.is_some_and(|process| process.no_new_privileges() == Some(true))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        cli::UsernsMode,
        plan::{Plan, compile::Order, sample},
    };

    fn plan(change: &Value, mode: UsernsMode, order: &Order<'_>) -> Result<Plan> {
        let mut config = json!({
            "ociVersion": "1.3.0", "root": {"path": "r"},
            "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["true"]},
            "linux": {"namespaces": [{"type": "mount"}]}
        });
        for (key, value) in change.as_object().unwrap() {
            config[key.as_str()] = value.clone();
        }
        sample::compile_for(&serde_json::from_value(config).unwrap(), sample::user(), mode, order, 0)
    }

    #[test]
    fn root_is_emulated_on_request_and_for_a_run_with_one_id_and_no_profile() {
        let single = UsernsMode::Single;
        let wish = |value: &str| json!({"annotations": {EMULATION: value}});
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        let mut confined = json!({"linux": {"namespaces": [{"type": "mount"}], "seccomp": profile}});
        let user = json!({"process": {"cwd": "/", "user": {"uid": 1000, "gid": 1000}, "args": ["true"]}});
        for (change, mode, waits, flag, wanted) in [
            (json!({}), single, false, None, true),
            (json!({}), UsernsMode::Auto, false, None, false),
            (json!({}), single, true, None, false),
            (json!({}), single, false, Some(RootEmulation::Off), false),
            (json!({}), UsernsMode::Auto, true, Some(RootEmulation::On), true),
            (json!({}), single, true, Some(RootEmulation::Auto), true),
            (json!({}), UsernsMode::Auto, true, Some(RootEmulation::Auto), false),
            (wish("1"), UsernsMode::Auto, true, None, true),
            (wish("0"), single, false, None, false),
            (wish("auto"), single, true, None, true),
            (wish("1"), single, true, Some(RootEmulation::Off), false),
            (confined.clone(), single, false, None, false),
            (confined.clone(), single, false, Some(RootEmulation::Auto), true),
            (user.clone(), UsernsMode::Auto, false, Some(RootEmulation::Auto), false),
        ] {
            let order = Order { root_emulation: flag, ..sample::order(waits) };
            let plan = plan(&change, mode, &order).unwrap();
            let has_filter = plan.ops().iter().any(|op| matches!(op, Op::Seccomp { .. }));
            assert_eq!(plan.root_emulation, wanted, "{change} {mode:?} {waits} {flag:?}");
            assert_eq!(has_filter, wanted || change == confined, "{change} {mode:?} {waits} {flag:?}");
            let told = plan.warnings().iter().any(|warning| warning.code() == Code::EmulationNeedless);
            assert_eq!(told, wanted && mode == UsernsMode::Auto, "{change} {mode:?} {flag:?}");
            assert_eq!(plan.to_string().contains("capset and the like return 0"), wanted, "{plan}");
        }
        confined["annotations"] = json!({EMULATION: "1", RAW: "BgAAAAAA/38="});
        let error = plan(&confined, single, &sample::order(true)).unwrap_err();
        assert!(error.code() == Code::Seccomp && error.to_string().contains(RAW), "{error}");
    }

    #[test]
    fn nothing_is_left_to_a_capset_that_the_filter_answers() {
        for (flag, last) in [(RootEmulation::On, false), (RootEmulation::Off, true)] {
            let order = Order { root_emulation: Some(flag), ..sample::order(false) };
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW"});
            let change = json!({"linux": {"namespaces": [{"type": "mount"}], "seccomp": profile}});
            let plan = plan(&change, UsernsMode::Single, &order).unwrap();
            let attached = plan.ops().iter().position(|op| matches!(op, Op::Seccomp { .. })).unwrap();
            let dropped = plan.ops().iter().skip(attached).any(|op| matches!(op, Op::Capabilities { .. }));
            assert_eq!(dropped, last, "{plan}");
        }
    }
}
