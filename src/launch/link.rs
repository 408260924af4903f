//! The link between parent and init: fixed-size packets on one socket pair, later on the connection of `start`.
//!
//! Both ends, because they must agree. Only init speaks first; every wait has one legal answer, and ends with the peer.

use std::{
    io::IoSliceMut,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixCredentials, accept4, recv, recvmsg,
        send, setsockopt, socketpair, sockopt,
    },
    unistd::Pid,
};

use crate::{
    error::{Code, Error, Result},
    plan::Meeting,
    sys::retry,
};

/// Bytes of a report: kind, step or meeting or pid, errno or end; four each, native endian, because both ends are one binary.
const LENGTH: usize = 12;

/// What init tells its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Init waits at a meeting.
    At(u32),
    /// Step `step` of the plan failed, and init ends.
    Failed {
        /// Index into the plan.
        step: u32,
        /// The cause.
        errno: Errno,
    },
    /// Step `step` of the plan failed, and the container is only weaker for it.
    Warned {
        /// Index into the plan.
        step: u32,
        /// The cause.
        errno: Errno,
    },
    /// The seccomp filter of step `step` cannot be attached, and init ends. `start`, which has no plan, knows by this that
    /// it is not the program that failed.
    Unconfined {
        /// Index into the plan.
        step: u32,
        /// The cause.
        errno: Errno,
    },
    /// Init goes on as another process: its sender, see [`receive_named`].
    Reborn,
    /// A hook that init has run failed, and init ends.
    Hook {
        /// Index into the plan's hooks.
        number: u32,
        /// Its wait status, or the negative errno for which it did not run or was killed.
        end: i32,
    },
    /// All hooks of `start` are done, and nothing is left but exec.
    Hooked,
    /// The seccomp agent of step `step` cannot be told, and init ends. `start` knows by this what has failed.
    Unheard {
        /// Index into the plan.
        step: u32,
        /// The cause.
        errno: Errno,
    },
    /// The process that clones in the parent's stead has made init, with this id in the parent's PID namespace.
    Born(u32),
}

impl Report {
    pub(crate) fn encode(self) -> [u8; LENGTH] {
        let (kind, first, second) = match self {
            Self::At(meeting) => (1, meeting, 0),
            Self::Failed { step, errno } => (2, step, (errno as i32).unsigned_abs()),
            Self::Warned { step, errno } => (3, step, (errno as i32).unsigned_abs()),
            Self::Reborn => (4, 0, 0),
            Self::Unconfined { step, errno } => (5, step, (errno as i32).unsigned_abs()),
            Self::Hook { number, end } => (6, number, end.cast_unsigned()),
            Self::Born(pid) => (7, pid, 0),
            Self::Hooked => (8, 0, 0),
            Self::Unheard { step, errno } => (9, step, (errno as i32).unsigned_abs()),
        };
        let mut packet = [0; LENGTH];
        for (bytes, word) in packet.chunks_exact_mut(4).zip([kind, first, second]) {
            bytes.copy_from_slice(&u32::to_ne_bytes(word));
        }
        packet
    }

    /// The report in a packet; nothing for a packet that init never sends.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        let word = |index: usize| {
            let bytes = packet.get(index * 4..index * 4 + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        if packet.len() != LENGTH {
            return None;
        }
        let (first, second) = (word(1)?, word(2)?);
        let errno = || Some(Errno::from_raw(i32::try_from(second).ok()?));
        match word(0)? {
            1 => Some(Self::At(first)),
            2 => Some(Self::Failed { step: first, errno: errno()? }),
            3 => Some(Self::Warned { step: first, errno: errno()? }),
            4 => Some(Self::Reborn),
            5 => Some(Self::Unconfined { step: first, errno: errno()? }),
            6 => Some(Self::Hook { number: first, end: second.cast_signed() }),
            7 => Some(Self::Born(first)),
            8 => Some(Self::Hooked),
            9 => Some(Self::Unheard { step: first, errno: errno()? }),
            _ => None,
        }
    }
}

/// Creates both ends. Exec closes init's.
pub fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Init: sends a report.
pub fn report(link: BorrowedFd<'_>, report: Report) -> nix::Result<()> {
    crate::sys::message::send(link, &report.encode(), None)
}

/// Init: says where it is and waits to be released. ECONNRESET: the parent has died, and so must init.
pub fn meet(link: BorrowedFd<'_>, meeting: Meeting) -> nix::Result<()> {
    report(link, Report::At(meeting as u32))?;
    released(link)
}

/// Init: the same, with a descriptor for the parent.
pub fn pass(link: BorrowedFd<'_>, meeting: Meeting, descriptor: BorrowedFd<'_>) -> nix::Result<()> {
    crate::sys::message::send(link, &Report::At(meeting as u32).encode(), Some(descriptor))?;
    released(link)
}

/// Init: meets the parent, and learns its own number there. ECONNRESET as in [`meet`].
pub fn learn_pid(link: BorrowedFd<'_>) -> nix::Result<i32> {
    report(link, Report::At(Meeting::Pid as u32))?;
    let mut number = [0; 4];
    match retry(|| recv(link.as_raw_fd(), &mut number, MsgFlags::empty()))? {
        4 => Ok(i32::from_ne_bytes(number)),
        _ => Err(Errno::ECONNRESET),
    }
}

/// Init: waits to be released. ECONNRESET as in [`meet`].
pub fn released(link: BorrowedFd<'_>) -> nix::Result<()> {
    match retry(|| recv(link.as_raw_fd(), &mut [0_u8; 1], MsgFlags::empty()))? {
        1 => Ok(()),
        _ => Err(Errno::ECONNRESET),
    }
}

