//! Signals around clone.

use nix::sys::signal::{SigSet, SigmaskHow};

use super::check;

/// Blocks every signal and returns the mask to restore.
pub fn block() -> nix::Result<SigSet> {
    SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)
}

/// Sets the mask that [`block`] returned.
pub fn restore(mask: &SigSet) -> nix::Result<()> {
    mask.thread_set_mask()
}

/// Unblocks every signal.
pub fn unblock() -> nix::Result<()> {
    restore(&SigSet::empty())
}

/// Sets one signal, real-time ones included, to its default action: `rt_sigaction(2)`.
///
/// Raw, because libc refuses the signals that it keeps for itself, 32 and 33, and a caller may ignore them.
pub fn set_default(signal: i32) -> nix::Result<()> {
    // The kernel's struct: handler, flags, restorer, mask, a word each. All zero is SIG_DFL.
    let action = [0_u64; 4];
    // SAFETY: the kernel reads one such struct, which lives until the call returns; the default action runs no code of
    // ours; the size of a kernel's mask is 8 bytes.
    check(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), 0_usize, 8_usize) }).map(drop)
}

/// Waits for any signal; all are blocked in the parent. Returns its number.
pub fn wait_any() -> nix::Result<i32> {
    // SAFETY: an all-ones set is a valid `sigset_t`, filled by the next call.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours and lives until the call returns.
    unsafe { libc::sigfillset(&raw mut set) };
    // SAFETY: the kernel reads the set; no information beyond the number is asked for.
    check(libc::c_long::from(unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) }))
}

/// Sends a signal, real-time ones included: `kill(2)`. For a child that is not reaped yet, whose id is its own.
pub fn send(process: nix::unistd::Pid, signal: i32) -> nix::Result<()> {
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe { libc::kill(process.as_raw(), signal) })).map(drop)
}
