//! The parent's end of a container's terminal: passed on to whoever listens, or relayed to the caller's own.

use std::{
    io::IsTerminal as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{LocalFlags, SpecialCharacterIndices, tcgetattr},
    unistd::{Pid, tcgetpgrp},
};

use crate::{
    error::{Code, Context as _, Error, Result},
    socket,
    sys::{
        self,
        pty::{Raw, Size, set_size},
    },
};

/// What becomes of the master.
#[derive(Debug)]
pub enum Console {
    /// The program has no terminal.
    None,
    /// The parent keeps it and relays.
    Relay,
    /// It goes to whoever listens on this connection.
    Socket(OwnedFd),
}

impl Console {
    /// Decides, and connects, before anything is made. `detached` says what is called where nobody stays to relay.
    pub fn open(terminal: bool, path: Option<&Path>, detached: Option<&'static str>) -> Result<Self> {
        match path {
            Some(path) if terminal => {
                let socket = socket::connect(path, Code::ConsoleSocket, "console socket")?;
                socket::insist_on_own(&socket, path, Code::ConsoleSocket, "console socket")?;
                Ok(Self::Socket(socket))
            }
            Some(_) if detached.is_none() => {
                let why = "config.json asks for no terminal";
                Err(Error::new(Code::ConsoleSocket, "use --console-socket", why).fix("terminal: true"))
            }
            None if terminal => match detached {
                Some(call) => {
                    let why = "a terminal is asked for, but nobody would be at its other end";
                    Err(Error::new(Code::NoTerminal, call, why).fix("--console-socket PATH, or terminal: false"))
                }
                None => Ok(Self::Relay),
            },
            None | Some(_) => Ok(Self::None),
        }
    }

    /// Serves init, which has made the terminal: what is kept comes back.
    pub fn take(self, master: OwnedFd) -> Result<Option<OwnedFd>> {
        match self {
            Self::Relay => Ok(Some(master)),
            Self::None => Ok(None),
            Self::Socket(socket) => {
                // Some bytes have to go with it; runc sends the name, and nobody reads it.
                let sent = sys::message::send(socket.as_fd(), b"/dev/pts/ptmx", Some(master.as_fd()));
                sent.doing(Code::ConsoleSocket, || "send the terminal to the console socket".to_owned())?;
                Ok(None)
            }
        }
    }
}

/// The caller's own terminal size, for a program that is given one.
pub fn own_size() -> Option<Size> {
    let standard = [std::io::stdin().as_fd().try_clone_to_owned(), std::io::stdout().as_fd().try_clone_to_owned()];
    standard.into_iter().flatten().find_map(|terminal| sys::pty::size(terminal.as_fd()).ok())
}

/// A relay between the caller's standard input and output and the container's terminal.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    /// Undone on every way out, an error's too.
    raw: Option<Raw>,
    reads_input: bool,
    /// The signal that the container's terminal made of the last key.
    asked: Option<i32>,
}

/// What woke the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Something was passed on.
    Data,
    /// A signal is waiting.
    Signal,
    /// The terminal has no program any more.
    HungUp,
}

impl Relay {
    /// Begins: keys of the caller's terminal, when it is one, go to the program as they are.
    pub fn begin(master: OwnedFd) -> Self {
        let stdin = std::io::stdin();
        let raw = if stdin.is_terminal() { Raw::set(stdin.as_fd()).ok() } else { None };
        let relay = Self { master, raw, reads_input: true, asked: None };
        relay.resize();
        relay
    }

    /// Gives the program's terminal the size of the caller's.
    pub fn resize(&self) {
        if self.raw.is_some()
            && let Some(size) = own_size()
        {
            let _ = set_size(self.master.as_fd(), size);
        }
    }

