//! A program that runs beside this process, to its end: started and waited for without allocating, so that init may.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{Pid, chdir, pipe2, setpgid},
};

use super::{
    check,
    exec::{Vectors, exec},
    fd::close_range,
    pidfd,
    process::{self, Fork},
    retry, signal,
};

/// What to run, and with what.
#[derive(Debug)]
pub struct Child<'a> {
    /// The program's path: PATH is not searched.
    pub program: &'a CStr,
    /// Its arguments and its environment.
    pub vectors: &'a Vectors<'a>,
    /// Where it starts; on any errno that is `/`.
    pub directory: &'a CStr,
    /// Its standard input, output and error. Numbers from 3 on: the first three are always open.
    pub standard: [BorrowedFd<'a>; 3],
    /// Signals that this process ignores, a bit each: bit n - 1 is signal n. The program does not.
    pub ignored: u64,
}

impl Child<'_> {
    /// Runs the program in a process group of its own and returns its wait status, `wait(2)`: 0 is success.
    ///
    /// Past `limit` its group is killed: ETIMEDOUT. The same when `interrupt` can be read: ECANCELED. Every other errno
    /// says why it does not run. Signals have to be blocked; SIGCHLD must not be ignored.
    pub fn run(&self, limit: PollTimeout, interrupt: Option<BorrowedFd<'_>>) -> nix::Result<i32> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        let pid = match process::copy()? {
            Fork::Child => self.become_program(&writer),
            Fork::Parent(pid) => pid,
        };
        drop(writer);
        let mut refusal = [0; 4];
        // End of file: exec has closed the other end. Its process group exists since before that.
        if retry(|| nix::unistd::read(&reader, &mut refusal)) == Ok(refusal.len()) {
            status(pid)?;
            return Err(Errno::from_raw(i32::from_ne_bytes(refusal)));
        }
        let ended = match pidfd::open(pid.as_raw()) {
            Err(Errno::ENOSYS) => pidfd::wait_for_child(pid, limit, interrupt),
            opened => opened.and_then(|process| ended(&process, limit, interrupt)),
        };
        match ended {
            Ok(()) => status(pid),
            Err(errno) => {
                // The whole group: what the program has started holds on to its output, and may be what hangs.
                let _ = signal::send(Pid::from_raw(-pid.as_raw()), libc::SIGKILL);
                status(pid)?;
                Err(errno)
            }
        }
    }

    fn become_program(&self, writer: &OwnedFd) -> ! {
        let errno = self.prepare(writer).map_or_else(|errno| errno, |()| exec(self.program, self.vectors));
        let bytes = (errno as i32).to_ne_bytes();
        let _ = nix::unistd::write(writer, &bytes);
        process::exit_now(127)
    }

    /// Nothing of this process stays but the three descriptors and the pipe, which exec closes.
    fn prepare(&self, writer: &OwnedFd) -> nix::Result<()> {
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        for (number, descriptor) in (0..).zip(self.standard) {
            // SAFETY: the descriptor is borrowed; 0 to 2 belong to nobody else in this process, which is a copy.
            check(libc::c_long::from(unsafe { libc::dup2(descriptor.as_raw_fd(), number) }))?;
        }
        let kept = writer.as_raw_fd().unsigned_abs();
        // Below it and above it: a descriptor that the caller wants the container's program to have is none of a hook's.
        if kept > 3 {
            close_range(3, kept - 1)?;
        }
        close_range(kept + 1, u32::MAX)?;
        if chdir(self.directory).is_err() {
            chdir(c"/")?;
        }
        for number in (1..=64).filter(|number| self.ignored >> (number - 1) & 1 == 1) {
            // EINVAL: KILL and STOP, which nobody ignores.
            let _ = signal::set_default(number);
        }
        signal::unblock()
    }
}

/// Waits until the process ends. ETIMEDOUT and ECANCELED as in [`Child::run`].
fn ended(process: &OwnedFd, limit: PollTimeout, interrupt: Option<BorrowedFd<'_>>) -> nix::Result<()> {
    let mut wanted =
        [process.as_fd(), interrupt.unwrap_or(process.as_fd())].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    if retry(|| poll(&mut wanted, limit))? == 0 {
        return Err(Errno::ETIMEDOUT);
    }
    let [has_ended, _] = wanted.map(|entry| entry.any().unwrap_or(false));
    if has_ended { Ok(()) } else { Err(Errno::ECANCELED) }
}

/// Reaps a child and returns its wait status; raw, because a real-time signal may have ended it, which nix has no name for.
fn status(child: Pid) -> nix::Result<i32> {
    let mut status = 0;
    // SAFETY: the kernel writes one integer, which lives until the call returns.
    retry(|| check(libc::c_long::from(unsafe { libc::waitpid(child.as_raw(), &raw mut status, 0) })))?;
    Ok(status)
}
