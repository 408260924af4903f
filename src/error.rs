//! The one error type: what failed, why, and what to do about it, on one line.

mod code;
mod line;

pub use code::Code;
pub use line::{Line, line};

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    io,
};

use nix::errno::Errno;

/// Result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// A failure that a person can act on; also, with the word "warning", a degradation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: Code,
    what: Cow<'static, str>,
    place: Option<Cow<'static, str>>,
    why: Cow<'static, str>,
    fix: Option<Cow<'static, str>>,
}

/// How long the parts of a message get, in bytes: names are the user's, and may be of any length.
const LONGEST_WHAT: usize = 1000;
const LONGEST_WHY: usize = 10_000;

impl Error {
    /// `what` completes "cannot ..."; `why` is the cause.
    pub fn new(code: Code, what: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> Self {
        let (what, why) = (fitted(what.into(), LONGEST_WHAT), fitted(why.into(), LONGEST_WHY));
        Self { code, what, place: None, why, fix: None }
    }

    /// Adds what to do: a command or a setting.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<Cow<'static, str>>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Adds the place in config.json, such as `mounts[7]`.
    #[must_use]
    pub fn at(mut self, place: impl Into<Cow<'static, str>>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// The same as a warning, for what goes on all the same.
    pub fn into_warning(self) -> Warning {
        let place = self.place.map(|place| format!(" ({place})")).unwrap_or_default();
        Warning { code: self.code, what: format!("could not {}{place}: {}", self.what, self.why).into(), fix: self.fix }
    }

    /// The same failure, for a further cause.
    #[must_use]
    pub fn become_other(self, code: Code, why: String) -> Self {
        Self { code, why: fitted(why.into(), LONGEST_WHY), ..self }
    }

    /// What was found out, for a list of such: the sentence is that of the error.
    pub fn into_finding(self) -> Warning {
        Warning { code: self.code, what: format!("cannot {}: {}", self.what, self.why).into(), fix: self.fix }
    }

    /// Gives another name to the place, where there is one.
    #[must_use]
    pub fn rename_place(mut self, name: impl FnOnce(&str) -> Option<String>) -> Self {
        if let Some(name) = self.place.as_deref().and_then(name) {
            self.place = Some(name.into());
        }
        self
    }

    /// Adds what else is so.
    #[must_use]
    pub fn also(mut self, more: &str) -> Self {
        self.why = fitted(format!("{}; {more}", self.why).into(), LONGEST_WHY);
        self
    }

    /// Adds another error, for one line that tells both.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        let place = other.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        self.also(&format!("and cannot {}{place}: {}", other.what, other.why))
    }

    /// Says where a config really comes from: faults of `spec::validate` are those of `source`, and their places have the
    /// names that the user gave.
    #[must_use]
    pub fn blame(mut self, source: &str, name: impl Fn(&str) -> Option<String>) -> Self {
        if self.what != "use config.json" {
            return self.rename_place(name);
        }
        self.what = format!("use {source}").into();
        let renamed = |fault: &str| {
            let (place, why) = fault.split_once(": ")?;
            Some(format!("{}: {why}", name(place)?))
        };
        let faults = self.why.split("; ").map(|fault| renamed(fault).unwrap_or_else(|| fault.to_owned()));
        self.why = faults.collect::<Vec<_>>().join("; ").into();
        self
    }

    /// The kind of failure.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The cause alone: what follows "cannot ...:".
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Line(f);
        write!(line, "cannot {}", self.what)?;
        if let Some(place) = &self.place {
            write!(line, " ({place})")?;
        }
        write!(line, ": {}", self.why)?;
        if let Some(fix) = &self.fix {
            write!(line, "; fix: {fix}")?;
        }
        write!(line, " [PURA-{:03}]", self.code as u32)
    }
}

impl std::error::Error for Error {}

/// A degradation: something is weaker than asked for, and the container runs all the same. `--strict` makes it an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    code: Code,
    what: Cow<'static, str>,
    fix: Option<Cow<'static, str>>,
}

impl Warning {
    /// `what` says what is weaker, and for whom, as a whole clause.
    pub fn new(code: Code, what: impl Into<Cow<'static, str>>) -> Self {
        Self { code, what: what.into(), fix: None }
    }

    /// Adds what to do: a command or a setting.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<Cow<'static, str>>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The kind of degradation.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What is weaker, without fix and code.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do.
    pub fn remedy(&self) -> Option<&str> {
        self.fix.as_deref()
    }

    /// For a caller in a container: parameters and modules of the kernel, and its command line, are the host's.
    pub fn for_inside(&mut self) {
        let is_hosts =
            |fix: &str| ["sudo sysctl ", "sudo modprobe ", "boot with "].iter().any(|word| fix.starts_with(word));
        if let Some(command) = self.fix.as_deref().filter(|fix| is_hosts(fix)) {
            self.fix = Some(format!("on the host, outside of this container: {command}").into());
        }
    }

    /// The same as an error, for `--strict`.
    pub fn into_error(self) -> Error {
        self.refuse("go on under --strict")
    }

