//! The making of a container, top to bottom: what `create` and `run` share.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use nix::sys::signal::SigSet;

use crate::{
    agent::Notice,
    bundle::Bundle,
    cgroup::{self, Leaf, entrance::Entrance, place::Place, scope::Scope},
    cli::{Create, Globals, Limiting},
    clock,
    console::Console,
    error::{Code, Context as _, Result, Warning},
    hooks::{Hooks, Kind},
    host::{self, Host, probe, session},
    itself,
    launch::{Container, Launch, helper},
    log::Log,
    members::Members,
    plan::{
        Assembly, Plan,
        compile::{self, Order},
        resources::{Rules, Write},
    },
    receivers::PidfdReceivers,
    resctrl::{self, Wanted},
    state::Status,
    store::{Claim, Id, Identity, Intent, PidFile, Record, Root, Roots, boot_id},
    sys::{
        self,
        process::{Attribute, Home},
    },
    teardown,
};

/// What is to be made, and how.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Making<'a> {
    /// Options that hold for every verb.
    pub globals: &'a Globals,
    /// Options of `create` and `run`.
    pub create: &'a Create,
    /// The container's id.
    pub id: &'a Id,
    /// What to make.
    pub bundle: &'a Bundle,
    /// `create`: init waits for `start`.
    pub waits: bool,
    /// What becomes of a limit that cannot be had.
    pub limiting: Limiting,
    /// `pura-init` runs the program.
    pub reaped: bool,
    /// Nobody stays to relay a terminal.
    pub detached: bool,
    /// A root that is put together from the host's, instead of the bundle's.
    pub assembly: Option<&'a Assembly>,
    /// Warnings go to stderr even when it is no terminal: a person asked, not an engine.
    pub loud: bool,
    /// Where warnings go.
    pub log: &'a Log,
    /// Descriptors that the program inherits.
    pub preserved: &'a [RawFd],
}

/// A container that is alive, with what has to go when it has ended.
#[derive(Debug)]
pub struct Made {
    /// Init, as its parent sees it.
    pub container: Container,
    claim: Claim,
    leaf: Option<Ours>,
    scope: Option<Scope>,
    group: Option<resctrl::Ours>,
    pid_file: Option<PidFile>,
    /// The signal mask of before, for what comes after.
    mask: SigSet,
}

/// A plan with the facts behind it.
#[derive(Debug)]
pub struct Planned {
    /// What init will do.
    pub plan: Plan,
    host: Host,
    place: Place,
    group: Option<Wanted>,
    root: Root,
}

/// All that is held when the first effect is due.
struct Prepared {
    claim: Claim,
    place: Place,
    group: Option<Wanted>,
    console: Console,
    receivers: PidfdReceivers,
    agent: Option<OwnedFd>,
    mask: SigSet,
}

