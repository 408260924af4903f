//! A bundle: a directory with a config.json, read once.

mod distinct;
mod shape;

use std::{
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode};
use oci_spec::runtime::{Capability, LinuxPids, LinuxResources, Process, Spec};
use serde::{
    Deserialize as _,
    de::{IntoDeserializer as _, value::StrDeserializer},
};
use serde_json::Value;

use crate::{
    cli::Create,
    error::{Code, Context as _, Error, Result, Warning, plain},
    sys,
};

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

/// Parses the config. One pass; a second one only when oci-spec is stricter than the specification.
pub fn parse(json: &[u8], file: &Path) -> Result<(Spec, Vec<Warning>)> {
    let refuse = |error: &serde_json::Error| {
        let why = format!("line {} column {}: {}", error.line(), error.column(), words(error));
        let code = if error.is_data() { Code::Field } else { Code::ConfigSyntax };
        Error::new(code, format!("read {}", file.display()), why)
    };
    let strict = match serde_json::from_slice::<Spec>(json) {
        Ok(spec) => return check_text(json, file).map(|()| (without_empty_pids(spec, json), Vec::new())),
        Err(error) => error,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(json) else { return Err(refuse(&strict)) };
    let renamed = rename_scheduler_flags(&mut value);
    // The specification wants unknown capabilities to be left out with a warning; oci-spec refuses them.
    let unknown = drop_unknown_capabilities(&mut value).unwrap_or_default();
    if !renamed && unknown.is_empty() {
        return Err(refuse(&strict));
    }
    // The value keeps the last of several equal keys, and so would hide them.
    serde_json::from_slice::<distinct::Keys>(json).map_err(|error| refuse(&error))?;
    // Through bytes again, because a second deserializer would be a tenth of the whole binary.
    let clean = serde_json::to_vec(&value).map_err(|_second| refuse(&strict))?;
    let spec = serde_json::from_slice(&clean).map_err(|_second| refuse(&strict))?;
    check_text(json, file)?;
    let spec = without_empty_pids(spec, json);
    if unknown.is_empty() {
        return Ok((spec, Vec::new()));
    }
    let what = format!("capabilities that pura does not know were left out: {}", unknown.join(" "));
    Ok((spec, vec![Warning::new(Code::Capabilities, what)]))
}

/// Reads an OCI process object: `exec --process`.
pub fn process(file: &Path) -> Result<Process> {
    let refuse = |code, why: String| Error::new(code, format!("read {}", file.display()), why);
    let json = read(file).map_err(|error| refuse(Code::Signal, error.why().to_owned()))?;
    if let Some((line, key)) = shape::misplaced_array(&json) {
        return Err(refuse(Code::Field, format!("line {line}: {key} is an array, and should be an object")));
    }
    serde_json::from_slice(&json).map_err(|error| {
        let why = format!("line {} column {}: {}", error.line(), error.column(), words(&error));
        refuse(if error.is_data() { Code::Field } else { Code::ConfigSyntax }, why)
    })
}

/// Reads an OCI resources object: `update --resources`; `-` is standard input.
pub fn resources(file: &Path) -> Result<LinuxResources> {
    let refuse = |code, why: String| Error::new(code, format!("read {}", file.display()), why);
    let json = if file == Path::new("-") {
        let mut bytes = Vec::new();
        let input = std::io::Read::take(std::io::stdin(), LARGEST);
        std::io::Read::read_to_end(&mut { input }, &mut bytes)
            .doing(Code::FileRefused, || "read standard input".to_owned())?;
        bytes
    } else {
        read(file).map_err(|error| refuse(Code::FileRefused, error.why().to_owned()))?
    };
    check_text(&json, file)?;
    let mut parsed: LinuxResources = serde_json::from_slice(&json).map_err(|error| {
        let why = format!("line {} column {}: {}", error.line(), error.column(), words(&error));
        refuse(if error.is_data() { Code::Field } else { Code::ConfigSyntax }, why)
    })?;
    if parsed.pids().as_ref().is_some_and(|pids| pids.limit() == 0) && has_no_limit(&json, "/pids/limit") {
        parsed.set_pids(None);
    }
    Ok(parsed)
}

/// `"pids": {}` asks for nothing, but oci-spec reads a missing limit as 0, which is one.
fn without_empty_pids(mut spec: Spec, json: &[u8]) -> Spec {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let pids = resources.and_then(|resources| resources.pids().as_ref());
    if pids.map(LinuxPids::limit) != Some(0) || !has_no_limit(json, "/linux/resources/pids/limit") {
        return spec;
    }
    let mut linux = spec.linux().clone();
    if let Some(changed) = linux.as_mut().and_then(|linux| linux.resources_mut().as_mut()) {
        changed.set_pids(None);
    }
    spec.set_linux(linux);
    spec
}

fn has_no_limit(json: &[u8], pointer: &str) -> bool {
    serde_json::from_slice::<Value>(json).is_ok_and(|value| value.pointer(pointer).is_none_or(Value::is_null))
}

/// serde's message without its own position, and without a line break.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    text.replace('\n', " ")
}

