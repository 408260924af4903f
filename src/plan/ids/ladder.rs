//! The ladder: who writes the maps. The first rung that can do all that is asked.

use super::Writer;
use crate::{
    error::{Code, Error, Result},
    host::{
        Host, Maps,
        ids::{Account, Extent, Range},
        refusal::mapper,
    },
};

/// The first rung that can do all that is asked.
pub(super) fn writer(maps: &Maps, host: &Host) -> Result<Writer> {
    let caller = &host.caller;
    let is_own = |map: &[Extent], own: u32| matches!(map, [extent] if extent.count == 1 && extent.outside == own);
    if caller.may_map() {
        return Ok(Writer::Parent);
    }
    if is_own(&maps.uids, caller.uid) && is_own(&maps.gids, caller.gid) {
        return Ok(Writer::Init);
    }
    let Some(account) = &host.account else { return Ok(Writer::Mappers) };
    for (kind, map, owned, own) in
        [("uid", &maps.uids, &account.uids, caller.uid), ("gid", &maps.gids, &account.gids, caller.gid)]
    {
        if let Some(foreign) = map.iter().find(|extent| !is_owned(extent, owned, own)) {
            return Err(foreign_ids(kind, *foreign, owned, own, account));
        }
    }
    if account.no_mapper {
        return Err(mapper::missing("newuidmap and newgidmap are"));
    }
    Ok(Writer::Mappers)
}

/// Whether a mapper will agree: newuidmap(1) takes the caller's own id, and lines within its ranges.
pub(super) fn is_owned(extent: &Extent, owned: &[Range], own: u32) -> bool {
    (extent.count == 1 && extent.outside == own) || is_within(extent, owned)
}

/// Whether ranges, which may adjoin, cover the whole line.
pub(super) fn is_within(extent: &Extent, owned: &[Range]) -> bool {
    let bounds = |range: &Range| (u64::from(range.first), u64::from(range.first) + u64::from(range.count));
    let (mut first, end) = (u64::from(extent.outside), u64::from(extent.outside) + u64::from(extent.count));
    // Each turn passes the end of one range at least, so there are at most as many.
    while first < end {
        let Some((_, last)) = owned.iter().map(bounds).find(|(from, to)| (*from..*to).contains(&first)) else {
            return false;
        };
        first = last;
    }
    true
}

fn foreign_ids(kind: &str, foreign: Extent, owned: &[Range], own: u32, account: &Account) -> Error {
    let last = |first: u32, count: u32| u64::from(first) + u64::from(count) - 1;
    let what = format!(
        "map {kind}s {}-{} to {}-{}",
        foreign.inside,
        last(foreign.inside, foreign.count),
        foreign.outside,
        last(foreign.outside, foreign.count)
    );
    let mut yours = vec![own.to_string()];
    yours.extend(owned.iter().map(|range| format!("{}-{}", range.first, last(range.first, range.count))));
    let error = Error::new(Code::ForeignIds, what, format!("yours are {}", yours.join(", ")))
        .at(format!("linux.{kind}Mappings"));
    match &account.name {
        Some(name) if owned.is_empty() => error.fix(format!(
            "sudo usermod --add-subuids {0}-{1} --add-subgids {0}-{1} {name}",
            account.free,
            account.free.saturating_add(65535)
        )),
        _ => error.fix("map only ids that are yours, or leave the mappings out"),
    }
}
