//! Why newuidmap or newgidmap wrote no map.

use std::path::Path;

use nix::{
    errno::Errno,
    unistd::{AccessFlags, access},
};

use crate::{
    error::{Code, Error},
    host::Host,
};

const CAP_SETGID: u64 = 1 << 6;
const CAP_SETUID: u64 = 1 << 7;

/// What helps where there is none.
pub const INSTALL: &str = "apt install uidmap, or dnf install shadow-utils-subid";

/// What tells the causes apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Facts {
    /// It has the setuid bit and is root's, or has file capabilities.
    pub has_power: bool,
    /// The mount point of its filesystem, when that is mounted nosuid.
    pub nosuid: Option<String>,
    /// `no_new_privs` is set on the caller.
    pub no_new_privs: bool,
    /// `CAP_SETUID` and `CAP_SETGID` are in the bounding set.
    pub is_unbounded: bool,
    /// `/proc` is mounted read-only.
    pub read_only_proc: bool,
    /// The caller's gid, and the primary group of its account, where they differ.
    pub foreign_group: Option<(u32, u32)>,
}

/// Reads them.
pub fn gather(program: &Path, has_power: bool, host: &Host) -> Facts {
    let caller = &host.caller;
    let primary = host.account.as_ref().and_then(|account| account.primary_gid);
    let flags = nix::sys::statvfs::statvfs(program).map(|fs| fs.flags());
    let nosuid = flags.is_ok_and(|flags| flags.contains(nix::sys::statvfs::FsFlags::ST_NOSUID));
    Facts {
        has_power,
        nosuid: nosuid.then(|| mount_point(program)),
        no_new_privs: caller.no_new_privs,
        is_unbounded: caller.bounding & (CAP_SETUID | CAP_SETGID) == CAP_SETUID | CAP_SETGID,
        read_only_proc: access(c"/proc/self/uid_map", AccessFlags::W_OK) == Err(Errno::EROFS),
        foreign_group: primary.filter(|gid| *gid != caller.gid).map(|gid| (caller.gid, gid)),
    }
}

/// Where the filesystem of a file is mounted: `proc_pid_mountinfo(5)`.
fn mount_point(file: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| file.starts_with(point)).max_by_key(|point| point.len()).unwrap_or("/").to_owned()
}

/// The cause, in the order in which execve(2) and the mapper itself would stumble; `said` is the mapper's own line.
pub fn cause(program: &Path, said: &str, facts: &Facts) -> Error {
    let name = program.display();
    let refuse = |code, why: String| Error::new(code, format!("map ids with {name}"), why);
    if facts.no_new_privs {
        let why = "no_new_privs is set on this process, so it gains no privilege".to_owned();
        return refuse(Code::MapperNoNewPrivs, why).fix(
            "NoNewPrivileges=no in the systemd unit, allowPrivilegeEscalation: true (Kubernetes), or --userns=single",
        );
    }
    if !facts.has_power {
        return refuse(Code::MapperPowerless, "it has neither the setuid bit nor a file capability".to_owned())
            .fix(format!("sudo chmod u+s {name}, or reinstall uidmap"));
    }
    if let Some(point) = &facts.nosuid {
        return refuse(Code::MapperNosuid, format!("it is on a filesystem mounted nosuid ({point})"))
            .fix("use the system's copy in /usr/bin");
    }
    if !facts.is_unbounded {
        let why = "CAP_SETUID or CAP_SETGID is missing from the bounding set".to_owned();
        return refuse(Code::MapperBounded, why).fix("--cap-add SETUID --cap-add SETGID on the outer container");
    }
    if facts.read_only_proc {
        return super::read_only_proc();
    }
    if let Some((own, primary)) = facts.foreign_group {
        let why = format!("gid {own} is not your primary group {primary}: this is a newgrp or sg shell");
        return refuse(Code::ForeignGroup, why).fix("exit that shell");
    }
    // Another class of phrase in the quotation would mislead engines; it is the mapper's own word all the same.
    refuse(Code::MapperFailed, format!("it says: {said}"))
}

/// There is no mapper, and more than one id is to be mapped.
pub fn missing(name: &str) -> Error {
    Error::new(Code::MapperMissing, "map more than one id", format!("{name} not installed"))
        .fix(format!("{INSTALL}, or --userns=single"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_of_a_failing_mapper_has_its_code_and_the_first_one_counts() {
        let good = Facts { has_power: true, is_unbounded: true, ..Facts::default() };
        let nosuid = Some("/home".to_owned());
        for (facts, code) in [
            (Facts { no_new_privs: true, ..Facts::default() }, Code::MapperNoNewPrivs),
            (Facts { has_power: false, nosuid: nosuid.clone(), ..good.clone() }, Code::MapperPowerless),
            (Facts { nosuid, is_unbounded: false, ..good.clone() }, Code::MapperNosuid),
            (Facts { is_unbounded: false, foreign_group: Some((5, 6)), ..good.clone() }, Code::MapperBounded),
            (Facts { read_only_proc: true, foreign_group: Some((5, 6)), ..good.clone() }, Code::Proc),
            (Facts { foreign_group: Some((5, 6)), ..good.clone() }, Code::ForeignGroup),
            (good, Code::MapperFailed),
        ] {
            let error = cause(Path::new("/usr/bin/newuidmap"), "no range", &facts);
            assert_eq!(error.code(), code, "{facts:?}");
            assert!(error.to_string().starts_with("cannot map ids"), "{error}");
        }
    }

    #[test]
    fn the_mount_point_of_a_file_is_the_longest_above_it() {
        assert_eq!(mount_point(Path::new("/proc/self/status")), "/proc");
    }
}
