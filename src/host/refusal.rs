//! Why the kernel refuses namespaces, or newuidmap fails: one errno has many causes. Facts are gathered only after a
//! failure, and by `doctor`, which says the same.

pub mod mapper;

use std::fs;

use nix::errno::Errno;

use super::Host;
use crate::error::{Code, Error, Warning, plain};

const CAP_SYS_ADMIN: u8 = 21;
const CAP_SETFCAP: u8 = 31;

/// What gives a container its power back on hosts whose `AppArmor` takes it.
const PROFILE: &str =
    "pura doctor --apparmor-profile | sudo tee /etc/apparmor.d/pura, then sudo apparmor_parser -r /etc/apparmor.d/pura";

/// Kinds of namespaces as sysctls name them, `/proc/sys/user/max_KIND_namespaces`, and as clone does.
pub const KINDS: [(&str, i32); 8] = [
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", libc::CLONE_NEWTIME),
];

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A user namespace, and in the same call other kinds, `CLONE_NEW*`.
    User(i32),
    /// The writing of its maps, or the denial of setgroups.
    Maps,
    /// The first use of its capabilities: a mount.
    Use,
    /// Other kinds, inside of it.
    Others(i32),
}

/// How a container that `run -- CMD` has made is called in the variable `container`, as managers of containers do.
pub const OURS: &str = "pura";

/// What helps against the filter of an outer container.
pub const UNCONFINED: &str = "--security-opt seccomp=unconfined for the outer container";

/// What tells the causes apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Facts {
    /// `user.max_KIND_namespaces`, in the order of [`KINDS`].
    pub most: [Option<u64>; KINDS.len()],
    /// Debian's `kernel.unprivileged_userns_clone`
    pub unprivileged_clone: Option<u64>,
    /// The kernel has user namespaces.
    pub has_user_namespaces: bool,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1, and the caller lacks `CAP_SYS_ADMIN`.
    pub restricted: bool,
    /// `/proc/self/attr/current`, when a security module shows a label.
    pub label: Option<String>,
    /// `SELinux` enforces.
    pub selinux: bool,
    /// A seccomp filter is attached.
    pub seccomp: bool,
    /// The caller's uid or gid is the overflow id.
    pub unmapped: bool,
    /// The caller holds `CAP_SYS_ADMIN`.
    pub is_admin: bool,
    /// The caller is root of where it is, and lacks `CAP_SETFCAP`, which the mapping of that id takes since Linux 5.12.
    pub lacks_setfcap: bool,
    /// The outer container is one of pura's own.
    pub is_ours: bool,
    /// The file that pura runs from.
    pub path: String,
}

/// Explains why clone made no process in new namespaces.
pub fn explain(flags: u64, host: &Host, errno: Errno) -> Error {
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
    let kinds = i32::try_from(flags & 0xffff_ffff).unwrap_or(0);
    let step = if kinds & libc::CLONE_NEWUSER == 0 { Step::Others(kinds) } else { Step::User(kinds) };
    let is_told = errno == Errno::ENOSPC || matches!(step, Step::User(_));
    if let Some(error) = is_told.then(|| cause(step, errno, &gather(host))).flatten() {
        return error;
    }
    let error = Error::new(Code::Namespace, "make the container's namespaces", plain(errno));
    let lacks_power = errno == Errno::EPERM && !host.caller.has(CAP_SYS_ADMIN);
    if lacks_power { error.fix("--userns=auto, which needs no privilege") } else { error }
}

/// A step with all the power that it takes, which the filter of an outer container forbids nevertheless.
pub fn forbidden_call(what: String) -> Error {
    Error::new(Code::Forbidden, what, "a seccomp filter forbids it (this is a container)").fix(UNCONFINED)
}