impl Making<'_> {
    /// Decides everything; makes nothing but the directory for all containers.
    pub fn plan(&self) -> Result<Planned> {
        let spec = &self.bundle.spec;
        crate::spec::validate(spec)?;
        let caller = probe::caller()?;
        let host = probe::host(spec, &self.bundle.directory, caller, self.globals.userns)?;
        let (root, fallback) = Roots::find(self.globals)?.create()?;
        let name = cgroup::default_name(self.id.as_str(), root.inode);
        let names = (self.id.as_str(), name.as_str());
        let (mut place, no_leaf) = Place::of(spec, &host, self.globals.cgroup_driver, names, self.limiting)?;
        let reaper = self.reaped.then(helper::reaper).transpose()?;
        let annotated = Assembly::of_bundle(spec, &self.bundle.directory);
        let group = resctrl::choose(spec, &host, self.id.as_str())?;
        let order = Order {
            bundle: &self.bundle.directory,
            state: &root.path.join(self.id.as_str()),
            waits: self.waits,
            clamps: !self.waits,
            scattered: place.is_callers(),
            scope: place.scope.is_some(),
            no_pivot: self.create.no_pivot,
            new_keyring: !self.create.no_new_keyring,
            assembly: self.assembly.or(annotated.as_ref()),
            root_emulation: self.create.root_emulation,
            reaper: reaper.as_deref(),
        };
        let mut plan = compile::container(spec, &host, self.globals.userns, &order)?;
        place.give_to(cgroup::owner::owner(spec, plan.ids(), &host.caller));
        let brief = if self.detached { session::ends(&host, &root.path) } else { None };
        plan.warnings.extend(self.bundle.warnings.iter().cloned().chain(fallback).chain(no_leaf).chain(brief));
        Ok(Planned { plan, host, place, group, root })
    }

    /// Makes the container: intent before effect, and an error leaves nothing behind.
    pub fn make(&self) -> Result<Made> {
        let Planned { plan, host, place, group, root } = self.plan()?;
        // Before the first effect: what has been done so far is done again by the copy.
        itself::protect(&host, plan.ids(), || place.hang_up())?;
        let terminal = self.bundle.spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal);
        let detached = self.detached.then_some(if self.waits { "create" } else { "run --detach" });
        let console = Console::open(terminal == Some(true), self.create.console_socket.as_deref(), detached)?;
        let receivers = PidfdReceivers::of_container(
            self.create.pidfd_socket.as_deref(),
            &self.bundle.spec,
            &self.bundle.directory,
        )?;
        let agent = plan.notice().map(Notice::connect).transpose()?;
        self.log.warn(plan.warnings(), self.loud)?;
        if self.log.is_strict() {
            self.log.warn(self.bundle.unknown_keys().as_slice(), self.loud)?;
        }
        prepare_process(&host)?;
        let intent = self.intent(&place, group.as_ref())?;
        // A signal in the midst, also that of a limit on the size of files, would leave what has been made so far. After a
        // failure they stay blocked: nothing is left to do but to say why.
        let mask = sys::signal::block().doing(Code::Bug, || "block signals".to_owned())?;
        let claim = Claim::new(root, self.id, &intent, &self.bundle.json)?;
        self.log.warn(claim.warning().as_slice(), self.loud)?;
        // From here on there is a container, whose end its hooks are told of, however early it comes.
        let prepared = Prepared { claim, place, group, console, receivers, agent, mask };
        let made = self.fill(prepared, &intent, (&plan, &host));
        // The first error is the one to report.
        made.inspect_err(|_| drop(self.hooks().stopped(self.log).inspect_err(|error| self.log.error(error))))
    }

    /// Makes what was claimed. On an error all is gone when this returns.
    fn fill(
        &self,
        Prepared { mut claim, place, group, console, receivers, agent, mask }: Prepared,
        intent: &Intent,
        (plan, host): (&Plan, &Host),
    ) -> Result<Made> {
        // From here on, each guard takes back what it made when a later step fails, in the reverse order.
        let Place { leaf, scope } = place;
        let leaf = leaf.map(Ours::make).transpose()?;
        let stays = leaf.as_ref().is_some_and(|ours| ours.stays);
        let mut unset = Vec::new();
        if let Some(ours) = &leaf {
            claim.guard(&ours.directory, ours.stays);
            unset = ours.limit()?;
            self.log.warn(&unset, self.loud)?;
        }
        let cgroup = leaf.as_ref().map(|ours| cgroup::open(&ours.directory)).transpose()?;
        let group = group.map(Wanted::make).transpose()?;
        let listener = if self.waits { Some(claim.listen()?) } else { None };
        let cgroup = cgroup.as_ref().map(|cgroup| Home { cgroup: cgroup.as_fd(), is_used: stays });
        let mut pid_file = None;
        let hooks = self.hooks();
        let preserved = self.preserved;
        let scope_of = scope.as_ref().map(Entrance::Start);
        let launch =
            Launch { plan, host, cgroup, scope: scope_of, console, listener, given: None, agent, preserved, hooks };
        let container = launch.run(|container| {
            self.log.warn(&container.warnings, self.loud)?;
            let init = Identity::of(container.init.as_raw());
            let init = init.ok_or_else(|| container.unfound())?;
            group.as_ref().map_or(Ok(()), |ours| ours.group.open()?.take_in(init.pid))?;
            claim.record_init(init)?;
            let mut record = self.record(plan, intent, host);
            record.init = init;
            record.mounts = container.mounts.as_ref().and_then(|mounts| sys::namespace::mounts_id(mounts.as_fd()).ok());
            record.cgroup_stays = stays;
            if let Some(inside) = &container.cgroup {
                claim.guard(inside, false);
                record.cgroup = Some(inside.clone());
            }
            record.cgroup_moved = container.is_moved;
            record.degradations.extend(unset.iter().chain(&container.warnings).map(ToString::to_string));
            claim.commit(&record)?;
            let write = |path| PidFile::prepare(path, self.id.as_str())?.write(init.pid);
            pid_file = self.create.pid_file.as_deref().map(write).transpose()?;
            receivers.send(container.init)
        })?;
        let made = Made { container, claim, leaf, scope, group, pid_file, mask };
        if !self.waits
            && let Err(error) = hooks.run(Kind::Poststart, Status::Running, made.container.init.as_raw())
        {
            made.abandon();
            return Err(error);
        }
        Ok(made)
    }

    /// The hooks that run on the caller's side.
    pub fn hooks(&self) -> Hooks<'_> {
        Hooks { spec: &self.bundle.spec, id: self.id.as_str(), bundle: &self.bundle.directory }
    }

    fn intent(&self, place: &Place, group: Option<&Wanted>) -> Result<Intent> {
        let creator = Identity::own();
        Ok(Intent {
            version: crate::store::VERSION,
            boot_id: boot_id().to_owned(),
            creator: creator.unwrap_or_default(),
            bundle: self.bundle.directory.clone(),
            cgroup: place.directory(),
            unit: place.scope.as_ref().map(|scope| scope.unit.name.clone()),
            cgroup_stays: place.leaf.as_ref().is_some_and(|leaf| leaf.is_asked && leaf.directory.exists()),
            resctrl: group.map(|wanted| wanted.group.clone()),
            pid_file: self.create.pid_file.as_deref().map(crate::bundle::absolute).transpose()?,
            init: None,
        })
    }

    /// All that is known before init is.
    fn record(&self, plan: &Plan, intent: &Intent, host: &Host) -> Record {
        let spec = &self.bundle.spec;
        let maps = plan.ids().maps.clone().unwrap_or_default();
        Record {
            version: crate::store::VERSION,
            id: self.id.as_str().to_owned(),
            bundle: self.bundle.directory.clone(),
            rootfs: host
                .named
                .root_link
                .clone()
                .or_else(|| Some(self.bundle.directory.join(spec.root().as_ref()?.path())))
                .unwrap_or_default(),
            created: clock::now(),
            owner: host
                .account
                .as_ref()
                .and_then(|account| account.name.clone())
                .unwrap_or_else(|| host.caller.uid.to_string()),
            boot_id: intent.boot_id.clone(),
            init: Identity::default(),
            cgroup: intent.cgroup.clone(),
            cgroup_stays: intent.cgroup_stays,
            unit: intent.unit.clone(),
            cgroup_moved: false,
            resctrl: intent.resctrl.clone(),
            mounts: None,
            user_namespace: plan.ids().user_namespace.word().to_owned(),
            uid_map: host::ids::lines(&maps.uids),
            gid_map: host::ids::lines(&maps.gids),
            root_emulation: plan.root_emulation,
            degradations: plan.warnings().iter().map(ToString::to_string).collect(),
            poststop: !Kind::Poststop.of(spec).is_empty(),
            annotations: spec
                .annotations()
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect::<BTreeMap<_, _>>(),
        }
    }
}

