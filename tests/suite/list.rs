//! list: all containers, and only those.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::harness::{Bundle, Pura, own_uid, skip};

#[test]
fn an_empty_or_missing_root_gives_an_empty_list() -> Result<()> {
    let bundle = Bundle::new()?;
    assert_eq!(bundle.pura(&["list", "--format", "json"]).output()?.succeeds()?.trim_end(), "[]");
    assert_eq!(bundle.pura(&["list", "--quiet"]).output()?.succeeds()?, "");
    let missing = ["--root".into(), bundle.path("no/where")];
    let outcome = Pura::new(bundle.dir(), &missing).args(&["list", "-f", "json"]).output()?;
    assert_eq!(outcome.succeeds()?.trim_end(), "[]");
    let table = bundle.pura(&["list"]).output()?;
    assert_eq!(table.succeeds()?.lines().count(), 1, "{table:#?}");
    Ok(())
}

#[test]
fn every_container_is_listed_with_the_fields_of_state() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    for id in ["b", "a", "c+d_e.f-g"] {
        bundle.with_bundle("create", &[id])?.output()?.succeeds_silently()?;
    }
    let listed = list(&bundle)?;
    let mut ids: Vec<&str> = listed.iter().filter_map(|entry| entry["id"].as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b", "c+d_e.f-g"]);
    for entry in &listed {
        for field in ["ociVersion", "id", "status", "bundle", "rootfs", "created", "owner"] {
            assert!(entry[field].is_string(), "{field}: {entry}");
        }
        assert!(entry["pid"].as_i64().is_some_and(|pid| pid > 1) && entry["status"] == "created", "{entry}");
    }
    let quiet = bundle.pura(&["list", "-q"]).output()?;
    let mut ids: Vec<&str> = quiet.succeeds()?.lines().collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b", "c+d_e.f-g"]);
    let table = bundle.pura(&["list"]).output()?;
    assert_eq!(table.succeeds()?.lines().count(), 4, "{table:#?}");
    bundle.pura(&["delete", "--regex", ".*"]).output()?.succeeds_silently()
}

#[test]
fn damaged_and_foreign_entries_are_skipped_and_left_alone() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.created()?;
    let state = bundle.path("state");
    fs::create_dir(state.join("foreign"))?;
    fs::write(state.join("foreign/state.json"), json!({"id": "foreign", "init_process_pid": 1}).to_string())?;
    fs::create_dir(state.join("empty"))?;
    fs::write(state.join("file"), "")?;
    let listed = list(&bundle)?;
    let ids: Vec<&Value> = listed.iter().map(|entry| &entry["id"]).collect();
    assert_eq!(ids, ["c1"]);
    for name in ["foreign", "empty", "file"] {
        assert!(state.join(name).exists(), "{name} is gone");
    }
    bundle.delete()?;
    fs::remove_dir_all(state.join("foreign"))?;
    fs::remove_dir(state.join("empty"))?;
    Ok(fs::remove_file(state.join("file"))?)
}

/// What `list` costs for each container, whatever the machine is busy with.
#[test]
fn one_more_container_is_ten_more_system_calls() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let state = bundle.path("state");
    let calls = || -> Result<usize> {
        let traced = bundle.path("calls");
        // Not fcntl: debug builds ask about each descriptor that they close.
        let words = ["strace", "-qq", "-e", "trace=%file,read,close", "-o", &traced.to_string_lossy()];
        bundle.through(&words, &bundle.pura(&["list", "--quiet"])).output()?.succeeds()?;
        Ok(fs::read_to_string(traced)?.lines().count())
    };
    let before = calls()?;
    let copies: Vec<_> = (0..20).map(|number| state.join(format!("copy{number}"))).collect();
    for copy in &copies {
        fs::create_dir(copy)?;
        fs::copy(state.join("c1/state.json"), copy.join("state.json"))?;
    }
    let after = calls()?;
    // 3 of them are for the freezer of a container that has a cgroup.
    assert!(after - before <= 20 * 10, "{} for each", (after - before) / 20);
    copies.iter().try_for_each(fs::remove_dir_all)?;
    bundle.delete()
}

#[test]
fn a_state_directory_that_has_two_paths_is_looked_at_once() -> Result<()> {
    requires!(userns);
    let runtime = format!("/run/user/{}", own_uid());
    if !Path::new(&runtime).is_dir() {
        return skip("runtime directory", &format!("{runtime} is missing"));
    }
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    std::os::unix::fs::symlink(&runtime, bundle.path("link"))?;
    let id = format!("twice-{}", std::process::id());
    let link = bundle.path("link").display().to_string();
    for value in [runtime.clone(), format!("{runtime}//"), link] {
        let pura = |words: &[&str]| Pura::new(bundle.dir(), words).env("XDG_RUNTIME_DIR", &value).output();
        let path = bundle.path("bundle").display().to_string();
        pura(&["create", "--bundle", &path, &id])?.succeeds_silently()?;
        let listed = pura(&["list", "-q"])?;
        let deleted = pura(&["delete", "--force", "--regex", &id])?;
        assert_eq!(listed.succeeds()?.lines().filter(|line| *line == id).count(), 1, "{value}: {listed:#?}");
        deleted.succeeds_silently()?;
    }
    Ok(())
}

fn list(bundle: &Bundle) -> Result<Vec<Value>> {
    let outcome = bundle.pura(&["list", "--format=json"]).output()?;
    let list: Value = serde_json::from_str(outcome.succeeds()?)?;
    Ok(list.as_array().context("an array")?.clone())
}

#[test]
fn a_root_that_is_not_there_is_said_to_people_and_no_containers_for_programs() -> Result<()> {
    let bundle = Bundle::new()?;
    let list =
        |root: &str, words: &[&str]| Pura::new(bundle.dir(), &[&["--root", root, "list"], words].concat()).output();
    list("/no/such/directory", &[])?.fails(1, 701, &["/no/such/directory", "does not exist"])?;
    assert_eq!(list("/no/such/directory", &["--format", "json"])?.succeeds()?, "[]\n");
    assert_eq!(list("/no/such/directory", &["--quiet"])?.succeeds()?, "");
    list("/etc/passwd", &["--format", "json"])?.fails(1, 701, &["/etc/passwd"])?;
    Ok(())
}
