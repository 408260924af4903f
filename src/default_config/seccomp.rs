//! The seccomp profile of a run without a bundle: everything but what widens the reach of a container into the kernel.
//!
//! A list of what is denied, because the capabilities and namespaces deny the rest, and programs of the host's own root
//! are to work as they do outside. Engines send profiles of their own.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg as Test, LinuxSeccompArgBuilder as TestBuilder,
    LinuxSeccompOperator as Operator, LinuxSyscall as Rule,
};

/// For root of the host only, and with a history of holes.
const PRIVILEGED: [&str; 57] = [
    // Keys are per user, not per namespace.
    "add_key",
    "keyctl",
    "request_key",
    // Programs for the kernel, and sights of it.
    "bpf",
    "perf_event_open",
    "fanotify_init",
    "kcmp",
    "lookup_dcookie",
    "syslog",
    // Makes races winnable by stopping the kernel in the middle of a copy.
    "userfaultfd",
    // Mounts: with the namespaces below, how most attacks on the kernel from a container begin (CVE-2022-0185).
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "open_tree_attr",
    "pivot_root",
    "setns",
    "umount",
    "umount2",
    // Files of the host by handle, past all mounts (CVE-2014-3519).
    "open_by_handle_at",
    // The machine itself.
    "acct",
    "create_module",
    "delete_module",
    "finit_module",
    "get_kernel_syms",
    "init_module",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "nfsservctl",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "swapoff",
    "swapon",
    "vhangup",
    "vm86",
    "vm86old",
    // The host's clock.
    "clock_settime",
    "clock_settime64",
    "settimeofday",
    "stime",
    // Memory of nodes and processes.
    "migrate_pages",
    "move_pages",
    "process_madvise",
    // Long obsolete.
    "_sysctl",
    "afs_syscall",
    "bdflush",
    "sysfs",
    "uselib",
    "vserver",
];

/// Said not to exist, so that programs take the other way at once.
const ABSENT: [&str; 4] = [
    // Its flags are in memory, where a filter cannot look: clone is the way for which it can.
    "clone3",
    // A second system call interface, past any filter, and the most frequent source of holes for years.
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
];

/// What it takes to make a container inside: denied all the same, unless that is asked for.
const NESTING: [&str; 14] = [
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "keyctl",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "open_tree_attr",
    "pivot_root",
    "setns",
    "umount",
    "umount2",
];

const CLONE_NEWUSER: u64 = 0x1000_0000;

/// The kernel takes these arguments as 32 bits, and ignores the others: a comparison of all would be easily evaded
/// (CVE-2019-10063).
const LOW: u64 = 0xffff_ffff;

/// The profile. Calls of x32, which is not in it, kill the program. `is_nested`: containers may be made inside.
pub(crate) fn profile(is_nested: bool) -> LinuxSeccomp {
    let socket = |value: u64| vec![test(0, LOW, value)];
    let denied: Vec<_> = PRIVILEGED.into_iter().filter(|name| !(is_nested && NESTING.contains(name))).collect();
    let mut rules = vec![
        rule(&denied, libc::EPERM, Vec::new()),
        rule(&ABSENT, libc::ENOSYS, Vec::new()),
        // A user namespace gives back every capability, and so the kernel's code behind them.
        rule(&["clone", "unshare"], libc::EPERM, vec![test(0, CLONE_NEWUSER, CLONE_NEWUSER)]),
        // Typing into the terminal of the caller (CVE-2017-5226, CVE-2023-1523).
        rule(&["ioctl"], libc::EPERM, vec![test(1, LOW, libc::TIOCSTI)]),
        rule(&["ioctl"], libc::EPERM, vec![test(1, LOW, libc::TIOCLINUX)]),
        // AF_ALG: writes to the page cache of files that are only readable (CVE-2026-31431).
        rule(&["socket"], libc::EAFNOSUPPORT, socket(u64::from(libc::AF_ALG.unsigned_abs()))),
        // The same, in memory where a filter cannot look: programs of 32 bits have `socket` since Linux 4.3.
        rule(&["socketcall"], libc::ENOSYS, socket(1)),
    ];
    if is_nested {
        rules.retain(|rule| !rule.names().iter().any(|name| name == "unshare"));
    }
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(Action::ScmpActAllow).set_default_errno_ret(None).set_flags(None);
    let listed = vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchAarch64, Arch::ScmpArchArm];
    profile.set_architectures(Some(listed)).set_syscalls(Some(rules));
    profile
}

/// The argument at `index`, as far as `mask` reaches, is `value`.
fn test(index: usize, mask: u64, value: u64) -> TestBuilder {
    TestBuilder::default().index(index).op(Operator::ScmpCmpMaskedEq).value(mask).value_two(value)
}

fn rule(names: &[&str], errno: i32, tests: Vec<TestBuilder>) -> Rule {
    let tests: Vec<Test> = tests.into_iter().filter_map(|test| test.build().ok()).collect();
    let mut rule = Rule::default();
    rule.set_names(names.iter().map(|name| (*name).to_owned()).collect()).set_action(Action::ScmpActErrno);
    rule.set_errno_ret(Some(errno.unsigned_abs())).set_args(Some(tests).filter(|tests| !tests.is_empty()));
    rule
}
