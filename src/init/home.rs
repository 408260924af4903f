//! The home directory of the program's user, from the image's `/etc/passwd`: the image's file, so read after the root
//! has been entered, bounded, and never trusted for more than a text.

use std::os::fd::{AsFd as _, BorrowedFd};

use nix::{errno::Errno, fcntl::OFlag};

use crate::sys::{
    path::{IN_ROOT, open, stat},
    retry,
};

/// As much of the file as is read: a real one is far smaller, and a huge one must not hold us up.
const LARGEST: usize = 1 << 20;

/// A home, with its `HOME=`, that is longer than this is none.
pub(crate) const LONGEST: usize = 1024;

const FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// `HOME=` and the home of a user id: `/` when the file does not say, or is no file. How long that is.
pub(crate) fn find(root: BorrowedFd<'_>, uid: u32, into: &mut [u8; LONGEST]) -> usize {
    let mut line = Line { uid, field: 0, number: Some(0), digits: 0, home: [0; LONGEST], length: 0 };
    let found = open(root, c"/etc/passwd", FLAGS, IN_ROOT).and_then(|file| read(file.as_fd(), &mut line));
    let home: &[u8] = match found {
        Ok(true) => line.home.get(..line.length).unwrap_or(b"/"),
        Ok(false) | Err(_) => b"/",
    };
    let mut length = 0;
    for (to, from) in into.iter_mut().zip(b"HOME=".iter().chain(home)) {
        *to = *from;
        length += 1;
    }
    length
}

fn read(file: BorrowedFd<'_>, line: &mut Line) -> nix::Result<bool> {
    // A FIFO would make us wait, a device could do anything.
    if stat(file)?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EINVAL);
    }
    let mut chunk = [0_u8; 4096];
    let mut total = 0;
    while total < LARGEST {
        let length = retry(|| nix::unistd::read(file, &mut chunk))?;
        if length == 0 {
            return Ok(line.ends());
        }
        for byte in chunk.get(..length).unwrap_or_default() {
            if line.takes(*byte) {
                return Ok(true);
            }
        }
        total += length;
    }
    Ok(false)
}

/// A line of `passwd(5)` as it comes in: `name:password:UID:GID:GECOS:directory:shell`.
struct Line {
    uid: u32,
    field: usize,
    /// The third field so far; none when it is no number. A name is never compared: it may look like one.
    number: Option<u32>,
    digits: usize,
    home: [u8; LONGEST],
    length: usize,
}

impl Line {
    /// Takes the next byte; whether it ends the line of the user.
    fn takes(&mut self, byte: u8) -> bool {
        match byte {
            b'\n' if self.ends() => return true,
            b'\n' => (self.field, self.number, self.digits, self.length) = (0, Some(0), 0, 0),
            b':' => self.field += 1,
            digit if self.field == 2 => {
                let value = digit.checked_sub(b'0').filter(|value| *value <= 9);
                self.digits += 1;
                self.number = self
                    .number
                    .zip(value)
                    .and_then(|(number, value)| number.checked_mul(10)?.checked_add(value.into()));
            }
            other if self.field == 5 => {
                if let Some(place) = self.home.get_mut(self.length) {
                    *place = other;
                }
                self.length += 1;
            }
            _ => {}
        }
        false
    }

    fn ends(&self) -> bool {
        let fits = self.length > 0 && self.length < LONGEST - 5;
        self.field >= 5 && self.digits > 0 && self.number == Some(self.uid) && fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(passwd: &str, uid: u32) -> String {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        let directory = std::fs::File::open(root.path()).unwrap();
        let mut buffer = [0; LONGEST];
        let length = find(directory.as_fd(), uid, &mut buffer);
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_home_is_found_by_number_and_never_by_name() {
        let passwd =
            "1000:x:0:0::/evil:/bin/sh\nroot:x:0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\nlast:x:7:7::/l";
        assert_eq!(home(passwd, 0), "HOME=/evil");
        assert_eq!(home(passwd, 1000), "HOME=/home/u");
        assert_eq!(home(passwd, 7), "HOME=/l");
        assert_eq!(home(passwd, 5), "HOME=/");
    }

    #[test]
    fn nonsense_is_no_home() {
        for passwd in
            ["", ":::::::", "a:x::0::/h:", "a:x:+0:0::/h:", "a:x:4294967296:0::/h:", "a:x:0:0::", &"x".repeat(2 << 20)]
        {
            assert_eq!(home(passwd, 0), "HOME=/", "{}", &passwd[..passwd.len().min(20)]);
        }
    }
}
