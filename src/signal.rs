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
        |text: &str| if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<i32>().ok() } else { None };
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
