//! What serde complains about, in the words of JSON: its own are those of Rust.

use std::path::Path;

use crate::error::{Code, Error, shortened};

/// serde's message without its own position, and without what would break the line or fill the screen.
pub(super) fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    shortened(&of_json(text.strip_suffix(&position).unwrap_or(&text)))
}

fn of_json(text: &str) -> String {
    // From the back: a string of the user's may say the same.
    let Some((found, expected)) = text.rsplit_once(", expected ") else { return text.to_owned() };
    let found = match found {
        "invalid type: map" => "invalid type: object",
        "invalid type: sequence" => "invalid type: array",
        "invalid type: unit value" => "invalid type: null",
        other => other,
    };
    format!("{found}, expected {}", kind(expected))
}

fn kind(expected: &str) -> &str {
    match expected {
        "a map" => "an object",
        "a sequence" => "an array",
        "a boolean" => "true or false",
        "path string" => "a string",
        "unit" => "null",
        "f32" | "f64" => "a number",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number that is not too large",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on that is not too large",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

/// Why a file that an option names cannot be read.
pub(super) fn unreadable(file: &Path, error: &Error) -> Error {
    let refused = Error::new(Code::FileRefused, format!("read {}", file.display()), error.why().to_owned());
    refused.fix("a regular file that you may read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_expected_is_said_in_the_words_of_json() {
        for (text, wanted) in [
            ("invalid type: string \"a\", expected struct Spec", "invalid type: string \"a\", expected an object"),
            ("invalid type: map, expected a sequence", "invalid type: object, expected an array"),
            ("invalid value: integer `-1`, expected u32", "a whole number from 0 on that is not too large"),
            (
                "invalid type: string \", expected u32\", expected a map",
                "string \", expected u32\", expected an object",
            ),
            ("unknown variant `x`, expected `a` or `b`", "unknown variant `x`, expected `a` or `b`"),
            ("missing field `cwd`", "missing field `cwd`"),
        ] {
            assert!(of_json(text).contains(wanted), "{text}: {}", of_json(text));
        }
    }
}
