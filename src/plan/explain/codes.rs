//! The code and the remedy of a failed step.

use nix::errno::Errno;

use crate::{
    error::{Code, Error, Warning, plain},
    plan::{Op, Plan, Showing},
};

/// How to own one's files inside without an idmapped mount.
const ID_MAP_FIX: &str = "--userns=keep-id, which makes your files yours inside";

/// Why the kernel mounts no procfs.
pub(super) const MASKED: &str = "an outer container masks /proc, which may not be uncovered";

/// And what helps.
const MASKED_FIX: &str = "give the outer container --security-opt systempaths=unconfined (docker), unmask=ALL (podman) or \
    procMount: Unmasked (kubernetes), or set the annotation org.pura.proc=bind, or run --proc=bind";

/// What is weaker where a filesystem of the kernel's may not be mounted.
pub(super) fn bound(kind: &str, host: &str, why: &str) -> Warning {
    if kind == "proc" {
        let what = format!("/proc is the outer one, with its processes, because {MASKED}");
        return Warning::new(Code::ProcOuter, what)
            .fix("systempaths=unconfined (docker), unmask=ALL (podman) or procMount: Unmasked (kubernetes)");
    }
    let code = if kind == "sysfs" { Code::SysfsBound } else { Code::FilesystemType };
    Warning::new(code, format!("{host} is the host's, read-only, because {kind} may not be mounted: {why}"))
}

/// What a system call that is not there may be hidden by.
pub(super) const LACKS: &str = "the kernel or a seccomp filter lacks a system call for it (docs/kernel-features.md)";

/// And who can do something about it.
const LACKS_FIX: &str = "a newer kernel, or --security-opt seccomp=unconfined for the outer container";

#[expect(clippy::wildcard_enum_match_arm, reason = "most steps have nothing of their own to say")]
pub(super) fn code(plan: &Plan, op: Op, errno: Errno) -> Code {
    match op {
        _ if errno == Errno::ENOSYS => Code::Kernel,
        Op::MakeIdMap { .. } => Code::MapRefused,
        Op::Label { module, .. } => module.code(),
        Op::ShiftClocks(_) => Code::TimeOffsets,
        Op::Schedule | Op::IoPriority(_) => Code::Scheduling,
        Op::Personality(_) | Op::MemoryPolicy => Code::Placement,
        Op::SetNs { .. } => Code::Join,
        Op::Unshare(_) => Code::Namespace,
        Op::SetIds { .. } => Code::UserUnmapped,
        Op::SetGroups => Code::GroupsDropped,
        Op::BindRoot { .. } => Code::Rootfs,
        Op::FindTarget { .. } if matches!(errno, Errno::ELOOP | Errno::EXDEV) => Code::Mount,
        Op::FindTarget { .. } | Op::CopyLink { .. } => Code::MountPoint,
        Op::OpenTree { .. } | Op::OpenLink { .. } | Op::OpenPath { .. } if errno == Errno::EACCES => Code::PathBlocked,
        Op::OpenTree { .. } | Op::OpenLink { .. } | Op::OpenPath { .. } => Code::BindSource,
        Op::Mount { kind, .. } if errno == Errno::EPERM && plan.text(kind) == c"proc" => Code::ProcMasked,
        Op::Mount { .. } if errno == Errno::ENODEV || errno == Errno::EPERM => Code::FilesystemType,
        Op::Mount { .. } | Op::MountTmpfs { .. } | Op::MountOrBind { .. } | Op::Remount { .. }
            if errno == Errno::EINVAL =>
        {
            Code::MountOption
        }
        // Where attributes wait until a mount is attached, that is where they are refused.
        Op::SetAttributes { .. } | Op::Remount { .. } | Op::MoveMount { .. } if errno == Errno::EPERM => {
            Code::LockedFlag
        }
        Op::Device { .. } | Op::AttachNode { .. } | Op::Fifo { .. } => Code::Device,
        Op::MapIds { .. } => Code::IdMap,
        Op::OpenProc(_) => Code::Proc,
        Op::OpenConsole { .. } | Op::BindConsole(_) | Op::TakeConsole(_) => Code::NoTerminal,
        Op::MountOverlay { .. } => Code::Overlay,
        Op::PivotRoot(_) | Op::MoveRoot(_) => Code::PivotRoot,
        Op::Mask(_) | Op::ReadOnly(_) => Code::Mask,
        Op::WriteProc { .. } | Op::Rlimit { .. } => Code::Rlimit,
        Op::Bounding(_) | Op::Capabilities { .. } | Op::Ambient(_) => Code::Capabilities,
        Op::Seccomp { .. } if errno == Errno::EACCES => Code::SeccompPrivilege,
        Op::Seccomp { .. } => Code::Seccomp,
        Op::TellAgent => Code::SeccompAgent,
        Op::MakeCwd(_) | Op::EnterCwd(_) => Code::Cwd,
        _ => {
            if matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN) {
                Code::Exhausted
            } else {
                Code::Mount
            }
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "most steps have nothing of their own to say")]
pub(super) fn fix(plan: &Plan, op: Op, errno: Errno) -> Option<&'static str> {
    match op {
        _ if errno == Errno::ENOSYS => Some(LACKS_FIX),
        Op::Mount { kind, .. } if errno == Errno::EPERM && plan.text(kind) == c"proc" => Some(MASKED_FIX),
        Op::CopyUp { .. } if errno == Errno::ENOSPC => Some("a larger size= for the tmpfs"),
        Op::MapIds { .. } if errno == Errno::EPERM => Some(ID_MAP_FIX),
        Op::SetAttributes { .. } | Op::Remount { .. } | Op::MoveMount { .. } if errno == Errno::EPERM => {
            Some("drop suid, dev, exec or rw from the mount's options")
        }
        Op::Mount { .. } if matches!(errno, Errno::EPERM | Errno::ENODEV) => Some(BIND_FIX),
        Op::OpenTree { .. } | Op::OpenLink { .. } if errno == Errno::ENOENT => Some("make it, or drop the mount"),
        Op::FindTarget { .. } if matches!(errno, Errno::EROFS | Errno::EACCES) => Some("create it in the image"),
        Op::FindTarget { .. } | Op::MoveMount { .. }
            if matches!(errno, Errno::ENOTDIR | Errno::EISDIR | Errno::EINVAL) =>
        {
            Some("bind a file on a file, a directory on a directory")
        }
        _ => None,
    }
}

