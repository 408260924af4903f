//! `pura run -- CMD`: a config for a command without a bundle. The defaults are the safe ones.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use nix::unistd::{getegid, geteuid};
use oci_spec::runtime::{
    Capabilities, Capability, Linux, LinuxCapabilities, LinuxNamespace, LinuxNamespaceType as Kind, Mount, Process,
    Root, Spec, User,
};

use crate::{
    bundle::{self, Bundle},
    cli::{Proc, UsernsMode, ZeroConfig},
    default_config as defaults,
    error::{Code, Context as _, Error, Result, Warning},
    host::{Host, probe, refusal},
    plan::{
        Assembly, Layer,
        ids::{Ids, decide},
    },
    store::Id,
};

/// Entries of the host's root that are never shown: the container has its own, or they are nobody's business.
const OWN: [&str; 6] = ["dev", "proc", "sys", "tmp", "run", "lost+found"];

/// Empty directories of the container's own.
const SCRATCH: [&str; 2] = ["/tmp", "/run"];

/// Homes: hidden unless bound.
const HOMES: [&str; 2] = ["home", "root"];

/// What root inside may do: enough for package managers, nothing over the host.
const CAPABILITIES: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// The id that was given, or one that no other container has.
pub fn id(zero: &ZeroConfig) -> Result<Id> {
    if !zero.run.create.id.is_empty() {
        return Id::parse(&zero.run.create.id);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Id::parse(OsStr::new(&format!("run-{}-{:x}", std::process::id(), now.as_nanos() & 0xFFFF_FFFF)))
}

/// The config for the command, and how its root is put together; without that, the root is the directory itself.
pub fn bundle(zero: &ZeroConfig, mode: UsernsMode) -> Result<(Bundle, Option<Assembly>)> {
    let directory = bundle::absolute(Path::new("."))?;
    let rootfs = zero.rootfs.as_deref().map(bundle::absolute).transpose()?.filter(|path| path != Path::new("/"));
    let assembly = match &rootfs {
        Some(_) if zero.read_only => None,
        Some(tree) => Some(Assembly::Over(tree.clone())),
        None => Some(Assembly::Of(host_layers(zero.read_only)?)),
    };
    let mut spec = Spec::default();
    let mut root = Root::default();
    root.set_path(rootfs.unwrap_or_else(|| PathBuf::from("/"))).set_readonly(Some(zero.read_only));
    spec.set_version(crate::state::OCI_VERSION.to_owned()).set_root(Some(root));
    spec.set_process(Some(process(zero, mode)?)).set_mounts(Some(mounts(zero)?)).set_linux(Some(linux(zero)?));
    let hostname = zero
        .hostname
        .clone()
        .map_or_else(|| id(zero).map(|id| id.as_str().chars().take(64).collect()), |name| text(&name, "--hostname"))?;
    let annotations = [
        ("org.pura.proc", "bind", zero.proc == Proc::Bind),
        ("org.pura.root-emulation", "auto", true),
        ("run.oci.keep_original_groups", "1", zero.keep_groups),
    ];
    let annotations = annotations
        .into_iter()
        .filter(|(_, _, is_set)| *is_set)
        .map(|(key, value, _)| (key.to_owned(), value.to_owned()));
    spec.set_hostname(Some(hostname)).set_annotations(Some(annotations.collect()));
    Ok((Bundle::of(directory, spec)?, assembly))
}

/// The ids of a container, and what is weaker about them than could be.
pub type Mapping = Result<(Ids, Vec<Warning>)>;

/// Who calls, and the ids that its containers have when nobody says otherwise. The refusal of a map is a finding of its own.
pub fn ids(mode: UsernsMode) -> Result<(Host, Mapping)> {
    let mut spec = Spec::default();
    // Whatever the user would be: only the maps are asked for.
    spec.set_process(None).set_mounts(None).set_linux(Some(defaults::linux()));
    let host = probe::host(&spec, Path::new("/"), probe::caller()?, mode)?;
    let ids = decide(&spec, &host, mode);
    Ok((host, ids))
}

/// An error of this config, at an option instead of at a place in a config.json that nobody has written.
pub fn at_option(zero: &ZeroConfig, error: Error) -> Error {
    error.blame("the command line", |place| match place {
        "process.cwd" => Some("--workdir".to_owned()),
        "hostname" => Some("--hostname".to_owned()),
        "process.user.uid" | "process.user.gid" | "process.user" => Some("--user".to_owned()),
        _ if place.starts_with("process.env") => Some("--env".to_owned()),
        _ if place.starts_with("process.args") => Some("the command".to_owned()),
        "root.path" => Some("--rootfs".to_owned()),
        _ if place.starts_with("linux.resources") => zero.limits.option(place),
        _ => {
            let index: usize = place.strip_prefix("mounts[")?.strip_suffix(']')?.parse().ok()?;
            let volume = zero.volumes.get(index.checked_sub(defaults::mounts().len() + SCRATCH.len())?)?;
            Some(format!("--volume {volume:?}"))
        }
    })
}

/// The entries of the host's root. A directory that something is mounted below cannot be overlaid: it would be uncovered.
fn host_layers(read_only: bool) -> Result<Vec<Layer>> {
    let what = || "read the host's root".to_owned();
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").doing(Code::Proc, || "read /proc/self/mountinfo".to_owned())?;
    let mut layers = Vec::new();
    for entry in fs::read_dir("/").doing(Code::Rootfs, what)? {
        let entry = entry.doing(Code::Rootfs, what)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = entry.file_type().doing(Code::Rootfs, what)?;
        if OWN.contains(&name.as_str()) {
            continue;
        }
        if kind.is_symlink() {
            layers.extend(fs::read_link(entry.path()).map(|target| Layer::Link(name, target)));
        } else if kind.is_dir() {
            layers.push(if HOMES.contains(&name.as_str()) || fs::read_dir(entry.path()).is_err() {
                Layer::Empty(name)
            } else if read_only || has_mounts_below(&mounts, &name) {
                Layer::ReadOnly(name)
            } else {
                Layer::Overlay(name)
            });
        }
    }
    layers.sort_unstable_by_key(|layer| match layer {
        Layer::Overlay(name) | Layer::ReadOnly(name) | Layer::Empty(name) | Layer::Link(name, _) => name.clone(),
    });
    Ok(layers)
}

/// Whether something is mounted below `/name`: the fifth field of each line of `proc_pid_mountinfo(5)`.
fn has_mounts_below(mounts: &str, name: &str) -> bool {
    let prefix = format!("/{name}/");
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| point.starts_with(&prefix))
}

