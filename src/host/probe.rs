//! The probing itself: as few system calls as the config asks for.

use std::{
    fs, io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode};
use oci_spec::runtime::{LinuxNamespaceType as Kind, Spec};

use super::{Caller, Cgroup, Host, Joined, Maps, Named, account, ids};
use crate::{
    cli::UsernsMode,
    error::{Code, Context as _, Error, Result, plain},
    plan::limit_number,
    sys,
};

/// Inode of the initial user namespace: `PROC_USER_INIT_INO`, include/uapi/linux/nsfs.h.
const INITIAL_USERNS: u64 = 0xEFFF_FFFD;
const CGROUP2_MAGIC: i64 = 0x6367_7270;
const NSFS_MAGIC: i64 = 0x6e73_6673;
const CAP_SYS_ADMIN: u8 = 21;
const CAP_SETUID: u8 = 7;

/// Reads who calls from `/proc/self/status`: one file instead of eight system calls.
pub fn caller() -> Result<Caller> {
    let fix = "mount -t proc proc /proc";
    let status = sys::path::read::<8192>(c"/proc/self/status");
    let status = status.map_err(|errno| Error::new(Code::Proc, "read /proc/self/status", plain(errno)).fix(fix))?;
    parse(&String::from_utf8_lossy(&status))
        .ok_or_else(|| Error::new(Code::Proc, "read /proc/self/status", "it is not in the kernel's form").fix(fix))
}

fn parse(status: &str) -> Option<Caller> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    // Real, effective, saved, filesystem.
    let effective = |name: &str| field(name)?.split_whitespace().nth(1)?.parse().ok();
    let mask = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    Some(Caller {
        uid: effective("Uid")?,
        gid: effective("Gid")?,
        groups: field("Groups")?.split_whitespace().filter_map(|id| id.parse().ok()).collect(),
        umask: field("Umask").and_then(|umask| u32::from_str_radix(umask, 8).ok()).unwrap_or(super::UMASK),
        effective: mask("CapEff")?,
        bounding: mask("CapBnd")?,
        no_new_privs: field("NoNewPrivs") == Some("1"),
        seccomp: field("Seccomp").is_some_and(|mode| mode != "0"),
        ignored: mask("SigIgn")?,
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
    let own_maps = if initial_userns { Maps::default() } else { maps(Path::new("/proc/self"))? };
    let setgroups_denied =
        !initial_userns && sys::path::read::<16>(c"/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"));
    let account = if needs_account(spec, &caller, mode) { Some(account::look_up(&caller)) } else { None };
    Ok(Host {
        initial_userns,
        own_userns,
        setgroups_denied,
        own_maps,
        account,
        cgroup: cgroup(),
        named: named(spec, bundle),
        caller,
    })
}

/// Both maps of a process, as the reader sees them.
fn maps(process: &Path) -> Result<Maps> {
    let read = |name: &str| {
        fs::read(process.join(name)).doing(Code::Proc, || format!("read {}", process.join(name).display()))
    };
    Ok(Maps { uids: ids::parse(&read("uid_map")?), gids: ids::parse(&read("gid_map")?) })
}

/// Subordinate ids matter only to a new user namespace that the caller cannot map by itself, and not to a single id.
fn needs_account(spec: &Spec, caller: &Caller, mode: UsernsMode) -> bool {
    if caller.has(CAP_SETUID) || mode == UsernsMode::Single || mode == UsernsMode::Inherit {
        return false;
    }
    let linux = spec.linux().as_ref();
    let user =
        linux.and_then(|linux| linux.namespaces().as_ref()?.iter().find(|namespace| namespace.typ() == Kind::User));
    if user.is_some_and(|namespace| namespace.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty())) {
        return false;
    }
    if user.is_none() && caller.has(CAP_SYS_ADMIN) {
        return false;
    }
    let lines = |map: Option<&Vec<oci_spec::runtime::LinuxIdMapping>>, own: u32| {
        map.is_some_and(|map| matches!(map.as_slice(), [line] if line.size() == 1 && line.host_id() == own))
    };
    let own = linux.is_some_and(|linux| {
        lines(linux.uid_mappings().as_ref(), caller.uid) && lines(linux.gid_mappings().as_ref(), caller.gid)
    });
    !own
}

