//! The architectures of a machine: what the kernel calls them, and their system calls by name.

use oci_spec::runtime::Arch;

/// A kind of machine, of which a program for it may be built anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// `x86_64`, with x32 and x86.
    X86,
    /// aarch64, with arm.
    Arm,
}

impl Machine {
    /// The one this program is built for, when its system calls are known.
    pub const fn own() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Arm)
        } else {
            None
        }
    }

    /// Architectures that the kernel reports alike, the native ones first; in each, in the order of their numbers.
    pub(super) const fn families(self) -> &'static [&'static [Abi]] {
        match self {
            Self::X86 => &[&[Abi::X86_64, Abi::X32], &[Abi::X86]],
            Self::Arm => &[&[Abi::Aarch64], &[Abi::Arm]],
        }
    }

    pub(super) const fn native(self) -> Abi {
        match self {
            Self::X86 => Abi::X86_64,
            Self::Arm => Abi::Aarch64,
        }
    }
}

/// A way to call the kernel, with numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    X32,
    X86,
    Aarch64,
    Arm,
}

/// What tells x32 from `x86_64`: `__X32_SYSCALL_BIT`.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Numbers of x32 that are not those of `x86_64`: `arch/x86/entry/syscalls/syscall_64.tbl`.
pub(super) const X32_ONLY: std::ops::Range<u32> = 512..548;

/// Calls of 32-bit architectures alone: include/uapi/asm-generic/unistd.h.
const TIME64: std::ops::Range<u32> = 403..424;

/// From here on, numbers say nothing about a call's age: `__ARM_NR_BASE`.
const ARM_PRIVATE: u32 = 0x000f_0000;

impl Abi {
    pub(super) fn is_native(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::X32 => "x32",
            Self::X86 => "x86",
            Self::Aarch64 => "aarch64",
            Self::Arm => "arm",
        }
    }

    pub(super) fn oci(self) -> Arch {
        match self {
            Self::X86_64 => Arch::ScmpArchX86_64,
            Self::X32 => Arch::ScmpArchX32,
            Self::X86 => Arch::ScmpArchX86,
            Self::Aarch64 => Arch::ScmpArchAarch64,
            Self::Arm => Arch::ScmpArchArm,
        }
    }

    /// `AUDIT_ARCH_*`, as `struct seccomp_data` carries it.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The first number.
    pub(super) fn base(self) -> u32 {
        if self == Self::X32 { X32_BIT } else { 0 }
    }

    /// The number of a call; nothing when this architecture has none of that name.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        match self {
            Self::X86_64 => find(&X86_64, name),
            Self::X86 => find(&X86, name),
            // The table has glibc's name for the one call.
            Self::Aarch64 if name == "newfstatat" => find(&AARCH64, "fstatat"),
            Self::Aarch64 => find(&AARCH64, name).filter(|number| !TIME64.contains(number)),
            Self::Arm => find(&ARM, name).or_else(|| find(&ARM_PRIVATE_CALLS, name).map(|low| ARM_PRIVATE | low)),
            Self::X32 if X32_LACKS.binary_search(&name).is_ok() => None,
            Self::X32 => find(&X32_CALLS, name).or_else(|| find(&X86_64, name)).map(|number| X32_BIT | number),
        }
    }

    /// A number by its age: calls are numbered in the order in which they were added, but for these.
    pub(super) fn is_ordinary(self, number: u32) -> bool {
        match self {
            Self::X32 => !X32_ONLY.contains(&(number & !X32_BIT)),
            Self::X86_64 | Self::X86 | Self::Aarch64 | Self::Arm => number < ARM_PRIVATE,
        }
    }

    /// The call through which x86 also makes this one, and its first argument there: `socketcall(2)`, `ipc(2)`.
    pub(super) fn multiplexed(self, name: &str) -> Option<(&'static str, u32)> {
        if self != Self::X86 {
            return None;
        }
        let socket = find(&SOCKET_CALLS, name).map(|selector| ("socketcall", selector));
        socket.or_else(|| find(&IPC_CALLS, name).map(|selector| ("ipc", selector)))
    }
}

