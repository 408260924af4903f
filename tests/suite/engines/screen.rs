//! A terminal of ours, with a program of an engine on it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::openpty,
    unistd::ttyname,
};

use super::Engine;
use crate::harness::{LIMIT, judged};

/// What a user would see and type.
#[derive(Debug)]
pub(super) struct Screen {
    master: File,
    name: PathBuf,
    child: Child,
    shown: String,
}

impl Screen {
    /// Calls an engine's program; the terminal is its controlling one, so that it hears of a new size.
    pub(super) fn new(engine: &Engine, words: &[&str]) -> Result<Self> {
        let pty = openpty(None, None)?;
        let name = ttyname(&pty.slave)?;
        let stdio = || -> Result<Stdio> { Ok(Stdio::from(pty.slave.try_clone()?)) };
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).args(words).current_dir(engine.path("tmp"));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("PURA_TEST", engine.path(""));
        command.env("TMPDIR", engine.path("tmp")).envs(engine.environment());
        let child = command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?).spawn().context("setsid")?;
        Ok(Self { master: pty.master.into(), name, child, shown: String::new() })
    }

    /// Waits until the screen shows `words`, which may have been there before.
    pub(super) fn shows(&mut self, words: &str) -> Result<()> {
        while !self.shown.contains(words) {
            let is_open = self.read()?;
            judged(is_open.then_some(()).with_context(|| format!("no {words:?} on the screen: {}", self.shown)))?;
        }
        Ok(())
    }

    /// Types a line.
    pub(super) fn types(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.master, "{line}")?)
    }

    /// Makes the window another size.
    pub(super) fn resizes(&self, rows: &str, columns: &str) -> Result<()> {
        let ended = Command::new("stty").arg("-F").arg(&self.name).args(["rows", rows, "cols", columns]).status()?;
        ensure!(ended.success(), "stty: {ended}");
        Ok(())
    }

    /// Waits for the end; insists on a status.
    pub(super) fn ends(mut self, status: i32) -> Result<()> {
        while self.read()? {}
        let ended = self.child.wait()?;
        judged((ended.code() == Some(status)).then_some(()).with_context(|| format!("{ended}: {}", self.shown)))
    }

    /// Reads on; whether somebody still has the terminal open.
    fn read(&mut self) -> Result<bool> {
        let mut files = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(LIMIT)?;
        if poll(&mut files, wait)? == 0 {
            bail!("nothing new on the screen: {}", self.shown);
        }
        let mut bytes = [0; 4096];
        // EIO is the end.
        let count = self.master.read(&mut bytes).unwrap_or(0);
        self.shown.push_str(&String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()));
        Ok(count > 0)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
