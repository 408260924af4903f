//! Where the words of a command line belong, before clap reads any: the verb decides what clap is told, and `run` ends
//! at its first operand, behind which everything is another program's.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

use super::table::{Flag, GLOBALS, VERBS};

/// A command line, cut into parts that are read differently.
#[derive(Debug)]
pub(super) struct Words<'a> {
    /// The flags before the verb, without those of their values that are words of their own.
    flags: Vec<&'a OsStr>,
    /// The first word that is no flag.
    pub(super) verb: Option<&'a OsStr>,
    /// The flags of a verb that ends at its first operand, as `flags`.
    own: Vec<&'a OsStr>,
    /// What clap sorts: all words but the tail.
    pub(super) head: &'a [OsString],
    /// For `run` and `plan`, the first operand or `--`, and all that follows, as typed.
    pub(super) tail: &'a [OsString],
}

impl<'a> Words<'a> {
    /// Cuts a whole argv.
    pub(super) fn of(argv: &'a [OsString]) -> Self {
        let typed = argv.get(1..).unwrap_or_default();
        let (flags, count) = leading(typed, &[GLOBALS]);
        let verb = typed.get(count).map(OsString::as_os_str);
        let begin = (count + 2).min(argv.len());
        let known = VERBS.iter().find(|known| known.has_tail() && verb == Some(OsStr::new(known.name)));
        let (own, end) = known.map_or((Vec::new(), argv.len()), |known| {
            let (own, length) = leading(argv.get(begin..).unwrap_or_default(), known.flags);
            (own, begin + length)
        });
        let (head, tail) = argv.split_at_checked(end).unwrap_or((argv, &[]));
        Self { flags, verb, own, head, tail }
    }

    /// Whether `--version` or `-v` stands before the verb.
    pub(super) fn ask_for_version(&self) -> bool {
        self.flags.iter().any(|flag| *flag == "--version" || *flag == "-v")
    }

    /// Whether clap may meet this flag in the head. Values that look like it are mentions, too.
    pub(super) fn mention(&self, flag: &Flag) -> bool {
        self.head.iter().map(|word| word.as_bytes()).any(|word| match word {
            [b'-', b'-', long @ ..] => {
                let behind = long.strip_prefix(flag.long.as_bytes());
                behind.is_some_and(|behind| behind.is_empty() || behind.starts_with(b"="))
            }
            [b'-', letters @ ..] => {
                letters.starts_with(flag.long.as_bytes())
                    || flag.short.is_some_and(|short| letters.iter().any(|letter| char::from(*letter) == short))
            }
            _ => false,
        })
    }

    /// Whether this is a `run` that waits for its program.
    pub(super) fn wait(&self) -> bool {
        let waits = |name: &str| matches!(name, "run" | "exec" | "unshare") && self.verb == Some(OsStr::new(name));
        let Some(verb) = VERBS.iter().find(|known| waits(known.name)) else { return false };
        let known = verb.flags;
        let returns =
            |flag: &OsStr| flag == "--detach" || flag == "--dry-run" || letters(flag.as_bytes(), known).contains(&b'd');
        !self.own.iter().any(|flag| returns(flag))
    }
}

/// The flags that stand before the first operand or `--`, and the number of words that they and their values are.
fn leading<'a>(words: &'a [OsString], known: &[&[Flag]]) -> (Vec<&'a OsStr>, usize) {
    let (mut flags, mut at) = (Vec::new(), 0);
    while let Some(word) = words.get(at).filter(|word| is_flag(word)) {
        flags.push(word.as_os_str());
        at += if takes_next(word.as_bytes(), known) { 2 } else { 1 };
    }
    (flags, at.min(words.len()))
}

fn is_flag(word: &OsStr) -> bool {
    word.as_bytes().starts_with(b"-") && word != "-" && word != "--"
}

/// Whether the value of this flag is the next word.
fn takes_next(word: &[u8], known: &[&[Flag]]) -> bool {
    if let Some(long) = word.strip_prefix(b"--") {
        return known.iter().copied().flatten().any(|flag| flag.takes_word() && flag.long.as_bytes() == long);
    }
    let letters = letters(word, known);
    letters.len() + 1 == word.len() && letters.last().is_some_and(|letter| takes_value(*letter, known))
}

/// The short flags in a word such as `-deA=b`: a value may follow the last one without a blank.
fn letters<'a>(word: &'a [u8], known: &[&[Flag]]) -> &'a [u8] {
    let letters = word.strip_prefix(b"-").filter(|rest| !rest.starts_with(b"-")).unwrap_or_default();
    let end = letters.iter().position(|letter| takes_value(*letter, known)).map_or(letters.len(), |at| at + 1);
    letters.get(..end).unwrap_or_default()
}

fn takes_value(letter: u8, known: &[&[Flag]]) -> bool {
    known.iter().copied().flatten().any(|flag| flag.takes_word() && flag.short == Some(char::from(letter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_verb_is_the_first_word_that_is_no_flag_and_no_value() {
        for (line, verb) in [
            ("pura list", Some("list")),
            ("pura --root list state c", Some("state")),
            ("pura --root=/r -s --rootless state c", Some("state")),
            ("pura --root", None),
            ("pura", None),
        ] {
            assert_eq!(Words::of(&argv(line)).verb, verb.map(OsStr::new), "{line}");
        }
    }

    #[test]
    fn run_ends_at_its_first_operand_and_other_verbs_do_not() {
        for (line, tail) in [
            ("pura run -b /b c", &["c"][..]),
            ("pura run -b /b -d", &[]),
            ("pura run --pid-file=/p c -d --", &["c", "-d", "--"]),
            ("pura --root run run -deA=b -w /w -de A=b -- ls -l", &["--", "ls", "-l"]),
            ("pura run -vu:/w -- ls", &["--", "ls"]),
            ("pura plan --rootfs /r sh -c -- x", &["sh", "-c", "--", "x"]),
            ("pura run --bogus c", &["c"]),
            ("pura run -", &["-"]),
            ("pura kill -a c 9", &[]),
            ("pura run", &[]),
        ] {
            let argv = argv(line);
            let words = Words::of(&argv);
            assert_eq!(words.tail, tail, "{line}");
            assert_eq!(words.head.len() + words.tail.len(), argv.len(), "{line}");
        }
    }

    #[test]
    fn only_a_run_that_neither_detaches_nor_plans_waits() {
        for (line, waits) in [
            ("pura run c", true),
            ("pura --log run run -b /b c", true),
            ("pura run -w -d -- ls -d", true),
            ("pura run -wd -- ls", true),
            ("pura run -no-subreaper c", true),
            ("pura run --rootfs --detach ls", true),
            ("pura run -d c", false),
            ("pura run -dw / -- ls", false),
            ("pura run --detach c", false),
            ("pura run --dry-run c", false),
            ("pura create run", false),
            ("pura", false),
        ] {
            assert_eq!(Words::of(&argv(line)).wait(), waits, "{line}");
        }
    }

    #[test]
    fn the_version_is_not_taken_from_the_value_of_another_flag() {
        for (line, asks) in [
            ("pura -v", true),
            ("pura --root /r --version list", true),
            ("pura --log -v list", false),
            ("pura run -v", false),
        ] {
            assert_eq!(Words::of(&argv(line)).ask_for_version(), asks, "{line}");
        }
    }
}
