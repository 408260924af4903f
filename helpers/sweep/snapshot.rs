//! What there is besides processes: files, cgroups and mounts. Two of them tell what has been left.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// One line for each thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Of the files below `dir`, but for output, of cgroups that name `id`, and of mounts that name `dir`.
    pub(crate) fn of(dir: &Path, cgroups: Option<&Path>, id: &str) -> Result<Self> {
        let mut all = BTreeSet::new();
        walk(dir, &mut |path| {
            let is_output = path == dir.join("out");
            if !is_output {
                all.insert(format!("file {}", path.strip_prefix(dir).unwrap_or(path).display()));
            }
            !is_output
        });
        if let Some(cgroups) = cgroups {
            walk(cgroups, &mut |path| {
                if path.is_dir() && path.to_string_lossy().contains(id) {
                    all.insert(format!("cgroup {}", path.display()));
                }
                path.is_dir()
            });
        }
        let mark = dir.to_string_lossy();
        for line in fs::read_to_string("/proc/self/mountinfo")?.lines().filter(|line| line.contains(&*mark)) {
            all.insert(format!("mount {line}"));
        }
        Ok(Self(all))
    }

    /// What is there, and was not before; and what was.
    pub(crate) fn since(&self, before: &Self) -> Vec<String> {
        let new = self.0.difference(&before.0).cloned();
        new.chain(before.0.difference(&self.0).map(|line| format!("gone: {line}"))).collect()
    }
}

/// Shows each path below a directory, and enters those for which `wants` says so.
fn walk(dir: &Path, wants: &mut impl FnMut(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if wants(&path) && path.is_dir() && !path.is_symlink() {
            walk(&path, wants);
        }
    }
}

/// The directory in which this process may make cgroups, if there is one.
pub(crate) fn delegated() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let above = Path::new("/sys/fs/cgroup").join(own).parent()?.to_path_buf();
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&above).ok()?);
    (above.join("cgroup.procs").exists() && above != Path::new("/sys/fs/cgroup") && owner != 0).then_some(above)
}
