//! The user namespace and its id maps: the rule of docs/rootless.md. Pure.

mod automatic;
mod ladder;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType as Kind, Spec};

use crate::{
    cli::UsernsMode,
    error::{Code, Error, Result, Warning},
    host::{
        Host, Maps,
        ids::{Extent, ranges},
    },
};

pub(super) const CAP_SYS_ADMIN: u8 = 21;

/// Lines that the kernel takes: `user_namespaces(7)`, since Linux 4.15.
pub const MOST_LINES: usize = 340;

/// Who writes the maps: the first rung of the ladder that can do all that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// Init itself: its own id and nothing else, which needs no privilege.
    Init,
    /// The parent, which holds `CAP_SETUID` and `CAP_SETGID` over the ids outside.
    Parent,
    /// newuidmap and newgidmap, in parallel.
    Mappers,
}

impl Writer {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init (one id, no helper)",
            Self::Parent => "the parent",
            Self::Mappers => "newuidmap and newgidmap",
        }
    }
}

/// The container's user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserNamespace {
    /// A new one.
    Create {
        /// Its maps.
        maps: Maps,
        /// Who writes them.
        writer: Writer,
        /// `setgroups(2)` has to be denied first: CVE-2014-8989.
        deny_setgroups: bool,
    },
    /// The one at the path of `linux.namespaces[index]`.
    Join {
        /// Position in `linux.namespaces`.
        index: usize,
    },
    /// The one that owns the namespace of `linux.namespaces[index]`: members of a pod must see each other.
    JoinOwner {
        /// Position in `linux.namespaces`.
        index: usize,
    },
    /// The caller's, in which it is privileged, and which is not the initial one: a nested one would lose sysfs, mqueue
    /// and network sysctls of the caller's namespaces.
    Reuse,
    /// The caller's, because `--userns=inherit` says so.
    Inherit,
}

impl UserNamespace {
    /// The word for it in `state`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Create { .. } => "new",
            Self::Join { .. } | Self::JoinOwner { .. } => "joined",
            Self::Reuse => "reused",
            Self::Inherit => "inherited",
        }
    }
}

/// What is known about ids inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// Where they are mapped.
    pub user_namespace: UserNamespace,
    /// The maps that hold inside, when they are known.
    pub maps: Option<Maps>,
    /// `setgroups(2)` will be refused.
    pub setgroups_denied: bool,
}

impl Ids {
    /// Whether one user and one group is all that is mapped.
    pub fn is_single(&self) -> bool {
        let is_one = |map: &[Extent]| map.iter().map(|extent| u64::from(extent.count)).sum::<u64>() == 1;
        self.maps.as_ref().is_some_and(|maps| is_one(&maps.uids) && is_one(&maps.gids))
    }
}

/// Decides on the user namespace and its maps, and checks the config's ids against them.
pub fn decide(spec: &Spec, host: &Host, mode: UsernsMode) -> Result<(Ids, Vec<Warning>)> {
    let mut warnings = Vec::new();
    let mut ids = choose(spec, host, mode, &mut warnings)?;
    ids.setgroups_denied |= host.setgroups_denied;
    check(spec, &ids, &mut warnings)?;
    Ok((ids, warnings))
}

/// One row of the table each.
fn choose(spec: &Spec, host: &Host, mode: UsernsMode, warnings: &mut Vec<Warning>) -> Result<Ids> {
    let known = |user_namespace, maps: Option<Maps>| Ids { user_namespace, maps, setgroups_denied: false };
    let caller = &host.caller;
    let entry = entry(spec, Kind::User);
    if mode == UsernsMode::Inherit && entry.is_some() {
        let what = "--userns=inherit has no effect, because config.json asks for a user namespace";
        warnings.push(Warning::new(Code::Inherit, what).fix("leave \"user\" out of linux.namespaces"));
    }
    match entry {
        Some((index, true)) => return Ok(joined(host, index, UserNamespace::Join { index })),
        Some((_, false)) => return create(spec, host, mode, warnings),
        None => {}
    }
    if mode == UsernsMode::Inherit {
        warnings.push(Warning::new(
            Code::Inherit,
            "--userns=inherit: root inside is root of the user namespace that pura runs in",
        ));
        return Ok(known(UserNamespace::Inherit, Some(host.own_maps.clone()).filter(|maps| !maps.uids.is_empty())));
    }
    if let Some(index) = foreign_owner(spec, host) {
        return Ok(joined(host, index, UserNamespace::JoinOwner { index }));
    }
    let wants_less = matches!(mode, UsernsMode::Single | UsernsMode::NoMap);
    if caller.has(CAP_SYS_ADMIN) && !host.initial_userns && !wants_less {
        return Ok(known(UserNamespace::Reuse, Some(host.own_maps.clone())));
    }
    create(spec, host, mode, warnings)
}