/// A call's name and number.
type Row = (&'static str, u32);

/// Calls sorted by name. The first bytes of the names stand apart: they decide nearly every comparison, and to look at them
/// takes no detour through the memory of the name.
struct Table<const N: usize> {
    rows: [Row; N],
    prefixes: [u64; N],
}

impl<const N: usize> Table<N> {
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, where a wrong index is an error")]
    const fn new(rows: [Row; N]) -> Self {
        let (rows, mut prefixes, mut at) = (sort(rows), [0; N], 0);
        while at < N {
            prefixes[at] = prefix(rows[at].0);
            at += 1;
        }
        Self { rows, prefixes }
    }
}

fn find<const N: usize>(table: &Table<N>, name: &str) -> Option<u32> {
    search(&table.rows, &table.prefixes, name)
}

fn search(rows: &[Row], prefixes: &[u64], name: &str) -> Option<u32> {
    let wanted = prefix(name);
    let start = prefixes.partition_point(|prefix| *prefix < wanted);
    let alike = prefixes.get(start..)?.iter().take_while(|prefix| **prefix == wanted);
    let mut rows = alike.zip(rows.get(start..)?).map(|(_, row)| row);
    rows.find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The first eight bytes, which compare as the names do; fewer are followed by zeros.
#[expect(clippy::indexing_slicing, reason = "the index is below the length")]
const fn prefix(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let (mut prefix, mut at) = (0, 0);
    while at < 8 {
        prefix = prefix << 8 | if at < bytes.len() { bytes[at] as u64 } else { 0 };
        at += 1;
    }
    prefix
}

/// All calls of a table of the syscalls crate, sorted by name by the compiler.
macro_rules! sorted {
    ($calls:ty) => {{
        let mut rows = [("", 0_u32); <$calls>::count()];
        let (mut number, mut at) = (0, 0);
        while number < <$calls>::table_size() {
            if let Some(call) = <$calls>::new(number) {
                rows[at] = (call.name(), call.id().unsigned_abs());
                at += 1;
            }
            number += 1;
        }
        assert!(at == rows.len(), "a call is outside of the table");
        Table::new(rows)
    }};
}

#[expect(clippy::indexing_slicing, reason = "as above")]
static X86_64: Table<{ syscalls::x86_64::Sysno::count() }> = const { sorted!(syscalls::x86_64::Sysno) };
#[expect(clippy::indexing_slicing, reason = "as above")]
static X86: Table<{ syscalls::x86::Sysno::count() }> = const { sorted!(syscalls::x86::Sysno) };
#[expect(clippy::indexing_slicing, reason = "as above")]
static AARCH64: Table<{ syscalls::aarch64::Sysno::count() }> = const { sorted!(syscalls::aarch64::Sysno) };
#[expect(clippy::indexing_slicing, reason = "as above")]
static ARM: Table<{ syscalls::arm::Sysno::count() }> = const { sorted!(syscalls::arm::Sysno) };

/// Heap sort: short, and quick enough for the compiler's evaluator.
#[expect(clippy::indexing_slicing, reason = "as above")]
const fn sort<const N: usize>(mut rows: [(&'static str, u32); N]) -> [(&'static str, u32); N] {
    let (mut start, mut end) = (N / 2, N);
    while end > 1 {
        if start > 0 {
            start -= 1;
        } else {
            end -= 1;
            (rows[0], rows[end]) = (rows[end], rows[0]);
        }
        let mut root = start;
        while 2 * root + 1 < end {
            let mut child = 2 * root + 1;
            if child + 1 < end && precedes(rows[child].0, rows[child + 1].0) {
                child += 1;
            }
            if !precedes(rows[root].0, rows[child].0) {
                break;
            }
            (rows[root], rows[child]) = (rows[child], rows[root]);
            root = child;
        }
    }
    rows
}

#[expect(clippy::indexing_slicing, reason = "as above")]
const fn precedes(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() {
        if one[at] != other[at] {
            return one[at] < other[at];
        }
        at += 1;
    }
    one.len() < other.len()
}

/// Calls that x32 numbers in its own way: `arch/x86/entry/syscalls/syscall_64.tbl`.
static X32_CALLS: Table<36> = Table::new([
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
]);

/// Calls of `x86_64` alone: the same table.
const X32_LACKS: [&str; 12] = [
    "_sysctl",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "get_thread_area",
    "map_shadow_stack",
    "nfsservctl",
    "query_module",
    "set_thread_area",
    "uselib",
    "vserver",
];

/// Calls of arm above `__ARM_NR_BASE`: arch/arm/include/uapi/asm/unistd.h.
static ARM_PRIVATE_CALLS: Table<6> =
    Table::new([("breakpoint", 1), ("cacheflush", 2), ("usr26", 3), ("usr32", 4), ("set_tls", 5), ("get_tls", 6)]);

/// First argument of `socketcall(2)`: include/uapi/linux/net.h.
static SOCKET_CALLS: Table<20> = Table::new([
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
]);

/// First argument of `ipc(2)`: include/uapi/linux/ipc.h.
static IPC_CALLS: Table<12> = Table::new([
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_so_that_every_name_is_found() {
        fn check<const N: usize>(table: &Table<N>) {
            assert!(table.rows.is_sorted_by(|one, next| one.0 < next.0), "{:?}", table.rows);
            assert!(table.rows.iter().all(|(name, number)| find(table, name) == Some(*number)), "{:?}", table.rows);
        }
        check(&X86_64);
        check(&X86);
        check(&AARCH64);
        check(&ARM);
        check(&X32_CALLS);
        check(&ARM_PRIVATE_CALLS);
        check(&SOCKET_CALLS);
        check(&IPC_CALLS);
        assert!(X32_LACKS.is_sorted());
    }

    #[test]
    fn calls_have_the_numbers_of_the_kernel() {
        for (abi, name, number) in [
            (Abi::X86_64, "read", Some(0)),
            (Abi::X86_64, "execve", Some(59)),
            (Abi::X86_64, "clone3", Some(435)),
            (Abi::X86_64, "socketcall", None),
            (Abi::X86, "socketcall", Some(102)),
            (Abi::X86, "mkdir", Some(39)),
            (Abi::X86, "clock_gettime64", Some(403)),
            (Abi::X32, "execve", Some(X32_BIT + 520)),
            (Abi::X32, "mkdir", Some(X32_BIT + 83)),
            (Abi::X32, "uselib", None),
            (Abi::Aarch64, "mkdirat", Some(34)),
            (Abi::Aarch64, "mkdir", None),
            (Abi::Aarch64, "clock_gettime64", None),
            (Abi::Aarch64, "pidfd_send_signal", Some(424)),
            (Abi::Aarch64, "newfstatat", Some(79)),
            (Abi::Arm, "mkdir", Some(39)),
            (Abi::Arm, "set_tls", Some(0x000f_0005)),
            (Abi::Arm, "no_such_call", None),
        ] {
            assert_eq!(abi.number(name), number, "{abi:?} {name}");
        }
    }
}
