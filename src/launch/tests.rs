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
            | Report::Unheard { .. }
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
        let nobody = Pid::from_raw(NOBODY.cast_signed());
        let mut container = Container::born(nobody, Console::None, None);
        let mut recorded = 0;
        let (spec, host) = (Spec::default(), Host::default());
        let launch = Launch {
            plan: &plan,
            host: &host,
            cgroup: None,
            scope: None,
            console: Console::None,
            listener: None,
            given: None,
            agent: None,
            preserved: &[],
            hooks: Hooks { spec: &spec, id: "c1", bundle: Path::new("/b") },
        };
        let mut created = Some(|_: &Container| {
            recorded += 1;
            Ok(())
        });
        let result = container.meet(&launch, ours.as_fd(), &mut created);
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

#[test]
fn an_init_that_was_killed_is_no_bug_and_one_that_crashed_is() {
    for (signal, code, words) in [
        (Signal::SIGKILL, Code::NotRunning, "init was killed (SIGKILL) before the program ran; fix: "),
        (Signal::SIGTERM, Code::NotRunning, "init was killed (SIGTERM) before the program ran [PURA-706]"),
        (Signal::SIGSYS, Code::Kernel, "a seccomp filter around pura killed init"),
        (Signal::SIGSEGV, Code::Bug, "init died (SIGSEGV) before it was ready"),
    ] {
        let error = obituary(Ok(WaitStatus::Signaled(Pid::this(), signal, false)));
        assert!(error.code() == code && error.to_string().contains(words), "{error}");
    }
    for end in [Ok(WaitStatus::Exited(Pid::this(), 1)), Err(Errno::ECHILD)] {
        let text = obituary(end).to_string();
        assert!(text.contains("init ended before it was ready") && !text.contains("Exited"), "{text}");
    }
}