fn process(zero: &ZeroConfig, mode: UsernsMode) -> Result<Process> {
    let (uid, gid) = match &zero.user {
        Some(typed) => user(typed)?,
        None if mode == UsernsMode::KeepId => (geteuid().as_raw(), getegid().as_raw()),
        None => (0, 0),
    };
    let mut ids = User::default();
    ids.set_uid(uid).set_gid(gid);
    let set: Capabilities = CAPABILITIES.into_iter().collect();
    // A user other than root gets none: as after execve(2) by one who is not.
    let granted = if uid == 0 { set.clone() } else { Capabilities::default() };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(set)).set_effective(Some(granted.clone())).set_permitted(Some(granted));
    sets.set_inheritable(None).set_ambient(None);
    let command = if zero.command.is_empty() { vec!["/bin/sh".into()] } else { zero.command.clone() };
    let args = command.iter().map(|word| text(word, "the command")).collect::<Result<Vec<_>>>()?;
    let cwd = zero.cwd.clone().unwrap_or_else(|| PathBuf::from("/"));
    if !cwd.is_absolute() {
        let why = format!("--workdir {cwd:?} is no absolute path");
        return Err(Error::new(Code::Usage, "read the command line", why));
    }
    let mut process = Process::default();
    process.set_user(ids).set_args(Some(args)).set_env(Some(environment(zero, uid)?)).set_cwd(cwd);
    process
        .set_capabilities(Some(sets))
        .set_no_new_privileges(Some(true))
        .set_rlimits(None)
        .set_terminal(Some(zero.tty));
    Ok(process)
}

/// Nothing of the caller's environment but what was asked for, and the terminal's type.
fn environment(zero: &ZeroConfig, uid: u32) -> Result<Vec<String>> {
    let home = if uid == 0 { "/root" } else { "/" };
    let mut variables = vec![defaults::PATH.to_owned(), format!("HOME={home}"), format!("container={}", refusal::OURS)];
    variables.extend(std::env::var("TERM").ok().map(|term| format!("TERM={term}")));
    for typed in &zero.env {
        let typed = text(typed, "--env")?;
        let variable = match typed.split_once('=') {
            Some(_) => Some(typed),
            None => std::env::var(&typed).ok().map(|value| format!("{typed}={value}")),
        };
        let Some(variable) = variable else { continue };
        let name = variable.split('=').next().unwrap_or_default().to_owned() + "=";
        variables.retain(|known| !known.starts_with(&name));
        variables.push(variable);
    }
    Ok(variables)
}

