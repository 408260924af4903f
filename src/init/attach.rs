//! Copies of mounts: taken, changed while nobody sees them, attached.
//!
//! Where the kernel or a filter lacks `open_tree(2)` or `move_mount(2)`, a tree is only a reference to what is to be
//! bound, and all that is to be changed of it waits until `mount(2)` has bound it; without `mount_setattr(2)` the changes
//! wait too. The container's program sees the same.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{errno::Errno, fcntl::OFlag};

use super::Init;
use crate::{
    plan::{Slot, arena::Text},
    sys::{self, mount, path::REFERENCE, remount},
};

/// A change of attributes, `MOUNT_ATTR_*`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) set: u64,
    pub(super) clear: u64,
    pub(super) recursive: bool,
}

impl Change {
    /// Of a mount that is attached, or of a detached copy: ENOSYS without `mount_setattr(2)`.
    fn apply(self, tree: BorrowedFd<'_>) -> nix::Result<()> {
        mount::set_attributes(tree, self.set, self.clear, self.recursive)
    }

    /// Of a mount that is attached.
    fn apply_attached(self, mount: BorrowedFd<'_>) -> nix::Result<()> {
        match self.apply(mount) {
            Err(Errno::ENOSYS) => remount::set_attributes(mount, self.set, self.clear, self.recursive),
            done => done,
        }
    }
}

/// What the trees are, and what they wait for.
#[derive(Debug, Default)]
pub(super) struct Trees {
    /// Nothing but references, to be bound.
    are_references: bool,
    /// The words of one mount's options are at most two changes, and it is attached before the next.
    late: [Option<(Slot, Change)>; 2],
}

impl Init<'_> {
    /// Where the root is bound is where hooks look for it: on itself.
    pub(super) fn bind_root(&mut self, path: Text, into: Slot) -> nix::Result<()> {
        let path = self.plan.text(path);
        let tree = mount::open_tree(sys::path::here(), path, true)
            .and_then(|tree| mount::move_mount(tree.as_fd(), sys::path::here(), path).map(|()| tree));
        let root = match tree {
            Err(Errno::ENOSYS) => {
                self.trees.are_references = true;
                mount::bind_on_itself(path)?;
                sys::path::open_host(path, REFERENCE | OFlag::O_DIRECTORY)?
            }
            tree => tree?,
        };
        self.fill(into, root);
        Ok(())
    }

    pub(super) fn open_tree(&mut self, path: Text, recursive: bool, into: Slot) -> nix::Result<()> {
        let path = self.plan.text(path);
        self.take(|| mount::open_tree(sys::path::here(), path, recursive), path, REFERENCE, into)
    }

    pub(super) fn open_link(&mut self, path: Text, into: Slot) -> nix::Result<()> {
        let path = self.plan.text(path);
        self.take(|| mount::open_link(sys::path::here(), path), path, REFERENCE | OFlag::O_NOFOLLOW, into)
    }

    fn take(
        &mut self,
        copy: impl FnOnce() -> nix::Result<OwnedFd>,
        path: &CStr,
        reference: OFlag,
        into: Slot,
    ) -> nix::Result<()> {
        let copied = if self.trees.are_references { Err(Errno::ENOSYS) } else { copy() };
        let tree = match copied {
            Err(Errno::ENOSYS) => {
                self.trees.are_references = true;
                sys::path::open_host(path, reference)?
            }
            copied => copied?,
        };
        self.fill(into, tree);
        Ok(())
    }

    /// Changes a tree that is not attached yet, now or when it is.
    pub(super) fn change_detached(&mut self, tree: Slot, change: Change) -> nix::Result<()> {
        if !self.trees.are_references {
            match change.apply(self.slots.get(tree.index())?) {
                Err(Errno::ENOSYS) => {}
                done => return done,
            }
        }
        let place = self.trees.late.iter_mut().find(|late| late.is_none()).ok_or(Errno::ENOBUFS)?;
        *place = Some((tree, change));
        Ok(())
    }

    pub(super) fn change_attached(&self, mount: Slot, change: Change) -> nix::Result<()> {
        change.apply_attached(self.slots.get(mount.index())?)
    }

    /// Attaches a tree; the slot has the mount then.
    pub(super) fn move_mount(&mut self, tree: Slot, on: Slot, recursive: bool) -> nix::Result<()> {
        let (from, target) = (self.slots.get(tree.index())?, self.slots.get(on.index())?);
        if self.trees.are_references {
            let attached = remount::bind(from, target, recursive)?;
            self.fill(tree, attached);
        } else {
            mount::move_mount(from, target, c"")?;
        }
        for late in &mut self.trees.late {
            if let Some((_, change)) = late.take_if(|(slot, _)| *slot == tree) {
                change.apply_attached(self.slots.get(tree.index())?)?;
            }
        }
        Ok(())
    }

    /// Puts a copy of the mount behind `from`, with `change` of all below it too, on `on`.
    pub(super) fn cover(
        &self,
        from: BorrowedFd<'_>,
        on: BorrowedFd<'_>,
        change: Option<Change>,
    ) -> nix::Result<OwnedFd> {
        let recursive = change.is_some();
        if self.trees.are_references {
            let attached = remount::bind(from, on, recursive)?;
            change.map_or(Ok(()), |change| change.apply_attached(attached.as_fd()))?;
            return Ok(attached);
        }
        let tree = mount::open_tree(from, c"", recursive)?;
        // Before anything shows it, where that is possible.
        let changed = change.map_or(Ok(()), |change| change.apply(tree.as_fd()));
        if !matches!(changed, Ok(()) | Err(Errno::ENOSYS)) {
            changed?;
        }
        mount::move_mount(tree.as_fd(), on, c"")?;
        if let (Err(_), Some(change)) = (changed, change) {
            change.apply_attached(tree.as_fd())?;
        }
        Ok(tree)
    }

    /// Puts a tree of the host on `on`, all of it with what `set` says.
    pub(super) fn bind_with(&mut self, host: Text, set: u64, on: Slot) -> nix::Result<()> {
        self.open_tree(host, true, Slot::TREE)?;
        self.change_detached(Slot::TREE, Change { set, clear: 0, recursive: true })?;
        self.move_mount(Slot::TREE, on, true)
    }

    /// By descriptor: a mount may be a file, which nobody can enter.
    pub(super) fn propagate(&self, mount: Slot, flags: u64) -> nix::Result<()> {
        let mount = self.slots.get(mount.index())?;
        match mount::set_propagation_of(mount, flags) {
            Err(Errno::ENOSYS) => remount::set_propagation(mount, flags),
            done => done,
        }
    }
}
