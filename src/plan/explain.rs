//! The plan in words: for people who read it, and for errors.

mod codes;
mod program;
mod words;

use std::{ffi::CStr, fmt};

use nix::errno::Errno;

use self::words::{attribute_words, attributes, capabilities, limit, propagation, words};
use super::{Input, Meeting, Op, Plan, Slot, Target, arena::Text, ids::UserNamespace, limits, namespaces};
use crate::{
    error::{Code, Error, Warning, plain},
    host::refusal::{UNCONFINED, no_cgroup_namespace},
    sys::schedule::Scheduling,
};

pub use codes::{explain_id_map, explain_showing, explain_sysctl, masked_proc};
pub use program::explain_program;

impl Plan {
    /// Says what `op` does, to complete "cannot ...".
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of step")]
    pub fn describe(&self, op: Op) -> String {
        let text = |text: Text| format!("{:?}", lossy(self.text(text)));
        match op {
            Op::Prctl { attribute, value } => attribute_words(attribute, value),
            Op::Sweep { kept } if kept == u16::MAX => {
                "close all descriptors but pura's own and the preserved".to_owned()
            }
            Op::Sweep { .. } => "close what the set-up needed".to_owned(),
            Op::WriteProc { file, line } => format!("write {} to {}", text(line), lossy(self.text(file))),
            // Engines know a refused label by the path in back-quotes.
            Op::Label { file, label, .. } => {
                format!("label the program {}: write `{}`", text(label), lossy(self.text(file)))
            }
            Op::ShiftClocks(offsets) => {
                format!("shift the clocks: {}", lossy(self.text(offsets)).trim_end().replace('\n', ", "))
            }
            Op::Meet(Meeting::MapIds) => "wait until the parent has mapped the ids".to_owned(),
            Op::Meet(Meeting::Console) | Op::PassConsole(_) => "pass the terminal to the parent".to_owned(),
            Op::OpenConsole { size: (rows, columns), .. } => {
                format!("make a terminal of {rows} rows and {columns} columns (/dev/pts/ptmx)")
            }
            Op::BindConsole(_) => "bind the terminal on /dev/console".to_owned(),
            Op::TakeConsole(_) => {
                "make the terminal the controlling one, and standard input, output and error".to_owned()
            }
            Op::Meet(Meeting::Created) => "be recorded as created".to_owned(),
            Op::Meet(Meeting::Scope) => "wait until systemd has put it into the container's scope".to_owned(),
            Op::Meet(Meeting::RuntimeHooks) => {
                "wait until the parent has run the hooks prestart and createRuntime".to_owned()
            }
            Op::SetNs { kind, .. } => format!("join the {} namespace", namespaces::name(kind)),
            Op::Unshare(kinds) => format!("make a new {} namespace", namespaces::names(kinds).join(", ")),
            Op::Rebirth => "go on as another process, inside the namespaces that only children enter".to_owned(),
            Op::Meet(Meeting::Mounts) | Op::PassMounts => {
                "show the parent the mount namespace, which tells the container's processes".to_owned()
            }
            Op::NewSession => "lead a new session".to_owned(),
            Op::SetIds { uid, gid } => format!("become user {uid}, group {gid}"),
            Op::SetGroups if self.groups.is_empty() => "drop the supplementary groups".to_owned(),
            Op::SetGroups => format!("set the supplementary groups {:?}", self.groups),
            Op::Propagate { path, flags } => format!("make the mounts below {} {}", text(path), propagation(flags)),
            Op::PropagateMount { flags, .. } => format!("make the mount {}", propagation(flags)),
            Op::OpenTree { path, recursive, .. } => {
                format!("take {}{}", text(path), if recursive { " and all below it" } else { "" })
            }
            Op::OpenLink { path, .. } => format!("take the link {} itself", text(path)),
            Op::CloneMount { recursive: false, .. } => "copy that mount".to_owned(),
            Op::CloneMount { .. } => "copy the root and all below it".to_owned(),
            Op::MakeIdMap { uids, gids, .. } => {
                let lines = |lines: Text| lossy(self.text(lines)).trim_end().replace('\n', ", ");
                format!("make a user namespace with uids {} and gids {}", lines(uids), lines(gids))
            }
            Op::MapIds { recursive, .. } => {
                format!("map the ids of the mount with it{}", if recursive { ", and of all below it" } else { "" })
            }
            Op::CopyUp { path, .. } => format!("copy up what the tmpfs on {} covers", text(path)),
            Op::CopyLink { says, directory, name } => {
                format!("make the link {} in {}, to {}", text(name), text(directory), text(says))
            }
            Op::AttachNode { path, kind, device, .. } => format!(
                "bind the device {} ({} {}:{})",
                text(path),
                if kind == libc::S_IFBLK { "b" } else { "c" },
                libc::major(device),
                libc::minor(device)
            ),
            Op::Fifo { directory, name, mode, uid, gid } => {
                format!("make the pipe {} in {}, mode {mode:o}, owner {uid}:{gid}", text(name), text(directory))
            }
            Op::OpenProc(_) => "open a procfs that nothing can have covered".to_owned(),
            Op::Sysctl { key, value, .. } => format!("set {} to {}", lossy(self.text(key)), text(value)),
            Op::MountOrBind { kind, flags, host, set, .. } => {
                let how = if set & libc::MOUNT_ATTR_RDONLY == 0 { "" } else { " read-only" };
                format!("mount {} ({}), or bind {}{how}", lossy(self.text(kind)), words(flags, c""), text(host))
            }
            Op::OpenPath { path, .. } => format!("open {}", text(path)),
            Op::BindRoot { path, .. } => format!("make {} the root", text(path)),
            Op::FindTarget { path, target: Target::File, .. } => format!("find the file {}", text(path)),
            Op::FindTarget { path, target: Target::Present, .. } => format!("find {}", text(path)),
            Op::FindTarget { path, target: Target::Itself, .. } => format!("find {}, a link or not", text(path)),
            Op::FindTarget { path, .. } => format!("find the directory {}", text(path)),
            Op::Mount { kind, data, flags, .. } => {
                format!("mount {} ({})", lossy(self.text(kind)), words(flags, self.text(data)))
            }
            Op::MountTmpfs { data, flags, .. } => {
                format!("mount tmpfs ({}) with the mode of what it covers", words(flags, self.text(data)))
            }
            Op::MountOverlay { lower, .. } => format!("mount a throw-away overlay over {}", text(lower)),
            Op::MoveMount { path, .. } => format!("attach {}", text(path)),
            Op::SetAttributes { set, clear, recursive, .. } => {
                format!(
                    "set mount attributes: {}{}",
                    attributes(set, clear),
                    if recursive { ", recursively" } else { "" }
                )
            }
            Op::Remount { flags, clear: 0, data, .. } => format!("remount ({})", words(flags, self.text(data))),
            Op::Remount { flags, clear, data, .. } => {
                format!("remount ({}), without {}", words(flags, self.text(data)), words(clear, c""))
            }
            Op::Enter(Slot::ROOT) => "enter the root".to_owned(),
            Op::Enter(_) => "enter it".to_owned(),
            Op::Device { source, name, .. } => format!("bind the device {} on {}", text(source), text(name)),
            Op::Link { target, name } => format!("link {} to {}", text(name), text(target)),
            Op::MakeDirectory(name) => format!("make the directory {}", text(name)),
            Op::PivotRoot(_) => "enter the root with pivot_root".to_owned(),
            Op::MoveRoot(_) => "enter the root by moving it over /".to_owned(),
            Op::ChangeRoot(_) => "enter the root with chroot".to_owned(),
            Op::Mask(path) => format!("mask {}", text(path)),
            Op::ReadOnly(path) => format!("make {} read-only", text(path)),
            Op::Hostname { name, .. } => format!("set the host name {}", text(name)),
            Op::Domainname(name) => format!("set the domain name {}", text(name)),
            Op::LoopbackUp => "bring up the loopback interface".to_owned(),
            Op::NewKeyring => "leave the caller's session keyring".to_owned(),
            Op::Rlimit { resource, soft, hard } => {
                format!("set {} to {} (hard {})", limits::name(resource), limit(soft), limit(hard))
            }
            Op::Schedule => self.scheduling.map_or_else(String::new, |wanted| {
                let Scheduling { policy, nice, priority, .. } = wanted;
                format!("schedule the program: policy {policy}, nice {nice}, priority {priority}")
            }),
            Op::IoPriority(value) => format!("set the I/O priority: class {}, level {}", value >> 13, value & 7),
            Op::Personality(domain) => format!("set personality {domain}"),
            Op::MemoryPolicy => "take memory from the nodes of linux.memoryPolicy".to_owned(),
            Op::Bounding(mask) => format!("limit the bounding set to {}", capabilities(mask)),
            Op::Capabilities { effective, permitted, inheritable } => format!(
                "set capabilities: effective {}; permitted {}; inheritable {}",
                capabilities(effective),
                capabilities(permitted),
                capabilities(inheritable)
            ),
            Op::Ambient(mask) => format!("raise ambient capabilities: {}", capabilities(mask)),
            // The words that engines know.
            Op::MakeCwd(path) | Op::EnterCwd(path) => format!("chdir to cwd {}", text(path)),
            Op::FindHome(uid) => format!("set HOME from the /etc/passwd of the image, for user {uid}"),
            Op::FindProgram | Op::Execute => {
                format!("{} {:?}", if op == Op::Execute { "run" } else { "look for the program" }, self.program_name())
            }
            Op::ExecuteReaper(path) => format!("become {}, whose child is {:?}", text(path), self.program_name()),
            Op::GivePipes(uid) => format!("give the pipes among the standard streams to user {uid}"),
            Op::Umask(mask) => format!("set umask {mask:03o}"),
            Op::Seccomp { .. } => {
                let summary = self.filter.as_ref().map_or("none", |filter| &filter.summary);
                format!("attach the seccomp filter ({summary})")
            }
            Op::Meet(Meeting::Pid) | Op::LearnPid => "learn the process id from the parent".to_owned(),
            Op::TellAgent => {
                let path = self.notice.as_ref().map_or_else(String::new, |notice| format!(" {:?}", notice.path()));
                format!("tell the seccomp agent{path}")
            }
            Op::LeaveAgent => "leave the seccomp agent alone".to_owned(),
            Op::AwaitStart => "wait for start".to_owned(),
            Op::Hooked => "tell that the hooks are done".to_owned(),
            Op::Hook(number) => {
                let hook = self.hooks.get(usize::from(number));
                format!("run the hook {}", hook.map_or_else(String::new, |hook| text(hook.path)))
            }
            Op::DefaultSignal(signal) => format!("set signal {signal} to its default"),
            Op::UnblockSignals => "unblock all signals".to_owned(),
        }
    }

