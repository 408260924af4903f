//! `org.systemd.property.*`: properties in `GVariant` text format, as `gdbus(1)` and the other runtimes take them. Which type a
//! property has is known here, so that a wrong value is found before anything is made.

use crate::systemd::message::{Property, Value};

/// The D-Bus type of a property.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Switch,
    Integer,
    Number,
    Text,
    Texts,
}

/// What a container may say about its scope, by name: nothing that pura relies on, and no limit, for which there is
/// `linux.resources`.
const ALLOWED: [(&str, Kind); 25] = [
    ("After", Kind::Texts),
    ("Before", Kind::Texts),
    ("BindsTo", Kind::Texts),
    ("CollectMode", Kind::Text),
    ("Conflicts", Kind::Texts),
    ("DefaultDependencies", Kind::Switch),
    ("Description", Kind::Text),
    ("Documentation", Kind::Texts),
    ("FinalKillSignal", Kind::Integer),
    ("KillMode", Kind::Text),
    ("KillSignal", Kind::Integer),
    ("ManagedOOMMemoryPressure", Kind::Text),
    ("ManagedOOMPreference", Kind::Text),
    ("ManagedOOMSwap", Kind::Text),
    ("OOMPolicy", Kind::Text),
    ("PartOf", Kind::Texts),
    ("Requires", Kind::Texts),
    ("RequiresMountsFor", Kind::Texts),
    ("Requisite", Kind::Texts),
    ("RuntimeMaxUSec", Kind::Number),
    ("SendSIGHUP", Kind::Switch),
    ("SendSIGKILL", Kind::Switch),
    ("TimeoutStopUSec", Kind::Number),
    ("Upholds", Kind::Texts),
    ("Wants", Kind::Texts),
];

/// Words that may stand before a number.
const TYPES: [&str; 8] = ["byte", "int16", "uint16", "int32", "uint32", "handle", "int64", "uint64"];

const MICROSECONDS: u64 = 1_000_000;

/// The property that an annotation asks for, or why it cannot be.
pub(super) fn property(name: &str, text: &str) -> Result<Property, String> {
    // Seconds are for people, who may write fractions; on the bus there are only microseconds.
    let (name, in_seconds) = match name.strip_suffix("Sec") {
        Some(stem) if !stem.ends_with('U') => (format!("{stem}USec"), true),
        _ => (name.to_owned(), false),
    };
    let Some((_, kind)) = ALLOWED.iter().find(|(allowed, _)| *allowed == name) else {
        let names: Vec<_> = ALLOWED.iter().map(|(allowed, _)| *allowed).collect();
        return Err(format!("pura sets no such property; those that it does are {}", names.join(", ")));
    };
    let text = text.trim();
    let value = match kind {
        Kind::Switch => match text {
            "true" => Some(Value::Switch(true)),
            "false" => Some(Value::Switch(false)),
            _ => None,
        },
        Kind::Integer => integer(text).and_then(|number| i32::try_from(number).ok()).map(Value::Integer),
        Kind::Number if in_seconds => microseconds(text).map(Value::Number),
        Kind::Number => integer(text).and_then(|number| u64::try_from(number).ok()).map(Value::Number),
        Kind::Text => string(text).filter(|(_, rest)| rest.is_empty()).map(|(text, _)| Value::Text(text)),
        Kind::Texts => strings(text).map(Value::Texts),
    };
    let what = match kind {
        Kind::Switch => "true or false",
        Kind::Integer => "a number such as 15",
        Kind::Number => "a number such as uint64 10000000",
        Kind::Text => "a text such as 'inactive'",
        Kind::Texts => "a list such as ['a.service', 'b.service']",
    };
    let value = value.ok_or_else(|| format!("{text:?} is not {what}"))?;
    Ok(Property { name, value })
}

fn untyped(text: &str) -> &str {
    match text.split_once(' ') {
        Some((word, rest)) if TYPES.contains(&word) || word.starts_with('@') => rest.trim_start(),
        _ => text,
    }
}

