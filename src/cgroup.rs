//! The container's cgroup, parent side only.
