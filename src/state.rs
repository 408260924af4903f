//! OCI state and its legal transitions.
