//! Limits on the command line: flags of `update`, and of `run` without a bundle.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    str::FromStr,
    time::Duration,
};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::error::{Code, Error, Result};

/// What becomes of a limit that cannot be had.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Limiting {
    /// An error.
    #[default]
    Strict,
    /// A warning.
    BestEffort,
}

/// Flags as typed, without the dashes, and their values.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LimitFlags(pub Vec<(&'static str, OsString)>);

/// The kernel's usual period, in microseconds.
const PERIOD: u64 = 100_000;

impl LimitFlags {
    /// The option behind a place in the resources that were made of them, such as `linux.resources.pids.limit`.
    pub fn option(&self, place: &str) -> Option<String> {
        let flags: &[&str] = match place.strip_prefix("linux.resources.")? {
            "memory.limit" => &["memory"],
            "memory.reservation" => &["memory-reservation"],
            "memory.swap" => &["memory-swap"],
            "cpu.period" => &["cpu-period", "cpus"],
            "cpu.quota" => &["cpus", "cpu-quota"],
            "cpu.shares" => &["cpu-share"],
            "cpu.burst" => &["cpu-burst"],
            "cpu.idle" => &["cpu-idle"],
            "cpu.cpus" => &["cpuset-cpus"],
            "cpu.mems" => &["cpuset-mems"],
            "pids.limit" => &["pids-limit", "pids"],
            "blockIO.weight" => &["blkio-weight"],
            "unified.\"io.weight\"" => &["io-weight"],
            _ => return None,
        };
        let given = |flag: &&&str| self.0.iter().any(|(known, _)| known == *flag);
        flags.iter().find(given).map(|flag| format!("--{flag}"))
    }

    /// The limits that they mean.
    pub fn resources(&self) -> Result<LinuxResources> {
        let (mut memory, mut cpu, mut io) = (LinuxMemory::default(), LinuxCpu::default(), LinuxBlockIo::default());
        let (mut pids, mut unified) = (None, HashMap::new());
        for (flag, typed) in &self.0 {
            match *flag {
                "memory" => drop(memory.set_limit(Some(size(flag, typed)?))),
                "memory-reservation" => drop(memory.set_reservation(Some(size(flag, typed)?))),
                "memory-swap" => drop(memory.set_swap(Some(size(flag, typed)?))),
                "cpu-period" => drop(cpu.set_period(Some(number(flag, typed)?))),
                "cpu-quota" => drop(cpu.set_quota(Some(number(flag, typed)?))),
                "cpu-share" => drop(cpu.set_shares(Some(number(flag, typed)?))),
                "cpu-burst" => drop(cpu.set_burst(Some(number(flag, typed)?))),
                "cpu-idle" => drop(cpu.set_idle(Some(number(flag, typed)?))),
                "cpus" => drop(cpu.set_period(Some(PERIOD)).set_quota(Some(quota(flag, typed)?))),
                "cpuset-cpus" => drop(cpu.set_cpus(Some(text(flag, typed)?))),
                "cpuset-mems" => drop(cpu.set_mems(Some(text(flag, typed)?))),
                "pids-limit" | "pids" => pids = Some(number(flag, typed)?),
                "blkio-weight" => drop(io.set_weight(Some(number(flag, typed)?))),
                "io-weight" => {
                    unified.insert("io.weight".to_owned(), number::<u16>(flag, typed)?.to_string());
                }
                // Known to engines that may have cgroup v1, or resource control of the processor.
                other => {
                    let why = "it is for cgroup v1, or for Intel RDT, which pura does not set";
                    return Err(Error::new(Code::Unsupported, format!("use --{other}"), why));
                }
            }
        }
        let mut resources = LinuxResources::default();
        resources.set_memory(Some(memory)).set_cpu(Some(cpu)).set_block_io(Some(io)).set_unified(Some(unified));
        resources.set_devices(None).set_pids(pids.map(|limit| {
            let mut most = LinuxPids::default();
            most.set_limit(limit);
            most
        }));
        Ok(resources)
    }
}

fn refuse(flag: &str, typed: &OsStr, why: &str) -> Error {
    Error::new(Code::Usage, "read the command line", format!("--{flag} {typed:?} is {why}"))
}

fn text(flag: &str, typed: &OsStr) -> Result<String> {
    typed.to_str().map(str::to_owned).ok_or_else(|| refuse(flag, typed, "not UTF-8"))
}

fn number<T: FromStr>(flag: &str, typed: &OsStr) -> Result<T> {
    typed.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| refuse(flag, typed, "no number, or too large"))
}

