//! The configs that engines really send: each is accepted, or refused for a field that pura does not do, and named.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::harness::{Bundle, own_gid, own_uid};

macro_rules! fixtures {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../fixtures/engines/", $name, ".json")))),*]
    };
}

pub(crate) const FIXTURES: &[(&str, &str)] = fixtures! {
    "bud-mounts" "bud-run" "bud-user" "budroot-mounts" "p4-cgroup-parent" "p4-default-net" "p4-device" "p4-hooks"
    "p4-keep-groups" "p4-keep-id" "p4-mounts" "p4-net-host" "p4-net-none" "p4-overlay-volume" "p4-pid-host"
    "p4-pod-userns" "p4-privileged" "p4-proc-opts" "p4-read-only" "p4-resources" "p4-sdnotify" "p4-secret"
    "p4-security-opt" "p4-sysctl" "p4-systemd" "p4-tty" "p4-user-cap" "p4-userns-auto" "p4root-device" "p4root-join"
    "p4root-net-host" "p4root-net-none" "p4root-pid-host" "p4root-privileged" "p4root-resources" "p4root-systemd"
    "p4root-uidmap-idmap" "p6-copy-symlink" "p6-default-net" "p6-idmap" "p6-mounts" "p6-net-host" "p6-net-none"
    "p6-resources" "p6-systemd" "p6-userns-auto"
};

/// A bundle with a captured config: the root is the test's own, what only existed on the capturing machine is replaced.
fn captured(text: &str) -> Result<Bundle> {
    let mut bundle = Bundle::new()?;
    let own = bundle.path("bundle");
    let mut config: Value = serde_json::from_str(text)?;
    config["root"]["path"] = "rootfs".into();
    for mount in config["mounts"].as_array_mut().context("mounts")? {
        let is_host = mount["source"].as_str().is_some_and(|path| path.starts_with('/') && !is_everywhere(path));
        if is_host {
            let destination = mount["destination"].as_str().unwrap_or_default().to_owned();
            let is_directory =
                ["/dev/shm", "/run/secrets", "/v", "/v2", "/b", "/cache"].contains(&destination.as_str());
            let source = own.join(if is_directory { "directory" } else { "file" });
            if is_directory {
                std::fs::create_dir_all(&source)?;
            } else {
                std::fs::write(&source, "")?;
            }
            mount["source"] = json!(source);
        }
    }
    for namespace in config["linux"]["namespaces"].as_array_mut().context("namespaces")? {
        namespace.as_object_mut().context("namespace")?.remove("path");
    }
    if let Some(limits) = config["process"]["rlimits"].as_array_mut() {
        limits.retain(|limit| limit["type"] != "RLIMIT_NOFILE" && limit["type"] != "RLIMIT_NPROC");
    }
    config["process"]["env"]
        .as_array_mut()
        .context("env")?
        .push(format!("PURA_TEST={}", bundle.dir().display()).into());
    bundle.config = config;
    Ok(bundle)
}

fn is_everywhere(path: &str) -> bool {
    ["/dev/", "/sys", "/proc"].iter().any(|known| path.starts_with(known))
}

#[test]
fn every_captured_config_has_a_plan_or_names_the_field_that_is_not_done() -> Result<()> {
    let mut refused = Vec::new();
    for (name, text) in FIXTURES {
        let bundle = captured(text)?;
        let outcome = bundle.with_bundle("plan", &[])?.output()?;
        if outcome.status.success() {
            assert!(outcome.stdout.contains("pura") || !outcome.stdout.is_empty(), "{name}: {outcome:#?}");
            continue;
        }
        // Not done yet, not for this caller (ids, cgroup v1, devices the host lacks); nothing else is an excuse.
        let line = outcome.fails_with_any(1, &[804, 112, 120, 340, 461, 463, 304, 806], &[])?;
        refused.push(format!("{name}: {line}"));
        bundle.is_clean()?;
    }
    assert!(refused.len() < FIXTURES.len(), "{refused:#?}");
    Ok(())
}

#[test]
fn the_hooks_that_podman_passes_on_run_and_a_path_of_the_host_is_none_of_the_image() -> Result<()> {
    requires!(userns, busybox);
    let (_, text) = FIXTURES.iter().find(|(known, _)| *known == "p4-hooks").context("fixture")?;
    let mut bundle = captured(text)?;
    let linux = bundle.config["linux"].as_object_mut().context("linux")?;
    for field in ["seccomp", "sysctl", "resources"] {
        linux.remove(field);
    }
    bundle.push("/linux/namespaces", json!({"type": "user"}))?;
    bundle.map(&[(0, own_uid(), 1)], &[(0, own_gid(), 1)]);
    bundle.config["process"]["user"]["additionalGids"] = json!([]);
    bundle.args(&["/bin/pura-probe", "sleep"]);
    // The hook is the shell under another name, and its argument the script, in the bundle.
    let (hook, notes) = (bundle.path("hook.sh"), bundle.path("notes"));
    std::os::unix::fs::symlink("/bin/sh", &hook)?;
    std::fs::write(bundle.path("bundle/arg1"), format!("echo $FOO >>{}\n", notes.display()))?;
    for (_, hooks) in bundle.config["hooks"].as_object_mut().context("hooks")? {
        hooks[0]["path"] = json!(hook);
    }
    let running = bundle.created()?;
    assert_eq!(std::fs::read_to_string(&notes)?, "bar\n".repeat(3));
    bundle.verb("start")?.fails(1, 614, &["hook.sh\" (hooks.startContainer[0]): does not exist"])?;
    assert!(running.rest()?.is_empty());
    bundle.delete()?;
    // Without that one all others run.
    bundle.config["hooks"].as_object_mut().context("hooks")?.remove("startContainer");
    let _running = bundle.started()?;
    assert_eq!(std::fs::read_to_string(&notes)?, "bar\n".repeat(3 + 4));
    bundle.delete()
}

#[test]
fn the_base_cases_of_podman_and_buildah_run() -> Result<()> {
    requires!(userns);
    let names = [
        "bud-mounts",
        "bud-run",
        "p4-cgroup-parent",
        "p4-default-net",
        "p4-mounts",
        "p4-net-none",
        "p4-read-only",
        "p4-secret",
        "p4-sysctl",
        "p6-copy-symlink",
        "p6-default-net",
        "p6-mounts",
        "p6-net-none",
    ];
    for name in names {
        let (_, text) = FIXTURES.iter().find(|(known, _)| *known == name).context("fixture")?;
        let mut bundle = captured(text)?;
        let linux = bundle.config["linux"].as_object_mut().context("linux")?;
        linux.remove("resources");
        // Podman's own user namespace is where these were made; a user's single id stands for it.
        bundle.push("/linux/namespaces", json!({"type": "user"}))?;
        bundle.map(&[(0, own_uid(), 1)], &[(0, own_gid(), 1)]);
        bundle.config["process"]["user"]["additionalGids"] = json!([]);
        bundle.args(&["/bin/pura-probe", "all"]);
        let facts = bundle.facts().with_context(|| name.to_owned())?;
        assert_eq!((facts.get("uid")?, facts.get("pid")?), ("0", "1"), "{name}");
        let hostname = bundle.config["hostname"].as_str().unwrap_or_default().to_owned();
        assert_eq!(facts.get("hostname")?, hostname, "{name}");
    }
    Ok(())
}
