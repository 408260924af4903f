//! Where in a JSON text something stands: `process.args[1]`. serde knows only line and column, and drops the way there.
//!
//! One pass over bytes, without recursion. They have been parsed, hence are JSON, at least up to the place that is asked
//! for; behind it anything may follow, and does no harm.

/// One step from the outermost value to a place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// The key in an object, as it is written; empty before the first.
    Key(&'a [u8]),
    /// The position in an array, from 0.
    Index(usize),
}

/// What the walk comes upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Behind a key.
    Key,
    /// Behind a string that is no key, a number or a word.
    Scalar,
    /// Before an array.
    Array,
    /// Before an object.
    Object,
    /// Behind an array or an object.
    Closed,
}

/// Shows `visit` every event with its offset and the way there, until it returns something. The way starts with `base`.
pub(super) fn walk<'a, T>(
    json: &'a [u8],
    base: &[Step<'a>],
    mut visit: impl FnMut(Event, usize, &[Step<'a>]) -> Option<T>,
) -> Option<T> {
    let mut steps = base.to_vec();
    let mut wants_key = false;
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        let found = match byte {
            b'"' => {
                let end = string_end(json, at + 1);
                let text = json.get(at + 1..end).unwrap_or_default();
                at = end + 1;
                if let (true, Some(last)) = (wants_key, steps.last_mut()) {
                    *last = Step::Key(text);
                    wants_key = false;
                    visit(Event::Key, at, &steps)
                } else {
                    visit(Event::Scalar, at, &steps)
                }
            }
            b'[' | b'{' => {
                let is_array = byte == b'[';
                let found = visit(if is_array { Event::Array } else { Event::Object }, at, &steps);
                steps.push(if is_array { Step::Index(0) } else { Step::Key(b"") });
                wants_key = !is_array;
                at += 1;
                found
            }
            b']' | b'}' => {
                if steps.len() > base.len() {
                    steps.pop();
                }
                wants_key = false;
                at += 1;
                visit(Event::Closed, at, &steps)
            }
            b',' => {
                match steps.last_mut() {
                    Some(Step::Index(index)) => *index += 1,
                    Some(Step::Key(_)) => wants_key = true,
                    None => {}
                }
                at += 1;
                None
            }
            b' ' | b'\n' | b'\t' | b'\r' | b':' => {
                // Most of a file that is meant for people.
                let rest = json.get(at..).unwrap_or_default();
                at += rest
                    .iter()
                    .position(|byte| !matches!(byte, b' ' | b'\n' | b'\t' | b'\r' | b':'))
                    .unwrap_or(rest.len());
                None
            }
            _ => {
                let rest = json.get(at..).unwrap_or_default();
                let is_end = |other: &u8| b",]}:\" \n\t\r".contains(other);
                at += rest.iter().position(is_end).unwrap_or(rest.len());
                visit(Event::Scalar, at, &steps)
            }
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Where the string that starts at `from` has its closing quote.
fn string_end(json: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        let rest = json.get(at..).unwrap_or_default();
        let Some(found) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else { return json.len() };
        at += found;
        if json.get(at) == Some(&b'"') {
            return at;
        }
        at += 2;
    }
}

/// The value that was being read when `offset` bytes had been; empty for the outermost.
pub(super) fn place_before<'a>(json: &'a [u8], base: &[Step<'a>], offset: usize) -> String {
    let mut place = base.to_vec();
    walk(json, base, |_, at, steps| {
        if at > offset {
            return Some(());
        }
        place.clear();
        place.extend_from_slice(steps);
        None
    });
    written(&place)
}

/// The string around `offset`.
pub(super) fn place_around<'a>(json: &'a [u8], base: &[Step<'a>], offset: usize) -> String {
    walk(json, base, |_, at, steps| (at >= offset).then(|| written(steps))).unwrap_or_default()
}

/// Steps as a person writes them.
pub(super) fn written(steps: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Index(index) => text.extend(["[", &index.to_string(), "]"]),
            Step::Key(key) if key.iter().all(u8::is_ascii_alphanumeric) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&String::from_utf8_lossy(key));
            }
            Step::Key(key) => text.extend(["[\"", &String::from_utf8_lossy(key), "\"]"]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"a": {"b": [1, "x,]", {"c.d": null}], "e": {}}, "f": [[], [true]]}"#;

    #[test]
    fn every_value_has_its_place() {
        for (of, wanted) in [
            ("1,", "a.b[0]"),
            ("\"x,", "a.b[1]"),
            ("null", "a.b[2][\"c.d\"]"),
            ("{}", "a.e"),
            ("[]", "f[0]"),
            ("true", "f[1][0]"),
        ] {
            let offset = TEXT.find(of).unwrap();
            // Containers are met before they are read, scalars when they have been.
            let is_container = of.starts_with(['{', '[']);
            let read = if is_container { offset } else { TEXT[offset..].find([',', '}', ']']).unwrap() + offset };
            let read = if of == "\"x," { offset + 5 } else { read };
            assert_eq!(place_before(TEXT.as_bytes(), &[], read), wanted, "{of}");
        }
    }

    #[test]
    fn a_key_an_end_and_the_whole_have_places_too() {
        let text = TEXT.as_bytes();
        assert_eq!(place_before(text, &[], TEXT.find(": {}").unwrap()), "a.e");
        assert_eq!(place_before(text, &[], TEXT.find(", \"f").unwrap()), "a");
        assert_eq!(place_before(text, &[], TEXT.len()), "");
        assert_eq!(place_before(text, &[Step::Key(b"process")], 1), "process");
        assert_eq!(place_around(text, &[], TEXT.find("x,").unwrap()), "a.b[1]");
    }

    #[test]
    fn what_is_no_json_ends_the_walk_and_nothing_else() {
        for text in ["", "]", "}}]]", "{\"", "{\"a", "{\"a\\", "[,,", ":::", "{,", "\u{0}", "[1 2 3", "{\"a\":\"\\\"}"]
        {
            drop(place_before(text.as_bytes(), &[], usize::MAX));
            drop(place_around(text.as_bytes(), &[], 1));
        }
    }
}
