//! Compiled programs, run by the interpreter that the black-box suite has too.

#[path = "../../tests/suite/harness/bpf.rs"]
pub(crate) mod machine;

use super::*;
use machine::Call;
use oci_spec::runtime::LinuxSeccompArg as Test;
use serde_json::{Value, json};

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;

/// What the kernel would do; panics when it would refuse the program.
fn run(program: &[Instruction], call: &Call) -> u32 {
    machine::run(program, call).unwrap()
}

fn parse(profile: Value) -> LinuxSeccomp {
    serde_json::from_value(profile).unwrap()
}

fn program(profile: Value) -> Vec<Instruction> {
    compile(&parse(profile), Machine::X86).unwrap().program
}

fn call(audit: u32, number: u32, arguments: &[u64]) -> Call {
    let mut call = Call { number, audit, arguments: [0; 6] };
    call.arguments[..arguments.len()].copy_from_slice(arguments);
    call
}

#[test]
fn each_operator_compares_all_64_bits() {
    let values = [0, 1, 5, 6, 7, 1 << 32, (1 << 32) + 5, (1 << 32) + 6, (2 << 32) + 6, u64::MAX, u64::MAX - 1];
    for operator in ["NE", "LT", "LE", "EQ", "GE", "GT"] {
        for value in values {
            let program = program(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
                "action": "SCMP_ACT_TRAP", "args": [{"index": 3, "value": value, "op": format!("SCMP_CMP_{operator}")}]}]}));
            for given in values {
                let wanted = match operator {
                    "NE" => given != value,
                    "LT" => given < value,
                    "LE" => given <= value,
                    "EQ" => given == value,
                    "GE" => given >= value,
                    _ => given > value,
                };
                let got = run(&program, &call(X86_64, 0, &[0, 0, 0, given])) != ALLOW;
                assert_eq!(got, wanted, "{given:#x} {operator} {value:#x}");
            }
        }
    }
}

#[test]
fn a_masked_comparison_has_its_mask_first() {
    let program = program(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["clone"],
        "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 0x1_7e02_0000_u64, "valueTwo": 0x1_0002_0000_u64,
        "op": "SCMP_CMP_MASKED_EQ"}]}]}));
    for (flags, wanted) in [(0x1_0002_0000, ERRNO + 1), (0xf_8102_ffff, ERRNO + 1), (0x0002_0000, ALLOW), (0, ALLOW)] {
        assert_eq!(run(&program, &call(X86_64, 56, &[flags])), wanted, "{flags:#x}");
    }
}

