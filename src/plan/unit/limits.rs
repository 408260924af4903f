//! Limits as properties of a unit, from the same lines that are written to its files: systemd writes its own values again
//! whenever it likes to, and those have to be the container's. What has no property is in the files alone.

use super::put;
use crate::{
    plan::resources::Write,
    systemd::message::{Property, Value},
};

/// The resolution of `CPUQuota`, a hundredth of a processor, in microseconds for each second. systemd rounds down.
const CPU_STEP: u64 = 10_000;

/// The first versions that know them.
const QUOTA_PERIOD: u32 = 242;
const CPUSETS: u32 = 244;
const IDLE: u32 = 252;

/// The highest processor or memory node that a mask is made for: `CONFIG_NR_CPUS` is at most 8192.
const HIGHEST: u16 = 8191;

/// The properties that these lines mean to a systemd of this version.
pub fn properties(writes: &[Write], version: u32) -> Vec<Property> {
    let mut all = Vec::new();
    for write in writes {
        for (name, value) in of_line(write, version) {
            put(&mut all, Property::new(name, value));
        }
    }
    all
}

fn of_line(write: &Write, version: u32) -> Vec<(&'static str, Value)> {
    let line = write.value.as_str();
    let one = |name, value: Option<u64>| value.map(|value| (name, Value::Number(value)));
    let mask = |name| list(line).filter(|_| version >= CPUSETS).map(|mask| (name, Value::Mask(mask)));
    let first = match write.file.as_str() {
        "memory.max" => one("MemoryMax", number(line)),
        "memory.high" => one("MemoryHigh", number(line)),
        "memory.low" => one("MemoryLow", number(line)),
        "memory.min" => one("MemoryMin", number(line)),
        "memory.swap.max" => one("MemorySwapMax", number(line)),
        "pids.max" => one("TasksMax", number(line)),
        "cpu.weight" => one("CPUWeight", number(line)),
        // A weight of 0 is what it calls idle.
        "cpu.idle" if line == "1" && version >= IDLE => one("CPUWeight", Some(0)),
        "io.weight" => one("IOWeight", number(line.strip_prefix("default ").unwrap_or(line))),
        "io.bfq.weight" => one("IOWeight", write.instead.as_ref().and_then(|(_, weight)| number(weight))),
        "cpuset.cpus" => mask("AllowedCPUs"),
        "cpuset.mems" => mask("AllowedMemoryNodes"),
        "cpu.max" => return quota(line, version).unwrap_or_default(),
        _ => None,
    };
    first.into_iter().collect()
}

/// A number; "max" is what systemd calls infinity.
fn number(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

/// `cpu.max`: a quota, and perhaps a period, in microseconds.
fn quota(line: &str, version: u32) -> Option<Vec<(&'static str, Value)>> {
    let mut words = line.split_whitespace();
    let (quota, period) = (number(words.next()?)?, words.next().map_or(Some(100_000), |word| word.parse().ok())?);
    let share = if quota == u64::MAX {
        quota
    } else {
        let exact = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
        u64::try_from(exact).ok()?.div_ceil(CPU_STEP).max(1).checked_mul(CPU_STEP)?
    };
    let mut all = vec![("CPUQuotaPerSecUSec", Value::Number(share))];
    if version >= QUOTA_PERIOD {
        all.push(("CPUQuotaPeriodUSec", Value::Number(period)));
    }
    Some(all)
}

/// The mask of a list such as `0-3,7`.
fn list(text: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last > HIGHEST {
            return None;
        }
        for number in first..=last {
            let byte = usize::from(number / 8);
            if mask.len() <= byte {
                mask.resize(byte + 1, 0_u8);
            }
            *mask.get_mut(byte)? |= 1 << (number % 8);
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::resources::{Now, writes};

    fn of(resources: serde_json::Value, version: u32) -> Vec<(String, Value)> {
        let writes = writes(&serde_json::from_value(resources).unwrap(), &Now::default()).unwrap();
        properties(&writes, version).into_iter().map(|property| (property.name, property.value)).collect()
    }

    #[test]
    fn each_limit_that_has_a_property_is_one() {
        let number = |name: &str, value| (name.to_owned(), Value::Number(value));
        for (resources, wanted) in [
            (
                serde_json::json!({"memory": {"limit": 100, "swap": 150, "reservation": 50}}),
                vec![number("MemoryMax", 100), number("MemoryLow", 50), number("MemorySwapMax", 50)],
            ),
            (
                serde_json::json!({"memory": {"limit": -1}}),
                vec![number("MemoryMax", u64::MAX), number("MemorySwapMax", u64::MAX)],
            ),
            (serde_json::json!({"pids": {"limit": 0}}), vec![number("TasksMax", 1)]),
            (serde_json::json!({"cpu": {"shares": 1024}}), vec![number("CPUWeight", 100)]),
            (serde_json::json!({"cpu": {"shares": 1024, "idle": 1}}), vec![number("CPUWeight", 0)]),
            (
                serde_json::json!({"cpu": {"quota": 33333, "period": 200_000}}),
                vec![number("CPUQuotaPerSecUSec", 170_000), number("CPUQuotaPeriodUSec", 200_000)],
            ),
            (
                serde_json::json!({"cpu": {"quota": -1}}),
                vec![number("CPUQuotaPerSecUSec", u64::MAX), number("CPUQuotaPeriodUSec", 100_000)],
            ),
            (serde_json::json!({"blockIO": {"weight": 1000}}), vec![number("IOWeight", 10_000)]),
            (
                serde_json::json!({"cpu": {"cpus": "0-2,9", "mems": "0"}}),
                vec![
                    ("AllowedCPUs".to_owned(), Value::Mask(vec![7, 2])),
                    ("AllowedMemoryNodes".to_owned(), Value::Mask(vec![1])),
                ],
            ),
            (
                serde_json::json!({"memory": {"limit": 5}, "unified": {"memory.high": "7", "memory.max": "9"}}),
                vec![number("MemoryHigh", 7), number("MemoryMax", 9)],
            ),
            (serde_json::json!({"cpu": {"burst": 7}, "unified": {"memory.high": "5M"}}), vec![]),
        ] {
            assert_eq!(of(resources, 252), wanted);
        }
    }

    #[test]
    fn an_older_systemd_is_not_asked_for_what_it_does_not_know() {
        let resources = serde_json::json!({"cpu": {"quota": 100_000, "period": 100_000, "cpus": "0", "idle": 1}});
        assert_eq!(of(resources, 239), [("CPUQuotaPerSecUSec".to_owned(), Value::Number(1_000_000))]);
    }
}