/// The position of a kind in `linux.namespaces`, and whether it has a path.
fn entry(spec: &Spec, kind: Kind) -> Option<(usize, bool)> {
    let all = spec.linux().as_ref()?.namespaces().as_ref()?;
    let index = all.iter().position(|namespace| namespace.typ() == kind)?;
    let path = all.get(index)?.path().as_ref();
    Some((index, path.is_some_and(|path| !path.as_os_str().is_empty())))
}

fn joined(host: &Host, index: usize, user_namespace: UserNamespace) -> Ids {
    let found = host.named.namespaces.get(index).and_then(Option::as_ref);
    Ids {
        user_namespace,
        maps: found.and_then(|found| found.maps.clone()),
        setgroups_denied: found.is_some_and(|found| found.setgroups_denied),
    }
}

/// A joined namespace that another user namespace than the caller's owns.
fn foreign_owner(spec: &Spec, host: &Host) -> Option<usize> {
    let joined = host.named.namespaces.iter().map(Option::as_ref);
    let foreign = joined
        .enumerate()
        .find(|(_, joined)| joined.is_some_and(|joined| joined.owner != 0 && joined.owner != host.own_userns));
    foreign.map(|(index, _)| index).filter(|_| spec.linux().is_some())
}

/// A new user namespace: with the config's mappings, else with those that the mode and the caller's ids give.
fn create(spec: &Spec, host: &Host, mode: UsernsMode, warnings: &mut Vec<Warning>) -> Result<Ids> {
    let linux = spec.linux().as_ref();
    let lines = |lines: Option<&Vec<LinuxIdMapping>>| lines.into_iter().flatten().map(extent).collect::<Vec<_>>();
    let uids = lines(linux.and_then(|linux| linux.uid_mappings().as_ref()));
    let gids = lines(linux.and_then(|linux| linux.gid_mappings().as_ref()));
    let maps = if uids.is_empty() && gids.is_empty() {
        automatic::automatic(spec, host, mode, warnings)?
    } else {
        Maps { uids, gids }
    };
    for (name, map) in [("uidMappings", &maps.uids), ("gidMappings", &maps.gids)] {
        check_lines(map).map_err(|why| Error::new(Code::BadMap, format!("use linux.{name}"), why))?;
    }
    let writer = ladder::writer(&maps, host)?;
    // Init has no capability over the ids outside, whatever the caller has.
    let deny_setgroups = writer == Writer::Init;
    // newgidmap(1) denies it unless a line lies within the subordinate ids: the caller's own group alone is no such line.
    let mapper_denies = writer == Writer::Mappers
        && host
            .account
            .as_ref()
            .is_some_and(|account| !maps.gids.iter().any(|extent| ladder::is_within(extent, &account.gids)));
    let setgroups_denied = deny_setgroups || mapper_denies;
    let user_namespace = UserNamespace::Create { maps: maps.clone(), writer, deny_setgroups };
    Ok(Ids { user_namespace, maps: Some(maps), setgroups_denied })
}

/// A line of config.json as one of the kernel's.
pub(crate) fn extent(line: &LinuxIdMapping) -> Extent {
    Extent { inside: line.container_id(), outside: line.host_id(), count: line.size() }
}

