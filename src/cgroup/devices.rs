//! Which devices the processes of a cgroup may open: a program that is attached to it. Only for real root, because the
//! kernel lets nobody else attach one, and for nobody else is it of use: a user namespace makes no device nodes, and those
//! of the host may be opened as the host's permissions say.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::errno::Errno;

use crate::{
    error::{Code, Warning, plain},
    host::Caller,
    plan::resources::Rules,
    sys::bpf,
};

/// Attaches programs, with whatever is asked besides.
const CAP_SYS_ADMIN: u8 = 21;

/// By which ours is told from those of others, such as systemd.
const NAME: bpf::Name = *b"pura_devices\0\0\0\0";

/// Whether rules are of use to a container of this caller's.
pub fn are_enforced(caller: &Caller, is_initial_userns: bool) -> bool {
    is_initial_userns && caller.has(CAP_SYS_ADMIN)
}

/// The warning about rules that do not hold.
pub fn unfiltered(why: &str) -> Warning {
    let what = format!(
        "linux.resources.devices is not applied, because {why}: devices of the host that a mount brings in can be opened \
         by who may on the host"
    );
    Warning::new(Code::DeviceRules, what)
}

/// Loads the program; a warning where the kernel, or a filter around pura, does not allow that.
pub fn load(rules: &Rules) -> Result<OwnedFd, Warning> {
    bpf::load(&rules.program(), NAME).map_err(|errno| {
        let is_forbidden = errno == Errno::EPERM || errno == Errno::EACCES;
        let why =
            if is_forbidden { "you may not".to_owned() } else { format!("the kernel refuses it: {}", plain(errno)) };
        unfiltered(&format!("no program can be loaded for it with bpf(2): {why}"))
    })
}

/// Attaches the program to a new cgroup, or puts it in the place of the one that is there, at once; with none, devices are
/// free again.
pub fn put(directory: &Path, program: Option<&OwnedFd>, is_new: bool) -> Result<(), Warning> {
    let done = || {
        let cgroup = super::leaf::open_to_use(directory)?;
        let cgroup = cgroup.as_fd();
        let old = if is_new { None } else { bpf::attached(cgroup, NAME)? };
        match (program, &old) {
            (Some(new), _) => bpf::attach(cgroup, new.as_fd(), old.as_ref().map(|old| old.as_fd())),
            (None, Some(old)) => bpf::detach(cgroup, old.as_fd()),
            (None, None) => Ok(()),
        }
    };
    done().map_err(|errno| unfiltered(&format!("the kernel attaches no program: {}", plain(errno))))
}
