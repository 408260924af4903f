//! Socket activation: descriptors that a service manager has opened for this process, `sd_listen_fds(3)`.

use std::env::var;

/// As many as a process may have at most: `/proc/sys/fs/nr_open` is below this everywhere.
const MOST: u32 = 1 << 20;

/// How many there are, from 3 on; 0 when `LISTEN_PID` names another process, whose variables were left to us.
pub fn descriptors() -> u32 {
    let number = |name| var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return 0;
    }
    number("LISTEN_FDS").filter(|count| *count <= MOST).unwrap_or(0)
}

/// The variables that tell a program of them which is process 1.
pub(super) fn variables() -> Vec<String> {
    let count = descriptors();
    if count == 0 {
        return Vec::new();
    }
    let names = var("LISTEN_FDNAMES").ok().map(|names| format!("LISTEN_FDNAMES={names}"));
    [format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()].into_iter().chain(names).collect()
}
