//! Validation of config.json: what can be judged without the host. Pure; all faults at once, on one line.

mod annotations;
pub mod attributes;
mod devices;
mod hooks;
mod network;
mod rdt;
mod seccomp;
mod unsupported;

use std::{
    ffi::OsString,
    path::{Component, Path},
};

use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxNamespaceType as Kind, PosixRlimitType, Process, Spec,
};
use serde::{
    Deserialize as _,
    de::{IntoDeserializer as _, value::StrDeserializer},
};

use crate::{
    error::{Code, Error, Result, shortened},
    plan::ids,
};

/// Entries below `/proc` that lxcfs mounts, and that nothing trusts: all others would redirect what the runtime or the
/// program reads there (CVE-2019-16884, CVE-2025-52881).
const PROC_FILES: [&str; 8] = ["cpuinfo", "meminfo", "stat", "uptime", "loadavg", "swaps", "diskstats", "slabinfo"];

/// More mounts than this are refused: a config that no one wrote.
const MOST_MOUNTS: usize = 100_000;

/// The longest argument or variable, in bytes: `MAX_ARG_STRLEN` without the NUL.
const LONGEST_WORD: usize = (32 << 12) - 1;

/// The longest path, and what mount(2) takes as a source whatever it is: `PATH_MAX` without the NUL.
const LONGEST_PATH: usize = 4095;

/// All arguments and variables together: three quarters of `_STK_LIM`, fs/exec.c.
const MOST_WORDS: usize = 6 << 20;

/// More faults than this are counted and not told.
const MOST_FAULTS: usize = 16;

/// A fault: the kind, and the key with its value and why.
struct Fault(Code, String);

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, key: &str, why: impl AsRef<str>) {
        self.add_as(Code::Field, key, why);
    }

    fn add_as(&mut self, code: Code, key: &str, why: impl AsRef<str>) {
        self.0.push(Fault(code, shortened(&format!("{key}: {}", why.as_ref()))));
    }
}

/// Refuses a config that breaks a rule of the specification, or that asks for what this version does not do.
pub fn validate(spec: &Spec) -> Result<()> {
    let mut faults = Faults::default();
    version(spec, &mut faults);
    root(spec, &mut faults);
    names(spec, &mut faults);
    if let Some(process) = spec.process() {
        self::process(process, &mut faults);
    }
    mounts(spec, &mut faults);
    linux(spec, &mut faults);
    network::check(spec, &mut faults);
    annotations::check(spec, &mut faults);
    hooks::check(spec, &mut faults);
    unsupported::refuse(spec, &mut faults);
    let Some(Fault(code, _)) = faults.0.first() else { return Ok(()) };
    let mut all: Vec<_> = faults.0.iter().take(MOST_FAULTS).map(|Fault(_, text)| text.clone()).collect();
    if let Some(more) = faults.0.len().checked_sub(MOST_FAULTS).filter(|more| *more > 0) {
        all.push(format!("and {more} more"));
    }
    Err(Error::new(*code, "use config.json", all.join("; ")))
}

/// What `run` and `start` need besides: a program.
pub fn require_program(spec: &Spec) -> Result<()> {
    let args = spec.process().as_ref().and_then(|process| process.args().as_ref());
    if args.is_some_and(|args| !args.is_empty()) {
        return Ok(());
    }
    let why = "process.args: there is no program to run";
    Err(Error::new(Code::Field, "use config.json", why))
}

/// Adds capabilities, by name, to the bounding, effective and permitted sets; never to the inheritable one
/// (CVE-2022-29162).
pub fn add_capabilities(process: &mut Process, names: &[OsString]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_else(no_capabilities);
    for typed in names {
        let name: StrDeserializer<'_, serde::de::value::Error> = typed.to_str().unwrap_or_default().into_deserializer();
        let capability = Capability::deserialize(name).map_err(|_unknown| {
            Error::new(Code::Usage, "read the command line", format!("--cap {typed:?} is no capability"))
        })?;
        let with = |set: &Option<Capabilities>| Some(set.iter().flatten().copied().chain([capability]).collect());
        let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    }
    process.set_capabilities(Some(sets));
    Ok(())
}

/// Five empty sets: oci-spec's default would grant three capabilities, and make them inheritable (CVE-2022-29162).
pub fn no_capabilities() -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(None).set_effective(None).set_permitted(None).set_inheritable(None).set_ambient(None);
    sets
}

