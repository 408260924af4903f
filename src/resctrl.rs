//! The container's group in resctrl, on the parent's side: config-linux.md "`IntelRdt`". Where it is, what is written there,
//! and what of it goes with the container.
//!
//! A group is a directory, whose `tasks` name who is in it and whose `schemata` say what they may use. It may have
//! monitoring groups below, which only count.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};
use oci_spec::runtime::{LinuxIntelRdt, Spec};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Code, Context as _, Error, Result},
    host::Host,
};

/// The group, as intent and record name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Its directory.
    pub directory: PathBuf,
    /// The directory is the container's own, and goes with it: the config names no group.
    pub own: bool,
    /// The container's own monitoring group.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub monitoring: Option<PathBuf>,
}

/// The files `tasks` of a group, open.
#[derive(Debug)]
pub struct Tasks(Vec<(PathBuf, File)>);

/// The group, and what has to be made for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The group.
    pub group: Group,
    /// It does not exist yet.
    is_new: bool,
    /// What is written to `schemata`, one after the other.
    schemata: Vec<String>,
}

/// Chooses the group, or none; nothing is made. Whatever the config asks for and cannot be had is an error.
pub fn choose(spec: &Spec, host: &Host, id: &str) -> Result<Option<Wanted>> {
    let Some(rdt) = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()) else { return Ok(None) };
    let Some(mount) = &host.named.resctrl else {
        return Err(refuse("no resctrl filesystem is mounted where pura runs")
            .fix("mount -t resctrl resctrl /sys/fs/resctrl, as root of a machine that has it"));
    };
    choose_in(mount, rdt, id).map(Some)
}

fn refuse(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Code::Placement, "use a group of resctrl", why).at("linux.intelRdt")
}

fn choose_in(mount: &Path, rdt: &LinuxIntelRdt, id: &str) -> Result<Wanted> {
    let named = rdt.clos_id().as_deref().filter(|named| !named.is_empty());
    // "/" is the group that all are in at first.
    let directory = named.map_or_else(|| mount.join(id), |named| mount.join(named.trim_start_matches('/')));
    let directory: PathBuf = directory.components().collect();
    let schemata = schemata(rdt);
    let is_new = !directory.is_dir();
    let object = || directory.display().to_string();
    match (named, is_new) {
        (None, false) => return Err(refuse(format!("{} exists, and is not this container's", object()))),
        (Some(_), true) if schemata.is_empty() => {
            return Err(refuse(format!("{} does not exist, and there is no schema to make it with", object())));
        }
        (Some(_), false) => compare(&directory, &schemata)?,
        (None | Some(_), true) => {}
    }
    let written = if is_new { mount.to_path_buf() } else { directory.join("tasks") };
    access(&written, AccessFlags::W_OK).map_err(|errno| {
        refuse(format!("{} is not yours to write: {}", written.display(), crate::error::plain(errno)))
    })?;
    let monitoring = (*rdt.enable_monitoring() == Some(true)).then(|| directory.join("mon_groups").join(id));
    if let Some(taken) = monitoring.as_ref().filter(|path| path.exists()) {
        return Err(refuse(format!("{} exists, and is not this container's", taken.display())));
    }
    let group = Group { directory, own: named.is_none(), monitoring };
    // What exists is as it should be.
    Ok(Wanted { group, is_new, schemata: if is_new { schemata } else { Vec::new() } })
}

/// What is written to `schemata`: cache and bandwidth in one, then the lines of `schemata`, which win by being the last.
fn schemata(rdt: &LinuxIntelRdt) -> Vec<String> {
    let cache = rdt.l3_cache_schema().as_deref().unwrap_or_default();
    let bandwidth = rdt.mem_bw_schema().as_deref().unwrap_or_default();
    // Of two bandwidths, that of the field of its own counts.
    let cache = cache.lines().filter(|line| bandwidth.is_empty() || !line.trim_start().starts_with("MB:"));
    let old: Vec<_> = cache.chain([bandwidth]).filter(|line| !line.trim().is_empty()).collect();
    let whole = rdt.schemata().iter().flatten().flat_map(|lines| lines.lines());
    let new: Vec<_> = whole.filter(|line| !line.trim().is_empty()).collect();
    [old, new].iter().filter(|lines| !lines.is_empty()).map(|lines| lines.join("\n") + "\n").collect()
}