/// Decimal, octal or hexadecimal, with or without its type.
fn integer(text: &str) -> Option<i128> {
    let text = untyped(text);
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    u64::from_str_radix(digits, radix).ok().filter(|_| is_number).map(|number| i128::from(number) * sign)
}

/// Seconds, perhaps with a fraction. By digits: to read a float takes a hundredth of the whole binary.
fn microseconds(text: &str) -> Option<u64> {
    if let Some(seconds) = integer(text) {
        return u64::try_from(seconds).ok()?.checked_mul(MICROSECONDS);
    }
    let text = text.strip_prefix("double ").unwrap_or(text);
    let (whole, fraction) = text.split_once('.')?;
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    whole.parse::<u64>().ok()?.checked_mul(MICROSECONDS)?.checked_add(fraction.parse().ok()?)
}

/// A string in either kind of quotes, and what follows it.
fn string(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|quote| *quote == '\'' || *quote == '"')?;
    let (mut inside, mut is_escaped) = (String::new(), false);
    for (at, character) in text.char_indices().skip(1) {
        if is_escaped {
            inside.push(match character {
                'n' => '\n',
                't' => '\t',
                other => other,
            });
            is_escaped = false;
        } else if character == '\\' {
            is_escaped = true;
        } else if character == quote {
            return Some((inside, text.get(at + 1..)?.trim_start()));
        } else {
            inside.push(character);
        }
    }
    None
}

fn strings(text: &str) -> Option<Vec<String>> {
    let mut rest = text.strip_prefix("@as").unwrap_or(text).trim_start().strip_prefix('[')?.trim_start();
    let mut all = Vec::new();
    loop {
        if rest == "]" {
            return Some(all);
        }
        let (inside, after) = string(rest)?;
        all.push(inside);
        rest = match after.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if after == "]" => after,
            None => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_read_as_engines_and_people_write_it() {
        let texts = |texts: &[&str]| Value::Texts(texts.iter().map(|text| (*text).to_owned()).collect());
        for (name, text, wanted) in [
            ("KillSignal", "15", Value::Integer(15)),
            ("KillSignal", "int32 0xf", Value::Integer(15)),
            ("TimeoutStopUSec", "uint64 10000000", Value::Number(10_000_000)),
            ("TimeoutStopUSec", "@t 7", Value::Number(7)),
            ("DefaultDependencies", "true", Value::Switch(true)),
            ("CollectMode", "'inactive-or-failed'", Value::Text("inactive-or-failed".to_owned())),
            ("Description", r#""it's \"x\"\n""#, Value::Text("it's \"x\"\n".to_owned())),
            ("After", "['crio.service']", texts(&["crio.service"])),
            ("After", "[ 'a' , \"b\" ]", texts(&["a", "b"])),
            ("After", "@as []", texts(&[])),
        ] {
            assert_eq!(property(name, text), Ok(Property::new(name, wanted)), "{name} {text}");
        }
    }

    #[test]
    fn seconds_become_microseconds() {
        for (text, wanted) in [
            ("10", 10_000_000),
            ("uint64 2", 2_000_000),
            ("1.5", 1_500_000),
            ("0.0000019", 1),
            ("double 0.25", 250_000),
        ] {
            let wanted = Property::new("TimeoutStopUSec", Value::Number(wanted));
            assert_eq!(property("TimeoutStopSec", text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_of_the_property_is_refused() {
        for (name, text) in [
            ("KillSignal", "'15'"),
            ("KillSignal", "+5"),
            ("KillSignal", "2147483648"),
            ("TimeoutStopUSec", "-1"),
            ("TimeoutStopSec", "1e3"),
            ("TimeoutStopSec", "18446744073709551615"),
            ("TimeoutStopSec", ".5"),
            ("CollectMode", "inactive"),
            ("CollectMode", "'inactive"),
            ("CollectMode", "'a' 'b'"),
            ("After", "'a'"),
            ("After", "['a' 'b']"),
            ("After", "['a',"),
            ("DefaultDependencies", "1"),
            ("Nonsense", "1"),
            ("ExecStart", "'x'"),
        ] {
            assert!(property(name, text).is_err(), "{name} {text}");
        }
    }
}
