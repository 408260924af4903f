//! `run` and `plan` of a command, without a bundle.

use std::{ffi::OsString, path::PathBuf};

use super::{LimitFlags, Run};

/// `run [--rootfs DIR] -- CMD…`: no bundle, safe defaults.
#[derive(Debug, Default, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct ZeroConfig {
    /// What `run` shares with it; the id comes from `--name` or is made up by the command when empty.
    pub run: Run,
    /// `--rootfs DIR`; the host's own root when absent.
    pub rootfs: Option<PathBuf>,
    /// The program and its arguments; empty means a shell.
    pub command: Vec<OsString>,
    /// `-e NAME=VALUE`, or `NAME` to pass the caller's.
    pub env: Vec<OsString>,
    /// `-w DIR`
    pub cwd: Option<PathBuf>,
    /// `-u UID[:GID]`
    pub user: Option<OsString>,
    /// `--keep-groups`: the caller's supplementary groups stay.
    pub keep_groups: bool,
    /// `-v SRC:DST[:OPTIONS]`
    pub volumes: Vec<OsString>,
    /// `--hostname NAME`
    pub hostname: Option<OsString>,
    /// `--read-only`: no overlay, and a read-only root.
    pub read_only: bool,
    /// `--nested`: containers may be made inside.
    pub nested: bool,
    /// `--net`: the caller's network.
    pub net: bool,
    /// `--proc`
    pub proc: Proc,
    /// `--tty`: a terminal of its own.
    pub tty: bool,
    /// Limits.
    pub limits: LimitFlags,
}

/// What is on `/proc`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Proc {
    /// A procfs of the container's own.
    #[default]
    New,
    /// The caller's.
    Bind,
}
