//! The container's cgroup, on the parent's side: where it is, and the leaf that init is born in.
//!
//! Version 2 only. The leaf is made before clone and entered by it: moving a process costs milliseconds, because the
//! kernel waits for an RCU grace period. Limits are in it before init is.

pub mod devices;
pub mod entrance;
pub mod freezer;
mod leaf;
mod levels;
pub mod limits;
mod members;
pub mod owner;
pub mod place;
pub mod scope;
mod site;
pub mod stats;

pub use leaf::{make, open, remove_made};
pub use members::{Watch, event, is_other, kill, may_enter, processes, remove, signal_all, wait_empty};

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{AccessFlags, access},
};
use oci_spec::runtime::{LinuxResources, Spec};

use crate::{
    cli::{CgroupDriver, Limiting},
    error::{Code, Error, Result, Warning, line},
    host::Host,
    plan::resources::{self, Absent, Now, Rules, Write},
};
use levels::{Enable, grant};
use site::Site;

/// Where the container's processes will be, and what holds there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaf {
    /// The directory, below the mount point of cgroup2.
    pub directory: PathBuf,
    /// config.json names it: what is there may be others'.
    pub is_asked: bool,
    /// The lines for its files.
    pub writes: Vec<Write>,
    /// Which devices may be opened; none: all.
    pub devices: Option<Rules>,
    /// Who gets it, when that is not the caller.
    pub owner: Option<u32>,
    /// Controllers that directories made for it give on.
    controllers: Vec<String>,
    /// Controllers that directories above it have to give on first.
    enables: Vec<Enable>,
    /// A cgroup that pura leaves for a child of its own, because only one without processes gives controllers on.
    vacates: Option<PathBuf>,
}

/// Chooses the leaf, or none; nothing is made. A cgroup that is asked for and cannot be had is a warning, a limit an
/// error, because it would be silently absent.
pub fn choose(
    spec: &Spec,
    host: &Host,
    driver: CgroupDriver,
    default_name: &str,
    limiting: Limiting,
) -> Result<(Option<Leaf>, Vec<Warning>)> {
    let (mut leaf, mut warnings) = place(spec, host, driver, default_name, limiting)?;
    let is_enforced = devices::are_enforced(&host.caller, host.initial_userns);
    let rules = resources(spec).filter(|_| is_enforced).and_then(Rules::of);
    match &mut leaf {
        Some(leaf) => leaf.devices = rules,
        None => warnings.extend(rules.map(|_| devices::unfiltered("the container has no cgroup of its own"))),
    }
    Ok((leaf, warnings))
}

fn resources(spec: &Spec) -> Option<&LinuxResources> {
    spec.linux().as_ref().and_then(|linux| linux.resources().as_ref())
}

/// The lines that the config asks for.
fn wanted(spec: &Spec, limiting: Limiting) -> Result<Vec<Write>> {
    let read = resources(spec).map(|resources| resources::writes(resources, &Now::default()));
    let mut writes = read.transpose()?.unwrap_or_default();
    if limiting == Limiting::BestEffort {
        let limits = writes.iter_mut().filter(|write| write.absent == Absent::Refuse);
        limits.for_each(|write| write.absent = Absent::Wish);
    }
    Ok(writes)
}

fn place(
    spec: &Spec,
    host: &Host,
    driver: CgroupDriver,
    default_name: &str,
    limiting: Limiting,
) -> Result<(Option<Leaf>, Vec<Warning>)> {
    let writes = wanted(spec, limiting)?;
    let limit = writes.iter().find(|write| write.absent == Absent::Refuse).cloned();
    if let Some(limit) = &limit {
        require_version_2(limit, host.cgroup.unified)?;
    }
    let mount = host.cgroup.mount.as_deref().filter(|_| driver != CgroupDriver::Disabled);
    let Some(mount) = mount else {
        return match limit {
            Some(limit) => Err(limits::cannot(&limit, Code::Controller, "--cgroup-manager disabled makes no cgroup")),
            None => Ok((None, limits::unset(&writes))),
        };
    };
    let own = mount.join(host.cgroup.own.trim_start_matches('/'));
    // systemd's form, slice:prefix:name, names no directory that is ours to make.
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let asked = path
        .filter(|path| !path.as_os_str().is_empty() && !path.as_os_str().as_bytes().contains(&b':'))
        .map(|path| asked(path, mount, &own))
        .transpose()?;
    let spares = driver == CgroupDriver::Unset;
    let site = Site { mount, own: &own, asked, default_name, spares };
    if let Some(limit) = limit {
        return site.limited(&limit, &writes).map(|leaf| (Some(leaf), Vec::new()));
    }
    // A limit of 0 takes the controller where it can be had, and is content without.
    let wish = writes.iter().find(|write| write.absent == Absent::Warn).filter(|_| host.cgroup.unified);
    if let Some(leaf) = wish.and_then(|wish| site.limited(wish, &writes).ok()) {
        return Ok((Some(leaf), Vec::new()));
    }
    let wishes = host.cgroup.unified && writes.iter().any(|write| write.absent == Absent::Wish);
    if let Some(leaf) = wishes.then(|| site.best(&writes)).flatten() {
        return Ok((Some(leaf), Vec::new()));
    }
    Ok(site.unlimited(writes))
}

