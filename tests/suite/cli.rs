//! The command line.

use anyhow::Result;

use crate::harness::{Bundle, Outcome, Pura};

fn pura(words: &[&str]) -> Result<Outcome> {
    let bundle = Bundle::new()?;
    Pura::new(bundle.dir(), words).output()
}

#[test]
fn the_version_has_one_line_with_the_word_version() -> Result<()> {
    for flag in ["--version", "-v"] {
        let outcome = pura(&[flag])?;
        let lines: Vec<&str> = outcome.succeeds()?.lines().collect();
        assert_eq!(lines.first().copied(), Some(concat!("pura version ", env!("CARGO_PKG_VERSION"))));
        assert_eq!(lines.iter().filter(|line| line.contains("version")).count(), 1, "{lines:?}");
        assert!(!lines.contains(&"commit: unknown"), "{lines:?}");
        assert!(lines.contains(&"spec: 1.3.0"), "{lines:?}");
    }
    Ok(())
}

#[test]
fn help_is_standard_output_and_success() -> Result<()> {
    for words in [&["--help"][..], &["-h"], &["help"], &["run", "--help"], &["create", "-h"], &["kill", "--help"]] {
        let outcome = pura(words)?;
        let text = outcome.succeeds()?;
        assert!(text.contains("pura"), "{words:?}: {text}");
        assert!(words.last() != Some(&"-h") || text.lines().count() <= 50, "{words:?} is no screen: {text}");
    }
    for verb in
        ["run", "create", "start", "state", "kill", "delete", "list", "spec", "features", "plan", "wait", "completion"]
    {
        let outcome = pura(&["--help"])?;
        assert!(outcome.succeeds()?.contains(verb), "{verb}");
    }
    Ok(())
}

#[test]
fn usage_errors_are_one_line_with_the_word_and_the_nearest_valid_one() -> Result<()> {
    let cases: [(&[&str], i32, &[&str]); 16] = [
        (&["rum"], 2, &["rum", "run"]),
        (&["delet", "c1"], 2, &["delet", "delete"]),
        (&["checkpoint", "c1"], 2, &["checkpoint"]),
        (&["checkpoint", "--help"], 2, &["checkpoint"]),
        (&["restore", "--help"], 2, &["restore"]),
        (&["create", "--bundel", "/x", "c1"], 2, &["--bundel", "--bundle"]),
        (&["--rot", "/x", "list"], 2, &["--rot", "--root"]),
        (&["list", "--format", "xml"], 2, &["xml"]),
        (&["--log-format", "xml", "list"], 2, &["xml"]),
        (&["state"], 2, &[]),
        (&["start"], 2, &[]),
        (&["kill"], 2, &[]),
        (&["delete"], 2, &[]),
        (&["create"], 2, &[]),
        (&["state", "c1", "extra"], 2, &["extra"]),
        (&["run", "--bundel", "/x", "c1"], 125, &["--bundel", "--bundle"]),
    ];
    for (words, status, named) in cases {
        let outcome = pura(words)?;
        outcome.fails(status, 1, named)?;
        for phrase in ["flag needs an argument", "requires an argument"] {
            assert!(words[0] != "checkpoint" || !outcome.stderr.contains(phrase), "{outcome:#?}");
        }
    }
    pura(&[])?.fails(2, 1, &[])?;
    pura(&["run"])?.fails(125, 1, &[])?;
    Ok(())
}

#[test]
fn an_option_in_the_wrong_place_is_told_its_place() -> Result<()> {
    let cases: [(&[&str], i32, &str); 5] = [
        (&["run", "--root", "/x", "c1"], 125, "fix: put --root before the verb"),
        (&["list", "--root=/x"], 2, "fix: put --root before the verb"),
        (&["delete", "--log-format", "json", "c1"], 2, "fix: put --log-format before the verb"),
        (&["run", "c1", "--dry-run", "-b", "demo"], 125, "fix: options before the id"),
        (&["run", "ls", "-l"], 125, "a command after --: pura run -- CMD"),
    ];
    for (words, status, fix) in cases {
        pura(words)?.fails(status, 1, &[fix])?;
    }
    Ok(())
}