    /// Turns init's report, a step and an errno, into a sentence.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most steps have nothing of their own to say")]
    pub fn explain(&self, step: u32, errno: Errno) -> Error {
        let index = usize::try_from(step).unwrap_or(usize::MAX);
        let (Some(&op), Some(place)) = (self.ops.get(index), self.places.get(index)) else {
            return Error::new(
                Code::Bug,
                "start the container",
                format!("init failed at step {step}, which is not in the plan"),
            );
        };
        let error = match op {
            Op::FindProgram | Op::Execute => return explain_program(&self.program_name(), errno, op == Op::Execute),
            Op::ExecuteReaper(path) => return program::explain_reaper(&lossy(self.text(path)), errno),
            Op::Enter(Slot::ROOT) if place == "process.cwd" => {
                Error::new(Code::Cwd, "chdir to cwd \"/\"", errno.desc().to_lowercase())
            }
            Op::Sysctl { key, value, .. } => explain_sysctl(&lossy(self.text(key)), &lossy(self.text(value)), errno),
            Op::MakeCwd(_) | Op::EnterCwd(_) => {
                let why = if errno == Errno::EXDEV {
                    "it is outside of the root".to_owned()
                } else {
                    errno.desc().to_lowercase()
                };
                Error::new(Code::Cwd, self.describe(op), why)
            }
            _ => {
                let (what, why) = (self.what(index, op), self.why(op, errno));
                let code = match op {
                    Op::WriteProc { file, .. } if self.text(file) != c"/proc/self/oom_score_adj" => Code::MapRefused,
                    _ => codes::code(self, op, errno),
                };
                let error = Error::new(code, what, why);
                match codes::fix(self, op, errno) {
                    Some(fix) => error.fix(fix),
                    None => error,
                }
            }
        };
        if place.is_empty() { error } else { error.at(place.clone()) }
    }

