//! Id maps when the config names none: all ids that are the caller's.

use oci_spec::runtime::Spec;

use super::MOST_LINES;
use crate::{
    cli::UsernsMode,
    error::{Code, Result, Warning},
    host::{
        Host, Maps,
        ids::{Account, Extent, Range},
        refusal::mapper,
    },
};

/// The maps when the config names none.
pub(super) fn automatic(spec: &Spec, host: &Host, mode: UsernsMode, warnings: &mut Vec<Warning>) -> Result<Maps> {
    let caller = &host.caller;
    let nomap = mode == UsernsMode::NoMap;
    if caller.may_map() && caller.uid == 0 && mode != UsernsMode::Single && !nomap {
        return Ok(every_id(host));
    }
    let single = |keep: bool| Maps {
        uids: vec![Extent { inside: if keep { caller.uid } else { 0 }, outside: caller.uid, count: 1 }],
        gids: vec![Extent { inside: if keep { caller.gid } else { 0 }, outside: caller.gid, count: 1 }],
    };
    let keep = mode == UsernsMode::KeepId;
    if mode == UsernsMode::Single {
        return Ok(single(false));
    }
    let account = host.account.clone().unwrap_or_default();
    warnings.extend(account_warnings(&account, caller.uid, wants_more(spec)));
    if account.uids.is_empty() || account.gids.is_empty() || account.no_mapper && !nomap {
        let reason = warnings.pop_if(|_| nomap);
        return reason
            .map_or_else(|| Ok(single(keep)), |warning| Err(warning.refuse("leave your own id out of the map")));
    }
    let mut map = |own: u32, ranges: &[Range]| {
        let (clean, split) = normalise(ranges, own);
        if split {
            let what = format!("a range of subordinate ids contains your own id {own}, and was split");
            // Uids and gids mostly have the same ranges.
            let warning = Warning::new(Code::OwnIdInRange, what);
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        if keep { keep_id(own, &clean) } else { stack((!nomap).then_some(own), &clean) }
    };
    let uids = map(caller.uid, &account.uids);
    let gids = map(caller.gid, &account.gids);
    Ok(Maps { uids, gids })
}

/// Every id of the caller's user namespace as it is: what engines of real root expect. The last id, -1, is no id.
fn every_id(host: &Host) -> Maps {
    // A line may not cross a border of the map outside: map_id_range_down() in kernel/user_namespace.c.
    let as_it_is = |map: &[Extent]| map.iter().map(|extent| Extent { outside: extent.inside, ..*extent }).collect();
    if host.initial_userns {
        let all = vec![Extent { inside: 0, outside: 0, count: u32::MAX }];
        return Maps { uids: all.clone(), gids: all };
    }
    Maps { uids: as_it_is(&host.own_maps.uids), gids: as_it_is(&host.own_maps.gids) }
}

/// Whether the config needs more than the one id that is always there.
fn wants_more(spec: &Spec) -> bool {
    spec.process().as_ref().is_some_and(|process| process.user().uid() != 0 || process.user().gid() != 0)
}

fn account_warnings(account: &Account, uid: u32, needed: bool) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if account.getsubids_failed {
        warnings.push(Warning::new(
            Code::Getsubids,
            "getsubids failed or took over 2 s; /etc/subuid and /etc/subgid were used instead",
        ));
    }
    let name = account.name.clone().unwrap_or_else(|| uid.to_string());
    let fix = format!(
        "sudo usermod --add-subuids {0}-{1} --add-subgids {0}-{1} {name}",
        account.free,
        account.free.saturating_add(65535)
    );
    match (account.uids.is_empty(), account.gids.is_empty()) {
        (true, true) if account.name.is_none() => {
            let what = format!(
                "uid {uid} has no account name, so its subordinate ids cannot be looked up; only the caller's id is mapped"
            );
            warnings.push(Warning::new(Code::NoAccount, what));
        }
        (true, true) => {
            let what = format!(
                "no subordinate ids for {name}: only the caller's own id is mapped{}",
                if needed { ", and the config uses others" } else { "" }
            );
            warnings.push(Warning::new(Code::SingleId, what).fix(fix));
        }
        (true, false) | (false, true) => {
            let what = format!(
                "{name} has subordinate uids without gids, or the reverse, so only the caller's own id is mapped"
            );
            warnings.push(Warning::new(Code::OneSidedIds, what).fix(fix));
        }
        (false, false) if account.no_mapper => {
            let what = "newuidmap and newgidmap are not installed, so only the caller's own id is mapped";
            warnings.push(Warning::new(Code::SingleId, what).fix(mapper::INSTALL));
        }
        (false, false) => {}
    }
    warnings
}

