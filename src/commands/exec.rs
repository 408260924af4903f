//! `pura exec`: a further process in a container.

use std::{
    ffi::{CString, OsString},
    os::fd::{AsFd as _, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, OFlag},
    sys::stat::Mode,
};
use oci_spec::runtime::{Process, Spec};

use super::Call;
use crate::{
    agent::Notice,
    bundle,
    cgroup::{
        self,
        entrance::{Attachment, Entrance},
        freezer,
    },
    cli::{Exec, WhenPaused},
    console::{self, Console},
    container,
    error::{Code, Context as _, Error, Result, Warning},
    hooks::Hooks,
    host::{Host, Maps, Named, ids, probe},
    itself,
    launch::{self, Launch},
    plan::{
        compile::Order,
        join::{self, Container},
    },
    receivers::PidfdReceivers,
    resctrl, spec,
    state::Status,
    store::{Entry, Id, PidFile, Record, Roots},
    supervise,
    sys::{self, process::Home},
};

/// Runs the program and returns its exit status; with `--detach`, as soon as it runs.
pub(super) fn exec(call: Call<'_>, exec: &Exec) -> Result<u8> {
    let id = Id::parse(&exec.id)?;
    let entry = Roots::find(call.globals)?.open(&id, "exec in")?;
    let (record, status, init) = running(&entry, exec.when_paused)?;
    let config = bundle::recorded(&entry.config()?)?;
    let (spec, unknown) = with_process(config, exec).map_err(|error| as_typed(exec, error))?;
    call.log.warn(&unknown, false)?;
    let host = host(&spec)?;
    // For its name: what is below belongs to the container, and nothing of it is touched.
    let state = entry.root.path.join(id.as_str());
    let (attachment, is_outside) = attachment(&record, exec, call)?;
    let order = Order { scope: attachment.is_some(), ..order(&record, &state) };
    let joined = joined(&record, status);
    let plan = join::process(&spec, &host, &order, &joined, is_announced(exec, &record, call))
        .map_err(|error| as_typed(exec, error))?;
    itself::protect(&host, &joined.ids, || attachment.iter().for_each(Attachment::hang_up))?;
    call.log.warn(plan.warnings(), false)?;

    let console = console(&spec, exec)?;
    let receivers = PidfdReceivers::of_option(exec.pidfd_socket.as_deref())?;
    let agent = plan.notice().map(Notice::connect).transpose()?;
    // Everything with a path of the host comes first: the parent joins the container's mount namespace too.
    let pid_file = exec.pid_file.as_deref().map(|path| PidFile::prepare(path, id.as_str())).transpose()?;
    let is_born_there = attachment.is_none() && !is_outside;
    let cgroup = if is_born_there { birthplace(&record, exec.cgroup.as_deref(), call)? } else { None };
    let tasks = record.resctrl.as_ref().map(resctrl::Group::open).transpose()?;
    let watched = init.try_clone().doing(Code::Exhausted, || "watch the container".to_owned())?;
    container::prepare_process(&host)?;
    launch::take_on(&plan)?;
    hide()?;
    let launch = Launch {
        plan: &plan,
        host: &host,
        scope: attachment.as_ref().map(Entrance::Attach),
        cgroup: cgroup.as_ref().map(|cgroup| home(cgroup, &record)),
        console,
        listener: None,
        given: Some((join::INIT, init)),
        agent,
        preserved: call.preserved,
        // It has none: `with_process` sees to that.
        hooks: Hooks { spec: &spec, id: id.as_str(), bundle: &record.bundle },
    };
    let mut written = None;
    let mask = sys::signal::block().doing(Code::Bug, || "block signals".to_owned())?;
    let launched = launch.run(|container| {
        if call.globals.strict {
            call.log.warn(&container.warnings, false)?;
        }
        tasks.as_ref().map_or(Ok(()), |tasks| tasks.take_in(container.init.as_raw()))?;
        written = pid_file.map(|prepared| prepared.write(container.init.as_raw())).transpose()?;
        receivers.send(container.init)
    });
    let mut container = launched.map_err(|error| unless_stopped(error, &id, &watched))?;
    if let Some(written) = written {
        written.keep();
    }
    call.log.warn(&container.warnings, false)?;
    if exec.detach {
        let _ = sys::signal::restore(&mask);
        return Ok(0);
    }
    let ended = supervise::wait(&mut container, call.log)?;
    tell_if_stopped(ended, &watched, (&id, exec), call);
    Ok(ended)
}

