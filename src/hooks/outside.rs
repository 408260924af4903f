//! The hooks that run on the caller's side: in the caller's namespaces, with the caller's ids, nothing of ours leaked to
//! them; and how the failure of any hook is worded.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::{
        fd::AsFd as _,
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use oci_spec::runtime::{Hook, Spec};

use super::{Kind, limit, open_output, output, state, told, words};
use crate::{
    error::{Code, Context as _, Error, Result, plain},
    host::probe,
    log::Log,
    state::Status,
    sys::{self, child::Child, exec::Vectors},
};

/// A hook, and where it stands in config.json.
#[derive(Clone, Copy)]
struct Placed<'a> {
    kind: Kind,
    index: usize,
    hook: &'a Hook,
}

/// All hooks of a kind, in the order in which they run.
fn placed(kind: Kind, spec: &Spec) -> impl Iterator<Item = Placed<'_>> {
    kind.of(spec).iter().enumerate().map(move |(index, hook)| Placed { kind, index, hook })
}

/// The hooks of one container, for those who run them on the caller's side.
#[derive(Debug, Clone, Copy)]
pub struct Hooks<'a> {
    /// The config as it was at `create`.
    pub spec: &'a Spec,
    /// The container's id.
    pub id: &'a str,
    /// The bundle, absolute.
    pub bundle: &'a Path,
}

impl Hooks<'_> {
    /// Whether init runs hooks before the program.
    pub fn any_in_start(&self) -> bool {
        !Kind::StartContainer.of(self.spec).is_empty()
    }

    /// Whether any hook runs on the caller's side.
    pub fn any_outside(&self) -> bool {
        let inside = [Kind::CreateContainer, Kind::StartContainer];
        Kind::ALL.iter().any(|kind| !inside.contains(kind) && !kind.of(self.spec).is_empty())
    }

    /// Runs all hooks of a kind, in order, up to the first that fails. `pid` is init's as the caller sees it.
    pub fn run(&self, kind: Kind, status: Status, pid: i32) -> Result<()> {
        if kind.of(self.spec).is_empty() {
            return Ok(());
        }
        let running = Running::new(self, status, pid)?;
        placed(kind, self.spec).try_for_each(|hook| running.run(hook))
    }

    /// Runs the poststop hooks, each whatever became of those before: a failure is a warning, and all goes on; under
    /// `--strict` the first is an error, of a container that is gone all the same.
    pub fn stopped(&self, log: &Log) -> Result<()> {
        if Kind::Poststop.of(self.spec).is_empty() {
            return Ok(());
        }
        let mut failures: Vec<_> = match Running::new(self, Status::Stopped, 0) {
            Err(error) => vec![error],
            Ok(running) => placed(Kind::Poststop, self.spec).filter_map(|hook| running.run(hook).err()).collect(),
        };
        if log.is_strict() && !failures.is_empty() {
            let first = failures.remove(0);
            for error in &failures {
                log.error(error);
            }
            return Err(first);
        }
        log.warn(&failures.into_iter().map(Error::into_warning).collect::<Vec<_>>(), false)
    }

    /// What became of a hook that init has run; its number counts createContainer, then startContainer.
    pub fn explain_inside(&self, number: u32, end: i32) -> Error {
        let mut all = placed(Kind::CreateContainer, self.spec).chain(placed(Kind::StartContainer, self.spec));
        match usize::try_from(number).ok().and_then(|number| all.nth(number)) {
            Some(hook) => self.explain(hook, end, None),
            None => Error::new(Code::Bug, "run a hook", format!("init names number {number}, which there is not")),
        }
    }

    /// Words a failure: `end` is a wait status, or a negative errno.
    fn explain(&self, Placed { kind, index, hook }: Placed<'_>, end: i32, said: Option<String>) -> Error {
        let mut why = if end == -libc::ETIMEDOUT {
            format!("it took longer than {} s, and was killed", hook.timeout().unwrap_or(0))
        } else if end == -libc::ECANCELED {
            "a signal interrupted it, and it was killed".to_owned()
        } else if end < 0 {
            plain(Errno::from_raw(-end))
        } else if libc::WIFSIGNALED(end) {
            format!("it failed: signal {}", libc::WTERMSIG(end))
        } else {
            format!("it failed: exit status {}", libc::WEXITSTATUS(end))
        };
        if let Some(said) = said {
            why = format!("{why}: {said}");
        }
        let error = Error::new(Code::Hook, format!("run the hook {:?}", hook.path()), why)
            .at(format!("hooks.{}[{index}]", kind.name()));
        match output(self.spec, self.bundle, "stderr") {
            Some(file) => error.fix(format!("see {}", file.display())),
            None if end < 0 => error,
            None => error.fix("the annotation run.oci.hooks.stderr=FILE keeps what it says"),
        }
    }
}

/// What the hooks of one kind have in common, and the signals, which are blocked while they run.
struct Running<'a> {
    hooks: &'a Hooks<'a>,
    state: String,
    pid: i32,
    directory: CString,
    outputs: [File; 2],
    ignored: u64,
    interrupt: SignalFd,
    mask: SigSet,
}

