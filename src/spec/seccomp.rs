//! Rules of `linux.seccomp`: config-linux.md, "Seccomp".

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};

use super::Faults;
use crate::seccomp::{LAST_ARGUMENT, MAX_ERRNO};

/// Actions, architectures, operators and flags that nobody knows have been refused by the parser.
pub(super) fn check(profile: &LinuxSeccomp, faults: &mut Faults) {
    let key = "linux.seccomp";
    returned(&format!("{key}.default"), profile.default_action(), profile.default_errno_ret(), faults);
    notified(profile, faults);
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

/// `SCMP_ACT_NOTIFY`, and who is to answer. By these two calls the descriptor reaches whoever answers, in this runtime or in
/// others.
fn notified(profile: &LinuxSeccomp, faults: &mut Faults) {
    let key = "linux.seccomp";
    if profile.default_action() == Action::ScmpActNotify {
        faults.add(
            &format!("{key}.defaultAction"),
            "SCMP_ACT_NOTIFY would hold up pura itself, before anybody can answer",
        );
    }
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let mut asks = false;
    for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.action() == Action::ScmpActNotify) {
        asks = true;
        for name in rule.names().iter().filter(|name| matches!(name.as_str(), "write" | "sendmsg")) {
            let why = format!("SCMP_ACT_NOTIFY on {name} would hold up the runtime itself, before anybody can answer");
            faults.add(&format!("{key}.syscalls[{index}]"), why);
        }
    }
    match profile.listener_path() {
        Some(path) if asks && !path.is_absolute() => {
            faults.add(&format!("{key}.listenerPath"), format!("{path:?} is not absolute"));
        }
        None if asks => faults.add(&format!("{key}.listenerPath"), "SCMP_ACT_NOTIFY needs it, and it is missing"),
        Some(_) | None => {}
    }
}

/// An action, and the errno that goes with it. `of` ends where the names of both fields begin.
fn returned(of: &str, action: Action, errno: Option<u32>, faults: &mut Faults) {
    let errno_key = if of.ends_with('.') { format!("{of}errnoRet") } else { format!("{of}ErrnoRet") };
    let Some(errno) = errno else { return };
    if !matches!(action, Action::ScmpActErrno | Action::ScmpActTrace) {
        faults.add(&errno_key, format!("{action} returns no errno"));
    } else if errno > MAX_ERRNO {
        faults.add(&errno_key, format!("{errno} is over {MAX_ERRNO}"));
    }
}
