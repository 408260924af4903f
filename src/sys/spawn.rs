//! Starting a program of the host: `posix_spawn(3)`, which shares memory with the child until exec, so that nothing is
//! copied and nothing of ours runs in it.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

use nix::{errno::Errno, unistd::Pid};

/// Starts `program` with exactly this environment: no signal blocked, SIGPIPE at its default, and no descriptor but the
/// standard ones, which are `/dev/null` where none is given. ENOENT also when a script's interpreter is missing.
pub fn spawn(program: &CStr, argv: &[CString], env: &[&CStr], standard: Standard<'_>) -> nix::Result<Pid> {
    let actions = Actions::new(standard)?;
    let attributes = Attributes::new()?;
    let argv: Vec<_> = argv.iter().map(|word| word.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect();
    let env: Vec<_> = env.iter().map(|variable| variable.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect();
    let mut pid = 0;
    // SAFETY: both lists end with a null pointer, and their strings live until the call returns, which is after exec;
    // actions and attributes are initialised, as their types promise.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            argv.as_ptr(),
            env.as_ptr(),
        )
    };
    check(error).map(|()| Pid::from_raw(pid))
}

/// Standard input, output and error.
pub type Standard<'a> = [Option<BorrowedFd<'a>>; 3];

/// The functions of this family return the error instead of setting errno.
fn check(error: libc::c_int) -> nix::Result<()> {
    if error == 0 { Ok(()) } else { Err(Errno::from_raw(error)) }
}

/// What the child does to its descriptors.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new(standard: Standard<'_>) -> nix::Result<Self> {
        // SAFETY: plain integers and pointers, for which zero is a value; the next call initialises them.
        let mut actions = Self(unsafe { std::mem::zeroed() });
        // SAFETY: the place is ours to initialise, and `drop` undoes it once.
        check(unsafe { libc::posix_spawn_file_actions_init(&raw mut actions.0) })?;
        // The pipes first: they may have one of the three numbers.
        for (target, source) in (0..).zip(standard) {
            if let Some(source) = source {
                actions.duplicate(source, target)?;
            }
        }
        for (target, source) in (0..).zip(standard) {
            if source.is_none() {
                actions.open_null(target)?;
            }
        }
        actions.close_others()?;
        Ok(actions)
    }

    fn duplicate(&mut self, source: BorrowedFd<'_>, target: i32) -> nix::Result<()> {
        // SAFETY: initialised; the source stays open until the spawn, because its owner is borrowed by the caller.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, source.as_raw_fd(), target) })
    }

    fn open_null(&mut self, target: i32) -> nix::Result<()> {
        // SAFETY: initialised; the path is a C string, which the call copies.
        check(unsafe {
            libc::posix_spawn_file_actions_addopen(&raw mut self.0, target, c"/dev/null".as_ptr(), libc::O_RDWR, 0)
        })
    }

    /// The caller's descriptors, which the program shall inherit, are none of a helper's business.
    #[cfg(target_env = "gnu")]
    fn close_others(&mut self) -> nix::Result<()> {
        // SAFETY: initialised, and plain numbers.
        check(unsafe { libc::posix_spawn_file_actions_addclosefrom_np(&raw mut self.0, 3) })
    }

    /// The same where libc has no such action: each that is open now, by number.
    #[cfg(not(target_env = "gnu"))]
    fn close_others(&mut self) -> nix::Result<()> {
        let open = std::fs::read_dir("/proc/self/fd").map_err(|_unreadable| Errno::EBADF)?;
        let numbers: Vec<i32> = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        for number in numbers.into_iter().filter(|number| *number > 2) {
            // SAFETY: initialised, and a plain number; one that is closed by then does no harm.
            check(unsafe { libc::posix_spawn_file_actions_addclose(&raw mut self.0, number) })?;
        }
        Ok(())
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: `new` initialised it, and nobody uses it afterwards.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

/// What the child is: its signals. We block all of them around clone, and Rust's start-up ignores SIGPIPE; both survive
/// exec.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> nix::Result<Self> {
        // SAFETY: plain integers, for which zero is a value; the next call initialises them.
        let mut attributes = Self(unsafe { std::mem::zeroed() });
        // SAFETY: the place is ours to initialise, and `drop` undoes it once.
        check(unsafe { libc::posix_spawnattr_init(&raw mut attributes.0) })?;
        let set = |signals: &[i32]| {
            // SAFETY: a set is plain integers; the next call makes it the empty one.
            let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
            // SAFETY: the set is ours.
            unsafe { libc::sigemptyset(&raw mut set) };
            for signal in signals {
                // SAFETY: the set is ours, and initialised.
                unsafe { libc::sigaddset(&raw mut set, *signal) };
            }
            set
        };
        let (unblocked, default) = (set(&[]), set(&[libc::SIGPIPE]));
        // SAFETY: initialised; the call copies the set.
        check(unsafe { libc::posix_spawnattr_setsigmask(&raw mut attributes.0, &raw const unblocked) })?;
        // SAFETY: as above.
        check(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, &raw const default) })?;
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let flags = libc::c_short::try_from(flags).map_err(|_overflow| Errno::EOVERFLOW)?;
        // SAFETY: initialised, and a plain number.
        check(unsafe { libc::posix_spawnattr_setflags(&raw mut attributes.0, flags) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: `new` initialised it, and nobody uses it afterwards.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}
