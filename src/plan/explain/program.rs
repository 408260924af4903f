//! A program that cannot be run: the phrases that engines turn into exit status 126 and 127.

use nix::errno::Errno;

use crate::error::{Code, Error, plain};

/// Why a program of this name cannot be found, or at exec cannot be run.
#[expect(clippy::wildcard_enum_match_arm, reason = "an errno is a number, not a variant")]
pub fn explain_program(name: &str, errno: Errno, at_exec: bool) -> Error {
    let run = || format!("run {name:?}");
    let refused = |code, why: &str| Error::new(code, "run the program", format!("exec: {name:?}: {why}"));
    match errno {
        Errno::ENOENT if at_exec => {
            let why = "its interpreter, or its ELF loader, is missing in the image: no such file or directory";
            Error::new(Code::InterpreterMissing, run(), why)
        }
        Errno::ENOENT | Errno::ENOTDIR if name.contains('/') => {
            Error::new(Code::ProgramMissing, run(), "no such file or directory")
        }
        Errno::ENOENT | Errno::ENOTDIR => {
            Error::new(Code::ProgramNotInPath, run(), "executable file not found in $PATH: no such file or directory")
        }
        Errno::EISDIR => refused(Code::ProgramDirectory, "is a directory: permission denied"),
        Errno::EPERM if !at_exec => {
            refused(Code::ProgramRefused, "it is pura itself, or a script for it, which no container may run")
        }
        Errno::EACCES => refused(Code::ProgramRefused, "permission denied").fix("chmod +x it"),
        Errno::ENOEXEC => refused(Code::ProgramFormat, "exec format error")
            .fix("a first line such as #!/bin/sh, or a program for this machine"),
        Errno::E2BIG => Error::new(Code::TooLong, run(), "arguments and environment are too long"),
        errno => refused(Code::ProgramRefused, &plain(errno)),
    }
}

/// Why `pura-init` cannot be run, which the container's own files have no part in.
pub(super) fn explain_reaper(path: &str, errno: Errno) -> Error {
    let error = Error::new(Code::Helper, format!("run {path:?}"), plain(errno));
    if errno == Errno::EACCES {
        error.fix("install it on a filesystem that is not mounted noexec, with mode 755")
    } else if errno == Errno::ENOSYS || errno == Errno::EPERM {
        error.fix("a seccomp filter that allows execveat, or no --init")
    } else {
        error
    }
}
