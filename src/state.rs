//! OCI state: what a container is in, and how that is shown.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::store::{Entry, Glance, Id, Identity, Record, Root};

/// The version of the specification whose state this is.
pub const OCI_VERSION: &str = "1.3.0";

/// The status of a container: runtime.md "State". Derived from what the kernel says, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its creator is at work.
    Creating,
    /// Init waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// The program runs, but its cgroup is frozen.
    Paused,
    /// Nothing of it is alive.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The state as `state` and `list` print it. Never with `started`, `finished`, `exitCode` or `error` at the top level:
/// CRI-O would take them over.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    oci_version: &'static str,
    /// The id.
    pub id: String,
    /// The status.
    pub status: Status,
    /// Process 1 as the caller sees it; 0 when stopped.
    pub pid: i32,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    #[serde(skip_serializing_if = "is_unset")]
    rootfs: PathBuf,
    /// When it was created, RFC 3339; left out before that, because engines read a time.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// Who created it.
    pub owner: String,
    annotations: BTreeMap<String, String>,
    pura: Pura,
}

/// What only pura tells.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pura {
    user_namespace: String,
    uid_map: Vec<String>,
    gid_map: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<PathBuf>,
    degradations: Vec<String>,
}

fn is_unset(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl State {
    /// The state of an entry; nothing when it is damaged, or another runtime's.
    pub fn of(entry: &Entry) -> Option<Self> {
        match entry.record() {
            Some(record) => {
                let status = entry.status_of(&record);
                Some(Self::recorded(record, status))
            }
            None => Self::unfinished(entry),
        }
    }

    /// The same, of one of many.
    pub fn glance(glance: &mut Glance<'_>, root: &Root, id: &Id) -> Option<Self> {
        match glance.record(id) {
            Some((record, status)) => Some(Self::recorded(record, status)),
            None => Self::find(root, id),
        }
    }

    /// The same, of one that may have no record.
    pub fn find(root: &Root, id: &Id) -> Option<Self> {
        Self::of(&Entry::open(root.clone(), id).ok()??)
    }

    /// The id that is shown for process 1.
    pub fn pid(status: Status, init: Identity) -> i32 {
        if status == Status::Stopped { 0 } else { init.pid }
    }

    fn recorded(record: Record, status: Status) -> Self {
        let lines = |map: &str| map.lines().map(str::to_owned).collect();
        Self {
            oci_version: OCI_VERSION,
            pid: Self::pid(status, record.init),
            status,
            pura: Pura {
                uid_map: lines(&record.uid_map),
                gid_map: lines(&record.gid_map),
                user_namespace: record.user_namespace,
                cgroup: record.cgroup,
                degradations: record.degradations,
            },
            id: record.id,
            bundle: record.bundle,
            rootfs: record.rootfs,
            created: record.created,
            owner: record.owner,
            annotations: record.annotations,
        }
    }

    /// A container that is being created, or whose creator was killed.
    fn unfinished(entry: &Entry) -> Option<Self> {
        let intent = entry.intent().filter(|_| !entry.is_damaged())?;
        let status = entry.status();
        Some(Self {
            oci_version: OCI_VERSION,
            id: entry.id.as_str().to_owned(),
            status,
            pid: intent.init.map_or(0, |init| Self::pid(status, init)),
            bundle: intent.bundle,
            rootfs: PathBuf::new(),
            created: String::new(),
            owner: String::new(),
            annotations: BTreeMap::new(),
            pura: Pura { cgroup: intent.cgroup, ..Pura::default() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Sleeper, Store};

    #[test]
    fn a_stopped_container_has_pid_0_and_its_annotations() {
        let (store, mut sleeper) = (Store::new(), Sleeper::new());
        store.running("c1", sleeper.identity());
        let json = |status: &str| {
            let value = serde_json::to_value(State::of(&store.entry("c1")).unwrap()).unwrap();
            assert_eq!((&value["status"], &value["ociVersion"]), (&status.into(), &"1.3.0".into()));
            assert_eq!((&value["annotations"]["empty"], &value["rootfs"]), (&"".into(), &"/b/rootfs".into()));
            value["pid"].as_i64().unwrap()
        };
        assert_eq!(json("running"), i64::from(sleeper.identity().pid));
        sleeper.end();
        assert_eq!(json("stopped"), 0);
    }

    #[test]
    fn an_unfinished_container_has_no_time_and_a_damaged_one_no_state() {
        let store = Store::new();
        store.claim("c1").unwrap().keep();
        let value = serde_json::to_value(State::of(&store.entry("c1")).unwrap()).unwrap();
        assert_eq!(value["status"], "stopped");
        assert!(value.get("created").is_none() && value.get("rootfs").is_none());
        std::fs::write(store.path("c1").join("state.json"), "{").unwrap();
        assert!(State::of(&store.entry("c1")).is_none());
    }
}
