//! Many at once on the same ids: each gets one of the answers that are right, and nothing is left.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, thread::scope, time::Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{Bundle, Outcome, eventually, judged, own_cgroup};

/// Containers that all clients use, and clients.
const IDS: [&str; 4] = ["a", "b", "c", "d"];
const CLIENTS: u64 = 8;

/// The container that is there all the time.
const STEADY: &str = "steady";

/// How often each client calls, unless `PURA_STORM` says so.
const CALLS: u64 = 40;

/// What a client may call, how often of a hundred, and the codes with which it may fail while others do the same. Besides
/// success, of course; a verb that is not named here fails never.
const VERBS: [(&[&str], u64, &[u32]); 11] = [
    // The id is in use, or left over.
    (&["create"], 22, &[705, 730]),
    // Absent, stopped meanwhile, of another status, or its creator is at work.
    (&["start"], 20, &[703, 706, 707, 709]),
    (&["kill", "KILL"], 6, &[703, 706]),
    (&["kill", "TERM"], 6, &[703, 706]),
    // Absent, running, or not finished: one whose creation was only begun needs force.
    (&["delete"], 8, &[703, 708, 709, 711, 730]),
    (&["delete", "--force"], 8, &[]),
    // Absent, or without a process; what a KILL ends has its status.
    (&["exec"], 10, &[703, 612]),
    (&["state"], 10, &[703, 711]),
    (&["list"], 6, &[]),
    (&["pause"], 2, &[703, 707, 612, 461, 709]),
    (&["resume"], 2, &[703, 707, 612, 461, 709]),
];

/// Numbers without a pattern, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn of_64_simultaneous_creates_of_one_id_one_succeeds_and_the_others_say_that_it_exists() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    for _ in 0..2 {
        let mut calls = Vec::new();
        for _ in 0..64 {
            calls.push(bundle.pura(&["create", "c1", "--bundle"]).args(&[bundle.path("bundle")]).spawn()?);
        }
        let mut created = 0;
        for call in &mut calls {
            let outcome = call.wait()?;
            if outcome.status.success() {
                created += 1;
            } else {
                outcome.fails_with_any(1, &[705, 730], &["\"c1\"", "already exists"])?;
            }
        }
        assert_eq!((created, bundle.status()?.as_str()), (1, "created"));
        bundle.verb("start")?.succeeds_silently()?;
        bundle.delete()?;
        bundle.is_clean()?;
        no_cgroup_of(&bundle)?;
    }
    Ok(())
}

#[test]
fn eight_clients_on_four_ids_get_right_answers_only_and_leave_nothing() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    let path = bundle.path("bundle").display().to_string();
    bundle.pura(&["create", "-b", &path, STEADY]).output()?.succeeds_silently()?;
    let calls = std::env::var("PURA_STORM").ok().and_then(|calls| calls.parse().ok()).unwrap_or(CALLS);
    let client = |seed: u64| -> Result<Vec<String>> {
        let mut dice = Dice(seed);
        let mut answers = Vec::new();
        for _ in 0..calls {
            let id = IDS[usize::try_from(dice.below(4))?];
            let (words, codes) = chosen(dice.below(100));
            let begin = Instant::now();
            let answer = ask(&bundle, &path, words, id, codes)?;
            ensure!(begin.elapsed().as_secs() < 30, "{words:?} took {:?}", begin.elapsed());
            answers.push(format!("{}: {answer}", words.join(" ")));
        }
        Ok(answers)
    };
    let ended: Vec<Result<Vec<String>>> = scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|seed| scope.spawn(move || client(seed))).collect();
        clients.into_iter().map(|client| client.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panic")))).collect()
    });
    let answers = judged(ended.into_iter().collect::<Result<Vec<_>>>())?;
    let mut counts = BTreeMap::new();
    answers.iter().flatten().for_each(|answer| *counts.entry(answer).or_insert(0_u32) += 1);
    println!("{counts:#?}");
    for id in IDS {
        bundle.pura(&["delete", "--force", id]).output()?.succeeds_silently()?;
        bundle.pura(&["state", id]).output()?.fails(1, 703, &["does not exist"])?;
    }
    assert_eq!(listed(&bundle.pura(&["list", "--format", "json"]).output()?)?, [STEADY]);
    bundle.pura(&["delete", STEADY]).output()?.succeeds_silently()?;
    bundle.is_clean()?;
    no_cgroup_of(&bundle)
}

