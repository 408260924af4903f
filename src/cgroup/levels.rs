//! The cgroups above a leaf: which controllers they give on, and what has to be done that they give on more.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use super::limits::cannot;
use crate::{
    error::{Code, Error},
    plan::resources::Write,
};

/// A cgroup above the leaf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) directory: PathBuf,
    /// `cgroup.controllers`: those that reach it.
    has: Vec<String>,
    /// `cgroup.subtree_control`: those that it gives on.
    gives: Vec<String>,
    /// The caller may change what it gives on.
    is_ours: bool,
    /// `cgroup.type`; empty for the root of the hierarchy, which is exempt from all rules.
    kind: String,
    /// Who lives in it.
    pub(super) processes: Vec<i32>,
}

/// Controllers that a cgroup has to give on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Enable {
    pub(super) directory: PathBuf,
    pub(super) controllers: Vec<String>,
}

/// Why a leaf cannot have the controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Not even the first level has it.
    Absent { controller: String, has: Vec<String> },
    /// A cgroup does not give it on, and is not the caller's.
    Withheld { controller: String, directory: PathBuf, gives: Vec<String> },
    /// Nothing can be made there.
    NotOurs(PathBuf),
    /// Processes live in a cgroup that would have to give it on.
    Busy { directory: PathBuf, processes: Vec<i32> },
    /// A threaded cgroup has no such children.
    Threaded(PathBuf),
}

/// What exists of the cgroups between the mount point and the leaf, from the top.
pub(super) fn above(leaf: &Path, mount: &Path) -> Vec<Level> {
    let mut levels: Vec<_> = leaf
        .ancestors()
        .skip(1)
        .take_while(|directory| directory.starts_with(mount))
        .filter(|directory| directory.is_dir())
        .map(level)
        .collect();
    levels.reverse();
    levels
}

fn level(directory: &Path) -> Level {
    let subtree = directory.join("cgroup.subtree_control");
    let text = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    Level {
        directory: directory.to_owned(),
        has: words(&directory.join("cgroup.controllers")),
        gives: words(&subtree),
        is_ours: access(&subtree, AccessFlags::W_OK).is_ok(),
        kind: text("cgroup.type").trim().to_owned(),
        processes: text("cgroup.procs").lines().filter_map(|line| line.parse().ok()).collect(),
    }
}

