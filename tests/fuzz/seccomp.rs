//! Profiles: the compiled program, run, against the rules, read one after the other.

use std::{collections::BTreeSet, path::Path};

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction as Action};
use serde_json::{Value, json};
use syscalls::{x86::Sysno as Old, x86_64::Sysno as New};

use super::{Verdict, corpus::Corpus, is_one_line, random::Random, tree};
use crate::{
    bundle,
    seccomp::{
        Instruction, Machine, compile, emulating_root,
        tests::{
            first_rule,
            machine::{self as bpf, Call},
        },
    },
    spec,
};

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const ENOSYS: u32 = 0x0005_0000 + 38;
const KILL_PROCESS: u32 = 0x8000_0000;

/// Names that rules have, so that they meet; the last three stand for what is reached by a call more, is new, and is none.
const NAMES: [&str; 12] = [
    "read",
    "write",
    "clone",
    "clone3",
    "execve",
    "personality",
    "socket",
    "chown",
    "setuid",
    "socketcall",
    "mseal",
    "bogus",
];
const VALUES: [u64; 12] =
    [0, 1, 2, 3, 8, 0xffff_ffff, 1 << 32, (1 << 32) + 1, 3 << 32, u64::MAX, u64::MAX - 1, 0x7e02_0000];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const ACTIONS: [&str; 6] = ["ALLOW", "TRAP", "LOG", "KILL_PROCESS", "ERRNO", "KILL"];
const ARCHITECTURES: [&str; 5] =
    ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64"];

/// Some profiles of rules that overlap.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    (0..8).map(|number| rules(&mut Random::new(1, number)).to_string().into_bytes()).collect()
}

/// A changed profile, or a new one.
pub(super) fn mutate(corpus: &Corpus, random: &mut Random) -> Vec<u8> {
    if random.once_in(2) { rules(random).to_string().into_bytes() } else { tree::json(corpus, random) }
}

fn rules(random: &mut Random) -> Value {
    let rules: Vec<_> = (0..random.below(30)).map(|_| rule(random)).collect();
    let architectures: Vec<_> = (0..random.below(4)).map(|_| *random.pick(&ARCHITECTURES)).collect();
    let default = format!("SCMP_ACT_{}", random.pick(&ACTIONS));
    json!({"defaultAction": default, "architectures": architectures, "syscalls": rules})
}

fn rule(random: &mut Random) -> Value {
    let names: Vec<_> = (0..=random.below(3)).map(|_| *random.pick(&NAMES)).collect();
    let tests: Vec<_> = (0..random.below(4))
        .map(|_| {
            let (value, second) = (*random.pick(&VALUES), *random.pick(&VALUES));
            json!({"index": random.below(6), "value": value, "valueTwo": second, "op": format!("SCMP_CMP_{}", random.pick(&OPERATORS))})
        })
        .collect();
    json!({"names": names, "action": format!("SCMP_ACT_{}", random.pick(&ACTIONS)), "args": tests})
}

/// A profile in a config that is good; one that the config may not have is not compiled.
pub(super) fn judge(input: &[u8]) -> Verdict {
    let config = [br#"{"ociVersion":"1.3.0","linux":{"seccomp":"#, input, b"}}"].concat();
    let spec = match bundle::parse(&config, Path::new("config.json")) {
        Ok((spec, _)) => spec,
        Err(error) => return is_one_line(&error.to_string()),
    };
    if let Err(error) = spec::validate(&spec) {
        return is_one_line(&error.to_string());
    }
    let Some(profile) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) else { return Ok(()) };
    for machine in [Machine::X86, Machine::Arm] {
        for compiled in [compile(profile, machine), emulating_root(profile, machine)] {
            match compiled {
                Ok(filter) => is_loadable(&filter.program)?,
                Err(error) => is_one_line(&error.to_string())?,
            }
        }
    }
    let Ok(filter) = compile(profile, Machine::X86) else { return Ok(()) };
    let mut random = Random::new(7, input.len() as u64);
    let listed = profile.architectures().as_deref().unwrap_or_default();
    for (name, number) in calls(profile, &mut random) {
        compare(profile, &filter.program, (&name, X86_64, number), &mut random)?;
    }
    for name in NAMES.iter().filter(|name| !["socket", "socketcall"].contains(name)) {
        let Ok(number) = name.parse::<Old>() else { continue };
        let number = number.id().unsigned_abs();
        if listed.contains(&Arch::ScmpArchX86) {
            compare(profile, &filter.program, (name, X86, number), &mut random)?;
        } else {
            is(bpf::run(&filter.program, &Call { number, audit: X86, arguments: [0; 6] }), &[KILL_PROCESS], name)?;
        }
    }
    is(bpf::run(&filter.program, &Call { number: 0, audit: 7, arguments: [0; 6] }), &[KILL_PROCESS], "another machine")
}

/// The calls that rules name, and some that they do not.
fn calls(profile: &LinuxSeccomp, random: &mut Random) -> Vec<(String, u32)> {
    let named = profile.syscalls().iter().flatten().flat_map(|rule| rule.names().iter().cloned());
    let named: BTreeSet<_> = named.chain(NAMES.iter().map(|name| (*name).to_owned())).collect();
    let found = named.into_iter().filter_map(|name| Some((name.parse::<New>().ok()?.id().unsigned_abs(), name)));
    let mut found: Vec<_> = found.map(|(number, name)| (name, number)).collect();
    while found.len() > 60 {
        found.swap_remove(random.below(found.len()));
    }
    found
}

fn compare(profile: &LinuxSeccomp, program: &[Instruction], call: (&str, u32, u32), random: &mut Random) -> Verdict {
    let (name, audit, number) = call;
    for _ in 0..12 {
        let wide = if audit == X86 { u64::from(u32::MAX) } else { u64::MAX };
        let arguments = [(); 6].map(|()| *random.pick(&VALUES) & wide);
        let got = bpf::run(program, &Call { number, audit, arguments });
        let wanted = read(profile, name, &arguments);
        is(got, &wanted, &format!("{name} {audit:x} {arguments:x?}"))?;
    }
    Ok(())
}

fn is(got: Option<u32>, wanted: &[u32], what: &str) -> Verdict {
    if got.is_some_and(|got| wanted.contains(&got)) {
        Ok(())
    } else {
        Err(format!("{what}: {got:x?} instead of {wanted:x?}"))
    }
}

/// What the kernel asks of a program: at most 4096 instructions, jumps within it, a return at its end.
fn is_loadable(program: &[Instruction]) -> Verdict {
    let ends = |at: usize, step: &Instruction| match step.code {
        0x05 => at + 1 + step.constant as usize,
        code if code & 7 == 5 => at + 1 + usize::from(step.when_true.max(step.when_false)),
        _ => at,
    };
    let last = program.last().is_some_and(|step| step.code == 6);
    let within = program.iter().enumerate().all(|(at, step)| ends(at, step) < program.len());
    if last && within && program.len() <= 4096 { Ok(()) } else { Err("the kernel would refuse the program".to_owned()) }
}

/// A profile, read naively: what it may return for a call.
fn read(profile: &LinuxSeccomp, name: &str, arguments: &[u64; 6]) -> Vec<u32> {
    if let Some(rule) = first_rule(profile, name, arguments) {
        return vec![rule.action().as_u32(rule.errno_ret())];
    }
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let is_named = rules.iter().any(|rule| rule.names().iter().any(|of_rule| of_rule == name));
    // Whether it is newer than the profile is not for this page.
    if profile.default_action() == Action::ScmpActErrno && !is_named { vec![default, ENOSYS] } else { vec![default] }
}
