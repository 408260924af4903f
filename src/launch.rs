//! Launch: the parent's side of starting a container.

mod birth;
pub mod helper;
pub mod idmap;
mod inputs;
pub mod link;
mod network;
mod outside;
mod shown;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};

use nix::{
    errno::Errno,
    sys::{
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{
    agent::Notice,
    cgroup::entrance::Entrance,
    console::Console,
    error::{Code, Context as _, Error, Result, Warning, plain},
    hooks::{Hooks, Kind},
    host::{
        Host,
        refusal::{self, Step},
    },
    init::Init,
    plan::{
        Meeting, Op, Plan, Slot,
        ids::{UserNamespace, Writer},
    },
    state::Status,
    sys::{
        self,
        exec::Vectors,
        fd::Slots,
        process::{Fork, Home},
    },
};
pub use birth::take_on;
use link::{Heard, Report};

/// What a launch needs besides the plan.
#[derive(Debug)]
pub struct Launch<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The facts it was compiled from, to explain a refusal.
    pub host: &'a Host,
    /// The container's cgroup, entered at birth.
    pub cgroup: Option<Home<'a>>,
    /// Or the scope that systemd puts it into.
    pub scope: Option<Entrance<'a>>,
    /// What becomes of the program's terminal.
    pub console: Console,
    /// On which init waits for `start`.
    pub listener: Option<OwnedFd>,
    /// A descriptor that the plan wants in a slot and that has no path: the container's init, for `exec`.
    pub given: Option<(Slot, OwnedFd)>,
    /// The connection to the seccomp agent, when the plan has something to tell it.
    pub agent: Option<OwnedFd>,
    /// Descriptors of the caller that the program inherits.
    pub preserved: &'a [RawFd],
    /// The hooks that the parent runs.
    pub hooks: Hooks<'a>,
}

/// A container that is being started, or runs, seen from its parent.
#[derive(Debug)]
pub struct Container {
    /// Init's id, in the caller's PID namespace.
    pub init: Pid,
    /// The master of its terminal, when the parent relays.
    pub master: Option<OwnedFd>,
    /// What is to become of the master.
    console: Console,
    /// Its cgroup, where that is known only after its birth.
    pub cgroup: Option<std::path::PathBuf>,
    /// What init had to do without.
    pub warnings: Vec<Warning>,
    /// Init could not be born in its cgroup, and was moved there.
    pub is_moved: bool,
    life: Life,
    /// Init is the second process of its plan.
    is_reborn: bool,
    /// The caller's network, until its devices have been moved.
    network: Option<OwnedFd>,
    /// Its mount namespace, where only that tells its processes.
    pub mounts: Option<OwnedFd>,
}

/// What is known of init's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// It has not said a word yet.
    Silent,
    /// It has.
    Spoken,
    /// It was killed before it could.
    Stillborn,
}

