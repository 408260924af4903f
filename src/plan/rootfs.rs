//! The root: bound on itself, entered, made read-only.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use oci_spec::runtime::LinuxNamespaceType as Kind;

use nix::errno::Errno;

use super::{Op, Plan, Slot, compile::die_with_parent, draft::Draft, ids::UserNamespace};
use crate::{
    error::{Code, Error, Result, Warning},
    host::{self, ids::Extent},
};

const MS_REC: u64 = libc::MS_REC;

impl Plan {
    /// Why a step fails in a root which the caller may not enter: not by what the step wants to make or find there.
    pub fn shut_root(&self, errno: Errno) -> Option<Error> {
        let root = self.ops.iter().find_map(|op| if let Op::BindRoot { path, .. } = op { Some(*path) } else { None });
        let lower =
            || self.ops.iter().find_map(|op| if let Op::MountOverlay { lower, .. } = op { Some(*lower) } else { None });
        let root = self.text(root.or_else(lower).filter(|_| errno == Errno::EACCES)?);
        let is_shut = nix::unistd::access(root, nix::unistd::AccessFlags::X_OK) == Err(Errno::EACCES);
        let root = root.to_string_lossy();
        is_shut.then(|| {
            let why = "you may not enter it: permission denied";
            Error::new(Code::Rootfs, format!("use the root filesystem {root:?}"), why)
                .at("root.path")
                .fix(format!("chmod o+x {root}, or a tree of your own"))
        })
    }
}