/// Sorted ranges without overlaps, split around the caller's own id; and whether that was needed.
fn normalise(ranges: &[Range], own: u32) -> (Vec<Range>, bool) {
    let mut bounds: Vec<(u64, u64)> =
        ranges.iter().map(|range| (range.first.into(), u64::from(range.first) + u64::from(range.count))).collect();
    bounds.sort_unstable();
    let own = u64::from(own);
    let mut clean: Vec<(u64, u64)> = Vec::new();
    let mut split = false;
    for (first, end) in bounds {
        let first = clean.last().map_or(first, |(_, last)| first.max(*last));
        let end = end.min(u32::MAX.into());
        if first >= end {
            continue;
        }
        if (first..end).contains(&own) {
            split = true;
            clean.extend([(first, own), (own + 1, end)].into_iter().filter(|(first, end)| first < end));
        } else {
            clean.push((first, end));
        }
    }
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let narrowed = clean.into_iter().map(|(first, end)| Range { first: narrow(first), count: narrow(end - first) });
    (narrowed.take(MOST_LINES - 2).collect(), split)
}

/// Container 0 is the caller, if it has an id there; the ranges follow.
fn stack(own: Option<u32>, ranges: &[Range]) -> Vec<Extent> {
    let mut map: Vec<_> = own.map(|own| Extent { inside: 0, outside: own, count: 1 }).into_iter().collect();
    let mut next = u32::from(own.is_some());
    for range in ranges {
        let count = range.count.min(u32::MAX - next);
        if count > 0 {
            map.push(Extent { inside: next, outside: range.first, count });
            next += count;
        }
    }
    map
}

/// The caller's id is the same inside; the ranges fill all other ids from 0 on.
fn keep_id(own: u32, ranges: &[Range]) -> Vec<Extent> {
    let mut map = Vec::new();
    let mut next = 0_u32;
    for range in ranges {
        let (mut first, mut left) = (range.first, range.count);
        while left > 0 && next < u32::MAX {
            if next == own {
                next += 1;
                continue;
            }
            let room = if next < own { own - next } else { u32::MAX - next };
            let count = left.min(room);
            map.push(Extent { inside: next, outside: first, count });
            (next, first, left) = (next + count, first.saturating_add(count), left - count);
        }
    }
    map.push(Extent { inside: own, outside: own, count: 1 });
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, count: u32) -> Range {
        Range { first, count }
    }

    fn line(inside: u32, outside: u32, count: u32) -> Extent {
        Extent { inside, outside, count }
    }

    #[test]
    fn the_caller_is_0_and_its_ranges_follow() {
        assert_eq!(
            stack(Some(1000), &[range(100_000, 65536), range(300_000, 10)]),
            [line(0, 1000, 1), line(1, 100_000, 65536), line(65537, 300_000, 10)]
        );
    }

    #[test]
    fn nomap_leaves_the_caller_out_and_is_never_less_than_that() {
        let mut host = crate::plan::sample::user();
        let maps = automatic(&Spec::default(), &host, UsernsMode::NoMap, &mut Vec::new()).unwrap();
        assert_eq!((maps.uids, maps.gids), (vec![line(0, 100_000, 65536)], vec![line(0, 100_000, 65536)]));
        host.account.as_mut().unwrap().uids.clear();
        let error = automatic(&Spec::default(), &host, UsernsMode::NoMap, &mut Vec::new()).unwrap_err();
        assert!(error.code() == Code::OneSidedIds && error.to_string().contains("usermod"), "{error}");
    }

    #[test]
    fn keep_id_leaves_the_callers_id_in_its_place() {
        assert_eq!(
            keep_id(1000, &[range(100_000, 65536)]),
            [line(0, 100_000, 1000), line(1001, 101_000, 64536), line(1000, 1000, 1)]
        );
        assert_eq!(keep_id(1000, &[range(5, 10)]), [line(0, 5, 10), line(1000, 1000, 1)]);
    }

    #[test]
    fn ranges_are_sorted_and_split_around_the_callers_id() {
        assert_eq!(
            normalise(&[range(900, 200), range(100, 50), range(120, 40)], 1000),
            (vec![range(100, 50), range(150, 10), range(900, 100), range(1001, 99)], true)
        );
        assert_eq!(normalise(&[range(5, 0)], 1000), (vec![], false));
        assert_eq!(normalise(&[range(u32::MAX - 1, 5)], 1000).0, [range(u32::MAX - 1, 1)]);
    }
}
