//! Init: applies the plan, in order, and so becomes the program.
//!
//! This module never allocates, never locks and never panics; `sys::alloc` enforces the first in debug builds. It makes
//! no decision of its own: a step branches only on an errno that its description in [`crate::plan::Op`] names.

mod apply;
mod attach;
mod console;
mod copy;
mod cover;
mod fallback;
pub(crate) mod home;
mod hook;
mod line;
pub(crate) mod mapping;
mod node;
mod path;
mod program;

use std::ffi::CStr;

use nix::errno::Errno;

use crate::{
    launch::link::{self, Report},
    plan::{Op, Plan, Slot},
    sys::{self, exec::Vectors, fd::Slots},
};

/// All that init holds besides the plan.
#[derive(Debug)]
pub struct Init<'plan> {
    plan: &'plan Plan,
    vectors: &'plan Vectors<'plan>,
    /// Those of the plan's hooks.
    hooks: &'plan [Vectors<'plan>],
    /// What the seccomp agent is told.
    notice: Vec<u8>,
    slots: Slots,
    trees: attach::Trees,
    program: Option<&'plan CStr>,
}

impl<'plan> Init<'plan> {
    /// Takes over what was prepared before clone.
    pub fn new(
        plan: &'plan Plan,
        vectors: &'plan Vectors<'plan>,
        hooks: &'plan [Vectors<'plan>],
        notice: Vec<u8>,
        slots: Slots,
    ) -> Self {
        Self { plan, vectors, hooks, notice, slots, trees: attach::Trees::default(), program: None }
    }

    /// Runs as process 1 of the container and never returns.
    pub fn main(mut self) -> ! {
        sys::alloc::seal();
        for (step, op) in (0..).zip(self.plan.ops()) {
            if let Err(errno) = self.apply(step, *op) {
                let report = if matches!(op, Op::Seccomp { .. } | Op::Capabilities { .. }) {
                    Report::Unconfined { step, errno }
                } else if *op == Op::TellAgent {
                    Report::Unheard { step, errno }
                } else {
                    Report::Failed { step, errno }
                };
                // When nobody listens any more, our death is the report.
                let _ = self.slots.get(Slot::LINK.index()).map(|link| link::report(link, report));
                sys::process::exit_now(status(errno));
            }
        }
        sys::process::exit_now(EXIT_FAILED)
    }

    /// Tells the parent that a step failed and the container is only weaker for it.
    fn warn(&self, step: u32, errno: Errno) -> nix::Result<()> {
        link::report(self.slots.get(Slot::LINK.index())?, Report::Warned { step, errno })
    }
}

/// What a container that never became its program leaves as its status: docker-run(1).
const EXIT_FAILED: i32 = 125;

fn status(errno: Errno) -> i32 {
    if errno == Errno::ENOENT { 127 } else { 126 }
}
