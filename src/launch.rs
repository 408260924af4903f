//! Launch: the parent's side of starting a container.

mod birth;
pub mod helper;
pub mod idmap;
mod inputs;
pub mod link;
mod outside;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};

use nix::{errno::Errno, sys::signal::SigSet, unistd::Pid};

use crate::{
    console::Console,
    error::{Code, Context as _, Error, Result, Warning, plain},
    hooks::{Hooks, Kind},
    host::{Host, refusal},
    init::Init,
    plan::{
        Meeting, Op, Plan, Slot,
        ids::{UserNamespace, Writer},
    },
    state::Status,
    sys::{self, exec::Vectors, fd::Slots, process::Fork},
};
use link::{Heard, Report};

/// What a launch needs besides the plan.
#[derive(Debug)]
pub struct Launch<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The facts it was compiled from, to explain a refusal.
    pub host: &'a Host,
    /// The container's cgroup, entered at birth.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// What becomes of the program's terminal.
    pub console: Console,
    /// On which init waits for `start`.
    pub listener: Option<OwnedFd>,
    /// A descriptor that the plan wants in a slot and that has no path: the container's init, for `exec`.
    pub given: Option<(Slot, OwnedFd)>,
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
    /// What init had to do without.
    pub warnings: Vec<Warning>,
    /// Init is the second process of its plan.
    is_reborn: bool,
    /// The signal mask of before, for what comes after.
    mask: SigSet,
}

impl Launch<'_> {
    /// Starts a container. `created` is called once: all is made, and init waits to be told that it is recorded.
    ///
    /// Returns when init has become the program or, in `create`, waits for `start`. On an error nothing of it is alive.
    pub fn run(mut self, created: impl FnOnce(&Container) -> Result<()>) -> Result<Container> {
        let plan = self.plan;
        let (ours, theirs) = link::pair().doing(Code::Exhausted, || "make the link to init".to_owned())?;
        if plan.has_rebirth() {
            link::name_senders(ours.as_fd(), true).doing(Code::Bug, || "ask who speaks for init".to_owned())?;
        }
        let slots = self.slots(theirs)?;
        birth::take_labels(plan)?;
        let vectors = Vectors::new(plan.argv(), plan.env());
        let hooks: Vec<_> = plan.hooks().iter().map(|hook| plan.hook_vectors(hook)).collect();
        // Before clone: a signal between clone and our handlers would be lost, or end only one of us.
        let mask = sys::signal::block().doing(Code::Bug, || "block signals".to_owned())?;
        let mut container = match self.bear(&slots) {
            Ok(Fork::Child) => Init::new(plan, &vectors, &hooks, slots).main(),
            Ok(Fork::Parent(init)) => Container {
                init,
                master: None,
                console: std::mem::replace(&mut self.console, Console::None),
                warnings: Vec::new(),
                is_reborn: false,
                mask,
            },
            Err(error) => {
                let _ = sys::signal::restore(&mask);
                return Err(error);
            }
        };
        // Init's end must not live on in us, or we would never see that init is gone.
        slots.close();
        container.meet(&self, ours.as_fd(), created).inspect_err(|_| container.discard())?;
        Ok(container)
    }

    /// Opens what the plan wants init to find in its slots.
    fn slots(&mut self, link: OwnedFd) -> Result<Slots> {
        let mut slots = Slots::new(self.plan.slots, self.preserved);
        slots.put(Slot::LINK.index(), link);
        if let Some(listener) = self.listener.take() {
            slots.put(Slot::LISTENER.index(), listener);
        }
        if let Some((slot, given)) = self.given.take() {
            slots.put(slot.index(), given);
        }
        for (slot, input) in &self.plan.inputs {
            slots.put(slot.index(), inputs::open(input)?);
        }
        Ok(slots)
    }
}

