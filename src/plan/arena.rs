//! All strings of a plan, NUL-terminated, in one buffer: the kernel takes them as they are.

use std::ffi::CStr;

use crate::error::{Code, Error, Result};

/// A string in an [`Arena`]: its offset in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text(u32);

/// The buffer.
#[derive(Debug, Default)]
pub struct Arena(Vec<u8>);

impl Arena {
    /// Copies `bytes` and a NUL to the end. Refuses an inner NUL, which would cut the string short for the kernel.
    pub fn intern(&mut self, bytes: &[u8]) -> Result<Text> {
        let refuse =
            |why: &str| Error::new(Code::Field, format!("use {:?}", String::from_utf8_lossy(bytes)), why.to_owned());
        if bytes.contains(&0) {
            return Err(refuse("it contains a NUL byte"));
        }
        let at = u32::try_from(self.0.len()).ok().ok_or_else(|| refuse("the config is over 4 GiB"))?;
        self.0.extend_from_slice(bytes);
        self.0.push(0);
        Ok(Text(at))
    }

    /// The string at `text`; empty for an offset from another arena.
    pub fn get(&self, text: Text) -> &CStr {
        let tail = usize::try_from(text.0).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        CStr::from_bytes_until_nul(tail).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_whole() {
        let mut arena = Arena::default();
        let texts = [b"/a".as_slice(), b"", b"\xff"].map(|bytes| arena.intern(bytes).unwrap());
        assert_eq!(texts.map(|text| arena.get(text).to_bytes()), [b"/a".as_slice(), b"", b"\xff"]);
    }

    #[test]
    fn an_inner_nul_is_refused() {
        assert!(Arena::default().intern(b"a\0b").is_err());
    }
}
