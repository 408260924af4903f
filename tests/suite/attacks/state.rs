//! State that somebody has damaged, and processes that have the number of one that is gone.

use std::{ffi::OsString, fs, os::unix::fs::symlink};

use anyhow::{Context as _, Result};
use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{Outside, is_judged, is_refusal};
use crate::harness::{Bundle, Pura};

/// What can stand in the place of a file.
fn traps() -> Vec<(&'static str, Option<Vec<u8>>)> {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    vec![
        ("nothing", None),
        ("pipe", None),
        ("link", None),
        ("directory", None),
        ("empty", text("")),
        ("not json", text("\u{feff}{]")),
        ("deep", text(&"[".repeat(200_000))),
        ("huge", Some(vec![b' '; 3 << 20])),
        ("zeros", Some(vec![0; 5000])),
        ("a number", text("1")),
        ("an array", text("[]")),
    ]
}

#[test]
fn no_damage_to_the_state_hangs_a_verb_or_keeps_delete_from_its_work() -> Result<()> {
    requires!(userns);
    for (trap, content) in traps() {
        for file in ["state.json", "intent", "config.json", "start.sock"] {
            let bundle = Bundle::probing(&["sleep"])?;
            let outside = Outside::make(&bundle)?;
            let _running = bundle.started()?;
            let path = bundle.path("state/c1").join(file);
            drop(fs::remove_file(&path));
            match (&content, trap) {
                (Some(content), _) => fs::write(&path, content)?,
                (None, "pipe") => mkfifo(&path, Mode::S_IRWXU)?,
                (None, "link") => symlink(outside.canary(), &path)?,
                (None, "directory") => fs::create_dir(&path)?,
                (None, _) => {}
            }
            for words in
                [&["state", "c1"][..], &["ps", "c1"], &["kill", "c1", "0"], &["exec", "c1", "/bin/pura-probe", "true"]]
            {
                is_judged(&bundle.pura(words).output()?).with_context(|| format!("{words:?} with {file} {trap}"))?;
            }
            bundle.pura(&["list"]).output()?.succeeds()?;
            let deleted = bundle.pura(&["delete", "--force", "c1"]).output()?;
            if trap == "directory" {
                // Nobody but the caller makes one there: it may be left, but nothing else.
                is_judged(&deleted)?;
                fs::remove_dir_all(bundle.path("state"))?;
            } else {
                deleted.succeeds_silently().with_context(|| format!("{file} {trap}"))?;
            }
            bundle.is_clean().with_context(|| format!("{file} {trap}"))?;
            outside.is_untouched()?;
        }
    }
    Ok(())
}

#[test]
fn a_process_that_has_the_number_of_a_dead_init_is_no_container_for_any_verb() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
    bundle.write()?;
    let quoted = |words: &[&str]| bundle.pura(words).quoted();
    let create = quoted(&["create", "-b", &bundle.path("bundle").to_string_lossy()]);
    let verbs = [
        &["exec", "c1", "/bin/pura-probe", "true"][..],
        &["exec", "--detach", "c1", "/bin/pura-probe", "true"],
        &["start", "c1"],
        &["pause", "c1"],
        &["kill", "c1", "TERM"],
    ];
    let refused: String =
        verbs.map(|words| format!("{} 2>/dev/null && echo 'worked: {words:?}'\n", quoted(words))).concat();
    let (kill_all, ps, delete) =
        (quoted(&["kill", "--all", "c1", "KILL"]), quoted(&["ps", "c1"]), quoted(&["delete", "--force", "c1"]));
    let pid = bundle.path("pid").display().to_string();
    // As in kill::a_recycled_process_id...: in a PID namespace of one's own the next number can be chosen.
    let script = format!(
        r#"{create} --pid-file {pid} c1 >/dev/null; read pid <{pid}; started=$(cut -d' ' -f22 /proc/$pid/stat); kill -9 $pid
        until [ ! -e /proc/$pid ] && [ "$(cut -d' ' -f1 /proc/uptime | tr -d .)" -gt "$started" ]; do sleep 0.01; done
        echo $((pid - 1)) >/proc/sys/kernel/ns_last_pid; sleep 1000 & [ $! = $pid ] && echo the same
        {refused}
        {ps} 2>/dev/null | grep -w $pid
        {kill_all} 2>/dev/null; kill -0 $pid && echo alive
        {delete}; echo delete=$?; kill -0 $pid && echo alive"#
    );
    let words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "sh", "-c", &script];
    let words: Vec<OsString> = words.iter().map(Into::into).collect();
    let outcome = Pura::through(bundle.dir(), &words).output()?;
    assert_eq!(outcome.succeeds()?.lines().collect::<Vec<_>>(), ["the same", "alive", "delete=0", "alive"]);
    bundle.is_clean()
}

