//! Teardown: ends all that a container may still have alive, and removes what was made for it.
//!
//! Success is said only when all is gone. Files are believed as far as the kernel agrees, and no process is signalled
//! that is not known to be the container's.

use std::{
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use oci_spec::runtime::Spec;

use crate::{
    cgroup,
    error::{Code, Error, Result, Warning, plain},
    hooks::Hooks,
    host::probe,
    log::Log,
    members::Members,
    store::{Id, Identity, Locked, Traces},
    sys,
};

/// Why a process cannot be signalled. `kill(2)` could reach another that has taken over its id.
pub const LACKS: &str = "the kernel or a seccomp filter lacks pidfd_send_signal";

/// What helps against that.
pub const LACKS_FIX: &str = "a seccomp profile of the outer container that allows pidfd_send_signal";

/// How long a killed process is waited for, in milliseconds.
pub const LIMIT: u16 = 10_000;

/// How long a half-made init is waited for, in milliseconds: it ends by itself when its creator has.
const UNCOMMITTED_LIMIT: u16 = 2000;

/// Ends and removes a container, whatever of its files survives.
pub fn destroy(entry: Locked, log: &Log) -> Result<()> {
    let traces = match entry.traces() {
        Some(traces) => traces,
        None => lost(&entry, log)?,
    };
    end(&entry.id, &traces, members(&entry, &traces).as_ref())?;
    // Read before they are removed, run after that: a `run` that waits for its program must find the entry gone, and a
    // hook that hangs must not keep the id.
    let told = if traces.poststop { poststop(&entry) } else { None };
    let id = entry.id.clone();
    entry.remove()?;
    if let Some((spec, bundle)) = told {
        return Hooks { spec: &spec, id: id.as_str(), bundle: &bundle }.stopped(log);
    }
    Ok(())
}

/// Those that neither a cgroup nor a PID namespace ends together with init.
fn members(entry: &Locked, traces: &Traces) -> Option<Members> {
    if traces.cgroup.is_some() {
        return None;
    }
    Members::outliving(traces, || crate::bundle::recorded(&entry.config().ok()?).ok())
}

/// Ends those who have outlived init, when a foreground `run` has seen its end.
pub fn end_others(id: &Id, members: &Members) -> Result<()> {
    finish(members.kill()).map_err(|why| Error::new(Code::Survivors, format!("run {:?}", id.as_str()), why))
}

/// Waits for killed processes; who survives.
fn finish(killed: Vec<Identity>) -> std::result::Result<(), String> {
    let left: Vec<_> = killed.into_iter().filter(|process| !ends(*process)).map(|process| process.pid).collect();
    if left.is_empty() { Ok(()) } else { Err(survivors(&left)) }
}

/// The config as it was at `create`, and the bundle. A damaged one has no hooks that could be run.
fn poststop(entry: &Locked) -> Option<(Spec, PathBuf)> {
    let bundle = entry.record().map(|record| record.bundle).or_else(|| Some(entry.intent()?.bundle))?;
    let spec = crate::bundle::recorded(&entry.config().ok()?).ok()?;
    Some((spec, bundle))
}

/// Neither record nor intent can be read. With nothing beside the intent, nothing was made; else only the cgroup that
/// `create` chooses by itself can still be found, by its name.
fn lost(entry: &Locked, log: &Log) -> Result<Traces> {
    let host = probe::cgroup();
    let leaf = host.mount.map(|mount| {
        let own = mount.join(host.own.trim_start_matches('/'));
        own.join(cgroup::default_name(entry.id.as_str(), entry.root.inode))
    });
    if let Some(leaf) = leaf.filter(|leaf| leaf.is_dir()) {
        let what = format!("the state of {:?} is lost: what runs in {} is killed", entry.id.as_str(), leaf.display());
        // Not what --strict is about: nobody asked for less.
        drop(log.warn(&[Warning::new(Code::StateLost, what)], false));
        return Ok(Traces { cgroup: Some(leaf), ..Traces::default() });
    }
    if entry.has_more_than_intent() {
        let directory = entry.root.path.join(entry.id.as_str());
        let why = "its files are damaged, or not pura's, and name neither a process nor a cgroup";
        return Err(Error::new(Code::StateDamaged, format!("delete {:?}", entry.id.as_str()), why)
            .fix(format!("end its processes, then rm -r {}", directory.display())));
    }
    Ok(Traces::default())
}

/// Ends every process of the container and removes its cgroup, unless that was there before it.
pub fn end(id: &Id, traces: &Traces, members: Option<&Members>) -> Result<()> {
    let what = || format!("delete {:?}", id.as_str());
    let survives = |why| Error::new(Code::Survivors, what(), why);
    let opened = traces.init.map_or(Ok(None), Identity::open);
    let init = opened.map_err(|errno| survives(format!("init cannot be looked at: {}", plain(errno))))?;
    let named = traces.cgroup.as_deref();
    let leaf = named.filter(|leaf| !cgroup::is_other(leaf));
    // An intent names its cgroup before anything shows that it is free: without an init, who lives there may be others,
    // unless the name is one that only pura chooses.
    let is_ours = traces.init.is_some()
        || leaf.filter(|_| !traces.cgroup_stays).is_some_and(|leaf| {
            leaf.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("pura-{id}.")))
        });
    if let Some(leaf) = leaf.filter(|_| is_ours) {
        cgroup::kill(leaf);
    }
    let others = members.map(Members::kill).unwrap_or_default();
    if let Some(init) = &init {
        // Process 1 takes its PID namespace along. ESRCH: it has just ended.
        let sent = sys::pidfd::send(init.as_fd(), libc::SIGKILL);
        // It may be in a cgroup that has just been killed; else nothing will end it.
        if sent == Err(Errno::ENOSYS) && leaf.is_none() {
            return Err(Error::new(Code::Kernel, what(), LACKS).fix(LACKS_FIX));
        }
        if !sys::pidfd::wait(init, LIMIT) {
            return Err(survives(survivors(&[traces.init.unwrap_or_default().pid])));
        }
    }
    finish(others).map_err(survives)?;
    if let Some(group) = &traces.resctrl {
        group.remove().map_err(|error| {
            let why = error.to_string().to_lowercase();
            survives(format!("its group {} in resctrl cannot be removed: {why}", group.directory.display()))
        })?;
    }
    let Some(leaf) = leaf else {
        return named.map_or(Ok(()), |named| {
            let why = format!("its state is damaged: {}, which it names as its cgroup, is none", named.display());
            Err(Error::new(Code::StateDamaged, what(), why))
        });
    };
    if !cgroup::wait_empty(leaf, if is_ours { LIMIT } else { UNCOMMITTED_LIMIT }) {
        return Err(survives(survivors(&living(leaf))));
    }
    if let Some(unit) = traces.unit.as_deref().filter(|_| is_ours) {
        cgroup::scope::put_away(unit);
    }
    if traces.cgroup_stays {
        cgroup::leave(leaf);
        return Ok(());
    }
    cgroup::remove(leaf).map_err(|error| {
        let why = error.to_string().to_lowercase();
        survives(format!("its cgroup {} cannot be removed: {why}", leaf.display()))
    })
}

