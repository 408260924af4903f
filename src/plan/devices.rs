//! `/dev`: the devices and links that every container has, config-linux.md "Default Devices".

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path},
};

use oci_spec::runtime::LinuxDevice;

use super::{Input, NewNode, Op, Slot, Target, draft::Draft, mounts::SWEEP_EVERY, paths::inside};
use crate::{
    error::{Code, Error, Result, Warning},
    host::{
        Node,
        devices::{self, Device},
    },
};

const CAP_MKNOD: u8 = 27;

/// Bound from the host, because a user namespace may not make nodes: `mknod(2)`.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Where the links lead, and their names.
const LINKS: [(&str, &str); 6] = [
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    CORE,
];

/// The kernel can be built without it.
const CORE: (&str, &str) = ("/proc/kcore", "core");

impl<'a> Draft<'a> {
    /// Binds and makes the devices of the config, which go before the default ones.
    fn own_devices(&mut self) -> Result<()> {
        for (index, device) in self.own().iter().enumerate() {
            if index > 0 && index % SWEEP_EVERY == 0 {
                self.step(Op::Sweep { kept: u16::MAX });
            }
            self.own_device(index, device)?;
        }
        Ok(())
    }

    fn own(&self) -> &'a [LinuxDevice] {
        self.spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).unwrap_or_default()
    }

    fn own_device(&mut self, index: usize, device: &LinuxDevice) -> Result<()> {
        let place = format!("linux.devices[{index}]");
        let path = device.path();
        if path == Path::new("/dev/ptmx") {
            self.note(format!("{place}: /dev/ptmx is the link to the container's own terminals"));
            return Ok(());
        }
        let Some(is_block) = devices::is_block(device.typ()) else { return self.fifo(device, place) };
        let kind = if is_block { libc::S_IFBLK } else { libc::S_IFCHR };
        let numbers = format!("{}:{}", device.major(), device.minor());
        let refuse = |code, why: String| {
            Err(Error::new(
                code,
                format!("make the device {path:?} ({} {numbers})", if is_block { "b" } else { "c" }),
                why,
            )
            .at(place.clone()))
        };
        let number = devices::number(device).unwrap_or_default();
        let (tree, source) = match self.host.named.devices.get(index).and_then(Option::as_ref) {
            Some(Device::At(found)) => {
                let source = self.text(found.as_os_str().as_bytes())?;
                self.step_for(Op::OpenTree { path: source, recursive: false, into: Slot::TREE }, place.clone());
                (Slot::TREE, source)
            }
            Some(Device::NoDev(found)) => {
                return refuse(Code::DeviceShut, format!("{found:?} is on a mount with nodev, which keeps it shut"));
            }
            Some(Device::Missing) | None if self.host.initial_userns && self.host.caller.has(CAP_MKNOD) => {
                let tree = self.input(Input::Node(NewNode { kind, device: number, place: place.clone() }))?;
                (tree, self.text(path.as_os_str().as_bytes())?)
            }
            Some(Device::Missing) | None => {
                return refuse(
                    Code::Device,
                    "this host has no such device, and only real root could make it".to_owned(),
                );
            }
        };
        let path = self.text(path.as_os_str().as_bytes())?;
        self.step_for(Op::AttachNode { tree, source, path, kind, device: number }, place);
        Ok(())
    }

    fn fifo(&mut self, device: &LinuxDevice, place: String) -> Result<()> {
        let what = || format!("make the pipe {:?}", device.path());
        let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
        if !self.plan.ids.is_uid_mapped(uid) || !self.plan.ids.is_gid_mapped(gid) {
            let why = format!("its owner {uid}:{gid} is not mapped");
            return Err(Error::new(Code::OptionIdUnmapped, what(), why).at(place));
        }
        let parts = device.path().parent().zip(device.path().components().next_back());
        let Some((directory, Component::Normal(name))) = parts else {
            return Err(Error::new(Code::Field, what(), "the path has no name").at(place));
        };
        let (directory, name) = (self.text(directory.as_os_str().as_bytes())?, self.text(name.as_bytes())?);
        // The mode may come with the bits of the type, as from stat(2).
        let mode = device.file_mode().unwrap_or(0o666) & 0o7777;
        self.step_for(Op::Fifo { directory, name, mode, uid, gid }, place);
        Ok(())
    }

    /// Tells of devices that the caller may open only as a member of a group, which the program is not.
    pub(super) fn tell_closed_nodes(&mut self) {
        if !self.plan.ops.iter().any(|op| matches!(op, Op::SetGroups)) {
            return;
        }
        let closed: Vec<_> = self.host.named.nodes.iter().filter(|node| self.is_closed(node)).collect();
        for node in closed {
            let what = format!(
                "{:?} ({}) is open to you only by group {}, which the container drops",
                node.path, node.place, node.gid
            );
            let fix = "the annotation run.oci.keep_original_groups=1, or run --keep-groups -- CMD";
            self.warn(Warning::new(Code::DeviceClosed, what).fix(fix));
        }
    }

    fn is_closed(&self, node: &Node) -> bool {
        let caller = &self.host.caller;
        let (by_group, by_all) = (node.mode >> 3 & 0o6, node.mode & 0o6);
        let is_by_group = by_group & !by_all != 0 && node.uid != caller.uid && caller.uid != 0;
        let is_member = node.gid == caller.gid || caller.groups.contains(&node.gid);
        let user = self.spec.process().as_ref().map(oci_spec::runtime::Process::user);
        let more = user.and_then(|user| user.additional_gids().as_deref()).unwrap_or_default();
        let mut inside = user.iter().map(|user| user.gid()).chain(more.iter().copied());
        is_by_group && is_member && !inside.any(|gid| self.plan.ids.outer_gid(gid) == Some(node.gid))
    }

    /// Binds the default devices and makes the default links; what the config has mounted there wins.
    pub(super) fn devices(&mut self) -> Result<()> {
        self.own_devices()?;
        let dev = self.text("/dev")?;
        // An image's /dev that is a link would lead nodes and links elsewhere (CVE-2026-41579).
        self.step(Op::FindTarget { path: dev, target: Target::RealDirectory, into: Slot::DEV });
        self.step(Op::Enter(Slot::DEV));
        let alone = self.has_own_dev();
        for node in NODES {
            if self.has_mount_on(&format!("/dev/{node}")) {
                continue;
            }
            let (source, name) = (self.text(format!("/dev/{node}"))?, self.text(node)?);
            self.step(Op::Device { source, name, alone });
        }
        let (has_proc, has_core) = (self.has_mount_on("/proc"), self.host.named.has_core);
        let leads = |link: &(&str, &str)| (has_proc || !link.0.starts_with("/proc/")) && (has_core || *link != CORE);
        for (target, name) in LINKS.into_iter().filter(leads) {
            let (target, name) = (self.text(target)?, self.text(name)?);
            self.step(Op::Link { target, name });
        }
        Ok(())
    }

    /// Whether `/dev` is a new file system, which nobody else sees: not the image's, and no volume.
    fn has_own_dev(&self) -> bool {
        let mounts = self.spec.mounts().as_deref().unwrap_or_default();
        let last = mounts.iter().rfind(|mount| inside(mount.destination()) == Path::new("/dev"));
        let is_bind = |word: &String| word == "bind" || word == "rbind";
        last.is_some_and(|mount| {
            mount.typ().as_deref() == Some("tmpfs") && !mount.options().iter().flatten().any(is_bind)
        })
    }

    /// Whether the config itself has something exactly there.
    fn has_mount_on(&self, path: &str) -> bool {
        let mounts = self.spec.mounts().as_deref().unwrap_or_default();
        mounts.iter().any(|mount| inside(mount.destination()) == Path::new(path))
            || self.own().iter().any(|device| inside(device.path()) == Path::new(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{cli::UsernsMode, plan::sample};
    use serde_json::json;

    #[test]
    fn the_link_to_the_core_is_made_where_the_kernel_has_one_and_the_container_a_proc() {
        for (has_core, has_proc) in [(true, true), (true, false), (false, true)] {
            let mounts = if has_proc { json!([{"destination": "/proc", "type": "proc"}]) } else { json!([]) };
            let spec = json!({"ociVersion": "1.3.0", "root": {"path": "r"}, "mounts": mounts});
            let spec = serde_json::from_value(spec).unwrap();
            let mut host = sample::user();
            host.named.has_core = has_core;
            let plan = sample::compile(&spec, host, UsernsMode::Single, false, 0).unwrap();
            let is_core = |op: &&Op| matches!(op, Op::Link { name, .. } if plan.text(*name) == c"core");
            assert_eq!(plan.ops().iter().filter(is_core).count(), usize::from(has_core && has_proc), "{plan}");
        }
    }

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

    #[test]
    fn a_device_that_only_a_dropped_group_opens_is_told_of() {
        let made = |uid, gid, mode| Node { place: "mounts[0]".to_owned(), path: "/dev/kvm".into(), uid, gid, mode };
        let keeps = json!({"run.oci.keep_original_groups": "1"});
        for (node, mode, annotations, is_told) in [
            (made(0, 108, 0o660), UsernsMode::Auto, json!({}), true),
            (made(0, 108, 0o660), UsernsMode::Auto, keeps, false),
            // One id: setgroups is denied, and the groups stay.
            (made(0, 108, 0o660), UsernsMode::Single, json!({}), false),
            (made(0, 108, 0o666), UsernsMode::Auto, json!({}), false),
            (made(1000, 108, 0o660), UsernsMode::Auto, json!({}), false),
            (made(0, 109, 0o660), UsernsMode::Auto, json!({}), false),
            // Group 0 inside.
            (made(0, 1000, 0o660), UsernsMode::Auto, json!({}), false),
        ] {
            let process = json!({"cwd": "/", "user": {}, "args": ["/p"]});
            let config =
                json!({"ociVersion": "1.3.0", "root": {"path": "r"}, "process": process, "annotations": annotations});
            let spec = serde_json::from_value(config).unwrap();
            let mut host = sample::user();
            host.caller.groups = vec![108, 1000];
            host.named.nodes = vec![node.clone()];
            let plan = sample::compile(&spec, host, mode, false, 0).unwrap();
            let told: Vec<_> = plan.warnings().iter().filter(|told| told.code() == Code::DeviceClosed).collect();
            assert_eq!(told.len(), usize::from(is_told), "{node:?} {annotations} {mode:?}");
            if let Some(told) = told.first() {
                assert!(
                    told.to_string().starts_with("\"/dev/kvm\" (mounts[0]) is open to you only by group 108"),
                    "{told}"
                );
            }
        }
    }
}
