//! Sizes that once overflowed a length: all of it is carried out, or refused.

use std::fs;

use anyhow::{Result, ensure};
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
                ensure!(
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
    let more: Vec<Value> = (0..65_536)
        .map(|_| json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["size=4k"]}))
        .collect();
    let mounts = bundle.config["mounts"].as_array_mut();
    anyhow::Context::context(mounts, "mounts")?.extend(more);
    let outcome = bundle.run()?;
    if is_judged(&outcome)? {
        let count = outcome.stdout.lines().filter(|line| line.contains(" /mnt ")).count();
        assert_eq!(count, 65_536);
    }
    Ok(())
}
