//! `linux.resources` as lines for the files of cgroup v2: config-linux.md "Control groups"; the kernel's cgroup-v2.rst.
//!
//! Absent and 0 ask for nothing, and so does -1, which is "max" where the file is there. What version 2 has no file for
//! is an error: a limit is never silently absent.

mod blocks;
mod devices;

use std::fmt::Display;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

pub use self::devices::{Instruction, Rules};
use crate::error::{Code, Error, Result};

/// One line for one file of the container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The file: `memory.max`.
    pub file: String,
    /// The line, without its end.
    pub value: String,
    /// The place below `linux.resources`: `memory.limit`.
    pub place: String,
    /// What it means when the file is not there.
    pub absent: Absent,
    /// File and line for kernels without the first file.
    pub instead: Option<(String, String)>,
}

/// What a file that is not there means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// The limit cannot be set: an error.
    Refuse,
    /// A warning; the controller is used where it can be had.
    Warn,
    /// The same, of a limit under `run --cgroup=besteffort`.
    Wish,
    /// Nothing: the line asks for what holds without the file.
    Skip,
}

/// What holds now, for an update, which may name one half of a pair of values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Now {
    /// `memory.max` in bytes; none for "max", and for a container that is to be made.
    pub memory: Option<u64>,
    /// The first word of `cpu.max`.
    pub quota: Option<String>,
}

/// Controllers and processes: files by which a config would act instead of limiting.
const ACTIONS: [&str; 6] =
    ["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.type", "cgroup.subtree_control"];

impl Write {
    /// The controller that has the file; none for those that every cgroup has.
    pub fn controller(&self) -> Option<&str> {
        self.file.split('.').next().filter(|controller| *controller != "cgroup")
    }
}

/// The lines, in the order in which they are written. All faults are in the one error.
pub fn writes(resources: &LinuxResources, now: &Now) -> Result<Vec<Write>> {
    let mut draft = Draft::default();
    if let Some(memory) = resources.memory() {
        draft.memory(memory, now);
    }
    if let Some(cpu) = resources.cpu() {
        draft.cpu(cpu, now);
    }
    if let Some(pids) = resources.pids() {
        draft.pids(*pids);
    }
    draft.devices(resources);
    draft.device_rules(resources);
    for (key, lines) in sorted(resources.unified().as_ref()) {
        draft.unified(key, lines);
    }
    draft.end()
}

fn sorted<V>(map: Option<&std::collections::HashMap<String, V>>) -> Vec<(&String, &V)> {
    let mut all: Vec<_> = map.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(key, _)| key.as_str());
    all
}

/// The lines so far, and what was wrong.
#[derive(Debug, Default)]
struct Draft {
    writes: Vec<Write>,
    faults: Vec<(Code, String)>,
}

impl Draft {
    fn end(self) -> Result<Vec<Write>> {
        let Some((code, _)) = self.faults.first() else { return Ok(self.writes) };
        let all: Vec<_> = self.faults.iter().map(|(_, text)| text.as_str()).collect();
        Err(Error::new(*code, "set linux.resources", all.join("; ")))
    }

    fn write(&mut self, file: &str, value: impl Display, place: &str) {
        self.write_if(Absent::Refuse, file, value, place);
    }

    fn write_if(&mut self, absent: Absent, file: &str, value: impl Display, place: &str) {
        let (file, value, place) = (file.to_owned(), format!("{value}"), place.to_owned());
        self.writes.push(Write { file, value, place, absent, instead: None });
    }

    fn fault(&mut self, place: &str, why: &str) {
        self.faults.push((Code::Field, format!("{place}: {why}")));
    }

    /// Version 2 has no file for it.
    fn no_file(&mut self, asked: bool, place: &str) {
        if asked {
            self.faults.push((Code::Unsupported, format!("{place}: cgroup v2 has nothing like it")));
        }
    }

    /// A number of bytes: -1, and anything below it, is "max", 0 is nothing.
    fn bytes(&mut self, value: Option<i64>, file: &str, place: &str) {
        match value {
            None | Some(0) => {}
            Some(limit) if limit < 0 => self.write_if(Absent::Skip, file, "max", place),
            Some(limit) => self.write(file, limit, place),
        }
    }

    fn memory(&mut self, memory: &LinuxMemory, now: &Now) {
        self.no_file(memory.swappiness().is_some(), "memory.swappiness");
        self.no_file(memory.kernel().is_some_and(|limit| limit > 0), "memory.kernel");
        self.no_file(memory.kernel_tcp().is_some_and(|limit| limit > 0), "memory.kernelTCP");
        self.no_file(memory.disable_oom_killer() == Some(true), "memory.disableOOMKiller");
        self.bytes(memory.limit(), "memory.max", "memory.limit");
        self.bytes(memory.reservation(), "memory.low", "memory.reservation");
        let limit = memory.limit().filter(|limit| *limit != 0);
        match (memory.swap().unwrap_or(0), limit) {
            (0, Some(..0)) => self.write_if(Absent::Skip, "memory.swap.max", "max", "memory.limit"),
            (0, _) => {}
            (..0, _) => self.write_if(Absent::Skip, "memory.swap.max", "max", "memory.swap"),
            (swap, limit) => self.swap(swap.unsigned_abs(), limit, now),
        }
    }

