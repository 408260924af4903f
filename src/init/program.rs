//! The program: the first candidate that may be executed, and that is not pura itself.

use std::{ffi::CStr, os::fd::OwnedFd};

use nix::{errno::Errno, fcntl::OFlag};

use super::Init;
use crate::{plan::Slot, sys};

/// Bytes of a script that the kernel looks at: `BINPRM_BUF_SIZE`, `execve(2)`.
const HEAD: usize = 256;

/// Interpreters that may be scripts themselves: `execve(2)`.
const DEEPEST: u32 = 5;

impl Init<'_> {
    /// ENOENT only when no candidate exists; a candidate that may not be executed decides, as in `execvp(3)`.
    /// EPERM: it is pura.
    pub(super) fn find_program(&mut self) -> nix::Result<()> {
        let mut refused = Errno::ENOENT;
        for candidate in self.plan.candidates() {
            let candidate = self.plan.text(*candidate);
            match sys::path::executable(candidate) {
                Ok(file) => {
                    self.refuse_own(candidate, file, DEEPEST)?;
                    self.program = Some(candidate);
                    return Ok(());
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => refused = errno,
            }
        }
        Err(refused)
    }

    /// EPERM when what exec would load is pura's own binary, as `/proc/self/exe` is: run in the container, it could be
    /// overwritten from there (CVE-2019-5736). A file that cannot be read is left to exec.
    fn refuse_own(&mut self, path: &CStr, file: sys::path::File, deepest: u32) -> nix::Result<()> {
        if Some(file) == self.plan.itself {
            return Err(Errno::EPERM);
        }
        let mut head = [0; HEAD + 1];
        let Ok(opened) = read_head(path, &mut head) else { return Ok(()) };
        // Closed with the next sweep.
        self.fill(Slot::TREE, opened);
        let Some(interpreter) = interpreter(&mut head).filter(|_| deepest > 0) else { return Ok(()) };
        match sys::path::executable(interpreter) {
            Ok(next) => self.refuse_own(interpreter, next, deepest - 1),
            Err(_) => Ok(()),
        }
    }
}

/// The first bytes of a file; the one after them stays 0.
fn read_head(path: &CStr, head: &mut [u8; HEAD + 1]) -> nix::Result<OwnedFd> {
    let file = sys::path::open_host(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
    let room = head.get_mut(..HEAD).unwrap_or_default();
    sys::retry(|| nix::unistd::read(&file, room))?;
    Ok(file)
}

/// What follows `#!`, up to a blank or the end of the line.
fn interpreter(head: &mut [u8]) -> Option<&CStr> {
    let line = head.strip_prefix(b"#!")?;
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let blanks = line.iter().take_while(|byte| is_blank(byte)).count();
    let path = line.get(blanks..)?;
    let length = path.iter().take_while(|byte| !is_blank(byte) && !matches!(byte, b'\n' | 0)).count();
    let start = 2 + blanks;
    *head.get_mut(start + length)? = 0;
    CStr::from_bytes_until_nul(head.get(start..)?).ok().filter(|interpreter| !interpreter.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_of_a_script_is_what_the_kernel_takes_for_it() {
        for (text, wanted) in [
            ("#!/bin/sh\n", Some(c"/bin/sh")),
            ("#! \t/proc/self/exe -x\n", Some(c"/proc/self/exe")),
            ("#!/bin/sh", Some(c"/bin/sh")),
            ("#!\n", None),
            ("#!", None),
            ("\x7fELF", None),
            ("", None),
        ] {
            let mut head = [0; HEAD + 1];
            head[..text.len()].copy_from_slice(text.as_bytes());
            assert_eq!(interpreter(&mut head), wanted, "{text:?}");
        }
    }
}
