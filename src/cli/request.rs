//! What clap has sorted, as a request.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::ArgMatches;

use super::{
    CgroupDriver, Create, Events, Exec, Globals, LimitFlags, Limiting, ListFormat, LogFormat, LogLevel, LogService,
    Map, Proc, Ps, Remedy, RootEmulation, Run, Shell, Update, UsernsMode, Verb, WhenPaused, ZeroConfig, limits,
    table::{self, Value},
};
use crate::error::{Code, Error, Result};

const USERNS: [(&str, UsernsMode); 5] = [
    ("auto", UsernsMode::Auto),
    ("keep-id", UsernsMode::KeepId),
    ("nomap", UsernsMode::NoMap),
    ("single", UsernsMode::Single),
    ("inherit", UsernsMode::Inherit),
];

const EMULATION: [(&str, RootEmulation); 3] =
    [("auto", RootEmulation::Auto), ("on", RootEmulation::On), ("off", RootEmulation::Off)];

/// What stands before the verb, and the user namespace of a `run` behind it; flags win over the environment.
pub(super) fn globals(matches: &ArgMatches, own: &ArgMatches) -> Result<Globals> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let behind = own.try_get_one::<OsString>("userns").ok().flatten().cloned();
    let userns = match behind.or_else(|| value(matches, "userns")) {
        Some(typed) => choice("--userns", &typed, &USERNS)?,
        None => {
            variable("PURA_USERNS").map_or(Ok(UsernsMode::Unset), |typed| choice("PURA_USERNS", &typed, &USERNS))?
        }
    };
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let drivers = [
        ("cgroupfs", CgroupDriver::Cgroupfs),
        ("systemd", CgroupDriver::Systemd),
        ("disabled", CgroupDriver::Disabled),
    ];
    let driver = chosen(matches, "cgroup-manager", &drivers)?;
    let (log, log_service) = value(matches, "log").as_ref().map(log).unwrap_or_default();
    let level = if is_set(matches, "debug") { Some(LogLevel::Debug) } else { level(matches)? };
    Ok(Globals {
        root: path(matches, "root"),
        log,
        log_service,
        log_format: chosen(matches, "log-format", &formats)?.unwrap_or_default(),
        log_level: level.unwrap_or_default(),
        cgroup_driver: if is_set(matches, "systemd-cgroup") {
            CgroupDriver::Systemd
        } else {
            driver.unwrap_or_default()
        },
        userns,
        strict: is_set(matches, "strict") || variable("PURA_STRICT").is_some_and(|value| value != "0"),
    })
}

/// Engines know more levels than there are differences.
fn level(matches: &ArgMatches) -> Result<Option<LogLevel>> {
    let levels = [
        ("error", LogLevel::Error),
        ("warning", LogLevel::Warning),
        ("warn", LogLevel::Warning),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Debug),
        ("fatal", LogLevel::Error),
        ("panic", LogLevel::Error),
    ];
    chosen(matches, "log-level", &levels)
}

/// A file, or a service: the words are those of engines.
fn log(destination: &OsString) -> (Option<PathBuf>, Option<LogService>) {
    let text = destination.to_str().unwrap_or_default();
    if let Some(name) = text.strip_prefix("journald:") {
        return (None, Some(LogService::Journal(name.into())));
    }
    if let Some(name) = text.strip_prefix("syslog:") {
        return (None, Some(LogService::Syslog(name.into())));
    }
    (Some(text.strip_prefix("file:").map_or_else(|| PathBuf::from(destination), PathBuf::from)), None)
}

