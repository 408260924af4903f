//! Descriptors: the slots of init, and closing many at once.

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;

use super::check;

/// The last descriptor that the fallback for `close_range(2)` (Linux 5.9) closes.
const LAST_CLOSED_SINGLY: u32 = 4095;

/// Locks what a descriptor is open on against all others who do so, with `flock(2)`, until [`unlock`], or until the
/// descriptor is closed. EWOULDBLOCK: another has it.
pub fn lock(descriptor: BorrowedFd<'_>) -> nix::Result<()> {
    flock(descriptor, libc::LOCK_EX | libc::LOCK_NB)
}

/// Gives a lock up before its descriptor is closed.
pub fn unlock(descriptor: BorrowedFd<'_>) -> nix::Result<()> {
    flock(descriptor, libc::LOCK_UN)
}

fn flock(descriptor: BorrowedFd<'_>, operation: i32) -> nix::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed; the rest are plain numbers.
    super::retry(|| check(libc::c_long::from(unsafe { libc::flock(descriptor.as_raw_fd(), operation) }))).map(drop)
}

/// Descriptors that are known late, by number: what a plan calls a slot.
///
/// Filling a slot again does not close what was in it: [`Slots::sweep`] closes all such remains in two system calls.
#[derive(Debug)]
pub struct Slots {
    descriptors: Vec<RawFd>,
    /// The caller's, for the program: never closed.
    preserved: Vec<RawFd>,
}

impl Slots {
    /// `count` empty slots; the only allocation.
    pub fn new(count: usize, preserved: &[RawFd]) -> Self {
        Self { descriptors: vec![-1; count], preserved: preserved.to_vec() }
    }

    /// Fills a slot. A slot that does not exist keeps nothing, and [`Slots::get`] will say so.
    pub fn put(&mut self, slot: usize, descriptor: OwnedFd) {
        if let Some(place) = self.descriptors.get_mut(slot) {
            *place = descriptor.into_raw_fd();
        }
    }

    /// The descriptor in a slot; EBADF when it is empty.
    pub fn get(&self, slot: usize) -> nix::Result<BorrowedFd<'_>> {
        match self.descriptors.get(slot) {
            // SAFETY: `put` took ownership of this descriptor, and only `sweep` and `take`, which need `&mut self` and
            // empty the slot, let it be closed.
            Some(&raw) if raw >= 0 => Ok(unsafe { BorrowedFd::borrow_raw(raw) }),
            _ => Err(Errno::EBADF),
        }
    }

    /// Takes the descriptor out of a slot; EBADF when it is empty.
    pub fn take(&mut self, slot: usize) -> nix::Result<OwnedFd> {
        match self.descriptors.get_mut(slot) {
            Some(raw) if *raw >= 0 => {
                // SAFETY: the slot owned this descriptor, and gives it up on the next line.
                let owned = unsafe { OwnedFd::from_raw_fd(*raw) };
                *raw = -1;
                Ok(owned)
            }
            _ => Err(Errno::EBADF),
        }
    }

    /// Closes what the slots hold: the parent's copy, after clone.
    pub fn close(self) {
        for raw in self.descriptors.into_iter().filter(|raw| *raw >= 0) {
            // SAFETY: the slots owned this descriptor, and they are gone with this call.
            drop(unsafe { OwnedFd::from_raw_fd(raw) });
        }
    }

    /// Closes every descriptor from 3 on that is neither preserved nor in one of the slots `kept`; the other slots become
    /// empty.
    pub fn sweep(&mut self, kept: impl Fn(usize) -> bool) -> nix::Result<()> {
        for (slot, raw) in self.descriptors.iter_mut().enumerate() {
            if !kept(slot) {
                *raw = -1;
            }
        }
        let mut from = 3;
        loop {
            let all = self.descriptors.iter().chain(&self.preserved).filter_map(|raw| u32::try_from(*raw).ok());
            // The next kept descriptor at or above `from`, until there is none.
            let Some(next) = all.filter(|raw| *raw >= from).min() else { return close_range(from, u32::MAX) };
            if next > from {
                close_range(from, next - 1)?;
            }
            from = next + 1;
        }
    }
}

