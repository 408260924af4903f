//! Namespaces: made by clone, made later, or joined; and the id maps.

use std::path::Path;

use oci_spec::runtime::LinuxNamespaceType as Kind;

use super::{
    Input, Meeting, Op, Slot,
    compile::die_with_parent,
    draft::Draft,
    ids::{CAP_SYS_ADMIN, UserNamespace, Writer},
};
use crate::{
    error::{Code, Error, Result},
    host::ids::{self, Extent},
    sys::process::Attribute,
};

/// Every kind but the user namespace, in the order in which they are joined. The mount namespace is joined later, with the
/// root made: [`Draft::join_mounts`].
const KINDS: [(Kind, i32, &str); 7] = [
    (Kind::Pid, libc::CLONE_NEWPID, "pid"),
    (Kind::Network, libc::CLONE_NEWNET, "network"),
    (Kind::Uts, libc::CLONE_NEWUTS, "uts"),
    (Kind::Ipc, libc::CLONE_NEWIPC, "ipc"),
    (Kind::Cgroup, libc::CLONE_NEWCGROUP, "cgroup"),
    (Kind::Time, libc::CLONE_NEWTIME, "time"),
    (Kind::Mount, libc::CLONE_NEWNS, "mount"),
];

/// New namespaces that only children of the process that asks for them enter. So is a joined PID namespace; a joined
/// time namespace is entered at once: `setns(2)`.
const FOR_CHILDREN: i32 = libc::CLONE_NEWPID | libc::CLONE_NEWTIME;

/// The name of a kind in config.json.
pub(super) fn name(kind: i32) -> &'static str {
    KINDS.iter().find(|(_, flag, _)| *flag == kind).map_or("user", |(.., name)| name)
}

/// The names of all kinds in a mask of `CLONE_NEW*`.
pub(super) fn names(kinds: i32) -> Vec<&'static str> {
    KINDS.iter().filter(|(_, flag, _)| kinds & flag != 0).map(|(.., name)| *name).collect()
}

