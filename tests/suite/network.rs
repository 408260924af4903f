//! linux.netDevices: devices of the caller's network move into the container's.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::harness::{Bundle, Outcome};

/// A device with addresses of every sort, of a kind that any kernel with containers has.
const DEVICE: &str = "ip link add outer type veth peer name peer
    ip addr add 10.9.8.7/24 dev outer
    ip addr add 10.9.8.9/24 brd + dev outer
    ip addr add 10.1.1.1/32 scope link dev outer
    ip addr add 10.2.2.2/32 valid_lft 600 preferred_lft 600 dev outer
    ip -6 addr add 2001:db8::7/64 nodad dev outer 2>/dev/null || :";

/// A base whose program shows its network; the user namespace is the caller's, or new.
fn with(devices: &Value, new_userns: bool) -> Result<Bundle> {
    let mut bundle = Bundle::with_args(&["/bin/busybox", "ip", "addr"])?;
    if new_userns {
        bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
    } else {
        bundle.share_user();
    }
    bundle.config["linux"]["netDevices"] = devices.clone();
    Ok(bundle)
}

/// Runs the bundle as root of a user namespace that owns its network: `setup` before; what `after` says is in a file.
fn nested(bundle: &Bundle, verb: &str, setup: &str, after: &str) -> Result<Outcome> {
    let script =
        format!("config=$1; shift; {setup}\n\"$@\"; status=$?\n({after}) >\"$config.after\" 2>&1\nexit $status");
    let config = bundle.path("bundle/config.json");
    let words = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", &script, "sh", &config.to_string_lossy()];
    let pura = bundle.with_bundle(verb, &["c1"])?;
    bundle.through(&words, &pura).output()
}

fn after(bundle: &Bundle) -> Result<String> {
    Ok(fs::read_to_string(bundle.path("bundle/config.json.after"))?)
}

#[test]
fn a_device_moves_under_its_new_name_with_its_addresses_and_is_up() -> Result<()> {
    requires!(userns, busybox, links);
    for new_userns in [false, true] {
        let bundle = with(&json!({"outer": {"name": "inner"}}), new_userns)?;
        let outcome = nested(&bundle, "run", DEVICE, "ip link show outer")?;
        let text = outcome.succeeds()?;
        for wanted in ["inet 10.9.8.7/24", "10.9.8.9/24 brd 10.9.8.255"] {
            ensure!(text.contains(wanted), "{wanted} is missing: {text}");
        }
        let line = text.lines().find(|line| line.contains("inner@")).unwrap_or_default();
        ensure!(line.contains(",UP"), "{text}");
        ensure!(after(&bundle)?.contains("does not exist"), "{}", after(&bundle)?);
        if fs::metadata("/proc/net/if_inet6").is_ok() {
            ensure!(text.contains("inet6 2001:db8::7/64 scope global"), "{text}");
        }
        // Of no use elsewhere, and not there for good.
        ensure!(!text.contains("10.1.1.1") && !text.contains("10.2.2.2"), "{text}");
    }
    Ok(())
}

#[test]
fn the_kernel_picks_the_number_of_a_name_with_a_percent_sign() -> Result<()> {
    requires!(userns, busybox, links);
    let bundle = with(&json!({"outer": {"name": "net%d"}, "peer": {"name": "net%d"}}), false)?;
    let outcome = nested(&bundle, "run", DEVICE, ":")?;
    let text = outcome.succeeds()?;
    ensure!(text.contains(" net0@net1:") && text.contains(" net1@net0:") && text.contains("10.9.8.7"), "{text}");
    Ok(())
}

