//! Fields that this version does not carry out. Each is an error, never ignored: a confinement that was asked for must
//! not be silently absent.

use oci_spec::runtime::{LinuxNamespaceType, LinuxPersonality, LinuxPersonalityDomain, Spec};

use super::Faults;
use crate::error::Code;

/// Refuses every such field that asks for something.
pub(super) fn refuse(spec: &Spec, faults: &mut Faults) {
    let process = spec.process().as_ref();
    let linux = spec.linux().as_ref();
    let label = |label: Option<&String>| label.is_some_and(|label| !label.is_empty());
    // AppArmor's word for no profile; SELinux has none but the empty one.
    let profile = |name: Option<&String>| name.is_some_and(|name| !name.is_empty() && name != "unconfined");
    let joins = |wanted: LinuxNamespaceType| {
        let all = linux.and_then(|linux| linux.namespaces().as_ref());
        let found = all.and_then(|all| all.iter().find(|namespace| namespace.typ() == wanted));
        found.is_some_and(|namespace| namespace.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty()))
    };
    let idmapped = spec.mounts().iter().flatten().any(|mount| mount.uid_mappings().is_some());
    let found = [
        (process.is_some_and(|process| profile(process.apparmor_profile().as_ref())), "process.apparmorProfile"),
        (process.is_some_and(|process| label(process.selinux_label().as_ref())), "process.selinuxLabel"),
        (process.is_some_and(|process| process.scheduler().is_some()), "process.scheduler"),
        (process.is_some_and(|process| process.io_priority().is_some()), "process.ioPriority"),
        (idmapped, "mounts[].uidMappings"),
        (joins(LinuxNamespaceType::Mount), "linux.namespaces (mount, joined)"),
        (joins(LinuxNamespaceType::Time), "linux.namespaces (time, joined)"),
        (linux.is_some_and(|linux| linux.seccomp().is_some()), "linux.seccomp"),
        (
            linux.is_some_and(|linux| linux.devices().as_ref().is_some_and(|devices| !devices.is_empty())),
            "linux.devices",
        ),
        (linux.is_some_and(|linux| linux.sysctl().as_ref().is_some_and(|sysctl| !sysctl.is_empty())), "linux.sysctl"),
        (
            linux.is_some_and(|linux| linux.net_devices().as_ref().is_some_and(|all| !all.is_empty())),
            "linux.netDevices",
        ),
        (
            linux.is_some_and(|linux| linux.time_offsets().as_ref().is_some_and(|all| !all.is_empty())),
            "linux.timeOffsets",
        ),
        (linux.is_some_and(|linux| label(linux.mount_label().as_ref())), "linux.mountLabel"),
        (linux.is_some_and(|linux| linux.intel_rdt().is_some()), "linux.intelRdt"),
        (linux.is_some_and(|linux| linux.memory_policy().is_some()), "linux.memoryPolicy"),
        (linux.is_some_and(|linux| linux.personality().as_ref().is_some_and(changes)), "linux.personality"),
    ];
    for (_, key) in found.iter().filter(|(asked, _)| *asked) {
        faults.add_as(Code::Unsupported, key, "not supported by this version of pura");
    }
}

/// Whether a personality is another than the one that every process has.
fn changes(personality: &LinuxPersonality) -> bool {
    personality.domain() != LinuxPersonalityDomain::PerLinux
        || personality.flags().as_ref().is_some_and(|flags| !flags.is_empty())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_refused_fields_are_those_of_docs_spec_conformance_md() {
        let quoted = |text: &'static str| text.split('"').nth(1);
        let table = include_str!("unsupported.rs").split_once("let found = [").unwrap().1.split_once("];").unwrap().0;
        let refused: Vec<_> = table.lines().filter(|line| !line.contains("//")).filter_map(quoted).collect();
        let page = include_str!("../../docs/spec-conformance.md").split_once("## Refused").unwrap().1;
        let page = page.split_once("## ").unwrap().0;
        let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        assert_eq!(refused, rows, "docs/spec-conformance.md lists what is refused, in the order of this file");
    }
}
