//! `linux.seccomp`: the filter holds, for every kind of program, and a profile that cannot be carried out is refused.

use anyhow::Result;
use pura::seccomp::{Instruction, Machine, compile};
use serde_json::{Value, json};

use crate::harness::{Bundle, own_gid, own_uid, subordinate};

/// `mkdir(2)` on every architecture.
const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

/// A bundle whose program makes a directory, under a profile of one rule.
fn denying(action: &str, more: &Value) -> Result<Bundle> {
    let mut bundle = Bundle::with_args(&["/bin/pura-probe", "mkdir", "/tmp/made"])?;
    bundle.config["linux"]["seccomp"] =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": MKDIR, "action": action}]});
    let rule = bundle.config["linux"]["seccomp"]["syscalls"][0].as_object_mut();
    if let (Some(rule), Some(more)) = (rule, more.as_object()) {
        rule.extend(more.clone());
    }
    Ok(bundle)
}

#[test]
fn a_denied_call_gets_its_errno() -> Result<()> {
    requires!(userns);
    for (errno, shown) in [(json!({}), "errno=1\n"), (json!({"errnoRet": 30}), "errno=30\n")] {
        assert_eq!(denying("SCMP_ACT_ERRNO", &errno)?.run()?.succeeds()?, shown, "{errno}");
    }
    // An errno of 0 is a call that does nothing.
    let bundle = denying("SCMP_ACT_ERRNO", &json!({"errnoRet": 0}))?;
    assert_eq!(bundle.run()?.succeeds()?, "errno=0\n");
    assert!(!bundle.rootfs("tmp/made").exists());
    bundle.is_clean()
}

#[test]
fn a_deadly_call_ends_the_program_with_sigsys() -> Result<()> {
    requires!(userns);
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        denying(action, &json!({}))?.run()?.ends(128 + libc::SIGSYS)?;
    }
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"] {
        assert_eq!(denying(action, &json!({}))?.run()?.succeeds()?, "errno=0\n", "{action}");
    }
    Ok(())
}

#[test]
fn the_filter_holds_with_and_without_no_new_privs_and_for_every_user() -> Result<()> {
    requires!(unprivileged, userns, subids);
    for (no_new_privs, uid) in [(true, 0), (false, 0), (true, 1000), (false, 1000)] {
        let mut bundle = denying("SCMP_ACT_ERRNO", &json!({"errnoRet": 28}))?;
        bundle.config["process"]["noNewPrivileges"] = no_new_privs.into();
        bundle.map(
            &[(0, own_uid(), 1), (1, subordinate("uid")?, 2000)],
            &[(0, own_gid(), 1), (1, subordinate("gid")?, 2000)],
        );
        bundle.config["process"]["user"] = json!({"uid": uid, "gid": uid});
        assert_eq!(bundle.run()?.succeeds()?, "errno=28\n", "{no_new_privs} {uid}");
        bundle.args(&["/bin/pura-probe", "caps"]);
        let facts = bundle.facts()?;
        assert_eq!(facts.get("Seccomp")?, "2");
        assert_eq!(facts.get("NoNewPrivs")?, if no_new_privs { "1" } else { "0" });
    }
    Ok(())
}

#[test]
fn capabilities_are_as_configured_although_the_filter_needed_more() -> Result<()> {
    requires!(unprivileged, userns);
    let some = ["CAP_CHOWN", "CAP_KILL"];
    for (uid, ambient) in [(0, json!([])), (1000, json!(some))] {
        let mut bundle = denying("SCMP_ACT_ERRNO", &json!({}))?;
        bundle.args(&["/bin/pura-probe", "caps"]);
        bundle.map(&[(uid, own_uid(), 1)], &[(uid, own_gid(), 1)]);
        bundle.config["process"]["user"] = json!({"uid": uid, "gid": uid});
        bundle.config["process"]["noNewPrivileges"] = false.into();
        bundle.config["process"]["capabilities"] = json!({
            "bounding": some, "permitted": some, "effective": some, "inheritable": ambient, "ambient": ambient
        });
        let facts = bundle.facts()?;
        for name in ["CapBnd", "CapPrm", "CapEff"] {
            assert_eq!(facts.get(name)?, "0000000000000021", "{uid} {name}");
        }
    }
    Ok(())
}

