//! Seccomp: a profile of config.json becomes a program for the kernel. Pure, and the same on every machine.
//!
//! The program looks at the architecture, then finds the call by binary search over ranges of numbers that share a
//! verdict, then tests arguments. The kernel runs a new filter once for every call number to learn what is always
//! allowed, so that a short way to each verdict is also what makes attaching it fast.

mod abi;
mod bpf;
mod raw;
mod verdicts;

pub use abi::Machine;
pub use bpf::Instruction;
pub(crate) use bpf::LAST_ARGUMENT;
pub use raw::raw;

use std::fmt::Write as _;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag, LinuxSyscall as Rule,
};

use crate::error::{Code, Error, Result};
use verdicts::{Rules, Verdicts};

/// The most instructions that the kernel takes: `BPF_MAXINSNS`.
const LONGEST: usize = 4096;

/// The largest errno: include/linux/err.h.
pub const MAX_ERRNO: u32 = 4095;

/// Names of a whole profile, and of one rule, up to which a summary lists them instead of counting.
const LISTED: usize = 100;
const FEW: usize = 8;

const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const ACTION: u32 = 0xffff_0000;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`, Linux 5.0.
pub(crate) const NEW_LISTENER: u32 = 1 << 3;

/// What `SECCOMP_FILTER_FLAG_TSYNC` wants beside it, Linux 5.7: `SECCOMP_FILTER_FLAG_TSYNC_ESRCH`.
const TSYNC_ESRCH: u32 = 1 << 4;

/// Linux 5.19.
const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// A filter, ready to be attached.
#[derive(Debug)]
pub struct Filter {
    /// What the kernel runs for each system call.
    pub program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// What it does, for people.
    pub summary: String,
    /// Names that no architecture of this machine knows; they are skipped, as the specification wants.
    pub unknown: Vec<String>,
    /// The place in config.json that it comes from.
    pub place: &'static str,
    /// Nothing is known of a program that was not compiled here.
    native: Option<(Machine, Verdicts)>,
}

impl Filter {
    /// Whether the native architecture may make a call, with some arguments at least, as far as that is known.
    pub fn allows(&self, name: &str) -> bool {
        self.native.is_none() || self.verdict(name).is_some_and(verdicts::Verdict::passes)
    }

    /// Whether the native architecture, with some arguments at least, waits for the seccomp agent to answer a call.
    pub fn holds_up(&self, name: &str) -> bool {
        self.verdict(name).is_some_and(verdicts::Verdict::notifies)
    }

    /// Whether any call waits for the seccomp agent.
    pub fn notifies(&self) -> bool {
        self.flags & NEW_LISTENER != 0
    }

    fn verdict(&self, name: &str) -> Option<&verdicts::Verdict> {
        let (machine, verdicts) = self.native.as_ref()?;
        verdicts.at(machine.native().number(name)?)
    }
}

/// Calls that change ids or capabilities, by all the names that a machine has for them. A program that makes them wants to
/// be root with more than one id, or somebody else.
const IDENTITY: [&str; 26] = [
    "capset",
    "chown",
    "chown32",
    "fchown",
    "fchown32",
    "fchownat",
    "lchown",
    "lchown32",
    "setfsgid",
    "setfsgid32",
    "setfsuid",
    "setfsuid32",
    "setgid",
    "setgid32",
    "setgroups",
    "setgroups32",
    "setregid",
    "setregid32",
    "setresgid",
    "setresgid32",
    "setresuid",
    "setresuid32",
    "setreuid",
    "setreuid32",
    "setuid",
    "setuid32",
];

/// A profile that allows everything, on every architecture of the machine.
pub fn permissive(machine: Machine) -> LinuxSeccomp {
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(Action::ScmpActAllow).set_default_errno_ret(None).set_flags(None);
    let all = machine.families().iter().flat_map(|family| family.iter().map(|abi| abi.oci()));
    profile.set_architectures(Some(all.collect())).set_syscalls(None);
    profile
}

/// Compiles a profile in which calls that change ids or capabilities return 0 without effect where it would let them
/// through: `SECCOMP_RET_ERRNO` with errno 0, `seccomp(2)`. What it does not let through stays as it is.
pub fn emulating_root(profile: &LinuxSeccomp, machine: Machine) -> Result<Filter> {
    answering(profile, machine, &IDENTITY)
}

/// Compiles a profile. Architectures of other machines are accepted and left out; those of this one that the profile
/// leaves out may make no system call at all.
pub fn compile(profile: &LinuxSeccomp, machine: Machine) -> Result<Filter> {
    answering(profile, machine, &[])
}

fn answering(profile: &LinuxSeccomp, machine: Machine, answered: &[&str]) -> Result<Filter> {
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let listed = profile.architectures().as_deref().unwrap_or_default();
    let default = returned(profile.default_action(), profile.default_errno_ret());
    let index = Rules::new(rules, machine, answered);
    let (mut families, mut names) = (Vec::new(), String::new());
    for family in machine.families() {
        // The machine's own architecture needs no naming, or the program could not start.
        let abis = family.iter().filter(|abi| abi.is_native() || listed.contains(&abi.oci()));
        let abis: Vec<_> = abis.copied().collect();
        let Some(first) = abis.first() else { continue };
        names.extend(abis.iter().flat_map(|abi| [" ", abi.name()]));
        families.push((first.audit(), Verdicts::new(&abis, &index, default)));
    }
    let program = bpf::program(&families, KILL_PROCESS);
    if program.len() > LONGEST {
        let why = format!("it takes {} instructions, and the kernel accepts {LONGEST}", program.len());
        return Err(Error::new(Code::Seccomp, "compile the seccomp profile", why)
            .at("linux.seccomp")
            .fix("fewer rules with arguments"));
    }
    let emulated = if answered.is_empty() { "" } else { "; chown, setuid, setgroups, capset and the like return 0" };
    let summary = format!("{}{emulated}; for{names}; {} instructions", summary(profile, rules), program.len());
    let flags = flags(profile, program.iter().any(|instruction| instruction.notifies()));
    let native = families.into_iter().next().map(|(_, verdicts)| (machine, verdicts));
    Ok(Filter { program, flags, summary, unknown: index.unknown, place: "linux.seccomp", native })
}

/// What the kernel is told to return: action in the upper half, errno or trace message in the lower.
fn returned(action: Action, errno: Option<u32>) -> u32 {
    action.as_u32(errno)
}

/// All pass to the kernel; `WAIT_KILLABLE_RECV` is only valid with a listener, and means nothing without one.
fn flags(profile: &LinuxSeccomp, notifies: bool) -> u32 {
    profile.flags().iter().flatten().fold(if notifies { NEW_LISTENER } else { 0 }, |all, flag| {
        all | match flag {
            // Either would return a number, of a thread or of a descriptor.
            Flag::SeccompFilterFlagTsync if notifies => 1 | TSYNC_ESRCH,
            Flag::SeccompFilterFlagTsync => 1,
            Flag::SeccompFilterFlagLog => 2,
            Flag::SeccompFilterFlagSpecAllow => 4,
            Flag::SeccompFilterFlagWaitKillableRecv if notifies => WAIT_KILLABLE_RECV,
            Flag::SeccompFilterFlagWaitKillableRecv => 0,
        }
    })
}

/// Each rule with its action, and the calls, or how many there are.
fn summary(profile: &LinuxSeccomp, rules: &[Rule]) -> String {
    let words = |action: Action, errno: Option<u32>| {
        let name = action.to_string().trim_start_matches("SCMP_ACT_").to_lowercase();
        if matches!(action, Action::ScmpActErrno | Action::ScmpActTrace) {
            format!("{name} {}", errno.unwrap_or(1))
        } else {
            name
        }
    };
    let mut text = format!("default {}", words(profile.default_action(), profile.default_errno_ret()));
    let is_short = rules.iter().map(|rule| rule.names().len()).sum::<usize>() <= LISTED;
    for rule in rules {
        let calls = if is_short || rule.names().len() <= FEW {
            rule.names().join(" ")
        } else {
            format!("{} calls", rule.names().len())
        };
        let arguments = rule.args().as_ref().is_some_and(|tests| !tests.is_empty());
        let when = if arguments { " by arguments" } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(text, "; {}{when}: {calls}", words(rule.action(), rule.errno_ret()));
    }
    text
}

#[cfg(test)]
pub(crate) mod tests;
