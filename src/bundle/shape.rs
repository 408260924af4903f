//! The shape of a config: where in it a fault is, and arrays that take the place of objects. serde takes an array for a
//! struct, field by field, so `"seccomp": []` would be a seccomp that asks for nothing. One pass over the bytes of JSON
//! that has been parsed already, hence is JSON.

/// Objects of known fields in config.json.
const OBJECTS: [&str; 26] = [
    "root",
    "process",
    "process.user",
    "process.consoleSize",
    "process.capabilities",
    "process.ioPriority",
    "process.scheduler",
    "process.execCPUAffinity",
    "linux",
    "linux.resources",
    "linux.resources.memory",
    "linux.resources.cpu",
    "linux.resources.pids",
    "linux.resources.blockIO",
    "linux.resources.network",
    "linux.resources.rdma",
    "linux.resources.unified",
    "linux.seccomp",
    "linux.intelRdt",
    "linux.personality",
    "linux.memoryPolicy",
    "linux.sysctl",
    "linux.timeOffsets",
    "linux.netDevices",
    "hooks",
    "annotations",
];

/// Arrays of such objects.
const LISTS: [&str; 24] = [
    "mounts",
    "mounts.uidMappings",
    "mounts.gidMappings",
    "process.rlimits",
    "hooks.prestart",
    "hooks.createRuntime",
    "hooks.createContainer",
    "hooks.startContainer",
    "hooks.poststart",
    "hooks.poststop",
    "linux.namespaces",
    "linux.uidMappings",
    "linux.gidMappings",
    "linux.devices",
    "linux.resources.devices",
    "linux.resources.hugepageLimits",
    "linux.resources.network.priorities",
    "linux.resources.blockIO.weightDevice",
    "linux.resources.blockIO.throttleReadBpsDevice",
    "linux.resources.blockIO.throttleWriteBpsDevice",
    "linux.resources.blockIO.throttleReadIOPSDevice",
    "linux.resources.blockIO.throttleWriteIOPSDevice",
    "linux.seccomp.syscalls",
    "linux.seccomp.syscalls.args",
];

/// Objects with keys of the user's, whose values are such objects.
const MAPS: [&str; 3] = ["linux.timeOffsets", "linux.netDevices", "linux.resources.rdma"];

/// Nothing that pura knows lies as deep.
const DEEPEST: usize = 8;

/// What is open around a byte: of an object the key that was read last, of an array the position.
#[derive(Debug, Clone, Copy)]
enum Level<'a> {
    Object(&'a [u8]),
    Array(usize),
}

/// The first array where an object belongs: the line, and the key that it is the value of. `under` is the key of the whole
/// text, when it is a part of a config.
pub(super) fn misplaced_array(json: &[u8], under: &str) -> Option<(usize, String)> {
    let mut found = None;
    walk(json, |at, levels| {
        if json.get(at) != Some(&b'[') || !is_misplaced(levels, under) {
            return true;
        }
        let line = json.get(..at).unwrap_or_default().split(|other| *other == b'\n').count();
        let key = levels.iter().rev().find_map(|level| if let Level::Object(key) = level { Some(*key) } else { None });
        let named = key.map(|key| format!("{:?}", String::from_utf8_lossy(key)));
        found = Some((line, named.unwrap_or_else(|| "the config".to_owned())));
        false
    });
    found
}