/// What helps where a filesystem cannot be mounted.
const BIND_FIX: &str = "bind it from the host instead";

/// Why the kernel refuses what it keeps with a process, or a remount.
pub(super) fn attribute(op: Op, errno: Errno) -> Option<String> {
    let why = match (op, errno) {
        (Op::Label { module, .. }, Errno::ENOENT | Errno::EINVAL) => format!("{} does not know it", module.name()),
        (Op::ShiftClocks(_), Errno::ERANGE) => "a clock would stand before 0, or too far away".to_owned(),
        (Op::MemoryPolicy, Errno::EINVAL) => {
            "none of the nodes has memory, or this kernel lacks the mode or a flag".to_owned()
        }
        (Op::Seccomp { .. }, Errno::EBUSY) => {
            "pura itself runs under a filter with an agent, and the kernel allows one agent".to_owned()
        }
        (Op::Remount { .. }, Errno::EINVAL) => "nothing is mounted there".to_owned(),
        (Op::Schedule, Errno::EPERM) => "only real root may: operation not permitted".to_owned(),
        _ => return None,
    };
    Some(why)
}

/// Why the kernel does not map the ids of a filesystem.
#[expect(clippy::wildcard_enum_match_arm, reason = "an errno is a number, not a variant")]
pub(super) fn id_map(kind: &str, errno: Errno) -> String {
    match errno {
        Errno::EPERM => format!("a filesystem {kind} that the host mounted cannot be idmapped without root"),
        Errno::EINVAL => format!("a filesystem {kind} cannot be idmapped by this kernel, or is so already"),
        errno => plain(errno),
    }
}

/// A procfs that cannot be mounted, because of an outer container.
pub fn masked_proc(what: &'static str) -> Error {
    Error::new(Code::ProcMasked, what, MASKED).fix(MASKED_FIX)
}

/// A filesystem whose ids cannot be mapped.
pub fn explain_id_map(what: &str, kind: &str, errno: Errno) -> Error {
    let error = Error::new(Code::IdMap, what.to_owned(), id_map(kind, errno));
    if errno == Errno::EPERM { error.fix(ID_MAP_FIX) } else { error }
}

/// A filesystem that cannot be mounted for a joined namespace.
#[expect(clippy::wildcard_enum_match_arm, reason = "an errno is a number, not a variant")]
pub fn explain_showing(shown: &Showing, errno: Errno) -> Error {
    let kind = shown.kind;
    let (code, why, fix) = match errno {
        Errno::ENOSYS => (Code::Kernel, LACKS.to_owned(), Some(LACKS_FIX)),
        Errno::EPERM if kind == "proc" => (Code::ProcMasked, MASKED.to_owned(), Some(MASKED_FIX)),
        Errno::EPERM | Errno::ENODEV => (Code::FilesystemType, plain(errno), Some(BIND_FIX)),
        Errno::EINVAL if !shown.options.is_empty() => {
            (Code::MountOption, format!("the kernel refuses one of the options {:?}", shown.options.join(",")), None)
        }
        Errno::ENOMEM if kind == "proc" => {
            (Code::Join, "nobody enters its PID namespace any more, for process 1 in there is dead".to_owned(), None)
        }
        errno => (Code::Mount, plain(errno), None),
    };
    let error = Error::new(code, format!("mount {kind} on {:?}", shown.destination), why).at(shown.place.clone());
    if let Some(fix) = fix { error.fix(fix) } else { error }
}

/// A kernel parameter that cannot be set.
#[expect(clippy::wildcard_enum_match_arm, reason = "an errno is a number, not a variant")]
pub fn explain_sysctl(key: &str, value: &str, errno: Errno) -> Error {
    let (code, why) = match errno {
        Errno::ENOENT => (Code::Sysctl, "this kernel has no such parameter for a namespace".to_owned()),
        Errno::EACCES | Errno::EPERM | Errno::EROFS => {
            (Code::Sysctl, "only root of the host may set it: operation not permitted".to_owned())
        }
        Errno::ENOSYS => (Code::Kernel, LACKS.to_owned()),
        Errno::EXDEV => (Code::Sysctl, "the outer container covers /proc/sys".to_owned()),
        errno => (Code::SysctlValue, format!("the kernel refuses the value: {}", plain(errno))),
    };
    Error::new(code, format!("set {key} to {value:?}"), why)
}
