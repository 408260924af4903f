//! The transient scope of a container: its name, its slice, its properties. `systemd.scope(5)`, `org.freedesktop.systemd1(5)`.

mod gvariant;
pub mod limits;

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::resources::Write;
use crate::{
    error::{Code, Error, Result, line},
    systemd::message::{Property, Value},
};

/// What has to be known of a systemd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The first number of its version.
    pub version: u32,
    /// The cgroup below which its units are, from the root of the hierarchy; empty for the root.
    pub cgroup: String,
    /// It is a user's own.
    pub is_user: bool,
}

/// A scope that is to be started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its name: `a-b.scope`.
    pub name: String,
    /// All properties but the process.
    pub properties: Vec<Property>,
    /// Its cgroup, from the root of the hierarchy as systemd sees it, without a leading slash.
    pub cgroup: PathBuf,
    /// The cgroup below that for the payload; empty for none.
    pub below: PathBuf,
}

/// Annotations with a name of a cgroup below the scope, and below that.
const SUBGROUP: &str = "run.oci.systemd.subgroup";
const DELEGATED: &str = "run.oci.delegate-cgroup";

/// Annotations that are properties.
const PROPERTY: &str = "org.systemd.property.";

/// `Unit names`, `systemd.unit(5)`.
const LONGEST_NAME: usize = 255;

/// Decides the scope of a container. `default_name` is for a config that gives none.
pub fn decide(spec: &Spec, facts: &Facts, id: &str, default_name: &str, writes: &[Write]) -> Result<Unit> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref()).unwrap_or(Path::new(""));
    let (slice, name) = named(path, facts, id, default_name)?;
    let mut properties = vec![
        Property::new("Description", Value::Text(format!("pura container {id}"))),
        Property::new("Slice", Value::Text(slice.clone())),
        // systemd leaves what is below alone, and gives all controllers that it has.
        Property::new("Delegate", Value::Switch(true)),
        // As with services that engines run: it is not ended before them.
        Property::new("DefaultDependencies", Value::Switch(false)),
    ];
    if facts.version >= 236 {
        // A scope that has failed, as by a process that ran out of memory, would hold its name.
        properties.push(Property::new("CollectMode", Value::Text("inactive-or-failed".to_owned())));
    }
    let annotations = spec.annotations().iter().flatten();
    let mut asked: Vec<_> =
        annotations.filter_map(|(key, text)| Some((key, key.strip_prefix(PROPERTY)?, text))).collect();
    asked.sort_unstable();
    for (key, wanted, text) in asked {
        let refuse = |why| Error::new(Code::Field, format!("read the annotation {key:?}"), why);
        put(&mut properties, gvariant::property(wanted, text).map_err(refuse)?);
    }
    for property in limits::properties(writes, facts.version) {
        put(&mut properties, property);
    }
    let (subgroup, delegated) = (part(spec, SUBGROUP)?, part(spec, DELEGATED)?);
    let cgroup = Path::new(facts.cgroup.trim_matches('/')).join(directory(&slice)).join(&name);
    let below = subgroup.into_iter().chain(delegated).collect();
    Ok(Unit { name, properties, cgroup, below })
}

/// The last one of a name counts.
fn put(properties: &mut Vec<Property>, property: Property) {
    properties.retain(|other| other.name != property.name);
    properties.push(property);
}

