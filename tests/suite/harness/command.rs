//! Running `pura`, with a clean environment and a time limit, and judging what it said.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, channel},
    },
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{LIMIT, facts::Facts, judged, pura_binary, text};

/// Where programs are looked for: newuidmap lives there, and nothing of the developer's.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// One call of `pura`, or of a program that calls it.
#[derive(Debug)]
pub(crate) struct Pura {
    command: Command,
    dir: PathBuf,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What was called.
    pub(crate) line: String,
    /// The exit status.
    pub(crate) status: ExitStatus,
    /// All of standard output; empty when it was read line by line.
    pub(crate) stdout: String,
    /// All of standard error.
    pub(crate) stderr: String,
}

/// A call that goes on while the test does something else. It is killed with the value.
#[derive(Debug)]
pub(crate) struct Running {
    /// Process id of what was called.
    pub(crate) pid: i32,
    line: String,
    lines: Receiver<String>,
    ended: Receiver<std::io::Result<ExitStatus>>,
    has_ended: bool,
    stderr: PathBuf,
}

impl Pura {
    /// `pura ARGUMENTS`; files that the call needs are made in `dir`.
    pub(crate) fn new<S: AsRef<OsStr>>(dir: &Path, arguments: &[S]) -> Self {
        let mut words: Vec<OsString> = vec![pura_binary().into()];
        words.extend(arguments.iter().map(|word| word.as_ref().to_owned()));
        Self::through(dir, &words)
    }

    /// Any program, in the same surroundings: one that prepares something and then calls pura.
    pub(crate) fn through(dir: &Path, words: &[OsString]) -> Self {
        let (program, arguments) =
            words.split_first().map_or((OsStr::new("false"), &[][..]), |(first, rest)| (first, rest));
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", PATH).env("TMPDIR", dir.join("tmp"));
        // The mark by which processes that were left are found; see leftovers.
        command.env("PURA_TEST", dir).stdin(Stdio::null());
        Self { command, dir: dir.to_owned() }
    }

    /// Sets a variable of pura's environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts pura elsewhere.
    pub(crate) fn cwd(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: &[S]) -> Self {
        self.command.args(arguments);
        self
    }

    /// The same call as a line of shell.
    pub(crate) fn quoted(&self) -> String {
        self.words().iter().map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }

    /// The words of the call, for a program that calls it.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let arguments = self.command.get_args().map(OsStr::to_owned);
        std::iter::once(self.command.get_program().to_owned()).chain(arguments).collect()
    }

    /// Runs it to its end. Output goes to files, so that a container that keeps it open keeps nobody waiting.
    pub(crate) fn output(mut self) -> Result<Outcome> {
        let stdout = self.fresh("stdout");
        self.command.stdout(File::create(&stdout)?);
        let mut outcome = self.start(None)?.wait()?;
        outcome.stdout = text(&fs::read(stdout)?);
        Ok(outcome)
    }

    /// Starts it, with standard output to be read line by line, also after pura's end: a container inherits it.
    pub(crate) fn spawn(mut self) -> Result<Running> {
        let (reader, writer) = std::io::pipe()?;
        self.command.stdout(Stdio::from(OwnedFd::from(writer)));
        self.start(Some(reader.into()))
    }

    fn start(mut self, stdout: Option<OwnedFd>) -> Result<Running> {
        let stderr = self.fresh("stderr");
        self.command.stderr(File::create(&stderr)?);
        let line = format!("{:?}", self.words());
        let mut child = self.command.spawn().with_context(|| line.clone())?;
        let (ends, ended) = channel();
        let (tells, told) = channel();
        let pid = i32::try_from(child.id())?;
        // Drops our copies of its descriptors, so that the reader sees the end of the output.
        drop(self);
        std::thread::spawn(move || ends.send(child.wait()));
        if let Some(stdout) = stdout {
            std::thread::spawn(move || {
                let output = BufReader::new(File::from(stdout)).lines();
                output.map_while(std::result::Result::ok).try_for_each(|text| tells.send(text))
            });
        }
        Ok(Running { pid, line, lines: told, ended, has_ended: false, stderr })
    }

    fn fresh(&self, stem: &str) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        self.dir.join(format!("{stem}.{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Running {
    /// The next line of standard output.
    pub(crate) fn line(&self) -> Result<String> {
        judged(self.lines.recv_timeout(LIMIT).with_context(|| {
            format!("no line from {}; stderr: {}", self.line, fs::read_to_string(&self.stderr).unwrap_or_default())
        }))
    }

    /// All lines up to the end of standard output.
    pub(crate) fn rest(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => lines.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Ok(lines),
                Err(timeout) => {
                    return judged(Err(timeout).with_context(|| format!("output of {} stays open", self.line)));
                }
            }
        }
    }

    /// Waits for its end, and fails if that takes too long.
    pub(crate) fn wait(&mut self) -> Result<Outcome> {
        let Ok(status) = self.ended.recv_timeout(LIMIT) else {
            let stderr = fs::read_to_string(&self.stderr)?;
            return judged(Err(anyhow!("hangs: {}\nstderr so far: {stderr}", self.line)));
        };
        self.has_ended = true;
        let stderr = text(&fs::read(&self.stderr)?);
        Ok(Outcome { line: self.line.clone(), status: status?, stdout: String::new(), stderr })
    }

    /// Standard error so far.
    pub(crate) fn stderr(&self) -> Result<String> {
        Ok(text(&fs::read(&self.stderr)?))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid), signal)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