/// The name of the leaf when the config names none. Ids are unique only in one state directory, hence its inode.
pub fn default_name(id: &str, state_inode: u64) -> String {
    format!("pura-{id}.{state_inode:x}")
}

/// Refuses a limit where version 2 is not alone: its controllers may be the other one's.
pub fn require_version_2(limit: &Write, is_unified: bool) -> Result<()> {
    if is_unified {
        return Ok(());
    }
    let why = "this host has cgroup v1 or a hybrid, on which pura sets no limits";
    Err(limits::cannot(limit, Code::CgroupV1, why)
        .fix("boot with systemd.unified_cgroup_hierarchy=1; for Podman, pids_limit=0 in containers.conf"))
}

/// What gives a container a cgroup of its own.
pub fn remedy(host: &crate::host::Cgroup) -> &'static str {
    match (&host.mount, host.unified) {
        (_, true) => "start it where a cgroup is delegated: systemd-run --user --scope -p Delegate=yes -- pura ...",
        // systemd delegates nothing there that an ordinary user could use.
        (Some(_), false) => {
            "boot with systemd.unified_cgroup_hierarchy=1; without that, call pura from a cgroup below \
             /sys/fs/cgroup/unified that root has given you"
        }
        (None, false) => "boot with systemd.unified_cgroup_hierarchy=1: this host has no cgroup v2",
    }
}

