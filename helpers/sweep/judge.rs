//! One point after another, and what is to be said of each.

use std::{
    fs,
    io::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    choice::Choice,
    op::Op,
    scene::{LIMIT, Scene, code},
    snapshot::Snapshot,
    tracer::{Call, Kind, Point, Trace, trace},
};

/// Sums of one command, config and fault.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) config: String,
    pub(crate) op: String,
    pub(crate) fault: String,
    pub(crate) points: u32,
    /// The call was not made this time.
    pub(crate) missed: u32,
    /// The command succeeded all the same.
    pub(crate) succeeded: u32,
    /// Nothing was left, or what has to be.
    pub(crate) clean: u32,
    /// `delete --force` had to remove something.
    pub(crate) cleaned: u32,
    /// Something weaker, with a warning.
    pub(crate) warned: u32,
    pub(crate) leaks: u32,
    pub(crate) hangs: u32,
    pub(crate) panics: u32,
    /// A confinement is missing, without a word.
    pub(crate) open: u32,
    /// A failure without one line that says why.
    pub(crate) silent: u32,
    /// Success without its effect, a broken `list`, an id that cannot be used again.
    pub(crate) broken: u32,
    /// Each that is not as it should be, and how to repeat it.
    pub(crate) faults: Vec<String>,
    /// Cleaned ones, and successes: no faults, but to be looked at.
    pub(crate) notes: Vec<String>,
}

/// What was found at one point.
#[derive(Debug, Default)]
struct Finding {
    leaks: Vec<String>,
    hangs: Vec<String>,
    panics: Vec<String>,
    open: Vec<String>,
    silent: Vec<String>,
    broken: Vec<String>,
    left: Vec<String>,
    warnings: Vec<String>,
    has_succeeded: bool,
    /// Init, killed after all had been recorded, has ended like a program.
    has_ended: bool,
    said: String,
}

/// What an undisturbed command leads to.
struct Baseline {
    calls: Vec<Call>,
    fingerprint: Vec<String>,
    again: Vec<String>,
    before: Snapshot,
}