/// The verb with its flags and operands; `tail` is what clap has not read of a `run`.
pub(super) fn verb(name: &str, matches: &ArgMatches, tail: &[OsString]) -> Result<Verb> {
    let id = || value(matches, "ID").unwrap_or_default();
    Ok(match name {
        "run" if is_set(matches, "dry-run") => Verb::Plan(Box::new(run(matches, tail, false)?)),
        "run" => run(matches, tail, false)?,
        "plan" => Verb::Plan(Box::new(run(matches, tail, true)?)),
        "create" => Verb::Create(Create { id: id(), ..create(matches)? }),
        "exec" => Verb::Exec(exec(matches, tail)?),
        "start" => Verb::Start { id: id() },
        "state" => Verb::State { id: id() },
        "wait" => Verb::Wait { id: id() },
        "kill" => kill(matches, id())?,
        "delete" => Verb::Delete { id: id(), force: is_set(matches, "force"), regex: is_set(matches, "regex") },
        "pause" => Verb::Pause { id: id() },
        "resume" => Verb::Resume { id: id() },
        "update" => Verb::Update(update(matches, id())?),
        "events" => Verb::Events(Events {
            id: id(),
            stats: is_set(matches, "stats"),
            interval: value(matches, "interval").map_or(Ok(INTERVAL), |typed| limits::duration("interval", &typed))?,
        }),
        "ps" => Verb::Ps(ps(matches, tail)?),
        "list" => Verb::List { format: format(matches)?, quiet: is_set(matches, "quiet") },
        "spec" => {
            Verb::Spec { bundle: path(matches, "bundle").unwrap_or_else(|| ".".into()), file: path(matches, "file") }
        }
        "unshare" => Verb::Unshare { command: tail.strip_prefix(&[OsString::from("--")]).unwrap_or(tail).to_vec() },
        "map" => Verb::Map(Map {
            of: value(matches, "ID|PATH").unwrap_or_default(),
            gid: is_set(matches, "gid"),
            container: value(matches, "container"),
        }),
        "doctor" => {
            let remedies =
                [("json", Remedy::Json), ("fix-script", Remedy::Script), ("apparmor-profile", Remedy::Profile)];
            let asked: Vec<_> = remedies.into_iter().filter(|(flag, _)| is_set(matches, flag)).collect();
            if let [(one, _), (other, _), ..] = asked.as_slice() {
                let why = format!("there are both --{one} and --{other}");
                return Err(Error::new(Code::Usage, "read the command line", why));
            }
            Verb::Doctor(asked.first().map(|(_, remedy)| *remedy).unwrap_or_default())
        }
        "features" => Verb::Features,
        "completion" => {
            let shells = [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];
            Verb::Completion { shell: choice("SHELL", &value(matches, "SHELL").unwrap_or_default(), &shells)? }
        }
        other => return Err(Error::new(Code::Bug, "read the command line", format!("no code behind {other:?}"))),
    })
}

const INTERVAL: Duration = Duration::from_secs(5);

fn format(matches: &ArgMatches) -> Result<ListFormat> {
    let formats = [("table", ListFormat::Table), ("json", ListFormat::Json)];
    chosen(matches, "format", &formats).map(Option::unwrap_or_default)
}

/// `kill ID`: the signal is an operand, or as for kill(1) an option.
fn kill(matches: &ArgMatches, id: OsString) -> Result<Verb> {
    let (option, operand) = (value(matches, "signal"), value(matches, "SIGNAL"));
    if let (Some(_), Some(word)) = (&option, &operand) {
        let why = format!("there are both --signal and {word:?}");
        return Err(Error::new(Code::Usage, "read the command line", why).fix("pura kill ID SIGNAL"));
    }
    let (all, regex) = (is_set(matches, "all"), is_set(matches, "regex"));
    Ok(Verb::Kill { id, signal: option.or(operand), all, regex })
}

/// `ps ID OPTIONS`: every word after the id is for ps(1).
fn ps(matches: &ArgMatches, tail: &[OsString]) -> Result<Ps> {
    let words = tail.strip_prefix(&[OsString::from("--")]).unwrap_or(tail);
    let refused = || Error::new(Code::Usage, "read the command line", "there is no id").fix("pura ps ID");
    let (id, options) = words.split_first().ok_or_else(refused)?;
    Ok(Ps { id: id.clone(), format: format(matches)?, options: options.to_vec() })
}

/// `update ID`: a file, or flags.
fn update(matches: &ArgMatches, id: OsString) -> Result<Update> {
    let typed = |flag: &table::Flag| value(matches, flag.long).map(|value| (flag.long, value));
    let flags = LimitFlags(table::UPDATE.iter().filter_map(typed).collect());
    let resources = path(matches, "resources");
    let refused = |why: String| Err(Error::new(Code::Usage, "read the command line", why));
    match (&resources, flags.0.first()) {
        (Some(_), Some((flag, _))) => refused(format!("there are both --resources and --{flag}")),
        (None, None) => refused("there is nothing to change".to_owned()),
        _ => Ok(Update { id, resources, flags }),
    }
}

