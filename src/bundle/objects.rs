//! The objects of config.json that have fields of their own, and the names of these in version 1.3 of the specification.

use super::walk::Step;

/// An object: the last step to it, those before it, and its fields. `*` is any key, `#` any position; what an object
/// holds that is not listed is nobody's business.
type Object = (&'static str, &'static str, &'static str);

/// The fields of the whole.
const WHOLE: &str =
    "ociVersion root process hostname domainname mounts hooks annotations linux solaris windows vm zos freebsd";

const OBJECTS: [Object; 51] = [
    ("root", "", "path readonly"),
    (
        "process",
        "",
        "terminal consoleSize user args commandLine env cwd capabilities rlimits \
         noNewPrivileges apparmorProfile oomScoreAdj scheduler selinuxLabel ioPriority \
         execCPUAffinity",
    ),
    ("user", "process", "uid gid umask additionalGids username"),
    ("consoleSize", "process", "height width"),
    ("capabilities", "process", "bounding effective inheritable permitted ambient"),
    ("ioPriority", "process", "class priority"),
    ("scheduler", "process", "policy nice priority flags runtime deadline period"),
    ("execCPUAffinity", "process", "initial final"),
    ("#", "process rlimits", "type hard soft"),
    ("#", "mounts", "destination type source options uidMappings gidMappings"),
    ("#", "mounts # uidMappings", "containerID hostID size"),
    ("#", "mounts # gidMappings", "containerID hostID size"),
    ("hooks", "", "prestart createRuntime createContainer startContainer poststart poststop"),
    ("#", "hooks prestart", "path args env timeout"),
    ("#", "hooks createRuntime", "path args env timeout"),
    ("#", "hooks createContainer", "path args env timeout"),
    ("#", "hooks startContainer", "path args env timeout"),
    ("#", "hooks poststart", "path args env timeout"),
    ("#", "hooks poststop", "path args env timeout"),
    ("annotations", "", "*"),
    (
        "linux",
        "",
        "namespaces uidMappings gidMappings timeOffsets devices netDevices cgroupsPath \
         resources rootfsPropagation seccomp sysctl maskedPaths readonlyPaths mountLabel \
         intelRdt memoryPolicy personality",
    ),
    ("#", "linux namespaces", "type path"),
    ("#", "linux uidMappings", "containerID hostID size"),
    ("#", "linux gidMappings", "containerID hostID size"),
    ("#", "linux devices", "path type major minor fileMode uid gid"),
    ("timeOffsets", "linux", "*"),
    ("*", "linux timeOffsets", "secs nanosecs"),
    ("netDevices", "linux", "*"),
    ("*", "linux netDevices", "name"),
    ("sysctl", "linux", "*"),
    ("intelRdt", "linux", "closID schemata l3CacheSchema memBwSchema enableCMT enableMBM enableMonitoring"),
    ("personality", "linux", "domain flags"),
    ("memoryPolicy", "linux", "mode nodes flags"),
    (
        "seccomp",
        "linux",
        "defaultAction defaultErrnoRet architectures flags listenerPath listenerMetadata \
         syscalls",
    ),
    ("#", "linux seccomp syscalls", "names action errnoRet args"),
    ("#", "linux seccomp syscalls # args", "index value valueTwo op"),
    ("resources", "linux", "unified devices memory cpu pids blockIO hugepageLimits network rdma"),
    ("#", "linux resources devices", "allow type major minor access"),
    (
        "memory",
        "linux resources",
        "limit reservation swap kernel kernelTCP swappiness disableOOMKiller useHierarchy \
         checkBeforeUpdate",
    ),
    ("cpu", "linux resources", "shares quota burst period realtimeRuntime realtimePeriod cpus mems idle"),
    ("pids", "linux resources", "limit"),
    (
        "blockIO",
        "linux resources",
        "weight leafWeight weightDevice throttleReadBpsDevice throttleWriteBpsDevice \
         throttleReadIOPSDevice throttleWriteIOPSDevice",
    ),
    ("#", "linux resources blockIO weightDevice", "major minor weight leafWeight"),
    ("#", "linux resources blockIO throttleReadBpsDevice", "major minor rate"),
    ("#", "linux resources blockIO throttleWriteBpsDevice", "major minor rate"),
    ("#", "linux resources blockIO throttleReadIOPSDevice", "major minor rate"),
    ("#", "linux resources blockIO throttleWriteIOPSDevice", "major minor rate"),
    ("#", "linux resources hugepageLimits", "pageSize limit"),
    ("network", "linux resources", "classID priorities"),
    ("#", "linux resources network priorities", "name priority"),
    ("*", "linux resources rdma", "hcaHandles hcaObjects"),
];

/// The fields of the object that belongs here: `*` for those of a map, whose keys are the user's. None where the
/// specification has no object.
pub(super) fn fields(steps: &[Step<'_>]) -> Option<&'static str> {
    let Some((last, before)) = steps.split_last() else { return Some(WHOLE) };
    // The lengths first: this is asked of every array, and few names have the length of its key.
    let length = match last {
        Step::Key(key) => key.len(),
        Step::Index(_) => 1,
    };
    let mut alike = OBJECTS.iter().filter(|(name, ..)| name.len() == length || name.len() == 1);
    alike.find(|(name, path, _)| is(*last, name) && are(before, path)).map(|(.., fields)| *fields)
}

fn is(step: Step<'_>, name: &str) -> bool {
    match step {
        Step::Key(key) => name == "*" || key == name.as_bytes(),
        Step::Index(_) => name == "#",
    }
}

fn are(steps: &[Step<'_>], path: &str) -> bool {
    let mut names = path.split(' ').filter(|name| !name.is_empty());
    steps.iter().all(|step| names.next().is_some_and(|name| is(*step, name))) && names.next().is_none()
}