impl Draft<'_> {
    /// Makes and joins all namespaces, and maps the ids.
    pub(super) fn namespaces(&mut self) -> Result<()> {
        let offsets = self.time_offsets();
        // Clocks are shifted before anyone is inside, and clone would put init there: time_namespaces(7). Then the process
        // that does it must not be the first of a PID namespace either, which would die with it.
        let late = if offsets.is_some() { FOR_CHILDREN } else { 0 };
        let mut new = 0;
        let mut joined_later = Vec::new();
        for (kind, flag, _) in KINDS {
            match self.namespace(kind) {
                Some((index, Some(path))) if flag == libc::CLONE_NEWNS => {
                    let slot = self.joined(index, path, flag)?;
                    self.joined_mounts = Some((index, slot));
                    // The root is made in one of our own, and taken along.
                    new |= flag;
                }
                Some((index, Some(path))) => self.join(index, path, flag, &mut joined_later)?,
                Some((_, None)) => new |= flag,
                // Without an entry it is inherited; but mounting needs a mount namespace that is ours (D2 of the docs).
                None if flag == libc::CLONE_NEWNS => new |= flag,
                None => {}
            }
        }
        match self.plan.ids.user_namespace.clone() {
            UserNamespace::Create { maps, writer, deny_setgroups } => {
                self.create(new, new & !late, writer);
                self.map_ids(&maps.uids, &maps.gids, writer, deny_setgroups)?;
            }
            // Known before anything is made, and before any warning is given.
            UserNamespace::Inherit if !self.host.caller.has(CAP_SYS_ADMIN) => {
                // In the words that engines take for a lack of permission.
                let why =
                    "operation not permitted: making the container's namespaces takes CAP_SYS_ADMIN, which you lack";
                let error = Error::new(Code::Namespace, "use --userns=inherit", why);
                return Err(error.fix("--userns=auto, which needs no privilege"));
            }
            UserNamespace::Reuse | UserNamespace::Inherit => {
                self.plan.clone_flags = flags(new & !libc::CLONE_NEWCGROUP & !late);
            }
            UserNamespace::Join { index, .. } => self.enter(index, false)?,
            UserNamespace::JoinOwner { index, .. } => self.enter(index, true)?,
        }
        if new & libc::CLONE_NEWTIME != 0 && !self.host.named.has_time {
            let why = "this kernel has none; they came with Linux 5.6";
            return Err(Error::new(Code::TimeNamespace, "make a time namespace", why));
        }
        self.finish(new, &joined_later, offsets)
    }

    /// The lines of `timens_offsets`: clock, seconds, nanoseconds.
    fn time_offsets(&self) -> Option<String> {
        let offsets = self.spec.linux().as_ref()?.time_offsets().as_ref().filter(|offsets| !offsets.is_empty())?;
        let mut lines: Vec<_> = offsets
            .iter()
            .map(|(clock, by)| format!("{clock} {} {}\n", by.secs().unwrap_or(0), by.nanosecs().unwrap_or(0)))
            .collect();
        lines.sort_unstable();
        Some(lines.concat())
    }

    /// What the caller's user namespace owns is joined by the parent, which still may; the rest by init, from inside. So is
    /// that of cgroups where init may do so, because nobody in it can bear a child into a cgroup outside of it.
    fn join(&mut self, index: usize, path: &Path, flag: i32, later: &mut Vec<(usize, Slot, i32)>) -> Result<()> {
        let slot = self.joined(index, path, flag)?;
        let stays = matches!(self.plan.ids.user_namespace, UserNamespace::Reuse | UserNamespace::Inherit);
        let is_late = flag == libc::CLONE_NEWCGROUP && stays;
        if self.owner_of(index) == Some(self.host.own_userns) && !is_late {
            self.plan.joined_first.push((slot, flag));
        } else {
            later.push((index, slot, flag));
        }
        Ok(())
    }

    /// The slot of a namespace to join.
    fn joined(&mut self, index: usize, path: &Path, flag: i32) -> Result<Slot> {
        self.examined(index, path, flag)?;
        let powerless = matches!(self.plan.ids.user_namespace, UserNamespace::Create { .. });
        if flag == libc::CLONE_NEWNS && powerless {
            let what = format!("join the {} namespace {path:?}", name(flag));
            let why = "the container's new user namespace has no power over it";
            let fix = "join the user namespace that owns it too: {\"type\": \"user\", \"path\": ...}";
            return Err(Error::new(Code::Join, what, why).at(format!("linux.namespaces[{index}]")).fix(fix));
        }
        self.input(Input::Namespace(path.to_owned()))
    }

    /// Checks that the namespace at a path was examined, and is one of the right kind.
    fn examined(&self, index: usize, path: &Path, flag: i32) -> Result<()> {
        let found = self.host.named.namespaces.get(index).and_then(Option::as_ref);
        let what = || format!("join the {} namespace {path:?}", name(flag));
        let place = format!("linux.namespaces[{index}]");
        let Some(found) = found else {
            return Err(Error::new(Code::Join, what(), "it was not examined").at(place));
        };
        if found.kind < 0 {
            return Err(Error::new(Code::Join, what(), crate::error::plain(nix::errno::Errno::from_raw(-found.kind)))
                .at(place)
                .fix("the path of a namespace that is there and yours, such as /proc/PID/ns/net"));
        }
        if found.kind != flag {
            let is =
                if found.kind == 0 { "no namespace".to_owned() } else { format!("a {} namespace", name(found.kind)) };
            return Err(Error::new(Code::Join, what(), format!("it is {is}"))
                .at(place)
                .fix("the path of a namespace of that type, such as /proc/PID/ns/net"));
        }
        Ok(())
    }

    /// Clone makes the user namespace and, in the same call, all others that need nothing else first.
    fn create(&mut self, new: i32, early: i32, writer: Writer) {
        // The cgroup namespace is rooted where its maker is: only init is in the container's cgroup.
        let mut at_clone = early & !libc::CLONE_NEWCGROUP;
        if writer == Writer::Mappers && new & libc::CLONE_NEWNET != 0 {
            // The dearest of them: made while the mappers run.
            at_clone &= !libc::CLONE_NEWNET;
            self.step(Op::Unshare(libc::CLONE_NEWNET));
        }
        self.plan.clone_flags = flags(at_clone | libc::CLONE_NEWUSER);
    }

    fn map_ids(&mut self, uids: &[Extent], gids: &[Extent], writer: Writer, deny_setgroups: bool) -> Result<()> {
        if writer != Writer::Init {
            self.step(Op::Meet(Meeting::MapIds));
            return Ok(());
        }
        // Without CAP_SETGID the kernel takes a gid_map only after setgroups(2) is denied: CVE-2014-8989.
        let denial = deny_setgroups.then(|| ("/proc/self/setgroups", "deny".to_owned()));
        let lines = [("/proc/self/uid_map", ids::lines(uids)), ("/proc/self/gid_map", ids::lines(gids))];
        for (file, line) in denial.into_iter().chain(lines) {
            let (file, line) = (self.text(file)?, self.text(line)?);
            self.step_for(Op::WriteProc { file, line }, "linux.uidMappings");
        }
        Ok(())
    }

    /// Joins a user namespace by its path, or the one that owns the namespace at the path.
    fn enter(&mut self, index: usize, owner: bool) -> Result<()> {
        let all = self.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        let path = all.and_then(|all| all.get(index)).and_then(|namespace| namespace.path().clone());
        let path = path.ok_or_else(|| Error::new(Code::Bug, "join the user namespace", "it has no path"))?;
        if !owner {
            self.examined(index, &path, libc::CLONE_NEWUSER)?;
        }
        let from = self.input(if owner { Input::Owner(path) } else { Input::Namespace(path) })?;
        self.step_for(Op::SetNs { from, kind: libc::CLONE_NEWUSER }, format!("linux.namespaces[{index}]"));
        Ok(())
    }

    /// What init does itself once it is in its user namespace: joins, late makings, a second clone if need be.
    fn finish(&mut self, new: i32, joined: &[(usize, Slot, i32)], offsets: Option<String>) -> Result<()> {
        for &(index, from, kind) in joined {
            self.step_for(Op::SetNs { from, kind }, format!("linux.namespaces[{index}]"));
        }
        let cloned = i32::try_from(self.plan.clone_flags).unwrap_or(0);
        let unshared =
            self.plan.ops.iter().filter_map(|op| if let Op::Unshare(flag) = op { Some(*flag) } else { None });
        let made = unshared.fold(cloned, |all, flag| all | flag);
        let rest = new & !made;
        if rest != 0 {
            self.step(Op::Unshare(rest));
        }
        if let Some(offsets) = offsets {
            self.shift_clocks(&offsets)?;
        }
        // Only where others may share our PID namespace with container code: alone in a new one, nobody but the caller
        // sees us, and the caller's tools want to read /proc/PID/ns of a created container.
        if !self.is_new(Kind::Pid) {
            self.step(Op::Prctl { attribute: Attribute::Dumpable, value: 0 });
        }
        // After that: the new process is where container code may be.
        let joined_later = joined.iter().fold(0, |all, (.., kind)| all | kind);
        if rest & FOR_CHILDREN != 0 || joined_later & libc::CLONE_NEWPID != 0 {
            self.step(Op::Rebirth);
            die_with_parent(self);
        }
        Ok(())
    }

    /// Where neither a cgroup nor a PID namespace ends all with process 1, the mount namespace tells who is left.
    pub(super) fn pass_mounts(&mut self) {
        if self.order.scattered && !self.is_new(Kind::Pid) && self.joined_mounts.is_none() {
            self.step(Op::PassMounts);
        }
    }

    fn shift_clocks(&mut self, offsets: &str) -> Result<()> {
        let offsets = self.text(offsets)?;
        let joined =
            matches!(self.plan.ids.user_namespace, UserNamespace::Join { .. } | UserNamespace::JoinOwner { .. });
        if joined {
            // Joining a user namespace has given our /proc files to root: credentials(7). Nobody in there sees us yet.
            self.step(Op::Prctl { attribute: Attribute::Dumpable, value: 1 });
        }
        self.step_for(Op::ShiftClocks(offsets), "linux.timeOffsets");
        if joined {
            self.step(Op::Prctl { attribute: Attribute::Dumpable, value: 0 });
        }
        Ok(())
    }

    /// A change of ids hides a process even from the user who made it, who then could neither `exec` in a created
    /// container nor give it a network. Alone in its PID namespace it has nobody else to hide from.
    pub(super) fn stay_visible(&mut self) {
        let changes = self.plan.ops.iter().any(|op| matches!(op, Op::SetIds { .. }));
        if changes && self.is_new(Kind::Pid) {
            self.step(Op::Prctl { attribute: Attribute::Dumpable, value: 1 });
        }
    }

    /// Sets the host names and brings up the loopback interface of new namespaces.
    pub(super) fn names(&mut self) -> Result<()> {
        // An empty name is none: without a UTS namespace of its own it would become the caller's.
        if let Some(hostname) = self.spec.hostname().as_ref().filter(|name| !name.is_empty()) {
            let name = self.text(hostname)?;
            self.step_for(Op::Hostname { name, required: !self.order.clamps }, "hostname");
        }
        if let Some(domainname) = self.spec.domainname().as_ref().filter(|name| !name.is_empty()) {
            let text = self.text(domainname)?;
            self.step_for(Op::Domainname(text), "domainname");
        }
        if self.is_new(Kind::Network) {
            self.step(Op::LoopbackUp);
        }
        Ok(())
    }
}

