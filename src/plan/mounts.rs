//! The mounts of config.json, in its order.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use libc::MOUNT_ATTR_RDONLY;
use oci_spec::runtime::{LinuxNamespaceType as Kind, Mount};

use super::{
    Op, Slot, Target,
    draft::Draft,
    ids::{Ids, UserNamespace},
    options::{self, Options},
    paths::inside,
};
use crate::{
    error::{Code, Error, Result, Warning, plain},
    host,
};

/// After how many mounts the descriptors of finished ones are closed: two system calls, against a limit on open files.
const SWEEP_EVERY: usize = 16;

/// A mount with its position, for errors.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    index: usize,
    mount: &'a Mount,
}

impl<'a> Entry<'a> {
    fn place(self) -> String {
        format!("mounts[{}]", self.index)
    }

    fn kind(self) -> &'a str {
        self.mount.typ().as_deref().unwrap_or_default()
    }

    fn options(self) -> Options {
        options::parse(self.mount.options().as_deref().unwrap_or_default())
    }

    fn is_bind(self, options: &Options) -> bool {
        options.bind || matches!(self.kind(), "bind" | "rbind")
    }

    /// What is attempted, for an error that is known before anything is.
    fn what(self) -> String {
        format!("mount {} on {:?}", self.kind(), self.mount.destination())
    }

    fn refuse(self, code: Code, why: impl Into<String>) -> Error {
        Error::new(code, self.what(), why.into()).at(self.place())
    }
}