impl Made {
    /// Leaves the container running, for other verbs.
    pub fn keep(self) {
        self.claim.keep();
        if let Some(pid_file) = self.pid_file {
            pid_file.keep();
        }
        if let Some(leaf) = self.leaf {
            leaf.keep();
        }
        if let Some(scope) = self.scope {
            scope.keep();
        }
        if let Some(group) = self.group {
            group.keep();
        }
        let _ = sys::signal::restore(&self.mask);
    }

    /// The cgroup that was made for it, which knows of nobody else.
    pub fn cgroup(&self) -> Option<&Path> {
        self.leaf.as_ref().filter(|leaf| !leaf.stays).map(|leaf| leaf.directory.as_path())
    }

    /// Ends the program, and takes back all that was made.
    fn abandon(mut self) {
        self.container.discard();
        // The first error is the one to report.
        drop(self.end_others());
        // The entry leads to both, so they have to go first.
        drop(self.group);
        drop(self.leaf);
        drop(self.scope);
        drop(self.claim);
    }

    /// Removes what is left when the program has ended; whether it was still there. The pid-file stays, as with every
    /// runtime.
    pub fn remove(mut self) -> Result<bool> {
        if let Some(pid_file) = self.pid_file.take() {
            pid_file.keep();
        }
        if let Err(error) = self.end_others() {
            self.claim.keep();
            return Err(error);
        }
        // Whatever outlived process 1, in a PID namespace that is not its own, ends here.
        drop(self.leaf);
        drop(self.scope);
        if let Some(group) = self.group {
            group.ended();
        }
        self.claim.remove()
    }

