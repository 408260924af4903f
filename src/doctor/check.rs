//! The judgement: facts in, findings out. Pure.

use nix::errno::Errno;

use super::{Check, Status, facts::Facts, trial::Probe};
use crate::{
    error::{Code, Error, Warning, plain},
    host::{
        refusal::{self, Step, cause},
        session,
    },
    plan::ids::UserNamespace,
};

/// Bytes that a container's state takes, generously.
const STATE: u64 = 1 << 20;
/// Fewer open files than this are too few for ordinary servers.
const FILES: u64 = 4096;
/// The oldest kernel that pura is for.
const KERNEL: (u32, u32) = (5, 12);

const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

const DELEGATE: &str = "Delegate=cpu cpuset io memory pids in /etc/systemd/system/user@.service.d/delegate.conf, systemctl daemon-reload, log in again";

/// Podman asks for a limit of processes unless it is told not to.
const PODMAN: &str = "until then podman run --pids-limit=0, or pids_limit=0 in containers.conf";

/// All checks, in their order.
pub(super) fn all(facts: &Facts) -> Vec<Check> {
    let works = facts.trial.is_tried(Probe::Tmpfs);
    let judge: [fn(&Facts) -> Check; 15] = [
        userns, ids, namespaces, proc, sys, mounts, state, cgroup, systemd, limits, security, devices, network, kernel,
        helpers,
    ];
    let mut checks: Vec<Check> = judge.iter().map(|judge| judge(facts)).collect();
    for check in &mut checks {
        // What stands on a user namespace cannot be tried without one.
        if !works && ["namespaces", "proc", "sys", "mounts", "security"].contains(&check.id) {
            *check = Check {
                status: Status::Skip,
                problems: Vec::new(),
                ..Check::new(check.id, "not tried: see userns".to_owned())
            };
        }
        if facts.is_inside {
            check.problems.iter_mut().for_each(|(_, problem)| problem.for_inside());
        }
    }
    checks
}

fn refused(step: Step, errno: Errno, facts: &Facts, code: Code, what: &'static str) -> Warning {
    cause(step, errno, &facts.refusal).unwrap_or_else(|| Error::new(code, what, plain(errno))).into_finding()
}

fn userns(facts: &Facts) -> Check {
    let trial = &facts.trial;
    let refusal = &facts.refusal;
    let new = !matches!(&facts.ids, Some(Ok((ids, _))) if !matches!(ids.user_namespace, UserNamespace::Create { .. }));
    let finding = if new { "a new user namespace works" } else { "the caller's own user namespace is used" };
    let mut check = Check::new("userns", finding.to_owned());
    for (probe, step, code, what) in [
        (Probe::User, Step::User(libc::CLONE_NEWUSER), Code::Userns, "create a user namespace"),
        (Probe::Maps, Step::Maps, Code::MapRefused, "map ids"),
        (Probe::Mounts, Step::Use, Code::Mount, "make a mount namespace of its own"),
        (Probe::Tmpfs, Step::Use, Code::FilesystemType, "mount tmpfs"),
    ] {
        if let Some(errno) = trial.failure(probe) {
            let step =
                if probe == Probe::Mounts && errno == Errno::ENOSPC { Step::Others(libc::CLONE_NEWNS) } else { step };
            check.fail(refused(step, errno, facts, code, what));
        }
    }
    if check.problems.is_empty() && !trial.is_tried(Probe::Tmpfs) {
        let why = "the child that tried it was killed: a seccomp filter may kill instead of refusing";
        check.fail(Error::new(Code::UsernsSeccomp, "use a new user namespace", why).into_finding());
    }
    let [most, ..] = refusal.most;
    check.fact("max_user_namespaces", most.into());
    check.fact("initial", facts.host.initial_userns.into());
    check.fact("seccomp", refusal.seccomp.into());
    check.fact("selinux", refusal.selinux.into());
    check.fact("apparmor", refusal.label.clone().into());
    check.fact("container", facts.is_inside.into());
    check
}

