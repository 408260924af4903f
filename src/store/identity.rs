//! Processes for longer than their ids, and the boot in which both mean something.

use std::{ffi::CStr, io::Write as _, os::fd::OwnedFd, sync::OnceLock};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::sys;

/// A process for longer than its id: a recycled id has another start time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The id, in the caller's PID namespace.
    pub pid: i32,
    /// When it was started, in clock ticks since boot: field 22 of `proc_pid_stat(5)`.
    pub start_time: u64,
}

impl Identity {
    /// This process, with the id that it has where `/proc` was mounted: one file tells both.
    pub fn own() -> Option<Self> {
        let stat = small_file(c"/proc/self/stat").ok()?;
        let pid = str::from_utf8(stat.split(|byte| *byte == b' ').next()?).ok()?;
        Some(Self { pid: pid.parse().ok()?, start_time: alive(&stat)? })
    }

    /// The process that has the id now; nothing when there is none, or only a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        Self::find(pid).ok().flatten()
    }

    /// The same, for one who must not take "cannot tell" for "has ended".
    fn find(pid: i32) -> nix::Result<Option<Self>> {
        match stat(pid) {
            Ok(line) => Ok(alive(&line).map(|start_time| Self { pid, start_time })),
            Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether this very process is alive, or cannot be told to have ended: whoever is taken for dead is deleted.
    pub fn is_alive(self) -> bool {
        self.pid > 0 && Self::find(self.pid).map_or(true, |found| found == Some(self))
    }

    /// Whether it has begun to end, or is gone.
    pub fn is_ending(self) -> bool {
        stat(self.pid).map_or(true, |line| is_ending(&line))
    }

    /// A descriptor for this very process: opened first, then compared. Nothing when it has ended; any other failure is
    /// an error, because whoever deletes must not take a process for dead that only could not be looked at.
    pub fn open(self) -> nix::Result<Option<OwnedFd>> {
        if self.pid <= 0 {
            return Ok(None);
        }
        let process = match sys::pidfd::find(self.pid) {
            Ok(process) => process,
            Err(Errno::ESRCH) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        Ok((Self::find(self.pid)? == Some(self)).then_some(process))
    }

    /// The line of the intent.
    pub fn line(self) -> String {
        format!("{} {}\n", self.pid, self.start_time)
    }

    /// Reads such a line.
    pub fn parse(line: &str) -> Option<Self> {
        let (pid, start_time) = line.split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
    }
}

/// `proc_pid_stat(5)`: looked at once for each of many containers, so its path is no allocation.
fn stat(pid: i32) -> nix::Result<Vec<u8>> {
    let mut path = [0; 32];
    drop(write!(path.as_mut_slice(), "/proc/{pid}/stat"));
    CStr::from_bytes_until_nul(&path).map_or(Err(Errno::ENAMETOOLONG), small_file)
}

/// The process has begun to end, and will never again run code of its own: `PF_EXITING`, include/linux/sched.h.
const EXITING: u32 = 4;

/// Whether a line of `proc_pid_stat(5)` is of a process that has begun to end.
fn is_ending(stat: &[u8]) -> bool {
    fields(stat).is_some_and(|(_, flags, _)| flags & EXITING != 0)
}

/// The start time in a line of `proc_pid_stat(5)`; nothing for a zombie, nor for a process 1 that would be one, did it not
/// have to wait until strangers have reaped what they had started in its PID namespace: that may be never.
fn alive(stat: &[u8]) -> Option<u64> {
    let (state, flags, start_time) = fields(stat)?;
    let is_held_up = state == "S" && flags & EXITING != 0;
    (!matches!(state, "Z" | "X") && !is_held_up).then_some(start_time)
}

/// State, flags and start time.
fn fields(stat: &[u8]) -> Option<(&str, u32, u64)> {
    // The name, in parentheses, may hold anything.
    let behind = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = str::from_utf8(stat.get(behind..)?).ok()?.split(' ').skip(1);
    Some((fields.next()?, fields.nth(5)?.parse().ok()?, fields.nth(12)?.parse().ok()?))
}

/// The boot that is running: ids of another mean nothing. Empty when the kernel does not tell.
pub fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    let file = || small_file(c"/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let read = || String::from_utf8_lossy(&file()).trim_end().to_owned();
    BOOT.get_or_init(read)
}

/// Whether a boot is the one that is running. One that is not known may be: start times still tell processes apart.
pub fn is_this_boot(recorded: &str) -> bool {
    let running = boot_id();
    running == recorded || running.is_empty() || recorded.is_empty()
}

/// A file of /proc that one read gives whole.
fn small_file(path: &CStr) -> nix::Result<Vec<u8>> {
    sys::path::read::<1024>(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_id_is_another_process() {
        let own = Identity::of(std::process::id().cast_signed()).unwrap();
        assert_eq!(Identity::own(), Some(own));
        assert!(own.is_alive() && own.open().unwrap().is_some());
        let other = Identity { start_time: own.start_time + 1, ..own };
        assert!(!other.is_alive() && other.open().unwrap().is_none());
        assert!(Identity::default().open().unwrap().is_none());
    }

    #[test]
    fn a_zombie_has_ended_whatever_its_name() {
        let rest = "1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(alive(format!("7 (a) Z 1) S {rest}").as_bytes()), Some(4711));
        assert_eq!(alive(format!("7 (a) S 1) Z {rest}").as_bytes()), None);
        assert_eq!(alive(b"7 (a"), None);
        // 4: it is ending. Only one that waits for others has no end of its own to come to.
        let ending = rest.replace("4194560", "4194564");
        assert_eq!(alive(format!("7 (a) S {ending}").as_bytes()), None);
        assert_eq!(alive(format!("7 (a) D {ending}").as_bytes()), Some(4711));
        for (line, wanted) in [(rest, false), (&ending, true)] {
            assert_eq!(is_ending(format!("7 (a) R {line}").as_bytes()), wanted);
        }
    }

    #[test]
    fn the_identity_survives_its_line() {
        let identity = Identity { pid: 12, start_time: 34 };
        assert_eq!(Identity::parse(identity.line().trim_end()), Some(identity));
        assert_eq!(Identity::parse("12"), None);
    }

    #[test]
    fn only_another_known_boot_is_another() {
        assert!(is_this_boot(boot_id()) && is_this_boot(""));
        assert!(!is_this_boot("00000000-0000-0000-0000-000000000000"));
    }
}
