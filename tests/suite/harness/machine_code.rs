//! A program of a few system calls, as bytes: for calls that no library makes, such as those of another architecture.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Result;

/// Where the program is loaded: below 4 GiB, so that 32-bit calls can take its addresses too.
const BASE: u64 = 0x40_0000;

/// Room for strings and results, behind the header; the code follows.
const DATA: u64 = 0x1000;

/// An ELF executable for `x86_64` in the making.
#[derive(Debug)]
pub(crate) struct Program {
    data: Vec<u8>,
    code: Vec<u8>,
    results: u64,
}

impl Program {
    /// One that does nothing yet.
    pub(crate) fn new() -> Self {
        Self { data: Vec::new(), code: Vec::new(), results: 0 }
    }

    /// The address of a string that ends in NUL.
    pub(crate) fn string(&mut self, text: &str) -> u64 {
        let at = BASE + DATA + u64::try_from(self.data.len()).unwrap_or_default();
        self.data.extend([text.as_bytes(), &[0]].concat());
        at
    }

    /// A system call of `x86_64`, or of x32 with the number's bit 30 set.
    pub(crate) fn call(&mut self, number: u64, arguments: &[u64]) {
        // mov rdi, rsi, rdx, r10, r8, r9
        let registers = [[0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]];
        for (register, value) in registers.into_iter().zip(arguments) {
            self.code.extend(register);
            self.code.extend(value.to_le_bytes());
        }
        self.code.extend([0x48, 0xb8]); // mov rax
        self.code.extend(number.to_le_bytes());
        self.code.extend([0x0f, 0x05]); // syscall
    }

    /// A system call of 32-bit x86.
    pub(crate) fn call_x86(&mut self, number: u32, arguments: &[u32]) {
        // mov ebx, ecx, edx, esi, edi
        for (register, value) in [0xbb, 0xb9, 0xba, 0xbe, 0xbf].into_iter().zip(arguments) {
            self.code.push(register);
            self.code.extend(value.to_le_bytes());
        }
        self.code.push(0xb8); // mov eax
        self.code.extend(number.to_le_bytes());
        self.code.extend([0xcd, 0x80]); // int 0x80
    }

    /// Keeps the errno of the last call, 0 for success.
    pub(crate) fn keep_errno(&mut self) {
        self.code.extend([0x48, 0x63, 0xc0]); // movsxd rax, eax: what a 32-bit call returned
        self.code.extend([0x31, 0xc9]); // xor ecx, ecx
        self.code.extend([0x48, 0x85, 0xc0]); // test rax, rax
        self.code.extend([0x48, 0x0f, 0x49, 0xc1]); // cmovns rax, rcx
        self.code.extend([0xf7, 0xd8]); // neg eax
        self.code.extend([0x88, 0x04, 0x25]); // mov [results + n], al
        let at = u32::try_from(BASE + DATA / 2 + self.results).unwrap_or_default();
        self.code.extend(at.to_le_bytes());
        self.results += 1;
    }

    /// Replaces the program by the one that its arguments name.
    pub(crate) fn execute_arguments(&mut self) {
        self.code.extend([0x48, 0x8b, 0x7c, 0x24, 0x10]); // mov rdi, [rsp+16]: argv[1]
        self.code.extend([0x48, 0x8d, 0x74, 0x24, 0x10]); // lea rsi, [rsp+16]: argv + 1
        self.code.extend([0x48, 0x8b, 0x04, 0x24]); // mov rax, [rsp]: argc
        self.code.extend([0x48, 0x8d, 0x54, 0xc4, 0x10]); // lea rdx, [rsp+8*rax+16]: environ
        self.code.extend([0xb8, 59, 0, 0, 0, 0x0f, 0x05]); // execve
    }

    /// Writes the executable, which in the end writes a byte for each errno it kept, and exits with 0.
    pub(crate) fn write(mut self, path: &Path) -> Result<()> {
        self.call(1, &[1, BASE + DATA / 2, self.results]);
        self.call(231, &[0]);
        let entry = BASE + 2 * DATA;
        let size = 2 * DATA + u64::try_from(self.code.len())?;
        let mut file = Vec::new();
        file.extend(b"\x7fELF\x02\x01\x01");
        file.resize(16, 0);
        file.extend([2, 0, 62, 0, 1, 0, 0, 0]); // an executable, x86_64, version 1
        file.extend([entry, 64, 0].into_iter().flat_map(u64::to_le_bytes)); // entry, program headers, no sections
        file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]); // flags, sizes: one program header
        file.extend([1, 0, 0, 0, 7, 0, 0, 0]); // load; read, write, execute
        file.extend([0, BASE, BASE, size, size, 0x1000].into_iter().flat_map(u64::to_le_bytes));
        file.resize(usize::try_from(DATA)?, 0);
        file.extend(&self.data);
        file.resize(usize::try_from(2 * DATA)?, 0);
        file.extend(&self.code);
        // Not executable by this process's descriptor when another test forks: the copy is made by cp.
        let draft = path.with_extension("draft");
        fs::write(&draft, file)?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))?;
        let copied = std::process::Command::new("cp").arg(&draft).arg(path).status()?;
        anyhow::ensure!(copied.success(), "cp: {copied}");
        Ok(fs::remove_file(draft)?)
    }
}