/// `exec ID CMD…`: every word after the id is the command's.
fn exec(matches: &ArgMatches, tail: &[OsString]) -> Result<Exec> {
    let words = tail.strip_prefix(&[OsString::from("--")]).unwrap_or(tail);
    let refused = |why: String| Error::new(Code::Usage, "read the command line", why).fix("pura exec ID CMD");
    let Some((id, command)) = words.split_first() else { return Err(refused("there is no id".to_owned())) };
    let command = command.strip_prefix(&[OsString::from("--")]).unwrap_or(command);
    let process = path(matches, "process");
    if let (Some(_), Some(word)) = (&process, command.first()) {
        return Err(refused(format!("there are both --process and a command, {word:?}")));
    }
    let user = value(matches, "user").map(|typed| {
        let text = typed.to_str().unwrap_or_default();
        let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
        let ids = id_number(uid).zip(gid.map_or(Some(None), |gid| id_number(gid).map(Some)));
        let why = || format!("--user {typed:?} is not UID or UID:GID, in numbers");
        ids.ok_or_else(|| refused(why()).fix("its number: pura exec ID id, or /etc/passwd of the image"))
    });
    let groups = all(matches, "additional-gids").into_iter().map(|typed| {
        let number = typed.to_str().and_then(id_number);
        number.ok_or_else(|| refused(format!("--additional-gids {typed:?} is no group id")))
    });
    Ok(Exec {
        id: id.clone(),
        process,
        command: command.to_vec(),
        detach: is_set(matches, "detach"),
        pid_file: path(matches, "pid-file"),
        console_socket: path(matches, "console-socket"),
        pidfd_socket: path(matches, "pidfd-socket"),
        preserve_fds: number(matches, "preserve-fds")?,
        tty: is_set(matches, "tty"),
        user: user.transpose()?,
        groups: groups.collect::<Result<_>>()?,
        env: all(matches, "env"),
        cwd: path(matches, "cwd"),
        caps: all(matches, "cap"),
        no_new_privs: is_set(matches, "no-new-privs"),
        when_paused: if is_set(matches, "ignore-paused") { WhenPaused::Wait } else { WhenPaused::Refuse },
        apparmor: value(matches, "apparmor"),
        label: value(matches, "process-label"),
        cgroup: path(matches, "cgroup"),
    })
}

/// An id as people write it: digits, and not the one that means none (CVE-2024-40635).
fn id_number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok().filter(|id| *id != u32::MAX) } else { None }
}

fn create(matches: &ArgMatches) -> Result<Create> {
    Ok(Create {
        id: OsString::new(),
        bundle: path(matches, "bundle").unwrap_or_else(|| ".".into()),
        config: path(matches, "config"),
        console_socket: path(matches, "console-socket"),
        pidfd_socket: path(matches, "pidfd-socket"),
        pid_file: path(matches, "pid-file"),
        preserve_fds: number(matches, "preserve-fds")?,
        no_pivot: is_set(matches, "no-pivot"),
        no_new_keyring: is_set(matches, "no-new-keyring"),
        root_emulation: chosen(matches, "root-emulation", &EMULATION)?,
    })
}

/// `run`: of a bundle, or of a command.
fn run(matches: &ArgMatches, tail: &[OsString], plans: bool) -> Result<Verb> {
    let run = Run {
        create: create(matches)?,
        detach: is_set(matches, "detach"),
        keep: is_set(matches, "keep"),
        stats: is_set(matches, "stats"),
        limiting: chosen(matches, "cgroup", &[("besteffort", Limiting::BestEffort)])?.unwrap_or_default(),
        reaped: is_set(matches, "init"),
    };
    if run.stats && run.detach {
        return refuse("--stats is said at the end, which --detach does not wait for".to_owned());
    }
    let rootfs = path(matches, "rootfs");
    let (dashed, words) = match tail {
        [dashes, words @ ..] if dashes == "--" => (true, words),
        words => (false, words),
    };
    if rootfs.is_some() || (dashed && !words.is_empty()) {
        let bundles = ["bundle", "config", "console-socket"];
        if let Some(flag) = bundles.into_iter().find(|flag| has(matches, flag)) {
            return refuse(format!("--{flag} is for a bundle, and this is a command"));
        }
        return zero_config(matches, run, rootfs, words.to_vec());
    }
    let id = match words {
        [] if !plans => return refuse("there is neither the id of a bundle's container nor a command".to_owned()),
        [] => OsString::from("plan"),
        [id] => id.clone(),
        [id, next, ..] if next == "--" => {
            return refuse(format!("there are both an id and a command: {id:?} stands before --"));
        }
        [_, extra, ..] if extra.as_encoded_bytes().starts_with(b"-") => {
            let error = Error::new(Code::Usage, "read the command line", format!("{extra:?} follows the id"));
            return Err(error.fix("options before the id: pura run -b BUNDLE ID; a command after --: pura run -- CMD"));
        }
        [_, extra, ..] => return refuse(format!("{extra:?} follows the id")),
    };
    if let Some(flag) = zero_config_flag(matches) {
        return refuse(format!("--{flag} is for a command, and this is a bundle"));
    }
    Ok(Verb::Run(Run { create: Create { id, ..run.create }, ..run }))
}