/// A group that exists has to be as the config says: others may be in it.
fn compare(directory: &Path, schemata: &[String]) -> Result<()> {
    if schemata.is_empty() {
        return Ok(());
    }
    let file = directory.join("schemata");
    let present = fs::read_to_string(&file).doing(Code::Placement, || format!("read {}", file.display()))?;
    // Of what is written twice, the last counts.
    let wanted: std::collections::BTreeMap<_, _> = schemata.iter().flat_map(|lines| values(lines)).collect();
    let present: std::collections::BTreeMap<_, _> = values(&present).collect();
    match wanted.iter().find(|(key, value)| present.get(*key) != Some(*value)) {
        None => Ok(()),
        Some(((resource, domain), value)) => {
            let has = present.get(&(resource.clone(), domain.clone()));
            let has = has.map_or_else(|| "nothing".to_owned(), |has| format!("{domain}={has}"));
            let why = format!("{} has {has} for {resource}, not {domain}={value}", directory.display());
            Err(refuse(why))
        }
    }
}

/// The values of lines such as `L3:0=7f0;1=1f`: ((resource, domain), value), without the zeros that the kernel prints.
fn values(lines: &str) -> impl Iterator<Item = ((String, String), String)> {
    let plain = |number: &str| {
        let number = number.trim().trim_start_matches('0').to_ascii_lowercase();
        if number.is_empty() { "0".to_owned() } else { number }
    };
    lines.lines().filter_map(|line| line.split_once(':')).flat_map(move |(resource, domains)| {
        let pairs = domains.split(';').filter_map(|domain| domain.split_once('='));
        pairs.map(move |(domain, value)| ((resource.trim().to_owned(), plain(domain)), plain(value)))
    })
}

impl Wanted {
    /// Makes what does not exist yet. On an error nothing of it is left.
    pub fn make(self) -> Result<Ours> {
        // Only what has been made is ours to take back.
        let nothing = Group { own: false, monitoring: None, ..self.group.clone() };
        let mut ours = Ours { group: nothing, made: None, kept: false };
        let directory = &self.group.directory;
        let what = |path: &Path| format!("make the group {}", path.display());
        if self.is_new {
            fs::create_dir(directory).doing(Code::Placement, || what(directory))?;
            ours.made = Some(directory.clone());
        }
        for lines in &self.schemata {
            let written = fs::write(directory.join("schemata"), lines);
            written.map_err(|error| {
                let why = format!("the kernel refuses {lines:?} ({error}); info/last_cmd_status may say more");
                refuse(why)
            })?;
        }
        if let Some(monitoring) = &self.group.monitoring {
            fs::create_dir(monitoring).doing(Code::Placement, || what(monitoring))?;
        }
        ours.group = self.group;
        Ok(ours)
    }
}

impl Group {
    /// Opens what takes processes in.
    pub fn open(&self) -> Result<Tasks> {
        // The group first: a monitoring group takes only who is in its own.
        let directories = [Some(&self.directory), self.monitoring.as_ref()].into_iter().flatten();
        let opened = directories.map(|directory| {
            let path = directory.join("tasks");
            let file = File::create(&path).doing(Code::Placement, || format!("open {}", path.display()))?;
            Ok((path, file))
        });
        opened.collect::<Result<_>>().map(Tasks)
    }

    /// Removes what of it is the container's own. What was named by the config stays, for others.
    pub fn remove(&self) -> io::Result<()> {
        let own = self.own.then_some(&self.directory);
        [self.monitoring.as_ref(), own].into_iter().flatten().try_for_each(|directory| remove(directory))
    }
}