    /// The same as an error, where there is no weaker way to do `what`.
    pub fn refuse(self, what: impl Into<Cow<'static, str>>) -> Error {
        Error { code: self.code, what: what.into(), place: None, why: self.what, fix: self.fix }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Line(f);
        write!(line, "{}", self.what)?;
        if let Some(fix) = &self.fix {
            write!(line, "; fix: {fix}")?;
        }
        write!(line, " [PURA-{:03}]", self.code as u32)
    }
}

/// Attaches "what" to any failed system call.
pub trait Context<T> {
    /// Names the attempted action, with the user's own words for the objects.
    fn doing(self, code: Code, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn doing(self, code: Code, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| {
            let cause = cause.into();
            let errno = cause.raw_os_error().map(Errno::from_raw);
            Error::new(code, what(), errno.map_or_else(|| cause.to_string(), plain))
        })
    }
}

/// The errno in plain words. Engines take "no such file or directory" for a missing program: nothing else says it.
pub fn plain(errno: Errno) -> String {
    if errno == Errno::ENOENT {
        return "does not exist".to_owned();
    }
    errno.desc().to_lowercase()
}

/// Text of the user's in a message: not longer than a person reads, without its middle, and on one line.
pub fn shortened(text: &str) -> String {
    fitted(text.to_owned().into(), 600).replace(char::is_control, " ")
}

/// The beginning and the end of a text, together about `most` bytes.
fn fitted(text: Cow<'static, str>, most: usize) -> Cow<'static, str> {
    if text.len() <= most {
        return text;
    }
    let (begin, end) = (text.floor_char_boundary(most / 2), text.ceil_char_boundary(text.len() - most / 2));
    format!("{}...{}", text.get(..begin).unwrap_or_default(), text.get(end..).unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_place_its_fix_and_its_code() {
        let error = Error::new(Code::BindSource, "bind \"/a\" on \"/b\"", "\"/a\" does not exist")
            .at("mounts[7]")
            .fix("mkdir /a");
        assert_eq!(
            error.to_string(),
            "cannot bind \"/a\" on \"/b\" (mounts[7]): \"/a\" does not exist; fix: mkdir /a [PURA-304]"
        );
    }

    #[test]
    fn an_error_stays_one_line_whatever_it_names() {
        let error =
            Error::new(Code::BindSource, "mount tmpfs (a\n\u{1b}[2J)", "b\tc").at("mounts[\"\r\"]").fix("d\u{85}");
        let wanted = r#"cannot mount tmpfs (a\n\u{1b}[2J) (mounts["\r"]): b\tc; fix: d\u{85} [PURA-304]"#;
        assert_eq!(error.to_string(), wanted);
        assert_eq!(Warning::new(Code::SingleId, "a\nb").to_string(), r"a\nb [PURA-110]");
    }

    #[test]
    fn a_warning_becomes_an_error_with_the_same_code() {
        let warning = Warning::new(Code::SingleId, "no subordinate ids");
        assert_eq!(warning.to_string(), "no subordinate ids [PURA-110]");
        assert_eq!(warning.into_error().to_string(), "cannot go on under --strict: no subordinate ids [PURA-110]");
    }

    /// The variants as this file has them: number, name, and whether the description says that it is a warning.
    fn declared() -> Vec<(u32, String, bool)> {
        let all = include_str!("error/code.rs").split_once("pub enum Code {").unwrap().1.split_once("\n}").unwrap().0;
        let mut is_warning = false;
        let mut found = Vec::new();
        for line in all.lines().map(str::trim) {
            if let Some(description) = line.strip_prefix("/// ") {
                is_warning = description.starts_with("Warning:");
            } else if let Some((name, number)) = line.trim_end_matches(',').split_once(" = ") {
                found.push((number.parse().unwrap(), name.to_owned(), is_warning));
            }
        }
        found
    }

    #[test]
    fn every_code_has_its_row_in_docs_errors_md_in_order() {
        let rows = include_str!("../docs/errors.md").lines().filter(|line| line.ends_with('|'));
        let rows: Vec<Vec<_>> = rows.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect();
        let codes = rows.iter().filter(|row| row.get(1).is_some_and(|name| name.starts_with('`')));
        let documented: Vec<_> =
            codes.clone().map(|row| (row[0].parse::<u32>().unwrap(), row[1].trim_matches('`').to_owned())).collect();
        let declared = declared();
        let names: Vec<_> = declared.iter().map(|(number, name, _)| (*number, name.clone())).collect();
        assert_eq!(documented, names);
        for (row, (_, name, is_warning)) in codes.zip(&declared) {
            let kinds = if *is_warning { &["warning", "both"][..] } else { &["error", "both"] };
            assert!(kinds.contains(&row[2]) && row.len() == 5, "{name}: {row:?}");
            assert_eq!(row[0].len(), 3, "{name}: a code is printed with three digits");
        }
    }

    #[test]
    fn only_a_program_is_no_such_file_or_directory() {
        assert_eq!(plain(Errno::ENOENT), "does not exist");
        assert_eq!(plain(Errno::EPERM), "operation not permitted");
    }
}
