//! `execve(2)` with vectors prepared in advance: nix builds them in the call, which allocates.

use std::{
    ffi::{CStr, c_char},
    marker::PhantomData,
    ptr,
};

use nix::errno::Errno;

/// The NULL-terminated vectors of `execve(2)`; they borrow the plan's strings.
#[derive(Debug)]
pub struct Vectors<'plan> {
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    strings: PhantomData<&'plan CStr>,
}

impl<'plan> Vectors<'plan> {
    /// Prepares both vectors; the last allocation before clone.
    pub fn new(argv: impl Iterator<Item = &'plan CStr>, env: impl Iterator<Item = &'plan CStr>) -> Self {
        Self { argv: terminated(argv), env: terminated(env), strings: PhantomData }
    }
}

fn terminated<'a>(words: impl Iterator<Item = &'a CStr>) -> Vec<*const c_char> {
    words.map(CStr::as_ptr).chain([ptr::null()]).collect()
}

/// Becomes the program; returns only on failure. `program` is a path: PATH is not searched.
///
/// ENOENT also means that the interpreter of a script or of a dynamic program is missing: `execve(2)`.
pub fn exec(program: &CStr, vectors: &Vectors<'_>) -> Errno {
    // SAFETY: both arrays end with NULL (`terminated`) and point to strings that `Vectors` keeps borrowed.
    unsafe { libc::execve(program.as_ptr(), vectors.argv.as_ptr(), vectors.env.as_ptr()) };
    Errno::last()
}