/// Init: waits until `start` connects and releases it; a connection that closes without a release is forgotten.
pub fn await_start(listener: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    loop {
        let raw = retry(|| accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC))?;
        let connection = crate::sys::fd::adopt(raw);
        if released(std::os::fd::AsFd::as_fd(&connection)).is_ok() {
            return Ok(connection);
        }
    }
}

/// The other side of the link, as its parent hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A report.
    Report(Report),
    /// End of file: init has become the program, or died.
    End,
    /// What init never sends.
    Nonsense,
}

/// Parent: waits for the next report.
pub fn receive(link: BorrowedFd<'_>) -> Heard {
    receive_with(link).0
}

/// Parent: the same, and the descriptor that came with it.
pub fn receive_with(link: BorrowedFd<'_>) -> (Heard, Option<OwnedFd>) {
    let mut packet = [0_u8; LENGTH + 1];
    match crate::sys::message::receive(link, &mut packet) {
        Ok((0, _)) | Err(Errno::ECONNRESET) => (Heard::End, None),
        Ok((length, descriptor)) => {
            let report = packet.get(..length).and_then(Report::decode);
            (report.map_or(Heard::Nonsense, Heard::Report), descriptor)
        }
        Err(_) => (Heard::Nonsense, None),
    }
}

/// Parent: has the kernel tell who sends, or no longer, as an id of the parent's PID namespace; init's own number means
/// nothing here.
pub fn name_senders(link: BorrowedFd<'_>, named: bool) -> nix::Result<()> {
    setsockopt(&link, sockopt::PassCred, &named)
}

/// Parent: waits for the next report, and tells who has sent it, after [`name_senders`].
pub fn receive_named(link: BorrowedFd<'_>) -> (Heard, Option<Pid>) {
    let mut packet = [0_u8; LENGTH + 1];
    let mut room = nix::cmsg_space!(UnixCredentials);
    let (length, sender) = {
        let mut buffers = [IoSliceMut::new(&mut packet)];
        let received = retry(|| {
            let received = recvmsg::<()>(link.as_raw_fd(), &mut buffers, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)?;
            let sender = |message| {
                if let ControlMessageOwned::ScmCredentials(sender) = message {
                    Some(Pid::from_raw(sender.pid()))
                } else {
                    None
                }
            };
            let named = received.cmsgs()?.find_map(sender);
            Ok((received.bytes, named))
        });
        match received {
            // 0 and below would be a group for whoever signals it.
            Ok((length, sender)) => (length, sender.filter(|pid| pid.as_raw() > 1)),
            Err(Errno::ECONNRESET) => return (Heard::End, None),
            Err(_) => return (Heard::Nonsense, None),
        }
    };
    if length == 0 {
        return (Heard::End, None);
    }
    (packet.get(..length).and_then(Report::decode).map_or(Heard::Nonsense, Heard::Report), sender)
}

/// Parent: hears what init says last. With hooks inside, which take long and may meet `delete --force` or a deadly seccomp
/// filter, end of file is init's death until it has said that they are done.
pub fn last_words(link: BorrowedFd<'_>, hooked: bool) -> Result<Heard> {
    let heard = receive(link);
    if !hooked {
        return Ok(heard);
    }
    match heard {
        Heard::Report(Report::Hooked) => Ok(receive(link)),
        Heard::End => Err(Error::new(Code::Hook, "run the hooks.startContainer", "init was killed while they ran")
            .fix("allow in linux.seccomp what it takes to run a program and to wait for it")),
        Heard::Report(_) | Heard::Nonsense => Ok(heard),
    }
}

/// Parent: tells init its number, which also lets it go on.
pub fn tell_pid(link: BorrowedFd<'_>, init: Pid) -> nix::Result<()> {
    retry(|| send(link.as_raw_fd(), &init.as_raw().to_ne_bytes(), MsgFlags::MSG_NOSIGNAL)).map(drop)
}

/// Parent: lets init go on.
pub fn release(link: BorrowedFd<'_>) -> nix::Result<()> {
    retry(|| send(link.as_raw_fd(), b"g", MsgFlags::MSG_NOSIGNAL)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    const ALL: [Report; 10] = [
        Report::At(7),
        Report::Failed { step: 3, errno: Errno::EPERM },
        Report::Warned { step: 4, errno: Errno::EDQUOT },
        Report::Reborn,
        Report::Unconfined { step: 5, errno: Errno::EACCES },
        Report::Hook { number: 2, end: 0x0300 },
        Report::Hook { number: 0, end: -libc::ETIMEDOUT },
        Report::Born(4711),
        Report::Hooked,
        Report::Unheard { step: 6, errno: Errno::EPIPE },
    ];

    #[test]
    fn a_report_survives_the_link() {
        let (ours, theirs) = pair().unwrap();
        for sent in ALL {
            report(theirs.as_fd(), sent).unwrap();
            assert_eq!(receive(ours.as_fd()), Heard::Report(sent));
        }
        drop(theirs);
        assert_eq!(receive(ours.as_fd()), Heard::End);
    }

    #[test]
    fn a_truncated_or_longer_packet_is_nonsense() {
        let packet = ALL[1].encode();
        for length in 0..packet.len() {
            assert_eq!(Report::decode(&packet[..length]), None);
        }
        assert_eq!(Report::decode(&[packet.as_slice(), &[0]].concat()), None);
        assert_eq!(Report::decode(&[10; LENGTH]), None);
    }
}
