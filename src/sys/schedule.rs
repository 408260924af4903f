//! When and where a process runs: scheduling, I/O priority, personality, NUMA memory.

use super::check;

/// What `sched_setattr(2)` takes: the layout of its first version, `SCHED_ATTR_SIZE_VER0`, and of the clamps of
/// version 1, which stay 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Scheduling {
    size: u32,
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// -20 to 19, for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// 1 to 99, for `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`, as the next two.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
    least_clamp: u32,
    most_clamp: u32,
}

/// Sets how a process is scheduled, 0 for this one. EPERM: it needs `CAP_SYS_NICE` of the initial user namespace.
/// E2BIG: a kernel before 5.3, which has no clamps.
pub fn set(process: i32, wanted: &Scheduling) -> nix::Result<()> {
    let attributes = Scheduling { size: SIZE, ..*wanted };
    // SAFETY: the kernel reads `size` bytes of one `Scheduling`, which lives until the call returns.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, process, &raw const attributes, 0) }).map(drop)
}

#[expect(clippy::cast_possible_truncation, reason = "56 bytes")]
const SIZE: u32 = size_of::<Scheduling>() as u32;

/// This process's own nice value: `getpriority(2)`, whose raw form gives 20 - nice.
pub fn nice() -> nix::Result<i32> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_getpriority, 0, 0) }).map(|value| 20 - value)
}

/// Sets the I/O priority of a process, 0 for this one: class << 13 | level, `ioprio_set(2)`.
pub fn set_io_priority(process: i32, priority: u32) -> nix::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, process, priority) }).map(drop)
}

const IOPRIO_WHO_PROCESS: i32 = 1;

/// Sets the execution domain: `personality(2)`.
pub fn set_personality(domain: u32) -> nix::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) }).map(drop)
}

/// Where a process may run, 0 for this one, a bit for each CPU: `sched_setaffinity(2)`. EINVAL: none of them is there, or
/// its cgroup has none of them.
pub fn set_affinity(process: i32, cpus: &[u64; 16]) -> nix::Result<()> {
    // SAFETY: the kernel reads the whole array, which lives until the call returns.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, process, size_of_val(cpus), cpus.as_ptr()) }).map(drop)
}

/// Which NUMA nodes memory comes from, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryPolicy {
    /// `MPOL_*` with `MPOL_F_*`.
    pub mode: i32,
    /// A bit for each node.
    pub nodes: [u64; 16],
}

/// One more than the highest node that a [`MemoryPolicy`] can name: `MAX_NUMNODES` at its largest.
pub const MOST_NODES: usize = 1024;

/// Sets the memory policy: `set_mempolicy(2)`. EINVAL: none of the nodes is there, or the kernel lacks the mode.
pub fn set_memory_policy(policy: &MemoryPolicy) -> nix::Result<()> {
    let empty = policy.nodes.iter().all(|word| *word == 0);
    let mask = if empty { std::ptr::null() } else { policy.nodes.as_ptr() };
    // One more than there are: the kernel reads one bit less than it is told.
    let length = if empty { 0 } else { MOST_NODES + 1 };
    // SAFETY: the kernel reads MOST_NODES bits of the array, which lives until the call returns, or nothing.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, policy.mode, mask, length) }).map(drop)
}
