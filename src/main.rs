//! `pura`: a rootless, userns-first OCI container runtime.
#![no_main]

use std::{ffi::OsString, io::Write as _};

use pura::{
    cli::{self, Request, Verb},
    commands,
    error::{Code, Context as _, Error, Result},
    host::activation,
    itself,
    log::Log,
    sys,
};

pura::entry!(run);

fn run(argv: &[OsString], standard: nix::Result<()>) -> u8 {
    let mut log = Log::default();
    // Nothing has been opened yet that a message could get into.
    let standard = standard.doing(Code::Exhausted, || "open the standard descriptors".to_owned());
    match standard.and_then(|()| carry_out(argv, &mut log)) {
        Ok(status) => status,
        Err(error) => {
            log.error(&error);
            // The only place that prints an error; in one write, so that lines of several processes do not mix. Nothing
            // can be done if standard error is closed.
            drop(std::io::stderr().write_all(format!("pura: {error}\n").as_bytes()));
            status(&error, cli::is_foreground(argv))
        }
    }
}

fn carry_out(argv: &[OsString], log: &mut Log) -> Result<u8> {
    itself::refuse_elevation()?;
    let request = cli::parse(argv)?;
    let preserved = match program_descriptors(&request) {
        // Those of the caller's service manager too.
        Some(count) => sys::fd::close_inherited(count.max(activation::descriptors()))
            .doing(Code::Bug, || "close inherited descriptors".to_owned())?,
        None => Vec::new(),
    };
    *log = Log::open(&request.globals)?;
    commands::dispatch(&request, log, &preserved)
}

/// For a verb that starts a program: how many descriptors that inherits besides the standard ones.
fn program_descriptors(request: &Request) -> Option<u32> {
    if let Verb::Create(create) = &request.verb {
        return Some(create.preserve_fds);
    }
    if let Verb::Run(run) = &request.verb {
        return Some(run.create.preserve_fds);
    }
    if let Verb::Exec(exec) = &request.verb {
        return Some(exec.preserve_fds);
    }
    if let Verb::ZeroConfig(zero) = &request.verb { Some(zero.run.create.preserve_fds) } else { None }
}

fn status(error: &Error, foreground: bool) -> u8 {
    if foreground {
        return error.code().foreground_status();
    }
    if error.code() == Code::Usage { 2 } else { 1 }
}
