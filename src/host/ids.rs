//! Id maps as data, and where subordinate ids come from.

use std::fmt::Write as _;

/// One line of `uid_map` or `gid_map`: `user_namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First id inside.
    pub inside: u32,
    /// First id outside, as the caller's user namespace counts.
    pub outside: u32,
    /// Number of ids, at least 1.
    pub count: u32,
}

impl Extent {
    /// The id inside that `outside` is mapped to.
    pub fn inside_of(&self, outside: u32) -> Option<u32> {
        let offset = outside.checked_sub(self.outside).filter(|offset| *offset < self.count)?;
        self.inside.checked_add(offset)
    }

    /// The id outside that `inside` is mapped to.
    pub fn outside_of(&self, inside: u32) -> Option<u32> {
        let offset = inside.checked_sub(self.inside).filter(|offset| *offset < self.count)?;
        self.outside.checked_add(offset)
    }
}

/// The text of a map, as the kernel takes it: "inside outside count", one per line.
pub fn lines(extents: &[Extent]) -> String {
    extents.iter().fold(String::new(), |mut text, extent| {
        let _ = writeln!(text, "{} {} {}", extent.inside, extent.outside, extent.count);
        text
    })
}

/// The map in the text that the kernel shows; lines that are none are left out.
pub fn parse(text: &[u8]) -> Vec<Extent> {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let extents = lines.filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some(Extent { inside: numbers.next()?.ok()?, outside: numbers.next()?.ok()?, count: numbers.next()?.ok()? })
    });
    extents.filter(|extent: &Extent| extent.count > 0).collect()
}

/// The ids of one side of a map, for people: `0, 1-65536`.
pub fn ranges(map: &[Extent], first: impl Fn(&Extent) -> u32) -> String {
    let range = |extent: &Extent| {
        let (first, last) = (first(extent), u64::from(first(extent)) + u64::from(extent.count) - 1);
        if extent.count == 1 { first.to_string() } else { format!("{first}-{last}") }
    };
    if map.is_empty() {
        return "none".to_owned();
    }
    map.iter().map(range).collect::<Vec<_>>().join(", ")
}

/// Consecutive subordinate ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First id.
    pub first: u32,
    /// Number of ids.
    pub count: u32,
}

/// The caller in the eyes of the account database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Login name; none when the uid has no account.
    pub name: Option<String>,
    /// Primary group of the account.
    pub primary_gid: Option<u32>,
    /// Subordinate user ids, in the order found.
    pub uids: Vec<Range>,
    /// Subordinate group ids, in the order found.
    pub gids: Vec<Range>,
    /// First id of a block of 65536 that nobody owns, in both files: for advice.
    pub free: u32,
    /// newuidmap or newgidmap is not installed.
    pub no_mapper: bool,
    /// `getsubids` failed or took too long, so the files were read.
    pub getsubids_failed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_survives_the_kernels_form() {
        let map = [Extent { inside: 0, outside: 1000, count: 1 }, Extent { inside: 1, outside: 100_000, count: 65536 }];
        assert_eq!(parse(lines(&map).as_bytes()), map);
        assert_eq!(parse(b"         0       1000          1\n"), map[..1]);
        assert!(parse(b"0 x 1\n-1 0 1\n0 0 0\n").is_empty());
    }

    #[test]
    fn an_id_is_translated_both_ways_within_the_extent_only() {
        let extent = Extent { inside: 10, outside: 100, count: 5 };
        assert_eq!((extent.outside_of(14), extent.outside_of(15), extent.outside_of(9)), (Some(104), None, None));
        assert_eq!((extent.inside_of(100), extent.inside_of(105)), (Some(10), None));
    }
}
