//! What pura and its helper `pura-systemd` say to each other: one JSON object a line.

use serde::{Deserialize, Serialize};

/// What pura asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Start a transient unit, and answer when its job has ended.
    Start {
        /// Its name: `a.scope`.
        unit: String,
        /// Its properties.
        properties: Vec<Property>,
    },
    /// Set properties of a unit that runs, until it ends.
    Set {
        /// Its name.
        unit: String,
        /// The properties.
        properties: Vec<Property>,
    },
    /// Move a process into a unit that runs.
    Attach {
        /// The unit's name.
        unit: String,
        /// The cgroup below it, with a leading slash; empty for its own.
        below: String,
        /// The process.
        process: u32,
    },
    /// Stop a unit, answer when that is done, and forget that it failed. One that is not there is stopped.
    Stop {
        /// Its name.
        unit: String,
    },
}

/// What the helper says: first that it has started, then that systemd can be spoken to, then an answer to each request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The helper runs, and turns to the bus.
    Started,
    /// systemd answers.
    Ready {
        /// The first number of its version.
        version: u32,
        /// The cgroup below which its units are, from the root of the hierarchy: empty for the system's.
        cgroup: String,
    },
    /// What was asked for is so.
    Done,
    /// It was not taken on, and why.
    Refused(String),
    /// It was, and came to nothing.
    Failed(String),
}

/// A property of a unit: `org.freedesktop.systemd1(5)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    /// Its name: `MemoryMax`.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// The value of a property; the comments give its D-Bus type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// `t`
    Number(u64),
    /// `i`
    Integer(i32),
    /// `b`
    Switch(bool),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `ay`: a bit for each number, the lowest first.
    Mask(Vec<u8>),
    /// `au`
    Processes(Vec<u32>),
}

impl Property {
    /// A property of this name.
    pub fn new(name: &str, value: Value) -> Self {
        Self { name: name.to_owned(), value }
    }
}
