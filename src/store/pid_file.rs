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
    fcntl::{AT_FDCWD, AtFlags, OFlag, renameat},
    sys::stat::{FileStat, Mode, fstatat, lstat},
    unistd::{UnlinkatFlags, linkat, unlinkat},
};

use crate::{
    error::{Code, Context as _, Result},
    sys::path::open_at,
};

/// Anybody may read it.
const MODE: Mode = Mode::from_bits_truncate(0o644);

/// Bytes of a pid.
const LONGEST: i64 = 10;

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
        let directory = open_at(AT_FDCWD, parent, flags, Mode::empty()).doing(Code::FileRefused, refused);
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
    /// Puts the file there when it is complete: a poller never sees half a number, and a link that waits there is replaced,
    /// never followed.
    pub fn write(self, pid: i32) -> Result<PidFile> {
        self.fill(pid).doing(Code::FileRefused, || format!("write the pid-file {}", self.path.display()))?;
        Ok(PidFile { place: self, kept: false })
    }

    fn fill(&self, pid: i32) -> nix::Result<()> {
        match self.link(pid) {
            // Something is in the way, or the file system or the kernel (before Linux 6.10) knows no files without a name.
            Err(Errno::EEXIST | Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EPERM | Errno::EINVAL) => {
                self.replace(pid)
            }
            linked => linked,
        }
    }

    /// Writes a file that has no name before it is complete: a kill leaves nothing.
    fn link(&self, pid: i32) -> nix::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
        let file = write(open_at(&self.directory, c".", flags, MODE)?, pid)?;
        linkat(&file, c"", &self.directory, self.name.as_os_str(), AtFlags::AT_EMPTY_PATH)
    }

    /// The same by way of a temporary name, and over what is there.
    fn replace(&self, pid: i32) -> nix::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let temporary = self.temporary.as_os_str();
        let create = || open_at(&self.directory, temporary, flags, MODE);
        let remove = || unlinkat(&self.directory, temporary, UnlinkatFlags::NoRemoveDir);
        let file = match create() {
            // A killed `exec` has left it.
            Err(Errno::EEXIST) if fstatat(&self.directory, temporary, NO_LINK).is_ok_and(|file| is_remains(&file)) => {
                remove().and_then(|()| create())?
            }
            created => created?,
        };
        let rename = |_| renameat(&self.directory, temporary, &self.directory, self.name.as_os_str());
        write(file, pid).and_then(rename).inspect_err(|_| {
            let _ = remove();
        })
    }
}

const NO_LINK: AtFlags = AtFlags::AT_SYMLINK_NOFOLLOW;

/// Whether a file by the temporary name can be what a killed pura has left, or leads elsewhere: any other is somebody's.
fn is_remains(file: &FileStat) -> bool {
    let kind = file.st_mode & libc::S_IFMT;
    let is_ours = file.st_uid == nix::unistd::geteuid().as_raw() && (0..=LONGEST).contains(&file.st_size);
    kind == libc::S_IFLNK || kind == libc::S_IFREG && is_ours
}

/// Fills a file.
fn write(file: OwnedFd, pid: i32) -> nix::Result<OwnedFd> {
    let digits = pid.to_string();
    let written = crate::sys::retry(|| nix::unistd::write(&file, digits.as_bytes()))?;
    if written == digits.len() { Ok(file) } else { Err(Errno::ENOSPC) }
}

/// Where the file is before it is complete.
fn temporary(path: &Path, id: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{id}"))
}

/// Removes what a `create` that was killed has left: the file under its temporary name, and the complete one if it still
/// names that very init.
pub fn clean_up(path: &Path, id: &str, init: Option<i32>) {
    let temporary = temporary(path, id);
    if lstat(&temporary).is_ok_and(|file| is_remains(&file)) {
        drop(fs::remove_file(temporary));
    }
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
    fn what_a_killed_exec_has_left_is_not_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        for left in [&path, &temporary(&path, "c1")] {
            fs::write(left, "12").unwrap();
        }
        PidFile::prepare(&path, "c1").unwrap().write(4711).unwrap().keep();
        assert_eq!(fs::read_to_string(&path).unwrap(), "4711");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_somebody_elses_by_the_temporary_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        for left in [&path, &temporary(&path, "c1")] {
            fs::write(left, "precious, and no pid").unwrap();
        }
        PidFile::prepare(&path, "c1").unwrap().write(4711).unwrap_err();
        clean_up(&path, "c1", Some(4711));
        assert_eq!(fs::read_to_string(temporary(&path, "c1")).unwrap(), "precious, and no pid");
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