#[test]
fn a_created_container_gets_its_filter_at_start() -> Result<()> {
    requires!(userns);
    for no_new_privs in [true, false] {
        let mut bundle = denying("SCMP_ACT_ERRNO", &json!({"errnoRet": 28}))?;
        bundle.config["process"]["noNewPrivileges"] = no_new_privs.into();
        // What init does until then is none of the profile's business.
        bundle.config["linux"]["seccomp"]["syscalls"][0]["names"] = json!(["mkdir", "mkdirat", "accept4", "sendto"]);
        let running = bundle.created()?;
        bundle.verb("start")?.succeeds_silently()?;
        assert_eq!(running.line()?, "errno=28");
        bundle.delete()?;
    }
    Ok(())
}

#[test]
fn a_further_process_has_the_filter_of_the_container() -> Result<()> {
    requires!(userns);
    for no_new_privs in [true, false] {
        let mut bundle = denying("SCMP_ACT_ERRNO", &json!({"errnoRet": 28}))?;
        bundle.config["process"]["noNewPrivileges"] = no_new_privs.into();
        bundle.args(&["/bin/pura-probe", "sleep"]);
        let _running = bundle.started()?;
        let outcome = bundle.pura(&["exec", "c1", "/bin/pura-probe", "mkdir", "/tmp/made"]).output()?;
        assert_eq!(outcome.succeeds()?, "errno=28\n");
        bundle.delete()?;
    }
    Ok(())
}

#[test]
fn podmans_profile_runs_with_clone3_absent_or_forgotten() -> Result<()> {
    requires!(userns);
    let captured: Value = serde_json::from_str(include_str!("../fixtures/engines/p6-net-none.json"))?;
    let mut profile = captured["linux"]["seccomp"].clone();
    // A program is started through clone, if clone3 is said not to exist, and not if it is refused.
    for names in profile["syscalls"].as_array_mut().into_iter().flatten().map(|rule| &mut rule["names"]) {
        names.as_array_mut().into_iter().for_each(|names| names.retain(|name| name != "clone3"));
    }
    profile["defaultErrnoRet"] = 1.into();
    for no_new_privs in [true, false] {
        let mut bundle = Bundle::with_args(&["/bin/pura-probe", "adopt", "/bin/pura-probe", "mkdir", "/tmp/made"])?;
        bundle.config["process"]["noNewPrivileges"] = no_new_privs.into();
        bundle.config["linux"]["seccomp"] = profile.clone();
        assert_eq!(bundle.run()?.succeeds()?, "errno=0\n");
    }
    Ok(())
}

#[test]
fn names_and_architectures_of_elsewhere_are_skipped() -> Result<()> {
    requires!(userns);
    let mut bundle = denying("SCMP_ACT_ERRNO", &json!({"names": ["no_such_call", "mkdir", "mkdirat"]}))?;
    bundle.config["linux"]["seccomp"]["architectures"] = json!([
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_ARM",
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_MIPS",
        "SCMP_ARCH_MIPS64",
        "SCMP_ARCH_MIPS64N32",
        "SCMP_ARCH_MIPSEL",
        "SCMP_ARCH_MIPSEL64",
        "SCMP_ARCH_MIPSEL64N32",
        "SCMP_ARCH_PPC",
        "SCMP_ARCH_PPC64",
        "SCMP_ARCH_PPC64LE",
        "SCMP_ARCH_S390",
        "SCMP_ARCH_S390X",
        "SCMP_ARCH_PARISC",
        "SCMP_ARCH_PARISC64",
        "SCMP_ARCH_RISCV64",
        "SCMP_ARCH_LOONGARCH64"
    ]);
    assert_eq!(bundle.run()?.succeeds()?, "errno=1\n");
    let plan = bundle.with_bundle("plan", &[])?.output()?;
    let text = plan.succeeds()?;
    assert!(
        text.contains(
            "warning: the seccomp profile allows what it does not name, and no call here is named no_such_call; fix:"
        ) && text.contains("errno 1: no_such_call mkdir mkdirat"),
        "{text}"
    );
    Ok(())
}

#[test]
fn flags_are_passed_to_the_kernel() -> Result<()> {
    requires!(userns);
    let mut bundle = denying("SCMP_ACT_ERRNO", &json!({}))?;
    bundle.config["linux"]["seccomp"]["flags"] = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    assert_eq!(bundle.run()?.succeeds()?, "errno=1\n");
    Ok(())
}