impl Launch<'_> {
    /// Starts a container. `created` is called once: all is made, and init waits to be told that it is recorded. A plan
    /// without that meeting has nobody to tell, and it is not called.
    ///
    /// The caller has blocked all signals: one between clone and our handlers would be lost, or end only one of us.
    ///
    /// Returns when init has become the program or, in `create`, waits for `start`. On an error nothing of it is alive.
    pub fn run(mut self, created: impl FnOnce(&Container) -> Result<()>) -> Result<Container> {
        let plan = self.plan;
        let (mut ours, theirs) = self.link()?;
        let mut slots = self.slots(theirs)?;
        let vectors = Vectors::new(plan.argv(), plan.env());
        // Before the parent joins what init is to be born in.
        let mut network = network::open(plan)?;
        let hooks: Vec<_> = plan.hooks().iter().map(|hook| plan.hook_vectors(hook)).collect();
        let notice = plan.notice().map(Notice::text).unwrap_or_default();
        let (mut created, mut is_again) = (Some(created), false);
        loop {
            let init = match self.bear(&mut slots, is_again)? {
                Fork::Child => Init::new(plan, &vectors, &hooks, notice, slots).main(),
                Fork::Parent(init) => init,
            };
            let console = std::mem::replace(&mut self.console, Console::None);
            let mut container = Container::born(init, console, network);
            container.is_moved = is_again;
            // Init's end must not live on in us, or we would never see that init is gone.
            drop(slots.take(Slot::LINK.index()));
            let met = container.meet(&self, ours.as_fd(), &mut created);
            if met.is_ok() {
                slots.close();
                return Ok(container);
            }
            if container.life != Life::Stillborn || !self.leave_home() {
                container.discard();
                return met.map(|()| container);
            }
            let (our_next, their_next) = self.link()?;
            slots.put(Slot::LINK.index(), their_next);
            (ours, network, is_again) = (our_next, container.network, true);
            self.console = container.console;
        }
    }

    /// The link to init, from both ends.
    fn link(&self) -> Result<(OwnedFd, OwnedFd)> {
        let (ours, theirs) = link::pair().doing(Code::Exhausted, || "make the link to init".to_owned())?;
        if self.plan.has_rebirth() {
            link::name_senders(ours.as_fd(), true).doing(Code::Bug, || "ask who speaks for init".to_owned())?;
        }
        Ok((ours, theirs))
    }

    /// Lets init, which was killed at birth, be born where the caller is and be moved: the kernel takes a `cgroup.kill` of
    /// the caller's cgroup, however long ago, for one of the cgroup that init is born in (Linux 6.14). False when it cannot.
    fn leave_home(&mut self) -> bool {
        let Some(home) = self.cgroup.as_mut().filter(|home| !home.is_used) else { return false };
        home.is_used = true;
        // That one has been left again.
        !self.plan.joined_first.iter().any(|(_, kinds)| kinds & libc::CLONE_NEWTIME != 0)
    }

    /// Opens what the plan wants init to find in its slots.
    fn slots(&mut self, link: OwnedFd) -> Result<Slots> {
        let mut slots = Slots::new(self.plan.slots, self.preserved);
        slots.put(Slot::LINK.index(), link);
        if let Some(listener) = self.listener.take() {
            slots.put(Slot::LISTENER.index(), listener);
        }
        if let Some(agent) = self.agent.take() {
            slots.put(Slot::AGENT.index(), agent);
        }
        if let Some((slot, given)) = self.given.take() {
            slots.put(slot.index(), given);
        }
        for (slot, input) in &self.plan.inputs {
            slots.put(slot.index(), inputs::open(input, self.plan)?);
        }
        Ok(slots)
    }
}

impl Container {
    fn born(init: Pid, console: Console, network: Option<OwnedFd>) -> Self {
        Self {
            init,
            master: None,
            console,
            cgroup: None,
            warnings: Vec::new(),
            is_moved: false,
            life: Life::Silent,
            is_reborn: false,
            network,
            mounts: None,
        }
    }

    /// Serves init at each meeting of the plan, in order, until it has become the program or waits for `start`.
    fn meet(
        &mut self,
        launch: &Launch<'_>,
        link: BorrowedFd<'_>,
        created: &mut Option<impl FnOnce(&Self) -> Result<()>>,
    ) -> Result<()> {
        let plan = launch.plan;
        // Started at once: they take longer than all that init does before it needs the map.
        let mut mappers = None;
        if let UserNamespace::Create { maps, writer: Writer::Mappers, .. } = &plan.ids.user_namespace {
            mappers = Some(idmap::start_mappers(self.init, maps)?);
        }
        for meeting in plan.meetings() {
            let descriptor = self.reach(launch, link, meeting)?;
            match meeting {
                Meeting::MapIds => idmap::map(plan, launch.host, self.init, mappers.take())?,
                Meeting::Scope => self.enter_scope(launch)?,
                Meeting::Mounts => self.mounts = descriptor,
                Meeting::Console => self.take_console(descriptor)?,
                Meeting::RuntimeHooks => {
                    self.move_devices(plan)?;
                    for kind in [Kind::Prestart, Kind::CreateRuntime] {
                        let ran = launch.hooks.run(kind, Status::Creating, self.init.as_raw());
                        ran.map_err(|error| network::with_losses(plan, error))?;
                    }
                }
                Meeting::Pid => {
                    link::tell_pid(link, self.init).map_err(|errno| self.unreached(errno))?;
                    continue;
                }
                Meeting::Created => {
                    self.move_devices(plan)?;
                    outside::raise(plan, self.init)?;
                    created.take().map_or(Ok(()), |created| created(self))?;
                }
            }
            link::release(link).map_err(|errno| self.unreached(errno))?;
        }
        if plan.waits_for_start() { Ok(()) } else { self.hear_exec(launch, link, created.is_none()) }
    }

    fn enter_scope(&mut self, launch: &Launch<'_>) -> Result<()> {
        let scope = launch.scope.ok_or_else(|| Error::new(Code::Bug, "start the container", "it has no scope"))?;
        let (cgroup, unset) = scope.take_in(self.init)?;
        self.cgroup = Some(cgroup);
        self.warnings.extend(unset);
        Ok(())
    }

