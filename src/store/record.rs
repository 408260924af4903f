//! What is written about a container.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Identity;
use crate::{
    error::{Code, Error, Result},
    resctrl::Group,
};

/// Version of the form of both; another one is another pura's.
pub const VERSION: u32 = 1;

/// What is about to be made; written before the first effect outside the state directory, and enough alone to undo it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Intent {
    /// [`VERSION`]
    pub version: u32,
    /// The boot in which the ids below mean something.
    pub boot_id: String,
    /// The pura that creates.
    pub creator: Identity,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The cgroup's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// It was there before the container, and stays.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub cgroup_stays: bool,
    /// The systemd unit that the cgroup is, or is below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Its group in resctrl.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<Group>,
    /// The pid-file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<PathBuf>,
    /// Init, known only after clone: the second line of the file.
    #[serde(skip)]
    pub init: Option<Identity>,
}

impl Intent {
    /// The file's first line.
    pub fn line(&self) -> Result<String> {
        let json = serde_json::to_string(self)
            .map_err(|error| Error::new(Code::Bug, "write the intent", error.to_string()))?;
        Ok(json + "\n")
    }

    /// Reads as much as there is; a file that was cut off has lost only its last line.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut intent: Self = serde_json::from_str(lines.next()?).ok()?;
        intent.init = lines.next().and_then(Identity::parse);
        Some(intent)
    }
}

/// A container that has been created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub struct Record {
    /// [`VERSION`]
    pub version: u32,
    /// The id.
    pub id: String,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root filesystem, absolute.
    pub rootfs: PathBuf,
    /// When, RFC 3339, UTC.
    pub created: String,
    /// Who: a login name, or a number.
    pub owner: String,
    /// The boot in which `init` means something.
    pub boot_id: String,
    /// Process 1.
    pub init: Identity,
    /// The cgroup's directory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cgroup: Option<PathBuf>,
    /// It was there before the container, and stays.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub cgroup_stays: bool,
    /// The systemd unit that the cgroup is, or is below.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unit: Option<String>,
    /// Nobody can be born in it from where it was made: init had to be moved.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub cgroup_moved: bool,
    /// Its group in resctrl.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resctrl: Option<Group>,
    /// The id of its mount namespace, where neither a cgroup nor a PID namespace holds its processes: Linux 6.11.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mounts: Option<u64>,
    /// How the user namespace came about: new, joined, reused, inherited.
    pub user_namespace: String,
    /// Its uid map, as the kernel takes it.
    pub uid_map: String,
    /// Its gid map.
    pub gid_map: String,
    /// Calls that change ids are answered instead of made, in later processes too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub root_emulation: bool,
    /// What is weaker than asked for.
    #[serde(default)]
    pub degradations: Vec<String>,
    /// The config has poststop hooks: `delete` reads it only then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub poststop: bool,
    /// From the config.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_survives_and_a_cut_off_one_keeps_its_first_line() {
        let mut intent = Intent {
            version: VERSION,
            boot_id: "b".to_owned(),
            creator: Identity { pid: 3, start_time: 4 },
            ..Intent::default()
        };
        intent.cgroup = Some("/sys/fs/cgroup/a\nb".into());
        intent.cgroup_stays = true;
        intent.unit = Some("a.scope".to_owned());
        intent.resctrl = Some(Group { directory: "/r/c1".into(), own: true, monitoring: Some("/r/m".into()) });
        let line = intent.line().unwrap();
        assert_eq!(Intent::parse(&line), Some(intent.clone()));
        intent.init = Some(Identity { pid: 7, start_time: 8 });
        assert_eq!(Intent::parse(&format!("{line}7 8\n")), Some(intent.clone()));
        intent.init = None;
        assert_eq!(Intent::parse(&format!("{line}7")), Some(intent));
        assert_eq!(Intent::parse("{"), None);
    }
}