/// Bytes, or with b, k, m, g or t behind them that many times 1024; -1 is no limit.
fn size(flag: &str, typed: &OsStr) -> Result<i64> {
    let lower = typed.to_str().unwrap_or_default().to_ascii_lowercase();
    let bare = lower.strip_suffix('b').unwrap_or(&lower);
    let bare = bare.strip_suffix('i').unwrap_or(bare);
    let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    let (digits, shift) =
        units.iter().find_map(|(unit, shift)| Some((bare.strip_suffix(*unit)?, *shift))).unwrap_or((bare, 0));
    let parsed = digits.parse::<i64>().ok().filter(|value| *value >= 0 || (digits == "-1" && bare == "-1"));
    let bytes = parsed.and_then(|value| value.checked_mul(1_i64 << shift));
    bytes.ok_or_else(|| refuse(flag, typed, "no size such as 512m"))
}

/// Processors, with decimals, as microseconds of a period.
fn quota(flag: &str, typed: &OsStr) -> Result<i64> {
    let text = typed.to_str().unwrap_or_default();
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let read = || {
        let whole = whole.parse::<i64>().ok()?.checked_mul(100_000)?;
        let part = format!("{part:0<5}").get(..5)?.parse::<i64>().ok()?;
        // Less than a hundredth of a processor is below what the kernel takes.
        whole.checked_add(part).filter(|quota| *quota >= 1000)
    };
    let quota = (is_number(whole) && is_number(part)).then(read).flatten();
    quota.ok_or_else(|| refuse(flag, typed, "no number of processors such as 1.5"))
}

/// A time as Go writes it: 5s, 500ms, 1m30s.
pub(super) fn duration(flag: &str, typed: &OsStr) -> Result<Duration> {
    let mut rest = typed.to_str().unwrap_or_default();
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, behind) = rest.split_at(end);
        let unit_end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(unit_end);
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(refuse(flag, typed, "no time such as 5s")),
        };
        let count: u64 = digits.parse().map_err(|_no_number| refuse(flag, typed, "no time such as 5s"))?;
        sum = sum.saturating_add(Duration::from_millis(count.saturating_mul(milliseconds)));
        rest = next;
    }
    if sum.is_zero() { Err(refuse(flag, typed, "no time such as 5s")) } else { Ok(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit_or_is_in_bytes() {
        for (typed, wanted) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("1024", Some(1024)),
            ("10b", Some(10)),
            ("512m", Some(512 << 20)),
            ("2G", Some(2 << 30)),
            ("1gb", Some(1 << 30)),
            ("1KiB", Some(1024)),
            ("", None),
            ("m", None),
            ("-2", None),
            ("-1k", None),
            ("1.5g", None),
            ("9999999t", None),
            ("1e3", None),
        ] {
            assert_eq!(size("memory", OsStr::new(typed)).ok(), wanted, "{typed}");
        }
    }

    #[test]
    fn processors_have_decimals() {
        for (typed, wanted) in
            [("1", Some(100_000)), ("1.5", Some(150_000)), ("0.01", Some(1000)), ("0.25001", Some(25_001))]
        {
            assert_eq!(quota("cpus", OsStr::new(typed)).ok(), wanted, "{typed}");
        }
        for typed in ["", "0", "-1", "1.", ".5", "1,5", "x", "0.00001"] {
            assert!(quota("cpus", OsStr::new(typed)).is_err(), "{typed}");
        }
    }

    #[test]
    fn a_time_is_written_as_in_go() {
        for (typed, wanted) in [("5s", 5000), ("250ms", 250), ("1m30s", 90_000), ("1h", 3_600_000)] {
            assert_eq!(duration("interval", OsStr::new(typed)).unwrap(), Duration::from_millis(wanted));
        }
        for typed in ["", "5", "s", "0s", "5x", "-5s", "1.5s"] {
            assert!(duration("interval", OsStr::new(typed)).is_err(), "{typed}");
        }
    }

    #[test]
    fn flags_become_resources_and_those_of_version_1_are_refused_by_name() {
        let flags = |all: &[(&'static str, &str)]| {
            LimitFlags(all.iter().map(|(flag, typed)| (*flag, OsString::from(typed))).collect())
        };
        let all = [("memory", "1m"), ("cpus", "0.5"), ("pids-limit", "0"), ("io-weight", "7"), ("cpuset-cpus", "0")];
        let resources = flags(&all).resources().unwrap();
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period(), cpu.cpus().as_deref()), (Some(50_000), Some(100_000), Some("0")));
        assert_eq!(resources.memory().as_ref().unwrap().limit(), Some(1 << 20));
        assert_eq!(resources.pids().as_ref().unwrap().limit(), 0);
        assert_eq!(resources.unified().as_ref().unwrap()["io.weight"], "7");
        for flag in ["kernel-memory", "cpu-rt-period", "l3-cache-schema"] {
            let error = flags(&[(flag, "1")]).resources().unwrap_err();
            assert!(error.code() == Code::Unsupported && error.to_string().contains(flag), "{error}");
        }
    }
}
