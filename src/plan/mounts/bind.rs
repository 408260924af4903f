//! Binds: trees of the host, and what stands in for a filesystem that cannot be mounted.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{Entry, target};
use crate::{
    error::{Code, Error, Result, plain},
    host,
    plan::{Op, Slot, Target, draft::Draft, options::Options},
};

impl<'a> Draft<'a> {
    /// Opens the sources of binds before the ids change, where they will: container root may not pass what the caller
    /// may. Elsewhere each is opened when it is needed. For each mount, the slot of its source.
    pub(in crate::plan) fn open_sources(&mut self) -> Vec<Option<Slot>> {
        let changes = self.owner().is_some();
        let mut slots = Vec::new();
        for entry in self.entries() {
            let options = entry.options();
            let is_link = options.copy_link && self.link(entry).is_some();
            let early = changes && entry.is_bind(&options) && !options.remount && !is_link;
            let opened = if early { self.open_source(entry, &options, None).map(Some) } else { Ok(None) };
            slots.push(*opened.as_ref().unwrap_or(&None));
            self.keep(opened.map(drop));
        }
        slots
    }

    /// Binds a tree of the host, and all below it, in place of a filesystem that cannot be mounted.
    pub(super) fn bind_host(&mut self, path: &str, set: u64, entry: Entry<'_>, options: &Options) -> Result<()> {
        let path = self.text(path)?;
        self.step_for(Op::OpenTree { path, recursive: true, into: Slot::TREE }, entry.place());
        let set = set | options.set | options.set_all;
        if set != 0 {
            self.step_for(
                Op::SetAttributes { mount: Slot::TREE, set, clear: 0, recursive: true, detached: true },
                entry.place(),
            );
        }
        self.find(entry, Target::RealDirectory)?;
        self.step_for(Op::MoveMount { tree: Slot::TREE, path, on: Slot::TARGET, recursive: true }, entry.place());
        Ok(())
    }

    pub(super) fn bind(&mut self, entry: Entry<'_>, options: &Options, opened: Option<Slot>) -> Result<()> {
        if !options.data.is_empty() {
            let why = format!("a bind takes no filesystem option: {:?}", options.data.join(","));
            return Err(entry.refuse(Code::MountOption, why));
        }
        if options.copy_link
            && let Some((_, says)) = self.link(entry)
        {
            return self.copy_link(entry, says);
        }
        let tree = match opened {
            Some(slot) => slot,
            None => self.open_source(entry, options, Some(Slot::TREE))?,
        };
        // Before anything shows the tree: the kernel maps only what nobody can have opened.
        self.map_bind(entry, options, tree)?;
        // While the tree is detached: no mount is writable, or executable, for a moment.
        self.attributes(tree, entry, options, true);
        let is_directory = self.source_kind(entry) == Some(host::Kind::Directory);
        self.find(entry, target(options, if is_directory { Target::Directory } else { Target::File }))?;
        let path = self.source(entry)?;
        let path = self.text(path.as_os_str().as_bytes())?;
        let recursive = is_recursive(entry, options);
        self.step_for(Op::MoveMount { tree, path, on: Slot::TARGET, recursive }, entry.place());
        if options.propagation.is_some() {
            self.propagation(tree, entry, options);
        }
        Ok(())
    }

    /// Takes the source of a bind, into a slot of its own or the given one.
    fn open_source(&mut self, entry: Entry<'_>, options: &Options, into: Option<Slot>) -> Result<Slot> {
        let source = self.source(entry)?;
        let refuse = |code, why: String| {
            Err(Error::new(code, format!("bind {source:?} on {:?}", entry.mount.destination()), why).at(entry.place()))
        };
        match self.source_kind(entry) {
            Some(host::Kind::Missing) => {
                let missing = refuse(Code::BindSource, format!("{source:?} does not exist"));
                return missing.map_err(|error: Error| error.fix("make it, or drop the mount"));
            }
            Some(host::Kind::Refused(errno)) => {
                return refuse(Code::PathBlocked, plain(nix::errno::Errno::from_raw(errno)));
            }
            Some(host::Kind::Directory | host::Kind::File) | None => {}
        }
        let recursive = is_recursive(entry, options);
        if let Some(slot) = self.mapped_by_parent(entry, options, &source, recursive)? {
            return Ok(slot);
        }
        let path = self.text(source.as_os_str().as_bytes())?;
        let into = into.map_or_else(|| self.slot(), Ok)?;
        let op = if options.source_itself && self.link(entry).is_some() {
            Op::OpenLink { path, into }
        } else {
            Op::OpenTree { path, recursive, into }
        };
        self.step_for(op, entry.place());
        Ok(into)
    }

    /// Makes the link that the source is, instead of a mount.
    fn copy_link(&mut self, entry: Entry<'_>, says: &Path) -> Result<()> {
        let destination = entry.mount.destination();
        let (Some(directory), Some(name)) = (destination.parent(), destination.file_name()) else {
            return Err(entry.refuse(Code::Field, "the destination has no name"));
        };
        let directory =
            self.text(if directory.as_os_str().is_empty() { b"/" } else { directory.as_os_str().as_bytes() })?;
        let (says, name) = (self.text(says.as_os_str().as_bytes())?, self.text(name.as_bytes())?);
        self.step_for(Op::CopyLink { says, directory, name }, entry.place());
        Ok(())
    }

    /// What the source says, when it is a link and that matters.
    fn link(&self, entry: Entry<'_>) -> Option<(usize, &'a Path)> {
        let host: &'a host::Host = self.host;
        host.named.links.iter().find(|(index, _)| *index == entry.index).map(|(index, says)| (*index, says.as_path()))
    }

    fn source(&self, entry: Entry<'_>) -> Result<PathBuf> {
        let source = entry.mount.source().as_deref().filter(|source| !source.as_os_str().is_empty());
        let source = source.ok_or_else(|| entry.refuse(Code::Field, "a bind needs a source"))?;
        Ok(self.order.bundle.join(source))
    }

    fn source_kind(&self, entry: Entry<'_>) -> Option<host::Kind> {
        self.host.named.sources.get(entry.index).copied().flatten()
    }
}

/// Whether all that is mounted below the source comes along.
fn is_recursive(entry: Entry<'_>, options: &Options) -> bool {
    options.recursive || entry.kind() == "rbind"
}
