//! Fuzzing: generated input for all that reads bytes of somebody else's, judged by what no input may cause. The targets
//! call internals, so this is a module of the library's unit tests; no privilege is needed, and nothing is made but files
//! in a temporary directory.
//!
//! As a part of `cargo test --lib` each target takes a fixed number of inputs from a fixed seed. `tests/fuzz/run` goes on for
//! as long as it is told, in a build that counts edges: what reaches a new one is mutated further.
#![allow(clippy::wildcard_enum_match_arm, reason = "what has no rule of its own is passed over")]
#![allow(clippy::shadow_unrelated, reason = "the same thing, read twice, has one name")]

mod corpus;
mod coverage;
mod lists;
mod mutation;
mod random;
mod seccomp;
mod targets;
mod tree;

use std::{
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

use corpus::Corpus;
use coverage::Coverage;
use random::Random;

/// What a target says of an input that breaks a rule.
type Verdict = Result<(), String>;

/// The seed, unless `PURA_FUZZ_SEED` gives another.
const SEED: u64 = 88_172_645_463_325_252;

/// Larger inputs are not made: what takes long has to be small.
const LARGEST: usize = 64 << 10;

/// Time that a thread may compute for one input; half of it is enough for an optimised build.
const LIMIT: Duration = Duration::from_secs(1);

/// Resident memory of the whole process, in KiB.
const MEMORY: i64 = 512 << 10;

/// A whole line for people.
const LONGEST_LINE: usize = 16 << 10;

/// One thing that reads what others wrote.
struct Target {
    name: &'static str,
    /// How many inputs `cargo test` takes.
    inputs: u64,
    /// How mutated inputs are made of the corpus.
    mutate: fn(&Corpus, &mut Random) -> Vec<u8>,
    judge: fn(&[u8]) -> Verdict,
}

/// What is told of a run.
#[derive(Default)]
struct Figures {
    inputs: u64,
    found: u64,
    slowest: Duration,
}

/// A line for people: one, printable, and of a length that can be read.
fn is_one_line(text: &str) -> Verdict {
    if text.chars().any(char::is_control) {
        return Err(format!("control characters in {text:?}"));
    }
    if text.len() > LONGEST_LINE { Err(format!("a line of {} bytes", text.len())) } else { Ok(()) }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Time that this thread has computed: other programs must not make an input slow.
fn computed() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let part = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec().try_into().unwrap())
            + Duration::from_micros(time.tv_usec().try_into().unwrap())
    };
    part(usage.user_time()) + part(usage.system_time())
}

/// Judges one input; what panics, takes long or takes memory breaks a rule whatever it is.
fn judge(target: &Target, input: &[u8], figures: &mut Figures) -> Verdict {
    let before = computed();
    let judged = panic::catch_unwind(AssertUnwindSafe(|| (target.judge)(input)));
    let taken = computed().saturating_sub(before);
    figures.slowest = figures.slowest.max(taken);
    judged.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!(
            "panic: {}",
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        ))
    })?;
    if taken > LIMIT {
        return Err(format!("took {taken:?}"));
    }
    let resident = getrusage(UsageWho::RUSAGE_SELF).unwrap().max_rss();
    if resident > MEMORY { Err(format!("{resident} KiB of memory")) } else { Ok(()) }
}

/// Ends the process when one input has been at work for a minute: a loop without end is not seen from within.
#[expect(clippy::disallowed_methods, reason = "a test, and nothing is cloned here")]
fn watch(name: &'static str) {
    std::thread::spawn(move || {
        let seen = || (AT.load(Ordering::Relaxed), ALL.load(Ordering::Relaxed));
        let mut last = seen();
        loop {
            std::thread::sleep(Duration::from_mins(1));
            let now = seen();
            if now == last && now.0 != 0 {
                eprintln!("{name}, or a later target: input {} takes more than a minute", now.0);
                std::process::abort();
            }
            last = now;
        }
    });
}

/// The number of the input at work; 0 for none.
static AT: AtomicU64 = AtomicU64::new(0);

/// How many inputs all targets have begun: their numbers alone begin anew with each target.
static ALL: AtomicU64 = AtomicU64::new(0);

/// All inputs of a target: the corpus as it is, then mutations of it.
fn fuzz(target: &Target, seeds: Vec<Vec<u8>>) {
    let seed = number("PURA_FUZZ_SEED").unwrap_or(SEED);
    let seconds = number("PURA_FUZZ_SECONDS").map(Duration::from_secs);
    let only = number("PURA_FUZZ_INPUT");
    if seconds.is_some() {
        watch(target.name);
    }
    let (start, mut figures, mut coverage) = (Instant::now(), Figures::default(), Coverage::default());
    let (mut corpus, first) = (Corpus::default(), seeds.len() as u64);
    corpus.seeds = seeds.len();
    let mut unjudged = seeds.into_iter();
    let is_over = |figures: &Figures| match seconds {
        Some(seconds) => start.elapsed() > seconds,
        None => figures.inputs >= first + target.inputs,
    };
    while !is_over(&figures) {
        // A generator of its own for each input, so that one can be had again without those before it.
        let mut random = Random::new(seed, figures.inputs);
        let (input, is_seed) = match unjudged.next() {
            Some(seed) => (seed, true),
            None => ((target.mutate)(&corpus, &mut random), false),
        };
        let input = if input.len() > LARGEST && !is_seed { input[..LARGEST].to_vec() } else { input };
        AT.store(figures.inputs + 1, Ordering::Relaxed);
        ALL.fetch_add(1, Ordering::Relaxed);
        if only.is_some_and(|only| only == figures.inputs) {
            eprintln!("{}", String::from_utf8_lossy(&input));
        }
        coverage.clear();
        if let Err(why) = judge(target, &input, &mut figures) {
            figures.found += 1;
            let shown = String::from_utf8_lossy(&input[..input.len().min(4000)]).into_owned();
            eprintln!("{} seed {seed} input {}: {why}\n{shown}\n{input:?}\n", target.name, figures.inputs);
            assert!(seconds.is_some() && figures.found < 20, "{} broke a rule: {why}", target.name);
        }
        if coverage.is_new() || is_seed {
            corpus.inputs.push(input);
        }
        figures.inputs += 1;
    }
    AT.store(0, Ordering::Relaxed);
    eprintln!(
        "{}: seed {seed}, {} inputs in {:.0?}, {} findings, {} edges, corpus {} of which {first} given, slowest {:?}",
        target.name,
        figures.inputs,
        start.elapsed(),
        figures.found,
        coverage.edges(),
        corpus.inputs.len(),
        figures.slowest,
    );
    assert_eq!(figures.found, 0, "{}", target.name);
}