/// The end of the container, which nothing else tells from a KILL of the program. Engines, which give a file, know of both.
fn tell_if_stopped(ended: u8, init: &OwnedFd, (id, exec): (&Id, &Exec), call: Call<'_>) {
    if ended == KILLED && sys::pidfd::wait(init, END_LIMIT) {
        let what = format!("container {:?} ended, and with it what exec ran, if that had begun", id.as_str());
        call.log.tell(&Warning::new(Code::NotRunnable, what).fix(format!("pura state {id}")), exec.process.is_none());
    }
}

/// The status of a program that KILL has ended.
const KILLED: u8 = 128 + 9;

/// The terminal, when it is to have one.
fn console(spec: &Spec, exec: &Exec) -> Result<Console> {
    let terminal = spec.process().as_ref().and_then(Process::terminal) == Some(true);
    Console::open(terminal, exec.console_socket.as_deref(), exec.detach.then_some("exec --detach"))
}

/// What the plan has to know of the request.
fn order<'a>(record: &'a Record, state: &'a Path) -> Order<'a> {
    Order { root_emulation: Some(record.root_emulation.into()), ..Order::new(&record.bundle, state) }
}

/// Closes this process to the container: its next child copies its memory, in which there is more of the host than that may
/// see.
fn hide() -> Result<()> {
    sys::process::prctl(sys::process::Attribute::Dumpable, 0).doing(Code::Bug, || "hide from the container".to_owned())
}

/// The container as the plan wants it.
fn joined(record: &Record, status: Status) -> Container {
    let maps = Maps { uids: ids::parse(record.uid_map.as_bytes()), gids: ids::parse(record.gid_map.as_bytes()) };
    let init = record.init.pid;
    Container::recorded((status, init), &record.user_namespace, maps, denies_groups(init))
}

/// Whether somebody is to know of the process before it runs; or under --strict of what it has to do without, which ends it.
fn is_announced(exec: &Exec, record: &Record, call: Call<'_>) -> bool {
    exec.pid_file.is_some() || exec.pidfd_socket.is_some() || record.resctrl.is_some() || call.globals.strict
}

/// The record of a container in which a process can be started, its status, and its init.
fn running(entry: &Entry, when_paused: WhenPaused) -> Result<(Record, Status, OwnedFd)> {
    let refuse = |code, why: &str| Error::new(code, format!("exec in {:?}", entry.id.as_str()), why.to_owned());
    let stopped = || stopped(&entry.id);
    let record = entry.record().ok_or_else(stopped)?;
    let status = entry.status_of(&record);
    match status {
        Status::Created | Status::Running => {}
        Status::Paused if when_paused == WhenPaused::Wait => {
            // Before anything is made, and with the caller's signals: who is tired of it interrupts it.
            freezer::wait_for_thaw(record.cgroup.as_deref().unwrap_or(Path::new("")));
            return running(entry, when_paused);
        }
        Status::Paused => {
            return Err(refuse(Code::NotRunnable, "container is paused").fix(format!("pura resume {}", entry.id)));
        }
        Status::Stopped => return Err(stopped()),
        Status::Creating => return Err(refuse(Code::WrongStatus, "container is still being created")),
    }
    let init = record.init.open().doing(Code::NotRunnable, || format!("exec in {:?}", entry.id.as_str()))?;
    let init = init.ok_or_else(stopped)?;
    Ok((record, status, init))
}

fn stopped(id: &Id) -> Error {
    Error::new(Code::NotRunnable, format!("exec in {:?}", id.as_str()), "container not running (stopped)")
}

/// What stopped an exec, unless that is the end of the container: it takes our process along, or its namespaces away. By
/// its descriptor: `/proc` may be the container's by now.
fn unless_stopped(error: Error, id: &Id, init: &OwnedFd) -> Error {
    // Its process 1 kills the others first, and ends then.
    let limit = if matches!(error.code(), Code::NotRunning | Code::Exhausted) { END_LIMIT } else { 0 };
    if sys::pidfd::wait(init, limit) { stopped(id) } else { error }
}

/// How long an exec that was killed looks whether the container ends, in milliseconds.
const END_LIMIT: u16 = 500;

