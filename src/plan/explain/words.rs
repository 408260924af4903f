//! Flags and masks in words.

use std::ffi::CStr;

use super::lossy;
use crate::sys::process::Attribute;

pub(super) fn attribute_words(attribute: Attribute, value: u64) -> String {
    match (attribute, value) {
        (Attribute::DeathSignal, 0) => "outlive the parent",
        (Attribute::DeathSignal, _) => "die with the parent",
        (Attribute::Dumpable, 1) => "stay visible to the caller",
        (Attribute::Dumpable, _) => "hide from processes of the same ids",
        (Attribute::KeepCapabilities, 0) => "forget the capabilities at the next change of user",
        (Attribute::KeepCapabilities, _) => "keep the capabilities over the change of user",
        (Attribute::NoNewPrivileges, _) => "set no_new_privs",
    }
    .to_owned()
}

pub(super) fn propagation(flags: u64) -> &'static str {
    let words = [
        (libc::MS_PRIVATE, "private"),
        (libc::MS_SLAVE, "slave"),
        (libc::MS_SHARED, "shared"),
        (libc::MS_UNBINDABLE, "unbindable"),
    ];
    words.into_iter().find(|(flag, _)| flags & flag != 0).map_or("unchanged", |(_, word)| word)
}

pub(super) fn words(flags: u64, data: &CStr) -> String {
    let named = [
        (libc::MS_RDONLY, "ro"),
        (libc::MS_NOSUID, "nosuid"),
        (libc::MS_NODEV, "nodev"),
        (libc::MS_NOEXEC, "noexec"),
        (libc::MS_SYNCHRONOUS, "sync"),
        (libc::MS_DIRSYNC, "dirsync"),
        (libc::MS_NOATIME, "noatime"),
        (libc::MS_NODIRATIME, "nodiratime"),
        (libc::MS_RELATIME, "relatime"),
        (libc::MS_STRICTATIME, "strictatime"),
        (libc::MS_LAZYTIME, "lazytime"),
        (256, "nosymfollow"),
    ];
    let flags = named.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, word)| (*word).to_owned());
    let data = Some(lossy(data)).filter(|data| !data.is_empty());
    let all: Vec<_> = flags.chain(data).collect();
    if all.is_empty() { "defaults".to_owned() } else { all.join(",") }
}

pub(super) fn attributes(set: u64, clear: u64) -> String {
    let named = [
        (libc::MOUNT_ATTR_RDONLY, "ro"),
        (libc::MOUNT_ATTR_NOSUID, "nosuid"),
        (libc::MOUNT_ATTR_NODEV, "nodev"),
        (libc::MOUNT_ATTR_NOEXEC, "noexec"),
        (libc::MOUNT_ATTR_NODIRATIME, "nodiratime"),
        (libc::MOUNT_ATTR_NOATIME, "noatime"),
        (libc::MOUNT_ATTR_STRICTATIME, "strictatime"),
        (libc::MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"),
    ];
    let list = |mask: u64, sign: char| {
        named.iter().filter(move |(flag, _)| mask & flag != 0).map(move |(_, word)| format!("{sign}{word}"))
    };
    let all: Vec<_> = list(set, '+').chain(list(clear, '-')).collect();
    all.join(" ")
}

pub(super) fn capabilities(mask: u64) -> String {
    let names = caps::all().into_iter().filter(|capability| mask & capability.bitmask() != 0);
    let mut names: Vec<_> =
        names.map(|capability| capability.to_string().trim_start_matches("CAP_").to_lowercase()).collect();
    names.sort_unstable();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

pub(super) fn limit(value: u64) -> String {
    if value == libc::RLIM64_INFINITY { "unlimited".to_owned() } else { value.to_string() }
}
