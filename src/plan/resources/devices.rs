//! `linux.resources.devices` as a program: config-linux.md "Allowed Device list", and the kernel's cgroup-v2.rst "Device
//! controller", which has no files but asks a program of eBPF, `BPF_PROG_TYPE_CGROUP_DEVICE`.
//!
//! The rules are applied in the order of the list, and nothing is allowed before the first: for each of reading, writing
//! and making, the last rule that names the device decides. What every container has is always allowed.

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType as Type, LinuxResources};

use super::Draft;

/// Bits of an access, `BPF_DEVCG_ACC_*`, with their letters.
const ACCESSES: [(char, u32); 3] = [('m', 1), ('r', 2), ('w', 4)];
const ALL: u32 = 7;

/// `BPF_DEVCG_DEV_*`.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// null, zero, full, random, urandom, tty, console and ptmx; all pseudo-terminals; and that nodes are made, which says
/// nothing about who may open them.
const ALWAYS: [Rule; 11] = [
    Rule::making(CHARACTER),
    Rule::making(BLOCK),
    Rule::always(1, Some(3)),
    Rule::always(1, Some(5)),
    Rule::always(1, Some(7)),
    Rule::always(1, Some(8)),
    Rule::always(1, Some(9)),
    Rule::always(5, Some(0)),
    Rule::always(5, Some(1)),
    Rule::always(5, Some(2)),
    Rule::always(136, None),
];

/// One rule; what it does not name, it means all of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

impl Rule {
    const fn always(major: u32, minor: Option<u32>) -> Self {
        Self { allow: true, kind: Some(CHARACTER), major: Some(major), minor, access: ALL }
    }

    const fn making(kind: u32) -> Self {
        Self { allow: true, kind: Some(kind), major: None, minor: None, access: 1 }
    }

    fn of(rule: &LinuxDeviceCgroup) -> Self {
        let kind = match rule.typ() {
            None | Some(Type::A) => None,
            Some(Type::B) => Some(BLOCK),
            Some(Type::C | Type::U | Type::P) => Some(CHARACTER),
        };
        let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
        // In the files of version 1 a rule for "a" was one for all devices, whatever else it named.
        let (major, minor) = if kind.is_some() { (number(rule.major()), number(rule.minor())) } else { (None, None) };
        let letters = rule.access().as_deref().unwrap_or_default();
        let named = ACCESSES.iter().filter(|(letter, _)| letters.contains(*letter)).fold(0, |all, (_, bit)| all | bit);
        Self { allow: rule.allow(), kind, major, minor, access: if named == 0 { ALL } else { named } }
    }

    fn is_total(&self) -> bool {
        self.kind.is_none() && self.access == ALL
    }
}

/// Rules that forbid something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What holds for that which no rule names.
    otherwise: bool,
    rules: Vec<Rule>,
}

impl Rules {
    /// The rules of a config; nothing when there are none, or when they forbid nothing.
    pub fn of(resources: &LinuxResources) -> Option<Self> {
        let listed = resources.devices().as_ref().filter(|listed| !listed.is_empty())?;
        let mut rules: Vec<_> = listed.iter().map(Rule::of).collect();
        // What comes before a rule for everything has no effect.
        let last = rules.iter().rposition(Rule::is_total);
        let otherwise = last.and_then(|at| rules.get(at)).is_some_and(|rule| rule.allow);
        rules.drain(..last.map_or(0, |at| at + 1));
        (!otherwise || rules.iter().any(|rule| !rule.allow)).then_some(Self { otherwise, rules })
    }

    /// The program. It goes from the last rule to the first, and is done when each bit of the access has been decided, or
    /// one has been refused.
    pub fn program(&self) -> Vec<Instruction> {
        let mut program = vec![
            Instruction::load(ACCESS, 0),
            Instruction::of(MOVE, KIND | ACCESS << 4, 0, 0),
            Instruction::of(AND, KIND, 0, 0xffff),
            Instruction::of(SHIFT_RIGHT, ACCESS, 0, 16),
            Instruction::load(MAJOR, 4),
            Instruction::load(MINOR, 8),
        ];
        for rule in ALWAYS.iter().chain(self.rules.iter().rev()) {
            write(&mut program, *rule);
        }
        program.extend(Instruction::end(self.otherwise));
        program
    }
}

/// Registers: the first is what the program returns, the second its context, `struct bpf_cgroup_dev_ctx`.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// What has not been decided yet.
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// On 32 bits, and with a constant, but for the move between registers.
const LOAD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const SET: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP: u8 = 0x05;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const JUMP_IF_ANY: u8 = 0x46;
const EXIT: u8 = 0x95;

