//! The boundary to the kernel, and the only module with `unsafe`.
//!
//! One kernel operation per function: safe, typed, `&CStr` and borrowed descriptors in, errno out. It decides nothing.
#![allow(unsafe_code, reason = "this module is the boundary to the kernel")]
