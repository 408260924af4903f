//! What each system call number gets: ranges of numbers, each with one verdict.

use oci_spec::runtime::{LinuxSeccompArg as Test, LinuxSyscall as Rule};

use super::{
    ACTION, ALLOW, ERRNO, KILL_PROCESS, LOG, NOTIFY,
    abi::{Abi, X32_BIT, X32_ONLY},
    bpf::Condition,
    returned,
};

/// glibc's `clone` falls back from clone3 on ENOSYS only.
const CLONE3: u32 = 435;

/// No call: what a tracer sets to have one skipped, and what must not be taken for one of x32.
const NONE: u32 = u32::MAX;

/// What a number gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// `SECCOMP_RET_*`.
    Return(u32),
    /// The first case that matches decides.
    Cases {
        /// Conditions that must all hold, and what is returned then.
        cases: Vec<(Vec<Condition>, u32)>,
        /// What is returned when none matches.
        otherwise: u32,
    },
}

impl Verdict {
    /// Whether a call may be made, with some arguments at least.
    pub(super) fn passes(&self) -> bool {
        self.has(&[ALLOW, LOG])
    }

    /// Whether a call waits for the seccomp agent, with some arguments at least.
    pub(super) fn notifies(&self) -> bool {
        self.has(&[NOTIFY])
    }

    fn has(&self, actions: &[u32]) -> bool {
        let is_one = |value: u32| actions.contains(&(value & ACTION));
        match self {
            Self::Return(value) => is_one(*value),
            Self::Cases { cases, otherwise } => is_one(*otherwise) || cases.iter().any(|(_, value)| is_one(*value)),
        }
    }
}

/// Ranges, by their first number; the first one starts at 0, and no two neighbours are alike.
#[derive(Debug, Default)]
pub(super) struct Verdicts(Vec<(u32, Verdict)>);

impl Verdicts {
    /// The verdicts of architectures whose numbers share a space, in the order of their numbers.
    pub(super) fn new(abis: &[Abi], rules: &[Rule], default: u32) -> Self {
        let mut verdicts = Self::default();
        for abi in abis {
            verdicts.add(*abi, rules, default);
        }
        if abis == [Abi::X86_64] {
            // x32 is left out. It must not be reached through the numbers of x86_64.
            verdicts.push(X32_BIT, Verdict::Return(KILL_PROCESS));
            verdicts.push(NONE, Verdict::Return(if default & ACTION == ERRNO { enosys() } else { default }));
        }
        verdicts
    }

    fn add(&mut self, abi: Abi, rules: &[Rule], default: u32) {
        let named = named(abi, rules);
        let highest = named.iter().map(|(number, _, _)| *number).filter(|number| abi.is_ordinary(*number)).max();
        let base = abi.base();
        let unnamed = |number: u32| {
            let is_new = abi.is_ordinary(number) && highest.is_none_or(|highest| number > highest);
            // A call that is newer than the profile: programs know to do without it when the kernel does not have it.
            if default & ACTION == ERRNO && (is_new || number == base + CLONE3) { enosys() } else { default }
        };
        // Where a verdict may begin.
        let mut starts = vec![base, base + CLONE3, base + CLONE3 + 1];
        starts.extend(highest.map(|highest| highest + 1));
        starts.extend(named.iter().flat_map(|(number, _, _)| [*number, *number + 1]));
        if abi == Abi::X32 {
            starts.extend([base + X32_ONLY.start, base + X32_ONLY.end]);
        }
        starts.sort_unstable();
        starts.dedup();
        let mut rest = named.as_slice();
        for start in starts {
            let (of_start, others) = rest.split_at(rest.iter().take_while(|(number, _, _)| *number == start).count());
            rest = others;
            let verdict = if of_start.is_empty() { Verdict::Return(unnamed(start)) } else { decide(of_start, default) };
            self.push(start, verdict);
        }
    }

    fn push(&mut self, start: u32, verdict: Verdict) {
        if self.0.last().is_none_or(|(_, last)| *last != verdict) {
            self.0.push((start, verdict));
        }
    }

    pub(super) fn ranges(&self) -> &[(u32, Verdict)] {
        &self.0
    }

    pub(super) fn at(&self, number: u32) -> Option<&Verdict> {
        let behind = self.0.partition_point(|(start, _)| *start <= number);
        self.0.get(behind.checked_sub(1)?).map(|(_, verdict)| verdict)
    }
}

/// Nobody gets to know more than that the kernel is older.
fn enosys() -> u32 {
    ERRNO | libc::ENOSYS.unsigned_abs()
}

/// A number, the rule that names it, and for a multiplexed call its selector.
type Named<'a> = (u32, &'a Rule, Option<Condition>);

/// All numbers that rules name, sorted, and of one number in the order of the rules.
fn named(abi: Abi, rules: &[Rule]) -> Vec<Named<'_>> {
    let mut named = Vec::with_capacity(512);
    for rule in rules {
        // Arguments of a multiplexed call are in memory, where a filter cannot look.
        let is_plain = rule.args().as_ref().is_none_or(Vec::is_empty);
        for name in rule.names() {
            named.extend(abi.number(name).map(|number| (number, rule, None)));
            if let Some((through, selector)) = abi.multiplexed(name).filter(|_| is_plain) {
                named.extend(abi.number(through).map(|number| (number, rule, Some(Condition::low(0, selector)))));
            }
        }
    }
    named.sort_by_key(|(number, _, _)| *number);
    named
}

/// The verdict of one number: the first rule that matches, in the order of the profile.
fn decide(named: &[Named<'_>], default: u32) -> Verdict {
    let (mut cases, mut otherwise) = (Vec::new(), default);
    for (_, rule, selector) in named {
        let value = returned(rule.action(), rule.errno_ret());
        let tests = rule.args().as_deref().unwrap_or_default();
        if let Some(selector) = selector {
            cases.push((vec![*selector], value));
        } else if tests.is_empty() {
            otherwise = value;
            break;
        } else if is_repeated(tests) {
            cases.extend(tests.iter().map(|test| (vec![Condition::of(test)], value)));
        } else {
            cases.push((tests.iter().map(Condition::of).collect(), value));
        }
    }
    // Without effect at the end: what follows returns the same.
    while cases.last().is_some_and(|(_, value)| *value == otherwise) {
        cases.pop();
    }
    if cases.is_empty() { Verdict::Return(otherwise) } else { Verdict::Cases { cases, otherwise } }
}

/// Whether a rule names an argument twice: then its tests are alternatives, as engines expect; otherwise all must hold.
fn is_repeated(tests: &[Test]) -> bool {
    tests.iter().enumerate().any(|(at, test)| tests.iter().take(at).any(|other| other.index() == test.index()))
}
