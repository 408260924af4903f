//! The laws of the order: one assertion for each, over plans of every kind of user namespace.

mod steps;

use super::*;
use crate::{
    host::Host,
    plan::sample::{self, OWN_USERNS},
};
use serde_json::{Value, json};
use steps::*;

/// A config in which every law has something to say.
fn config() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "h",
        "process": {
            "cwd": "/work", "args": ["sh"], "env": ["PATH=/bin"], "noNewPrivileges": true, "oomScoreAdj": 500,
            "user": {"uid": 1000, "gid": 1000, "umask": 63, "additionalGids": [5]},
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
            "capabilities": {
                "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
                "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
            }
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
            {"destination": "/data", "source": "data", "options": ["rbind", "ro"]},
            {"destination": "/etc/hosts", "source": "/hosts", "options": ["bind"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]
        }
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut config = config();
    change(&mut config);
    config
}

fn namespaces(config: &mut Value) -> &mut Vec<Value> {
    config["linux"]["namespaces"].as_array_mut().unwrap()
}

fn single(config: &mut Value) {
    let user = config["process"]["user"].as_object_mut().unwrap();
    user.extend([("uid".to_owned(), json!(0)), ("gid".to_owned(), json!(0))]);
    user.remove("additionalGids");
}

fn keep_id(config: &mut Value) {
    let map = json!([{"containerID": 1000, "hostID": 1000, "size": 1}]);
    config["process"]["user"].as_object_mut().unwrap().remove("additionalGids");
    namespaces(config).push(json!({"type": "user"}));
    config["linux"]
        .as_object_mut()
        .unwrap()
        .extend([("uidMappings".to_owned(), map.clone()), ("gidMappings".to_owned(), map)]);
}

/// A config, who calls and how, and who owns the namespaces that are joined.
fn cases() -> Vec<(&'static str, Value, Host, UsernsMode, u64)> {
    let join = |kind: &str| json!({"type": kind, "path": "/ns"});
    let pod = with(|config| namespaces(config).splice(..4, ["pid", "network", "ipc", "uts"].map(join)).for_each(drop));
    let joined = with(|config| namespaces(config).push(join("user")));
    let mounts = with(|config| namespaces(config).splice(4.., [join("mount")]).for_each(drop));
    let shared = with(|config| drop(namespaces(config).remove(0)));
    vec![
        ("one id", with(single), sample::user(), UsernsMode::Single, 0),
        ("mappers", config(), sample::user(), UsernsMode::Unset, 0),
        ("mappers, no PID namespace", shared.clone(), sample::user(), UsernsMode::Unset, 0),
        ("the caller's id kept", with(keep_id), sample::user(), UsernsMode::Unset, 0),
        ("joined", joined, sample::user(), UsernsMode::Unset, 30),
        ("pod of another user namespace", pod.clone(), sample::root(), UsernsMode::Unset, 30),
        ("pod of the caller's", pod.clone(), sample::root(), UsernsMode::Unset, OWN_USERNS),
        ("mounts of another user namespace", mounts.clone(), sample::user(), UsernsMode::Unset, 30),
        ("mounts of the caller's", mounts, sample::nested(), UsernsMode::Unset, OWN_USERNS),
        ("reused", config(), sample::nested(), UsernsMode::Unset, 0),
        ("reused, no PID namespace", shared, sample::nested(), UsernsMode::Unset, 0),
        ("reused, pod", pod, sample::nested(), UsernsMode::Unset, OWN_USERNS),
        ("identity", config(), sample::root(), UsernsMode::Unset, 0),
        ("inherited", config(), sample::root(), UsernsMode::Inherit, 0),
    ]
}

/// A plan whose steps are compared by their positions.
struct Steps {
    name: &'static str,
    plan: Plan,
}

type Is = fn(&Op) -> bool;

impl Steps {
    fn at(&self, is: Is) -> impl DoubleEndedIterator<Item = usize> {
        self.plan.ops().iter().enumerate().filter(move |(_, op)| is(op)).map(|(at, _)| at)
    }

    /// Every step of the first kind stands before each of the second.
    fn before(&self, first: Is, second: Is, why: &str) {
        if let (Some(last), Some(next)) = (self.at(first).next_back(), self.at(second).next()) {
            assert!(last < next, "{}: {why}: step {last} stands after step {next}\n{}", self.name, self.plan);
        }
    }