/// A parameter below a procfs that may not be written even as it should be: path-based profiles do not know a procfs that is
/// mounted nowhere, and some forbid the other one too.
pub fn shut_proc(what: String, errno: Errno, facts: &Facts) -> Option<Error> {
    let label = facts.label.as_deref().filter(|label| *label != "unconfined" || facts.selinux)?;
    (errno == Errno::EACCES).then(|| {
        let why = format!("a security module may forbid to open it below /proc (this is {label:?})");
        Error::new(Code::Reopen, what, why)
            .fix("a profile for the outer container that lets /proc/sys be written, or no such sysctl")
    })
}

/// Reads what tells the causes apart.
pub fn gather(host: &Host) -> Facts {
    let label = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"]
        .into_iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .map(|label| label.trim_end_matches(['\n', '\0']).to_owned());
    let is_overflow = |name: &str, id: u32| number(&format!("/proc/sys/kernel/overflow{name}")) == Some(id.into());
    Facts {
        most: KINDS.map(|(kind, _)| number(&format!("/proc/sys/user/max_{kind}_namespaces"))),
        unprivileged_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
        has_user_namespaces: host.own_userns != 0,
        restricted: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1)
            && !host.caller.has(CAP_SYS_ADMIN),
        label: label.filter(|label| !label.is_empty()),
        selinux: number("/sys/fs/selinux/enforce") == Some(1),
        seccomp: host.caller.seccomp,
        unmapped: !host.initial_userns && (is_overflow("uid", host.caller.uid) || is_overflow("gid", host.caller.gid)),
        is_admin: host.caller.has(CAP_SYS_ADMIN),
        lacks_setfcap: host.caller.uid == 0 && !host.caller.has(CAP_SETFCAP),
        is_ours: std::env::var_os("container").is_some_and(|name| name == OURS),
        path: fs::read_link("/proc/self/exe").map(|path| path.display().to_string()).unwrap_or_default(),
    }
}

/// A number alone in a file, as sysctls are.
pub fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Why a step was refused; nothing where its errno has but its plain meaning.
pub fn cause(step: Step, errno: Errno, facts: &Facts) -> Option<Error> {
    match step {
        Step::User(kinds) => Some(user(kinds, errno, facts)),
        Step::Maps if errno == Errno::EROFS => Some(read_only_proc()),
        Step::Maps if errno == Errno::EPERM && facts.lacks_setfcap && !facts.restricted => {
            let why = "the caller is root without CAP_SETFCAP, and may not be mapped";
            let fix = "--cap-add SETFCAP for the outer container, or another user than root in it";
            Some(Error::new(Code::MapRefused, "map ids", why).fix(fix))
        }
        Step::Maps => taken(errno, facts),
        Step::Use | Step::Others(_) if taken(errno, facts).is_some() => taken(errno, facts),
        Step::Use | Step::Others(_) if errno == Errno::EPERM && facts.seccomp => {
            Some(filtered("use a new user namespace", facts))
        }
        Step::Use => None,
        Step::Others(kinds) => others(kinds, errno, facts),
    }
}

/// Maps are written below `/proc`.
fn read_only_proc() -> Error {
    Error::new(Code::Proc, "map ids", "/proc is mounted read-only where pura runs")
        .fix("mount -o remount,rw /proc, or a writable /proc for the outer container")
}

/// `AppArmor` lets a program without a profile make a user namespace, and takes its capabilities.
fn taken(errno: Errno, facts: &Facts) -> Option<Error> {
    let is_marked = facts.label.as_deref().is_some_and(|label| label.starts_with("unprivileged_userns"));
    let is_taken = (facts.restricted || is_marked) && matches!(errno, Errno::EPERM | Errno::EACCES);
    is_taken.then(|| {
        let why = format!("AppArmor takes the capabilities of {} in it", facts.path);
        Error::new(Code::UsernsAppArmor, "use a new user namespace", why).fix(PROFILE)
    })
}