/// SemVer with major version 1, whatever follows: later minor versions only add what may be ignored.
fn version(spec: &Spec, faults: &mut Faults) {
    let version = spec.version();
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<_> = core.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if version.is_empty() {
        faults.add_as(Code::Version, "ociVersion", "it is missing, or empty: a version such as 1.3.0 belongs there");
    } else if parts.len() != 3 || !parts.iter().all(is_number) {
        faults.add_as(Code::Version, "ociVersion", format!("{version:?} is no version such as 1.3.0"));
    } else if parts.first() != Some(&"1") {
        faults.add_as(Code::Version, "ociVersion", format!("{version:?} is not supported: pura reads 1.x"));
    }
}

fn root(spec: &Spec, faults: &mut Faults) {
    match spec.root() {
        None => faults.add("root", "it is missing"),
        Some(root) if root.path().as_os_str().is_empty() => faults.add("root.path", "it is empty"),
        Some(_) => {}
    }
}

fn names(spec: &Spec, faults: &mut Faults) {
    let has_uts = namespace(spec, Kind::Uts);
    for (key, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else { continue };
        if !has_uts {
            faults.add_as(Code::NamespaceNeeded, key, format!("{name:?} needs a uts namespace"));
        }
        if name.len() > 64 {
            faults.add(key, "it is over 64 bytes");
        }
    }
}

fn namespace(spec: &Spec, kind: Kind) -> bool {
    let all = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    all.is_some_and(|all| all.iter().any(|namespace| namespace.typ() == kind))
}

fn process(process: &Process, faults: &mut Faults) {
    if !process.cwd().is_absolute() {
        faults.add("process.cwd", format!("{:?} is not absolute", process.cwd()));
    }
    for (index, variable) in process.env().iter().flatten().enumerate() {
        if variable.find('=').is_none_or(|at| at == 0) {
            faults.add(&format!("process.env[{index}]"), format!("{variable:?} is not NAME=VALUE"));
        }
    }
    lengths(process, faults);
    let user = process.user();
    let groups = user.additional_gids().iter().flatten().map(|gid| ("additionalGids", *gid));
    for (key, id) in [("uid", user.uid()), ("gid", user.gid())].into_iter().chain(groups) {
        if id == u32::MAX {
            faults.add(&format!("process.user.{key}"), format!("{id} means no id"));
        }
    }
    if user.umask().is_some_and(|umask| umask > 0o777) {
        faults.add("process.user.umask", "it is over 511 (octal 777)");
    }
    if let Some(score) = process.oom_score_adj().filter(|score| !(-1000..=1000).contains(score)) {
        faults.add("process.oomScoreAdj", format!("{score} is not between -1000 and 1000"));
    }
    let mut seen: Vec<PosixRlimitType> = Vec::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let key = format!("process.rlimits[{index}]");
        if seen.contains(&limit.typ()) {
            faults.add(&key, format!("{} is given twice", limit.typ()));
        }
        if limit.soft() > limit.hard() {
            faults.add(&key, format!("soft {} is above hard {}", limit.soft(), limit.hard()));
        }
        seen.push(limit.typ());
    }
    attributes::process(process, faults);
}

/// What no `execve(2)` takes, found before there is a container. Less may still be too much, for a small stack.
fn lengths(process: &Process, faults: &mut Faults) {
    let mut sum = 0;
    for (key, words) in [("args", process.args()), ("env", process.env())] {
        for (index, word) in words.iter().flatten().enumerate() {
            // 32 pages, which have one size here.
            if cfg!(target_arch = "x86_64") && word.len() > LONGEST_WORD {
                let why = format!("{} bytes are more than {LONGEST_WORD}: argument list too long", word.len());
                faults.add_as(Code::TooLong, &format!("process.{key}[{index}]"), why);
            }
            sum += word.len() + 1;
        }
    }
    if sum > MOST_WORDS {
        let why = format!("with env {sum} bytes are more than {MOST_WORDS}: argument list too long");
        faults.add_as(Code::TooLong, "process.args", why);
    }
}

fn mounts(spec: &Spec, faults: &mut Faults) {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    if mounts.len() > MOST_MOUNTS {
        faults.add("mounts", format!("{} of them are more than {MOST_MOUNTS}", mounts.len()));
        return;
    }
    for (index, mount) in mounts.iter().enumerate() {
        let destination = mount.destination();
        if destination.as_os_str().is_empty() {
            faults.add(&format!("mounts[{index}].destination"), "it is empty");
        }
        if below_proc(destination) {
            let why =
                format!("{destination:?} would cover what the kernel shows; only {} may be", PROC_FILES.join(", "));
            faults.add(&format!("mounts[{index}].destination"), why);
        }
        let source = mount.source().as_ref().map_or(0, |source| source.as_os_str().len());
        if source > LONGEST_PATH {
            let why = format!("{source} bytes are more than {LONGEST_PATH}: file name too long");
            faults.add(&format!("mounts[{index}].source"), why);
        }
        if mount.uid_mappings().is_some() != mount.gid_mappings().is_some() {
            faults.add(&format!("mounts[{index}]"), "uidMappings and gidMappings go together");
        }
    }
}