    fn has(&self, is: Is, why: &str) {
        assert!(self.at(is).next().is_some(), "{}: {why}: there is none\n{}", self.name, self.plan);
    }
}

fn all(check: impl Fn(&Steps)) {
    for (name, config, host, mode, owner) in cases() {
        let spec = serde_json::from_value(config).unwrap();
        for (waits, scattered) in [(false, false), (true, true)] {
            let order = Order { scattered, ..sample::order(waits) };
            let plan = sample::compile_for(&spec, host.clone(), mode, &order, owner);
            let plan = plan.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(plan.ops.len(), plan.places.len());
            check(&Steps { name, plan });
        }
    }
}

// Kinds of steps.

#[test]
fn the_mount_namespace_is_passed_once_it_is_the_container_s_own_and_before_the_hosts_proc_is_gone() {
    all(|steps| {
        steps.before(enters_namespaces, passes_mounts, "it tells processes apart only if it is no other's");
        steps.before(passes_mounts, isolates, "/proc/self is the host's");
        assert!(steps.at(passes_mounts).count() <= 1, "{}: the parent takes it once", steps.name);
    });
}

#[test]
fn init_dies_with_its_parent_from_the_first_step_on_until_it_is_created() {
    all(|steps| {
        assert!(arms(&steps.plan.ops[0]), "{}", steps.name);
        for at in steps.at(|op| matches!(op, Op::SetIds { .. } | Op::Rebirth)) {
            assert!(arms(&steps.plan.ops[at + 1]), "{}: step {at} clears the signal\n{}", steps.name, steps.plan);
        }
        steps.has(disarms, "the parent of create ends as soon as it has released init");
        steps.before(arms, disarms, "the signal is cleared once and for good");
        steps.before(disarms, created, "the parent of create ends as soon as it has released init");
    });
}

#[test]
fn what_the_caller_leaked_is_closed_before_anything_can_wait() {
    all(|steps| {
        let sweeps = |op: &Op| matches!(op, Op::Sweep { kept: u16::MAX });
        assert!(sweeps(&steps.plan.ops[1]), "{}\n{}", steps.name, steps.plan);
        let ends = |op: &Op| *op == Op::Sweep { kept: Slot::FIRST_OF_SETUP };
        steps.has(ends, "nothing of the set-up is left to the program");
        steps.before(needs_capability, ends, "the set-up needs its descriptors");
        steps.before(enters, ends, "the root is needed to find the working directory");
        steps.before(ends, created, "who waits holds nothing");
    });
}

#[test]
fn own_proc_files_are_written_while_they_are_ours() {
    all(|steps| {
        steps.has(writes, "the OOM score is raised");
        steps.before(writes, hides, "the files belong to root as soon as init is not dumpable or has other ids");
        steps.before(writes, pivots, "the host's /proc is gone");
    });
}

#[test]
fn ids_are_mapped_before_anything_that_needs_them() {
    all(|steps| {
        steps.before(maps, isolates, "capabilities come with the user namespace");
        steps.before(maps, mounts, "what is made must have an owner");
        steps.before(maps, changes_user, "ids that are not mapped cannot be had");
        steps.before(writes, mounts, "one id is mapped by init itself");
    });
}

#[test]
fn nothing_that_is_mounted_appears_outside() {
    all(|steps| {
        steps.has(isolates, "every container has a mount namespace");
        steps.before(isolates, mounts, "a shared mount would carry ours to the host");
        let arrives = |op: &Op| matches!(op, Op::Unshare(_) | Op::SetNs { .. }) && !joins_mounts(op);
        steps.before(arrives, isolates, "of the new namespace");
    });
}

#[test]
fn sources_are_taken_with_the_ids_of_the_caller() {
    all(|steps| {
        let becomes_owner = steps.at(|op| matches!(op, Op::SetIds { .. })).next();
        let pivoted = steps.at(pivots).next().unwrap();
        if becomes_owner.is_some_and(|at| at < pivoted) {
            let takes = |op: &Op| matches!(op, Op::OpenTree { into, .. } if into.is_kept());
            steps.has(takes, "the config has binds");
            steps.before(
                takes,
                |op| matches!(op, Op::SetIds { .. }),
                "container root may not pass what the caller may",
            );
        }
    });
}

