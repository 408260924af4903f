//! `run --stats`: what a program has used, and `run --cgroup=besteffort`: limits as far as they can be had.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::harness::{Bundle, own_cgroup};

/// The words of the line that says it.
fn said(stderr: &str) -> Result<Vec<(&str, &str)>> {
    let line = stderr.lines().find_map(|line| line.strip_prefix("pura: wall=")).context("nothing was said")?;
    let mut words = vec![("wall", line.split(' ').next().unwrap_or_default())];
    words.extend(line.split(' ').skip(1).filter_map(|word| word.split_once('=')));
    Ok(words)
}

#[test]
fn what_was_used_is_said_at_the_end_and_the_status_is_the_programs() -> Result<()> {
    requires!(userns, busybox);
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; exit 3";
    for driver in ["cgroupfs", "disabled"] {
        let bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
        bundle.write()?;
        let words = ["--cgroup-manager", driver, "run", "--stats", "-b"];
        let outcome = bundle.pura(&words).args(&[bundle.path("bundle")]).args(&["c1"]).output()?;
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (3, ""), "{outcome:?}");
        let words = said(&outcome.stderr)?;
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        assert_eq!(&names[..3], ["wall", "user", "system"], "{outcome:?}");
        let user = words[1].1.trim_end_matches('s');
        assert!(user.parse::<f64>()? > 0.0, "{outcome:?}");
        if driver == "disabled" {
            assert_eq!(names[3..], ["rss-peak"], "{outcome:?}");
        }
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn peaks_are_those_of_all_processes_together() -> Result<()> {
    requires!(userns, controllers, busybox);
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", "sleep 0.1 & sleep 0.1 & wait"])?;
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 50}, "memory": {"limit": 1_073_741_824}});
    let outcome = bundle.with_bundle("run", &["--stats", "c1"])?.output()?;
    let words = said(&outcome.stderr)?;
    for (name, least) in [("pids-peak", 3), ("memory-peak", 100_000)] {
        // Of newer kernels.
        if let Some((_, value)) = words.iter().find(|(known, _)| *known == name) {
            assert!(value.trim_end_matches('B').parse::<u64>()? >= least, "{outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn nothing_is_said_of_a_program_that_is_not_waited_for() -> Result<()> {
    let bundle = Bundle::probing(&["true"])?;
    bundle.with_bundle("run", &["--detach", "--stats", "c1"])?.output()?.fails(2, 1, &["--stats", "--detach"])?;
    bundle.is_clean()
}

#[test]
fn a_limit_that_cannot_be_had_is_a_warning_when_best_effort_is_enough() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["linux"]["resources"] = json!({"unified": {"nosuch.max": "1"}});
    bundle.with_bundle("run", &["c1"])?.output()?.fails_with_any(125, &[461, 463], &["nosuch.max"])?;
    let log = bundle.path("log");
    let words = ["--log-level", "warning", "--log", &log.to_string_lossy(), "run", "--cgroup=besteffort", "-b"];
    bundle.pura(&words).args(&[bundle.path("bundle")]).args(&["c1"]).output()?.succeeds_silently()?;
    let warned = fs::read_to_string(&log)?;
    assert!(warned.contains("nosuch.max is not set to 1") && warned.contains("PURA-405"), "{warned}");
    let strict = ["--strict", "run", "--cgroup=besteffort", "-b"];
    let outcome = bundle.pura(&strict).args(&[bundle.path("bundle")]).args(&["c1"]).output()?;
    outcome.fails(125, 405, &["nosuch.max"])?;
    // What is no value stays an error.
    bundle.config["linux"]["resources"] = json!({"memory": {"limit": 1000, "swap": 999}});
    bundle.with_bundle("run", &["--cgroup=besteffort", "c1"])?.output()?.fails(125, 803, &["memory.swap"])?;
    bundle.with_bundle("run", &["--cgroup=most", "c1"])?.output()?.fails(125, 1, &["--cgroup", "besteffort"])?;
    bundle.is_clean()
}

#[test]
fn best_effort_sets_the_limits_that_can_be_had() -> Result<()> {
    requires!(userns, controllers, busybox);
    let own = own_cgroup()?;
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 7}, "unified": {"nosuch.max": "1"}});
    let plan = bundle.with_bundle("plan", &["--cgroup=besteffort"])?.output()?;
    let leaf = plan.succeeds()?.lines().find_map(|line| line.strip_prefix("cgroup: ")).context("leaf")?.to_owned();
    assert!(leaf.starts_with(&*own.parent().context("parent")?.to_string_lossy()), "{plan:?}");
    let mut running = bundle.with_bundle("run", &["--cgroup=besteffort", "c1"])?.spawn()?;
    assert_eq!(running.line()?, "ready");
    let state = bundle.state()?;
    let leaf = state["pura"]["cgroup"].as_str().context("cgroup")?;
    assert_eq!(fs::read_to_string(format!("{leaf}/pids.max"))?.trim(), "7");
    bundle.verb("kill")?.succeeds_silently()?;
    running.wait()?;
    bundle.is_clean()
}
