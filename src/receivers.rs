//! Who is sent a pidfd of init. They are connected to before anything is made: a wrong path fails early.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use crate::{
    error::{Code, Context as _, Result},
    socket, sys,
};

/// The annotation that means the same as `--pidfd-socket`.
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";

/// Who wants a pidfd of the process that is started.
#[derive(Debug, Default)]
pub struct PidfdReceivers(Vec<OwnedFd>);

impl PidfdReceivers {
    /// Of `exec`: the option's.
    pub fn of_option(path: Option<&Path>) -> Result<Self> {
        let connected = path.map(|path| socket::connect(path, Code::PidfdSocket, "pidfd socket")).transpose()?;
        Ok(Self(connected.into_iter().collect()))
    }

    /// Of `create` and `run`: the option's, and the annotation's, whose path is relative to the bundle.
    pub fn of_container(path: Option<&Path>, spec: &Spec, bundle: &Path) -> Result<Self> {
        let mut receivers = Self::of_option(path)?;
        let annotation = spec.annotations().as_ref().and_then(|all| all.get(PIDFD_RECEIVER));
        if let Some(annotated) = annotation.filter(|value| !value.is_empty()) {
            let connected = socket::connect(&bundle.join(annotated), Code::PidfdSocket, "pidfd socket");
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
            let sent = sys::message::send(receiver.as_fd(), b"pidfd", Some(pidfd.as_fd()));
            sent.doing(Code::PidfdSocket, || "send the pidfd to the pidfd socket".to_owned())
        })
    }
}
