//! Who the program is: ids, groups, umask, capabilities, limits, `no_new_privs`, oom score, session.

use std::fs;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit};
use serde_json::json;

use crate::harness::{Bundle, own_gid, own_uid, subordinate};

/// `CAP_CHOWN`, `CAP_KILL` and `CAP_NET_BIND_SERVICE`.
const SOME: u64 = 1 | 1 << 5 | 1 << 10;

#[test]
fn real_effective_and_saved_ids_are_as_configured() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut bundle = with_subids(&["ids"])?;
    bundle.config["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [44, 9, 9]});
    let facts = bundle.facts()?;
    for name in ["uid", "euid", "suid"] {
        assert_eq!(facts.get(name)?, "7", "{name}");
    }
    for name in ["gid", "egid", "sgid"] {
        assert_eq!(facts.get(name)?, "8", "{name}");
    }
    let mut groups: Vec<&str> = facts.get("groups")?.split(',').collect();
    groups.dedup();
    assert_eq!(groups, ["9", "44"]);
    Ok(())
}

#[test]
fn without_additional_groups_the_program_has_none() -> Result<()> {
    requires!(unprivileged, userns, subids);
    assert_eq!(with_subids(&["ids"])?.facts()?.get("groups")?, "");
    Ok(())
}

#[test]
fn groups_that_cannot_be_set_warn_and_fail_under_strict() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["ids"])?;
    for groups in [json!([]), json!([0])] {
        bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": groups});
        bundle.run_strictly()?.facts()?;
    }
    bundle.map(&[(0, own_uid(), 1)], &[(0, own_gid(), 1)]);
    bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [44]});
    let log = bundle.path("log");
    bundle.write()?;
    let words = ["--log-level", "warning", "--log", &log.to_string_lossy(), "run", "-b"];
    bundle.pura(&words).args(&[bundle.path("bundle")]).args(&["c1"]).output()?.facts()?;
    let log = fs::read_to_string(log)?;
    assert!(log.contains("PURA-121") && log.lines().count() == 1, "{log}");
    bundle.run_strictly()?.fails(125, 121, &[])?;
    Ok(())
}

#[test]
fn the_umask_is_the_callers_unless_it_is_set() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["umask"])?;
    for (own, set, shown) in
        [("027", None, "0027"), ("077", Some(0o022), "0022"), ("000", Some(0o777), "0777"), ("000", None, "0000")]
    {
        bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0});
        if let Some(mask) = set {
            bundle.config["process"]["user"]["umask"] = mask.into();
        }
        let run = bundle.with_bundle("run", &["c1"])?;
        let outcome = bundle.through(&["sh", "-c", &format!("umask {own}; exec \"$@\""), "sh"], &run).output()?;
        assert_eq!(outcome.facts()?.get("umask")?, shown, "caller {own}, config {set:?}");
    }
    Ok(())
}

#[test]
fn the_five_capability_sets_read_back_exactly() -> Result<()> {
    requires!(userns);
    let some = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut bundle = Bundle::probing(&["caps"])?;
    bundle.config["process"]["capabilities"] = json!({
        "bounding": some, "permitted": some, "effective": ["CAP_CHOWN"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
    });
    let facts = bundle.facts()?;
    // Root keeps through exec what is bounded, whatever was permitted before: capabilities(7).
    for (name, set) in [("CapBnd", SOME), ("CapInh", 1 << 5), ("CapAmb", 1 << 5)] {
        assert_eq!(facts.get(name)?, format!("{set:016x}"), "{name}");
    }
    Ok(())
}

#[test]
fn a_program_that_is_not_root_has_only_its_ambient_capabilities() -> Result<()> {
    requires!(unprivileged, userns);
    let some = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut bundle = Bundle::probing(&["caps"])?;
    bundle.map(&[(1000, own_uid(), 1)], &[(1000, own_gid(), 1)]);
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    bundle.config["process"]["capabilities"] = json!({"bounding": some, "permitted": some, "effective": some});
    let facts = bundle.facts()?;
    for (name, set) in [("CapBnd", SOME), ("CapPrm", 0), ("CapEff", 0), ("CapInh", 0), ("CapAmb", 0)] {
        assert_eq!(facts.get(name)?, format!("{set:016x}"), "{name}");
    }
    bundle.config["process"]["capabilities"] =
        json!({"bounding": some, "permitted": some, "effective": some, "inheritable": some, "ambient": some});
    let facts = bundle.facts()?;
    for name in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(facts.get(name)?, format!("{SOME:016x}"), "{name}");
    }
    Ok(())
}

