//! argv, read with clap: which verbs and flags there are is said by the table, what they mean by `request`.

use std::ffi::{OsStr, OsString};

use clap::{
    Command,
    error::{ContextKind, ErrorKind},
};

use super::{
    Request, Verb, request,
    scan::Words,
    table::{self, GLOBALS, VERBS},
};
use crate::{
    error::{Code, Error, Result},
    nearest::nearest,
};

/// Parses a whole argv, `argv[0]` included.
pub fn parse(argv: &[OsString]) -> Result<Request> {
    let words = Words::of(argv);
    if words.ask_for_version() {
        return Ok(Request { verb: Verb::Say(version()), ..Request::default() });
    }
    let read = |flags: &dyn Fn(&table::Flag) -> bool| {
        tree(words.verb, flags).try_get_matches_from(words.head.iter().map(rewrite))
    };
    // Building a flag is dearer than reading it. For help and for errors, all of them.
    let matches = match read(&|flag| words.mention(flag)).or_else(|_| read(&|_| true)) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp) => {
            return Ok(Request { verb: Verb::Say(error.to_string()), ..Request::default() });
        }
        Err(error) => return Err(usage(&error, words.verb)),
    };
    let Some((name, own)) = matches.subcommand() else {
        return Err(Error::new(Code::Usage, "read the command line", "there is no verb").fix("pura --help"));
    };
    Ok(Request { globals: request::globals(&matches, own)?, verb: request::verb(name, own, words.tail)? })
}

/// Whether argv asks for a `run` that waits for its program: its failures have statuses of their own.
pub fn is_foreground(argv: &[OsString]) -> bool {
    Words::of(argv).wait()
}

/// go-runc writes this one with a single dash.
fn rewrite(word: &OsString) -> OsString {
    if word == "-no-subreaper" { "--no-subreaper".into() } else { word.clone() }
}

/// Builds only the verb that argv names, because the whole tree is dear, and of its flags the wanted ones. All verbs for help
/// and for suggestions.
fn tree(verb: Option<&OsStr>, is_wanted: &dyn Fn(&table::Flag) -> bool) -> Command {
    let named: Vec<_> = VERBS.iter().filter(|known| verb.is_some_and(|verb| verb == known.name)).collect();
    let verbs = if named.is_empty() { VERBS.iter().collect() } else { named };
    Command::new("pura")
        .about("A rootless, userns-first OCI container runtime")
        .after_help(
            "Try:\n  pura run -- sh -c 'id; ls /'   a command on this machine's own root, which it cannot change\n  \
             pura plan -- id                all that this would do, and nothing done\n\n\
             pura VERB --help says more. No root is needed, and no set-up.",
        )
        .args_override_self(true)
        .override_usage("pura [OPTIONS] <COMMAND>")
        .args(GLOBALS.iter().filter(|flag| is_wanted(flag)).map(table::Flag::arg))
        .arg(
            clap::Arg::new("version")
                .long("version")
                .short('v')
                .action(clap::ArgAction::SetTrue)
                .help("Print the version"),
        )
        .subcommands(verbs.into_iter().map(|known| known.command(is_wanted)))
}

/// Lines of which exactly one contains the word "version": Docker splits every such line. The commit is known only to a
/// build that was told, and Docker does without.
fn version() -> String {
    let commit = option_env!("PURA_COMMIT").map_or_else(String::new, |commit| format!("commit: {commit}\n"));
    format!("pura version {}\n{commit}spec: {}\n", env!("CARGO_PKG_VERSION"), crate::state::OCI_VERSION)
}

/// Clap's first paragraph is the cause; the rest would break the one-line rule.
fn usage(error: &clap::Error, verb: Option<&OsStr>) -> Error {
    let text = error.to_string();
    let why: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let why = why.join(" ").trim_start_matches("error: ").replace(char::is_control, "?");
    let near =
        [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg].into_iter().find_map(|kind| error.get(kind));
    let near = near.map(ToString::to_string).or_else(|| nearest_word(error, verb));
    let fix = match (misplaced(error), near) {
        (Some(flag), _) => format!("put --{flag} before the verb, as every global option"),
        (None, Some(near)) => format!("perhaps {near}"),
        (None, None) => match VERBS.iter().find(|known| verb.is_some_and(|verb| verb == known.name)) {
            Some(verb) => format!("see pura {} --help", verb.name),
            None => "see pura --help".to_owned(),
        },
    };
    Error::new(Code::Usage, "read the command line", why).fix(fix)
}

