//! Validation of config.json, pure.