impl<'a> Draft<'a> {
    fn entries(&self) -> Vec<Entry<'a>> {
        let mounts = self.spec.mounts().as_deref().unwrap_or_default();
        mounts.iter().enumerate().map(|(index, mount)| Entry { index, mount }).collect()
    }

    /// Opens the sources of binds before the ids change, where they will: container root may not pass what the caller
    /// may. Elsewhere each is opened when it is needed. For each mount, the slot of its source.
    pub(super) fn open_sources(&mut self) -> Result<Vec<Option<Slot>>> {
        let changes = self.owner().is_some();
        let mut slots = Vec::new();
        for entry in self.entries() {
            let options = entry.options();
            let early = changes && entry.is_bind(&options) && !options.remount;
            slots.push(if early { Some(self.open_source(entry, &options, None)?) } else { None });
        }
        Ok(slots)
    }

    /// All mounts of the config, in its order: later ones may lie on earlier ones.
    pub(super) fn mounts(&mut self, sources: &[Option<Slot>]) -> Result<()> {
        for entry in self.entries() {
            if entry.index > 0 && entry.index % SWEEP_EVERY == 0 {
                self.step(Op::Sweep { kept: u16::MAX });
            }
            self.mount(entry, sources.get(entry.index).copied().flatten())?;
        }
        Ok(())
    }

    fn mount(&mut self, entry: Entry<'_>, source: Option<Slot>) -> Result<()> {
        let options = entry.options();
        if let Some(word) = &options.refused {
            return Err(
                entry.refuse(Code::Unsupported, format!("option {word:?} is not supported by this version of pura"))
            );
        }
        if inside(entry.mount.destination()) == Path::new("/") {
            return Err(entry.refuse(Code::Field, "the destination is the root itself"));
        }
        if options.copy_up {
            return Err(
                entry.refuse(Code::Unsupported, "option \"tmpcopyup\" is not supported by this version of pura")
            );
        }
        if options.remount {
            return self.remount(entry, &options);
        }
        if entry.is_bind(&options) {
            return self.bind(entry, &options, source);
        }
        match entry.kind() {
            "" => Err(entry.refuse(Code::Field, "it has no type, and its options no bind")),
            "sysfs" if !self.owns_network() => {
                self.warn(Warning::new(
                    Code::SysfsBound,
                    "/sys is the host's, read-only, because the container has no network namespace of its own",
                ));
                self.bind_host("/sys", entry, &options)
            }
            "cgroup" | "cgroup2" => self.cgroup(entry, &options),
            _ => self.filesystem(entry, &options),
        }
    }

    /// Mounts a new filesystem.
    fn filesystem(&mut self, entry: Entry<'_>, options: &Options) -> Result<()> {
        let kind = entry.kind();
        let data = self.data(entry, options);
        let target = if matches!(kind, "proc" | "sysfs") { Target::RealDirectory } else { Target::Directory };
        self.find(entry, target)?;
        let has_mode = data.iter().any(|word| word.starts_with("mode="));
        let data = self.text(data.join(","))?;
        let mut flags = options.mount_flags();
        let late = flags & libc::MS_RDONLY != 0 && kind == "tmpfs" && self.has_more_inside(entry);
        if late {
            flags &= !libc::MS_RDONLY;
        }
        let op = if kind == "tmpfs" && !has_mode {
            Op::MountTmpfs { flags, data, on: Slot::TARGET }
        } else {
            let source = entry.mount.source().as_deref().unwrap_or(Path::new(kind));
            Op::Mount {
                kind: self.text(kind)?,
                source: self.text(source.as_os_str().as_bytes())?,
                flags,
                data,
                on: Slot::TARGET,
            }
        };
        self.step_for(op, entry.place());
        if late {
            let path = self.text(entry.mount.destination().as_os_str().as_bytes())?;
            let into = self.slot()?;
            self.step_for(Op::FindTarget { path, target: Target::Present, into }, entry.place());
            self.late_read_only.push((into, entry.place()));
        }
        self.propagate(entry, options, true)
    }

    /// Whether something has still to be made in a new, empty filesystem: devices, a mount point, the working directory.
    fn has_more_inside(&self, entry: Entry<'_>) -> bool {
        let own = inside(entry.mount.destination());
        let is_below = |path: &Path| path != own && path.starts_with(&own);
        let cwd = self.spec.process().as_ref().is_some_and(|process| is_below(&inside(process.cwd())));
        let later = self.entries().into_iter().skip(entry.index + 1);
        cwd || Path::new("/dev") == own || later.into_iter().any(|other| is_below(&inside(other.mount.destination())))
    }

    /// The options for the filesystem, without ids that the container does not have.
    fn data(&mut self, entry: Entry<'_>, options: &Options) -> Vec<String> {
        let mut data = options.data.clone();
        if entry.kind() == "devpts" {
            // The kernel refuses an unmapped id with EINVAL, and a single-id map has no 5 (tty).
            data.retain(|word| self.keeps_id(word));
        }
        if entry.kind() == "overlay"
            && self.plan.ids.user_namespace != UserNamespace::Inherit
            && !data.iter().any(|word| word == "userxattr")
        {
            // trusted.* attributes are closed to a user namespace.
            data.push("userxattr".to_owned());
        }
        data.extend(self.mount_label(entry.kind()));
        data
    }

    fn keeps_id(&mut self, word: &str) -> bool {
        let Some((name @ ("gid" | "uid"), id)) = word.split_once('=') else { return true };
        let Ok(id) = id.parse::<u32>() else { return true };
        let mapped = if name == "gid" { self.plan.ids.is_gid_mapped(id) } else { self.plan.ids.is_uid_mapped(id) };
        if !mapped {
            self.warn(Warning::new(
                Code::DevptsId,
                format!("devpts option {word:?} was dropped, because the id is not mapped"),
            ));
        }
        mapped
    }

    /// The container's cgroup: the filesystem itself from a cgroup namespace of its own, else the host's, read-only.
    fn cgroup(&mut self, entry: Entry<'_>, options: &Options) -> Result<()> {
        if !self.is_new(Kind::Cgroup) || self.host.cgroup.mount.is_none() {
            return self.bind_host("/sys/fs/cgroup", entry, options);
        }
        self.find(entry, Target::Directory)?;
        let (kind, source, data) = (self.text("cgroup2")?, self.text("cgroup")?, self.text("")?);
        self.step_for(Op::Mount { kind, source, flags: options.mount_flags(), data, on: Slot::TARGET }, entry.place());
        self.propagate(entry, options, true)
    }

    /// Binds a tree of the host, read-only with all below it, in place of a filesystem that cannot be mounted.
    fn bind_host(&mut self, path: &str, entry: Entry<'_>, options: &Options) -> Result<()> {
        let path = self.text(path)?;
        self.step_for(Op::OpenTree { path, recursive: true, into: Slot::TREE }, entry.place());
        let set = options.set | options.set_all | MOUNT_ATTR_RDONLY;
        self.step_for(Op::SetAttributes { mount: Slot::TREE, set, clear: 0, recursive: true }, entry.place());
        self.find(entry, Target::Directory)?;
        self.step_for(Op::MoveMount { tree: Slot::TREE, path, on: Slot::TARGET }, entry.place());
        Ok(())
    }

    fn bind(&mut self, entry: Entry<'_>, options: &Options, opened: Option<Slot>) -> Result<()> {
        if !options.data.is_empty() {
            let why = format!("a bind takes no filesystem option: {:?}", options.data.join(","));
            return Err(entry.refuse(Code::MountOption, why));
        }
        let tree = match opened {
            Some(slot) => slot,
            None => self.open_source(entry, options, Some(Slot::TREE))?,
        };
        // While the tree is detached: no mount is writable, or executable, for a moment.
        self.attributes(tree, entry, options);
        let is_directory = self.source_kind(entry) == Some(host::Kind::Directory);
        self.find(entry, if is_directory { Target::Directory } else { Target::File })?;
        let path = self.source(entry)?;
        let path = self.text(path.as_os_str().as_bytes())?;
        self.step_for(Op::MoveMount { tree, path, on: Slot::TARGET }, entry.place());
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
            Some(host::Kind::Missing) => return refuse(Code::BindSource, format!("{source:?} does not exist")),
            Some(host::Kind::Refused(errno)) => {
                return refuse(Code::PathBlocked, plain(nix::errno::Errno::from_raw(errno)));
            }
            Some(host::Kind::Directory | host::Kind::File) | None => {}
        }
        let path = self.text(source.as_os_str().as_bytes())?;
        let recursive = options.recursive || entry.kind() == "rbind";
        let into = into.map_or_else(|| self.slot(), Ok)?;
        self.step_for(Op::OpenTree { path, recursive, into }, entry.place());
        Ok(into)
    }

    fn source(&self, entry: Entry<'_>) -> Result<PathBuf> {
        let source = entry.mount.source().as_deref().filter(|source| !source.as_os_str().is_empty());
        let source = source.ok_or_else(|| entry.refuse(Code::Field, "a bind needs a source"))?;
        Ok(self.order.bundle.join(source))
    }

    fn source_kind(&self, entry: Entry<'_>) -> Option<host::Kind> {
        self.host.named.sources.get(entry.index).copied().flatten()
    }

    fn find(&mut self, entry: Entry<'_>, target: Target) -> Result<()> {
        let path = self.text(entry.mount.destination().as_os_str().as_bytes())?;
        self.step_for(Op::FindTarget { path, target, into: Slot::TARGET }, entry.place());
        Ok(())
    }

    fn remount(&mut self, entry: Entry<'_>, options: &Options) -> Result<()> {
        self.find(entry, Target::Present)?;
        if options.bind {
            self.attributes(Slot::TARGET, entry, options);
        } else {
            let data = self.text(options.data.join(","))?;
            let (flags, clear) = (options.mount_flags(), options.cleared_flags());
            self.step_for(Op::Remount { mount: Slot::TARGET, flags, clear, data }, entry.place());
        }
        self.propagation(Slot::TARGET, entry, options);
        Ok(())
    }

    /// What the words say of the mount alone, then what they say of all below it too.
    fn attributes(&mut self, mount: Slot, entry: Entry<'_>, options: &Options) {
        for (set, clear, recursive) in [(options.set, options.clear, false), (options.set_all, options.clear_all, true)]
        {
            if set | clear != 0 {
                // The kernel wants what it sets not to be cleared, except for the enumeration of access times.
                self.step_for(Op::SetAttributes { mount, set, clear, recursive }, entry.place());
            }
        }
    }

    /// Sets the propagation of a new filesystem, whose root has to be found again: the slot has what it covers.
    fn propagate(&mut self, entry: Entry<'_>, options: &Options, find: bool) -> Result<()> {
        if options.propagation.is_none() || self.is_private(options) {
            return Ok(());
        }
        if find {
            self.find(entry, Target::Present)?;
        }
        self.propagation(Slot::TARGET, entry, options);
        Ok(())
    }

    fn propagation(&mut self, mount: Slot, entry: Entry<'_>, options: &Options) {
        if self.is_private(options) {
            return;
        }
        if let Some(flags) = options.propagation {
            self.step_for(Op::PropagateMount { mount, flags }, entry.place());
        }
    }

    /// Whether the wish for a private mount is fulfilled already: everything in the namespace was made private.
    fn is_private(&self, options: &Options) -> bool {
        let root =
            self.spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
        let all_private = matches!(root, "" | "private" | "rprivate" | "unbindable" | "runbindable");
        all_private && options.propagation.is_none_or(|flags| flags & libc::MS_PRIVATE != 0)
    }
}