    /// Hears init out until it has reached the meeting; what it has brought along.
    fn reach(&mut self, launch: &Launch<'_>, link: BorrowedFd<'_>, meeting: Meeting) -> Result<Option<OwnedFd>> {
        let plan = launch.plan;
        loop {
            // Nothing but the report itself comes from a process before it is known by its id.
            let (heard, descriptor, sender) = if plan.has_rebirth() && !self.is_reborn {
                let (heard, sender) = link::receive_named(link);
                (heard, None, sender)
            } else {
                let (heard, descriptor) = link::receive_with(link);
                (heard, descriptor, None)
            };
            if matches!(heard, Heard::Report(_)) {
                self.life = Life::Spoken;
            }
            match (heard, sender) {
                (Heard::Report(Report::At(at)), _) if at == meeting as u32 => return Ok(descriptor),
                (Heard::Report(Report::Warned { step, errno }), _) => {
                    self.warnings.push(plan.explain_warning(step, errno));
                }
                (Heard::Report(Report::Reborn), Some(pid)) => self.follow(link, pid)?,
                (Heard::End, _) => return Err(self.obituary()),
                (heard, _) => {
                    let fail = |step, errno| failed(plan, launch.host, step, errno);
                    return Err(refusal(heard, &launch.hooks, fail));
                }
            }
        }
    }

    /// End of file: exec has closed the link. If death did, between the last hook and exec, the wait that follows tells.
    /// What init warns of is heard as long as it is not recorded.
    fn hear_exec(&mut self, launch: &Launch<'_>, link: BorrowedFd<'_>, is_recorded: bool) -> Result<()> {
        loop {
            match link::last_words(link, launch.hooks.any_in_start())? {
                Heard::End => return Ok(()),
                Heard::Report(Report::Warned { step, errno }) if !is_recorded => {
                    self.warnings.push(launch.plan.explain_warning(step, errno));
                }
                heard @ (Heard::Report(_) | Heard::Nonsense) => {
                    return Err(refusal(heard, &launch.hooks, |step, errno| launch.plan.explain(step, errno)));
                }
            }
        }
    }

    /// Once: before the first hook, which may want them, else when all that init can fail at is done.
    fn move_devices(&mut self, plan: &Plan) -> Result<()> {
        self.network.take().map_or(Ok(()), |network| network::move_all(plan, &network, self.init))
    }

    fn take_console(&mut self, master: Option<OwnedFd>) -> Result<()> {
        let master = master.ok_or_else(|| Error::new(Code::Bug, "take the terminal", "init brought none"))?;
        self.master = std::mem::replace(&mut self.console, Console::None).take(master)?;
        Ok(())
    }

    /// Init goes on as another child of ours; the first one has ended.
    fn follow(&mut self, link: BorrowedFd<'_>, pid: Pid) -> Result<()> {
        let _ = sys::process::wait(self.init);
        (self.init, self.is_reborn) = (pid, true);
        link::name_senders(link, false).doing(Code::Bug, || "listen to init".to_owned())
    }

    /// Why init, whose end of the link is closed, is gone without a word.
    fn obituary(&mut self) -> Error {
        let end = sys::process::wait(self.init);
        if self.life == Life::Silent && matches!(end, Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))) {
            self.life = Life::Stillborn;
        }
        obituary(end)
    }

    /// Why init cannot be told anything.
    fn unreached(&mut self, errno: Errno) -> Error {
        if matches!(errno, Errno::EPIPE | Errno::ECONNRESET) {
            return self.obituary();
        }
        Error::new(Code::Bug, "release init", plain(errno))
    }

    /// Why init cannot be found. It may be alive, and must not be waited for.
    pub fn unfound(&self) -> Error {
        match waitpid(self.init, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => Error::new(Code::Proc, "record the container", "/proc does not show init"),
            end => obituary(end),
        }
    }

    /// Ends a container that could not be started. The first error is the one to report.
    pub fn discard(&self) {
        let _ = sys::signal::send(self.init, libc::SIGKILL);
        let _ = sys::process::wait(self.init);
    }
}

