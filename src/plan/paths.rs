//! Masked and read-only paths.

use super::{Op, draft::Draft};
use crate::error::Result;

impl Draft<'_> {
    /// Covers the masked paths, then makes the others read-only: a masked path needs nothing more.
    pub(super) fn masks(&mut self) -> Result<()> {
        let Some(linux) = self.spec.linux() else { return Ok(()) };
        let mut seen: Vec<&str> = Vec::new();
        for (index, path) in linux.masked_paths().iter().flatten().enumerate() {
            // Engines list some twice; a second mask would only cover the first.
            if seen.contains(&path.as_str()) {
                continue;
            }
            seen.push(path);
            let text = self.text(path)?;
            self.step_for(Op::Mask(text), format!("linux.maskedPaths[{index}]"));
        }
        for (index, path) in linux.readonly_paths().iter().flatten().enumerate() {
            let text = self.text(path)?;
            self.step_for(Op::ReadOnly(text), format!("linux.readonlyPaths[{index}]"));
        }
        Ok(())
    }
}
