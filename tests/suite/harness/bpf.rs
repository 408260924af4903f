//! The kernel's part: what a filter returns for a call. For the suite, and for the compiler's own tests.

use super::Instruction;

/// A call, as the kernel shows it to a filter: number, `AUDIT_ARCH_*`, arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) audit: u32,
    pub(crate) arguments: [u64; 6],
}

impl Call {
    /// A word of `struct seccomp_data`, little endian; the instruction pointer is 0.
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.number),
            4 => Some(self.audit),
            8 | 12 => Some(0),
            16..=60 if offset.is_multiple_of(4) => {
                let argument = self.arguments.get(usize::try_from((offset - 16) / 8).ok()?)?;
                let shift = if offset.is_multiple_of(8) { 0 } else { 32 };
                u32::try_from(argument >> shift & u64::from(u32::MAX)).ok()
            }
            _ => None,
        }
    }
}

/// Runs a filter; nothing where the kernel would have refused it.
pub(crate) fn run(program: &[Instruction], call: &Call) -> Option<u32> {
    let (mut at, mut value) = (0_usize, 0_u32);
    loop {
        let step = program.get(at)?;
        at += 1;
        let holds = match step.code {
            0x20 => {
                value = call.word(step.constant)?;
                continue;
            }
            0x54 => {
                value &= step.constant;
                continue;
            }
            0x05 => {
                at += usize::try_from(step.constant).ok()?;
                continue;
            }
            0x06 => return Some(step.constant),
            0x15 => value == step.constant,
            0x25 => value > step.constant,
            0x35 => value >= step.constant,
            0x45 => value & step.constant != 0,
            _ => return None,
        };
        at += usize::from(if holds { step.when_true } else { step.when_false });
    }
}