impl Outcome {
    /// The exit status as a shell shows it: 128 and the signal for a killed one.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Insists on `status` and on silence on standard error; returns standard output.
    pub(crate) fn ends(&self, status: i32) -> Result<&str> {
        let is_so = self.code() == status && self.stderr.is_empty();
        self.must(is_so, || format!("status {status} and a silent stderr"))?;
        Ok(&self.stdout)
    }

    /// Insists on success without a word on standard error; returns standard output.
    pub(crate) fn succeeds(&self) -> Result<&str> {
        self.ends(0)
    }

    /// Insists on success without any output.
    pub(crate) fn succeeds_silently(&self) -> Result<()> {
        let stdout = self.succeeds()?;
        self.must(stdout.is_empty(), || "no output".to_owned())
    }

    /// The facts that the probe printed, after success.
    pub(crate) fn facts(&self) -> Result<Facts> {
        Ok(Facts::parse(self.succeeds()?))
    }

    /// Insists on failure with exactly one line `pura: ... [PURA-code]` that contains `words`, and nothing on standard
    /// output.
    pub(crate) fn fails(&self, status: i32, code: u32, words: &[&str]) -> Result<&str> {
        self.fails_with_any(status, &[code], words)
    }

    /// As `fails`, where more than one code is right.
    pub(crate) fn fails_with_any(&self, status: i32, codes: &[u32], words: &[&str]) -> Result<&str> {
        self.must(self.code() == status, || format!("status {status}"))?;
        self.must(self.stdout.is_empty(), || "an empty stdout".to_owned())?;
        let line = self.stderr.strip_suffix('\n').unwrap_or_default();
        self.must(line.starts_with("pura: ") && !line.contains('\n'), || "one line `pura: ...`".to_owned())?;
        let is_coded = codes.iter().any(|code| line.ends_with(&format!(" [PURA-{code:03}]")));
        self.must(is_coded, || format!("one of the codes {codes:?}"))?;
        for word in words {
            self.must(line.contains(word), || format!("the words {word:?}"))?;
        }
        Ok(line)
    }

    /// Ends the test unless `is`.
    fn must(&self, is: bool, wanted: impl FnOnce() -> String) -> Result<()> {
        let Self { line, stdout, stderr, .. } = self;
        let judgement = is.then_some(()).with_context(|| {
            format!("{line}\nwanted: {}\nstatus: {}\nstdout: {stdout}\nstderr: {stderr}", wanted(), self.code())
        });
        judged(judgement)
    }
}
