//! Containers at a glance, for one who looks at many: nothing is held open, and one buffer does for all.

use std::{borrow::Cow, os::fd::AsFd as _, path::Path};

use serde::{Deserialize, de::IgnoredAny};

use super::{Id, Identity, LARGEST, Record, Root, STATE, VERSION, files::Files};
use crate::state::Status;

/// A look into a directory of containers.
#[derive(Debug)]
pub struct Glance<'a> {
    root: &'a Root,
    bytes: Vec<u8>,
}

/// What a table says of a record. The rest has to be there too: else it is another's.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Brief<'a> {
    version: u32,
    /// The bundle, absolute.
    #[serde(borrow)]
    pub bundle: Cow<'a, str>,
    /// When, RFC 3339, UTC.
    #[serde(borrow)]
    pub created: Cow<'a, str>,
    /// Who: a login name, or a number.
    #[serde(borrow)]
    pub owner: Cow<'a, str>,
    #[serde(borrow)]
    boot_id: Cow<'a, str>,
    /// Process 1.
    pub init: Identity,
    #[serde(borrow, default)]
    cgroup: Option<Cow<'a, str>>,
    #[serde(rename = "id")]
    _id: IgnoredAny,
    #[serde(rename = "rootfs")]
    _rootfs: IgnoredAny,
    #[serde(rename = "userNamespace")]
    _user_namespace: IgnoredAny,
    #[serde(rename = "uidMap")]
    _uid_map: IgnoredAny,
    #[serde(rename = "gidMap")]
    _gid_map: IgnoredAny,
}

impl<'a> Glance<'a> {
    /// Into this directory.
    pub fn into(root: &'a Root) -> Self {
        Self { root, bytes: Vec::new() }
    }

    fn files<'b>(&self, id: &'b Id) -> Files<'b>
    where
        'a: 'b,
    {
        Files::below(self.root.directory.as_fd(), id.as_str())
    }

    /// The record of a container, and its status. Nothing without a record.
    pub fn record(&mut self, id: &Id) -> Option<(Record, Status)> {
        let files = self.files(id);
        files.read_into(&mut self.bytes, STATE, LARGEST).ok()?;
        let record = serde_json::from_slice(&self.bytes).ok().filter(|record: &Record| record.version == VERSION)?;
        let status = files.status(Some(&record));
        Some((record, status))
    }

    /// What a table says of it.
    pub fn brief(&mut self, id: &Id) -> Option<Brief<'_>> {
        self.files(id).read_into(&mut self.bytes, STATE, LARGEST).ok()?;
        serde_json::from_slice(&self.bytes).ok().filter(|brief: &Brief<'_>| brief.version == VERSION)
    }
}

impl Brief<'_> {
    /// The status: more than half of what a glance costs.
    pub fn status(&self, root: &Root, id: &Id) -> Status {
        let files = Files::below(root.directory.as_fd(), id.as_str());
        files.status_of(self.init, &self.boot_id, self.cgroup.as_deref().map(Path::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Sleeper, Store};

    #[test]
    fn a_glance_tells_what_a_record_tells() {
        let (store, sleeper) = (Store::new(), Sleeper::new());
        store.running("c1", sleeper.identity());
        store.claim("c2").unwrap().keep();
        let root = store.root();
        let mut glance = Glance::into(&root);
        let (c1, c2) = (Id::parse("c1".as_ref()).unwrap(), Id::parse("c2".as_ref()).unwrap());
        let (record, status) = glance.record(&c1).unwrap();
        assert_eq!((record.init, status), (sleeper.identity(), Status::Running));
        let brief = glance.brief(&c1).unwrap();
        let wanted = (record.bundle.to_str().unwrap(), record.created.as_str(), record.owner.as_str());
        assert_eq!((&*brief.bundle, &*brief.created, &*brief.owner), wanted);
        assert_eq!((brief.init, brief.status(&root, &c1)), (record.init, status));
        assert!(glance.record(&c2).is_none() && glance.brief(&c2).is_none());
    }

    #[test]
    fn what_a_record_may_not_lack_a_glance_does_not_do_without() {
        let (store, sleeper) = (Store::new(), Sleeper::new());
        store.running("c1", sleeper.identity());
        let (root, id) = (store.root(), Id::parse("c1".as_ref()).unwrap());
        let file = store.path("c1").join("state.json");
        let whole: serde_json::Map<_, _> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for key in whole.keys() {
            let mut less = whole.clone();
            less.remove(key);
            std::fs::write(&file, serde_json::to_vec(&less).unwrap()).unwrap();
            let mut glance = Glance::into(&root);
            assert_eq!(glance.record(&id).is_some(), glance.brief(&id).is_some(), "{key}");
        }
    }
}
