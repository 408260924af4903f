//! What `doctor` goes by, found out once, as plain data.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::{statfs::statfs, statvfs},
    unistd::{AccessFlags, access},
};

use super::trial::{self, Results};
use crate::{
    cli::Globals,
    error::{Error, Result, Warning},
    host::{Host, refusal, refusal::number, session},
    launch::{helper, idmap},
    plan::ids::{Ids, UserNamespace, Writer},
    store::Roots,
    sys::{
        self,
        process::{self, Fork},
    },
    systemd,
    zero_config::{self, Mapping},
};

/// Filesystems whose servers know nothing of subordinate ids: magic numbers of statfs(2).
const NETWORKED: [(i64, &str); 8] = [
    (0x6969, "nfs"),
    (0x0BD0_0BD0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb2"),
    (0x5346_414F, "afs"),
    (0x00C3_6400, "ceph"),
    (0x0102_1997, "9p"),
];

/// A device that people miss inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// Its path.
    pub(super) path: &'static str,
    /// It is there.
    pub(super) exists: bool,
    /// The caller may open it.
    pub(super) is_open: bool,
    /// The one group that makes it so, which a container loses.
    pub(super) group: Option<u32>,
}

/// All facts.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(super) struct Facts {
    /// Who calls, and where.
    pub(super) host: Host,
    /// What tells the causes of a refusal apart.
    pub(super) refusal: refusal::Facts,
    /// What was tried.
    pub(super) trial: Results,
    /// The maps that a container gets.
    pub(super) ids: Option<Mapping>,
    /// Why newuidmap and newgidmap do not write them.
    pub(super) mapper: Option<Error>,
    /// pura runs in a container.
    pub(super) is_inside: bool,
    /// Where the state would be, or why nowhere.
    pub(super) state: Option<Result<(PathBuf, Option<Warning>)>>,
    /// Free bytes there, whether it is read-only, whether it is noexec.
    pub(super) space: Option<(u64, bool, bool)>,
    /// Directories on a filesystem of a network, and its type.
    pub(super) networked: Vec<(String, &'static str)>,
    /// Why no cgroup can be made below the caller's.
    pub(super) cgroup: Option<Errno>,
    /// Controllers of the caller's cgroup.
    pub(super) controllers: Vec<String>,
    /// The version of systemd that can be asked for scopes, or why it cannot; none where it does not run.
    pub(super) systemd: Option<std::result::Result<u32, String>>,
    /// logind is there, and ends what the caller leaves running.
    pub(super) ends_at_logout: bool,
    /// Hard limit of open files.
    pub(super) files: u64,
    /// Keys of the caller, and the most.
    pub(super) keys: Option<(u64, u64)>,
    /// Processes of the caller's cgroup, and the most.
    pub(super) processes: Option<(u64, u64)>,
    /// fuse, tun, kvm, dri.
    pub(super) devices: Vec<Device>,
    /// pasta or slirp4netns.
    pub(super) network: Option<PathBuf>,
    /// The lowest port that is everybody's.
    pub(super) ports: Option<u64>,
    /// A name server that is not the host's own loopback.
    pub(super) has_dns: bool,
    /// Release of the kernel.
    pub(super) kernel: String,
    /// ps(1) is there.
    pub(super) has_ps: bool,
    /// pura-init is installed.
    pub(super) has_reaper: bool,
}

