//! Network devices that move into the container: config-linux.md "Network Devices". The parent moves them.

use std::{fmt, net::IpAddr};

use nix::errno::Errno;
use oci_spec::runtime::LinuxNamespaceType as Kind;

use super::draft::Draft;
use crate::{
    error::{Code, Error, Result, plain},
    sys::netlink::Address,
};

const ABSENT: &str = "there is no such device in the caller's network namespace";
const CAP_NET_ADMIN: u8 = 12;
const CAP_SYS_ADMIN: u8 = 21;

/// A device that the parent moves into the container's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedDevice {
    /// Its number where it is now.
    pub index: u32,
    /// Its name there: the key in config.json.
    pub from: String,
    /// Its name in the container; the kernel puts a number in the place of `%d`.
    pub name: String,
    /// What it keeps, in this order.
    pub addresses: Vec<Address>,
}

impl MovedDevice {
    /// The place in config.json.
    pub fn place(&self) -> String {
        place(&self.from)
    }
}

fn place(name: &str) -> String {
    format!("linux.netDevices[{name:?}]")
}

impl Draft<'_> {
    /// Decides which devices the parent moves, if any. No step of init's: init has no power where they are now.
    pub(super) fn network_devices(&mut self) -> Result<()> {
        let Some(network) = &self.host.named.network else { return Ok(()) };
        let devices = self.spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
        let refuse = |name: &str, why: String| {
            Error::new(Code::NetDevice, format!("move the network device {name:?} into the container"), why)
                .at(place(name))
        };
        for (name, found) in &network.devices {
            // Without power over the namespace, where a device is does not matter.
            if let Some(lacking) = self.lacking(network.is_ours) {
                let fix = "call pura as root, or in namespaces of your own (unshare -Urn) that have the device";
                return Err(refuse(name, lacking).fix(fix));
            }
            if self.is_joined_by_caller(network.inode) {
                return Err(refuse(name, "the network namespace that is joined is the caller's own".to_owned()));
            }
            let (link, addresses) = found.as_ref().map_err(|errno| {
                let none = *errno == libc::ENODEV;
                let why = if none { ABSENT.to_owned() } else { plain(Errno::from_raw(*errno)) };
                refuse(name, why)
            })?;
            if link.flags & libc::IFF_LOOPBACK.unsigned_abs() != 0 {
                return Err(refuse(name, "a loopback device belongs to its network namespace".to_owned()));
            }
            let new = devices.and_then(|devices| devices.get(name)).and_then(|device| device.name().clone());
            self.plan.moved_devices.push(MovedDevice {
                index: link.index,
                from: name.clone(),
                name: new.filter(|new| !new.is_empty()).unwrap_or_else(|| name.clone()),
                addresses: addresses.clone(),
            });
        }
        Ok(())
    }

    /// The capability that the caller lacks: to take a device from its namespace, and to speak to the container's.
    fn lacking(&self, is_ours: bool) -> Option<String> {
        let caller = &self.host.caller;
        let needed = [(CAP_NET_ADMIN, "CAP_NET_ADMIN"), (CAP_SYS_ADMIN, "CAP_SYS_ADMIN")];
        match needed.iter().find(|(capability, _)| !caller.has(*capability)) {
            Some((_, name)) => Some(format!("you lack {name} over the network namespace in which it is")),
            None if !is_ours => {
                let why = "you lack CAP_NET_ADMIN over the network namespace in which it is: yours does not hold outside \
                           of your user namespace";
                Some(why.to_owned())
            }
            None => None,
        }
    }

    fn is_joined_by_caller(&self, own: u64) -> bool {
        let joined = self.namespace(Kind::Network).and_then(|(index, _)| self.host.named.namespaces.get(index));
        joined.and_then(Option::as_ref).is_some_and(|joined| joined.inode == own)
    }
}

