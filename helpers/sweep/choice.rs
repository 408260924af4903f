//! What is to be swept, as the command line says.

use std::{path::PathBuf, thread};

use anyhow::{Context as _, Result, bail};

use super::{
    op::{Config, Op},
    tracer::{Kind, Point},
};

pub(crate) const USAGE: &str = "\
pura-sweep [--op OP,...] [--fault FAULT,...] [--config CONFIG,...] [--points N | --every N | --at POINT] [--jobs N] [--verbose]
  ops      run create start exec kill delete delete-force pause resume update
  faults   kill-caller kill-parent kill-tree EIO ENOSPC EPERM ENOMEM EINTR EMFILE EAGAIN ENOSYS; with -always but two
  configs  one (a single id), hooks (and a hook of every kind), many (subordinate ids), root
  points   N for each op and fault, evenly spread, or every Nth; all of them otherwise";

#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) ops: Vec<Op>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) configs: Vec<Config>,
    pub(crate) points: Option<usize>,
    pub(crate) every: Option<usize>,
    pub(crate) at: Option<Point>,
    pub(crate) jobs: usize,
    pub(crate) is_verbose: bool,
    /// Who runs pura, where root traces.
    pub(crate) user: Option<(u32, u32)>,
}

impl Choice {
    pub(crate) fn parse(words: &[String]) -> Result<Self> {
        let mut choice = Self {
            ops: Op::all(),
            kinds: Kind::all(),
            configs: Vec::new(),
            points: None,
            every: None,
            at: None,
            jobs: thread::available_parallelism().map_or(1, usize::from),
            is_verbose: false,
            user: user()?,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--verbose" {
                choice.is_verbose = true;
                continue;
            }
            let value = words.next().with_context(|| USAGE.to_owned())?;
            match word.as_str() {
                "--op" => choice.ops = list(value)?,
                "--fault" => choice.kinds = list(value)?,
                "--config" => choice.configs = list(value)?,
                "--points" => choice.points = Some(value.parse()?),
                "--every" => choice.every = Some(value.parse()?),
                "--at" => choice.at = Some(value.parse()?),
                "--jobs" => choice.jobs = value.parse()?,
                _ => bail!("{USAGE}"),
            }
        }
        if choice.configs.is_empty() {
            choice.configs = choice.usual_configs();
        }
        Ok(choice)
    }

    /// Mappers gain nothing when an ordinary user traces them.
    fn usual_configs(&self) -> Vec<Config> {
        if self.user.is_some() {
            vec![Config::One, Config::Hooks, Config::Many]
        } else if nix::unistd::geteuid().is_root() {
            vec![Config::Root]
        } else {
            vec![Config::One, Config::Hooks]
        }
    }

    /// Of all that fit, those that are chosen.
    pub(crate) fn spread<'a, T>(&self, all: &'a [T], point: impl Fn(&T) -> &Point) -> Vec<&'a T> {
        if let Some(at) = &self.at {
            return all.iter().filter(|call| point(call) == at).collect();
        }
        let step = self.every.unwrap_or(1).max(1);
        let step = self.points.map_or(step, |points| all.len().div_ceil(points.max(1)).max(1));
        all.iter().step_by(step).collect()
    }
}

fn list<T: std::str::FromStr<Err = anyhow::Error>>(words: &str) -> Result<Vec<T>> {
    words.split(',').map(str::parse).collect()
}

/// `PURA_SWEEP_USER=UID:GID`
fn user() -> Result<Option<(u32, u32)>> {
    let Ok(word) = std::env::var("PURA_SWEEP_USER") else { return Ok(None) };
    let (uid, gid) = word.split_once(':').context("PURA_SWEEP_USER is UID:GID")?;
    Ok(Some((uid.parse()?, gid.parse()?)))
}

/// A program of the same build: named by the environment, or beside this one.
pub(crate) fn program(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    Ok(own.parent().context("no directory")?.join(name))
}
