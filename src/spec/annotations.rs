//! Annotations that pura honours: those with values of their own. All others are only given back by `state`.

use oci_spec::runtime::Spec;

use super::Faults;
use crate::error::Code;

/// Keys, and the values that they may have.
const VALUES: [(&str, &[&str]); 4] = [
    ("org.pura.overlay", &["1"]),
    ("org.pura.proc", &["bind"]),
    ("org.pura.root-emulation", &["1", "0", "auto"]),
    ("run.oci.mount_context_type", &["context", "fscontext", "defcontext", "rootcontext"]),
];

/// Finds keys that are empty, and values that mean nothing.
pub(super) fn check(spec: &Spec, faults: &mut Faults) {
    let Some(all) = spec.annotations() else { return };
    if all.contains_key("") {
        faults.add("annotations", "a key is empty");
    }
    for (key, values) in VALUES {
        if let Some(value) = all.get(key).filter(|value| !values.contains(&value.as_str())) {
            faults.add(&format!("annotations.{key:?}"), format!("{value:?} is none of {}", values.join(", ")));
        }
    }
    // What is said to pura alone must not be lost on it.
    let is_ours = |key: &&String| key.starts_with("org.pura.") && VALUES.iter().all(|(known, _)| known != key);
    for key in all.keys().filter(is_ours) {
        faults.add_as(Code::Unsupported, &format!("annotations.{key:?}"), "not supported by this version of pura");
    }
}
