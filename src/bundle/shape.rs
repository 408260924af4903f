//! The shape of a config: serde takes an array for a struct, field by field, so `"seccomp": []` would be a seccomp that
//! asks for nothing. One pass over the bytes of JSON that has been parsed already, hence is JSON.

/// Keys of config.json whose value is an object of known fields.
const OBJECTS: [&str; 26] = [
    "root",
    "process",
    "user",
    "consoleSize",
    "capabilities",
    "ioPriority",
    "scheduler",
    "execCPUAffinity",
    "linux",
    "resources",
    "memory",
    "cpu",
    "pids",
    "blockIO",
    "network",
    "seccomp",
    "hooks",
    "intelRdt",
    "personality",
    "memoryPolicy",
    "sysctl",
    "annotations",
    "timeOffsets",
    "netDevices",
    "rdma",
    "unified",
];

/// The first array where an object belongs: the line, and the key that it is the value of.
pub(super) fn misplaced_array(json: &[u8]) -> Option<(usize, String)> {
    let mut key: &[u8] = &[];
    // For each open bracket, whether it is an array's.
    let mut open: Vec<bool> = Vec::new();
    let mut after_colon = false;
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => {
                let end = string_end(json, at + 1);
                if !after_colon && open.last() == Some(&false) {
                    key = json.get(at + 1..end).unwrap_or_default();
                }
                at = end;
            }
            b'[' => {
                let is_value = open.last() == Some(&false) && !OBJECTS.iter().any(|object| object.as_bytes() == key);
                if !is_value {
                    let line = json.get(..at).unwrap_or_default().split(|other| *other == b'\n').count();
                    let named = format!("{:?}", String::from_utf8_lossy(key));
                    return Some((line, if key.is_empty() { "the config".to_owned() } else { named }));
                }
                open.push(true);
            }
            b'{' => open.push(false),
            b']' | b'}' => drop(open.pop()),
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            after_colon = byte == b':';
        }
        at += 1;
    }
    None
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
        misplaced_array(json.as_bytes())
    }

    #[test]
    fn arrays_in_the_place_of_objects_are_found() {
        assert_eq!(of("[]"), Some((1, "the config".to_owned())));
        assert_eq!(of("{\n\"linux\": {\"seccomp\" : []}}"), Some((2, "\"seccomp\"".to_owned())));
        assert_eq!(of(r#"{"mounts":[["/x"]]}"#), Some((1, "\"mounts\"".to_owned())));
        assert_eq!(of(r#"{"hooks":["a"]}"#), Some((1, "\"hooks\"".to_owned())));
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
