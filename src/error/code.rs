//! The stable names of failures.

/// The stable name of a kind of failure or degradation; printed as `PURA-nnn`, one row each in `docs/errors.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The command line is wrong.
    Usage = 1,
    /// newuidmap or newgidmap has neither the setuid bit nor a file capability.
    MapperPowerless = 101,
    /// `no_new_privs` is set, so a mapper gains no privilege.
    MapperNoNewPrivs = 102,
    /// A mapper is on a filesystem mounted nosuid.
    MapperNosuid = 103,
    /// `CAP_SETUID` or `CAP_SETGID` is missing from the bounding set.
    MapperBounded = 104,
    /// No mapper is installed.
    MapperMissing = 105,
    /// A mapper failed otherwise.
    MapperFailed = 106,
    /// The kernel refused a map written directly.
    MapRefused = 107,
    /// Warning: no subordinate ids; only the caller's own id is mapped.
    SingleId = 110,
    /// The caller's gid is not the primary group of the account.
    ForeignGroup = 111,
    /// The config maps ids that are not the caller's.
    ForeignIds = 112,
    /// Warning: subordinate uids without gids, or the reverse.
    OneSidedIds = 113,
    /// Warning: a subordinate range contains the caller's own id.
    OwnIdInRange = 114,
    /// Mapping lines overlap, are empty, or are more than 340.
    BadMap = 115,
    /// Warning: `getsubids` failed; the files were used.
    Getsubids = 116,
    /// Warning: the caller's uid has no account.
    NoAccount = 117,
    /// `process.user` is outside the map.
    UserUnmapped = 120,
    /// Warning: `additionalGids` cannot be set.
    GroupsDropped = 121,
    /// An id in a mount option is outside the map.
    OptionIdUnmapped = 122,
    /// Warning: `additionalGids` ignored, because the caller's groups are kept.
    GroupsKept = 123,
    /// Warning: root emulation where ids can be changed.
    EmulationNeedless = 124,
    /// `AppArmor` takes the capabilities in a new user namespace.
    UsernsAppArmor = 201,
    /// A seccomp filter forbids user namespaces.
    UsernsSeccomp = 202,
    /// `user.max_user_namespaces` is 0.
    UsernsZero = 203,
    /// User namespaces are used up or nested too deeply.
    UsernsQuota = 204,
    /// `kernel.unprivileged_userns_clone` is 0.
    UsernsSysctl = 205,
    /// `SELinux` forbids user namespaces.
    UsernsSelinux = 206,
    /// The caller is in a chroot.
    UsernsChroot = 207,
    /// The caller's own id is not mapped where it runs.
    UsernsUnmapped = 208,
    /// The kernel has no user namespaces.
    UsernsAbsent = 209,
    /// Another kind of namespace is refused.
    Namespace = 213,
    /// Warning: no cgroup namespace.
    CgroupNamespace = 214,
    /// Time namespaces are not supported.
    TimeNamespace = 215,
    /// Time offsets are refused, or out of range.
    TimeOffsets = 216,
    /// A namespace cannot be joined.
    Join = 217,
    /// Warning: `--userns=inherit`.
    Inherit = 218,
    /// A user namespace is refused for an unknown reason.
    Userns = 219,
    /// A network device cannot be moved into the container.
    NetDevice = 220,
    /// The root filesystem does not exist or is no directory.
    Rootfs = 301,
    /// A bind source does not exist.
    BindSource = 304,
    /// A filesystem type cannot be mounted.
    FilesystemType = 305,
    /// A mount point cannot be made.
    MountPoint = 306,
    /// A destination leads outside the root, or a mount failed otherwise.
    Mount = 307,
    /// The kernel refuses a mount option.
    MountOption = 308,
    /// A path cannot be masked or made read-only.
    Mask = 309,
    /// A locked flag cannot be cleared.
    LockedFlag = 310,
    /// Warning: `/sys` is the host's.
    SysfsBound = 311,
    /// A filesystem cannot be idmapped here.
    IdMap = 312,
    /// A path component cannot be passed.
    PathBlocked = 313,
    /// Warning: a devpts `gid=` or `uid=` was dropped.
    DevptsId = 314,
    /// `pivot_root` was refused.
    PivotRoot = 315,
    /// An overlay cannot be mounted here.
    Overlay = 316,
    /// Warning: a filesystem of a network does not know subordinate ids.
    NetworkFilesystem = 317,
    /// A device node lies on a mount with nodev.
    DeviceShut = 318,
    /// Warning: `shared` cannot reach the host.
    Propagation = 319,
    /// A security module forbids to open a file below /proc.
    Reopen = 320,
    /// A device does not exist, or has another type or number.
    Device = 340,
    /// The outer container masks `/proc`.
    ProcMasked = 341,
    /// Warning: `/proc` is the outer one.
    ProcOuter = 342,
    /// Warning: a device cannot be opened inside.
    DeviceClosed = 343,
    /// Warning: no cgroup of its own.
    NoCgroup = 405,
    /// A cgroup cannot be made here.
    CgroupRefused = 406,
    /// Processes are where controllers would have to be given on.
    CgroupOccupied = 407,
    /// The target cgroup is not empty, or is frozen.
    CgroupBusy = 408,
    /// A container cannot be paused or resumed.
    Freezer = 409,
    /// The kernel refuses a limit.
    LimitRefused = 410,
    /// systemd cannot be reached, or refuses a unit.
    Systemd = 460,
    /// A controller is not delegated.
    Controller = 461,
    /// Warning: exec runs outside the container's cgroup.
    ExecCgroup = 462,
    /// A limit was asked for on a cgroup v1 or hybrid host.
    CgroupV1 = 463,
    /// Warning: device rules are not applied.
    DeviceRules = 464,
    /// Warning: capabilities that cannot be had were dropped.
    Capabilities = 501,
    /// A seccomp profile cannot be compiled or attached.
    Seccomp = 505,
    /// The seccomp agent cannot be reached or told.
    SeccompAgent = 506,
    /// A seccomp filter without `no_new_privs` needs `CAP_SYS_ADMIN`.
    SeccompPrivilege = 507,
    /// An `SELinux` label cannot be applied.
    Selinux = 508,
    /// An `AppArmor` profile cannot be applied.
    AppArmor = 509,
    /// Scheduler, nice value or I/O priority is refused.
    Scheduling = 510,
    /// RDT, memory policy or personality is refused.
    Placement = 511,
    /// A kernel parameter is global, or its namespace is the host's.
    Sysctl = 512,
    /// Warning: `ping_group_range` was clamped to mapped ids.
    PingRange = 513,
    /// The kernel refused the value of a parameter.
    SysctlValue = 514,
    /// A resource limit, or `oom_score_adj`, is refused.
    Rlimit = 520,
    /// Warning: the session keyring was not replaced.
    Keyring = 521,
    /// The program is not in PATH.
    ProgramNotInPath = 601,
    /// The program does not exist.
    ProgramMissing = 602,
    /// The program may not be executed.
    ProgramRefused = 603,
    /// The program is a directory.
    ProgramDirectory = 604,
    /// The interpreter of a script, or the ELF loader, is missing.
    InterpreterMissing = 605,
    /// The program's format is not recognised.
    ProgramFormat = 610,
    /// The working directory cannot be entered.
    Cwd = 611,
    /// The container is stopped or paused.
    NotRunnable = 612,
    /// The console socket cannot be reached.
    ConsoleSocket = 613,
    /// A hook failed.
    Hook = 614,
    /// Warning: a signal that asks for the end has no effect, because process 1 has no handler for it or goes on.
    SignalUnheard = 615,
    /// Arguments and environment are too long.
    TooLong = 616,
    /// The pidfd socket cannot be reached.
    PidfdSocket = 617,
    /// A terminal is asked for, and there is none.
    NoTerminal = 650,
    /// No usable state directory.
    NoStateDir = 701,
    /// Warning: the state is kept in a fallback directory.
    StateDirFallback = 702,
    /// The container does not exist.
    NoContainer = 703,
    /// The id is not valid.
    BadId = 704,
    /// The id exists and is in use.
    IdInUse = 705,
    /// The container is not running.
    NotRunning = 706,
    /// The status does not allow this verb.
    WrongStatus = 707,
    /// A running container is not deleted without `--force`.
    StillRunning = 708,
    /// Another pura holds the lock.
    Locked = 709,
    /// The state is damaged, or another runtime's.
    StateDamaged = 711,
    /// The state directory is full or read-only.
    StateRefused = 712,
    /// Warning: processes were found without a state and killed.
    StateLost = 713,
    /// Warning: the recorded pid belongs to another process.
    PidReused = 714,
    /// Warning: the state directory's filesystem knows no locks.
    NoLocks = 715,
    /// A pid-file or log file cannot be written, or a file of an option cannot be read.
    FileRefused = 716,
    /// A stopped or damaged container with this id remains.
    IdLeftOver = 730,
    /// Processes survive.
    Survivors = 731,
    /// Warning: containers end with the caller's last session.
    NoLinger = 770,
    /// config.json cannot be read.
    ConfigMissing = 801,
    /// config.json is not valid JSON.
    ConfigSyntax = 802,
    /// A field has a value that is not allowed.
    Field = 803,
    /// A field is not supported here.
    Unsupported = 804,
    /// ociVersion is not supported.
    Version = 805,
    /// A field needs a namespace that is not asked for.
    NamespaceNeeded = 806,
    /// Unknown signal.
    Signal = 807,
    /// Warning: a key that the specification does not have.
    UnknownKey = 808,
    /// `/proc` is missing or read-only.
    Proc = 901,
    /// The kernel lacks a call.
    Kernel = 902,
    /// Processes, files or memory are used up.
    Exhausted = 903,
    /// pura's own binary cannot be kept from the container.
    Unprotected = 904,
    /// Warning: nothing connects a network of its own.
    LoopbackOnly = 905,
    /// Warning: /dev/net/tun is missing or closed.
    Tun = 906,
    /// A seccomp filter around pura forbids a call.
    Forbidden = 907,
    /// A helper is not installed.
    Helper = 908,
    /// Warning: low ports are root's.
    LowPorts = 909,
    /// Warning: no usable name server.
    NoDns = 910,
    /// pura has more rights than whoever called it.
    Elevated = 920,
    /// A bug in pura.
    Bug = 999,
}

impl Code {
    /// Exit status of a foreground `run` or `exec`: 126 and 127 as in docker-run(1), 125 when pura itself failed.
    pub fn foreground_status(self) -> u8 {
        if matches!(self, Self::ProgramNotInPath | Self::ProgramMissing | Self::InterpreterMissing) {
            127
        } else if matches!(self, Self::ProgramRefused | Self::ProgramDirectory | Self::ProgramFormat) {
            126
        } else {
            125
        }
    }
}
