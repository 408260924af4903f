//! The C `main`: Rust's own start-up reads `/proc/self/maps`, makes a stack for signals and changes SIGPIPE, about twenty
//! system calls that `state` and `list` would feel.

use std::{
    ffi::{CStr, OsString, c_char, c_int},
    os::unix::ffi::OsStringExt as _,
};

use super::check;

/// Defines the C `main` of a program as a call of `$run`, which takes the arguments, is told whether the standard descriptors
/// are open, and gives the exit status.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C" fn main(
            count: ::core::ffi::c_int,
            words: *const *const ::core::ffi::c_char,
        ) -> ::core::ffi::c_int {
            $crate::sys::entry::start(count, words, $run)
        }
    };
}

/// Takes over from the C library.
pub fn start(count: c_int, words: *const *const c_char, run: fn(&[OsString], nix::Result<()>) -> u8) -> c_int {
    let standard = open_standard();
    c_int::from(run(&arguments(count, words), standard))
}

fn arguments(count: c_int, words: *const *const c_char) -> Vec<OsString> {
    let word = |at: usize| {
        // SAFETY: the C library calls `main` with an array of `count` pointers, and `at` is below that.
        let place = unsafe { words.add(at) };
        // SAFETY: for the same reason there is a pointer at that place.
        let word = unsafe { *place };
        // SAFETY: each of them is a C string that lives as long as the process.
        OsString::from_vec(unsafe { CStr::from_ptr(word) }.to_bytes().to_vec())
    };
    (0..usize::try_from(count).unwrap_or(0)).map(word).collect()
}

/// Makes sure that 0, 1 and 2 are open, on `/dev/null` where they are not, so that no other file becomes one of them.
fn open_standard() -> nix::Result<()> {
    let mut standard = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: pointer and length are those of one live array; with a time limit of 0 this only looks.
    super::retry(|| check(libc::c_long::from(unsafe { libc::poll(standard.as_mut_ptr(), 3, 0) })))?;
    for _ in standard.iter().filter(|entry| entry.revents & libc::POLLNVAL != 0) {
        // SAFETY: the path is a C string, and open(2) takes the lowest free number.
        check(libc::c_long::from(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) }))?;
    }
    Ok(())
}
