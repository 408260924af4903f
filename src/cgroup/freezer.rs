//! The freezer: every process of a cgroup and of those below it stands still. `cgroup.freeze`, Linux 5.2.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    leaf::write_line,
    members::{Watch, event},
};
use crate::error::{Code, Context as _, Error, Result};

/// How long processes may take to stop, or to go on.
const LIMIT: Duration = Duration::from_secs(10);

/// Whether the cgroup is frozen: `cgroup.events`.
pub fn is_frozen(directory: &Path) -> bool {
    event(directory, "frozen") == Some(true)
}

/// Stops every process, and waits until all stand still. On an error they go on.
pub fn freeze(directory: &Path, what: impl Fn() -> String) -> Result<()> {
    write_line(&directory.join("cgroup.freeze"), "1").doing(Code::Freezer, &what)?;
    if becomes(directory, true) {
        return Ok(());
    }
    drop(write_line(&directory.join("cgroup.freeze"), "0"));
    let why = "its processes did not stand still within 10 s: one waits for a device (state D)";
    Err(Error::new(Code::Freezer, what(), why))
}

/// Lets every process go on.
pub fn thaw(directory: &Path, what: impl Fn() -> String) -> Result<()> {
    write_line(&directory.join("cgroup.freeze"), "0").doing(Code::Freezer, &what)?;
    if becomes(directory, false) {
        return Ok(());
    }
    let why = "a cgroup above the container's is frozen";
    let text = |level: &&Path| fs::read_to_string(level.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1");
    let above = directory.ancestors().skip(1).find(text);
    let error = Error::new(Code::Freezer, what(), why);
    Err(match above {
        Some(above) => error.fix(format!("echo 0 >{}/cgroup.freeze", above.display())),
        None => error,
    })
}

/// Lets a cgroup that stays be of use to others again.
pub fn leave(directory: &Path) {
    if is_frozen(directory) {
        drop(write_line(&directory.join("cgroup.freeze"), "0"));
    }
}

/// Waits until the cgroup is frozen no more, or gone, however long that takes; a signal ends it as it ends this process.
pub fn wait_for_thaw(directory: &Path) {
    while is_frozen(directory) {
        let Ok(mut watch) = Watch::of(&directory.join("cgroup.events")) else { return };
        // Thawed between the look and the watch.
        if is_frozen(directory) {
            let _ = watch.wait(Instant::now() + LIMIT);
        }
    }
}

fn becomes(directory: &Path, frozen: bool) -> bool {
    let Ok(mut watch) = Watch::of(&directory.join("cgroup.events")) else { return false };
    let end = Instant::now() + LIMIT;
    loop {
        if event(directory, "frozen") == Some(frozen) {
            return true;
        }
        if !watch.wait(end) {
            return event(directory, "frozen") == Some(frozen);
        }
    }
}
