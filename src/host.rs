//! Facts about the machine and the caller, probed once, as plain data. Deciding with them is the plan's work.

pub mod account;
pub mod activation;
pub mod devices;
pub mod ids;
mod named;
pub mod network;
pub mod probe;
pub mod refusal;
pub mod session;

use std::path::PathBuf;

use crate::host::ids::{Account, Extent};

/// The umask that pura itself runs with, whatever the caller's is: what it makes has the modes that it says.
pub const UMASK: u32 = 0o022;

const CAP_SETGID: u8 = 6;
const CAP_SETUID: u8 = 7;

/// All that a plan may depend on besides the config and the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Who calls.
    pub caller: Caller,
    /// The caller's user namespace is the machine's initial one: by inode, never by the shape of its map.
    pub initial_userns: bool,
    /// Inode of the caller's user namespace.
    pub own_userns: u64,
    /// `setgroups(2)` is denied where the caller is, and so in every user namespace made from there.
    pub setgroups_denied: bool,
    /// Maps of the caller's user namespace, as /`proc/self/uid_map` and `gid_map` show them. Empty in the initial one,
    /// where nobody needs them.
    pub own_maps: Maps,
    /// The caller's account and subordinate ids; asked for only when a map must be made up or explained.
    pub account: Option<Account>,
    /// Rows and columns of the caller's own terminal, when the program gets one.
    pub terminal: Option<(u16, u16)>,
    /// Variables for a program that is process 1: the caller has descriptors for it.
    pub activation: Vec<String>,
    /// pura's own binary.
    pub itself: Option<Itself>,
    /// cgroup v2, as the caller sees it.
    pub cgroup: Cgroup,
    /// Facts about what config.json names.
    pub named: Named,
}

/// The calling process, from `/proc/self/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// umask, as found; pura itself runs with 022.
    pub umask: u32,
    /// Effective capabilities, a bit each.
    pub effective: u64,
    /// Bounding set, a bit each.
    pub bounding: u64,
    /// `no_new_privs` is set.
    pub no_new_privs: bool,
    /// A seccomp filter is attached.
    pub seccomp: bool,
    /// Ignored signals: bit n - 1 is signal n.
    pub ignored: u64,
}

impl Caller {
    /// Whether capability number `capability` is effective.
    pub fn has(&self, capability: u8) -> bool {
        self.effective >> capability & 1 == 1
    }

    /// Whether it may write any map of ids that its own user namespace has: `user_namespaces(7)`.
    pub fn may_map(&self) -> bool {
        self.has(CAP_SETUID) && self.has(CAP_SETGID)
    }
}

/// Both id maps of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maps {
    /// `uid_map`
    pub uids: Vec<Extent>,
    /// `gid_map`
    pub gids: Vec<Extent>,
}

/// Where the caller stands in the cgroup v2 hierarchy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Mount point of cgroup2; none on a pure v1 host.
    pub mount: Option<PathBuf>,
    /// The v2 mount is `/sys/fs/cgroup` itself: not a hybrid host.
    pub unified: bool,
    /// The caller's cgroup, from the hierarchy's root: `/a/b`.
    pub own: String,
}

/// What the paths of config.json turned out to be; positions are those of config.json.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Named {
    /// What is at `root.path`.
    pub root: Option<Kind>,
    /// Where that leads, when it is a link itself.
    pub root_link: Option<PathBuf>,
    /// For each of `mounts`: what its source is, when it is a bind.
    pub sources: Vec<Option<Kind>>,
    /// For each of `process.rlimits`: the caller's own limit of that type, soft and hard.
    pub limits: Vec<(u64, u64)>,
    /// The caller's own `oom_score_adj`, and how far it may be lowered, when the config sets one.
    pub oom_score: Option<OomScore>,
    /// The caller's own nice value, when the config sets a scheduler.
    pub nice: Option<Nice>,
    /// Where `AppArmor` takes a profile, when the config sets one and the module is on.
    pub apparmor: Option<&'static str>,
    /// `SELinux` is on, when the config sets a label.
    pub selinux: bool,
    /// The kernel has time namespaces, when the config has one.
    pub has_time: bool,
    /// For each of `linux.namespaces`: what its path is, when it has one.
    pub namespaces: Vec<Option<Joined>>,
    /// The caller's user namespace owns the PID namespace that it is in, when the config has no other.
    pub owns_pid: bool,
    /// For each of `mounts` with "copy-symlink" or "src-nofollow" whose source is a link: its position, and what it says.
    pub links: Vec<(usize, PathBuf)>,
    /// For each of `mounts` with mapped ids: its position, and the type of its source's filesystem.
    pub filesystems: Vec<(usize, String)>,
    /// For each of `linux.devices`: where the host has it; none for a pipe.
    pub devices: Vec<Option<devices::Device>>,
    /// Inodes of the namespaces that the caller and process 1 are in, when the config sets kernel parameters: those of
    /// the host, whose parameters are not the container's to change.
    pub host_namespaces: Vec<u64>,
    /// The caller's network, when the config moves devices out of it.
    pub network: Option<network::Network>,
    /// The devices of the config: of `linux.devices` and of binds.
    pub nodes: Vec<Node>,
    /// The kernel shows its memory as `/proc/kcore`.
    pub has_core: bool,
    /// Where resctrl is mounted, when the config asks for a group of it.
    pub resctrl: Option<PathBuf>,
}

/// An `oom_score_adj`. What an ordinary process raised it may lower again, down to the last value that real root gave it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OomScore {
    /// The caller's own.
    pub own: i32,
    /// The lowest that it is known to be allowed.
    pub lowest: i32,
}

/// A nice value, and what the caller's limits allow besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nice {
    /// The caller's own.
    pub own: i32,
    /// The lowest that `RLIMIT_NICE` allows; 20 for none.
    pub lowest: i32,
    /// The highest real-time priority that `RLIMIT_RTPRIO` allows; 0 for none.
    pub highest_priority: u64,
}

/// The file that this process runs from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Itself {
    /// Which it is.
    pub file: crate::sys::path::File,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
}

/// What a path leads to, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// Anything else that exists.
    File,
    /// Nothing.
    Missing,
    /// It cannot be reached: EACCES and the like.
    Refused(i32),
}

/// A device of the host that the config brings in, and who may open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where the config names it.
    pub place: String,
    /// Its path.
    pub path: PathBuf,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
}

/// A namespace that config.json joins by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// `CLONE_NEW*` of what the path is; 0 when it is no namespace; negative errno when it cannot be opened.
    pub kind: i32,
    /// Inode of the user namespace that owns it, 0 when unknown (it is not visible from here).
    pub owner: u64,
    /// Inode of the namespace itself.
    pub inode: u64,
    /// When the path is `/proc/PID/ns/…`, and that process is in the user namespace which this is, or which owns it: the
    /// maps that hold there.
    pub maps: Option<Maps>,
    /// `setgroups(2)` is denied there.
    pub setgroups_denied: bool,
}
