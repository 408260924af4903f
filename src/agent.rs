//! The seccomp agent: whoever listens at `linux.seccomp.listenerPath` and answers the calls that `SCMP_ACT_NOTIFY` holds up.
//! config-linux.md, "The Container Process State".
//!
//! The parent connects, before anything is made. Init sends, because the descriptor exists only once the filter is attached:
//! one message on the connection, and nothing after it.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use crate::{
    error::{Code, Error, Result},
    hooks::{PID_WIDTH, digits},
    socket,
    state::OCI_VERSION,
};

/// What the agent is told, with blanks for the pids that are known late.
#[derive(Debug, Clone)]
pub struct Notice {
    path: PathBuf,
    text: Vec<u8>,
    /// Where the blanks begin.
    blanks: Vec<usize>,
}

impl Notice {
    /// For the agent at `path`. `state` is that of the container, of [`crate::hooks::state`]; `init` is its process when that
    /// is another than the one which gets the filter, for `exec`.
    pub fn new(path: &Path, metadata: Option<&str>, state: &str, init: Option<i32>) -> Result<Self> {
        let mut text = format!("{{\"ociVersion\":\"{OCI_VERSION}\",\"fds\":[\"seccompFd\"]");
        if let Some(metadata) = metadata {
            let quoted = serde_json::to_string(metadata);
            let quoted =
                quoted.map_err(|error| Error::new(Code::Field, "tell the seccomp agent", error.to_string()))?;
            text.extend([",\"metadata\":", &quoted]);
        }
        text.extend([",\"state\":", state]);
        let inner = text.len().saturating_sub(PID_WIDTH + 1);
        text.push_str(",\"pid\":");
        let outer = text.len();
        text.extend([" ".repeat(PID_WIDTH).as_str(), "}"]);
        let mut text = text.into_bytes();
        let blanks = if let Some(init) = init {
            fill(&mut text, inner, init);
            vec![text.len() - PID_WIDTH - 1]
        } else {
            vec![inner, outer]
        };
        Ok(Self { path: path.to_owned(), text, blanks })
    }

    /// Who is told.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A copy, for [`Notice::fill`].
    pub fn text(&self) -> Vec<u8> {
        self.text.clone()
    }

    /// Puts the pid into the blanks of a copy, and moves up what follows. Allocates nothing: init calls it.
    pub fn fill(&self, text: &mut Vec<u8>, pid: i32) {
        // From the back: what is in front stays where it is.
        for &at in self.blanks.iter().rev() {
            fill(text, at, pid);
        }
    }

    /// Connects to the agent, which has to be there.
    pub fn connect(&self) -> Result<OwnedFd> {
        socket::connect(&self.path, Code::SeccompAgent, "seccomp agent")
            .map_err(|error| error.at("linux.seccomp.listenerPath"))
    }
}

fn fill(text: &mut Vec<u8>, at: usize, pid: i32) {
    let digits = digits(pid);
    let number = digits.trim_ascii_start();
    let Some(blanks) = text.get_mut(at..at + number.len()) else { return };
    blanks.copy_from_slice(number);
    if text.len() >= at + PID_WIDTH {
        // Only shortens.
        drop(text.drain(at + number.len()..at + PID_WIDTH));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hooks, state::Status};
    use serde_json::{Value, json};

    #[test]
    fn a_notice_is_json_with_both_pids_known_late_or_only_the_new_ones() {
        let spec = serde_json::from_value(json!({"ociVersion": "1.0.2", "annotations": {"a": "\""}})).unwrap();
        let state = hooks::state(&spec, "c1", Path::new("/b"), Status::Running).unwrap();
        for (metadata, init, inner) in [(None, None, 4711), (Some("\"x\n"), Some(77), 77)] {
            let notice = Notice::new(Path::new("/agent"), metadata, &state, init).unwrap();
            let mut text = notice.text();
            notice.fill(&mut text, 4711);
            assert!(!text.contains(&b' '), "{}", String::from_utf8_lossy(&text));
            let found: Value = serde_json::from_slice(&text).unwrap();
            let mut wanted = json!({"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 4711, "state": {
                "ociVersion": "1.3.0", "id": "c1", "status": "running", "pid": inner, "bundle": "/b",
                "annotations": {"a": "\""}
            }});
            if let Some(metadata) = metadata {
                wanted["metadata"] = metadata.into();
            }
            assert_eq!(found, wanted);
        }
    }
}
