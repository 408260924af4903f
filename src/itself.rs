//! pura's own binary, which a container must not be able to change: it runs outside of the next one (CVE-2019-5736).

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read as _, Seek as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{
            ffi::OsStringExt as _,
            fs::{MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::Path,
};

use nix::{
    fcntl::{AT_FDCWD, FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::MFdFlags,
        statvfs::{FsFlags, fstatvfs},
    },
};

use crate::{
    error::{Code, Context as _, Error, Result},
    host::{Host, Itself, ids::Extent, probe},
    plan::ids::{Ids, UserNamespace},
    sys::{self, exec::Vectors},
};

/// Where the kernel shows the binary of this process.
pub const PATH: &std::ffi::CStr = c"/proc/self/exe";

const ALL_SEALS: SealFlag =
    SealFlag::F_SEAL_WRITE.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

/// The id that stands for all that are not mapped: /proc/sys/kernel/overflowuid.
const UNMAPPED: u32 = 65534;

/// Goes on as a copy that they cannot write when the container's ids may write the file that this process runs from; does not
/// return then, and calls `leave` before. Called before anything is made. A binary that root owns costs nothing, unless root is mapped.
pub fn protect(host: &Host, ids: &Ids, leave: impl FnOnce()) -> Result<()> {
    if !host.itself.as_ref().is_some_and(|file| is_exposed(file, ids)) {
        return Ok(());
    }
    let protect = || "keep pura's binary from the container, whose ids may write it".to_owned();
    let own = File::open("/proc/self/exe").doing(Code::Unprotected, protect).map_err(elsewhere)?;
    // It is the copy already.
    if is_shut(&own) {
        return Ok(());
    }
    let beside = std::env::current_exe().unwrap_or_default();
    let copy = copy(own, &beside).doing(Code::Unprotected, protect).map_err(elsewhere)?;
    let path = CString::new(format!("/proc/self/fd/{}", copy.as_raw_fd())).unwrap_or_default();
    leave();
    let errno = again(&path).doing(Code::Unprotected, protect)?;
    Err(errno).doing(Code::Unprotected, protect).map_err(elsewhere)
}

/// Opens a program of pura's own that a container is to run, or a copy of it that the container cannot write.
pub fn hold(path: &Path, ids: &Ids) -> Result<OwnedFd> {
    let opened = File::open(path).doing(Code::Helper, || format!("open {path:?}"))?;
    let is_exposed = probe::program(opened.as_fd()).is_none_or(|file| is_exposed(&file, ids));
    if !is_exposed || is_shut(&opened) {
        return Ok(opened.into());
    }
    copy(opened, path).doing(Code::Unprotected, || format!("keep {path:?} from the container, whose ids may write it"))
}

/// Refuses to do anything with rights that the caller has not: a file with the set-user-ID or set-group-ID bit, or with
/// capabilities, would make every bundle and every hook of theirs a way to them (CVE-2020-5291).
pub fn refuse_elevation() -> Result<()> {
    let told = sys::process::auxiliary;
    let has_bits = told(libc::AT_UID) != told(libc::AT_EUID) || told(libc::AT_GID) != told(libc::AT_EGID);
    // A change of security context sets AT_SECURE too, and is fine.
    let has_caps = !has_bits && told(libc::AT_SECURE) != 0 && told(libc::AT_EUID) != 0 && has_file_capabilities();
    if !has_bits && !has_caps {
        return Ok(());
    }
    let (why, fix) = if has_bits {
        (
            "its real and effective ids differ: it is set-user-ID or set-group-ID, or was called by such a program",
            "chmod ug-s",
        )
    } else {
        ("its file has capabilities", "setcap -r")
    };
    let own = std::env::current_exe().unwrap_or_default();
    let error = Error::new(Code::Elevated, "work with rights that its caller lacks", why);
    Err(error.fix(format!("{fix} {}", own.display())))
}

/// Whether exec gave capabilities that are not ambient: to others than root only a file does, `capabilities(7)`.
fn has_file_capabilities() -> bool {
    let Ok(status) = sys::path::read_to_end(c"/proc/self/status") else { return true };
    let status = String::from_utf8_lossy(&status);
    let set = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
    };
    set("CapPrm:") & !set("CapAmb:") != 0
}

fn elsewhere(error: Error) -> Error {
    error.fix("install it where container ids cannot write, for example as root in /usr/local/bin")
}

/// Whether an id that the container has owns the file or may write it.
fn is_exposed(file: &Itself, ids: &Ids) -> bool {
    let inside = |map: &[Extent], id: u32| map.iter().any(|extent| extent.inside_of(id).is_some());
    let (uid, gid) = match (&ids.user_namespace, &ids.maps) {
        // Whatever is an id here is one there, or may be.
        (UserNamespace::Reuse | UserNamespace::Inherit, _) | (_, None) => (file.uid != UNMAPPED, file.gid != UNMAPPED),
        (_, Some(maps)) => (inside(&maps.uids, file.uid), inside(&maps.gids, file.gid)),
    };
    uid || (gid && file.mode & 0o020 != 0) || file.mode & 0o002 != 0
}

