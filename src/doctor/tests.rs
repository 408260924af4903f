//! Each code from facts that a machine could have.

use super::{
    Check, Status,
    check::all,
    document,
    facts::{Device, Facts, has_server, keys},
    script, table,
    trial::{Probe, Results},
};
use crate::{
    error::{Code, Error, Warning},
    host::{Cgroup, Maps, ids::Extent, refusal::KINDS},
    plan::ids::{Ids, UserNamespace, Writer},
};
use nix::errno::Errno;

/// A machine on which all is well.
fn good() -> Facts {
    let map = vec![Extent { inside: 0, outside: 1000, count: 1 }, Extent { inside: 1, outside: 100_000, count: 65536 }];
    let maps = Maps { uids: map.clone(), gids: map };
    let user_namespace = UserNamespace::Create { maps: maps.clone(), writer: Writer::Mappers, deny_setgroups: false };
    let mut facts = Facts {
        trial: Results([Some(0); _]),
        ids: Some(Ok((Ids { user_namespace, maps: Some(maps), setgroups_denied: false }, Vec::new()))),
        state: Some(Ok(("/run/user/1000/pura".into(), None))),
        space: Some((1 << 30, false, false)),
        controllers: ["cpu", "cpuset", "io", "memory", "pids"].map(str::to_owned).to_vec(),
        files: 524_288,
        keys: Some((3, 200)),
        processes: Some((10, 1000)),
        devices: vec![Device { path: "/dev/net/tun", exists: true, is_open: true, group: None }],
        network: Some("/usr/bin/pasta".into()),
        ports: Some(80),
        has_dns: true,
        kernel: "6.1.0-9-amd64".to_owned(),
        has_ps: true,
        has_reaper: true,
        ..Facts::default()
    };
    facts.host.cgroup = Cgroup { mount: Some("/sys/fs/cgroup".into()), unified: true, own: "/a".to_owned() };
    facts.refusal.has_user_namespaces = true;
    facts
}

fn check<'a>(checks: &'a [Check], id: &str) -> &'a Check {
    checks.iter().find(|check| check.id == id).unwrap()
}

#[test]
fn on_a_good_machine_every_check_is_well_and_says_what_it_found() {
    let checks = all(&good());
    let ids = checks.iter().map(|check| check.id).collect::<Vec<_>>();
    assert_eq!(
        ids,
        [
            "userns",
            "ids",
            "namespaces",
            "proc",
            "sys",
            "mounts",
            "state",
            "cgroup",
            "systemd",
            "limits",
            "security",
            "devices",
            "network",
            "kernel",
            "helpers"
        ]
    );
    for check in &checks {
        assert!(check.status == Status::Ok && check.problems.is_empty() && !check.finding().is_empty(), "{check:?}");
    }
    assert!(
        table(&checks).contains("ids         OK    65537 uids and 65537 gids, mapped by newuidmap and newgidmap\n")
    );
}

type Change = fn(&mut Facts);

fn fails(facts: &mut Facts, probe: Probe, errno: Errno) {
    facts.trial.note(probe as u8, errno as i32);
}

