//! Where the host has the devices that config.json asks for, by number: names differ between hosts.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{FsFlags, statvfs};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType as Type};

/// What became of the search for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// A node with the right type and numbers, which can be opened when it is bound.
    At(PathBuf),
    /// A node, but on a mount that keeps devices shut.
    NoDev(PathBuf),
    /// The host has no such node.
    Missing,
}

/// Whether a device type is a block device; none for what is no device node.
pub fn is_block(kind: Type) -> Option<bool> {
    match kind {
        Type::B => Some(true),
        Type::C | Type::U => Some(false),
        Type::P | Type::A => None,
    }
}

/// The numbers of a device, as in `st_rdev`; none when they are out of range.
pub fn number(device: &LinuxDevice) -> Option<u64> {
    let (major, minor) = (u32::try_from(device.major()).ok()?, u32::try_from(device.minor()).ok()?);
    Some(libc::makedev(major, minor))
}

/// Looks for a device: at its own path, then by number. None for what is no device node.
pub fn look_up(device: &LinuxDevice) -> Option<Device> {
    let block = is_block(device.typ())?;
    let Some(number) = number(device) else { return Some(Device::Missing) };
    let class = if block { "block" } else { "char" };
    let numbers = format!("{}:{}", device.major(), device.minor());
    let mut shut = None;
    let named = || {
        let event = fs::read_to_string(format!("/sys/dev/{class}/{numbers}/uevent")).ok()?;
        event.lines().find_map(|line| line.strip_prefix("DEVNAME=")).map(|name| Path::new("/dev").join(name))
    };
    let first = [device.path().clone(), PathBuf::from(format!("/dev/{class}/{numbers}"))];
    for path in first.into_iter().chain(std::iter::once_with(named).flatten()) {
        if !is_it(&path, block, number) {
            continue;
        }
        if !statvfs(&path).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NODEV)) {
            return Some(Device::At(path));
        }
        shut.get_or_insert(path);
    }
    Some(shut.map_or(Device::Missing, Device::NoDev))
}

fn is_it(path: &Path, block: bool, number: u64) -> bool {
    let Ok(found) = fs::metadata(path) else { return false };
    let kind = found.file_type();
    (if block { kind.is_block_device() } else { kind.is_char_device() }) && found.rdev() == number
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceBuilder;

    #[test]
    fn a_device_is_found_by_its_numbers_whatever_its_name() {
        let look = |path: &str, kind, major, minor| {
            let device = LinuxDeviceBuilder::default().path(path).typ(kind).major(major).minor(minor).build().unwrap();
            look_up(&device)
        };
        assert_eq!(look("/dev/null", Type::C, 1, 3), Some(Device::At("/dev/null".into())));
        // Under another name, and where a node of that name is another device.
        for path in ["/dev/of-no-host", "/dev/zero"] {
            let Some(Device::At(found)) = look(path, Type::U, 1, 3) else { panic!("{path}") };
            assert_eq!(fs::metadata(found).unwrap().rdev(), libc::makedev(1, 3));
        }
        assert_eq!(look("/dev/null", Type::B, 1, 3), Some(Device::Missing));
        assert_eq!(look("/dev/null", Type::C, 511, 9999), Some(Device::Missing));
        assert_eq!(look("/dev/null", Type::C, -1, 0), Some(Device::Missing));
        assert_eq!(look("/pipe", Type::P, 0, 0), None);
    }
}
