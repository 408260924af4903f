//! Hooks that run inside: one of the few processes that init starts.

use std::os::fd::AsFd as _;

use nix::errno::Errno;

use super::{EXIT_FAILED, Init};
use crate::{
    hooks,
    launch::link::{self, Report},
    plan::Slot,
    sys::{self, child::Child},
};

impl Init<'_> {
    /// Runs a hook. When it fails, says how, and ends: the program must not run then.
    pub(super) fn hook(&self, number: u16) -> nix::Result<()> {
        let end = self.run_hook(number).unwrap_or_else(|errno| -(errno as i32));
        if end == 0 {
            return Ok(());
        }
        link::report(self.slots.get(Slot::LINK.index())?, Report::Hook { number: number.into(), end })?;
        sys::process::exit_now(EXIT_FAILED)
    }

    /// Whoever started us may be gone by now; the program runs all the same.
    pub(super) fn hooked(&self) -> nix::Result<()> {
        let _ = link::report(self.slots.get(Slot::LINK.index())?, Report::Hooked);
        Ok(())
    }

    fn run_hook(&self, number: u16) -> nix::Result<i32> {
        let index = usize::from(number);
        let hook = self.plan.hooks().get(index).ok_or(Errno::EINVAL)?;
        let vectors = self.hooks.get(index).ok_or(Errno::EINVAL)?;
        // As the container sees us: a hook that runs inside could do nothing with another number.
        let pid = nix::unistd::getpid().as_raw();
        let stdin = hooks::told(self.plan.text(hook.state).to_bytes(), pid)?;
        let child = Child {
            program: self.plan.text(hook.path),
            vectors,
            directory: self.plan.text(hook.directory),
            standard: [stdin.as_fd(), self.slots.get(Slot::OUTPUT.index())?, self.slots.get(Slot::ERRORS.index())?],
            ignored: self.plan.ignored,
        };
        child.run(hook.limit, None)
    }
}
