//! Classic BPF: the instructions of a filter, and the one place that knows how far they can jump.

use oci_spec::runtime::{LinuxSeccompArg as Test, LinuxSeccompOperator as Operator};

use super::{
    ACTION, NOTIFY,
    verdicts::{Verdict, Verdicts},
};

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub when_true: u8,
    /// Instructions to skip when it does not.
    pub when_false: u8,
    /// A constant.
    pub constant: u32,
}

impl Instruction {
    /// Whether it ends the program with a question to the seccomp agent.
    pub(super) fn notifies(self) -> bool {
        self.code == RETURN && self.constant & ACTION == NOTIFY
    }
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The highest index of an argument.
pub(crate) const LAST_ARGUMENT: usize = 5;

/// A test of one argument, of which all 64 bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    argument: u32,
    operator: Operator,
    mask: u64,
    value: u64,
}

impl Condition {
    /// A test of the profile. `MASKED_EQ` has its mask in `value` and what is compared in `valueTwo`.
    pub(super) fn of(test: &Test) -> Self {
        let argument = u32::try_from(test.index().min(LAST_ARGUMENT)).unwrap_or(0);
        let (mask, value) = if test.op() == Operator::ScmpCmpMaskedEq {
            // As in libseccomp: bits outside of the mask count on neither side.
            (test.value(), test.value_two().unwrap_or(0) & test.value())
        } else {
            (u64::MAX, test.value())
        };
        Self { argument, operator: test.op(), mask, value }
    }

    /// Whether the lower half of an argument has this value: all of it, on an architecture of 32 bits.
    pub(super) fn low(argument: u32, value: u32) -> Self {
        let operator = Operator::ScmpCmpMaskedEq;
        Self { argument, operator, mask: u64::from(u32::MAX), value: u64::from(value) }
    }
}

/// The furthest that a comparison jumps, less one for a jump that may still come in between.
const REACH: u32 = 254;

/// How far away an instruction that returns is used again instead of being written again.
const NEAR: u32 = 192;

/// A place in the program to go on at: instructions from there to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label(usize);

/// Writes the program for families of architectures, each with the name that the kernel has for it; all others get
/// `otherwise`.
pub(super) fn program(families: &[(u32, Verdicts)], otherwise: u32) -> Vec<Instruction> {
    let mut writer = Writer::default();
    let mut next = writer.returns(otherwise);
    let mut heads = Vec::with_capacity(families.len());
    for (audit, verdicts) in families.iter().rev() {
        let search = writer.search(verdicts.ranges());
        writer.fall(search);
        heads.push((audit, writer.plain(LOAD, NUMBER)));
    }
    for (audit, head) in heads {
        next = writer.compare(EQUAL, *audit, head, next);
    }
    writer.fall(next);
    writer.plain(LOAD, ARCHITECTURE);
    writer.reversed.reverse();
    writer.reversed
}

/// A program that is being written, from its end: jumps only lead forward, so that whatever one leads to is there before
/// it, and how far away is known.
#[derive(Default)]
struct Writer<'a> {
    reversed: Vec<Instruction>,
    /// Where a value is returned, the nearest place for each.
    returns: Vec<(u32, Label)>,
    /// Verdicts with cases that have been written; x32 has those of `x86_64` again.
    cases: Vec<(&'a Verdict, Label)>,
}

impl<'a> Writer<'a> {
    fn plain(&mut self, code: u16, constant: u32) -> Label {
        self.push(Instruction { code, when_true: 0, when_false: 0, constant })
    }

    fn push(&mut self, instruction: Instruction) -> Label {
        self.reversed.push(instruction);
        Label(self.reversed.len())
    }

    /// Instructions between a place and the one that is written next.
    fn distance(&self, to: Label) -> u32 {
        u32::try_from(self.reversed.len() - to.0).unwrap_or(u32::MAX)
    }

    /// Lets what is written next go on there.
    fn fall(&mut self, to: Label) {
        if self.distance(to) > 0 {
            self.plain(JUMP, self.distance(to));
        }
    }

