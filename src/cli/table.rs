//! The one definition of every verb and flag; the parser and the help read it.

use std::ffi::OsString;

use clap::{
    Arg, ArgAction, Command,
    builder::{OsStringValueParser, TypedValueParser as _},
    value_parser,
};

/// A verb of the command line.
#[derive(Debug)]
pub struct Verb {
    /// First operand.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// More, for `--help`.
    pub details: &'static str,
    /// Its flags.
    pub flags: &'static [&'static [Flag]],
    /// Its operands.
    pub operands: &'static [Operand],
}

/// A flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// `--long`
    pub long: &'static str,
    /// `-s`
    pub short: Option<char>,
    /// Whether and how it takes a value.
    pub value: Value,
    /// One line of help; empty for what is accepted without effect, which help does not show.
    pub help: &'static str,
}

/// What follows a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    None,
    /// A value of this name; the last one counts.
    One(&'static str),
    /// A value of this name; all count.
    Many(&'static str),
    /// A value, but only after `=`.
    Optional(&'static str),
}

/// An operand.
#[derive(Debug, Clone, Copy)]
pub struct Operand {
    /// Its name in help.
    pub name: &'static str,
    /// Whether it has to be there.
    pub required: bool,
    /// Whether it is all words that follow, as they are: the parser ends here.
    pub rest: bool,
    /// One line of help.
    pub help: &'static str,
}

const fn flag(long: &'static str, short: Option<char>, value: Value, help: &'static str) -> Flag {
    Flag { long, short, value, help }
}

const fn operand(name: &'static str, required: bool, help: &'static str) -> Operand {
    Operand { name, required, rest: false, help }
}

const ID: Operand = operand("ID", true, "The container");

/// Accepted before every verb.
pub const GLOBALS: &[Flag] = &[
    flag("root", None, Value::One("DIR"), "Where the state of containers is kept"),
    flag("log", None, Value::One("DEST"), "Append errors to a file as well, or journald:NAME, or syslog:NAME"),
    flag("log-format", None, Value::One("FORMAT"), "text or json"),
    flag("log-level", None, Value::One("LEVEL"), "error, warning, info or debug"),
    flag("debug", None, Value::None, "The same as --log-level debug"),
    flag("systemd-cgroup", Some('s'), Value::None, "The same as --cgroup-manager systemd"),
    flag(
        "cgroup-manager",
        None,
        Value::One("DRIVER"),
        "cgroupfs; systemd, which makes a scope of its own; or disabled, for no cgroup",
    ),
    flag("userns", None, Value::One("MODE"), "auto, keep-id, nomap, single or inherit [env: PURA_USERNS]"),
    flag("strict", None, Value::None, "Make every degradation an error [env: PURA_STRICT=1]"),
    flag("rootless", None, Value::Optional("BOOL"), ""),
];

const CREATE: &[Flag] = &[
    flag("bundle", Some('b'), Value::One("DIR"), "Directory with config.json [default: .]"),
    flag("config", Some('f'), Value::One("FILE"), "Another file than the bundle's config.json"),
    flag("console-socket", None, Value::One("PATH"), "Unix socket that receives the terminal"),
    flag("pidfd-socket", None, Value::One("PATH"), "Unix socket that receives a pidfd of process 1"),
    flag("pid-file", None, Value::One("PATH"), "Write the id of process 1 to a file"),
    flag("preserve-fds", None, Value::One("N"), "Keep descriptors 3 to 2+N open for the program"),
    flag("no-pivot", None, Value::None, "Enter the root without pivot_root"),
    flag("no-new-keyring", None, Value::None, "Keep the caller's session keyring"),
    flag("root-emulation", None, Value::One("MODE"), "auto, on or off: let chown and setuid succeed without effect"),
    flag("no-subreaper", None, Value::None, ""),
];

const USERNS: &[Flag] =
    &[flag("userns", None, Value::One("MODE"), "As before the verb: auto, keep-id, nomap, single or inherit")];

const RUN: &[Flag] = &[
    flag(
        "detach",
        Some('d'),
        Value::None,
        "Return as soon as the program runs; a command's container is named on stdout",
    ),
    flag("keep", None, Value::None, "Keep the state after the program has ended"),
    flag("dry-run", None, Value::None, "Print the plan and create nothing"),
    flag("init", None, Value::None, "Let pura-init be process 1: it passes signals on and reaps what is orphaned"),
    flag("stats", None, Value::None, "At the end say on standard error what was used, from the making on"),
    flag("cgroup", None, Value::One("MODE"), "besteffort: a limit that cannot be had here is a warning"),
];

/// Flags of the form of `run` that has no bundle.
pub const ZERO_CONFIG: &[Flag] = &[
    flag("rootfs", None, Value::One("DIR"), "Root filesystem, instead of a bundle"),
    flag("name", None, Value::One("ID"), "The container's id, instead of one made up"),
    flag("env", Some('e'), Value::Many("NAME[=VALUE]"), "Set a variable, or pass the caller's"),
    flag("workdir", Some('w'), Value::One("DIR"), "Working directory, made where it is missing"),
    flag("user", Some('u'), Value::One("UID[:GID]"), "Run as another user"),
    flag("keep-groups", None, Value::None, "Keep the caller's groups, which have no names inside"),
    flag("volume", Some('v'), Value::Many("SRC:DST[:ro]"), "Bind a file or directory of the host"),
    flag("hostname", None, Value::One("NAME"), "Host name inside"),
    flag("read-only", None, Value::None, "Make the root read-only, without a throw-away layer"),
    flag("nested", None, Value::None, "Let containers be made inside: namespaces and mounts pass the seccomp profile"),
    flag("net", None, Value::None, "Use the caller's network"),
    flag("proc", None, Value::One("MODE"), "bind: show the caller's /proc where a new one is refused"),
    flag("tty", Some('t'), Value::None, "Give the program a terminal of its own"),
    flag("interactive", Some('i'), Value::None, "Keep standard input open, which it always is"),
    flag("memory", Some('m'), Value::One("SIZE"), "Memory at most, such as 512m"),
    flag("cpus", None, Value::One("N"), "Processors at most, such as 1.5"),
    flag("pids-limit", None, Value::One("N"), "Processes and threads at most"),
    flag("pids", None, Value::One("N"), ""),
    flag("cpuset-cpus", None, Value::One("LIST"), "The processors to run on, such as 0-2"),
    flag("io-weight", None, Value::One("N"), "Share of disk bandwidth, 1 to 10000; others have 100"),
];

/// Flags of `run` and `update` that are limits.
pub const LIMITS: &[&str] = &["memory", "cpus", "pids", "pids-limit", "cpuset-cpus", "io-weight"];

/// Flags of `update`, besides the file; those without help are for cgroup v1 or Intel RDT.
pub const UPDATE: &[Flag] = &[
    flag("memory", Some('m'), Value::One("SIZE"), "Memory at most, such as 512m; -1 for no limit"),
    flag("memory-reservation", None, Value::One("SIZE"), "Memory that is not taken away"),
    flag("memory-swap", None, Value::One("SIZE"), "Memory and swap together at most"),
    flag("cpu-period", None, Value::One("MICROSECONDS"), "Length of a period"),
    flag("cpu-quota", None, Value::One("MICROSECONDS"), "Processor time of a period"),
    flag("cpu-burst", None, Value::One("MICROSECONDS"), "What may be saved for later periods"),
    flag("cpu-share", None, Value::One("SHARES"), "Share of processor time; others have 1024"),
    flag("cpu-idle", None, Value::One("0|1"), "Run only when nothing else does"),
    flag("cpuset-cpus", None, Value::One("LIST"), "The processors to run on"),
    flag("cpuset-mems", None, Value::One("LIST"), "The memory nodes to use"),
    flag("pids-limit", None, Value::One("N"), "Processes and threads at most"),
    flag("blkio-weight", None, Value::One("WEIGHT"), "Share of disk bandwidth, 10 to 1000"),
    flag("cpu-rt-period", None, Value::One("X"), ""),
    flag("cpu-rt-runtime", None, Value::One("X"), ""),
    flag("kernel-memory", None, Value::One("X"), ""),
    flag("kernel-memory-tcp", None, Value::One("X"), ""),
    flag("l3-cache-schema", None, Value::One("X"), ""),
    flag("mem-bw-schema", None, Value::One("X"), ""),
];

/// Every verb, in the order of the manual.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "run",
        about: "Run a program in a new container and wait for it",
        details: "pura run -- CMD...                runs a command on the host's own root, which it cannot change\n\
                  pura run --rootfs DIR -- CMD...   runs a command on another root\n\
                  pura run -b BUNDLE ID             runs an OCI bundle",
        flags: &[RUN, USERNS, CREATE, ZERO_CONFIG],
        operands: &[Operand {
            name: "WORDS",
            required: false,
            rest: true,
            help: "The id of a bundle's container, or with --rootfs or after -- the command",
        }],
    },
    Verb {
        name: "create",
        about: "Create a container that waits for start",
        details: "Init then waits, with everything but the program in place: pura start ID runs it.\n\
                  By hand, pura run is shorter.",
        flags: &[CREATE],
        operands: &[ID],
    },
    Verb {
        name: "exec",
        about: "Run a further program in a container",
        details: "pura exec ID CMD...             runs it as the container's own user, with its environment\n\
                  pura exec --process FILE ID     runs what the file says, as engines do\n\n\
                  Returns the program's exit status. What is left out is the container's own; its user namespace always is.",
        flags: &[&[
            flag("process", Some('p'), Value::One("FILE"), "The process, as an object of OCI"),
            flag("detach", Some('d'), Value::None, "Return as soon as the program runs"),
            flag("pid-file", None, Value::One("PATH"), "Write the id of the process to a file"),
            flag("console-socket", None, Value::One("PATH"), "Unix socket that receives the terminal"),
            flag("pidfd-socket", None, Value::One("PATH"), "Unix socket that receives a pidfd of the process"),
            flag("preserve-fds", None, Value::One("N"), "Keep descriptors 3 to 2+N open for the program"),
            flag("tty", Some('t'), Value::None, "Give it a terminal"),
            flag("user", Some('u'), Value::One("UID[:GID]"), "Run as another user"),
            flag("additional-gids", Some('g'), Value::Many("GID"), "A supplementary group"),
            flag("env", Some('e'), Value::Many("NAME=VALUE"), "Set a variable"),
            flag("cwd", None, Value::One("DIR"), "Working directory"),
            flag("cap", Some('c'), Value::Many("NAME"), "Add a capability"),
            flag("no-new-privs", None, Value::None, "Exec grants no privilege"),
            flag("ignore-paused", None, Value::None, "In a paused container, wait for resume"),
            flag("apparmor", None, Value::One("PROFILE"), "Another AppArmor profile"),
            flag("process-label", None, Value::One("LABEL"), "Another SELinux label"),
            flag("cgroup", None, Value::One("PATH"), "A cgroup below the container's; / is that itself, or an error"),
        ]],
        operands: &[Operand { name: "WORDS", required: false, rest: true, help: "The container, and the command" }],
    },
    Verb {
        name: "start",
        about: "Start the program of a created container",
        details: "Returns when the program runs, or with the reason why it does not.",
        flags: &[],
        operands: &[ID],
    },
    Verb {
        name: "state",
        about: "Print the state of a container as JSON",
        details: "Its status is creating, created, running, paused or stopped.",
        flags: &[],
        operands: &[ID],
    },
    Verb {
        name: "wait",
        about: "Wait until a container has stopped",
        details: "Prints the exit status of its program, or unknown when nobody can tell any more.",
        flags: &[],
        operands: &[ID],
    },
    Verb {
        name: "kill",
        about: "Send a signal to a container",
        details: "pura kill ID             asks process 1 to end\n\
                  pura kill --all ID KILL  ends every process",
        flags: &[&[
            flag("all", Some('a'), Value::None, "To every process of the container"),
            flag("signal", Some('s'), Value::One("SIGNAL"), "The same as the second operand"),
            flag("regex", Some('r'), Value::None, "ID is a pattern of ids"),
        ]],
        operands: &[ID, operand("SIGNAL", false, "A number, or a name such as TERM or SIGRTMIN+3 [default: TERM]")],
    },
    Verb {
        name: "delete",
        about: "Remove a container that is stopped or was never started",
        details: "A running one, or one whose creation was cut short, needs --force: success then says that nothing of it\n\
                  is left.",
        flags: &[&[
            flag("force", Some('f'), Value::None, "End it first; an unknown id is no error"),
            flag("regex", Some('r'), Value::None, "ID is a pattern of ids"),
        ]],
        operands: &[ID],
    },
    Verb {
        name: "pause",
        about: "Stop all processes of a container, until resume",
        details: "By the freezer of its cgroup: the processes do not notice. Returns when all stand still.",
        flags: &[],
        operands: &[ID],
    },
    Verb { name: "resume", about: "Let a paused container go on", details: "", flags: &[], operands: &[ID] },
    Verb {
        name: "update",
        about: "Change the limits of a container",
        details: "All of them are changed, or on an error none.",
        flags: &[
            &[flag("resources", Some('r'), Value::One("FILE"), "An OCI resources object; - is standard input")],
            UPDATE,
        ],
        operands: &[ID],
    },
    Verb {
        name: "events",
        about: "Print what a container uses, and when its memory runs out",
        details: "One JSON object a line, until the container stops.",
        flags: &[&[
            flag("stats", None, Value::None, "Print what it uses now, and end"),
            flag("interval", None, Value::One("TIME"), "How often, such as 500ms [default: 5s]"),
        ]],
        operands: &[ID],
    },
    Verb {
        name: "ps",
        about: "List the processes of a container",
        details: "pura ps ID [OPTIONS of ps]     [default: -ef]",
        flags: &[&[flag("format", Some('f'), Value::One("FORMAT"), "table or json")]],
        operands: &[Operand {
            name: "WORDS",
            required: false,
            rest: true,
            help: "The container, and options of ps(1)",
        }],
    },
    Verb {
        name: "list",
        about: "List the caller's containers",
        details: "Entries that are damaged are left out; pura delete --force ID removes them.",
        flags: &[&[
            flag("format", Some('f'), Value::One("FORMAT"), "table or json"),
            flag("quiet", Some('q'), Value::None, "Ids only"),
        ]],
        operands: &[],
    },
    Verb {
        name: "plan",
        about: "Print what run would do, step by step",
        details: "pura plan -- CMD...     plans a command\n\
                  pura plan [-b BUNDLE]   plans an OCI bundle",
        flags: &[RUN, USERNS, CREATE, ZERO_CONFIG],
        operands: &[Operand {
            name: "WORDS",
            required: false,
            rest: true,
            help: "As for run; without any, the bundle is planned",
        }],
    },
    Verb {
        name: "spec",
        about: "Write a config.json that runs for the caller",
        details: "Then: a root filesystem in the directory rootfs beside it, the program in process.args, and pura run NAME.",
        flags: &[&[
            flag("bundle", Some('b'), Value::One("DIR"), "Where to write it [default: .]"),
            flag("file", Some('f'), Value::One("FILE"), "Another name for it; - is standard output"),
            flag("rootless", None, Value::None, "The only form there is"),
        ]],
        operands: &[],
    },
    Verb {
        name: "unshare",
        about: "Run a shell or a command in the user namespace that a new container gets",
        details: "pura unshare                       a shell, in which files of subordinate ids are yours\n\
                  pura unshare -- rm -r tree         the same for one command, whose exit status it returns",
        flags: &[USERNS],
        operands: &[Operand { name: "WORDS", required: false, rest: true, help: "The command [default: $SHELL]" }],
    },
    Verb {
        name: "map",
        about: "Print what an id of a container is outside, and back",
        details: "pura map 1000                 user 1000, in both directions\n\
                  pura map ./file               owner and group of a file, as a container sees them",
        flags: &[
            &[
                flag("gid", Some('g'), Value::None, "The number is a group's"),
                flag("container", None, Value::One("ID"), "A container's maps, instead of those that a new one gets"),
            ],
            USERNS,
        ],
        operands: &[operand("ID|PATH", true, "A number, or a file; ./7 for a file of such a name")],
    },
    Verb {
        name: "doctor",
        about: "Say what on this machine stands in the way, and what to do",
        details: "Tries what containers need, in a child that is thrown away; changes nothing.\n\
                  Exit status: 0 all is well, 1 something is weaker than it could be, 2 containers cannot run.",
        flags: &[
            &[
                flag("json", None, Value::None, "Print findings and facts as JSON"),
                flag("fix-script", None, Value::None, "Print what root could do, as a script; run nothing"),
                flag("apparmor-profile", None, Value::None, "Print an AppArmor profile for this binary's path"),
            ],
            USERNS,
        ],
        operands: &[],
    },
    Verb {
        name: "completion",
        about: "Print a script that completes the command line",
        details: "bash: source <(pura completion bash)    in ~/.bashrc\n\
                  zsh:  source <(pura completion zsh)     in ~/.zshrc\n\
                  fish: pura completion fish | source     in ~/.config/fish/config.fish",
        flags: &[],
        operands: &[operand("SHELL", true, "bash, zsh or fish")],
    },
    Verb { name: "features", about: "Print what this build supports as JSON", details: "", flags: &[], operands: &[] },
];

