//! One command under ptrace, with all that it starts, until they are the program; and the fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, anyhow};
use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::WaitStatus,
    },
    unistd::Pid,
};

use super::{
    calls,
    children::{Children, News},
    op::{HOOK, PROGRAM},
};

/// How long a process may be silent before it is taken to wait.
const SILENCE: Duration = Duration::from_millis(15);

/// Calls that have their time added to the limit; an endless loop has more.
const MANY: usize = 20_000;

/// A system call: the process that makes it, and the how-manieth counted one of that process it is. The first process is
/// `0`, its children are `0.1`, `0.2`, in the order in which they are made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    pub(crate) process: String,
    pub(crate) count: u32,
}

/// What is done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SIGKILL for the process that makes the call.
    Caller,
    /// For the one that was started.
    Parent,
    /// For all.
    Tree,
    /// The call fails.
    Once(Errno),
    /// It fails, and so do all later ones of that name.
    Always(Errno),
}

/// A counted call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) point: Point,
    pub(crate) name: String,
    /// A hook makes it: no error of pura's.
    pub(crate) is_foreign: bool,
    /// What it writes to.
    pub(crate) descriptor: u64,
}

/// What has happened.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// All calls up to the fault, in the order in which they were made.
    pub(crate) calls: Vec<Call>,
    /// How the first process ended; nothing when it hung.
    pub(crate) status: Option<WaitStatus>,
    /// The call that was disturbed.
    pub(crate) struck: Option<Call>,
    /// The calls that an error was given for.
    pub(crate) refusals: u32,
}

/// A process that is followed.
#[derive(Debug, Default)]
struct Tracee {
    name: String,
    children: u32,
    count: u32,
    is_foreign: bool,
    /// What the call in which it is will be told.
    answer: Option<Errno>,
}

/// The follower.
pub(crate) struct Tracer<'a> {
    children: &'a Children,
    fault: Option<(&'a Point, Kind)>,
    root: Pid,
    tracees: BTreeMap<Pid, Tracee>,
    /// New ones, whose parent has not told of them yet.
    early: BTreeSet<Pid>,
    /// The root has become the command.
    has_begun: bool,
    has_killed_all: bool,
    always: Option<(String, Errno)>,
    /// Until when it may take: longer before the fault, because a busy machine is no fault of pura.
    end: Instant,
    limit: Duration,
    trace: Trace,
}

/// `traced COMMAND...`: becomes the command, once somebody who traces has said so.
pub(crate) fn wait_then_execute(words: &[String]) -> Error {
    let Some((program, arguments)) = words.split_first() else { return anyhow!("traced COMMAND...") };
    let mut line = String::new();
    if let Err(error) = std::io::stdin().read_line(&mut line) {
        return error.into();
    }
    Command::new(program).args(arguments).stdin(Stdio::null()).exec().into()
}

/// Runs `command`, which is `traced ...`, and whoever else is given, who is running.
pub(crate) fn trace(
    children: &Children,
    command: &mut Command,
    also: Option<i32>,
    fault: Option<(&Point, Kind)>,
    limit: Duration,
) -> Result<Trace> {
    let mut child = command.stdin(Stdio::piped()).spawn().context("start the tracee")?;
    let root = Pid::from_raw(i32::try_from(child.id())?);
    ptrace::seize(root, options()).context("seize")?;
    let mut tracer = Tracer {
        children,
        fault,
        root,
        tracees: BTreeMap::new(),
        early: BTreeSet::new(),
        has_begun: false,
        has_killed_all: false,
        always: None,
        end: Instant::now() + limit * 6,
        limit,
        trace: Trace::default(),
    };
    tracer.adopt(root, "0".to_owned());
    if let Some(also) = also.map(Pid::from_raw) {
        // Only a root may follow it; without, it runs free.
        if ptrace::seize(also, options()).and_then(|()| ptrace::interrupt(also)).is_ok() {
            tracer.adopt(also, "init".to_owned());
        }
    }
    child.stdin.take().context("stdin")?.write_all(b"\n")?;
    tracer.follow()?;
    Ok(tracer.trace)
}

fn options() -> ptrace::Options {
    ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_TRACEEXEC
        | ptrace::Options::PTRACE_O_TRACEFORK
        | ptrace::Options::PTRACE_O_TRACEVFORK
        | ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_EXITKILL
}

