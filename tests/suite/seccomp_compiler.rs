//! The seccomp compiler against libseccomp: both programs run over every call number and random arguments.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use oci_spec::runtime::LinuxSeccomp;
use pura::seccomp::{Instruction, Machine, compile};
use serde_json::{Value, json};

use crate::harness::bpf::{Call, run};

const SCRIPT: &str = include_str!("../fixtures/seccomp/libseccomp.py");

/// The architectures of both machines: name, `AUDIT_ARCH_*`, first number, and whether registers have 64 bits for
/// libseccomp.
const X86_64: Arch = ("SCMP_ARCH_X86_64", 0xc000_003e, 0, true);
const X32: Arch = ("SCMP_ARCH_X32", 0xc000_003e, 0x4000_0000, false);
const X86: Arch = ("SCMP_ARCH_X86", 0x4000_0003, 0, false);
const AARCH64: Arch = ("SCMP_ARCH_AARCH64", 0xc000_00b7, 0, true);
const ARM: Arch = ("SCMP_ARCH_ARM", 0x4000_0028, 0, false);

type Arch = (&'static str, u32, u32, bool);

const ENOSYS: u32 = 0x0005_0000 + 38;

/// xorshift64: the same numbers every time, so that a failure comes back.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 8).unwrap_or_default() % end
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// What libseccomp makes of a profile, and the names that it does not know.
fn peer(profile: &Value) -> Result<(Vec<Instruction>, BTreeSet<String>)> {
    let mut python = Command::new("/usr/bin/python3");
    let mut python = python.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    python.stdin.take().context("stdin")?.write_all(profile.to_string().as_bytes())?;
    let output = python.wait_with_output()?;
    let answer: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{profile}"))?;
    let hex = answer["program"].as_str().context("program")?;
    let bytes: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16)).collect::<Result<_, _>>()?;
    let (steps, []) = bytes.as_chunks::<8>() else { anyhow::bail!("{} bytes", bytes.len()) };
    let program = steps.iter().map(|[code, code_high, when_true, when_false, constant @ ..]| Instruction {
        code: u16::from_le_bytes([*code, *code_high]),
        when_true: *when_true,
        when_false: *when_false,
        constant: u32::from_le_bytes(*constant),
    });
    let unknown = answer["unknown"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok((program.collect(), unknown.map(str::to_owned).collect()))
}

/// Takes the names that only one side knows out of a profile.
fn without(profile: &mut Value, names: &BTreeSet<String>) {
    for rule in profile["syscalls"].as_array_mut().into_iter().flatten() {
        if let Some(of_rule) = rule["names"].as_array_mut() {
            of_rule.retain(|name| !names.contains(name.as_str().unwrap_or_default()));
        }
    }
}

/// Values next to those that rules compare with, which are the ones that could be judged wrong.
fn interesting(profile: &Value) -> Vec<u64> {
    let rules = profile["syscalls"].as_array().into_iter().flatten();
    let tests = rules.flat_map(|rule| rule["args"].as_array().into_iter().flatten());
    let values = tests.flat_map(|test| [test["value"].as_u64(), test["valueTwo"].as_u64()]).flatten();
    let near = values.flat_map(|value| {
        [value, value.wrapping_sub(1), value.wrapping_add(1), value ^ 1 << 32, value & 0xffff_ffff, value << 32]
    });
    near.chain([0, 1, u64::MAX, 0xffff_ffff, 1 << 32]).collect()
}

/// Compares both programs over every number and many arguments. Where they differ, ours must say that the call does not
/// exist, and libseccomp the default: a call that is newer than the profile, which libseccomp leaves to its callers.
fn compare(profile: &Value, machine: Machine, arches: &[Arch], random: &mut Random) -> Result<usize> {
    let mut profile = profile.clone();
    profile["architectures"] = arches.iter().map(|arch| arch.0).collect();
    let (_, unknown) = peer(&profile)?;
    without(&mut profile, &unknown);
    let (theirs, _) = peer(&profile)?;
    let parsed: LinuxSeccomp = serde_json::from_value(profile.clone())?;
    let ours = compile(&parsed, machine).map_err(|error| anyhow::anyhow!("{error}"))?.program;
    let values = interesting(&profile);
    let is_denying = profile["defaultAction"] == "SCMP_ACT_ERRNO";
    let default = 0x0005_0000 | u32::try_from(profile["defaultErrnoRet"].as_u64().unwrap_or(1))?;
    let mut judged = 0;
    for (name, audit, first, is_wide) in arches {
        for number in (0..600).chain(0xf_0000..0xf_0008).chain([0x3fff_ffff]) {
            for round in 0..24 {
                let mask = if *is_wide { u64::MAX } else { 0xffff_ffff };
                let mut arguments = [0_u64; 6];
                for argument in &mut arguments {
                    *argument = mask & if round % 4 == 0 { random.next() } else { random.pick(&values) };
                }
                let call = Call { number: first + number, audit: *audit, arguments };
                let (our, their) = (run(&ours, &call), run(&theirs, &call));
                let is_newer = is_denying && our == Some(ENOSYS) && their == Some(default);
                let is_same = our.is_some() && our == their;
                assert!(is_same || is_newer, "{name} {call:x?}: {our:x?}, libseccomp {their:x?}, {profile}");
                judged += 1;
            }
        }
    }
    Ok(judged)
}

