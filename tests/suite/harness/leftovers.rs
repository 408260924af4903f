//! What a test must not leave: processes, mounts, state, temporary files.
//!
//! Processes are found by the test's directory, which stands in the arguments of every pura (`--root`), also of an init
//! that waits, and in the environment of every program (`PURA_TEST`). Nobody's zombies are not counted: whether they are
//! reaped is up to process 1.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::within;

/// Insists that nothing of the test in `dir` is left. Processes that are about to end may do so.
pub(crate) fn none(dir: &Path) -> Result<()> {
    let mut left = Vec::new();
    let gone = within(Duration::from_secs(10), "end of all processes", || {
        left = processes(dir)?;
        Ok(left.is_empty())
    });
    ensure!(gone.is_ok(), "processes are left: {left:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mark = dir.to_string_lossy().into_owned();
    let mounts: Vec<&str> = mounts.lines().filter(|line| line.contains(&mark)).collect();
    ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
    for place in ["state", "tmp"] {
        let files = names(&dir.join(place))?;
        ensure!(files.is_empty(), "files are left in {place}: {files:?}");
    }
    Ok(())
}

/// Kills what `none` would complain about.
pub(crate) fn kill_all(dir: &Path) {
    for (pid, _) in processes(dir).unwrap_or_default() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Living processes of the test in `dir`, with their command lines.
pub(crate) fn processes(dir: &Path) -> Result<Vec<(i32, String)>> {
    let mark = dir.as_os_str().as_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        // A process may end while we look, and its environment may be none of our business.
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let marked = [&line, &environment].iter().any(|bytes| bytes.windows(mark.len()).any(|part| part == mark));
        if marked && pid != i32::try_from(std::process::id())? && is_alive(&path) {
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            found.push((pid, line));
        }
    }
    Ok(found)
}

/// Whether the process is there, and no zombie.
fn is_alive(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Names in a directory, sorted; none when it does not exist.
pub(crate) fn names(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(PathBuf::from(entry?.file_name()));
    }
    names.sort();
    Ok(names)
}