    /// Ends whoever has outlived process 1, where neither a cgroup nor a PID namespace does.
    fn end_others(&mut self) -> Result<()> {
        let members = self.container.mounts.take().and_then(Members::within);
        members.map_or(Ok(()), |members| teardown::end_others(self.claim.id(), &members))
    }
}

/// The container's cgroup, taken back when dropped.
#[derive(Debug)]
struct Ours {
    directory: PathBuf,
    /// The lines for its files.
    writes: Vec<Write>,
    /// Which devices may be opened.
    devices: Option<Rules>,
    /// Who gets it.
    owner: Option<u32>,
    /// The directories that were made for it, from the top.
    made: Vec<PathBuf>,
    /// It was there before, and config.json names it.
    stays: bool,
    kept: bool,
}

impl Ours {
    fn make(leaf: Leaf) -> Result<Self> {
        let made = cgroup::make(&leaf)?;
        let Leaf { directory, is_asked, writes, devices, owner, .. } = leaf;
        let stays = is_asked && !made.contains(&directory);
        Ok(Self { directory, writes, devices, owner, made, stays, kept: false })
    }

    /// Writes the limits, then gives it away.
    fn limit(&self) -> Result<Vec<Warning>> {
        let mut unset = cgroup::limits::apply(&self.directory, &self.writes)?;
        if let Some(rules) = &self.devices {
            let put = |program| cgroup::devices::put(&self.directory, Some(&program), !self.stays);
            unset.extend(cgroup::devices::load(rules).and_then(put).err());
        }
        self.owner.map_or(Ok(()), |owner| cgroup::owner::give(&self.directory, owner)).map(|()| unset)
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if self.stays {
            if cgroup::event(&self.directory, "populated") == Some(true) {
                cgroup::kill(&self.directory);
                cgroup::wait_empty(&self.directory, teardown::LIMIT);
            }
            cgroup::leave(&self.directory);
            return;
        }
        if std::fs::remove_dir(&self.directory).is_err() {
            cgroup::kill(&self.directory);
            drop(cgroup::remove(&self.directory));
        }
        cgroup::remove_made(&self.made);
    }
}

/// Makes this process what the steps that follow take for granted.
pub fn prepare_process(host: &Host) -> Result<()> {
    // What pura makes has the modes that it says; the program gets the caller's mask, or the config's.
    if host.caller.umask != host::UMASK {
        let _ = sys::process::set_umask(host::UMASK);
    }
    // Whoever executes a file that it may not read is not dumpable, and its files in /proc, with the maps, are root's.
    if host.itself.as_ref().is_some_and(|itself| itself.mode & 0o444 != 0o444) {
        let _ = sys::process::prctl(Attribute::Dumpable, 1);
    }
    // Ignored, it would let the kernel reap our children before we have heard of their end.
    if host.caller.ignored >> (libc::SIGCHLD - 1) & 1 == 1 {
        sys::signal::set_default(libc::SIGCHLD).doing(Code::Bug, || "reset SIGCHLD".to_owned())?;
    }
    Ok(())
}

impl std::fmt::Display for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.place.fmt(f)?;
        if let Some(group) = &self.group {
            writeln!(f, "resctrl: {group}")?;
        }
        self.plan.fmt(f)
    }
}
