//! The architectures of a machine: what the kernel calls them, and their system calls by name.

mod table;

use oci_spec::runtime::Arch;

pub(super) use table::{Call, Table};

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

    /// All its calls.
    pub(super) fn table(self) -> &'static Table {
        self.native().table()
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

    fn table(self) -> &'static Table {
        match self {
            Self::X86_64 | Self::X32 | Self::X86 => &X86,
            Self::Aarch64 | Self::Arm => &ARM,
        }
    }

    /// Its calls, in the order of their numbers.
    pub(super) fn calls(self) -> &'static [Call] {
        match self {
            Self::X86_64 => X86.calls(0),
            Self::X32 => X86.calls(1),
            Self::X86 => X86.calls(2),
            Self::Aarch64 => ARM.calls(0),
            Self::Arm => ARM.calls(1),
        }
    }

    /// The number of a call; nothing when this architecture has none of that name.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let name = self.table().find(name)?;
        self.calls().iter().find(|call| call.name == name && call.selector().is_none()).map(|call| call.number)
    }

    /// A number by its age: calls are numbered in the order in which they were added, but for these.
    pub(super) fn is_ordinary(self, number: u32) -> bool {
        match self {
            Self::X32 => !X32_ONLY.contains(&(number & !X32_BIT)),
            Self::X86_64 | Self::X86 | Self::Aarch64 | Self::Arm => number < ARM_PRIVATE,
        }
    }
}

/// Shows `$add` all calls of a table of the syscalls crate: number and name.
macro_rules! each {
    ($calls:ty, |$number:ident, $name:ident| $add:block) => {{
        let (mut at, mut seen) = (0, 0);
        while at < <$calls>::table_size() {
            if let Some(call) = <$calls>::new(at) {
                let ($number, $name) = (call.id().unsigned_abs(), call.name());
                $add
                seen += 1;
            }
            at += 1;
        }
        assert!(seen == <$calls>::count(), "a call is outside of the table");
    }};
}

/// The same for rows of our own.
macro_rules! each_row {
    ($rows:expr, |$number:ident, $name:ident| $add:block) => {{
        let mut at = 0;
        while at < $rows.len() {
            let ($name, $number) = $rows[at];
            $add
            at += 1;
        }
    }};
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, where a wrong index is an error")]
static X86: Table = const {
    let mut table = Table::new();
    each!(syscalls::x86_64::Sysno, |number, name| { table.add(0, name, number, 0) });
    each!(syscalls::x86_64::Sysno, |number, name| {
        if !is_x32_own(name) {
            table.add(1, name, X32_BIT | number, 0);
        }
    });
    each_row!(X32_CALLS, |number, name| { table.add(1, name, X32_BIT | number, 0) });
    each!(syscalls::x86::Sysno, |number, name| {
        table.add(2, name, number, 0);
        // Through these, x86 also makes other calls: `socketcall(2)`, `ipc(2)`.
        if table::equal(name, "socketcall") {
            each_row!(SOCKET_CALLS, |selector, through| { table.add(2, through, number, selector) });
        } else if table::equal(name, "ipc") {
            each_row!(IPC_CALLS, |selector, through| { table.add(2, through, number, selector) });
        }
    });
    table
};

#[expect(clippy::indexing_slicing, reason = "as above")]
static ARM: Table = const {
    let mut table = Table::new();
    each!(syscalls::aarch64::Sysno, |number, name| {
        if number < TIME64.start || number >= TIME64.end {
            table.add(0, name, number, 0);
        }
        // The crate has glibc's name for the one call.
        if table::equal(name, "fstatat") {
            table.add(0, "newfstatat", number, 0);
        }
    });
    each!(syscalls::arm::Sysno, |number, name| { table.add(1, name, number, 0) });
    each_row!(ARM_PRIVATE_CALLS, |low, name| { table.add(1, name, ARM_PRIVATE | low, 0) });
    table
};

/// Whether x32 lacks a call of `x86_64`, or has its own number for it.
#[expect(clippy::indexing_slicing, reason = "as above")]
const fn is_x32_own(name: &str) -> bool {
    let mut at = 0;
    while at < X32_LACKS.len() {
        if table::equal(X32_LACKS[at], name) {
            return true;
        }
        at += 1;
    }
    each_row!(X32_CALLS, |_number, own| {
        if table::equal(own, name) {
            return true;
        }
    });
    false
}

/// Calls that x32 numbers in its own way: `arch/x86/entry/syscalls/syscall_64.tbl`.
const X32_CALLS: [(&str, u32); 36] = [
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
];

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
const ARM_PRIVATE_CALLS: [(&str, u32); 6] =
    [("breakpoint", 1), ("cacheflush", 2), ("usr26", 3), ("usr32", 4), ("set_tls", 5), ("get_tls", 6)];

/// First argument of `socketcall(2)`: include/uapi/linux/net.h.
const SOCKET_CALLS: [(&str, u32); 20] = [
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
];

/// First argument of `ipc(2)`: include/uapi/linux/ipc.h.
const IPC_CALLS: [(&str, u32); 12] = [
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
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_every_name_is_found() {
        for machine in [Machine::X86, Machine::Arm] {
            for abi in machine.families().iter().copied().flatten() {
                assert!(abi.calls().is_sorted_by_key(|call| call.number), "{abi:?}");
            }
        }
        for (abi, name, number) in X32_CALLS.map(|(name, number)| (Abi::X32, name, X32_BIT | number)) {
            assert_eq!(abi.number(name), Some(number), "{name}");
        }
        let of_x86 = |name: &str| X86.find(name).is_some();
        assert!(SOCKET_CALLS.iter().chain(&IPC_CALLS).all(|(name, _)| of_x86(name)));
        assert!(!of_x86("") && !of_x86("rea") && !of_x86("reads"));
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
