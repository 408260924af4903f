//! The foreground wait: signals go to the program, and its status comes back.

mod requests;

use std::os::fd::AsFd as _;

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::SigSet,
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
};

use crate::{
    console::{Relay, Woken},
    error::{Code, Context as _, Result},
    launch::Container,
    log::Log,
    sys,
};
use requests::Requests;

/// Waits for the program and returns its exit status; 128 + n when signal n ended it.
///
/// All signals are blocked since before clone, so none is lost: each is taken up here, and passed on to process 1.
pub fn wait(container: &mut Container, log: &Log) -> Result<u8> {
    let mut requests = Requests::new(log);
    if let Some(master) = container.master.take() {
        return relay(container, Relay::begin(master), &mut requests);
    }
    loop {
        let signal = sys::retry(sys::signal::wait_any).doing(Code::Bug, || "wait for a signal".to_owned())?;
        if let Some(status) = take_up(container, signal, &mut requests)? {
            return Ok(status);
        }
    }
}

/// The same, with the program's terminal relayed to the caller's.
fn relay(container: &Container, mut relay: Relay, requests: &mut Requests<'_>) -> Result<u8> {
    let what = || "relay the terminal".to_owned();
    let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
    let signals = signals.doing(Code::Exhausted, what)?;
    let mut hung_up = false;
    loop {
        // A terminal without a program has nothing more to say, but its program may go on without it.
        let woken = if hung_up { Woken::Signal } else { relay.turn(signals.as_fd()).doing(Code::Bug, what)? };
        hung_up |= woken == Woken::HungUp;
        if let Some(signal) = relay.asked_by_key(container.init) {
            let mut meant = signal;
            relay.aside(|| meant = requests.meant_by_key(signal, container.init));
            if meant == libc::SIGKILL {
                let _ = sys::signal::send(container.init, meant);
            }
        }
        if hung_up {
            let mut wanted = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            sys::retry(|| poll(&mut wanted, PollTimeout::NONE)).doing(Code::Bug, what)?;
        }
        while let Some(signal) = signals.read_signal().doing(Code::Bug, what)? {
            let signal = i32::try_from(signal.ssi_signo).unwrap_or(0);
            if signal == libc::SIGWINCH {
                // Its foreground processes hear of it from the terminal itself.
                relay.resize();
            } else if let Some(status) = take_up(container, signal, requests)? {
                relay.drain();
                return Ok(status);
            }
        }
    }
}

/// Passes a signal on; the exit status, when it says that the program has ended.
fn take_up(container: &Container, signal: i32, requests: &mut Requests<'_>) -> Result<Option<u8>> {
    if signal != libc::SIGCHLD {
        let signal = requests.meant_by(signal, container.init);
        // ESRCH: it has just ended, and SIGCHLD is on its way.
        let _ = sys::signal::send(container.init, signal);
        return Ok(None);
    }
    // No other SIGCHLD comes for it.
    match sys::retry(|| waitpid(container.init, Some(WaitPidFlag::WNOHANG))) {
        Ok(status @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..))) => Ok(Some(exit_status(status))),
        Ok(_) => Ok(None),
        Err(errno) => Err(errno).doing(Code::Bug, || "wait for the program".to_owned()),
    }
}

/// What a shell shows of it: 128 + n when signal n ended the process.
pub fn exit_status(status: WaitStatus) -> u8 {
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
