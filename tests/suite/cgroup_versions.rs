//! Hosts with cgroup v1, or with both versions, as they look to an ordinary user: containers run, and their
//! `/sys/fs/cgroup` is no way to the host's. They are played in mounts of the caller's own.

use anyhow::Result;
use serde_json::json;

use crate::harness::{Bundle, Outcome};

/// A hierarchy of version 1 that can be looked at, and where version 2 is on a hybrid host.
const VERSION_1: &str = "mount -t tmpfs none /sys/fs/cgroup && mkdir /sys/fs/cgroup/memory && \
                         echo 7 >/sys/fs/cgroup/memory/memory.limit_in_bytes || exit 99";
const HYBRID: &str = "mount --bind /sys/fs/cgroup /mnt && mount -t tmpfs none /sys/fs/cgroup && \
                      mkdir /sys/fs/cgroup/memory /sys/fs/cgroup/unified && mount --bind /mnt /sys/fs/cgroup/unified || \
                      exit 99";

/// `pura run`, on a host that looks so.
fn run_on(host: &str, bundle: &Bundle) -> Result<Outcome> {
    let run = bundle.with_bundle("run", &["c1"])?;
    let script = format!("{host}\nexec \"$@\"");
    let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"];
    bundle.through(&words, &run).output()
}

fn showing(options: &str, has_namespace: bool, script: &str) -> Result<Bundle> {
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
    bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
    bundle.share("cgroup");
    if has_namespace {
        bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    }
    bundle.unmount("/sys/fs/cgroup");
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", options])?;
    Ok(bundle)
}

const WRITE: &str =
    "cd /sys/fs/cgroup && ls && ! mkdir new 2>/dev/null && ! echo 1 2>/dev/null >memory/memory.limit_in_bytes";

#[test]
fn version_1_is_shown_read_only_whatever_the_mount_says() -> Result<()> {
    requires!(userns, busybox);
    for (options, has_namespace) in [("ro", true), ("rw", true), ("rw", false)] {
        let bundle = showing(options, has_namespace, WRITE)?;
        assert_eq!(run_on(VERSION_1, &bundle)?.succeeds()?, "memory\n", "{options} {has_namespace}");
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn a_hybrid_host_shows_the_containers_own_cgroup_of_version_2() -> Result<()> {
    requires!(userns, cgroup, busybox);
    let own =
        "cd /sys/fs/cgroup && [ -e cgroup.procs ] && ! [ -e memory ] && cat cgroup.procs && cat /proc/self/cgroup";
    let bundle = showing("ro", true, own)?;
    let outcome = run_on(HYBRID, &bundle)?;
    let lines: Vec<&str> = outcome.succeeds()?.lines().collect();
    assert!(lines.contains(&"1") && lines.contains(&"0::/"), "{outcome:?}");
    bundle.is_clean()?;
    let bundle = showing("rw", false, WRITE)?;
    assert_eq!(run_on(HYBRID, &bundle)?.succeeds()?, "memory\nunified\n");
    bundle.is_clean()
}

#[test]
fn neither_takes_a_limit_and_both_take_one_that_is_not_needed() -> Result<()> {
    requires!(userns, cgroup, busybox);
    for host in [VERSION_1, HYBRID] {
        let mut bundle = showing("ro", true, "true")?;
        bundle.config["linux"]["resources"] = json!({"pids": {"limit": 5}});
        run_on(host, &bundle)?.fails(125, 463, &["pids.max", "v1 or a hybrid", "unified_cgroup_hierarchy"])?;
        bundle.is_clean()?;
        bundle.config["linux"]["resources"] = json!({"pids": {"limit": -1}, "memory": {"limit": 0}});
        run_on(host, &bundle)?.succeeds_silently()?;
        bundle.is_clean()?;
    }
    Ok(())
}