/// The controllers of the lines of one kind, each once.
fn controllers(writes: &[Write], absent: &Absent) -> Vec<String> {
    let mut all: Vec<String> = writes
        .iter()
        .filter(|write| write.absent == *absent)
        .filter_map(Write::controller)
        .map(str::to_owned)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Lets the cgroup of a container that runs have the controllers of these lines.
pub fn extend(directory: &Path, mount: &Path, writes: &[Write]) -> Result<()> {
    let has = levels::words(&directory.join("cgroup.controllers"));
    let wanted: Vec<_> =
        controllers(writes, &Absent::Refuse).into_iter().filter(|controller| !has.contains(controller)).collect();
    let Some(limit) =
        writes.iter().find(|write| write.controller().is_some_and(|name| wanted.iter().any(|w| w == name)))
    else {
        return Ok(());
    };
    let own = directory.to_string_lossy();
    let enables =
        grant(&levels::above(directory, mount), &wanted).map_err(|obstacle| obstacle.refuse(limit, writes, &own))?;
    enables.iter().try_for_each(leaf::enable)
}

/// Whether a cgroup gives controllers on: then no process can be born in it, `cgroups(7)`.
pub fn is_divided(directory: &Path) -> bool {
    !levels::words(&directory.join("cgroup.subtree_control")).is_empty()
}

/// Lets a cgroup that stays be of use to others again.
pub fn leave(directory: &Path) {
    freezer::leave(directory);
    drop(devices::put(directory, None, false));
}

/// The directory that linux.cgroupsPath means: from the hierarchy's root, or from the caller's cgroup.
fn asked(path: &Path, mount: &Path, own: &Path) -> Result<PathBuf> {
    let refuse = |why: &str| Err(Error::new(Code::Field, "read linux.cgroupsPath", format!("{path:?} {why}")));
    if path.components().any(|part| part == Component::ParentDir) {
        return refuse("contains \"..\"");
    }
    let (start, below) = path.strip_prefix("/").map_or((own, path), |below| (mount, below));
    if below.components().all(|part| part == Component::CurDir) {
        return refuse("names no cgroup of its own");
    }
    Ok(start.join(below))
}

/// Whether the caller may make the directory: the nearest ancestor that exists is theirs to write.
fn may_make(directory: &Path) -> bool {
    for ancestor in directory.ancestors() {
        match access(ancestor, AccessFlags::W_OK) {
            // The leaf itself exists: it can be used when it is empty and ours.
            Ok(()) => return true,
            Err(Errno::ENOENT) => {}
            Err(_) => return false,
        }
    }
    false
}

/// The lines for the files, for a plan.
fn describe(writes: &[Write], f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    for write in writes {
        let Write { file, value, place, .. } = write;
        let instead = write.instead.as_ref().map(|(other, what)| format!(", or {other} to {what}")).unwrap_or_default();
        let why = if write.absent == Absent::Skip { ", if it is there" } else { "" };
        line(f, format_args!("  set {file} to {value}{instead}{why} (linux.resources.{place})"))?;
    }
    Ok(())
}

impl std::fmt::Display for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        line(f, format_args!("cgroup: {}", self.directory.display()))?;
        if let Some(left) = &self.vacates {
            line(f, format_args!("  leave {} for a cgroup below it", left.display()))?;
        }
        for enable in &self.enables {
            line(f, format_args!("  give on {} from {}", enable.controllers.join(" "), enable.directory.display()))?;
        }
        describe(&self.writes, f)?;
        if let Some(rules) = &self.devices {
            line(f, format_args!("  {rules}, but those of every container (linux.resources.devices)"))?;
        }
        if let Some(owner) = self.owner {
            line(f, format_args!("  give it to user {owner}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Cgroup;

    fn chosen(resources: &str, unified: bool, driver: CgroupDriver) -> Result<(Option<Leaf>, Vec<Warning>)> {
        let json = format!(r#"{{"ociVersion":"1.0.2","linux":{{"resources":{resources},"cgroupsPath":"a"}}}}"#);
        let cgroup = Cgroup { mount: Some("/dev/null/none".into()), unified, own: "/own".to_owned() };
        let host = Host { cgroup, ..Host::default() };
        choose(&serde_json::from_str(&json).unwrap(), &host, driver, "pura-c1.1", Limiting::Strict)
    }

    #[test]
    fn a_limit_needs_version_2_alone_a_driver_and_a_place() {
        let limit = r#"{"pids":{"limit":5}}"#;
        let code = |unified, driver| chosen(limit, unified, driver).unwrap_err().code();
        assert_eq!(code(false, CgroupDriver::Cgroupfs), Code::CgroupV1);
        assert_eq!(code(true, CgroupDriver::Disabled), Code::Controller);
        assert_eq!(code(true, CgroupDriver::Cgroupfs), Code::Controller);
    }

    #[test]
    fn what_asks_for_nothing_is_content_with_no_cgroup_and_a_limit_of_0_warns() {
        for resources in [r#"{"memory":{"limit":-1},"cpu":{"quota":0}}"#, "{}"] {
            for unified in [true, false] {
                let (leaf, warnings) = chosen(resources, unified, CgroupDriver::Disabled).unwrap();
                assert!(leaf.is_none() && warnings.is_empty(), "{resources}");
            }
        }
        let (_, warnings) = chosen(r#"{"pids":{"limit":0}}"#, false, CgroupDriver::Disabled).unwrap();
        assert_eq!(warnings.iter().map(Warning::code).collect::<Vec<_>>(), [Code::Controller]);
    }

    #[test]
    fn a_path_is_below_the_hierarchy_or_below_the_caller() {
        let (mount, own) = (Path::new("/m"), Path::new("/m/own"));
        let of = |path: &str| asked(Path::new(path), mount, own).ok();
        assert_eq!((of("/a/b"), of("a/b")), (Some("/m/a/b".into()), Some("/m/own/a/b".into())));
        for path in ["../a", "/a/../b", "/", ".", "//", "/.", "a/.."] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn what_helps_depends_on_the_hierarchies_of_the_host() {
        for (mount, unified, wanted, other) in [
            (Some("/sys/fs/cgroup"), true, "systemd-run", "unified"),
            (Some("/sys/fs/cgroup/unified"), false, "below /sys/fs/cgroup/unified", "systemd-run"),
            (None, false, "this host has no cgroup v2", "systemd-run"),
        ] {
            let host = Cgroup { mount: mount.map(PathBuf::from), unified, own: "/".to_owned() };
            let remedy = remedy(&host);
            assert!(remedy.contains(wanted) && !remedy.contains(other), "{remedy}");
        }
    }

    #[test]
    fn device_rules_are_moot_unless_real_root_calls() {
        let warns = |json: &str, initial_userns: bool, effective: u64| {
            let spec = serde_json::from_str(&format!(r#"{{"ociVersion":"1.0.2","linux":{{"resources":{json}}}}}"#));
            let caller = crate::host::Caller { effective, ..Default::default() };
            let host = Host { caller, initial_userns, ..Host::default() };
            let (_, warnings) =
                choose(&spec.unwrap(), &host, CgroupDriver::Disabled, "pura-c1.1", Limiting::Strict).unwrap();
            warnings.iter().any(|warning| warning.code() == Code::DeviceRules)
        };
        let deny = r#"{"devices":[{"allow":false,"access":"rwm"}]}"#;
        assert!(warns(deny, true, 1 << 21));
        assert!(!warns(deny, false, 1 << 21) && !warns(deny, true, 0));
        for open in [r#"{"devices":[]}"#, "{}", r#"{"devices":[{"allow":true,"access":"rwm"}]}"#] {
            assert!(!warns(open, true, u64::MAX), "{open}");
        }
    }
}
