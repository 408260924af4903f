//! Programs of eBPF that are attached to a cgroup: `bpf(2)`.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::{check, fd::adopt};
use crate::plan::resources::Instruction;

const LOAD: libc::c_int = 5;
const ATTACH: libc::c_int = 8;
const DETACH: libc::c_int = 9;
const OPEN_BY_ID: libc::c_int = 13;
const INFO: libc::c_int = 15;
const QUERY: libc::c_int = 16;

/// `BPF_PROG_TYPE_CGROUP_DEVICE` and `BPF_CGROUP_DEVICE`.
const TYPE: u32 = 15;
const HOOK: u32 = 6;

/// `BPF_F_ALLOW_MULTI`: beside those of others, who all have to agree. `BPF_F_REPLACE` (Linux 5.6).
const BESIDE: u32 = 2;
const REPLACE: u32 = 4;

/// A name in the kernel, `BPF_OBJ_NAME_LEN`: letters, digits and `_`, then NULs.
pub type Name = [u8; 16];

/// How many programs of a cgroup are looked at: the kernel's own limit, `BPF_CGROUP_MAX_PROGS`.
const MOST: u32 = 64;

/// The members of `union bpf_attr` that are used here.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    kernel_version: u32,
    flags: u32,
    name: Name,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    cgroup: u32,
    program: u32,
    hook: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    cgroup: u32,
    hook: u32,
    flags: u32,
    attached_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct OpenById {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Info {
    program: u32,
    length: u32,
    into: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Described {
    before: [u64; 8],
    name: Name,
}

/// Makes the call with the attributes of a command.
///
/// Precondition: addresses in them are those of live memory of the lengths that they say.
fn call<T>(command: libc::c_int, attributes: &mut T) -> nix::Result<i32> {
    // SAFETY: the kernel reads, and for some commands writes, no more than the size of `attributes`, a plain struct of
    // integers that is borrowed for the call; what the addresses in it lead to is the caller's, as said above.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) })
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    u32::try_from(descriptor.as_raw_fd()).unwrap_or(u32::MAX)
}

fn address<T: ?Sized>(of: &T) -> u64 {
    u64::try_from(std::ptr::from_ref(of).addr()).unwrap_or_default()
}

/// Loads a program that filters devices. EPERM: not with `CAP_BPF` and `CAP_NET_ADMIN` in the initial user namespace.
/// EINVAL: the kernel's verifier refuses it. The descriptor is closed by exec.
pub fn load(program: &[Instruction], name: Name) -> nix::Result<OwnedFd> {
    let count = u32::try_from(program.len()).map_err(|_overflow| Errno::E2BIG)?;
    let license = c"";
    let (instructions, license) = (address(program), address(license));
    call(LOAD, &mut Load { kind: TYPE, count, instructions, license, name, ..Load::default() }).map(adopt)
}

/// Attaches a program to a cgroup, beside those of others, or in the place of one, at once. The kernel keeps it as long as
/// the cgroup is there.
pub fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, replaced: Option<BorrowedFd<'_>>) -> nix::Result<()> {
    let flags = BESIDE | if replaced.is_some() { REPLACE } else { 0 };
    let (cgroup, program, replaced) = (number(cgroup), number(program), replaced.map_or(0, number));
    call(ATTACH, &mut Attach { cgroup, program, hook: HOOK, flags, replaced }).map(drop)
}

/// Detaches a program from a cgroup.
pub fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> nix::Result<()> {
    let (cgroup, program) = (number(cgroup), number(program));
    call(DETACH, &mut Attach { cgroup, program, hook: HOOK, ..Attach::default() }).map(drop)
}

/// The program of this name that is attached to the cgroup itself. EPERM: not without `CAP_NET_ADMIN`.
pub fn attached(cgroup: BorrowedFd<'_>, name: Name) -> nix::Result<Option<OwnedFd>> {
    let mut ids = [0_u32; MOST as usize];
    let (cgroup, address_of_ids) = (number(cgroup), u64::try_from(ids.as_mut_ptr().addr()).unwrap_or_default());
    let mut query = Query { cgroup, hook: HOOK, ids: address_of_ids, count: MOST, ..Query::default() };
    call(QUERY, &mut query)?;
    for id in ids.iter().take(usize::try_from(query.count).unwrap_or(0)) {
        // ENOENT: it has gone meanwhile.
        let Ok(program) = call(OPEN_BY_ID, &mut OpenById { id: *id, ..OpenById::default() }).map(adopt) else {
            continue;
        };
        if name_of(&program)? == name {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

fn name_of(program: &OwnedFd) -> nix::Result<Name> {
    let mut described = Described::default();
    let length = u32::try_from(size_of::<Described>()).unwrap_or(0);
    let into = u64::try_from(std::ptr::from_mut(&mut described).addr()).unwrap_or_default();
    call(INFO, &mut Info { program: u32::try_from(program.as_raw_fd()).unwrap_or(u32::MAX), length, into })?;
    Ok(described.name)
}
