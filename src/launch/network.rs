//! Moving network devices into the container, at the last meeting that may fail, or before the first hook.
//!
//! Two sockets do it: one was made before anything was joined, and so stays with the caller's network; the other is made
//! in the container's, which the parent visits for that.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{errno::Errno, unistd::Pid};

use super::inputs;
use crate::{
    error::{Code, Context as _, Error, Result, plain},
    plan::{MovedDevice, Plan},
    sys::{netlink, process},
};

/// A socket to the caller's network, if devices are to be moved out of it.
pub(super) fn open(plan: &Plan) -> Result<Option<OwnedFd>> {
    if plan.moved_devices.is_empty() {
        return Ok(None);
    }
    netlink::open().map(Some).doing(Code::NetDevice, || "ask for network devices".to_owned())
}

/// Moves all of them. What has been moved when one fails shares the fate of the container's network namespace.
pub(super) fn move_all(plan: &Plan, caller: &OwnedFd, init: Pid) -> Result<()> {
    let namespace = inputs::namespace(Path::new(&format!("/proc/{init}/ns/net")))?;
    let container = visit(namespace.as_fd()).doing(Code::NetDevice, || "enter the container's network".to_owned())?;
    let present = netlink::links(container.as_fd());
    let present = present.doing(Code::NetDevice, || "list the container's network devices".to_owned())?;
    // All names are judged before the first device is moved.
    for device in &plan.moved_devices {
        if present.iter().any(|link| link.name == device.name.as_bytes()) {
            return Err(refuse(device, "the container's network namespace has a device of that name".to_owned()));
        }
    }
    let mut numbers: Vec<u32> = present.iter().map(|link| link.index).collect();
    for device in &plan.moved_devices {
        let index = free_number(device.index, &numbers);
        numbers.push(index);
        move_one(device, caller.as_fd(), container.as_fd(), namespace.as_fd(), index)?;
    }
    Ok(())
}

/// The error of a container whose network namespace ends with the devices in it: hardware returns to the host, what is
/// virtual is gone.
pub(super) fn with_losses(plan: &Plan, error: Error) -> Error {
    let names: Vec<_> = plan.moved_devices.iter().map(|device| format!("{:?}", device.from)).collect();
    if names.is_empty() {
        return error;
    }
    error.also(&format!("what was moved goes with it, and returns only if it is hardware: {}", names.join(" ")))
}

/// A socket to another network namespace. The parent comes back: hooks have to see the caller's.
fn visit(namespace: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = nix::fcntl::OFlag::O_RDONLY;
    let own = crate::sys::path::open_host(c"/proc/self/ns/net", flags)?;
    process::set_namespace(namespace, libc::CLONE_NEWNET)?;
    let socket = netlink::open();
    process::set_namespace(own.as_fd(), libc::CLONE_NEWNET)?;
    socket
}

/// The number that a device has in its new namespace: its own, if that is free there. Chosen here, because the name may be
/// the kernel's to choose, and one of them has to be known.
fn free_number(own: u32, taken: &[u32]) -> u32 {
    if taken.contains(&own) { taken.iter().max().map_or(own, |last| last.saturating_add(1)) } else { own }
}

fn move_one(
    device: &MovedDevice,
    caller: BorrowedFd<'_>,
    container: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
    index: u32,
) -> Result<()> {
    netlink::move_link(caller, device.index, namespace, &device.name, index)
        .map_err(|errno| refuse(device, why(errno)))?;
    let after = |what: &str, errno: Errno| {
        let what = format!("{what} the network device {:?} in the container", device.name);
        Error::new(Code::NetDevice, what, plain(errno)).at(device.place())
    };
    for address in &device.addresses {
        match netlink::add_address(container, index, address) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(after("keep the addresses of", errno)),
        }
    }
    netlink::set_up(container, index).map_err(|errno| after("bring up", errno))
}

fn refuse(device: &MovedDevice, why: String) -> Error {
    let named = if device.name == device.from { String::new() } else { format!(", as {:?}", device.name) };
    let what = format!("move the network device {:?} into the container{named}", device.from);
    Error::new(Code::NetDevice, what, why).at(device.place())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "an errno is a number, not a variant")]
fn why(errno: Errno) -> String {
    match errno {
        Errno::EEXIST => "the container's network namespace has a device of that name".to_owned(),
        Errno::ENODEV => "it has gone".to_owned(),
        Errno::EINVAL => "this kind of device cannot leave its network namespace".to_owned(),
        errno => plain(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_keeps_its_number_where_that_is_free() {
        for (own, taken, wanted) in [(4, &[1, 2][..], 4), (2, &[1, 2, 7], 8), (1, &[1], 2)] {
            assert_eq!(free_number(own, taken), wanted, "{own} {taken:?}");
        }
    }
}
