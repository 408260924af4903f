//! What a hostile neighbour or a hostile program does: exchanges names while pura works, and looks into whoever arrives.
//!
//! Each goes on until it is killed, and ends by itself after a few minutes whatever becomes of the test.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Longest life of a racer.
const LIMIT: Duration = Duration::from_mins(5);

/// Exchanges two names, over and over: `renameat2(RENAME_EXCHANGE)`.
pub(crate) fn swap(paths: &[OsString]) -> Result<ExitCode> {
    let [first, second] = paths else { anyhow::bail!("swap PATH PATH") };
    until_killed(|| {
        Ok(renameat2(AT_FDCWD, first.as_os_str(), AT_FDCWD, second.as_os_str(), RenameFlags::RENAME_EXCHANGE)?)
    })
}

/// Puts a link to the first path in the place of the second and takes it away again, over and over: whatever somebody makes
/// there in between is a link a moment later.
pub(crate) fn plant(paths: &[OsString]) -> Result<ExitCode> {
    let [target, path] = paths else { anyhow::bail!("plant TARGET PATH") };
    let draft = PathBuf::from(path).with_extension("draft");
    until_killed(|| {
        symlink(target, &draft)?;
        fs::rename(&draft, path)?;
        fs::remove_file(path)?;
        Ok(())
    })
}

/// Waits until somebody makes something at the second path, puts a link to the first in its place at once, and soon takes it
/// away again, over and over.
pub(crate) fn pounce(paths: &[OsString]) -> Result<ExitCode> {
    let [target, path] = paths else { anyhow::bail!("pounce TARGET PATH") };
    let draft = PathBuf::from(path).with_extension("draft");
    until_killed(|| {
        if !draft.is_symlink() {
            symlink(target, &draft)?;
        }
        if fs::symlink_metadata(path).is_ok() {
            fs::rename(&draft, path)?;
            std::thread::sleep(Duration::from_micros(300));
            fs::remove_file(path)?;
        }
        Ok(())
    })
}

fn until_killed(mut act: impl FnMut() -> Result<()>) -> Result<ExitCode> {
    writeln!(io::stdout(), "ready")?;
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        // Somebody may be in the way for a moment; the next time counts.
        drop(act());
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks into every process that is not a program of the container yet, until `stop` is there: `seen=NAME` once, and once
/// `hit=WHAT` for each thing that it could do. Then `end`.
pub(crate) fn scan(stop: &Path) -> Result<ExitCode> {
    writeln!(io::stdout(), "ready")?;
    let mut said = BTreeSet::new();
    let end = Instant::now() + LIMIT;
    while !stop.exists() && Instant::now() < end {
        for entry in fs::read_dir("/proc").context("/proc")? {
            let process = entry?.path();
            let is_process =
                process.file_name().is_some_and(|name| name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit));
            if is_process && let Some(name) = stranger(&process) {
                said_once(&mut said, &format!("seen={name}"))?;
                for hit in look_into(&process) {
                    // By now it may have become the program, which anybody inside may look into.
                    if stranger(&process).is_some() {
                        said_once(&mut said, &format!("hit={hit}"))?;
                    }
                }
            }
        }
    }
    writeln!(io::stdout(), "end")?;
    Ok(ExitCode::SUCCESS)
}

fn said_once(said: &mut BTreeSet<String>, line: &str) -> Result<()> {
    if said.insert(line.to_owned()) {
        writeln!(io::stdout(), "{line}")?;
    }
    Ok(())
}

/// The name of a process that is not of ours.
fn stranger(process: &Path) -> Option<String> {
    let name = fs::read_to_string(process.join("comm")).ok()?;
    let name = name.trim_end();
    (name != "pura-probe").then(|| name.to_owned())
}

/// What could be done to the process. All of it is a matter of `ptrace(2)`: `PTRACE_MODE_READ`, and for its memory
/// `PTRACE_MODE_ATTACH`.
fn look_into(process: &Path) -> Vec<String> {
    let mut hits = Vec::new();
    for name in ["exe", "cwd", "root"] {
        if let Ok(shown) = fs::read_link(process.join(name)) {
            hits.push(format!("{name} {}", shown.display()));
        }
    }
    if OpenOptions::new().read(true).write(true).open(process.join("mem")).is_ok() {
        hits.push("mem".to_owned());
    }
    if OpenOptions::new().write(true).open(process.join("exe")).is_ok() {
        hits.push("exe for writing".to_owned());
    }
    if fs::read(process.join("environ")).is_ok_and(|bytes| !bytes.is_empty()) {
        hits.push("environ".to_owned());
    }
    for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        if let Ok(shown) = fs::read_link(entry.path()) {
            hits.push(format!("fd {}", shown.display()));
        }
    }
    hits
}
