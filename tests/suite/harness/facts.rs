//! What the probe reported.

use anyhow::{Context as _, Result};

/// `name=value` lines in their order; a name may occur more than once.
#[derive(Debug)]
pub(crate) struct Facts(Vec<(String, String)>);

/// One line of `mount=`.
#[derive(Debug)]
pub(crate) struct Mount {
    /// The mount point, as the container sees it.
    pub(crate) target: String,
    /// The type of file system.
    pub(crate) kind: String,
    /// Options of the mount: `ro`, `nosuid` ...
    pub(crate) options: Vec<String>,
    /// Options of the file system.
    pub(crate) data: Vec<String>,
    /// `shared:N`, `master:N`, `unbindable`; empty when private.
    pub(crate) propagation: String,
}

impl Facts {
    /// Reads the probe's output.
    pub(crate) fn parse(output: &str) -> Self {
        let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self(output.lines().filter_map(pair).collect())
    }

    /// The one value of `name`.
    pub(crate) fn get(&self, name: &str) -> Result<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        Ok(found.with_context(|| format!("the probe reported no {name}: {:?}", self.0))?.1.as_str())
    }

    /// Every value of `name`.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Every name that starts with `prefix`, without the prefix, and its value.
    pub(crate) fn below(&self, prefix: &str) -> Vec<(&str, &str)> {
        let strip = |(name, value): &'_ (String, String)| -> Option<(usize, usize)> {
            name.starts_with(prefix).then_some((name.len(), value.len()))
        };
        self.0
            .iter()
            .filter(|pair| strip(pair).is_some())
            .map(|(name, value)| (name.strip_prefix(prefix).unwrap_or(name), value.as_str()))
            .collect()
    }

    /// What is visible at `target`: the last mount there.
    pub(crate) fn mount(&self, target: &str) -> Result<Mount> {
        let mounts = self.mounts();
        mounts
            .into_iter()
            .rfind(|mount| mount.target == target)
            .with_context(|| format!("nothing is mounted on {target}"))
    }

    /// All mounts, in the kernel's order.
    pub(crate) fn mounts(&self) -> Vec<Mount> {
        let split = |word: Option<&str>| word.unwrap_or_default().split(',').map(str::to_owned).collect();
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let target = words.next().unwrap_or_default().to_owned();
            let kind = words.next().unwrap_or_default().to_owned();
            let options = split(words.next());
            let data = split(words.nth(1));
            let propagation = words.next().unwrap_or_default().trim_start_matches('-').to_owned();
            Mount { target, kind, options, data, propagation }
        };
        self.all("mount").into_iter().map(parse).collect()
    }
}

impl Mount {
    /// Whether the mount has `option`.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|known| known == option)
    }
}
