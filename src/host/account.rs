//! The caller's account and its subordinate ids: `subuid(5)`, `subgid(5)`, `getsubids(1)`.

use std::{ffi::OsStr, fs};

use nix::poll::PollTimeout;

use super::{
    Caller,
    ids::{Account, Range},
};
use crate::launch::helper;

/// How long getsubids, which may ask a server, is waited for.
const LIMIT: u16 = 2000;

/// The size of the block that advice names: what useradd(8) gives.
const BLOCK: u32 = 65536;

/// Looks up the account behind the caller's uid and all of its subordinate ids.
///
/// libsubid consults the source that the `subid` line of nsswitch.conf names, and the files when there is none. A
/// process costs a millisecond, so getsubids, which asks libsubid, is only started for another source than the files.
pub fn look_up(caller: &Caller) -> Account {
    let (name, primary_gid) = account(caller.uid);
    let files = [read("/etc/subuid"), read("/etc/subgid")];
    let mut account =
        Account { free: free(&files), no_mapper: !has_mappers(), name, primary_gid, ..Account::default() };
    if let (true, Some(name)) = (has_other_source(), account.name.clone()) {
        match (getsubids(&[OsStr::new(&name)]), getsubids(&[OsStr::new("-g"), OsStr::new(&name)])) {
            (Some(uids), Some(gids)) => (account.uids, account.gids) = (uids, gids),
            _ => account.getsubids_failed = true,
        }
    }
    let [subuid, subgid] = &files;
    if account.uids.is_empty() && account.gids.is_empty() {
        let number = caller.uid.to_string();
        let own = |text: &str| ranges(text, account.name.as_deref(), &number);
        (account.uids, account.gids) = (own(subuid), own(subgid));
    }
    account
}

fn read(path: &str) -> String {
    fs::read(path).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Name and primary group. The file first: a static binary has no business with NSS modules, but users of a directory
/// service are nowhere else, so getpwuid(3) is the last resort.
fn account(uid: u32) -> (Option<String>, Option<u32>) {
    let passwd = read("/etc/passwd");
    let found = passwd.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [name, _, id, gid, ..] = fields.as_slice() else { return None };
        (id.parse() == Ok(uid)).then(|| ((*name).to_owned(), gid.parse().ok()))
    });
    if let Some((name, gid)) = found {
        return (Some(name), gid);
    }
    let user = uzers::get_user_by_uid(uid);
    user.map_or((None, None), |user| (Some(user.name().to_string_lossy().into_owned()), Some(user.primary_group_id())))
}

/// Whether nsswitch.conf(5) names a source of subordinate ids besides the files.
fn has_other_source() -> bool {
    let text = read("/etc/nsswitch.conf");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("subid:"));
    line.is_some_and(|sources| sources.split_whitespace().any(|source| source != "files"))
}

fn has_mappers() -> bool {
    helper::find("newuidmap").next().is_some() && helper::find("newgidmap").next().is_some()
}

/// Lines such as `0: alice 100000 65536`.
fn getsubids(words: &[&OsStr]) -> Option<Vec<Range>> {
    let program = helper::find("getsubids").next()?;
    let text = helper::output(&program, words, PollTimeout::from(LIMIT))?;
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().rev();
        let count = fields.next()?.parse().ok()?;
        Some(Range { first: fields.next()?.parse().ok()?, count })
    });
    Some(lines.collect())
}

/// All ranges of a user: the entries by name, then those by number.
fn ranges(text: &str, name: Option<&str>, number: &str) -> Vec<Range> {
    let of = |who: &str| entries(text).filter(|(owner, _)| *owner == who).map(|(_, range)| range).collect::<Vec<_>>();
    let mut found = name.map(of).unwrap_or_default();
    if name != Some(number) {
        found.extend(of(number));
    }
    found
}

fn entries(text: &str) -> impl Iterator<Item = (&str, Range)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range = Range { first: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? };
        (range.count > 0).then_some((owner, range))
    })
}

/// The first block that nobody owns in either file, from where useradd(8) begins.
fn free(files: &[String; 2]) -> u32 {
    let mut taken: Vec<Range> = files.iter().flat_map(|text| entries(text).map(|(_, range)| range)).collect();
    taken.sort_unstable_by_key(|range| range.first);
    taken.iter().fold(100_000, |free: u32, range| {
        let meets = range.first < free.saturating_add(BLOCK) && free < range.first.saturating_add(range.count);
        if meets { range.first.saturating_add(range.count) } else { free }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "alice:100000:65536\n1000:300000:10\nbob:165536:65536\nalice:400000:5\nbroken\nalice:x:1\nalice:5:0\n";

    #[test]
    fn all_ranges_of_a_user_are_found_by_name_and_by_number() {
        let range = |first, count| Range { first, count };
        assert_eq!(ranges(FILE, Some("alice"), "1000"), [range(100_000, 65536), range(400_000, 5), range(300_000, 10)]);
        assert_eq!(ranges(FILE, None, "1000"), [range(300_000, 10)]);
        assert!(ranges(FILE, Some("carol"), "1001").is_empty());
    }

    #[test]
    fn advice_names_a_block_that_nobody_owns() {
        assert_eq!(free(&[FILE.to_owned(), String::new()]), 231_072);
        assert_eq!(free(&[String::new(), "bob:120000:65536\n".to_owned()]), 185_536);
        assert_eq!(free(&[String::new(), String::new()]), 100_000);
    }
}
