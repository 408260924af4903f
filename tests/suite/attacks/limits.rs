//! Sizes that once overflowed a length: all of it is carried out, or refused.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use super::{is_judged, is_refusal};
use crate::harness::{Bundle, own_uid};

#[test]
fn no_length_makes_a_namespace_or_a_mount_be_forgotten() -> Result<()> {
    requires!(userns);
    // CVE-2021-43784: a field of 16 bits, behind which namespaces were lost.
    let mut bundle = Bundle::probing(&["ns", "mounts"])?;
    let good = bundle.config.clone();
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}"));
    for (what, value) in [
        ("a source of 70 KiB", json!({"destination": "/a", "type": "tmpfs", "source": "x".repeat(70 << 10)})),
        ("options of 70 KiB", json!({"destination": "/a", "type": "tmpfs", "options": ["size=4k,".repeat(9000)]})),
        ("a destination of 70 KiB", json!({"destination": "/a".repeat(35 << 10), "type": "tmpfs"})),
        ("70,000 options", json!({"destination": "/a", "type": "tmpfs", "options": vec!["nosuid"; 70_000]})),
    ] {
        bundle.config.clone_from(&good);
        bundle.push("/mounts", value)?;
        let outcome = bundle.run()?;
        if is_judged(&outcome)? {
            let facts = outcome.facts()?;
            facts.mount("/a")?;
            for kind in ["user", "mnt", "pid", "net", "ipc", "uts"] {
                assert!(
                    facts.get(&format!("ns.{kind}"))? != own(kind)?.to_string_lossy(),
                    "{what}: {kind} is the caller's"
                );
            }
        }
    }
    // Ten thousand lines of a map are more than the kernel takes.
    bundle.config.clone_from(&good);
    bundle.config["linux"]["uidMappings"] =
        vec![json!({"containerID": 0, "hostID": own_uid(), "size": 1}); 10_000].into();
    is_refusal(&bundle.create()?)
}

#[test]
fn of_65536_mounts_all_are_there_or_none() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["read", "/proc/self/mountinfo"])?;
    bundle.mount("/m", "tmpfs", "tmpfs", &[])?;
    let mount = |number| json!({"destination": format!("/m/{number}"), "type": "tmpfs", "options": ["size=4k"]});
    let more: Vec<Value> = (0..65_536).map(mount).collect();
    let mounts = bundle.config["mounts"].as_array_mut();
    anyhow::Context::context(mounts, "mounts")?.extend(more);
    let outcome = bundle.run()?;
    if is_judged(&outcome)? {
        let count = outcome.stdout.lines().filter(|line| line.contains(" /m/")).count();
        assert_eq!(count, 65_536);
    }
    Ok(())
}

#[test]
fn the_cgroups_of_the_caller_are_not_writable_inside_without_a_namespace_of_them() -> Result<()> {
    requires!(userns, cgroup);
    // CVE-2023-25809.
    for kind in ["cgroup", "cgroup2", "bind"] {
        let mut bundle = Bundle::probing(&["mkdir", "/sys/fs/cgroup/pura-attack"])?;
        let (source, options) =
            if kind == "bind" { ("/sys/fs/cgroup", &["rbind", "ro"][..]) } else { ("cgroup", &["rw"][..]) };
        bundle.mount("/sys/fs/cgroup", kind, source, options)?;
        let outcome = bundle.run()?;
        assert!(!outcome.stdout.contains("errno=0"), "{kind}: {outcome:#?}");
        assert!(is_judged(&outcome)?, "{kind}: {outcome:#?}");
    }
    Ok(())
}