    /// A place within reach from where it goes on there.
    fn near(&mut self, to: Label) -> Label {
        let distance = self.distance(to);
        if distance > REACH { self.plain(JUMP, distance) } else { to }
    }

    fn compare(&mut self, code: u16, constant: u32, when_true: Label, when_false: Label) -> Label {
        let (when_true, when_false) = (self.near(when_true), self.near(when_false));
        let [when_true, when_false] =
            [when_true, when_false].map(|label| u8::try_from(self.distance(label)).unwrap_or(u8::MAX));
        self.push(Instruction { code, when_true, when_false, constant })
    }

    /// Finds the range of the number by halving. Depth: the logarithm of their count.
    fn search(&mut self, ranges: &'a [(u32, Verdict)]) -> Label {
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        match (lower, upper) {
            ([], [(_, verdict), ..]) => self.verdict(verdict),
            (_, [(start, _), ..]) => {
                let (upper, lower) = (self.search(upper), self.search(lower));
                self.compare(GREATER_EQUAL, *start, upper, lower)
            }
            (_, []) => Label(self.reversed.len()),
        }
    }

    fn verdict(&mut self, verdict: &'a Verdict) -> Label {
        let (cases, otherwise) = match verdict {
            Verdict::Return(value) => return self.returns(*value),
            Verdict::Cases { cases, otherwise } => (cases, otherwise),
        };
        if let Some((_, label)) = self.cases.iter().find(|(known, _)| *known == verdict) {
            return *label;
        }
        let mut next = self.returns(*otherwise);
        for (conditions, value) in cases.iter().rev() {
            let (holds, fails) = (self.returns(*value), next);
            next = conditions.iter().rev().fold(holds, |passes, condition| self.condition(condition, passes, fails));
        }
        self.cases.push((verdict, next));
        next
    }

    fn returns(&mut self, value: u32) -> Label {
        let known = self.returns.iter().position(|(known, _)| *known == value);
        let label = known.and_then(|at| self.returns.get(at)).map(|(_, label)| *label);
        if let Some(label) = label.filter(|label| self.distance(*label) <= NEAR) {
            return label;
        }
        let label = self.plain(RETURN, value);
        if let Some(at) = known {
            self.returns.swap_remove(at);
        }
        self.returns.push((value, label));
        label
    }

    /// Tests one argument, and where to go on when it holds and when it does not.
    fn condition(&mut self, condition: &Condition, passes: Label, fails: Label) -> Label {
        let (high, low) = (half(condition.value >> 32), half(condition.value));
        let masks = (half(condition.mask >> 32), half(condition.mask));
        let at = ARGUMENTS + 8 * condition.argument;
        // What the comparison that classic BPF has for it says: yes or no.
        let (code, yes, no) = match condition.operator {
            Operator::ScmpCmpEq | Operator::ScmpCmpMaskedEq => (EQUAL, passes, fails),
            Operator::ScmpCmpNe => (EQUAL, fails, passes),
            Operator::ScmpCmpGt => (GREATER, passes, fails),
            Operator::ScmpCmpGe => (GREATER_EQUAL, passes, fails),
            Operator::ScmpCmpLt => (GREATER_EQUAL, fails, passes),
            Operator::ScmpCmpLe => (GREATER, fails, passes),
        };
        let mut label = yes;
        if masks.1 != 0 {
            self.compare(code, low, yes, no);
            label = self.half(at, masks.1);
        }
        // The upper half decides unless it is equal.
        if masks.0 != 0 {
            let equal = self.compare(EQUAL, high, label, no);
            if code != EQUAL {
                self.compare(GREATER, high, yes, equal);
            }
            label = self.half(at + 4, masks.0);
        }
        label
    }

    /// Loads half an argument: both machines store the lower half first.
    fn half(&mut self, at: u32, mask: u32) -> Label {
        if mask != u32::MAX {
            self.plain(AND, mask);
        }
        self.plain(LOAD, at)
    }
}

fn half(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}
