//! `pura-sweep`: runs one pura command after another under ptrace, disturbs each at another system call, and looks at what
//! is left. `tests/crash` starts it; `docs/testing.md` says how.
//!
//! A fault is SIGKILL for a process, or an errno in place of a call. The system calls are those of the whole tree: parent,
//! mappers, hooks, and init until it is the program. What the program then is, it prints itself (`pura-probe all`).
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a harness of tests, not the runtime"
)]

mod calls;
mod children;
mod choice;
mod judge;
mod op;
mod report;
mod scene;
mod snapshot;
mod tracer;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("traced") => Err(tracer::wait_then_execute(words.get(1..).unwrap_or_default())),
        Some("worker") => judge::work(&choice::Choice::parse(words.get(1..).unwrap_or_default())?),
        _ => report::sweep(&choice::Choice::parse(&words)?),
    }
}
