//! The pid-file: decimal, no newline, complete or absent.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::Read as _,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, renameat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};

use crate::error::{Code, Context as _, Result};

/// A place for a pid-file: its directory is open, so that it can be written from another mount namespace too.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    path: PathBuf,
    name: OsString,
    temporary: OsString,
}

/// A pid-file that is taken back when it is dropped before [`PidFile::keep`].
#[derive(Debug)]
pub struct PidFile {
    place: Place,
    kept: bool,
}

impl PidFile {
    /// Opens the directory. The temporary name is made of the id, so that it can be found after a kill.
    pub fn prepare(path: &Path, id: &str) -> Result<Place> {
        let refused = || format!("write the pid-file {}", path.display());
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(parent, flags, Mode::empty()).doing(Code::FileRefused, refused);
        let directory = directory.map_err(|error| error.fix("--pid-file in a directory that you may write"))?;
        let temporary = temporary(path, id).file_name().unwrap_or_default().to_owned();
        let name = path.file_name().unwrap_or_default().to_owned();
        Ok(Place { directory, path: path.to_path_buf(), name, temporary })
    }

    /// Leaves the file.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Place {
    /// Writes the file beside its place and renames it there: a poller never sees half a number, and a link that waits
    /// there is replaced, never followed.
    pub fn write(self, pid: i32) -> Result<PidFile> {
        let what = || format!("write the pid-file {}", self.path.display());
        // What is there already is not ours: neither written to, whatever it leads to, nor removed.
        let file = self.draft().doing(Code::FileRefused, what).map_err(|error| {
            error.fix(format!("a directory that you may write, without a file {:?}", self.temporary.display()))
        })?;
        let written = self.fill(&file, pid);
        if written.is_err() {
            let _ = unlinkat(&self.directory, self.temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
        written.doing(Code::FileRefused, what)?;
        Ok(PidFile { place: self, kept: false })
    }

    fn draft(&self) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.directory, self.temporary.as_os_str(), flags, Mode::from_bits_truncate(0o644))
    }

    fn fill(&self, file: &OwnedFd, pid: i32) -> nix::Result<()> {
        let digits = pid.to_string();
        if crate::sys::retry(|| nix::unistd::write(file, digits.as_bytes()))? != digits.len() {
            return Err(Errno::ENOSPC);
        }
        renameat(&self.directory, self.temporary.as_os_str(), &self.directory, self.name.as_os_str())
    }
}

/// Where the file is before it is complete.
fn temporary(path: &Path, id: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{id}"))
}

/// Removes what a `create` that was killed has left: the file under its temporary name, and the complete one if it still
/// names that very init.
pub fn clean_up(path: &Path, id: &str, init: Option<i32>) {
    drop(fs::remove_file(temporary(path, id)));
    if init.is_some_and(|pid| names(path, pid)) {
        drop(fs::remove_file(path));
    }
}

/// Whether the file holds the number and nothing else. What is there now may be anything, a FIFO too.
fn names(path: &Path, pid: i32) -> bool {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut text = String::new();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    file.is_ok_and(|file| file.take(16).read_to_string(&mut text).is_ok()) && text == pid.to_string()
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = unlinkat(&self.place.directory, self.place.name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_way_is_replaced_and_its_target_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (victim, path) = (directory.path().join("victim"), directory.path().join("pid"));
        fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        PidFile::prepare(&path, "c1").unwrap().write(4711).unwrap().keep();
        assert_eq!(fs::read_to_string(&path).unwrap(), "4711");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_is_not_kept_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        drop(PidFile::prepare(&directory.path().join("pid"), "c1").unwrap().write(1).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_clean_up_takes_the_temporary_file_and_only_the_inits_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        for (content, gone) in [("12", true), ("123", false), ("12\n", false)] {
            fs::write(&path, content).unwrap();
            fs::write(temporary(&path, "c1"), "1").unwrap();
            clean_up(&path, "c1", Some(12));
            assert_eq!((path.exists(), temporary(&path, "c1").exists()), (!gone, false), "{content:?}");
        }
        clean_up(&path, "c1", None);
        assert!(path.exists());
    }
}
