//! The state directory: which it is, and what is in it for each container.
//!
//! Nothing is decided by what stands here alone: the kernel says what is alive. Every file is reached through the
//! descriptor of a directory that was checked, never through a path that another user could have swapped.

mod claim;
mod entry;
mod pid_file;
mod record;
mod root;

pub use claim::Claim;
pub use entry::{Entry, Identity, Locked, boot_id, finish_removals};
pub use pid_file::{PidFile, temporary as temporary_pid_file};
pub use record::{Intent, Record, VERSION};
pub use root::{Root, Roots};

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt as _};

use crate::error::{Code, Error, Result};

/// The names of a container's files, in the order in which they are made.
const INTENT: &str = "intent";
const CONFIG: &str = "config.json";
const SOCKET: &str = "start.sock";
const STATE: &str = "state.json";
const NEW_STATE: &str = "state.json.new";

/// Every file of a container, the intent last: with it, a removal that was cut short can be finished.
const ALL: [&str; 5] = [SOCKET, NEW_STATE, STATE, CONFIG, INTENT];

/// What a file of the state may hold: 1 MiB, as much as annotations may fill.
const LARGEST: u64 = 1 << 20;

/// Bytes of an id: a file name may have 255, and pura adds some.
const LONGEST_ID: usize = 240;

/// A container's id: `[A-Za-z0-9_+.-]+`, not starting with `.` or `-`, so that it is one name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// Checks an id as it was typed.
    pub fn parse(typed: &OsStr) -> Result<Self> {
        let bytes = typed.as_bytes();
        let refuse = |why: &str| Err(Error::new(Code::BadId, format!("use the id {typed:?}"), why.to_owned()));
        if bytes.is_empty() {
            return refuse("it is empty");
        }
        if bytes.len() > LONGEST_ID {
            return refuse("it is over 240 bytes");
        }
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(byte);
        if !bytes.iter().all(allowed) || matches!(bytes.first(), Some(b'.' | b'-')) {
            return refuse("an id has letters, digits and _ + . -, and starts with none of . and -");
        }
        Ok(Self(typed.to_string_lossy().into_owned()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_harmless_file_name() {
        for good in ["c1", "a.b", "A_b+c-1", &"x".repeat(240)] {
            assert!(Id::parse(OsStr::new(good)).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "-x", ".rm-a", "a b", "a\n", "ä", &"x".repeat(1024)] {
            assert_eq!(Id::parse(OsStr::new(bad)).unwrap_err().code(), Code::BadId, "{bad}");
        }
    }
}