impl Tracer<'_> {
    fn adopt(&mut self, pid: Pid, name: String) {
        self.tracees.insert(pid, Tracee { name, ..Tracee::default() });
    }

    /// Until the root has ended, and the others too, or wait.
    fn follow(&mut self) -> Result<()> {
        loop {
            let end = self.end;
            let has_ended = self.trace.status.is_some();
            if has_ended && self.tracees.is_empty() && self.early.is_empty() {
                return Ok(());
            }
            let until = if has_ended || !self.early.is_empty() { Instant::now() + SILENCE } else { end };
            match self.children.next(until.min(end))? {
                News::Status(status) => self.take_up(status),
                News::Nobody => return Ok(()),
                News::Nothing if Instant::now() >= end => return self.give_up(),
                // Their parent died before it could tell of them.
                News::Nothing if !self.early.is_empty() => {
                    for pid in std::mem::take(&mut self.early) {
                        self.adopt(pid, "orphan".to_owned());
                        self.go_on(pid, None);
                    }
                }
                News::Nothing => return self.let_go(),
            }
        }
    }

    fn take_up(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid() else { return };
        if let WaitStatus::Exited(..) | WaitStatus::Signaled(..) = status {
            self.tracees.remove(&pid);
            self.early.remove(&pid);
            if pid == self.root {
                self.trace.status = Some(status);
            }
            return;
        }
        if self.has_killed_all {
            let _ = kill(pid, Signal::SIGKILL);
            return;
        }
        if !self.tracees.contains_key(&pid) {
            self.early.insert(pid);
            return;
        }
        match status {
            WaitStatus::PtraceSyscall(_) => self.at_call(pid),
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => self.executed(pid),
            WaitStatus::PtraceEvent(
                _,
                _,
                libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE,
            ) => self.cloned(pid),
            WaitStatus::Stopped(_, signal) => self.go_on(pid, Some(signal)),
            _ => self.go_on(pid, None),
        }
    }

    /// Lets a process run to its next call. It may have been killed meanwhile.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        let _ = if self.has_begun { ptrace::syscall(pid, signal) } else { ptrace::cont(pid, signal) };
    }

    fn executed(&mut self, pid: Pid) {
        if pid == self.root {
            self.has_begun = true;
        }
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim_end() == PROGRAM {
            self.tracees.remove(&pid);
            let _ = ptrace::detach(pid, None);
            return;
        }
        if let Some(tracee) = self.tracees.get_mut(&pid) {
            tracee.is_foreign = name.trim_end() == HOOK;
        }
        self.go_on(pid, None);
    }

    fn cloned(&mut self, parent: Pid) {
        let child = ptrace::getevent(parent).ok().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        if let (Some(child), Some(tracee)) = (child, self.tracees.get_mut(&parent)) {
            tracee.children += 1;
            let name = format!("{}.{}", tracee.name, tracee.children);
            self.adopt(child, name);
            if self.early.remove(&child) {
                self.go_on(child, None);
            }
        }
        self.go_on(parent, None);
    }

    /// At the entry of a call, or at its exit.
    fn at_call(&mut self, pid: Pid) {
        let (Ok(at), Ok(mut registers)) = (ptrace::syscall_info(pid), ptrace::getregs(pid)) else {
            return;
        };
        if at.op == libc::PTRACE_SYSCALL_INFO_EXIT {
            if let Some(errno) = self.tracees.get_mut(&pid).and_then(|tracee| tracee.answer.take()) {
                registers.rax = i64::from(-(errno as i32)).cast_unsigned();
                let _ = ptrace::setregs(pid, registers);
            }
        } else if at.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            let name = calls::name(registers.orig_rax);
            let errno = self.enter(pid, &name, registers.rdi);
            if let Some(errno) = errno {
                self.trace.refusals += 1;
                registers.orig_rax = u64::MAX;
                if ptrace::setregs(pid, registers).is_ok()
                    && let Some(tracee) = self.tracees.get_mut(&pid)
                {
                    tracee.answer = Some(errno);
                }
            }
        }
        self.go_on(pid, None);
    }

    /// Counts a call, and strikes if it is the one. The error that it shall return.
    fn enter(&mut self, pid: Pid, name: &str, descriptor: u64) -> Option<Errno> {
        let tracee = self.tracees.get_mut(&pid)?;
        if !calls::is_counted(name) {
            return None;
        }
        tracee.count += 1;
        let point = Point { process: tracee.name.clone(), count: tracee.count };
        let is_foreign = tracee.is_foreign;
        let call = Call { point, name: name.to_owned(), is_foreign, descriptor };
        self.trace.calls.push(call.clone());
        // Where calls are hidden, thousands of others take their place, and each stops for us twice.
        if self.trace.struck.is_some() && self.trace.calls.len() < MANY {
            self.end += Duration::from_millis(1);
        }
        if let Some((always, errno)) = &self.always {
            return (!is_foreign && always == name).then_some(*errno);
        }
        let (at, kind) = self.fault?;
        if self.trace.struck.is_some() || *at != call.point {
            return None;
        }
        // Another call than the one that was there when the points were counted.
        if let Kind::Once(errno) | Kind::Always(errno) = kind
            && !calls::can_return(name, errno)
        {
            return None;
        }
        self.trace.struck = Some(call);
        self.end = Instant::now() + self.limit;
        self.strike(pid, name, kind)
    }

    fn strike(&mut self, caller: Pid, name: &str, kind: Kind) -> Option<Errno> {
        match kind {
            Kind::Caller => {
                let _ = kill(caller, Signal::SIGKILL);
            }
            Kind::Parent => {
                if self.trace.status.is_none() {
                    let _ = kill(self.root, Signal::SIGKILL);
                }
            }
            Kind::Tree => {
                self.has_killed_all = true;
                for pid in self.tracees.keys().chain(&self.early) {
                    let _ = kill(*pid, Signal::SIGKILL);
                }
            }
            Kind::Once(errno) => return Some(errno),
            Kind::Always(errno) => {
                self.always = Some((name.to_owned(), errno));
                return Some(errno);
            }
        }
        None
    }

    /// The root has ended, and whoever is left waits: it runs free from now on.
    fn let_go(&mut self) -> Result<()> {
        let pids: Vec<Pid> = self.tracees.keys().copied().collect();
        for pid in pids {
            if ptrace::interrupt(pid).is_err() {
                self.tracees.remove(&pid);
            }
        }
        let end = Instant::now() + Duration::from_secs(2);
        while !self.tracees.is_empty() {
            let News::Status(status) = self.children.next(end)? else { return Ok(()) };
            let Some(pid) = status.pid() else { continue };
            match status {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {}
                WaitStatus::Stopped(_, signal) => drop(ptrace::detach(pid, Some(signal))),
                _ => drop(ptrace::detach(pid, None)),
            }
            self.tracees.remove(&pid);
        }
        Ok(())
    }

    /// The time is over: all are killed.
    fn give_up(&mut self) -> Result<()> {
        self.trace.status = None;
        for pid in self.tracees.keys().chain(&self.early) {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        let end = Instant::now() + Duration::from_secs(2);
        while !self.tracees.is_empty() {
            let News::Status(status) = self.children.next(end)? else { return Ok(()) };
            if let (WaitStatus::Exited(..) | WaitStatus::Signaled(..), Some(pid)) = (status, status.pid()) {
                self.tracees.remove(&pid);
            }
        }
        Ok(())
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.process, self.count)
    }
}

