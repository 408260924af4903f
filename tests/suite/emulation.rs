//! Root emulation: with one id, programs that insist on others believe that they have got them.

use std::{fs, os::unix::fs::MetadataExt as _};

use anyhow::Result;
use serde_json::{Value, json};

use crate::harness::{Bundle, Program, own_uid, skip};

/// `chown`, `fchownat`, `setgroups`, `setresuid`, `capset` of rubbish, `setuid`, of `x86_64`; and `setuid32`, `chown` of
/// x86, where the kernel has them.
fn identity_calls() -> Program {
    let mut program = Program::new();
    let path = program.string("/tmp/file");
    for (number, arguments) in [
        (92, [path, 5, 6, 0, 0]),
        (260, [0, path, 5, 6, 0]),
        (116, [1, path, 0, 0, 0]),
        (117, [7, 8, 9, 0, 0]),
        (126, [path, path, 0, 0, 0]),
        (105, [7, 0, 0, 0, 0]),
    ] {
        program.call(number, &arguments);
        program.keep_errno();
    }
    program
}

/// The errno of each of those calls.
fn errnos(bundle: &mut Bundle, flags: &[&str]) -> Result<Vec<u8>> {
    identity_calls().write(&bundle.rootfs("bin/calls"))?;
    fs::write(bundle.rootfs("tmp/file"), "")?;
    bundle.args(&["/bin/calls"]);
    let outcome = bundle.with_bundle("run", &[flags, &["c1"]].concat())?.output()?;
    Ok(outcome.succeeds()?.as_bytes().to_vec())
}

/// What is refused for want of ids or sense: EINVAL, and EPERM for setgroups.
const REFUSED: [u8; 6] = [22, 22, 1, 22, 22, 22];

#[test]
fn calls_that_change_ids_succeed_without_effect() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("x86_64", "the calls are those of that architecture");
    }
    requires!(unprivileged, userns);
    let annotated = |value: &str| json!({"org.pura.root-emulation": value});
    let with_privileges = |bundle: &mut Bundle, is_forbidden: bool| {
        bundle.config["process"]["noNewPrivileges"] = is_forbidden.into();
    };
    let cases: [(&[&str], Value, [u8; 6]); 6] = [
        (&[], json!({}), [0; 6]),
        (&["--root-emulation=on"], json!({}), [0; 6]),
        (&["--root-emulation", "auto"], annotated("0"), [0; 6]),
        (&["--root-emulation=off"], annotated("1"), REFUSED),
        (&[], annotated("1"), [0; 6]),
        (&[], annotated("0"), REFUSED),
    ];
    for (flags, annotations, wanted) in cases {
        for no_new_privs in [true, false] {
            let mut bundle = Bundle::new()?;
            with_privileges(&mut bundle, no_new_privs);
            bundle.config["annotations"] = annotations.clone();
            assert_eq!(errnos(&mut bundle, flags)?, wanted, "{flags:?} {annotations} {no_new_privs}");
            assert_eq!(fs::metadata(bundle.rootfs("tmp/file"))?.uid(), own_uid());
            bundle.is_clean()?;
        }
    }
    Ok(())
}

#[test]
fn a_profile_of_the_config_keeps_what_it_forbids_and_is_joined_only_on_request() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("x86_64", "the calls are those of that architecture");
    }
    requires!(unprivileged, userns);
    for no_new_privs in [true, false] {
        let mut bundle = Bundle::new()?;
        bundle.config["process"]["noNewPrivileges"] = no_new_privs.into();
        bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["setresuid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]});
        assert_eq!(errnos(&mut bundle, &[])?, [22, 22, 1, 28, 22, 22]);
        assert_eq!(errnos(&mut bundle, &["--root-emulation=on"])?, [0, 0, 0, 28, 0, 0]);
    }
    Ok(())
}

#[test]
fn capabilities_are_as_configured_although_capset_is_answered() -> Result<()> {
    requires!(unprivileged, userns);
    let some = ["CAP_CHOWN", "CAP_KILL"];
    let mut bundle = Bundle::probing(&["caps"])?;
    bundle.config["annotations"] = json!({"org.pura.root-emulation": "1"});
    for no_new_privs in [true, false] {
        bundle.config["process"]["noNewPrivileges"] = no_new_privs.into();
        bundle.config["process"]["capabilities"] = json!({"bounding": some, "permitted": some, "effective": some});
        let facts = bundle.facts()?;
        for name in ["CapBnd", "CapPrm", "CapEff"] {
            assert_eq!(facts.get(name)?, "0000000000000021", "{name}");
        }
        assert_eq!(facts.get("Seccomp")?, "2");
    }
    Ok(())
}

