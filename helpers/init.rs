//! `pura-init PATH NAME [ARGUMENT...]`: process 1 of a container under `pura run --init`. It runs the program at PATH as its child,
//! passes signals on to it, reaps what is orphaned, and ends as the program does.
//!
//! pura starts it from a descriptor, in place of the program and confined as that: it has no right that the program lacks,
//! opens no file, and decides nothing. All signals are blocked: none that arrives early is lost, and process 1, which is spared
//! those that it does not handle, gets them all.
#![no_main]

use std::{
    ffi::{CStr, CString, OsString},
    io::Write as _,
    os::unix::ffi::OsStringExt as _,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::SigSet,
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};
use pura::{
    plan::explain_program,
    sys::{
        self,
        exec::Vectors,
        process::{self, Attribute, Fork},
        signal,
    },
};

pura::entry!(run);

/// For service managers: which process the descriptors are for, `sd_listen_fds(3)`.
const LISTENER: &[u8] = b"LISTEN_PID=";

/// What a container has as its status that never became its program.
const FAILED: u8 = 125;

/// Signals that a terminal sends to its foreground processes, which we are one of, and so is the program if it wants to be.
const KEYS: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGWINCH];

/// The standard descriptors are the program's, and have been opened by pura.
fn run(words: &[OsString], _standard: nix::Result<()>) -> u8 {
    let words: Vec<_> = words.iter().filter_map(|word| CString::new(word.clone().into_vec()).ok()).collect();
    let [_, path, argv @ ..] = words.as_slice() else { return complain("pura-init is for pura run --init", FAILED) };
    let _ = prctl::set_name(c"pura-init");
    // Where the PID namespace is another's, orphans are ours all the same.
    let _ = prctl::set_child_subreaper(true);
    let signals = signal::block().and_then(|_| SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC));
    match signals.and_then(|signals| Ok((start(path, argv)?, signals))) {
        Ok((program, signals)) => wait(program, &signals),
        Err(errno) => complain(&format!("cannot start {path:?} under pura-init: {}", errno.desc()), FAILED),
    }
}

fn complain(line: &str, status: u8) -> u8 {
    // Who cannot be told sees the status.
    drop(std::io::stderr().write_all(format!("pura: {line}\n").as_bytes()));
    status
}

/// Starts the program, in our process group, so that what was our terminal is its own.
fn start(path: &CStr, argv: &[CString]) -> nix::Result<Pid> {
    let own = format!("LISTEN_PID={}", std::process::id());
    let (ours, others): (Vec<_>, Vec<_>) =
        sys::exec::environment().partition(|variable| variable.to_bytes() == own.as_bytes());
    let vectors = Vectors::new(argv.iter().map(CString::as_c_str), others.into_iter());
    match process::copy()? {
        Fork::Parent(program) => Ok(program),
        Fork::Child => {
            // Whatever ends us ends it; where we are process 1, the kernel sees to that.
            let _ = process::prctl(Attribute::DeathSignal, libc::SIGKILL.unsigned_abs().into());
            if !ours.is_empty() {
                let _ = vectors.add_late(&[LISTENER, std::process::id().to_string().as_bytes()].concat());
            }
            let errno = signal::unblock().err().unwrap_or_else(|| sys::exec::exec(path, &vectors));
            process::exit_now(refused(argv, errno).into())
        }
    }
}

/// Says why the program cannot be run, in the words of pura; the status.
fn refused(argv: &[CString], errno: Errno) -> u8 {
    let name = argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let error = explain_program(&name, errno, true);
    complain(&error.to_string(), error.code().foreground_status())
}

/// Passes signals on until the program has ended; its status. By a descriptor: while sigwaitinfo(2) waits, signals do not show as
/// blocked, and pura would take them for lost.
fn wait(program: Pid, signals: &SignalFd) -> u8 {
    loop {
        let Ok(Some(taken)) = sys::retry(|| signals.read_signal()) else { return FAILED };
        let signal = i32::try_from(taken.ssi_signo).unwrap_or(0);
        if signal == libc::SIGCHLD {
            if let Some(status) = reap(program) {
                return status;
            }
        } else if !(taken.ssi_code == libc::SI_KERNEL && KEYS.contains(&signal)) {
            // ESRCH: it has just ended, and SIGCHLD is on its way.
            let _ = signal::send(program, signal);
        }
    }
}

/// Reaps all that have ended; the status of the program, when it has.
fn reap(program: Pid) -> Option<u8> {
    while let Ok(Some((pid, status))) = sys::retry(process::reap) {
        if pid == program {
            return Some(u8::try_from(status).unwrap_or(u8::MAX));
        }
    }
    None
}
