//! What the kernel keeps with a process: scheduling, I/O priority, personality, memory policy; and its security labels.

use oci_spec::runtime::{
    IOPriorityClass, LinuxPersonalityDomain, LinuxSchedulerFlag as SchedulerFlag, LinuxSchedulerPolicy as Policy,
    MemoryPolicyFlagType as MemoryFlag, MemoryPolicyModeType as Mode, Scheduler,
};

use super::{Op, draft::Draft};
use crate::{
    error::{Code, Error, Result},
    spec::attributes::{cpu_list, node_list},
    sys::schedule::{MemoryPolicy, Scheduling},
};

/// Lets real root raise priorities; not from inside a user namespace, so the parent does it.
const CAP_SYS_NICE: u8 = 23;

/// A security module that takes a label for the next exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// `process.apparmorProfile`
    AppArmor,
    /// `process.selinuxLabel`
    Selinux,
}

impl Module {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::AppArmor => "AppArmor",
            Self::Selinux => "SELinux",
        }
    }

    /// The code of its refusals.
    pub fn code(self) -> Code {
        match self {
            Self::AppArmor => Code::AppArmor,
            Self::Selinux => Code::Selinux,
        }
    }
}

/// The words for a label that is asked for and cannot be had. Engines look for a path below attr in back-quotes.
fn unlabelled(module: Module, label: &str, file: &str, place: &'static str) -> Error {
    let what = format!("label the program {label:?}: write `{file}`");
    Error::new(module.code(), what, format!("{} is off on this host", module.name())).at(place)
}

