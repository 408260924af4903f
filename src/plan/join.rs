//! The plan of `exec`: a further process in a container that exists already. Another list for the same executor.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType as Kind, Spec};

use super::{
    Input, Meeting, Op, Plan, Slot,
    compile::{Order, die_with_parent},
    draft::Draft,
    ids::{self, Ids, UserNamespace},
};
use crate::{
    error::{Result, Warning},
    host::Host,
    state::Status,
    sys::process::Attribute,
};

/// Where the parent puts the descriptor of the container's init.
pub const INIT: Slot = Slot(Slot::FIRST_FREE);

/// The container that is joined.
#[derive(Debug, Clone)]
pub struct Container {
    /// What it is in.
    pub status: Status,
    /// Its process, as the caller sees it.
    pub init: i32,
    /// Its user namespace is not the caller's.
    pub has_user_namespace: bool,
    /// What holds in its user namespace.
    pub ids: Ids,
    /// Its root as its init has it: `/proc/PID/root`.
    pub root: PathBuf,
}

/// Compiles the plan of `exec`; `spec` is the container's config, with the process that is to run in place of its own.
/// `is_announced`: somebody is to know of the process before it runs, by a pid-file for example.
pub fn process(spec: &Spec, host: &Host, order: &Order<'_>, container: &Container, is_announced: bool) -> Result<Plan> {
    let mut warnings: Vec<Warning> = Vec::new();
    ids::check(spec, &container.ids, &mut warnings)?;
    let mut draft = Draft::new(spec, host, order, container.ids.clone());
    draft.plan.warnings = warnings;
    draft.compile_filter(Some((container.status, container.init)))?;
    // All namespaces in one call, by the parent: its next child is then born inside all of them. But for that of cgroups:
    // whoever is in it moves nobody into it from outside, where the hierarchy is mounted with nsdelegate, `cgroups(7)`.
    draft.inherited_labels()?;
    draft.inherited_score()?;
    draft.affinity()?;
    let init = draft.slot()?;
    let all = namespaces(spec, container);
    draft.plan.joined_first.push((init, all & !libc::CLONE_NEWCGROUP));
    // By systemd, from where it was born: then it is in the cgroup that its namespace is to show.
    if order.scope {
        draft.step(Op::Meet(Meeting::Scope));
    }
    if all & libc::CLONE_NEWCGROUP != 0 {
        draft.step(Op::SetNs { from: init, kind: libc::CLONE_NEWCGROUP });
    }

    die_with_parent(&mut draft);
    draft.step(Op::Sweep { kept: u16::MAX });
    draft.step(Op::NewSession);
    // In a mount namespace that was joined, the root is not the container's.
    if let Some((index, Some(_))) = draft.namespace(Kind::Mount) {
        let root = draft.input(Input::Directory(container.root.clone()))?;
        draft.step_for(Op::ChangeRoot(root), format!("linux.namespaces[{index}]"));
    }
    let root = draft.text("/")?;
    draft.step(Op::OpenPath { path: root, into: Slot::ROOT });
    let terminal = draft.open_terminal(false)?;
    draft.home();
    draft.process_attributes()?;
    draft.limits()?;
    let dropped_last = draft.identity();
    // Container code runs beside us from the first moment: it must not look inside, where descriptors of the host were
    // (CVE-2016-9962). The change of ids may have made us open to it again.
    draft.step(Op::Prctl { attribute: Attribute::Dumpable, value: 0 });
    draft.program()?;
    draft.take_terminal(terminal);
    draft.learn_pid();
    draft.step(Op::Sweep { kept: Slot::FIRST_OF_SETUP });
    draft.step(Op::Prctl { attribute: Attribute::DeathSignal, value: 0 });
    // A meeting costs two switches between processes, so it is for those who need it.
    if is_announced || draft.plan.is_finished_outside() {
        draft.step(Op::Meet(Meeting::Created));
    }
    draft.default_signals();
    // The container's, whatever the process is: it is never less confined than init.
    draft.attach_filter(dropped_last);
    draft.step(Op::Execute);
    Ok(draft.plan)
}

