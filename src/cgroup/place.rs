//! Where a container's processes will be: in a leaf that pura makes, in a scope that systemd makes, or where the caller is.

use std::{os::unix::ffi::OsStrExt as _, path::PathBuf};

use oci_spec::runtime::Spec;

use super::{
    Leaf, choose,
    scope::{self, Scope},
    wanted,
};
use crate::{
    cli::{CgroupDriver, Limiting},
    error::{Code, Result, Warning},
    host::Host,
    plan::resources::Absent,
    systemd,
};

/// A leaf, a scope, or neither.
#[derive(Debug, Default)]
pub struct Place {
    /// What pura makes.
    pub leaf: Option<Leaf>,
    /// What systemd makes.
    pub scope: Option<Scope>,
}

impl Place {
    /// Chooses it, by the driver; a scope where systemd can be reached. The names are the id and that of a leaf.
    pub fn of(
        spec: &Spec,
        host: &Host,
        driver: CgroupDriver,
        names: (&str, &str),
        limiting: Limiting,
    ) -> Result<(Self, Vec<Warning>)> {
        match driver {
            CgroupDriver::Systemd => Self::by_systemd(spec, host, names, limiting),
            CgroupDriver::Unset if may_be_scope(spec, host, limiting)? && systemd::is_there() => {
                // A cgroup of the caller's own needs nobody.
                match choose(spec, host, driver, names.1, limiting) {
                    Err(error) if is_want_of_place(error.code()) => {
                        Self::instead(error.why(), spec, host, names, limiting)
                    }
                    chosen => chosen.map(Self::of_leaf),
                }
            }
            CgroupDriver::Unset | CgroupDriver::Cgroupfs => {
                choose(spec, host, CgroupDriver::Cgroupfs, names.1, limiting).map(Self::of_leaf)
            }
            CgroupDriver::Disabled => choose(spec, host, driver, names.1, limiting).map(Self::of_leaf),
        }
    }

    fn of_leaf((leaf, warnings): (Option<Leaf>, Vec<Warning>)) -> (Self, Vec<Warning>) {
        (Self { leaf, scope: None }, warnings)
    }

    /// A scope, because that is asked for.
    fn by_systemd(spec: &Spec, host: &Host, names: (&str, &str), limiting: Limiting) -> Result<(Self, Vec<Warning>)> {
        let is_unified =
            host.cgroup.unified.then_some(()).ok_or_else(|| "this host has cgroup v1 or a hybrid".to_owned());
        match is_unified.and_then(|()| systemd::reach()) {
            Ok(manager) => scope::choose(spec, host, manager, names, limiting)
                .map(|scope| (Self { leaf: None, scope: Some(scope) }, Vec::new())),
            Err(why) => scope::without(&why, spec, host, names.1, limiting).map(Self::of_leaf),
        }
    }

    /// A scope, because the limits cannot be had otherwise; without one, what there is, and else the error that says both.
    fn instead(
        why: &str,
        spec: &Spec,
        host: &Host,
        names: (&str, &str),
        limiting: Limiting,
    ) -> Result<(Self, Vec<Warning>)> {
        match systemd::reach() {
            Ok(manager) => {
                let mut scope = scope::choose(spec, host, manager, names, limiting)?;
                scope.because = Some(why.to_owned());
                Ok((Self { leaf: None, scope: Some(scope) }, Vec::new()))
            }
            Err(unreached) => choose(spec, host, CgroupDriver::Cgroupfs, names.1, limiting)
                .map(Self::of_leaf)
                .map_err(|error| error.also(&format!("and systemd cannot be asked for a scope, because {unreached}"))),
        }
    }

    /// Says who gets it, when that is not the caller.
    pub fn give_to(&mut self, owner: Option<u32>) {
        if let Some(leaf) = &mut self.leaf {
            leaf.owner = owner;
        }
        if let Some(scope) = &mut self.scope {
            scope.owner = owner;
        }
    }

    /// No cgroup of its own.
    pub fn is_callers(&self) -> bool {
        self.leaf.is_none() && self.scope.is_none()
    }

    /// The directory, as far as can be said before it is there.
    pub fn directory(&self) -> Option<PathBuf> {
        self.scope.as_ref().map(Scope::expected).or_else(|| self.leaf.as_ref().map(|leaf| leaf.directory.clone()))
    }

    /// Ends the helper that systemd is spoken to by: this program is about to be executed anew.
    pub fn hang_up(&self) {
        if let Some(scope) = &self.scope {
            scope.hang_up();
        }
    }
}

/// Whether systemd may be asked although nobody has said so: for a limit that has to hold, where the config leaves the
/// place open, and on a host whose limits systemd sets.
fn may_be_scope(spec: &Spec, host: &Host, limiting: Limiting) -> Result<bool> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let is_open = path.is_none_or(|path| path.as_os_str().is_empty() || path.as_os_str().as_bytes().contains(&b':'));
    if !is_open || !host.cgroup.unified || limiting != Limiting::Strict {
        return Ok(false);
    }
    Ok(wanted(spec, limiting)?.iter().any(|write| write.absent == Absent::Refuse))
}

/// Whether another place could have what this one has not.
fn is_want_of_place(code: Code) -> bool {
    matches!(code, Code::Controller | Code::CgroupOccupied | Code::CgroupRefused)
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.leaf, &self.scope) {
            (Some(leaf), _) => leaf.fmt(f),
            (None, Some(scope)) => scope.fmt(f),
            (None, None) => writeln!(f, "cgroup: the caller's"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_asks_systemd_unless_a_limit_has_to_hold_in_a_place_that_is_left_open() {
        let limit = r#""resources":{"pids":{"limit":5}}"#;
        for (linux, unified, limiting, wanted) in [
            (limit.to_owned(), true, Limiting::Strict, true),
            (format!(r#"{limit},"cgroupsPath":"""#), true, Limiting::Strict, true),
            (format!(r#"{limit},"cgroupsPath":"a.slice:b:c""#), true, Limiting::Strict, true),
            (format!(r#"{limit},"cgroupsPath":"/a/b""#), true, Limiting::Strict, false),
            (format!(r#"{limit},"cgroupsPath":"a""#), true, Limiting::Strict, false),
            (limit.to_owned(), false, Limiting::Strict, false),
            (limit.to_owned(), true, Limiting::BestEffort, false),
            (r#""resources":{"pids":{"limit":0},"memory":{"limit":-1}}"#.to_owned(), true, Limiting::Strict, false),
            (String::new(), true, Limiting::Strict, false),
        ] {
            let spec = serde_json::from_str(&format!(r#"{{"ociVersion":"1.3.0","linux":{{{linux}}}}}"#)).unwrap();
            let mut host = Host::default();
            host.cgroup.unified = unified;
            assert_eq!(may_be_scope(&spec, &host, limiting).unwrap(), wanted, "{linux} {unified} {limiting:?}");
        }
    }
}