#[test]
fn a_joined_namespace_gets_the_device_beside_its_own_and_a_clash_of_names_moves_nothing() -> Result<()> {
    requires!(userns, busybox, links);
    // The joined one has a device of the same name, and of the same number.
    let join =
        "unshare --net sh -c 'ip link add inner type veth peer name other; echo; exec sleep 60' >\"$config.said\" &
        pid=$!; until [ -s \"$config.said\" ]; do :; done
        sed -i \"s#/NETWORK#/proc/$pid/ns/net#\" \"$config\"";
    for (name, fails) in [("inner", true), ("inner%d", false), ("outer", false)] {
        let mut bundle = with(&json!({"outer": {"name": name}}), false)?;
        bundle.share("network");
        bundle.push("/linux/namespaces", json!({"type": "network", "path": "/NETWORK"}))?;
        let setup = format!("{DEVICE}\n{join}");
        let outcome = nested(&bundle, "run", &setup, "kill $pid; ip -o link show outer")?;
        if fails {
            outcome.fails(125, 220, &["\"outer\"", "\"inner\"", "a device of that name"])?;
            ensure!(after(&bundle)?.contains(" outer@"), "{}", after(&bundle)?);
        } else {
            let text = outcome.succeeds()?;
            let found = if name == "outer" { " outer@" } else { " inner0@" };
            ensure!(text.contains(" inner@other") && text.contains(found) && text.contains("10.9.8.7"), "{text}");
        }
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn what_fails_late_leaves_the_device_where_it_was() -> Result<()> {
    requires!(userns, busybox, links);
    let mut bundle = with(&json!({"outer": {}}), true)?;
    bundle.args(&["/no/such/program"]);
    let outcome = nested(&bundle, "create", DEVICE, "ip -o addr show outer")?;
    outcome.fails(1, 602, &["/no/such/program"])?;
    ensure!(after(&bundle)?.contains("10.9.8.7/24"), "{}", after(&bundle)?);
    bundle.is_clean()
}

#[test]
fn the_device_is_there_before_the_first_hook_and_stays_in_the_container() -> Result<()> {
    requires!(userns, busybox, links);
    let busybox = crate::harness::busybox()?;
    // A createRuntime hook is in the caller's network, which has lost the device.
    for (kind, shell, script) in [
        ("createRuntime", busybox, "! /bin/busybox ip link show outer"),
        ("createContainer", busybox, "/bin/busybox ip link show inner"),
        ("startContainer", "/bin/busybox", "/bin/busybox ip link show inner"),
    ] {
        let mut bundle = with(&json!({"outer": {"name": "inner"}}), false)?;
        let script = script.replace("/bin/busybox", shell);
        bundle.config["hooks"][kind] = json!([{"path": shell, "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]);
        let outcome = nested(&bundle, "run", DEVICE, ":")?;
        ensure!(outcome.succeeds()?.contains("inner@"), "{kind}: {outcome:?}");
    }
    Ok(())
}

#[test]
fn a_device_that_is_not_there_and_the_loopback_are_refused_by_name() -> Result<()> {
    requires!(userns, busybox, links);
    for (devices, words) in [
        (json!({"none": {}}), ["\"none\"", "no such device"]),
        (json!({"lo": {"name": "eth0"}}), ["\"lo\"", "loopback"]),
        (json!({"outer": {"name": "lo"}}), ["\"lo\"", "a device of that name"]),
    ] {
        let bundle = with(&devices, true)?;
        nested(&bundle, "create", DEVICE, ":")?.fails(1, 220, &words)?;
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn without_power_over_the_network_it_fails_before_anything_is_made() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["linux"]["netDevices"] = json!({"lo": {"name": "eth0"}});
    bundle.is_refused(220, &["CAP_NET_ADMIN", "\"lo\""])?;
    // Root of a user namespace, in the network of the machine.
    bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
    let create = bundle.with_bundle("create", &["c1"])?;
    let outcome = bundle.through(&["unshare", "--user", "--map-root-user"], &create).output()?;
    outcome.fails(1, 220, &["CAP_NET_ADMIN", "\"lo\""])?;
    bundle.is_clean()
}

#[test]
fn bad_names_and_a_shared_network_are_refused() -> Result<()> {
    for (devices, words) in [
        (json!({"outer": {"name": "a/b"}}), ["netDevices", "a/b"]),
        (json!({"outer": {"name": "e%s"}}), ["netDevices", "e%s"]),
        (json!({"outer": {"name": "sixteen--letters"}}), ["netDevices", "sixteen--letters"]),
        (json!({"outer": {"name": "x"}, "other": {"name": "x"}}), ["\"x\"", "two devices"]),
    ] {
        with(&devices, true)?.is_refused(803, &words)?;
    }
    let mut bundle = with(&json!({"outer": {}}), true)?;
    bundle.share("network");
    bundle.is_refused(806, &["netDevices", "network namespace"])
}

#[test]
fn a_failing_hook_says_what_became_of_the_devices() -> Result<()> {
    requires!(userns, busybox, links);
    let mut bundle = with(&json!({"outer": {"name": "inner"}}), false)?;
    bundle.config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]});
    let outcome = nested(&bundle, "run", DEVICE, ":")?;
    outcome.fails(125, 614, &["exit status 3", "returns only if it is hardware: \"outer\""])?;
    Ok(())
}

#[test]
fn the_loopback_of_a_new_network_is_up() -> Result<()> {
    requires!(userns, busybox);
    let bundle = Bundle::with_args(&["/bin/sh", "-c", "cat /sys/class/net/lo/flags"])?;
    // IFF_UP | IFF_LOOPBACK
    assert_eq!(bundle.run()?.succeeds()?, "0x9\n");
    Ok(())
}
