//! `pura spec`: a config.json that runs for the caller as it is.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxNamespace, LinuxNamespaceType as Kind, PosixRlimitBuilder,
    PosixRlimitType, Process, Root, Spec, User,
};

use super::say;
use crate::{
    default_config as defaults,
    error::{Code, Context as _, Error, Result},
    state::OCI_VERSION,
    sys,
};

const CAPABILITIES: [Capability; 3] = [Capability::AuditWrite, Capability::Kill, Capability::NetBindService];

/// Open files, unless the caller's own hard limit is lower: raising it is refused.
const FILES: u64 = 1024;

/// Writes the file; an existing one is never touched.
pub(super) fn spec(bundle: &Path, file: Option<&Path>) -> Result<u8> {
    let json = text().map_err(|error| Error::new(Code::Bug, "write the config", error.to_string()))? + "\n";
    if file == Some(Path::new("-")) {
        return say(&json);
    }
    let path: PathBuf = bundle.join(file.unwrap_or(Path::new("config.json")));
    let what = || format!("write {}", path.display());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut complete = tempfile::NamedTempFile::new_in(directory).doing(Code::FileRefused, what)?;
    complete.write_all(json.as_bytes()).doing(Code::FileRefused, what)?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    complete.as_file().set_permissions(readable).doing(Code::FileRefused, what)?;
    match complete.persist_noclobber(&path) {
        Ok(_) => Ok(0),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::new(Code::FileRefused, what(), "it already exists").fix("remove it, or --bundle DIR"))
        }
        Err(error) => Err(error.error).doing(Code::FileRefused, what),
    }
}

/// The same text every time: oci-spec keeps capabilities in an order that is not.
fn text() -> serde_json::Result<String> {
    let mut config = serde_json::to_value(config())?;
    let sets = config.pointer_mut("/process/capabilities").and_then(serde_json::Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(serde_json::Value::as_array_mut) {
        set.sort_unstable_by_key(ToString::to_string);
    }
    serde_json::to_string_pretty(&config)
}

fn config() -> Spec {
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs")).set_readonly(Some(true));
    let mut linux = defaults::linux();
    let mut user = LinuxNamespace::default();
    user.set_typ(Kind::User);
    // Without mappings: all ids that are the caller's, on whatever machine this file is used.
    let namespaces = linux.namespaces().iter().flatten().cloned().chain([user]).collect();
    linux.set_namespaces(Some(namespaces));
    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_root(Some(root))
        .set_process(Some(process()))
        .set_hostname(Some("pura".to_owned()));
    spec.set_mounts(Some(defaults::mounts())).set_linux(Some(linux)).set_annotations(None);
    spec
}

fn process() -> Process {
    let set: Capabilities = CAPABILITIES.into_iter().collect();
    let mut sets = LinuxCapabilities::default();
    // Nothing inheritable or ambient: CVE-2022-24769.
    sets.set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    let hard = sys::process::rlimit(libc::RLIMIT_NOFILE).map_or(FILES, |(_, hard)| hard);
    let files = FILES.min(hard);
    let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(files).hard(files).build().ok();
    let mut process = Process::default();
    process.set_terminal(Some(false)).set_user(User::default()).set_args(Some(vec!["sh".to_owned()]));
    process.set_env(Some(vec![defaults::PATH.to_owned(), "TERM=xterm".to_owned()])).set_cwd(PathBuf::from("/"));
    process.set_capabilities(Some(sets)).set_rlimits(limit.map(|limit| vec![limit])).set_no_new_privileges(Some(true));
    process
}
