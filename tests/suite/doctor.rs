//! `pura doctor` as people and programs call it; what it says of broken machines is in `obstacles`.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{Bundle, Outcome, Pura, pura_binary};

const CHECKS: [&str; 15] = [
    "userns",
    "ids",
    "namespaces",
    "proc",
    "sys",
    "mounts",
    "state",
    "cgroup",
    "systemd",
    "limits",
    "security",
    "devices",
    "network",
    "kernel",
    "helpers",
];

fn doctor(bundle: &Bundle, flags: &[&str]) -> Result<Outcome> {
    bundle.pura(&[&["doctor"], flags].concat()).output()
}

#[test]
fn there_is_a_line_for_each_check_and_the_exit_status_is_that_of_the_worst() -> Result<()> {
    let bundle = Bundle::new()?;
    let outcome = doctor(&bundle, &[])?;
    let lines: Vec<_> = outcome.stdout.lines().collect();
    ensure!(outcome.stderr.is_empty() && lines.len() == CHECKS.len(), "{outcome:?}");
    let mut worst = 0;
    for (line, id) in lines.iter().zip(CHECKS) {
        let mut words = line.split_whitespace();
        ensure!(words.next() == Some(id), "{line}");
        let status = words.next().context("status")?;
        let at = ["OK", "WARN", "FAIL"].iter().position(|word| *word == status);
        worst = worst.max(at.or_else(|| (status == "SKIP").then_some(0)).with_context(|| line.to_string())?);
        ensure!(status != "WARN" && status != "FAIL" || line.contains(" [PURA-"), "{line}");
        ensure!(!line.contains('\u{1b}'), "no colours but on a terminal: {line:?}");
    }
    assert_eq!(outcome.code(), i32::try_from(worst)?);
    Ok(())
}

#[test]
fn json_says_the_same_with_stable_keys() -> Result<()> {
    let bundle = Bundle::new()?;
    let outcome = doctor(&bundle, &["--json"])?;
    let whole: Value = serde_json::from_str(&outcome.stdout)?;
    let keys = |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<BTreeSet<_>>());
    let set = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>());
    assert_eq!(keys(&whole), set(&["version", "pura", "status", "checks"]));
    assert_eq!(whole["version"], 1);
    let checks = whole["checks"].as_array().context("checks")?;
    assert_eq!(checks.iter().map(|check| check["id"].as_str().unwrap_or_default()).collect::<Vec<_>>(), CHECKS);
    for check in checks {
        assert_eq!(keys(check), set(&["id", "status", "finding", "code", "fix", "facts"]));
        ensure!(check["finding"].as_str().is_some_and(|finding| !finding.is_empty()), "{check}");
    }
    let status = match outcome.code() {
        0 => "ok",
        1 => "warn",
        _ => "fail",
    };
    assert_eq!(whole["status"], status);
    Ok(())
}

#[test]
fn it_changes_nothing_and_leaves_nothing() -> Result<()> {
    // Real root keeps its state elsewhere.
    requires!(unprivileged);
    let bundle = Bundle::new()?;
    let runtime = bundle.path("runtime");
    fs::create_dir(&runtime)?;
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700))?;
    let before = fs::read_to_string("/proc/self/mountinfo")?.lines().count();
    let outcome = Pura::new(bundle.dir(), &["doctor", "--json"]).env("XDG_RUNTIME_DIR", &runtime).output()?;
    ensure!(outcome.stdout.contains(&format!("{}/pura", runtime.display())) && outcome.code() < 3, "{outcome:?}");
    assert_eq!(fs::read_dir(&runtime)?.count(), 0, "the state directory is only looked for");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo")?.lines().count(), before);
    let cgroup = fs::read_to_string("/proc/self/cgroup")?;
    if let Some(own) = cgroup.lines().find_map(|line| line.strip_prefix("0::/")) {
        for entry in fs::read_dir(format!("/sys/fs/cgroup/{own}")).into_iter().flatten().flatten() {
            ensure!(!entry.file_name().to_string_lossy().starts_with("pura-doctor"), "{entry:?}");
        }
    }
    bundle.is_clean()
}

#[test]
fn the_script_is_one_for_sh_and_the_profile_names_the_binary() -> Result<()> {
    let bundle = Bundle::new()?;
    let script = doctor(&bundle, &["--fix-script"])?;
    let path = bundle.path("script");
    fs::write(&path, script.succeeds()?)?;
    ensure!(Command::new("sh").arg("-n").arg(&path).status()?.success(), "{}", script.stdout);
    ensure!(!script.stdout.lines().any(|line| line.starts_with("sudo ")), "{}", script.stdout);
    let profile = doctor(&bundle, &["--apparmor-profile"])?;
    let named = format!("profile pura \"{}\" flags=(unconfined) {{", fs::canonicalize(pura_binary())?.display());
    ensure!(profile.succeeds()?.contains(&named) && profile.stdout.contains("  userns,\n"), "{}", profile.stdout);
    bundle.pura(&["doctor", "--json", "--fix-script"]).output()?.fails(2, 1, &["both --json and --fix-script"])?;
    Ok(())
}

#[test]
fn the_mode_of_the_user_namespace_counts() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = Bundle::new()?;
    let outcome = doctor(&bundle, &["--userns=single"])?;
    let line = outcome.stdout.lines().nth(1).unwrap_or_default();
    assert_eq!(line, "ids         OK    1 uids and 1 gids, mapped by init (one id, no helper)");
    Ok(())
}
