//! What is mounted below a mount: `/proc/self/mountinfo`, read line by line into fixed room. `proc_pid_mountinfo(5)`

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, OwnedFd},
};

use nix::{errno::Errno, fcntl::OFlag};

use super::{procfs, retry};

/// Mounts below one mount that there is room for.
const MOST: usize = 512;

/// The longest line that there is room for; a usual one has a hundred bytes.
const LINE: usize = 16 * 1024;

/// The ids of all that is mounted below a mount, at any depth.
pub(super) struct Mounts {
    ids: [u64; MOST],
    count: usize,
}

impl Mounts {
    /// All below the mount with this id. E2BIG: more than 512, or a line is too long.
    pub(super) fn below(id: u64) -> nix::Result<Self> {
        let mut mounts = Self { ids: [0; MOST], count: 0 };
        // Mostly a parent comes first, and the second time finds nothing new.
        loop {
            let before = mounts.count;
            Lines::open()?.each(|line| {
                let is_below = line.parent == id || mounts.has(line.parent);
                if is_below && line.id != id && !mounts.has(line.id) { mounts.add(line.id) } else { Ok(()) }
            })?;
            if mounts.count == before {
                return Ok(mounts);
            }
        }
    }

    fn has(&self, id: u64) -> bool {
        self.ids.iter().take(self.count).any(|known| *known == id)
    }

    fn add(&mut self, id: u64) -> nix::Result<()> {
        *self.ids.get_mut(self.count).ok_or(Errno::E2BIG)? = id;
        self.count += 1;
        Ok(())
    }

    /// Calls `visit` with the id and the path of each.
    pub(super) fn each(&self, mut visit: impl FnMut(u64, &CStr) -> nix::Result<()>) -> nix::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let mut visited = 0;
        Lines::open()?.each(|line| {
            if !self.has(line.id) {
                return Ok(());
            }
            visited += 1;
            let mut path = [0; 4096];
            visit(line.id, plain(line.path, &mut path)?)
        })?;
        // One that has gone meanwhile, or that we do not see, has not got what it should.
        if visited == self.count { Ok(()) } else { Err(Errno::EBUSY) }
    }
}

/// What of a line matters here.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    id: u64,
    parent: u64,
    path: &'a [u8],
}

impl<'a> Line<'a> {
    /// `ID PARENT MAJOR:MINOR ROOT PATH ...`
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        Some(Self { id, parent, path: words.nth(2)? })
    }
}

/// A path without the escapes that procfs puts in: backslash and three octal digits.
fn plain<'a>(escaped: &[u8], into: &'a mut [u8; 4096]) -> nix::Result<&'a CStr> {
    let (mut at, mut length) = (0, 0);
    while let Some(byte) = escaped.get(at) {
        let digits = escaped.get(at + 1..at + 4).filter(|_| *byte == b'\\').unwrap_or_default();
        let octal = digits.iter().try_fold(0_u8, |value, digit| {
            let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
            value.checked_mul(8)?.checked_add(digit)
        });
        let (byte, width) = match octal {
            Some(octal) if digits.len() == 3 => (octal, 4),
            _ => (*byte, 1),
        };
        *into.get_mut(length).ok_or(Errno::ENAMETOOLONG)? = byte;
        (at, length) = (at + width, length + 1);
    }
    *into.get_mut(length).ok_or(Errno::ENAMETOOLONG)? = 0;
    CStr::from_bytes_until_nul(into).map_err(|_none| Errno::ENAMETOOLONG)
}

struct Lines {
    file: OwnedFd,
    buffer: [u8; LINE],
    length: usize,
}

impl Lines {
    fn open() -> nix::Result<Self> {
        let file = procfs::own(c"self/mountinfo", OFlag::O_RDONLY | OFlag::O_CLOEXEC)?;
        Ok(Self { file, buffer: [0; LINE], length: 0 })
    }

    fn each(mut self, mut visit: impl FnMut(Line<'_>) -> nix::Result<()>) -> nix::Result<()> {
        loop {
            let room = self.buffer.get_mut(self.length..).filter(|room| !room.is_empty()).ok_or(Errno::E2BIG)?;
            let count = retry(|| nix::unistd::read(self.file.as_fd(), room))?;
            if count == 0 {
                return Ok(());
            }
            self.length += count;
            let mut rest = self.buffer.get(..self.length).unwrap_or_default();
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let (line, behind) = rest.split_at(end);
                visit(Line::parse(line).ok_or(Errno::EIO)?)?;
                rest = behind.get(1..).unwrap_or_default();
            }
            let (left, length) = (rest.len(), self.length);
            self.buffer.copy_within(length - left..length, 0);
            self.length = left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_its_ids_and_its_path() {
        let line = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let line = Line::parse(line).unwrap();
        assert_eq!(line, Line { id: 36, parent: 35, path: b"/mnt\\0402" });
        let mut path = [0; 4096];
        assert_eq!(plain(line.path, &mut path), Ok(c"/mnt 2"));
        assert_eq!(plain(b"/a\\134b\\01", &mut path), Ok(c"/a\\b\\01"));
        assert_eq!(plain(&[b'x'; 4096], &mut path), Err(Errno::ENAMETOOLONG));
        assert_eq!(Line::parse(b"36 x"), None);
    }

    #[test]
    fn everything_is_below_the_root_of_the_namespace() {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let lines: Vec<_> = text.lines().map(|line| Line::parse(line.as_bytes()).unwrap()).collect();
        let root = lines.iter().find(|line| !lines.iter().any(|other| other.id == line.parent)).unwrap();
        let below = Mounts::below(root.id).unwrap();
        assert_eq!(below.count, lines.len() - 1);
        let mut seen = 0;
        below
            .each(|_, path| {
                seen += usize::from(path.to_bytes().starts_with(b"/"));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, below.count);
    }
}