/// `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    /// The destination in the lower half, the source in the upper one.
    registers: u8,
    offset: i16,
    constant: u32,
}

impl Instruction {
    const fn of(code: u8, registers: u8, offset: i16, constant: u32) -> Self {
        Self { code, registers, offset, constant }
    }

    const fn load(register: u8, offset: i16) -> Self {
        Self::of(LOAD, register | CONTEXT << 4, offset, 0)
    }

    fn end(allow: bool) -> [Self; 2] {
        [Self::of(SET, RESULT, 0, u32::from(allow)), Self::of(EXIT, 0, 0, 0)]
    }
}

fn write(program: &mut Vec<Instruction>, rule: Rule) {
    let decision = if rule.allow {
        [Instruction::of(AND, ACCESS, 0, ALL & !rule.access), Instruction::of(JUMP_UNLESS_EQUAL, ACCESS, 2, 0)]
    } else {
        [Instruction::of(JUMP_IF_ANY, ACCESS, 1, rule.access), Instruction::of(JUMP, 0, 2, 0)]
    };
    let tests = [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)];
    // From behind: each test that fails leads past all that follows it.
    let mut behind = 4;
    let mut tests: Vec<_> = tests
        .into_iter()
        .rev()
        .filter_map(|(register, wanted)| {
            let test = Instruction::of(JUMP_UNLESS_EQUAL, register, behind, wanted?);
            behind += 1;
            Some(test)
        })
        .collect();
    tests.reverse();
    program.extend(tests);
    program.extend(decision);
    program.extend(Instruction::end(rule.allow));
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |allow: bool| if allow { "allow" } else { "deny" };
        write!(f, "{} all devices", word(self.otherwise))?;
        for rule in &self.rules {
            let kind = rule.kind.map_or('a', |kind| if kind == BLOCK { 'b' } else { 'c' });
            let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
            let letters: String =
                ACCESSES.iter().filter(|(_, bit)| rule.access & bit != 0).map(|(letter, _)| letter).collect();
            write!(f, ", {} {kind} {}:{} {letters}", word(rule.allow), number(rule.major), number(rule.minor))?;
        }
        Ok(())
    }
}

