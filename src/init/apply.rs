//! One arm for each kind of step.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    unistd::{fchdir, setsid, symlinkat},
};

use super::{Init, attach::Change, copy, fallback::Choice, home, line::Line, mapping, path};
use crate::{
    launch::link::{self, Report},
    plan::{Meeting, Op, Slot, Target, arena::Text},
    sys::{
        self,
        path::{IN_ROOT, REFERENCE},
    },
};

impl Init<'_> {
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of step")]
    pub(super) fn apply(&mut self, step: u32, op: Op) -> nix::Result<()> {
        match op {
            Op::Prctl { attribute, value } => sys::process::prctl(attribute, value),
            Op::Sweep { kept } => self.sweep(kept),
            Op::WriteProc { file, line } => self.write(file, line),
            Op::Label { file, label, .. } => self.write(file, label),
            Op::ShiftClocks(offsets) => {
                let written = sys::path::write(c"/proc/self/timens_offsets", self.plan.text(offsets).to_bytes())?;
                self.fill(Slot::TARGET, written);
                Ok(())
            }
            Op::Meet(meeting) => link::meet(self.slots.get(Slot::LINK.index())?, meeting),
            Op::SetNs { from, kind } => sys::process::set_namespace(self.slots.get(from.index())?, kind),
            Op::Unshare(kinds) => self.unshare(step, kinds),
            Op::Rebirth => self.rebirth(),
            Op::PassMounts => self.pass_mounts(),
            Op::NewSession => setsid().map(drop),
            Op::SetIds { uid, gid } => sys::process::set_ids(uid, gid),
            Op::SetGroups => sys::process::set_groups(self.plan.groups()),
            Op::Hostname { name, required } => match sys::process::set_hostname(self.plan.text(name)) {
                Err(Errno::EPERM) if !required => self.warn(step, Errno::EPERM),
                done => done,
            },
            Op::Domainname(name) => sys::process::set_domainname(self.plan.text(name)),
            Op::LoopbackUp => {
                let socket = sys::net::loopback_up()?;
                self.fill(Slot::TARGET, socket);
                Ok(())
            }
            Op::NewKeyring => sys::process::new_keyring().or_else(|errno| self.warn(step, errno)),
            Op::Rlimit { resource, soft, hard } => sys::process::set_rlimit(0, resource, soft, hard),
            Op::Schedule => self.plan.scheduling.as_ref().map_or(Ok(()), |wanted| sys::schedule::set(0, wanted)),
            Op::IoPriority(value) => sys::schedule::set_io_priority(0, value),
            Op::Personality(domain) => sys::schedule::set_personality(domain),
            Op::MemoryPolicy => self.plan.memory_policy.as_ref().map_or(Ok(()), sys::schedule::set_memory_policy),
            Op::Bounding(kept) => sys::caps::limit_bounding(kept),
            Op::Capabilities { effective, permitted, inheritable } => sys::caps::set(effective, permitted, inheritable),
            Op::Ambient(mask) => sys::caps::raise_ambient(mask),
            Op::Seccomp { flags } => {
                if let Some(notified) = sys::seccomp::attach(flags, self.plan.filter())? {
                    self.fill(Slot::TARGET, notified);
                }
                Ok(())
            }
            Op::LearnPid => {
                let pid = link::learn_pid(self.slots.get(Slot::LINK.index())?)?;
                if let Some(notice) = self.plan.notice() {
                    notice.fill(&mut self.notice, pid);
                }
                Ok(())
            }
            Op::TellAgent => {
                let (agent, notified) = (self.slots.get(Slot::AGENT.index())?, self.slots.get(Slot::TARGET.index())?);
                sys::message::send(agent, &self.notice, Some(notified))
            }
            Op::LeaveAgent => {
                self.slots.take(Slot::AGENT.index()).and_then(|_| self.slots.take(Slot::TARGET.index())).map(drop)
            }
            Op::GivePipes(uid) => {
                sys::fd::give_pipes(uid);
                Ok(())
            }
            Op::Umask(mask) => sys::process::set_umask(mask),
            Op::OpenConsole { master, slave, size, owner } => self.open_console(master, slave, size, owner),
            Op::PassConsole(master) => {
                let console = self.slots.take(master.index())?;
                link::pass(self.slots.get(Slot::LINK.index())?, Meeting::Console, console.as_fd())
            }
            Op::BindConsole(slave) => self.bind_console(slave),
            Op::TakeConsole(slave) => {
                let slave = self.slots.get(slave.index())?;
                sys::pty::control(slave).and_then(|()| sys::pty::become_standard(slave))
            }
            Op::FindHome(uid) => self.find_home(uid),
            Op::FindProgram => self.find_program(),
            Op::AwaitStart => self.await_start(),
            Op::Hook(number) => self.hook(number),
            Op::Hooked => self.hooked(),
            Op::DefaultSignal(signal) => sys::signal::set_default(signal),
            Op::UnblockSignals => sys::signal::unblock(),
            Op::Execute => Err(sys::exec::exec(self.program.ok_or(Errno::ENOENT)?, self.vectors)),
            Op::ExecuteReaper(_) => {
                self.vectors.replace(1, self.program.ok_or(Errno::ENOENT)?)?;
                Err(sys::exec::exec_file(self.slots.get(Slot::REAPER.index())?, self.vectors))
            }
            Op::Propagate { path, flags } => sys::mount::set_propagation(self.plan.text(path), flags),
            Op::PropagateMount { mount, flags } => self.propagate(mount, flags),
            Op::OpenTree { path, recursive, into } => self.open_tree(path, recursive, into),
            Op::OpenLink { path, into } => self.open_link(path, into),
            Op::CloneMount { mount, recursive, into } => {
                let tree = sys::mount::open_tree(self.slots.get(mount.index())?, c"", recursive)?;
                self.fill(into, tree);
                Ok(())
            }
            Op::MakeIdMap { uids, gids, into } => {
                let namespace = mapping::make(self.plan.text(uids), self.plan.text(gids))?;
                self.fill(into, namespace);
                Ok(())
            }
            Op::MapIds { tree, namespace, recursive, .. } => {
                let (tree, namespace) = (self.slots.get(tree.index())?, self.slots.get(namespace.index())?);
                sys::mount::map_ids(tree, namespace, recursive)
            }
            Op::CopyUp { from, to, owner, .. } => {
                match copy::tree(self.slots.get(from.index())?, self.slots.get(to.index())?, owner)? {
                    Some(errno) => self.warn(step, errno),
                    None => Ok(()),
                }
            }
            Op::CopyLink { says, directory, name } => self.copy_link(says, directory, name),
            Op::AttachNode { tree, path, kind, device, .. } => self.attach_node(tree, path, kind, device),
            Op::Fifo { directory, name, mode, uid, gid } => self.fifo(directory, name, mode, (uid, gid)),
            Op::OpenProc(into) => self.open_proc(into),
            Op::Sysctl { proc, file, value, .. } => self.set_parameter(proc, file, value),
            Op::MountOrBind { kind, source, flags, host, set, path, on } => {
                self.mount_or_bind(step, Choice { kind, source, flags, host, set, path, on })
            }
            Op::OpenPath { path, into } => {
                let opened = sys::path::open_host(self.plan.text(path), REFERENCE)?;
                self.fill(into, opened);
                Ok(())
            }
            Op::BindRoot { path, into } => self.bind_root(path, into),
            Op::FindTarget { path, target, into } => self.find_target(path, target, into),
            Op::Mount { kind, source, flags, data, on } => {
                let [kind, source, data] = [kind, source, data].map(|text| self.plan.text(text));
                sys::mount::mount_on(self.slots.get(on.index())?, kind, source, flags, data)
            }
            Op::MountTmpfs { flags, data, on } => self.mount_tmpfs(flags, data, on),
            Op::MountOverlay { lower, data, on } => self.mount_overlay(step, lower, data, on),
            Op::MoveMount { tree, on, recursive, .. } => self.move_mount(tree, on, recursive),
            Op::SetAttributes { mount, set, clear, recursive, detached: true } => {
                self.change_detached(mount, Change { set, clear, recursive })
            }
            Op::SetAttributes { mount, set, clear, recursive, detached: false } => {
                self.change_attached(mount, Change { set, clear, recursive })
            }
            Op::Remount { mount, flags, clear, data } => {
                let kept = sys::remount::locked_flags(self.slots.get(mount.index())?)?;
                self.enter(mount)?;
                sys::mount::remount_here(flags | kept & !clear, self.plan.text(data))
            }
            Op::Enter(slot) => self.enter(slot),
            Op::Device { source, name, alone } => self.device(source, name, alone),
            Op::Link { target, name } => {
                let made = symlinkat(self.plan.text(target), sys::path::here(), self.plan.text(name));
                if made == Err(Errno::EEXIST) { Ok(()) } else { made }
            }
            Op::MakeDirectory(name) => {
                let made = sys::path::create_directory(sys::path::here(), self.plan.text(name));
                if made == Err(Errno::EEXIST) { Ok(()) } else { made }
            }
            Op::PivotRoot(root) => {
                let root = self.slots.get(root.index())?;
                let entered = sys::mount::pivot(root);
                if entered == Err(Errno::EINVAL) { sys::mount::move_root(root) } else { entered }
            }
            Op::MoveRoot(root) => sys::mount::move_root(self.slots.get(root.index())?),
            Op::ChangeRoot(root) => sys::mount::change_root(self.slots.get(root.index())?),
            Op::Mask(path) => self.mask(path),
            Op::ReadOnly(path) => self.read_only(path),
            Op::MakeCwd(path) => {
                path::reach(self.slots.get(Slot::ROOT.index())?, self.plan.text(path), Target::Directory).map(drop)
            }
            Op::EnterCwd(path) => self.enter_cwd(path),
        }
    }

    pub(super) fn fill(&mut self, slot: Slot, descriptor: OwnedFd) {
        self.slots.put(slot.index(), descriptor);
    }

    fn enter(&self, slot: Slot) -> nix::Result<()> {
        fchdir(self.slots.get(slot.index())?)
    }

    fn sweep(&mut self, kept: u16) -> nix::Result<()> {
        let is_kept = |slot: usize| u16::try_from(slot).is_ok_and(|slot| slot < kept && Slot(slot).is_kept());
        self.slots.sweep(is_kept)
    }

    /// The new process reports itself, so that nothing it says later can arrive earlier.
    fn rebirth(&self) -> nix::Result<()> {
        if sys::process::sibling()?.is_some() {
            sys::process::exit_now(0)
        }
        link::report(self.slots.get(Slot::LINK.index())?, Report::Reborn)
    }

    fn pass_mounts(&self) -> nix::Result<()> {
        let link = self.slots.get(Slot::LINK.index())?;
        match sys::path::open_host(c"/proc/self/ns/mnt", OFlag::O_RDONLY) {
            Ok(mounts) => link::pass(link, Meeting::Mounts, mounts.as_fd()),
            Err(_) => link::meet(link, Meeting::Mounts),
        }
    }

    /// Closed with the next sweep.
    fn write(&mut self, file: Text, line: Text) -> nix::Result<()> {
        let written = sys::path::write(self.plan.text(file), self.plan.text(line).to_bytes())?;
        self.fill(Slot::TARGET, written);
        Ok(())
    }

    fn find_target(&mut self, path: Text, target: Target, into: Slot) -> nix::Result<()> {
        let found = path::find(self.slots.get(Slot::ROOT.index())?, self.plan.text(path), target)?;
        self.fill(into, found);
        Ok(())
    }

    fn mount_tmpfs(&mut self, flags: u64, data: Text, on: Slot) -> nix::Result<()> {
        let on = self.slots.get(on.index())?;
        let mode = sys::path::stat(on)?.st_mode & 0o7777;
        let mut options = Line::default();
        options.add(self.plan.text(data).to_bytes());
        if !self.plan.text(data).is_empty() {
            options.add(b",");
        }
        options.add(b"mode=");
        for shift in [9, 6, 3, 0] {
            options.add(&[b'0' + u8::try_from(mode >> shift & 7).unwrap_or(0)]);
        }
        sys::mount::mount_on(on, c"tmpfs", c"tmpfs", flags, options.text()?)
    }

    fn mount_overlay(&mut self, step: u32, lower: Text, data: Text, on: Slot) -> nix::Result<()> {
        let target = self.slots.get(on.index())?;
        let mounted = sys::mount::mount_on(
            target,
            c"overlay",
            c"overlay",
            libc::MS_NODEV | libc::MS_NOSUID,
            self.plan.text(data),
        );
        if !matches!(mounted, Err(Errno::EPERM | Errno::EINVAL | Errno::ENODEV)) {
            return mounted;
        }
        self.bind_with(lower, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_RDONLY, on)?;
        self.warn(step, mounted.err().unwrap_or(Errno::EINVAL))
    }

    fn device(&mut self, source: Text, name: Text, alone: bool) -> nix::Result<()> {
        let (source, name) = (self.plan.text(source), self.plan.text(name));
        match sys::path::create_file(sys::path::here(), name) {
            Ok(()) if alone => sys::mount::bind_here(source, name),
            // The config or the image has something there, or whoever shares the directory may have by now, a link that
            // mount(2) would follow for example: good if it is the same device.
            Ok(()) | Err(Errno::EEXIST) => {
                let dev = self.slots.get(Slot::DEV.index())?;
                let found = sys::path::open(dev, name, REFERENCE | OFlag::O_NOFOLLOW, IN_ROOT)?;
                let host = sys::path::open_host(source, REFERENCE)?;
                let (found_stat, host_stat) = (sys::path::stat(found.as_fd())?, sys::path::stat(host.as_fd())?);
                match found_stat.st_mode & libc::S_IFMT {
                    libc::S_IFCHR if found_stat.st_rdev == host_stat.st_rdev => Ok(()),
                    // An empty file, left by a runtime before us.
                    libc::S_IFREG => self.cover(host.as_fd(), found.as_fd(), None).map(drop),
                    _ => Err(Errno::EEXIST),
                }
            }
            Err(errno) => Err(errno),
        }
    }

    fn enter_cwd(&mut self, path: Text) -> nix::Result<()> {
        let root = self.slots.get(Slot::ROOT.index())?;
        let directory = sys::path::open(root, self.plan.text(path), REFERENCE | OFlag::O_DIRECTORY, IN_ROOT)?;
        self.fill(Slot::TARGET, directory);
        self.enter(Slot::TARGET)?;
        if sys::path::inside_root()? { Ok(()) } else { Err(Errno::EXDEV) }
    }

    fn find_home(&self, uid: u32) -> nix::Result<()> {
        let mut variable = [0; home::LONGEST];
        let length = home::find(self.slots.get(Slot::ROOT.index())?, uid, &mut variable);
        self.vectors.add_late(variable.get(..length).unwrap_or_default())
    }

    fn await_start(&mut self) -> nix::Result<()> {
        let connection = link::await_start(self.slots.get(Slot::LISTENER.index())?)?;
        // Nobody else may connect, and start.sock is stale from here on.
        drop(self.slots.take(Slot::LISTENER.index()));
        drop(self.slots.take(Slot::LINK.index()));
        self.fill(Slot::LINK, connection);
        Ok(())
    }
}