const ROWS: &[(&str, Status, Code, Change)] = &[
    ("userns", Status::Fail, Code::UsernsSeccomp, |facts| {
        facts.trial = Results::default();
        fails(facts, Probe::User, Errno::EPERM);
        facts.refusal.seccomp = true;
    }),
    ("userns", Status::Fail, Code::UsernsZero, |facts| {
        facts.trial = Results::default();
        fails(facts, Probe::User, Errno::ENOSPC);
        facts.refusal.most = KINDS.map(|(kind, _)| Some(if kind == "user" { 0 } else { 9 }));
    }),
    ("userns", Status::Fail, Code::UsernsAppArmor, |facts| {
        facts.trial = Results::default();
        facts.trial.note(Probe::User as u8, 0);
        fails(facts, Probe::Maps, Errno::EPERM);
        facts.refusal.restricted = true;
    }),
    ("userns", Status::Fail, Code::Proc, |facts| {
        facts.trial = Results::default();
        fails(facts, Probe::Maps, Errno::EROFS);
    }),
    // Killed by a filter: nothing more is heard.
    ("userns", Status::Fail, Code::UsernsSeccomp, |facts| {
        facts.trial = Results::default();
        facts.trial.note(Probe::User as u8, 0);
    }),
    ("ids", Status::Warn, Code::SingleId, |facts| {
        let Some(Ok((_, warnings))) = &mut facts.ids else { return };
        warnings.push(Warning::new(Code::SingleId, "no subordinate ids for alice"));
    }),
    ("ids", Status::Fail, Code::MapperPowerless, |facts| {
        facts.mapper = Some(Error::new(Code::MapperPowerless, "map ids", "it has neither"));
    }),
    ("ids", Status::Fail, Code::MapperMissing, |facts| {
        facts.ids = Some(Err(Error::new(Code::MapperMissing, "map ids", "it is not installed")));
    }),
    ("namespaces", Status::Fail, Code::Namespace, |facts| fails(facts, Probe::Net, Errno::ENOSPC)),
    ("namespaces", Status::Warn, Code::CgroupNamespace, |facts| fails(facts, Probe::Cgroup, Errno::EINVAL)),
    ("namespaces", Status::Warn, Code::TimeNamespace, |facts| fails(facts, Probe::Time, Errno::EINVAL)),
    ("proc", Status::Warn, Code::ProcMasked, |facts| fails(facts, Probe::Proc, Errno::EPERM)),
    ("sys", Status::Warn, Code::SysfsBound, |facts| fails(facts, Probe::Sys, Errno::EPERM)),
    ("mounts", Status::Warn, Code::Overlay, |facts| fails(facts, Probe::Overlay, Errno::EINVAL)),
    ("mounts", Status::Warn, Code::PivotRoot, |facts| fails(facts, Probe::Pivot, Errno::EINVAL)),
    ("mounts", Status::Warn, Code::NetworkFilesystem, |facts| facts.networked.push(("/home/a".to_owned(), "nfs"))),
    ("state", Status::Fail, Code::NoStateDir, |facts| {
        facts.state = Some(Err(Error::new(Code::NoStateDir, "keep the container's state", "none")));
    }),
    ("state", Status::Warn, Code::StateDirFallback, |facts| {
        let warning = Warning::new(Code::StateDirFallback, "state is kept in /tmp/pura-1000");
        facts.state = Some(Ok(("/tmp/pura-1000".into(), Some(warning))));
    }),
    ("state", Status::Warn, Code::NoLinger, |facts| facts.ends_at_logout = true),
    ("state", Status::Fail, Code::StateRefused, |facts| facts.space = Some((4096, false, false))),
    ("state", Status::Fail, Code::StateRefused, |facts| facts.space = Some((1 << 30, true, false))),
    ("cgroup", Status::Warn, Code::CgroupV1, |facts| facts.host.cgroup.unified = false),
    ("cgroup", Status::Warn, Code::NoCgroup, |facts| facts.cgroup = Some(Errno::EACCES)),
    ("cgroup", Status::Warn, Code::Controller, |facts| facts.controllers.retain(|name| name != "cpu")),
    ("systemd", Status::Warn, Code::Systemd, |facts| facts.systemd = Some(Err("/run/x does not exist".to_owned()))),
    ("limits", Status::Warn, Code::Rlimit, |facts| facts.files = 1024),
    ("limits", Status::Warn, Code::Keyring, |facts| facts.keys = Some((200, 200))),
    ("limits", Status::Warn, Code::Keyring, |facts| fails(facts, Probe::Keyring, Errno::EDQUOT)),
    ("limits", Status::Warn, Code::Exhausted, |facts| facts.processes = Some((999, 1000))),
    ("security", Status::Warn, Code::Seccomp, |facts| fails(facts, Probe::Filter, Errno::EINVAL)),
    ("security", Status::Warn, Code::SeccompAgent, |facts| fails(facts, Probe::Agent, Errno::EBUSY)),
    ("devices", Status::Warn, Code::DeviceClosed, |facts| {
        facts.devices.push(Device { path: "/dev/kvm", exists: true, is_open: true, group: Some(108) });
    }),
    ("devices", Status::Warn, Code::Tun, |facts| {
        facts.devices.first_mut().unwrap().is_open = false;
    }),
    ("network", Status::Warn, Code::LoopbackOnly, |facts| facts.network = None),
    ("network", Status::Warn, Code::NoDns, |facts| facts.has_dns = false),
    ("kernel", Status::Warn, Code::Kernel, |facts| facts.kernel = "5.10.0-30-amd64".to_owned()),
    ("kernel", Status::Warn, Code::Kernel, |facts| facts.trial.note(Probe::Calls as u8, 1)),
    ("kernel", Status::Warn, Code::Forbidden, |facts| {
        facts.trial.note(Probe::Calls as u8, 1);
        facts.refusal.seccomp = true;
    }),
    ("helpers", Status::Warn, Code::Helper, |facts| facts.has_ps = false),
    ("helpers", Status::Warn, Code::Helper, |facts| facts.has_reaper = false),
];

#[test]
fn each_fact_that_is_in_the_way_has_its_check_its_status_and_its_code() {
    for (id, status, code, change) in ROWS {
        let mut facts = good();
        change(&mut facts);
        let checks = all(&facts);
        let judged = check(&checks, id);
        let found = (judged.status, judged.first().map(Warning::code));
        assert_eq!(found, (*status, Some(*code)), "{id}: {judged:?}");
        let skipped = checks.iter().filter(|check| check.status == Status::Skip).count();
        assert_eq!(skipped, if *id == "userns" { 5 } else { 0 }, "{id} {code:?}");
        let text = table(&checks);
        assert!(
            text.lines().count() == checks.len() && text.contains(&format!("[PURA-{:03}]", *code as u32)),
            "{text}"
        );
    }
}

