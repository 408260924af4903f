//! A short text in a fixed buffer.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use nix::errno::Errno;

/// At most 4095 bytes.
#[derive(Debug)]
pub(super) struct Line {
    bytes: [u8; 4096],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 4096], length: 0 }
    }
}

impl Line {
    /// Adds bytes; one that does not fit makes [`Line::text`] fail.
    pub(super) fn add(&mut self, more: &[u8]) {
        let end = self.length.saturating_add(more.len());
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(more);
        }
        self.length = end;
    }

    pub(super) fn text(&self) -> nix::Result<&CStr> {
        let bytes = self.bytes.get(..=self.length).ok_or(Errno::ENAMETOOLONG)?;
        CStr::from_bytes_until_nul(bytes).map_err(|_inner| Errno::EINVAL)
    }

    /// The path of a descriptor in procfs.
    pub(super) fn descriptor(&mut self, descriptor: BorrowedFd<'_>) -> nix::Result<&CStr> {
        self.add(b"/proc/self/fd/");
        let number = descriptor.as_raw_fd().unsigned_abs();
        let mut divisor = 1_000_000_000;
        let mut started = false;
        while divisor > 0 {
            let digit = number / divisor % 10;
            started |= digit != 0 || divisor == 1;
            if started {
                self.add(&[b'0' + u8::try_from(digit).unwrap_or(0)]);
            }
            divisor /= 10;
        }
        self.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_descriptor_is_named_in_procfs() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut line = Line::default();
        let path = line.descriptor(file.as_fd()).unwrap();
        assert_eq!(path.to_str().unwrap(), format!("/proc/self/fd/{}", file.as_raw_fd()));
    }

    #[test]
    fn what_does_not_fit_is_no_text() {
        let mut line = Line::default();
        line.add(&[b'x'; 4095]);
        assert!(line.text().is_ok());
        line.add(b"x");
        assert_eq!(line.text().unwrap_err(), Errno::ENAMETOOLONG);
    }
}
