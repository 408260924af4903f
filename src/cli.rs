//! Command line: argv becomes a [`Request`], which is what was typed and nothing more. No file is touched here.

mod request;
pub mod table;

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Command,
    error::{ContextKind, ErrorKind},
};

use crate::error::{Code, Error, Result};
use table::{GLOBALS, VERBS};

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
    /// Files below `/sys/fs/cgroup`.
    #[default]
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
    /// `--pid-file PATH`
    pub pid_file: Option<PathBuf>,
    /// `--preserve-fds N`: descriptors 3 to 2 + N stay open.
    pub preserve_fds: u32,
    /// `--no-pivot`
    pub no_pivot: bool,
    /// `--no-new-keyring`
    pub no_new_keyring: bool,
}

/// `run ID`
#[derive(Debug, Default, Clone)]
pub struct Run {
    /// As `create`.
    pub create: Create,
    /// `--detach`
    pub detach: bool,
    /// `--keep`: leave the state after the program has ended.
    pub keep: bool,
}

/// `run [--rootfs DIR] -- CMD…`: no bundle, safe defaults.
#[derive(Debug, Default, Clone)]
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
    /// `-v SRC:DST[:OPTIONS]`
    pub volumes: Vec<OsString>,
    /// `--hostname NAME`
    pub hostname: Option<OsString>,
    /// `--read-only`: no overlay, and a read-only root.
    pub read_only: bool,
    /// `--net`: the caller's network.
    pub net: bool,
}

/// Parses a whole argv, `argv[0]` included.
pub fn parse(argv: &[OsString]) -> Result<Request> {
    let (before, verb) = split(argv);
    if before.iter().any(|word| word == "--version" || word == "-v") {
        return Ok(Request { verb: Verb::Say(version()), ..Request::default() });
    }
    let (words, command) = words(argv, verb);
    let matches = match tree(verb.and_then(|at| argv.get(at))).try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp) => {
            return Ok(Request { verb: Verb::Say(error.to_string()), ..Request::default() });
        }
        Err(error) => return Err(usage(&error)),
    };
    let mut globals = request::globals(&matches)?;
    let sorted = match matches.subcommand() {
        Some((name, matches)) => {
            if matches!(name, "run" | "plan")
                && let Some(mode) = request::userns(matches)?
            {
                globals.userns = mode;
            }
            request::verb(name, matches, command)?
        }
        None => return Err(Error::new(Code::Usage, "read the command line", "there is no verb").fix("pura --help")),
    };
    Ok(Request { globals, verb: sorted })
}

/// Whether argv asks for a foreground `run`: its failures have statuses of their own.
pub fn is_foreground(argv: &[OsString]) -> bool {
    split(argv).1.and_then(|at| argv.get(at)).is_some_and(|verb| verb == "run")
}

/// The words before the verb, and where the verb is: global flags with values have to be known for that.
fn split(argv: &[OsString]) -> (&[OsString], Option<usize>) {
    let mut at = 1;
    while let Some(word) = argv.get(at) {
        let text = word.to_string_lossy();
        if !text.starts_with('-') {
            return (argv.get(1..at).unwrap_or_default(), Some(at));
        }
        let takes = GLOBALS.iter().any(|flag| flag.takes_word() && text.strip_prefix("--") == Some(flag.long));
        at += if takes { 2 } else { 1 };
    }
    (argv.get(1..).unwrap_or_default(), None)
}

/// The words for clap, and those after `--`, which are a command and nobody else's to read.
fn words(argv: &[OsString], verb: Option<usize>) -> (Vec<OsString>, Option<Vec<OsString>>) {
    // go-runc writes this one with a single dash.
    let rewrite =
        |word: &OsString| if word == "-no-subreaper" { OsString::from("--no-subreaper") } else { word.clone() };
    let runs = verb.and_then(|at| argv.get(at)).is_some_and(|verb| verb == "run" || verb == "plan");
    let dashes = verb
        .filter(|_| runs)
        .and_then(|at| argv.iter().skip(at).position(|word| word == "--").map(|offset| at + offset));
    match dashes {
        Some(at) => (argv.iter().take(at).map(rewrite).collect(), Some(argv.iter().skip(at + 1).cloned().collect())),
        None => (argv.iter().map(rewrite).collect(), None),
    }
}

/// Builds only the verb that argv names, because the whole tree is dear. All of it for help and for suggestions.
fn tree(verb: Option<&OsString>) -> Command {
    let named: Vec<_> = VERBS.iter().filter(|known| verb.is_some_and(|verb| verb == known.name)).collect();
    let verbs = if named.is_empty() { VERBS.iter().collect() } else { named };
    Command::new("pura")
        .about("A rootless, userns-first OCI container runtime")
        .after_help("Try: pura run -- sh -c 'id; ls /'")
        .args_override_self(true)
        .subcommand_required(true)
        .args(GLOBALS.iter().map(table::Flag::arg))
        .arg(
            clap::Arg::new("version")
                .long("version")
                .short('v')
                .action(clap::ArgAction::SetTrue)
                .help("Print the version"),
        )
        .subcommands(verbs.into_iter().map(table::Verb::command))
}