fn captured(text: &str) -> Result<Value> {
    let config: Value = serde_json::from_str(text)?;
    Ok(config["linux"]["seccomp"].clone())
}

#[test]
fn podmans_profiles_mean_what_libseccomp_makes_of_them() -> Result<()> {
    requires!(libseccomp);
    let mut random = Random(1);
    for text in
        [include_str!("../fixtures/engines/p4-net-none.json"), include_str!("../fixtures/engines/p6-net-none.json")]
    {
        for errno in [38, 1] {
            let mut profile = captured(text)?;
            profile["defaultErrnoRet"] = errno.into();
            assert!(compare(&profile, Machine::X86, &[X86_64, X86, X32], &mut random)? > 10_000);
            compare(&profile, Machine::X86, &[X86_64], &mut random)?;
            compare(&profile, Machine::Arm, &[AARCH64, ARM], &mut random)?;
        }
    }
    Ok(())
}

/// A profile of random rules. Each call is named by one rule: where several of one call overlap, libseccomp's order is its
/// own, and it misses some that match; the same with alternatives that are not plain values. The compiler's own tests are
/// about those.
fn generated(random: &mut Random, names: &[&str], is_wide: bool) -> Value {
    let actions = ["KILL", "KILL_PROCESS", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG"];
    let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let errno = |action: &str, random: &mut Random| {
        if matches!(action, "ERRNO" | "TRACE") { json!(random.below(4096)) } else { Value::Null }
    };
    let default = random.pick(&["ERRNO", "ALLOW", "KILL_PROCESS", "LOG"]);
    let mut profile = json!({"defaultAction": format!("SCMP_ACT_{default}"), "syscalls": []});
    if default == "ERRNO" {
        profile["defaultErrnoRet"] = json!(1 + random.below(4095));
    }
    let mut rules = Vec::new();
    for name in names {
        let action = random.pick(&actions);
        // libseccomp refuses a rule that only repeats the default.
        if random.below(3) == 0 || action == default {
            continue;
        }
        let errno = errno(action, random);
        let is_repeated = random.below(4) == 0;
        let mut indexes: Vec<usize> = (0..6).collect();
        let tests: Vec<Value> = (0..random.below(4))
            .map(|_| {
                let mut value = || random.next() >> random.below(64) & if is_wide { u64::MAX } else { 0xffff_ffff };
                let (one, two) = (value(), value());
                let operator = format!("SCMP_CMP_{}", if is_repeated { "EQ" } else { random.pick(&operators) });
                let at = random.below(indexes.len());
                let index = if is_repeated { 2 } else { indexes.swap_remove(at) };
                json!({"index": index, "value": one, "valueTwo": two, "op": operator})
            })
            .collect();
        let mut rule = json!({"names": [name], "action": format!("SCMP_ACT_{action}"), "args": tests});
        if !errno.is_null() {
            rule["errnoRet"] = errno;
        }
        rules.push(rule);
    }
    profile["syscalls"] = rules.into();
    profile
}

#[test]
fn generated_profiles_mean_what_libseccomp_makes_of_them() -> Result<()> {
    requires!(libseccomp);
    let mut random = Random(2);
    // No calls that x86 multiplexes: libseccomp tests an argument that is not the call's own there.
    let names = [
        "read",
        "write",
        "close",
        "mkdirat",
        "openat",
        "ioctl",
        "clone",
        "unshare",
        "personality",
        "prctl",
        "kill",
        "fcntl",
        "futex",
        "getpid",
        "execve",
        "statx",
        "clone3",
        "openat2",
        "chdir",
        "mount",
        "readv",
        "ptrace",
        "waitid",
        "kexec_load",
        "io_setup",
        "vmsplice",
        "fork",
        "chmod",
        "set_tls",
        "cacheflush",
        "mq_notify",
    ];
    for round in 0..12 {
        let wide = generated(&mut random, &names, true);
        compare(&wide, Machine::X86, &[X86_64], &mut random).with_context(|| round.to_string())?;
        compare(&wide, Machine::Arm, &[AARCH64], &mut random)?;
        let narrow = generated(&mut random, &names, false);
        compare(&narrow, Machine::X86, &[X86_64, X86, X32], &mut random)?;
        compare(&narrow, Machine::Arm, &[AARCH64, ARM], &mut random)?;
    }
    Ok(())
}
