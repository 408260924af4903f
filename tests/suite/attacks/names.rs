//! Names of containers as a way to other files: every verb refuses them.

use std::fs;

use anyhow::{Context as _, Result};

use super::is_refusal;
use crate::harness::Bundle;

#[test]
fn a_hostile_name_is_refused_by_every_verb() -> Result<()> {
    let bundle = Bundle::new()?;
    bundle.write()?;
    let victim = bundle.path("victim");
    fs::create_dir(&victim)?;
    fs::write(victim.join("state.json"), "precious")?;
    let path = bundle.path("bundle").display().to_string();
    let absolute = victim.display().to_string();
    let long = "x".repeat(300);
    for id in [
        "..",
        ".",
        "",
        "/",
        "a/b",
        "../victim",
        &absolute,
        "-x",
        "--",
        "a\nb",
        "a b",
        "a\tb",
        "\u{7f}",
        "*",
        ".rm-a-1",
        "é",
        "%2e%2e",
        "a\\b",
        &long,
    ] {
        let calls: [&[&str]; 16] = [
            &["create", "-b", &path, "--", id],
            &["run", "-b", &path, "--", id],
            &["start", "--", id],
            &["state", "--", id],
            &["kill", "--", id],
            &["kill", "--all", "--", id, "KILL"],
            &["delete", "--", id],
            &["delete", "--force", "--", id],
            &["pause", "--", id],
            &["resume", "--", id],
            &["ps", "--", id],
            &["events", "--stats", "--", id],
            &["update", "--memory", "1g", "--", id],
            &["wait", "--", id],
            &["exec", "--", id, "/bin/true"],
            &["map", "--container", id, "0"],
        ];
        for words in calls {
            let outcome = bundle.pura(words).output()?;
            is_refusal(&outcome).with_context(|| format!("{words:?}"))?;
        }
    }
    assert_eq!(fs::read_to_string(victim.join("state.json"))?, "precious");
    assert!(bundle.path("state").is_dir() && bundle.path("bundle/config.json").exists());
    bundle.is_clean()
}
