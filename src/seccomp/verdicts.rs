//! What each system call number gets: ranges of numbers, each with one verdict.

use oci_spec::runtime::{LinuxSeccompArg as Test, LinuxSyscall as Rule};

use super::{
    ACTION, ALLOW, ERRNO, KILL_PROCESS, LOG, NOTIFY,
    abi::{Abi, Call, Machine, X32_BIT, X32_ONLY},
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

    /// With success and no effect for what would be let through.
    fn answered(mut self) -> Self {
        let answer = |value: &mut u32| {
            if [ALLOW, LOG].contains(&(*value & ACTION)) {
                *value = ERRNO;
            }
        };
        match &mut self {
            Self::Return(value) => answer(value),
            Self::Cases { cases, otherwise } => {
                for (_, value) in cases {
                    answer(value);
                }
                answer(otherwise);
            }
        }
        self
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
    pub(super) fn new(abis: &[Abi], rules: &Rules<'_>, default: u32) -> Self {
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

    fn add(&mut self, abi: Abi, rules: &Rules<'_>, default: u32) {
        let (calls, base) = (abi.calls(), abi.base());
        let ordinary = calls.iter().rev().filter(|call| abi.is_ordinary(call.number));
        let highest = ordinary.filter(|call| rules.name(**call)).map(|call| call.number).next();
        let unnamed = |number: u32| {
            let is_new = abi.is_ordinary(number) && highest.is_none_or(|highest| number > highest);
            // A call that is newer than the profile: programs know to do without it when the kernel does not have it.
            if default & ACTION == ERRNO && (is_new || number == base + CLONE3) { enosys() } else { default }
        };
        // Where what an unnamed call gets may change.
        let x32 = if abi == Abi::X32 { [base + X32_ONLY.start, base + X32_ONLY.end] } else { [base; 2] };
        let mut turns = [base + CLONE3, base + CLONE3 + 1, highest.map_or(base, |highest| highest + 1), x32[0], x32[1]];
        turns.sort_unstable();
        let mut start = base;
        let mut gap = |verdicts: &mut Self, end: u32| {
            if start < end {
                let turns = turns.iter().filter(|turn| (start + 1..end).contains(turn));
                for at in std::iter::once(&start).chain(turns) {
                    verdicts.push(*at, Verdict::Return(unnamed(*at)));
                }
            }
            start = end.saturating_add(1);
        };
        let mut named = Vec::new();
        for same in calls.chunk_by(|one, next| one.number == next.number) {
            // Of most calls a profile such as that of root emulation says nothing.
            if !same.iter().any(|call| rules.touches(*call)) {
                continue;
            }
            named.clear();
            rules.of(same, &mut named);
            let is_answered = same.iter().any(|call| rules.answers(*call));
            if let (Some(call), true) = (same.first(), is_answered || !named.is_empty()) {
                gap(self, call.number);
                let verdict = decide(&named, if named.is_empty() { unnamed(call.number) } else { default });
                self.push(call.number, if is_answered { verdict.answered() } else { verdict });
            }
        }
        gap(self, NONE);
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

/// The position of a rule that names a number, the rule, and for a multiplexed call its selector.
type Named<'a> = (usize, &'a Rule, Option<Condition>);

/// The rules of a profile, by the calls that they name.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    listed: &'a [Rule],
    /// The first mention of each name of the machine.
    first: Vec<Option<usize>>,
    /// The position of a rule, and the next mention of the same name.
    mentions: Vec<(usize, Option<usize>)>,
    /// For each name of the machine, whether its call is answered instead of made.
    answered: Vec<bool>,
    /// For each name of the machine, whether it is mentioned or answered.
    touched: Vec<bool>,
    /// Names that the machine does not know, in the order of the profile.
    pub(super) unknown: Vec<String>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(rules: &'a [Rule], machine: Machine, answered: &[&str]) -> Self {
        let table = machine.table();
        let mentions = Vec::with_capacity(512);
        let none = || vec![false; table.names()];
        let first = vec![None; table.names()];
        let (answers, touches) = (none(), none());
        let mut index =
            Self { listed: rules, first, mentions, answered: answers, touched: touches, unknown: Vec::new() };
        for name in answered.iter().filter_map(|name| table.find(name)).map(usize::from) {
            for flags in [&mut index.answered, &mut index.touched] {
                flags.get_mut(name).into_iter().for_each(|flag| *flag = true);
            }
        }
        // From the end, so that each mention leads to the next one.
        for (at, rule) in rules.iter().enumerate().rev() {
            for name in rule.names().iter().rev() {
                let known = table.find(name).map(usize::from);
                let slot = known.and_then(|known| Some((index.first.get_mut(known)?, index.touched.get_mut(known)?)));
                let Some((mention, is_touched)) = slot else {
                    index.unknown.push(name.clone());
                    continue;
                };
                *is_touched = true;
                let next = mention.replace(index.mentions.len());
                index.mentions.push((at, next));
            }
        }
        index.unknown.reverse();
        index
    }

    fn first(&self, call: Call) -> Option<usize> {
        self.first.get(usize::from(call.name)).copied().flatten()
    }

    fn touches(&self, call: Call) -> bool {
        self.touched.get(usize::from(call.name)).copied().unwrap_or(false)
    }

    /// Whether a call is answered instead of made.
    fn answers(&self, call: Call) -> bool {
        self.answered.get(usize::from(call.name)).copied().unwrap_or(false)
    }

    /// Whether any rule names a call.
    fn name(&self, call: Call) -> bool {
        self.first(call).is_some()
    }

    /// Adds the rules that name calls of one number, in the order of the profile.
    fn of(&self, calls: &[Call], named: &mut Vec<Named<'a>>) {
        for call in calls {
            let selector = call.selector().map(|selector| Condition::low(0, selector));
            let mut next = self.first(*call);
            while let Some((at, following)) = next.and_then(|next| self.mentions.get(next)) {
                next = *following;
                // Arguments of a multiplexed call are in memory, where a filter cannot look.
                let fits = |rule: &&Rule| selector.is_none() || rule.args().as_ref().is_none_or(Vec::is_empty);
                named.extend(self.listed.get(*at).filter(fits).map(|rule| (*at, rule, selector)));
            }
        }
        // Those of one name are in order already.
        if calls.len() > 1 {
            named.sort_by_key(|(at, _, _)| *at);
        }
    }
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
