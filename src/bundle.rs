//! A bundle: a directory with a config.json, read once.

mod dialect;
mod distinct;
mod objects;
mod required;
mod resources;
mod shape;
mod unknown;
mod walk;
mod words;

use std::{
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode};
use oci_spec::runtime::{Capability, Process, Spec};
use serde::{
    Deserialize as _,
    de::{IntoDeserializer as _, value::StrDeserializer},
};
use serde_json::Value;

use crate::{
    cli::Create,
    error::{Code, Context as _, Error, Result, Warning, plain, shortened},
    sys,
};

pub use resources::resources;
use words::{unreadable, words};

/// A config.json beyond this size is refused: 32 MiB.
const LARGEST: u64 = 32 << 20;

/// A directory and what its config.json says.
#[derive(Debug)]
pub struct Bundle {
    /// The directory, absolute.
    pub directory: PathBuf,
    /// The config's bytes, as they are kept with the container: later edits of the bundle change nothing.
    pub json: Vec<u8>,
    /// The config.
    pub spec: Spec,
    /// What had to be left out of it.
    pub warnings: Vec<Warning>,
}

/// Opens the bundle of a request.
pub fn open(create: &Create) -> Result<Bundle> {
    open_or_else(create, "")
}

/// As `open`, for a `run` or `plan` of one word, which may be a command whose `--` was forgotten.
pub fn open_unless_command(create: &Create, verb: &str) -> Result<Bundle> {
    let is_bare = create.bundle == Path::new(".") && create.config.is_none();
    let command = format!("pura {verb} -- {}, or ", create.id.display());
    open_or_else(create, if is_bare { &command } else { "" })
}

/// `remedy` comes first in the fix of a config.json that is not there.
fn open_or_else(create: &Create, remedy: &str) -> Result<Bundle> {
    let directory = absolute(&create.bundle)?;
    let file = create.config.clone().unwrap_or_else(|| directory.join("config.json"));
    let json = read(&file).map_err(|error| {
        // Only here: nothing of this helps where there is a file that cannot be read.
        let is_absent = create.config.is_none() && error.why() == plain(Errno::ENOENT);
        let fix = || format!("{remedy}run in a bundle, or --bundle DIR; pura spec writes a config.json");
        if is_absent { error.fix(fix()) } else { error }
    })?;
    let (spec, warnings) = parse(&json, &file)?;
    Ok(Bundle { directory, json, spec, warnings })
}

impl Bundle {
    /// A bundle that exists only in memory.
    pub fn of(directory: PathBuf, spec: Spec) -> Result<Self> {
        let json =
            serde_json::to_vec(&spec).map_err(|error| Error::new(Code::Bug, "write the config", error.to_string()))?;
        Ok(Self { directory, json, spec, warnings: Vec::new() })
    }

    /// An error about what is missing, with the keys that may be misspellings of it.
    pub fn with_unknown_keys(&self, error: Error) -> Error {
        unknown::tell(&self.json, error)
    }

    /// The keys that are ignored. Another pass over the text, which only who asks for it pays.
    pub fn unknown_keys(&self) -> Option<Warning> {
        unknown::warning(&self.json)
    }
}

/// An absolute form of a path; links are left as they are.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_path_buf());
    }
    let current =
        std::env::current_dir().doing(Code::ConfigMissing, || format!("find {path:?} from the current directory"))?;
    let path = path.strip_prefix(".").unwrap_or(path);
    Ok(if path.as_os_str().is_empty() { current } else { current.join(path) })
}

/// Reads a regular file of limited size; a FIFO must not make us wait.
fn read(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("read {}", path.display());
    let refuse = |why: &str| Error::new(Code::ConfigMissing, what(), why.to_owned());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let file = sys::retry(|| nix::fcntl::open(path, flags, Mode::empty())).map_err(|errno| refuse(&plain(errno)))?;
    let stat = sys::path::stat(file.as_fd()).doing(Code::ConfigMissing, what)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(refuse("it is not a regular file"));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size > LARGEST {
        return Err(refuse("it is over 32 MiB"));
    }
    // One more than there is: a read that leaves room has met the end.
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0) + 1];
    let mut length = 0;
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        let wanted = room.len();
        let count = sys::retry(|| nix::unistd::read(&file, room)).doing(Code::ConfigMissing, what)?;
        length += count;
        if count < wanted {
            bytes.truncate(length);
            return Ok(bytes);
        }
    }
    Err(refuse("it grows while it is read"))
}