#[test]
fn the_worst_finding_of_a_check_comes_first_and_no_other_is_lost() {
    let mut facts = good();
    facts.has_dns = false;
    facts.ports = Some(1024);
    facts.space = Some((0, false, false));
    facts.state = Some(Ok(("/tmp/p".into(), Some(Warning::new(Code::StateDirFallback, "state is kept in /tmp/p")))));
    let checks = all(&facts);
    assert_eq!(check(&checks, "state").first().unwrap().code(), Code::StateRefused);
    assert!(check(&checks, "state").finding().ends_with("; also: state is kept in /tmp/p [PURA-702]"));
    assert_eq!(check(&checks, "network").first().unwrap().code(), Code::NoDns);
}

#[test]
fn what_is_as_it_should_be_has_neither_a_code_nor_a_fix() {
    let mut facts = good();
    (facts.ports, facts.systemd) = (Some(1024), Some(Ok(252)));
    let checks = all(&facts);
    let network = check(&checks, "network");
    assert!(network.status == Status::Ok && network.first().is_none(), "{network:?}");
    assert!(network.finding().contains("pasta; ports of the host below 1024 are root's"), "{network:?}");
    assert_eq!(check(&checks, "systemd").finding(), "systemd 252 makes scopes for --systemd-cgroup");
    assert!(!table(&checks).contains("PURA-"), "{}", table(&checks));
}

#[test]
fn podman_is_told_of_where_no_limit_of_processes_can_be_set() {
    for (controllers, told) in [(&["cpu", "cpuset", "io", "memory"][..], true), (&["cpuset", "memory", "pids"], false)]
    {
        let mut facts = good();
        facts.controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        let checks = all(&facts);
        let fix = check(&checks, "cgroup").first().unwrap().remedy().unwrap();
        assert_eq!(fix.contains("pids_limit=0 in containers.conf"), told, "{fix}");
    }
}

#[test]
fn in_a_container_advice_about_the_kernel_is_for_the_host() {
    let mut facts = good();
    facts.is_inside = true;
    fails(&mut facts, Probe::Net, Errno::ENOSPC);
    facts.refusal.most = KINDS.map(|(kind, _)| Some(if kind == "net" { 0 } else { 9 }));
    let checks = all(&facts);
    let fix = check(&checks, "namespaces").first().unwrap().remedy().unwrap().to_owned();
    assert_eq!(fix, "on the host, outside of this container: sudo sysctl user.max_net_namespaces=15000");
    assert!(script(&checks).unwrap().contains("\n# on the host, outside"));
}

#[test]
fn a_script_has_the_commands_of_root_and_everything_else_as_a_comment() {
    let mut facts = good();
    facts.controllers.clear();
    facts.has_ps = false;
    facts.ids =
        Some(Err(Error::new(Code::SingleId, "map ids", "none").fix("sudo usermod --add-subuids 1-2 a, or not")));
    let text = script(&all(&facts)).unwrap();
    let commands: Vec<_> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(commands[..2], ["set -e", "usermod --add-subuids 1-2 a"]);
    assert!(commands[2].starts_with("mkdir -p ") && commands[4] == "systemctl daemon-reload" && commands.len() == 5);
}

#[test]
fn json_has_the_same_keys_for_every_check_and_null_where_there_is_nothing() {
    let mut facts = good();
    facts.has_ps = false;
    let text = document(&all(&facts), Status::Warn).unwrap();
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&whole["version"], &whole["status"]), (&1.into(), &"warn".into()));
    for check in whole["checks"].as_array().unwrap() {
        let keys: Vec<_> = check.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["code", "facts", "finding", "fix", "id", "status"]);
    }
    assert_eq!(
        (&whole["checks"][0]["code"], &whole["checks"][14]["code"]),
        (&serde_json::Value::Null, &"PURA-908".into())
    );
}

#[test]
fn the_files_of_the_kernel_and_of_the_resolver_are_read() {
    assert_eq!(keys("    0:     3 2/2 2/1000000 30/25000000\n 1000:     1 1/1 7/200 9/20000\n", 1000), Some((7, 200)));
    assert_eq!(keys("", 1000), None);
    for (text, has) in [
        ("nameserver 127.0.0.53\noptions edns0\n", false),
        ("nameserver ::1\n", false),
        ("# nameserver 1.1.1.1\n", false),
        ("search a\nnameserver 10.0.2.3\n", true),
        ("nameserver fe80::1%eth0\n", true),
    ] {
        assert_eq!(has_server(text), has, "{text}");
    }
}
