//! `pura map`: ids inside and outside, in both directions.

use std::{ffi::OsStr, fs, os::unix::fs::MetadataExt as _, path::Path};

use super::{Call, living};
use crate::{
    bundle,
    cli::Map,
    error::{Code, Context as _, Error, Result},
    host::{
        Maps,
        ids::{self, Extent, ranges},
    },
    zero_config,
};

/// A line for each id.
pub(super) fn map(call: Call<'_>, map: &Map) -> Result<String> {
    let maps = if let Some(id) = &map.container {
        of_container(call, id)?
    } else {
        let (ids, warnings) = zero_config::ids(call.globals.userns)?.1?;
        call.log.warn(&warnings, true)?;
        ids.maps.unwrap_or_else(every_id)
    };
    let text = map.of.to_str().unwrap_or_default();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        let refused =
            || Error::new(Code::Usage, "read the command line", format!("{text:?} is no id: it is too large"));
        let id = text.parse().ok().filter(|id| *id != u32::MAX).ok_or_else(refused)?;
        let (kind, extents) = if map.gid { ("gid", &maps.gids) } else { ("uid", &maps.uids) };
        return Ok(inside(kind, id, extents) + &outside(kind, id, extents));
    }
    let path = bundle::absolute(Path::new(&map.of))?;
    let file = fs::symlink_metadata(&path).doing(Code::FileRefused, || format!("look at {:?}", map.of))?;
    Ok(outside("uid", file.uid(), &maps.uids) + &outside("gid", file.gid(), &maps.gids))
}

/// Without a map, as in the initial user namespace, each id is itself.
fn every_id() -> Maps {
    let all = vec![Extent { inside: 0, outside: 0, count: u32::MAX }];
    Maps { uids: all.clone(), gids: all }
}

/// As the kernel shows them here: what is outside differs with who asks.
fn of_container(call: Call<'_>, id: &OsStr) -> Result<Maps> {
    let init = living::open(call, id, "map the ids of")?.record.init.pid;
    let read = |name: &str| {
        let path = format!("/proc/{init}/{name}");
        fs::read(&path).doing(Code::Proc, || format!("read {path}")).map(|text| ids::parse(&text))
    };
    Ok(Maps { uids: read("uid_map")?, gids: read("gid_map")? })
}

fn inside(kind: &str, id: u32, map: &[Extent]) -> String {
    match map.iter().find_map(|extent| extent.outside_of(id)) {
        Some(outside) => format!("{kind} {id} inside is {outside} outside\n"),
        None => format!("{kind} {id} inside is not mapped (mapped: {})\n", ranges(map, |extent| extent.inside)),
    }
}

fn outside(kind: &str, id: u32, map: &[Extent]) -> String {
    match map.iter().find_map(|extent| extent.inside_of(id)) {
        Some(inside) => format!("{kind} {id} outside is {inside} inside\n"),
        None => format!(
            "{kind} {id} outside is not mapped, and looks like 65534 inside (mapped: {})\n",
            ranges(map, |extent| extent.outside)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_said_both_ways_and_one_that_is_not_mapped_with_those_that_are() {
        let map = [Extent { inside: 0, outside: 1000, count: 1 }, Extent { inside: 1, outside: 100_000, count: 65536 }];
        assert_eq!(inside("uid", 5, &map), "uid 5 inside is 100004 outside\n");
        assert_eq!(outside("gid", 100_999, &map), "gid 100999 outside is 1000 inside\n");
        assert_eq!(inside("uid", 70_000, &map), "uid 70000 inside is not mapped (mapped: 0, 1-65536)\n");
        let text = outside("uid", 0, &map);
        assert_eq!(text, "uid 0 outside is not mapped, and looks like 65534 inside (mapped: 1000, 100000-165535)\n");
        assert_eq!(inside("uid", 0, &[]), "uid 0 inside is not mapped (mapped: none)\n");
    }
}