    /// Turns a failure that init survived into a warning.
    pub fn explain_warning(&self, step: u32, errno: Errno) -> Warning {
        let op = usize::try_from(step).ok().and_then(|step| self.ops.get(step));
        let why = plain(errno);
        match op {
            Some(Op::NewKeyring) => Warning::new(
                Code::Keyring,
                format!("the caller's session keys stay reachable inside: no new keyring: {why}"),
            ),
            Some(Op::Hostname { .. }) => {
                Warning::new(Code::Forbidden, "the host name is the caller's: a seccomp filter forbids sethostname")
                    .fix(UNCONFINED)
            }
            Some(Op::MountOrBind { kind, host, .. }) => {
                codes::bound(&lossy(self.text(*kind)), &lossy(self.text(*host)), &why)
            }
            Some(Op::Unshare(_)) => no_cgroup_namespace(errno),
            Some(Op::CopyUp { path, .. }) => Warning::new(
                Code::Mount,
                format!("not all that the tmpfs on {:?} covers is in it as it was: {why}", lossy(self.text(*path))),
            ),
            Some(Op::MountOverlay { lower, .. }) => {
                let lower = lossy(self.text(*lower));
                Warning::new(
                    Code::Overlay,
                    format!("{lower:?} is bound read-only, because an overlay over it is refused: {why}"),
                )
            }
            Some(op) => Warning::new(Code::Mount, format!("could not {}: {why}", self.describe(*op))),
            None => Warning::new(Code::Bug, format!("init warns at step {step}, which is not in the plan")),
        }
    }