/// Sweeps one command in one config; a line of JSON for each fault.
pub(crate) fn work(choice: &Choice) -> Result<ExitCode> {
    for config in &choice.configs {
        let scene = Scene::new(*config, choice.user)?;
        for op in &choice.ops {
            sweep(&scene, *op, choice).with_context(|| format!("{config} {op}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn sweep(scene: &Scene, op: Op, choice: &Choice) -> Result<()> {
    let is_possible = match op {
        Op::Pause | Op::Resume => scene.has_cgroup(),
        Op::Update => scene.has_controller(),
        _ => true,
    };
    if !is_possible {
        return Ok(());
    }
    let baseline = baseline(scene, op)?;
    for kind in &choice.kinds {
        let mut row =
            Row { config: scene.config.to_string(), op: op.to_string(), fault: kind.to_string(), ..Row::default() };
        let fitting = fitting(&baseline.calls, *kind);
        for call in choice.spread(&fitting, |call| &call.point) {
            let (finding, struck) = point(scene, op, *kind, call, &baseline)
                .with_context(|| format!("{} {op} {kind} at {} {}", scene.config, call.point, call.name))?;
            row.add(&finding, struck.as_ref(), call);
        }
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&row)?)?;
    }
    Ok(())
}

/// The calls that can be disturbed so. A lasting error is much the same at the second call of a name.
fn fitting(calls: &[Call], kind: Kind) -> Vec<Call> {
    let mut seen = Vec::new();
    let is_new = |call: &&Call| {
        let key = (call.point.process.clone(), call.name.clone());
        let is_new = !seen.contains(&key);
        seen.push(key);
        is_new || !matches!(kind, Kind::Always(_))
    };
    calls.iter().filter(|call| kind.fits(call)).filter(is_new).cloned().collect()
}

fn baseline(scene: &Scene, op: Op) -> Result<Baseline> {
    // Makes what stays: the state directory.
    let again = again(scene)?;
    let before = scene.snapshot()?;
    scene.warnings();
    scene.prepare(op)?;
    let trace = traced(scene, op, None)?;
    let mut baseline = Baseline { calls: trace.calls.clone(), fingerprint: Vec::new(), again, before };
    let said = scene.said(&format!("{}.err", name(op)));
    ensure!(trace.status.map(code) == Some(0), "undisturbed: {:?} {said}", trace.status);
    let mut finding = Finding::default();
    effect(scene, op, None, &mut finding)?;
    baseline.fingerprint = printed(scene, op)?;
    ensure!(finding.broken.is_empty(), "undisturbed: {finding:?}");
    aftermath(scene, op, &baseline, &mut finding)?;
    ensure!(finding.is_good(), "undisturbed: {finding:?}");
    Ok(baseline)
}

/// The program's own words, for those commands after which it has spoken.
fn printed(scene: &Scene, op: Op) -> Result<Vec<String>> {
    match op {
        Op::Run | Op::Create | Op::Start | Op::Exec => {
            scene.fingerprint(if op == Op::Exec { "exec" } else { "program" })
        }
        _ => Ok(Vec::new()),
    }
}

/// Where the output of the command goes.
fn name(op: Op) -> &'static str {
    match op {
        Op::Run | Op::Create => "program",
        Op::Exec => "exec",
        _ => "op",
    }
}

fn traced(scene: &Scene, op: Op, fault: Option<(&Point, Kind)>) -> Result<Trace> {
    let init = if op == Op::Start { scene.state()?["pid"].as_i64() } else { None };
    let init = init.and_then(|pid| i32::try_from(pid).ok());
    let mut command = scene.command(&scene.words(op), name(op), true)?;
    trace(&scene.children, &mut command, init, fault, LIMIT)
}

/// The same id, undisturbed: what the program prints.
fn again(scene: &Scene) -> Result<Vec<String>> {
    let bundle = scene.path("all").display().to_string();
    scene.expect(&["run", "--bundle", &bundle, &scene.id], "again")?;
    scene.fingerprint("again")
}

fn point(scene: &Scene, op: Op, kind: Kind, call: &Call, baseline: &Baseline) -> Result<(Finding, Option<Call>)> {
    scene.prepare(op)?;
    scene.warnings();
    let trace = traced(scene, op, Some((&call.point, kind)))?;
    let mut finding = Finding { said: scene.said(&format!("{}.err", name(op))), ..Finding::default() };
    finding.warnings = scene.warnings();
    judge_end(kind, &trace, op, &mut finding);
    let (list, state) = (scene.call(&["list"], "list")?, scene.call(&["state", &scene.id], "state")?);
    if list.status != Some(0) || !list.stderr.is_empty() || !matches!(state.status, Some(0 | 1)) {
        finding.broken.push(format!("list: {list:?} state: {state:?}"));
    }
    if finding.has_succeeded {
        effect(scene, op, Some((baseline, trace.struck.as_ref())), &mut finding)?;
    }
    aftermath(scene, op, baseline, &mut finding)?;
    Ok((finding, trace.struck))
}

/// Hang, crash, and whether a failure says why.
fn judge_end(kind: Kind, trace: &Trace, op: Op, finding: &mut Finding) {
    let said = finding.said.clone();
    let Some(status) = trace.status.map(code) else {
        finding.hangs.push(format!("after {:?}", trace.calls.last().map(|call| (&call.point, &call.name))));
        return;
    };
    if said.contains("panicked")
        || said.contains("bug:")
        || [128 + libc::SIGABRT, 128 + libc::SIGSEGV].contains(&status)
    {
        finding.panics.push(format!("status {status}: {said}"));
    }
    finding.has_succeeded = status == 0;
    let Some(struck) = trace.struck.as_ref().filter(|_| status != 0) else { return };
    // Nobody is left who could say something.
    let is_dead = status == 128 + libc::SIGKILL;
    let is_parent = struck.point.process == "0";
    if is_dead && (matches!(kind, Kind::Parent | Kind::Tree) || (kind == Kind::Caller && is_parent)) {
        return;
    }
    // Init, after the last word: that is the program's own end, as its parent sees it, and the status says so.
    if is_dead && kind == Kind::Caller && matches!(op, Op::Run | Op::Exec) {
        finding.has_ended = true;
        return;
    }
    // The message itself.
    let is_mute = matches!(kind, Kind::Always(_)) || struck.descriptor <= 2;
    if struck.name.starts_with("write") && is_mute && said.is_empty() {
        return;
    }
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("pura: warning:")).collect();
    let [line] = lines.as_slice() else {
        finding.silent.push(format!("status {status}: {} lines: {said}", lines.len()));
        return;
    };
    let is_whole = line.starts_with("pura: cannot ") && line.contains(": ") && line.ends_with(']');
    if !is_whole {
        finding.silent.push(format!("status {status}: {line}"));
    }
}

