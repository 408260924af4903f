//! linux.sysctl: what belongs to a namespace of the container is set, everything else is refused and stays as it is.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use crate::harness::Bundle;

fn with(sysctl: Value, words: &[&str]) -> Result<Bundle> {
    let mut bundle = Bundle::probing(words)?;
    bundle.config["linux"]["sysctl"] = sysctl;
    Ok(bundle)
}

#[test]
fn parameters_of_own_namespaces_are_set_with_either_separator() -> Result<()> {
    requires!(userns);
    for (key, value) in [
        ("net.ipv4.ip_unprivileged_port_start", "80"),
        ("net/ipv4/ip_unprivileged_port_start", "81"),
        ("net/ipv4/conf/lo/forwarding", "1"),
        ("kernel.msgmax", "8000"),
        ("fs.mqueue.msg_max", "9"),
        ("user.max_net_namespaces", "7"),
        ("kernel.domainname", "some.domain"),
    ] {
        let file = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
        let bundle = with(json!({ key: value }), &["read", &format!("/proc/sys/{file}")])?;
        assert_eq!(bundle.run()?.succeeds()?.trim(), value, "{key}");
    }
    Ok(())
}

#[test]
fn parameters_of_the_host_are_refused_and_stay() -> Result<()> {
    requires!(userns);
    let cases = [
        ("kernel.hostname", "/proc/sys/kernel/hostname"),
        ("kernel.pid_max", "/proc/sys/kernel/pid_max"),
        ("kernel/core_pattern", "/proc/sys/kernel/core_pattern"),
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("vm.overcommit_memory", "/proc/sys/vm/overcommit_memory"),
    ];
    for (key, file) in cases {
        let before = fs::read_to_string(file)?;
        let mut bundle = with(json!({ key: "1234" }), &["true"])?;
        bundle.share("network");
        bundle.is_refused(512, &[key, "1234"])?;
        assert_eq!(fs::read_to_string(file)?, before, "{key}");
    }
    Ok(())
}

#[test]
fn root_joins_a_namespace_of_the_host_as_it_is() -> Result<()> {
    requires!(root);
    let mut bundle = with(json!({"net.ipv4.ip_forward": "1"}), &["true"])?;
    bundle.share_user();
    bundle.share("network");
    bundle.push("/linux/namespaces", json!({"type": "network", "path": "/proc/self/ns/net"}))?;
    bundle.is_refused(512, &["net.ipv4.ip_forward", "host"])
}

#[test]
fn names_and_values_that_smuggle_something_are_refused() -> Result<()> {
    requires!(userns);
    for (key, value) in [("net/../kernel/pid_max", "1"), ("net.ipv4.ip_forward=1+kernel.pid_max", "1"), ("", "1")] {
        with(json!({ key: value }), &["true"])?.is_refused(512, &["parameter"])?;
    }
    with(json!({"net.ipv4.ip_forward": "1\n2"}), &["true"])?.is_refused(803, &["more than one line"])?;
    with(json!({"net.ipv4.ip_forward": "many"}), &["true"])?.is_refused(514, &["ip_forward", "many"])?;
    with(json!({"net.ipv4.no_such_thing": "1"}), &["true"])?.is_refused(512, &["no_such_thing"])
}

#[test]
fn the_groups_that_may_ping_are_clamped_for_a_person_and_refused_for_an_engine() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle =
        with(json!({"net.ipv4.ping_group_range": "0 1000"}), &["read", "/proc/sys/net/ipv4/ping_group_range"])?;
    let outcome = bundle.run()?;
    assert_eq!(outcome.succeeds()?.split_whitespace().collect::<Vec<_>>(), ["0", "0"]);
    bundle.run_strictly()?.fails(125, 513, &["ping_group_range"])?;
    bundle.is_refused(122, &["ping_group_range"])
}
