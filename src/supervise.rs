//! The foreground wait: signals go to the program, and its status comes back.

use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::SigSet,
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{
    console::{Relay, Woken},
    error::{Code, Context as _, Result, Warning},
    launch::Container,
    log::Log,
    sys,
};

/// How long the first Ctrl-C counts.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits for the program and returns its exit status; 128 + n when signal n ended it.
///
/// All signals are blocked since before clone, so none is lost: each is taken up here, and passed on to process 1.
pub fn wait(container: &mut Container, log: &Log) -> Result<u8> {
    let mut interrupts = Interrupts { log, last: None };
    if let Some(master) = container.master.take() {
        return relay(container, Relay::begin(master), &mut interrupts);
    }
    loop {
        let signal = sys::retry(sys::signal::wait_any).doing(Code::Bug, || "wait for a signal".to_owned())?;
        if let Some(status) = take_up(container, signal, &mut interrupts)? {
            return Ok(status);
        }
    }
}

/// The same, with the program's terminal relayed to the caller's.
fn relay(container: &Container, mut relay: Relay, interrupts: &mut Interrupts<'_>) -> Result<u8> {
    let what = || "relay the terminal".to_owned();
    let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
    let signals = signals.doing(Code::Exhausted, what)?;
    let mut hung_up = false;
    loop {
        // A terminal without a program has nothing more to say, but its program may go on without it.
        let woken = if hung_up { Woken::Signal } else { relay.turn(signals.as_fd()).doing(Code::Bug, what)? };
        hung_up |= woken == Woken::HungUp;
        if hung_up {
            let mut wanted = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            sys::retry(|| poll(&mut wanted, PollTimeout::NONE)).doing(Code::Bug, what)?;
        }
        while let Some(signal) = signals.read_signal().doing(Code::Bug, what)? {
            let signal = i32::try_from(signal.ssi_signo).unwrap_or(0);
            if signal == libc::SIGWINCH {
                // Its foreground processes hear of it from the terminal itself.
                relay.resize();
            } else if let Some(status) = take_up(container, signal, interrupts)? {
                relay.drain();
                return Ok(status);
            }
        }
    }
}

/// Passes a signal on; the exit status, when it says that the program has ended.
fn take_up(container: &Container, signal: i32, interrupts: &mut Interrupts<'_>) -> Result<Option<u8>> {
    if signal != libc::SIGCHLD {
        let signal = if signal == libc::SIGINT { interrupts.meant_by_next(container.init) } else { signal };
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

/// Ctrl-C, which process 1 gets only when it has a handler: `pid_namespaces(7)`.
struct Interrupts<'a> {
    log: &'a Log,
    /// When there was the last one without effect.
    last: Option<Instant>,
}

impl Interrupts<'_> {
    /// The signal that the next one means: the second of two without effect ends the container.
    fn meant_by_next(&mut self, init: Pid) -> i32 {
        let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
        if !is_lost(&status) {
            return libc::SIGINT;
        }
        if self.last.replace(Instant::now()).is_some_and(|last| last.elapsed() < PATIENCE) {
            return libc::SIGKILL;
        }
        let what = "process 1 of the container has no handler for SIGINT, so that Ctrl-C does not end it";
        self.log
            .tell(&Warning::new(Code::InterruptIgnored, what).fix("press it again, and the container is killed"), true);
        libc::SIGINT
    }
}

/// Whether a process is number 1 in a PID namespace below ours, and neither handles SIGINT, nor ignores it, nor blocks it, as
/// one does who waits for it.
fn is_lost(status: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let is_first = field("NSpid:").split_whitespace().skip(1).last() == Some("1");
    let mask = |name| u64::from_str_radix(field(name).trim(), 16).unwrap_or(u64::MAX);
    let chosen = mask("SigCgt:") | mask("SigIgn:") | mask("SigBlk:");
    is_first && chosen >> (libc::SIGINT - 1) & 1 == 0
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
    use nix::sys::signal::Signal;

    #[test]
    fn an_interrupt_is_lost_on_a_process_1_without_a_handler() {
        for (ids, blocked, ignored, caught, lost) in [
            ("7 1", "0", "0", "0", true),
            ("7", "0", "0", "0", false),
            ("7 3", "0", "0", "0", false),
            ("9 7 1", "10000", "1000", "4000", true),
            ("7 1", "0", "0", "2", false),
            ("7 1", "0", "2", "0", false),
            ("7 1", "2", "0", "0", false),
        ] {
            let masks = format!("SigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n");
            let status = format!("Name:\tx\nNSpid:\t{ids}\n{masks}");
            assert_eq!(is_lost(&status), lost, "{status}");
        }
        assert!(!is_lost(""));
    }

    #[test]
    fn a_signal_n_is_status_128_plus_n() {
        let killed = WaitStatus::Signaled(Pid::from_raw(2), Signal::SIGKILL, false);
        assert_eq!(exit_status(killed), 137);
        assert_eq!(exit_status(WaitStatus::Exited(Pid::from_raw(2), 7)), 7);
    }
}
