//! Id maps: written by the parent, or by newuidmap and newgidmap. See `user_namespaces(7)`, `newuidmap(1)`.

use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::{errno::Errno, unistd::Pid};

use super::helper::{self, Started};
use crate::{
    error::{Code, Context as _, Error, Result, plain},
    host::{
        Host, Maps,
        ids::{Extent, lines},
        refusal::{self, Step, mapper},
    },
    plan::{Plan, ids::UserNamespace},
};

/// Writes the maps, or waits for those who do.
pub fn map(plan: &Plan, host: &Host, init: Pid, mappers: Option<Mappers>) -> Result<()> {
    match (&plan.ids.user_namespace, mappers) {
        (_, Some(mappers)) => mappers.finish(host),
        (UserNamespace::Create { maps, deny_setgroups, .. }, None) => write(init, maps, *deny_setgroups, host),
        _ => Ok(()),
    }
}

/// Writes both maps of a process, its own too, without a helper.
pub fn write(process: Pid, maps: &Maps, deny_setgroups: bool, host: &Host) -> Result<()> {
    write_all(process, maps, deny_setgroups).map_err(|(what, errno)| {
        let plainly = || Error::new(Code::MapRefused, what, plain(errno));
        refusal::cause(Step::Maps, errno, &refusal::gather(host)).unwrap_or_else(plainly)
    })
}

/// On failure, what was attempted, and why it was refused.
type Written = std::result::Result<(), (String, Errno)>;

/// Each file takes one write(2), once.
fn write_all(init: Pid, maps: &Maps, deny_setgroups: bool) -> Written {
    if deny_setgroups {
        write_file(init, "setgroups", "deny")?;
    }
    write_file(init, "uid_map", &lines(&maps.uids))?;
    write_file(init, "gid_map", &lines(&maps.gids))
}

fn write_file(init: Pid, name: &str, text: &str) -> Written {
    std::fs::write(format!("/proc/{init}/{name}"), text).map_err(|cause| {
        let errno = Errno::from_raw(cause.raw_os_error().unwrap_or_default());
        (format!("map ids: write {text:?} to {name}"), errno)
    })
}

/// Both mappers, at work.
#[derive(Debug)]
pub struct Mappers {
    init: Pid,
    maps: Maps,
    uids: (PathBuf, Started),
    gids: (PathBuf, Started),
}

/// Starts both at once: together they take as long as one.
pub fn start_mappers(init: Pid, maps: &Maps) -> Result<Mappers> {
    let uids = start("newuidmap", init, &maps.uids)?;
    let gids = start("newgidmap", init, &maps.gids)?;
    Ok(Mappers { init, maps: maps.clone(), uids, gids })
}

fn start(name: &str, init: Pid, map: &[Extent]) -> Result<(PathBuf, Started)> {
    let program = choose(name)?;
    let numbers = map.iter().flat_map(|extent| [extent.inside, extent.outside, extent.count]);
    let words: Vec<_> = std::iter::once(init.to_string()).chain(numbers.map(|number| number.to_string())).collect();
    let started =
        helper::spawn(&program, &words).doing(Code::MapperFailed, || format!("start {}", program.display()))?;
    Ok((program, started))
}

/// The first candidate with power: one without it, early in PATH, is passed over for a later one.
fn choose(name: &str) -> Result<PathBuf> {
    let mut first = None;
    for candidate in helper::find(name) {
        if has_power(&candidate) {
            return Ok(candidate);
        }
        first.get_or_insert(candidate);
    }
    first.ok_or_else(|| mapper::missing(&format!("{name} is")))
}

fn has_power(program: &Path) -> bool {
    let setuid = program.metadata().is_ok_and(|file| file.permissions().mode() & 0o4000 != 0 && file.uid() == 0);
    setuid || crate::sys::path::has_capabilities(program)
}

impl Mappers {
    /// Waits for both, and makes sure that they did what they were asked for.
    pub fn finish(self, host: &Host) -> Result<()> {
        let Self { init, maps, uids, gids } = self;
        // Both are waited for, whatever the first says: neither may be left behind.
        let results = [uids, gids].map(|(program, started)| (program, started.finish()));
        for (program, result) in results {
            if let Err(said) = result {
                let facts = mapper::gather(&program, has_power(&program), host);
                return Err(mapper::cause(&program, &said, &facts));
            }
        }
        // A mapper from PATH may be anything: what counts is what the kernel says.
        verify(init, "uid_map", &maps.uids)?;
        verify(init, "gid_map", &maps.gids)
    }
}

fn verify(init: Pid, name: &str, wanted: &[Extent]) -> Result<()> {
    let path = format!("/proc/{init}/{name}");
    let found = std::fs::read(&path).doing(Code::MapRefused, || format!("read {path}"))?;
    let found = crate::host::ids::parse(&found);
    let same = found.len() == wanted.len() && wanted.iter().all(|extent| found.contains(extent));
    if same {
        Ok(())
    } else {
        Err(Error::new(Code::MapperFailed, "map ids", format!("the mapper left {name} as {found:?}")))
    }
}