impl fmt::Display for MovedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network device {}", self.from)?;
        if self.name != self.from {
            write!(f, " as {}", self.name)?;
        }
        for (index, address) in self.addresses.iter().enumerate() {
            let bytes = address.bytes();
            let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let shown = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            f.write_str(if index == 0 { ", with " } else { ", " })?;
            match shown {
                Ok(shown) => write!(f, "{shown}/{}", address.prefix)?,
                Err(_) => write!(f, "an address of family {}", address.family)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::UsernsMode,
        host::{Host, Joined, Named, network::Network},
        plan::{Plan, compile, sample},
        sys::netlink::Link,
    };
    use serde_json::json;

    /// `eth0`, with an address, and `lo`; the caller is in network namespace 30.
    fn network() -> Network {
        let attributes = vec![(1, vec![10, 0, 0, 1])];
        let address = Address { family: 2, prefix: 24, attributes, ..Address::default() };
        let device = |index, flags| Link { index, flags, ..Link::default() };
        let devices = vec![
            ("eth0".to_owned(), Ok((device(4, 0), vec![address]))),
            ("lo".to_owned(), Ok((device(1, 8), Vec::new()))),
            ("gone".to_owned(), Err(libc::ENODEV)),
        ];
        Network { inode: 30, is_ours: true, devices }
    }

    fn compile(host: Host, network: Network, device: &str, joined: Option<u64>) -> Result<Plan> {
        let path = joined.map_or("", |_| "/n");
        let spec = json!({
            "ociVersion": "1.3.0", "root": {"path": "r"},
            "linux": {"namespaces": [{"type": "network", "path": path}], "netDevices": {device: {"name": "net%d"}}}
        });
        let spec = serde_json::from_value(spec).unwrap();
        let kind = libc::CLONE_NEWNET;
        let joined = joined.map(|inode| Joined { kind, owner: 10, inode, maps: None, setgroups_denied: false });
        let devices = network.devices.into_iter().filter(|(name, _)| name == device).collect();
        let network = Some(Network { devices, ..network });
        let root = Some(crate::host::Kind::Directory);
        let host = Host { named: Named { root, network, namespaces: vec![joined], ..Named::default() }, ..host };
        compile::container(&spec, &host, UsernsMode::Unset, &sample::order(true))
    }

    #[test]
    fn a_device_is_moved_with_its_addresses_and_the_plan_says_so() {
        for joined in [None, Some(31)] {
            let plan = compile(sample::root(), network(), "eth0", joined).unwrap();
            let moved = &plan.moved_devices;
            assert_eq!((moved.len(), moved[0].index, moved[0].addresses.len()), (1, 4, 1));
            let line = "moved at the end: network device eth0 as net%d, with 10.0.0.1/24  (linux.netDevices[\"eth0\"])";
            assert!(plan.to_string().contains(line), "{plan}");
        }
    }

    #[test]
    fn what_cannot_move_is_refused_by_name_before_there_is_a_process() {
        let powerless = |lacking: u8| {
            let mut host = sample::root();
            host.caller.effective &= !(1 << lacking);
            host
        };
        let foreign = Network { is_ours: false, ..network() };
        for (host, network, device, joined, wanted) in [
            (sample::root(), network(), "lo", None, "loopback"),
            (sample::root(), network(), "gone", None, "no such device"),
            (sample::root(), network(), "eth0", Some(30), "the caller's own"),
            (powerless(CAP_NET_ADMIN), network(), "eth0", None, "CAP_NET_ADMIN"),
            (powerless(CAP_SYS_ADMIN), network(), "eth0", None, "CAP_SYS_ADMIN"),
            (sample::user(), network(), "gone", None, "CAP_NET_ADMIN"),
            (sample::nested(), foreign, "eth0", None, "does not hold outside"),
        ] {
            let error = compile(host, network, device, joined).unwrap_err();
            assert_eq!(error.code(), Code::NetDevice);
            let text = error.to_string();
            assert!(text.contains(wanted) && text.contains(&format!("{device:?}")), "{text} lacks {wanted}");
        }
    }
}
