//! Facts about the network devices that config.json moves.

use std::{os::fd::AsFd as _, path::Path};

use oci_spec::runtime::Spec;

use crate::sys::netlink::{self, Address, Link};

/// The caller's network, when the config moves devices out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Inode of the caller's network namespace.
    pub inode: u64,
    /// The caller's user namespace, or one below it, owns that: capabilities of the caller's hold there.
    pub is_ours: bool,
    /// For each key of `linux.netDevices`, in their order: what it is.
    pub devices: Vec<(String, Found)>,
}

/// A device, with the addresses that it keeps, or an errno.
pub type Found = Result<(Link, Vec<Address>), i32>;

/// Looks the devices up. What the config does not use costs nothing.
pub(super) fn network(spec: &Spec, own_userns: u64) -> Option<Network> {
    let wanted = spec.linux().as_ref()?.net_devices().as_ref().filter(|wanted| !wanted.is_empty())?;
    let own = super::probe::joined(Path::new("/proc/self/ns/net"), own_userns);
    let mut names: Vec<_> = wanted.keys().collect();
    names.sort_unstable();
    let socket = netlink::open();
    let addresses = socket.as_ref().ok().and_then(|socket| netlink::addresses(socket.as_fd()).ok());
    let addresses = addresses.unwrap_or_default();
    let devices = names.into_iter().map(|name| {
        let found = socket.as_ref().map_err(|errno| *errno).and_then(|socket| netlink::link(socket.as_fd(), name));
        let kept = |link: &Link| {
            let of_link = addresses.iter().filter(|(index, address)| *index == link.index && address.is_kept());
            of_link.map(|(_, address)| address.clone()).collect()
        };
        (name.clone(), found.map(|link| (link.clone(), kept(&link))).map_err(|errno| errno as i32))
    });
    // The owner of a namespace that is above the caller's is not shown to it.
    Some(Network { inode: own.inode, is_ours: own.owner != 0, devices: devices.collect() })
}
