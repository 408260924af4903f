//! Programs that pura starts on the host: the mappers, getsubids. Nothing of ours leaks into them.

use std::{
    ffi::{CStr, CString, OsStr},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};

use crate::{
    error::{self, Code, Error},
    sys,
};

/// Where programs are looked for after PATH; the last one is `NixOS`'s.
const DIRECTORIES: [&str; 5] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/wrappers/bin"];

/// The whole environment of a helper.
const ENVIRONMENT: [&CStr; 2] = [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin", c"LC_ALL=C"];

/// Bytes of a program's message that are worth quoting.
const QUOTED: usize = 4096;

/// Bytes of output that are read: a list of 10,000 ranges is shorter.
const MOST_OUTPUT: usize = 1 << 20;

/// Every place where a program of this name is, in the order of PATH.
pub fn find(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<_> = std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(DIRECTORIES.map(PathBuf::from))
        .collect();
    let name = name.to_owned();
    directories.into_iter().map(move |directory| directory.join(&name)).filter(|program| program.is_file())
}

/// Which of a helper's outputs we read; the other one goes nowhere.
#[derive(Debug, Clone, Copy)]
enum Piped {
    Output,
    Errors,
}

/// A program that works for us while we go on. Dropped unfinished, it is ended and reaped: it never outlives its use.
#[derive(Debug)]
pub struct Started {
    /// None once it has been waited for.
    child: Option<Pid>,
    /// None once all that matters has been read: a program that goes on talking is not waited for, but gets SIGPIPE.
    pipe: Option<OwnedFd>,
}

/// Starts a program whose only result is its status, and what it says when that is bad.
pub fn spawn(program: &Path, words: &[String]) -> nix::Result<Started> {
    start(program, words.iter().map(String::as_bytes), Piped::Errors)
}

/// `posix_spawn(3)` rather than the standard library, which passes on our mask of signals, all of them blocked around
/// clone, and needs three system calls more.
fn start<'a>(program: &'a Path, words: impl Iterator<Item = &'a [u8]>, piped: Piped) -> nix::Result<Started> {
    let (pipe, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let standard = match piped {
        Piped::Output => [None, Some(theirs.as_fd()), None],
        Piped::Errors => [None, None, Some(theirs.as_fd())],
    };
    let child = child(program, words, standard)?;
    Ok(Started { child: Some(child), pipe: Some(pipe) })
}

fn child<'a>(
    program: &'a Path,
    words: impl Iterator<Item = &'a [u8]>,
    standard: sys::spawn::Standard<'_>,
) -> nix::Result<Pid> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_nul| Errno::EINVAL);
    let program = program.as_os_str().as_bytes();
    let argv = std::iter::once(program).chain(words).map(text).collect::<nix::Result<Vec<_>>>()?;
    sys::spawn::spawn(&text(program)?, &argv, &ENVIRONMENT, standard)
}

/// Starts a program that is spoken to, by its standard input and output.
pub fn converse(program: &Path, words: &[String]) -> nix::Result<(Started, UnixStream)> {
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    let standard = [Some(theirs.as_fd()), Some(theirs.as_fd()), None];
    let child = child(program, words.iter().map(String::as_bytes), standard)?;
    Ok((Started { child: Some(child), pipe: None }, ours))
}

/// A program of pura's own: in `$PURA_LIBEXEC`, beside pura, in `libexec/pura` of the same prefix, or in PATH.
pub fn own(name: &str) -> Option<PathBuf> {
    let asked = std::env::var_os("PURA_LIBEXEC").map(PathBuf::from).filter(|path| path.is_absolute());
    let itself = std::env::current_exe().ok();
    // A copy in memory does not know where it comes from, but was called by the same words.
    let called = std::env::args_os().next().map(PathBuf::from).filter(|path| path.is_absolute());
    let near = itself.iter().chain(&called).filter_map(|program| program.parent());
    let near = near.flat_map(|beside| [beside.to_owned(), beside.join("../libexec/pura")]);
    let directories = asked.into_iter().chain(near);
    directories.map(|directory| directory.join(name)).find(|program| program.is_file()).or_else(|| find(name).next())
}

/// `pura-init`, which runs the program under `--init`.
pub fn reaper() -> error::Result<PathBuf> {
    own("pura-init").ok_or_else(|| {
        let why = "pura-init is not installed: neither in $PURA_LIBEXEC, beside pura, in ../libexec/pura nor in PATH";
        Error::new(Code::Helper, "run the program under --init", why)
            .fix("install pura-init beside pura, or leave --init out")
    })
}

impl Started {
    /// Waits for the end. On failure, what it said, on one line.
    pub fn finish(mut self) -> Result<(), String> {
        let said = self.listen(QUOTED, None).unwrap_or_default();
        let status = self.child.take().map_or(Err(Errno::ECHILD), sys::process::wait);
        if let Ok(WaitStatus::Exited(_, 0)) = status {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&said).split_whitespace().collect::<Vec<_>>().join(" ");
        Err(if said.is_empty() { describe(status) } else { said })
    }

    /// What it writes until it closes its end, at most `most` bytes; nothing when that is not before the deadline.
    fn listen(&mut self, most: usize, deadline: Option<Instant>) -> Option<Vec<u8>> {
        let pipe = self.pipe.take()?;
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        while said.len() < most {
            if !deadline.is_none_or(|deadline| is_readable(&pipe, deadline)) {
                return None;
            }
            match sys::retry(|| nix::unistd::read(&pipe, &mut buffer)) {
                Ok(0) => break,
                Ok(length) => said.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(_) => return None,
            }
        }
        said.truncate(most);
        Some(said)
    }

