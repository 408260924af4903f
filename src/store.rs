//! The state directory: which it is, and what is in it for each container.
//!
//! Nothing is decided by what stands here alone: the kernel says what is alive. Every file is reached through the
//! descriptor of a directory that was checked, never through a path that another user could have swapped.

mod claim;
mod entry;
mod files;
mod glance;
mod identity;
mod lock;
mod pid_file;
mod record;
mod root;

pub use claim::Claim;
pub use entry::{Attempt, Entry, LOCK_LIMIT, Locked, finish_removals};
pub use files::Traces;
pub use glance::{Brief, Glance};
pub use identity::{Identity, boot_id, is_this_boot};
pub use pid_file::{PidFile, Place, clean_up as clean_up_pid_file};
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
        let refuse = |why: &str| {
            Err(Error::new(Code::BadId, format!("use the id {:?}", typed.to_string_lossy()), why.to_owned()))
        };
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

/// The error of every verb for an id that nobody has.
pub fn missing(id: &Id, verb: &str) -> Error {
    let why = format!("container {:?} does not exist", id.as_str());
    Error::new(Code::NoContainer, format!("{verb} {:?}", id.as_str()), why).fix("pura list")
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A state directory of its own for each test, and processes to put there.

    use std::{path::PathBuf, process::Child};

    use super::{Claim, Entry, Id, Identity, Intent, Record, Root, Roots, VERSION, boot_id};
    use crate::cli::Globals;

    #[derive(Debug)]
    pub(crate) struct Store(tempfile::TempDir);

    impl Store {
        pub(crate) fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        pub(crate) fn globals(&self) -> Globals {
            Globals { root: Some(self.0.path().join("root")), ..Globals::default() }
        }

        pub(crate) fn root(&self) -> Root {
            Roots::find(&self.globals()).unwrap().create().unwrap().0
        }

        pub(crate) fn path(&self, id: &str) -> PathBuf {
            self.root().path.join(id)
        }

        pub(crate) fn entry(&self, id: &str) -> Entry {
            Entry::open(self.root(), &Id::parse(id.as_ref()).unwrap()).unwrap().unwrap()
        }

        /// The names in the directory, hidden ones too.
        pub(crate) fn names(&self) -> Vec<String> {
            let names = std::fs::read_dir(self.root().path).unwrap();
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }

        pub(crate) fn claim(&self, id: &str) -> super::Result<Claim> {
            Claim::new(self.root(), &Id::parse(id.as_ref()).unwrap(), &intent(), b"{}")
        }

        /// A container whose process 1 is the one given.
        pub(crate) fn running(&self, id: &str, init: Identity) {
            let mut claim = self.claim(id).unwrap();
            claim.record_init(init).unwrap();
            claim.commit(&record(id, init)).unwrap();
            claim.keep();
        }
    }

    /// By a creator that has ended.
    pub(crate) fn intent() -> Intent {
        let creator = Identity { pid: i32::MAX, start_time: 1 };
        Intent { version: VERSION, boot_id: boot_id().to_owned(), creator, ..Intent::default() }
    }

    pub(crate) fn record(id: &str, init: Identity) -> Record {
        Record {
            version: VERSION,
            id: id.to_owned(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: crate::clock::now(),
            owner: "1000".to_owned(),
            boot_id: boot_id().to_owned(),
            init,
            cgroup: None,
            cgroup_stays: false,
            unit: None,
            cgroup_moved: false,
            resctrl: None,
            mounts: None,
            user_namespace: "new".to_owned(),
            uid_map: "0 1000 1\n".to_owned(),
            gid_map: "0 1000 1\n".to_owned(),
            root_emulation: false,
            degradations: Vec::new(),
            poststop: false,
            annotations: [("empty".to_owned(), String::new())].into(),
        }
    }

    /// A process that does nothing, and is gone with its guard.
    #[derive(Debug)]
    pub(crate) struct Sleeper(Child, Identity);

    impl Sleeper {
        #[expect(clippy::disallowed_methods, reason = "a bystander of the test, not a helper of pura")]
        pub(crate) fn new() -> Self {
            let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            let identity = Identity::of(child.id().cast_signed()).unwrap();
            Self(child, identity)
        }

        pub(crate) fn identity(&self) -> Identity {
            self.1
        }

        pub(crate) fn end(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
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
