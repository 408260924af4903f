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

/// Where a comparison goes on.
#[derive(Clone, Copy, PartialEq)]
enum Goal {
    Next,
    Pass,
    Fail,
}

/// A program that is being written.
#[derive(Default)]
pub(super) struct Writer(Vec<Instruction>);

impl Writer {
    /// Adds what is done for the architectures that the kernel calls `audit`.
    pub(super) fn family(&mut self, audit: u32, verdicts: &Verdicts) {
        if self.0.is_empty() {
            self.plain(LOAD, ARCHITECTURE);
        }
        self.0.push(Instruction { code: EQUAL, when_true: 1, when_false: 0, constant: audit });
        let jump = self.0.len();
        self.plain(JUMP, 0);
        self.plain(LOAD, NUMBER);
        self.search(verdicts.ranges());
        let distance = self.distance(jump);
        if let Some(jump) = self.0.get_mut(jump) {
            jump.constant = distance;
        }
    }

    /// Ends with what all other architectures get.
    pub(super) fn finish(mut self, value: u32) -> Vec<Instruction> {
        self.plain(RETURN, value);
        self.0
    }

    fn plain(&mut self, code: u16, constant: u32) {
        self.0.push(Instruction { code, when_true: 0, when_false: 0, constant });
    }

    /// Instructions behind the one at `at`.
    fn distance(&self, at: usize) -> u32 {
        u32::try_from(self.0.len() - at - 1).unwrap_or(u32::MAX)
    }

    /// Finds the range of the number by halving. Depth: the logarithm of their count.
    fn search(&mut self, ranges: &[(u32, Verdict)]) {
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        match (lower, upper) {
            ([], [(_, verdict), ..]) => self.verdict(verdict),
            (_, [(start, _), ..]) => {
                let at = self.0.len();
                self.plain(GREATER_EQUAL, *start);
                self.search(lower);
                self.jump_behind(at);
                self.search(upper);
            }
            (_, []) => {}
        }
    }

    /// Lets the comparison at `at` go on at the end, when it holds.
    fn jump_behind(&mut self, at: usize) {
        let distance = self.distance(at);
        let near = u8::try_from(distance).ok();
        if let Some(comparison) = self.0.get_mut(at) {
            (comparison.when_true, comparison.when_false) = near.map_or((0, 1), |near| (near, 0));
        }
        if near.is_none() {
            // Too far for a comparison. What moves has no jump across here: both ends of each are on the same side.
            let jump = Instruction { code: JUMP, when_true: 0, when_false: 0, constant: distance };
            self.0.insert(at + 1, jump);
        }
    }

    fn verdict(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Return(value) => self.plain(RETURN, *value),
            Verdict::Cases { cases, otherwise } => {
                for (conditions, value) in cases {
                    self.case(conditions, *value);
                }
                self.plain(RETURN, *otherwise);
            }
        }
    }

    /// Returns `value` when all conditions hold, and goes on behind otherwise. Six conditions of seven instructions are
    /// within the reach of a comparison; the specification has no more arguments.
    fn case(&mut self, conditions: &[Condition], value: u32) {
        let mut fails = Vec::with_capacity(2 * conditions.len());
        for condition in conditions {
            self.condition(condition, &mut fails);
        }
        self.plain(RETURN, value);
        for (at, on_true) in fails {
            self.aim(at, on_true);
        }
    }

    /// Tests one argument: goes on behind when it holds, and notes the jumps to be taken when it does not.
    fn condition(&mut self, condition: &Condition, fails: &mut Vec<(usize, bool)>) {
        use Goal::{Fail, Next, Pass};
        let mut passes = Vec::new();
        let (high, low) = (half(condition.value >> 32), half(condition.value));
        let masks = (half(condition.mask >> 32), half(condition.mask));
        let at = ARGUMENTS + 8 * condition.argument;
        let mut test = |writer: &mut Self, code, constant, (when_true, when_false)| {
            let here = writer.0.len();
            writer.plain(code, constant);
            for (goal, on_true) in [(when_true, true), (when_false, false)] {
                match goal {
                    Next => {}
                    Pass => passes.push((here, on_true)),
                    Fail => fails.push((here, on_true)),
                }
            }
        };
        // The upper half decides unless it is equal.
        let (code, decided, by_low) = match condition.operator {
            Operator::ScmpCmpEq | Operator::ScmpCmpMaskedEq => (EQUAL, None, (Next, Fail)),
            Operator::ScmpCmpNe => (EQUAL, None, (Fail, Next)),
            Operator::ScmpCmpGt => (GREATER, Some((Pass, Fail)), (Next, Fail)),
            Operator::ScmpCmpGe => (GREATER_EQUAL, Some((Pass, Fail)), (Next, Fail)),
            Operator::ScmpCmpLt => (GREATER_EQUAL, Some((Fail, Pass)), (Fail, Next)),
            Operator::ScmpCmpLe => (GREATER, Some((Fail, Pass)), (Fail, Next)),
        };
        if masks.0 != 0 {
            self.half(at + 4, masks.0);
            match decided {
                Some((greater, less)) => {
                    test(self, GREATER, high, (greater, Next));
                    test(self, EQUAL, high, (Next, less));
                }
                None => test(self, EQUAL, high, (Next, if by_low.0 == Fail { Pass } else { Fail })),
            }
        }
        if masks.1 != 0 {
            self.half(at, masks.1);
            test(self, code, low, by_low);
        }
        for (here, on_true) in passes {
            self.aim(here, on_true);
        }
    }

    /// Loads half an argument: both machines store the lower half first.
    fn half(&mut self, at: u32, mask: u32) {
        self.plain(LOAD, at);
        if mask != u32::MAX {
            self.plain(AND, mask);
        }
    }

    /// Lets one way of the comparison at `at` lead to the end.
    fn aim(&mut self, at: usize, on_true: bool) {
        let distance = u8::try_from(self.distance(at)).unwrap_or(u8::MAX);
        if let Some(comparison) = self.0.get_mut(at) {
            *(if on_true { &mut comparison.when_true } else { &mut comparison.when_false }) = distance;
        }
    }
}

fn half(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}