/// What was meant by a verb or an option that there is not, where clap has no idea.
fn nearest_word(error: &clap::Error, verb: Option<&OsStr>) -> Option<String> {
    if let Some(typed) = error.get(ContextKind::InvalidSubcommand) {
        return nearest(&typed.to_string(), VERBS.iter().map(|known| known.name)).map(str::to_owned);
    }
    let typed = error.get(ContextKind::InvalidArg).filter(|_| error.kind() == ErrorKind::UnknownArgument)?.to_string();
    let known =
        VERBS.iter().find(|known| verb.is_some_and(|verb| verb == known.name)).map_or(&[][..], |known| known.flags);
    let flags = known.iter().copied().flatten().chain(GLOBALS).filter(|flag| !flag.help.is_empty());
    nearest(typed.strip_prefix("--")?, flags.map(|flag| flag.long)).map(|flag| format!("--{flag}"))
}

/// A global option that clap does not know where it stands: that can only be behind the verb.
fn misplaced(error: &clap::Error) -> Option<&'static str> {
    let typed = error.get(ContextKind::InvalidArg).filter(|_| error.kind() == ErrorKind::UnknownArgument)?.to_string();
    GLOBALS.iter().map(|flag| flag.long).find(|long| typed.strip_prefix("--") == Some(*long))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{CgroupDriver, LogFormat, LogService, UsernsMode};
    use std::path::{Path, PathBuf};

    fn of(line: &str) -> Result<Request> {
        parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    fn refused(line: &str) -> String {
        of(line).unwrap_err().to_string()
    }

    #[test]
    fn only_the_named_verb_is_built() {
        let names = |verb: &str| tree(Some(OsStr::new(verb)), &|_| true).get_subcommands().count();
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
        let shared = of(conmon_rs).unwrap().globals;
        assert_eq!((shared.root.unwrap(), shared.cgroup_driver), (PathBuf::from("/b"), CgroupDriver::Systemd));
        for line in [
            "pura --root /r --log /l --log-format json kill --all c 9",
            "pura delete --force c",
            "pura --rootless=true --debug state c",
            "pura create -no-subreaper --bundle /b c",
            "pura --cgroup-manager disabled create -b /b c",
            "pura list --format=json",
            "pura spec --rootless",
            "pura update -m 1g c",
            "pura kill -s 9 c",
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
        for (line, command) in [
            ("pura run --rootfs /r ls --color", &["ls", "--color"][..]),
            ("pura run --rootfs /r -- ls --", &["ls", "--"]),
            ("pura run --rootfs /r sh -c -- -no-subreaper", &["sh", "-c", "--", "-no-subreaper"]),
            ("pura run --rootfs /r -d", &[]),
            ("pura run -w / -- ls", &["ls"]),
        ] {
            let Ok(Request { verb: Verb::ZeroConfig(zero), .. }) = of(line) else { panic!("{line}: {:?}", of(line)) };
            assert_eq!(zero.command, command, "{line}");
        }
    }

    #[test]
    fn run_takes_the_user_namespace_behind_the_verb_too() {
        let userns = |line: &str| of(line).unwrap().globals.userns;
        assert_eq!(userns("pura --userns auto run --userns=single -- ls"), UsernsMode::Single);
        assert_eq!(userns("pura --userns keep-id run -- ls --userns=single"), UsernsMode::KeepId);
        assert!(refused("pura plan --userns=maybe").contains("--userns \"maybe\" is none of"));
    }

    #[test]
    fn a_repeated_option_is_no_error_and_the_last_one_wins() {
        let line =
            "pura --root /a --debug --debug --root /b run -b /x --keep --keep -b /y --pid-file=/p --pid-file /q c";
        let Ok(Request { globals, verb: Verb::Run(run) }) = of(line) else { panic!("{:?}", of(line)) };
        assert_eq!((globals.root.unwrap(), run.create.bundle), ("/b".into(), PathBuf::from("/y")));
        assert_eq!(run.create.pid_file.unwrap(), Path::new("/q"));
    }

    #[test]
    fn a_log_is_a_file_or_a_service() {
        let service = |name: &str| Some(LogService::Journal(name.into()));
        for (typed, path, kept) in [
            ("/l", Some("/l"), None),
            ("file:/l", Some("/l"), None),
            ("file:", Some(""), None),
            ("journald:x", None, service("x")),
            ("syslog:", None, Some(LogService::Syslog("".into()))),
        ] {
            let globals = of(&format!("pura --log {typed} list")).unwrap().globals;
            assert_eq!((globals.log, globals.log_service), (path.map(PathBuf::from), kept), "{typed}");
        }
    }

    #[test]
    fn a_plan_is_of_the_run_that_would_follow() {
        for (line, id, command) in [
            ("pura plan", "plan", ""),
            ("pura plan -b /b c", "c", ""),
            ("pura run --dry-run c", "c", ""),
            ("pura plan -- ls", "", "ls"),
            ("pura run --dry-run -- ls", "", "ls"),
        ] {
            let Ok(Request { verb: Verb::Plan(of), .. }) = of(line) else { panic!("{line}: {:?}", of(line)) };
            let planned = if let Verb::Run(run) = &*of {
                (run.create.id.clone(), OsString::new())
            } else if let Verb::ZeroConfig(zero) = &*of {
                (zero.run.create.id.clone(), zero.command.join(OsStr::new(" ")))
            } else {
                panic!("{line}: {of:?}")
            };
            assert_eq!(planned, (id.into(), command.into()), "{line}");
        }
    }

    #[test]
    fn a_bundle_and_a_command_do_not_mix() {
        for (line, wanted) in [
            ("pura run", "neither the id of a bundle's container nor a command"),
            ("pura run --", "neither the id of a bundle's container nor a command"),
            ("pura run c -b /b", "\"-b\" follows the id"),
            ("pura run --rootfs /r -f /c ls", "--config is for a bundle"),
            ("pura run --net c", "--net is for a command"),
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
            ("pura", "there is no verb; fix: pura --help"),
            ("pura --debug", "there is no verb"),
            ("pura --bogus list", "unexpected argument '--bogus' found"),
            ("pura run --bogus c", "unexpected argument '--bogus' found"),
            ("pura run --bogus -- ls", "unexpected argument '--bogus' found"),
            ("pura list\n\u{1b}[31m", "'list ?[31m'"),
            ("pura create --pid-file", "a value is required for '--pid-file <PATH>'"),
            ("pura run --pidfile /p c", "unexpected argument '--pidfile' found; fix: perhaps --pid-file"),
            ("pura state", "not provided: <ID>; fix: see pura state --help"),
            ("pura --bogus-option", "fix: see pura --help"),
            ("pura state a b", "unexpected argument 'b'"),
            ("pura exce c", "unrecognized subcommand 'exce'; fix: perhaps exec"),
            ("pura run --nmae c -- ls", "fix: perhaps --name"),
            ("pura kill --al c", "fix: perhaps --all"),
            ("pura run --pids-limit -- ls", "invalid value '--' for '--pids-limit <N>': a value is missing"),
            ("pura run -w -- -- ls", "a value is missing"),
            ("pura run --name= -- ls", "--name is empty"),
            ("pura kill -s TERM c KILL", "both --signal and \"KILL\""),
            ("pura checkpoint --help", "unrecognized subcommand 'checkpoint'"),
            ("pura list -f xml", "--format \"xml\" is none of table, json"),
            ("pura --userns=maybe list", "--userns \"maybe\" is none of auto, keep-id, nomap, single, inherit"),
            ("pura create --preserve-fds=-1 c", "--preserve-fds \"-1\" is no number"),
        ] {
            let error = refused(line);
            assert!(error.contains(wanted) && !error.contains(char::is_control), "{line}: {error}");
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
        let Verb::Say(run) = of("pura run --help").unwrap().verb else { panic!("no help") };
        assert!(run.contains("--rootfs") && !run.contains("no-subreaper"), "{run}");
    }
}