/// Parses the config.
pub(crate) fn parse(json: &[u8], file: &Path) -> Result<(Spec, Vec<Warning>)> {
    Text { json, file, before: 0 }.read()
}

/// Parses the config of a container that has been made, which was checked then: what it says twice, or in a shape that
/// nobody reads, does not matter to later verbs.
pub fn recorded(json: &[u8]) -> Result<Spec> {
    let (spec, _) = Text { json, file: Path::new("config.json"), before: 0 }.parse()?;
    Ok(resources::without_empty_pids(spec, json))
}

/// Reads an OCI process object: `exec --process`.
pub fn process(file: &Path) -> Result<(Process, Vec<Warning>)> {
    let json = read(file).map_err(|error| unreadable(file, &error))?;
    let (mut spec, warnings) = part(&json, file, "\"process\":", "")?;
    // null is absent, and there is no process without one: a default would be somebody's shell.
    let process = spec.process_mut().take();
    let refuse = || Error::new(Code::Field, format!("read {}", file.display()), "it is null, not an object");
    process.map(|process| (process, warnings)).ok_or_else(refuse)
}

/// Reads a part of a config as a config that has nothing else: another parser for it would be a fiftieth of the binary.
pub(crate) fn part(json: &[u8], file: &Path, opening: &str, closing: &str) -> Result<(Spec, Vec<Warning>)> {
    // By itself it has to be JSON, too.
    serde_json::from_slice::<distinct::Keys>(json)
        .map_err(|error| Text { json, file, before: 0 }.refuse_json(&error))?;
    let json = [format!("{{\"ociVersion\":\"\",{opening}\n").as_bytes(), json, closing.as_bytes(), b"}"].concat();
    Text { json: &json, file, before: 1 }.read()
}

/// JSON that somebody wrote, for errors that say where.
#[derive(Debug, Clone, Copy)]
struct Text<'a> {
    json: &'a [u8],
    file: &'a Path,
    /// How many lines in front nobody wrote.
    before: usize,
}

