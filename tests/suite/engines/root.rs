//! Engines of real root.
