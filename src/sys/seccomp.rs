//! `seccomp(2)`.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::{check, fd::adopt};
use crate::seccomp::{Instruction, NEW_LISTENER};

/// Attaches a filter for good: `seccomp(2)`, or `prctl(2)` on ENOSYS when no flag is asked for.
///
/// With `SECCOMP_FILTER_FLAG_NEW_LISTENER` (Linux 5.0), the descriptor on which notifications arrive; exec closes it.
/// EACCES: neither `no_new_privs` nor `CAP_SYS_ADMIN`. EINVAL: not a valid program, or an unknown flag. EBUSY: a listener is
/// asked for, and a filter that is attached already has one.
pub fn attach(flags: u32, program: &[Instruction]) -> nix::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_overflow| Errno::EINVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel reads `len` instructions of eight bytes, the layout of `Instruction`, and writes none; the slice
    // that they are in is borrowed until this function returns.
    let attached =
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) });
    if attached != Err(Errno::ENOSYS) || flags != 0 {
        return attached.map(|raw| (flags & NEW_LISTENER != 0).then(|| adopt(raw)));
    }
    // SAFETY: as above; the program is the second argument of this option.
    let by_prctl =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, u64::from(libc::SECCOMP_MODE_FILTER), &raw const program) };
    check(libc::c_long::from(by_prctl)).map(|_zero| None)
}
