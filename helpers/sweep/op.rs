//! The commands that are disturbed, and the configs for which they are.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Error, Result};

/// The name under which the container's program runs.
pub(crate) const PROGRAM: &str = "pura-probe";

/// The same program as a hook.
pub(crate) const HOOK: &str = "hook";

/// A command of pura.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    Run,
    Create,
    Start,
    Exec,
    Kill,
    Delete,
    DeleteForce,
    Pause,
    Resume,
    Update,
}

const OPS: [(Op, &str); 10] = [
    (Op::Run, "run"),
    (Op::Create, "create"),
    (Op::Start, "start"),
    (Op::Exec, "exec"),
    (Op::Kill, "kill"),
    (Op::Delete, "delete"),
    (Op::DeleteForce, "delete-force"),
    (Op::Pause, "pause"),
    (Op::Resume, "resume"),
    (Op::Update, "update"),
];

/// What there is before the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    Created,
    Running,
    Paused,
}

impl Op {
    pub(crate) fn all() -> Vec<Self> {
        OPS.iter().map(|(op, _)| *op).collect()
    }

    pub(crate) fn before(self) -> Before {
        match self {
            Self::Run | Self::Create => Before::Nothing,
            Self::Start | Self::Delete => Before::Created,
            Self::Exec | Self::Kill | Self::DeleteForce | Self::Pause | Self::Update => Before::Running,
            Self::Resume => Before::Paused,
        }
    }

    /// Whether an error has to take back all that there is.
    pub(crate) fn makes(self) -> bool {
        self.before() == Before::Nothing
    }

    /// Whether nothing is there when it has succeeded.
    pub(crate) fn removes(self) -> bool {
        matches!(self, Self::Delete | Self::DeleteForce)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(OPS.iter().find(|(op, _)| op == self).map_or("?", |(_, name)| *name))
    }
}

impl FromStr for Op {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let found = OPS.iter().find(|(_, name)| *name == word).map(|(op, _)| *op);
        found.with_context(|| format!("there is no command {word:?}"))
    }
}

/// A config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Config {
    /// One id.
    One,
    /// One id, and a hook of every kind.
    Hooks,
    /// Subordinate ids, which mappers map.
    Many,
    /// Real root, without a user namespace.
    Root,
}

const CONFIGS: [(Config, &str); 4] =
    [(Config::One, "one"), (Config::Hooks, "hooks"), (Config::Many, "many"), (Config::Root, "root")];

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(CONFIGS.iter().find(|(config, _)| config == self).map_or("?", |(_, name)| *name))
    }
}

impl FromStr for Config {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let found = CONFIGS.iter().find(|(_, name)| *name == word).map(|(config, _)| *config);
        found.with_context(|| format!("there is no config {word:?}"))
    }
}
