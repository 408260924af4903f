//! Resources objects: of a config, and of `update --resources`.

use std::{
    io::{Read as _, stdin},
    path::Path,
};

use oci_spec::runtime::{LinuxPids, LinuxResources, Spec};
use serde_json::Value;

use super::{LARGEST, part, read, unreadable};
use crate::error::{Code, Context as _, Result};

/// Reads an OCI resources object; `-` is standard input.
pub fn resources(file: &Path) -> Result<LinuxResources> {
    let json = if file == Path::new("-") {
        let mut bytes = Vec::new();
        stdin().take(LARGEST).read_to_end(&mut bytes).doing(Code::FileRefused, || "read standard input".to_owned())?;
        bytes
    } else {
        read(file).map_err(|error| unreadable(file, &error))?
    };
    let (mut spec, _) = part(&json, file, "\"linux\":{\"resources\":", "}")?;
    let parsed = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().take());
    Ok(parsed.unwrap_or_else(|| {
        let mut nothing = LinuxResources::default();
        nothing.set_devices(None);
        nothing
    }))
}

/// `"pids": {}` asks for nothing, but oci-spec reads a missing limit as 0, which is one.
pub(super) fn without_empty_pids(mut spec: Spec, json: &[u8]) -> Spec {
    let has_limit = || {
        let value = serde_json::from_slice::<Value>(json).unwrap_or_default();
        value.pointer("/linux/resources/pids/limit").is_some_and(|limit| !limit.is_null())
    };
    let resources = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
    if let Some(resources) = resources
        && resources.pids().as_ref().map(LinuxPids::limit) == Some(0)
        && !has_limit()
    {
        resources.set_pids(None);
    }
    spec
}
