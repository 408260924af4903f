//! The journal and syslog: a datagram for each line. Where neither listens, nothing is written: standard error says the
//! same.

use std::{ffi::OsString, os::unix::net::UnixDatagram, path::Path};

use crate::cli::LogService;

/// `sd_journal_sendv(3)`; the protocol is "Native Journal Protocol" of the systemd documentation.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// `syslog(3)`.
const SYSLOG: &str = "/dev/log";
/// `LOG_USER`
const FACILITY: u8 = 1;

/// A connection to one of them.
#[derive(Debug)]
pub(super) struct Service {
    socket: UnixDatagram,
    is_journal: bool,
    name: String,
}

impl Service {
    /// Connects, if somebody listens.
    pub(super) fn connect(to: &LogService) -> Option<Self> {
        let (path, name, is_journal) = match to {
            LogService::Journal(name) => (JOURNAL, name, true),
            LogService::Syslog(name) => (SYSLOG, name, false),
        };
        Self::connect_at(Path::new(path), name, is_journal)
    }

    fn connect_at(path: &Path, name: &OsString, is_journal: bool) -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(path).ok()?;
        // A service that is stuck must not hold up a container.
        socket.set_nonblocking(true).ok()?;
        let name = plain(&name.to_string_lossy());
        Some(Self { socket, is_journal, name: if name.is_empty() { "pura".to_owned() } else { name } })
    }

    /// One line. `severity` counts as syslog does: 3 is an error, 4 a warning.
    pub(super) fn line(&self, severity: u8, message: &str, code: &str) {
        let name = &self.name;
        let datagram = if self.is_journal {
            // With its length, because it may have line ends.
            let length = u64::try_from(message.len()).unwrap_or(0).to_le_bytes();
            let fields = format!("\nPRIORITY={severity}\nSYSLOG_IDENTIFIER={name}\nPURA_CODE={code}\n");
            [b"MESSAGE\n", length.as_slice(), message.as_bytes(), fields.as_bytes()].concat()
        } else {
            let (priority, pid) = (FACILITY << 3 | severity, std::process::id());
            format!("<{priority}>{name}[{pid}]: {}", plain(message)).into_bytes()
        };
        drop(self.socket.send(&datagram));
    }
}

fn plain(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What arrives of one line.
    fn sent(name: &str, is_journal: bool) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixDatagram::bind(&path).unwrap();
        let service = Service::connect_at(&path, &name.into(), is_journal).unwrap();
        service.line(3, "a\nb", "PURA-999");
        let mut buffer = [0; 200];
        let length = listener.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn the_journal_gets_fields() {
        let wanted = b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY=3\nSYSLOG_IDENTIFIER=x?y\nPURA_CODE=PURA-999\n";
        assert_eq!(sent("x\ny", true), wanted);
    }

    #[test]
    fn syslog_gets_one_line() {
        let wanted = format!("<11>pura[{}]: a?b", std::process::id());
        assert_eq!(String::from_utf8(sent("", false)).unwrap(), wanted);
    }

    #[test]
    fn where_nobody_listens_nothing_is_written() {
        assert!(Service::connect_at(Path::new("/nowhere/socket"), &"x".into(), true).is_none());
    }
}
