//! The log file, and where warnings go.
