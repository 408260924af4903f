//! Black-box suite: runs the built `pura` and looks only at what a user could see.
//!
//! `tests/run` prepares a machine for it and runs it as an ordinary user.
#![allow(clippy::disallowed_methods, reason = "tests start processes and threads")]
#![allow(clippy::shadow_unrelated, reason = "a test asks the same of one container after another")]
#![allow(clippy::indexing_slicing, reason = "a config is indexed by names that the base has; a panic fails the test")]

#[macro_use]
mod harness;

mod affinity;
mod annotations;
mod attacks;
mod cgroup;
mod cgroup_faults;
mod cgroup_versions;
mod cli;
mod console;
mod contract;
mod crash;
mod delete;
mod devices;
mod docs;
mod doctor;
mod emulation;
mod engine_configs;
mod engine_runs;
mod engines;
mod env;
mod errors;
mod exec;
mod fallback;
mod features;
mod fields;
mod frozen;
mod hooks;
mod identity;
mod idmap;
mod init;
mod joined_filesystems;
mod joined_mounts;
mod kill;
mod lifecycle;
mod limits;
mod links;
mod linux_fields;
mod list;
mod locked;
mod malformed;
mod mounts;
mod narrow;
mod nested;
mod network;
mod obstacles;
mod outliving;
mod pidfd;
mod plan;
mod process;
mod raw_calls;
mod remounts;
mod root;
mod rootfs;
mod run;
mod seccomp;
mod seccomp_agent;
mod seccomp_compiler;
mod spec_examples;
mod spec_features;
mod state;
mod storm;
mod sysctl;
mod systemd;
mod unshare;
mod usage;
mod userns;
mod wait;
mod words;
mod zero_config;