    /// What was attempted, with the destination when the step itself knows only a slot.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most steps have nothing of their own to say")]
    fn what(&self, index: usize, op: Op) -> String {
        // Of the same place in the config: a bind has its attributes set before its target is found.
        let place = self.places.get(index).filter(|place| !place.is_empty());
        let target = || {
            let steps = self.ops.iter().zip(&self.places).enumerate();
            let same = steps.filter(|(at, (_, of))| if place.is_some() { Some(*of) == place } else { *at < index });
            let found = same
                .filter_map(|(_, (step, _))| if let Op::FindTarget { path, .. } = step { Some(*path) } else { None })
                .next_back();
            found.map(|path| format!(" on {:?}", lossy(self.text(path))))
        };
        match op {
            Op::Mount { kind, .. } | Op::MountOrBind { kind, .. } => {
                format!("mount {}{}", lossy(self.text(kind)), target().unwrap_or_default())
            }
            Op::MapIds { .. } => format!("idmap the mount{}", target().unwrap_or_default()),
            Op::MountTmpfs { .. } => format!("mount tmpfs{}", target().unwrap_or_default()),
            Op::MoveMount { path, .. } => format!("bind {:?}{}", lossy(self.text(path)), target().unwrap_or_default()),
            Op::SetAttributes { .. } | Op::Remount { .. } | Op::PropagateMount { .. } => {
                format!("{}{}", self.describe(op), target().unwrap_or_default())
            }
            Op::Seccomp { .. } => "attach the seccomp filter".to_owned(),
            Op::FindTarget { target: Target::Present, .. } => self.describe(op),
            Op::FindTarget { path, .. } => format!("make the mount point {:?}", lossy(self.text(path))),
            _ => self.describe(op),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most steps have nothing of their own to say")]
    fn why(&self, op: Op, errno: Errno) -> String {
        match op {
            _ if errno == Errno::ENOSYS => codes::LACKS.to_owned(),
            Op::Mount { data, .. } | Op::MountTmpfs { data, .. } | Op::Remount { data, .. }
                if errno == Errno::EINVAL =>
            {
                match lossy(self.text(data)) {
                    data if data.is_empty() => codes::attribute(op, errno).unwrap_or_else(|| plain(errno)),
                    data if data.contains(',') => format!("the kernel refuses one of the options {data:?}"),
                    data => format!("the kernel refuses option {data:?}"),
                }
            }
            Op::Mount { kind, .. } if errno == Errno::EPERM && self.text(kind) == c"proc" => codes::MASKED.to_owned(),
            Op::Mount { kind, .. } if errno == Errno::ENODEV => {
                format!("the kernel knows no filesystem {:?}", lossy(self.text(kind)))
            }
            Op::FindTarget { target: Target::RealDirectory, .. } if errno == Errno::ELOOP => {
                "it is a link in the image".to_owned()
            }
            Op::SetAttributes { .. } | Op::Remount { .. } | Op::MoveMount { .. } if errno == Errno::EPERM => {
                "a flag of the source is locked: a user namespace may not clear nosuid, nodev, noexec or ro".to_owned()
            }
            // The kernel's word for a file over a directory, and the reverse.
            Op::MoveMount { .. } if matches!(errno, Errno::ENOTDIR | Errno::EINVAL) => {
                "one is a file, and the other is not: not a directory".to_owned()
            }
            Op::Rlimit { .. } if errno == Errno::EPERM => {
                "it is above your hard limit: operation not permitted".to_owned()
            }
            Op::WriteProc { file, .. } if errno == Errno::EACCES && self.text(file) == c"/proc/self/oom_score_adj" => {
                "only real root may lower it".to_owned()
            }
            _ => self.why_object(op, errno),
        }
    }

    /// The same for single objects: devices, links, copies.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most steps have nothing of their own to say")]
    fn why_object(&self, op: Op, errno: Errno) -> String {
        match op {
            Op::FindTarget { .. } | Op::AttachNode { .. } if errno == Errno::EXDEV => {
                "links in the image lead into /proc".to_owned()
            }
            Op::MapIds { kind, .. } => codes::id_map(&lossy(self.text(kind)), errno),
            Op::AttachNode { .. } | Op::Fifo { .. } | Op::CopyLink { .. } if errno == Errno::EEXIST => {
                "something else is there".to_owned()
            }
            Op::AttachNode { source, .. } if errno == Errno::ENODEV => {
                format!("{:?} is another device by now", lossy(self.text(source)))
            }
            Op::CopyUp { .. } if errno == Errno::ENAMETOOLONG => "directories are nested too deeply".to_owned(),
            _ => codes::attribute(op, errno).unwrap_or_else(|| plain(errno)),
        }
    }

    /// The program's name, as config.json has it.
    fn program_name(&self) -> String {
        self.argv.first().map_or_else(|| "nothing".to_owned(), |word| lossy(self.text(*word)))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ids.user_namespace {
            UserNamespace::Create { maps, writer, .. } => {
                writeln!(f, "user namespace: new; ids written by {}", writer.name())?;
                for (kind, extents) in [("uid", &maps.uids), ("gid", &maps.gids)] {
                    for extent in extents {
                        writeln!(
                            f,
                            "  {kind} {} inside = {} outside, {} ids",
                            extent.inside, extent.outside, extent.count
                        )?;
                    }
                }
            }
            UserNamespace::Join { index, .. } => writeln!(f, "user namespace: joined (linux.namespaces[{index}])")?,
            UserNamespace::JoinOwner { index, .. } => {
                writeln!(f, "user namespace: the owner of linux.namespaces[{index}], joined")?;
            }
            UserNamespace::Reuse => writeln!(f, "user namespace: the caller's, which is not the initial one")?,
            UserNamespace::Inherit => writeln!(f, "user namespace: none of its own (--userns=inherit)")?,
        }
        let new = i32::try_from(self.clone_flags).unwrap_or(0) & !libc::CLONE_NEWUSER;
        writeln!(
            f,
            "clone: {}",
            if new == 0 { "no namespace".to_owned() } else { format!("new {}", namespaces::names(new).join(", ")) }
        )?;
        for (_, kind) in &self.joined_first {
            writeln!(f, "joined before clone: {}", namespaces::name(*kind))?;
        }
        for (_, shown) in &self.shown {
            writeln!(f, "mounted before clone: {}, of the joined namespace  ({})", shown.kind, shown.place)?;
        }
        for (_, input) in &self.inputs {
            match input {
                Input::Namespace(_) | Input::Owner(_) | Input::Directory(_) | Input::Output(_) | Input::Program(_) => {}
                Input::Mapped(tree) => writeln!(f, "idmapped before clone: {:?}  ({})", tree.path, tree.place)?,
                Input::Node(node) => writeln!(
                    f,
                    "made before clone: device {}:{}  ({})",
                    libc::major(node.device),
                    libc::minor(node.device),
                    node.place
                )?,
            }
        }
        for parameter in &self.parameters {
            writeln!(f, "set before clone: {} to {:?}  (linux.sysctl)", parameter.key, parameter.value)?;
        }
        for device in &self.moved_devices {
            writeln!(f, "moved at the end: {device}  ({})", device.place())?;
        }
        for (step, (op, place)) in self.ops.iter().zip(&self.places).enumerate() {
            let place = if place.is_empty() { String::new() } else { format!("  ({place})") };
            writeln!(f, "{step:3}  {}{place}", self.describe(*op))?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

fn lossy(text: &CStr) -> String {
    String::from_utf8_lossy(text.to_bytes()).into_owned()
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}
