//! Nodes and links that config.json asks for, at any path below the root.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    unistd::{Gid, Uid, fchownat, symlinkat},
};

use super::{Init, path};
use crate::{
    host::UMASK,
    plan::{Slot, Target, arena::Text},
    sys::{
        path::{IN_ROOT, REFERENCE, create_node, open, read_link, stat},
        process::set_umask,
    },
};

impl Init<'_> {
    /// Attaches a device once it is known to be the one: by then nobody can exchange it.
    pub(super) fn attach_node(&mut self, tree: Slot, path: Text, kind: u32, device: u64) -> nix::Result<()> {
        let is_it = |found: BorrowedFd<'_>| {
            stat(found).map(|found| found.st_mode & libc::S_IFMT == kind && found.st_rdev == device)
        };
        if !is_it(self.slots.get(tree.index())?)? {
            return Err(Errno::ENODEV);
        }
        let place = path::find(self.slots.get(Slot::ROOT.index())?, self.plan.text(path), Target::File)?;
        let found = stat(place.as_fd())?;
        // An empty file is what we, or another runtime before us, made to bind the node on.
        let is_empty = found.st_mode & libc::S_IFMT == libc::S_IFREG && found.st_size == 0;
        if !is_empty && !is_it(place.as_fd())? {
            return Err(Errno::EEXIST);
        }
        self.fill(Slot::TARGET, place);
        self.move_mount(tree, Slot::TARGET, false)
    }

    /// Makes a named pipe; one that is there is good as it is.
    pub(super) fn fifo(&self, directory: Text, name: Text, mode: u32, owner: (u32, u32)) -> nix::Result<()> {
        let above = self.directory(directory)?;
        let name = self.plan.text(name);
        // With its mode from the beginning, and its owner by descriptor: a container on the same volume may put a link in
        // its place at any moment, and chmod(2) would follow that to a file of the host.
        let _ = set_umask(0);
        let created = create_node(above.as_fd(), name, libc::S_IFIFO | mode, 0);
        let _ = set_umask(UMASK);
        if created.is_err() && created != Err(Errno::EEXIST) {
            return created;
        }
        let found = open(above.as_fd(), name, REFERENCE | OFlag::O_NOFOLLOW, IN_ROOT)?;
        if stat(found.as_fd())?.st_mode & libc::S_IFMT != libc::S_IFIFO {
            return Err(Errno::EEXIST);
        }
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        if created.is_ok() { fchownat(&found, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH) } else { Ok(()) }
    }

    /// Makes a link that says the same as one of the host; one that is there has to say it already.
    pub(super) fn copy_link(&self, says: Text, directory: Text, name: Text) -> nix::Result<()> {
        let above = self.directory(directory)?;
        let (says, name) = (self.plan.text(says), self.plan.text(name));
        match symlinkat(says, &above, name) {
            Err(Errno::EEXIST) => {
                let found = open(above.as_fd(), name, REFERENCE | OFlag::O_NOFOLLOW, IN_ROOT)?;
                let mut said = [0_u8; 4096];
                // EINVAL: no link.
                let length = read_link(found.as_fd(), &mut said).map_err(|_other| Errno::EEXIST)?;
                if said.get(..length) == Some(says.to_bytes()) { Ok(()) } else { Err(Errno::EEXIST) }
            }
            made => made,
        }
    }

    fn directory(&self, path: Text) -> nix::Result<OwnedFd> {
        path::find(self.slots.get(Slot::ROOT.index())?, self.plan.text(path), Target::Directory)
    }
}
