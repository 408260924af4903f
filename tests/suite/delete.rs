//! delete: nothing is left, and nothing of others is touched.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::harness::{Bundle, eventually, own_uid, processes};

#[test]
fn delete_of_a_running_container_fails_without_effect() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let before = bundle.state()?;
    bundle.verb("delete")?.fails(1, 708, &["\"c1\"", "not stopped", "pura delete --force c1"])?;
    assert_eq!(bundle.state()?, before);
    bundle.delete()
}

#[test]
fn delete_of_a_created_container_succeeds() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.created()?;
    bundle.verb("delete")?.succeeds_silently()?;
    bundle.is_clean()
}

#[test]
fn delete_of_a_missing_container_fails_and_with_force_says_nothing() -> Result<()> {
    let bundle = Bundle::new()?;
    bundle.verb("delete")?.fails(1, 703, &["container \"c1\" does not exist"])?;
    bundle.delete()?;
    bundle.delete()
}

#[test]
fn delete_with_force_ends_a_running_container_in_time() -> Result<()> {
    requires!(userns, busybox);
    // It ignores what it can, and has company.
    let script = "trap '' TERM HUP INT; for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo ready; wait; wait";
    let bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
    let _running = bundle.started()?;
    let begin = Instant::now();
    bundle.delete()?;
    assert!(begin.elapsed().as_secs() < 10, "it took {:?}", begin.elapsed());
    bundle.is_clean()
}

/// What becomes of one file of the state.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Missing,
    Empty,
    /// Its first half.
    CutOff,
    /// As long as it was, as a crashed file system leaves it.
    Zeros,
    Text(&'static str),
    /// 100,000 levels of JSON.
    Deep,
    /// 2 MiB of JSON that would be right.
    Long,
    /// Another value of one key.
    Key(&'static str, &'static str),
    Unreadable,
    /// A link to a file of the caller's.
    Link,
    Fifo,
}

impl Damage {
    const ALL: [Self; 14] = [
        Self::Missing,
        Self::Empty,
        Self::CutOff,
        Self::Zeros,
        Self::Text("not JSON"),
        Self::Text("[]"),
        Self::Text("{}\n"),
        Self::Deep,
        Self::Long,
        Self::Key("bootId", "\"00000000-0000-0000-0000-000000000000\""),
        Self::Key("version", "99"),
        Self::Unreadable,
        Self::Link,
        Self::Fifo,
    ];

    fn happens_to(self, bundle: &Bundle, file: &str) -> Result<()> {
        let path = bundle.path("state/c1").join(file);
        let content = fs::read_to_string(&path)?;
        let damaged = match self {
            Self::Missing => return Ok(fs::remove_file(path)?),
            Self::Unreadable => return Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o000))?),
            Self::Link => {
                fs::write(bundle.path("precious"), &content)?;
                fs::remove_file(&path)?;
                return Ok(symlink(bundle.path("precious"), path)?);
            }
            Self::Fifo => {
                fs::remove_file(&path)?;
                return Ok(nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)?);
            }
            Self::Empty => String::new(),
            Self::CutOff => content.get(..content.len() / 2).unwrap_or_default().to_owned(),
            Self::Zeros => "\0".repeat(content.len()),
            Self::Text(text) => text.to_owned(),
            Self::Deep => "[".repeat(100_000),
            Self::Long => content.replacen('{', &format!("{{{}", " ".repeat(2 << 20)), 1),
            Self::Key(key, value) => {
                let lines: Vec<_> = content.splitn(2, '\n').collect();
                let mut first: Value = serde_json::from_str(lines[0])?;
                assert!(first.get(key).is_some(), "{file} has no {key}: {first}");
                first[key] = serde_json::from_str(value)?;
                std::iter::once(first.to_string())
                    .chain(lines[1..].iter().map(|line| (*line).to_owned()))
                    .collect::<Vec<_>>()
                    .join("\n")
            }
        };
        Ok(fs::write(path, damaged)?)
    }
}

