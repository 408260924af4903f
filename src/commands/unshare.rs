//! `pura unshare`: a program of the host in the user namespace that a new container gets, to look after files of
//! subordinate ids. This process becomes the program: its signals, its terminal and its exit status are those of a child.

use std::{
    ffi::{CString, OsString},
    os::unix::ffi::OsStringExt as _,
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::wait::WaitStatus,
    unistd::{Pid, getpid, pipe2, read, write},
};

use super::Call;
use crate::{
    error::{Code, Context as _, Error, Result},
    host::{Host, Maps, refusal},
    launch::idmap,
    plan::{
        explain_program,
        ids::{Ids, UserNamespace, Writer},
    },
    supervise,
    sys::{
        self,
        exec::Vectors,
        process::{self, Fork},
    },
    zero_config,
};

/// Returns only when there is no such program, or when the process that maps the ids has said why it cannot.
pub(super) fn unshare(call: Call<'_>, command: &[OsString]) -> Result<u8> {
    let (host, ids) = zero_config::ids(call.globals.userns)?;
    let (ids, warnings) = ids?;
    call.log.warn(&warnings, true)?;
    if let UserNamespace::Create { .. } = &ids.user_namespace {
        if let Some(status) = enter(&ids.user_namespace, &host)? {
            return Ok(status);
        }
        become_somebody(&ids, &host)?;
    } else {
        process::unshare(libc::CLONE_NEWNS).map_err(|errno| refused(libc::CLONE_NEWNS, &host, errno))?;
    }
    // What is mounted here stays here; what is mounted outside is still seen.
    sys::mount::set_propagation(c"/", libc::MS_REC | libc::MS_SLAVE)
        .doing(Code::Mount, || "make the mounts its own".to_owned())?;
    become_program(command)
}

fn refused(flags: i32, host: &Host, errno: Errno) -> Error {
    refusal::explain(u64::from(flags.unsigned_abs()), host, errno)
}

/// Enters a new user namespace, which another process, left outside, maps where that takes power over the ids there. That
/// one ends before this returns; when it has failed it has said so, and its status is ours.
fn enter(wanted: &UserNamespace, host: &Host) -> Result<Option<u8>> {
    let UserNamespace::Create { maps, writer, deny_setgroups } = wanted else { return Ok(None) };
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    let own = getpid();
    if *writer == Writer::Init {
        process::unshare(flags).map_err(|errno| refused(flags, host, errno))?;
        return idmap::write(own, maps, *deny_setgroups, host).map(|()| None);
    }
    let (gate, key) = pipe2(OFlag::O_CLOEXEC).doing(Code::Exhausted, || "make a pipe".to_owned())?;
    match process::copy().map_err(|errno| refused(0, host, errno))? {
        Fork::Child => {
            drop(key);
            // End of file: there is nothing to map.
            if sys::retry(|| read(&gate, &mut [0])) != Ok(1) {
                return Ok(Some(0));
            }
            map(own, maps, *writer, host).map(|()| Some(0))
        }
        Fork::Parent(child) => {
            let entered = process::unshare(flags).map_err(|errno| refused(flags, host, errno));
            if entered.is_ok() {
                let _ = sys::retry(|| write(&key, b"g"));
            }
            drop(key);
            let ended = process::wait(child).doing(Code::Bug, || "wait for the mapping".to_owned())?;
            entered.map(|()| (ended != WaitStatus::Exited(child, 0)).then(|| supervise::exit_status(ended)))
        }
    }
}

/// Under `--userns=nomap` nobody inside is the caller: then root, as in the container.
fn become_somebody(ids: &Ids, host: &Host) -> Result<()> {
    let is_there = |maps: &Maps| maps.uids.iter().any(|line| line.inside_of(host.caller.uid).is_some());
    if ids.maps.as_ref().is_none_or(is_there) || !ids.is_uid_mapped(0) {
        return Ok(());
    }
    let become_root = || {
        process::set_groups(&[])?;
        process::set_ids(0, 0)
    };
    become_root().doing(Code::MapRefused, || "become user 0 of the new user namespace".to_owned())
}

fn map(process: Pid, maps: &Maps, writer: Writer, host: &Host) -> Result<()> {
    if writer == Writer::Mappers {
        return idmap::start_mappers(process, maps)?.finish(host);
    }
    idmap::write(process, maps, false, host)
}

/// Becomes the program, looked for in PATH as a shell does, with the environment as it is.
fn become_program(command: &[OsString]) -> Result<u8> {
    let shell = || std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let words = if command.is_empty() { vec![shell()] } else { command.to_vec() };
    // argv and the environment hold no NUL.
    let argv: Vec<_> = words.into_iter().map(|word| CString::new(word.into_vec()).unwrap_or_default()).collect();
    let name = argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let errno = sys::exec::search(&Vectors::new(argv.iter().map(CString::as_c_str), std::iter::empty()));
    // A directory, and a file that may not be executed, are one errno to the kernel.
    let errno = if errno == Errno::EACCES && Path::new(&name).is_dir() { Errno::EISDIR } else { errno };
    Err(explain_program(&name, errno, false))
}