/// Why a step of init failed. What a new user namespace grants may have been taken again: that has a cause of its own.
fn failed(plan: &Plan, host: &Host, step: u32, errno: Errno) -> Error {
    let op = usize::try_from(step).ok().and_then(|step| plan.ops.get(step));
    if let Some(error) = plan.shut_root(errno) {
        return error;
    }
    let refused = match op {
        Some(Op::WriteProc { file, .. }) if plan.text(*file) != c"/proc/self/oom_score_adj" => Some(Step::Maps),
        Some(Op::Unshare(kinds)) => Some(Step::Others(*kinds)),
        Some(Op::Propagate { .. }) => Some(Step::Use),
        _ => None,
    };
    let is_new = matches!(plan.ids.user_namespace, UserNamespace::Create { .. });
    // Used up is a matter of the kind alone; the rest are causes that a user namespace of the caller's does not have.
    let refused = refused.filter(|refused| is_new || errno == Errno::ENOSPC && matches!(refused, Step::Others(_)));
    let cause = refused.and_then(|refused| refusal::cause(refused, errno, &refusal::gather(host)));
    let forbidden = || match op {
        Some(op @ Op::Sysctl { .. }) => refusal::shut_proc(plan.describe(*op), errno, &refusal::gather(host)),
        Some(op @ (Op::Hostname { .. } | Op::Domainname(_) | Op::PivotRoot(_))) if host.caller.seccomp => {
            (errno == Errno::EPERM).then(|| refusal::forbidden_call(plan.describe(*op)))
        }
        _ => None,
    };
    cause.or_else(forbidden).unwrap_or_else(|| plan.explain(step, errno))
}

/// What became of an init that has not told it. Whatever is no signal, or one that only a fault of its own sends, is a bug.
fn obituary(end: nix::Result<WaitStatus>) -> Error {
    let what = "start the container";
    if let Ok(WaitStatus::Signaled(_, signal, _)) = end {
        if signal == Signal::SIGSYS {
            let why = "a seccomp filter around pura killed init (SIGSYS)";
            return Error::new(Code::Kernel, what, why).fix("a seccomp profile that refuses calls, and does not kill");
        }
        if !matches!(signal, Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL | Signal::SIGABRT | Signal::SIGTRAP) {
            let why = format!("init was killed ({signal}) before the program ran");
            let error = Error::new(Code::NotRunning, what, why);
            let starved = "when memory is short, the kernel kills: its log says so (dmesg)";
            return if signal == Signal::SIGKILL { error.fix(starved) } else { error };
        }
        return Error::new(Code::Bug, what, format!("init died ({signal}) before it was ready"));
    }
    Error::new(Code::Bug, what, "init ended before it was ready, without a reason")
}

/// What init says instead of what it was to say. `failed` words the failure of a step.
fn refusal(heard: Heard, hooks: &Hooks<'_>, failed: impl FnOnce(u32, Errno) -> Error) -> Error {
    match heard {
        Heard::Report(
            Report::Failed { step, errno } | Report::Unconfined { step, errno } | Report::Unheard { step, errno },
        ) => failed(step, errno),
        Heard::Report(Report::Hook { number, end }) => hooks.explain_inside(number, end),
        other @ (Heard::Report(
            Report::At(_) | Report::Warned { .. } | Report::Reborn | Report::Born(_) | Report::Hooked,
        )
        | Heard::Nonsense
        | Heard::End) => Error::new(Code::Bug, "start the container", format!("init sent {other:?} out of turn")),
    }
}

/// `start`: releases init, which waits on the connection.
pub fn release(connection: &OwnedFd) -> Result<()> {
    link::release(connection.as_fd()).doing(Code::NotRunning, || "release init".to_owned())
}

/// `start`: returns when init has become the program. Only that and a hook are left to go wrong, so their names are enough
/// to explain.
pub fn started(connection: &OwnedFd, program: &str, hooks: &Hooks<'_>) -> Result<()> {
    match link::last_words(connection.as_fd(), hooks.any_in_start())? {
        Heard::End => Ok(()),
        Heard::Report(Report::Unconfined { errno, .. }) => {
            Err(Error::new(Code::Seccomp, "attach the seccomp filter", plain(errno)).at("linux.seccomp"))
        }
        Heard::Report(Report::Unheard { errno, .. }) => {
            let what = "tell the seccomp agent of the container";
            Err(Error::new(Code::SeccompAgent, what, plain(errno)).at("linux.seccomp.listenerPath"))
        }
        heard @ (Heard::Report(_) | Heard::Nonsense) => {
            Err(refusal(heard, hooks, |_, errno| crate::plan::explain_program(program, errno, true)))
        }
    }
}

#[cfg(test)]
mod tests;
