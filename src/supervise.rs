//! The foreground wait.