/// Refuses what the kernel would refuse with a bare EINVAL.
pub(crate) fn check_lines(map: &[Extent]) -> std::result::Result<(), String> {
    if map.is_empty() {
        return Err("uidMappings and gidMappings go together".to_owned());
    }
    if map.len() > MOST_LINES {
        return Err(format!("{} lines, and the kernel takes {MOST_LINES}", map.len()));
    }
    for (index, extent) in map.iter().enumerate() {
        let line = format!("{} {} {}", extent.inside, extent.outside, extent.count);
        if extent.count == 0 {
            return Err(format!("the line {line:?} has size 0"));
        }
        if extent.inside.checked_add(extent.count).is_none() || extent.outside.checked_add(extent.count).is_none() {
            return Err(format!("the line {line:?} reaches beyond 32 bits"));
        }
        let overlaps = map.iter().take(index).any(|other| {
            crosses(other.inside, other.count, extent.inside, extent.count)
                || crosses(other.outside, other.count, extent.outside, extent.count)
        });
        if overlaps {
            return Err(format!("the line {line:?} overlaps another"));
        }
    }
    Ok(())
}

fn crosses(a: u32, a_count: u32, b: u32, b_count: u32) -> bool {
    let (a, b) = (u64::from(a), u64::from(b));
    a < b + u64::from(b_count) && b < a + u64::from(a_count)
}

/// Whether the program keeps the caller's supplementary groups, which no map can give it.
pub(super) fn keeps_groups(spec: &Spec) -> bool {
    let kept = spec.annotations().as_ref().and_then(|all| all.get("run.oci.keep_original_groups"));
    kept.is_some_and(|value| value != "0")
}

