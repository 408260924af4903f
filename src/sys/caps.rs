//! Capability sets as masks, bit n for capability n: `capabilities(7)`.

use nix::errno::Errno;

use super::check;

/// The highest capability this kernel could know: sets are 64 bits wide.
const LAST: u64 = 63;

/// Drops every capability that is not in `kept` from the bounding set. Needs `CAP_SETPCAP`.
pub fn limit_bounding(kept: u64) -> nix::Result<()> {
    for capability in (0..=LAST).filter(|capability| kept >> capability & 1 == 0) {
        // SAFETY: PR_CAPBSET_DROP takes plain numbers.
        let dropped =
            check(libc::c_long::from(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0_u64, 0_u64, 0_u64) }));
        match dropped {
            // Above the last one that this kernel knows.
            Err(Errno::EINVAL) => return Ok(()),
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Sets effective, permitted and inheritable: `capset(2)`. EPERM: not a subset of the permitted set.
pub fn set(effective: u64, permitted: u64, inheritable: u64) -> nix::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |mask: u64, shift: u32| u32::try_from(mask >> shift & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    let data = [0, 32].map(|shift| Data {
        effective: half(effective, shift),
        permitted: half(permitted, shift),
        inheritable: half(inheritable, shift),
    });
    // SAFETY: version 3 makes the kernel read one header and two data blocks, which is what these are.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Raises ambient capabilities, which must be permitted and inheritable.
pub fn raise_ambient(mask: u64) -> nix::Result<()> {
    for capability in (0..=LAST).filter(|capability| mask >> capability & 1 == 1) {
        // SAFETY: PR_CAP_AMBIENT_RAISE takes plain numbers.
        let raised =
            unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability, 0_u64, 0_u64) };
        check(libc::c_long::from(raised))?;
    }
    Ok(())
}

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}