/// The container's config with the process that is to run. What that leaves out is the container's: an exec is never less
/// confined than init by omission. Besides, what of the process it will not have.
fn with_process(mut config: Spec, exec: &Exec) -> Result<(Spec, Vec<Warning>)> {
    let own = config.process().clone().unwrap_or_else(|| {
        let mut process = Process::default();
        process.set_capabilities(Some(spec::no_capabilities())).set_rlimits(None);
        process
    });
    let (mut process, unknown) = match &exec.process {
        Some(file) => bundle::process(file)?,
        None => (from_flags(own.clone(), exec)?, Vec::new()),
    };
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.no_new_privileges() != Some(true) {
        process.set_no_new_privileges(own.no_new_privileges());
    }
    if process.rlimits().is_none() {
        process.set_rlimits(own.rlimits().clone());
    }
    if process.apparmor_profile().is_none() {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if process.selinux_label().is_none() {
        process.set_selinux_label(own.selinux_label().clone());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
    }
    config.set_process(Some(process)).set_hooks(None);
    spec::validate(&config)?;
    spec::require_program(&config)?;
    let useless = useless_caps(&config, exec);
    Ok((config, unknown.into_iter().chain(useless).collect()))
}

/// The container's own process, changed as the flags say.
fn from_flags(mut process: Process, exec: &Exec) -> Result<Process> {
    let refuse = |why: String| Error::new(Code::Usage, "read the command line", why);
    let text = |word: &OsString| {
        word.clone().into_string().map_err(|word| refuse(format!("{:?} is not UTF-8", word.to_string_lossy())))
    };
    let args = exec.command.iter().map(text).collect::<Result<Vec<_>>>()?;
    if args.is_empty() {
        return Err(refuse("there is neither a command nor --process".to_owned()));
    }
    process.set_args(Some(args)).set_terminal(Some(exec.tty)).set_oom_score_adj(None);
    if let Some((uid, gid)) = exec.user {
        let mut user = process.user().clone();
        user.set_uid(uid).set_additional_gids(Some(exec.groups.clone()));
        user.set_gid(gid.unwrap_or_else(|| user.gid()));
        process.set_user(user);
    } else if !exec.groups.is_empty() {
        let mut user = process.user().clone();
        user.set_additional_gids(Some(exec.groups.clone()));
        process.set_user(user);
    }
    let mut variables = process.env().clone().unwrap_or_default();
    for variable in exec.env.iter().map(text) {
        let variable = variable?;
        let name = variable.split('=').next().unwrap_or_default().to_owned() + "=";
        variables.retain(|known| !known.starts_with(&name));
        variables.push(variable);
    }
    process.set_env(Some(variables));
    if let Some(cwd) = &exec.cwd {
        process.set_cwd(cwd.clone());
    }
    if exec.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &exec.apparmor {
        process.set_apparmor_profile(Some(text(profile)?));
    }
    if let Some(label) = &exec.label {
        process.set_selinux_label(Some(text(label)?));
    }
    spec::add_capabilities(&mut process, &exec.caps)?;
    Ok(process)
}

/// `--cap` for another user than root, who keeps at exec only what is ambient.
fn useless_caps(spec: &Spec, exec: &Exec) -> Option<Warning> {
    let uid = spec.process().as_ref().map_or(0, |process| process.user().uid());
    let first = exec.caps.first().filter(|_| uid != 0 && exec.process.is_none())?;
    let what = format!("user {uid} does not get --cap {first:?}: without the ambient set exec leaves it to root alone");
    Some(Warning::new(Code::Capabilities, what).fix("--user 0, or --process FILE with capabilities.ambient"))
}

/// An error of the config that was made of the user's file or options, by their names.
fn as_typed(exec: &Exec, error: Error) -> Error {
    if let Some(file) = &exec.process {
        return error.blame(&file.display().to_string(), |_| None);
    }
    error.blame("the command line", |place| {
        let option = match place {
            "process.user.uid" | "process.user.gid" | "process.user" if exec.user.is_some() => "--user",
            "process.cwd" if exec.cwd.is_some() => "--cwd",
            "process.selinuxLabel" if exec.label.is_some() => "--process-label",
            "process.apparmorProfile" if exec.apparmor.is_some() => "--apparmor",
            _ if place.starts_with("process.user.additionalGids") && !exec.groups.is_empty() => "--additional-gids",
            _ if place.starts_with("process.env[") && !exec.env.is_empty() => "--env",
            _ if place.starts_with("process.args") => "the command",
            _ => return None,
        };
        Some(option.to_owned())
    })
}

/// What the plan of a joining process may depend on: less than that of a container.
fn host(spec: &Spec) -> Result<Host> {
    let own_userns = probe::own_userns();
    Ok(Host {
        caller: probe::caller()?,
        own_userns,
        initial_userns: probe::is_initial(own_userns),
        terminal: console::own_size(),
        itself: probe::itself(),
        named: Named { nice: probe::nice(spec), oom_score: probe::oom_score(spec), ..probe::modules(spec) },
        ..Host::default()
    })
}

/// Whether `setgroups` is denied in the user namespace of a process: `user_namespaces(7)`.
fn denies_groups(pid: i32) -> bool {
    let path = CString::new(format!("/proc/{pid}/setgroups")).unwrap_or_default();
    sys::path::read::<8>(&path).is_ok_and(|text| text.starts_with(b"deny"))
}

fn home<'a>(cgroup: &'a OwnedFd, record: &Record) -> Home<'a> {
    Home { cgroup: cgroup.as_fd(), is_used: record.cgroup_stays || record.cgroup_moved }
}