/// Slice and scope of `slice:prefix:name`, whose parts may be empty.
fn named(path: &Path, facts: &Facts, id: &str, default_name: &str) -> Result<(String, String)> {
    let text = path.to_string_lossy();
    let refuse = |why: &str| Err(Error::new(Code::Field, "read linux.cgroupsPath", format!("{text:?} {why}")));
    let parts: Vec<_> = text.split(':').collect();
    let (slice, scope) = match parts[..] {
        [""] => ("", format!("{default_name}.scope")),
        [slice, prefix, name] => {
            let name = if name.is_empty() { id } else { name };
            (slice, if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") })
        }
        _ => return refuse("is not of the form slice:prefix:name, as with systemd it has to be"),
    };
    let default = if facts.is_user { "user.slice" } else { "system.slice" };
    let slice = if slice.is_empty() { default } else { slice };
    if !is_slice(slice) {
        return refuse(&format!("names no slice: {slice:?} is not such as a.slice or a-b.slice"));
    }
    if !is_name(&scope) || scope.ends_with(".slice.scope") {
        return refuse(&format!("makes no name of a scope: {scope:?}"));
    }
    Ok((slice.to_owned(), scope))
}

fn is_name(name: &str) -> bool {
    let is_one = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    name.len() <= LONGEST_NAME && !name.starts_with('.') && name.bytes().all(is_one)
}

fn is_slice(slice: &str) -> bool {
    let Some(stem) = slice.strip_suffix(".slice") else { return false };
    is_name(slice) && (stem == "-" || stem.split('-').all(|part| !part.is_empty()))
}

/// Where a slice is: `a-b.slice` is below `a.slice`, `-.slice` the root.
fn directory(slice: &str) -> PathBuf {
    let stem = slice.trim_end_matches(".slice");
    if stem == "-" {
        return PathBuf::new();
    }
    let ends = stem.match_indices('-').map(|(end, _)| end).chain([stem.len()]);
    ends.filter_map(|end| stem.get(..end)).map(|part| format!("{part}.slice")).collect()
}

/// The one part of a path that an annotation names; nothing when it is absent or empty.
fn part(spec: &Spec, key: &str) -> Result<Option<String>> {
    let Some(name) = spec.annotations().as_ref().and_then(|all| all.get(key)).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let is_file = ["cgroup.", "cpu.", "cpuset.", "hugetlb.", "io.", "memory.", "misc.", "pids.", "rdma."]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    if name.contains('/') || name == "." || name == ".." || is_file {
        let why = format!("{name:?} is no name of a cgroup below another one");
        return Err(Error::new(Code::Field, format!("read the annotation {key:?}"), why));
    }
    Ok(Some(name.clone()))
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        line(f, format_args!("cgroup: systemd starts {} at /{}", self.name, self.cgroup.display()))?;
        for property in &self.properties {
            line(f, format_args!("  with {} {}", property.name, property.value))?;
        }
        if !self.below.as_os_str().is_empty() {
            line(f, format_args!("  below it {}", self.below.display()))?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(u64::MAX) => f.write_str("infinity"),
            Self::Number(number) => number.fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Switch(is_on) => is_on.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Texts(texts) => f.write_str(&texts.join(" ")),
            Self::Mask(bytes) => write!(f, "{bytes:02x?}"),
            Self::Processes(ids) => write!(f, "{ids:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, annotations: serde_json::Value) -> Result<Unit> {
        let mut spec = serde_json::json!({"ociVersion": "1.3.0", "linux": {"cgroupsPath": path}});
        spec["annotations"] = annotations;
        let facts = Facts { version: 252, cgroup: "/user.slice/u".to_owned(), is_user: true };
        decide(&serde_json::from_value(spec).unwrap(), &facts, "c1", "pura-c1.9", &[])
    }

    fn value<'a>(unit: &'a Unit, name: &str) -> Option<&'a Value> {
        unit.properties.iter().find(|property| property.name == name).map(|property| &property.value)
    }

    #[test]
    fn a_scope_is_in_the_directory_that_its_slice_means() {
        for (path, cgroup) in [
            ("", "user.slice/u/user.slice/pura-c1.9.scope"),
            ("::", "user.slice/u/user.slice/c1.scope"),
            (":libpod:x", "user.slice/u/user.slice/libpod-x.scope"),
            ("user.slice:libpod:x", "user.slice/u/user.slice/libpod-x.scope"),
            ("a-b-c.slice:cri:x", "user.slice/u/a.slice/a-b.slice/a-b-c.slice/cri-x.scope"),
            ("-.slice::x", "user.slice/u/x.scope"),
        ] {
            let unit = of(path, serde_json::json!({})).unwrap();
            assert_eq!(unit.cgroup, Path::new(cgroup), "{path}");
            assert_eq!(Some(unit.name.as_str()), unit.cgroup.file_name().and_then(|name| name.to_str()), "{path}");
        }
        let long = format!("::{}", "a".repeat(250));
        for path in [
            "/a/b",
            "a",
            "a:b",
            "a:b:c:d",
            "a:b:c",
            "a--b.slice:b:c",
            "-a.slice:b:c",
            "a-.slice:b:c",
            ".slice:b:c",
            "../x.slice:b:c",
            "a.slice:b:c/d",
            "a.slice:b:c d",
            "a.slice:b:x.slice",
            long.as_str(),
        ] {
            assert_eq!(of(path, serde_json::json!({})).unwrap_err().code(), Code::Field, "{path}");
        }
    }

    #[test]
    fn annotations_are_properties_and_stand_above_the_defaults() {
        let unit = of(
            "",
            serde_json::json!({
                "org.systemd.property.CollectMode": "'inactive'", "org.systemd.property.KillSignal": "15",
                "org.systemd.property.TimeoutStopUSec": "uint64 10000000", "org.systemd.property.DefaultDependencies": "true"
            }),
        )
        .unwrap();
        assert_eq!(value(&unit, "CollectMode"), Some(&Value::Text("inactive".to_owned())));
        assert_eq!(value(&unit, "KillSignal"), Some(&Value::Integer(15)));
        assert_eq!(value(&unit, "TimeoutStopUSec"), Some(&Value::Number(10_000_000)));
        assert_eq!(value(&unit, "DefaultDependencies"), Some(&Value::Switch(true)));
        assert_eq!(unit.properties.iter().filter(|property| property.name == "CollectMode").count(), 1);
        for (name, text) in [("Delegate", "false"), ("Slice", "'a.slice'"), ("PIDs", "[uint32 1]"), ("KillSignal", "x")]
        {
            let error = of("", serde_json::json!({format!("org.systemd.property.{name}"): text})).unwrap_err();
            assert!(error.code() == Code::Field && error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn the_payload_may_have_a_cgroup_of_its_own_below_the_scope() {
        for (annotations, below) in [
            (serde_json::json!({}), ""),
            (serde_json::json!({SUBGROUP: ""}), ""),
            (serde_json::json!({SUBGROUP: "s"}), "s"),
            (serde_json::json!({DELEGATED: "d"}), "d"),
            (serde_json::json!({SUBGROUP: "s", DELEGATED: "d"}), "s/d"),
        ] {
            assert_eq!(of("", annotations).unwrap().below, Path::new(below));
        }
        for name in ["a/b", "..", "/", "cgroup.procs", "memory.max"] {
            assert_eq!(of("", serde_json::json!({SUBGROUP: name})).unwrap_err().code(), Code::Field, "{name}");
        }
    }
}
