//! Steps that have a second way, because a kernel or an outer container closes the first.

use std::os::fd::AsFd as _;

use nix::errno::Errno;

use super::{Init, path};
use crate::{
    plan::{Slot, Target, arena::Text},
    sys,
};

/// What is mounted, and what is bound when it may not be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) kind: Text,
    pub(super) source: Text,
    pub(super) flags: u64,
    pub(super) host: Text,
    pub(super) set: u64,
    pub(super) path: Text,
    pub(super) on: Slot,
}

impl Init<'_> {
    /// Mounts a filesystem of the kernel's; where that is closed, the host's is bound.
    pub(super) fn mount_or_bind(&mut self, step: u32, choice: Choice) -> nix::Result<()> {
        let [kind, source] = [choice.kind, choice.source].map(|text| self.plan.text(text));
        let target = self.slots.get(choice.on.index())?;
        match sys::mount::mount_on(target, kind, source, choice.flags, c"") {
            // The kernel mounts no filesystem on itself: over a tmpfs it does.
            Err(Errno::EBUSY) => {
                sys::mount::mount_on(target, c"tmpfs", c"tmpfs", choice.flags & !libc::MS_RDONLY, c"mode=755")?;
                let root = self.slots.get(Slot::ROOT.index())?;
                let again = path::find(root, self.plan.text(choice.path), Target::Directory)?;
                sys::mount::mount_on(again.as_fd(), kind, source, choice.flags, c"")
            }
            Err(Errno::EPERM) => {
                self.bind_with(choice.host, choice.set, choice.on)?;
                self.warn(step, Errno::EPERM)
            }
            done => done,
        }
    }

    /// Makes new namespaces; a cgroup namespace, of which none is left, hides but a path.
    pub(super) fn unshare(&self, step: u32, kinds: i32) -> nix::Result<()> {
        match sys::process::unshare(kinds) {
            Err(errno @ (Errno::ENOSPC | Errno::EINVAL)) if kinds & libc::CLONE_NEWCGROUP != 0 => {
                sys::process::unshare(kinds & !libc::CLONE_NEWCGROUP)?;
                self.warn(step, errno)
            }
            done => done,
        }
    }

    /// Writes a kernel parameter. Security modules that judge by path may forbid it below a procfs that is mounted nowhere.
    pub(super) fn set_parameter(&self, proc: Slot, file: Text, value: Text) -> nix::Result<()> {
        let (file, value) = (self.plan.text(file), self.plan.text(value).to_bytes());
        match sys::procfs::write(self.slots.get(proc.index())?, file, value) {
            Err(Errno::EACCES) => {
                let outer = sys::procfs::outer().map_err(|_none| Errno::EACCES)?;
                sys::procfs::write(outer.as_fd(), file, value)
            }
            done => done,
        }
    }

    /// Opens a procfs of its own for what is written below `/proc/sys`; where that is closed, the outer one.
    pub(super) fn open_proc(&mut self, into: Slot) -> nix::Result<()> {
        let proc = match sys::procfs::fresh() {
            Err(Errno::EPERM | Errno::ENOSYS) => sys::procfs::outer()?,
            fresh => fresh?,
        };
        self.fill(into, proc);
        Ok(())
    }
}
