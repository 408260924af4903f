//! The pages: what they promise is there.

use std::{collections::BTreeSet, env, fs, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::harness::text;

const PAGES: [(&str, &str); 9] = [
    ("../SPECIFICATION.md", include_str!("../../SPECIFICATION.md")),
    ("advisories.md", ADVISORIES),
    ("security.md", include_str!("../../docs/security.md")),
    ("contract.md", include_str!("../../docs/contract.md")),
    ("spec-conformance.md", include_str!("../../docs/spec-conformance.md")),
    ("engines.md", include_str!("../../docs/engines.md")),
    ("kernel-features.md", include_str!("../../docs/kernel-features.md")),
    ("lifecycle.md", include_str!("../../docs/lifecycle.md")),
    ("testing.md", include_str!("../../docs/testing.md")),
];

const ADVISORIES: &str = include_str!("../../docs/advisories.md");

/// The statements of the specification, each with its tests: which pages there are, and from which number to which.
const STATEMENTS: [(&str, std::ops::RangeInclusive<u32>); 2] =
    [("lifecycle-and-config.md", 1..=118), ("linux-and-features.md", 119..=190)];

/// Words in back-quotes that look like a test of the suite: `topic::a_sentence`.
fn named(page: &str) -> impl Iterator<Item = &str> {
    let is_test = |word: &&str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_:".contains(&byte);
        word.split_once("::").is_some_and(|(_, name)| !name.is_empty()) && word.bytes().all(allowed)
    };
    page.split('`').skip(1).step_by(2).filter(is_test)
}

/// The names of all tests of the suite.
fn tests() -> Result<Vec<String>> {
    let listed = Command::new(env::current_exe()?).args(["--list", "--format", "terse"]).output()?;
    let listed = text(&listed.stdout);
    let tests: Vec<_> = listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
    ensure!(tests.len() > 100, "the suite lists its tests: {listed}");
    Ok(tests)
}

fn names_only_tests(file: &str, page: &str, tests: &[String]) -> Result<()> {
    for name in named(page) {
        ensure!(tests.iter().any(|test| test == name), "docs/{file} names {name}, which is no test of the suite");
    }
    Ok(())
}

#[test]
fn every_test_that_a_page_names_exists() -> Result<()> {
    let tests = tests()?;
    PAGES.iter().try_for_each(|(file, page)| names_only_tests(file, page, &tests))
}

#[test]
fn every_statement_has_a_test_or_a_reason_and_stands_once() -> Result<()> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/conformance");
    // The checkout may be closed to the user who tests.
    if fs::read_dir(directory).is_err() {
        return Ok(());
    }
    let tests = tests()?;
    for (file, numbers) in STATEMENTS {
        let Ok(page) = fs::read_to_string(format!("{directory}/{file}")) else { continue };
        names_only_tests(file, &page, &tests)?;
        let mut seen = BTreeSet::new();
        for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| n |")) {
            let cells: Vec<_> = row.trim_matches('|').splitn(3, " | ").map(str::trim).collect();
            let [number, statement, shown] = cells[..] else { anyhow::bail!("{file}: no three cells: {row}") };
            ensure!(seen.insert(number.parse::<u32>()?), "{file}: {number} stands twice");
            let has_reason = shown.strip_prefix('—').is_some_and(|reason| reason.trim().len() > 10);
            let is_shown = named(shown).next().is_some() || has_reason;
            ensure!(is_shown && !statement.is_empty(), "{file}: {number} has neither a test nor a reason");
        }
        ensure!(seen.into_iter().eq(numbers.clone()), "{file} has not exactly the statements {numbers:?}");
    }
    Ok(())
}

#[test]
fn every_pain_of_rootless_users_has_an_answer_and_what_shows_it() -> Result<()> {
    let file = "conformance/pains.md";
    let page = include_str!("../../docs/conformance/pains.md");
    names_only_tests(file, page, &tests()?)?;
    let codes = include_str!("../../docs/errors.md");
    let mut numbers = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| P")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [pain, answer, named_codes, shown] = cells[..] else { anyhow::bail!("{file}: no four cells: {row}") };
        let number = pain.split(' ').next().and_then(|word| word.strip_prefix('P')).context("a number")?;
        numbers.push(number.parse::<u32>()?);
        ensure!(!answer.is_empty(), "{file}: {pain} has no answer");
        for code in named_codes.split(", ").filter(|code| *code != "—") {
            ensure!(codes.contains(&format!("\n| {code} |")), "{file}: {pain} names the code {code}, which is none");
        }
        ensure!(named(shown).next().is_some() || shown.len() > 20, "{file}: {pain} has neither a test nor a reason");
    }
    ensure!(numbers.iter().copied().eq(1..=45), "{file} has not exactly the pains 1 to 45: {numbers:?}");
    Ok(())
}

#[test]
fn every_advisory_stands_once_and_has_a_test_or_a_reason() -> Result<()> {
    let mut seen = BTreeSet::new();
    for row in ADVISORIES.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        // The last table has those without a number.
        let [id, project, cause, applies, defence, shown] = cells[..] else { continue };
        if id == "advisory" {
            continue;
        }
        ensure!(seen.insert(id), "{id} stands twice");
        let is_told = [project, cause, defence].iter().all(|cell| !cell.is_empty());
        ensure!(is_told && ["yes", "no", "partly"].iter().any(|word| applies.starts_with(word)), "{id}: {row}");
        let has_reason = shown.strip_prefix('—').is_some_and(|reason| reason.trim().len() > 10);
        ensure!(has_reason || named(shown).next().is_some(), "{id} has neither a test nor a reason");
        // What applies in full is shown by a test.
        ensure!(applies != "yes" || !has_reason, "{id} applies, and has no test");
    }
    ensure!(seen.len() >= 110, "{} advisories", seen.len());
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
    if fs::read_dir(sources).is_err() {
        return Ok(());
    }
    for link in links.into_iter().filter(|link| !link.starts_with("http")) {
        fs::metadata(format!("{sources}/{link}")).with_context(|| format!("README.md links to {link}"))?;
    }
    Ok(())
}
