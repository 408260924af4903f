//! Network devices over `rtnetlink(7)`: asked about, moved, addressed, brought up.
//!
//! A socket stays in the network namespace in which it was made, wherever its process goes: that is how one process
//! speaks to two of them. Only the parent does, so it may allocate.

use std::{
    mem::{size_of, zeroed},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use nix::errno::Errno;

use super::{check, retry};

/// Message types: include/uapi/linux/rtnetlink.h.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;

/// Message types and flags of every protocol: include/uapi/linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
/// All objects, instead of one; the answer ends with `NLMSG_DONE`.
const DUMP: u16 = 0x300;
/// What was listed has changed meanwhile.
const DUMP_INTERRUPTED: u16 = 0x10;
const CREATE_NEW: u16 = 0x600;

/// Attributes of links: `include/uapi/linux/if_link.h`.
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
/// Since Linux 5.13; older kernels leave it unread.
const IFLA_NEW_IFINDEX: u16 = 49;
/// Answer without counters.
const SKIP_STATS: u32 = 1 << 3;

/// Attributes of addresses: `include/uapi/linux/if_addr.h`.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;

/// What an address takes along: all but its label, which has the device's old name in it.
const KEPT: [u16; 6] = [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_CACHEINFO, IFA_RT_PRIORITY, IFA_PROTO];

/// Flags that tell what the kernel is doing with an address, and are not for others to set: `SECONDARY` 0x1, `DADFAILED`
/// 0x8, `DEPRECATED` 0x20, `TENTATIVE` 0x40.
const KERNELS_OWN: u32 = 0x1 | 0x8 | 0x20 | 0x40;

/// `IFA_F_PERMANENT`: set by somebody, for good.
const PERMANENT: u32 = 0x80;

/// `RT_SCOPE_UNIVERSE`
const GLOBAL: u8 = 0;

/// The kernel's longest answer is 32 KiB: `NLMSG_GOODSIZE` and what it makes of a larger buffer.
const BUFFER: usize = 64 << 10;

/// Bytes of a header: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// Bytes of `ifinfomsg`: family, padding, type, index, flags, change.
const LINK: usize = 16;
/// Bytes of `ifaddrmsg`: family, prefix length, flags, scope, index.
const ADDRESS: usize = 8;

/// A network device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// `IFF_*`: `netdevice(7)`.
    pub flags: u32,
    /// Its name.
    pub name: Vec<u8>,
}

/// An address of a device, ready to be added to it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// `AF_*`
    pub family: u8,
    /// Bits of the network's part.
    pub prefix: u8,
    /// `RT_SCOPE_*`
    pub scope: u8,
    /// `IFA_F_*`
    pub flags: u32,
    /// `IFA_*`, and the bytes of each.
    pub attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// Set by somebody for good, and meant for all the world: what a device keeps when it is moved.
    pub fn is_kept(&self) -> bool {
        self.flags & PERMANENT != 0 && self.scope == GLOBAL
    }

    /// The device's own address, in network order: 4 or 16 bytes for the usual families.
    pub fn bytes(&self) -> &[u8] {
        let of = |wanted: u16| self.attributes.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| &**value);
        // With a peer, IFA_ADDRESS is the peer's.
        of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS)).unwrap_or_default()
    }
}

/// A socket to the network namespace that the caller is in now.
pub fn open() -> nix::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: plain numbers; the result is checked before it is used.
    let raw = check(libc::c_long::from(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) }))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The device of that name; ENODEV when there is none.
pub fn link(socket: BorrowedFd<'_>, name: &str) -> nix::Result<Link> {
    let asked = Message::new(RTM_GETLINK, ACK, &link_body(0, 0, 0));
    let asked = asked.with(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes()).with_text(IFLA_IFNAME, name);
    exchange(socket, &asked)?.iter().find_map(|answer| parse_link(answer)).ok_or(Errno::ENODEV)
}

