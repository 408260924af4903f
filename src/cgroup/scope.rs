//! The scope of a container, which systemd makes and init is put into: `--systemd-cgroup`. Where the unit is and what it has is
//! decided in `plan::unit`; here it is started, entered, limited and stopped.

use std::{
    cell::{Cell, RefCell},
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use super::{
    Leaf, controllers, devices,
    levels::{Enable, Obstacle, words},
    limits, members, owner,
};
use crate::{
    cli::{CgroupDriver, Limiting},
    error::{Code, Context as _, Error, Result, Warning},
    host::Host,
    plan::{
        resources::{Absent, Rules, Write},
        unit::{self, Facts, Unit},
    },
    systemd::{self, Manager},
    teardown,
};

/// A scope that is to be made, or has been. Dropped before [`Scope::keep`], it is stopped.
#[derive(Debug)]
pub struct Scope {
    /// What systemd is asked for.
    pub unit: Unit,
    /// The lines for the files of its cgroup.
    writes: Vec<Write>,
    /// Which devices may be opened; none: all.
    devices: Option<Rules>,
    /// Who gets the container's cgroup, when that is not the caller.
    pub owner: Option<u32>,
    /// Why it is no leaf, when nobody has asked for a scope.
    pub because: Option<String>,
    mount: PathBuf,
    /// Needed until the unit runs.
    manager: RefCell<Option<Manager>>,
    is_started: Cell<bool>,
}

/// Chooses the scope; nothing is made. What its systemd cannot give is an error, as for a leaf.
pub fn choose(
    spec: &Spec,
    host: &Host,
    manager: Manager,
    (id, default_name): (&str, &str),
    limiting: Limiting,
) -> Result<Scope> {
    let writes = super::wanted(spec, limiting)?;
    let unit = unit::decide(spec, manager.facts(), id, default_name, &writes)?;
    let mount = host.cgroup.mount.clone().unwrap_or_default();
    require_controllers(&writes, &mount, manager.facts())?;
    let is_enforced = devices::are_enforced(&host.caller, host.initial_userns);
    let rules = super::resources(spec).filter(|_| is_enforced).and_then(Rules::of);
    let manager = RefCell::new(Some(manager));
    let is_started = Cell::new(false);
    Ok(Scope { unit, writes, devices: rules, owner: None, because: None, mount, manager, is_started })
}

/// The controllers that a systemd has are those of its own cgroup, as far as that can be seen.
fn require_controllers(writes: &[Write], mount: &Path, facts: &Facts) -> Result<()> {
    let top = mount.join(facts.cgroup.trim_start_matches('/'));
    let (kernel, own) = (words(&mount.join("cgroup.controllers")), words(&top.join("cgroup.controllers")));
    let wanted = controllers(writes, &Absent::Refuse);
    let lacking = |has: &[String]| wanted.iter().find(|controller| !has.contains(controller)).cloned();
    let obstacle = match (lacking(&kernel), lacking(&own), top.parent()) {
        (Some(controller), ..) if !kernel.is_empty() => Obstacle::Absent { controller, has: kernel },
        (_, Some(controller), Some(above)) if facts.is_user && !own.is_empty() => {
            Obstacle::Withheld { controller, directory: above.to_owned(), gives: own }
        }
        _ => return Ok(()),
    };
    let limit = writes.iter().find(|write| write.absent == Absent::Refuse);
    limit.map_or(Ok(()), |limit| Err(obstacle.refuse(limit, writes, &facts.cgroup)))
}

/// The leaf of a container whose systemd cannot be reached: pura's own, with a warning; an error where a limit needs one
/// that cannot be had.
pub fn without(
    why: &str,
    spec: &Spec,
    host: &Host,
    default_name: &str,
    limiting: Limiting,
) -> Result<(Option<Leaf>, Vec<Warning>)> {
    match super::choose(spec, host, CgroupDriver::Cgroupfs, default_name, limiting) {
        Ok((leaf, mut warnings)) => {
            let instead = match &leaf {
                Some(leaf) => format!("its cgroup is {}, below no scope", leaf.directory.display()),
                None => "it has no cgroup of its own: limits and pause are not available".to_owned(),
            };
            let what = format!("systemd cannot be reached for the container, because {why}; {instead}");
            warnings.insert(0, Warning::new(Code::NoCgroup, what));
            Ok((leaf, warnings))
        }
        Err(error) if matches!(error.code(), Code::Controller | Code::CgroupOccupied | Code::CgroupRefused) => {
            let both = format!("systemd cannot be reached, because {why}; and without it, {}", error.why());
            Err(error
                .become_other(Code::Systemd, both)
                .fix("call from a session of systemd, or --cgroup-manager cgroupfs"))
        }
        Err(error) => Err(error),
    }
}

impl Scope {
    /// Ends the helper, before there is a unit.
    pub fn hang_up(&self) {
        drop(self.manager.take());
    }

    /// Where the container's processes will be, as far as can be said before they are.
    pub fn expected(&self) -> PathBuf {
        self.mount.join(&self.unit.cgroup).join(&self.unit.below)
    }

    /// Has init put into the scope, in which its limits hold then. The container's cgroup, and what could not be set.
    pub fn take_in(&self, init: Pid) -> Result<(PathBuf, Vec<Warning>)> {
        let mut manager = self.manager.take().ok_or_else(|| self.refused("it has been started already"))?;
        // From here on it may be there, whatever is answered.
        self.is_started.set(true);
        manager.start(&self.unit, init.as_raw().unsigned_abs()).inspect_err(|_| {
            // Another's unit of that name is not ours to stop.
            self.is_started.set(!manager.has_refused());
        })?;
        drop(manager);
        let directory = self.directory_of(init)?;
        // systemd gives on what it knows, and knows not all.
        super::extend(&directory, &self.mount, &self.writes)?;
        let mut unset = limits::apply(&directory, &self.writes)?;
        if let Some(rules) = &self.devices {
            let put = |program| devices::put(&directory, Some(&program), true);
            unset.extend(devices::load(rules).and_then(put).err());
        }
        let leaf = self.divide(&directory, init)?;
        self.owner.map_or(Ok(()), |owner| owner::give(&leaf, owner)).map(|()| (leaf, unset))
    }

    /// The cgroup of the scope, which init says that it is in: systemd's view of the hierarchy may be another one.
    fn directory_of(&self, init: Pid) -> Result<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap_or_default();
        let own = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let own = Path::new(own);
        if own.file_name().is_none_or(|name| name != self.unit.name.as_str()) {
            let why =
                format!("init is in /{} instead: systemd may be in another PID namespace than pura", own.display());
            return Err(self.refused(&why));
        }
        Ok(self.mount.join(own))
    }

    /// Moves init to the cgroup below the scope that the config asks for. The limits stay above.
    fn divide(&self, directory: &Path, init: Pid) -> Result<PathBuf> {
        let leaf = directory.join(&self.unit.below);
        if leaf == directory {
            return Ok(leaf);
        }
        let what = || format!("make the cgroup {}", leaf.display());
        fs::create_dir_all(&leaf).doing(Code::CgroupRefused, what)?;
        super::leaf::write_line(&leaf.join("cgroup.procs"), &init.to_string())
            .doing(Code::CgroupRefused, || format!("move init to the cgroup {}", leaf.display()))?;
        // Nobody is above any more.
        for level in
            leaf.ancestors().skip(1).take_while(|level| level.starts_with(directory)).collect::<Vec<_>>().iter().rev()
        {
            let given = words(&level.join("cgroup.controllers"));
            super::leaf::enable(&Enable { directory: level.to_path_buf(), controllers: given })?;
        }
        Ok(leaf)
    }

    fn refused(&self, why: &str) -> Error {
        Error::new(Code::Systemd, format!("start the systemd unit {}", self.unit.name), why.to_owned())
    }

    /// Leaves it to the verbs that follow.
    pub fn keep(self) {
        self.is_started.set(false);
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if self.is_started.get() {
            stop(&self.unit.name, &self.mount.join(&self.unit.cgroup));
        }
    }
}