impl Container {
    /// Serves init at each meeting of the plan, in order, until it has become the program or waits for `start`.
    fn meet(
        &mut self,
        launch: &Launch<'_>,
        link: BorrowedFd<'_>,
        created: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let plan = launch.plan;
        let mut created = Some(created);
        // Started at once: they take longer than all that init does before it needs the map.
        let mut mappers = None;
        if let UserNamespace::Create { maps, writer: Writer::Mappers, .. } = &plan.ids.user_namespace {
            mappers = Some(idmap::start_mappers(self.init, maps)?);
        }
        for meeting in plan.meetings() {
            let descriptor = self.reach(launch, link, meeting)?;
            match meeting {
                Meeting::MapIds => idmap::map(plan, launch.host, self.init, mappers.take())?,
                Meeting::Console => self.take_console(descriptor)?,
                Meeting::RuntimeHooks => {
                    for kind in [Kind::Prestart, Kind::CreateRuntime] {
                        launch.hooks.run(kind, Status::Creating, self.init.as_raw())?;
                    }
                }
                Meeting::Created => {
                    outside::raise(plan, self.init)?;
                    created.take().map_or(Ok(()), |created| created(self))?;
                }
            }
            link::release(link).doing(Code::Bug, || format!("release init ({meeting:?})"))?;
        }
        if plan.waits_for_start() { Ok(()) } else { hear_exec(launch, link) }
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
            match (heard, sender) {
                (Heard::Report(Report::At(at)), _) if at == meeting as u32 => return Ok(descriptor),
                (Heard::Report(Report::Warned { step, errno }), _) => {
                    self.warnings.push(plan.explain_warning(step, errno));
                }
                (Heard::Report(Report::Reborn), Some(pid)) => self.follow(link, pid)?,
                (Heard::Report(Report::Failed { step, errno } | Report::Unconfined { step, errno }), _) => {
                    return Err(failed(plan, launch.host, step, errno));
                }
                (Heard::Report(Report::Hook { number, end }), _) => {
                    return Err(launch.hooks.explain_inside(number, end));
                }
                (Heard::End, _) => return Err(self.obituary()),
                (
                    other @ (Heard::Report(Report::At(_) | Report::Reborn | Report::Born(_) | Report::Hooked)
                    | Heard::Nonsense),
                    _,
                ) => {
                    let why = format!("init was to reach {meeting:?}, but sent {other:?}");
                    return Err(Error::new(Code::Bug, "start the container", why));
                }
            }
        }
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

    fn obituary(&self) -> Error {
        let died = sys::process::wait(self.init).map_or_else(|errno| errno.to_string(), |status| format!("{status:?}"));
        Error::new(Code::Bug, "start the container", format!("init died before it was ready: {died}"))
    }

    /// Ends a container that could not be started. The first error is the one to report.
    pub fn discard(&self) {
        let _ = sys::signal::send(self.init, libc::SIGKILL);
        let _ = sys::process::wait(self.init);
        self.restore_signals();
    }

    /// Takes up the signals that have been blocked since before clone.
    pub fn restore_signals(&self) {
        let _ = sys::signal::restore(&self.mask);
    }
}

/// Why a step of init failed. What a new user namespace grants may have been taken again: that has a cause of its own.
fn failed(plan: &Plan, host: &Host, step: u32, errno: Errno) -> Error {
    let op = usize::try_from(step).ok().and_then(|step| plan.ops.get(step));
    let needs_only_the_namespace = matches!(op, Some(Op::WriteProc { .. } | Op::Unshare(_) | Op::Propagate { .. }));
    let is_new = matches!(plan.ids.user_namespace, UserNamespace::Create { .. });
    let restricted = if is_new && needs_only_the_namespace { refusal::restricted(host, errno) } else { None };
    restricted.unwrap_or_else(|| plan.explain(step, errno))
}

