//! Hosts without a systemd that answers: su, cron, CI, and buses that are nobody's.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    process::Command,
};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{ID, SLEEP};
use crate::harness::{Bundle, Outcome, lacks, pura_binary};

/// `pura --systemd-cgroup --log LOG create`, with a session directory of the test's own.
fn create(bundle: &Bundle, globals: &[&str]) -> Result<Outcome> {
    bundle.write()?;
    let log = bundle.path("log").to_string_lossy().into_owned();
    let call = bundle.pura(&[&["--systemd-cgroup", "--log-level", "warning", "--log", &log], globals].concat());
    let call = call.args(&["create", "--bundle"]).args(&[bundle.path("bundle")]).args(&[ID]);
    call.env("XDG_RUNTIME_DIR", bundle.path("run")).output()
}

fn log(bundle: &Bundle) -> Result<String> {
    Ok(fs::read_to_string(bundle.path("log"))?)
}

/// A bus that does to each connection what `serve` does, or nothing, and keeps it open.
fn with_bus(bundle: &Bundle, answer: Option<&'static [u8]>) -> Result<()> {
    fs::create_dir(bundle.path("run"))?;
    let listener = UnixListener::bind(bundle.path("run/bus"))?;
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut connection in listener.incoming().flatten() {
            if let Some(answer) = answer {
                let mut buffer = [0; 256];
                // The zero byte may come alone.
                while connection.read(&mut buffer).is_ok_and(|count| count > 0) && connection.write_all(answer).is_ok()
                {
                }
            } else {
                held.push(connection);
            }
        }
    });
    Ok(())
}

#[test]
fn without_a_session_a_container_without_limits_runs_with_a_warning() -> Result<()> {
    requires!(userns, unprivileged);
    let bundle = Bundle::with_args(SLEEP)?;
    create(&bundle, &[])?.succeeds_silently()?;
    let log = log(&bundle)?;
    assert!(log.contains("run/bus does not exist") && log.contains("[PURA-405]"), "{log}");
    assert_eq!(bundle.status()?, "created");
    bundle.delete()?;
    create(&bundle, &["--strict"])?.fails(1, 405, &["systemd cannot be reached"])?;
    bundle.is_clean()
}

#[test]
fn without_a_session_limits_are_set_by_pura_or_refused() -> Result<()> {
    requires!(userns, unprivileged);
    let mut bundle = Bundle::with_args(SLEEP)?;
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 100}});
    let outcome = create(&bundle, &[])?;
    if lacks("controllers")?.is_none() {
        outcome.succeeds_silently()?;
        let state = bundle.state()?;
        let cgroup = Path::new(state["pura"]["cgroup"].as_str().unwrap_or_default());
        assert_eq!(fs::read_to_string(cgroup.join("pids.max"))?.trim(), "100");
        return bundle.delete();
    }
    // Where the host has version 1, the reason is that.
    outcome.fails_with_any(1, &[460, 463], &["pids.max"])?;
    bundle.is_clean()
}

#[test]
fn a_bus_that_hangs_refuses_or_talks_nonsense_is_given_up() -> Result<()> {
    requires!(userns, unprivileged, cgroup);
    for (answer, words) in [
        (None, "does not answer within 5 s"),
        (Some(&b"REJECTED EXTERNAL\r\n"[..]), "gives no access"),
        (Some(&b"\xff\x00nonsense\r\n"[..]), "gives no access"),
        (Some(&b"OK 0123456789abcdef0123456789abcdef\r\n"[..]), "gives no access"),
    ] {
        let bundle = Bundle::with_args(SLEEP)?;
        with_bus(&bundle, answer)?;
        create(&bundle, &[])?.succeeds_silently()?;
        let log = log(&bundle)?;
        assert!(log.contains(words) || log.contains("does not answer"), "{words}: {log}");
        assert!(log.contains("[PURA-405]"), "{log}");
        bundle.delete()?;
    }
    Ok(())
}

/// `pura create` of a limit, with a session directory of the test's own, and no word about who makes the cgroup.
fn limited(bundle: &mut Bundle) -> Result<Outcome> {
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 100}});
    bundle.with_bundle("create", &[ID])?.env("XDG_RUNTIME_DIR", bundle.path("run")).output()
}

#[test]
fn a_limit_that_only_systemd_could_set_fails_as_ever_where_there_is_none() -> Result<()> {
    requires!(userns, unprivileged, cgroup);
    if lacks("controllers")?.is_none() {
        return crate::harness::skip("want of controllers", "they are delegated");
    }
    let mut bundle = Bundle::with_args(SLEEP)?;
    let outcome = limited(&mut bundle)?;
    outcome.fails(1, 461, &["pids.max", "fix: "])?;
    assert!(!outcome.stderr.contains("systemd cannot be asked"), "{outcome:?}");
    bundle.is_clean()?;
    with_bus(&bundle, Some(b"REJECTED EXTERNAL\r\n"))?;
    let words = ["pids.max", "and systemd cannot be asked for a scope, because", "run/bus gives no access", "fix: "];
    limited(&mut bundle)?.fails(1, 461, &words)?;
    bundle.is_clean()
}

#[test]
fn a_bus_of_another_pid_namespace_would_move_strangers_and_is_not_asked() -> Result<()> {
    requires!(userns, unprivileged, cgroup);
    let bundle = Bundle::with_args(SLEEP)?;
    with_bus(&bundle, None)?;
    bundle.write()?;
    let call = bundle.pura(&["--systemd-cgroup", "--strict", "create", "--bundle"]).args(&[bundle.path("bundle")]);
    let call = call.args(&[ID]).env("XDG_RUNTIME_DIR", bundle.path("run"));
    let apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    let outcome = bundle.through(&apart, &call).env("XDG_RUNTIME_DIR", bundle.path("run")).output()?;
    outcome.fails(1, 405, &["it is in another PID namespace than pura"])?;
    bundle.is_clean()
}

#[test]
fn without_its_helper_pura_says_which_one_it_wants() -> Result<()> {
    requires!(userns, unprivileged, cgroup);
    let bundle = Bundle::with_args(SLEEP)?;
    with_bus(&bundle, None)?;
    let alone = bundle.path("pura");
    ensure!(Command::new("cp").arg(pura_binary()).arg(&alone).status()?.success());
    bundle.write()?;
    let state = bundle.path("state").to_string_lossy().into_owned();
    let words = [alone.to_string_lossy().into_owned()].map(std::ffi::OsString::from);
    let call = crate::harness::Pura::through(bundle.dir(), &words)
        .args(&["--root", &state, "--strict", "--systemd-cgroup", "create", "--bundle"])
        .args(&[bundle.path("bundle")])
        .args(&[ID]);
    let outcome = call.env("XDG_RUNTIME_DIR", bundle.path("run")).output()?;
    outcome.fails(1, 405, &["pura-systemd is not installed beside pura"])?;
    bundle.is_clean()
}