/// Ends all that is in a scope, and waits until systemd has put it away.
fn stop(unit: &str, directory: &Path) {
    members::kill(directory);
    members::wait_empty(directory, teardown::LIMIT);
    put_away(unit);
}

/// Has systemd forget a scope in which nobody lives any more. Without an answer it does so by itself.
pub fn put_away(unit: &str) {
    if let Ok(mut manager) = systemd::reach() {
        drop(manager.stop(unit));
    }
}

/// Other limits for a scope that runs: systemd is told first, because it writes some of the files too, and less exactly. All
/// or none; that systemd could not be told is a warning.
pub fn change(unit: &str, directory: &Path, writes: &[Write]) -> Result<Vec<Warning>> {
    let before = limits::now(directory, writes);
    let told = tell(unit, writes);
    let changed = limits::change(directory, writes);
    if changed.is_err() && told.is_ok() {
        drop(tell(unit, &before));
        limits::put_back(directory, &before);
    }
    let untold = told.err().map(Error::into_warning);
    changed.map(|unset| unset.into_iter().chain(untold).collect())
}

fn tell(unit: &str, writes: &[Write]) -> Result<()> {
    let unreachable = |why| Error::new(Code::Systemd, format!("tell systemd of the new limits of {unit}"), why);
    let mut manager = systemd::reach().map_err(unreachable)?;
    let properties = unit::limits::properties(writes, manager.facts().version);
    if properties.is_empty() { Ok(()) } else { manager.set(unit, properties) }
}

/// The cgroup of the scope itself, which has the limits, when a container's cgroup may be below it.
pub fn of_leaf(leaf: &Path, unit: &str) -> PathBuf {
    let scope = leaf.ancestors().find(|above| above.file_name().is_some_and(|name| name == unit));
    scope.unwrap_or(leaf).to_owned()
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.unit.fmt(f)?;
        if let Some(why) = &self.because {
            writeln!(f, "  and not below the caller's own cgroup, because {why}")?;
        }
        super::describe(&self.writes, f)?;
        if let Some(rules) = &self.devices {
            writeln!(f, "  {rules}, but those of every container (linux.resources.devices)")?;
        }
        self.owner.map_or(Ok(()), |owner| writeln!(f, "  give it to user {owner}"))
    }
}