    /// Waits for data, which it passes on, or for a signal.
    pub fn turn(&mut self, signals: BorrowedFd<'_>) -> nix::Result<Woken> {
        let stdin = std::io::stdin();
        let readable = PollFlags::POLLIN;
        let mut wanted = vec![PollFd::new(self.master.as_fd(), readable), PollFd::new(signals, readable)];
        if self.reads_input {
            wanted.push(PollFd::new(stdin.as_fd(), readable));
        }
        sys::retry(|| poll(&mut wanted, PollTimeout::NONE))?;
        let woken = |at: usize| wanted.get(at).and_then(PollFd::revents).is_some_and(|events| !events.is_empty());
        let (output, signal, input) = (woken(0), woken(1), woken(2));
        if output && !self.pass_output()? {
            return Ok(Woken::HungUp);
        }
        if input && !self.pass_input()? {
            self.reads_input = false;
        }
        Ok(if signal { Woken::Signal } else { Woken::Data })
    }

    /// The signal that a key has become for the program itself: not for another one that it has put in front, such as those
    /// of a shell.
    pub fn asked_by_key(&mut self, init: Pid) -> Option<i32> {
        self.asked.take().filter(|_| tcgetpgrp(&self.master) == Ok(init))
    }

    /// Says something on the caller's terminal as that was before.
    pub fn aside(&mut self, say: impl FnOnce()) {
        let was_raw = self.raw.take().is_some();
        say();
        if was_raw {
            self.raw = Raw::set(std::io::stdin().as_fd()).ok();
        }
    }

    /// Passes on what is left when the program has ended.
    pub fn drain(&mut self) {
        let is_ready = |master: &OwnedFd| {
            let mut wanted = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
            poll(&mut wanted, PollTimeout::ZERO) == Ok(1)
        };
        while is_ready(&self.master) && self.pass_output() == Ok(true) {}
    }

    fn pass_output(&self) -> nix::Result<bool> {
        pass(self.master.as_fd(), std::io::stdout().as_fd(), |_| ())
    }

    /// At the end of the caller's input the program gets the end of its own: control-D, as from a person.
    fn pass_input(&mut self) -> nix::Result<bool> {
        let (master, asked) = (self.master.as_fd(), &mut self.asked);
        let more = pass(std::io::stdin().as_fd(), master, |keys| *asked = signal_of(keys, master))?;
        if !more {
            let _ = nix::unistd::write(&self.master, &[4]);
        }
        Ok(more)
    }
}

/// The signal that a terminal makes of a key, as it is set now: `termios(3)`.
fn signal_of(keys: &[u8], terminal: BorrowedFd<'_>) -> Option<i32> {
    keys.iter().find(|key| key.is_ascii_control())?;
    let settings = tcgetattr(terminal).ok().filter(|settings| settings.local_flags.contains(LocalFlags::ISIG))?;
    let signals = [(SpecialCharacterIndices::VINTR, libc::SIGINT), (SpecialCharacterIndices::VQUIT, libc::SIGQUIT)];
    let typed =
        |at: SpecialCharacterIndices| settings.control_chars.get(at as usize).is_some_and(|key| keys.contains(key));
    signals.into_iter().find_map(|(at, signal)| typed(at).then_some(signal))
}

/// Passes on what is there, and shows it; whether there may be more. EIO of a master: nobody has its other end open.
fn pass(from: BorrowedFd<'_>, to: BorrowedFd<'_>, show: impl FnOnce(&[u8])) -> nix::Result<bool> {
    let mut buffer = [0; 8192];
    let length = match sys::retry(|| nix::unistd::read(from, &mut buffer)) {
        Ok(0) | Err(Errno::EIO) => return Ok(false),
        length => length?,
    };
    let mut rest = buffer.get(..length).unwrap_or_default();
    show(rest);
    while !rest.is_empty() {
        let written = match sys::retry(|| nix::unistd::write(to, rest)) {
            // Whoever read our output is gone; the program will notice when its terminal hangs up.
            Err(Errno::EPIPE | Errno::EIO) => return Ok(false),
            written => written?,
        };
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(true)
}
