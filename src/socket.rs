//! Sockets of the caller that wait for a descriptor. They are connected to before anything is made: a wrong path fails
//! early.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::OFlag,
    sys::{
        socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
        stat::Mode,
    },
    unistd::Pid,
};
use oci_spec::runtime::Spec;

use crate::{
    error::{Code, Context as _, Result},
    sys,
};

/// The annotation that means the same as `--pidfd-socket`.
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";

/// Connects to a stream socket by its directory and name, because `sun_path` holds 107 bytes and paths are longer. `name`
/// says in an error what it is for.
pub fn connect_to(path: &Path, code: Code, name: &str) -> Result<OwnedFd> {
    let what = || format!("connect to the {name} socket {}", path.display());
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = nix::fcntl::open(parent, flags, Mode::empty()).doing(code, what)?;
    let address = format!("/proc/self/fd/{}/{file}", directory.as_raw_fd());
    let address = UnixAddr::new(address.as_str()).doing(code, what)?;
    let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let stream = stream.doing(code, what)?;
    sys::retry(|| connect(stream.as_raw_fd(), &address)).doing(code, what)?;
    Ok(stream)
}

/// Who wants a pidfd of the process that is started.
#[derive(Debug, Default)]
pub struct PidfdReceivers(Vec<OwnedFd>);

impl PidfdReceivers {
    /// Of `exec`: the option's.
    pub fn of_option(path: Option<&Path>) -> Result<Self> {
        let connected = path.map(|path| connect_to(path, Code::PidfdSocket, "pidfd")).transpose()?;
        Ok(Self(connected.into_iter().collect()))
    }

    /// Of `create` and `run`: the option's, and the annotation's, whose path is relative to the bundle.
    pub fn of_container(path: Option<&Path>, spec: &Spec, bundle: &Path) -> Result<Self> {
        let mut receivers = Self::of_option(path)?;
        let annotation = spec.annotations().as_ref().and_then(|all| all.get(PIDFD_RECEIVER));
        if let Some(annotated) = annotation.filter(|value| !value.is_empty()) {
            let connected = connect_to(&bundle.join(annotated), Code::PidfdSocket, "pidfd");
            receivers.0.push(connected.map_err(|error| error.at(format!("annotations.{PIDFD_RECEIVER:?}")))?);
        }
        Ok(receivers)
    }

    /// Sends each a pidfd of a child of ours that has not been waited for.
    pub fn send(&self, process: Pid) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let pidfd =
            sys::pidfd::open(process.as_raw()).doing(Code::PidfdSocket, || "open a pidfd of init".to_owned())?;
        self.0.iter().try_for_each(|receiver| {
            // Some bytes have to go with it.
            let sent = sys::message::send(receiver.as_fd(), b"pidfd", pidfd.as_fd());
            sent.doing(Code::PidfdSocket, || "send the pidfd to the pidfd socket".to_owned())
        })
    }
}