/// Where systemd has made the container's cgroup, and only that can bring a process there: the way.
/// And whether there should be one, and is not: then the process runs outside.
fn attachment(record: &Record, exec: &Exec, call: Call<'_>) -> Result<(Option<Attachment>, bool)> {
    let Some(unit) = record.unit.as_deref().filter(|_| exec.cgroup.is_none()) else { return Ok((None, false)) };
    let Some(home) = own_home(record) else { return Ok((None, false)) };
    match Attachment::needed(unit, &home) {
        Ok(attachment) => Ok((attachment, false)),
        Err(why) => {
            let what = format!("{}: systemd cannot be asked, because {why}", outside(&home));
            call.log.warn(&[Warning::new(Code::ExecCgroup, what)], false).map(|()| (None, true))
        }
    }
}

fn outside(home: &Path) -> String {
    format!("exec runs outside the container's cgroup {}, and its limits", home.display())
}

/// The cgroup to be born in: the container's own, or the one that was asked for.
fn birthplace(record: &Record, asked: Option<&Path>, call: Call<'_>) -> Result<Option<OwnedFd>> {
    match asked {
        Some(asked) => enter_below(record.cgroup.as_deref(), asked).map(Some),
        None => own_home(record).map_or(Ok(None), |home| enter(&home, call)),
    }
}

/// Where the container's processes live.
fn own_home(record: &Record) -> Option<PathBuf> {
    let own = record.cgroup.as_deref()?;
    if !cgroup::is_divided(own) {
        return Some(own.to_owned());
    }
    // Where init has gone, as systemd does in a container: nobody can live in the container's own any more.
    let home = probe::cgroup_of(record.init.pid).filter(|home| home.starts_with(own));
    Some(home.unwrap_or_else(|| own.to_owned()))
}

/// Opens a cgroup below the container's own, which was asked for: there is no other that would do.
fn enter_below(own: Option<&Path>, asked: &Path) -> Result<OwnedFd> {
    let what = || format!("use --cgroup {asked:?}");
    let refuse = |why: &str| Error::new(Code::CgroupRefused, what(), why.to_owned());
    let own = own.ok_or_else(|| refuse("the container has no cgroup of its own"))?;
    if asked.components().any(|part| part == Component::ParentDir) {
        return Err(refuse("it contains \"..\""));
    }
    let directory = own.join(asked.strip_prefix("/").unwrap_or(asked));
    let opened = open_cgroup(&directory).doing(Code::CgroupRefused, what)?;
    if cgroup::is_divided(&directory) {
        return Err(refuse("it gives controllers on, and so can hold no processes"));
    }
    if cgroup::may_enter(&directory) { Ok(opened) } else { Err(refuse("you may not move processes there")) }
}

fn open_cgroup(directory: &Path) -> nix::Result<OwnedFd> {
    sys::path::open_at(AT_FDCWD, directory, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens the container's cgroup, to be born in it. Where that is refused, the process runs outside of its limits.
fn enter(directory: &Path, call: Call<'_>) -> Result<Option<OwnedFd>> {
    if let Ok(cgroup) = open_cgroup(directory)
        && cgroup::may_enter(directory)
    {
        return Ok(Some(cgroup));
    }
    call.log.warn(&[Warning::new(Code::ExecCgroup, outside(directory))], false)?;
    Ok(None)
}