fn is_misplaced(levels: &[Level<'_>], under: &str) -> bool {
    if levels.len() > DEEPEST {
        return false;
    }
    let keys = levels.iter().filter_map(|level| if let Level::Object(key) = level { Some(*key) } else { None });
    let keys = Some(under.as_bytes()).filter(|key| !key.is_empty()).into_iter().chain(keys);
    let path = String::from_utf8_lossy(&keys.collect::<Vec<_>>().join(&b'.')).into_owned();
    let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
    match levels.last() {
        None => true,
        Some(Level::Array(_)) => LISTS.contains(&path.as_str()),
        Some(Level::Object(_)) => OBJECTS.contains(&path.as_str()) || MAPS.contains(&parent),
    }
}

/// Where in the text a line and a column of serde's are: `linux.namespaces[0].type`; empty for a whole config.
pub(super) fn place(json: &[u8], under: &str, line: usize, column: usize) -> String {
    let before = line.saturating_sub(1);
    let start: usize = json.split(|byte| *byte == b'\n').take(before).map(|text| text.len() + 1).sum();
    let mut place = under.to_owned();
    walk(json, |at, levels| {
        if at < start + column {
            return true;
        }
        for level in levels.iter().take(DEEPEST) {
            match level {
                Level::Object([]) => {}
                Level::Object(key) => {
                    let dot = if place.is_empty() { "" } else { "." };
                    place = format!("{place}{dot}{}", String::from_utf8_lossy(key));
                }
                Level::Array(position) => place = format!("{place}[{position}]"),
            }
        }
        false
    });
    place
}

/// Shows each byte that is in no string, with what is open there, until the visitor has seen enough.
fn walk<'a>(json: &'a [u8], mut visit: impl FnMut(usize, &[Level<'a>]) -> bool) {
    let mut open: Vec<Level<'a>> = Vec::new();
    let mut after_colon = false;
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        if !visit(at, &open) {
            return;
        }
        match byte {
            b'"' => {
                let end = string_end(json, at + 1);
                if let Some(Level::Object(key)) = open.last_mut().filter(|_| !after_colon) {
                    *key = json.get(at + 1..end).unwrap_or_default();
                }
                at = end;
            }
            b',' => {
                if let Some(Level::Array(position)) = open.last_mut() {
                    *position += 1;
                }
            }
            b'[' => open.push(Level::Array(0)),
            b'{' => open.push(Level::Object(b"")),
            b']' | b'}' => drop(open.pop()),
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            after_colon = byte == b':';
        }
        at += 1;
    }
    visit(at, &open);
}

/// Where the string that starts at `from` has its closing quote.
fn string_end(json: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Option<(usize, String)> {
        misplaced_array(json.as_bytes(), "")
    }

    #[test]
    fn arrays_in_the_place_of_objects_are_found() {
        assert_eq!(of("[]"), Some((1, "the config".to_owned())));
        assert_eq!(of("{\n\"linux\": {\"seccomp\" : []}}"), Some((2, "\"seccomp\"".to_owned())));
        assert_eq!(of(r#"{"mounts":[["/x"]]}"#), Some((1, "\"mounts\"".to_owned())));
        assert_eq!(of(r#"{"hooks":["a"]}"#), Some((1, "\"hooks\"".to_owned())));
        assert_eq!(of(r#"{"linux":{"timeOffsets":{"boottime":[]}}}"#), Some((1, "\"boottime\"".to_owned())));
        assert_eq!(misplaced_array(br#"{"user":[]}"#, "process"), Some((1, "\"user\"".to_owned())));
    }

    #[test]
    fn what_is_below_an_unknown_key_has_any_shape() {
        for json in [
            r#"{"x":[[1],{"user":[],"root":[[]]}],"windows":{"network":[],"process":[]}}"#,
            r#"{"process":{"root":[],"args":[],"x":{"user":[]}},"linux":{"x":[["y"]]}}"#,
        ] {
            assert_eq!(of(json), None, "{json}");
        }
    }

    #[test]
    fn a_fault_is_placed_by_line_and_column() {
        let json = "{\"a\": 1,\n \"linux\": {\"namespaces\": [{\"type\": \"pid\"}, {\"type\": \"x\"}]},\n \"b\": 2}";
        let after = |text: &str| {
            let at = json.find(text).unwrap() + text.len();
            let line = json[..at].split('\n').count();
            place(json.as_bytes(), "", line, at - json[..at].rfind('\n').map_or(0, |at| at + 1))
        };
        assert_eq!(after("\"x\""), "linux.namespaces[1].type");
        assert_eq!(after("\"x\"}"), "linux.namespaces[1]");
        assert_eq!(after("\"pid\""), "linux.namespaces[0].type");
        assert_eq!(after("\"b\": 2"), "b");
        assert_eq!(after("\"b\": 2}"), "");
        assert_eq!(place(b"[]", "", 1, 2), "");
        assert_eq!(place(b"", "process", 9, 9), "process");
    }

    #[test]
    fn arrays_in_their_place_and_words_in_strings_are_left_alone() {
        for json in [
            r#"{"process":{"args":["hooks","[","\"["],"env":[]},"mounts":[{"options":["ro"]}]}"#,
            r#"{"linux":{"maskedPaths":["/process"],"namespaces":[{"type":"pid"},{"type":"user"}]}}"#,
            r#"{"annotations":{"hooks":"["}}"#,
        ] {
            assert_eq!(of(json), None, "{json}");
        }
    }
}
