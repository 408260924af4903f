//! The container's user as owner of its cgroup: config-linux.md "Cgroup ownership". That user may then divide it.

use std::{fs, os::unix::fs::chown, path::Path};

use oci_spec::runtime::{LinuxNamespaceType as Kind, Spec};

use crate::{
    error::{Code, Context as _, Result},
    host::Caller,
    plan::ids::{Ids, UserNamespace},
};

const CAP_CHOWN: u8 = 0;

/// The kernel's list of the files that belong to who divides a cgroup, and what was in its first edition.
const LIST: &str = "/sys/kernel/cgroup/delegate";
const FILES: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];

/// The user, as the caller sees it, when it is another than the caller and the caller may give things away. Asked for by a
/// cgroup namespace of the container's own and a cgroup mount that can be written.
pub fn owner(spec: &Spec, ids: &Ids, caller: &Caller) -> Option<u32> {
    let namespaces = spec.linux().as_ref()?.namespaces().as_ref()?;
    let is_own = |namespace: &oci_spec::runtime::LinuxNamespace| {
        namespace.typ() == Kind::Cgroup && namespace.path().as_ref().is_none_or(|path| path.as_os_str().is_empty())
    };
    let has_mount = spec.mounts().iter().flatten().any(|mount| {
        let is_cgroup = mount.typ().as_deref().is_some_and(|kind| kind == "cgroup" || kind == "cgroup2");
        let mut words = mount.options().iter().flatten().filter(|word| *word == "ro" || *word == "rw");
        is_cgroup && words.next_back().is_none_or(|word| word == "rw")
    });
    if !namespaces.iter().any(is_own) || !has_mount || !caller.has(CAP_CHOWN) {
        return None;
    }
    let inside = spec.process().as_ref()?.user().uid();
    let mapped = match &ids.maps {
        Some(maps) => maps.uids.iter().find_map(|extent| extent.outside_of(inside))?,
        None => inside,
    };
    // The maps of the caller's own namespace lead out of it, where its chown(2) knows no ids.
    let is_shared = matches!(ids.user_namespace, UserNamespace::Reuse | UserNamespace::Inherit);
    let outside = if is_shared { inside } else { mapped };
    Some(outside).filter(|outside| *outside != caller.uid)
}

/// Gives the leaf away: the directory, and those of the files that are there.
pub fn give(directory: &Path, uid: u32) -> Result<()> {
    let what = || format!("give the cgroup {} to user {uid}", directory.display());
    chown(directory, Some(uid), None).doing(Code::CgroupRefused, what)?;
    let list = fs::read_to_string(LIST).unwrap_or_default();
    let names: Vec<&str> = if list.is_empty() { FILES.to_vec() } else { list.lines().collect() };
    let names = names.into_iter().filter(|name| !name.is_empty() && !name.contains('/'));
    for file in names.map(|name| directory.join(name)).filter(|file| file.exists()) {
        chown(&file, Some(uid), None).doing(Code::CgroupRefused, what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::{Maps, ids::Extent},
        plan::ids::UserNamespace,
    };

    fn of(cgroup: &str, options: &str, uid: u32, effective: u64) -> Option<u32> {
        within(UserNamespace::Join { index: 0 }, cgroup, options, uid, effective)
    }

    fn within(user_namespace: UserNamespace, cgroup: &str, options: &str, uid: u32, effective: u64) -> Option<u32> {
        let json = format!(
            r#"{{"ociVersion":"1.0.2","process":{{"cwd":"/","user":{{"uid":{uid},"gid":0}}}},
               "mounts":[{{"destination":"/sys/fs/cgroup","type":"cgroup","options":[{options}]}}],
               "linux":{{"namespaces":[{cgroup}]}}}}"#
        );
        let extent = Extent { inside: 0, outside: 5000, count: 100 };
        let maps = Some(Maps { uids: vec![extent], gids: Vec::new() });
        let caller = Caller { effective, ..Caller::default() };
        owner(&serde_json::from_str(&json).unwrap(), &Ids { user_namespace, maps, setgroups_denied: false }, &caller)
    }

    #[test]
    fn a_cgroup_changes_hands_only_when_all_conditions_hold() {
        let own = r#"{"type":"cgroup"}"#;
        assert_eq!(of(own, "", 7, 1), Some(5007));
        assert_eq!(of(own, r#""ro","rw""#, 7, 1), Some(5007));
        for (namespace, options, uid, effective) in [
            ("", "", 7, 1),
            (r#"{"type":"cgroup","path":"/proc/1/ns/cgroup"}"#, "", 7, 1),
            (own, r#""nosuid","ro""#, 7, 1),
            (own, "", 700, 1),
            (own, "", 7, 0),
        ] {
            assert_eq!(of(namespace, options, uid, effective), None, "{namespace} {options} {uid}");
        }
    }

    #[test]
    fn in_the_callers_own_user_namespace_the_user_is_the_one_inside() {
        let own = r#"{"type":"cgroup"}"#;
        assert_eq!(within(UserNamespace::Reuse, own, "", 7, 1), Some(7));
        assert_eq!(within(UserNamespace::Inherit, own, "", 7, 1), Some(7));
        assert_eq!(within(UserNamespace::Reuse, own, "", 700, 1), None);
    }
}