impl Text<'_> {
    fn read(&self) -> Result<(Spec, Vec<Warning>)> {
        let (spec, warnings) = self.parse()?;
        self.check(&spec)?;
        Ok((resources::without_empty_pids(spec, self.json), warnings))
    }

    /// One pass; a second one only when oci-spec is stricter than the specification.
    fn parse(&self) -> Result<(Spec, Vec<Warning>)> {
        let strict = match serde_json::from_slice(self.json) {
            Ok(found) => return Ok((found, Vec::new())),
            Err(error) => error,
        };
        // What is no JSON at all says so, whatever else is wrong before.
        let mut value = serde_json::from_slice::<Value>(self.json).map_err(|error| self.refuse(&error))?;
        if !strict.is_data() {
            return Err(self.refuse_enum(&strict));
        }
        let Some(process) = value.get_mut("process") else { return Err(self.refuse(&strict)) };
        let renamed = dialect::rename_scheduler_flags(process);
        // The specification wants unknown capabilities to be left out with a warning; oci-spec refuses them.
        let unknown = dialect::drop_unknown_capabilities(process).unwrap_or_default();
        if !renamed && unknown.is_empty() {
            return Err(self.refuse(&strict));
        }
        // The value keeps the last of several equal keys, and so would hide them.
        serde_json::from_slice::<distinct::Keys>(self.json).map_err(|error| self.refuse(&error))?;
        // Through bytes again, because a second deserializer would be a tenth of the whole binary.
        let clean = serde_json::to_vec(&value).map_err(|error| self.refuse(&error))?;
        let found =
            serde_json::from_slice(&clean).map_err(|error| Text { json: &clean, ..*self }.refuse_unplaced(&error))?;
        if unknown.is_empty() {
            return Ok((found, Vec::new()));
        }
        let what = format!("capabilities that pura does not know were left out: {}", unknown.join(" "));
        Ok((found, vec![Warning::new(Code::Capabilities, shortened(&what))]))
    }

    fn error(&self, code: Code, why: String) -> Error {
        Error::new(code, format!("read {}", self.file.display()), why)
    }

    /// serde's error with the place, which serde does not know.
    fn refuse(&self, error: &serde_json::Error) -> Error {
        if !error.is_data() {
            return self.refuse_json(error);
        }
        // Of an array in the place of a struct serde complains about the length.
        if let Some((at, place)) = shape::of(self.json, &[]).misplaced.filter(|(at, _)| *at <= self.offset(error)) {
            return self.misplaced(at, &place);
        }
        let refused =
            self.error(Code::Field, format!("{}: {}{}", self.position(error), self.place(error), words(error)));
        if refused.why().contains("missing field") { unknown::tell(self.json, refused) } else { refused }
    }

    /// What is no JSON, or has a key twice.
    fn refuse_json(&self, error: &serde_json::Error) -> Error {
        let code = if error.is_data() { Code::Field } else { Code::ConfigSyntax };
        self.error(code, format!("{}: {}", self.position(error), words(error)))
    }

    fn position(&self, error: &serde_json::Error) -> String {
        format!("line {} column {}", error.line().saturating_sub(self.before), error.column())
    }

    /// An error of syntax in a text that is JSON: serde wanted the name of a variant, and found no string.
    fn refuse_enum(&self, error: &serde_json::Error) -> Error {
        let place = walk::place_around(self.json, &[], self.offset(error));
        let position = self.position(error);
        self.error(Code::Field, format!("{position}: {place}: invalid type, expected a string"))
    }

    /// As `refuse`, for a text that nobody wrote, whose lines mean nothing.
    fn refuse_unplaced(&self, error: &serde_json::Error) -> Error {
        self.error(Code::Field, format!("{}{}", self.place(error), words(error)))
    }

    fn place(&self, error: &serde_json::Error) -> String {
        let place = walk::place_before(self.json, &[], self.offset(error));
        if place.is_empty() { place } else { format!("{place}: ") }
    }

    /// How many bytes had been read.
    fn offset(&self, error: &serde_json::Error) -> usize {
        let lines = self.json.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
        lines.map(<[u8]>::len).sum::<usize>() + error.column()
    }

    fn line(&self, at: usize) -> usize {
        self.json.get(..at).unwrap_or_default().split(|byte| *byte == b'\n').count().saturating_sub(self.before)
    }

    fn misplaced(&self, at: usize, place: &str) -> Error {
        let what = if place.is_empty() { "the config" } else { place };
        self.error(Code::Field, format!("line {}: {what} is an array, and should be an object", self.line(at)))
    }

    /// Refuses what serde lets through: an array in the place of an object, which it fills in order, a key that a map
    /// has twice, a number that is missing and reads as 0, and a NUL, which would cut a string short for the kernel and
    /// which JSON can only write as \u0000.
    fn check(&self, spec: &Spec) -> Result<()> {
        let shape = shape::of(self.json, &[]);
        if let Some((at, place)) = shape.misplaced {
            return Err(self.misplaced(at, &place));
        }
        if shape::map_keys(spec) != shape.map_keys {
            serde_json::from_slice::<distinct::Keys>(self.json).map_err(|error| self.refuse(&error))?;
        }
        let missing = required::missing(self.json, spec);
        if !missing.is_empty() {
            return Err(self.error(Code::Field, shortened(&missing.join("; "))));
        }
        let Some(at) = escaped_nul(self.json) else { return Ok(()) };
        let place = walk::place_around(self.json, &[], at);
        Err(self.error(Code::Field, format!("line {}: {place}: a string contains a NUL byte", self.line(at))))
    }
}

/// Where a NUL is written; a backslash that is itself escaped begins no escape.
fn escaped_nul(json: &[u8]) -> Option<usize> {
    // The usual config has no backslash, and this look at it is the quickest.
    if !json.contains(&b'\\') {
        return None;
    }
    let is_nul = |at: &usize| json.get(*at..).is_some_and(|rest| rest.starts_with(b"\\u0000"));
    let slashes = |at: &usize| json.iter().take(*at).rev().take_while(|byte| **byte == b'\\').count();
    let escapes = json.iter().enumerate().filter(|(_, byte)| **byte == b'\\').map(|(at, _)| at);
    escapes.filter(is_nul).find(|at| slashes(at) % 2 == 0)
}