#[test]
fn an_argument_named_twice_means_alternatives_and_otherwise_all_must_hold() {
    let both = |first: usize, second: usize| {
        program(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRAP",
            "args": [{"index": first, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": second, "value": 2, "op": "SCMP_CMP_EQ"}]}]}))
    };
    for (arguments, twice, all) in
        [([1, 2], true, true), ([1, 0], true, false), ([2, 0], true, false), ([0, 2], false, false)]
    {
        assert_eq!(run(&both(0, 0), &call(X86_64, 0, &arguments)) != ALLOW, twice, "{arguments:?}");
        assert_eq!(run(&both(0, 1), &call(X86_64, 0, &arguments)) != ALLOW, all, "{arguments:?}");
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let program = program(json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0, "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["read"], "action": "SCMP_ACT_LOG"},
        {"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]}]}));
    for (argument, wanted) in [(1, ERRNO), (2, LOG), (3, LOG)] {
        assert_eq!(run(&program, &call(X86_64, 0, &[argument])), wanted);
    }
}

#[test]
fn a_call_newer_than_the_profile_and_clone3_do_not_exist() {
    let enosys = ERRNO + 38;
    let profile = |default: &str, names: Value| {
        program(json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}))
    };
    let old = profile("SCMP_ACT_ERRNO", json!(["read", "execve", "statx", "readv"]));
    let new = profile("SCMP_ACT_ERRNO", json!(["execve", "mseal"]));
    let x32 = abi::X32_BIT;
    for (program, audit, number, wanted) in [
        (&old, X86_64, 331, ERRNO + 1),
        (&old, X86_64, 332, ALLOW),
        (&old, X86_64, 333, enosys),
        (&old, X86_64, 435, enosys),
        (&old, X86_64, u32::MAX, enosys),
        (&old, X86_64, x32 + 332, ALLOW),
        (&old, X86_64, x32 + 515, ALLOW),
        (&old, X86_64, x32 + 516, ERRNO + 1),
        (&old, X86_64, x32 + 548, enosys),
        (&old, X86, 382, ERRNO + 1),
        (&old, X86, 383, ALLOW),
        (&old, X86, 384, enosys),
        (&new, X86_64, 434, ERRNO + 1),
        (&new, X86_64, 435, enosys),
        (&new, X86_64, 436, ERRNO + 1),
        (&new, X86_64, 463, enosys),
    ] {
        assert_eq!(run(program, &call(audit, number, &[])), wanted, "{audit:#x} {number}");
    }
    let trap = profile("SCMP_ACT_TRAP", json!(["read"]));
    assert_eq!(run(&trap, &call(X86_64, 435, &[])), 0x0003_0000);
}

#[test]
fn calls_of_architectures_that_are_not_listed_kill() {
    let only = program(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    for (audit, number, wanted) in [
        (X86_64, 0, ALLOW),
        (X86_64, u32::MAX, ALLOW),
        (X86_64, abi::X32_BIT, KILL_PROCESS),
        (X86, 0, KILL_PROCESS),
        (7, 0, KILL_PROCESS),
    ] {
        assert_eq!(run(&only, &call(audit, number, &[])), wanted, "{audit:#x} {number:#x}");
    }
}

#[test]
fn sockets_of_32_bits_are_reached_through_one_call_more() {
    let program =
        program(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["socket", "shmat"], "action": "SCMP_ACT_ALLOW"}]}));
    for (number, selector, wanted) in
        [(359, 0, ALLOW), (102, 1, ALLOW), (102, 2, ERRNO + 38), (117, 21, ALLOW), (117, 22, ERRNO + 38)]
    {
        assert_eq!(run(&program, &call(X86, number, &[selector])), wanted, "{number} {selector}");
    }
}

/// A profile, read naively: the first rule that holds for a call by name.
pub(crate) fn first_rule<'a>(profile: &'a LinuxSeccomp, name: &str, arguments: &[u64; 6]) -> Option<&'a Rule> {
    use oci_spec::runtime::LinuxSeccompOperator as Operator;
    let holds = |test: &Test| {
        let (given, value) = (arguments[test.index()], test.value());
        match test.op() {
            Operator::ScmpCmpNe => given != value,
            Operator::ScmpCmpLt => given < value,
            Operator::ScmpCmpLe => given <= value,
            Operator::ScmpCmpEq => given == value,
            Operator::ScmpCmpGe => given >= value,
            Operator::ScmpCmpGt => given > value,
            Operator::ScmpCmpMaskedEq => given & value == test.value_two().unwrap_or_default() & value,
        }
    };
    let matches = |rule: &&Rule| {
        let tests = rule.args().as_deref().unwrap_or_default();
        let indexes: std::collections::BTreeSet<_> = tests.iter().map(Test::index).collect();
        rule.names().iter().any(|of_rule| of_rule == name)
            && if indexes.len() < tests.len() { tests.iter().any(holds) } else { tests.iter().all(holds) }
    };
    profile.syscalls().iter().flatten().find(matches)
}

/// The verdict of a call by name.
fn read(profile: &LinuxSeccomp, name: &str, arguments: &[u64; 6]) -> u32 {
    let found = first_rule(profile, name, arguments);
    found.map_or(returned(profile.default_action(), profile.default_errno_ret()), |rule| {
        returned(rule.action(), rule.errno_ret())
    })
}

#[test]
fn overlapping_rules_mean_what_they_say() {
    let mut state = 88_172_645_463_325_252_u64;
    let mut below = |end: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end
    };
    let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let actions = ["ALLOW", "TRAP", "LOG", "KILL_PROCESS", "ERRNO"];
    let values = [0, 1, 2, 3, 1 << 32, (1 << 32) + 1, 3 << 32, u64::MAX, u64::MAX - 1, 0xffff_ffff];
    let names = [("read", 0), ("write", 1), ("mseal", 462)];
    for _ in 0..300 {
        let mut rules = Vec::new();
        for _ in 0..below(40) {
            let name = names[usize::try_from(below(3)).unwrap()].0;
            let tests: Vec<Value> = (0..below(4))
                .map(|_| {
                    let [one, two] = [below(10), below(10)].map(|at| values[usize::try_from(at).unwrap()]);
                    let operator = format!("SCMP_CMP_{}", operators[usize::try_from(below(7)).unwrap()]);
                    json!({"index": below(6), "value": one, "valueTwo": two, "op": operator})
                })
                .collect();
            let action = format!("SCMP_ACT_{}", actions[usize::try_from(below(5)).unwrap()]);
            rules.push(json!({"names": [name], "action": action, "args": tests}));
        }
        let profile = parse(json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": rules}));
        let program = compile(&profile, Machine::X86).unwrap().program;
        for _ in 0..100 {
            let arguments = [(); 6].map(|()| values[usize::try_from(below(10)).unwrap()]);
            for (name, number) in names {
                let got = run(&program, &call(X86_64, number, &arguments));
                assert_eq!(got, read(&profile, name, &arguments), "{name} {arguments:x?} {profile:?}");
            }
        }
    }
}

