//! Fields that the specification requires and that oci-spec reads as 0 when they are missing.

use std::collections::HashSet;

use oci_spec::runtime::{IOPriorityClass, LinuxDeviceType, Spec};

use super::walk::{Event, Step, walk, written};

/// What is missing, a clause each. Nothing is looked for unless something reads as 0, which is rare.
pub(super) fn missing(json: &[u8], spec: &Spec) -> Vec<String> {
    let doubtful = doubtful(spec);
    if doubtful.is_empty() {
        return Vec::new();
    }
    let names: Vec<_> = doubtful.iter().map(|(_, name)| name.as_bytes()).collect();
    let mut found = HashSet::new();
    walk(json, &[], |event, _, steps| {
        if let (Event::Key, Some(Step::Key(key))) = (event, steps.last())
            && names.contains(key)
        {
            found.insert(written(steps));
        }
        None::<()>
    });
    let is_missing = |(place, name): &&(String, &str)| !found.contains(&format!("{place}.{name}"));
    doubtful.iter().filter(is_missing).map(|(place, name)| format!("{place}: {name} is missing")).collect()
}

/// Objects, and the field of each that may have been left out.
fn doubtful(spec: &Spec) -> Vec<(String, &'static str)> {
    let mut doubtful = Vec::new();
    let process = spec.process().as_ref();
    let limits = process.and_then(|process| process.rlimits().as_ref()).into_iter().flatten();
    for (index, limit) in limits.enumerate() {
        for (name, value) in [("soft", limit.soft()), ("hard", limit.hard())] {
            if value == 0 {
                doubtful.push((format!("process.rlimits[{index}]"), name));
            }
        }
    }
    if let Some(priority) = process.and_then(|process| process.io_priority().as_ref()) {
        // The class that oci-spec takes for the default.
        let classes = (priority.class() == IOPriorityClass::default()).then_some("class");
        let levels = (priority.priority() == 0).then_some("priority");
        doubtful.extend(classes.into_iter().chain(levels).map(|name| ("process.ioPriority".to_owned(), name)));
    }
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref()).into_iter().flatten();
    for (index, device) in devices.enumerate() {
        if device.minor() == 0 && !matches!(device.typ(), LinuxDeviceType::P | LinuxDeviceType::A) {
            doubtful.push((format!("linux.devices[{index}]"), "minor"));
        }
    }
    doubtful
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_is_a_value_and_nothing_is_none() {
        for (json, wanted) in [
            (r#"{"process":{"cwd":"/","user":{},"rlimits":[{"type":"RLIMIT_CORE","soft":0,"hard":0}]}}"#, ""),
            (
                r#"{"process":{"cwd":"/","user":{},"rlimits":[{"type":"RLIMIT_CORE"}]}}"#,
                "process.rlimits[0]: soft is missing; process.rlimits[0]: hard is missing",
            ),
            (
                r#"{"process":{"cwd":"/","user":{},"ioPriority":{}}}"#,
                "process.ioPriority: class is missing; process.ioPriority: priority is missing",
            ),
            (r#"{"linux":{"devices":[{"path":"/x","type":"c","major":7,"minor":0},{"path":"/y","type":"p"}]}}"#, ""),
            (r#"{"linux":{"devices":[{"path":"/x","type":"c","major":7}]}}"#, "linux.devices[0]: minor is missing"),
        ] {
            let spec = serde_json::from_str(json).unwrap();
            assert_eq!(missing(json.as_bytes(), &spec).join("; "), wanted, "{json}");
        }
    }
}
