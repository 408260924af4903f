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
        refusal,
    },
    plan::{Plan, ids::UserNamespace},
};

const CAP_SETGID: u64 = 1 << 6;
const CAP_SETUID: u64 = 1 << 7;

/// Writes the maps, or waits for those who do.
pub fn map(plan: &Plan, host: &Host, init: Pid, mappers: Option<Mappers>) -> Result<()> {
    match (&plan.ids.user_namespace, mappers) {
        (_, Some(mappers)) => mappers.finish(host),
        (UserNamespace::Create { maps, deny_setgroups, .. }, None) => {
            write(init, maps, *deny_setgroups).map_err(|(what, errno)| {
                let plainly = || Error::new(Code::MapRefused, what, plain(errno));
                refusal::root_unmapped(host, errno).unwrap_or_else(plainly)
            })
        }
        _ => Ok(()),
    }
}

/// On failure, what was attempted, and why it was refused.
type Written = std::result::Result<(), (String, Errno)>;

/// Writes both maps of init; each file takes one write(2), once.
fn write(init: Pid, maps: &Maps, deny_setgroups: bool) -> Written {
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
    first.ok_or_else(|| {
        Error::new(Code::MapperMissing, "map more than one id", format!("{name} is not installed"))
            .fix("apt install uidmap, or dnf install shadow-utils-subid, or --userns=single")
    })
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
                return Err(explain(&program, &said, host));
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

/// Why a mapper failed; facts are gathered only now.
fn explain(program: &Path, said: &str, host: &Host) -> Error {
    let name = program.display();
    let what = || format!("map ids with {name}");
    if host.caller.no_new_privs {
        let why = "no_new_privs is set on this process, so it gains no privilege";
        return Error::new(Code::MapperNoNewPrivs, what(), why)
            .fix("NoNewPrivileges=no in the systemd unit, or --userns=single");
    }
    if !has_power(program) {
        let why = "it has neither the setuid bit nor a file capability";
        return Error::new(Code::MapperPowerless, what(), why)
            .fix(format!("sudo chmod u+s {name}, or reinstall uidmap"));
    }
    let nosuid =
        nix::sys::statvfs::statvfs(program).is_ok_and(|fs| fs.flags().contains(nix::sys::statvfs::FsFlags::ST_NOSUID));
    if nosuid {
        return Error::new(Code::MapperNosuid, what(), "it is on a filesystem mounted nosuid")
            .fix("use the system's copy in /usr/bin");
    }
    if host.caller.bounding & (CAP_SETUID | CAP_SETGID) != CAP_SETUID | CAP_SETGID {
        let why = "CAP_SETUID or CAP_SETGID is missing from the bounding set";
        return Error::new(Code::MapperBounded, what(), why)
            .fix("--cap-add SETUID --cap-add SETGID on the outer container");
    }
    let group = host.account.as_ref().and_then(|account| account.primary_gid).filter(|gid| *gid != host.caller.gid);
    if let Some(primary) = group {
        let why = format!("gid {} is not your primary group {primary}: this is a newgrp or sg shell", host.caller.gid);
        return Error::new(Code::ForeignGroup, what(), why).fix("exit that shell");
    }
    // Another class of phrase in the quotation would mislead engines; it is the mapper's own word all the same.
    Error::new(Code::MapperFailed, what(), format!("it says: {said}"))
}
