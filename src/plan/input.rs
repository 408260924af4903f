//! What the parent opens, makes or writes before clone, because only it may.

use std::path::PathBuf;

/// What the parent opens before clone and init finds in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A namespace, by path.
    Namespace(PathBuf),
    /// The user namespace that owns the namespace at a path: `NS_GET_USERNS`.
    Owner(PathBuf),
    /// A directory, without further rights: `O_PATH`.
    Directory(PathBuf),
    /// A copy of a mount whose ids are mapped: only who has power over its filesystem may do that.
    Mapped(MappedTree),
    /// The mount of a device node that the host lacks.
    Node(NewNode),
    /// A program of pura's own, out of reach of the container's ids.
    Program(PathBuf),
    /// A file to which hooks append; `/dev/null` without one.
    Output(Option<PathBuf>),
}

/// A tree for an idmapped mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedTree {
    /// A path of the host.
    pub path: PathBuf,
    /// With all that is mounted below.
    pub recursive: bool,
    /// All of that is mapped too.
    pub all: bool,
    /// "inside outside count", one per line, as the caller counts.
    pub uids: String,
    /// The same.
    pub gids: String,
    /// The filesystem's type, for errors.
    pub kind: String,
    /// The place in config.json.
    pub place: String,
}

/// A device node that only real root can make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNode {
    /// `S_IFCHR` or `S_IFBLK`.
    pub kind: u32,
    /// Its numbers, as in `st_rdev`.
    pub device: u64,
    /// The place in config.json.
    pub place: String,
}

/// A filesystem that shows what is in a joined namespace, and that only the owner of the namespace may mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Showing {
    /// Its type: `proc` or `mqueue`.
    pub kind: &'static str,
    /// Options for the filesystem: a word, or `key=value`.
    pub options: Vec<String>,
    /// Where the container sees it, for errors.
    pub destination: PathBuf,
    /// The place in config.json.
    pub place: String,
}

/// A kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// As config.json has it.
    pub key: String,
    /// The file in a procfs: `sys/...`.
    pub file: String,
    /// What is written.
    pub value: String,
}
