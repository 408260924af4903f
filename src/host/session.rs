//! The caller's session, with whose end systemd ends what was left running.

use std::path::Path;

use super::{Host, account};
use crate::error::{Code, Warning};

/// Whether systemd ends what the caller leaves running with the last session: logind(8) keeps a file for each user who has
/// sessions, and one for each who lingers. Who has no session loses none.
pub fn ends_processes(host: &Host) -> bool {
    if !Path::new("/run/systemd/users").join(host.caller.uid.to_string()).exists() {
        return false;
    }
    let known = host.account.as_ref().and_then(|account| account.name.clone());
    let name = known.or_else(|| account::name(host.caller.uid));
    name.is_some_and(|name| !Path::new("/var/lib/systemd/linger").join(name).exists())
}

/// What becomes of a container that is left running, with its state in a directory that goes with the session.
pub fn ends(host: &Host, state: &Path) -> Option<Warning> {
    (state.starts_with("/run/user") && ends_processes(host)).then(warning)
}

/// How to keep it.
pub fn warning() -> Warning {
    let what = "containers that are left running end with your last session";
    Warning::new(Code::NoLinger, what).fix("loginctl enable-linger")
}