/// Whether a destination lies below `/proc` and is none of the harmless files.
fn below_proc(destination: &Path) -> bool {
    let mut parts: Vec<&std::ffi::OsStr> = Vec::new();
    for part in destination.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => drop(parts.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    match parts.as_slice() {
        [first, file] if *first == "proc" => !PROC_FILES.iter().any(|name| *file == *name),
        [first, _, ..] => *first == "proc",
        _ => false,
    }
}

fn linux(spec: &Spec, faults: &mut Faults) {
    let Some(linux) = spec.linux() else { return };
    if let Some(profile) = linux.seccomp() {
        seccomp::check(profile, faults);
    }
    if let Some(rdt) = linux.intel_rdt() {
        rdt::check(rdt, faults);
    }
    let mut seen: Vec<Kind> = Vec::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let key = format!("linux.namespaces[{index}]");
        if seen.contains(&namespace.typ()) {
            faults.add(&key, format!("{} is given twice", kind_name(namespace.typ())));
        }
        seen.push(namespace.typ());
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        if let Some(path) = path.filter(|path| !path.is_absolute()) {
            faults.add(&key, format!("path {path:?} is not absolute"));
        }
    }
    let [uids, gids] =
        [linux.uid_mappings(), linux.gid_mappings()].map(|map| map.as_ref().is_some_and(|map| !map.is_empty()));
    if uids != gids {
        faults.add("linux.uidMappings", "uidMappings and gidMappings go together");
    }
    // Beside a path too, where nobody writes them: what is wrong there is as wrong.
    for (key, map) in [("uidMappings", linux.uid_mappings()), ("gidMappings", linux.gid_mappings())] {
        let map: Vec<_> = map.iter().flatten().map(ids::extent).collect();
        if let Err(why) = if map.is_empty() { Ok(()) } else { ids::check_lines(&map) } {
            faults.add_as(Code::BadMap, &format!("linux.{key}"), why);
        }
    }
    if (uids || gids) && !namespace_in(&seen, Kind::User) {
        faults.add_as(Code::NamespaceNeeded, "linux.uidMappings", "mappings need a user namespace");
    }
    devices::check(linux, faults);
    let cgroup = linux.cgroups_path().as_deref().unwrap_or(Path::new(""));
    if cgroup.components().any(|part| part == Component::ParentDir) || cgroup.to_string_lossy().contains(":../") {
        faults.add("linux.cgroupsPath", format!("{cgroup:?} contains \"..\""));
    }
    for (key, value) in linux.sysctl().iter().flatten().filter(|(_, value)| value.contains(['\n', '\0'])) {
        faults.add(&format!("linux.sysctl[{key:?}]"), format!("{value:?} is more than one line"));
    }
    let new_time = linux.namespaces().iter().flatten().find(|namespace| namespace.typ() == Kind::Time);
    let is_new = |path: &Option<std::path::PathBuf>| path.as_ref().is_none_or(|path| path.as_os_str().is_empty());
    attributes::linux(linux, new_time.is_some_and(|namespace| is_new(namespace.path())), faults);
    for (key, paths) in [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())] {
        for (index, path) in paths.iter().flatten().enumerate().filter(|(_, path)| !path.starts_with('/')) {
            faults.add(&format!("linux.{key}[{index}]"), format!("{path:?} is not absolute"));
        }
    }
}

/// The name in config.json; oci-spec prints the one of /proc/PID/ns.
fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Mount => "mount",
        Kind::Network => "network",
        Kind::User => "user",
        Kind::Pid => "pid",
        Kind::Ipc => "ipc",
        Kind::Uts => "uts",
        Kind::Cgroup => "cgroup",
        Kind::Time => "time",
    }
}

