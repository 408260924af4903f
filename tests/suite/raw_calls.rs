//! System calls that no library makes: those of other architectures, and with arguments of 64 bits, under a filter; and
//! keys of the session.

use anyhow::Result;
use serde_json::{Value, json};

use crate::harness::{Bundle, Program, skip};

/// `mkdir("/tmp/made", 0700)` in each way to call the kernel: `x86_64`, x32, x86.
fn mkdir_thrice() -> Program {
    let mut program = Program::new();
    let path = program.string("/tmp/made");
    for number in [83, 0x4000_0000 + 83] {
        program.call(number, &[path, 0o700]);
        program.keep_errno();
    }
    program.call_x86(39, &[u32::try_from(path).unwrap_or_default(), 0o700]);
    program.keep_errno();
    program
}

/// What the program of `write` wrote inside: an errno for each call, in the given container.
fn errnos(bundle: &mut Bundle, program: Program) -> Result<Vec<u8>> {
    program.write(&bundle.rootfs("bin/calls"))?;
    bundle.args(&["/bin/calls"]);
    let outcome = bundle.run()?;
    Ok(outcome.succeeds()?.as_bytes().to_vec())
}

fn profile(architectures: &[&str], rules: &Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": rules})
}

#[test]
fn calls_of_32_bits_obey_the_profile() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("x86_64", "the calls are those of that architecture");
    }
    requires!(userns);
    let (missing, exists) = (38, 17);
    let mut bundle = Bundle::new()?;
    let plain = errnos(&mut bundle, mkdir_thrice())?;
    if plain.last() != Some(&exists) {
        return skip("x86", &format!("the kernel takes no 32-bit calls: {plain:?}"));
    }
    std::fs::remove_dir(bundle.rootfs("tmp/made"))?;
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    // s390x: an architecture of another machine changes nothing.
    let all = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_S390X"];
    bundle.config["linux"]["seccomp"] = profile(&all, &rules);
    let found = errnos(&mut bundle, mkdir_thrice())?;
    assert!(found == [28, 28, 28] || found == [28, missing, 28], "{found:?}");
    // An architecture that the profile leaves out may call nothing.
    bundle.config["linux"]["seccomp"] = profile(&["SCMP_ARCH_X86_64"], &rules);
    bundle.run()?.ends(128 + libc::SIGSYS)?;
    assert!(!bundle.rootfs("tmp/made").exists());
    Ok(())
}

/// Calls that take no argument, so that any may be given.
const CALLS: [(&str, u64); 7] = [
    ("getpid", 39),
    ("getuid", 102),
    ("getgid", 104),
    ("geteuid", 107),
    ("getegid", 108),
    ("getppid", 110),
    ("getpgrp", 111),
];

/// An operator, its values, and arguments with whether they meet it.
type Case<'a> = (&'a str, u64, u64, &'a [(u64, bool)]);

#[test]
fn the_operators_compare_all_64_bits() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("x86_64", "the calls are those of that architecture");
    }
    requires!(userns);
    let high = 0x5_0000_0005_u64;
    let cases: [Case<'_>; 7] = [
        ("EQ", high, 0, &[(high, true), (5, false), (0x5_0000_0000, false), (0x4_0000_0005, false)]),
        ("NE", high, 0, &[(high, false), (5, true), (0x4_0000_0005, true)]),
        ("LT", high, 0, &[(0x4_ffff_ffff, true), (0x5_0000_0004, true), (high, false), (0x6_0000_0000, false)]),
        ("LE", high, 0, &[(0x4_ffff_ffff, true), (high, true), (0x5_0000_0006, false), (0x6_0000_0000, false)]),
        ("GT", high, 0, &[(0x6_0000_0000, true), (0x5_0000_0006, true), (high, false), (0x4_ffff_ffff, false)]),
        ("GE", high, 0, &[(0x6_0000_0000, true), (high, true), (0x5_0000_0004, false), (0x4_ffff_ffff, false)]),
        // A mask, and what is left under it.
        (
            "MASKED_EQ",
            0xf_0000_000f,
            high,
            &[(high, true), (0xff5_0000_0ff5, true), (5, false), (0x4_0000_0005, false)],
        ),
    ];
    let mut program = Program::new();
    let (mut rules, mut wanted) = (Vec::new(), Vec::new());
    for ((op, value, second, arguments), (name, number)) in cases.into_iter().zip(CALLS) {
        let test = json!([{"index": 2, "value": value, "valueTwo": second, "op": format!("SCMP_CMP_{op}")}]);
        rules.push(json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": test}));
        for (argument, is_met) in arguments {
            program.call(number, &[0, 0, *argument]);
            program.keep_errno();
            wanted.push(if *is_met { 28 } else { 0 });
        }
    }
    let mut bundle = Bundle::new()?;
    bundle.config["linux"]["seccomp"] = profile(&[], &json!(rules));
    assert_eq!(errnos(&mut bundle, program)?, wanted);
    Ok(())
}

