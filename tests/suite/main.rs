//! Black-box suite: runs the built `pura` and looks only at what a user could see.
//!
//! `tests/run` prepares a machine for it and runs it as an ordinary user.
#![allow(clippy::disallowed_methods, reason = "tests start processes and threads")]
#![allow(clippy::shadow_unrelated, reason = "a test asks the same of one container after another")]
#![allow(clippy::indexing_slicing, reason = "a config is indexed by names that the base has; a panic fails the test")]

#[macro_use]
mod harness;

mod cli;
mod console;
mod crash;
mod delete;
mod devices;
mod docs;
mod engine_configs;
mod engines;
mod env;
mod errors;
mod exec;
mod hooks;
mod identity;
mod idmap;
mod kill;
mod lifecycle;
mod links;
mod list;
mod mounts;
mod plan;
mod process;
mod remounts;
mod root;
mod rootfs;
mod run;
mod seccomp;
mod seccomp_compiler;
mod spec_features;
mod state;
mod sysctl;
mod userns;
mod zero_config;
