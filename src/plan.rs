//! The plan: everything init will do, as data, before any process exists.
