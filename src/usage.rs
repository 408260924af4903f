//! What a program has used, on one line: told by its cgroup before that goes, else by the kernel's account of processes
//! that have been waited for.

use std::{
    fmt, fs,
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};

/// Times, bytes and counts, from the making of the container on. What the kernel does not tell is left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usage {
    wall: Duration,
    user: Duration,
    system: Duration,
    /// Names, numbers and units, in the order in which they are said.
    rest: Vec<(&'static str, u64, &'static str)>,
}

impl Usage {
    /// Since `begin`, of a cgroup that was made for it, or of all children that have ended.
    pub fn since(begin: Instant, cgroup: Option<&Path>) -> Self {
        let wall = begin.elapsed();
        let used = cgroup.and_then(Self::of_cgroup).or_else(Self::of_children).unwrap_or_default();
        Self { wall, ..used }
    }

    /// cgroup-v2.rst: `cpu.stat` is there without a controller, `memory.peak` came with Linux 5.19, `pids.peak` with 6.1.
    fn of_cgroup(directory: &Path) -> Option<Self> {
        let text = |name: &str| fs::read_to_string(directory.join(name)).ok();
        let cpu = text("cpu.stat")?;
        let field = |name: &str| cpu.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        let time = |name| field(name).map(Duration::from_micros).unwrap_or_default();
        let number = |name: &str| text(name)?.trim().parse().ok();
        let bytes = |disks: &str, name: &str| {
            let words = disks.split_whitespace().filter_map(|word| word.strip_prefix(name)?.parse::<u64>().ok());
            words.fold(0, u64::saturating_add)
        };
        let disks = text("io.stat");
        let disks = |name| disks.as_deref().map(|disks| bytes(disks, name));
        let all = [
            ("memory-peak", number("memory.peak"), "B"),
            ("pids-peak", number("pids.peak"), ""),
            ("io-read", disks("rbytes="), "B"),
            ("io-written", disks("wbytes="), "B"),
        ];
        let rest = all.into_iter().filter_map(|(name, value, unit)| Some((name, value?, unit))).collect();
        Some(Self { wall: Duration::ZERO, user: time("user_usec"), system: time("system_usec"), rest })
    }

    /// `getrusage(2)`: the largest amount of memory is that of one process, in KiB.
    fn of_children() -> Option<Self> {
        let account = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
        let time = |time: TimeVal| {
            let [seconds, micros] = [time.tv_sec(), time.tv_usec()].map(|part| u64::try_from(part).unwrap_or_default());
            Duration::from_secs(seconds) + Duration::from_micros(micros)
        };
        let largest = u64::try_from(account.max_rss()).unwrap_or_default().saturating_mul(1024);
        let (user, system) = (time(account.user_time()), time(account.system_time()));
        Some(Self { wall: Duration::ZERO, user, system, rest: vec![("rss-peak", largest, "B")] })
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, time)) in
            [("wall", self.wall), ("user", self.user), ("system", self.system)].into_iter().enumerate()
        {
            let blank = if index == 0 { "" } else { " " };
            write!(f, "{blank}{name}={}.{:03}s", time.as_secs(), time.subsec_millis())?;
        }
        self.rest.iter().try_for_each(|(name, value, unit)| write!(f, " {name}={value}{unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_tells_what_its_controllers_count() {
        let directory = tempfile::tempdir().unwrap();
        let begin = Instant::now();
        assert_eq!(Usage::of_cgroup(directory.path()), None);
        fs::write(directory.path().join("cpu.stat"), "usage_usec 1500000\nuser_usec 1234567\nsystem_usec 265433\n")
            .unwrap();
        let said = |usage: Usage| usage.to_string().split_once(' ').unwrap().1.to_owned();
        assert_eq!(said(Usage::since(begin, Some(directory.path()))), "user=1.234s system=0.265s");
        for (name, text) in [
            ("memory.peak", "4096\n"),
            ("pids.peak", "3\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n8:16 rbytes=10 wbytes=20 rios=0 wios=0\n"),
        ] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let all = "user=1.234s system=0.265s memory-peak=4096B pids-peak=3 io-read=11B io-written=22B";
        assert_eq!(said(Usage::since(begin, Some(directory.path()))), all);
    }

    #[test]
    fn without_a_cgroup_ended_children_are_counted() {
        let said = Usage::since(Instant::now(), None).to_string();
        assert!(said.starts_with("wall=0.") && said.contains(" user=") && said.contains(" rss-peak="), "{said}");
    }
}
