//! Bytes, changed without regard for what they mean.

use super::{corpus::Corpus, random::Random};

/// Words that mean something somewhere, and what breaks parsers.
const WORDS: [&str; 40] = [
    "0",
    "1",
    "-1",
    "4294967295",
    "4294967296",
    "2147483648",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "0x10",
    "00",
    "65536",
    "null",
    "true",
    "\"",
    "{}",
    "[]",
    ":",
    ",",
    "=",
    "/",
    "//",
    "..",
    "../",
    "/proc/self",
    "\n",
    "\t",
    "\0",
    "\u{1b}[2J",
    "\u{85}",
    "\u{2028}",
    "\u{202e}",
    "\u{fffd}",
    "\\u0000",
    "%s",
    "\r",
    " ",
    "-",
    "--",
    "é",
];

/// Bytes of the corpus with some changes, maybe joined with others of it.
pub(super) fn bytes(corpus: &Corpus, random: &mut Random) -> Vec<u8> {
    let mut input = corpus.pick(random).to_vec();
    if random.once_in(8) {
        let other = corpus.pick(random);
        input.truncate(random.below(input.len() + 1));
        input.extend_from_slice(&other[random.below(other.len() + 1)..]);
    }
    scratch(&mut input, random);
    input
}

/// A few changes.
pub(super) fn scratch(input: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        let end = (at + 1 + random.below(16)).min(input.len());
        match random.below(8) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = u8::try_from(random.below(256)).unwrap_or_default(),
            2 => drop(input.drain(at.min(end)..end)),
            3 => {
                let copied = input[at.min(end)..end].to_vec();
                let to = random.below(input.len() + 1);
                drop(input.splice(to..to, copied));
            }
            4 => input.truncate(at),
            5 => {
                // Long, in a way that costs little to write.
                let copied = input[at.min(end)..end].repeat(random.below(200));
                drop(input.splice(at..at, copied));
            }
            _ => drop(input.splice(at..at, random.pick(&WORDS).bytes())),
        }
    }
}

/// The same for a text.
pub(super) fn text(text: &str, random: &mut Random) -> String {
    let mut bytes = text.as_bytes().to_vec();
    scratch(&mut bytes, random);
    String::from_utf8_lossy(&bytes).into_owned()
}
