//! `pura kill`: signals to a container.

use std::{ffi::OsStr, os::fd::AsFd as _, path::Path};

use nix::errno::Errno;

use super::Call;
use crate::{
    cgroup,
    error::{Code, Context as _, Error, Result, Warning, plain},
    log::Log,
    members::Members,
    signal::{self, Fate},
    state::Status,
    store::{Entry, Id, Identity, Roots},
    sys, teardown,
};

/// Which processes of which containers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// Every process, not only process 1.
    pub(super) all: bool,
    /// The id is a pattern.
    pub(super) regex: bool,
}

/// Sends a signal, TERM when none is named.
pub(super) fn kill(call: Call<'_>, id: &OsStr, typed: Option<&OsStr>, reach: Reach) -> Result<u8> {
    let number = typed.map_or(Ok(libc::SIGTERM), signal::parse)?;
    let roots = Roots::find(call.globals)?;
    if !reach.regex {
        let entry = roots.open(&Id::parse(id)?, "signal")?;
        send(&entry, number, reach.all)?;
        if !reach.all && call.log.hears_warnings() {
            tell_if_lost(&entry, number, call.log);
        }
        return Ok(0);
    }
    each(matching(&roots, id)?.into_iter().filter(|entry| entry.status() != Status::Stopped), call, |entry| {
        send(&entry, number, reach.all)
    })
}

/// Does the same to each container: a failure does not spare the others. The first is returned, the rest is logged.
pub(super) fn each(
    entries: impl IntoIterator<Item = Entry>,
    call: Call<'_>,
    mut act: impl FnMut(Entry) -> Result<()>,
) -> Result<u8> {
    let mut first = None;
    for error in entries.into_iter().filter_map(|entry| act(entry).err()) {
        match first {
            None => first = Some(error),
            Some(_) => call.log.error(&error),
        }
    }
    first.map_or(Ok(0), Err)
}

/// The containers whose whole id a regular expression matches.
pub(super) fn matching(roots: &Roots, pattern: &OsStr) -> Result<Vec<Entry>> {
    let text = pattern.to_string_lossy();
    let compiled = regex_lite::Regex::new(&format!("^(?:{text})$"));
    let compiled = compiled.map_err(|_error| {
        Error::new(Code::Usage, "read the command line", format!("{text:?} is no regular expression"))
    })?;
    let mut found = Vec::new();
    for root in roots.existing()? {
        for id in root.ids().into_iter().filter(|id| compiled.is_match(id.as_str())) {
            let entry = Entry::open(root.clone(), &id);
            found.extend(entry.doing(Code::StateDamaged, || format!("open {:?}", id.as_str()))?);
        }
    }
    Ok(found)
}

fn send(entry: &Entry, number: i32, all: bool) -> Result<()> {
    let what = || format!("signal {:?}", entry.id.as_str());
    let refuse = |errno| {
        if errno == Errno::ENOSYS {
            return Error::new(Code::Kernel, what(), teardown::LACKS).fix(teardown::LACKS_FIX);
        }
        Error::new(Code::NotRunning, what(), plain(errno))
    };
    let traces = entry.traces().unwrap_or_default();
    if let Some(cgroup) = traces.cgroup.as_deref().filter(|_| all) {
        send_to_all(cgroup, number);
        return Ok(());
    }
    let config = || crate::bundle::recorded(&entry.config().ok()?).ok();
    if let Some(members) = all.then(|| Members::find(&traces, config)).flatten() {
        if number == libc::SIGKILL {
            members.kill();
        } else {
            members.signal(number);
        }
        return Ok(());
    }
    // Opened first, then compared: never a process that has taken over the id.
    let init = traces.init.map_or(Ok(None), Identity::open).map_err(refuse)?;
    match init.map_or(Err(Errno::ESRCH), |init| sys::pidfd::send(init.as_fd(), number)) {
        // Nothing left to signal is no failure for one who wants all gone.
        Err(Errno::ESRCH) if all => Ok(()),
        Err(Errno::ESRCH) => Err(Error::new(Code::NotRunning, what(), "container not running: no such process")),
        sent => sent.map_err(refuse),
    }
}

/// Says it where the kernel has dropped the signal. No failure: so it is with every runtime, and engines wait for the end.
fn tell_if_lost(entry: &Entry, number: i32, log: &Log) {
    let init = entry.traces().unwrap_or_default().init.map_or(0, |init| init.pid);
    let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
    if number > 0 && signal::fate(&status, number) == Fate::Lost {
        let name = signal::name(number);
        let what = format!("process 1 of the container has no handler for {name}, so that it has no effect");
        log.tell(&Warning::new(Code::SignalUnheard, what).fix(format!("pura kill {} KILL", entry.id)), false);
    }
}

/// Every process of the cgroup and of those below it.
fn send_to_all(cgroup: &Path, number: i32) {
    if number == libc::SIGKILL {
        cgroup::kill(cgroup);
    } else {
        cgroup::signal_all(cgroup, number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Sleeper, Store};

    fn kill_in(store: &Store, id: &str, signal: &str, reach: Reach) -> Result<u8> {
        let (globals, log) = (store.globals(), Log::default());
        kill(Call { globals: &globals, log: &log, preserved: &[] }, id.as_ref(), Some(signal.as_ref()), reach)
    }

    const ONE: Reach = Reach { all: false, regex: false };

    #[test]
    fn a_stopped_container_has_no_such_process_but_all_of_it_is_gone() {
        let (store, mut sleeper) = (Store::new(), Sleeper::new());
        store.running("c1", sleeper.identity());
        assert_eq!(kill_in(&store, "c1", "0", ONE), Ok(0));
        sleeper.end();
        let error = kill_in(&store, "c1", "KILL", ONE).unwrap_err();
        assert!(error.to_string().contains("container not running: no such process"), "{error}");
        assert_eq!(kill_in(&store, "c1", "KILL", Reach { all: true, ..ONE }), Ok(0));
        assert_eq!(kill_in(&store, "c1", "KILL", Reach { regex: true, ..ONE }), Ok(0));
    }

    #[test]
    fn a_damaged_state_does_not_protect_a_process_and_an_unknown_signal_sends_nothing() {
        let (store, sleeper) = (Store::new(), Sleeper::new());
        store.running("c1", sleeper.identity());
        assert_eq!(kill_in(&store, "c1", "BOGUS", ONE).unwrap_err().code(), Code::Signal);
        std::fs::write(store.path("c1").join("state.json"), "{").unwrap();
        assert_eq!(kill_in(&store, "c1", "KILL", ONE), Ok(0));
        let process = sleeper.identity().open().unwrap();
        assert!(process.is_none_or(|process| sys::pidfd::wait(&process, 5000)));
    }
}
