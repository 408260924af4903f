//! The boundary to the kernel, and the only module with `unsafe`.
//!
//! One kernel operation per function: safe, typed, `&CStr` and borrowed descriptors in, errno out. It decides nothing.
#![allow(unsafe_code, reason = "this module is the boundary to the kernel")]

mod absent;
pub mod alloc;
pub mod bpf;
pub mod caps;
pub mod child;
pub mod copy;
#[cfg(test)]
pub(crate) mod coverage;
pub mod entry;
pub mod exec;
pub mod fd;
pub mod message;
pub mod mount;
mod mountinfo;
pub mod namespace;
pub mod net;
pub mod netlink;
pub mod path;
pub mod pidfd;
pub mod process;
pub mod procfs;
pub mod pty;
pub mod remount;
pub mod schedule;
pub mod seccomp;
pub mod signal;
pub mod spawn;
mod walk;

use nix::errno::Errno;

pub use absent::{lacking, names};

/// The value of a raw system call, or its errno.
fn check(value: libc::c_long) -> nix::Result<i32> {
    let value = Errno::result(value)?;
    i32::try_from(value).map_err(|_overflow| Errno::EOVERFLOW)
}

/// Repeats `call` for as long as a signal interrupts it: the one place that knows EINTR.
pub fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}