/// All devices.
pub fn links(socket: BorrowedFd<'_>) -> nix::Result<Vec<Link>> {
    let asked = Message::new(RTM_GETLINK, DUMP, &link_body(0, 0, 0)).with(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
    Ok(retry(|| exchange(socket, &asked))?.iter().filter_map(|answer| parse_link(answer)).collect())
}

/// All addresses, each with the number of its device.
pub fn addresses(socket: BorrowedFd<'_>) -> nix::Result<Vec<(u32, Address)>> {
    let asked = Message::new(RTM_GETADDR, DUMP, &[0; ADDRESS]);
    Ok(retry(|| exchange(socket, &asked))?.iter().filter_map(|answer| parse_address(answer)).collect())
}

/// Moves a device to another namespace, where it gets a name and a number. A `%d` in the name is the kernel's to choose.
pub fn move_link(
    socket: BorrowedFd<'_>,
    index: u32,
    namespace: BorrowedFd<'_>,
    name: &str,
    new_index: u32,
) -> nix::Result<()> {
    exchange(socket, &moving(index, namespace.as_raw_fd(), name, new_index)).map(drop)
}

fn moving(index: u32, namespace: i32, name: &str, new_index: u32) -> Message {
    Message::new(RTM_SETLINK, ACK, &link_body(index, 0, 0))
        .with(IFLA_NET_NS_FD, &namespace.to_ne_bytes())
        .with(IFLA_NEW_IFINDEX, &new_index.to_ne_bytes())
        .with_text(IFLA_IFNAME, name)
}

/// Gives a device an address; EEXIST when it has it.
pub fn add_address(socket: BorrowedFd<'_>, index: u32, address: &Address) -> nix::Result<()> {
    exchange(socket, &adding(index, address)).map(drop)
}

fn adding(index: u32, address: &Address) -> Message {
    let [a, b, c, d] = index.to_ne_bytes();
    // The flags of the header are 8 bits wide; the attribute has all.
    let body = [address.family, address.prefix, 0, address.scope, a, b, c, d];
    let flags = address.flags & !KERNELS_OWN;
    let message = Message::new(RTM_NEWADDR, ACK | CREATE_NEW, &body).with(IFA_FLAGS, &flags.to_ne_bytes());
    address.attributes.iter().fold(message, |message, (kind, value)| message.with(*kind, value))
}

/// Brings a device up.
pub fn set_up(socket: BorrowedFd<'_>, index: u32) -> nix::Result<()> {
    let up = libc::IFF_UP.unsigned_abs();
    exchange(socket, &Message::new(RTM_NEWLINK, ACK, &link_body(index, up, up))).map(drop)
}

fn link_body(index: u32, flags: u32, change: u32) -> [u8; LINK] {
    let mut body = [0; LINK];
    let words = body.chunks_exact_mut(4).skip(1).zip([index, flags, change]);
    words.for_each(|(place, word)| place.copy_from_slice(&word.to_ne_bytes()));
    body
}

/// A request.
#[derive(Debug)]
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        // Sequence number and port: one question at a time, and the kernel knows the socket.
        bytes.extend([0; 8]);
        bytes.extend(body);
        Self(bytes).sized()
    }

    fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.sized()
    }

    fn with_text(self, kind: u16, value: &str) -> Self {
        self.with(kind, &[value.as_bytes(), &[0]].concat())
    }

    fn sized(mut self) -> Self {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        for (place, byte) in self.0.iter_mut().zip(length.to_ne_bytes()) {
            *place = byte;
        }
        self
    }
}

/// Sends a request and hears the kernel out: type and body of each answer, joined. EINTR when a list is not consistent.
fn exchange(socket: BorrowedFd<'_>, message: &Message) -> nix::Result<Vec<Vec<u8>>> {
    send(socket, &message.0)?;
    let (mut answers, mut buffer, mut interrupted) = (Vec::new(), vec![0; BUFFER], false);
    loop {
        let length = receive(socket, &mut buffer)?;
        // Longer than the buffer: the rest is lost.
        let mut rest = buffer.get(..length).ok_or(Errno::EMSGSIZE)?;
        while let Some((kind, flags, body, next)) = split(rest) {
            interrupted |= flags & DUMP_INTERRUPTED != 0;
            if kind == NLMSG_ERROR || kind == NLMSG_DONE {
                let errno = word(body, 0).unwrap_or(0).cast_signed();
                return match errno {
                    0 if interrupted => Err(Errno::EINTR),
                    0 => Ok(answers),
                    errno => Err(Errno::from_raw(errno.saturating_neg())),
                };
            }
            answers.push([&kind.to_ne_bytes(), body].concat());
            rest = next;
        }
    }
}

