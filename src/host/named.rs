//! Probing what config.json names.

use std::{
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxNamespaceType as Kind, Mount, Spec};

use super::Named;
use crate::{plan::limit_number, sys};

/// What the paths of the config lead to. What it does not use costs nothing.
pub(super) fn named(spec: &Spec, bundle: &Path, own_userns: u64) -> Named {
    let (root, root_link) = spec.root().as_ref().map(|root| at_root(&bundle.join(root.path()))).unwrap_or_default();
    let mut found = Named::default();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let source = source(index, mount, bundle, &mut found);
        found.sources.push(source);
    }
    let namespaces =
        spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten().map(|namespace| {
            let path = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty());
            path.map(|path| super::probe::joined(path, own_userns))
        });
    let process = spec.process().as_ref();
    let limits = process.into_iter().flat_map(|process| process.rlimits().iter().flatten());
    let limits = limits.map(|limit| sys::process::rlimit(limit_number(limit.typ())).unwrap_or((u64::MAX, u64::MAX)));
    let linux = spec.linux().as_ref();
    let listed = linux.and_then(|linux| linux.namespaces().as_ref());
    let has_time = listed.is_some_and(|listed| listed.iter().any(|namespace| namespace.typ() == Kind::Time));
    let keeps_pid = listed.is_none_or(|listed| listed.iter().all(|namespace| namespace.typ() != Kind::Pid));
    let owns_pid = keeps_pid && super::probe::joined(Path::new("/proc/self/ns/pid"), own_userns).owner == own_userns;
    let Named { apparmor, selinux, .. } = super::probe::modules(spec);
    let devices = linux.into_iter().flat_map(|linux| linux.devices().iter().flatten()).map(super::devices::look_up);
    let devices: Vec<_> = devices.collect();
    found.nodes.extend(nodes(&devices));
    let host_namespaces = if linux.is_some_and(|linux| linux.sysctl().as_ref().is_some_and(|all| !all.is_empty())) {
        host_namespaces()
    } else {
        Vec::new()
    };
    Named {
        root,
        root_link,
        limits: limits.collect(),
        oom_score: super::probe::oom_score(spec),
        nice: super::probe::nice(spec),
        has_time: has_time && Path::new("/proc/self/ns/time_for_children").exists(),
        apparmor,
        selinux,
        namespaces: namespaces.collect(),
        owns_pid,
        has_core: Path::new("/proc/kcore").exists(),
        devices,
        host_namespaces,
        network: super::network::network(spec, own_userns),
        resctrl: linux.and_then(|linux| linux.intel_rdt().as_ref()).and_then(|_| resctrl()),
        ..found
    }
}

/// What the source of a bind is, and what else its options make matter.
fn source(index: usize, mount: &Mount, bundle: &Path, found: &mut Named) -> Option<super::Kind> {
    let words = mount.options().as_deref().unwrap_or_default();
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
    let bind = has(&["bind", "rbind"]) || matches!(mount.typ().as_deref(), Some("bind" | "rbind"));
    let source = mount.source().as_ref().filter(|source| bind && !source.as_os_str().is_empty())?;
    let path = bundle.join(source);
    if mount.uid_mappings().is_some() || words.iter().any(|word| word.trim_start_matches('r').starts_with("idmap")) {
        found.filesystems.push((index, filesystem(&path).unwrap_or_else(|| "of this kind".to_owned())));
    }
    if has(&["copy-symlink", "src-nofollow"])
        && let Ok(says) = fs::read_link(&path)
    {
        found.links.push((index, says));
        return Some(super::Kind::File);
    }
    let file = fs::metadata(&path);
    found.nodes.extend(file.as_ref().ok().and_then(|file| node(format!("mounts[{index}]"), &path, file)));
    Some(judged(file))
}

/// Who may open a device; none for what is no device.
fn node(place: String, path: &Path, file: &fs::Metadata) -> Option<super::Node> {
    let is_device = file.file_type().is_char_device() || file.file_type().is_block_device();
    is_device.then(|| super::Node {
        place,
        path: path.to_owned(),
        uid: file.uid(),
        gid: file.gid(),
        mode: file.mode() & 0o777,
    })
}

/// The same for those of `linux.devices` that the host has.
fn nodes(devices: &[Option<super::devices::Device>]) -> Vec<super::Node> {
    let at = devices.iter().enumerate().filter_map(|(index, device)| match device {
        Some(super::devices::Device::At(path)) => {
            node(format!("linux.devices[{index}]"), path, &fs::metadata(path).ok()?)
        }
        _ => None,
    });
    at.collect()
}

/// The type of the filesystem at a path: `proc_pid_mountinfo(5)`.
fn filesystem(path: &Path) -> Option<String> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    let mount = sys::path::mount_id(&path).ok()?.to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(&mount))?;
    line.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}

/// Where resctrl is mounted: `proc_pid_mountinfo(5)`.
fn resctrl() -> Option<PathBuf> {
    resctrl_in(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

fn resctrl_in(mounts: &str) -> Option<PathBuf> {
    let line =
        mounts.lines().find(|line| line.split_once(" - ").is_some_and(|(_, rest)| rest.starts_with("resctrl ")))?;
    // Of the characters that the kernel writes in octal, a mount point has mostly none.
    Some(line.split(' ').nth(4)?.replace("\\040", " ").into())
}

fn host_namespaces() -> Vec<u64> {
    let inode = |process: &str, name: &str| fs::metadata(format!("/proc/{process}/ns/{name}")).map(|found| found.ino());
    let names = ["net", "ipc", "uts"];
    // Process 1 shows its namespaces only to real root, who alone could harm them.
    ["self", "1"].iter().flat_map(|process| names.iter().filter_map(move |name| inode(process, name).ok())).collect()
}

/// What is at the root's path; and, where its last part is a link, where that leads: nothing is mounted on a link.
fn at_root(path: &Path) -> (Option<super::Kind>, Option<PathBuf>) {
    let found = fs::symlink_metadata(path);
    if !found.as_ref().is_ok_and(fs::Metadata::is_symlink) {
        return (Some(judged(found)), None);
    }
    // What is open has one path, whatever becomes of the link.
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
    let leads = opened.and_then(|opened| fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())));
    (Some(kind(leads.as_deref().unwrap_or(path))), leads.ok())
}

fn kind(path: &Path) -> super::Kind {
    judged(fs::metadata(path))
}

fn judged(found: io::Result<fs::Metadata>) -> super::Kind {
    match found {
        Ok(file) if file.is_dir() => super::Kind::Directory,
        Ok(_) => super::Kind::File,
        Err(error) if error.kind() == io::ErrorKind::NotFound => super::Kind::Missing,
        Err(error) => super::Kind::Refused(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resctrl_is_found_by_its_type_and_not_by_its_name() {
        let mounts = "24 1 0:22 / /sys rw shared:7 - sysfs sysfs rw\n\
                      31 24 0:29 / /sys/fs/resctrl rw,relatime - tmpfs resctrl rw\n";
        assert_eq!(resctrl_in(mounts), None);
        let mounts = mounts.to_owned() + "40 24 0:30 / /mnt/a\\040b rw shared:9 master:1 - resctrl resctrl rw\n";
        assert_eq!(resctrl_in(&mounts), Some("/mnt/a b".into()));
    }
}
