//! Idmapped mounts: `mount_setattr(2)`, config.md "Mounts". The kernel wants power over the filesystem and over the user
//! namespace whose maps are used, so who makes that namespace depends on whose the filesystem is.

use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType as Kind};

use super::Entry;
use crate::{
    error::{Code, Result},
    host::ids::{self, Extent},
    plan::{Input, MappedTree, Op, Slot, Target, draft::Draft, ids::UserNamespace, options::Options},
};

const CAP_SYS_ADMIN: u8 = 21;

impl Draft<'_> {
    /// The slot of a tree that the parent maps before clone: it has power over filesystems that the container has none of.
    pub(super) fn mapped_by_parent(
        &mut self,
        entry: Entry<'_>,
        options: &Options,
        source: &Path,
        recursive: bool,
    ) -> Result<Option<Slot>> {
        if !asks(entry, options) || !self.parent_maps() {
            return Ok(None);
        }
        if options.source_itself {
            return Err(entry.refuse(Code::MountOption, "a link itself cannot be idmapped"));
        }
        let [uids, gids] = self.outer_maps(entry, options)?.map(|extents| ids::lines(&extents));
        let (path, kind, place) = (source.to_owned(), self.filesystem_of(entry), entry.place());
        let tree = MappedTree { path, recursive, all: options.id_map == Some(true), uids, gids, kind, place };
        self.input(Input::Mapped(tree)).map(Some)
    }

    /// Maps the detached tree of a bind, unless the parent has.
    pub(super) fn map_bind(&mut self, entry: Entry<'_>, options: &Options, tree: Slot) -> Result<()> {
        if asks(entry, options) && !self.parent_maps() { self.map_inside(entry, options, tree) } else { Ok(()) }
    }

    /// Maps a filesystem that was just mounted: by a mapped copy on top of it, because only what is detached can be.
    pub(super) fn map_new(&mut self, entry: Entry<'_>, options: &Options) -> Result<()> {
        if !asks(entry, options) {
            return Ok(());
        }
        // The container's own map changes nothing on a filesystem of the container's own.
        let [uids, gids] = explicit(entry, options)?;
        if uids.is_none() && gids.is_none() {
            return self.own_maps(entry).map(drop);
        }
        self.find(entry, Target::Directory)?;
        self.step_for(Op::CloneMount { mount: Slot::TARGET, recursive: false, into: Slot::TREE }, entry.place());
        self.map_inside(entry, options, Slot::TREE)?;
        self.find(entry, Target::Directory)?;
        let path = self.text(entry.kind())?;
        self.step_for(Op::MoveMount { tree: Slot::TREE, path, on: Slot::TARGET, recursive: false }, entry.place());
        Ok(())
    }

    /// Maps a detached tree with a namespace that init makes, below its own.
    fn map_inside(&mut self, entry: Entry<'_>, options: &Options, tree: Slot) -> Result<()> {
        // The process that makes the namespace could be looked into from another container's.
        if !self.is_new(Kind::Pid) {
            return Err(entry.refuse(Code::IdMap, "an idmapped mount needs a pid namespace of the container's own"));
        }
        let [uids, gids] = self.outer_maps(entry, options)?;
        let own = match (&self.plan.ids.user_namespace, &self.plan.ids.maps) {
            (UserNamespace::Reuse | UserNamespace::Inherit, _) | (_, None) => None,
            (_, Some(maps)) => Some(maps),
        };
        let uids = ids::lines(&inner(entry, &uids, own.map(|maps| &*maps.uids))?);
        let gids = ids::lines(&inner(entry, &gids, own.map(|maps| &*maps.gids))?);
        let (uids, gids, kind) = (self.text(uids)?, self.text(gids)?, self.filesystem_of(entry));
        let kind = self.text(kind)?;
        self.step_for(Op::MakeIdMap { uids, gids, into: Slot::TARGET }, entry.place());
        let recursive = options.id_map == Some(true);
        self.step_for(Op::MapIds { tree, namespace: Slot::TARGET, recursive, kind }, entry.place());
        Ok(())
    }

    /// Whether the parent has power over filesystems of the host, and the container has not.
    fn parent_maps(&self) -> bool {
        let is_shared = matches!(self.plan.ids.user_namespace, UserNamespace::Reuse | UserNamespace::Inherit);
        !is_shared && self.host.caller.has(CAP_SYS_ADMIN)
    }

    fn filesystem_of(&self, entry: Entry<'_>) -> String {
        let found = self.host.named.filesystems.iter().find(|(index, _)| *index == entry.index);
        found.map_or_else(|| entry.kind().to_owned(), |(_, kind)| kind.clone())
    }

    /// Both maps, from the ids on the filesystem to ids as the caller counts: those of the mount, else the container's.
    fn outer_maps(&self, entry: Entry<'_>, options: &Options) -> Result<[Vec<Extent>; 2]> {
        let [uids, gids] = explicit(entry, options)?;
        if let (Some(Lines { extents: uids, is_relative: false }), Some(Lines { extents: gids, is_relative: false })) =
            (&uids, &gids)
        {
            return Ok([uids.clone(), gids.clone()]);
        }
        let [users, groups] = self.own_maps(entry)?;
        let choose = |lines: Option<Lines>, own: Vec<Extent>| match lines {
            None => Ok(own),
            Some(lines) if !lines.is_relative => Ok(lines.extents),
            Some(lines) => lines.extents.iter().try_fold(Vec::new(), |mut all, extent| {
                all.extend(outer(entry, extent, &own)?);
                Ok(all)
            }),
        };
        Ok([choose(uids, users)?, choose(gids, groups)?])
    }

    /// The container's maps, as the caller counts.
    fn own_maps(&self, entry: Entry<'_>) -> Result<[Vec<Extent>; 2]> {
        match (&self.plan.ids.user_namespace, &self.plan.ids.maps) {
            (UserNamespace::Inherit, _) => {
                Err(entry.refuse(Code::IdMap, "\"idmap\" has neither mappings nor a user namespace to take them from"))
            }
            (_, None) => {
                Err(entry.refuse(Code::IdMap, "the maps of the joined user namespace cannot be seen from here"))
            }
            (UserNamespace::Reuse, Some(maps)) => {
                let same = |extents: &[Extent]| {
                    extents.iter().map(|extent| Extent { outside: extent.inside, ..*extent }).collect()
                };
                Ok([same(&maps.uids), same(&maps.gids)])
            }
            (_, Some(maps)) => Ok([maps.uids.clone(), maps.gids.clone()]),
        }
    }
}

