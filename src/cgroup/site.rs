//! Where a leaf may be: as asked, below the caller's cgroup, or beside it.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{
    Leaf, controllers, levels,
    levels::{Obstacle, grant},
    limits, may_make,
};
use crate::{
    error::{Code, Warning},
    plan::resources::{Absent, Write},
};

/// Where a leaf may be.
pub(super) struct Site<'a> {
    pub(super) mount: &'a Path,
    /// The caller's own cgroup.
    pub(super) own: &'a Path,
    /// What config.json names.
    pub(super) asked: Option<PathBuf>,
    pub(super) default_name: &'a str,
    /// What systemd divides is left to it, because there is another way.
    pub(super) spares: bool,
}

impl Site<'_> {
    /// Any place will do.
    pub(super) fn unlimited(self, writes: Vec<Write>) -> (Option<Leaf>, Vec<Warning>) {
        let fallback = self.own.join(self.default_name);
        let is_asked = self.asked.as_deref().is_some_and(may_make);
        let directory = self.asked.clone().filter(|_| is_asked).or(Some(fallback).filter(|path| may_make(path)));
        if let Some(directory) = directory {
            return (Some(Leaf { directory, is_asked, writes, ..Leaf::default() }), Vec::new());
        }
        let what = "no cgroup of its own: limits and pause are not available to this container";
        let no_leaf = self
            .asked
            .map(|asked| Warning::new(Code::NoCgroup, format!("{what}, because {asked:?} cannot be made by you")));
        let unset = limits::unset(&writes);
        (None, no_leaf.into_iter().chain(unset).collect())
    }

    /// A place that has the controllers: the one that is asked for; else below the caller's cgroup, if nobody lives
    /// there, beside it, if that is the caller's to divide, or below it when only pura lives there and can make room.
    pub(super) fn limited(&self, limit: &Write, writes: &[Write]) -> crate::error::Result<Leaf> {
        let (first, second, is_asked) = self.places();
        let leaf = |directory: &Path, vacates| {
            self.granted(directory, writes, &limit.absent, vacates).map(|leaf| Leaf {
                is_asked,
                writes: writes.to_vec(),
                ..leaf
            })
        };
        let obstacle = match leaf(&first, false) {
            Ok(leaf) => return Ok(leaf),
            Err(obstacle) => obstacle,
        };
        let own_pid = i32::try_from(std::process::id()).unwrap_or_default();
        if !is_asked
            && obstacle.is_only(own_pid)
            && let Ok(leaf) = leaf(&first, true)
        {
            return Ok(leaf);
        }
        if let Some(Ok(leaf)) = second.map(|second| leaf(&second, false)) {
            return Ok(leaf);
        }
        Err(obstacle.refuse(limit, writes, &self.own.to_string_lossy()))
    }

    /// The first of the same places that has most of the controllers.
    pub(super) fn best(&self, writes: &[Write]) -> Option<Leaf> {
        let (first, second, is_asked) = self.places();
        let own_pid = i32::try_from(std::process::id()).unwrap_or_default();
        let is_alone = || levels::above(&first, self.mount).last().is_some_and(|level| level.processes == [own_pid]);
        let makes_room = Some(&first).filter(|_| !is_asked && is_alone());
        let all = [
            Some((&first, false)),
            makes_room.map(|directory| (directory, true)),
            second.as_ref().map(|second| (second, false)),
        ];
        let leaves = all
            .into_iter()
            .rev()
            .flatten()
            .filter_map(|(directory, vacates)| self.granted(directory, writes, &Absent::Refuse, vacates).ok());
        let best = leaves.max_by_key(|leaf| leaf.controllers.len())?;
        Some(Leaf { is_asked, writes: writes.to_vec(), ..best })
    }

    /// Where a leaf with limits is looked for, and whether that is asked for.
    fn places(&self) -> (PathBuf, Option<PathBuf>, bool) {
        let below = self.own.join(self.default_name);
        let beside = self.own.parent().filter(|_| self.own != self.mount).map(|parent| parent.join(self.default_name));
        match self.asked.clone().filter(|asked| may_make(asked)) {
            Some(asked) => (asked, None, true),
            None => (below, beside.filter(|beside| may_make(beside) && !(self.spares && is_systemds(beside))), false),
        }
    }

    /// The leaf with the controllers of all lines of one kind, and of those that warn where that is possible.
    fn granted(&self, directory: &Path, writes: &[Write], kind: &Absent, vacates: bool) -> Result<Leaf, Obstacle> {
        let mut levels = levels::above(directory, self.mount);
        let left = levels.last_mut().filter(|_| vacates).map(|last| {
            last.processes.clear();
            last.directory.clone()
        });
        if !may_make(directory) {
            return Err(Obstacle::not_ours(directory));
        }
        let mut wanted = controllers(writes, kind);
        let mut enables = grant(&levels, &wanted)?;
        for controller in [Absent::Warn, Absent::Wish].iter().flat_map(|optional| controllers(writes, optional)) {
            let more: Vec<_> = wanted.iter().cloned().chain([controller]).collect();
            if let Ok(granted) = grant(&levels, &more) {
                (wanted, enables) = (more, granted);
            }
        }
        let directory = directory.to_owned();
        Ok(Leaf { directory, controllers: wanted, enables, vacates: left, ..Leaf::default() })
    }
}

/// Whether systemd divides the cgroup that this one would be in: a slice, or the top of a user's. It takes back the
/// controllers that its own units do not need, `systemd.resource-control(5)`, and the limits with them.
fn is_systemds(beside: &Path) -> bool {
    let above = beside.parent().and_then(Path::file_name).map(OsStr::as_bytes).unwrap_or_default();
    above.ends_with(b".slice") || above.starts_with(b"user@")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_and_the_top_of_a_session_are_systemds_and_no_others() {
        for above in ["/user.slice/user-1.slice", "/a/app.slice", "/user.slice/user-1.slice/user@1.service"] {
            assert!(is_systemds(&Path::new(above).join("pura-c1.1")), "{above}");
        }
        for above in ["/", "/tests", "/user.slice/delegated", "/a.slice/b.service", "/a.slice/b.scope"] {
            assert!(!is_systemds(&Path::new(above).join("pura-c1.1")), "{above}");
        }
    }
}
