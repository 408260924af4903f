//! Resources objects: of a config, and of `update --resources`.

use std::{
    io::{Read as _, stdin},
    path::Path,
};

use oci_spec::runtime::{LinuxPids, LinuxResources, Spec};
use serde_json::Value;

use super::{LARGEST, Text, distinct, read, walk::Step};
use crate::error::{Code, Context as _, Error, Result};

/// Reads an OCI resources object; `-` is standard input.
pub fn resources(file: &Path) -> Result<LinuxResources> {
    let json = if file == Path::new("-") {
        let mut bytes = Vec::new();
        stdin().take(LARGEST).read_to_end(&mut bytes).doing(Code::FileRefused, || "read standard input".to_owned())?;
        bytes
    } else {
        read(file).map_err(|error| {
            Error::new(Code::FileRefused, format!("read {}", file.display()), error.why().to_owned())
        })?
    };
    let text = Text { json: &json, file, base: &[Step::Key(b"linux"), Step::Key(b"resources")] };
    let (mut parsed, _) = text.parse::<LinuxResources>()?;
    text.check(None)?;
    serde_json::from_slice::<distinct::Keys>(&json).map_err(|error| text.refuse(&error))?;
    if parsed.pids().as_ref().is_some_and(|pids| pids.limit() == 0) && has_no_limit(&json, "/pids/limit") {
        parsed.set_pids(None);
    }
    Ok(parsed)
}

/// `"pids": {}` asks for nothing, but oci-spec reads a missing limit as 0, which is one.
pub(super) fn without_empty_pids(mut spec: Spec, json: &[u8]) -> Spec {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let pids = resources.and_then(|resources| resources.pids().as_ref());
    if pids.map(LinuxPids::limit) != Some(0) || !has_no_limit(json, "/linux/resources/pids/limit") {
        return spec;
    }
    let mut linux = spec.linux().clone();
    if let Some(changed) = linux.as_mut().and_then(|linux| linux.resources_mut().as_mut()) {
        changed.set_pids(None);
    }
    spec.set_linux(linux);
    spec
}

fn has_no_limit(json: &[u8], pointer: &str) -> bool {
    serde_json::from_slice::<Value>(json).is_ok_and(|value| value.pointer(pointer).is_none_or(Value::is_null))
}