    /// The field is memory and swap together, the file is swap alone.
    fn swap(&mut self, swap: u64, limit: Option<i64>, now: &Now) {
        let limit = match limit {
            Some(limit) => u64::try_from(limit).ok(),
            None => now.memory,
        };
        match limit.map(|limit| swap.checked_sub(limit)) {
            None => self.fault("memory.swap", "it is memory and swap together, and needs memory.limit"),
            Some(None) => self.fault("memory.swap", "it is memory and swap together, and is below memory.limit"),
            // A kernel without swap accounting has no such file, and no swap to keep from the container.
            Some(Some(0)) => self.write_if(Absent::Skip, "memory.swap.max", 0, "memory.swap"),
            Some(Some(rest)) => self.write("memory.swap.max", rest, "memory.swap"),
        }
    }

    fn cpu(&mut self, cpu: &LinuxCpu, now: &Now) {
        self.no_file(cpu.realtime_runtime().is_some_and(|runtime| runtime > 0), "cpu.realtimeRuntime");
        self.no_file(cpu.realtime_period().is_some_and(|period| period > 0), "cpu.realtimePeriod");
        if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
            // The default, which containerd always asks for, holds without the file too.
            let absent = if shares == 1024 { Absent::Skip } else { Absent::Refuse };
            self.write_if(absent, "cpu.weight", weight(shares), "cpu.shares");
        }
        let period = cpu.period().filter(|period| *period > 0);
        let line = |quota: &str| period.map_or_else(|| quota.to_owned(), |period| format!("{quota} {period}"));
        let burst = cpu.burst();
        if let (Some(burst), Some(quota @ 1..)) = (burst, cpu.quota())
            && burst > quota.unsigned_abs()
        {
            self.fault("cpu.burst", "it is above cpu.quota");
        }
        if let Some(burst) = burst {
            let absent = if burst == 0 { Absent::Skip } else { Absent::Refuse };
            self.write_if(absent, "cpu.max.burst", burst, "cpu.burst");
        }
        match cpu.quota().unwrap_or(0) {
            0 if period.is_some() => {
                self.write_if(Absent::Skip, "cpu.max", line(now.quota.as_deref().unwrap_or("max")), "cpu.period");
            }
            0 => {}
            ..0 => self.write_if(Absent::Skip, "cpu.max", line("max"), "cpu.quota"),
            quota => self.write("cpu.max", line(&quota.to_string()), "cpu.quota"),
        }
        if let Some(idle) = cpu.idle() {
            let absent = if idle == 0 { Absent::Skip } else { Absent::Refuse };
            self.write_if(absent, "cpu.idle", idle, "cpu.idle");
        }
        for (list, file, place) in [(cpu.cpus(), "cpuset.cpus", "cpu.cpus"), (cpu.mems(), "cpuset.mems", "cpu.mems")] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                self.write(file, list, place);
            }
        }
    }

    fn pids(&mut self, pids: LinuxPids) {
        match pids.limit() {
            ..0 => self.write_if(Absent::Skip, "pids.max", "max", "pids.limit"),
            // Process 1 is one; systemd accepts no 0 either.
            0 => self.write_if(Absent::Warn, "pids.max", 1, "pids.limit"),
            limit => self.write("pids.max", limit, "pids.limit"),
        }
    }

    fn unified(&mut self, key: &str, lines: &str) {
        let place = format!("unified.{key:?}");
        if key.is_empty() || key.contains('/') || !key.contains('.') || key.starts_with('.') {
            return self.fault(&place, "it is no name of a file such as memory.high");
        }
        if ACTIONS.contains(&key) {
            return self.fault(&place, "it acts on processes, and limits nothing");
        }
        for line in lines.lines() {
            self.write(key, line, &place);
        }
    }
}

/// The weight of 1 to 10000 for shares of 2 to 262144; 1024 shares, the default, are 100, the default.
fn weight(shares: u64) -> String {
    let Ok(shares @ 3..262_144) = u32::try_from(shares) else {
        return if shares <= 2 { "1" } else { "10000" }.to_owned();
    };
    let log = f64::from(shares).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // What should be a whole number may be a little more. To print a float takes a hundredth of the whole binary.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 10000, and whole")]
    let weight = (10_f64.powf(exponent) - 1e-9).ceil() as u32;
    weight.to_string()
}

#[cfg(test)]
mod tests;