/// Whether oci-spec knows the name, with whatever it takes for one.
pub fn is_capability(name: &str) -> bool {
    let name: StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
    Capability::deserialize(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<(Spec, Vec<Warning>)> {
        parse(json.as_bytes(), Path::new("config.json"))
    }

    #[test]
    fn what_is_no_json_is_named_by_line_and_column() {
        let error = of("{\n  \"ociVersion\": }").unwrap_err();
        assert_eq!(error.code(), Code::ConfigSyntax);
        assert!(error.to_string().starts_with("cannot read config.json: line 2 column 17: expected value"), "{error}");
        for json in ["", "{", "{}x", "\u{feff}{}", "null"] {
            assert!(of(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_wrong_type_or_a_duplicate_is_refused() {
        for json in [
            r#"{"process":{"cwd":"/","user":{"uid":4294967296}}}"#,
            r#"{"process":{"cwd":"/","user":{"uid":-1}}}"#,
            r#"{"process":{"cwd":"/","user":{},"noNewPrivileges":"true"}}"#,
            r#"{"linux":{"maskedPaths":"/proc"}}"#,
            r#"{"hostname":"a","hostname":"b"}"#,
            r#"{"linux":{"namespaces":[{"type":"bogus"}]}}"#,
            r#"{"process":{"cwd":"/","user":{},"capabilities":[]}}"#,
            r#"{"mounts":[["/x"]]}"#,
            "[]",
        ] {
            let error = of(json).unwrap_err();
            assert_eq!(error.code(), Code::Field, "{json}: {error}");
        }
    }

    #[test]
    fn an_unknown_capability_is_left_out_with_a_warning() {
        let (spec, warnings) =
            of(r#"{"process":{"cwd":"/","user":{},"capabilities":{"bounding":["CAP_KILL","CAP_BOGUS"]}}}"#).unwrap();
        assert!(warnings[0].to_string().contains("CAP_BOGUS"));
        let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn an_unknown_capability_hides_no_duplicate() {
        let error =
            of(r#"{"process":{"cwd":"/","user":{},"capabilities":{"bounding":["CAP_BOGUS"]}},"hostname":"a","hostname":"b"}"#)
                .unwrap_err();
        assert_eq!(error.code(), Code::Field);
        assert!(error.to_string().contains("duplicate field `hostname`"), "{error}");
    }

    #[test]
    fn only_an_escape_that_is_one_writes_a_nul() {
        for (json, refused) in [
            (r#"{"hostname":"a\\u0000"}"#, false),
            (r#"{"hostname":"a\\\u0000"}"#, true),
            (r#"{"hostname":"\u00001"}"#, true),
            (r#"{"hostname":"u0000"}"#, false),
        ] {
            assert_eq!(of(json).is_err(), refused, "{json}");
        }
    }

    #[test]
    fn a_missing_limit_of_processes_is_none_and_0_is_one() {
        for (pids, wanted) in [("{}", None), (r#"{"limit":0}"#, Some(0)), (r#"{"limit":-1}"#, Some(-1))] {
            let (spec, _) = of(&format!(r#"{{"linux":{{"resources":{{"pids":{pids}}}}}}}"#)).unwrap();
            let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
            assert_eq!(resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit), wanted, "{pids}");
        }
    }

    #[test]
    fn unknown_keys_are_ignored_and_a_nul_is_refused() {
        assert!(of(r#"{"x":1,"process":{"cwd":"/","user":{"y":2}},"linux":{"z":[]}}"#).is_ok());
        assert!(of(r#"{"hostname":"a\u0000b"}"#).is_err());
    }

    #[test]
    fn a_wrong_type_has_its_place_also_behind_what_is_left_out() {
        for (json, wanted) in [
            (
                "{\n\"process\":{\"args\":[\"a\",5]}}",
                "line 2 column 24: process.args[1]: invalid type: integer `5`, expected a string",
            ),
            (r#"{"process":{"cwd":"/"}}"#, "process: missing field `user`"),
            (r#"{"linux":{"namespaces":[{"type":5}]}}"#, "linux.namespaces[0].type: invalid type, expected a string"),
            (
                r#"{"process":{"cwd":"/","user":{},"capabilities":{"bounding":["CAP_X"]},"terminal":1}}"#,
                "config.json: process.terminal: invalid type: integer `1`",
            ),
            (r#"{"annotations":{"a":"","a":""}}"#, "annotations.a: duplicate field `a`"),
            (r#"{"annotations":{"x":"\u0000"}}"#, "line 1: annotations.x: a string contains a NUL byte"),
        ] {
            let text = of(json).unwrap_err().to_string();
            assert!(text.contains(wanted), "{json}: {text}");
        }
    }

    #[test]
    fn a_process_of_exec_is_judged_as_one_of_a_config() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (json, wanted) in [
            (r#"{"args":[5]}"#, "process.args[0]: invalid type"),
            (r#"{"cwd":"/","user":[0,0]}"#, "process.user is an array"),
            (r#"{"cwd":"/\u0000","user":{}}"#, "process.cwd: a string contains a NUL byte"),
            ("{", "line 1 column 1: EOF"),
        ] {
            std::fs::write(file.path(), json).unwrap();
            let text = process(file.path()).unwrap_err().to_string();
            assert!(text.contains(wanted), "{json}: {text}");
        }
    }
}
