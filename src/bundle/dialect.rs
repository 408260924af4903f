//! Where oci-spec is stricter than the specification.

use serde_json::Value;

/// Gives two flags of the specification the names that oci-spec has for them; whether there were any.
pub(super) fn rename_scheduler_flags(process: &mut Value) -> bool {
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    let mut renamed = false;
    for flag in flags.into_iter().flatten() {
        let name = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = Value::from(name);
        renamed = true;
    }
    renamed
}

/// Removes the capabilities that oci-spec does not know; their names.
pub(super) fn drop_unknown_capabilities(process: &mut Value) -> Option<Vec<String>> {
    let sets = process.get_mut("capabilities")?.as_object_mut()?;
    let mut unknown = Vec::new();
    for set in sets.values_mut().filter_map(Value::as_array_mut) {
        set.retain(|name| {
            let Some(text) = name.as_str() else { return true };
            let known = super::is_capability(text);
            if !known && !unknown.iter().any(|other| other == text) {
                unknown.push(text.to_owned());
            }
            known
        });
    }
    Some(unknown)
}