impl Draft<'_> {
    /// The root's path on the host, absolute, and no link.
    pub(super) fn root_path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.host.named.root_link {
            return Ok(path.clone());
        }
        let root = self.spec.root().as_ref().map(|root| root.path().as_path());
        let root = root.ok_or_else(|| Error::new(Code::Field, "read config.json", "root is missing"))?;
        Ok(self.order.bundle.join(root))
    }

    /// Cuts the mount namespace off from the host's.
    pub(super) fn isolate_mounts(&mut self) -> Result<()> {
        let asked = self.spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref());
        let flags = match asked {
            None | Some("" | "private" | "rprivate" | "unbindable" | "runbindable") => libc::MS_PRIVATE,
            Some("slave" | "rslave") => libc::MS_SLAVE,
            // Events of a namespace that a more privileged one made never travel back: mount_namespaces(7).
            Some("shared" | "rshared") => {
                self.warn(Warning::new(
                    Code::Propagation,
                    "rootfsPropagation \"shared\" cannot reach the host from a user namespace",
                ));
                libc::MS_SLAVE
            }
            Some(other) => {
                let why = format!("{other:?} is none of private, slave, shared, unbindable and their r forms");
                self.keep(Err(Error::new(Code::Field, "read linux.rootfsPropagation", why)));
                libc::MS_PRIVATE
            }
        };
        let path = self.text("/")?;
        self.step_for(Op::Propagate { path, flags: MS_REC | flags }, "linux.rootfsPropagation");
        let root = self.root_path()?;
        let checked = self.check_root(&root);
        self.keep(checked);
        match self.order.assembly {
            Some(assembly) => self.assemble(assembly),
            None => self.bind_root(&root),
        }
    }

    fn check_root(&self, root: &Path) -> Result<()> {
        let refuse = |why: String| {
            Err(Error::new(Code::Rootfs, format!("use the root filesystem {root:?}"), why).at("root.path"))
        };
        match self.host.named.root {
            Some(host::Kind::Directory) | None => Ok(()),
            Some(host::Kind::Missing) => refuse("it does not exist".to_owned()),
            Some(host::Kind::File) => refuse("it is not a directory".to_owned()),
            Some(host::Kind::Refused(errno)) => refuse(crate::error::plain(Errno::from_raw(errno))),
        }
    }

    fn bind_root(&mut self, root: &Path) -> Result<()> {
        let path = self.text(root.as_os_str().as_bytes())?;
        self.step_for(Op::BindRoot { path, into: Slot::ROOT }, "root.path");
        Ok(())
    }

    /// Takes the ids of container root for the set-up, so that what it makes belongs to the container.
    pub(super) fn become_owner(&mut self) {
        if let Some((uid, gid)) = self.owner() {
            self.step(Op::SetIds { uid, gid });
            die_with_parent(self);
        }
    }

    /// The ids for the set-up, when they are not the ones that init has already: container root's; without one, those that
    /// the caller has inside; and if it has none, the program's, because nobody may make a file who has no id.
    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        let program = || self.spec.process().as_ref().map(|process| (process.user().uid(), process.user().gid()));
        let maps = match &self.plan.ids.user_namespace {
            UserNamespace::Create { maps, .. } => maps,
            UserNamespace::Reuse | UserNamespace::Inherit => return None,
            UserNamespace::Join { .. } | UserNamespace::JoinOwner { .. } => {
                let has_zero = self.plan.ids.is_uid_mapped(0) && self.plan.ids.is_gid_mapped(0);
                return if has_zero { Some((0, 0)) } else { program() };
            }
        };
        let inside = |extents: &[Extent], id: u32| extents.iter().find_map(|extent| extent.inside_of(id));
        let own = (inside(&maps.uids, self.host.caller.uid), inside(&maps.gids, self.host.caller.gid));
        let has_zero = [&maps.uids, &maps.gids].iter().all(|map| map.iter().any(|extent| extent.inside == 0));
        match own {
            (Some(0), Some(0)) => None,
            _ if has_zero => Some((0, 0)),
            (Some(_), Some(_)) => None,
            _ => program(),
        }
    }

    /// Makes the root `/` of the mount namespace.
    pub(super) fn enter_root(&mut self) {
        self.step(if self.order.no_pivot { Op::MoveRoot(Slot::ROOT) } else { Op::PivotRoot(Slot::ROOT) });
    }

    /// Makes the root read-only, but nothing that is mounted below it, unless the config says so of that too.
    pub(super) fn readonly_root(&mut self) {
        let set = libc::MOUNT_ATTR_RDONLY;
        for (mount, place) in std::mem::take(&mut self.late_read_only) {
            self.step_for(Op::SetAttributes { mount, set, clear: 0, recursive: false, detached: false }, place);
        }
        if let Some(index) = self.readonly_everything() {
            let all = Op::SetAttributes { mount: Slot::ROOT, set, clear: 0, recursive: true, detached: false };
            self.step_for(all, format!("linux.readonlyPaths[{index}]"));
        } else if self.spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
            self.step_for(
                Op::SetAttributes { mount: Slot::ROOT, set, clear: 0, recursive: false, detached: false },
                "root.readonly",
            );
        }
        let asked =
            self.spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
        let flags = match asked.strip_prefix('r').unwrap_or(asked) {
            "unbindable" => libc::MS_UNBINDABLE,
            "shared" => libc::MS_SHARED,
            _ => return,
        };
        self.step_for(Op::PropagateMount { mount: Slot::ROOT, flags }, "linux.rootfsPropagation");
    }

    /// Joins a mount namespace with the root that was made outside of it, as a detached tree: what others see in there does
    /// not change, and the tree goes with the last process that has it for its root.
    pub(super) fn join_mounts(&mut self) {
        let Some((index, from)) = self.joined_mounts else { return };
        let place = format!("linux.namespaces[{index}]");
        let steps = [
            // A copy leaves out what is unbindable. Nobody can bind, or send an event, from a tree that is mounted nowhere.
            Op::PropagateMount { mount: Slot::ROOT, flags: MS_REC | libc::MS_PRIVATE },
            Op::CloneMount { mount: Slot::ROOT, recursive: true, into: Slot::TREE },
            Op::SetNs { from, kind: libc::CLONE_NEWNS },
            Op::ChangeRoot(Slot::TREE),
        ];
        for step in steps {
            self.step_for(step, place.clone());
        }
    }

    /// Creates the working directory when it is missing: engines rely on it.
    pub(super) fn working_directory(&mut self) -> Result<()> {
        if let Some(process) = self.spec.process() {
            let cwd = self.text(process.cwd().as_os_str().as_bytes())?;
            // The root is always there.
            if process.cwd() != Path::new("/") {
                self.step_for(Op::MakeCwd(cwd), "process.cwd");
            }
        }
        Ok(())
    }

    /// Whether the caller's PID namespace stays the container's, and no procfs of it can be mounted.
    pub(super) fn keeps_foreign_pid(&self) -> bool {
        let is_shared = matches!(self.plan.ids.user_namespace, UserNamespace::Reuse | UserNamespace::Inherit);
        self.namespace(Kind::Pid).is_none() && !(is_shared && self.host.named.owns_pid)
    }

    /// Whether mounts of sysfs, and network sysctls, are ours to make: only over a network namespace that we own.
    pub(super) fn owns_network(&self) -> bool {
        match self.plan.ids.user_namespace {
            UserNamespace::Reuse | UserNamespace::Inherit => match self.namespace(Kind::Network) {
                Some((_, None)) => true,
                // Ours if our own user namespace owns it.
                Some((index, Some(_))) => self.owner_of(index) == Some(self.host.own_userns),
                None => self.plan.ids.user_namespace == UserNamespace::Inherit,
            },
            UserNamespace::Join { .. } | UserNamespace::JoinOwner { .. } => match self.namespace(Kind::Network) {
                Some((_, None)) => true,
                Some((index, Some(_))) => self.owner_of(index) != Some(self.host.own_userns),
                None => false,
            },
            UserNamespace::Create { .. } => self.is_new(Kind::Network),
        }
    }

    pub(super) fn owner_of(&self, index: usize) -> Option<u64> {
        self.host.named.namespaces.get(index)?.as_ref().map(|joined| joined.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{
        cli::UsernsMode,
        host::Maps,
        plan::{ids, sample},
    };

    #[test]
    fn who_sets_up_a_joined_user_namespace_has_an_id_there() {
        let spec = serde_json::json!({
            "ociVersion": "1.3.0", "root": {"path": "r"}, "process": {"cwd": "/", "user": {"uid": 7, "gid": 8}},
            "linux": {"namespaces": [{"type": "user", "path": "/ns"}]}
        });
        let spec = serde_json::from_value(spec).unwrap();
        for (inside, wanted) in [(None, (0, 0)), (Some(0), (0, 0)), (Some(1), (7, 8))] {
            let map = inside.map(|inside| vec![Extent { inside, outside: 1000, count: 100 }]);
            let maps = map.map(|map| Maps { uids: map.clone(), gids: map });
            let user_namespace = UserNamespace::Join { index: 0 };
            let ids = ids::Ids { user_namespace, maps, setgroups_denied: false };
            let host = sample::user();
            let order = sample::order(false);
            assert_eq!(Draft::new(&spec, &host, &order, ids).owner(), Some(wanted), "{inside:?}");
        }
        let plan = sample::compile(&spec, sample::user(), UsernsMode::Unset, false, 30).unwrap();
        assert!(plan.ops().contains(&Op::SetIds { uid: 0, gid: 0 }), "{plan}");
    }
}
