//! Bad input: one line that names what the user wrote, the right exit status, and nothing left.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::harness::{Bundle, Pura};

#[test]
fn a_missing_config_names_the_file() -> Result<()> {
    let bundle = Bundle::new()?;
    let path = bundle.path("bundle").display().to_string();
    for (verb, status) in [("create", 1), ("run", 125), ("plan", 1)] {
        let outcome = bundle.pura(&[verb, "--bundle", &path, "c1"]).output()?;
        outcome.fails(status, 801, &["config.json", "does not exist", "fix: "])?;
    }
    let outcome = bundle.pura(&["create", "--bundle", "/nowhere/bundle", "c1"]).output()?;
    outcome.fails(1, 801, &["/nowhere/bundle"])?;
    bundle.is_clean()
}

#[test]
fn a_command_without_its_dashes_is_told_of_them_only_where_no_bundle_is() -> Result<()> {
    let bundle = Bundle::new()?;
    let dir = bundle.path("bundle");
    let run = |words: &[&str]| bundle.pura(&[&["run"], words].concat()).cwd(&dir).output();
    run(&["true"])?.fails(125, 801, &["config.json", "does not exist; fix: pura run -- true, or run in a bundle"])?;
    bundle.pura(&["plan", "true"]).cwd(&dir).output()?.fails(1, 801, &["fix: pura plan -- true, or"])?;
    let without = |words: &[&str], named: &str| -> Result<()> {
        let outcome = run(words)?;
        let line = outcome.fails(125, 801, &[named])?;
        assert!(!line.contains("-- true"), "{line}");
        Ok(())
    };
    without(&["-b", &dir.to_string_lossy(), "true"], "fix: run in a bundle")?;
    let program = dir.join("rootfs/bin/pura-probe").display().to_string();
    without(&["-b", &program, "true"], "not a directory [PURA-801]")?;
    let outcome = bundle.pura(&["plan"]).cwd(&dir).output()?;
    outcome.fails(1, 801, &["does not exist; fix: run in a bundle"])?;
    Ok(())
}

#[test]
fn a_config_that_must_not_be_read_is_not_said_to_be_missing() -> Result<()> {
    requires!(unprivileged);
    let bundle = Bundle::new()?;
    bundle.write()?;
    fs::set_permissions(bundle.path("bundle/config.json"), fs::Permissions::from_mode(0o000))?;
    let outcome = bundle.pura(&["run", "true"]).cwd(&bundle.path("bundle")).output()?;
    outcome.fails(125, 801, &["config.json", "permission denied [PURA-801]"])?;
    Ok(())
}

#[test]
fn a_file_of_another_name_is_read_instead() -> Result<()> {
    let bundle = Bundle::new()?;
    let outcome =
        bundle.pura(&["plan", "-b"]).args(&[bundle.path("bundle")]).args(&["-f", "/nowhere.json"]).output()?;
    outcome.fails_with_any(1, &[801], &["/nowhere.json"])?;
    Ok(())
}

#[test]
fn a_duplicate_known_key_fails_and_unknown_keys_are_ignored() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.write()?;
    let text = fs::read_to_string(bundle.path("bundle/config.json"))?;
    let twice = text.replacen("\"hostname\"", "\"hostname\": \"other\", \"hostname\"", 1);
    fs::write(bundle.path("bundle/config.json"), twice)?;
    let outcome = bundle.pura(&["create", "--bundle"]).args(&[bundle.path("bundle")]).args(&["c1"]).output()?;
    outcome.fails_with_any(1, &[802, 803], &["hostname"])?;
    for pointer in ["", "/process", "/process/user", "/root", "/linux", "/mounts/0", "/linux/namespaces/0"] {
        let place = if pointer.is_empty() { Some(&mut bundle.config) } else { bundle.config.pointer_mut(pointer) };
        place.context("place")?["org.example.unknown"] = json!({"any": ["thing", 1, null]});
    }
    bundle.config["windows"] = json!({"layerFolders": []});
    bundle.run()?.succeeds_silently()
}

#[test]
fn null_is_absent() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["annotations"] = Value::Null;
    bundle.config["hooks"] = Value::Null;
    bundle.config["linux"]["maskedPaths"] = Value::Null;
    bundle.config["linux"]["resources"] = Value::Null;
    bundle.config["linux"]["seccomp"] = Value::Null;
    bundle.config["process"]["rlimits"] = Value::Null;
    bundle.run()?.succeeds_silently()
}