/// A map that the mount brings along.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lines {
    extents: Vec<Extent>,
    /// The ids outside are ids of the container.
    is_relative: bool,
}

/// Whether the mount is to be idmapped: Podman leaves the word away when it sends mappings.
pub(super) fn asks(entry: Entry<'_>, options: &Options) -> bool {
    options.id_map.is_some() || [entry.mount.uid_mappings(), entry.mount.gid_mappings()].iter().any(|map| map.is_some())
}

/// The maps of the mount itself: its fields, or the lines in its options.
fn explicit(entry: Entry<'_>, options: &Options) -> Result<[Option<Lines>; 2]> {
    let of = |map: &Option<Vec<LinuxIdMapping>>| {
        let extent =
            |line: &LinuxIdMapping| Extent { inside: line.container_id(), outside: line.host_id(), count: line.size() };
        let lines = map.as_ref().filter(|map| !map.is_empty());
        lines.map(|lines| Lines { extents: lines.iter().map(extent).collect(), is_relative: false })
    };
    let [mut uids, mut gids] = [of(entry.mount.uid_mappings()), of(entry.mount.gid_mappings())];
    for part in options.id_map_lines.iter().flat_map(|text| text.split(';')).filter(|part| !part.is_empty()) {
        let refuse = || entry.refuse(Code::MountOption, format!("{part:?} is not uids=FILE-HOST-COUNT or gids=..."));
        let (name, lines) = part.split_once('=').ok_or_else(refuse)?;
        let lines = parse(lines).ok_or_else(refuse)?;
        match name {
            "uids" => uids = Some(lines),
            "gids" => gids = Some(lines),
            _ => return Err(refuse()),
        }
    }
    for extent in [&uids, &gids].into_iter().flatten().flat_map(|lines| &lines.extents) {
        let ends = [extent.inside, extent.outside].map(|first| first.checked_add(extent.count));
        if extent.count == 0 || ends.contains(&None) {
            return Err(entry.refuse(Code::BadMap, "a line of its maps is empty, or goes beyond the last id"));
        }
    }
    Ok([uids, gids])
}

