//! pura inside another user namespace, where its caller is root: what a container in a container, or an engine's own
//! user namespace, is.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::harness::{Bundle, Facts};

/// Runs the bundle's container below `unshare FLAGS`. The namespaces of the caller are in the facts too, as `outer.KIND`.
fn nested(bundle: &Bundle, flags: &[&str]) -> Result<Facts> {
    let run = bundle.with_bundle("run", &["c1"])?;
    let script = "for kind in user net ipc uts; do echo outer.$kind=$(readlink /proc/self/ns/$kind); done; exec \"$@\"";
    let words = [&["unshare", "--user"], flags, &["sh", "-c", script, "sh"]].concat();
    bundle.through(&words, &run).output()?.facts()
}

#[test]
fn a_caller_who_is_root_of_a_user_namespace_shares_it_and_mounts_sysfs_and_mqueue_for_real() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["ns", "mounts", "maps"])?;
    bundle.share_user();
    let facts = nested(&bundle, &["--map-root-user"])?;
    assert_eq!(facts.get("ns.user")?, facts.get("outer.user")?);
    for kind in ["net", "ipc", "uts"] {
        assert_ne!(facts.get(&format!("ns.{kind}"))?, facts.get(&format!("outer.{kind}"))?);
    }
    assert_eq!(facts.mount("/sys")?.kind, "sysfs");
    assert_eq!(facts.mount("/dev/mqueue")?.kind, "mqueue");
    Ok(())
}

#[test]
fn a_network_namespace_of_the_callers_is_joined_together_with_a_new_user_namespace() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["ns", "ids"])?;
    bundle.unmount("/sys");
    bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
    bundle.share("network");
    bundle.push("/linux/namespaces", json!({"type": "network", "path": "/proc/self/ns/net"}))?;
    let facts = nested(&bundle, &["--map-root-user", "--net"])?;
    assert_eq!(facts.get("ns.net")?, facts.get("outer.net")?);
    assert_ne!(facts.get("ns.user")?, facts.get("outer.user")?);
    assert_eq!(facts.get("uid")?, "0");
    Ok(())
}

#[test]
fn maps_are_written_without_the_mappers_where_the_caller_is_root() -> Result<()> {
    requires!(unprivileged, userns, subids);
    // Nobody gave these ids to root in /etc/subuid of the outer namespace: the mappers would refuse.
    let lines = [(0, 0, 1), (1, 40, 10), (100, 3000, 5)];
    let mut bundle = Bundle::probing(&["ids", "maps"])?;
    bundle.map(&lines, &lines);
    bundle.config["process"]["user"] = json!({"uid": 3, "gid": 4, "additionalGids": [5]});
    let facts = nested(&bundle, &["--map-root-user", "--map-auto"])?;
    for name in ["uid_map", "gid_map"] {
        assert_eq!(facts.all(name), ["0 0 1", "1 40 10", "100 3000 5"], "{name}");
    }
    assert_eq!((facts.get("uid")?, facts.get("gid")?, facts.get("groups")?), ("3", "4", "5"));
    assert_eq!(facts.get("setgroups")?, "allow");
    Ok(())
}

#[test]
fn nothing_of_a_nested_container_is_left() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["ns"])?;
    bundle.share_user();
    nested(&bundle, &["--map-root-user"])?;
    assert!(!Path::new(&bundle.path("state/c1")).exists());
    bundle.is_clean()
}

#[test]
fn a_cgroup_that_can_be_written_belongs_to_the_user_inside() -> Result<()> {
    requires!(unprivileged, userns, subids, busybox, cgroup);
    let script = "for file in . cgroup.procs cgroup.threads; do stat -c owner=%u /sys/fs/cgroup/$file; done";
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
    bundle.share_user();
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "rw"])?;
    let facts = nested(&bundle, &["--map-root-user", "--map-auto"])?;
    assert_eq!(facts.all("owner"), ["1000", "1000", "1000"]);
    Ok(())
}