/// Whether success has the effect that it promises.
fn effect(scene: &Scene, op: Op, disturbed: Option<(&Baseline, Option<&Call>)>, finding: &mut Finding) -> Result<()> {
    let struck = disturbed.and_then(|(_, struck)| struck);
    let id = scene.id.as_str();
    match op {
        Op::Create => {
            let start = scene.call(&["start", id], "op")?;
            // It hit init when `create` was over.
            if struck.is_some_and(|call| call.point.process != "0") && start.stderr.starts_with("pura: cannot ") {
                return Ok(());
            }
            if start.status != Some(0) {
                finding.broken.push(format!("created, but cannot be started: {start:?}"));
                return Ok(());
            }
            ends(scene, finding)?;
        }
        Op::Run | Op::Start => ends(scene, finding)?,
        Op::Kill => {
            if !scene.children.end(Duration::from_secs(2))?.is_empty() {
                finding.broken.push("killed, but alive".to_owned());
            }
        }
        Op::Delete | Op::DeleteForce => {
            if scene.path("state").join(id).exists() {
                finding.broken.push("deleted, but there".to_owned());
            }
        }
        Op::Pause | Op::Resume => {
            let wanted = if op == Op::Pause { "paused" } else { "running" };
            let state = scene.state()?;
            if state["status"] != wanted {
                finding.broken.push(format!("is {}", state["status"]));
            }
        }
        Op::Exec | Op::Update => {}
    }
    let Some((baseline, _)) = disturbed else { return Ok(()) };
    let printed = printed(scene, op)?;
    // Init was killed, before it was the program or after: to `start` that is the same.
    if op == Op::Start && printed.is_empty() && struck.is_some_and(|call| call.point.process != "0") {
        return Ok(());
    }
    let difference = difference(&baseline.fingerprint, &printed);
    if printed == baseline.fingerprint {
        finding.warnings.clear();
    } else if printed.is_empty() {
        finding.broken.push("the program said nothing".to_owned());
    } else if finding.warnings.is_empty() {
        finding.open.push(difference);
    } else {
        finding.left.push(format!("weaker: {difference}"));
    }
    Ok(())
}

/// Waits for the end of the program.
fn ends(scene: &Scene, finding: &mut Finding) -> Result<()> {
    let alive = scene.children.end(LIMIT)?;
    if !alive.is_empty() {
        finding.hangs.push(format!("alive: {alive:?}"));
    }
    Ok(())
}

fn difference(wanted: &[String], found: &[String]) -> String {
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<_>>().join("; ")
    };
    format!("-[{}] +[{}]", only(wanted, found), only(found, wanted))
}