#[test]
fn an_empty_program_list_fails() -> Result<()> {
    let mut bundle = Bundle::new()?;
    bundle.args(&[]);
    bundle.run()?.fails(125, 803, &["args"])?;
    bundle.config["process"].as_object_mut().context("process")?.remove("args");
    bundle.run()?.fails(125, 803, &["args"])?;
    bundle.is_clean()
}

#[test]
fn bad_ids_are_refused_by_every_verb_and_touch_nothing() -> Result<()> {
    let bundle = Bundle::new()?;
    bundle.write()?;
    let path = bundle.path("bundle").display().to_string();
    let (longer, long) = ("x".repeat(241), "x".repeat(1024));
    let ids = ["../x", "..", ".", "", "a/b", "/", "-x", ".hidden", "a b", "a\nb", "é", "a:b", &longer, &long];
    for id in ids {
        let calls: [(&[&str], i32); 6] = [
            (&["create", "-b", &path, "--", id], 1),
            (&["start", "--", id], 1),
            (&["state", "--", id], 1),
            (&["kill", "--", id], 1),
            (&["delete", "--", id], 1),
            (&["delete", "--force", "--", id], 1),
        ];
        for (words, status) in calls {
            bundle.pura(words).output()?.fails(status, 704, &[]).with_context(|| format!("{words:?}"))?;
        }
    }
    assert!(bundle.path("state").is_dir() && bundle.path("bundle/config.json").exists());
    bundle.is_clean()
}

#[test]
fn the_longest_and_the_oddest_good_ids_work() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    for id in ["x", "0", "_", "+", "A.b-c_d+e", &"y".repeat(240)] {
        bundle.with_bundle("create", &[id])?.output()?.succeeds_silently()?;
        bundle.pura(&["delete", id]).output()?.succeeds_silently()?;
    }
    Ok(())
}

#[test]
fn an_unusable_runtime_directory_is_replaced_and_said_so_in_the_log() -> Result<()> {
    requires!(unprivileged, userns);
    for mode in [None, Some(""), Some("foreign"), Some("open"), Some("closed"), Some("missing"), Some("relative")] {
        let bundle = Bundle::probing(&["true"])?;
        bundle.write()?;
        let (log, own) = (bundle.path("log"), bundle.path("runtime"));
        fs::create_dir(&own)?;
        let bits = match mode {
            Some("open") => 0o777,
            Some("closed") => 0o500,
            _ => 0o700,
        };
        fs::set_permissions(&own, fs::Permissions::from_mode(bits))?;
        let words = ["--log-level", "warning", "--log", &log.to_string_lossy(), "run", "-b"];
        let id = format!("pura-suite-{}", std::process::id());
        let mut run = Pura::new(bundle.dir(), &words).args(&[bundle.path("bundle")]).args(&[id]);
        if let Some(mode) = mode {
            let value = match mode {
                "foreign" => "/".to_owned(),
                "open" | "closed" => own.display().to_string(),
                "missing" => own.join("nowhere").display().to_string(),
                other => other.to_owned(),
            };
            run = run.env("XDG_RUNTIME_DIR", value);
        }
        run.output()?.succeeds_silently()?;
        let log = fs::read_to_string(log)?;
        assert!(log.contains("PURA-702") && log.contains("XDG_RUNTIME_DIR"), "{mode:?}: {log}");
    }
    Ok(())
}

#[test]
fn a_good_runtime_directory_holds_the_state_and_nothing_is_said() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    let own = bundle.path("runtime");
    fs::create_dir(&own)?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700))?;
    let pura = |words: &[&str]| Pura::new(bundle.dir(), words).env("XDG_RUNTIME_DIR", &own).output();
    let create = pura(&["create", "-b", &bundle.path("bundle").to_string_lossy(), "c1"])?;
    create.succeeds_silently()?;
    let mode = fs::metadata(own.join("pura/c1"))?.permissions().mode();
    assert_eq!(mode & 0o7777, 0o1700, "{mode:o}");
    // The user who tests may have containers of their own elsewhere.
    let outcome = pura(&["list", "-q"])?;
    let listed = outcome.succeeds()?;
    assert!(listed.lines().any(|id| id == "c1"), "{listed}");
    pura(&["delete", "c1"])?.succeeds_silently()
}

