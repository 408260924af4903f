//! The steps that init carries out.

use super::{Meeting, Module, Slot, arena::Text};

/// What a mount point has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A directory, made when it is missing, its parents too.
    Directory,
    /// A file, made empty when it is missing; an existing directory is refused by the mount.
    File,
    /// Whatever is there, a link too, which is not followed; it is not made.
    Itself,
    /// A directory to which no link leads: `/proc` and `/sys` of an image may be links to a fake (CVE-2019-16884).
    RealDirectory,
    /// Whatever is there already: nothing is made.
    Present,
}

/// One step of init: one kernel-sized action. It never reads the config, and branches only on an errno that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Set a number-valued attribute: `prctl(2)`.
    Prctl {
        /// Which.
        attribute: crate::sys::process::Attribute,
        /// Its value.
        value: u64,
    },
    /// Close every descriptor from 3 on that is neither preserved nor in a kept slot.
    Sweep {
        /// Slots below this number are kept.
        kept: u16,
    },
    /// Write a line to a file of the host's `/proc/self`.
    WriteProc {
        /// The file's path.
        file: Text,
        /// The line.
        line: Text,
    },
    /// Label the program for the next exec, through the host's `/proc/self`.
    Label {
        /// Which module it is for.
        module: Module,
        /// The file's path.
        file: Text,
        /// What is written.
        label: Text,
    },
    /// Shift the clocks of the time namespace that children enter: `/proc/self/timens_offsets`, `time_namespaces(7)`.
    ShiftClocks(Text),
    /// Wait for the parent.
    Meet(Meeting),
    /// Join the namespace in the slot: `setns(2)`.
    SetNs {
        /// Filled by the parent.
        from: Slot,
        /// `CLONE_NEW*`.
        kind: i32,
    },
    /// Make new namespaces, `CLONE_NEW*`: `unshare(2)`. On ENOSPC and EINVAL a cgroup namespace among them is done without.
    Unshare(i32),
    /// Go on as a new sibling process, which is inside the PID and time namespaces that only children enter; this one
    /// ends, and the kernel tells the parent who the new one is.
    Rebirth,
    /// Give the parent the mount namespace, and wait. On any errno the parent goes without.
    PassMounts,
    /// Lead a new session, so that the caller's terminal cannot be typed into (CVE-2016-10124).
    NewSession,
    /// Become a user and a group for good, supplementary groups apart.
    SetIds {
        /// User, inside.
        uid: u32,
        /// Group, inside.
        gid: u32,
    },
    /// Replace the supplementary groups by the plan's.
    SetGroups,
    /// Set the propagation of every mount of the namespace, or of one path: `MS_*` with `MS_REC`.
    Propagate {
        /// A path of the current root.
        path: Text,
        /// `MS_PRIVATE` and the like.
        flags: u64,
    },
    /// Set the propagation of the mount in a slot. On ENOSYS: by `mount(2)`.
    PropagateMount {
        /// Its root.
        mount: Slot,
        /// `MS_PRIVATE` and the like.
        flags: u64,
    },
    /// Copy a mount of the host, detached: `open_tree(2)`. On ENOSYS, [`Op::MoveMount`] binds what is there instead.
    OpenTree {
        /// A path of the host.
        path: Text,
        /// With all that is mounted below.
        recursive: bool,
        /// Where the tree goes.
        into: Slot,
    },
    /// Copy a mount of the host, detached, whose root is a link: the link itself.
    OpenLink {
        /// A path of the host.
        path: Text,
        /// Where the tree goes.
        into: Slot,
    },
    /// Copy the mount in a slot, detached.
    CloneMount {
        /// Its root.
        mount: Slot,
        /// With all that is mounted below.
        recursive: bool,
        /// Where the tree goes.
        into: Slot,
    },
    /// Make a user namespace for an idmapped mount: by a child that ends at once.
    MakeIdMap {
        /// "inside outside count", one per line.
        uids: Text,
        /// The same.
        gids: Text,
        /// Where the namespace goes.
        into: Slot,
    },
    /// Show the ids of a detached tree through the maps of a user namespace: `mount_setattr(2)`.
    MapIds {
        /// The tree.
        tree: Slot,
        /// The user namespace.
        namespace: Slot,
        /// All mounts below it too.
        recursive: bool,
        /// The filesystem's type, for errors.
        kind: Text,
    },
    /// Copy what a tmpfs covers into it. What may not be read, owned or marked as it was: a warning.
    CopyUp {
        /// What is covered.
        from: Slot,
        /// The root of the tmpfs.
        to: Slot,
        /// The owner of its root too.
        owner: bool,
        /// The destination, for people.
        path: Text,
    },
    /// Make a link that says what one of the host says; on EEXIST, the one that is there has to say the same.
    CopyLink {
        /// What it says.
        says: Text,
        /// Its directory, as the container sees it.
        directory: Text,
        /// Its name.
        name: Text,
    },
    /// Attach a device where nothing is, an empty file, or the same device.
    AttachNode {
        /// Its mount.
        tree: Slot,
        /// The node of the host, for errors.
        source: Text,
        /// The path, as the container sees it.
        path: Text,
        /// `S_IFCHR` or `S_IFBLK`.
        kind: u32,
        /// Its numbers, as in `st_rdev`.
        device: u64,
    },
    /// Make a named pipe; on EEXIST, one that is there is left alone.
    Fifo {
        /// Its directory, as the container sees it.
        directory: Text,
        /// Its name.
        name: Text,
        /// Permission bits.
        mode: u32,
        /// Owner, inside.
        uid: u32,
        /// Group, inside.
        gid: u32,
    },
    /// Open a procfs that is mounted nowhere; on EPERM or ENOSYS the outer one, if it is one.
    OpenProc(Slot),
    /// Write a kernel parameter. On EACCES: in the outer procfs.
    Sysctl {
        /// The procfs.
        proc: Slot,
        /// The file in it: `sys/...`.
        file: Text,
        /// What is written.
        value: Text,
        /// The key as config.json has it, for errors.
        key: Text,
    },
    /// Mount a filesystem over a directory; on EBUSY over a tmpfs; on EPERM bind a tree of the host, and warn.
    MountOrBind {
        /// Its type.
        kind: Text,
        /// Its source, as /proc/self/mounts shows it.
        source: Text,
        /// `MS_*`.
        flags: u64,
        /// The tree of the host.
        host: Text,
        /// What is set on it, and on all below: `MOUNT_ATTR_*`.
        set: u64,
        /// The directory's path, as the container sees it.
        path: Text,
        /// The directory.
        on: Slot,
    },
    /// Open a path of the host without further rights: `O_PATH`.
    OpenPath {
        /// The path.
        path: Text,
        /// Where it goes.
        into: Slot,
    },
    /// Bind a directory of the host on itself, with all below it, so that it is a mount, and open it. On ENOSYS: by
    /// `mount(2)`, as every mount from then on.
    BindRoot {
        /// The path.
        path: Text,
        /// Where its root goes.
        into: Slot,
    },
    /// Find a mount point below the root, make it when it is missing, and open it. Links never lead out, nor into
    /// a procfs: EXDEV.
    FindTarget {
        /// The path, as the container sees it.
        path: Text,
        /// What it has to be.
        target: Target,
        /// Where it goes.
        into: Slot,
    },
    /// Mount a new filesystem over a directory.
    Mount {
        /// Its type.
        kind: Text,
        /// Its source, as /proc/self/mounts shows it.
        source: Text,
        /// `MS_*`.
        flags: u64,
        /// Comma-separated options for the filesystem.
        data: Text,
        /// The directory.
        on: Slot,
    },
    /// Mount a tmpfs with the permission bits of the directory it covers.
    MountTmpfs {
        /// `MS_*`.
        flags: u64,
        /// Options, without `mode=`.
        data: Text,
        /// The directory.
        on: Slot,
    },
    /// Mount a throw-away overlay; on EPERM, EINVAL or ENODEV, bind the lower tree read-only and warn.
    MountOverlay {
        /// The lower tree, a path of the host.
        lower: Text,
        /// Options: `lowerdir=`, `upperdir=`, `workdir=`.
        data: Text,
        /// The directory.
        on: Slot,
    },
    /// Attach a detached tree.
    MoveMount {
        /// The tree.
        tree: Slot,
        /// Its path of the host, for errors.
        path: Text,
        /// Where.
        on: Slot,
        /// With all that is mounted below.
        recursive: bool,
    },
    /// Set and clear `MOUNT_ATTR_*` of a mount, or of all below it too. On ENOSYS: `MS_REMOUNT`, once it is attached.
    SetAttributes {
        /// Its root.
        mount: Slot,
        /// To set.
        set: u64,
        /// To clear.
        clear: u64,
        /// All mounts below it.
        recursive: bool,
        /// It is a tree that is attached later.
        detached: bool,
    },
    /// Change flags and options of a mount and its filesystem: `MS_REMOUNT`. Other flags that it has are kept.
    Remount {
        /// Its root.
        mount: Slot,
        /// `MS_*`.
        flags: u64,
        /// Those that are not kept.
        clear: u64,
        /// Options for the filesystem.
        data: Text,
    },
    /// Make a directory the current one.
    Enter(Slot),
    /// Make a file in the current directory and bind a device of the host on it.
    Device {
        /// The node, a path of the host.
        source: Text,
        /// The file's name.
        name: Text,
        /// Nobody else has the directory, so that the name stays what it is.
        alone: bool,
    },
    /// Make a symbolic link in the current directory; an existing name is left alone.
    Link {
        /// Where it leads.
        target: Text,
        /// Its name.
        name: Text,
    },
    /// Make a directory, 0755, in the current directory; an existing one is left alone.
    MakeDirectory(Text),
    /// Make the root `/` and detach the old one: `pivot_root(2)`. On EINVAL, for an initramfs: move it over `/`.
    PivotRoot(Slot),
    /// Move the root over `/` and enter it, for a host whose root cannot be pivoted.
    MoveRoot(Slot),
    /// Make a directory `/`, and the current one, of this process alone: `chroot(2)`.
    ChangeRoot(Slot),
    /// Make a pseudoterminal on the container's devpts.
    OpenConsole {
        /// Where its master goes.
        master: Slot,
        /// Where the program's end goes.
        slave: Slot,
        /// Rows and columns; 0 leaves them.
        size: (u16, u16),
        /// The program's user, who gets it.
        owner: u32,
    },
    /// Give the master to the parent, and wait.
    PassConsole(Slot),
    /// Bind the program's end on `/dev/console`.
    BindConsole(Slot),
    /// Make the program's end the controlling terminal and the standard input, output and error.
    TakeConsole(Slot),
    /// Cover a path: a file with `/dev/null`, a directory with an empty one. A missing path is left alone.
    Mask(Text),
    /// Make a path, and all mounted below it, read-only. A missing path is left alone.
    ReadOnly(Text),
    /// Set the host name.
    Hostname {
        /// The name.
        name: Text,
        /// EPERM, which is a filter around pura, is an error, not a warning.
        required: bool,
    },
    /// Set the NIS domain name.
    Domainname(Text),
    /// Bring the loopback interface up.
    LoopbackUp,
    /// Leave the caller's session keyring. Any errno is only a warning.
    NewKeyring,
    /// Set a resource limit.
    Rlimit {
        /// `RLIMIT_*`.
        resource: u32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// Schedule as the plan says: `sched_setattr(2)`.
    Schedule,
    /// Set the I/O priority: class << 13 | level.
    IoPriority(u32),
    /// Set the execution domain, `PER_*`.
    Personality(u32),
    /// Take memory from the NUMA nodes of the plan: `set_mempolicy(2)`.
    MemoryPolicy,
    /// Drop all other capabilities from the bounding set.
    Bounding(u64),
    /// Set the effective, permitted and inheritable capabilities.
    Capabilities {
        /// Effective.
        effective: u64,
        /// Permitted.
        permitted: u64,
        /// Inheritable.
        inheritable: u64,
    },
    /// Raise ambient capabilities.
    Ambient(u64),
    /// Attach the plan's filter: `seccomp(2)`.
    Seccomp {
        /// `SECCOMP_FILTER_FLAG_*`.
        flags: u32,
    },
    /// Meet the parent, which tells init's number, and put it into the notice for the seccomp agent.
    LearnPid,
    /// Send the notice to the seccomp agent, with the descriptor that the last [`Op::Seccomp`] has brought.
    TellAgent,
    /// Close the connection to the seccomp agent, and that descriptor.
    LeaveAgent,
    /// Make the working directory, 0755, when it is missing.
    MakeCwd(Text),
    /// Enter the working directory with the final ids, and check that it lies below the root (CVE-2024-21626).
    EnterCwd(Text),
    /// Look up the home of a user in the image's `/etc/passwd`, for HOME.
    FindHome(u32),
    /// Choose the first of the plan's candidates that may be executed. EPERM: it is pura's own binary, or a script for it.
    FindProgram,
    /// Give the pipes among the standard streams to a user. No errno is a failure.
    GivePipes(u32),
    /// Set the file mode creation mask.
    Umask(u32),
    /// Wait for `start` on the listener; its connection becomes the link.
    AwaitStart,
    /// Run the hook of this number, beside init, and wait for its end.
    Hook(u16),
    /// Tell the parent that all hooks of `start` are done: from here on, end-of-file on the link is exec.
    Hooked,
    /// Set a signal that the caller ignores to its default.
    DefaultSignal(i32),
    /// Empty the signal mask.
    UnblockSignals,
    /// Become the program.
    Execute,
    /// Become `pura-init`, from its slot, which runs the program as its child. Its path is for people.
    ExecuteReaper(Text),
}
