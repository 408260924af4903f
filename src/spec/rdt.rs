//! `linux.intelRdt`, as far as the config alone tells.

use oci_spec::runtime::LinuxIntelRdt;

use super::Faults;

/// What resctrl has in its root, and in each group, that is no group.
const TAKEN: [&str; 3] = ["info", "mon_data", "mon_groups"];

/// Judges the name of the group, and the lines.
pub(super) fn check(rdt: &LinuxIntelRdt, faults: &mut Faults) {
    if let Some(id) = rdt.clos_id().as_deref().filter(|id| !id.is_empty() && !is_group(id)) {
        faults.add("linux.intelRdt.closID", format!("{id:?} is no name of a group"));
    }
    let bandwidth = rdt.mem_bw_schema().as_deref().filter(|line| !line.is_empty());
    if let Some(line) = bandwidth.filter(|line| !line.starts_with("MB:") || line.contains('\n')) {
        faults.add("linux.intelRdt.memBwSchema", format!("{line:?} is not one line that starts with \"MB:\""));
    }
}

/// One component of a path, or "/" for the group that all are in at first.
fn is_group(id: &str) -> bool {
    id == "/" || !id.contains(['/', '\n', '\0']) && id != "." && id != ".." && !TAKEN.contains(&id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_one_directory_of_resctrl() {
        for (rdt, wanted) in [
            ("{}", ""),
            (r#"{"closID":""}"#, ""),
            (r#"{"closID":"/"}"#, ""),
            (r#"{"closID":"gold","memBwSchema":"MB:0=20","l3CacheSchema":"L3:0=f\nMB:0=10"}"#, ""),
            (r#"{"closID":"../x"}"#, "closID"),
            (r#"{"closID":".."}"#, "closID"),
            (r#"{"closID":"a/b"}"#, "closID"),
            (r#"{"closID":"info"}"#, "closID"),
            (r#"{"memBwSchema":"L3:0=f"}"#, "memBwSchema"),
            (r#"{"memBwSchema":"MB:0=20\nL3:0=f"}"#, "memBwSchema"),
        ] {
            let mut faults = Faults::default();
            check(&serde_json::from_str(rdt).unwrap(), &mut faults);
            let text = faults.0.first().map_or("", |fault| &fault.1);
            assert!(text.contains(wanted) && text.is_empty() == wanted.is_empty(), "{rdt}: {text}");
        }
    }
}
