//! Why the kernel refuses namespaces: one errno has many causes. Facts are gathered only after a failure.

use std::fs;

use nix::errno::Errno;

use super::Host;
use crate::error::{Code, Error};

const CAP_SYS_ADMIN: u8 = 21;
const CAP_SETFCAP: u8 = 31;

/// What helps against the filter of an outer container.
pub const UNCONFINED: &str = "--security-opt seccomp=unconfined for the outer container";

/// What tells the causes apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
struct Facts {
    /// `user.max_user_namespaces`
    most_user_namespaces: Option<u64>,
    /// Debian's `kernel.unprivileged_userns_clone`
    unprivileged_clone: Option<u64>,
    /// The kernel has user namespaces.
    has_user_namespaces: bool,
    /// `/proc/self/attr/current`, when a security module shows a label.
    label: Option<String>,
    /// `SELinux` enforces.
    selinux: bool,
    /// A seccomp filter is attached.
    seccomp: bool,
    /// The caller's ids are the overflow ids.
    unmapped: bool,
}

/// Explains why clone made no process in new namespaces.
pub fn explain(flags: u64, host: &Host, errno: Errno) -> Error {
    let wants_user = flags & u64::from(libc::CLONE_NEWUSER.cast_unsigned()) != 0;
    if errno == Errno::EAGAIN || errno == Errno::ENOMEM {
        return Error::new(
            Code::Exhausted,
            "start the container",
            "your processes are used up, or memory is (RLIMIT_NPROC, pids.max)",
        );
    }
    if errno == Errno::EOPNOTSUPP {
        return Error::new(
            Code::Kernel,
            "start the container in its cgroup",
            "the kernel or a seccomp filter lacks clone3, and you may not move a process there",
        )
        .fix("a seccomp profile that allows clone3, or --cgroup-manager disabled");
    }
    if errno == Errno::ENOSYS && flags & u64::from(libc::CLONE_NEWTIME.cast_unsigned()) != 0 {
        return Error::new(
            Code::Kernel,
            "make a time namespace",
            "the kernel or a seccomp filter lacks clone3, which it takes",
        )
        .fix("a seccomp profile that allows clone3");
    }
    if !wants_user {
        let error = Error::new(Code::Namespace, "make the container's namespaces", crate::error::plain(errno));
        let lacks_power = errno == Errno::EPERM && !host.caller.has(CAP_SYS_ADMIN);
        return if lacks_power { error.fix("--userns=auto, which needs no privilege") } else { error };
    }
    classify(&gather(host), errno)
}

/// A step with all the power that it takes, which the filter of an outer container forbids nevertheless.
pub fn forbidden_call(what: String) -> Error {
    Error::new(Code::Forbidden, what, "a seccomp filter forbids it (this is a container)").fix(UNCONFINED)
}

/// Why root of a user namespace cannot map itself into another one: since Linux 5.12, id 0 takes `CAP_SETFCAP` outside.
/// Nothing when it is not that.
pub fn root_unmapped(host: &Host, errno: Errno) -> Option<Error> {
    let lacks = errno == Errno::EPERM && host.caller.uid == 0 && !host.caller.has(CAP_SETFCAP);
    let why = "the caller is root without CAP_SETFCAP, and may not be mapped";
    lacks.then(|| {
        Error::new(Code::MapRefused, "map ids", why)
            .fix("--cap-add SETFCAP for the outer container, or another user than root in it")
    })
}

/// Why a process with all capabilities of a new user namespace may not use them: the filter of an outer container.
/// Nothing when it is not that.
pub fn forbidden(host: &Host, errno: Errno) -> Option<Error> {
    (host.caller.seccomp && errno == Errno::EPERM).then(|| filtered("use a new user namespace"))
}

fn filtered(what: &'static str) -> Error {
    Error::new(Code::UsernsSeccomp, what, "a seccomp filter forbids it (this is a container)").fix(
        "start the outer one with --security-opt seccomp=unconfined and systempaths=unconfined (Docker) or unmask=ALL (Podman), \
         or hostUsers: false and procMount: Unmasked (Kubernetes)",
    )
}

/// Why the first steps in a new user namespace fail: Ubuntu's `AppArmor` lets a program without a profile make one, and
/// takes its capabilities. Nothing when it is not that.
pub fn restricted(host: &Host, errno: Errno) -> Option<Error> {
    let switch = number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    restriction(switch == Some(1) && !host.caller.has(CAP_SYS_ADMIN), errno)
}

