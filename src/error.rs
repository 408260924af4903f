//! The one error type: what failed, why, and what to do about it, on one line.

use std::{borrow::Cow, fmt, io};

use nix::errno::Errno;

/// Result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

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
    /// A device node lies on a mount with nodev.
    DeviceShut = 318,
    /// Warning: `shared` cannot reach the host.
    Propagation = 319,
    /// A device does not exist, or has another type or number.
    Device = 340,
    /// The outer container masks `/proc`.
    ProcMasked = 341,
    /// Warning: `/proc` is the outer one.
    ProcOuter = 342,
    /// Warning: no cgroup of its own.
    NoCgroup = 405,
    /// A cgroup cannot be made here.
    CgroupRefused = 406,
    /// The target cgroup is not empty.
    CgroupBusy = 408,
    /// A controller is not delegated.
    Controller = 461,
    /// Warning: exec runs outside the container's cgroup.
    ExecCgroup = 462,
    /// A limit was asked for on a cgroup v1 or hybrid host.
    CgroupV1 = 463,
    /// Warning: capabilities that cannot be had were dropped.
    Capabilities = 501,
    /// A seccomp profile cannot be compiled or attached.
    Seccomp = 505,
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
    /// Arguments and environment are too long.
    TooLong = 616,
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
    /// A pid-file or log file cannot be written.
    FileRefused = 716,
    /// A stopped or damaged container with this id remains.
    IdLeftOver = 730,
    /// Processes survive.
    Survivors = 731,
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
    /// `/proc` is missing or read-only.
    Proc = 901,
    /// The kernel lacks a call.
    Kernel = 902,
    /// Processes, files or memory are used up.
    Exhausted = 903,
    /// pura's own binary cannot be kept from the container.
    Unprotected = 904,
    /// A helper is not installed.
    Helper = 908,
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

/// A failure that a person can act on; also, with the word "warning", a degradation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: Code,
    what: Cow<'static, str>,
    place: Option<Cow<'static, str>>,
    why: Cow<'static, str>,
    fix: Option<Cow<'static, str>>,
}

impl Error {
    /// `what` completes "cannot ..."; `why` is the cause.
    pub fn new(code: Code, what: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> Self {
        Self { code, what: what.into(), place: None, why: why.into(), fix: None }
    }

    /// Adds what to do: a command or a setting.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<Cow<'static, str>>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Adds the place in config.json, such as `mounts[7]`.
    #[must_use]
    pub fn at(mut self, place: impl Into<Cow<'static, str>>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Gives another name to the place, where there is one.
    #[must_use]
    pub fn rename_place(mut self, name: impl FnOnce(&str) -> Option<String>) -> Self {
        if let Some(name) = self.place.as_deref().and_then(name) {
            self.place = Some(name.into());
        }
        self
    }

    /// The kind of failure.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The cause alone: what follows "cannot ...:".
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.what)?;
        if let Some(place) = &self.place {
            write!(f, " ({place})")?;
        }
        write!(f, ": {}", self.why)?;
        if let Some(fix) = &self.fix {
            write!(f, "; fix: {fix}")?;
        }
        write!(f, " [PURA-{:03}]", self.code as u32)
    }
}

impl std::error::Error for Error {}

/// A degradation: something is weaker than asked for, and the container runs all the same. `--strict` makes it an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    code: Code,
    what: Cow<'static, str>,
    fix: Option<Cow<'static, str>>,
}

impl Warning {
    /// `what` says what is weaker, and for whom, as a whole clause.
    pub fn new(code: Code, what: impl Into<Cow<'static, str>>) -> Self {
        Self { code, what: what.into(), fix: None }
    }

    /// Adds what to do: a command or a setting.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<Cow<'static, str>>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The kind of degradation.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The same as an error, for `--strict`.
    pub fn into_error(self) -> Error {
        Error { code: self.code, what: "degrade under --strict".into(), place: None, why: self.what, fix: self.fix }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if let Some(fix) = &self.fix {
            write!(f, "; fix: {fix}")?;
        }
        write!(f, " [PURA-{:03}]", self.code as u32)
    }
}

/// Attaches "what" to any failed system call.
pub trait Context<T> {
    /// Names the attempted action, with the user's own words for the objects.
    fn doing(self, code: Code, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn doing(self, code: Code, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| {
            let cause = cause.into();
            let errno = cause.raw_os_error().map(Errno::from_raw);
            Error::new(code, what(), errno.map_or_else(|| cause.to_string(), plain))
        })
    }
}

/// The errno in plain words. Engines take "no such file or directory" for a missing program: nothing else says it.
pub fn plain(errno: Errno) -> String {
    if errno == Errno::ENOENT {
        return "does not exist".to_owned();
    }
    errno.desc().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_place_its_fix_and_its_code() {
        let error = Error::new(Code::BindSource, "bind \"/a\" on \"/b\"", "\"/a\" does not exist")
            .at("mounts[7]")
            .fix("mkdir /a");
        assert_eq!(
            error.to_string(),
            "cannot bind \"/a\" on \"/b\" (mounts[7]): \"/a\" does not exist; fix: mkdir /a [PURA-304]"
        );
    }

    #[test]
    fn a_warning_becomes_an_error_with_the_same_code() {
        let warning = Warning::new(Code::SingleId, "no subordinate ids");
        assert_eq!(warning.to_string(), "no subordinate ids [PURA-110]");
        assert_eq!(warning.into_error().to_string(), "cannot degrade under --strict: no subordinate ids [PURA-110]");
    }

    /// The variants as this file has them: number, name, and whether the description says that it is a warning.
    fn declared() -> Vec<(u32, String, bool)> {
        let all = include_str!("error.rs").split_once("pub enum Code {").unwrap().1.split_once("\n}").unwrap().0;
        let mut is_warning = false;
        let mut found = Vec::new();
        for line in all.lines().map(str::trim) {
            if let Some(description) = line.strip_prefix("/// ") {
                is_warning = description.starts_with("Warning:");
            } else if let Some((name, number)) = line.trim_end_matches(',').split_once(" = ") {
                found.push((number.parse().unwrap(), name.to_owned(), is_warning));
            }
        }
        found
    }

    #[test]
    fn every_code_has_its_row_in_docs_errors_md_in_order() {
        let rows = include_str!("../docs/errors.md").lines().filter(|line| line.ends_with('|'));
        let rows: Vec<Vec<_>> = rows.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect();
        let codes = rows.iter().filter(|row| row.get(1).is_some_and(|name| name.starts_with('`')));
        let documented: Vec<_> =
            codes.clone().map(|row| (row[0].parse::<u32>().unwrap(), row[1].trim_matches('`').to_owned())).collect();
        let declared = declared();
        let names: Vec<_> = declared.iter().map(|(number, name, _)| (*number, name.clone())).collect();
        assert_eq!(documented, names);
        for (row, (_, name, is_warning)) in codes.zip(&declared) {
            let kinds = if *is_warning { &["warning", "both"][..] } else { &["error", "both"] };
            assert!(kinds.contains(&row[2]) && row.len() == 5, "{name}: {row:?}");
            assert_eq!(row[0].len(), 3, "{name}: a code is printed with three digits");
        }
    }

    #[test]
    fn only_a_program_is_no_such_file_or_directory() {
        assert_eq!(plain(Errno::ENOENT), "does not exist");
        assert_eq!(plain(Errno::EPERM), "operation not permitted");
    }
}