impl Draft<'_> {
    /// Labels for the program, which the kernel keeps until exec. Through the host's procfs: what the image puts in the
    /// place of `/proc` must not swallow them (CVE-2019-16884, CVE-2019-19921).
    pub(super) fn labels(&mut self) -> Result<()> {
        for (label, place) in self.wanted_labels()? {
            self.step_for(label, place);
        }
        let mounts = self.spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref()).unwrap_or_default();
        if !mounts.is_empty() && !self.host.named.selinux {
            let why = "SELinux is off on this host";
            return Err(Error::new(Code::Selinux, format!("label mounts {mounts:?}"), why).at("linux.mountLabel"));
        }
        Ok(())
    }

    /// The same for `exec`, whose child is born behind the container's `/proc`: the parent takes the labels, and the child
    /// inherits them.
    pub(super) fn inherited_labels(&mut self) -> Result<()> {
        let labels = self.wanted_labels()?.into_iter().map(|(label, _)| label);
        self.plan.inherited.extend(labels);
        Ok(())
    }

    /// Where `exec`, and it alone, runs: `process.execCPUAffinity`.
    pub(super) fn affinity(&mut self) -> Result<()> {
        let affinity = self.spec.process().as_ref().and_then(|process| process.exec_cpu_affinity().as_ref());
        let Some(affinity) = affinity else { return Ok(()) };
        let cpus = |list: &Option<String>| {
            let list = list.as_deref().filter(|list| !list.is_empty());
            let cpus = list.map(cpu_list).transpose();
            cpus.map_err(|why| Error::new(Code::Field, "use process.execCPUAffinity", why))
        };
        self.plan.affinity = [cpus(affinity.initial())?, cpus(affinity.cpu_affinity_final())?];
        Ok(())
    }

    fn wanted_labels(&mut self) -> Result<Vec<(Op, &'static str)>> {
        let mut labels = Vec::new();
        let Some(process) = self.spec.process() else { return Ok(labels) };
        let profile = process.apparmor_profile().as_deref().unwrap_or_default();
        if !profile.is_empty() && profile != "unconfined" {
            let (module, place) = (Module::AppArmor, "process.apparmorProfile");
            let Some(file) = self.host.named.apparmor else {
                return Err(unlabelled(module, profile, "/proc/self/attr/apparmor/exec", place));
            };
            let (file, label) = (self.text(file)?, self.text(format!("exec {profile}"))?);
            labels.push((Op::Label { module, file, label }, place));
        }
        let label = process.selinux_label().as_deref().unwrap_or_default();
        if !label.is_empty() {
            let (module, file, place) = (Module::Selinux, "/proc/self/attr/exec", "process.selinuxLabel");
            if !self.host.named.selinux {
                return Err(unlabelled(module, label, file, place));
            }
            let (file, label) = (self.text(file)?, self.text(label)?);
            labels.push((Op::Label { module, file, label }, place));
        }
        Ok(labels)
    }

    /// The option that labels a filesystem, where the kernel takes one from a user namespace.
    pub(super) fn mount_label(&self, kind: &str) -> Option<String> {
        let label = self.spec.linux().as_ref()?.mount_label().as_deref().filter(|label| !label.is_empty())?;
        let option = self.annotation("run.oci.mount_context_type").unwrap_or("context");
        matches!(kind, "tmpfs" | "ramfs" | "devpts" | "overlay").then(|| format!("{option}=\"{label}\""))
    }

    /// Before the limits: with those of the caller it was decided what init may do itself.
    pub(super) fn process_attributes(&mut self) -> Result<()> {
        let process = self.spec.process().as_ref();
        if let Some(scheduler) = process.and_then(|process| process.scheduler().as_ref()) {
            self.scheduler(scheduler)?;
        }
        if let Some(priority) = process.and_then(|process| process.io_priority().as_ref()) {
            let class: u32 = match priority.class() {
                IOPriorityClass::IoprioClassRt => 1,
                IOPriorityClass::IoprioClassBe => 2,
                IOPriorityClass::IoprioClassIdle => 3,
            };
            let value = class << 13 | u32::try_from(priority.priority()).unwrap_or(0);
            if class != 1 {
                self.step_for(Op::IoPriority(value), "process.ioPriority");
            } else if self.may_prioritise() {
                self.plan.raised_io_priority = Some(value);
            } else {
                let why = "only real root may";
                return Err(Error::new(Code::Scheduling, "use IOPRIO_CLASS_RT", why).at("process.ioPriority"));
            }
        }
        let Some(linux) = self.spec.linux() else { return Ok(()) };
        if let Some(policy) = linux.memory_policy() {
            let nodes = node_list(policy.nodes().as_deref().unwrap_or_default());
            let nodes = nodes.map_err(|why| Error::new(Code::Field, "use linux.memoryPolicy.nodes", why))?;
            let flags = policy.flags().iter().flatten().fold(0, |all, flag| all | memory_flag(*flag));
            self.plan.memory_policy = Some(MemoryPolicy { mode: mode(policy.mode()) | flags, nodes });
            self.step_for(Op::MemoryPolicy, "linux.memoryPolicy");
        }
        if let Some(personality) = linux.personality() {
            self.step_for(Op::Personality(domain(personality.domain())), "linux.personality");
        }
        Ok(())
    }

    fn may_prioritise(&self) -> bool {
        self.host.initial_userns && self.host.caller.has(CAP_SYS_NICE)
    }

    fn scheduler(&mut self, scheduler: &Scheduler) -> Result<()> {
        let own = self.host.named.nice.unwrap_or_default();
        let wanted = scheduling(scheduler, own.own);
        let is_raised = match scheduler.policy() {
            Policy::SchedOther | Policy::SchedBatch | Policy::SchedIso => wanted.nice < own.own.min(own.lowest),
            Policy::SchedIdle => false,
            Policy::SchedFifo | Policy::SchedRr => u64::from(wanted.priority) > own.highest_priority,
            Policy::SchedDeadline => true,
        };
        if is_raised && self.may_prioritise() {
            self.plan.raised_scheduling = Some(wanted);
            return Ok(());
        }
        if is_raised {
            let what = format!("schedule the program as {} (nice {})", scheduler.policy(), wanted.nice);
            let why = if wanted.nice < own.own {
                format!("your nice value is {}, and only real root may go below {}", own.own, own.own.min(own.lowest))
            } else {
                "only real root may".to_owned()
            };
            return Err(Error::new(Code::Scheduling, what, why).at("process.scheduler"));
        }
        self.plan.scheduling = Some(wanted);
        self.step_for(Op::Schedule, "process.scheduler");
        Ok(())
    }
}