fn ids(facts: &Facts) -> Check {
    let caller = &facts.host.caller;
    let mut check = match &facts.ids {
        Some(Ok((ids, _))) => {
            let count = |map: &[crate::host::ids::Extent]| map.iter().map(|line| u64::from(line.count)).sum::<u64>();
            let maps = ids.maps.clone().unwrap_or_default();
            let by = match &ids.user_namespace {
                UserNamespace::Create { writer, .. } => writer.name(),
                UserNamespace::Join { .. }
                | UserNamespace::JoinOwner { .. }
                | UserNamespace::Reuse
                | UserNamespace::Inherit => "whoever made the user namespace",
            };
            Check::new("ids", format!("{} uids and {} gids, mapped by {by}", count(&maps.uids), count(&maps.gids)))
        }
        _ => Check::new("ids", String::new()),
    };
    match &facts.ids {
        Some(Ok((_, warnings))) => warnings.iter().for_each(|warning| check.warn(warning.clone())),
        Some(Err(error)) => check.fail(error.clone().into_finding()),
        None => {}
    }
    if let Some(error) = &facts.mapper {
        check.fail(error.clone().into_finding());
    }
    check.fact("uid", caller.uid.into());
    check.fact("gid", caller.gid.into());
    if let Some(account) = &facts.host.account {
        check.fact("account", account.name.clone().into());
        check.fact("subuids", sum(&account.uids));
        check.fact("subgids", sum(&account.gids));
    }
    check.fact("no_new_privs", caller.no_new_privs.into());
    check.fact("bounding", format!("{:x}", caller.bounding).into());
    check
}

fn sum(ranges: &[crate::host::ids::Range]) -> serde_json::Value {
    ranges.iter().map(|range| u64::from(range.count)).sum::<u64>().into()
}

fn namespaces(facts: &Facts) -> Check {
    let mut check = Check::new("namespaces", "mnt pid net ipc uts cgroup time".to_owned());
    for (probe, kind) in [
        (Probe::Pid, libc::CLONE_NEWPID),
        (Probe::Net, libc::CLONE_NEWNET),
        (Probe::Ipc, libc::CLONE_NEWIPC),
        (Probe::Uts, libc::CLONE_NEWUTS),
        (Probe::Cgroup, libc::CLONE_NEWCGROUP),
        (Probe::Time, libc::CLONE_NEWTIME),
    ] {
        let Some(errno) = facts.trial.failure(probe) else { continue };
        let name = refusal::KINDS.iter().find(|(_, flag)| *flag == kind).map_or("", |(name, _)| name);
        let error = cause(Step::Others(kind), errno, &facts.refusal)
            .unwrap_or_else(|| Error::new(Code::Namespace, format!("make a {name} namespace"), plain(errno)));
        if probe == Probe::Cgroup {
            check.warn(refusal::no_cgroup_namespace(errno));
            continue;
        }
        // Only a config that asks for offsets needs a time namespace.
        if probe == Probe::Time { check.warn(error.into_finding()) } else { check.fail(error.into_finding()) }
    }
    check
}

fn proc(facts: &Facts) -> Check {
    let mut check = Check::new("proc", "a new procfs can be mounted".to_owned());
    if let Some(errno) = facts.trial.failure(Probe::Proc) {
        let error = if errno == Errno::EPERM {
            crate::plan::masked_proc("mount proc")
        } else {
            Error::new(Code::FilesystemType, "mount proc", plain(errno))
        };
        check.warn(error.into_finding());
    }
    check
}

fn sys(facts: &Facts) -> Check {
    let mut check = Check::new("sys", "a new sysfs can be mounted".to_owned());
    if let Some(errno) = facts.trial.failure(Probe::Sys) {
        let why = plain(errno);
        let what = format!("/sys is the host's, read-only, because sysfs may not be mounted: {why}");
        check.warn(Warning::new(Code::SysfsBound, what));
    }
    check
}

fn mounts(facts: &Facts) -> Check {
    let mut check = Check::new("mounts", "tmpfs, overlay and pivot_root work".to_owned());
    if let Some(errno) = facts.trial.failure(Probe::Overlay) {
        let what = format!("throw-away layers are not to be had, because an overlay is refused: {}", plain(errno));
        check.warn(Warning::new(Code::Overlay, what).fix("pura run --read-only, or Linux 5.11"));
    }
    if let Some(errno) = facts.trial.failure(Probe::Pivot) {
        let error = Error::new(Code::PivotRoot, "enter the root with pivot_root", plain(errno)).fix("--no-pivot");
        check.warn(error.into_finding());
    }
    for (path, kind) in &facts.networked {
        let what = format!(
            "{path:?} is on {kind}, whose server does not know subordinate ids: chown fails in a root filesystem there"
        );
        check.warn(Warning::new(Code::NetworkFilesystem, what).fix("root filesystems and state on a local disk"));
    }
    check
}

