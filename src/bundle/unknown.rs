//! Keys that the specification does not have. It wants them ignored, for the sake of its later versions; people who have
//! misspelt one want to know.

use super::{
    objects,
    walk::{Event, Step, walk, written},
};
use crate::{
    error::{Code, Error, Warning, shortened},
    nearest::nearest,
};

/// More than this are counted and not told.
const MOST: usize = 8;

/// The keys of a config that nobody reads.
pub(super) fn warning(json: &[u8]) -> Option<Warning> {
    let found = keys(json);
    let shown = found.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = found.len().checked_sub(MOST).filter(|more| *more > 0);
    let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
    let what =
        || format!("config.json has keys that the specification does not know, and that are ignored: {shown}{more}");
    (!found.is_empty())
        .then(|| Warning::new(Code::UnknownKey, shortened(&what())).fix("correct them, or leave them out"))
}

/// An error about something that is missing, and what stands there instead.
pub(super) fn tell(json: &[u8], error: Error) -> Error {
    match keys(json).first() {
        Some(key) => error.also(&format!("{key} is no key of the specification")),
        None => error,
    }
}

/// Each with the nearest that there is.
fn keys(json: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    walk(json, &[], |event, _, steps| {
        if let (Event::Key, Some((Step::Key(key), object))) = (event, steps.split_last())
            && let Some(fields) = objects::fields(object).filter(|fields| *fields != "*")
        {
            let fields = || fields.split(' ');
            if !fields().any(|field| field.as_bytes() == *key) {
                let near = nearest(&String::from_utf8_lossy(key), fields());
                let near = near.map(|near| format!(" (perhaps {near})")).unwrap_or_default();
                found.push(written(steps) + &near);
            }
        }
        None::<()>
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_there_is_not_is_found_with_the_nearest_one() {
        for (json, wanted) in [
            (r#"{"hostnme":"a","linux":{"sysctl":{"x":"y"},"seccomp":null}}"#, "hostnme (perhaps hostname)"),
            (
                r#"{"process":{"NoNewPrivileges":true,"x":{"y":1}}}"#,
                "process.NoNewPrivileges (perhaps noNewPrivileges) process.x",
            ),
            (r#"{"mounts":[{},{"opts":[]}],"annotations":{"a":"b"}}"#, "mounts[1].opts"),
            (
                r#"{"linux":{"resources":{"pids":{"limits":1},"unified":{"a":"1"}}}}"#,
                "linux.resources.pids.limits (perhaps limit)",
            ),
            (
                r#"{"linux":{"netDevices":{"eth0":{"nam":""}},"timeOffsets":{"x":{"secs":1}}}}"#,
                "linux.netDevices.eth0.nam (perhaps name)",
            ),
            (r#"{"windows":{"anything":1},"solaris":{}}"#, ""),
        ] {
            assert_eq!(keys(json.as_bytes()).join(" "), wanted, "{json}");
        }
        assert_eq!(warning(b"{}"), None);
    }

    #[test]
    fn the_specification_itself_and_engines_have_only_keys_that_are_known() {
        let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let mut count = 0;
        for directory in ["engines", "spec-examples"] {
            for entry in std::fs::read_dir(fixtures.join(directory)).unwrap() {
                let path = entry.unwrap().path();
                let json = std::fs::read(&path).unwrap();
                if json.starts_with(b"{") && path.file_name().unwrap() != "fields.json" {
                    assert_eq!(keys(&json), [""; 0], "{path:?}");
                    count += 1;
                }
            }
        }
        assert!(count > 20, "{count}");
        // What oci-spec writes of what it reads.
        let config = std::fs::read(fixtures.join("spec-examples/config.json")).unwrap();
        let spec: oci_spec::runtime::Spec = serde_json::from_slice(&config).unwrap();
        assert_eq!(keys(&serde_json::to_vec(&spec).unwrap()), [""; 0]);
    }
}
