//! Fields that this version does not carry out. Each is an error, never ignored: a confinement that was asked for must
//! not be silently absent.

use oci_spec::runtime::Spec;

use super::Faults;
use crate::error::Code;

/// Refuses every such field that asks for something.
pub(super) fn refuse(spec: &Spec, faults: &mut Faults) {
    let annotated = |key: &str| spec.annotations().as_ref().is_some_and(|all| all.contains_key(key));
    let found = [
        // Another runtime behind the name of this one: crun's way of choosing a virtual machine or WebAssembly.
        (annotated("run.oci.handler"), "annotations.\"run.oci.handler\""),
    ];
    for (_, key) in found.iter().filter(|(asked, _)| *asked) {
        faults.add_as(Code::Unsupported, key, "not supported by this version of pura");
    }
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