fn state(facts: &Facts) -> Check {
    let mut check = match &facts.state {
        Some(Ok((path, _))) => Check::new("state", path.display().to_string()),
        _ => Check::new("state", String::new()),
    };
    match &facts.state {
        Some(Ok((_, warning))) => warning.iter().for_each(|warning| check.warn(warning.clone())),
        Some(Err(error)) => check.fail(error.clone().into_finding()),
        None => {}
    }
    if let Some(Ok((path, _))) = &facts.state {
        check.fact("directory", path.display().to_string().into());
    }
    if facts.ends_at_logout {
        check.warn(session::warning());
    }
    if let Some((free, read_only, noexec)) = facts.space {
        if free < STATE || read_only {
            let why = if read_only { "its filesystem is read-only" } else { "its filesystem is full" };
            let error = Error::new(Code::StateRefused, "keep the container's state", why).fix("--root DIR");
            check.fail(error.into_finding());
        }
        check.fact("free", free.into());
        check.fact("noexec", noexec.into());
    }
    check
}

fn cgroup(facts: &Facts) -> Check {
    let own = &facts.host.cgroup;
    let mut check = Check::new("cgroup", format!("{} is yours to divide: {}", own.own, facts.controllers.join(" ")));
    let lacking: Vec<_> =
        CONTROLLERS.into_iter().filter(|name| !facts.controllers.iter().any(|has| has == name)).collect();
    if !own.unified {
        let what = "this host has cgroup v1 or a hybrid, on which pura sets no limits";
        let fix = format!("boot with systemd.unified_cgroup_hierarchy=1; {PODMAN}");
        check.warn(Warning::new(Code::CgroupV1, what).fix(fix));
    } else if let Some(errno) = facts.cgroup {
        let without = if matches!(facts.systemd, Some(Ok(_))) {
            "no cgroup of its own but with limits, which systemd sets: else pause is not available"
        } else {
            "no cgroup of its own: limits and pause are not available"
        };
        let what = format!("{without}, because {} is not yours: {}", own.own, plain(errno));
        let fix = format!("systemd-run --user --scope -p Delegate=yes -- pura ...; {PODMAN}");
        check.warn(Warning::new(Code::NoCgroup, what).fix(fix));
    } else if !lacking.is_empty() {
        let what = format!(
            "limits of {} are not available: these controllers are not delegated to you (have: {})",
            lacking.join(" "),
            facts.controllers.join(" ")
        );
        let podman = if lacking.contains(&"pids") { format!("; {PODMAN}") } else { String::new() };
        check.warn(Warning::new(Code::Controller, what).fix(DELEGATE.to_owned() + &podman));
    }
    let version = if own.unified { "2" } else { own.mount.as_ref().map_or("1", |_| "hybrid") };
    check.fact("version", version.into());
    check.fact("own", own.own.clone().into());
    check.fact("controllers", facts.controllers.join(" ").into());
    check
}

/// For `--systemd-cgroup`, which engines give by default where systemd runs, and for limits where the own cgroup is not the caller's.
fn systemd(facts: &Facts) -> Check {
    let mut check = Check::new(
        "systemd",
        "not running here; only --systemd-cgroup and limits in a login session need it".to_owned(),
    );
    match &facts.systemd {
        Some(Ok(version)) => check.good = format!("systemd {version} makes scopes for --systemd-cgroup"),
        Some(Err(why)) => {
            let what = format!("--systemd-cgroup, as Podman gives it by default, does not work: {why}");
            let fix = "--cgroup-manager cgroupfs, or pura-systemd beside pura and a session of systemd's";
            check.warn(Warning::new(Code::Systemd, what).fix(fix));
        }
        None => {}
    }
    check.fact("version", facts.systemd.as_ref().and_then(|found| found.as_ref().ok()).copied().into());
    check
}

fn limits(facts: &Facts) -> Check {
    let mut check = Check::new("limits", format!("{} open files at most", facts.files));
    if facts.files < FILES {
        let what = format!("the hard limit of open files is {}: a config that asks for more is refused", facts.files);
        check.warn(Warning::new(Code::Rlimit, what).fix("LimitNOFILE= of the service, or /etc/security/limits.conf"));
    }
    let is_used_up = facts.keys.is_some_and(|(used, most)| used.saturating_add(1) >= most);
    if let Some(why) =
        facts.trial.failure(Probe::Keyring).map(plain).or_else(|| is_used_up.then(|| "keys are used up".to_owned()))
    {
        let what = format!("the caller's session keys stay reachable inside: no new keyring: {why}");
        check.warn(Warning::new(Code::Keyring, what).fix("sudo sysctl kernel.keys.maxkeys=2000"));
    }
    if let Some((used, most)) = facts.processes.filter(|(used, most)| used.saturating_add(16) > *most) {
        let what = format!("{used} of {most} processes of your cgroup are used up (pids.max)");
        check.warn(Warning::new(Code::Exhausted, what).fix("end some, or raise TasksMax= of the service"));
    }
    check.fact("nofile", facts.files.into());
    if let Some((used, most)) = facts.keys {
        check.fact("keys", format!("{used}/{most}").into());
    }
    check
}

