//! Configs and hosts for tests of the plan. Nothing here comes from the machine that runs them.

use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, PosixRlimit, Process, Spec};

use super::{Plan, compile::Order};
use crate::{
    cli::UsernsMode,
    error::Result,
    host::{
        Caller, Cgroup, Host, Joined, Kind, Maps, Named, OomScore,
        ids::{Account, Extent, Range},
    },
};

/// Inode of the user namespace that the caller is in.
pub(crate) const OWN_USERNS: u64 = 10;

/// All that Linux 6.18 knows.
pub(crate) const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

/// An ordinary user, 1000, with subordinate ids, in the initial user namespace of a host with cgroup v2.
pub(crate) fn user() -> Host {
    let caller = Caller { uid: 1000, gid: 1000, umask: 0o022, bounding: ALL_CAPABILITIES, ..Caller::default() };
    let subordinate = vec![Range { first: 100_000, count: 65536 }];
    let account = Account {
        name: Some("alice".to_owned()),
        primary_gid: Some(1000),
        uids: subordinate.clone(),
        gids: subordinate,
        free: 165_536,
        ..Account::default()
    };
    let cgroup = Cgroup { mount: Some("/sys/fs/cgroup".into()), unified: true, own: "/user.slice".to_owned() };
    Host { caller, initial_userns: true, own_userns: OWN_USERNS, account: Some(account), cgroup, ..Host::default() }
}

/// Real root.
pub(crate) fn root() -> Host {
    let mut host = user();
    host.caller = Caller { uid: 0, gid: 0, effective: ALL_CAPABILITIES, ..host.caller };
    host.account = None;
    host
}

/// Root of a user namespace with 65537 ids: rootless Podman's own.
pub(crate) fn nested() -> Host {
    let map = vec![Extent { inside: 0, outside: 1000, count: 1 }, Extent { inside: 1, outside: 100_000, count: 65536 }];
    Host { initial_userns: false, own_maps: Maps { uids: map.clone(), gids: map }, ..root() }
}

/// Compiles the plan; the host has all that the config names: files below `/etc` and `/run`, directories elsewhere, and
/// namespaces that the user namespace `owner` owns.
pub(crate) fn compile(spec: &Spec, host: Host, mode: UsernsMode, waits: bool, owner: u64) -> Result<Plan> {
    compile_for(spec, host, mode, &order(waits), owner)
}

/// The same, for another order.
pub(crate) fn compile_for(
    spec: &Spec,
    mut host: Host,
    mode: UsernsMode,
    order: &Order<'_>,
    owner: u64,
) -> Result<Plan> {
    let sources = spec.mounts().iter().flatten().map(|mount| {
        let words = mount.options().as_deref().unwrap_or_default();
        let is_bind = words.iter().any(|word| word == "bind" || word == "rbind");
        let is_file = ["/etc", "/run"].iter().any(|above| mount.destination().starts_with(above));
        is_bind.then_some(if is_file { Kind::File } else { Kind::Directory })
    });
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let namespaces = namespaces.into_iter().flatten().map(|namespace| {
        namespace.path().as_ref().map(|_| Joined {
            kind: kind(namespace.typ()),
            owner,
            inode: 20,
            maps: None,
            setgroups_denied: false,
        })
    });
    let process = spec.process().as_ref();
    let limits = process.and_then(|process| process.rlimits().as_ref()).into_iter().flatten();
    host.named = Named {
        root: Some(Kind::Directory),
        sources: sources.collect(),
        limits: limits.map(|limit: &PosixRlimit| (limit.soft(), limit.hard())).collect(),
        oom_score: process.and_then(Process::oom_score_adj).map(|_| OomScore::default()),
        namespaces: namespaces.collect(),
        has_time: true,
        has_core: host.named.has_core,
        nodes: std::mem::take(&mut host.named.nodes),
        selinux: true,
        ..Named::default()
    };
    super::compile::container(spec, &host, mode, order)
}

/// Of `create` or `run`, for a bundle that is not there.
pub(crate) fn order(waits: bool) -> Order<'static> {
    Order { waits, ..Order::new(Path::new("/bundle"), Path::new("/state/c1")) }
}

fn kind(of: LinuxNamespaceType) -> i32 {
    match of {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
    }
}
