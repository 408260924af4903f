//! The probing itself: as few system calls as the config asks for.

use std::{
    ffi::{CStr, CString},
    fs,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType as Kind, Spec};

use super::{Caller, Cgroup, Host, Itself, Joined, Maps, Named, Nice, OomScore, account, ids, named::named};
use crate::{
    cli::UsernsMode,
    error::{Code, Context as _, Error, Result, plain},
    sys,
};

/// Inode of the initial user namespace: `PROC_USER_INIT_INO`, include/uapi/linux/nsfs.h.
const INITIAL_USERNS: u64 = 0xEFFF_FFFD;
const CGROUP2_MAGIC: i64 = 0x6367_7270;
const SELINUX_MAGIC: i64 = 0xf97c_ff8c;
const NSFS_MAGIC: i64 = 0x6e73_6673;
const CAP_SYS_ADMIN: u8 = 21;

/// Reads who calls from `/proc/self/status`: one file instead of eight system calls.
pub fn caller() -> Result<Caller> {
    let path = c"/proc/self/status";
    let refuse = |why: String| Error::new(Code::Proc, "read /proc/self/status", why).fix("mount -t proc proc /proc");
    let status = sys::path::read::<4096>(path).map_err(|errno| refuse(plain(errno)))?;
    if let Some(caller) = std::str::from_utf8(&status).ok().and_then(parse) {
        return Ok(caller);
    }
    // A caller in hundreds of groups, or a name that is not UTF-8.
    let whole = sys::path::read_to_end(path).map_err(|errno| refuse(plain(errno)))?;
    parse(&String::from_utf8_lossy(&whole)).ok_or_else(|| refuse("it is not in the kernel's form".to_owned()))
}

/// One pass: the file has sixty lines, and nine of them matter.
fn parse(status: &str) -> Option<Caller> {
    let mask = |value: &str| u64::from_str_radix(value, 16).ok();
    // Real, effective, saved, filesystem.
    let id = |value: &str| value.split_ascii_whitespace().nth(1)?.parse().ok();
    let (mut uid, mut gid, mut groups, mut umask) = (None, None, None, super::UMASK);
    let (mut effective, mut bounding, mut ignored) = (None, None, None);
    let (mut no_new_privs, mut seccomp) = (false, false);
    for (name, value) in status.split('\n').filter_map(|line| line.split_once(':')) {
        let value = value.trim_ascii();
        match name {
            "Umask" => umask = u32::from_str_radix(value, 8).unwrap_or(umask),
            "Uid" => uid = id(value),
            "Gid" => gid = id(value),
            "Groups" => groups = Some(value.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect()),
            "SigIgn" => ignored = mask(value),
            "CapEff" => effective = mask(value),
            "CapBnd" => bounding = mask(value),
            "NoNewPrivs" => no_new_privs = value == "1",
            "Seccomp" => seccomp = value != "0",
            _ => {}
        }
    }
    Some(Caller {
        uid: uid?,
        gid: gid?,
        groups: groups?,
        umask,
        effective: effective?,
        bounding: bounding?,
        no_new_privs,
        seccomp,
        ignored: ignored?,
    })
}

/// Inode of the caller's user namespace; 0 when the kernel has none.
pub fn own_userns() -> u64 {
    fs::metadata("/proc/self/ns/user").map_or(0, |namespace| namespace.ino())
}

/// Whether that is the machine's initial one.
pub fn is_initial(own_userns: u64) -> bool {
    own_userns == INITIAL_USERNS || own_userns == 0
}

/// Gathers what the plan of this config may depend on.
pub fn host(spec: &Spec, bundle: &Path, caller: Caller, mode: UsernsMode) -> Result<Host> {
    let own_userns = own_userns();
    let initial_userns = is_initial(own_userns);
    let own = Path::new("/proc/self");
    let (own_maps, setgroups_denied) =
        if initial_userns { (Maps::default(), false) } else { (maps(own)?, denies_setgroups(own)) };
    let account = if needs_account(spec, &caller, mode) { Some(account::look_up(&caller)) } else { None };
    let named = named(spec, bundle, own_userns);
    Ok(Host {
        initial_userns,
        own_userns,
        own_maps,
        setgroups_denied,
        account,
        terminal: terminal(spec),
        activation: super::activation::variables(),
        itself: itself(),
        cgroup: cgroup(),
        named,
        caller,
    })
}