/// Refuses what serde lets through: an array in the place of an object, which it fills in order, and a NUL, which would
/// cut a string short for the kernel and which JSON can only write as \u0000.
fn check_text(json: &[u8], file: &Path) -> Result<()> {
    if let Some((line, key)) = shape::misplaced_array(json) {
        let why = format!("line {line}: {key} is an array, and should be an object");
        return Err(Error::new(Code::Field, format!("read {}", file.display()), why));
    }
    let Some(at) = escaped_nul(json) else { return Ok(()) };
    let line = json.get(..at).unwrap_or_default().split(|byte| *byte == b'\n').count();
    Err(Error::new(
        Code::Field,
        format!("read {}", file.display()),
        format!("line {line}: a string contains a NUL byte"),
    ))
}

/// Where a NUL is written; a backslash that is itself escaped begins no escape.
fn escaped_nul(json: &[u8]) -> Option<usize> {
    let found = json.windows(6).enumerate().filter(|(_, window)| *window == b"\\u0000").map(|(at, _)| at);
    let slashes = |at: &usize| json.iter().take(*at).rev().take_while(|byte| **byte == b'\\').count();
    let mut found = found.filter(|at| slashes(at) % 2 == 0);
    found.next()
}

/// Gives two flags of the specification the names that oci-spec has for them; whether there were any.
fn rename_scheduler_flags(value: &mut Value) -> bool {
    let flags = value.pointer_mut("/process/scheduler/flags").and_then(Value::as_array_mut);
    let mut renamed = false;
    for flag in flags.into_iter().flatten() {
        let name = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = Value::from(name);
        renamed = true;
    }
    renamed
}

/// Removes the capabilities that oci-spec does not know; their names.
fn drop_unknown_capabilities(value: &mut Value) -> Option<Vec<String>> {
    let sets = value.get_mut("process")?.get_mut("capabilities")?.as_object_mut()?;
    let mut unknown = Vec::new();
    for set in sets.values_mut().filter_map(Value::as_array_mut) {
        set.retain(|name| {
            let Some(text) = name.as_str() else { return true };
            let known = is_capability(text);
            if !known && !unknown.iter().any(|other| other == text) {
                unknown.push(text.to_owned());
            }
            known
        });
    }
    Some(unknown)
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
            assert_eq!(resources.pids().as_ref().map(LinuxPids::limit), wanted, "{pids}");
        }
    }

    #[test]
    fn unknown_keys_are_ignored_and_a_nul_is_refused() {
        assert!(of(r#"{"x":1,"process":{"cwd":"/","user":{"y":2}},"linux":{"z":[]}}"#).is_ok());
        assert!(of(r#"{"hostname":"a\u0000b"}"#).is_err());
    }
}
