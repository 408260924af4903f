//! Kinds of steps that the laws speak of.

use crate::{
    plan::{Meeting, Op, Slot, Target},
    sys::process::Attribute,
};

pub(super) fn maps(op: &Op) -> bool {
    matches!(op, Op::Meet(Meeting::MapIds) | Op::SetNs { kind: libc::CLONE_NEWUSER, .. })
}

pub(super) fn writes(op: &Op) -> bool {
    matches!(op, Op::WriteProc { .. })
}

pub(super) fn hides(op: &Op) -> bool {
    matches!(op, Op::Prctl { attribute: Attribute::Dumpable, .. } | Op::SetIds { .. })
}

pub(super) fn arms(op: &Op) -> bool {
    matches!(op, Op::Prctl { attribute: Attribute::DeathSignal, value: 1.. })
}

pub(super) fn disarms(op: &Op) -> bool {
    matches!(op, Op::Prctl { attribute: Attribute::DeathSignal, value: 0 })
}

pub(super) fn created(op: &Op) -> bool {
    matches!(op, Op::Meet(Meeting::Created))
}

pub(super) fn passes_mounts(op: &Op) -> bool {
    matches!(op, Op::PassMounts)
}

/// Makes or joins namespaces, but the mount namespace that is joined in the end.
pub(super) fn enters_namespaces(op: &Op) -> bool {
    matches!(op, Op::Unshare(_) | Op::SetNs { .. } | Op::Rebirth) && !joins_mounts(op)
}

pub(super) fn isolates(op: &Op) -> bool {
    matches!(op, Op::Propagate { .. })
}

/// Takes or attaches a mount.
pub(super) fn mounts(op: &Op) -> bool {
    let attaches = matches!(op, Op::BindRoot { .. } | Op::Mount { .. } | Op::MountTmpfs { .. } | Op::MoveMount { .. });
    attaches || matches!(op, Op::OpenTree { .. } | Op::Device { .. } | Op::Remount { .. })
}

/// Makes names below the root.
pub(super) fn makes(op: &Op) -> bool {
    let finds = matches!(op, Op::FindTarget { target: Target::Directory | Target::File | Target::RealDirectory, .. });
    finds
        || matches!(
            op,
            Op::Device { .. } | Op::Link { .. } | Op::MakeDirectory(_) | Op::MakeCwd(_) | Op::BindConsole(_)
        )
}

pub(super) fn pivots(op: &Op) -> bool {
    matches!(op, Op::PivotRoot(_) | Op::MoveRoot(_))
}

pub(super) fn joins_mounts(op: &Op) -> bool {
    matches!(op, Op::SetNs { kind: libc::CLONE_NEWNS, .. })
}

pub(super) fn covers(op: &Op) -> bool {
    matches!(op, Op::Mask(_) | Op::ReadOnly(_))
}

pub(super) fn read_only_root(op: &Op) -> bool {
    matches!(op, Op::SetAttributes { mount: Slot::ROOT, .. })
}

pub(super) fn drops(op: &Op) -> bool {
    matches!(op, Op::Bounding(_))
}

pub(super) fn sets(op: &Op) -> bool {
    matches!(op, Op::Capabilities { .. })
}

/// Is refused without a capability.
pub(super) fn needs_capability(op: &Op) -> bool {
    let names =
        matches!(op, Op::Hostname { .. } | Op::Domainname(_) | Op::LoopbackUp | Op::Unshare(_) | Op::SetNs { .. });
    names || mounts(op) || pivots(op) || covers(op) || read_only_root(op) || drops(op) || isolates(op)
}

pub(super) fn changes_user(op: &Op) -> bool {
    matches!(op, Op::SetGroups | Op::SetIds { .. })
}

pub(super) fn enters(op: &Op) -> bool {
    matches!(op, Op::EnterCwd(_))
}

pub(super) fn finds_program(op: &Op) -> bool {
    matches!(op, Op::FindProgram)
}

pub(super) fn needs_capability_but_bounding(op: &Op) -> bool {
    needs_capability(op) && !drops(op)
}
