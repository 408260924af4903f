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
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.audit,
            8 | 12 => 0,
            16..=60 if offset.is_multiple_of(4) => {
                let word = usize::try_from((offset - 16) / 4).expect("small");
                let argument = self.arguments[word / 2];
                u32::try_from(if word % 2 == 1 { argument >> 32 } else { argument & 0xffff_ffff }).expect("a half")
            }
            _ => panic!("a filter loads from {offset}"),
        }
    }
}

/// Runs a filter; panics where the kernel would have refused it.
pub(crate) fn run(program: &[Instruction], call: &Call) -> u32 {
    let (mut at, mut value) = (0_usize, 0_u32);
    loop {
        let step = program[at];
        at += 1;
        let holds = match step.code {
            0x20 => {
                value = call.word(step.constant);
                continue;
            }
            0x54 => {
                value &= step.constant;
                continue;
            }
            0x05 => {
                at += usize::try_from(step.constant).expect("a distance");
                continue;
            }
            0x06 => return step.constant,
            0x15 => value == step.constant,
            0x25 => value > step.constant,
            0x35 => value >= step.constant,
            0x45 => value & step.constant != 0,
            code => panic!("instruction {code:#x}"),
        };
        at += usize::from(if holds { step.when_true } else { step.when_false });
    }
}