/// The size of the caller's terminal, for a program that gets one of its own and whose config does not say.
fn terminal(spec: &Spec) -> Option<(u16, u16)> {
    let process = spec.process().as_ref().filter(|process| process.terminal() == Some(true))?;
    if process.console_size().is_some() { None } else { crate::console::own_size() }
}

/// Both maps of a process, as the reader sees them.
pub fn maps(process: &Path) -> Result<Maps> {
    let read =
        |name: &str| read(&process.join(name)).doing(Code::Proc, || format!("read {}", process.join(name).display()));
    Ok(Maps { uids: ids::parse(&read("uid_map")?), gids: ids::parse(&read("gid_map")?) })
}

fn denies_setgroups(process: &Path) -> bool {
    read(&process.join("setgroups")).is_ok_and(|word| word.starts_with(b"deny"))
}

fn read(path: &Path) -> nix::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno::EINVAL)?;
    sys::path::read_to_end(&path)
}

/// Subordinate ids matter only to a new user namespace that the caller cannot map by itself, and not to a single id.
fn needs_account(spec: &Spec, caller: &Caller, mode: UsernsMode) -> bool {
    let linux = spec.linux().as_ref();
    let user =
        linux.and_then(|linux| linux.namespaces().as_ref()?.iter().find(|namespace| namespace.typ() == Kind::User));
    let is_joined = user.is_some_and(|user| user.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty()));
    // The rule of the plan: no entry, and a caller who needs no new one, or who wants none.
    let nomap = mode == UsernsMode::NoMap;
    let is_none_made =
        user.is_none() && (caller.has(CAP_SYS_ADMIN) && caller.uid == 0 && !nomap || mode == UsernsMode::Inherit);
    if is_joined || is_none_made {
        return false;
    }
    let lines =
        linux.map(|linux| [linux.uid_mappings(), linux.gid_mappings()].map(|map| map.as_deref().unwrap_or_default()));
    match lines {
        Some([uids, gids]) if !uids.is_empty() || !gids.is_empty() => {
            let is_own =
                |map: &[LinuxIdMapping], own: u32| matches!(map, [line] if line.size() == 1 && line.host_id() == own);
            !(caller.may_map() || is_own(uids, caller.uid) && is_own(gids, caller.gid))
        }
        // Root that may map has all ids of its namespace anyway.
        _ => nomap || mode != UsernsMode::Single && !(caller.may_map() && caller.uid == 0),
    }
}

/// Where cgroup2 is mounted, and where the caller is in it.
pub fn cgroup() -> Cgroup {
    let is_cgroup2 =
        |path: &str| nix::sys::statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type().0 == CGROUP2_MAGIC);
    let unified = is_cgroup2("/sys/fs/cgroup");
    let mount =
        if unified { Some("/sys/fs/cgroup") } else { Some("/sys/fs/cgroup/unified").filter(|path| is_cgroup2(path)) };
    let own = mount.and_then(|_| place(c"/proc/self/cgroup"));
    Cgroup { mount: mount.map(PathBuf::from), unified, own: own.unwrap_or_else(|| "/".to_owned()) }
}

/// The directory of the cgroup that a process is in.
pub fn cgroup_of(pid: i32) -> Option<PathBuf> {
    let path = CString::new(format!("/proc/{pid}/cgroup")).ok()?;
    Some(cgroup().mount?.join(place(&path)?.trim_start_matches('/')))
}

/// The line of version 2 in a file of `cgroups(7)`.
fn place(file: &CStr) -> Option<String> {
    let lines = String::from_utf8(sys::path::read::<8192>(file).ok()?).ok()?;
    lines.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned))
}

/// The file that this process runs from.
pub fn itself() -> Option<Itself> {
    nix::sys::stat::stat(crate::itself::PATH).ok().map(as_program)
}

/// Who may write a program that is open.
pub fn program(file: BorrowedFd<'_>) -> Option<Itself> {
    sys::path::stat(file).ok().map(as_program)
}

fn as_program(stat: libc::stat) -> Itself {
    let file = sys::path::File { device: stat.st_dev, inode: stat.st_ino };
    Itself { file, uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 }
}

