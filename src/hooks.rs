//! Hooks: the programs that config.json names for points in a container's life, `runtime.md` "Lifecycle".
//!
//! Those that run on the caller's side are in `outside`; the others are steps of the plan, `plan::hooks`. Here is what all
//! have in common.

mod outside;

pub use outside::Hooks;

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::poll::PollTimeout;
use oci_spec::runtime::{Hook, Spec};
use serde::Serialize;

use crate::{
    error::{Code, Context as _, Error, Result},
    state::{OCI_VERSION, Status},
    sys,
};

/// The points in a container's life, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `create`: the mounts are made, the old root is in place.
    Prestart,
    /// `create`: the same point, after those.
    CreateRuntime,
    /// `create`: the same point, inside the container.
    CreateContainer,
    /// `start`: inside, before the program.
    StartContainer,
    /// `start`: the program runs.
    Poststart,
    /// `delete`: all has ended.
    Poststop,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// The key in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// The hooks of this kind, in the order in which they run.
    #[allow(deprecated, reason = "the specification discourages prestart, and engines still send it")]
    pub fn of(self, spec: &Spec) -> &[Hook] {
        let Some(hooks) = spec.hooks() else { return &[] };
        let list = match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}

/// Bytes that the state has for the pid, which is known late: as many as a `u32` has digits, blanks before them.
pub(crate) const PID_WIDTH: usize = 10;

/// What a hook reads from its standard input: `runtime.md` "State".
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    oci_version: &'static str,
    id: &'a str,
    status: Status,
    bundle: &'a Path,
    annotations: BTreeMap<&'a str, &'a str>,
}

/// The state as JSON, with blanks in place of the pid: a number may have white space before it.
pub fn state(spec: &Spec, id: &str, bundle: &Path, status: Status) -> Result<String> {
    let annotations = spec.annotations().iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let told = Told { oci_version: OCI_VERSION, id, status, bundle, annotations };
    let mut json = serde_json::to_string(&told)
        .map_err(|error| Error::new(Code::Field, "tell a hook the state", error.to_string()))?;
    json.truncate(json.len().saturating_sub(1));
    Ok(format!("{json},\"pid\":{:PID_WIDTH$}}}", ""))
}

/// What takes the place of those blanks. Allocates nothing: init calls it too.
pub(crate) fn digits(pid: i32) -> [u8; PID_WIDTH] {
    let mut digits = [b' '; PID_WIDTH];
    let mut rest = pid.unsigned_abs();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    digits
}

/// A file with the state and the pid in it. Allocates nothing: init calls it too.
pub fn told(state: &[u8], pid: i32) -> nix::Result<std::os::fd::OwnedFd> {
    sys::fd::memory_file(state, state.len().saturating_sub(PID_WIDTH + 1), &digits(pid))
}

/// How long a hook may take; a time that poll(2) cannot count, 24 days and more, is not counted.
pub fn limit(hook: &Hook) -> PollTimeout {
    let milliseconds = hook.timeout().and_then(|seconds| i32::try_from(seconds.checked_mul(1000)?).ok());
    milliseconds.and_then(|limit| PollTimeout::try_from(limit).ok()).unwrap_or(PollTimeout::NONE)
}

/// What a hook is called with: `args`, else its path.
pub fn words(hook: &Hook) -> Vec<&[u8]> {
    let args = hook.args().as_deref().unwrap_or_default();
    if args.is_empty() {
        return vec![hook.path().as_os_str().as_bytes()];
    }
    args.iter().map(String::as_bytes).collect()
}

/// Where hooks write: the annotation's file, standard output's or standard error's; else nowhere. Never to pura's own
/// standard output, which engines parse.
pub fn output(spec: &Spec, bundle: &Path, stream: &str) -> Option<PathBuf> {
    let path = spec.annotations().as_ref()?.get(&format!("run.oci.hooks.{stream}"))?;
    (!path.is_empty()).then(|| bundle.join(path))
}

/// Opens what a hook appends its output to; made when it is missing. A link is not followed, a FIFO not waited for.
pub fn open_output(path: Option<&Path>) -> Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(flags);
    let (path, options) = match path {
        Some(path) => (path, options.create(true).mode(0o600)),
        None => (Path::new("/dev/null"), &mut options),
    };
    options.open(path).doing(Code::FileRefused, || format!("write the output of hooks to {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn spec(json: &str) -> Spec {
        serde_json::from_str(json).unwrap()
    }

    fn with_hook(hook: &str) -> Spec {
        spec(&format!(r#"{{"ociVersion":"1.3.0","hooks":{{"createContainer":[{hook}]}}}}"#))
    }

    #[test]
    fn the_state_is_json_before_and_after_the_pid_is_known() {
        let spec = spec(r#"{"ociVersion":"1.0.2","annotations":{"b":"\"","a":""}}"#);
        let json = state(&spec, "c1", Path::new("/b"), Status::Creating).unwrap();
        for (pid, wanted) in [(0, 0), (1, 1), (4_194_304, 4_194_304), (i32::MAX, i32::MAX)] {
            let mut text = String::new();
            File::from(told(json.as_bytes(), pid).unwrap()).read_to_string(&mut text).unwrap();
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let wanted = serde_json::json!({"ociVersion": "1.3.0", "id": "c1", "status": "creating", "pid": wanted,
                "bundle": "/b", "annotations": {"a": "", "b": "\""}});
            assert_eq!(value, wanted);
        }
    }

    #[test]
    fn seconds_that_poll_cannot_count_are_no_limit() {
        for (timeout, wanted) in [
            ("1", PollTimeout::from(1000_u16)),
            ("2147483", PollTimeout::try_from(2_147_483_000).unwrap()),
            ("2147484", PollTimeout::NONE),
            ("9223372036854775807", PollTimeout::NONE),
            ("null", PollTimeout::NONE),
        ] {
            let spec = with_hook(&format!(r#"{{"path":"/h","timeout":{timeout}}}"#));
            let hook = Kind::CreateContainer.of(&spec).first().unwrap();
            assert_eq!(limit(hook), wanted, "{timeout}");
        }
    }

    #[test]
    fn a_hook_without_arguments_is_called_by_its_path() {
        for (hook, wanted) in [
            (r#"{"path":"/h"}"#, &["/h"][..]),
            (r#"{"path":"/h","args":[]}"#, &["/h"]),
            (r#"{"path":"/h","args":["g","x"]}"#, &["g", "x"]),
        ] {
            let spec = with_hook(hook);
            let words: Vec<_> = words(Kind::CreateContainer.of(&spec).first().unwrap()).into_iter().collect();
            assert_eq!(words, wanted.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        }
    }
}