/// The words of a file; none when it cannot be read.
pub(super) fn words(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// What has to be enabled, from the top, so that a child of the last level has these controllers.
pub(super) fn grant(levels: &[Level], wanted: &[String]) -> Result<Vec<Enable>, Obstacle> {
    let mut enables: Vec<Enable> = Vec::new();
    for level in levels {
        let lacking: Vec<_> = wanted.iter().filter(|controller| !level.gives.contains(controller)).cloned().collect();
        let Some(first) = lacking.first() else { continue };
        let reaches = |controller: &String| {
            level.has.contains(controller) || enables.iter().any(|enable| enable.controllers.contains(controller))
        };
        if let Some(controller) = lacking.iter().find(|controller| !reaches(controller)).cloned() {
            return Err(Obstacle::Absent { controller, has: level.has.clone() });
        }
        let directory = level.directory.clone();
        if !level.is_ours {
            return Err(Obstacle::Withheld { controller: first.clone(), directory, gives: level.gives.clone() });
        }
        if !level.kind.is_empty() && level.kind != "domain" {
            return Err(Obstacle::Threaded(directory));
        }
        if !level.kind.is_empty() && !level.processes.is_empty() {
            return Err(Obstacle::Busy { directory, processes: level.processes.clone() });
        }
        enables.push(Enable { directory, controllers: lacking });
    }
    Ok(enables)
}

impl Obstacle {
    pub(super) fn not_ours(directory: &Path) -> Self {
        Self::NotOurs(directory.parent().unwrap_or(directory).to_owned())
    }

    /// Whether one process alone is in the way.
    pub(super) fn is_only(&self, pid: i32) -> bool {
        matches!(self, Self::Busy { processes, .. } if processes == &[pid])
    }

    /// The error of the line that needs what cannot be had. `own` is where the caller is.
    pub(super) fn refuse(&self, limit: &Write, all: &[Write], own: &str) -> Error {
        let of = |controller: &str| all.iter().find(|write| write.controller() == Some(controller)).unwrap_or(limit);
        let delegate = if own.contains("/user@") {
            "[Service] Delegate=cpu cpuset io memory pids in /etc/systemd/system/user@.service.d/delegate.conf, then \
             systemctl daemon-reload, and log in again"
        } else {
            "systemd-run --user --scope -p Delegate=yes -- pura ..., or docs/cgroups.md"
        };
        let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(" ") };
        match self {
            Self::Absent { controller, has } => {
                let why = format!("there is no {controller} controller in cgroup v2 here (have: {})", list(has));
                cannot(of(controller), Code::Controller, why)
                    .fix("no cgroup_disable= and no cgroup v1 on the kernel's command line; in a container, the outer one has to delegate it")
            }
            Self::Withheld { controller, directory, gives } => {
                let why = format!(
                    "the {controller} controller is not delegated to you ({} gives on: {})",
                    directory.display(),
                    list(gives)
                );
                cannot(of(controller), Code::Controller, why).fix(delegate)
            }
            Self::NotOurs(directory) => {
                let name = limit.controller().unwrap_or("cgroup");
                let why = format!("no {name} controller is delegated to you: {} is not yours", directory.display());
                cannot(limit, Code::Controller, why).fix(delegate)
            }
            Self::Busy { directory, processes } => {
                let pids: Vec<_> = processes.iter().take(8).map(ToString::to_string).collect();
                let why = format!(
                    "processes live in {} ({}), and only a cgroup without any gives controllers on",
                    directory.display(),
                    pids.join(" ")
                );
                cannot(limit, Code::CgroupOccupied, why).fix("systemd-run --user --scope -p Delegate=yes -- pura ...")
            }
            Self::Threaded(directory) => {
                let why = format!("{} is threaded, and such a cgroup holds no containers", directory.display());
                cannot(limit, Code::CgroupRefused, why).fix("run pura in another cgroup")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    fn at(directory: &str, has: &str, gives: &str, is_ours: bool, processes: &[i32]) -> Level {
        let kind = if directory == "/" { String::new() } else { "domain".to_owned() };
        let (has, gives) = (list(has), list(gives));
        Level { directory: directory.into(), has, gives, is_ours, kind, processes: processes.to_vec() }
    }

    fn granted(levels: &[Level], wanted: &str) -> Result<Vec<(String, String)>, Obstacle> {
        let pair = |enable: Enable| (enable.directory.display().to_string(), enable.controllers.join(" "));
        grant(levels, &list(wanted)).map(|all| all.into_iter().map(pair).collect())
    }

    #[test]
    fn what_is_not_given_on_yet_is_enabled_from_the_first_level_that_is_ours() {
        let levels = [
            at("/", "cpu memory pids", "cpu memory pids", false, &[1]),
            at("/u", "cpu memory pids", "memory", true, &[]),
            at("/u/a", "memory", "", true, &[]),
        ];
        assert_eq!(granted(&levels, ""), Ok(Vec::new()));
        assert_eq!(granted(&levels, "memory"), Ok(vec![("/u/a".into(), "memory".into())]));
        let both = vec![("/u".into(), "pids".into()), ("/u/a".into(), "memory pids".into())];
        assert_eq!(granted(&levels, "memory pids"), Ok(both));
    }

    #[test]
    fn each_obstacle_is_told_apart() {
        let top = at("/", "cpu memory", "memory", false, &[1, 2]);
        let own = at("/u", "memory", "", true, &[7, 8]);
        let levels = [top.clone(), own.clone()];
        assert!(matches!(granted(&levels, "io"), Err(Obstacle::Absent { controller, .. }) if controller == "io"));
        assert!(
            matches!(granted(&levels, "cpu"), Err(Obstacle::Withheld { directory, .. }) if directory == Path::new("/"))
        );
        assert!(matches!(granted(&levels, "memory"), Err(Obstacle::Busy { processes, .. }) if processes == [7, 8]));
        let threaded = Level { kind: "threaded".to_owned(), ..own };
        assert_eq!(granted(&[top, threaded], "memory"), Err(Obstacle::Threaded("/u".into())));
        // The root of the hierarchy may have both.
        assert!(granted(&[at("/", "cpu", "", true, &[1])], "cpu").is_ok());
    }

    #[test]
    fn only_the_one_who_is_alone_may_make_room() {
        let busy = |processes: &[i32]| Obstacle::Busy { directory: "/u".into(), processes: processes.to_vec() };
        assert!(busy(&[7]).is_only(7));
        assert!(!busy(&[7, 8]).is_only(7) && !busy(&[8]).is_only(7) && !Obstacle::NotOurs("/u".into()).is_only(7));
    }

    #[test]
    fn the_fix_is_the_one_of_where_the_caller_is() {
        let limit = Write {
            file: "cpu.max".into(),
            value: "1".into(),
            place: "cpu.quota".into(),
            absent: crate::plan::resources::Absent::Refuse,
            instead: None,
        };
        let withheld =
            Obstacle::Withheld { controller: "cpu".into(), directory: "/u".into(), gives: list("memory pids") };
        let line = withheld.refuse(&limit, &[], "/user.slice/user-1.slice/user@1.service/app.slice").to_string();
        assert!(line.contains("gives on: memory pids") && line.contains("user@.service.d/delegate.conf"), "{line}");
        let outside = withheld.refuse(&limit, &[], "/user.slice/user-1.slice/session-1.scope").to_string();
        assert!(outside.contains("systemd-run --user") && outside.ends_with("[PURA-461]"), "{outside}");
    }
}
