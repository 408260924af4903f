//! What engines decode: JSON, the version, the log.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::combined;
use crate::harness::Bundle;

/// A container that has something weaker than it asks for.
fn degraded() -> Result<Bundle> {
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["process"]["capabilities"] = json!({"bounding": ["CAP_OF_TOMORROW"]});
    Ok(bundle)
}

#[test]
fn one_buffer_for_both_outputs_decodes_even_when_something_is_weaker_than_asked_for() -> Result<()> {
    requires!(userns);
    let bundle = degraded()?;
    bundle.write()?;
    let path = bundle.path("bundle").display().to_string();
    let log = bundle.path("log").display().to_string();
    let flags = ["--debug", "--log", &log];
    let said = |words: &[&str]| -> Result<String> {
        let outcome = combined(&bundle, &[&flags[..], words].concat())?;
        Ok(outcome.succeeds()?.to_owned())
    };
    assert_eq!(said(&["create", "--bundle", &path, "c1"])?, "");
    assert!(fs::read_to_string(&log)?.contains("PURA-501"), "there was to be a warning");
    assert_eq!(said(&["start", "c1"])?, "");
    let state: Value = serde_json::from_str(&said(&["state", "c1"])?)?;
    assert_eq!(state["id"], "c1");
    let list: Value = serde_json::from_str(&said(&["list", "--format", "json"])?)?;
    assert_eq!(list[0]["id"], "c1");
    let features: Value = serde_json::from_str(&said(&["features"])?)?;
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string());
    let pids: Vec<i64> = serde_json::from_str(&said(&["ps", "--format", "json", "c1"])?)?;
    assert_eq!(Some(&pids[..]), state["pid"].as_i64().as_ref().map(std::slice::from_ref));
    assert_eq!(said(&["kill", "c1", "0"])?, "");
    assert_eq!(said(&["delete", "--force", "c1"])?, "");
    Ok(())
}

#[test]
fn ps_of_a_stopped_container_is_an_empty_array_and_a_table_has_a_column_of_pids() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.started()?;
    if std::path::Path::new("/bin/ps").exists() {
        let table = combined(&bundle, &["ps", "c1"])?;
        let lines: Vec<_> = table.succeeds()?.lines().collect();
        assert!(lines[0].split_whitespace().any(|word| word == "PID") && lines.len() == 2, "{lines:?}");
    }
    bundle.pura(&["kill", "c1", "KILL"]).output()?.succeeds_silently()?;
    running.rest()?;
    bundle.becomes("stopped")?;
    assert_eq!(combined(&bundle, &["ps", "--format", "json", "c1"])?.succeeds()?, "[]\n");
    bundle.delete()
}

#[test]
fn features_has_what_kubernetes_and_docker_look_for() -> Result<()> {
    let bundle = Bundle::new()?;
    let features: Value = serde_json::from_str(combined(&bundle, &["features"])?.succeeds()?)?;
    let has = |pointer: &str, word: &str| {
        features.pointer(pointer).and_then(Value::as_array).is_some_and(|all| all.contains(&word.into()))
    };
    assert!(has("/mountOptions", "rro") && has("/linux/namespaces", "user"), "{features}");
    assert_eq!(features.pointer("/linux/mountExtensions/idmap/enabled"), Some(&true.into()));
    assert!(features["potentiallyUnsafeConfigAnnotations"].is_array());
    Ok(())
}

/// Whether a text is a time as RFC 3339 has it, by its fields.
fn is_time(text: &str) -> bool {
    let Some((date, rest)) = text.split_once('T') else { return false };
    let (clock, zone) = rest.find(['Z', '+', '-']).map_or((rest, ""), |at| rest.split_at(at));
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let within = |text: &str, by: char, widths: &[usize], least: &[u32], most: &[u32]| {
        let fields: Vec<_> = text.split(by).collect();
        fields.len() == widths.len()
            && fields.iter().zip(widths).all(|(field, width)| field.len() == *width)
            && fields
                .iter()
                .zip(least.iter().zip(most))
                .all(|(field, (least, most))| field.parse().is_ok_and(|value: u32| (*least..=*most).contains(&value)))
    };
    within(date, '-', &[4, 2, 2], &[2000, 1, 1], &[9999, 12, 31])
        && within(clock, ':', &[2, 2, 2], &[0, 0, 0], &[23, 59, 60])
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && (zone == "Z" || within(zone.get(1..).unwrap_or_default(), ':', &[2, 2], &[0, 0], &[23, 59]))
}