fn refuse(why: String) -> Result<Verb> {
    Err(Error::new(Code::Usage, "read the command line", why).fix("pura run -- CMD, or pura run -b BUNDLE ID"))
}

/// A flag that only the form without a bundle has, and that was given.
fn zero_config_flag(matches: &ArgMatches) -> Option<&'static str> {
    let flags = table::ZERO_CONFIG.iter().find(|flag| match flag.value {
        Value::None => is_set(matches, flag.long),
        Value::One(_) | Value::Many(_) | Value::Optional(_) => has(matches, flag.long),
    });
    flags.map(|flag| flag.long)
}

fn zero_config(matches: &ArgMatches, run: Run, rootfs: Option<PathBuf>, command: Vec<OsString>) -> Result<Verb> {
    let id = value(matches, "name");
    if id.as_ref().is_some_and(|id| id.is_empty()) {
        return refuse("--name is empty".to_owned());
    }
    let id = id.unwrap_or_default();
    Ok(Verb::ZeroConfig(ZeroConfig {
        run: Run { create: Create { id, ..run.create }, ..run },
        rootfs,
        command,
        env: all(matches, "env"),
        cwd: path(matches, "workdir"),
        user: value(matches, "user"),
        keep_groups: is_set(matches, "keep-groups"),
        volumes: all(matches, "volume"),
        hostname: value(matches, "hostname"),
        read_only: is_set(matches, "read-only"),
        nested: is_set(matches, "nested"),
        net: is_set(matches, "net"),
        proc: chosen(matches, "proc", &[("bind", Proc::Bind)])?.unwrap_or_default(),
        tty: is_set(matches, "tty"),
        limits: LimitFlags(
            table::LIMITS.iter().filter_map(|flag| value(matches, flag).map(|value| (*flag, value))).collect(),
        ),
    }))
}

/// Clap is told of no flag that was not typed: that is no error here.
fn is_set(matches: &ArgMatches, name: &str) -> bool {
    matches.try_get_one(name).ok().flatten().copied().unwrap_or(false)
}

fn has(matches: &ArgMatches, name: &str) -> bool {
    matches.try_contains_id(name).unwrap_or(false)
}

fn value(matches: &ArgMatches, name: &str) -> Option<OsString> {
    matches.try_get_one::<OsString>(name).ok().flatten().cloned()
}

fn path(matches: &ArgMatches, name: &str) -> Option<PathBuf> {
    value(matches, name).map(PathBuf::from)
}

fn all(matches: &ArgMatches, name: &str) -> Vec<OsString> {
    matches.try_get_many(name).ok().flatten().into_iter().flatten().cloned().collect()
}

/// A number without sign, blank or prefix.
fn number(matches: &ArgMatches, name: &str) -> Result<u32> {
    let Some(typed) = value(matches, name) else { return Ok(0) };
    let text = typed.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).filter(|number| *number <= MOST_DESCRIPTORS).ok_or_else(|| {
        Error::new(
            Code::Usage,
            "read the command line",
            format!("--{name} {typed:?} is no number from 0 to {MOST_DESCRIPTORS}"),
        )
    })
}

/// As many as a process may have at most: `/proc/sys/fs/nr_open` is below this everywhere.
const MOST_DESCRIPTORS: u32 = 1 << 20;

fn chosen<T: Copy>(matches: &ArgMatches, name: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
    value(matches, name).map(|typed| choice(&format!("--{name}"), &typed, choices)).transpose()
}

fn choice<T: Copy>(name: &str, typed: &OsString, choices: &[(&str, T)]) -> Result<T> {
    let found = choices.iter().find(|(word, _)| typed == word).map(|(_, choice)| *choice);
    found.ok_or_else(|| {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        Error::new(Code::Usage, "read the command line", format!("{name} {typed:?} is none of {}", words.join(", ")))
    })
}
