//! Who the program is: ids, groups, capabilities, and the program itself.

use std::{os::unix::ffi::OsStrExt as _, path::Path};

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxNamespaceType as Kind, Process};

use super::{Input, Op, Slot, compile::die_with_parent, draft::Draft, ids::UserNamespace, seccomp::ADMIN};
use crate::{
    error::{Code, Error, Result, Warning},
    sys::process::Attribute,
};

/// Where a program without a slash is looked for when the config's environment has no PATH: `execvp(3)`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Draft<'_> {
    /// Capabilities, groups, ids, in the one order in which each is still allowed: `capabilities(7)`. Returns the step that
    /// drops the last capability, which the seccomp filter needs.
    pub(super) fn identity(&mut self) -> Option<Op> {
        let process = self.spec.process().as_ref()?;
        let sets = self.sets(process.capabilities().as_ref());
        // Needs CAP_SETPCAP.
        self.step_for(Op::Bounding(sets.bounding), "process.capabilities.bounding");
        // Need CAP_SETGID and CAP_SETUID. Permitted capabilities have to survive the change of user.
        self.set_groups(process);
        let (uid, gid) = (process.user().uid(), process.user().gid());
        if process.terminal() != Some(true) && self.caller_inside().is_none_or(|(caller, _)| caller != uid) {
            self.step_for(Op::GivePipes(uid), "process.user");
        }
        if self.current_ids() != Some((uid, gid)) {
            self.step(Op::Prctl { attribute: Attribute::KeepCapabilities, value: 1 });
            self.step_for(Op::SetIds { uid, gid }, "process.user");
            die_with_parent(self);
            self.step(Op::Prctl { attribute: Attribute::KeepCapabilities, value: 0 });
        }
        let Sets { effective, permitted, inheritable, .. } = sets;
        let last = Op::Capabilities { effective, permitted, inheritable };
        let kept = if self.keeps_admin() { ADMIN } else { 0 };
        let (effective, permitted) = (effective | kept, permitted | kept);
        let first = Op::Capabilities { effective, permitted, inheritable };
        self.step_for(first, "process.capabilities");
        if sets.ambient != 0 {
            self.step_for(Op::Ambient(sets.ambient), "process.capabilities.ambient");
        }
        if process.no_new_privileges() == Some(true) {
            self.step_for(Op::Prctl { attribute: Attribute::NoNewPrivileges, value: 1 }, "process.noNewPrivileges");
        }
        // The caller's own mask when the config names none: pura itself runs with 022.
        let umask = process.user().umask().unwrap_or(self.host.caller.umask);
        if umask != crate::host::UMASK {
            self.step_for(Op::Umask(umask), "process.user.umask");
        }
        (first != last).then_some(last)
    }

    /// The ids that init has after the set-up, when they are known.
    fn current_ids(&self) -> Option<(u32, u32)> {
        let set = self
            .plan
            .ops
            .iter()
            .rev()
            .find_map(|op| if let Op::SetIds { uid, gid } = *op { Some((uid, gid)) } else { None });
        set.or_else(|| self.caller_inside())
    }

    /// The ids that the caller has in the container, when they are known.
    pub(super) fn caller_inside(&self) -> Option<(u32, u32)> {
        let caller = &self.host.caller;
        match &self.plan.ids.user_namespace {
            UserNamespace::Create { maps, .. } => {
                let uid = maps.uids.iter().find_map(|extent| extent.inside_of(caller.uid))?;
                Some((uid, maps.gids.iter().find_map(|extent| extent.inside_of(caller.gid))?))
            }
            UserNamespace::Reuse | UserNamespace::Inherit => Some((caller.uid, caller.gid)),
            UserNamespace::Join { .. } | UserNamespace::JoinOwner { .. } => None,
        }
    }

    fn set_groups(&mut self, process: &Process) {
        if self.plan.ids.setgroups_denied {
            self.note("setgroups(2) is not called: it is denied with this id map, and the caller's groups stay");
            return;
        }
        if super::ids::keeps_groups(self.spec) {
            self.note("setgroups(2) is not called: run.oci.keep_original_groups keeps the caller's groups");
            return;
        }
        self.plan.groups = process.user().additional_gids().clone().unwrap_or_default();
        self.step_for(Op::SetGroups, "process.user.additionalGids");
    }

    fn sets(&mut self, wanted: Option<&LinuxCapabilities>) -> Sets {
        // A new user namespace grants all; otherwise nothing beyond what the caller has.
        let host = &self.host.caller;
        let grantable = match self.plan.ids.user_namespace {
            UserNamespace::Reuse | UserNamespace::Inherit => host.effective & host.bounding,
            UserNamespace::Create { .. } | UserNamespace::Join { .. } | UserNamespace::JoinOwner { .. } => u64::MAX,
        };
        let mask = |set: &Option<Capabilities>| {
            set.iter().flatten().fold(0, |all, capability| all | 1_u64 << number(*capability))
        };
        let Some(wanted) = wanted else { return Sets::default() };
        let all = [wanted.bounding(), wanted.effective(), wanted.permitted(), wanted.inheritable(), wanted.ambient()]
            .map(mask);
        let lost = all.iter().fold(0, |lost, set| lost | set & !grantable);
        if lost != 0 {
            let names = wanted_names(wanted, lost);
            self.warn(Warning::new(
                Code::Capabilities,
                format!("capabilities that the caller lacks were dropped: {}", names.join(" ")),
            ));
        }
        let [bounding, effective, permitted, inheritable, ambient] = all.map(|set| set & grantable);
        // The kernel's own conditions: effective within permitted, ambient within permitted and inheritable, and
        // nothing can be inherited that is not bounded: capabilities(7).
        let unbounded = (effective | permitted | inheritable | ambient) & !bounding;
        if unbounded != 0 {
            let names = wanted_names(wanted, unbounded).join(" ");
            let what = format!("capabilities outside the bounding set do not outlive exec, and were left out: {names}");
            self.warn(Warning::new(Code::Capabilities, what).fix("name them in process.capabilities.bounding too"));
        }
        let effective = effective & bounding;
        let permitted = permitted & bounding | effective;
        let inheritable = (inheritable | ambient & permitted) & bounding;
        let ambient = ambient & permitted & inheritable;
        let uid = self.spec.process().as_ref().map_or(0, |process| process.user().uid());
        if uid != 0 && permitted & !ambient != 0 {
            let names = wanted_names(wanted, permitted & !ambient).join(" ");
            // As with every runtime: capabilities(7), "Transformation of capabilities during execve()".
            self.note(format!("user {uid} loses at exec what is not ambient: {names}"));
        }
        Sets { bounding, effective, permitted, inheritable, ambient }
    }

    /// HOME, when the config leaves it to the image. With the ids of the set-up: an image may hide its file from users.
    pub(super) fn home(&mut self) {
        let Some(process) = self.spec.process() else { return };
        if !process.env().iter().flatten().any(|variable| variable.starts_with("HOME=")) {
            self.step_for(Op::FindHome(process.user().uid()), "process.env");
        }
    }

    /// The program, its arguments, its environment and its directory. Looked up here, so that `create` fails without it.
    pub(super) fn program(&mut self) -> Result<()> {
        let Some(process) = self.spec.process() else { return Ok(()) };
        // The root is open, and where it is nobody can change.
        let enter = if process.cwd() == Path::new("/") {
            Op::Enter(Slot::ROOT)
        } else {
            Op::EnterCwd(self.text(process.cwd().as_os_str().as_bytes())?)
        };
        self.step_for(enter, "process.cwd");
        let args = process.args().as_deref().unwrap_or_default();
        let Some(program) = args.first() else { return Ok(()) };
        for word in args {
            let text = self.text(word)?;
            self.plan.argv.push(text);
        }
        let variables = process.env().as_deref().unwrap_or_default();
        for variable in variables {
            let text = self.text(variable)?;
            self.plan.env.push(text);
        }
        // Its number is known only where it is the first.
        let told = if self.is_new(Kind::Pid) { self.host.activation.as_slice() } else { &[] };
        for variable in told {
            let has = |known: &String| known.split('=').next() == variable.split('=').next();
            if !variables.iter().any(has) {
                let text = self.text(variable)?;
                self.plan.env.push(text);
            }
        }
        let path = variables.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        for candidate in candidates(program, path) {
            let text = self.text(candidate)?;
            self.plan.candidates.push(text);
        }
        if self.plan.candidates.is_empty() {
            let why = "executable file not found in $PATH: no such file or directory";
            return Err(Error::new(Code::ProgramNotInPath, format!("run {program:?}"), why));
        }
        self.step_for(Op::FindProgram, "process.args[0]");
        Ok(())
    }

    /// Gives the program what every program may expect of its signals.
    pub(super) fn default_signals(&mut self) {
        for signal in (1..=64).filter(|signal| self.host.caller.ignored >> (signal - 1) & 1 == 1) {
            // The kernel refuses to change these two, and they cannot be ignored.
            if signal != libc::SIGKILL && signal != libc::SIGSTOP {
                self.step(Op::DefaultSignal(signal));
            }
        }
        // Whoever waits for signals is to get those too that arrive before it does.
        if self.order.reaper.is_none() {
            self.step(Op::UnblockSignals);
        }
    }

    /// The last step.
    pub(super) fn execute(&mut self) -> Result<()> {
        let Some(reaper) = self.order.reaper else {
            self.step(Op::Execute);
            return Ok(());
        };
        let path = self.text(reaper.as_os_str().as_bytes())?;
        self.plan.inputs.push((Slot::REAPER, Input::Program(reaper.to_owned())));
        self.step_for(Op::ExecuteReaper(path), "--init");
        Ok(())
    }
}