/// Finds everything out.
pub(super) fn gather(globals: &Globals) -> Result<Facts> {
    let (host, ids) = zero_config::ids(globals.userns)?;
    let new_user = !matches!(&ids, Ok((Ids { user_namespace: UserNamespace::Reuse | UserNamespace::Inherit, .. }, _)));
    let trial = trial::run(new_user, host.caller.uid, host.caller.gid);
    let mapper = ids.as_ref().ok().and_then(|(ids, _)| if trial.0.contains(&Some(0)) { map(ids, &host) } else { None });
    let state = Roots::find(globals).and_then(|roots| roots.look());
    let own = host.cgroup.mount.as_ref().map(|mount| mount.join(host.cgroup.own.trim_start_matches('/')));
    let cgroup = own.as_deref().map_or(Err(Errno::ENOENT), make_cgroup);
    let read = |name: &str| own.as_ref().and_then(|own| fs::read_to_string(own.join(name)).ok()).unwrap_or_default();
    let in_use = |name: &str| read(name).trim().parse().ok();
    let space = state.as_ref().ok().and_then(|(path, _)| space(path));
    Ok(Facts {
        refusal: refusal::gather(&host),
        trial,
        ids: Some(ids),
        mapper,
        is_inside: ["/run/.containerenv", "/.dockerenv"].iter().any(|path| Path::new(path).exists()),
        space,
        state: Some(state),
        networked: networked(),
        cgroup: cgroup.err(),
        controllers: read("cgroup.controllers").split_whitespace().map(str::to_owned).collect(),
        systemd: Path::new("/run/systemd/system")
            .exists()
            .then(|| systemd::reach().map(|manager| manager.facts().version)),
        ends_at_logout: session::ends_processes(&host),
        files: process::rlimit(libc::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard),
        keys: keys(&fs::read_to_string("/proc/key-users").unwrap_or_default(), host.caller.uid),
        processes: in_use("pids.current").zip(in_use("pids.max")),
        devices: devices(&host),
        network: ["pasta", "slirp4netns"].iter().find_map(|name| helper::find(name).next()),
        ports: number("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
        has_dns: ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"]
            .iter()
            .any(|path| fs::read_to_string(path).is_ok_and(|text| has_server(&text))),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        has_ps: helper::find("ps").next().is_some(),
        has_reaper: helper::reaper().is_ok(),
        host,
    })
}

/// Lets the mappers map a child, which then ends.
fn map(ids: &Ids, host: &Host) -> Option<Error> {
    let UserNamespace::Create { maps, writer: Writer::Mappers, .. } = &ids.user_namespace else { return None };
    let (gate, key) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).ok()?;
    match process::clone(u64::from(libc::CLONE_NEWUSER.unsigned_abs()), None).ok()? {
        Fork::Child => {
            drop(key);
            let _ = sys::retry(|| nix::unistd::read(&gate, &mut [0]));
            process::exit_now(0)
        }
        Fork::Parent(child) => {
            let mapped = idmap::start_mappers(child, maps).and_then(|mappers| mappers.finish(host));
            drop(key);
            let _ = process::wait(child);
            mapped.err()
        }
    }
}

/// Makes a cgroup below another, and removes it.
fn make_cgroup(own: &Path) -> nix::Result<()> {
    let path = own.join(format!("pura-doctor-{}", std::process::id()));
    nix::unistd::mkdir(&path, nix::sys::stat::Mode::S_IRWXU)?;
    let removed = fs::remove_dir(path);
    removed.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

fn space(path: &Path) -> Option<(u64, bool, bool)> {
    let there = path.ancestors().find(|ancestor| ancestor.exists())?;
    let fs = statvfs::statvfs(there).ok()?;
    let has = |flag| fs.flags().contains(flag);
    Some((
        fs.blocks_available().saturating_mul(fs.fragment_size()),
        has(statvfs::FsFlags::ST_RDONLY),
        has(statvfs::FsFlags::ST_NOEXEC),
    ))
}

fn networked() -> Vec<(String, &'static str)> {
    let home = std::env::var("HOME").unwrap_or_default();
    let on = |path: String| {
        let magic = statfs(path.as_str()).ok()?.filesystem_type().0;
        let (_, name) = NETWORKED.iter().find(|(known, _)| *known == magic)?;
        Some((path, *name))
    };
    [home, ".".to_owned()].into_iter().filter_map(on).collect()
}

/// `keyrings(7)`: `UID: usage nkeys/nikeys qnkeys/maxkeys qnbytes/maxbytes`.
pub(super) fn keys(users: &str, uid: u32) -> Option<(u64, u64)> {
    let line = users.lines().find_map(|line| line.trim().strip_prefix(&format!("{uid}:")))?;
    let (used, most) = line.split_whitespace().nth(2)?.split_once('/')?;
    Some((used.parse().ok()?, most.parse().ok()?))
}

fn devices(host: &Host) -> Vec<Device> {
    use std::os::unix::fs::MetadataExt as _;
    let look = |path: &'static str| {
        let Ok(found) = fs::metadata(path) else { return Device { path, ..Device::default() } };
        let is_open = access(path, AccessFlags::R_OK | AccessFlags::W_OK).is_ok();
        // Mode 0660 and the like: root's, and a group's that is the caller's only by the way.
        let by_group = found.mode() & 0o006 != 0o006
            && found.uid() != host.caller.uid
            && found.gid() != host.caller.gid
            && host.caller.uid != 0;
        Device { path, exists: true, is_open, group: (is_open && by_group).then(|| found.gid()) }
    };
    ["/dev/fuse", "/dev/net/tun", "/dev/kvm", "/dev/dri/renderD128"].into_iter().map(look).collect()
}

/// Whether a resolv.conf(5) names a server beyond the loopback.
pub(super) fn has_server(text: &str) -> bool {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.map(str::trim).any(|server| !server.is_empty() && !server.starts_with("127.") && server != "::1")
}
