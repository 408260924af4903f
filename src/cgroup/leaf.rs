//! The leaf, made: directories, controllers, and the descriptor that clone takes.

use std::{
    fs,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, OFlag},
    sys::stat::Mode,
};

use super::{Leaf, freezer, levels::Enable, members::event};
use crate::{
    error::{Code, Context as _, Error, Result},
    sys,
};

/// The cgroup that pura goes to when it makes room. It stays: whoever calls pura next may be in it.
const CALLER: &str = "pura-caller";

/// Makes the leaf and the directories above it; those that were made, from the top. On an error none is left. One that
/// exists is used when nobody lives in it.
pub fn make(leaf: &Leaf) -> Result<Vec<PathBuf>> {
    if let Some(directory) = &leaf.vacates {
        vacate(directory)?;
    }
    leaf.enables.iter().try_for_each(enable)?;
    let mut made = Vec::new();
    let done = make_all(leaf, &mut made).and_then(|()| refuse_used(leaf, made.contains(&leaf.directory)));
    if let Err(error) = done {
        remove_made(&made);
        return Err(error);
    }
    Ok(made)
}

/// Removes what `make` has made, as far as it is empty.
pub fn remove_made(made: &[PathBuf]) {
    for directory in made.iter().rev() {
        drop(fs::remove_dir(directory));
    }
}

fn make_all(leaf: &Leaf, made: &mut Vec<PathBuf>) -> Result<()> {
    let mut try_make = |directory: &Path| match fs::create_dir(directory) {
        Ok(()) => {
            made.push(directory.to_owned());
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    let doing = |directory: &Path| format!("make the cgroup {}", directory.display());
    match try_make(&leaf.directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        done => return done.doing(Code::CgroupRefused, || doing(&leaf.directory)),
    }
    let mut missing: Vec<_> = leaf.directory.ancestors().skip(1).take_while(|directory| !directory.exists()).collect();
    missing.reverse();
    for directory in missing {
        try_make(directory).doing(Code::CgroupRefused, || doing(directory))?;
        enable(&Enable { directory: directory.to_owned(), controllers: leaf.controllers.clone() })?;
    }
    try_make(&leaf.directory).doing(Code::CgroupRefused, || doing(&leaf.directory))
}

/// A cgroup of others is no place for a container, and in a frozen one init would never answer.
fn refuse_used(leaf: &Leaf, is_new: bool) -> Result<()> {
    let directory = &leaf.directory;
    let refuse = |why: &str| {
        let what = format!("use the cgroup {}", directory.display());
        Err(Error::new(Code::CgroupBusy, what, why.to_owned()).fix("another linux.cgroupsPath"))
    };
    if !is_new && event(directory, "populated") == Some(true) {
        return refuse("the cgroup is not empty");
    }
    if (leaf.is_asked || !is_new) && freezer::is_frozen(directory) {
        return refuse("the cgroup is frozen, or one above it is");
    }
    Ok(())
}

/// Opens the leaf, for clone.
pub fn open(directory: &Path) -> Result<OwnedFd> {
    sys::path::open_at(AT_FDCWD, directory, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .doing(Code::CgroupRefused, || format!("open the cgroup {directory:?}"))
}

/// The same, for what takes no mere reference: `bpf(2)`.
pub(super) fn open_to_use(directory: &Path) -> nix::Result<OwnedFd> {
    sys::path::open_at(AT_FDCWD, directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Lets a cgroup give controllers on.
pub(super) fn enable(enable: &Enable) -> Result<()> {
    if enable.controllers.is_empty() {
        return Ok(());
    }
    let words: Vec<_> = enable.controllers.iter().map(|controller| format!("+{controller}")).collect();
    let file = enable.directory.join("cgroup.subtree_control");
    let done = write_line(&file, &words.join(" "));
    let is_busy = done.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY));
    let code = if is_busy { Code::CgroupOccupied } else { Code::Controller };
    done.doing(code, || format!("enable {} in {}", enable.controllers.join(" "), enable.directory.display()))
}

/// Moves this process to a child of the cgroup that it lives in: one with processes gives no controllers on.
fn vacate(directory: &Path) -> Result<()> {
    let what = || format!("leave the cgroup {}", directory.display());
    let child = directory.join(CALLER);
    match fs::create_dir(&child) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).doing(Code::CgroupRefused, what),
        _ => write_line(&child.join("cgroup.procs"), "0").doing(Code::CgroupRefused, what),
    }
}

/// Writes one line to a file that exists, in one call.
pub(super) fn write_line(file: &Path, line: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(format!("{line}\n").as_bytes())
}