#[test]
fn the_log_is_made_by_success_and_gets_one_line_of_each_failure_that_standard_error_has_too() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    let path = bundle.path("bundle").display().to_string();
    let log = bundle.path("log");
    let flags = ["--log", &log.to_string_lossy(), "--log-format", "json"];
    bundle.write()?;
    let call = |words: &[&str]| bundle.pura(&[&flags[..], words].concat()).output();
    call(&["create", "--bundle", &path, "c1"])?.succeeds_silently()?;
    assert_eq!(fs::read_to_string(&log)?, "");
    call(&["delete", "c1"])?.succeeds_silently()?;
    assert_eq!(fs::read_to_string(&log)?, "");
    bundle.args(&["/bin/nope"]);
    bundle.write()?;
    let calls: [&[&str]; 5] = [
        &["create", "--bundle", &path, "c1"],
        &["start", "c1"],
        &["exec", "c1", "true"],
        &["kill", "c1", "9"],
        &["delete", "c1"],
    ];
    for (count, words) in (1..).zip(calls) {
        let outcome = bundle.pura(&[&flags[..], words].concat()).output()?;
        assert!(outcome.code() != 0 && outcome.stderr.lines().count() == 1, "{outcome:#?}");
        let text = fs::read_to_string(&log)?;
        assert_eq!(text.lines().count(), count, "{text}");
        let entry: Value = serde_json::from_str(text.lines().last().context("a line")?)?;
        assert_eq!(entry["level"], "error");
        let message = entry["msg"].as_str().context("msg")?;
        assert_eq!(outcome.stderr, format!("pura: {message}\n"));
        assert!(entry["time"].as_str().is_some_and(is_time), "{entry}");
    }
    Ok(())
}

#[test]
fn created_is_a_time_and_pid_and_paths_are_what_engines_take_them_for() -> Result<()> {
    requires!(userns);
    let mut bundle = degraded()?;
    bundle.config["annotations"] = json!({
        "io.kubernetes.cri.container-type": "container", "io.podman.annotations.label": "x",
        "org.systemd.property.KillSignal": "15", "org.systemd.property.TimeoutStopUSec": "uint64 10000000",
        "org.systemd.property.DefaultDependencies": "true", "org.systemd.property.After": "['crio.service']"
    });
    let _running = bundle.started()?;
    let state = bundle.state()?;
    assert!(state["created"].as_str().is_some_and(is_time), "{state}");
    assert_eq!(state["annotations"], bundle.config["annotations"]);
    for path in ["bundle", "rootfs"] {
        assert!(state[path].as_str().is_some_and(|path| path.starts_with('/')), "{state}");
    }
    bundle.delete()
}

#[test]
fn a_log_that_is_shared_is_never_truncated_and_an_unreachable_journal_is_no_failure() -> Result<()> {
    let bundle = Bundle::new()?;
    let log = bundle.path("log");
    fs::write(&log, "{\"level\":\"info\",\"msg\":\"of another\",\"time\":\"2026-01-01T00:00:00Z\"}\n")?;
    let before = fs::read_to_string(&log)?;
    let flags = ["--log", &log.to_string_lossy(), "--log-format", "json"];
    bundle.pura(&[&flags[..], &["delete", "--force", "c1"]].concat()).output()?.succeeds_silently()?;
    bundle.pura(&[&flags[..], &["state", "c1"]].concat()).output()?.fails(1, 703, &[])?;
    assert!(fs::read_to_string(&log)?.starts_with(&before));
    for service in ["journald:x", "syslog:x"] {
        bundle.pura(&["--log", service, "list", "-q"]).output()?.succeeds_silently()?;
        bundle.pura(&["--log", service, "state", "c1"]).output()?.fails(1, 703, &[])?;
    }
    for place in ["/nowhere/log", &bundle.dir().to_string_lossy()] {
        bundle.pura(&["--log", place, "delete", "--force", "c1"]).output()?.fails(1, 716, &[place])?;
    }
    Ok(())
}