/// What is left, before and after `delete --force`; then the same id again.
fn aftermath(scene: &Scene, op: Op, baseline: &Baseline, finding: &mut Finding) -> Result<()> {
    let pid_file = scene.path("pids/pid");
    // It stays when the program has run.
    if op == Op::Exec || op == Op::Run && (finding.has_ended || !scene.said("program").is_empty()) {
        drop(fs::remove_file(&pid_file));
    }
    if (op.makes() || op.removes()) && !(op == Op::Create && finding.has_succeeded) {
        finding
            .left
            .extend(scene.children.end(Duration::from_millis(100))?.into_iter().map(|name| format!("process {name}")));
        finding.left.extend(scene.snapshot()?.since(&baseline.before));
    }
    let begin = Instant::now();
    let delete = scene.call(&["delete", "--force", &scene.id], "delete")?;
    if delete.status.is_none() {
        finding.hangs.push(format!("delete --force, for {:?}", begin.elapsed()));
    } else if delete.status != Some(0) || !delete.stderr.is_empty() {
        finding.leaks.push(format!("delete --force: {delete:?}"));
    }
    let alive = scene.children.end(Duration::from_secs(2))?;
    finding.leaks.extend(alive.into_iter().map(|name| format!("process {name}")));
    finding.leaks.extend(scene.snapshot()?.since(&baseline.before));
    if !finding.leaks.is_empty() {
        clear(scene)?;
    }
    match again(scene) {
        Ok(again) if again == baseline.again => {}
        Ok(again) => finding.broken.push(format!("again: {}", difference(&baseline.again, &again))),
        Err(error) => finding.broken.push(format!("again: {error:#}")),
    }
    scene.children.end(Duration::from_millis(100))?;
    Ok(())
}

/// Makes room for the next point, whatever pura has left.
fn clear(scene: &Scene) -> Result<()> {
    scene.children.kill_all()?;
    scene.call(&["delete", "--force", &scene.id], "delete")?;
    for dir in ["state", "tmp", "pids"] {
        for entry in fs::read_dir(scene.path(dir))?.flatten() {
            drop(fs::remove_dir_all(entry.path()));
            drop(fs::remove_file(entry.path()));
        }
    }
    Ok(())
}

impl Finding {
    fn is_good(&self) -> bool {
        [&self.leaks, &self.hangs, &self.panics, &self.open, &self.silent, &self.broken]
            .iter()
            .all(|list| list.is_empty())
    }
}

impl Row {
    fn add(&mut self, finding: &Finding, struck: Option<&Call>, call: &Call) {
        self.points += 1;
        self.missed += u32::from(struck.is_none());
        self.succeeded += u32::from(finding.has_succeeded);
        for (sum, list) in [
            (&mut self.leaks, &finding.leaks),
            (&mut self.hangs, &finding.hangs),
            (&mut self.panics, &finding.panics),
            (&mut self.open, &finding.open),
            (&mut self.silent, &finding.silent),
            (&mut self.broken, &finding.broken),
        ] {
            *sum += u32::from(!list.is_empty());
        }
        let name = struck.map_or(&call.name, |call| &call.name);
        let (config, op, fault, point) = (&self.config, &self.op, &self.fault, &call.point);
        let place = format!("{name}: tests/crash --config {config} --op {op} --fault {fault} --at {point}");
        if !finding.is_good() {
            self.faults.push(format!("{place}\n    {finding:?}"));
        }
        if fault == "EINTR" && !finding.has_succeeded {
            self.notes.push(format!("{place}\n    refused: {:?}", finding.said));
        }
        if finding.leaks.is_empty() {
            if finding.left.is_empty() {
                self.clean += 1;
            } else if finding.left.iter().all(|line| line.starts_with("weaker")) {
                self.warned += 1;
            } else {
                self.cleaned += 1;
            }
            if !finding.left.is_empty() {
                self.notes.push(format!(
                    "{place}\n    left {:?} warned {:?} said {:?}",
                    finding.left, finding.warnings, finding.said
                ));
            }
        }
    }
}
