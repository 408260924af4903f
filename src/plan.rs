//! The plan: everything init will do, as data, before any process exists.
//!
//! A plan never reads the machine and never allocates once compiled: applying it is a loop.

pub mod arena;
mod assembly;
mod attributes;
pub mod compile;
mod devices;
mod draft;
mod explain;
#[cfg(test)]
mod golden;
mod hooks;
mod identity;
pub mod ids;
mod input;
pub mod join;
mod limits;
mod mounts;
mod namespaces;
mod network;
mod op;
pub mod options;
mod paths;
pub mod resources;
mod rootfs;
#[cfg(test)]
pub(crate) mod sample;
mod seccomp;
mod sysctl;
mod terminal;
pub mod unit;

pub use assembly::{Assembly, Layer};
pub use attributes::Module;
pub use explain::{explain_id_map, explain_program, explain_showing, explain_sysctl, masked_proc};
pub use hooks::Hook;
pub use input::{Input, MappedTree, NewNode, Parameter, Showing};
pub use limits::number as limit_number;
pub use network::MovedDevice;
pub use op::{Op, Target};

use std::{borrow::Cow, ffi::CStr};

use crate::{
    agent::Notice,
    error::Warning,
    seccomp::Filter,
    sys::{
        path::File,
        schedule::{MemoryPolicy, Scheduling},
    },
};
use arena::{Arena, Text};

/// A point at which init waits for its parent. The meetings of a plan, in order, are the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Meeting {
    /// The parent, or its mappers, write `uid_map` and `gid_map`.
    MapIds = 1,
    /// The parent takes the master of the program's terminal.
    Console = 4,
    /// The parent records the container as created. Released, init no longer depends on it.
    Created = 2,
    /// The parent runs prestart and createRuntime hooks.
    RuntimeHooks = 3,
    /// The parent tells init its number: [`Op::LearnPid`].
    Pid = 5,
    /// The parent takes init's mount namespace.
    Mounts = 6,
    /// The parent has init put into the scope that systemd makes for it.
    Scope = 7,
}

/// A place of init for a descriptor that is known late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(pub u16);

impl Slot {
    /// Init's end of the link; `start` replaces it.
    pub const LINK: Self = Self(0);
    /// The listener on which a created container waits for `start`.
    pub const LISTENER: Self = Self(1);
    /// Where hooks write.
    pub const OUTPUT: Self = Self(2);
    /// Where hooks write their errors.
    pub const ERRORS: Self = Self(3);
    /// The connection to the seccomp agent.
    pub const AGENT: Self = Self(4);
    /// The program `pura-init`.
    pub const REAPER: Self = Self(5);
    /// Slots below this number are for all of init's life; those of the set-up follow.
    pub const FIRST_OF_SETUP: u16 = 6;
    /// The container's root.
    pub const ROOT: Self = Self(6);
    /// The container's `/dev`.
    pub const DEV: Self = Self(7);
    /// What masks a file: `/dev/null`.
    pub const NULL: Self = Self(8);
    /// What masks a directory: an empty, read-only tmpfs.
    pub const EMPTY: Self = Self(9);
    /// A mount point, or a descriptor of another kind, for the next step or two.
    pub const TARGET: Self = Self(10);
    /// A detached tree, for the next step or two.
    pub const TREE: Self = Self(11);
    /// The first slot that a plan gives out itself.
    pub const FIRST_FREE: u16 = 12;

    /// Position in init's table.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Whether its descriptor outlives the step after next.
    pub fn is_kept(self) -> bool {
        self != Self::TARGET && self != Self::TREE
    }
}