fn restriction(is_restricted: bool, errno: Errno) -> Option<Error> {
    let why = "AppArmor takes its capabilities (kernel.apparmor_restrict_unprivileged_userns is 1)";
    let fix = "a profile for pura that allows userns: docs/rootless.md has one";
    (is_restricted && matches!(errno, Errno::EPERM | Errno::EACCES))
        .then(|| Error::new(Code::UsernsAppArmor, "use a new user namespace", why).fix(fix))
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn gather(host: &Host) -> Facts {
    let label =
        fs::read_to_string("/proc/self/attr/current").ok().map(|label| label.trim_end_matches(['\n', '\0']).to_owned());
    Facts {
        most_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
        unprivileged_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
        has_user_namespaces: host.own_userns != 0,
        label: label.filter(|label| !label.is_empty()),
        selinux: number("/sys/fs/selinux/enforce") == Some(1),
        seccomp: host.caller.seccomp,
        unmapped: number("/proc/sys/kernel/overflowuid") == Some(host.caller.uid.into()) && !host.initial_userns,
    }
}

/// The tests in the order in which the kernel makes them; the last cause is what is left.
#[expect(clippy::wildcard_enum_match_arm, reason = "an errno is a number, not a variant")]
fn classify(facts: &Facts, errno: Errno) -> Error {
    let refuse = |code, why: &str| Error::new(code, "create a user namespace", why.to_owned());
    let doctor = "the sysctls under /proc/sys/user, and the log of the kernel";
    match errno {
        Errno::ENOSPC | Errno::EUSERS if facts.most_user_namespaces == Some(0) => {
            refuse(Code::UsernsZero, "user.max_user_namespaces is 0 (this is not about disk space)")
                .fix("sudo sysctl user.max_user_namespaces=15000")
        }
        Errno::ENOSPC | Errno::EUSERS => {
            refuse(Code::UsernsQuota, "user namespaces, or another kind of namespace, are used up, or nested 33 deep (this is not about disk space)")
                .fix("end some containers, or raise the sysctls user.max_*_namespaces")
        }
        Errno::EINVAL if !facts.has_user_namespaces => {
            refuse(Code::UsernsAbsent, "this kernel has none (CONFIG_USER_NS, or user_namespace.enable=0)")
        }
        Errno::EACCES if facts.label.as_deref().is_some_and(|label| label != "unconfined") && !facts.selinux => {
            refuse(Code::UsernsAppArmor, "an AppArmor profile forbids it").fix("a profile for pura that allows userns")
        }
        Errno::EACCES => refuse(Code::UsernsSelinux, "SELinux forbids it").fix("ausearch -m avc -c pura shows the rule"),
        Errno::EPERM if facts.unmapped => refuse(Code::UsernsUnmapped, "your own id is not mapped where pura runs"),
        Errno::EPERM if facts.unprivileged_clone == Some(0) => {
            refuse(Code::UsernsSysctl, "kernel.unprivileged_userns_clone is 0").fix("sudo sysctl kernel.unprivileged_userns_clone=1")
        }
        Errno::EPERM if facts.seccomp => filtered("create a user namespace"),
        Errno::EPERM if facts.selinux => refuse(Code::UsernsSelinux, "SELinux forbids it").fix("ausearch -m avc -c pura shows the rule"),
        Errno::EPERM => refuse(Code::UsernsChroot, "pura runs in a chroot").fix("pivot_root, systemd-nspawn or bwrap for the outer root"),
        errno => refuse(Code::Userns, &crate::error::plain(errno)).fix(format!("look at {doctor}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_code() {
        let has = Facts { has_user_namespaces: true, ..Facts::default() };
        for (errno, facts, code) in [
            (Errno::ENOSPC, Facts { most_user_namespaces: Some(0), ..has.clone() }, Code::UsernsZero),
            (Errno::ENOSPC, Facts { most_user_namespaces: Some(100), ..has.clone() }, Code::UsernsQuota),
            (Errno::EINVAL, Facts::default(), Code::UsernsAbsent),
            (
                Errno::EACCES,
                Facts { label: Some("docker-default (enforce)".to_owned()), ..has.clone() },
                Code::UsernsAppArmor,
            ),
            (Errno::EACCES, Facts { selinux: true, ..has.clone() }, Code::UsernsSelinux),
            (Errno::EPERM, Facts { unmapped: true, seccomp: true, ..has.clone() }, Code::UsernsUnmapped),
            (Errno::EPERM, Facts { unprivileged_clone: Some(0), seccomp: true, ..has.clone() }, Code::UsernsSysctl),
            (Errno::EPERM, Facts { seccomp: true, ..has.clone() }, Code::UsernsSeccomp),
            (Errno::EPERM, Facts { selinux: true, ..has.clone() }, Code::UsernsSelinux),
            (Errno::EPERM, has.clone(), Code::UsernsChroot),
            (Errno::EIO, has, Code::Userns),
        ] {
            assert_eq!(classify(&facts, errno).code(), code, "{errno} {facts:?}");
        }
    }

    #[test]
    fn capabilities_that_apparmor_takes_are_told_from_any_other_refusal() {
        let code = |is_restricted, errno| restriction(is_restricted, errno).map(|error| error.code());
        for errno in [Errno::EPERM, Errno::EACCES] {
            assert_eq!((code(true, errno), code(false, errno)), (Some(Code::UsernsAppArmor), None));
        }
        assert_eq!(code(true, Errno::ENOSPC), None);
    }
}
