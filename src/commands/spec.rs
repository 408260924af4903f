//! `pura spec`: a config.json that runs for the caller as it is.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
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
    let what = || format!("write {path:?}");
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Made by hand, because what tempfile opens is 0600, and its errors name its own file.
    let create = |beside: &Path| OpenOptions::new().write(true).create_new(true).mode(0o644).open(beside);
    let mut complete = tempfile::Builder::new().make_in(directory, create).doing(Code::FileRefused, what)?;
    complete.as_file_mut().write_all(json.as_bytes()).doing(Code::FileRefused, what)?;
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
    // Through bytes, because a second serializer for all of a config would be a thirtieth of the binary.
    let mut config: serde_json::Value = serde_json::from_slice(&serde_json::to_vec(&config())?)?;
    let sets = config.pointer_mut("/process/capabilities").and_then(serde_json::Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(serde_json::Value::as_array_mut) {
        set.sort_unstable_by_key(ToString::to_string);
    }
    serde_json::to_string_pretty(&config)
}

/// The config itself, for whoever needs one that engines would send.
pub(crate) fn config() -> Spec {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_written_once_and_never_over_another() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(spec(directory.path(), None).unwrap(), 0);
        let written = std::fs::read(directory.path().join("config.json")).unwrap();
        let error = spec(directory.path(), None).unwrap_err();
        assert!(error.code() == Code::FileRefused && error.why().contains("already exists"), "{error}");
        assert_eq!(std::fs::read(directory.path().join("config.json")).unwrap(), written);
        assert_eq!(spec(directory.path(), Some(Path::new("other.json"))).unwrap(), 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_absent_directory_is_named_and_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let error = spec(&directory.path().join("absent"), None).unwrap_err().to_string();
        assert!(error.ends_with("/absent/config.json\": does not exist [PURA-716]"), "{error}");
    }

    #[test]
    fn two_configs_are_the_same_to_the_byte() {
        let first = text().unwrap();
        assert!((0..20).all(|_| text().unwrap() == first));
    }

    #[test]
    fn the_config_has_a_user_namespace_without_maps_and_nothing_inheritable() {
        let json = serde_json::to_value(config()).unwrap();
        let namespaces = json["linux"]["namespaces"].as_array().unwrap();
        assert!(namespaces.contains(&serde_json::json!({ "type": "user" })), "{json}");
        for absent in ["/linux/uidMappings", "/linux/resources", "/process/capabilities/inheritable"] {
            assert!(json.pointer(absent).is_none_or(|value| value.as_array().is_some_and(Vec::is_empty)), "{absent}");
        }
        let limit = &json["process"]["rlimits"][0];
        assert!(limit["hard"].as_u64().unwrap() <= 1024 && limit["soft"] == limit["hard"]);
        for mount in json["mounts"].as_array().unwrap() {
            let options = mount["options"].as_array().unwrap().iter().filter_map(serde_json::Value::as_str);
            assert!(!options.into_iter().any(|word| word.starts_with("gid=") || word.starts_with("uid=")), "{mount}");
        }
    }
}
