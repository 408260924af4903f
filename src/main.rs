//! `pura`: a rootless, userns-first OCI container runtime.

fn main() {}