fn filtered(what: &'static str, facts: &Facts) -> Error {
    if facts.is_ours {
        let why = "a seccomp filter forbids it (this is a container of pura's)";
        return Error::new(Code::UsernsSeccomp, what, why).fix("start the outer one with pura run --nested");
    }
    Error::new(Code::UsernsSeccomp, what, "a seccomp filter forbids it (this is a container)").fix(
        "start the outer one with --security-opt seccomp=unconfined and systempaths=unconfined (Docker) or unmask=ALL (Podman), \
         or hostUsers: false and procMount: Unmasked (Kubernetes)",
    )
}

/// The first of the kinds of which none may be made.
fn forbidden(kinds: i32, facts: &Facts) -> Option<&'static str> {
    let all = KINDS.iter().zip(facts.most);
    all.filter(|((_, flag), most)| kinds & flag != 0 && *most == Some(0)).map(|((kind, _), _)| *kind).next()
}

fn others(kinds: i32, errno: Errno, facts: &Facts) -> Option<Error> {
    if errno == Errno::EINVAL && kinds == libc::CLONE_NEWTIME {
        let why = "this kernel has none; they came with Linux 5.6";
        return Some(Error::new(Code::TimeNamespace, "make a time namespace", why));
    }
    if errno != Errno::ENOSPC {
        return None;
    }
    let error = match forbidden(kinds, facts) {
        Some(kind) => Error::new(
            Code::Namespace,
            format!("make a {kind} namespace"),
            format!("user.max_{kind}_namespaces is 0 (this is not about disk space)"),
        )
        .fix(format!("sudo sysctl user.max_{kind}_namespaces=15000")),
        None => Error::new(
            Code::Namespace,
            "make the container's namespaces",
            "one kind of them is used up (this is not about disk space)",
        )
        .fix("end some containers, or raise the sysctls user.max_*_namespaces"),
    };
    Some(error)
}

/// The one kind that a container can do without.
pub fn no_cgroup_namespace(errno: Errno) -> Warning {
    let why = if errno == Errno::ENOSPC { "user.max_cgroup_namespaces is reached".to_owned() } else { plain(errno) };
    let what = format!("no cgroup namespace is to be had ({why}): the container sees the host's cgroup path");
    Warning::new(Code::CgroupNamespace, what).fix("sudo sysctl user.max_cgroup_namespaces=15000")
}

