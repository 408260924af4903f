//! Command line: argv becomes a [`Request`], which is what was typed and nothing more. No file is touched here.

mod limits;
#[cfg(test)]
mod manual;
mod parse;
mod request;
mod scan;
pub mod table;
mod zero_config;

use std::{ffi::OsString, path::PathBuf, time::Duration};

pub use limits::{LimitFlags, Limiting};
pub use parse::{is_foreground, parse};
pub use zero_config::{Proc, ZeroConfig};

/// One parsed invocation.
#[derive(Debug, Default)]
pub struct Request {
    /// What holds for every verb.
    pub globals: Globals,
    /// The verb with its own flags and operands.
    pub verb: Verb,
}

/// Global options of spec 1.1; accepted before every verb, and the last of a repeated one wins.
#[derive(Debug, Default, Clone)]
pub struct Globals {
    /// `--root DIR`: the state root, before every other rule.
    pub root: Option<PathBuf>,
    /// `--log FILE`: without a `file:` prefix, which is removed.
    pub log: Option<PathBuf>,
    /// `--log journald:NAME` or `syslog:NAME`.
    pub log_service: Option<LogService>,
    /// `--log-format`
    pub log_format: LogFormat,
    /// `--log-level`, and `--debug`.
    pub log_level: LogLevel,
    /// `--cgroup-manager`, and `--systemd-cgroup`.
    pub cgroup_driver: CgroupDriver,
    /// `--userns`, else `PURA_USERNS`.
    pub userns: UsernsMode,
    /// `--strict`, or `PURA_STRICT=1`: degradations are errors.
    pub strict: bool,
}

/// Whoever keeps logs on this machine, and the name under which it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogService {
    /// The journal of systemd.
    Journal(OsString),
    /// syslog.
    Syslog(OsString),
}

/// Format of the log file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `time="…" level=error msg="…"`
    #[default]
    Text,
    /// One `{"level","msg","time"}` object a line.
    Json,
}

/// What goes to the log file; each includes the ones before it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// The final error: one line. What engines can read.
    #[default]
    Error,
    /// Degradations too.
    Warning,
    /// Steps too.
    Info,
    /// All.
    Debug,
}

/// Who makes the container's cgroup.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Not given: files, and a scope where a limit cannot be had without one.
    #[default]
    Unset,
    /// Files below `/sys/fs/cgroup`.
    Cgroupfs,
    /// A transient scope.
    Systemd,
    /// Nobody.
    Disabled,
}

/// `--userns` of zero-config runs; `inherit` counts for every verb that creates.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum UsernsMode {
    /// Not given: [`UsernsMode::Auto`], and a config.json decides for itself.
    #[default]
    Unset,
    /// Container 0 is the caller, 1..n the subordinate ids.
    Auto,
    /// The caller keeps its ids inside; the others are subordinate ids.
    KeepId,
    /// The caller has no id inside, only subordinate ids do.
    NoMap,
    /// The caller's id alone.
    Single,
    /// No user namespace is made.
    Inherit,
}

/// A verb with what was typed after it.
#[derive(Debug, Default)]
pub enum Verb {
    /// `create`
    Create(Create),
    /// `run` with a bundle.
    Run(Run),
    /// `run` without a bundle: `--rootfs DIR` or just a command.
    ZeroConfig(ZeroConfig),
    /// `plan`, and `run --dry-run`: the same as `run`, only printed.
    Plan(Box<Self>),
    /// `exec ID`
    Exec(Exec),
    /// `start ID`
    Start {
        /// The container.
        id: OsString,
    },
    /// `state ID`
    State {
        /// The container.
        id: OsString,
    },
    /// `wait ID`
    Wait {
        /// The container.
        id: OsString,
    },
    /// `kill ID [SIGNAL]`
    Kill {
        /// The container, or with `regex` a pattern of ids.
        id: OsString,
        /// As typed; TERM when absent.
        signal: Option<OsString>,
        /// `--all`: every process of the container.
        all: bool,
        /// `--regex`
        regex: bool,
    },
    /// `delete ID`
    Delete {
        /// The container, or with `regex` a pattern of ids.
        id: OsString,
        /// `--force`
        force: bool,
        /// `--regex`
        regex: bool,
    },
    /// `pause ID`
    Pause {
        /// The container.
        id: OsString,
    },
    /// `resume ID`
    Resume {
        /// The container.
        id: OsString,
    },
    /// `update ID`
    Update(Update),
    /// `events ID`
    Events(Events),
    /// `ps ID`
    Ps(Ps),
    /// `list`
    List {
        /// `--format`
        format: ListFormat,
        /// `--quiet`: ids only.
        quiet: bool,
    },
    /// `spec`
    Spec {
        /// `--bundle`: where to write config.json.
        bundle: PathBuf,
        /// `--file`: another name for it, `-` for standard output.
        file: Option<PathBuf>,
    },
    /// `completion SHELL`
    Completion {
        /// Whose script.
        shell: Shell,
    },
    /// `unshare [CMD]`
    Unshare {
        /// The program and its arguments; empty means a shell.
        command: Vec<OsString>,
    },
    /// `map ID|PATH`
    Map(Map),
    /// `doctor`
    Doctor(Remedy),
    /// `features`
    #[default]
    Features,
    /// `--help` or `--version`: text for standard output.
    Say(String),
}

