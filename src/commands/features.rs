//! `pura features`: what this build does, as features.md and features-linux.md want it. The same on every machine.

use serde_json::json;

use crate::{
    error::{Code, Error, Result},
    hooks::Kind,
    plan::options::WORDS,
};

/// One JSON document. Only what a config may really use: engines act on it.
pub(super) fn features() -> Result<String> {
    let mut options: Vec<_> = WORDS.iter().filter(|(word, _)| !word.is_empty()).map(|(word, _)| *word).collect();
    options.sort_unstable();
    let mut capabilities: Vec<_> = caps::all().into_iter().map(|capability| capability.to_string()).collect();
    capabilities.sort_unstable();
    let document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": crate::state::OCI_VERSION,
        "hooks": Kind::ALL.map(Kind::name),
        "mountOptions": options,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": { "v1": false, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": seccomp(),
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "memoryPolicy": {
                "modes": [
                    "MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"
                ],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]
            },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "netDevices": { "enabled": true },
            "mountExtensions": { "idmap": { "enabled": true } }
        },
        "annotations": { "org.pura.version": env!("CARGO_PKG_VERSION") },
        "potentiallyUnsafeConfigAnnotations": ["org.pura.", "run.oci."]
    });
    let text = serde_json::to_string_pretty(&document);
    text.map(|text| text + "\n").map_err(|error| Error::new(Code::Bug, "print the features", error.to_string()))
}

/// All names of architectures that are recognized: those of other machines are accepted, and without effect.
const ARCHITECTURES: &str = "AARCH64 ARM LOONGARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PARISC PARISC64 \
                             PPC PPC64 PPC64LE RISCV64 S390 S390X X32 X86 X86_64";

/// What a profile may say.
fn seccomp() -> serde_json::Value {
    let named = |prefix: &str, names: &[&str]| names.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>();
    let actions = ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "NOTIFY", "TRACE", "TRAP"];
    let operators = ["EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"];
    let archs: Vec<_> = ARCHITECTURES.split_whitespace().collect();
    if crate::seccomp::Machine::own().is_none() {
        return json!({ "enabled": false });
    }
    let flags = named("SECCOMP_FILTER_FLAG_", &["LOG", "SPEC_ALLOW", "TSYNC", "WAIT_KILLABLE_RECV"]);
    json!({
        "enabled": true,
        "actions": named("SCMP_ACT_", &actions),
        "operators": named("SCMP_CMP_", &operators),
        "archs": named("SCMP_ARCH_", &archs),
        "knownFlags": flags,
        "supportedFlags": flags
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_options_that_a_config_may_use_are_listed_each_once() {
        let document: serde_json::Value = serde_json::from_str(&features().unwrap()).unwrap();
        let words: Vec<_> =
            document["mountOptions"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert!(words.is_sorted_by(|one, next| one < next), "{words:?}");
        assert!(["rro", "bind", "nosymfollow", "rslave", "lazytime"].iter().all(|word| words.contains(word)));
        assert!(words.iter().all(|word| !word.is_empty() && !word.contains('=')));
    }

    #[test]
    fn all_hooks_are_listed_in_their_order() {
        let document: serde_json::Value = serde_json::from_str(&features().unwrap()).unwrap();
        assert_eq!((&document["hooks"][5], &document["ociVersionMin"]), (&json!("poststop"), &json!("1.0.0")));
        assert_eq!(document["linux"]["capabilities"].as_array().unwrap().len(), 41);
        assert_eq!(document["linux"]["mountExtensions"]["idmap"]["enabled"], json!(true));
    }
}
