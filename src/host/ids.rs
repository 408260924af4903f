//! Id maps as data, and where subordinate ids come from.

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
    /// `getsubids` failed or took too long, so the files were read.
    pub getsubids_failed: bool,
}