#[test]
fn a_created_container_has_it_on_request_and_so_has_each_further_process() -> Result<()> {
    requires!(unprivileged, userns, busybox);
    for (annotations, answered) in [(json!({"org.pura.root-emulation": "1"}), true), (json!({}), false)] {
        let mut bundle = Bundle::probing(&["sleep"])?;
        bundle.config["annotations"] = annotations;
        fs::write(bundle.rootfs("tmp/file"), "")?;
        let running = bundle.created()?;
        bundle.verb("start")?.succeeds_silently()?;
        assert_eq!(running.line()?, "ready");
        let chown = ["exec", "c1", "/bin/busybox", "chown", "5:6", "/tmp/file"];
        let outcome = bundle.pura(&chown).output()?;
        if answered {
            outcome.succeeds_silently()?;
        } else {
            assert!(outcome.code() == 1 && outcome.stderr.contains("Invalid argument"), "{outcome:#?}");
        }
        bundle.delete()?;
    }
    Ok(())
}

#[test]
fn what_run_decides_holds_for_exec_too() -> Result<()> {
    requires!(unprivileged, userns, busybox);
    for (flags, wanted) in [(&[][..], 0), (&["--root-emulation=off"], 1)] {
        let bundle = Bundle::probing(&["sleep"])?;
        let running = bundle.with_bundle("run", &[flags, &["--detach", "c1"]].concat())?.spawn()?;
        assert_eq!(running.line()?, "ready");
        let outcome = bundle.pura(&["exec", "c1", "/bin/busybox", "chown", "5:6", "/tmp"]).output()?;
        assert_eq!(outcome.code(), wanted, "{flags:?} {outcome:#?}");
        bundle.pura(&["delete", "--force", "c1"]).output()?.succeeds_silently()?;
    }
    Ok(())
}

#[test]
fn a_command_without_a_bundle_has_it_beside_the_default_profile() -> Result<()> {
    requires!(unprivileged, userns, overlay);
    let bundle = Bundle::new()?;
    // Group 1 of the one user there is; and mount(2), which the default profile refuses.
    let script =
        "touch /tmp/file && chown 1:1 /tmp/file && stat -c %u:%g /tmp/file; umount /tmp 2>/dev/null || echo kept";
    let run = |flags: &[&str]| {
        let fixed = [&["run", "--userns=single"], flags, &["--", "sh", "-c", script]].concat();
        bundle.pura(&fixed).output()
    };
    assert_eq!(run(&[])?.succeeds()?, "0:0\nkept\n");
    assert_eq!(run(&["--root-emulation=off"])?.stdout, "kept\n");
    let plan = bundle.pura(&["plan", "--userns=single", "--", "true"]).output()?;
    assert!(plan.succeeds()?.contains("chown, setuid, setgroups, capset and the like return 0"), "{}", plan.stdout);
    bundle.is_clean()
}

#[test]
fn more_than_one_id_or_another_user_is_not_emulated_unless_asked_for() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut bundle = Bundle::probing(&["caps"])?;
    bundle.share_user();
    assert_eq!(bundle.facts()?.get("Seccomp")?, "0");
    bundle.config["annotations"] = json!({"org.pura.root-emulation": "1"});
    assert_eq!(bundle.facts()?.get("Seccomp")?, "2");
    let mut bundle = Bundle::probing(&["caps"])?;
    bundle.map(&[(1000, own_uid(), 1)], &[(0, crate::harness::own_gid(), 1)]);
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 0});
    assert_eq!(bundle.facts()?.get("Seccomp")?, "0");
    Ok(())
}

#[test]
fn it_does_not_go_together_with_a_program_that_somebody_else_compiled() -> Result<()> {
    let mut bundle = Bundle::new()?;
    let allow = "BgAAAAAA/38=";
    bundle.config["annotations"] = json!({"org.pura.root-emulation": "1", "run.oci.seccomp_bpf_data": allow});
    bundle.is_refused(505, &["root emulation", "run.oci.seccomp_bpf_data"])
}