/// `0-1000-1#1-100000-10`, with a leading `@` for ids of the container on the right.
fn parse(text: &str) -> Option<Lines> {
    let (is_relative, text) = text.strip_prefix('@').map_or((false, text), |text| (true, text));
    let extent = |line: &str| {
        let mut numbers = line.split('-').map(|number| number.parse().ok());
        let extent = Extent { inside: numbers.next()??, outside: numbers.next()??, count: numbers.next()?? };
        numbers.next().is_none().then_some(extent)
    };
    Some(Lines { extents: text.split('#').map(extent).collect::<Option<_>>()?, is_relative })
}

/// A line whose right side counts inside, with the right side as the caller counts.
fn outer(entry: Entry<'_>, line: &Extent, own: &[Extent]) -> Result<Vec<Extent>> {
    let table: Vec<_> = own.iter().map(|own| (own.inside, own.outside, own.count)).collect();
    pieces(line, &table).ok_or_else(|| unmapped(entry, line))
}

/// Lines whose right side the caller counts, with the right side as the container counts; `own` is none where both
/// count alike.
fn inner(entry: Entry<'_>, lines: &[Extent], own: Option<&[Extent]>) -> Result<Vec<Extent>> {
    let Some(own) = own else { return Ok(lines.to_vec()) };
    let table: Vec<_> = own.iter().map(|own| (own.outside, own.inside, own.count)).collect();
    let mut all = Vec::new();
    for line in lines {
        all.extend(pieces(line, &table).ok_or_else(|| unmapped(entry, line))?);
    }
    Ok(all)
}

fn unmapped(entry: Entry<'_>, line: &Extent) -> crate::error::Error {
    let Extent { inside, outside, count } = line;
    entry.refuse(
        Code::IdMap,
        format!("its line {inside} {outside} {count} leads to ids that the container's user namespace does not map"),
    )
}

/// A line with its right side looked up in a table of (from, to, count), in as many pieces as that takes.
fn pieces(line: &Extent, table: &[(u32, u32, u32)]) -> Option<Vec<Extent>> {
    let mut found = Vec::new();
    let mut done = 0;
    while done < line.count {
        let wanted = line.outside.checked_add(done)?;
        let of = table.iter().find_map(|(from, to, count)| {
            let offset = wanted.checked_sub(*from).filter(|offset| offset < count)?;
            Some((to.checked_add(offset)?, count - offset))
        });
        let (outside, room) = of?;
        let count = room.min(line.count - done);
        found.push(Extent { inside: line.inside.checked_add(done)?, outside, count });
        done += count;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(inside: u32, outside: u32, count: u32) -> Extent {
        Extent { inside, outside, count }
    }

    #[test]
    fn lines_in_options_are_read() {
        let lines = |extents: &[Extent], is_relative| Some(Lines { extents: extents.to_vec(), is_relative });
        assert_eq!(parse("0-1-10"), lines(&[extent(0, 1, 10)], false));
        assert_eq!(parse("@0-1-10#10-11-5"), lines(&[extent(0, 1, 10), extent(10, 11, 5)], true));
        for bad in ["", "0-1", "0-1-2-3", "a-1-2", "0-1-2#", "-1-2-3"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_line_is_split_where_the_container_s_map_is() {
        let table = [(1000, 0, 1), (100_000, 1, 100)];
        assert_eq!(pieces(&extent(5, 1000, 1), &table), Some(vec![extent(5, 0, 1)]));
        assert_eq!(pieces(&extent(0, 100_050, 50), &table), Some(vec![extent(0, 51, 50)]));
        assert_eq!(pieces(&extent(0, 100_050, 51), &table), None);
        let adjacent = [(0, 1000, 1), (1, 100_000, 10)];
        assert_eq!(pieces(&extent(7, 0, 3), &adjacent), Some(vec![extent(7, 1000, 1), extent(8, 100_000, 2)]));
    }
}
