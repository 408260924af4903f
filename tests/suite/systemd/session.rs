//! Limits that an ordinary shell of a session asks for: its cgroup is systemd's, and nobody has said who is to make another.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{ID, SLEEP, cgroup_of, in_session, show};
use crate::harness::{Bundle, Pura};

/// The same call from a cgroup that is not the caller's to divide: as it is in a login session, or from a unit with more
/// than one process.
fn in_a_shell(bundle: &Bundle, call: &Pura) -> Result<Pura> {
    if is_login()? {
        return Ok(in_session(bundle.through(&["env"], call)));
    }
    let user: &[&str] = if crate::harness::own_uid() == 0 { &[] } else { &["--user"] };
    let shell = ["--scope", "--quiet", "--", "/bin/sh", "-c", "\"$@\"; exit $?", "sh"];
    Ok(in_session(bundle.through(&[&["systemd-run"], user, &shell].concat(), call)))
}

/// Whether the caller's own cgroup is another's.
fn is_login() -> Result<bool> {
    let own = Path::new("/sys/fs/cgroup").join(cgroup_of(i32::try_from(std::process::id())?)?.trim_start_matches('/'));
    Ok(nix::unistd::access(&own.join("cgroup.procs"), nix::unistd::AccessFlags::W_OK).is_err())
}

fn limited() -> Result<Bundle> {
    let mut bundle = Bundle::with_args(SLEEP)?;
    bundle.config["linux"]["resources"] = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 50}});
    Ok(bundle)
}

/// The scope of the test's only container, and its cgroup.
fn place(bundle: &Bundle) -> Result<(String, PathBuf)> {
    let cgroup = PathBuf::from(bundle.state()?["pura"]["cgroup"].as_str().context("no cgroup")?);
    let unit = cgroup.file_name().context("name")?.to_string_lossy().into_owned();
    Ok((unit, cgroup))
}

#[test]
fn a_command_with_a_limit_is_in_a_scope_that_nobody_had_to_ask_for() -> Result<()> {
    requires!(userns, systemd);
    let bundle = Bundle::new()?;
    let root = bundle.rootfs("").display().to_string();
    let words = ["run", "--detach", "--name", ID, "--userns=single", "--read-only", "--rootfs", &root];
    for limit in [&["--memory=64m"][..], &[]] {
        let call = bundle.pura(&[&words[..], limit, &["--"], SLEEP].concat());
        let mut running = in_a_shell(&bundle, &call)?.spawn()?;
        running.wait()?.succeeds()?;
        let own = cgroup_of(bundle.pid()?)?;
        let unit = own.rsplit('/').next().unwrap_or_default().to_owned();
        let is_scope = unit.starts_with("pura-c1.") && unit.strip_suffix(".scope").is_some();
        // Without a limit nobody is asked.
        assert_eq!(is_scope, !limit.is_empty(), "{limit:?}: {own}");
        in_session(bundle.pura(&["delete", "--force", ID])).output()?.succeeds_silently()?;
        assert!(!is_scope || show(&unit, "LoadState")? == "not-found", "{unit}");
    }
    bundle.is_clean()
}

#[test]
fn all_verbs_reach_a_scope_that_nobody_had_to_ask_for() -> Result<()> {
    requires!(userns, busybox, systemd);
    let bundle = limited()?;
    let call = |words: &[&str]| in_a_shell(&bundle, &bundle.pura(words))?.output();
    let mut running = in_a_shell(&bundle, &bundle.with_bundle("create", &[ID])?)?.spawn()?;
    running.wait()?.succeeds_silently()?;
    let (unit, cgroup) = place(&bundle)?;
    let limit = |file: &str| fs::read_to_string(cgroup.join(file)).map(|text| text.trim().to_owned());
    assert_eq!((show(&unit, "MemoryMax")?.as_str(), limit("memory.max")?.as_str()), ("67108864", "67108864"));
    call(&["start", ID])?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    let own = cgroup_of(bundle.pid()?)?;
    assert_eq!(
        call(&["exec", ID, "/bin/busybox", "cat", "/proc/self/cgroup"])?.succeeds()?.trim(),
        format!("0::{own}")
    );
    call(&["update", "--pids-limit", "40", ID])?.succeeds_silently()?;
    assert_eq!((show(&unit, "TasksMax")?.as_str(), limit("pids.max")?.as_str()), ("40", "40"));
    call(&["pause", ID])?.succeeds_silently()?;
    assert_eq!(bundle.status()?, "paused");
    call(&["resume", ID])?.succeeds_silently()?;
    call(&["delete", "--force", ID])?.succeeds_silently()?;
    assert_eq!(show(&unit, "LoadState")?, "not-found");
    assert!(!cgroup.exists());
    bundle.is_clean()
}

#[test]
fn a_plan_says_why_it_is_a_scope() -> Result<()> {
    requires!(userns, systemd);
    let bundle = limited()?;
    bundle.write()?;
    let call = bundle.pura(&["plan", "--bundle"]).args(&[bundle.path("bundle")]);
    let outcome = in_a_shell(&bundle, &call)?.output()?;
    let plan = outcome.succeeds()?;
    for words in ["systemd starts pura-plan.", "and not below the caller's own cgroup, because", "MemoryMax 67108864"] {
        assert!(plan.contains(words), "{words}: {plan}");
    }
    bundle.is_clean()
}

#[test]
fn who_chooses_a_driver_or_a_place_gets_no_scope() -> Result<()> {
    requires!(userns, unprivileged, systemd);
    if !is_login()? {
        return crate::harness::skip("login session", "the caller's own cgroup is theirs");
    }
    let mut bundle = limited()?;
    let own = ["--cgroup-manager", "cgroupfs", "create", "--bundle"];
    bundle.write()?;
    let call = bundle.pura(&own).args(&[bundle.path("bundle")]).args(&[ID]);
    in_session(call).output()?.fails(1, 461, &["memory.max", "is not yours", "Delegate=yes"])?;
    bundle.config["linux"]["cgroupsPath"] = json!("/puratest/leaf");
    in_session(bundle.with_bundle("create", &[ID])?).output()?.fails(1, 461, &["is not yours"])?;
    bundle.is_clean()
}
