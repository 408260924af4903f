//! Hooks as steps: where the parent runs its own, and those that init runs itself, ready for `execve(2)`.

use std::{os::unix::ffi::OsStrExt as _, path::Path};

use nix::poll::PollTimeout;

use super::{Input, Meeting, Op, Plan, Slot, arena::Text, draft::Draft};
use crate::{
    error::Result,
    hooks::{self, Kind},
    state::Status,
    sys::exec::Vectors,
};

/// A hook that init runs.
#[derive(Debug)]
pub struct Hook {
    /// Its path: on the host before the root is entered, in the image after that.
    pub(crate) path: Text,
    pub(crate) argv: Vec<Text>,
    pub(crate) env: Vec<Text>,
    /// Where it starts.
    pub(crate) directory: Text,
    /// The state, with blanks for the pid.
    pub(crate) state: Text,
    /// How long it may take.
    pub(crate) limit: PollTimeout,
}

impl Plan {
    /// The arguments and the environment of a hook, for `execve(2)`; to be made before clone.
    pub fn hook_vectors(&self, hook: &Hook) -> Vectors<'_> {
        Vectors::new(
            hook.argv.iter().map(|word| self.text(*word)),
            hook.env.iter().map(|variable| self.text(*variable)),
        )
    }
}

impl Draft<'_> {
    /// The hooks of `create`: the mounts are made, and the old root is still in place.
    pub(super) fn create_hooks(&mut self) -> Result<()> {
        let outside = [Kind::Prestart, Kind::CreateRuntime];
        // The devices of the parent are there before the first hook is.
        let moves = !self.plan.moved_devices.is_empty() && !Kind::CreateContainer.of(self.spec).is_empty();
        if moves || outside.iter().any(|kind| !kind.of(self.spec).is_empty()) {
            self.step_for(Op::Meet(Meeting::RuntimeHooks), "hooks");
        }
        self.hooks(Kind::CreateContainer, Status::Creating, self.order.bundle)
    }

    /// The hooks of `start`: all that the program is, they are too, because their files come from the image. The seccomp
    /// filter is no exception: with such hooks it has to allow what it takes to run them, from `memfd_create` and `clone`
    /// to `wait4` and `sendmsg`: all that `init::hook` and `sys::child` do.
    pub(super) fn start_hooks(&mut self, dropped: Option<Op>) -> Result<()> {
        if Kind::StartContainer.of(self.spec).is_empty() {
            return Ok(());
        }
        self.attach_filter(dropped);
        self.leave_agent();
        self.hooks(Kind::StartContainer, Status::Created, Path::new("/"))?;
        self.step_for(Op::Hooked, "hooks.startContainer");
        Ok(())
    }

    fn hooks(&mut self, kind: Kind, status: Status, directory: &Path) -> Result<()> {
        let spec = self.spec;
        let all = kind.of(spec);
        if all.is_empty() {
            return Ok(());
        }
        self.outputs();
        // The state directory of a container has the container's name.
        let id = self.order.state.file_name().unwrap_or_default().to_string_lossy();
        let state = self.text(hooks::state(spec, &id, self.order.bundle, status)?)?;
        let directory = self.text(directory.as_os_str().as_bytes())?;
        for (index, hook) in all.iter().enumerate() {
            let path = self.text(hook.path().as_os_str().as_bytes())?;
            let argv = hooks::words(hook).into_iter().map(|word| self.text(word)).collect::<Result<Vec<_>>>()?;
            // A hook in the image is used to the program's environment: runc gives it that when it has none of its own.
            let programs = spec.process().as_ref().and_then(|process| process.env().as_ref());
            let env = hook.env().as_ref().or(programs.filter(|_| kind == Kind::StartContainer));
            let env = env.into_iter().flatten().map(|variable| self.text(variable)).collect::<Result<Vec<_>>>()?;
            let number = u16::try_from(self.plan.hooks.len()).unwrap_or(u16::MAX);
            self.plan.hooks.push(Hook { path, argv, env, directory, state, limit: hooks::limit(hook) });
            self.step_for(Op::Hook(number), format!("hooks.{}[{index}]", kind.name()));
        }
        Ok(())
    }

    /// Where the hooks of init write; opened by the parent, because the files are the caller's.
    fn outputs(&mut self) {
        for (slot, stream) in [(Slot::OUTPUT, "stdout"), (Slot::ERRORS, "stderr")] {
            if self.plan.inputs.iter().all(|(filled, _)| *filled != slot) {
                let path = hooks::output(self.spec, self.order.bundle, stream);
                self.plan.inputs.push((slot, Input::Output(path)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        cli::UsernsMode,
        host::{Caller, Host, Kind, Named},
        plan::{
            Meeting, Op, Plan,
            compile::{self, Order},
        },
    };
    use std::path::Path;

    fn plan(hooks: &str) -> Plan {
        let json = format!(
            r#"{{"ociVersion":"1.3.0","root":{{"path":"r"}},"process":{{"cwd":"/","user":{{}},"args":["/p"],
            "env":["A=1"]}},"hooks":{hooks},"linux":{{"namespaces":[{{"type":"pid"}}]}}}}"#
        );
        let spec = serde_json::from_str(&json).unwrap();
        let caller = Caller { uid: 1000, gid: 1000, ..Caller::default() };
        let named = Named { root: Some(Kind::Directory), ..Named::default() };
        let host = Host { caller, initial_userns: true, named, ..Host::default() };
        let (bundle, state) = (Path::new("/b"), Path::new("/s/c1"));
        let order = Order {
            bundle,
            state,
            waits: true,
            clamps: false,
            scattered: false,
            scope: false,
            no_pivot: false,
            new_keyring: false,
            assembly: None,
            root_emulation: None,
            reaper: None,
        };
        compile::container(&spec, &host, UsernsMode::Single, &order).unwrap()
    }

    fn at(plan: &Plan, wanted: Op) -> usize {
        plan.ops().iter().position(|op| *op == wanted).unwrap()
    }

    #[test]
    fn hooks_stand_where_the_specification_has_them() {
        let hook = r#"[{"path":"/h"}]"#;
        let plan = plan(&format!(r#"{{"createRuntime":{hook},"createContainer":{hook},"startContainer":{hook}}}"#));
        let pivot = plan.ops().iter().position(|op| matches!(op, Op::PivotRoot(_))).unwrap();
        let steps = [
            at(&plan, Op::Meet(Meeting::RuntimeHooks)),
            at(&plan, Op::Hook(0)),
            pivot,
            at(&plan, Op::AwaitStart),
            at(&plan, Op::Hook(1)),
            at(&plan, Op::Execute),
        ];
        assert!(steps.is_sorted(), "{steps:?}");
        // Nothing that the program may not do, a hook of the image may: the ids are the last to change before it waits.
        let dropped = plan.ops().iter().rposition(|op| matches!(op, Op::Capabilities { .. })).unwrap();
        assert!(dropped < at(&plan, Op::Hook(1)));
    }

    #[test]
    fn no_hook_costs_no_step() {
        for hooks in ["{}", r#"{"poststart":[{"path":"/h"}],"poststop":[{"path":"/h"}]}"#, r#"{"prestart":[]}"#] {
            let plan = plan(hooks);
            let meets = plan.meetings().any(|meeting| meeting == Meeting::RuntimeHooks);
            assert!(!meets && plan.hooks.is_empty() && plan.inputs.is_empty(), "{hooks}");
        }
    }

    #[test]
    fn only_a_hook_of_the_image_has_the_programs_environment_and_only_without_its_own() {
        for (hooks, wanted) in [
            (r#"{"createContainer":[{"path":"/h"}]}"#, &[][..]),
            (r#"{"startContainer":[{"path":"/h"}]}"#, &["A=1"]),
            (r#"{"startContainer":[{"path":"/h","env":[]}]}"#, &[]),
            (r#"{"startContainer":[{"path":"/h","env":["B=2"]}]}"#, &["B=2"]),
        ] {
            let plan = plan(hooks);
            let env: Vec<_> = plan.hooks[0].env.iter().map(|text| plan.text(*text).to_str().unwrap()).collect();
            assert_eq!(env, wanted, "{hooks}");
        }
    }
}
