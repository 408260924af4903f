//! Black-box suite: runs the built `pura` and looks only at what a user could see.
//!
//! `tests/run` prepares a machine for it and runs it as an ordinary user; `docs/testing.md` says more.
#![allow(clippy::disallowed_methods, reason = "tests start processes and threads")]

#[macro_use]
mod harness;

mod delete;
mod kill;
mod lifecycle;
mod list;
mod run;
mod state;
