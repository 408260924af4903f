//! A short text in a fixed buffer.

use std::ffi::CStr;

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_no_text() {
        let mut line = Line::default();
        line.add(&[b'x'; 4095]);
        assert!(line.text().is_ok());
        line.add(b"x");
        assert_eq!(line.text().unwrap_err(), Errno::ENAMETOOLONG);
    }
}