impl Draft {
    /// Finds what is no rule.
    pub(super) fn device_rules(&mut self, resources: &LinuxResources) {
        for (index, rule) in resources.devices().iter().flatten().enumerate() {
            let place = format!("devices[{index}]");
            if rule.typ() == Some(Type::P) {
                self.fault(&place, "type \"p\" is none of a, b, c");
            }
            if let Some(access) = rule.access().as_deref()
                && access.chars().any(|letter| ACCESSES.iter().all(|(known, _)| *known != letter))
            {
                self.fault(&place, &format!("access {access:?} is not made of r, w and m"));
            }
            for number in [rule.major(), rule.minor()].into_iter().flatten() {
                if number < -1 || number > i64::from(u32::MAX) {
                    self.fault(&place, &format!("{number} is no number of a device"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel asks: kind, major and minor number, and the access.
    type Question = (u32, u32, u32, u32);

    fn rules(json: &str) -> Option<Rules> {
        Rules::of(&serde_json::from_str(&format!(r#"{{"devices":{json}}}"#)).unwrap())
    }

    /// What the kernel would do: the registers of a machine that knows no other instructions.
    fn run(program: &[Instruction], (kind, major, minor, access): Question) -> bool {
        let (mut registers, mut at) = ([0_u32; 16], 0_usize);
        loop {
            let Instruction { code, registers: both, offset, constant } = program[at];
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            let mut jump = offset;
            match code {
                LOAD => {
                    assert_eq!(from, usize::from(CONTEXT));
                    registers[to] = [access << 16 | kind, major, minor][usize::try_from(offset).unwrap() / 4];
                    jump = 0;
                }
                MOVE => registers[to] = registers[from],
                SET => registers[to] = constant,
                AND => registers[to] &= constant,
                SHIFT_RIGHT => registers[to] >>= constant,
                JUMP_UNLESS_EQUAL if registers[to] == constant => jump = 0,
                JUMP_IF_ANY if registers[to] & constant == 0 => jump = 0,
                JUMP | JUMP_UNLESS_EQUAL | JUMP_IF_ANY => {}
                EXIT => return registers[usize::from(RESULT)] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
            at = at + 1 + usize::try_from(jump).unwrap();
        }
    }

    /// The list, applied in its order to each bit of the access by itself.
    fn model(listed: &[Rule], (kind, major, minor, access): Question) -> bool {
        let is = |wanted: Option<u32>, asked: u32| wanted.is_none_or(|wanted| wanted == asked);
        let names = |rule: &Rule, bit: u32| {
            rule.access & bit != 0 && is(rule.kind, kind) && is(rule.major, major) && is(rule.minor, minor)
        };
        ACCESSES.iter().filter(|(_, bit)| access & bit != 0).all(|(_, bit)| {
            let applied = listed.iter().chain(&ALWAYS).filter(|rule| names(rule, *bit));
            applied.fold(false, |_, rule| rule.allow)
        })
    }

    #[test]
    fn the_program_says_what_the_rules_say_in_their_order() {
        // Few numbers, so that rules meet; from one seed.
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |limit: u32| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            u32::try_from(seed >> 33).unwrap() % limit
        };
        for _ in 0..2000 {
            let count = below(7) + 1;
            let listed: Vec<_> = (0..count)
                .map(|_| {
                    let kind = Some(below(3)).filter(|kind| *kind > 0);
                    let number = |number: u32| Some(number).filter(|number| *number < 2 && kind.is_some());
                    let (major, minor) = (number(below(3)), number(below(4)));
                    Rule { allow: below(2) == 1, kind, major, minor, access: below(ALL) + 1 }
                })
                .collect();
            let json: Vec<_> = listed.iter().map(json).collect();
            let found = rules(&format!("[{}]", json.join(",")));
            let program = found.as_ref().map(Rules::program);
            for bits in 0..72 {
                let question = (1 + bits % 2, bits / 2 % 3, bits / 6 % 3, 1 + bits / 9 % 7);
                let answer = program.as_ref().is_none_or(|program| run(program, question));
                assert_eq!(answer, model(&listed, question), "{listed:?} {question:?}");
            }
        }
    }

    fn json(rule: &Rule) -> String {
        let letters: String =
            ACCESSES.iter().filter(|(_, bit)| rule.access & bit != 0).map(|(letter, _)| letter).collect();
        let kind = ["a", "b", "c"][usize::try_from(rule.kind.unwrap_or(0)).unwrap()];
        let number = |number: Option<u32>| number.map_or(-1, i64::from);
        let (major, minor) = (number(rule.major), number(rule.minor));
        format!(r#"{{"allow":{},"type":"{kind}","major":{major},"minor":{minor},"access":"{letters}"}}"#, rule.allow)
    }

    #[test]
    fn what_every_container_has_stays_allowed_and_all_that_is_not_listed_does_not() {
        let program =
            rules(r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]"#);
        let program = program.unwrap().program();
        for (question, wanted) in [
            ((CHARACTER, 1, 3, 6), true),
            ((CHARACTER, 136, 77, 6), true),
            ((CHARACTER, 5, 2, 6), true),
            ((CHARACTER, 10, 229, 6), true),
            ((CHARACTER, 10, 229, 7), true),
            ((CHARACTER, 10, 200, 1), true),
            ((CHARACTER, 10, 200, 2), false),
            ((CHARACTER, 1, 1, 2), false),
            ((BLOCK, 10, 229, 2), false),
            ((BLOCK, 8, 0, 1), true),
        ] {
            assert_eq!(run(&program, question), wanted, "{question:?}");
        }
    }

    #[test]
    fn an_access_of_two_kinds_is_allowed_by_two_rules_and_refused_by_one() {
        let device = r#""type":"c","major":9,"minor":9"#;
        let both = format!(r#"[{{"allow":true,{device},"access":"r"}},{{"allow":true,{device},"access":"w"}}]"#);
        assert!(run(&rules(&both).unwrap().program(), (CHARACTER, 9, 9, 6)));
        let one = format!(r#"[{{"allow":true}},{{"allow":false,{device},"access":"w"}}]"#);
        let program = rules(&one).unwrap().program();
        assert!(run(&program, (CHARACTER, 9, 9, 2)) && !run(&program, (CHARACTER, 9, 9, 6)));
    }

    #[test]
    fn rules_that_forbid_nothing_are_none() {
        for json in ["[]", r#"[{"allow":true}]"#, r#"[{"allow":false},{"allow":true,"access":"rwm"}]"#] {
            assert_eq!(rules(json), None, "{json}");
        }
        let open =
            r#"[{"allow":true},{"allow":false,"type":"b","major":8},{"allow":true,"type":"b","major":8,"minor":1}]"#;
        let text = rules(open).unwrap().to_string();
        assert_eq!(text, "allow all devices, deny b 8:* mrw, allow b 8:1 mrw");
        assert_eq!(rules(r#"[{"allow":true,"access":"r"}]"#).unwrap().to_string(), "deny all devices, allow a *:* r");
    }
}
