//! A plan that is being written.

use std::{borrow::Cow, path::Path};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{
    Assembly, Input, Op, Plan, Slot,
    arena::{Arena, Text},
    ids::Ids,
};
use crate::{
    cli::RootEmulation,
    error::{Code, Error, Result, Warning},
    host::Host,
};

/// What the command, not the config, asks for.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Order<'a> {
    /// The bundle's directory, absolute: where relative paths start.
    pub bundle: &'a Path,
    /// The container's state directory; a root that is put together is built over it, unseen by others.
    pub state: &'a Path,
    /// `create`: wait for `start`.
    pub waits: bool,
    /// No cgroup of its own holds the container's processes.
    pub scattered: bool,
    /// systemd puts init into its cgroup, once it is there.
    pub scope: bool,
    /// Enter the root by moving it over `/`.
    pub no_pivot: bool,
    /// Leave the caller's session keyring.
    pub new_keyring: bool,
    /// What cannot be raised is clamped, with a warning, instead of refused: `run`, whose caller is a person.
    pub clamps: bool,
    /// A root that is put together from the host's, instead of the config's.
    pub assembly: Option<&'a Assembly>,
    /// Whether calls that change ids are answered instead of made; `None` leaves it to the config.
    pub root_emulation: Option<RootEmulation>,
    /// `pura-init`, which is to be process 1 and to run the program.
    pub reaper: Option<&'a Path>,
}

impl<'a> Order<'a> {
    /// Nothing beside the config.
    pub fn new(bundle: &'a Path, state: &'a Path) -> Self {
        Self {
            bundle,
            state,
            waits: false,
            scattered: false,
            scope: false,
            no_pivot: false,
            new_keyring: true,
            clamps: false,
            assembly: None,
            root_emulation: None,
            reaper: None,
        }
    }
}

/// A plan that is being written: the config, the facts, and what has been decided so far.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) spec: &'a Spec,
    pub(super) host: &'a Host,
    pub(super) order: &'a Order<'a>,
    pub(super) plan: Plan,
    /// Mounts that become read-only once all that belongs into them is made: slot, and place in the config.
    pub(super) late_read_only: Vec<(Slot, String)>,
    /// A root that is put together once the ids are those of its owner: what of, the scratch directory, the tree below.
    pub(super) late_assembly: Option<(&'a Assembly, Slot, Option<Slot>)>,
    /// The mount namespace that is joined once the root is made: its position in `linux.namespaces`, and its slot.
    pub(super) joined_mounts: Option<(usize, Slot)>,
    /// What the config cannot have: [`Draft::keep`].
    faults: Vec<Error>,
}

/// More faults than these are counted and not told, and more than those not even looked for.
const MOST_FAULTS: usize = 15;
const ENOUGH_FAULTS: usize = 200;

impl<'a> Draft<'a> {
    pub(super) fn new(spec: &'a Spec, host: &'a Host, order: &'a Order<'a>, ids: Ids) -> Self {
        let plan = Plan {
            arena: Arena::default(),
            ops: Vec::with_capacity(96),
            places: Vec::with_capacity(96),
            argv: Vec::new(),
            env: Vec::new(),
            candidates: Vec::new(),
            groups: Vec::new(),
            hooks: Vec::new(),
            ignored: host.caller.ignored,
            clone_flags: 0,
            joined_first: Vec::new(),
            shown: Vec::new(),
            inherited: Vec::new(),
            inputs: Vec::new(),
            slots: usize::from(Slot::FIRST_FREE),
            raised: Vec::new(),
            lowered_oom_score: None,
            filter: None,
            root_emulation: false,
            notice: None,
            parameters: Vec::new(),
            moved_devices: Vec::new(),
            raised_scheduling: None,
            raised_io_priority: None,
            scheduling: None,
            affinity: [None; 2],
            memory_policy: None,
            itself: host.itself.as_ref().map(|itself| itself.file),
            ids,
            warnings: Vec::new(),
            notes: Vec::new(),
        };
        Self {
            spec,
            host,
            order,
            plan,
            late_read_only: Vec::new(),
            late_assembly: None,
            joined_mounts: None,
            faults: Vec::new(),
        }
    }

