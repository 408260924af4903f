//! What the parent opens, makes or writes before clone, because only it may.

use std::{
    ffi::{CStr, CString},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag},
};

use crate::{
    error::{Code, Context as _, Error, Result, plain},
    hooks,
    init::mapping,
    itself,
    plan::{Input, MappedTree, NewNode, Plan, explain_id_map},
    sys,
};

/// The name of a node on a filesystem of its own.
const NODE: &CStr = c"node";

/// Opens one.
pub(super) fn open(input: &Input, plan: &Plan) -> Result<OwnedFd> {
    match input {
        Input::Namespace(path) => namespace(path),
        Input::Owner(path) => {
            let owner = open_namespace(path).and_then(|namespace| sys::namespace::owner(namespace.as_fd()));
            owner.doing(Code::Join, || format!("open the namespace {path:?}"))
        }
        Input::Directory(path) => {
            let opened = sys::path::open_host(&text(path)?, sys::path::REFERENCE | OFlag::O_DIRECTORY);
            opened.doing(Code::NotRunnable, || format!("open {path:?}"))
        }
        Input::Mapped(tree) => map(tree),
        Input::Node(node) => make(node),
        Input::Program(path) => itself::hold(path, plan.ids()),
        Input::Output(path) => hooks::open_output(path.as_deref()).map(OwnedFd::from),
    }
}

/// Opens a namespace.
pub(super) fn namespace(path: &Path) -> Result<OwnedFd> {
    open_namespace(path).doing(Code::Join, || format!("open the namespace {path:?}"))
}

fn open_namespace(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    sys::retry(|| nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()))
}

fn text(path: &Path) -> Result<CString> {
    let refused = |_inner| Error::new(Code::Field, format!("use {path:?}"), "it contains a NUL byte");
    CString::new(path.as_os_str().as_bytes()).map_err(refused)
}

/// Copies a mount and maps its ids.
fn map(tree: &MappedTree) -> Result<OwnedFd> {
    let path = text(&tree.path)?;
    let copy = sys::mount::open_tree(AT_FDCWD, &path, tree.recursive);
    let copy = copy.doing(Code::BindSource, || format!("take {:?}", tree.path))?;
    let [uids, gids] = [&tree.uids, &tree.gids].map(|lines| CString::new(lines.as_str()).unwrap_or_default());
    let namespace = mapping::make(&uids, &gids).map_err(|errno| {
        let what = format!("map ids: {:?} and {:?}, of a mount", tree.uids.trim_end(), tree.gids.trim_end());
        Error::new(Code::MapRefused, what, plain(errno)).at(tree.place.clone())
    })?;
    let mapped = sys::mount::map_ids(copy.as_fd(), namespace.as_fd(), tree.all);
    mapped
        .map_err(|errno| explain_id_map(&format!("idmap {:?}", tree.path), &tree.kind, errno).at(tree.place.clone()))?;
    Ok(copy)
}

/// Makes a device node that the host lacks, and its mount: on a filesystem that is mounted nowhere, and lives as long as
/// the container's mount of the node does.
fn make(node: &NewNode) -> Result<OwnedFd> {
    let made = sys::mount::detached(c"tmpfs").and_then(|nowhere| {
        sys::path::create_node(nowhere.as_fd(), NODE, node.kind | 0o666, node.device)?;
        sys::mount::open_tree(nowhere.as_fd(), NODE, false)
    });
    made.map_err(|errno| {
        let (major, minor) = (libc::major(node.device), libc::minor(node.device));
        let why = if errno == Errno::EINVAL { "only Linux 6.15 and later can".to_owned() } else { plain(errno) };
        Error::new(Code::Device, format!("make the device {major}:{minor}, which this host lacks"), why)
            .at(node.place.clone())
            .fix("mknod it below the host's /dev")
    })
}

/// Writes parameters of namespaces that were just joined, through the caller's own procfs: the container's ids have no
/// power over them. A failure comes with the parameter's index.
pub(super) fn write_parameters(plan: &Plan, proc: Option<OwnedFd>) -> std::result::Result<(), (u32, Errno)> {
    let Some(proc) = proc else { return Ok(()) };
    for (index, parameter) in (0..).zip(&plan.parameters) {
        let file = CString::new(parameter.file.as_str()).map_err(|_nul| (index, Errno::EINVAL))?;
        let written = sys::procfs::write(proc.as_fd(), &file, parameter.value.as_bytes());
        written.map_err(|errno| (index, errno))?;
    }
    Ok(())
}

/// Why one of them could not be set.
pub(super) fn explain_parameter(plan: &Plan, index: u32, errno: Errno) -> Error {
    let parameter = usize::try_from(index).ok().and_then(|index| plan.parameters.get(index));
    let (key, value) = parameter.map_or(("a parameter", ""), |parameter| (&parameter.key, &parameter.value));
    crate::plan::explain_sysctl(key, value, errno).at(format!("linux.sysctl[{key:?}]"))
}
