//! What a container has when nobody says otherwise: shared by `spec` and by `run` without a bundle.

mod seccomp;

pub(crate) use seccomp::profile as seccomp_profile;

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType as Kind, Mount};

/// The variable that every program needs.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What shows or changes the host, not the container.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const NAMESPACES: [Kind; 6] = [Kind::Pid, Kind::Network, Kind::Ipc, Kind::Uts, Kind::Mount, Kind::Cgroup];

/// A mount.
pub fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(destination))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(PathBuf::from(source)));
    mount.set_options(Some(options.iter().map(|word| (*word).to_owned()).collect()));
    mount
}

/// `/proc`, `/sys` and `/dev` as every program expects them. devpts has no `gid=5`: one mapped id has no 5.
pub fn mounts() -> Vec<Mount> {
    let safe = ["nosuid", "noexec", "nodev"];
    let with = |more: &[&'static str]| [&safe, more].concat();
    vec![
        mount("/proc", "proc", "proc", &safe),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        mount("/dev/shm", "tmpfs", "shm", &with(&["mode=1777", "size=65536k"])),
        mount("/dev/mqueue", "mqueue", "mqueue", &safe),
        mount("/sys", "sysfs", "sysfs", &with(&["ro"])),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &with(&["relatime", "ro"])),
    ]
}

/// All namespaces but the user's, for which the rule decides; and the paths to cover.
pub fn linux() -> Linux {
    let namespaces = NAMESPACES.into_iter().map(|kind| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind);
        namespace
    });
    let owned = |paths: &[&str]| Some(paths.iter().map(|path| (*path).to_owned()).collect());
    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces.collect())).set_resources(None);
    linux.set_masked_paths(owned(&MASKED)).set_readonly_paths(owned(&READ_ONLY));
    linux
}
