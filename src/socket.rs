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
            AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_to, getsockopt, setsockopt, socket,
            sockopt::{PeerCredentials, SendTimeout},
        },
        stat::Mode,
        time::{TimeVal, TimeValLike as _},
    },
    unistd::geteuid,
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

/// Refuses a socket that another user than the caller or root listens on: whoever has the terminal types into it.
pub fn insist_on_own(stream: &OwnedFd, path: &Path, code: Code, name: &str) -> Result<()> {
    let what = || format!("use the {name} {}", path.display());
    let listens = getsockopt(stream, PeerCredentials).doing(code, what)?.uid();
    if listens == geteuid().as_raw() || listens == 0 {
        return Ok(());
    }
    let error = Error::new(code, what(), format!("uid {listens} listens there, who is neither you nor root"));
    Err(error.fix(format!("a {name} of your own, in a directory that others may not write")))
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
