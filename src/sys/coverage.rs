//! The counters that `-Cllvm-args=-sanitizer-coverage-inline-8bit-counters` puts at every edge, for `tests/fuzz`.

#[cfg(pura_coverage)]
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

#[cfg(pura_coverage)]
static FIRST: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
#[cfg(pura_coverage)]
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Called before `main` by what the compiler adds, once for each object: the linker has put all counters side by side.
#[cfg(pura_coverage)]
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(first: *mut u8, end: *mut u8) {
    FIRST.store(first, Ordering::Relaxed);
    COUNT.store(end.addr() - first.addr(), Ordering::Relaxed);
}

/// All counters of the program; none in an ordinary build.
pub(crate) fn counters() -> &'static mut [u8] {
    #[cfg(pura_coverage)]
    if !FIRST.load(Ordering::Relaxed).is_null() {
        // SAFETY: the linker's array is there as long as the program is, any value is a count, and the one test that runs
        // is the only one that looks; an increment that another thread loses is no harm.
        return unsafe { std::slice::from_raw_parts_mut(FIRST.load(Ordering::Relaxed), COUNT.load(Ordering::Relaxed)) };
    }
    &mut []
}