    /// Adds a step that config.json did not ask for.
    pub(super) fn step(&mut self, op: Op) {
        self.step_for(op, "");
    }

    /// Adds a step, with the place in config.json that it comes from.
    pub(super) fn step_for(&mut self, op: Op, place: impl Into<Cow<'static, str>>) {
        self.plan.ops.push(op);
        self.plan.places.push(place.into());
    }

    pub(super) fn text(&mut self, bytes: impl AsRef<[u8]>) -> Result<Text> {
        self.plan.arena.intern(bytes.as_ref())
    }

    /// A slot of its own, which sweeps spare. An error when they are used up: two steps must never share one.
    pub(super) fn slot(&mut self) -> Result<Slot> {
        let free = u16::try_from(self.plan.slots).ok().filter(|slot| *slot < u16::MAX);
        let slot = free.ok_or_else(|| {
            Error::new(Code::Exhausted, "use config.json", "it needs more than 65,000 files to be open at once")
        })?;
        self.plan.slots += 1;
        Ok(Slot(slot))
    }

    pub(super) fn input(&mut self, input: Input) -> Result<Slot> {
        let slot = self.slot()?;
        self.plan.inputs.push((slot, input));
        Ok(slot)
    }

    /// Goes on after a fault, so that one call tells all: [`Draft::refuse`]. What is there already says nothing new.
    pub(super) fn keep(&mut self, attempt: Result<()>) {
        if let Err(error) = attempt
            && self.faults.len() < ENOUGH_FAULTS
            && !self.faults.contains(&error)
        {
            self.faults.push(error);
        }
    }

    /// Refuses the plan, when it has faults, with all of them on one line.
    pub(super) fn refuse(&mut self) -> Result<()> {
        let mut faults = std::mem::take(&mut self.faults).into_iter();
        let Some(first) = faults.next() else { return Ok(()) };
        let more = faults.len().saturating_sub(MOST_FAULTS);
        let all = faults.take(MOST_FAULTS).fold(first, |all, fault| all.and(&fault));
        Err(if more == 0 { all } else { all.also(&format!("and {more} more")) })
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        self.plan.warnings.push(warning);
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.plan.notes.push(note.into());
    }

    /// The position of a kind in `linux.namespaces`, and its path when it is to be joined.
    pub(super) fn namespace(&self, kind: LinuxNamespaceType) -> Option<(usize, Option<&'a Path>)> {
        let all = self.spec.linux().as_ref()?.namespaces().as_ref()?;
        let (index, namespace) = all.iter().enumerate().find(|(_, namespace)| namespace.typ() == kind)?;
        // An empty path is no path.
        Some((index, namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())))
    }

    /// The value of an annotation.
    pub(super) fn annotation(&self, key: &str) -> Option<&'a str> {
        self.spec.annotations().as_ref()?.get(key).map(String::as_str)
    }

    /// Whether a new namespace of this kind is made for the container.
    pub(super) fn is_new(&self, kind: LinuxNamespaceType) -> bool {
        matches!(self.namespace(kind), Some((_, None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{cli::UsernsMode, plan::sample};

    #[test]
    fn no_two_steps_share_a_slot_and_too_many_are_an_error() {
        let bind = serde_json::json!({"destination": "/d", "source": "/s", "options": ["bind"]});
        let map = serde_json::json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
        let spec = serde_json::json!({
            "ociVersion": "1.3.0", "root": {"path": "r"}, "mounts": vec![bind; 65_600],
            "linux": {"namespaces": [{"type": "user"}], "uidMappings": map, "gidMappings": map}
        });
        let spec = serde_json::from_value(spec).unwrap();
        let error = sample::compile(&spec, sample::user(), UsernsMode::Unset, false, 0).unwrap_err();
        assert_eq!(error.code(), Code::Exhausted, "{error}");
    }
}