impl FromStr for Point {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let (process, count) = word.split_once(':').context("a point is PROCESS:COUNT")?;
        Ok(Self { process: process.to_owned(), count: count.parse()? })
    }
}

/// Errors that are given for calls.
const ERRORS: [(&str, Errno); 8] = [
    ("EIO", Errno::EIO),
    ("ENOSPC", Errno::ENOSPC),
    ("EPERM", Errno::EPERM),
    ("ENOMEM", Errno::ENOMEM),
    ("EINTR", Errno::EINTR),
    ("EMFILE", Errno::EMFILE),
    ("EAGAIN", Errno::EAGAIN),
    ("ENOSYS", Errno::ENOSYS),
];

impl Kind {
    /// Each kind of fault. A call that was interrupted, or told to come again, for ever is no fault but a hang.
    pub(crate) fn all() -> Vec<Self> {
        let once = ERRORS.iter().map(|(_, errno)| Self::Once(*errno));
        let lasting = ERRORS.iter().filter(|(_, errno)| !matches!(errno, Errno::EINTR | Errno::EAGAIN));
        let kills = [Self::Caller, Self::Parent, Self::Tree];
        kills.into_iter().chain(once).chain(lasting.map(|(_, errno)| Self::Always(*errno))).collect()
    }

    /// Whether the call can be disturbed so.
    pub(crate) fn fits(self, call: &Call) -> bool {
        match self {
            Self::Caller | Self::Parent | Self::Tree => true,
            Self::Once(errno) | Self::Always(errno) => !call.is_foreign && calls::can_return(&call.name, errno),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |errno: Errno| ERRORS.iter().find(|(_, known)| *known == errno).map_or("?", |(word, _)| *word);
        match self {
            Self::Caller => f.pad("kill-caller"),
            Self::Parent => f.pad("kill-parent"),
            Self::Tree => f.pad("kill-tree"),
            Self::Once(errno) => f.pad(word(*errno)),
            Self::Always(errno) => f.pad(&format!("{}-always", word(*errno))),
        }
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let found = Self::all().into_iter().find(|kind| kind.to_string() == word);
        found.with_context(|| format!("there is no fault {word:?}"))
    }
}