#[test]
fn of_a_repeated_option_the_last_wins() -> Result<()> {
    let bundle = Bundle::new()?;
    let state = bundle.path("state").display().to_string();
    let words = ["--root", "/nowhere", "--root", &state, "list", "--format", "table", "--format=json"];
    assert_eq!(Pura::new(bundle.dir(), &words).output()?.succeeds()?.trim_end(), "[]");
    Ok(())
}

#[test]
fn the_options_that_engines_send_are_accepted() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    let (log, pid_file) = (bundle.path("log").display().to_string(), bundle.path("pid").display().to_string());
    let path = bundle.path("bundle").display().to_string();
    let globals: [&[&str]; 5] = [
        &["--log-format=json", "--log", &log],
        &["--cgroup-manager", "disabled"],
        &["--rootless=true", "--debug", "--log", &log],
        &["--rootless", "--log-level", "debug", "--log", &log],
        &["--cgroup-manager=cgroupfs"],
    ];
    for globals in globals {
        let create = [
            "create",
            "--bundle",
            &path,
            "--no-pivot",
            "--no-new-keyring",
            "-no-subreaper",
            "--pid-file",
            &pid_file,
            "c1",
        ];
        bundle.pura(&[globals, &create].concat()).output()?.succeeds_silently()?;
        bundle.pura(&[globals, &["delete", "--force", "c1"]].concat()).output()?.succeeds_silently()?;
    }
    Ok(())
}

#[test]
fn the_log_is_made_at_once_appended_to_and_holds_the_line_of_standard_error() -> Result<()> {
    let bundle = Bundle::new()?;
    let log = bundle.path("log");
    let words = ["--log-format", "json", "--log", &log.to_string_lossy()];
    bundle.pura(&[&words[..], &["list"]].concat()).output()?.succeeds()?;
    assert_eq!(std::fs::read_to_string(&log)?, "");
    for count in 1..3 {
        let outcome = bundle.pura(&[&words[..], &["state", "c1"]].concat()).output()?;
        let line = outcome.fails(1, 703, &["does not exist"])?.to_owned();
        let text = std::fs::read_to_string(&log)?;
        assert_eq!(text.lines().count(), count, "{text}");
        let entry: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
        assert_eq!(entry["level"], "error");
        assert_eq!(Some(entry["msg"].as_str().unwrap_or_default()), line.strip_prefix("pura: "));
        assert!(entry["time"].as_str().is_some_and(|time| time.len() >= 20 && time.contains('T')), "{entry}");
    }
    Ok(())
}

#[test]
fn a_log_that_cannot_be_written_is_an_error() -> Result<()> {
    let bundle = Bundle::new()?;
    let words = ["--log", "/nowhere/log", "list"];
    bundle.pura(&words).output()?.fails(1, 716, &["/nowhere/log"])?;
    Ok(())
}

#[test]
fn variables_are_flags_that_flags_override() -> Result<()> {
    let bundle = Bundle::new()?;
    let outcome = bundle.pura(&["list"]).env("PURA_USERNS", "bogus").output()?;
    outcome.fails(2, 1, &["bogus", "PURA_USERNS"])?;
    bundle.pura(&["list"]).env("PURA_USERNS", "").env("PURA_STRICT", "").output()?.succeeds()?;
    Ok(())
}

#[test]
fn bash_completes_verbs_flags_and_ids() -> Result<()> {
    let bundle = Bundle::new()?;
    let pura = Pura::new::<&str>(bundle.dir(), &[]);
    let ask = |words: &str| -> Result<String> {
        let script = format!(
            "pura() {{ echo web; }}; source <(\"$0\" completion bash); COMP_WORDS=({words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _pura; echo \"${{COMPREPLY[@]}}\""
        );
        let outcome = bundle.through(&["bash", "-c", &script], &pura).output()?;
        Ok(outcome.succeeds()?.trim_end().to_owned())
    };
    for (words, wanted) in [
        ("pura cr", "create"),
        ("pura --str", "--strict"),
        ("pura --strict create --pid", "--pidfd-socket --pid-file"),
        ("pura delete w", "web"),
        ("pura delete --fo", "--force"),
        ("pura run -- --st", ""),
    ] {
        assert_eq!(ask(words)?, wanted, "{words}");
    }
    bundle.pura(&["completion", "tcsh"]).output()?.fails(2, 1, &["SHELL \"tcsh\" is none of bash, zsh, fish"])?;
    Ok(())
}
