//! The children of this process, and the orphans of theirs: whoever is left of a container becomes a child of ours. None
//! may stay a zombie, because that would keep PID namespaces alive.

use std::{
    fs,
    os::fd::AsFd as _,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// All children.
pub(crate) struct Children {
    signals: SignalFd,
}

/// What has happened to one of them.
pub(crate) enum News {
    Status(WaitStatus),
    /// There is none.
    Nobody,
    /// Nothing, until the time was over.
    Nothing,
}

impl Children {
    /// Takes in orphans from now on.
    pub(crate) fn new() -> Result<Self> {
        prctl::set_child_subreaper(true)?;
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { signals })
    }

    /// Waits for news of any child.
    pub(crate) fn next(&self, until: Instant) -> Result<News> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::StillAlive) => {}
                Ok(status) => return Ok(News::Status(status)),
                Err(Errno::ECHILD) => return Ok(News::Nobody),
                Err(errno) => return Err(errno).context("waitpid"),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(News::Nothing);
            }
            let mut wanted = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let left = i32::try_from(left.as_millis().max(1)).unwrap_or(i32::MAX);
            let _ = poll(&mut wanted, PollTimeout::try_from(left)?);
            while let Ok(Some(_)) = self.signals.read_signal() {}
        }
    }

    /// Runs a command to its end; nothing when that takes too long.
    pub(crate) fn run(&self, command: &mut Command, limit: Duration) -> Result<Option<WaitStatus>> {
        let end = Instant::now() + limit;
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        loop {
            match self.next(end)? {
                News::Status(status) if status.pid() == Some(pid) => return Ok(Some(status)),
                News::Status(_) => {}
                News::Nobody | News::Nothing => {
                    let _ = kill(pid, Signal::SIGKILL);
                    return Ok(None);
                }
            }
        }
    }

    /// Waits until nobody is left; who still is then.
    pub(crate) fn end(&self, limit: Duration) -> Result<Vec<String>> {
        let end = Instant::now() + limit;
        loop {
            match self.next(end)? {
                News::Status(_) => {}
                News::Nobody => return Ok(Vec::new()),
                News::Nothing => {
                    return Ok(descendants()?.into_iter().map(|(pid, name)| format!("{pid} {name}")).collect());
                }
            }
        }
    }

    /// Kills all.
    pub(crate) fn kill_all(&self) -> Result<()> {
        for _ in 0..10 {
            for (pid, _) in descendants()? {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            if self.end(Duration::from_millis(500))?.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Pid and name of every process below this one.
fn descendants() -> Result<Vec<(i32, String)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((front, back)) = stat.rsplit_once(") ") else { continue };
        let name = front.split_once('(').map(|(_, name)| name.to_owned()).unwrap_or_default();
        let parent = back.split(' ').nth(1).and_then(|word| word.parse::<i32>().ok()).unwrap_or(0);
        all.push((pid, parent, format!("{name} {}", back.get(..1).unwrap_or_default())));
    }
    let mut below = vec![i32::try_from(std::process::id())?];
    let mut found = Vec::new();
    while let Some(parent) = below.pop() {
        for (pid, _, name) in all.iter().filter(|(_, of, _)| *of == parent) {
            below.push(*pid);
            found.push((*pid, name.clone()));
        }
    }
    Ok(found)
}
