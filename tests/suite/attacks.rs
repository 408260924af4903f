//! Attacks: what a hostile image, neighbour, program, environment or other user tries. docs/advisories.md says which of
//! them once worked on whom.

mod descriptors;
mod environment;
mod files;
mod identity;
mod image;
mod joining;
mod limits;
mod names;
mod races;
mod state;
mod terminal;
mod users;

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::harness::{Bundle, Outcome, Pura, Running, judged, probe_binary};

/// What the files of a victim say.
const PRECIOUS: &str = "precious";

/// A directory of the host that nothing of a container may reach, with names that runtimes make or remove.
struct Outside {
    path: PathBuf,
    before: Vec<String>,
}

impl Outside {
    fn make(bundle: &Bundle) -> Result<Self> {
        let path = bundle.path("outside");
        fs::create_dir(&path)?;
        for name in ["canary", "console", "fd", "null", "passwd", "ptmx", "pts"] {
            fs::write(path.join(name), PRECIOUS)?;
        }
        let before = picture(&path)?;
        Ok(Self { path, before })
    }

    fn canary(&self) -> PathBuf {
        self.path.join("canary")
    }

    /// Insists that it is as it was, byte for byte.
    fn is_untouched(&self) -> Result<()> {
        let now = picture(&self.path)?;
        assert!(now == self.before, "something outside has changed: {now:?}");
        Ok(())
    }
}

/// All that is in a directory: names, modes, owners, contents.
fn picture(directory: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let meta = fs::symlink_metadata(&path)?;
        let content = if meta.is_file() { fs::read_to_string(&path)? } else { String::new() };
        let (mode, owner, group) = (meta.mode(), meta.uid(), meta.gid());
        lines.push(format!("{} {mode:o} {owner}:{group} {content}", path.display()));
    }
    lines.sort();
    Ok(lines)
}

/// The probe on the caller's side, at work from now on until the value is dropped.
fn racer(bundle: &Bundle, verb: &str, paths: [&Path; 2]) -> Result<Running> {
    let words: Vec<OsString> =
        [probe_binary().as_os_str(), OsStr::new(verb), paths[0].as_os_str(), paths[1].as_os_str()]
            .map(Into::into)
            .into();
    let running = Pura::through(bundle.dir(), &words).spawn()?;
    assert!(running.line()? == "ready", "the racer is at work");
    Ok(running)
}

/// Insists on an error as it has to be: one line with a code that is no bug, and an exit status that says so.
fn is_refusal(outcome: &Outcome) -> Result<()> {
    let line = outcome.stderr.strip_suffix('\n').unwrap_or_default();
    let is_line = line.starts_with("pura: ") && line.contains("[PURA-") && !line.contains('\n');
    let is_one = [1, 2, 125, 126, 127].contains(&outcome.code()) && is_line && !line.contains("PURA-999");
    judged(is_one.then_some(()).with_context(|| format!("wanted an error: {outcome:#?}")))
}

/// Insists that it did what it was asked for, or is an error as it has to be. Whether it did.
fn is_judged(outcome: &Outcome) -> Result<bool> {
    if outcome.code() == 0 {
        return Ok(true);
    }
    is_refusal(outcome).map(|()| false)
}
