//! The pages: what they promise is there.

use std::{env, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::harness::text;

const PAGES: [(&str, &str); 4] = [
    ("spec-conformance.md", include_str!("../../docs/spec-conformance.md")),
    ("kernel-features.md", include_str!("../../docs/kernel-features.md")),
    ("lifecycle.md", include_str!("../../docs/lifecycle.md")),
    ("testing.md", include_str!("../../docs/testing.md")),
];

/// Words in back-quotes that look like a test of the suite: `topic::a_sentence`.
fn named(page: &str) -> impl Iterator<Item = &str> {
    let is_test = |word: &&str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_:".contains(&byte);
        word.split_once("::").is_some_and(|(_, name)| !name.is_empty()) && word.bytes().all(allowed)
    };
    page.split('`').skip(1).step_by(2).filter(is_test)
}

#[test]
fn every_test_that_a_page_names_exists() -> Result<()> {
    let listed = Command::new(env::current_exe()?).args(["--list", "--format", "terse"]).output()?;
    let listed = text(&listed.stdout);
    let tests: Vec<_> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    ensure!(tests.len() > 100, "the suite lists its tests: {listed}");
    for (file, page) in PAGES {
        for name in named(page) {
            ensure!(tests.contains(&name), "docs/{file} names {name}, which is no test of the suite");
        }
    }
    Ok(())
}

#[test]
fn every_call_that_can_be_hidden_has_a_row_with_a_test() -> Result<()> {
    let page = include_str!("../../docs/kernel-features.md");
    for call in crate::fallback::ALL.split(',').chain(["setns", "statx"]) {
        let row = page.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{call}`")));
        let row = row.with_context(|| format!("docs/kernel-features.md has no row for {call}"))?;
        ensure!(named(row).next().is_some(), "docs/kernel-features.md names no test for {call}");
    }
    Ok(())
}

#[test]
fn every_page_that_the_readme_links_to_is_there() -> Result<()> {
    let readme = include_str!("../../README.md");
    let links: Vec<_> = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    ensure!(links.len() > 10, "{links:?}");
    let sources = env!("CARGO_MANIFEST_DIR");
    // The checkout may be closed to the user who tests.
    if std::fs::read_dir(sources).is_err() {
        return Ok(());
    }
    for link in links.into_iter().filter(|link| !link.starts_with("http")) {
        std::fs::metadata(format!("{sources}/{link}")).with_context(|| format!("README.md links to {link}"))?;
    }
    Ok(())
}