/// Output of `list`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum ListFormat {
    /// Columns for people.
    #[default]
    Table,
    /// An array for programs.
    Json,
}

/// `create ID`, and what `run` shares with it.
#[derive(Debug, Default, Clone)]
pub struct Create {
    /// The container's id, as typed.
    pub id: OsString,
    /// `--bundle DIR`; `.` when absent.
    pub bundle: PathBuf,
    /// `--config FILE`, instead of the bundle's config.json.
    pub config: Option<PathBuf>,
    /// `--console-socket PATH`
    pub console_socket: Option<PathBuf>,
    /// `--pidfd-socket PATH`
    pub pidfd_socket: Option<PathBuf>,
    /// `--pid-file PATH`
    pub pid_file: Option<PathBuf>,
    /// `--preserve-fds N`: descriptors 3 to 2 + N stay open.
    pub preserve_fds: u32,
    /// `--no-pivot`
    pub no_pivot: bool,
    /// `--no-new-keyring`
    pub no_new_keyring: bool,
    /// `--root-emulation`
    pub root_emulation: Option<RootEmulation>,
}

/// When calls that change ids succeed without effect: a filter answers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootEmulation {
    /// Where the program is root, and no other id is mapped.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl From<bool> for RootEmulation {
    fn from(is_on: bool) -> Self {
        if is_on { Self::On } else { Self::Off }
    }
}

/// `run ID`
#[derive(Debug, Default, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Run {
    /// As `create`.
    pub create: Create,
    /// `--detach`
    pub detach: bool,
    /// `--keep`: leave the state after the program has ended.
    pub keep: bool,
    /// `--stats`: say what was used.
    pub stats: bool,
    /// `--cgroup=besteffort`
    pub limiting: Limiting,
    /// `--init`: `pura-init` is process 1, and runs the program.
    pub reaped: bool,
}

/// What `exec` does in a paused container.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum WhenPaused {
    /// It fails.
    #[default]
    Refuse,
    /// The process is made, and stands still until `resume`.
    Wait,
}

/// `exec ID CMD…`, or with the process in a file.
#[derive(Debug, Default, Clone)]
pub struct Exec {
    /// The container.
    pub id: OsString,
    /// `--process FILE`: an OCI process object, instead of a command and the flags that follow.
    pub process: Option<PathBuf>,
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// `--detach`
    pub detach: bool,
    /// `--pid-file PATH`
    pub pid_file: Option<PathBuf>,
    /// `--console-socket PATH`
    pub console_socket: Option<PathBuf>,
    /// `--pidfd-socket PATH`
    pub pidfd_socket: Option<PathBuf>,
    /// `--preserve-fds N`
    pub preserve_fds: u32,
    /// `--tty`
    pub tty: bool,
    /// `--user UID[:GID]`
    pub user: Option<(u32, Option<u32>)>,
    /// `--additional-gids GID`
    pub groups: Vec<u32>,
    /// `--env NAME=VALUE`
    pub env: Vec<OsString>,
    /// `--cwd DIR`
    pub cwd: Option<PathBuf>,
    /// `--cap NAME`
    pub caps: Vec<OsString>,
    /// `--no-new-privs`
    pub no_new_privs: bool,
    /// `--ignore-paused`
    pub when_paused: WhenPaused,
    /// `--apparmor PROFILE`
    pub apparmor: Option<OsString>,
    /// `--process-label LABEL`
    pub label: Option<OsString>,
    /// `--cgroup PATH`, below the container's.
    pub cgroup: Option<PathBuf>,
}

/// A shell whose command line is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// `map ID|PATH`
#[derive(Debug, Default, Clone)]
pub struct Map {
    /// A number, or the path of a file.
    pub of: OsString,
    /// `--gid`: the number is a group's.
    pub gid: bool,
    /// `--container ID`: its maps, instead of those that a new container would get.
    pub container: Option<OsString>,
}

/// What `doctor` prints.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// A line for each check.
    #[default]
    Table,
    /// `--json`
    Json,
    /// `--fix-script`: what root could do.
    Script,
    /// `--apparmor-profile`
    Profile,
}

/// `update ID`
#[derive(Debug, Default, Clone)]
pub struct Update {
    /// The container.
    pub id: OsString,
    /// `--resources FILE`: an OCI resources object, `-` for standard input; instead of the other flags.
    pub resources: Option<PathBuf>,
    /// The other flags.
    pub flags: LimitFlags,
}

/// `events ID`
#[derive(Debug, Default, Clone)]
pub struct Events {
    /// The container.
    pub id: OsString,
    /// `--stats`: once.
    pub stats: bool,
    /// `--interval TIME`
    pub interval: Duration,
}

/// `ps ID [OPTIONS]`
#[derive(Debug, Default, Clone)]
pub struct Ps {
    /// The container.
    pub id: OsString,
    /// `--format`
    pub format: ListFormat,
    /// What follows the id: options of ps(1).
    pub options: Vec<OsString>,
}
