//! Black-box suite: runs the built `pura` and looks only at what a user could see.
//!
//! `tests/run` prepares a machine for it and runs it as an ordinary user.
#![allow(clippy::disallowed_methods, reason = "tests start processes and threads")]

#[macro_use]
mod harness;

mod cli;
mod crash;
mod delete;
mod devices;
mod engine_configs;
mod env;
mod errors;
mod identity;
mod kill;
mod lifecycle;
mod list;
mod mounts;
mod plan;
mod root;
mod rootfs;
mod run;
mod spec_features;
mod state;
mod userns;
mod zero_config;
