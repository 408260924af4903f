//! What a cgroup has used, in the words of `events --stats`: cgroup-v2.rst on the side of the kernel, go-runc's
//! `Stats` on the other. A file that is not there, because its controller is not, counts as nothing used.

use std::{fs, path::Path};

use serde_json::{Map, Value, json};

/// All of it, as one object.
pub fn of(directory: &Path) -> Value {
    let files = Files(directory);
    json!({
        "cpu": files.cpu(),
        "memory": files.memory(),
        "pids": { "current": files.number("pids.current"), "limit": files.limit("pids.max").unwrap_or(0) },
        "blkio": files.io(),
        "hugetlb": files.huge_pages(),
        "network_interfaces": null,
    })
}

/// How many processes the kernel has ended for want of memory: `memory.events`.
pub fn oom_kills(directory: &Path) -> u64 {
    Files(directory).pairs("memory.events").get("oom_kill").and_then(Value::as_u64).unwrap_or(0)
}

struct Files<'a>(&'a Path);

impl Files<'_> {
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        self.text(name).trim().parse().unwrap_or(0)
    }

    /// A number, or nothing for "max".
    fn limit(&self, name: &str) -> Option<u64> {
        self.text(name).trim().parse().ok()
    }

    /// Lines of a word and a number.
    fn pairs(&self, name: &str) -> Map<String, Value> {
        let text = self.text(name);
        let pair = |line: &str| {
            line.split_once(' ').and_then(|(key, value)| Some((key.to_owned(), value.parse::<u64>().ok()?.into())))
        };
        text.lines().filter_map(pair).collect()
    }

    fn cpu(&self) -> Value {
        let stat = self.pairs("cpu.stat");
        let count = |key: &str| stat.get(key).and_then(Value::as_u64).unwrap_or(0);
        let nanoseconds = |key: &str| count(key).saturating_mul(1000);
        json!({
            "usage": {
                "total": nanoseconds("usage_usec"),
                "kernel": nanoseconds("system_usec"),
                "user": nanoseconds("user_usec"),
            },
            "throttling": {
                "periods": count("nr_periods"),
                "throttledPeriods": count("nr_throttled"),
                "throttledTime": nanoseconds("throttled_usec"),
            },
        })
    }

    fn memory(&self) -> Value {
        let raw = self.pairs("memory.stat");
        let entry = |usage: u64, limit: Option<u64>, max: u64, failcnt: u64| json!({ "limit": limit.unwrap_or(u64::MAX), "usage": usage, "max": max, "failcnt": failcnt });
        let failures = self.pairs("memory.events").get("max").and_then(Value::as_u64).unwrap_or(0);
        json!({
            "cache": raw.get("file").cloned().unwrap_or_else(|| 0.into()),
            "usage": entry(self.number("memory.current"), self.limit("memory.max"), self.number("memory.peak"), failures),
            "swap": entry(self.number("memory.swap.current"), self.limit("memory.swap.max"), 0, 0),
            "kernel": entry(raw.get("kernel").and_then(Value::as_u64).unwrap_or(0), None, 0, 0),
            "kernelTCP": entry(raw.get("sock").and_then(Value::as_u64).unwrap_or(0), None, 0, 0),
            "raw": raw,
        })
    }

    fn io(&self) -> Value {
        let text = self.text("io.stat");
        let (mut bytes, mut operations) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
            let device = (major.parse::<u64>().unwrap_or(0), minor.parse::<u64>().unwrap_or(0));
            for (name, value) in words.filter_map(|word| word.split_once('=')) {
                let (list, operation) = match name {
                    "rbytes" => (&mut bytes, "Read"),
                    "wbytes" => (&mut bytes, "Write"),
                    "rios" => (&mut operations, "Read"),
                    "wios" => (&mut operations, "Write"),
                    _ => continue,
                };
                let value = value.parse::<u64>().unwrap_or(0);
                list.push(json!({ "major": device.0, "minor": device.1, "op": operation, "value": value }));
            }
        }
        json!({ "ioServiceBytesRecursive": bytes, "ioServicedRecursive": operations })
    }

    fn huge_pages(&self) -> Map<String, Value> {
        let names = fs::read_dir(self.0).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let sizes = names.filter_map(|name| {
            Some(name.to_str()?.strip_prefix("hugetlb.")?.strip_suffix(".current")?.to_owned())
                .filter(|size| !size.contains('.'))
        });
        sizes
            .map(|size| {
                let usage = self.number(&format!("hugetlb.{size}.current"));
                (size, json!({ "usage": usage, "max": 0, "failcnt": 0 }))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_become_what_engines_read() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cpu.stat", "usage_usec 3\nuser_usec 2\nsystem_usec 1\nnr_throttled 4\n"),
            ("memory.current", "100\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\nfile 7\nkernel 5\n"),
            ("memory.events", "low 0\nmax 6\noom 2\noom_kill 1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "9\n"),
            ("io.stat", "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
        ] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let stats = of(directory.path());
        assert_eq!(stats["cpu"]["usage"], json!({"total": 3000, "kernel": 1000, "user": 2000}));
        assert_eq!(stats["cpu"]["throttling"]["throttledPeriods"], 4);
        assert_eq!(stats["memory"]["usage"], json!({"limit": u64::MAX, "usage": 100, "max": 0, "failcnt": 6}));
        assert_eq!((&stats["memory"]["cache"], &stats["memory"]["raw"]["anon"]), (&7.into(), &1.into()));
        assert_eq!(stats["pids"], json!({"current": 3, "limit": 9}));
        let write = json!({"major": 8, "minor": 16, "op": "Write", "value": 2});
        assert_eq!(stats["blkio"]["ioServiceBytesRecursive"][1], write);
        assert_eq!(stats["hugetlb"], json!({"2MB": {"usage": 0, "max": 0, "failcnt": 0}}));
        assert_eq!(oom_kills(directory.path()), 1);
    }

    #[test]
    fn without_controllers_nothing_is_used() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(of(directory.path())["cpu"]["usage"]["total"], 0);
        assert_eq!(oom_kills(directory.path()), 0);
    }
}