impl Ids {
    /// Whether a user id of the container means something outside.
    pub fn is_uid_mapped(&self, id: u32) -> bool {
        self.maps.as_ref().is_none_or(|maps| maps.uids.iter().any(|extent| extent.outside_of(id).is_some()))
    }

    /// Whether a group id of the container means something outside.
    pub fn is_gid_mapped(&self, id: u32) -> bool {
        self.maps.as_ref().is_none_or(|maps| maps.gids.iter().any(|extent| extent.outside_of(id).is_some()))
    }
}

#[cfg(test)]
mod tests {
    use crate::{cli::UsernsMode, plan::sample};
    use serde_json::{Value, json};

    /// What is done for the mounts, a line each; or the error.
    fn steps(mounts: &Value) -> Vec<String> {
        let config = json!({
            "ociVersion": "1.3.0", "root": {"path": "r"}, "mounts": mounts,
            "linux": {"namespaces": [{"type": "mount"}], "rootfsPropagation": "rslave"}
        });
        let spec = serde_json::from_value(config).unwrap();
        match sample::compile(&spec, sample::user(), UsernsMode::Single, false, 0) {
            Ok(plan) => {
                let steps = plan.ops().iter().zip(&plan.places).filter(|(_, place)| place.starts_with("mounts["));
                steps.map(|(op, _)| plan.describe(*op)).collect()
            }
            Err(error) => vec![error.to_string()],
        }
    }