/// The first message of a datagram: type, flags, body, and what follows.
fn split(bytes: &[u8]) -> Option<(u16, u16, &[u8], &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    Some((half(bytes, 4)?, half(bytes, 6)?, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The attributes of a message: each one's type and value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        let attribute = (half(bytes, 2)?, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

fn parse_link(answer: &[u8]) -> Option<Link> {
    let (of, body) = (half(answer, 0)?, answer.get(2..)?);
    let name = attributes(body.get(LINK..)?).find(|(kind, _)| *kind == IFLA_IFNAME).map(|(_, name)| name)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name).to_vec();
    (of == RTM_NEWLINK).then_some(Link { index: word(body, 4)?, flags: word(body, 8)?, name })
}

fn parse_address(answer: &[u8]) -> Option<(u32, Address)> {
    let (of, body) = (half(answer, 0)?, answer.get(2..)?);
    let [family, prefix, short_flags, scope] = *body.first_chunk()?;
    let all = || attributes(body.get(ADDRESS..).unwrap_or_default());
    let wide = all().find(|(kind, _)| *kind == IFA_FLAGS).and_then(|(_, value)| word(value, 0));
    let kept = all().filter(|(kind, _)| KEPT.contains(kind)).map(|(kind, value)| (kind, value.to_vec()));
    let flags = wide.unwrap_or_else(|| short_flags.into());
    let address = Address { family, prefix, scope, flags, attributes: kept.collect() };
    (of == RTM_NEWADDR).then_some((word(body, 4)?, address))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|half| u16::from_ne_bytes(*half))
}

/// With an address, which is the kernel's: then the sender's capabilities count alone, not those of who made the socket.
fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<()> {
    // SAFETY: `sockaddr_nl` is plain numbers, for which zero is a value.
    let mut kernel: libc::sockaddr_nl = unsafe { zeroed() };
    kernel.nl_family = libc::AF_NETLINK.unsigned_abs().try_into().unwrap_or(0);
    let length = u32::try_from(size_of::<libc::sockaddr_nl>()).unwrap_or(0);
    let sent = retry(|| {
        let (bytes_at, kernel_at) = (bytes.as_ptr().cast(), (&raw const kernel).cast());
        // SAFETY: the kernel reads the bytes and the address, both as long as is said, and both outlive the call.
        Errno::result(unsafe { libc::sendto(socket.as_raw_fd(), bytes_at, bytes.len(), 0, kernel_at, length) })
    })?;
    if usize::try_from(sent) == Ok(bytes.len()) { Ok(()) } else { Err(Errno::EIO) }
}

/// One datagram: its length, which may be more than there was room for.
fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<usize> {
    let length = retry(|| {
        let (at, room) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the kernel writes at most as many bytes as the buffer has.
        Errno::result(unsafe { libc::recv(socket.as_raw_fd(), at, room, libc::MSG_TRUNC) })
    })?;
    usize::try_from(length).map_err(|_negative| Errno::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    /// Little-endian, as the machines that pura is built for are.
    #[test]
    fn a_move_is_one_message_with_namespace_number_and_name() {
        let wanted = [
            &[56, 0, 0, 0, 19, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[8, 0, 28, 0, 9, 0, 0, 0],
            &[8, 0, 49, 0, 12, 0, 0, 0],
            &[7, 0, 3, 0, b'e', b'0', 0, 0],
        ];
        assert_eq!(moving(7, 9, "e0", 12).0, wanted.concat());
    }

    #[test]
    fn an_address_is_added_as_it_was_listed_but_for_what_the_kernel_alone_says() {
        let attributes = vec![(IFA_ADDRESS, vec![10, 0, 0, 9]), (IFA_LOCAL, vec![10, 0, 0, 1])];
        let address = Address { family: 2, prefix: 24, scope: GLOBAL, flags: PERMANENT | 0x40 | 0x200, attributes };
        assert_eq!((address.is_kept(), address.bytes()), (true, &[10, 0, 0, 1][..]));
        let message = adding(3, &address);
        let wanted = [
            &[48, 0, 0, 0, 20, 0, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[2, 24, 0, 0, 3, 0, 0, 0],
            &[8, 0, 8, 0, 0x80, 2, 0, 0],
            &[8, 0, 1, 0, 10, 0, 0, 9],
            &[8, 0, 2, 0, 10, 0, 0, 1],
        ];
        assert_eq!(message.0, wanted.concat());
        let answer = [&RTM_NEWADDR.to_ne_bytes(), split(&message.0).unwrap().2].concat();
        let listed = Address { flags: PERMANENT | 0x200, ..address };
        assert_eq!(parse_address(&answer), Some((3, listed.clone())));
        assert!(!Address { scope: 253, ..listed.clone() }.is_kept() && !Address { flags: 0, ..listed }.is_kept());
    }

    #[test]
    fn what_is_cut_off_is_no_message_and_no_attribute() {
        let message = moving(7, 9, "net", 12).0;
        for length in 0..message.len() {
            assert!(split(&message[..length]).is_none(), "{length}");
            assert!(attributes(message.get(HEADER + LINK..length).unwrap_or_default()).count() < 3);
        }
        assert!(attributes(&[0; 8]).next().is_none() && attributes(&[3, 0, 1, 0]).next().is_none());
        assert!(parse_link(&[]).is_none() && parse_address(&[20, 0, 1]).is_none());
    }

    #[test]
    fn the_kernel_lists_the_loopback_device() {
        let socket = open().unwrap();
        let found = link(socket.as_fd(), "lo").unwrap();
        assert!(found.index == 1 && found.flags & libc::IFF_LOOPBACK.unsigned_abs() != 0, "{found:?}");
        assert!(links(socket.as_fd()).unwrap().iter().any(|link| link.name == b"lo"));
        assert_eq!(link(socket.as_fd(), "no-such-dev"), Err(Errno::ENODEV));
        assert!(
            addresses(socket.as_fd())
                .unwrap()
                .iter()
                .filter(|(index, _)| *index == 1)
                .all(|(_, all)| !all.is_kept() || !all.bytes().is_empty())
        );
    }
}
