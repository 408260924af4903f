//! How systemd brings a process into a scope: into one that is started for it, or into that of a container which is there.
//! The latter is for `exec` from another part of the hierarchy, such as a login session: only who may write above both can move
//! a process from one to the other, `cgroups(7)`.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, Pid, access};

use super::scope::{self, Scope};
use crate::{
    error::{Code, Error, Result, Warning},
    host::probe,
    systemd::{self, Manager},
};

/// What is done when the process has been born.
#[derive(Debug, Clone, Copy)]
pub enum Entrance<'a> {
    /// Its scope is started.
    Start(&'a Scope),
    /// It is attached to one that is there.
    Attach(&'a Attachment),
}

/// A cgroup of a scope that is there, and who can move a process to it.
#[derive(Debug)]
pub struct Attachment {
    unit: String,
    directory: PathBuf,
    manager: RefCell<Option<Manager>>,
}

impl Entrance<'_> {
    /// Has the process put into its cgroup; which that is, and what could not be set there.
    pub fn take_in(self, process: Pid) -> Result<(PathBuf, Vec<Warning>)> {
        match self {
            Self::Start(scope) => scope.take_in(process),
            Self::Attach(attachment) => attachment.take_in(process),
        }
    }
}

impl Attachment {
    /// The way into this cgroup of a unit; none is needed where the caller's children can be born there. The error says why
    /// there is none.
    pub fn needed(unit: &str, directory: &Path) -> std::result::Result<Option<Self>, String> {
        let host = probe::cgroup();
        let Some(mount) = host.mount else { return Ok(None) };
        if may_move(&mount.join(host.own.trim_start_matches('/')), directory) {
            return Ok(None);
        }
        let manager = RefCell::new(Some(systemd::reach()?));
        Ok(Some(Self { unit: unit.to_owned(), directory: directory.to_owned(), manager }))
    }

    /// Ends the helper: this program is about to be executed anew.
    pub fn hang_up(&self) {
        drop(self.manager.take());
    }

    fn take_in(&self, process: Pid) -> Result<(PathBuf, Vec<Warning>)> {
        let scope = scope::of_leaf(&self.directory, &self.unit);
        let below = self.directory.strip_prefix(scope).unwrap_or(Path::new(""));
        let below = if below.as_os_str().is_empty() { String::new() } else { format!("/{}", below.display()) };
        let mut manager = self.manager.take().ok_or_else(|| {
            Error::new(Code::Bug, format!("enter the systemd unit {}", self.unit), "it has been entered already")
        })?;
        manager.attach(&self.unit, below, process.as_raw().unsigned_abs())?;
        Ok((self.directory.clone(), Vec::new()))
    }
}

/// Whether the caller may move processes from one cgroup to the other: the one above both has to be theirs to write, too.
fn may_move(from: &Path, to: &Path) -> bool {
    let above = from.ancestors().find(|above| to.starts_with(above)).unwrap_or(to);
    access(&above.join("cgroup.procs"), AccessFlags::W_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_be_moved_below_what_is_the_callers() {
        let top = tempfile::tempdir().unwrap();
        let (session, manager) = (top.path().join("session"), top.path().join("manager/scope"));
        for directory in [&session, &manager] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::fs::write(top.path().join("manager/cgroup.procs"), "").unwrap();
        assert!(may_move(&top.path().join("manager/other"), &manager));
        assert!(!may_move(&session, &manager));
        std::fs::write(top.path().join("cgroup.procs"), "").unwrap();
        assert!(may_move(&session, &manager));
    }
}