/// The kinds in which the container differs from its caller, as `CLONE_NEW*`.
fn namespaces(spec: &Spec, container: &Container) -> i32 {
    let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
    let flags = listed.map(|namespace| match namespace.typ() {
        // Whether it is one of its own is for the rule, not for the list.
        Kind::User => 0,
        Kind::Mount => libc::CLONE_NEWNS,
        Kind::Network => libc::CLONE_NEWNET,
        Kind::Pid => libc::CLONE_NEWPID,
        Kind::Ipc => libc::CLONE_NEWIPC,
        Kind::Uts => libc::CLONE_NEWUTS,
        Kind::Cgroup => libc::CLONE_NEWCGROUP,
        Kind::Time => libc::CLONE_NEWTIME,
    });
    let user = if container.has_user_namespace { libc::CLONE_NEWUSER } else { 0 };
    flags.fold(libc::CLONE_NEWNS | user, |all, flag| all | flag)
}

impl Container {
    /// A container with its init, of which the state says how its user namespace came about.
    pub fn recorded(
        (status, init): (Status, i32),
        word: &str,
        maps: crate::host::Maps,
        setgroups_denied: bool,
    ) -> Self {
        let has_user_namespace = matches!(word, "new" | "joined");
        let user_namespace = match word {
            "reused" => UserNamespace::Reuse,
            "inherited" => UserNamespace::Inherit,
            _ => UserNamespace::Join { index: 0 },
        };
        let known = !maps.uids.is_empty() && !maps.gids.is_empty();
        Self {
            status,
            init,
            has_user_namespace,
            ids: Ids { user_namespace, maps: known.then_some(maps), setgroups_denied },
            root: format!("/proc/{init}/root").into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(namespaces: &str, user: &str, word: &str) -> Plan {
        let json = format!(
            r#"{{"ociVersion":"1.0.0","process":{{"cwd":"/","user":{user},"args":["true"]}},"linux":{{"namespaces":{namespaces}}}}}"#
        );
        let spec: Spec = serde_json::from_str(&json).unwrap();
        let order = crate::plan::sample::order(false);
        let container = Container::recorded((Status::Running, 7), word, crate::host::Maps::default(), false);
        process(&spec, &Host::default(), &order, &container, user.contains('7')).unwrap()
    }

    #[test]
    fn all_namespaces_are_joined_at_once_and_the_users_only_when_it_is_another() {
        let joined = |word| {
            plan(r#"[{"type":"pid"},{"type":"network"},{"type":"user"}]"#, r#"{"uid":0,"gid":0}"#, word).joined_first
        };
        let all = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET;
        assert_eq!(joined("new"), [(INIT, all | libc::CLONE_NEWUSER)]);
        assert_eq!(joined("reused"), [(INIT, all)]);
    }

    #[test]
    fn the_cgroup_namespace_is_joined_by_who_is_born_in_the_containers_cgroup() {
        let plan = plan(r#"[{"type":"cgroup"}]"#, r#"{"uid":0,"gid":0}"#, "reused");
        assert_eq!(plan.joined_first, [(INIT, libc::CLONE_NEWNS)]);
        assert!(matches!(plan.ops().first(), Some(Op::SetNs { from: INIT, kind: libc::CLONE_NEWCGROUP })));
    }

    #[test]
    fn nobody_may_look_inside_once_the_ids_have_changed() {
        let plan = plan("[]", r#"{"uid":7,"gid":8}"#, "new");
        let position = |wanted: fn(&Op) -> bool| plan.ops().iter().rposition(wanted).unwrap();
        let hidden = position(|op| matches!(op, Op::Prctl { attribute: Attribute::Dumpable, value: 0 }));
        assert!(position(|op| matches!(op, Op::SetIds { .. })) < hidden);
        assert!(hidden < position(|op| matches!(op, Op::Execute)));
    }

    #[test]
    fn only_who_is_announced_waits_for_that() {
        let plan = |is_announced, more: &str| {
            let json = format!(
                r#"{{"ociVersion":"1.0.0","process":{{"cwd":"/","user":{{"uid":0,"gid":0}},"args":["true"]{more}}}}}"#
            );
            let spec: Spec = serde_json::from_str(&json).unwrap();
            let container = Container::recorded((Status::Running, 7), "new", crate::host::Maps::default(), false);
            let order = crate::plan::sample::order(false);
            let plan = process(&spec, &Host::default(), &order, &container, is_announced).unwrap();
            plan.meetings().collect::<Vec<_>>()
        };
        assert_eq!(plan(false, ""), []);
        assert_eq!(plan(true, ""), [Meeting::Created]);
        // The parent sets them, in time.
        assert_eq!(plan(false, r#","execCPUAffinity":{"final":"0"}"#), [Meeting::Created]);
    }
}
