//! Programs that pura starts on the host: the mappers, getsubids. Nothing of ours leaks into them.

use std::{
    ffi::{OsStr, OsString},
    io::Read as _,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// Where programs are looked for after PATH; the last one is `NixOS`'s.
const DIRECTORIES: [&str; 5] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/wrappers/bin"];

/// Bytes of a program's message that are worth quoting.
const QUOTED: u64 = 4096;

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

/// Starts a program with an environment of our making and one of its outputs in a pipe.
///
/// The standard library starts it as vfork(2) does, with default signals and, because it is started before signals are
/// blocked or resets the mask itself, an empty mask. All our descriptors are closed by exec.
#[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
fn start(program: &Path, words: &[OsString], piped: Piped) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    match piped {
        Piped::Output => command.stdout(Stdio::piped()).stderr(Stdio::null()),
        Piped::Errors => command.stdout(Stdio::null()).stderr(Stdio::piped()),
    };
    command.spawn()
}

#[derive(Debug, Clone, Copy)]
enum Piped {
    Output,
    Errors,
}

/// A program that works for init while the parent goes on.
#[derive(Debug)]
pub struct Started {
    child: Child,
}

/// Starts a program whose only result is its status, and what it says when that is bad.
pub fn spawn(program: &Path, words: &[OsString]) -> std::io::Result<Started> {
    start(program, words, Piped::Errors).map(|child| Started { child })
}

impl Started {
    /// Waits for the end. On failure, what it said, on one line.
    pub fn finish(mut self) -> std::result::Result<(), String> {
        let mut said = Vec::new();
        if let Some(errors) = self.child.stderr.take() {
            let _ = errors.take(QUOTED).read_to_end(&mut said);
        }
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                let said = String::from_utf8_lossy(&said).split_whitespace().collect::<Vec<_>>().join(" ");
                Err(if said.is_empty() { status.to_string() } else { said })
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Runs a program to its end and returns what it prints, or nothing when it fails or takes longer than `limit`.
pub fn output(program: &Path, words: &[&OsStr], limit: PollTimeout) -> Option<String> {
    let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    let mut child = start(program, &words, Piped::Output).ok()?;
    let mut stdout = child.stdout.take()?;
    let mut said = Vec::new();
    loop {
        let ready = {
            let mut wanted = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
            crate::sys::retry(|| poll(&mut wanted, limit)).unwrap_or(0)
        };
        let mut buffer = [0; 4096];
        match if ready == 0 {
            Err(Errno::ETIMEDOUT)
        } else {
            crate::sys::retry(|| nix::unistd::read(stdout.as_fd(), &mut buffer))
        } {
            Ok(0) => break,
            Ok(length) => said.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
    let _ = stdout.read(&mut []);
    child.wait().ok()?.success().then(|| String::from_utf8_lossy(&said).into_owned())
}
