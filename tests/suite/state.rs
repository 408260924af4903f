//! state: what engines read of a container.

use anyhow::Result;
use serde_json::{Value, json};

use crate::harness::Bundle;

#[test]
fn state_of_a_missing_container_fails_without_output() -> Result<()> {
    let bundle = Bundle::new()?;
    bundle.verb("state")?.fails(1, 703, &["container \"c1\" does not exist"])?;
    Ok(())
}

#[test]
fn state_has_every_field_of_the_specification_and_none_that_engines_would_absorb() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["annotations"] = json!({"org.example.a": "b", "empty": "", "with space": "\"quoted\"\n"});
    let running = bundle.started()?;
    let state = bundle.state()?;
    let text = |field: &str| state[field].as_str().unwrap_or_default().to_owned();
    assert_eq!((text("ociVersion"), text("id"), text("status")), ("1.3.0".into(), "c1".into(), "running".into()));
    assert_eq!(text("bundle"), bundle.path("bundle").to_string_lossy());
    assert_eq!(text("rootfs"), bundle.path("bundle/rootfs").to_string_lossy());
    assert_eq!(state["annotations"], bundle.config["annotations"]);
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1), "pid: {state}");
    assert!(is_rfc3339(&text("created")), "created: {state}");
    assert!(state["owner"].is_string() && state["pura"].is_object(), "owner, pura: {state}");
    for absorbed in ["started", "finished", "exitCode", "error", "initPid", "oomKilled", "seccompKilled"] {
        assert!(state.get(absorbed).is_none(), "{absorbed}: {state}");
    }
    bundle.verb("kill")?.succeeds_silently()?;
    running.rest()?;
    bundle.becomes("stopped")?;
    let stopped = bundle.state()?;
    assert_eq!((&stopped["pid"], &stopped["created"]), (&json!(0), &state["created"]));
    bundle.delete()
}

#[test]
fn the_pid_is_the_callers_view_of_the_program() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", bundle.pid()?))?;
    assert_eq!(line, "/bin/pura-probe\0sleep\0");
    bundle.delete()
}

#[test]
fn paths_are_absolute_after_a_bundle_of_dot() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    for flags in [&["create", "-b", ".", "c1"][..], &["create", "c1"]] {
        bundle.pura(flags).cwd(&bundle.path("bundle")).output()?.succeeds_silently()?;
        let state = bundle.state()?;
        assert_eq!(state["bundle"], json!(bundle.path("bundle")));
        assert_eq!(state["rootfs"], json!(bundle.path("bundle/rootfs")));
        bundle.delete()?;
    }
    Ok(())
}

#[test]
fn without_annotations_there_is_an_empty_map_or_none() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.created()?;
    let state = bundle.state()?;
    assert!(matches!(state.get("annotations"), None | Some(Value::Object(_))), "annotations: {state}");
    bundle.delete()
}

/// `2026-01-31T12:00:00Z`, with or without a fraction, or with an offset.
fn is_rfc3339(time: &str) -> bool {
    let shape: String = time.chars().take(19).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let zone = time.get(19..).unwrap_or_default().trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    shape == "0000-00-00T00:00:00" && (zone == "Z" || zone.len() == 6 && zone.starts_with(['+', '-']))
}

/// What the schema of the specification wants of a state: the required fields, and the type of each.
fn satisfies_the_schema(state: &Value, statuses: &[&str]) -> bool {
    let is_text = |field: &str| state[field].as_str().is_some_and(|text| !text.is_empty());
    let numbers = state["ociVersion"].as_str().unwrap_or_default().split(['-', '+']).next().unwrap_or_default();
    let is_version = numbers.split('.').count() == 3 && numbers.split('.').all(|part| part.parse::<u32>().is_ok());
    let is_status = state["status"].as_str().is_some_and(|status| statuses.contains(&status));
    let is_pid = state["pid"].as_i64().is_some_and(|pid| pid >= 0);
    let annotations = state.get("annotations").and_then(Value::as_object);
    let are_texts = annotations.is_none_or(|all| all.iter().all(|(key, value)| !key.is_empty() && value.is_string()));
    is_version && is_text("id") && is_status && is_pid && is_text("bundle") && are_texts
}

#[test]
fn state_satisfies_the_schema_in_every_status() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["annotations"] = json!({"org.example.a": "b"});
    let running = bundle.created()?;
    assert!(satisfies_the_schema(&bundle.state()?, &["created"]), "{}", bundle.state()?);
    bundle.verb("start")?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    assert!(satisfies_the_schema(&bundle.state()?, &["running"]), "{}", bundle.state()?);
    bundle.verb("kill")?.succeeds_silently()?;
    running.rest()?;
    bundle.becomes("stopped")?;
    assert!(satisfies_the_schema(&bundle.state()?, &["stopped"]), "{}", bundle.state()?);
    bundle.delete()
}
