//! The foreground wait: signals go to the program, and its status comes back.

use nix::{
    errno::Errno,
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
};

use crate::{
    error::{Code, Context as _, Result},
    launch::Container,
    sys,
};

/// Waits for the program and returns its exit status; 128 + n when signal n ended it.
///
/// All signals are blocked since before clone, so none is lost: each is taken up here, and passed on to process 1.
pub fn wait(container: &Container) -> Result<u8> {
    loop {
        let signal = sys::retry(sys::signal::wait_any).doing(Code::Bug, || "wait for a signal".to_owned())?;
        if signal != libc::SIGCHLD {
            // ESRCH: it has just ended, and SIGCHLD is on its way.
            let _ = sys::signal::send(container.init, signal);
            continue;
        }
        match waitpid(container.init, Some(WaitPidFlag::WNOHANG)) {
            Ok(status @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..))) => return Ok(exit_status(status)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).doing(Code::Bug, || "wait for the program".to_owned()),
        }
    }
}

fn exit_status(status: WaitStatus) -> u8 {
    let code = if let WaitStatus::Exited(_, code) = status {
        code
    } else if let WaitStatus::Signaled(_, signal, _) = status {
        128 + signal as i32
    } else {
        255
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{sys::signal::Signal, unistd::Pid};

    #[test]
    fn a_signal_n_is_status_128_plus_n() {
        let killed = WaitStatus::Signaled(Pid::from_raw(2), Signal::SIGKILL, false);
        assert_eq!(exit_status(killed), 137);
        assert_eq!(exit_status(WaitStatus::Exited(Pid::from_raw(2), 7)), 7);
    }
}