/// `UID` or `UID:GID`, numbers: names belong to the image, and would be looked up in the wrong place.
fn user(typed: &OsStr) -> Result<(u32, u32)> {
    let text = typed.to_str().unwrap_or_default();
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = |digits: &str| if is_number(digits) { digits.parse().ok() } else { None };
    match (number(uid), number(gid)) {
        (Some(uid), Some(gid)) if uid != u32::MAX && gid != u32::MAX => Ok((uid, gid)),
        _ => Err(Error::new(
            Code::Usage,
            "read the command line",
            format!("--user {typed:?} is not UID or UID:GID, in numbers"),
        )),
    }
}

fn mounts(zero: &ZeroConfig) -> Result<Vec<Mount>> {
    let mut mounts = defaults::mounts();
    for directory in SCRATCH {
        mounts.push(defaults::mount(directory, "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777"]));
    }
    for volume in &zero.volumes {
        mounts.push(bind(volume)?);
    }
    Ok(mounts)
}

/// `SRC:DST[:OPTION,…]`
fn bind(volume: &OsStr) -> Result<Mount> {
    let typed = text(volume, "--volume")?;
    let refuse = |why: &str| Err(Error::new(Code::Usage, "read the command line", format!("--volume {typed:?} {why}")));
    let parts: Vec<_> = typed.split(':').collect();
    let (source, destination, words) = match parts.as_slice() {
        [source, destination] => (*source, *destination, ""),
        [source, destination, words] => (*source, *destination, *words),
        _ => return refuse("is not SRC:DST or SRC:DST:ro"),
    };
    if source.is_empty() || !destination.starts_with('/') {
        return refuse("needs a source, and an absolute path inside");
    }
    let mut options = vec!["rbind", "nosuid", "nodev"];
    for word in words.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => options.push("rro"),
            "rw" => options.push("rw"),
            "noexec" => options.push("noexec"),
            _ => return refuse("has an option that is none of ro, rw, noexec"),
        }
    }
    let source = bundle::absolute(Path::new(source))?;
    Ok(defaults::mount(destination, "bind", &source.to_string_lossy(), &options))
}

fn linux(zero: &ZeroConfig) -> Result<Linux> {
    let mut linux = defaults::linux();
    if !zero.limits.0.is_empty() {
        linux.set_resources(Some(zero.limits.resources()?));
    }
    linux.set_seccomp(Some(defaults::seccomp_profile(zero.nested)));
    if zero.net {
        let kept = |namespace: &LinuxNamespace| namespace.typ() != Kind::Network;
        let namespaces = linux.namespaces().iter().flatten().filter(|namespace| kept(namespace)).cloned().collect();
        linux.set_namespaces(Some(namespaces));
    }
    Ok(linux)
}

/// Text of the command line that goes into a config, which is JSON and holds nothing else.
fn text(typed: &OsStr, what: &str) -> Result<String> {
    typed.to_owned().into_string().map_err(|typed| {
        let shown = String::from_utf8_lossy(typed.as_bytes()).into_owned();
        Error::new(Code::Usage, "read the command line", format!("{what}: {shown:?} is not UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_one_or_two_numbers() {
        assert_eq!(user(OsStr::new("1000")).unwrap(), (1000, 0));
        assert_eq!(user(OsStr::new("1000:100")).unwrap(), (1000, 100));
        for typed in ["", "root", "-1", "0x0", "1:", "4294967295", "4294967296", "1:2:3", "+1"] {
            assert!(user(OsStr::new(typed)).is_err(), "{typed}");
        }
    }

    #[test]
    fn a_volume_is_a_source_and_a_destination() {
        let mount = bind(OsStr::new("/a:/b:ro")).unwrap();
        assert_eq!(mount.options().as_ref().unwrap(), &["rbind", "nosuid", "nodev", "rro"]);
        for typed in ["", "/a", "/a:b", ":/b", "/a:/b:bogus", "/a:/b:ro:x"] {
            assert!(bind(OsStr::new(typed)).is_err(), "{typed}");
        }
    }

    #[test]
    fn variables_given_replace_the_defaults() {
        let zero =
            ZeroConfig { env: vec!["PATH=/x".into(), "A=b=c".into(), "PURA_NO_SUCH".into()], ..ZeroConfig::default() };
        let variables = environment(&zero, 0).unwrap();
        assert!(variables.contains(&"PATH=/x".to_owned()) && variables.contains(&"A=b=c".to_owned()));
        assert_eq!(variables.iter().filter(|variable| variable.starts_with("PATH=")).count(), 1);
    }

    #[test]
    fn what_is_mounted_below_a_directory_is_seen() {
        let mounts =
            "1 2 8:1 / / rw - ext4 a rw\n3 1 0:5 / /var/lib/x rw - tmpfs t rw\n4 1 0:6 / /usr rw - ext4 b rw\n";
        assert!(has_mounts_below(mounts, "var") && !has_mounts_below(mounts, "usr") && !has_mounts_below(mounts, "va"));
    }
}
