//! The terminal of the container: opened in its own devpts, and put on its `/dev/console`.

use std::os::fd::AsFd as _;

use nix::{errno::Errno, fcntl::OFlag};

use super::Init;
use crate::{
    plan::Slot,
    sys::{
        self,
        path::{IN_ROOT, REFERENCE},
    },
};

impl Init<'_> {
    /// Below the root by now, so that the terminal is one of the container's own devpts.
    pub(super) fn open_console(&mut self, master: Slot, slave: Slot, size: (u16, u16), owner: u32) -> nix::Result<()> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let opened = sys::path::open(self.slots.get(Slot::ROOT.index())?, c"/dev/pts/ptmx", flags, IN_ROOT)?;
        let peer = sys::pty::peer(opened.as_fd())?;
        if size != (0, 0) {
            sys::pty::set_size(peer.as_fd(), size)?;
        }
        sys::pty::give(peer.as_fd(), owner)?;
        self.fill(master, opened);
        self.fill(slave, peer);
        Ok(())
    }

    /// On the name itself: an image's /dev/console may be a link (CVE-2026-88264).
    pub(super) fn bind_console(&mut self, slave: Slot) -> nix::Result<()> {
        let dev = self.slots.get(Slot::DEV.index())?;
        match sys::path::create_file(dev, c"console") {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        let target = sys::path::open(dev, c"console", REFERENCE | OFlag::O_NOFOLLOW, IN_ROOT)?;
        if sys::path::stat(target.as_fd())?.st_mode & libc::S_IFMT == libc::S_IFLNK {
            return Err(Errno::ELOOP);
        }
        self.cover(self.slots.get(slave.index())?, target.as_fd(), None).map(drop)
    }
}
