//! Filesystems that show a joined namespace, which the container's user namespace has no power over: the parent mounts them.

use oci_spec::runtime::LinuxNamespaceType as Kind;

use super::{Entry, idmap::asks, target};
use crate::{
    error::{Code, Result},
    plan::{Op, Showing, Slot, Target, draft::Draft, ids::UserNamespace, options::Options},
};

impl Draft<'_> {
    /// Whether a joined namespace belongs to the caller's user namespace, and the container has another one.
    pub(super) fn is_only_the_callers(&self, kind: Kind) -> bool {
        let is_shared = matches!(self.plan.ids.user_namespace, UserNamespace::Reuse | UserNamespace::Inherit);
        let joined = self.namespace(kind).filter(|(_, path)| path.is_some());
        !is_shared && joined.is_some_and(|(index, _)| self.owner_of(index) == Some(self.host.own_userns))
    }

    /// Attaches a filesystem that the parent has mounted. Its superblock may be in use elsewhere, so that only attributes of
    /// this mount are set, and no flags of the filesystem.
    pub(super) fn joined_filesystem(&mut self, kind: &'static str, entry: Entry<'_>, options: &Options) -> Result<()> {
        if asks(entry, options) {
            return Err(entry.refuse(Code::IdMap, format!("a filesystem {kind} cannot be idmapped")));
        }
        let tree = self.show(kind, entry, options)?;
        self.attributes(tree, entry, options, true);
        self.find(entry, if kind == "proc" { Target::RealDirectory } else { target(options, Target::Directory) })?;
        let path = self.text(kind)?;
        self.step_for(Op::MoveMount { tree, path, on: Slot::TARGET, recursive: false }, entry.place());
        self.propagation(tree, entry, options);
        Ok(())
    }

    fn show(&mut self, kind: &'static str, entry: Entry<'_>, options: &Options) -> Result<Slot> {
        let slot = self.slot()?;
        let (options, destination) = (options.data.clone(), entry.mount.destination().clone());
        self.plan.shown.push((slot, Showing { kind, options, destination, place: entry.place() }));
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        cli::UsernsMode,
        plan::{
            Op, Plan,
            sample::{self, OWN_USERNS},
        },
    };

    /// The plan of a container in joined PID and IPC namespaces with this owner.
    fn plan(host: crate::host::Host, mode: UsernsMode, owner: u64) -> Plan {
        let spec = json!({
            "ociVersion": "1.3.0", "root": {"path": "r"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "options": ["ro", "hidepid=2"]},
                {"destination": "/dev/mqueue", "type": "mqueue"}
            ],
            "linux": {"namespaces": [{"type": "pid", "path": "/ns"}, {"type": "ipc", "path": "/ns"}, {"type": "mount"}]}
        });
        sample::compile(&serde_json::from_value(spec).unwrap(), host, mode, false, owner).unwrap()
    }

    #[test]
    fn the_parent_mounts_only_what_init_may_not() {
        for (host, mode, owner, by_parent) in [
            (sample::root(), UsernsMode::Unset, OWN_USERNS, true),
            (sample::root(), UsernsMode::Unset, 30, false),
            (sample::root(), UsernsMode::Inherit, OWN_USERNS, false),
            (sample::nested(), UsernsMode::Unset, OWN_USERNS, false),
        ] {
            let plan = plan(host, mode, owner);
            let is_shown = |kind| [c"proc", c"mqueue"].contains(&plan.text(kind));
            let mounted = plan.ops().iter().filter(|op| matches!(op, Op::Mount { kind, .. } if is_shown(*kind)));
            assert_eq!(mounted.count(), if by_parent { 0 } else { 2 }, "{plan}");
            let shown: Vec<_> = plan.shown.iter().map(|(_, shown)| shown.kind).collect();
            assert_eq!(shown, if by_parent { &["proc", "mqueue"][..] } else { &[] }, "{plan}");
        }
    }

    #[test]
    fn what_the_parent_mounts_is_finished_before_it_is_attached_and_each_is_attached_once() {
        let plan = plan(sample::root(), UsernsMode::Unset, OWN_USERNS);
        for (slot, shown) in &plan.shown {
            let all = plan.ops().iter().enumerate();
            let attached = all.filter(|(_, op)| matches!(op, Op::MoveMount { tree, .. } if tree == slot));
            let [attached] = attached.map(|(at, _)| at).collect::<Vec<_>>()[..] else { panic!("{shown:?}\n{plan}") };
            let changes = |op: &Op| matches!(op, Op::SetAttributes { mount, .. } if mount == slot);
            assert!(!plan.ops()[attached..].iter().any(changes), "{shown:?}\n{plan}");
            assert_eq!(plan.ops()[..attached].iter().any(changes), shown.kind == "proc", "{shown:?}\n{plan}");
        }
        assert_eq!(plan.shown[0].1.options, ["hidepid=2"]);
    }
}