#[test]
fn inheritable_is_empty_unless_asked_for() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["caps"])?;
    let some = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    bundle.config["process"]["capabilities"] = json!({"bounding": some, "permitted": some, "effective": some});
    let facts = bundle.facts()?;
    assert_eq!((facts.get("CapInh")?, facts.get("CapAmb")?), ("0000000000000000", "0000000000000000"));
    assert_eq!(facts.get("CapEff")?, format!("{SOME:016x}"));
    Ok(())
}

#[test]
fn what_is_outside_the_bounding_set_is_not_inherited_and_warns() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["caps"])?;
    bundle.config["process"]["capabilities"] =
        json!({"bounding": ["CAP_KILL"], "inheritable": ["CAP_KILL", "CAP_CHOWN"]});
    assert_eq!(u64::from_str_radix(bundle.facts()?.get("CapInh")?, 16)?, 1 << 5);
    bundle.run_strictly()?.fails(125, 501, &["CHOWN"])?;
    Ok(())
}

#[test]
fn without_capabilities_in_the_config_there_are_none() -> Result<()> {
    requires!(userns);
    let facts = Bundle::probing(&["caps"])?.facts()?;
    for name in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(facts.get(name)?, "0000000000000000", "{name}");
    }
    Ok(())
}

#[test]
fn an_unknown_capability_warns_and_runs() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["caps"])?;
    bundle.config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_OF_TOMORROW"]});
    assert_eq!(bundle.facts()?.get("CapBnd")?, format!("{:016x}", 1 << 5));
    bundle.run_strictly()?.fails(125, 501, &["CAP_OF_TOMORROW"])?;
    Ok(())
}

#[test]
fn no_new_privileges_is_as_configured() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["caps"])?;
    for (set, shown) in [(true, "1"), (false, "0")] {
        bundle.config["process"]["noNewPrivileges"] = set.into();
        assert_eq!(bundle.facts()?.get("NoNewPrivs")?, shown);
    }
    Ok(())
}

#[test]
fn each_resource_limit_reads_back() -> Result<()> {
    requires!(userns);
    let names = [
        "AS",
        "CORE",
        "CPU",
        "DATA",
        "FSIZE",
        "LOCKS",
        "MEMLOCK",
        "MSGQUEUE",
        "NICE",
        "NOFILE",
        "NPROC",
        "RSS",
        "RTPRIO",
        "RTTIME",
        "SIGPENDING",
        "STACK",
    ];
    let mut bundle = Bundle::probing(&["rlimits"])?;
    let limit = |name: &str| -> (u64, u64) {
        match name {
            "AS" | "DATA" | "FSIZE" | "RSS" | "STACK" => (1 << 30, 1 << 30),
            "NICE" | "RTPRIO" => (0, 0),
            "NOFILE" => (29, 30),
            _ => (50, 51),
        }
    };
    let lines =
        names.map(|name| json!({"type": format!("RLIMIT_{name}"), "soft": limit(name).0, "hard": limit(name).1}));
    bundle.config["process"]["rlimits"] = json!(lines);
    let facts = bundle.facts()?;
    for name in names {
        let (soft, hard) = limit(name);
        assert_eq!(facts.get(&format!("rlimit.{}", name.to_lowercase()))?, format!("{soft}:{hard}"), "{name}");
    }
    Ok(())
}

#[test]
fn limits_that_contradict_themselves_fail() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    let limit = |kind: &str, soft: u64, hard: u64| json!({"type": kind, "soft": soft, "hard": hard});
    for (limits, word) in [
        (json!([limit("RLIMIT_CORE", 0, 0), limit("RLIMIT_CORE", 0, 0)]), "RLIMIT_CORE"),
        (json!([limit("RLIMIT_CORE", 2, 1)]), "rlimits[0]"),
        (json!([limit("RLIMIT_BOGUS", 1, 1)]), "RLIMIT_BOGUS"),
    ] {
        bundle.config["process"]["rlimits"] = limits;
        bundle.is_refused_with_any(&[802, 803], &[word])?;
    }
    Ok(())
}

