//! Masked and read-only paths: what covers them.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::statfs::{TMPFS_MAGIC, fstatfs},
};

use super::{Init, attach::Change};
use crate::{
    plan::{Slot, arena::Text},
    sys::{
        self,
        path::{IN_ROOT, REFERENCE},
    },
};

/// The device numbers of `/dev/null`: Documentation/admin-guide/devices.txt.
const NULL_DEVICE: libc::dev_t = libc::makedev(1, 3);

/// Whether this is the tmpfs of a masked directory, which has room for nothing but itself: `statfs(2)`.
fn is_empty(directory: &OwnedFd) -> nix::Result<bool> {
    let found = fstatfs(directory)?;
    Ok(found.filesystem_type() == TMPFS_MAGIC && (found.blocks(), found.files()) == (1, 1))
}

impl Init<'_> {
    /// What covers a path, and the path, stay in the slots of every mount: the next sweep closes them together.
    pub(super) fn mask(&mut self, path: Text) -> nix::Result<()> {
        // Most are directories, of which the open alone tells; a file takes a second one instead of a question.
        let root = self.slots.get(Slot::ROOT.index())?;
        match sys::path::open(root, self.plan.text(path), REFERENCE | OFlag::O_DIRECTORY, IN_ROOT) {
            Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::ENOTDIR) => {}
            found => {
                self.fill(Slot::TARGET, found?);
                return self.mask_directory(path);
            }
        }
        if !self.find_cover(path)? {
            return Ok(());
        }
        if self.slots.get(Slot::NULL.index()).is_err() {
            let dev = self.slots.get(Slot::DEV.index())?;
            let null = sys::path::open(dev, c"null", REFERENCE | OFlag::O_NOFOLLOW, IN_ROOT)?;
            let stat = sys::path::stat(null.as_fd())?;
            // The container's /dev/null is only trusted when it is one (CVE-2025-31133).
            if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != NULL_DEVICE {
                return Err(Errno::ENODEV);
            }
            self.fill(Slot::NULL, null);
        }
        self.cover_with(Slot::NULL)
    }

    /// The first directory gets a tmpfs of its own; the others get copies of that mount, which are far cheaper.
    fn mask_directory(&mut self, path: Text) -> nix::Result<()> {
        if self.slots.get(Slot::EMPTY.index()).is_ok() {
            return self.cover_with(Slot::EMPTY);
        }
        let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let target = self.slots.get(Slot::TARGET.index())?;
        sys::mount::mount_on(target, c"tmpfs", c"tmpfs", flags, c"mode=555,nr_blocks=1,nr_inodes=1")?;
        let root = self.slots.get(Slot::ROOT.index())?;
        // The name may lead to another directory by now, on a volume that others share: then the next one gets its own.
        if let Ok(empty) = sys::path::open(root, self.plan.text(path), REFERENCE, IN_ROOT)
            && is_empty(&empty)?
        {
            self.fill(Slot::EMPTY, empty);
        }
        Ok(())
    }

    pub(super) fn read_only(&mut self, path: Text) -> nix::Result<()> {
        if !self.find_cover(path)? {
            return Ok(());
        }
        let target = self.slots.get(Slot::TARGET.index())?;
        let change = Change { set: libc::MOUNT_ATTR_RDONLY, clear: 0, recursive: true };
        let copy = self.cover(target, target, Some(change))?;
        self.fill(Slot::TREE, copy);
        Ok(())
    }

    /// Finds what is to be covered; a path that is not there needs no cover.
    fn find_cover(&mut self, path: Text) -> nix::Result<bool> {
        let root = self.slots.get(Slot::ROOT.index())?;
        match sys::path::open(root, self.plan.text(path), REFERENCE, IN_ROOT) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            found => {
                self.fill(Slot::TARGET, found?);
                Ok(true)
            }
        }
    }

    fn cover_with(&mut self, cover: Slot) -> nix::Result<()> {
        let (cover, target) = (self.slots.get(cover.index())?, self.slots.get(Slot::TARGET.index())?);
        let copy = self.cover(cover, target, None)?;
        self.fill(Slot::TREE, copy);
        Ok(())
    }
}