#[test]
fn tests_of_one_argument_are_alternatives_and_those_of_several_hold_together() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("x86_64", "the calls are those of that architecture");
    }
    requires!(userns);
    let test = |index: u32, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let rule = |name: &str, tests: [Value; 2]| json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": tests});
    let rules = json!([rule("getuid", [test(0, 1), test(0, 2)]), rule("getgid", [test(0, 1), test(1, 2)])]);
    let mut program = Program::new();
    for (number, arguments) in
        [(102, [1, 0]), (102, [2, 0]), (102, [3, 0]), (104, [1, 2]), (104, [1, 0]), (104, [0, 2])]
    {
        program.call(number, &arguments);
        program.keep_errno();
    }
    let mut bundle = Bundle::new()?;
    bundle.config["linux"]["seccomp"] = profile(&[], &rules);
    assert_eq!(errnos(&mut bundle, program)?, [28, 28, 0, 28, 0, 0]);
    Ok(())
}

#[test]
fn calls_that_a_profile_of_old_does_not_know_do_not_exist() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("x86_64", "the calls are those of that architecture");
    }
    requires!(userns);
    let captured: Value = serde_json::from_str(include_str!("../fixtures/engines/p6-net-none.json"))?;
    let mut profile = captured["linux"]["seccomp"].clone();
    for names in profile["syscalls"].as_array_mut().into_iter().flatten().map(|rule| &mut rule["names"]) {
        names.as_array_mut().into_iter().for_each(|names| names.retain(|name| name != "clone3"));
    }
    profile["defaultErrnoRet"] = 1.into();
    let mut program = Program::new();
    // clone3, a number that no kernel has yet, and kexec_load, which is older than the profile and not allowed.
    for number in [435, 900, 246] {
        program.call(number, &[0, 0, 0, 0]);
        program.keep_errno();
    }
    let mut bundle = Bundle::new()?;
    bundle.config["linux"]["seccomp"] = profile;
    assert_eq!(errnos(&mut bundle, program)?, [38, 38, 1]);
    Ok(())
}

#[test]
fn keys_of_the_callers_session_are_out_of_reach_but_for_those_who_ask_for_them() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("x86_64", "the calls are those of that architecture");
    }
    requires!(userns);
    let mut bundle = Bundle::new()?;
    // A session of its own with a key in it, for pura: keyctl(KEYCTL_JOIN_SESSION_KEYRING), add_key(session keyring).
    let mut session = Program::new();
    let (kind, key) = (session.string("user"), session.string("pura-suite"));
    session.call(250, &[1, 0]);
    session.call(248, &[kind, key, key, 4, 0xffff_fffd]);
    session.execute_arguments();
    let path = bundle.path("session");
    session.write(&path)?;
    // Inside, and outside to see that the key is there: request_key.
    let found = |bundle: &mut Bundle| -> Result<()> {
        let mut program = Program::new();
        let (kind, key) = (program.string("user"), program.string("pura-suite"));
        program.call(249, &[kind, key, 0, 0]);
        program.keep_errno();
        program.write(&bundle.rootfs("bin/calls"))?;
        bundle.args(&["/bin/calls"]);
        Ok(())
    };
    found(&mut bundle)?;
    let outside = std::process::Command::new(&path).arg(bundle.rootfs("bin/calls")).output()?;
    if outside.stdout != [0] {
        return skip("keys", &format!("no key can be added: {outside:?}"));
    }
    let run = |flags: &[&str]| -> Result<Vec<u8>> {
        let run = bundle.with_bundle("run", &[flags, &["c1"]].concat())?;
        let outcome = bundle.through(&[&path], &run).output()?;
        Ok(outcome.ends(0)?.as_bytes().to_vec())
    };
    assert_ne!(run(&[])?, [0], "the caller's key was found inside");
    assert_eq!(run(&["--no-new-keyring"])?, [0]);
    Ok(())
}
