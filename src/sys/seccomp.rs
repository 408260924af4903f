//! `seccomp(2)`.

use nix::errno::Errno;

use super::check;
use crate::seccomp::Instruction;

/// Attaches a filter for good: `seccomp(2)`, or `prctl(2)` on ENOSYS when no flag is asked for.
///
/// EACCES: neither `no_new_privs` nor `CAP_SYS_ADMIN`. EINVAL: not a valid program, or an unknown flag.
pub fn attach(flags: u32, program: &[Instruction]) -> nix::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_overflow| Errno::EINVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel reads `len` instructions of eight bytes, the layout of `Instruction`, and writes none; the slice
    // that they are in is borrowed until this function returns.
    let attached =
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) });
    if attached != Err(Errno::ENOSYS) || flags != 0 {
        return attached.map(drop);
    }
    // SAFETY: as above; the program is the second argument of this option.
    let by_prctl =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, u64::from(libc::SECCOMP_MODE_FILTER), &raw const program) };
    check(libc::c_long::from(by_prctl)).map(drop)
}