/// The verb for a number below a hundred.
fn chosen(mut number: u64) -> (&'static [&'static str], &'static [u32]) {
    for (words, share, codes) in VERBS {
        if number < share {
            return (words, codes);
        }
        number -= share;
    }
    (&["list"], &[])
}

/// Calls a verb, insists on a right answer, and tells which it was.
fn ask(bundle: &Bundle, path: &str, words: &[&str], id: &str, codes: &[u32]) -> Result<String> {
    let (verb, rest) = words.split_first().context("a verb")?;
    let (status, all) = match *verb {
        "create" => (1, vec!["create", "-b", path, id]),
        "exec" => (125, vec!["exec", id, "/bin/pura-probe", "true"]),
        "list" => (1, vec!["list", "--format", "json"]),
        "kill" => (1, [&["kill", id], rest].concat()),
        _ => (1, [words, &[id]].concat()),
    };
    let outcome = bundle.pura(&all).output()?;
    match *verb {
        "list" => {
            let ids = listed(&outcome)?;
            ensure!(ids.iter().any(|id| id == STEADY), "the list lacks {STEADY}: {outcome:?}");
        }
        "state" if outcome.status.success() => {
            let state: Value = serde_json::from_str(outcome.succeeds()?)?;
            ensure!(state["id"] == id, "another container's state: {outcome:?}");
        }
        // Its program has been killed, with the container.
        "exec" if outcome.code() == 137 => return Ok("137".to_owned()),
        // Somebody else may have started it already, and it has the same output.
        "create" if outcome.status.success() => drop(outcome.succeeds()?),
        _ if outcome.status.success() => outcome.succeeds_silently()?,
        _ => {}
    }
    if outcome.status.success() {
        return Ok("0".to_owned());
    }
    let line = outcome.fails_with_any(status, codes, &[])?;
    ensure!(*verb != "create" || line.contains("already exists"), "{line}");
    Ok(line.rsplit_once(" [").map_or(line, |(_, code)| code).to_owned())
}

/// The ids of a list in JSON.
fn listed(outcome: &Outcome) -> Result<Vec<String>> {
    let list: Vec<Value> = serde_json::from_str(outcome.succeeds()?).with_context(|| format!("{outcome:?}"))?;
    Ok(list.iter().filter_map(|state| state["id"].as_str()).map(str::to_owned).collect())
}

/// Insists that no cgroup has the name of a container of this state directory.
pub(crate) fn no_cgroup_of(bundle: &Bundle) -> Result<()> {
    let Some(above) = own_cgroup().ok().and_then(|own| Some(own.parent()?.to_owned())) else { return Ok(()) };
    let mark = format!(".{:x}", fs::metadata(bundle.path("state"))?.ino());
    let names = fs::read_dir(above)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let left: Vec<String> = names.filter(|name| name.ends_with(&mark)).collect();
    judged(left.is_empty().then_some(()).with_context(|| format!("cgroups are left: {left:?}")))
}

#[test]
fn a_create_whose_claim_a_delete_with_force_takes_away_claims_the_id_again() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["sleep"])?;
    // Between the directory and its lock.
    let slowly =
        ["strace", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:delay_enter=1000000:when=1"];
    let mut create = bundle.through(&slowly, &bundle.with_bundle("create", &["c1"])?).spawn()?;
    eventually("the claim", || Ok(bundle.path("state/c1").exists()))?;
    bundle.delete()?;
    create.wait()?.succeeds_silently()?;
    assert_eq!(bundle.status()?, "created");
    bundle.delete()
}

#[test]
fn a_hundred_containers_at_once_live_side_by_side() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    let path = bundle.path("bundle").display().to_string();
    let ids: Vec<String> = (0..100).map(|number| format!("c{number}")).collect();
    for words in [&["create", "-b", &path][..], &["start"], &["kill", "--all"], &["delete", "--force"]] {
        let each = |half: &[String]| -> Result<()> {
            half.iter().try_for_each(|id| bundle.pura(&[words, &[id]].concat()).output()?.succeeds_silently())
        };
        let done: Vec<_> = scope(|scope| {
            let halves: Vec<_> = ids.chunks(25).map(|half| scope.spawn(move || each(half))).collect();
            halves.into_iter().map(|half| half.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panic")))).collect()
        });
        judged(done.into_iter().collect::<Result<()>>())?;
        let count = listed(&bundle.pura(&["list", "--format", "json"]).output()?)?.len();
        assert_eq!(count, if words[0] == "delete" { 0 } else { 100 }, "{words:?}");
    }
    bundle.is_clean()?;
    no_cgroup_of(&bundle)
}