#[test]
fn a_hard_limit_above_the_callers_fails_in_create_and_is_clamped_in_run() -> Result<()> {
    requires!(unprivileged, userns);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let mut bundle = Bundle::probing(&["rlimits"])?;
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": hard + 1}]);
    bundle.is_refused(520, &["RLIMIT_NOFILE", &hard.to_string()])?;
    assert_eq!(bundle.facts()?.get("rlimit.nofile")?, format!("100:{hard}"));
    bundle.run_strictly()?.fails(125, 520, &["RLIMIT_NOFILE"])?;
    Ok(())
}

#[test]
fn the_oom_score_is_exact_and_untouched_when_unset() -> Result<()> {
    requires!(userns);
    let own = fs::read_to_string("/proc/self/oom_score_adj")?;
    let mut bundle = Bundle::probing(&["oom"])?;
    assert_eq!(bundle.facts()?.get("oom_score_adj")?, own.trim());
    for score in [500, 1000] {
        bundle.config["process"]["oomScoreAdj"] = score.into();
        assert_eq!(bundle.facts()?.get("oom_score_adj")?, score.to_string());
    }
    // Without a PID namespace of its own init hides from others, and its files in /proc from itself.
    bundle.share("pid");
    bundle.unmount("/proc");
    bundle.mount("/proc", "bind", "/proc", &["rbind"])?;
    bundle.config["process"]["oomScoreAdj"] = 700.into();
    assert_eq!(bundle.facts()?.get("oom_score_adj")?, "700");
    for score in [-1001, 1001] {
        bundle.config["process"]["oomScoreAdj"] = score.into();
        bundle.is_refused(803, &["oomScoreAdj", &score.to_string()])?;
    }
    Ok(())
}

#[test]
fn an_oom_score_below_the_callers_fails_in_create_and_is_clamped_in_run() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["oom"])?;
    bundle.config["process"]["oomScoreAdj"] = (-999).into();
    bundle.is_refused(520, &["-999"])?;
    let own = fs::read_to_string("/proc/self/oom_score_adj")?;
    assert_eq!(bundle.facts()?.get("oom_score_adj")?, own.trim());
    Ok(())
}

#[test]
fn the_program_is_process_1_in_a_session_of_its_own() -> Result<()> {
    requires!(userns);
    let facts = Bundle::probing(&["session"])?.facts()?;
    for name in ["pid", "sid", "pgrp"] {
        assert_eq!(facts.get(name)?, "1", "{name}");
    }
    assert_eq!(facts.get("tty")?, "no");
    Ok(())
}

#[test]
fn an_oom_score_of_0_is_a_value_and_what_was_raised_may_be_lowered_again() -> Result<()> {
    requires!(unprivileged, userns);
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")?.trim().parse()?;
    let mut bundle = Bundle::probing(&["oom"])?;
    let raised = |bundle: &Bundle, verb: &str| -> Result<_> {
        let pura = bundle.with_bundle(verb, &["c1"])?;
        bundle.through(&["sh", "-c", "echo 900 >/proc/self/oom_score_adj; exec \"$@\"", "sh"], &pura).output()
    };
    assert_eq!(raised(&bundle, "run")?.facts()?.get("oom_score_adj")?, "900");
    // The tester's own is what its processes may go back to.
    for score in [own.max(0), 899] {
        bundle.config["process"]["oomScoreAdj"] = score.into();
        assert_eq!(raised(&bundle, "run")?.facts()?.get("oom_score_adj")?, score.to_string());
    }
    bundle.config["process"]["oomScoreAdj"] = (-1000).into();
    raised(&bundle, "create")?.fails(1, 520, &["-1000", "it is below yours, 900"])?;
    bundle.is_clean()
}

/// A base with the tester's subordinate ids.
fn with_subids(words: &[&str]) -> Result<Bundle> {
    let mut bundle = Bundle::probing(words)?;
    let (uids, gids) = (subordinate("uid")?, subordinate("gid")?);
    bundle.map(&[(0, own_uid(), 1), (1, uids, 1000)], &[(0, own_gid(), 1), (1, gids, 1000)]);
    Ok(bundle)
}
