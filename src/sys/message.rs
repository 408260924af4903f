//! A message with a descriptor in it: `unix(7)`, `SCM_RIGHTS`. Without allocation, because init sends one.

use std::{
    mem::{size_of, zeroed},
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::errno::Errno;

use super::{fd::adopt, retry};

/// Room for one descriptor, aligned as `cmsghdr` wants.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    descriptor: libc::c_int,
    padding: libc::c_int,
}

/// Bytes of `cmsghdr` with one descriptor: `CMSG_LEN(sizeof(int))`.
const LENGTH: usize = size_of::<libc::cmsghdr>() + size_of::<libc::c_int>();

/// Sends some bytes, at least one, and a descriptor with the first of them: `sendmsg(2)`, whatever there is to send, so that
/// it is the one call of this kind that a seccomp filter must leave to init.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> nix::Result<()> {
    let mut sent = send_some(socket, bytes, descriptor)?;
    // A stream may take less when a signal comes.
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        sent += send_some(socket, rest, None)?;
    }
    Ok(())
}

fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> nix::Result<usize> {
    let header = libc::cmsghdr { cmsg_len: LENGTH, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
    let raw = descriptor.map_or(-1, |descriptor| descriptor.as_raw_fd());
    let mut control = Control { header, descriptor: raw, padding: 0 };
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = message(&mut part, &mut control);
    if descriptor.is_none() {
        (message.msg_control, message.msg_controllen) = (std::ptr::null_mut(), 0);
    }
    let sent = retry(|| {
        // SAFETY: the message points to one part and one control block, which live until the call returns; the kernel
        // only reads what they point to.
        Errno::result(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) })
    })?;
    // Nothing sent is nothing that could be tried again.
    usize::try_from(sent).ok().filter(|sent| *sent > 0).ok_or(Errno::EIO)
}

/// Receives some bytes, and the descriptor that came with them. The length 0 is the end.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> nix::Result<(usize, Option<OwnedFd>)> {
    let header = libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 };
    let mut control = Control { header, descriptor: -1, padding: 0 };
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut message = message(&mut part, &mut control);
    let length = retry(|| {
        // SAFETY: the kernel writes at most what the part and the control block have room for, and both outlive the call.
        Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) })
    })?;
    let came = &control.header;
    let is_descriptor = message.msg_controllen >= LENGTH
        && (came.cmsg_len, came.cmsg_level, came.cmsg_type) == (LENGTH, libc::SOL_SOCKET, libc::SCM_RIGHTS);
    let descriptor = (is_descriptor && control.descriptor >= 0).then(|| adopt(control.descriptor));
    Ok((usize::try_from(length).unwrap_or(0), descriptor))
}

fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: `msghdr` is plain integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = std::ptr::from_mut(control).cast();
    message.msg_controllen = size_of::<Control>();
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_descriptor_arrives_with_its_bytes_and_bytes_without_one() {
        let (ours, theirs) = crate::launch::link::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(ours.as_fd(), b"ptmx", Some(file.as_fd())).unwrap();
        let mut bytes = [0; 8];
        let (length, descriptor) = receive(theirs.as_fd(), &mut bytes).unwrap();
        assert_eq!((&bytes[..length], descriptor.is_some()), (b"ptmx".as_slice(), true));
        send(ours.as_fd(), b"x", None).unwrap();
        assert!(receive(theirs.as_fd(), &mut bytes).unwrap().1.is_none());
        drop(ours);
        assert_eq!(receive(theirs.as_fd(), &mut bytes).unwrap().0, 0);
    }
}
