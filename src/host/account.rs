//! The caller's account and its subordinate ids: `subuid(5)`, `subgid(5)`, `getsubids(1)`.

use std::{
    ffi::{CStr, OsStr},
    time::{Duration, Instant},
};

use super::{
    Caller,
    ids::{Account, Range},
};
use crate::{launch::helper, sys};

/// How long getsubids, which may ask a server, is waited for: both calls together.
const LIMIT: Duration = Duration::from_secs(2);

/// The size of the block that advice names: what useradd(8) gives.
const BLOCK: u32 = 65536;

/// Looks up the account behind the caller's uid and all of its subordinate ids.
///
/// libsubid consults the source that the `subid` line of nsswitch.conf names, and the files when there is none. A
/// process costs a millisecond, so getsubids, which asks libsubid, is only started for another source than the files.
/// Then its word is final: what only the files list, newuidmap, which asks libsubid too, would refuse.
pub fn look_up(caller: &Caller) -> Account {
    let (name, primary_gid) = account(caller.uid);
    let files = [read(c"/etc/subuid"), read(c"/etc/subgid")];
    let mut account =
        Account { free: free(&files), no_mapper: !has_mappers(), name, primary_gid, ..Account::default() };
    let asked = account.name.as_deref().filter(|_| has_other_source(&read(c"/etc/nsswitch.conf"))).map(ask);
    if let Some(Some((uids, gids))) = asked {
        (account.uids, account.gids) = (uids, gids);
        return account;
    }
    account.getsubids_failed = asked.is_some();
    let number = caller.uid.to_string();
    let [uids, gids] = files.map(|text| ranges(&text, account.name.as_deref(), &number));
    (account.uids, account.gids) = (uids, gids);
    account
}

/// The text of a file; a file that cannot be read lists nothing.
fn read(path: &CStr) -> String {
    let bytes = sys::path::read_to_end(path).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The name of the account of a uid.
pub fn name(uid: u32) -> Option<String> {
    account(uid).0
}

/// Name and primary group. Users of a directory service are not in the file; getent(1) asks for them, because a static
/// binary that has getpwuid(3) load the modules of nsswitch.conf(5) crashes in some of them.
fn account(uid: u32) -> (Option<String>, Option<u32>) {
    let number = uid.to_string();
    let ask = || {
        let program = helper::find("getent").next()?;
        entry(&helper::output(&program, &[OsStr::new("passwd"), OsStr::new(&number)], LIMIT)?, uid)
    };
    let found = entry(&read(c"/etc/passwd"), uid).or_else(ask);
    found.map_or((None, None), |(name, gid)| (Some(name), gid))
}

/// Name and primary group of the line with this uid: passwd(5).
fn entry(passwd: &str, uid: u32) -> Option<(String, Option<u32>)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [name, _, id, gid, ..] = fields.as_slice() else { return None };
        (id.parse() == Ok(uid)).then(|| ((*name).to_owned(), gid.parse().ok()))
    })
}

/// Whether nsswitch.conf(5) names a source of subordinate ids besides the files. The first `subid` line counts.
fn has_other_source(nsswitch: &str) -> bool {
    let mut lines = nsswitch.lines().filter_map(|line| line.split_once(':'));
    let sources = lines.find(|(key, _)| key.eq_ignore_ascii_case("subid")).map(|(_, sources)| sources);
    sources.is_some_and(|sources| sources.split_whitespace().any(|source| source != "files"))
}

fn has_mappers() -> bool {
    helper::find("newuidmap").next().is_some() && helper::find("newgidmap").next().is_some()
}

/// What getsubids(1) says: user ids, then group ids. Nothing when it fails or takes too long.
fn ask(name: &str) -> Option<(Vec<Range>, Vec<Range>)> {
    let program = helper::find("getsubids").next()?;
    let deadline = Instant::now() + LIMIT;
    let call = |words: &[&OsStr]| {
        helper::output(&program, words, deadline.saturating_duration_since(Instant::now())).map(|text| listed(&text))
    };
    let uids = call(&[OsStr::new(name)])?;
    Some((uids, call(&[OsStr::new("-g"), OsStr::new(name)])?))
}

/// The ranges in lines such as `0: alice 100000 65536`.
fn listed(text: &str) -> Vec<Range> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().rev();
        let count = fields.next()?.parse().ok()?;
        Some(Range { first: fields.next()?.parse().ok()?, count })
    });
    lines.filter(|range| range.count > 0).collect()
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
    fn an_account_is_found_by_its_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken:x\nalice:x:1000:100::/home/alice:/bin/sh\n";
        assert_eq!(entry(passwd, 1000), Some(("alice".to_owned(), Some(100))));
        assert_eq!(entry(passwd, 100), None);
    }

    #[test]
    fn getsubids_is_started_only_for_another_source_than_the_files() {
        for (nsswitch, other) in [
            ("", false),
            ("passwd: files sss\n", false),
            ("subid: files\n", false),
            ("subid:\n", false),
            ("#subid: sss\n", false),
            ("passwd: files\nsubid: sss\n", true),
            ("SUBID:\tfiles sss\n", true),
            ("subid: files\nsubid: sss\n", false),
        ] {
            assert_eq!(has_other_source(nsswitch), other, "{nsswitch}");
        }
    }

    #[test]
    fn the_list_of_getsubids_is_read() {
        let range = |first, count| Range { first, count };
        assert_eq!(listed("0: alice 100000 65536\n1: alice 300000 10\n"), [range(100_000, 65536), range(300_000, 10)]);
        assert!(listed("No ranges found\n").is_empty());
    }

    #[test]
    fn advice_names_a_block_that_nobody_owns() {
        assert_eq!(free(&[FILE.to_owned(), String::new()]), 231_072);
        assert_eq!(free(&[String::new(), "bob:120000:65536\n".to_owned()]), 185_536);
        assert_eq!(free(&[String::new(), String::new()]), 100_000);
    }
}
