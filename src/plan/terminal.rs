//! The program's terminal.

use oci_spec::runtime::Process;

use super::{Op, Slot, draft::Draft};
use crate::error::Result;

impl Draft<'_> {
    /// Makes the terminal, on the container's own devpts, and passes its master out; where there is a `/dev` of its own,
    /// binds it on the console. Gives back where the program's end is.
    pub(super) fn open_terminal(&mut self, has_dev: bool) -> Result<Option<Slot>> {
        let process = self.spec.process().as_ref().filter(|process| process.terminal() == Some(true));
        let Some(process) = process else { return Ok(None) };
        let (master, slave) = (self.slot()?, self.slot()?);
        let size = self.terminal_size(process);
        self.step_for(Op::OpenConsole { master, slave, size, owner: process.user().uid() }, "process.terminal");
        if has_dev {
            self.step_for(Op::BindConsole(slave), "process.terminal");
        }
        self.step_for(Op::PassConsole(master), "process.terminal");
        Ok(Some(slave))
    }

    /// As the config says, else as large as the caller's own.
    fn terminal_size(&self, process: &Process) -> (u16, u16) {
        let asked = process.console_size().filter(|size| size.height() != 0 || size.width() != 0);
        let narrow = |length: u64| u16::try_from(length).unwrap_or(u16::MAX);
        asked.map_or(self.host.terminal.unwrap_or((0, 0)), |size| (narrow(size.height()), narrow(size.width())))
    }

    /// Makes it the program's. After the session has been made, and after all that may fail for another reason.
    pub(super) fn take_terminal(&mut self, slave: Option<Slot>) {
        if let Some(slave) = slave {
            self.step_for(Op::TakeConsole(slave), "process.terminal");
        }
    }
}