#[test]
fn a_state_that_names_a_bystander_or_a_directory_of_others_harms_neither() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let outside = Outside::make(&bundle)?;
    fs::create_dir_all(bundle.path("others/below/deeper"))?;
    let bystander = Pura::through(bundle.dir(), &["sleep".into(), "1000".into()]).spawn()?;
    let _running = bundle.started()?;
    let init = bundle.pid()?;
    for file in ["state.json", "intent"] {
        let path = bundle.path("state/c1").join(file);
        let text = fs::read_to_string(&path)?;
        // The intent has a second line, with init.
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let mut state: serde_json::Value = serde_json::from_str(first)?;
        state["cgroup"] = bundle.path("others").display().to_string().into();
        state["pidFile"] = outside.canary().display().to_string().into();
        let text = format!("{state}\n{rest}").replace(&init.to_string(), &bystander.pid.to_string());
        fs::write(&path, text)?;
    }
    for words in [&["kill", "c1", "KILL"][..], &["exec", "c1", "/bin/pura-probe", "true"]] {
        is_refusal(&bundle.pura(words).output()?)?;
    }
    is_judged(&bundle.pura(&["kill", "--all", "c1", "KILL"]).output()?)?;
    bundle.pura(&["delete", "--force", "c1"]).output()?.fails(1, 711, &["its cgroup, is none"])?;
    assert!(fs::metadata(format!("/proc/{}", bystander.pid)).is_ok(), "the bystander was killed");
    assert!(bundle.path("others/below/deeper").is_dir(), "a directory of others is gone");
    assert_eq!(fs::read_dir(bundle.path("others"))?.count(), 1, "something was made there");
    outside.is_untouched()?;
    for pid in [init, bystander.pid] {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    drop(fs::remove_dir_all(bundle.path("state/c1")));
    Ok(())
}

#[test]
fn a_name_that_is_planted_in_the_state_directory_is_neither_taken_nor_removed() -> Result<()> {
    requires!(userns);
    // CVE-2015-1331, CVE-2019-12439, CVE-2021-41103.
    for kind in ["link", "dangling", "file", "pipe"] {
        let bundle = Bundle::probing(&["true"])?;
        let outside = Outside::make(&bundle)?;
        let place = bundle.path("state/c1");
        match kind {
            "link" => symlink(&outside.path, &place)?,
            "dangling" => symlink(outside.path.join("new"), &place)?,
            "file" => fs::write(&place, "precious")?,
            _ => mkfifo(&place, Mode::S_IRWXU)?,
        }
        is_refusal(&bundle.create()?).context(kind)?;
        for words in
            [&["state", "c1"][..], &["kill", "c1"], &["delete", "c1"], &["exec", "c1", "true"], &["start", "c1"]]
        {
            is_refusal(&bundle.pura(words).output()?).with_context(|| format!("{kind} {words:?}"))?;
        }
        is_judged(&bundle.pura(&["delete", "--force", "c1"]).output()?)?;
        outside.is_untouched().context(kind)?;
        drop(fs::remove_file(&place));
    }
    Ok(())
}