/// Whether nobody can write what is executed from this descriptor, or nobody executes it afterwards: a sealed file in memory, one
/// on a mount that is read-only, and one without a name.
fn is_shut(file: &File) -> bool {
    let is_sealed =
        fcntl(file, FcntlArg::F_GET_SEALS).is_ok_and(|seals| SealFlag::from_bits_retain(seals).contains(ALL_SEALS));
    let is_nameless = || file.metadata().is_ok_and(|file| file.nlink() == 0);
    let is_read_only = || fstatvfs(file).is_ok_and(|mount| mount.flags().contains(FsFlags::ST_RDONLY));
    is_sealed || is_nameless() || is_read_only()
}

/// A copy that a container cannot write: sealed, in memory. Where a filter or a sysctl (`vm.memfd_noexec`) refuses that, the
/// file itself on a read-only mount of its own, which takes power over mounts; else a file without a name, which cannot be
/// written while it is executed, and is executed by nobody later.
fn copy(mut own: File, path: &Path) -> io::Result<OwnedFd> {
    sealed(&mut own).or_else(|refused| mounted(&own).or_else(|_| nameless(&mut own, path)).map_err(|_last| refused))
}

fn sealed(own: &mut File) -> io::Result<OwnedFd> {
    // Since 6.3 a file in memory may be executed only if that is said; before, the flag is unknown.
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let made = match nix::sys::memfd::memfd_create(c"pura", flags | MFdFlags::from_bits_retain(MFD_EXEC)) {
        Err(nix::errno::Errno::EINVAL) => nix::sys::memfd::memfd_create(c"pura", flags)?,
        made => made?,
    };
    let mut copy = File::from(made);
    io::copy(own, &mut copy)?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(ALL_SEALS))?;
    Ok(copy.into())
}

fn mounted(own: &File) -> io::Result<OwnedFd> {
    let path = CString::new(format!("/proc/self/fd/{}", own.as_raw_fd()))?;
    let mount = sys::mount::open_tree(AT_FDCWD, &path, false)?;
    sys::mount::set_attributes(mount.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false)?;
    Ok(mount)
}

/// In the directory of the original, where files may be executed, or where everybody may write.
fn nameless(own: &mut File, path: &Path) -> io::Result<OwnedFd> {
    let mut refused = io::Error::from(io::ErrorKind::PermissionDenied);
    for directory in path.parent().into_iter().chain(["/tmp", "/var/tmp", "/dev/shm"].map(Path::new)) {
        match nameless_in(own, directory) {
            Ok(copy) => return Ok(copy),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn nameless_in(own: &mut File, directory: &Path) -> io::Result<OwnedFd> {
    // With O_EXCL it never gets a name.
    let flags = libc::O_TMPFILE | libc::O_EXCL;
    let mut copy = File::options().read(true).write(true).mode(0o500).custom_flags(flags).open(directory)?;
    if fstatvfs(&copy)?.flags().contains(FsFlags::ST_NOEXEC) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    own.rewind()?;
    io::copy(own, &mut copy)?;
    // What is open for writing cannot be executed.
    File::open(format!("/proc/self/fd/{}", copy.as_raw_fd())).map(OwnedFd::from)
}

const MFD_EXEC: u32 = 0x10;

/// Executes the copy with the arguments and the environment of this process. Returns only on failure.
fn again(path: &std::ffi::CStr) -> io::Result<nix::errno::Errno> {
    let mut words = Vec::new();
    File::open("/proc/self/cmdline")?.read_to_end(&mut words)?;
    let words =
        words.split_inclusive(|byte| *byte == 0).filter_map(|word| CString::from_vec_with_nul(word.to_vec()).ok());
    let words: Vec<_> = words.collect();
    let variables = std::env::vars_os()
        .map(|(name, value)| CString::new([name.into_vec(), value.into_vec()].join(&b'=')).unwrap_or_default());
    let variables: Vec<_> = variables.collect();
    let vectors = Vectors::new(words.iter().map(CString::as_c_str), variables.iter().map(CString::as_c_str));
    Ok(sys::exec::exec(path, &vectors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::Maps, plan::ids::Writer};

    #[test]
    fn a_binary_is_exposed_to_the_ids_that_may_write_it() {
        let subordinate =
            [Extent { inside: 0, outside: 1000, count: 1 }, Extent { inside: 1, outside: 100_000, count: 65536 }];
        let all = [Extent { inside: 0, outside: 0, count: u32::MAX }];
        for (map, uid, gid, mode, wanted) in [
            (&subordinate[..], 0, 0, 0o755, false),
            (&subordinate[..], 1000, 1000, 0o755, true),
            (&subordinate[..], 100_005, 0, 0o555, true),
            (&subordinate[..], 0, 1000, 0o775, true),
            (&subordinate[..], 0, 1000, 0o755, false),
            (&subordinate[..], 0, 0, 0o757, true),
            (&all[..], 0, 0, 0o755, true),
        ] {
            let itself = Itself { file: sys::path::File { device: 1, inode: 1 }, uid, gid, mode };
            let maps = Maps { uids: map.to_vec(), gids: map.to_vec() };
            let user_namespace =
                UserNamespace::Create { maps: maps.clone(), writer: Writer::Parent, deny_setgroups: false };
            let ids = Ids { user_namespace, maps: Some(maps), setgroups_denied: false };
            assert_eq!(is_exposed(&itself, &ids), wanted, "{uid} {gid} {mode:o}");
        }
    }
}
