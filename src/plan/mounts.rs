//! The mounts of config.json, in its order.

mod bind;
mod idmap;
mod joined;

use std::{os::unix::ffi::OsStrExt as _, path::Path};

use libc::MOUNT_ATTR_RDONLY;
use oci_spec::runtime::{LinuxNamespaceType as Kind, Mount};

use super::{
    Op, Slot, Target,
    draft::Draft,
    ids::{Ids, UserNamespace},
    options::{self, Options},
    paths::inside,
};
use crate::error::{Code, Error, Result, Warning};

/// What is bound of the host instead of a filesystem that may not be mounted.
const UNPRIVILEGED: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
const READ_ONLY: u64 = UNPRIVILEGED | MOUNT_ATTR_RDONLY;

/// After how many mounts the descriptors of finished ones are closed: two system calls, against a limit on open files.
pub(super) const SWEEP_EVERY: usize = 16;

/// The most bytes that a filesystem is given as options.
const LONGEST_DATA: usize = 4095;

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

    /// Refuses words that do not go with the kind of mount, or with each other.
    fn check(self, options: &Options) -> Result<()> {
        // Of more the kernel reads only the beginning, and says nothing: mount(2), a page.
        if options.data.join(",").len() > LONGEST_DATA {
            return Err(self.refuse(Code::MountOption, format!("its options are over {LONGEST_DATA} bytes")));
        }
        let is_bind = self.is_bind(options) && !options.remount;
        if options.copy_up && (is_bind || self.kind() != "tmpfs" || options.remount) {
            return Err(self.refuse(Code::MountOption, "option \"tmpcopyup\" is for a new tmpfs"));
        }
        for (has, word) in [(options.copy_link, "copy-symlink"), (options.source_itself, "src-nofollow")] {
            if has && !is_bind {
                return Err(self.refuse(Code::MountOption, format!("option {word:?} is for a bind")));
            }
        }
        if options.target_itself && (!is_bind && options.bind || options.remount || self.kind() == "proc") {
            return Err(self.refuse(Code::MountOption, "option \"dest-nofollow\" is for a new mount"));
        }
        if options.copy_link && (options.source_itself || options.target_itself) {
            let why = "option \"copy-symlink\" goes with neither \"src-nofollow\" nor \"dest-nofollow\"";
            return Err(self.refuse(Code::MountOption, why));
        }
        Ok(())
    }

    fn is_bind(self, options: &Options) -> bool {
        options.bind || matches!(self.kind(), "bind" | "rbind")
    }

    /// What is attempted, for an error that is known before anything is.
    fn what(self) -> String {
        let kind = match self.kind() {
            "" => String::new(),
            kind => format!("{kind} "),
        };
        format!("mount {kind}on {:?}", self.mount.destination())
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

    /// All mounts of the config, in its order: later ones may lie on earlier ones.
    pub(super) fn mounts(&mut self, sources: &[Option<Slot>]) {
        for entry in self.entries() {
            if entry.index > 0 && entry.index % SWEEP_EVERY == 0 {
                self.step(Op::Sweep { kept: u16::MAX });
            }
            let mounted = self.mount(entry, sources.get(entry.index).copied().flatten());
            self.keep(mounted);
        }
    }

    fn mount(&mut self, entry: Entry<'_>, source: Option<Slot>) -> Result<()> {
        let options = entry.options();
        if inside(entry.mount.destination()) == Path::new("/") {
            return Err(entry.refuse(Code::Field, "the destination is the root itself"));
        }
        entry.check(&options)?;
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
                self.bind_host("/sys", MOUNT_ATTR_RDONLY, entry, &options)
            }
            "sysfs" => self.kernel_filesystem(["sysfs", "sysfs", "/sys"], READ_ONLY, entry, &options),
            "proc" if self.annotation("org.pura.proc") == Some("bind") => {
                self.warn(Warning::new(
                    Code::ProcOuter,
                    "/proc is the outer one: processes outside of the container are listed",
                ));
                self.bind_host("/proc", 0, entry, &options)
            }
            // The kernel mounts it for the owner of the PID namespace alone; whoever keeps the caller's sees all of it anyway.
            "proc" if self.keeps_foreign_pid() => {
                self.note("/proc is the caller's, as the PID namespace is");
                self.bind_host("/proc", 0, entry, &options)
            }
            "cgroup" | "cgroup2" => self.cgroup(entry, &options),
            "proc" if self.is_only_the_callers(Kind::Pid) => self.joined_filesystem("proc", entry, &options),
            "mqueue" if self.is_only_the_callers(Kind::Ipc) => self.joined_filesystem("mqueue", entry, &options),
            // A person is told that it is the outer one.
            "proc" if self.order.clamps && options.data.is_empty() => {
                self.kernel_filesystem(["proc", "proc", "/proc"], UNPRIVILEGED, entry, &options)
            }
            _ => self.filesystem(entry, &options),
        }
    }

    /// Mounts a new filesystem.
    fn filesystem(&mut self, entry: Entry<'_>, options: &Options) -> Result<()> {
        let kind = entry.kind();
        let data = self.data(entry, options);
        self.find(entry, if kind == "proc" { Target::RealDirectory } else { target(options, Target::Directory) })?;
        let has_mode = data.iter().any(|word| word.starts_with("mode="));
        let data = self.text(data.join(","))?;
        let mut flags = options.mount_flags();
        let late = flags & libc::MS_RDONLY != 0 && kind == "tmpfs" && self.has_more_inside(entry);
        // Until all is made in it, or the copy.
        if late || options.copy_up {
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
        if options.copy_up {
            self.copy_up(entry, options, late)?;
        }
        self.map_new(entry, options)?;
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
        let devices = self.spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
        let device = devices.iter().any(|device| is_below(&inside(device.path())));
        cwd || device
            || Path::new("/dev") == own
            || later.into_iter().any(|other| is_below(&inside(other.mount.destination())))
    }

    /// Copies what a tmpfs covers into it, and only then makes it read-only, if it is to be and nothing else goes into it.
    fn copy_up(&mut self, entry: Entry<'_>, options: &Options, late: bool) -> Result<()> {
        let path = self.text(entry.mount.destination().as_os_str().as_bytes())?;
        // What the first slot has is covered by now; the same path leads to what covers it.
        self.step_for(Op::FindTarget { path, target: Target::Present, into: Slot::TREE }, entry.place());
        let owner = !options.data.iter().any(|word| word.starts_with("uid=") || word.starts_with("gid="));
        self.step_for(Op::CopyUp { from: Slot::TARGET, to: Slot::TREE, owner, path }, entry.place());
        if options.mount_flags() & libc::MS_RDONLY != 0 && !late {
            let set = MOUNT_ATTR_RDONLY;
            let read_only = Op::SetAttributes { mount: Slot::TREE, set, clear: 0, recursive: false, detached: false };
            self.step_for(read_only, entry.place());
        }
        Ok(())
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
            return self.bind_host("/sys/fs/cgroup", MOUNT_ATTR_RDONLY, entry, options);
        }
        self.kernel_filesystem(["cgroup2", "cgroup", "/sys/fs/cgroup"], READ_ONLY, entry, options)
    }

    /// Mounts a filesystem that shows the kernel's objects; init binds the host's when it may not.
    ///
    /// Its type, its source, and the tree of the host, with the attributes of all that is bound of it.
    fn kernel_filesystem(&mut self, names: [&str; 3], set: u64, entry: Entry<'_>, options: &Options) -> Result<()> {
        let [kind, source, host] = names;
        if !options.data.is_empty() {
            let why = format!("{kind} takes no such option: {:?}", options.data.join(","));
            return Err(entry.refuse(Code::MountOption, why));
        }
        self.find(entry, if kind == "cgroup2" { Target::Directory } else { Target::RealDirectory })?;
        let (kind, source, host) = (self.text(kind)?, self.text(source)?, self.text(host)?);
        let path = self.text(entry.mount.destination().as_os_str().as_bytes())?;
        let flags = options.mount_flags();
        self.step_for(Op::MountOrBind { kind, source, flags, host, set, path, on: Slot::TARGET }, entry.place());
        self.propagate(entry, options, true)
    }

    fn find(&mut self, entry: Entry<'_>, target: Target) -> Result<()> {
        let path = self.text(entry.mount.destination().as_os_str().as_bytes())?;
        self.step_for(Op::FindTarget { path, target, into: Slot::TARGET }, entry.place());
        Ok(())
    }

    fn remount(&mut self, entry: Entry<'_>, options: &Options) -> Result<()> {
        self.find(entry, Target::Present)?;
        if options.bind {
            self.attributes(Slot::TARGET, entry, options, false);
        } else {
            let data = self.text(options.data.join(","))?;
            let (flags, clear) = (options.mount_flags(), options.cleared_flags());
            self.step_for(Op::Remount { mount: Slot::TARGET, flags, clear, data }, entry.place());
        }
        self.propagation(Slot::TARGET, entry, options);
        Ok(())
    }

    /// What the words say of the mount alone, then what they say of all below it too.
    fn attributes(&mut self, mount: Slot, entry: Entry<'_>, options: &Options, detached: bool) {
        for (set, clear, recursive) in [(options.set, options.clear, false), (options.set_all, options.clear_all, true)]
        {
            if set | clear != 0 {
                // The kernel wants what it sets not to be cleared, except for the enumeration of access times.
                self.step_for(Op::SetAttributes { mount, set, clear, recursive, detached }, entry.place());
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

/// Where a mount goes: onto a link itself, if it says so.
fn target(options: &Options, usual: Target) -> Target {
    if options.target_itself { Target::Itself } else { usual }
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

    /// What a group id of the container is outside.
    pub fn outer_gid(&self, id: u32) -> Option<u32> {
        self.maps.as_ref().map_or(Some(id), |maps| maps.gids.iter().find_map(|extent| extent.outside_of(id)))
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
