//! A connection to whoever listens on a socket of the host, by a path of any length.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_to, setsockopt, socket,
            sockopt::SendTimeout,
        },
        stat::Mode,
        time::{TimeVal, TimeValLike as _},
    },
};

use crate::{
    error::{Code, Context as _, Error, Result},
    sys,
};

/// How long whoever listens may take to accept, in seconds: engines accept at once.
const PATIENCE: i64 = 5;

/// Connects to a stream socket, `unix(7)`; `code` and `name` are for errors, which say that somebody has to listen there.
pub fn connect(path: &Path, code: Code, name: &str) -> Result<OwnedFd> {
    open(path, code, name)
        .map_err(|error| error.fix(format!("the path of a {name}, with a program that listens there")))
}

/// By its descriptor, because `sun_path` holds 107
/// bytes and paths are longer.
fn open(path: &Path, code: Code, name: &str) -> Result<OwnedFd> {
    let what = || format!("connect to the {name} {}", path.display());
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let found = sys::retry(|| nix::fcntl::open(path, flags, Mode::empty())).doing(code, what)?;
    let mode = sys::path::stat(found.as_fd()).doing(code, what)?.st_mode;
    if mode & libc::S_IFMT != libc::S_IFSOCK {
        return Err(Error::new(code, what(), "it is not a socket"));
    }
    let address = UnixAddr::new(format!("/proc/self/fd/{}", found.as_raw_fd()).as_str()).doing(code, what)?;
    let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).doing(code, what)?;
    // connect(2) waits while more connections than the listener allows are not accepted, and send(2) for room: socket(7).
    setsockopt(&stream, SendTimeout, &TimeVal::seconds(PATIENCE)).doing(code, what)?;
    match sys::retry(|| connect_to(stream.as_raw_fd(), &address)) {
        Err(Errno::EAGAIN) => Err(Error::new(code, what(), "nobody accepts the connection")),
        connected => connected.doing(code, what).map(|()| stream),
    }
}