#[test]
fn a_profile_that_cannot_be_carried_out_is_refused_by_name() -> Result<()> {
    let rule = |action: &str, more: Value| {
        let mut rule = json!({"names": ["mkdir"], "action": action});
        if let (Some(rule), Some(more)) = (rule.as_object_mut(), more.as_object()) {
            rule.extend(more.clone());
        }
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    };
    let test = |index: u32, op: &str| json!({"args": [{"index": index, "value": 1, "op": op}]});
    let many: Vec<Value> = (0..2000)
        .map(|value| {
            json!({"names": ["mkdir"], "action": "SCMP_ACT_KILL", "args":
        [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    let cases = [
        (rule("SCMP_ACT_ALLOW", json!({"errnoRet": 1})), "linux.seccomp.syscalls[0].errnoRet"),
        (rule("SCMP_ACT_KILL", json!({"errnoRet": 1})), "linux.seccomp.syscalls[0].errnoRet"),
        (rule("SCMP_ACT_ERRNO", json!({"errnoRet": 4096})), "4096 is over 4095"),
        (rule("SCMP_ACT_BOGUS", json!({})), "SCMP_ACT_BOGUS"),
        (rule("SCMP_ACT_NOTIFY", json!({})), "linux.seccomp.listenerPath"),
        (rule("SCMP_ACT_KILL", json!({"names": []})), "linux.seccomp.syscalls[0].names"),
        (rule("SCMP_ACT_KILL", test(6, "SCMP_CMP_EQ")), "linux.seccomp.syscalls[0].args[0].index"),
        (rule("SCMP_ACT_KILL", test(0, "SCMP_CMP_BOGUS")), "SCMP_CMP_BOGUS"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_BOGUS"]}), "SCMP_ARCH_BOGUS"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["BOGUS"]}), "BOGUS"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}), "linux.seccomp.defaultErrnoRet"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}), "listenerMetadata"),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}), "execve"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": many}), "instructions"),
    ];
    for (profile, words) in cases {
        let mut bundle = Bundle::probing(&["true"])?;
        bundle.config["linux"]["seccomp"] = profile;
        bundle.is_refused_with_any(&[505, 802, 803, 804], &[words])?;
    }
    let mut bundle = denying("SCMP_ACT_ERRNO", &json!({"names": ["capset"]}))?;
    bundle.config["process"]["noNewPrivileges"] = false.into();
    bundle.is_refused(505, &["capset", "noNewPrivileges"])
}

#[test]
fn an_annotation_makes_an_unknown_name_an_error() -> Result<()> {
    requires!(userns);
    let mut bundle = denying("SCMP_ACT_ERRNO", &json!({"names": ["no_such_call", "mkdir", "mkdirat"]}))?;
    for (value, refused) in [("1", true), ("", true), ("0", false)] {
        bundle.config["annotations"] = json!({"run.oci.seccomp_fail_unknown_syscall": value});
        if refused {
            let words = ["no_such_call", "linux.seccomp.syscalls", "run.oci.seccomp_fail_unknown_syscall"];
            bundle.is_refused(505, &words)?;
        } else {
            assert_eq!(bundle.run()?.succeeds()?, "errno=1\n");
        }
    }
    bundle.config["linux"]["seccomp"]["syscalls"][0]["names"] = json!(MKDIR);
    bundle.config["annotations"] = json!({"run.oci.seccomp_fail_unknown_syscall": "1"});
    assert_eq!(bundle.run()?.succeeds()?, "errno=1\n");
    Ok(())
}

/// A program as the annotation has it: base64 of `struct sock_filter`.
fn encoded(program: &[Instruction]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = program
        .iter()
        .flat_map(|step| {
            let code = step.code.to_ne_bytes();
            [&code[..], &[step.when_true, step.when_false], &step.constant.to_ne_bytes()].concat()
        })
        .collect();
    let group = |group: &[u8]| {
        let word = group.iter().chain([0; 2].iter()).take(3).fold(0, |word, byte| word << 8 | usize::from(*byte));
        let digit = |at: usize| if at > group.len() { '=' } else { char::from(DIGITS[word >> (18 - 6 * at) & 63]) };
        [0, 1, 2, 3].map(digit)
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[test]
fn an_annotation_with_a_program_replaces_the_profile_for_every_process() -> Result<()> {
    requires!(userns);
    let Some(machine) = Machine::own() else { return Ok(()) };
    for has_profile in [true, false] {
        for no_new_privs in [true, false] {
            let mut bundle = denying("SCMP_ACT_ERRNO", &json!({"errnoRet": 28}))?;
            let profile = serde_json::from_value(bundle.config["linux"]["seccomp"].clone())?;
            let program = compile(&profile, machine).map_err(|error| anyhow::anyhow!("{error}"))?.program;
            bundle.config["annotations"] = json!({"run.oci.seccomp_bpf_data": encoded(&program)});
            bundle.config["process"]["noNewPrivileges"] = no_new_privs.into();
            if has_profile {
                bundle.config["linux"]["seccomp"]["syscalls"][0]["action"] = "SCMP_ACT_KILL".into();
                bundle.config["linux"]["seccomp"]["syscalls"][0]["errnoRet"] = Value::Null;
            } else {
                bundle.config["linux"]["seccomp"] = Value::Null;
            }
            assert_eq!(bundle.run()?.succeeds()?, "errno=28\n", "{has_profile} {no_new_privs}");
            bundle.args(&["/bin/pura-probe", "sleep"]);
            let _running = bundle.started()?;
            let outcome = bundle.pura(&["exec", "c1", "/bin/pura-probe", "mkdir", "/tmp/made"]).output()?;
            assert_eq!(outcome.succeeds()?, "errno=28\n");
            bundle.delete()?;
        }
    }
    Ok(())
}

#[test]
fn a_program_of_an_annotation_that_is_none_is_refused() -> Result<()> {
    requires!(userns);
    let returns = |constant: u32| Instruction { code: 6, when_true: 0, when_false: 0, constant };
    let many = vec![returns(0x7fff_0000); 4097];
    for (program, why) in [
        (String::new(), "0 bytes"),
        ("Zm9v".to_owned(), "3 bytes"),
        ("*".repeat(8), "not base64"),
        (encoded(&many), "4097 instructions"),
        (encoded(&[returns(0x7fc0_0000)]), "agent"),
    ] {
        let mut bundle = denying("SCMP_ACT_ERRNO", &json!({}))?;
        bundle.config["annotations"] = json!({"run.oci.seccomp_bpf_data": program});
        bundle.is_refused(505, &["run.oci.seccomp_bpf_data", why])?;
    }
    // What only the kernel can tell: a program that does not end.
    let mut bundle = denying("SCMP_ACT_ERRNO", &json!({}))?;
    let endless = Instruction { code: 0x20, when_true: 0, when_false: 0, constant: 0 };
    bundle.config["annotations"] = json!({"run.oci.seccomp_bpf_data": encoded(&[endless])});
    bundle.run()?.fails(125, 505, &["run.oci.seccomp_bpf_data"])?;
    bundle.is_clean()
}

#[test]
fn a_run_without_a_bundle_has_a_profile_of_its_own() -> Result<()> {
    requires!(userns, overlay);
    let bundle = Bundle::new()?;
    let root = bundle.rootfs("").display().to_string();
    let mark = format!("PURA_TEST={}", bundle.dir().display());
    let run = |words: &[&str]| {
        let fixed = ["run", "--userns=single", "-e", &mark, "--rootfs", &root, "--", "/bin/pura-probe"];
        bundle.pura(&[&fixed, words].concat()).output()
    };
    assert_eq!(run(&["caps"])?.facts()?.get("Seccomp")?, "2");
    assert_eq!(run(&["socket", "alg"])?.ends(0)?, format!("errno={}\n", libc::EAFNOSUPPORT));
    assert_eq!(run(&["socket", "unix"])?.ends(0)?, "errno=0\n");
    // A process can be started, but not in a user namespace of its own.
    assert_eq!(run(&["adopt", "/bin/pura-probe", "mkdir", "/tmp/made"])?.ends(0)?, "errno=0\n");
    let refused = run(&["userns"])?;
    assert!(!refused.status.success() && refused.stderr.contains("EPERM"), "{refused:#?}");
    let plan = bundle.pura(&["run", "--dry-run", "--userns=single", "--rootfs", &root, "--", "/bin/true"]).output()?;
    let text = plan.ends(0)?;
    assert!(["bpf", "io_uring_setup", "socketcall", "clone3"].iter().all(|name| text.contains(name)), "{text}");
    Ok(())
}

#[test]
fn a_mistyped_name_among_the_denied_is_a_warning_and_among_the_allowed_none() -> Result<()> {
    requires!(userns);
    let mut bundle = denying("SCMP_ACT_ERRNO", &json!({"names": ["mkdir", "mkdirrat"]}))?;
    bundle.run_strictly()?.fails(125, 505, &["mkdirrat", "allows what it does not name"])?;
    bundle.run()?.ends(0)?;
    let rule = |bundle: &mut Bundle, names: Value, action: &str| {
        bundle.config["linux"]["seccomp"]["syscalls"][0] = json!({"names": names, "action": action});
    };
    rule(&mut bundle, json!(["mkdir", "mkdirrat"]), "SCMP_ACT_ALLOW");
    bundle.run_strictly()?.ends(0)?;
    rule(&mut bundle, json!(["mkdir", "s390_runtime_instr"]), "SCMP_ACT_ERRNO");
    bundle.run_strictly()?.ends(0)?;
    Ok(())
}
