//! Calls that are not there: the kernel is older, or a seccomp filter hides them.

use nix::errno::Errno;

use super::check;

/// Calls that pura can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Newer {
    Clone3,
    OpenAt2,
    OpenTree,
    MoveMount,
    MountSetattr,
    PidfdOpen,
    PidfdSendSignal,
}

const ALL: [(Newer, &str); 7] = [
    (Newer::Clone3, "clone3"),
    (Newer::OpenAt2, "openat2"),
    (Newer::OpenTree, "open_tree"),
    (Newer::MoveMount, "move_mount"),
    (Newer::MountSetattr, "mount_setattr"),
    (Newer::PidfdOpen, "pidfd_open"),
    (Newer::PidfdSendSignal, "pidfd_send_signal"),
];

/// Those that are not there, a bit each, for [`names`]. Only who may mount can tell `move_mount(2)`.
pub fn lacking() -> u8 {
    let bits = ALL.into_iter().enumerate().filter(|(_, (call, _))| told(*call, Errno::EPERM) == Errno::ENOSYS);
    bits.fold(0, |all, (bit, _)| all | 1 << bit)
}

/// The calls of some bits.
pub fn names(bits: u8) -> Vec<&'static str> {
    ALL.into_iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, (_, name))| name).collect()
}

/// Flags of which most mean nothing.
const NONSENSE: usize = 0xffff_ffff;

/// ENOSYS, whatever the kernel or a filter has said of a call that is not there; any other errno as it is.
///
/// Profiles of old engines answer EPERM, which may as well be the kernel's own refusal. Arguments that the kernel answers
/// with EINVAL, before it looks at anything, tell the two apart.
pub(super) fn told(call: Newer, errno: Errno) -> Errno {
    if errno != Errno::EPERM {
        return errno;
    }
    let (number, arguments) = match call {
        // Structures of no bytes.
        Newer::Clone3 => (libc::SYS_clone3, [0; 5]),
        Newer::OpenAt2 => (libc::SYS_openat2, [0; 5]),
        // Nothing but flags.
        Newer::OpenTree => (libc::SYS_open_tree, [0, 0, NONSENSE, 0, 0]),
        Newer::MoveMount => (libc::SYS_move_mount, [0, 0, 0, 0, NONSENSE]),
        Newer::MountSetattr => (libc::SYS_mount_setattr, [0, 0, NONSENSE, 0, 0]),
        Newer::PidfdOpen => (libc::SYS_pidfd_open, [0, NONSENSE, 0, 0, 0]),
        Newer::PidfdSendSignal => (libc::SYS_pidfd_send_signal, [0, 0, 0, NONSENSE, 0]),
    };
    let [first, second, third, fourth, fifth] = arguments;
    // SAFETY: every pointer is null, and the kernel refuses the call for its size or its flags before it follows one.
    let answer = check(unsafe { libc::syscall(number, first, second, third, fourth, fifth) });
    if answer == Err(Errno::EINVAL) { errno } else { Errno::ENOSYS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_itself_stays_a_refusal() {
        for call in [
            Newer::Clone3,
            Newer::OpenAt2,
            Newer::OpenTree,
            Newer::MountSetattr,
            Newer::PidfdOpen,
            Newer::PidfdSendSignal,
        ] {
            assert_eq!(told(call, Errno::EPERM), Errno::EPERM, "{call:?}");
            assert_eq!(told(call, Errno::EACCES), Errno::EACCES, "{call:?}");
        }
        assert_eq!(told(Newer::MoveMount, Errno::ENOSYS), Errno::ENOSYS);
    }
}