/// At start-up: closes all that the caller has leaked to us, except what of 3 to 2 + `count` is open; returns that.
///
/// Before anything is opened: what is ours afterwards is never mistaken for the caller's.
pub fn close_inherited(count: u32) -> nix::Result<Vec<RawFd>> {
    let first = 3_u32.saturating_add(count);
    // SAFETY: F_GETFD takes no argument and changes nothing.
    let is_open = |raw: &RawFd| unsafe { libc::fcntl(*raw, libc::F_GETFD) } >= 0;
    let preserved = (3..first).map(u32::cast_signed).filter(is_open).collect();
    close_range(first, u32::MAX)?;
    Ok(preserved)
}

/// Closes every descriptor of `first..=last`: `close_range(2)`; one by one before Linux 5.9.
pub fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: callers own what they close: at start-up nobody else holds a descriptor, and `sweep` spares the slots.
    let closed = check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) });
    if closed == Err(Errno::ENOSYS) || closed == Err(Errno::EPERM) {
        for raw in first..=last.min(LAST_CLOSED_SINGLY) {
            // SAFETY: as above; a number that is not open is EBADF, which is what we want.
            unsafe { libc::close(raw.cast_signed()) };
        }
        return Ok(());
    }
    closed.map(drop)
}

/// Gives the pipes among 0, 1 and 2 to a user of this user namespace, who may then open `/dev/stdout` again. Only pipes: a
/// device is everybody's (it may be the host's `/dev/null`), and a file keeps its owner for longer than the program lives.
///
/// Best effort: EPERM where the owner is not mapped here, EROFS, EINVAL.
pub fn give_pipes(uid: u32) {
    for raw in 0..=2 {
        // SAFETY: 0, 1 and 2 are open since start-up, and nothing closes them.
        let standard = unsafe { BorrowedFd::borrow_raw(raw) };
        let is_pipe = |file: &libc::stat| file.st_mode & libc::S_IFMT == libc::S_IFIFO && file.st_uid != uid;
        if nix::sys::stat::fstat(standard).is_ok_and(|file| is_pipe(&file)) {
            let _ = nix::unistd::fchown(standard, Some(nix::unistd::Uid::from_raw(uid)), None);
        }
    }
}

/// A file in memory that holds `text`, but `late` in place of what is there at `at`; to be read from its start.
///
/// As standard input it needs no writer and no reader: nothing blocks, and nobody gets SIGPIPE. `memfd_create(2)`
pub fn memory_file(text: &[u8], at: usize, late: &[u8]) -> nix::Result<OwnedFd> {
    let file = match memory(libc::MFD_CLOEXEC | libc::MFD_NOEXEC_SEAL) {
        // Linux 6.3 knows the second flag, and may be set to insist on it.
        Err(Errno::EINVAL) => memory(libc::MFD_CLOEXEC),
        made => made,
    }?;
    for (mut place, mut rest) in [(0, text), (at, late)] {
        while !rest.is_empty() {
            let offset = i64::try_from(place).map_err(|_overflow| Errno::EOVERFLOW)?;
            let count = super::retry(|| nix::sys::uio::pwrite(&file, rest, offset))?;
            place += count;
            rest = rest.get(count..).unwrap_or_default();
        }
    }
    Ok(file)
}

fn memory(flags: libc::c_uint) -> nix::Result<OwnedFd> {
    // SAFETY: the name is a C string.
    check(unsafe { libc::syscall(libc::SYS_memfd_create, c"pura".as_ptr(), flags) }).map(adopt)
}

/// Takes over a descriptor that a system call of another crate has just returned as a number.
pub fn adopt(raw: RawFd) -> OwnedFd {
    // SAFETY: called only with the result of a call that made this descriptor for its caller alone.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