    /// Whether it ends well before the deadline: it may have closed its output and linger.
    fn succeeds(&mut self, deadline: Instant) -> bool {
        let Some(child) = self.child else { return false };
        match sys::pidfd::open(child.as_raw()) {
            Ok(process) if !sys::pidfd::wait(&process, left(deadline)) => return false,
            Err(Errno::ENOSYS)
                if sys::pidfd::wait_for_child(child, PollTimeout::from(left(deadline)), None).is_err() =>
            {
                return false;
            }
            // When a caller who ignores SIGCHLD has had it reaped, waitpid knows.
            _ => {}
        }
        self.child = None;
        // ECHILD: the status is lost, for the reason above; what it wrote has to speak for it.
        matches!(sys::process::wait(child), Ok(WaitStatus::Exited(_, 0)) | Err(Errno::ECHILD))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = self.child {
            // It is our child and not reaped, so the number is still its own.
            let _ = sys::signal::send(child, libc::SIGKILL);
            let _ = sys::retry(|| waitpid(child, None));
        }
    }
}

fn is_readable(pipe: &OwnedFd, deadline: Instant) -> bool {
    let mut wanted = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    sys::retry(|| poll(&mut wanted, PollTimeout::from(left(deadline)))).is_ok_and(|ready| ready > 0)
}

/// Milliseconds until the deadline, rounded up, so that a wait never ends just before it.
fn left(deadline: Instant) -> u16 {
    let left = deadline.saturating_duration_since(Instant::now());
    u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX)
}

/// For people: how a silent program ended.
fn describe(status: nix::Result<WaitStatus>) -> String {
    match status {
        Ok(WaitStatus::Exited(_, code)) => format!("exit status {code}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("ended by {signal}"),
        _ => "unknown status".to_owned(),
    }
}

/// What a program says that fails, within `limit`; where its output is of no use.
pub fn complaint(program: &Path, words: &[&OsStr], limit: Duration) -> Option<String> {
    let deadline = Instant::now() + limit;
    let mut started = start(program, words.iter().map(|word| word.as_bytes()), Piped::Errors).ok()?;
    let said = started.listen(QUOTED, Some(deadline))?;
    let lines = String::from_utf8_lossy(&said).into_owned();
    // The first says what is wrong, the others how it is right.
    lines.lines().find(|line| !line.trim().is_empty()).map(error::shortened)
}

/// Runs a program to its end and returns what it prints, or nothing when it fails or takes longer than `limit`.
pub fn output(program: &Path, words: &[&OsStr], limit: Duration) -> Option<String> {
    let deadline = Instant::now() + limit;
    let mut started = start(program, words.iter().map(|word| word.as_bytes()), Piped::Output).ok()?;
    let said = started.listen(MOST_OUTPUT, Some(deadline))?;
    started.succeeds(deadline).then(|| String::from_utf8_lossy(&said).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELL: &str = "/bin/sh";

    fn run(script: &str, limit: u64) -> Option<String> {
        output(Path::new(SHELL), &[OsStr::new("-c"), OsStr::new(script)], Duration::from_millis(limit))
    }

    fn say(script: &str) -> Result<(), String> {
        spawn(Path::new(SHELL), &["-c".to_owned(), script.to_owned()]).unwrap().finish()
    }

    #[test]
    fn a_helper_is_given_a_limited_time_however_it_spends_it() {
        assert_eq!(run("echo a; echo b >&2", 5000).unwrap(), "a\n");
        for script in ["exit 1", "echo a; exit 1", "kill -9 $$"] {
            assert_eq!(run(script, 5000), None, "{script}");
        }
        for script in ["exec sleep 60", "while :; do echo x; sleep 0.05; done", "exec >&-; exec sleep 60"] {
            let began = Instant::now();
            assert_eq!(run(script, 300), None, "{script}");
            assert!(began.elapsed() < Duration::from_secs(10), "{script}");
        }
    }

    #[test]
    fn what_a_failed_helper_says_is_quoted_on_one_line() {
        assert_eq!(say("echo fine >&2"), Ok(()));
        assert_eq!(say("echo no; echo 'not  so' >&2; echo good >&2; exit 3"), Err("not so good".to_owned()));
        assert_eq!(say("exit 3"), Err("exit status 3".to_owned()));
        assert_eq!(say("kill -9 $$"), Err("ended by SIGKILL".to_owned()));
        assert!(say("yes >&2").unwrap_err().len() <= QUOTED);
        assert_eq!(spawn(Path::new("/nope"), &[]).unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn a_helper_inherits_neither_descriptors_nor_signals_nor_variables() {
        let file = std::fs::File::open("/").unwrap();
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let mask = nix::sys::signal::SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK).unwrap();
        let facts = run("ls /proc/$$/fd; env", 5000);
        // Not by a shell, which blocks signals itself while it waits.
        let words = [OsStr::new("SigBlk"), OsStr::new("/proc/self/status")];
        let blocked = output(Path::new("/bin/grep"), &words, Duration::from_secs(5));
        let broken = run("kill -PIPE $$; exit 0", 5000);
        mask.thread_set_mask().unwrap();
        drop(file);
        let facts = facts.unwrap();
        assert!(facts.starts_with("0\n1\n2\nPATH="), "{facts}");
        assert_eq!(blocked.unwrap(), "SigBlk:\t0000000000000000\n");
        assert!(!facts.contains("HOME="), "{facts}");
        assert_eq!(broken, None, "SIGPIPE at its default ends the shell");
    }
}