/// The security modules that the config has labels for, as far as they are on.
pub fn modules(spec: &Spec) -> Named {
    let asked = |label: Option<&String>| label.is_some_and(|label| !label.is_empty());
    let process = spec.process().as_ref();
    let selinux = asked(process.and_then(|process| process.selinux_label().as_ref()))
        || asked(spec.linux().as_ref().and_then(|linux| linux.mount_label().as_ref()));
    let profile = asked(process.and_then(|process| process.apparmor_profile().as_ref()));
    let apparmor = if profile { apparmor() } else { None };
    Named { apparmor, selinux: selinux && is_selinux_on(), ..Named::default() }
}

/// The caller's own nice value, when the config sets a scheduler.
pub fn nice(spec: &Spec) -> Option<Nice> {
    spec.process().as_ref()?.scheduler().as_ref()?;
    let soft = |limit| sys::process::rlimit(limit).map_or(0, |(soft, _)| soft);
    Some(Nice {
        own: sys::schedule::nice().unwrap_or(0),
        // 1 to 40 for 19 to -20: getrlimit(2).
        lowest: 20 - i32::try_from(soft(libc::RLIMIT_NICE).min(40)).unwrap_or(0),
        highest_priority: soft(libc::RLIMIT_RTPRIO),
    })
}

/// The caller's own score. The kernel shows nowhere how far it may be lowered: tried out, only where that matters.
pub fn oom_score(spec: &Spec) -> Option<OomScore> {
    const FILE: &CStr = c"/proc/self/oom_score_adj";
    let wanted = spec.process().as_ref()?.oom_score_adj()?;
    let own = String::from_utf8(sys::path::read::<16>(FILE).ok()?).ok()?.trim_end().parse().ok()?;
    let write = |score: i32| sys::path::write(FILE, score.to_string().as_bytes());
    if wanted >= own || write(wanted).is_err() {
        return Some(OomScore { own, lowest: own });
    }
    drop(write(own));
    Some(OomScore { own, lowest: wanted })
}

/// Of its own since Linux 5.8; before, all modules shared one file.
fn apparmor() -> Option<&'static str> {
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
    let own = "/proc/self/attr/apparmor/exec";
    enabled.then(|| if Path::new(own).exists() { own } else { "/proc/self/attr/exec" })
}

/// As libselinux finds it out: its filesystem is mounted.
fn is_selinux_on() -> bool {
    nix::sys::statfs::statfs("/sys/fs/selinux").is_ok_and(|fs| fs.filesystem_type().0 == SELINUX_MAGIC)
}

/// Examines a namespace by path. Never blocks: other runtimes hang when the path is a FIFO.
pub(super) fn joined(path: &Path, own_userns: u64) -> Joined {
    let none = Joined { kind: 0, owner: 0, inode: 0, maps: None, setgroups_denied: false };
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let namespace = match sys::retry(|| nix::fcntl::open(path, flags, Mode::empty())) {
        Ok(namespace) => namespace,
        Err(errno) => return Joined { kind: -(errno as i32), ..none },
    };
    if !nix::sys::statfs::fstatfs(&namespace).is_ok_and(|fs| fs.filesystem_type().0 == NSFS_MAGIC) {
        return none;
    }
    let Ok(kind) = sys::namespace::kind(namespace.as_fd()) else { return none };
    let inode = |descriptor: &OwnedFd| nix::sys::stat::fstat(descriptor).map_or(0, |stat| stat.st_ino);
    let found = Joined { kind, inode: inode(&namespace), ..none };
    let owner = sys::namespace::owner(namespace.as_fd()).map_or(0, |owner| inode(&owner));
    // Whose maps will hold: those of the user namespace itself, or of the one that a pod's member joins with it.
    let entered = if kind == libc::CLONE_NEWUSER { found.inode } else { owner };
    let process = process_of(path).filter(|_| entered != 0 && entered != own_userns);
    let process =
        process.filter(|process| fs::metadata(process.join("ns/user")).is_ok_and(|user| user.ino() == entered));
    let maps = process.and_then(|process| maps(process).ok());
    let setgroups_denied = maps.is_some() && process.is_some_and(denies_setgroups);
    Joined { owner, maps, setgroups_denied, ..found }
}