/// The tests in the order in which the kernel makes them; the last cause is what is left.
#[expect(clippy::wildcard_enum_match_arm, reason = "an errno is a number, not a variant")]
fn user(kinds: i32, errno: Errno, facts: &Facts) -> Error {
    let refuse = |code, why: &'static str| Error::new(code, "create a user namespace", why);
    match errno {
        Errno::ENOSPC | Errno::EUSERS => match forbidden(kinds, facts) {
            Some("user") => refuse(Code::UsernsZero, "user.max_user_namespaces is 0 (this is not about disk space)")
                .fix("sudo sysctl user.max_user_namespaces=15000"),
            Some(_) => others(kinds, Errno::ENOSPC, facts).unwrap_or_else(|| refuse(Code::UsernsQuota, "it is used up")),
            None => refuse(
                Code::UsernsQuota,
                "user namespaces, or another kind of namespace, are used up, or nested 33 deep (this is not about disk space)",
            )
            .fix("end some containers, or raise the sysctls user.max_*_namespaces"),
        },
        Errno::EINVAL if !facts.has_user_namespaces => {
            refuse(Code::UsernsAbsent, "this kernel has none (CONFIG_USER_NS, or user_namespace.enable=0)")
        }
        Errno::EACCES if facts.label.as_deref().is_some_and(|label| label != "unconfined") && !facts.selinux => {
            refuse(Code::UsernsAppArmor, "an AppArmor profile forbids it").fix(PROFILE)
        }
        Errno::EPERM if facts.unmapped => {
            refuse(Code::UsernsUnmapped, "your own uid or gid is not mapped where pura runs").fix("run it as an id that is")
        }
        Errno::EPERM if facts.unprivileged_clone == Some(0) && !facts.is_admin => {
            refuse(Code::UsernsSysctl, "kernel.unprivileged_userns_clone is 0")
                .fix("sudo sysctl kernel.unprivileged_userns_clone=1")
        }
        Errno::EPERM if facts.seccomp => filtered("create a user namespace", facts),
        Errno::EPERM | Errno::EACCES if facts.selinux => {
            refuse(Code::UsernsSelinux, "SELinux forbids it").fix("ausearch -m avc -c pura shows the rule")
        }
        Errno::EPERM => refuse(Code::UsernsChroot, "pura runs in a chroot")
            .fix("pivot_root, systemd-nspawn or bwrap for the outer root"),
        errno => Error::new(
            Code::Userns,
            "create a user namespace",
            format!(
                "{}; it is neither a sysctl of /proc/sys/user, nor a seccomp filter, nor AppArmor or SELinux",
                plain(errno)
            ),
        )
        .fix("pura doctor, and the log of the kernel"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Step = Step::User(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET);

    fn code(step: Step, errno: Errno, facts: &Facts) -> Option<Code> {
        cause(step, errno, facts).map(|error| error.code())
    }

    fn without(kind: &str) -> Facts {
        Facts {
            most: KINDS.map(|(name, _)| Some(if name == kind { 0 } else { 100 })),
            has_user_namespaces: true,
            ..Facts::default()
        }
    }

    fn labelled(label: &str) -> Facts {
        Facts { label: Some(label.to_owned()), has_user_namespaces: true, ..Facts::default() }
    }

    #[test]
    fn each_cause_of_a_refused_user_namespace_has_its_code() {
        let has = Facts { has_user_namespaces: true, ..Facts::default() };
        for (errno, facts, wanted) in [
            (Errno::ENOSPC, without("user"), Code::UsernsZero),
            (Errno::EUSERS, without("user"), Code::UsernsZero),
            (Errno::ENOSPC, without("net"), Code::Namespace),
            (Errno::ENOSPC, without("uts"), Code::UsernsQuota),
            (Errno::ENOSPC, has.clone(), Code::UsernsQuota),
            (Errno::EINVAL, Facts::default(), Code::UsernsAbsent),
            (Errno::EINVAL, has.clone(), Code::Userns),
            (Errno::EACCES, labelled("docker-default (enforce)"), Code::UsernsAppArmor),
            (Errno::EACCES, labelled("unconfined"), Code::Userns),
            (Errno::EACCES, Facts { selinux: true, ..labelled("user_u:user_r:user_t:s0") }, Code::UsernsSelinux),
            (Errno::EPERM, Facts { unmapped: true, seccomp: true, ..has.clone() }, Code::UsernsUnmapped),
            (Errno::EPERM, Facts { unprivileged_clone: Some(0), seccomp: true, ..has.clone() }, Code::UsernsSysctl),
            (
                Errno::EPERM,
                Facts { unprivileged_clone: Some(0), is_admin: true, seccomp: true, ..has.clone() },
                Code::UsernsSeccomp,
            ),
            (Errno::EPERM, Facts { seccomp: true, ..has.clone() }, Code::UsernsSeccomp),
            (Errno::EPERM, Facts { selinux: true, ..has.clone() }, Code::UsernsSelinux),
            (Errno::EPERM, Facts { unprivileged_clone: Some(1), ..has.clone() }, Code::UsernsChroot),
            (Errno::EIO, has, Code::Userns),
        ] {
            assert_eq!(code(NEW, errno, &facts), Some(wanted), "{errno} {facts:?}");
        }
    }

    #[test]
    fn capabilities_that_are_taken_again_are_told_from_any_other_refusal() {
        let restricted = Facts { restricted: true, ..Facts::default() };
        let filtered = Facts { seccomp: true, ..Facts::default() };
        let net = Step::Others(libc::CLONE_NEWNET);
        for (step, errno, facts, wanted) in [
            (Step::Maps, Errno::EPERM, &restricted, Some(Code::UsernsAppArmor)),
            (Step::Maps, Errno::EACCES, &restricted, Some(Code::UsernsAppArmor)),
            (Step::Use, Errno::EACCES, &restricted, Some(Code::UsernsAppArmor)),
            (net, Errno::EPERM, &restricted, Some(Code::UsernsAppArmor)),
            (Step::Use, Errno::EACCES, &labelled("unprivileged_userns (enforce)"), Some(Code::UsernsAppArmor)),
            (Step::Use, Errno::EACCES, &labelled("docker-default (enforce)"), None),
            (Step::Maps, Errno::EPERM, &Facts::default(), None),
            (Step::Maps, Errno::ENOSPC, &restricted, None),
            (Step::Maps, Errno::EPERM, &Facts { lacks_setfcap: true, ..Facts::default() }, Some(Code::MapRefused)),
            (Step::Maps, Errno::EROFS, &Facts::default(), Some(Code::Proc)),
            // A filter sees no write(2) to a map.
            (Step::Maps, Errno::EPERM, &filtered, None),
            (Step::Use, Errno::EPERM, &filtered, Some(Code::UsernsSeccomp)),
            (net, Errno::EPERM, &filtered, Some(Code::UsernsSeccomp)),
            (Step::Use, Errno::EPERM, &Facts::default(), None),
        ] {
            assert_eq!(code(step, errno, facts), wanted, "{step:?} {errno} {facts:?}");
        }
    }

    #[test]
    fn a_kind_of_namespace_of_which_none_may_be_made_is_named_and_only_when_it_was_asked_for() {
        for (kind, flag) in KINDS.into_iter().skip(1) {
            let error = cause(Step::Others(flag), Errno::ENOSPC, &without(kind)).unwrap();
            assert!(error.to_string().contains(&format!("user.max_{kind}_namespaces is 0")), "{error}");
            let other = cause(Step::Others(flag), Errno::ENOSPC, &without("user")).unwrap();
            assert!(other.code() == Code::Namespace && !other.to_string().contains("is 0"), "{other}");
        }
        assert_eq!(
            code(Step::Others(libc::CLONE_NEWTIME), Errno::EINVAL, &Facts::default()),
            Some(Code::TimeNamespace)
        );
        assert_eq!(code(Step::Others(libc::CLONE_NEWNET), Errno::EINVAL, &Facts::default()), None);
    }

    #[test]
    fn no_cause_is_worded_like_a_missing_program() {
        let facts = [without("user"), without("net"), labelled("x"), Facts { seccomp: true, ..Facts::default() }];
        let errnos = [Errno::ENOSPC, Errno::EPERM, Errno::EACCES, Errno::EINVAL, Errno::EROFS, Errno::ENOENT];
        for step in [NEW, Step::Maps, Step::Use, Step::Others(libc::CLONE_NEWNET)] {
            for error in facts.iter().flat_map(|facts| errnos.iter().filter_map(|errno| cause(step, *errno, facts))) {
                let text = error.to_string();
                assert!(
                    !text.contains("no such file") && !text.contains("not found") && !text.contains('\n'),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn a_parameter_that_a_security_module_shuts_is_told_from_one_that_is_roots() {
        let shut =
            |errno, facts: &Facts| shut_proc("set a parameter".to_owned(), errno, facts).map(|error| error.code());
        let confined = Facts { label: Some("lxc-container-default (enforce)".to_owned()), ..Facts::default() };
        assert_eq!(shut(Errno::EACCES, &confined), Some(Code::Reopen));
        assert_eq!(shut(Errno::EPERM, &confined), None);
        assert_eq!(shut(Errno::EACCES, &labelled("unconfined")), None);
        assert_eq!(shut(Errno::EACCES, &Facts::default()), None);
    }

    #[test]
    fn a_filter_of_our_own_is_lifted_by_our_own_option() {
        let facts = Facts { seccomp: true, is_ours: true, has_user_namespaces: true, ..Facts::default() };
        let error = cause(NEW, Errno::EPERM, &facts).unwrap().to_string();
        assert!(error.ends_with("fix: start the outer one with pura run --nested [PURA-202]"), "{error}");
    }
}