/// Checks the ids that the config uses against the map.
pub(super) fn check(spec: &Spec, ids: &Ids, warnings: &mut Vec<Warning>) -> Result<()> {
    let Some(process) = spec.process() else { return Ok(()) };
    let user = process.user();
    let unmapped = |name: &str, id: u32, map: &[Extent]| {
        let why = format!("{id} is not mapped inside (mapped: {})", ranges(map, |extent| extent.inside));
        Err(Error::new(Code::UserUnmapped, format!("run as {name} {id}"), why)
            .at(format!("process.user.{name}"))
            .fix("use a mapped id, or more subordinate ids"))
    };
    let (uids, gids) = ids.maps.as_ref().map(|maps| (maps.uids.as_slice(), maps.gids.as_slice())).unwrap_or_default();
    if !ids.is_uid_mapped(user.uid()) {
        return unmapped("uid", user.uid(), uids);
    }
    if !ids.is_gid_mapped(user.gid()) {
        return unmapped("gid", user.gid(), gids);
    }
    let additional = user.additional_gids().as_deref().unwrap_or_default();
    if keeps_groups(spec) {
        if !additional.is_empty() {
            let what = "additionalGids are not set, because run.oci.keep_original_groups keeps the caller's groups";
            warnings.push(Warning::new(Code::GroupsKept, what));
        }
        return Ok(());
    }
    if ids.setgroups_denied {
        let lost: Vec<_> = additional.iter().filter(|gid| **gid != user.gid()).collect();
        if !lost.is_empty() {
            let what = format!("additionalGids {lost:?} are not set, because setgroups is denied here");
            warnings.push(Warning::new(Code::GroupsDropped, what));
        }
        return Ok(());
    }
    match additional.iter().find(|gid| !ids.is_gid_mapped(**gid)) {
        Some(gid) => unmapped("additionalGids", *gid, gids),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ids::{Account, Range};

    fn range(first: u32, count: u32) -> Range {
        Range { first, count }
    }

    fn line(inside: u32, outside: u32, count: u32) -> Extent {
        Extent { inside, outside, count }
    }

    #[test]
    fn lines_that_the_kernel_would_refuse_are_named() {
        for (map, word) in [
            (vec![line(0, 1000, 0)], "size 0"),
            (vec![line(u32::MAX, 1000, 2)], "32 bits"),
            (vec![line(0, 1000, 10), line(5, 2000, 10)], "overlaps"),
            (vec![line(0, 1000, 10), line(20, 1005, 10)], "overlaps"),
            ((0..341).map(|id| line(id, id + 1000, 1)).collect(), "341 lines"),
        ] {
            let why = check_lines(&map).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }

    fn host(uid: u32, effective: u64, initial: bool, ranges: &[Range]) -> Host {
        let mut host = Host { initial_userns: initial, own_userns: 1, ..Host::default() };
        host.caller.uid = uid;
        host.caller.gid = uid;
        host.caller.effective = effective;
        let account = Account {
            name: Some("alice".to_owned()),
            uids: ranges.to_vec(),
            gids: ranges.to_vec(),
            free: 165_536,
            ..Account::default()
        };
        host.account = Some(account);
        host.own_maps = Maps {
            uids: vec![line(0, 1000, 1), line(1, 100_000, 65536)],
            gids: vec![line(0, 1000, 1), line(1, 100_000, 65536)],
        };
        host
    }

    fn spec(json: &str) -> Spec {
        serde_json::from_str(json).unwrap()
    }

    const PLAIN: &str = r#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"pid"}]}}"#;
    const USER: &str = r#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"user"}]}}"#;
    const ALL: u64 = u64::MAX;

    /// One row of the rule: config, uid, capabilities, initial namespace, mode; what comes out.
    #[test]
    fn each_row_of_the_user_namespace_rule() {
        let some = [range(100_000, 65536)];
        let row = |json, uid, caps, initial, mode, ranges: &[Range]| {
            let (ids, warnings) = decide(&spec(json), &host(uid, caps, initial, ranges), mode).unwrap();
            let writer = if let UserNamespace::Create { writer, .. } = ids.user_namespace {
                writer.name()
            } else {
                ids.user_namespace.word()
            };
            (writer, warnings.iter().map(Warning::code).collect::<Vec<_>>())
        };
        let (init, parent, mappers) = (Writer::Init.name(), Writer::Parent.name(), Writer::Mappers.name());
        assert_eq!(row(PLAIN, 1000, 0, true, UsernsMode::Unset, &some), (mappers, vec![]));
        assert_eq!(row(PLAIN, 1000, 0, true, UsernsMode::Unset, &[]), (init, vec![Code::SingleId]));
        assert_eq!(row(PLAIN, 1000, 0, true, UsernsMode::Single, &some), (init, vec![]));
        assert_eq!(row(USER, 1000, 0, false, UsernsMode::Unset, &some), (mappers, vec![]));
        assert_eq!(row(PLAIN, 0, ALL, false, UsernsMode::Unset, &[]), ("reused", vec![]));
        assert_eq!(row(PLAIN, 0, ALL, false, UsernsMode::KeepId, &[]), ("reused", vec![]));
        assert_eq!(row(PLAIN, 0, ALL, false, UsernsMode::Single, &[]), (parent, vec![]));
        assert_eq!(row(PLAIN, 1000, 0, true, UsernsMode::NoMap, &some), (mappers, vec![]));
        assert_eq!(row(PLAIN, 0, ALL, true, UsernsMode::Unset, &[]), (parent, vec![]));
        assert_eq!(row(PLAIN, 0, ALL, true, UsernsMode::Inherit, &[]), ("inherited", vec![Code::Inherit]));
    }

    #[test]
    fn ids_outside_the_map_are_refused_with_the_map() {
        let json = r#"{"ociVersion":"1.0.0","process":{"user":{"uid":70000,"gid":0},"cwd":"/"},"linux":{"namespaces":[{"type":"user"}]}}"#;
        let error = decide(&spec(json), &host(1000, 0, true, &[range(100_000, 65536)]), UsernsMode::Unset).unwrap_err();
        assert_eq!(error.code(), Code::UserUnmapped);
        assert!(error.to_string().contains("mapped: 0, 1-65536"), "{error}");
    }

    #[test]
    fn ids_of_others_are_refused_with_ones_own() {
        let json = r#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"user"}],
            "uidMappings":[{"containerID":0,"hostID":1,"size":65536}],"gidMappings":[{"containerID":0,"hostID":1,"size":65536}]}}"#;
        let error = decide(&spec(json), &host(1000, 0, true, &[range(100_000, 65536)]), UsernsMode::Unset).unwrap_err();
        assert!(error.to_string().contains("cannot map uids 0-65535 to 1-65536"), "{error}");
        assert!(error.to_string().contains("yours are 1000, 100000-165535"), "{error}");
    }

    #[test]
    fn lines_over_adjoining_ranges_are_ones_own() {
        let ranges = [range(165_536, 10), range(100_000, 65536)];
        for (outside, count, owned) in [
            (100_000, 65546, true),
            (165_530, 10, true),
            (99_999, 2, false),
            (165_540, 7, false),
            (1000, 1, true),
            (1000, 2, false),
        ] {
            assert_eq!(ladder::is_owned(&line(0, outside, count), &ranges, 1000), owned, "{outside} {count}");
        }
    }

    #[test]
    fn setgroups_is_known_to_be_denied() {
        let mapped = |uids: &str, gids: &str| {
            format!(
                r#"{{"ociVersion":"1.0.0","linux":{{"namespaces":[{{"type":"user"}}],"uidMappings":[{uids}],"gidMappings":[{gids}]}}}}"#
            )
        };
        let (own, many) =
            (r#"{"containerID":0,"hostID":1000,"size":1}"#, r#"{"containerID":1,"hostID":100000,"size":65536}"#);
        let both = format!("{own},{many}");
        for (json, caps, denied) in [
            (mapped(own, own), 0, true),
            (mapped(own, own), 1 << 6, true),
            (mapped(own, own), ALL, false),
            (mapped(&both, &both), 0, false),
            (mapped(&both, own), 0, true),
            (PLAIN.to_owned(), 0, false),
        ] {
            let host = host(1000, caps & !(1 << CAP_SYS_ADMIN), true, &[range(100_000, 65536)]);
            let (ids, _) = decide(&spec(&json), &host, UsernsMode::Unset).unwrap();
            assert_eq!(ids.setgroups_denied, denied, "{json} {caps:x}");
        }
        let mut nested = host(0, ALL, false, &[]);
        nested.setgroups_denied = true;
        for json in [PLAIN, USER] {
            assert!(decide(&spec(json), &nested, UsernsMode::Unset).unwrap().0.setgroups_denied, "{json}");
        }
    }

    #[test]
    fn root_of_a_nested_namespace_maps_all_that_it_has() {
        let (ids, warnings) = decide(&spec(USER), &host(0, ALL, false, &[]), UsernsMode::Unset).unwrap();
        assert_eq!(ids.maps.unwrap().uids, [line(0, 0, 1), line(1, 1, 65536)]);
        assert!(warnings.is_empty());
    }

    #[test]
    fn groups_that_cannot_be_set_are_a_warning_only_when_something_is_lost() {
        for (gids, warned) in [("[0]", 0), ("[44]", 1)] {
            let json = format!(
                r#"{{"ociVersion":"1.0.0","process":{{"user":{{"uid":0,"gid":0,"additionalGids":{gids}}},"cwd":"/"}},"linux":{{"namespaces":[{{"type":"user"}}]}}}}"#
            );
            let (_, warnings) = decide(&spec(&json), &host(1000, 0, true, &[]), UsernsMode::Single).unwrap();
            assert_eq!(warnings.len(), warned, "{gids}");
        }
    }

    #[test]
    fn init_denies_setgroups_whatever_its_caller_may_do() {
        const SETGID: u64 = 1 << 6;
        let own = host(1000, SETGID, true, &[]);
        let (ids, _) = decide(&spec(USER), &own, UsernsMode::Single).unwrap();
        let UserNamespace::Create { writer, deny_setgroups, .. } = ids.user_namespace else { panic!("{ids:?}") };
        assert!(writer == Writer::Init && deny_setgroups && ids.setgroups_denied);
    }
}