fn security(facts: &Facts) -> Check {
    let mut check = Check::new("security", "seccomp filters and agents work".to_owned());
    for (probe, code, what) in [
        (Probe::Filter, Code::Seccomp, "attach a seccomp filter"),
        (Probe::Agent, Code::SeccompAgent, "attach a seccomp filter with an agent"),
    ] {
        if let Some(errno) = facts.trial.failure(probe) {
            check.warn(Error::new(code, what, plain(errno)).into_finding());
        }
    }
    check.fact("selinux", facts.refusal.selinux.into());
    check.fact("apparmor", facts.refusal.label.is_some().into());
    check
}

fn devices(facts: &Facts) -> Check {
    let open: Vec<_> = facts.devices.iter().filter(|device| device.is_open).map(|device| device.path).collect();
    let mut check = Check::new("devices", if open.is_empty() { "none".to_owned() } else { open.join(" ") });
    for device in &facts.devices {
        let state = if device.is_open {
            "open"
        } else if device.exists {
            "closed"
        } else {
            "absent"
        };
        if let Some(group) = device.group {
            let what = format!("{} is open to you only by group {group}, which a container drops", device.path);
            check.warn(
                Warning::new(Code::DeviceClosed, what)
                    .fix("the annotation run.oci.keep_original_groups=1, or run --keep-groups"),
            );
        }
        check.fact(device.path.trim_start_matches("/dev/"), state.into());
        if device.path == "/dev/net/tun" && !device.is_open {
            let what = format!("/dev/net/tun is {state}: pasta and slirp4netns cannot work");
            check.warn(Warning::new(Code::Tun, what).fix(if device.exists {
                "sudo chmod 666 /dev/net/tun"
            } else {
                "sudo modprobe tun, or --device /dev/net/tun for the outer container"
            }));
        }
    }
    check
}

fn network(facts: &Facts) -> Check {
    let path = facts.network.as_ref().map(|path| path.display().to_string());
    // Hardly a machine has other ones.
    let low = facts.ports.filter(|first| *first > 80);
    let low =
        low.map(|first| format!("; ports of the host below {first} are root's (net.ipv4.ip_unprivileged_port_start)"));
    let mut check = Check::new("network", path.clone().unwrap_or_default() + &low.unwrap_or_default());
    if path.is_none() {
        let what = "neither pasta nor slirp4netns is installed: a network of its own has the loopback only";
        check.warn(Warning::new(Code::LoopbackOnly, what).fix("apt install passt, or dnf install passt; or run --net"));
    }
    if !facts.has_dns {
        let what = "no name server but on the host's loopback, which a network of its own does not reach";
        check.warn(Warning::new(Code::NoDns, what).fix("a nameserver line in /etc/resolv.conf"));
    }
    check.fact("ports", facts.ports.into());
    check
}

fn kernel(facts: &Facts) -> Check {
    let mut check = Check::new("kernel", facts.kernel.clone());
    let mut numbers = facts.kernel.split(['.', '-']).map(str::parse::<u32>);
    if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next())
        && (major, minor) < KERNEL
    {
        let why =
            format!("Linux {}.{} is the oldest that it is made for, and this is {}", KERNEL.0, KERNEL.1, facts.kernel);
        check.warn(Error::new(Code::Kernel, "run as tested", why).into_finding());
    }
    let lacking = facts.trial.lacking();
    if !lacking.is_empty() {
        let calls = lacking.join(", ");
        check.warn(if facts.refusal.seccomp {
            let what = format!("a seccomp filter of the outer container forbids {calls}; slower ways are used");
            Warning::new(Code::Forbidden, what).fix("--security-opt seccomp=unconfined for it, or a newer engine")
        } else {
            Warning::new(Code::Kernel, format!("this kernel lacks {calls}; slower ways are used"))
        });
    }
    check
}

fn helpers(facts: &Facts) -> Check {
    let mut check = Check::new("helpers", "pura-init, ps".to_owned());
    if !facts.has_reaper {
        let what = "pura-init is not installed, so run --init fails";
        check.warn(Warning::new(Code::Helper, what).fix("install pura-init beside pura, or in ../libexec/pura"));
    }
    if !facts.has_ps {
        let what = "ps is not installed, so pura ps lists nothing";
        check.warn(Warning::new(Code::Helper, what).fix("apt install procps, or dnf install procps-ng"));
    }
    check
}