impl Verb {
    /// Whether its last operand is all words that follow.
    pub fn has_tail(&self) -> bool {
        self.operands.iter().any(|operand| operand.rest)
    }

    /// This verb as clap wants it, with those of its flags that are wanted.
    pub fn command(&self, is_wanted: &dyn Fn(&Flag) -> bool) -> Command {
        let mut command = Command::new(self.name).about(self.about).args_override_self(true);
        if !self.details.is_empty() {
            command = command.after_help(self.details);
        }
        let flags = self.flags.iter().flat_map(|group| group.iter()).filter(|flag| is_wanted(flag)).map(Flag::arg);
        command.args(flags).args(self.operands.iter().map(Operand::arg))
    }
}

impl Flag {
    /// This flag as clap wants it.
    pub fn arg(&self) -> Arg {
        let arg = Arg::new(self.long).long(self.long).help(self.help).hide(self.help.is_empty());
        let arg = if let Some(short) = self.short { arg.short(short) } else { arg };
        // The word behind is the value, whatever it looks like: that is where the verb is looked for, too.
        let typed = || {
            OsStringValueParser::new().try_map(|word| if word == "--" { Err("a value is missing") } else { Ok(word) })
        };
        let valued = |plain: Arg, name| plain.value_name(name).value_parser(typed()).allow_hyphen_values(true);
        match self.value {
            Value::None => arg.action(ArgAction::SetTrue),
            Value::One(name) => valued(arg, name).action(ArgAction::Set),
            Value::Many(name) => valued(arg, name).action(ArgAction::Append),
            Value::Optional(name) => valued(arg, name).num_args(0..=1).require_equals(true).action(ArgAction::Set),
        }
    }

    /// Whether a value may follow as a word of its own.
    pub fn takes_word(&self) -> bool {
        matches!(self.value, Value::One(_) | Value::Many(_))
    }
}

impl Operand {
    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name).required(self.required).value_parser(value_parser!(OsString)).help(self.help);
        if self.rest { arg.num_args(0..) } else { arg }
    }
}