/// Three lines, of which exactly one contains the word "version": Docker splits every such line.
fn version() -> String {
    let commit = option_env!("PURA_COMMIT").unwrap_or("unknown");
    format!("pura version {}\ncommit: {commit}\nspec: {}\n", env!("CARGO_PKG_VERSION"), crate::state::OCI_VERSION)
}

/// Clap's first paragraph is the cause; the rest would break the one-line rule.
fn usage(error: &clap::Error) -> Error {
    let text = error.to_string();
    let why: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let why = why.join(" ").trim_start_matches("error: ").to_owned();
    let near =
        [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg].into_iter().find_map(|kind| error.get(kind));
    let fix = near.map_or_else(|| "see pura --help".to_owned(), |near| format!("perhaps {near}"));
    Error::new(Code::Usage, "read the command line", why).fix(fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn of(line: &str) -> Result<Request> {
        parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    fn refused(line: &str) -> String {
        of(line).unwrap_err().to_string()
    }

    #[test]
    fn only_the_named_verb_is_built() {
        let names = |verb: &str| tree(Some(&OsString::from(verb))).get_subcommands().count();
        assert_eq!((names("run"), names("bogus")), (1, VERBS.len()));
    }

    #[test]
    fn the_calls_of_engines_are_understood() {
        let conmon =
            "pura --log-format=json --log /l create --bundle /b --pid-file /p --preserve-fds 1 --no-new-keyring abc";
        let Request { globals, verb: Verb::Create(create) } = of(conmon).unwrap() else { panic!("no create") };
        assert_eq!((globals.log_format, create.preserve_fds, create.no_new_keyring), (LogFormat::Json, 1, true));
        assert_eq!((create.id, create.bundle.as_path()), ("abc".into(), Path::new("/b")));
        let conmon_rs = "pura --root=/a --systemd-cgroup --root=/b --systemd-cgroup create --bundle /b --pid-file /p c";
        let Request { globals, .. } = of(conmon_rs).unwrap();
        assert_eq!((globals.root.unwrap(), globals.cgroup_driver), (PathBuf::from("/b"), CgroupDriver::Systemd));
        for line in [
            "pura --root /r --log /l --log-format json kill --all c 9",
            "pura delete --force c",
            "pura --rootless=true --debug state c",
            "pura create -no-subreaper --bundle /b c",
            "pura --cgroup-manager disabled create -b /b c",
            "pura list --format=json",
        ] {
            assert!(of(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn everything_after_two_dashes_is_the_command() {
        let Verb::ZeroConfig(run) = of("pura run -e A=b -e C=d -- ls --color -e --").unwrap().verb else {
            panic!("not run")
        };
        assert_eq!(run.command, ["ls", "--color", "-e", "--"]);
        assert_eq!(run.env, ["A=b", "C=d"]);
        let Verb::ZeroConfig(run) = of("pura run --rootfs /r ls --color").unwrap().verb else { panic!("not run") };
        assert_eq!((run.rootfs.unwrap(), run.command), (PathBuf::from("/r"), vec!["ls".into(), "--color".into()]));
    }

    #[test]
    fn a_bundle_and_a_command_do_not_mix() {
        for (line, wanted) in [
            ("pura run", "neither the id of a bundle's container nor a command"),
            ("pura run c ls", "\"ls\" follows the id"),
            ("pura run c -- ls", "both an id and a command"),
            ("pura run -e A=b c", "--env is for a command"),
            ("pura run -b /b -- ls", "--bundle is for a bundle"),
        ] {
            let error = refused(line);
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }

    #[test]
    fn a_wrong_word_is_named_with_the_nearest_right_one_on_one_line() {
        for (line, wanted) in [
            ("pura rum c", "unrecognized subcommand 'rum'; fix: perhaps run"),
            ("pura run --pidfile /p c", "unexpected argument '--pidfile' found; fix: perhaps --pid-file"),
            ("pura state", "not provided: <ID>"),
            ("pura state a b", "unexpected argument 'b'"),
            ("pura checkpoint --help", "unrecognized subcommand 'checkpoint'"),
            ("pura list -f xml", "--format \"xml\" is none of table, json"),
            ("pura --userns=maybe list", "--userns \"maybe\" is none of auto, keep-id, single, inherit"),
            ("pura create --preserve-fds=-1 c", "--preserve-fds \"-1\" is no number"),
        ] {
            let error = refused(line);
            assert!(error.contains(wanted) && !error.contains('\n'), "{line}: {error}");
        }
    }

    #[test]
    fn exactly_one_line_of_the_version_says_version() {
        let Verb::Say(text) = of("pura --root /x --version").unwrap().verb else { panic!("no version") };
        assert!(text.starts_with("pura version "));
        assert_eq!(text.lines().filter(|line| line.contains("version")).count(), 1);
    }

    #[test]
    fn help_lists_every_verb() {
        let Verb::Say(text) = of("pura --help").unwrap().verb else { panic!("no help") };
        assert!(VERBS.iter().all(|verb| text.contains(verb.about)), "{text}");
        let Verb::Say(text) = of("pura run --help").unwrap().verb else { panic!("no help") };
        assert!(text.contains("--rootfs") && !text.contains("no-subreaper"), "{text}");
    }
}
