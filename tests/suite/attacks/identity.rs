//! Ids, groups and capabilities that a config does not give.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::is_refusal;
use crate::harness::{Bundle, own_uid};

const NONE: &str = "0000000000000000";

#[test]
fn a_capability_that_exec_adds_is_never_inheritable() -> Result<()> {
    requires!(userns);
    // CVE-2022-24769 and its like, CVE-2025-27612.
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let exec = |flags: &[&str]| -> Result<_> {
        let words = [&["exec"], flags, &["c1", "/bin/pura-probe", "caps"]].concat();
        bundle.pura(&words).output()?.facts()
    };
    let facts = exec(&["--cap", "CAP_NET_RAW", "--cap", "CAP_KILL"])?;
    assert_eq!((facts.get("CapInh")?, facts.get("CapAmb")?), (NONE, NONE), "{facts:?}");
    assert_eq!(facts.get("CapEff")?, "0000000000002020", "{facts:?}");
    // The config has no capabilities, so neither has an exec that asks for none.
    let facts = exec(&[])?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(facts.get(set)?, NONE, "{set}");
    }
    bundle.delete()
}

#[test]
fn groups_stay_denied_where_the_map_is_the_callers_own() -> Result<()> {
    requires!(unprivileged, userns, busybox);
    // CVE-2014-8989, CVE-2018-7169: a group that takes rights away must not be dropped.
    let script = "cat /proc/self/setgroups; echo allow >/proc/self/setgroups && echo allowed; true";
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
    let all = ["CAP_SETGID", "CAP_SETUID", "CAP_SYS_ADMIN"];
    bundle.config["process"]["capabilities"] = json!({"bounding": all, "permitted": all, "effective": all});
    let outcome = bundle.run()?;
    assert!(outcome.stdout == "deny\n", "{outcome:#?}");
    Ok(())
}

#[test]
fn a_user_is_a_number_that_fits_wherever_it_is_said() -> Result<()> {
    requires!(userns);
    // CVE-2024-40635, CVE-2026-46680, CVE-2026-30892, CVE-2016-3697.
    let mut bundle = Bundle::probing(&["ids"])?;
    for user in
        ["4294967295", "4294967296", "4294967297", "-1", "+0", "0x0", " 0", "0 ", "1e0", "1:", ":1", "0:-1", "٠"]
    {
        let rootfs = bundle.rootfs("").display().to_string();
        let user = format!("--user={user}");
        let words = ["run", "--rootfs", &rootfs, &user, "--", "/bin/pura-probe", "ids"];
        bundle.pura(&words).output()?.fails(125, 1, &[]).context(user)?;
    }
    for uid in [json!(-1), json!(4_294_967_295_u64), json!(4_294_967_296_u64), json!("0"), json!(0.5), json!(1e0)] {
        bundle.config["process"]["user"] = json!({"uid": uid, "gid": 0});
        is_refusal(&bundle.create()?).with_context(|| uid.to_string())?;
    }
    bundle.is_clean()
}

#[test]
fn an_id_map_is_read_back_and_no_file_shows_another() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let map = fs::read_to_string(format!("/proc/{}/uid_map", bundle.pid()?))?;
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &own_uid().to_string(), "1"]);
    bundle.delete()
}

#[test]
fn an_exec_gains_no_privilege_that_init_cannot_gain() -> Result<()> {
    requires!(userns);
    for (of_init, asked, wanted) in
        [(false, None, "0"), (false, Some(true), "1"), (true, None, "1"), (true, Some(false), "1")]
    {
        let mut bundle = Bundle::probing(&["sleep"])?;
        bundle.config["process"]["noNewPrivileges"] = of_init.into();
        let _running = bundle.started()?;
        let mut exec = vec!["exec"];
        if asked == Some(true) {
            exec.push("--no-new-privs");
        }
        let file = bundle.path("process.json");
        let mut process = bundle.config["process"].clone();
        process["args"] = json!(["/bin/pura-probe", "caps"]);
        process["noNewPrivileges"] = false.into();
        fs::write(&file, process.to_string())?;
        let file = file.display().to_string();
        if asked == Some(false) {
            exec.extend(["--process", &file, "c1"]);
        } else {
            exec.extend(["c1", "/bin/pura-probe", "caps"]);
        }
        assert_eq!(bundle.pura(&exec).output()?.facts()?.get("NoNewPrivs")?, wanted, "{of_init} {asked:?}");
        bundle.delete()?;
    }
    Ok(())
}