/// End of file: exec has closed the link. If death did, between the last hook and exec, the wait that follows tells.
fn hear_exec(launch: &Launch<'_>, link: BorrowedFd<'_>) -> Result<()> {
    match link::last_words(link, launch.hooks.any_in_start())? {
        Heard::End => Ok(()),
        Heard::Report(Report::Failed { step, errno } | Report::Unconfined { step, errno }) => {
            Err(launch.plan.explain(step, errno))
        }
        Heard::Report(Report::Hook { number, end }) => Err(launch.hooks.explain_inside(number, end)),
        heard @ (Heard::Report(
            Report::At(_) | Report::Warned { .. } | Report::Reborn | Report::Born(_) | Report::Hooked,
        )
        | Heard::Nonsense) => {
            let why = format!("init sent {heard:?} when it was to run the program");
            Err(Error::new(Code::Bug, "start the container", why))
        }
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
        Heard::Report(Report::Hook { number, end }) => Err(hooks.explain_inside(number, end)),
        Heard::Report(Report::Failed { errno, .. }) => Err(crate::plan::explain_program(program, errno, true)),
        Heard::Report(Report::Unconfined { errno, .. }) => {
            Err(Error::new(Code::Seccomp, "attach the seccomp filter", plain(errno)).at("linux.seccomp"))
        }
        heard @ (Heard::Report(
            Report::At(_) | Report::Warned { .. } | Report::Reborn | Report::Born(_) | Report::Hooked,
        )
        | Heard::Nonsense) => Err(Error::new(Code::Bug, "start the container", format!("init sent {heard:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::UsernsMode,
        plan::{Op, sample},
    };
    use oci_spec::runtime::Spec;
    use serde_json::json;
    use std::{path::Path, sync::mpsc, time::Duration};

    /// A process that was never there: to wait for it is an error at once.
    const NOBODY: u32 = i32::MAX as u32;

    const MAPPED: Report = Report::At(Meeting::MapIds as u32);
    const CREATED: Report = Report::At(Meeting::Created as u32);
    const WEAKER: Report = Report::Warned { step: 0, errno: Errno::EDQUOT };
    const FAILED: Report = Report::Failed { step: 0, errno: Errno::EPERM };
    const REBORN: Report = Report::Reborn;
    const HOOK: Report = Report::Hook { number: 0, end: 9 };

    /// A plan with both meetings, of which the first has nothing to do.
    fn plan(waits: bool, reborn: bool) -> Plan {
        let config = json!({
            "ociVersion": "1.3.0", "root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "user"}]},
            "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/bin/true"]}
        });
        let spec = serde_json::from_value(config).unwrap();
        let mut plan = sample::compile(&spec, sample::user(), UsernsMode::Unset, waits, 0).unwrap();
        assert_eq!(plan.meetings().collect::<Vec<_>>(), [Meeting::MapIds, Meeting::Created]);
        plan.ids.user_namespace = UserNamespace::Reuse;
        if reborn {
            plan.ops.push(Op::Rebirth);
        }
        plan
    }

    /// Init, as far as its parent can tell: reports, waits where init waits, and goes.
    fn report(link: &OwnedFd, reports: Vec<Report>) {
        for report in reports {
            let went = match report {
                Report::At(at) if at == Meeting::MapIds as u32 => link::meet(link.as_fd(), Meeting::MapIds),
                Report::At(_) => link::meet(link.as_fd(), Meeting::Created),
                other @ (Report::Failed { .. }
                | Report::Unconfined { .. }
                | Report::Warned { .. }
                | Report::Reborn
                | Report::Born(_)
                | Report::Hooked
                | Report::Hook { .. }) => link::report(link.as_fd(), other),
            };
            if went.is_err() {
                return;
            }
        }
    }

    /// What the parent makes of the reports: how often the container was recorded, and the result.
    #[expect(clippy::disallowed_methods, reason = "nothing is cloned here, and a hang must not be the test's own")]
    fn meet(waits: bool, reborn: bool, reports: &[Report]) -> (usize, Result<()>) {
        let (tell, told) = mpsc::channel();
        let reports = reports.to_vec();
        let what = format!("{reports:?}, waits: {waits}");
        std::thread::spawn(move || {
            let plan = plan(waits, reborn);
            let (ours, theirs) = link::pair().unwrap();
            // As `Launch::run` does.
            link::name_senders(ours.as_fd(), reborn).unwrap();
            let init = std::thread::spawn(move || report(&theirs, reports));
            let mut container = Container {
                init: Pid::from_raw(NOBODY.cast_signed()),
                master: None,
                console: Console::None,
                warnings: Vec::new(),
                is_reborn: false,
                mask: SigSet::empty(),
            };
            let mut recorded = 0;
            let (spec, host) = (Spec::default(), Host::default());
            let launch = Launch {
                plan: &plan,
                host: &host,
                cgroup: None,
                console: Console::None,
                listener: None,
                given: None,
                preserved: &[],
                hooks: Hooks { spec: &spec, id: "c1", bundle: Path::new("/b") },
            };
            let result = container.meet(&launch, ours.as_fd(), |_| {
                recorded += 1;
                Ok(())
            });
            drop(ours);
            init.join().unwrap();
            tell.send((recorded, result)).unwrap();
        });
        told.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{what}: the parent hangs"))
    }

    fn permutations(reports: &[Report]) -> Vec<Vec<Report>> {
        if reports.is_empty() {
            return vec![Vec::new()];
        }
        let pick = |at: usize| {
            let mut rest = reports.to_vec();
            let first = rest.remove(at);
            permutations(&rest).into_iter().map(move |rest| [vec![first], rest].concat())
        };
        (0..reports.len()).flat_map(pick).collect()
    }

    /// Every order of every choice of these reports. The end of the link follows all of them.
    fn sequences(reports: &[Report]) -> Vec<Vec<Report>> {
        let choices = 0..1_usize << reports.len();
        let chosen = |choice: usize| {
            reports.iter().enumerate().filter(move |(at, _)| choice >> at & 1 == 1).map(|(_, report)| *report)
        };
        choices.flat_map(|choice| permutations(&chosen(choice).collect::<Vec<_>>())).collect()
    }

    #[test]
    fn one_sequence_of_reports_is_success_and_every_other_is_one_error() {
        for (reborn, all) in [(false, vec![MAPPED, CREATED, FAILED, HOOK]), (true, vec![REBORN, MAPPED, CREATED])] {
            for (reports, waits) in
                sequences(&all).into_iter().flat_map(|reports| [(reports.clone(), false), (reports, true)])
            {
                let (recorded, result) = meet(waits, reborn, &reports);
                let meetings: Vec<_> = reports.iter().filter(|report| **report != REBORN).copied().collect();
                // A created container is not listened to any more.
                let heard = if waits { meetings.get(..2).unwrap_or(&meetings) } else { &meetings };
                let is_true = heard == [MAPPED, CREATED] && (waits || reports.last() != Some(&REBORN));
                assert_eq!(result.is_ok(), is_true, "{reports:?}, waits: {waits}: {result:?}");
                assert_eq!(recorded, usize::from(heard.starts_with(&[MAPPED, CREATED])), "{reports:?}");
                if let Err(error) = result {
                    assert_eq!(error.to_string().lines().count(), 1, "{error}");
                }
            }
        }
    }

    #[test]
    fn a_warning_is_heard_wherever_init_is_still_listened_to() {
        for (reports, good) in
            [([WEAKER, MAPPED, CREATED], true), ([MAPPED, WEAKER, CREATED], true), ([MAPPED, CREATED, WEAKER], false)]
        {
            let (_, result) = meet(false, false, &reports);
            assert_eq!(result.is_ok(), good, "{reports:?}: {result:?}");
        }
    }

    #[test]
    fn a_second_process_that_the_kernel_does_not_name_is_refused() {
        let (ours, theirs) = link::pair().unwrap();
        report(&theirs, vec![REBORN]);
        assert_eq!(link::receive_named(ours.as_fd()), (Heard::Report(REBORN), None));
        link::name_senders(ours.as_fd(), true).unwrap();
        report(&theirs, vec![REBORN]);
        assert_eq!(link::receive_named(ours.as_fd()), (Heard::Report(REBORN), Some(Pid::this())));
    }

    #[test]
    fn start_succeeds_with_the_end_of_the_link_and_nothing_else() {
        for (reports, good) in
            [(vec![], true), (vec![FAILED], false), (vec![WEAKER], false), (vec![REBORN], false), (vec![HOOK], false)]
        {
            let (ours, theirs) = link::pair().unwrap();
            for report in &reports {
                link::report(theirs.as_fd(), *report).unwrap();
            }
            drop(theirs);
            let spec = Spec::default();
            let hooks = Hooks { spec: &spec, id: "c1", bundle: Path::new("/b") };
            assert_eq!(started(&ours, "/bin/true", &hooks).is_ok(), good, "{reports:?}");
        }
    }
}
