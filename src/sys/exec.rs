//! `execve(2)` with vectors prepared in advance: nix builds them in the call, which allocates.

use std::{
    cell::Cell,
    ffi::{CStr, c_char},
    marker::PhantomData,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

use nix::errno::Errno;

/// The NULL-terminated vectors of `execve(2)`; they borrow the plan's strings.
#[derive(Debug)]
pub struct Vectors<'plan> {
    argv: Vec<Cell<*const c_char>>,
    env: Vec<Cell<*const c_char>>,
    /// A variable that is known late, in memory that is there early.
    late: Vec<Cell<u8>>,
    strings: PhantomData<&'plan CStr>,
}

impl<'plan> Vectors<'plan> {
    /// Prepares both vectors; the last allocation before clone.
    pub fn new(argv: impl Iterator<Item = &'plan CStr>, env: impl Iterator<Item = &'plan CStr>) -> Self {
        let late = vec![Cell::new(0); LATE];
        Self { argv: terminated(argv), env: terminated(env), late, strings: PhantomData }
    }

    /// Adds a variable to the environment, once, without allocating. E2BIG when it is too long, or the second one.
    pub fn add_late(&self, variable: &[u8]) -> nix::Result<()> {
        let place = self.env.iter().rev().nth(1).filter(|place| place.get().is_null()).ok_or(Errno::E2BIG)?;
        // The last byte stays 0.
        let room = self.late.get(..variable.len()).filter(|room| room.len() < LATE).ok_or(Errno::E2BIG)?;
        room.iter().zip(variable).for_each(|(to, from)| to.set(*from));
        place.set(self.late.as_ptr().cast());
        Ok(())
    }

    /// Replaces an argument, by its number, with one that is known late. EINVAL when there is none of that number.
    pub fn replace(&self, number: usize, word: &'plan CStr) -> nix::Result<()> {
        let place = self.argv.get(number).filter(|place| !place.get().is_null()).ok_or(Errno::EINVAL)?;
        place.set(word.as_ptr());
        Ok(())
    }
}

/// The environment that this process was started with, whatever form its entries have: `environ(7)`.
pub fn environment() -> impl Iterator<Item = &'static CStr> {
    let mut next = {
        // SAFETY: a pointer, read once; nothing of ours writes it.
        let all: *const *const c_char = unsafe { libc::environ }.cast_const().cast();
        all
    };
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: the array ends with NULL, behind which this never gets.
        let entry = unsafe { *next };
        if entry.is_null() {
            return None;
        }
        next = next.wrapping_add(1);
        // SAFETY: every entry before NULL is a C string, which lives as long as the process: nothing of ours changes one.
        Some(unsafe { CStr::from_ptr(entry) })
    })
}

/// The words, room for one more, and the NULL.
fn terminated<'a>(words: impl Iterator<Item = &'a CStr>) -> Vec<Cell<*const c_char>> {
    words.map(CStr::as_ptr).chain([ptr::null(), ptr::null()]).map(Cell::new).collect()
}

/// Bytes of a late variable, with its NUL.
const LATE: usize = 1025;

/// Becomes the program; returns only on failure. `program` is a path: PATH is not searched.
///
/// ENOENT also means that the interpreter of a script or of a dynamic program is missing: `execve(2)`.
pub fn exec(program: &CStr, vectors: &Vectors<'_>) -> Errno {
    // SAFETY: both arrays end with NULL (`terminated`), have the layout of pointers because `Cell` is transparent, and
    // point to strings that `Vectors` keeps borrowed or owns.
    unsafe { libc::execve(program.as_ptr(), vectors.argv.as_ptr().cast(), vectors.env.as_ptr().cast()) };
    Errno::last()
}

/// Becomes the program in an open file, to which no path need lead: `execveat(2)`. Returns only on failure.
pub fn exec_file(program: BorrowedFd<'_>, vectors: &Vectors<'_>) -> Errno {
    let (argv, env) = (vectors.argv.as_ptr(), vectors.env.as_ptr());
    // SAFETY: as in `exec`; the descriptor is borrowed, and the empty path a C string.
    unsafe { libc::syscall(libc::SYS_execveat, program.as_raw_fd(), c"".as_ptr(), argv, env, libc::AT_EMPTY_PATH) };
    Errno::last()
}

/// Becomes the first word's program, with this process's own environment; returns only on failure. A name without a slash is
/// looked for in PATH, and a file without a known format is run by `sh`: `execvp(3)`.
pub fn search(vectors: &Vectors<'_>) -> Errno {
    let Some(name) = vectors.argv.first().map(Cell::get).filter(|name| !name.is_null()) else { return Errno::ENOENT };
    // SAFETY: as in `exec`; `name` is the first of the strings.
    unsafe { libc::execvp(name, vectors.argv.as_ptr().cast()) };
    Errno::last()
}