impl<'a> Running<'a> {
    fn new(hooks: &'a Hooks<'a>, status: Status, pid: i32) -> Result<Self> {
        let state = state(hooks.spec, hooks.id, hooks.bundle, status)?;
        let open = |stream| open_output(output(hooks.spec, hooks.bundle, stream).as_deref());
        let outputs = [open("stdout")?, open("stderr")?];
        let ignored = probe::caller()?.ignored;
        let is_ignored = |signal: i32| ignored >> (signal - 1) & 1 == 1;
        // Ignored, it would let the kernel reap the hook before we have heard of its end.
        if is_ignored(libc::SIGCHLD) {
            sys::signal::set_default(libc::SIGCHLD).doing(Code::Bug, || "reset SIGCHLD".to_owned())?;
        }
        let directory = text(hooks.bundle.as_os_str().as_bytes())?;
        // A person who gives up must not wait for a hook that hangs. Blocked, these end neither us nor our clean-up.
        let ends = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
        let ends: SigSet = ends.into_iter().filter(|signal| !is_ignored(*signal as i32)).collect();
        let interrupt = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .doing(Code::Exhausted, || "watch for signals".to_owned())?;
        let mask = sys::signal::block().doing(Code::Bug, || "block signals".to_owned())?;
        Ok(Self { hooks, state, pid, directory, outputs, ignored, interrupt, mask })
    }

    fn run(&self, placed: Placed<'_>) -> Result<()> {
        let [_, stderr] = &self.outputs;
        let before = stderr.metadata().map_or(0, |file| file.len());
        let end = match self.end(placed.hook)? {
            Ok(end) => end,
            Err(errno) => -(errno as i32),
        };
        if end == -libc::ECANCELED {
            // Taken up: it has had its effect, and must not end us as soon as signals are unblocked.
            let _ = self.interrupt.read_signal();
        }
        if end == 0 {
            return Ok(());
        }
        let path = output(self.hooks.spec, self.hooks.bundle, "stderr");
        let said = path.and_then(|path| last_line(&path, before));
        Err(self.hooks.explain(placed, end, said))
    }

    /// The wait status, or why there is none.
    fn end(&self, hook: &Hook) -> Result<nix::Result<i32>> {
        let argv = words(hook).into_iter().map(text).collect::<Result<Vec<_>>>()?;
        let env = hook.env().iter().flatten().map(|variable| text(variable.as_bytes())).collect::<Result<Vec<_>>>()?;
        let program = text(hook.path().as_os_str().as_bytes())?;
        let vectors = Vectors::new(argv.iter().map(CString::as_c_str), env.iter().map(CString::as_c_str));
        let stdin = match told(self.state.as_bytes(), self.pid) {
            Ok(stdin) => stdin,
            Err(errno) => return Ok(Err(errno)),
        };
        let [stdout, stderr] = &self.outputs;
        let child = Child {
            program: &program,
            vectors: &vectors,
            directory: &self.directory,
            standard: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            ignored: self.ignored,
        };
        Ok(child.run(limit(hook), Some(self.interrupt.as_fd())))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = sys::signal::restore(&self.mask);
    }
}

fn text(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_inner| Error::new(Code::Field, "run a hook", "a NUL byte is in a string"))
}

/// Bytes from the end of a hook's output in which its last line is looked for.
const TAIL: u64 = 512;

/// The last line that was added to a file since it had `before` bytes, without control characters.
fn last_line(path: &Path, before: u64) -> Option<String> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(before.max(length.saturating_sub(TAIL)))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|letter| !letter.is_control()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_hook_its_place_and_its_end() {
        let spec = r#"{"ociVersion":"1.3.0","hooks":{"createContainer":[{"path":"/h","timeout":3}]}}"#;
        let spec = serde_json::from_str(spec).unwrap();
        let hooks = Hooks { spec: &spec, id: "c1", bundle: Path::new("/b") };
        let keeps = "; fix: the annotation run.oci.hooks.stderr=FILE keeps what it says";
        for (end, why, fix) in [
            (0x0300, "it failed: exit status 3", keeps),
            (9, "it failed: signal 9", keeps),
            (-libc::ENOENT, "does not exist", ""),
            (-libc::ETIMEDOUT, "it took longer than 3 s, and was killed", ""),
        ] {
            let wanted = format!("cannot run the hook \"/h\" (hooks.createContainer[0]): {why}{fix} [PURA-614]");
            assert_eq!(hooks.explain_inside(0, end).to_string(), wanted);
        }
        assert_eq!(hooks.explain_inside(1, 9).code(), Code::Bug);
    }

    #[test]
    fn only_what_was_added_is_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        for (text, before, wanted) in
            [("old\n", 4, None), ("old\nnew\n \n", 4, Some("new")), ("a\nb\x1b[1m", 0, Some("b[1m")), ("", 0, None)]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(last_line(&path, before).as_deref(), wanted, "{text:?}");
        }
    }
}
