//! Signals as people and engines write them.

use std::ffi::OsStr;

use crate::error::{Code, Error, Result};

/// `SIGRTMIN` and `SIGRTMAX` of the C library that engines mean, whichever this binary has.
const REAL_TIME: (i32, i32) = (34, 64);

/// Names and numbers of x86 and ARM: `signal(7)`.
const NAMES: [(&str, i32); 35] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
    ("EXIT", 0),
];

/// What becomes of a signal that a process is sent by another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The kernel drops it: process 1 of a PID namespace below ours has no handler, `pid_namespaces(7)`.
    Lost,
    /// The process has a handler, or ignores it, or blocks it, as one does who waits for it.
    Chosen,
    /// Its default action; also when the process has ended.
    Default,
}

/// The fate of a signal by the text of `/proc/PID/status`, which may be empty.
pub fn fate(status: &str, signal: i32) -> Fate {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let mask = |name| u64::from_str_radix(field(name), 16).unwrap_or(0);
    if field("State:").is_empty() || field("State:").starts_with(['Z', 'X']) {
        return Fate::Default;
    }
    if (mask("SigCgt:") | mask("SigIgn:") | mask("SigBlk:")) >> (signal - 1) & 1 == 1 {
        return Fate::Chosen;
    }
    let is_first = field("NSpid:").split_whitespace().skip(1).last() == Some("1");
    if is_first && !HARMLESS.contains(&signal) { Fate::Lost } else { Fate::Default }
}

/// What process 1 gets without a handler, and what does nothing without one anywhere.
const HARMLESS: [i32; 6] = [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];

/// A signal as people write it, such as SIGTERM.
pub fn name(signal: i32) -> String {
    let known = NAMES.iter().find(|(_, number)| *number == signal);
    known.map_or_else(|| format!("signal {signal}"), |(name, _)| format!("SIG{name}"))
}

/// The number of a signal: 0 to 64, or a name, with or without SIG, `RTMIN+n` and `RTMAX-n` too.
pub fn parse(typed: &OsStr) -> Result<i32> {
    let text = typed.to_str().unwrap_or_default();
    let refuse = || {
        Error::new(Code::Signal, "send a signal", format!("unknown signal {typed:?}"))
            .fix("a number from 0 to 64, or a name such as TERM or SIGRTMIN+3")
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { named(&text.to_ascii_uppercase()) };
    number.filter(|number| (0..=REAL_TIME.1).contains(number)).ok_or_else(refuse)
}

fn named(text: &str) -> Option<i32> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let (least, most) = REAL_TIME;
    let offset =
        |digits: &str| if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse::<i32>().ok() } else { None };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let number = if rest.is_empty() { 0 } else { offset(rest.strip_prefix('+')?)? };
        return least.checked_add(number).filter(|number| *number <= most);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        let number = if rest.is_empty() { 0 } else { offset(rest.strip_prefix('-')?)? };
        return most.checked_sub(number).filter(|number| *number >= least);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_number_and_several_names() {
        for (typed, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigkill", 9),
            ("term", 15),
            ("0", 0),
            ("64", 64),
            ("RTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("SIGRTMAX-2", 62),
            ("37", 37),
        ] {
            assert_eq!(parse(OsStr::new(typed)).unwrap(), number, "{typed}");
        }
    }

    #[test]
    fn a_signal_is_lost_on_a_process_1_without_a_handler() {
        for (ids, blocked, ignored, caught, wanted) in [
            ("7 1", "0", "0", "0", Fate::Lost),
            ("7", "0", "0", "0", Fate::Default),
            ("7 3", "0", "0", "0", Fate::Default),
            ("9 7 1", "10000", "1000", "4000", Fate::Lost),
            ("7 1", "0", "0", "2", Fate::Chosen),
            ("7 1", "0", "2", "0", Fate::Chosen),
            ("7 1", "2", "0", "0", Fate::Chosen),
            ("7", "2", "0", "0", Fate::Chosen),
        ] {
            let masks = format!("SigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n");
            let status = format!("Name:\tx\nState:\tS (sleeping)\nNSpid:\t{ids}\n{masks}");
            assert_eq!(fate(&status, libc::SIGINT), wanted, "{status}");
            assert_eq!(fate(&status.replace("S (", "Z ("), libc::SIGINT), Fate::Default);
            assert_ne!(fate(&status, libc::SIGKILL), Fate::Lost);
        }
        assert_eq!(fate("", libc::SIGINT), Fate::Default);
        assert_eq!((name(libc::SIGTERM), name(40)), ("SIGTERM".to_owned(), "signal 40".to_owned()));
    }

    #[test]
    fn what_is_no_signal_is_named() {
        for typed in [
            "",
            "BOGUS",
            "65",
            "-9",
            "+9",
            "9x",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN-1",
            "RTMIN+",
            "SIG",
            "0x9",
            "99999999999",
        ] {
            let error = parse(OsStr::new(typed)).unwrap_err();
            assert!(error.to_string().contains(&format!("unknown signal {typed:?}")), "{error}");
        }
    }
}