#[test]
fn delete_with_force_works_whatever_became_of_the_state() -> Result<()> {
    requires!(userns);
    for file in ["state.json", "intent"] {
        for damage in Damage::ALL {
            let bundle = Bundle::probing(&["sleep"])?;
            let _running = bundle.started()?;
            let pid = bundle.pid()?;
            damage.happens_to(&bundle, file)?;
            let place = || format!("{damage:?} of {file}");
            let begin = Instant::now();
            // Nothing hangs, and the others are shown.
            bundle.pura(&["list"]).output()?.succeeds().with_context(place)?;
            drop(bundle.verb("state")?);
            bundle.delete().with_context(place)?;
            assert!(!is_running(pid), "{} runs on: {}", pid, place());
            bundle.is_clean().with_context(place)?;
            assert!(begin.elapsed().as_secs() < 20, "{} took {:?}", place(), begin.elapsed());
            if matches!(damage, Damage::Link) {
                assert!(fs::metadata(bundle.path("precious"))?.len() > 0, "{}", place());
            }
        }
    }
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    fs::remove_file(bundle.path("state/c1/config.json"))?;
    bundle.delete()?;
    bundle.is_clean()
}

#[test]
fn delete_with_force_works_when_the_state_has_become_another_users() -> Result<()> {
    requires!(userns, subids);
    for file in ["state.json", "intent"] {
        let bundle = Bundle::probing(&["sleep"])?;
        let _running = bundle.started()?;
        let path = bundle.path("state/c1").join(file);
        let words = ["--user", "--map-root-user", "--map-auto", "chown", "1:1"];
        assert!(Command::new("unshare").args(words).arg(&path).status()?.success());
        assert_ne!(fs::metadata(&path)?.uid(), own_uid());
        bundle.delete()?;
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn delete_with_force_finds_the_cgroup_by_its_name_when_all_of_the_state_is_lost() -> Result<()> {
    requires!(userns, cgroup);
    for damage in [Damage::Missing, Damage::Empty, Damage::Zeros, Damage::Text("not JSON")] {
        let bundle = Bundle::probing(&["sleep"])?;
        let _running = bundle.started()?;
        let pid = bundle.pid()?;
        for file in ["state.json", "intent", "config.json"] {
            damage.happens_to(&bundle, file)?;
        }
        bundle.delete().with_context(|| format!("{damage:?}"))?;
        assert!(!is_running(pid), "{pid} runs on: {damage:?}");
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn delete_with_force_claims_no_success_when_nothing_tells_what_runs() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let none = ["--cgroup-manager", "disabled"];
    bundle.write()?;
    bundle
        .pura(&none)
        .args(&["create", "--bundle"])
        .args(&[bundle.path("bundle")])
        .args(&["c1"])
        .output()?
        .succeeds()?;
    let pid = bundle.pid()?;
    for file in ["state.json", "intent"] {
        Damage::Empty.happens_to(&bundle, file)?;
    }
    let outcome = bundle.pura(&["delete", "--force", "c1"]).output()?;
    outcome.fails(1, 711, &["\"c1\"", "damaged", "end its processes"])?;
    assert!(is_running(pid) && bundle.path("state/c1").exists());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    Ok(fs::remove_dir_all(bundle.path("state/c1"))?)
}

/// Whether a process is there, and no zombie.
fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn delete_with_force_finishes_an_empty_directory() -> Result<()> {
    let bundle = Bundle::new()?;
    fs::create_dir(bundle.path("state/c1"))?;
    bundle.delete()?;
    bundle.is_clean()
}

#[test]
fn a_directory_that_is_not_ours_is_left_alone() -> Result<()> {
    let bundle = Bundle::new()?;
    fs::create_dir(bundle.path("state/c1"))?;
    fs::write(bundle.path("state/c1/foreign"), "precious")?;
    let outcome = bundle.pura(&["delete", "--force", "c1"]).output()?;
    outcome.fails(1, 711, &["c1"])?;
    assert_eq!(fs::read_to_string(bundle.path("state/c1/foreign"))?, "precious");
    Ok(fs::remove_dir_all(bundle.path("state/c1"))?)
}

#[test]
fn a_planted_link_as_state_directory_is_not_followed() -> Result<()> {
    let bundle = Bundle::new()?;
    fs::create_dir(bundle.path("victim"))?;
    for name in ["state.json", "intent", "file"] {
        fs::write(bundle.path("victim").join(name), "precious")?;
    }
    symlink(bundle.path("victim"), bundle.path("state/c1"))?;
    for words in [&["delete", "--force", "c1"][..], &["delete", "c1"], &["state", "c1"], &["kill", "c1"]] {
        let outcome = bundle.pura(words).output()?;
        assert!(!outcome.status.success() || words.contains(&"--force"), "{outcome:#?}");
    }
    for name in ["state.json", "intent", "file"] {
        assert_eq!(fs::read_to_string(bundle.path("victim").join(name))?, "precious");
    }
    if bundle.path("state/c1").is_symlink() {
        fs::remove_file(bundle.path("state/c1"))?;
    }
    Ok(())
}

#[test]
fn delete_leaves_alone_what_the_container_did_not_make() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let pid_file = bundle.path("pid");
    fs::write(bundle.rootfs("root/file"), "precious")?;
    fs::write(bundle.path("state/foreign"), "precious")?;
    let flags = ["--pid-file", &pid_file.to_string_lossy(), "c1"];
    bundle.with_bundle("create", &flags)?.output()?.succeeds_silently()?;
    bundle.delete()?;
    for path in [bundle.rootfs("root/file"), bundle.path("state/foreign")] {
        assert_eq!(fs::read_to_string(path)?, "precious");
    }
    assert!(bundle.path("bundle/config.json").exists(), "config.json is gone");
    Ok(fs::remove_file(bundle.path("state/foreign"))?)
}

#[test]
fn verbs_outlive_the_directory_of_the_caller() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    for words in [&["state", "c1"][..], &["list"], &["kill", "c1", "0"], &["delete", "--force", "c1"]] {
        let pura = bundle.pura(words);
        let script = "mkdir \"$0\" && cd \"$0\" && rmdir \"$0\" && exec \"$@\"";
        let away = bundle.path("away");
        let outcome =
            bundle.through(&["sh".as_ref(), "-c".as_ref(), script.as_ref(), away.as_os_str()], &pura).output()?;
        outcome.succeeds()?;
    }
    bundle.is_clean()
}

/// A container that becomes more and more processes, up to a limit that the machine survives.
fn bomb() -> Result<Bundle> {
    let mut bundle = Bundle::probing(&["bomb"])?;
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NPROC", "soft": 200, "hard": 200}]);
    Ok(bundle)
}

fn is_defused(bundle: &Bundle) -> Result<()> {
    eventually("it has become many", || Ok(processes(bundle.dir())?.len() > 50))?;
    let begin = Instant::now();
    bundle.delete()?;
    assert!(begin.elapsed().as_secs() < 10, "it took {:?}", begin.elapsed());
    bundle.is_clean()
}

#[test]
fn delete_with_force_beats_a_fork_bomb_by_its_pid_namespace() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = bomb()?;
    let _running = bundle.started()?;
    is_defused(&bundle)
}

#[test]
fn delete_with_force_beats_a_fork_bomb_without_a_pid_namespace() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = bomb()?;
    bundle.share("pid");
    bundle.unmount("/proc");
    let _running = bundle.started()?;
    is_defused(&bundle)
}

#[test]
fn delete_spares_the_namespaces_and_the_processes_that_the_container_joined() -> Result<()> {
    requires!(userns);
    let first = Bundle::probing(&["sleep"])?;
    let _first = first.started()?;
    let pid = first.pid()?;
    let mut second = Bundle::probing(&["sleep"])?;
    second.share_user();
    for kind in ["user", "network", "ipc", "pid"] {
        second.share(kind);
        let file = if kind == "network" { "net" } else { kind };
        second.push("/linux/namespaces", json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}))?;
    }
    let _second = second.started()?;
    second.delete()?;
    assert_eq!(first.status()?, "running");
    first.pura(&["exec", "c1", "/bin/pura-probe", "exit", "7"]).output()?.ends(7)?;
    first.delete()
}