/// Where cgroup2 is mounted, and where the caller is in it.
pub fn cgroup() -> Cgroup {
    let is_cgroup2 =
        |path: &str| nix::sys::statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type().0 == CGROUP2_MAGIC);
    let unified = is_cgroup2("/sys/fs/cgroup");
    let mount =
        if unified { Some("/sys/fs/cgroup") } else { Some("/sys/fs/cgroup/unified").filter(|path| is_cgroup2(path)) };
    let own = mount.and_then(|_| sys::path::read::<8192>(c"/proc/self/cgroup").ok());
    let own = own
        .and_then(|lines| String::from_utf8(lines).ok())
        .and_then(|lines| lines.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned)));
    Cgroup { mount: mount.map(PathBuf::from), unified, own: own.unwrap_or_else(|| "/".to_owned()) }
}

/// What the paths of the config lead to.
fn named(spec: &Spec, bundle: &Path) -> Named {
    let root = spec.root().as_ref().map(|root| kind(&bundle.join(root.path())));
    let sources = spec.mounts().iter().flatten().map(|mount| {
        let words = mount.options().as_deref().unwrap_or_default();
        let bind = words.iter().any(|word| word == "bind" || word == "rbind")
            || matches!(mount.typ().as_deref(), Some("bind" | "rbind"));
        let source = mount.source().as_ref().filter(|source| bind && !source.as_os_str().is_empty());
        source.map(|source| kind(&bundle.join(source)))
    });
    let namespaces =
        spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten().map(|namespace| {
            let path = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty());
            path.map(joined)
        });
    let process = spec.process().as_ref();
    let limits = process.into_iter().flat_map(|process| process.rlimits().iter().flatten());
    let limits = limits.map(|limit| sys::process::rlimit(limit_number(limit.typ())).unwrap_or((u64::MAX, u64::MAX)));
    let oom_score = process.and_then(oci_spec::runtime::Process::oom_score_adj).and_then(|_| own_oom_score());
    Named { root, sources: sources.collect(), limits: limits.collect(), oom_score, namespaces: namespaces.collect() }
}

fn own_oom_score() -> Option<i32> {
    String::from_utf8(sys::path::read::<16>(c"/proc/self/oom_score_adj").ok()?).ok()?.trim_end().parse().ok()
}

fn kind(path: &Path) -> super::Kind {
    match fs::metadata(path) {
        Ok(file) if file.is_dir() => super::Kind::Directory,
        Ok(_) => super::Kind::File,
        Err(error) if error.kind() == io::ErrorKind::NotFound => super::Kind::Missing,
        Err(error) => super::Kind::Refused(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// Examines a namespace by path. Never blocks: other runtimes hang when the path is a FIFO.
fn joined(path: &Path) -> Joined {
    let refused =
        |errno: Errno| Joined { kind: -(errno as i32), owner: 0, inode: 0, maps: None, setgroups_denied: false };
    let opened = nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty());
    let namespace = match opened {
        Ok(namespace) => namespace,
        Err(errno) => return refused(errno),
    };
    let none = Joined { kind: 0, owner: 0, inode: 0, maps: None, setgroups_denied: false };
    if !nix::sys::statfs::fstatfs(&namespace).is_ok_and(|fs| fs.filesystem_type().0 == NSFS_MAGIC) {
        return none;
    }
    let Ok(kind) = sys::namespace::kind(namespace.as_fd()) else { return none };
    let inode = |descriptor: &std::os::fd::OwnedFd| nix::sys::stat::fstat(descriptor).map_or(0, |stat| stat.st_ino);
    let owner = sys::namespace::owner(namespace.as_fd()).map_or(0, |owner| inode(&owner));
    let own = inode(&namespace);
    // /proc/PID/ns/KIND: that process can show what holds in its user namespace, if that is the one in question.
    let process = path.parent().filter(|parent| parent.ends_with("ns")).and_then(Path::parent);
    let wanted = if kind == libc::CLONE_NEWUSER { own } else { owner };
    let process =
        process.filter(|process| fs::metadata(process.join("ns/user")).is_ok_and(|user| user.ino() == wanted));
    let denied = |shown: &Path| fs::read(shown.join("setgroups")).is_ok_and(|text| text.starts_with(b"deny"));
    Joined {
        kind,
        owner,
        inode: own,
        maps: process.and_then(|process| maps(process).ok()),
        setgroups_denied: process.is_some_and(denied),
    }
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
    fn a_fifo_is_no_namespace_and_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        assert_eq!(joined(&fifo).kind, 0);
        assert_eq!(joined(&directory.path().join("none")).kind, -libc::ENOENT);
        assert_eq!(joined(Path::new("/proc/self/ns/uts")).kind, libc::CLONE_NEWUTS);
    }
}
