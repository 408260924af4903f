//! Internals of `pura`. The modules are listed in the order in which `pura run` passes through them.

pub mod cli;
pub mod commands;

pub mod bundle;
pub mod default_config;
pub mod spec;

pub mod host;
pub mod plan;
pub mod receivers;
pub mod resctrl;
pub mod seccomp;

pub mod cgroup;
pub mod store;
pub mod systemd;

pub mod container;

pub mod itself;

pub mod launch;

pub mod init;

pub mod hooks;

pub mod agent;
pub mod console;
pub mod supervise;
pub mod usage;

pub mod members;
pub mod teardown;

pub mod zero_config;

pub mod doctor;

pub mod clock;
pub mod nearest;
pub mod signal;
pub mod socket;
pub mod state;

pub mod log;

pub mod sys;

pub mod error;

#[cfg(test)]
#[path = "../tests/fuzz/main.rs"]
mod fuzz;