/// `/proc/PID` of `/proc/PID/ns/KIND`.
fn process_of(path: &Path) -> Option<&Path> {
    let directory = path.parent().filter(|directory| directory.ends_with("ns"))?;
    directory.parent().filter(|process| process.starts_with("/proc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tcat\nUmask:\t0022\nState:\tR (running)\nUid:\t1000\t1001\t1000\t1000\nGid:\t100\t101\t100\t100\n\
        Groups:\t4 24 27 \nNoNewPrivs:\t1\nSeccomp:\t2\nSigIgn:\t0000000000001000\nCapEff:\t00000000a80425fb\nCapBnd:\t000001ffffffffff\n";

    #[test]
    fn the_caller_is_read_from_its_status() {
        let caller = parse(STATUS).unwrap();
        assert_eq!((caller.uid, caller.gid, caller.umask), (1001, 101, 0o022));
        assert_eq!(caller.groups, [4, 24, 27]);
        assert!(caller.no_new_privs && caller.seccomp && caller.has(0) && !caller.has(CAP_SYS_ADMIN));
        assert_eq!(caller.ignored, 1 << (libc::SIGPIPE - 1));
    }

    #[test]
    fn the_kernels_status_is_understood() {
        let caller = caller().unwrap();
        assert_eq!((caller.uid, caller.gid), (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
        assert!(parse(&STATUS.replace("CapEff", "x")).is_none() && parse("").is_none());
    }

    #[test]
    fn subordinate_ids_are_looked_up_only_for_a_map_that_needs_them() {
        const BOTH: u64 = 1 << 6 | 1 << 7;
        const ADMIN: u64 = 1 << CAP_SYS_ADMIN;
        const NONE: &str = r#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"pid"}]}}"#;
        const USER: &str = r#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"user"}]}}"#;
        const JOINED: &str =
            r#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"user","path":"/proc/1/ns/user"}]}}"#;
        let mapped = |host: u32, size: u32| {
            let line = format!(r#"[{{"containerID":0,"hostID":{host},"size":{size}}}]"#);
            format!(
                r#"{{"ociVersion":"1.0.0","linux":{{"namespaces":[{{"type":"user"}}],"uidMappings":{line},"gidMappings":{line}}}}}"#
            )
        };
        for (json, uid, effective, mode, needed) in [
            (NONE, 1000, 0, UsernsMode::Unset, true),
            (NONE, 1000, 0, UsernsMode::KeepId, true),
            (NONE, 1000, 0, UsernsMode::Single, false),
            (NONE, 1000, 0, UsernsMode::Inherit, false),
            (NONE, 0, BOTH | ADMIN, UsernsMode::Unset, false),
            (NONE, 0, BOTH | ADMIN, UsernsMode::NoMap, true),
            (&mapped(100_000, 10), 0, BOTH | ADMIN, UsernsMode::NoMap, false),
            (USER, 1000, 0, UsernsMode::Unset, true),
            (USER, 1000, 0, UsernsMode::Inherit, true),
            (USER, 1000, BOTH, UsernsMode::Unset, true),
            (USER, 0, BOTH, UsernsMode::Unset, false),
            (JOINED, 1000, 0, UsernsMode::Unset, false),
            (&mapped(1000, 1), 1000, 0, UsernsMode::Unset, false),
            (&mapped(100_000, 10), 1000, 0, UsernsMode::Single, true),
            (&mapped(100_000, 10), 1000, BOTH, UsernsMode::Unset, false),
        ] {
            let caller = Caller { uid, gid: uid, effective, ..Caller::default() };
            let spec = serde_json::from_str(json).unwrap();
            assert_eq!(needs_account(&spec, &caller, mode), needed, "{json} {uid} {effective:x} {mode:?}");
        }
    }

    #[test]
    fn a_process_is_told_from_the_path_of_its_namespace() {
        assert_eq!(process_of(Path::new("/proc/1/ns/net")), Some(Path::new("/proc/1")));
        assert_eq!(process_of(Path::new("/run/netns/a")), None);
        assert_eq!(process_of(Path::new("/run/ns/net")), None);
    }

    #[test]
    fn a_fifo_is_no_namespace_and_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        assert_eq!(joined(&fifo, 1).kind, 0);
        assert_eq!(joined(&directory.path().join("none"), 1).kind, -libc::ENOENT);
        assert_eq!(joined(Path::new("/proc/self/ns/uts"), own_userns()).kind, libc::CLONE_NEWUTS);
    }
}