/// Whether a killed process ends.
fn ends(process: Identity) -> bool {
    process.open().is_ok_and(|process| process.is_none_or(|process| sys::pidfd::wait(&process, LIMIT)))
}

fn living(leaf: &Path) -> Vec<i32> {
    let text = fs::read_to_string(leaf.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Names processes with their states: a D says why it cannot be killed.
fn survivors(pids: &[i32]) -> String {
    let state = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next()).unwrap_or('?')
    };
    let named: Vec<_> = pids.iter().map(|pid| format!("{pid} (state {})", state(pid))).collect();
    format!("processes survive: {}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        Entry,
        testing::{Sleeper, Store},
    };

    fn destroy_all(store: &Store, id: &str) -> Result<()> {
        destroy(store.entry(id).lock("delete")?, &Log::default())
    }

    #[test]
    fn whatever_of_the_files_survives_init_is_ended_and_all_is_gone() {
        for (name, content) in [
            ("state.json", Some("")),
            ("state.json", Some("{\"ver")),
            ("state.json", None),
            ("intent", Some("")),
            ("intent", None),
        ] {
            let (store, sleeper) = (Store::new(), Sleeper::new());
            store.running("c1", sleeper.identity());
            let path = store.path("c1").join(name);
            match content {
                Some(content) => fs::write(path, content).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            destroy_all(&store, "c1").unwrap();
            assert!(!sleeper.identity().is_alive(), "{name} {content:?}");
            assert_eq!(store.names(), Vec::<String>::new(), "{name} {content:?}");
        }
    }

    #[test]
    fn after_a_reboot_the_process_and_the_cgroup_are_others() {
        let (store, sleeper) = (Store::new(), Sleeper::new());
        store.running("c1", sleeper.identity());
        for name in ["state.json", "intent"] {
            let path = store.path("c1").join(name);
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replace(crate::store::boot_id(), "another-boot")).unwrap();
        }
        destroy_all(&store, "c1").unwrap();
        assert!(sleeper.identity().is_alive());
        assert_eq!(store.names(), Vec::<String>::new());
    }

    #[test]
    fn a_process_that_has_taken_over_the_id_is_not_signalled() {
        let (store, sleeper) = (Store::new(), Sleeper::new());
        let identity = sleeper.identity();
        store.running("c1", Identity { start_time: identity.start_time + 1, ..identity });
        destroy_all(&store, "c1").unwrap();
        assert!(identity.is_alive());
    }

    #[test]
    fn what_nothing_is_known_about_stays() {
        let store = Store::new();
        for (id, files, removed) in [
            ("empty", &[][..], true),
            ("torn", &["intent"][..], true),
            ("foreign", &["status"][..], false),
            ("lost", &["intent", "state.json"][..], false),
        ] {
            fs::create_dir(store.path(id)).unwrap();
            for name in files {
                fs::write(store.path(id).join(name), "{").unwrap();
            }
            let destroyed = destroy_all(&store, id);
            assert_eq!((destroyed.is_ok(), store.path(id).exists()), (removed, !removed), "{id}: {destroyed:?}");
        }
    }

    #[test]
    fn what_a_state_names_as_a_cgroup_and_is_none_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let cgroup = directory.path().join("shared");
        fs::create_dir(&cgroup).unwrap();
        fs::write(cgroup.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let traces = Traces { cgroup: Some(cgroup.clone()), ..Traces::default() };
        let id = Id::parse("c1".as_ref()).unwrap();
        assert_eq!(end(&id, &traces, None).unwrap_err().code(), Code::StateDamaged);
        assert!(!cgroup.join("cgroup.kill").exists());
    }

    #[test]
    fn a_group_of_the_containers_own_goes_and_one_that_the_config_names_stays() {
        let id = Id::parse("c1".as_ref()).unwrap();
        for own in [true, false] {
            let resctrl = tempfile::tempdir().unwrap();
            let directory = resctrl.path().join("group");
            let monitoring = resctrl.path().join("counts");
            for made in [&directory, &monitoring] {
                fs::create_dir(made).unwrap();
            }
            let group = crate::resctrl::Group { directory, own, monitoring: Some(monitoring) };
            end(&id, &Traces { resctrl: Some(group.clone()), ..Traces::default() }, None).unwrap();
            assert_eq!(group.directory.exists(), !own);
            assert!(group.monitoring.is_some_and(|path| !path.exists()));
        }
    }

    #[test]
    fn a_file_of_another_is_named_and_stays() {
        let (store, sleeper) = (Store::new(), Sleeper::new());
        store.running("c1", sleeper.identity());
        fs::write(store.path("c1").join("precious"), "").unwrap();
        let error = destroy_all(&store, "c1").unwrap_err();
        assert!(error.why().contains("files that pura did not make"), "{error}");
        let left = store.names().pop().unwrap();
        assert!(store.path(&left).join("precious").exists());
    }

    #[test]
    fn two_who_delete_the_same_do_not_touch_the_next_container() {
        let (store, sleeper) = (Store::new(), Sleeper::new());
        store.running("c1", sleeper.identity());
        let late: Entry = store.entry("c1");
        destroy_all(&store, "c1").unwrap();
        let next = Sleeper::new();
        store.running("c1", next.identity());
        assert_eq!(late.lock("delete").unwrap_err().code(), Code::NoContainer);
        assert!(next.identity().is_alive() && store.entry("c1").record().is_some());
    }
}
