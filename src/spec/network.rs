//! `linux.netDevices`, as far as the config alone tells.

use oci_spec::runtime::{LinuxNamespaceType as Kind, Spec};

use super::{Faults, namespace};
use crate::error::Code;

/// Bytes of the longest name: `IFNAMSIZ` without its NUL.
const LONGEST: usize = 15;

/// Judges the names, and that they are different ones.
pub(super) fn check(spec: &Spec, faults: &mut Faults) {
    let devices = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
    let mut devices: Vec<_> = devices.into_iter().flatten().collect();
    devices.sort_unstable_by_key(|(from, _)| *from);
    if !devices.is_empty() && !namespace(spec, Kind::Network) {
        faults.add_as(Code::NamespaceNeeded, "linux.netDevices", "devices need a network namespace to move to");
    }
    let mut seen: Vec<&str> = Vec::new();
    for (from, device) in devices {
        let key = format!("linux.netDevices[{from:?}]");
        if !is_name(from) {
            faults.add(&key, format!("{from:?} is no name of a device"));
            continue;
        }
        let new = device.name().as_deref().filter(|new| !new.is_empty());
        if let Some(new) = new.filter(|new| !is_name(new) || !is_template(new)) {
            faults.add(&format!("{key}.name"), format!("{new:?} is no name of a device"));
        }
        let name = new.unwrap_or(from);
        if seen.contains(&name) && !name.contains('%') {
            faults.add(&key, format!("{name:?} is the name of two devices"));
        }
        seen.push(name);
    }
}

/// What the kernel takes: `dev_valid_name`, net/core/dev.c.
fn is_name(name: &str) -> bool {
    let is_bad = |byte: u8| byte == b'/' || byte == b':' || byte == 0 || matches!(byte, 9..=13 | b' ' | 0xA0);
    (1..=LONGEST).contains(&name.len()) && name != "." && name != ".." && !name.bytes().any(is_bad)
}

/// A name without `%`, or one that the kernel completes: one `%d` and no other `%`, as `dev_alloc_name` wants it.
fn is_template(name: &str) -> bool {
    name.split_once('%').is_none_or(|(_, rest)| rest.starts_with('d') && !rest.contains('%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        for name in ["a", "eth0", "fifteen-letters", "veth.1@x", "eth%d"] {
            assert!(is_name(name) && is_template(name), "{name}");
        }
        for name in ["", "sixteen--letters", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\nb", "a\0b", "é\u{a0}"] {
            assert!(!is_name(name), "{name:?}");
        }
        for name in ["%", "e%s", "e%dd%d", "100%"] {
            assert!(!is_template(name), "{name}");
        }
    }

    #[test]
    fn devices_need_a_namespace_and_names_of_their_own() {
        for (linux, wanted) in [
            (r#""netDevices":{}"#, "ok"),
            (r#""netDevices":{"a":{}}"#, "need a network namespace"),
            (r#""namespaces":[{"type":"network"}],"netDevices":{"a":{},"b":{"name":"c"}}"#, "ok"),
            (r#""namespaces":[{"type":"network"}],"netDevices":{"a":{},"b":{"name":"a"}}"#, "two devices"),
            (r#""namespaces":[{"type":"network"}],"netDevices":{"a":{"name":"e%d"},"b":{"name":"e%d"}}"#, "ok"),
            (r#""namespaces":[{"type":"network"}],"netDevices":{"a":{"name":"e%s"}}"#, r#"["a"].name: "e%s""#),
            (r#""namespaces":[{"type":"network"}],"netDevices":{"a b":{}}"#, r#""a b" is no name"#),
        ] {
            let spec = format!(r#"{{"ociVersion":"1.3.0","root":{{"path":"r"}},"linux":{{{linux}}}}}"#);
            let spec: Spec = serde_json::from_str(&spec).unwrap();
            let text = crate::spec::validate(&spec).map_or_else(|error| error.to_string(), |()| "ok".to_owned());
            assert!(text.contains(wanted), "{text} lacks {wanted}");
        }
    }
}
