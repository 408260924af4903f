//! Where a container's processes will be: in a leaf that pura makes, in a scope that systemd makes, or where the caller is.

use std::path::PathBuf;

use oci_spec::runtime::Spec;

use super::{
    Leaf, choose,
    scope::{self, Scope},
};
use crate::{
    cli::{CgroupDriver, Limiting},
    error::{Result, Warning},
    host::Host,
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
        let of_leaf = |(leaf, warnings)| (Self { leaf, scope: None }, warnings);
        if driver != CgroupDriver::Systemd {
            return choose(spec, host, driver, names.1, limiting).map(of_leaf);
        }
        let is_unified =
            host.cgroup.unified.then_some(()).ok_or_else(|| "this host has cgroup v1 or a hybrid".to_owned());
        match is_unified.and_then(|()| systemd::reach()) {
            Ok(manager) => scope::choose(spec, host, manager, names, limiting)
                .map(|scope| (Self { leaf: None, scope: Some(scope) }, Vec::new())),
            Err(why) => scope::without(&why, spec, host, names.1, limiting).map(of_leaf),
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

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.leaf, &self.scope) {
            (Some(leaf), _) => leaf.fmt(f),
            (None, Some(scope)) => scope.fmt(f),
            (None, None) => writeln!(f, "cgroup: the caller's"),
        }
    }
}
