//! Signals that ask the program to end, and are heard by nobody.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::{
    error::{Code, Warning},
    log::Log,
    signal::{Fate, fate, name},
};

/// How long the first of two counts.
const PATIENCE: Duration = Duration::from_secs(2);

/// The signals, and whether a second one without effect ends the container: a terminal that goes may send several HUP.
const REQUESTS: [(i32, bool); 4] =
    [(libc::SIGINT, true), (libc::SIGTERM, true), (libc::SIGQUIT, true), (libc::SIGHUP, false)];

/// What was asked for so far.
#[derive(Debug)]
pub(super) struct Requests<'a> {
    log: &'a Log,
    last: Option<(i32, Instant)>,
    is_deaf: bool,
}

impl<'a> Requests<'a> {
    pub(super) fn new(log: &'a Log) -> Self {
        Self { log, last: None, is_deaf: false }
    }

    /// The signal that the next one means: the second of two without effect is KILL. One that has a handler is the
    /// program's own affair, however often it comes.
    pub(super) fn meant_by(&mut self, signal: i32, init: Pid) -> i32 {
        let Some((_, kills)) = REQUESTS.iter().find(|(known, _)| *known == signal) else { return signal };
        let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
        let is_again = self.last.replace((signal, Instant::now())).is_some_and(|(last, at)| {
            // A measure of people, who press a key twice.
            last == signal && at.elapsed() < PATIENCE
        });
        match fate(&status, signal) {
            Fate::Lost if is_again && *kills => return libc::SIGKILL,
            Fate::Lost => self.tell(&lost(signal, *kills, init)),
            Fate::Chosen if is_again && !self.is_deaf => {
                self.is_deaf = true;
                self.tell(&unheeded(signal, init));
            }
            Fate::Chosen | Fate::Default => {}
        }
        signal
    }

    /// The same for a key, which the container's terminal turns into the signal: what has a handler is not told.
    pub(super) fn meant_by_key(&mut self, signal: i32, init: Pid) -> i32 {
        self.is_deaf = true;
        self.meant_by(signal, init)
    }

    fn tell(&self, warning: &Warning) {
        self.log.tell(warning, true);
    }
}

fn lost(signal: i32, kills: bool, init: Pid) -> Warning {
    let name = name(signal);
    let what = format!("process 1 of the container has no handler for {name}, so that it has no effect");
    let init_next = "next time pura run --init ..., whose process 1 passes it on";
    Warning::new(Code::SignalUnheard, what).fix(if kills {
        format!("{name} again within 2 seconds kills the container; {init_next}")
    } else {
        format!("kill -KILL {init}; {init_next}")
    })
}

fn unheeded(signal: i32, init: Pid) -> Warning {
    let name = name(signal);
    let what =
        format!("the program catches or ignores {name} and goes on, as a shell that waits for another program does");
    Warning::new(Code::SignalUnheard, what).fix(format!("kill -KILL {init}"))
}