fn flags(kinds: i32) -> u64 {
    u64::from(kinds.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_namespace_is_passed_where_nothing_else_tells_the_processes() {
        let kinds = |kinds: &[&str]| {
            let namespaces: Vec<_> = kinds.iter().map(|kind| serde_json::json!({"type": kind})).collect();
            serde_json::json!({
                "ociVersion": "1.3.0", "root": {"path": "r"}, "linux": {"namespaces": namespaces}
            })
        };
        for (config, scattered, passes) in [
            (kinds(&["mount"]), true, true),
            (kinds(&[]), true, true),
            (kinds(&["mount"]), false, false),
            (kinds(&["mount", "pid"]), true, false),
        ] {
            let spec = serde_json::from_value(config).unwrap();
            let order = crate::plan::compile::Order { scattered, ..crate::plan::sample::order(false) };
            let mode = crate::cli::UsernsMode::Unset;
            let plan = crate::plan::sample::compile_for(&spec, crate::plan::sample::user(), mode, &order, 0).unwrap();
            assert_eq!(plan.ops().contains(&Op::PassMounts), passes, "{plan}");
        }
    }

    #[test]
    fn an_empty_name_is_never_set() {
        let spec = serde_json::json!({"ociVersion": "1.3.0", "root": {"path": "r"}, "hostname": "", "domainname": ""});
        let spec = serde_json::from_value(spec).unwrap();
        let mode = crate::cli::UsernsMode::Inherit;
        let plan = crate::plan::sample::compile(&spec, crate::plan::sample::root(), mode, false, 0).unwrap();
        assert!(!plan.ops().iter().any(|op| matches!(op, Op::Hostname { .. } | Op::Domainname(_))), "{plan}");
    }
}