#[test]
fn covers_lie_over_all_mounts_and_inside_the_root() {
    all(|steps| {
        steps.has(covers, "the config has masks");
        steps.before(mounts, pivots, "createRuntime hooks see all mounts, and the old root");
        steps.before(pivots, covers, "no path of theirs may be outside");
    });
}

#[test]
fn a_mount_namespace_of_others_is_joined_when_nothing_is_left_to_mount() {
    all(|steps| {
        steps.before(isolates, joins_mounts, "the root is made in one of our own");
        let changes =
            |op: &Op| mounts(op) || makes(op) || pivots(op) || covers(op) || read_only_root(op) || isolates(op);
        steps.before(changes, joins_mounts, "others would see it");
        for at in steps.at(joins_mounts) {
            let around = [&steps.plan.ops[at - 1], &steps.plan.ops[at + 1]];
            let wanted =
                [&Op::CloneMount { mount: Slot::ROOT, recursive: true, into: Slot::TREE }, &Op::ChangeRoot(Slot::TREE)];
            assert_eq!(around, wanted, "{}: no path is resolved in there\n{}", steps.name, steps.plan);
        }
    });
}

#[test]
fn mounts_become_read_only_when_all_that_is_inside_has_been_made() {
    all(|steps| {
        steps.has(read_only_root, "the config says so");
        steps.before(makes, read_only_root, "mount points and the working directory are made in it");
        let kept = |op: &Op| matches!(op, Op::SetAttributes { mount, set: libc::MOUNT_ATTR_RDONLY, recursive: false, .. } if mount.0 > Slot::FIRST_FREE || *mount == Slot(Slot::FIRST_FREE));
        steps.has(kept, "so does the mount of /dev");
        steps.before(
            |op| matches!(op, Op::Device { .. } | Op::Link { .. }),
            |op| matches!(op, Op::Mask(_)),
            "devices come first",
        );
    });
}

#[test]
fn capabilities_go_after_the_last_step_that_needs_one() {
    all(|steps| {
        steps.has(sets, "the config names some");
        steps.before(needs_capability, sets, "it would be refused");
        steps.before(|op| matches!(op, Op::GivePipes(_)), sets, "it would be refused");
        steps.before(changes_user, sets, "setuid needs CAP_SETUID");
        let last_change = |op: &Op| matches!(op, Op::SetGroups);
        steps.before(drops, last_change, "CAP_SETPCAP goes with the change of user");
        steps.before(sets, |op| matches!(op, Op::Ambient(_)), "ambient needs permitted and inheritable");
        let forbids = |op: &Op| matches!(op, Op::Prctl { attribute: Attribute::NoNewPrivileges, .. });
        steps.before(sets, forbids, "in the order in which people read them");
        steps.before(forbids, created, "who waits is confined already");
    });
}