/// The whole plan.
#[derive(Debug)]
pub struct Plan {
    pub(crate) arena: Arena,
    pub(crate) ops: Vec<Op>,
    /// For each op: the place in config.json it came from, and why it is there. For the parent only.
    pub(crate) places: Vec<Cow<'static, str>>,
    pub(crate) argv: Vec<Text>,
    pub(crate) env: Vec<Text>,
    /// Paths at which the program may be.
    pub(crate) candidates: Vec<Text>,
    pub(crate) groups: Vec<u32>,
    /// Those that init runs, in their order.
    pub(crate) hooks: Vec<Hook>,
    /// Signals that the caller ignores, a bit each, and no hook does.
    pub(crate) ignored: u64,
    /// Namespaces that clone makes: `CLONE_NEW*`.
    pub(crate) clone_flags: u64,
    /// Joined by the parent before clone, because only the caller's user namespace owns them: slot and kind.
    pub(crate) joined_first: Vec<(Slot, i32)>,
    /// Mounted, detached, by the parent once it has joined those.
    pub(crate) shown: Vec<(Slot, Showing)>,
    /// Taken by the parent before clone, and inherited: [`Op::Label`], and [`Op::WriteProc`] for the OOM score.
    pub(crate) inherited: Vec<Op>,
    /// Opened before clone.
    pub(crate) inputs: Vec<(Slot, Input)>,
    pub(crate) slots: usize,
    /// Limits that only the parent, real root, may raise: `RLIMIT_*`, soft, hard.
    pub(crate) raised: Vec<(u32, u64, u64)>,
    /// An OOM score that only the parent, real root, may lower so far.
    pub(crate) lowered_oom_score: Option<i32>,
    /// What [`Op::Seccomp`] attaches.
    pub(crate) filter: Option<Filter>,
    /// It also answers calls that change ids.
    pub(crate) root_emulation: bool,
    /// What [`Op::TellAgent`] sends.
    pub(crate) notice: Option<Notice>,
    /// Parameters of joined namespaces, which only the parent, real root, may write.
    pub(crate) parameters: Vec<Parameter>,
    /// Network devices that the parent moves into the container.
    pub(crate) moved_devices: Vec<MovedDevice>,
    /// A scheduling that only the parent, real root, may give.
    pub(crate) raised_scheduling: Option<Scheduling>,
    /// An I/O priority that only the parent, real root, may give.
    pub(crate) raised_io_priority: Option<u32>,
    /// What [`Op::Schedule`] sets.
    pub(crate) scheduling: Option<Scheduling>,
    /// Where `exec` runs before it enters the container's cgroup, and where its program does, a bit for each CPU.
    pub(crate) affinity: [Option<[u64; 16]>; 2],
    /// What [`Op::MemoryPolicy`] sets.
    pub(crate) memory_policy: Option<MemoryPolicy>,
    /// pura's own binary, which is no program for a container.
    pub(crate) itself: Option<File>,
    pub(crate) ids: ids::Ids,
    pub(crate) warnings: Vec<Warning>,
    /// What was left out, and why, for people who read the plan.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// The steps, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// What init is executed with: the program and its arguments; behind its own name and the program's path, which is known
    /// late, for `pura-init`.
    pub fn argv(&self) -> impl Iterator<Item = &CStr> {
        let reaper: &[&CStr] = if self.has_reaper() { &[c"pura-init", c""] } else { &[] };
        reaper.iter().copied().chain(self.argv.iter().map(|word| self.text(*word)))
    }

    /// Whether init becomes `pura-init`, whose child is the program.
    pub fn has_reaper(&self) -> bool {
        self.inputs.iter().any(|(slot, _)| *slot == Slot::REAPER)
    }

    /// The program's environment, `NAME=VALUE`.
    pub fn env(&self) -> impl Iterator<Item = &CStr> {
        self.env.iter().map(|word| self.text(*word))
    }

    /// Paths at which the program may be, in the order of PATH.
    pub fn candidates(&self) -> &[Text] {
        &self.candidates
    }

    /// Supplementary groups of the program.
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }

    /// The hooks that init runs.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// Where init and its parent meet, in order: the protocol.
    #[expect(clippy::wildcard_enum_match_arm, reason = "four kinds of step meet, and no others")]
    pub fn meetings(&self) -> impl Iterator<Item = Meeting> {
        self.ops.iter().filter_map(|op| match op {
            Op::Meet(meeting) => Some(*meeting),
            Op::PassConsole(_) => Some(Meeting::Console),
            Op::LearnPid => Some(Meeting::Pid),
            Op::PassMounts => Some(Meeting::Mounts),
            _ => None,
        })
    }

    /// Whether the parent has something to do for init from outside, once it is made.
    pub(crate) fn is_finished_outside(&self) -> bool {
        let [_, last] = &self.affinity;
        !self.raised.is_empty()
            || self.lowered_oom_score.is_some()
            || self.raised_scheduling.is_some()
            || self.raised_io_priority.is_some()
            || last.is_some()
    }

    /// The instructions of the seccomp filter.
    pub fn filter(&self) -> &[crate::seccomp::Instruction] {
        self.filter.as_ref().map_or(&[], |filter| &filter.program)
    }

    /// What the seccomp agent is told.
    pub fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref()
    }

    /// The string behind `text`.
    pub fn text(&self, text: Text) -> &CStr {
        self.arena.get(text)
    }

    /// The user namespace and its maps.
    pub fn ids(&self) -> &ids::Ids {
        &self.ids
    }

    /// What is weaker than asked for.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Whether init goes on as a second process, whose parent is the caller.
    pub fn has_rebirth(&self) -> bool {
        self.ops.contains(&Op::Rebirth)
    }

    /// Whether init waits for `start` once it is created.
    pub fn waits_for_start(&self) -> bool {
        self.ops.contains(&Op::AwaitStart)
    }

    /// The path of a namespace that is to be joined.
    pub fn namespace_path(&self, slot: Slot) -> String {
        let input = self.inputs.iter().find(|(at, _)| *at == slot);
        if let Some((_, Input::Namespace(path) | Input::Owner(path))) = input {
            format!("{path:?}")
        } else {
            slot.to_string()
        }
    }
}
