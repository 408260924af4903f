//! Rules of `linux.seccomp`: config-linux.md, "Seccomp".

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};

use super::Faults;
use crate::{
    error::Code,
    seccomp::{LAST_ARGUMENT, MAX_ERRNO},
};

/// Actions, architectures, operators and flags that nobody knows have been refused by the parser.
pub(super) fn check(profile: &LinuxSeccomp, faults: &mut Faults) {
    let key = "linux.seccomp";
    returned(&format!("{key}.default"), profile.default_action(), profile.default_errno_ret(), faults);
    if profile.listener_metadata().is_some() && profile.listener_path().is_none() {
        faults.add(&format!("{key}.listenerMetadata"), "it needs a listenerPath");
    }
    for (index, rule) in profile.syscalls().iter().flatten().enumerate() {
        let key = format!("{key}.syscalls[{index}]");
        if rule.names().is_empty() {
            faults.add(&format!("{key}.names"), "it is empty");
        }
        returned(&format!("{key}."), rule.action(), rule.errno_ret(), faults);
        for (at, test) in rule.args().iter().flatten().enumerate().filter(|(_, test)| test.index() > LAST_ARGUMENT) {
            faults.add(&format!("{key}.args[{at}].index"), format!("{} is over {LAST_ARGUMENT}", test.index()));
        }
    }
}

/// An action, and the errno that goes with it. `of` ends where the names of both fields begin.
fn returned(of: &str, action: Action, errno: Option<u32>, faults: &mut Faults) {
    let (action_key, errno_key) = if of.ends_with('.') {
        (format!("{of}action"), format!("{of}errnoRet"))
    } else {
        (format!("{of}Action"), format!("{of}ErrnoRet"))
    };
    if action == Action::ScmpActNotify {
        faults.add_as(Code::Unsupported, &action_key, "SCMP_ACT_NOTIFY is not supported by this version of pura");
    }
    let Some(errno) = errno else { return };
    if !matches!(action, Action::ScmpActErrno | Action::ScmpActTrace) {
        faults.add(&errno_key, format!("{action} returns no errno"));
    } else if errno > MAX_ERRNO {
        faults.add(&errno_key, format!("{errno} is over {MAX_ERRNO}"));
    }
}