/// In the kernel's words. A nice value that is not given stays the caller's.
fn scheduling(scheduler: &Scheduler, own_nice: i32) -> Scheduling {
    let policy = match scheduler.policy() {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIso => 4,
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
    };
    let is_fair = matches!(scheduler.policy(), Policy::SchedOther | Policy::SchedBatch);
    let mut wanted = Scheduling::default();
    wanted.policy = policy;
    wanted.flags = scheduler.flags().iter().flatten().fold(0, |all, flag| all | scheduler_flag(*flag));
    wanted.nice = scheduler.nice().unwrap_or(if is_fair { own_nice } else { 0 });
    wanted.priority = u32::try_from(scheduler.priority().unwrap_or(0)).unwrap_or(0);
    wanted.runtime = scheduler.runtime().unwrap_or(0);
    wanted.deadline = scheduler.deadline().unwrap_or(0);
    wanted.period = scheduler.period().unwrap_or(0);
    wanted
}

/// `SCHED_FLAG_*` of include/uapi/linux/sched.h.
fn scheduler_flag(flag: SchedulerFlag) -> u64 {
    match flag {
        SchedulerFlag::SchedResetOnFork => 0x01,
        SchedulerFlag::SchedFlagReclaim => 0x02,
        SchedulerFlag::SchedFlagDLOverrun => 0x04,
        SchedulerFlag::SchedFlagKeepPolicy => 0x08,
        SchedulerFlag::SchedFlagKeepParams => 0x10,
        SchedulerFlag::SchedFlagUtilClampMin => 0x20,
        SchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

/// `MPOL_*` of include/uapi/linux/mempolicy.h.
fn mode(mode: Mode) -> i32 {
    match mode {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    }
}

/// `MPOL_F_*` of the same file.
fn memory_flag(flag: MemoryFlag) -> i32 {
    match flag {
        MemoryFlag::MpolFStaticNodes => 1 << 15,
        MemoryFlag::MpolFRelativeNodes => 1 << 14,
        MemoryFlag::MpolFNumaBalancing => 1 << 13,
    }
}

/// `PER_*` of include/uapi/linux/personality.h.
fn domain(domain: LinuxPersonalityDomain) -> u32 {
    match domain {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Scheduling {
        scheduling(&serde_json::from_str(json).unwrap(), 5)
    }

    #[test]
    fn a_nice_value_that_is_not_given_stays_the_callers() {
        for (json, policy, nice, priority) in [
            (r#"{"policy":"SCHED_BATCH"}"#, 3, 5, 0),
            (r#"{"policy":"SCHED_OTHER","nice":0}"#, 0, 0, 0),
            (r#"{"policy":"SCHED_IDLE"}"#, 5, 0, 0),
            (r#"{"policy":"SCHED_FIFO","priority":9}"#, 1, 0, 9),
        ] {
            let wanted = of(json);
            assert_eq!((wanted.policy, wanted.nice, wanted.priority), (policy, nice, priority), "{json}");
        }
    }

    #[test]
    fn the_label_of_mounts_is_of_the_kind_that_the_annotation_says() {
        for (annotations, wanted) in [
            (serde_json::json!({}), r#"context="some_t""#),
            (serde_json::json!({"run.oci.mount_context_type": "fscontext"}), r#"fscontext="some_t""#),
        ] {
            let spec = serde_json::json!({
                "ociVersion": "1.3.0", "root": {"path": "r"}, "annotations": annotations,
                "mounts": [{"destination": "/t", "type": "tmpfs"}], "linux": {"mountLabel": "some_t"}
            });
            let spec = serde_json::from_value(spec).unwrap();
            let mode = crate::cli::UsernsMode::Single;
            let plan = crate::plan::sample::compile(&spec, crate::plan::sample::user(), mode, false, 0).unwrap();
            let text = plan.to_string();
            assert!(text.contains(&format!("({wanted})")), "{text}");
        }
    }
}