#[test]
fn a_full_state_directory_is_said_to_be_full() -> Result<()> {
    requires!(userns);
    for options in ["mode=700,size=4k", "mode=700,nr_inodes=1", "mode=700,ro"] {
        let mut bundle = Bundle::probing(&["true"])?;
        bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
        let create = bundle.with_bundle("create", &["c1"])?;
        let state = bundle.path("state").display().to_string();
        let script = "mount -t tmpfs -o \"$1\" none \"$0\" && { head -c 8k /dev/zero >\"$0/full\"; } 2>/dev/null; shift; exec \"$@\"";
        let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, &state, options];
        let outcome = bundle.through(&words, &create).output()?;
        outcome.fails(1, 712, &[]).context(options)?;
    }
    Ok(())
}

#[test]
fn a_warning_changes_neither_the_exit_status_nor_standard_output() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::with_args(&["/bin/pura-probe", "exit", "3"])?;
    bundle.unmount("/dev/pts");
    bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "gid=5"])?;
    bundle.config["process"]["capabilities"] = json!({"bounding": ["CAP_OF_TOMORROW"]});
    bundle.config["process"]["user"]["additionalGids"] = json!([44]);
    bundle.config["linux"]["rootfsPropagation"] = "shared".into();
    let log = bundle.path("log");
    let words = ["--log-level", "warning", "--log", &log.to_string_lossy()];
    for level in [&words[..], &[]] {
        bundle.write()?;
        let run = bundle.pura(level).args(&["run", "-b"]).args(&[bundle.path("bundle")]).args(&["c1"]);
        assert_eq!(run.output()?.ends(3)?, "");
    }
    let log = fs::read_to_string(log)?;
    for code in ["PURA-121", "PURA-314", "PURA-319", "PURA-501"] {
        assert!(log.contains(code), "{code}: {log}");
    }
    Ok(())
}

/// What the page of errors says to do about a code.
fn remedy(code: u32) -> Result<&'static str> {
    let row = include_str!("../../docs/errors.md").lines().find(|line| line.starts_with(&format!("| {code:03} |")));
    row.and_then(|row| row.trim_end_matches([' ', '|']).rsplit(" | ").next()).context("a row")
}

#[test]
fn the_fixes_that_the_page_of_errors_shows_are_printed() -> Result<()> {
    requires!(userns);
    let with = |pointer: &str, value: Value, flags: &[&str]| -> Result<String> {
        let mut bundle = Bundle::probing(&["true"])?;
        let (parent, key) = pointer.rsplit_once('/').context("a pointer")?;
        bundle.config.pointer_mut(parent).context("a parent")?[key] = value;
        let outcome = bundle.with_bundle("create", &[flags, &["c1"]].concat())?.output()?;
        assert_eq!((outcome.code(), outcome.stderr.lines().count()), (1, 1), "{outcome:#?}");
        Ok(outcome.stderr)
    };
    let mount = |kind: &str| json!([{"destination": "/x", "type": kind, "source": "/no/such", "options": []}]);
    let agent = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/agent",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let listens = "with a program that listens there";
    for (code, phrase, line) in [
        (304, "make it, or drop the mount", with("/mounts", mount("bind"), &[])?),
        (305, "bind it from the host instead", with("/mounts", mount("nosuchfs"), &[])?),
        (506, listens, with("/linux/seccomp", agent, &[])?),
        (613, listens, with("/process/terminal", true.into(), &["--console-socket", "/no/such"])?),
        (617, listens, with("/hostname", "h".into(), &["--pidfd-socket", "/no/such"])?),
        (217, "the path of a namespace", with("/linux/namespaces/4/path", "/no/such".into(), &[])?),
        (716, "that you may write", with("/hostname", "h".into(), &["--pid-file", "/no/such/pid"])?),
    ] {
        let fix = line.split_once("; fix: ").map_or("", |(_, fix)| fix);
        assert!(line.contains(&format!("PURA-{code}")) && fix.contains(phrase), "{code}: {line}");
        assert!(remedy(code)?.contains(phrase), "docs/errors.md has another remedy for {code}: {}", remedy(code)?);
    }
    Ok(())
}