fn namespace_in(seen: &[Kind], kind: Kind) -> bool {
    seen.contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(json: &str) -> String {
        let spec: Spec = serde_json::from_str(json).unwrap();
        validate(&spec).map_or_else(|error| error.to_string(), |()| "ok".to_owned())
    }

    fn with(fields: &str) -> String {
        faults(&format!(r#"{{"ociVersion":"1.3.0","root":{{"path":"rootfs"}}{fields}}}"#))
    }

    #[test]
    fn versions_1_x_are_read_and_no_others() {
        for version in ["1.0.0", "1.0.2-dev", "1.3.0", "1.9.0", "1.2.0+build"] {
            assert_eq!(faults(&format!(r#"{{"ociVersion":"{version}","root":{{"path":"r"}}}}"#)), "ok");
        }
        for version in ["2.0.0", "1.3", "", "0.9.0", "1.x.0"] {
            let text = faults(&format!(r#"{{"ociVersion":"{version}","root":{{"path":"r"}}}}"#));
            assert!(text.contains("PURA-805"), "{text}");
        }
    }

    #[test]
    fn a_source_that_no_kernel_takes_is_refused() {
        for (length, wanted) in
            [(4095, "ok"), (4096, "mounts[0].source: 4096 bytes are more than 4095: file name too long")]
        {
            let source = "x".repeat(length);
            let text = with(&format!(r#","mounts":[{{"destination":"/m","type":"bind","source":"{source}"}}]"#));
            assert!(text.contains(wanted), "{text}");
        }
    }

    #[test]
    fn every_fault_is_named_with_its_key_and_value() {
        for (fields, wanted) in [
            (r#","process":{"cwd":"x","user":{}}"#, r#"process.cwd: "x" is not absolute"#),
            (r#","process":{"cwd":"/","user":{},"env":["A"]}"#, r#"process.env[0]: "A" is not NAME=VALUE"#),
            (r#","process":{"cwd":"/","user":{"uid":4294967295}}"#, "process.user.uid: 4294967295 means no id"),
            (
                r#","process":{"cwd":"/","user":{},"rlimits":[{"type":"RLIMIT_CORE","soft":2,"hard":1},{"type":"RLIMIT_CORE","soft":0,"hard":1}]}"#,
                "process.rlimits[0]: soft 2 is above hard 1; process.rlimits[1]: RLIMIT_CORE is given twice",
            ),
            (r#","hostname":"h""#, r#"hostname: "h" needs a uts namespace [PURA-806]"#),
            (r#","linux":{"namespaces":[{"type":"pid"},{"type":"pid"}]}"#, "linux.namespaces[1]: pid is given twice"),
            (r#","linux":{"namespaces":[{"type":"pid","path":"x"}]}"#, r#"path "x" is not absolute"#),
            (r#","linux":{"maskedPaths":["proc"]}"#, r#"linux.maskedPaths[0]: "proc" is not absolute"#),
            (r#","linux":{"devices":[{"path":"x","type":"p"}]}"#, r#"linux.devices[0]: path "x" is not absolute"#),
            (r#","linux":{"devices":[{"path":"/x","type":"c"}]}"#, r#"type "c" needs a major and a minor number"#),
            (r#","linux":{"sysctl":{"net.x":"1\n2"}}"#, "is more than one line"),
            (r#","mounts":[{"destination":"/proc/self"}]"#, "mounts[0].destination"),
            (r#","mounts":[{"destination":"/x/../proc/sys/kernel"}]"#, "mounts[0].destination"),
            (r#","annotations":{"":"x"}"#, "annotations: a key is empty"),
        ] {
            let text = with(fields);
            assert!(text.contains(wanted), "{text} lacks {wanted}");
        }
    }

    #[test]
    fn mapping_lines_are_judged_whether_or_not_somebody_writes_them() {
        for (line, wanted) in [
            (r#"{"containerID":0,"hostID":0,"size":0}"#, "size 0"),
            (r#"{"containerID":4294967295,"hostID":0,"size":2}"#, "32 bits"),
            (r#"{"containerID":0,"hostID":0,"size":2},{"containerID":1,"hostID":9,"size":2}"#, "overlaps"),
        ] {
            for path in ["", "/proc/1/ns/user"] {
                let text = with(&format!(
                    r#","linux":{{"namespaces":[{{"type":"user","path":"{path}"}}],"uidMappings":[{line}],"gidMappings":[{line}]}}"#
                ));
                assert!(text.contains(wanted) && text.contains("PURA-115"), "{text}");
            }
        }
    }

    #[test]
    fn what_changes_nothing_is_no_unsupported_field() {
        for (fields, refused) in [
            (r#","annotations":{"run.oci.keep_original_groups":"1"}"#, false),
            (r#","annotations":{"run.oci.handler":"wasm"}"#, true),
        ] {
            assert_eq!(with(fields).contains("PURA-804"), refused, "{fields}");
        }
    }

    #[test]
    fn files_of_lxcfs_may_be_mounted() {
        assert_eq!(
            with(r#","mounts":[{"destination":"/proc/meminfo"},{"destination":"/proc"},{"destination":"/process/x"}]"#),
            "ok"
        );
    }
}