impl Tasks {
    /// Takes a process in; its children will be in the group too.
    pub fn take_in(&self, pid: i32) -> Result<()> {
        self.0.iter().try_for_each(|(path, file)| {
            let what = || format!("write {pid} to {}", path.display());
            (&*file).write_all(pid.to_string().as_bytes()).doing(Code::Placement, what)
        })
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The group of a container that is being made, or runs here: its own part is taken back when dropped.
#[derive(Debug)]
pub struct Ours {
    /// The group.
    pub group: Group,
    /// A directory that did not exist before.
    made: Option<PathBuf>,
    kept: bool,
}

impl Ours {
    /// Leaves it to `delete`.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// The container has lived: a group that the config names is everybody's, whoever made it.
    pub fn ended(mut self) {
        self.made = None;
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if !self.kept {
            drop(self.group.remove());
            drop(self.made.as_deref().map(remove));
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Group { directory, own, monitoring } = &self.group;
        let whose = if *own { "the container's own" } else { "stays" };
        write!(f, "{}, {}, {whose}", directory.display(), if self.is_new { "new" } else { "as it is" })?;
        let lines = self.schemata.iter().flat_map(|lines| lines.lines());
        lines.into_iter().try_for_each(|line| write!(f, ", {line}"))?;
        monitoring.iter().try_for_each(|path| write!(f, ", counted in {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tempfile::TempDir;

    fn rdt(value: serde_json::Value) -> LinuxIntelRdt {
        serde_json::from_value(value).unwrap()
    }

    /// A directory that looks like resctrl, as far as files go, with the group `gold`.
    fn resctrl() -> TempDir {
        let mount = tempfile::tempdir().unwrap();
        fs::create_dir(mount.path().join("gold")).unwrap();
        for group in ["", "gold"] {
            fs::write(mount.path().join(group).join("tasks"), "").unwrap();
            fs::create_dir(mount.path().join(group).join("mon_groups")).unwrap();
        }
        fs::write(mount.path().join("gold/schemata"), "    MB:0= 20;1=100\n    L3:0=07f0;1=001f\n").unwrap();
        mount
    }

    #[test]
    fn the_lines_are_combined_as_the_specification_says() {
        for (fields, wanted) in [
            (json!({}), &[][..]),
            (json!({"l3CacheSchema": "L3:0=f"}), &["L3:0=f\n"]),
            (json!({"memBwSchema": "MB:0=20"}), &["MB:0=20\n"]),
            (json!({"l3CacheSchema": "L3:0=f\nMB:0=10", "memBwSchema": "MB:0=20"}), &["L3:0=f\nMB:0=20\n"]),
            (json!({"l3CacheSchema": "L3:0=f\nMB:0=10"}), &["L3:0=f\nMB:0=10\n"]),
            (json!({"schemata": ["L3:0=1", "MB:0=5"], "l3CacheSchema": "L3:0=f"}), &["L3:0=f\n", "L3:0=1\nMB:0=5\n"]),
        ] {
            assert_eq!(schemata(&rdt(fields.clone())), wanted, "{fields}");
        }
    }

    #[test]
    fn a_group_that_the_config_names_is_used_when_it_is_as_the_config_says() {
        let mount = resctrl();
        for (fields, wanted) in [
            (json!({"closID": "gold"}), None),
            (json!({"closID": "gold", "l3CacheSchema": "L3:0=7F0"}), None),
            (json!({"closID": "gold", "schemata": ["L3:0=7f0;1=1f", "MB:1=100"]}), None),
            (json!({"closID": "gold", "memBwSchema": "MB:0=30"}), Some("has 0=20 for MB, not 0=30")),
            (json!({"closID": "gold", "schemata": ["L2:0=f"]}), Some("has nothing for L2")),
            (json!({"closID": "new"}), Some("does not exist")),
            (json!({"closID": "new", "memBwSchema": "MB:0=30"}), None),
            (json!({"closID": "/"}), None),
        ] {
            match choose_in(mount.path(), &rdt(fields.clone()), "c1") {
                Ok(chosen) => assert!(wanted.is_none() && !chosen.group.own, "{fields}: {chosen:?}"),
                Err(error) => {
                    assert!(wanted.is_some_and(|wanted| error.why().contains(wanted)), "{fields}: {error}");
                    assert_eq!(error.code(), Code::Placement);
                }
            }
        }
        assert_eq!(choose_in(mount.path(), &rdt(json!({"closID": "/"})), "c1").unwrap().group.directory, mount.path());
    }

    #[test]
    fn a_group_of_the_containers_own_goes_with_it() {
        let mount = resctrl();
        let own = mount.path().join("c1");
        let chosen = choose_in(mount.path(), &rdt(json!({})), "c1").unwrap();
        let ours = chosen.make().unwrap();
        assert_eq!((&ours.group.directory, own.is_dir()), (&own, true));
        let again = choose_in(mount.path(), &rdt(json!({})), "c1").unwrap_err();
        assert!(again.why().contains("exists"), "{again}");
        let group = ours.group.clone();
        ours.keep();
        group.remove().unwrap();
        assert!(!own.exists());
        group.remove().unwrap();
    }

    #[test]
    fn a_group_that_the_config_names_stays_and_only_its_monitoring_goes() {
        let mount = resctrl();
        let fields = rdt(json!({"closID": "gold", "enableMonitoring": true}));
        let ours = choose_in(mount.path(), &fields, "c1").unwrap().make().unwrap();
        let monitoring = mount.path().join("gold/mon_groups/c1");
        assert_eq!((ours.group.monitoring.as_ref(), monitoring.is_dir()), (Some(&monitoring), true));
        ours.group.open().unwrap().take_in(4711).unwrap();
        for tasks in [mount.path().join("gold/tasks"), monitoring.join("tasks")] {
            assert_eq!(fs::read_to_string(&tasks).unwrap(), "4711", "{}", tasks.display());
        }
        // The kernel removes a group with its files; a plain directory has to be emptied.
        fs::remove_file(monitoring.join("tasks")).unwrap();
        drop(ours);
        assert!(!monitoring.exists() && mount.path().join("gold").is_dir());
    }

    #[test]
    fn what_was_made_for_a_container_that_fails_is_taken_back() {
        let mount = resctrl();
        // Without a directory mon_groups, making the last one fails.
        let monitored = json!({"closID": "new", "memBwSchema": "MB:0=30", "enableMonitoring": true});
        let chosen = choose_in(mount.path(), &rdt(monitored), "c1").unwrap();
        let chosen = Wanted { schemata: Vec::new(), ..chosen };
        assert_eq!(chosen.make().unwrap_err().code(), Code::Placement);
        assert!(!mount.path().join("new").exists());
        let fields = rdt(json!({"closID": "new", "memBwSchema": "MB:0=30"}));
        let ours = choose_in(mount.path(), &fields, "c1").unwrap().make().unwrap();
        assert_eq!(fs::read_to_string(mount.path().join("new/schemata")).unwrap(), "MB:0=30\n");
        ours.ended();
        assert!(mount.path().join("new").exists());
    }

    #[test]
    fn without_resctrl_it_is_an_error_and_without_the_field_it_is_nothing() {
        let spec = |linux: &str| serde_json::from_str(&format!(r#"{{"ociVersion":"1.3.0","linux":{linux}}}"#)).unwrap();
        assert_eq!(choose(&spec("{}"), &Host::default(), "c1").unwrap(), None);
        let error = choose(&spec(r#"{"intelRdt":{}}"#), &Host::default(), "c1").unwrap_err();
        assert!(error.to_string().contains("resctrl") && error.code() == Code::Placement, "{error}");
    }
}
