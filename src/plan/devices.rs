//! `/dev`: the devices and links that every container has, config-linux.md "Default Devices".

use std::path::Path;

use super::{Op, Slot, Target, draft::Draft, paths::inside};
use crate::error::Result;

/// Bound from the host, because a user namespace may not make nodes: `mknod(2)`.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Where the links lead, and their names.
const LINKS: [(&str, &str); 5] = [
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

impl Draft<'_> {
    /// Binds the default devices and makes the default links; what the config has mounted there wins.
    pub(super) fn devices(&mut self) -> Result<()> {
        let dev = self.text("/dev")?;
        // An image's /dev that is a link would lead nodes and links elsewhere (CVE-2026-41579).
        self.step(Op::FindTarget { path: dev, target: Target::RealDirectory, into: Slot::DEV });
        self.step(Op::Enter(Slot::DEV));
        for node in NODES {
            if self.has_mount_on(&format!("/dev/{node}")) {
                continue;
            }
            let (source, name) = (self.text(format!("/dev/{node}"))?, self.text(node)?);
            self.step(Op::Device { source, name });
        }
        let has_proc = self.has_mount_on("/proc");
        for (target, name) in LINKS.into_iter().filter(|(target, _)| has_proc || !target.starts_with("/proc/")) {
            let (target, name) = (self.text(target)?, self.text(name)?);
            self.step(Op::Link { target, name });
        }
        Ok(())
    }

    /// Whether the config itself mounts something exactly there.
    fn has_mount_on(&self, path: &str) -> bool {
        let mounts = self.spec.mounts().as_deref().unwrap_or_default();
        mounts.iter().any(|mount| inside(mount.destination()) == Path::new(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{cli::UsernsMode, plan::sample};
    use serde_json::json;

    #[test]
    fn what_the_config_mounts_in_dev_wins_however_it_is_written() {
        for destination in ["/dev/null", "dev/null", "/dev//null", "/dev/./null", "/x/../dev/null"] {
            let mounts = json!([{"destination": destination, "source": "/etc/f", "options": ["bind"]}]);
            let spec = json!({"ociVersion": "1.3.0", "root": {"path": "r"}, "mounts": mounts});
            let spec = serde_json::from_value(spec).unwrap();
            let plan = sample::compile(&spec, sample::user(), UsernsMode::Single, false, 0).unwrap();
            let devices = plan.ops().iter().filter(|op| matches!(op, Op::Device { .. })).count();
            assert_eq!(devices, NODES.len() - 1, "{destination}");
        }
    }
}