    fn one(destination: &str, kind: &str, options: &[&str]) -> Value {
        json!([{"destination": destination, "type": kind, "source": "/s", "options": options}])
    }

    #[test]
    fn the_root_itself_is_no_destination_however_it_is_written() {
        for destination in ["/", "//", ".", "/..", "/x/..", "x/./.."] {
            let steps = steps(&one(destination, "tmpfs", &[])).concat();
            assert!(steps.contains("the destination is the root itself"), "{destination}: {steps}");
        }
    }

    #[test]
    fn a_remount_makes_nothing_and_clears_what_it_is_asked_to() {
        assert_eq!(
            steps(&one("/x", "none", &["remount", "bind", "ro", "rnosuid"])),
            [r#"find "/x""#, "set mount attributes: +ro", "set mount attributes: +nosuid, recursively"]
        );
        assert_eq!(
            steps(&one("/x", "none", &["remount", "rw", "noatime", "rslave"])),
            [r#"find "/x""#, "remount (noatime), without ro,noatime,relatime", "make the mount slave"]
        );
    }

    #[test]
    fn a_read_only_tmpfs_stays_writable_until_what_it_holds_is_made() {
        let tmpfs =
            |destination: &str| json!({"destination": destination, "type": "tmpfs", "options": ["ro", "mode=700"]});
        assert_eq!(
            steps(&json!([tmpfs("/a"), tmpfs("a/b/")])),
            [
                r#"find the directory "/a""#,
                "mount tmpfs (mode=700)",
                r#"find "/a""#,
                r#"find the directory "a/b/""#,
                "mount tmpfs (ro,mode=700)",
                "set mount attributes: +ro"
            ]
        );
    }

    #[test]
    fn a_propagation_is_set_on_the_mount_itself() {
        let steps = steps(&one("/etc/f", "none", &["bind", "rprivate"]));
        assert_eq!(steps.last().unwrap(), "make the mount private", "{steps:?}");
    }
}