#[test]
fn a_program_longer_than_the_kernel_takes_is_refused() {
    let rules = |count: u32| -> Vec<Value> {
        let test = |value: u32| json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
        (0..count).map(|value| json!({"names": ["read"], "action": "SCMP_ACT_TRAP", "args": test(value)})).collect()
    };
    let profile = |count| parse(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules(count)}));
    assert!(compile(&profile(900), Machine::X86).is_ok());
    let error = compile(&profile(1100), Machine::X86).map(drop).unwrap_err().to_string();
    assert!(error.contains("PURA-505") && error.contains("linux.seccomp"), "{error}");
}

#[test]
fn both_machines_have_programs() {
    let profile =
        parse(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_ARM", "SCMP_ARCH_MIPS"],
        "syscalls": [{"names": ["mkdirat", "nonsense"], "action": "SCMP_ACT_ALLOW"}]}));
    let filter = compile(&profile, Machine::Arm).unwrap();
    assert_eq!(run(&filter.program, &call(0xc000_00b7, 34, &[])), ALLOW);
    assert_eq!(run(&filter.program, &call(0x4000_0028, 323, &[])), ALLOW);
    assert_eq!(run(&filter.program, &call(0x4000_0028, 322, &[])), ERRNO + 1);
    assert_eq!(filter.unknown, ["nonsense"]);
    assert!(filter.allows("mkdirat") && !filter.allows("execve"));
}

#[test]
fn root_emulation_answers_what_the_profile_lets_through_on_every_architecture_and_nothing_else() {
    let answered = |profile: &LinuxSeccomp, machine| emulating_root(profile, machine).unwrap().program;
    let open = answered(&permissive(Machine::X86), Machine::X86);
    let x32 = abi::X32_BIT;
    // setuid, chown, fchownat, setgroups, capset; setuid of 16 bits, setuid32, chown32, fchownat.
    for (audit, numbers) in [(X86_64, [105, 92, 260, 116, 126]), (X86, [23, 213, 212, 298, 185])] {
        for number in numbers {
            assert_eq!(run(&open, &call(audit, number, &[1, 2, 3])), ERRNO, "{audit:x} {number}");
            if audit == X86_64 {
                assert_eq!(run(&open, &call(audit, x32 + number, &[])), ERRNO, "x32 {number}");
            }
        }
    }
    // getuid, execve, the ends of both tables.
    for (audit, number) in [(X86_64, 102), (X86_64, 59), (X86_64, 500), (X86_64, x32 + 520), (X86, 24), (X86, 500)] {
        assert_eq!(run(&open, &call(audit, number, &[])), ALLOW, "{audit:x} {number}");
    }
    let arm = answered(&permissive(Machine::Arm), Machine::Arm);
    for (audit, number) in [(0xc000_00b7, 146), (0xc000_00b7, 54), (0x4000_0028, 213), (0x4000_0028, 23)] {
        assert_eq!(run(&arm, &call(audit, number, &[])), ERRNO, "{audit:x} {number}");
    }
    // By arguments, or for all; what is stricter than 0 stays, and so does what asks somebody.
    let rule =
        |name: &str, action: &str| json!({"names": [name], "action": format!("SCMP_ACT_{action}"), "errnoRet": null});
    let strict = parse(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["chown"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 0, "op": "SCMP_CMP_EQ"}]},
        rule("setuid", "KILL_PROCESS"), rule("setgid", "NOTIFY"), rule("setgroups", "LOG"), rule("capset", "TRAP"),
        rule("execve", "ALLOW")]}));
    let merged = answered(&strict, Machine::X86);
    for (number, arguments, wanted) in [
        (92, [0, 0], ERRNO),
        (92, [0, 7], ERRNO + 1),
        (105, [0, 0], KILL_PROCESS),
        (106, [0, 0], NOTIFY),
        (116, [0, 0], ERRNO),
        (126, [0, 0], 0x0003_0000),
        (260, [0, 0], ERRNO + 38),
        (59, [0, 0], ALLOW),
    ] {
        assert_eq!(run(&merged, &call(X86_64, number, &arguments)), wanted, "{number} {arguments:?}");
    }
}