#[test]
fn capabilities_survive_the_change_of_user_and_no_other() {
    all(|steps| {
        let value = |wanted: u64| {
            let ops = steps.plan.ops().iter().enumerate();
            let found = ops.filter(move |(_, op)| {
                matches!(op, Op::Prctl { attribute: Attribute::KeepCapabilities, value } if *value == wanted)
            });
            found.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let (kept, dropped) = (value(1), value(0));
        assert_eq!(kept.len(), dropped.len(), "{}", steps.name);
        for (first, last) in kept.iter().zip(dropped) {
            assert!(matches!(steps.plan.ops[first + 1], Op::SetIds { .. }) && *first < last, "{}", steps.plan);
        }
    });
}

#[test]
fn the_program_is_looked_up_as_its_user_in_its_directory_before_create_returns() {
    all(|steps| {
        steps.before(|op| matches!(op, Op::MakeCwd(_)), enters, "it has to be there");
        steps.before(changes_user, enters, "only the final user may be able to enter it");
        steps.before(sets, enters, "without capabilities that would open everything");
        steps.before(enters, finds_program, "its path may be relative");
        steps.before(finds_program, created, "create fails without a program");
        steps.before(|op| matches!(op, Op::FindHome(_)), drops, "an image may hide its file from users");
        steps.before(makes, |op| matches!(op, Op::Umask(_)), "what is made has the modes that we say");
    });
}

#[test]
fn create_returns_when_nothing_is_left_that_the_config_can_make_fail() {
    all(|steps| {
        steps.has(created, "every container is recorded");
        steps.before(needs_capability, created, "create has to report it");
        steps.before(
            |op| matches!(op, Op::Rlimit { .. } | Op::NewKeyring | Op::Ambient(_) | Op::Umask(_)),
            created,
            "create has to report it",
        );
        steps.before(created, |op| matches!(op, Op::AwaitStart), "start finds a container that is recorded");
        assert_eq!(steps.plan.meetings().last(), Some(Meeting::Created));
    });
}

#[test]
fn signals_are_let_in_when_only_exec_is_left() {
    all(|steps| {
        // But for the filter, and for what was kept for it.
        let confines = |op: &&Op| matches!(op, Op::Seccomp { .. } | Op::Capabilities { .. });
        let last: Vec<_> = steps.plan.ops().iter().rev().filter(|op| !confines(op)).take(2).collect();
        assert_eq!(last, [&Op::Execute, &Op::UnblockSignals], "{}", steps.name);
        assert_eq!(steps.at(|op| matches!(op, Op::UnblockSignals | Op::Execute)).count(), 2);
    });
}

#[test]
fn limits_that_would_hinder_the_set_up_come_after_it() {
    all(|steps| {
        let limits = |op: &Op| matches!(op, Op::Rlimit { .. });
        steps.before(needs_capability_but_bounding, limits, "open files and memory are limited");
        steps.before(makes, limits, "open files and memory are limited");
    });
}

#[test]
fn clocks_are_shifted_before_anyone_is_inside_and_the_second_process_is_born_unseen() {
    let config = with(|config| {
        namespaces(config).retain(|namespace| namespace["type"] != "pid");
        namespaces(config).push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1}});
    });
    let spec = serde_json::from_value(config).unwrap();
    let plan = sample::compile(&spec, sample::user(), UsernsMode::Unset, true, OWN_USERNS).unwrap();
    let at = |wanted: fn(&Op) -> bool| plan.ops().iter().position(wanted).unwrap();
    let steps = [
        at(|op| matches!(op, Op::WriteProc { .. })),
        at(|op| matches!(op, Op::Unshare(kinds) if kinds & libc::CLONE_NEWTIME != 0)),
        at(|op| matches!(op, Op::ShiftClocks(_))),
        // Without a PID namespace of its own, container code may look at the new process at once.
        at(|op| matches!(op, Op::Prctl { attribute: Attribute::Dumpable, value: 0 })),
        at(|op| matches!(op, Op::Rebirth)),
    ];
    assert!(steps.is_sorted(), "{steps:?}");
    assert_eq!(plan.clone_flags & u64::from(libc::CLONE_NEWTIME.unsigned_abs()), 0);
}

#[test]
fn the_seccomp_agent_is_told_as_soon_as_there_is_a_filter_by_an_init_that_knows_its_number() {
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
    });
    for no_new_privs in [true, false] {
        for hooks in [json!({}), json!({"startContainer": [{"path": "/hook"}]})] {
            let has_hooks = hooks.get("startContainer").is_some();
            let config = with(|config| {
                config["linux"]["seccomp"] = seccomp.clone();
                config["process"]["noNewPrivileges"] = no_new_privs.into();
                config["hooks"] = hooks;
            });
            let spec = serde_json::from_value(config).unwrap();
            let plan = sample::compile(&spec, sample::user(), UsernsMode::Unset, true, 0).unwrap();
            let steps = Steps { name: "agent", plan };
            let attached = steps.at(|op| matches!(op, Op::Seccomp { .. })).next().unwrap();
            assert_eq!(steps.plan.ops[attached + 1], Op::TellAgent, "{}", steps.plan);
            steps.before(|op| *op == Op::LearnPid, created, "the parent of create ends after that");
            steps.before(created, |op| *op == Op::TellAgent, "the container is created then");
            steps.before(|op| *op == Op::LeaveAgent, |op| matches!(op, Op::Hook(_)), "hooks may wait for the agent");
            assert_eq!(steps.at(|op| *op == Op::LeaveAgent).count(), usize::from(has_hooks), "exec does it otherwise");
            let meetings: Vec<_> = steps.plan.meetings().collect();
            assert!(meetings.ends_with(&[Meeting::Pid, Meeting::Created]), "{meetings:?}");
        }
    }
}
