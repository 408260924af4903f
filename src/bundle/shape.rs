//! The shape of a config that has been parsed: serde takes an array for a struct, field by field, so `"seccomp": []`
//! would be a seccomp that asks for nothing; and of a map it keeps the last of two equal keys.

use std::collections::HashMap;

use oci_spec::runtime::Spec;

use super::{
    objects,
    walk::{Event, Step, walk, written},
};

/// What a walk through the whole text found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// The first array where an object belongs: its offset and its place.
    pub(super) misplaced: Option<(usize, String)>,
    /// How many keys all maps have, whose keys are the user's: annotations, sysctl and the like.
    pub(super) map_keys: usize,
}

/// Looks at a config, or with a `base` at the part of it that is found there.
pub(super) fn of<'a>(json: &'a [u8], base: &[Step<'a>]) -> Shape {
    let mut shape = Shape::default();
    shape.misplaced = walk(json, base, |event, at, steps| {
        match event {
            Event::Array if objects::fields(steps).is_some() => return Some((at, written(steps))),
            Event::Key => shape.map_keys += usize::from(is_of_map(steps)),
            Event::Array | Event::Scalar | Event::Object | Event::Closed => {}
        }
        None
    });
    shape
}

/// How many keys there are in all maps whose keys are the user's, as parsed.
pub(super) fn map_keys(spec: &Spec) -> usize {
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let counts = [
        spec.annotations().as_ref().map(HashMap::len),
        linux.and_then(|linux| linux.sysctl().as_ref()).map(HashMap::len),
        linux.and_then(|linux| linux.time_offsets().as_ref()).map(HashMap::len),
        linux.and_then(|linux| linux.net_devices().as_ref()).map(HashMap::len),
        resources.and_then(|resources| resources.rdma().as_ref()).map(HashMap::len),
        resources.and_then(|resources| resources.unified().as_ref()).map(HashMap::len),
    ];
    counts.into_iter().flatten().sum()
}

/// Whether the last step is a key of a map.
fn is_of_map(steps: &[Step<'_>]) -> bool {
    let key = |at: usize| match steps.get(at) {
        Some(Step::Key(key)) => *key,
        Some(Step::Index(_)) | None => b"",
    };
    match steps.len() {
        2 => key(0) == b"annotations",
        3 => key(0) == b"linux" && [&b"sysctl"[..], b"timeOffsets", b"netDevices"].contains(&key(1)),
        4 => key(0) == b"linux" && key(1) == b"resources" && [&b"rdma"[..], b"unified"].contains(&key(2)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn misplaced(json: &str) -> Option<String> {
        of(json.as_bytes(), &[]).misplaced.map(|(_, place)| place)
    }

    #[test]
    fn arrays_in_the_place_of_objects_are_found() {
        for (json, place) in [
            ("[]", ""),
            ("{\n\"linux\": {\"seccomp\" : []}}", "linux.seccomp"),
            (r#"{"mounts":[{},["/x"]]}"#, "mounts[1]"),
            (r#"{"hooks":{"poststop":[[]]}}"#, "hooks.poststop[0]"),
            (r#"{"linux":{"timeOffsets":{"boottime":[1]}}}"#, "linux.timeOffsets.boottime"),
            (r#"{"linux":{"seccomp":{"syscalls":[{"args":[[]]}]}}}"#, "linux.seccomp.syscalls[0].args[0]"),
        ] {
            assert_eq!(misplaced(json).as_deref(), Some(place), "{json}");
        }
        assert_eq!(of(b"{\"user\":[]}", &[Step::Key(b"process")]).misplaced, Some((8, "process.user".to_owned())));
    }

    #[test]
    fn arrays_in_their_place_or_below_unknown_keys_and_words_in_strings_are_left_alone() {
        for json in [
            r#"{"process":{"args":["hooks","[","\"["],"env":[]},"mounts":[{"options":["ro"]}]}"#,
            r#"{"linux":{"maskedPaths":["/process"],"namespaces":[{"type":"pid"},{"type":"user"}]}}"#,
            r#"{"annotations":{"hooks":"["}}"#,
            r#"{"x":{"root":[],"user":[[1],[]]},"windows":{"network":[]},"process":{"hooks":[]}}"#,
        ] {
            assert_eq!(misplaced(json), None, "{json}");
        }
    }

    #[test]
    fn the_keys_of_maps_are_counted_also_when_they_repeat() {
        let json = r#"{"annotations":{"a":"","a":""},"linux":{"sysctl":{"b":"c"},"resources":{"unified":{"d":"e"}}}}"#;
        assert_eq!(of(json.as_bytes(), &[]).map_keys, 4);
        assert_eq!(of(br#"{"x":{"annotations":{"a":1}},"linux":{"x":{"y":1}}}"#, &[]).map_keys, 0);
    }
}