/// Every path at which the program may be: itself when it has a slash, else below each directory of PATH.
fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    // An empty element means the current directory, as in the shell.
    path.split(':')
        .map(|directory| {
            if directory.is_empty() {
                format!("./{program}")
            } else {
                Path::new(directory).join(program).display().to_string()
            }
        })
        .collect()
}

#[derive(Debug, Default, Clone, Copy)]
struct Sets {
    bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
}

/// The number of a capability: linux/capability.h. A table, because a config names a hundred, and each verb asks.
fn number(capability: Capability) -> u8 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

fn wanted_names(wanted: &LinuxCapabilities, mask: u64) -> Vec<String> {
    let all = [wanted.bounding(), wanted.effective(), wanted.permitted(), wanted.inheritable(), wanted.ambient()];
    let mut names: Vec<_> = all
        .into_iter()
        .flatten()
        .flatten()
        .filter(|capability| mask >> number(**capability) & 1 == 1)
        .map(ToString::to_string)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_a_slash_is_looked_for_in_each_directory() {
        assert_eq!(candidates("sh", "/bin:/usr/bin"), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(candidates("sh", ":/bin"), ["./sh", "/bin/sh"]);
        assert_eq!(candidates("./sh", "/bin"), ["./sh"]);
        assert!(candidates("", "/bin").is_empty());
    }

    #[test]
    fn capabilities_have_the_numbers_of_the_kernel() {
        for known in caps::all() {
            let capability: Capability = serde_json::from_value(known.to_string().into()).unwrap();
            assert_eq!(number(capability), known.index(), "{known}");
        }
    }

    fn plan(process: &serde_json::Value) -> crate::plan::Plan {
        let spec = serde_json::json!({"ociVersion": "1.3.0", "root": {"path": "r"}, "process": process});
        let spec = serde_json::from_value(spec).unwrap();
        let mode = crate::cli::UsernsMode::Single;
        crate::plan::sample::compile(&spec, crate::plan::sample::user(), mode, true, 0).unwrap()
    }

    #[test]
    fn nothing_is_had_that_is_not_bounded_and_a_warning_says_so() {
        let sets = serde_json::json!({
            "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL", "CAP_CHOWN"],
            "inheritable": ["CAP_KILL", "CAP_CHOWN"], "ambient": ["CAP_CHOWN"]
        });
        let plan = plan(&serde_json::json!({"cwd": "/", "user": {}, "args": ["/sh"], "capabilities": sets}));
        let kill = 1 << 5;
        let wanted = Op::Capabilities { effective: kill, permitted: kill, inheritable: kill };
        assert!(plan.ops().contains(&wanted), "{plan}");
        assert!(!plan.ops().iter().any(|op| matches!(op, Op::Ambient(_))), "{plan}");
        let warnings: Vec<_> = plan.warnings().iter().map(ToString::to_string).collect();
        assert!(
            warnings.iter().any(|text| text.contains("do not outlive exec, and were left out: CHOWN")),
            "{warnings:?}"
        );
    }

    #[test]
    fn the_root_is_entered_by_its_descriptor_and_another_directory_by_its_path() {
        for (cwd, is_root) in [("/", true), ("/.", true), ("/work", false)] {
            let plan = plan(&serde_json::json!({"cwd": cwd, "user": {}, "args": ["/sh"]}));
            assert_eq!(plan.ops().contains(&Op::Enter(Slot::ROOT)), is_root, "{plan}");
            assert_eq!(plan.ops().iter().any(|op| matches!(op, Op::EnterCwd(_))), !is_root, "{plan}");
        }
    }
}
