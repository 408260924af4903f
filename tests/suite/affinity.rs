//! `process.execCPUAffinity`: where `exec` runs, and init does not.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::harness::{Bundle, Outcome};

/// The CPUs that a status of /proc names.
fn allowed(status: &str) -> Result<String> {
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    Ok(line.context("no Cpus_allowed_list")?.trim().to_owned())
}

/// The first and the last CPU that the tester may use; one and the same on a small machine.
fn own() -> Result<(String, String)> {
    let all = allowed(&fs::read_to_string("/proc/self/status")?)?;
    let mut ends = all.split([',', '-']);
    let first = ends.next().unwrap_or_default().to_owned();
    Ok((first.clone(), ends.next_back().unwrap_or(&first).to_owned()))
}

fn exec(bundle: &Bundle, affinity: &Value) -> Result<Outcome> {
    let file = bundle.path("process.json");
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["/bin/pura-probe", "read", "/proc/self/status"]);
    process["execCPUAffinity"] = affinity.clone();
    fs::write(&file, process.to_string())?;
    bundle.pura(&["exec", "--process"]).args(&[&file]).args(&["c1"]).output()
}

#[test]
fn exec_runs_where_its_affinity_says_and_init_does_not() -> Result<()> {
    requires!(userns);
    let (first, last) = own()?;
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["process"]["execCPUAffinity"] = json!({"final": last});
    let _running = bundle.started()?;
    let init = fs::read_to_string(format!("/proc/{}/status", bundle.pid()?))?;
    assert_eq!(allowed(&init)?, allowed(&fs::read_to_string("/proc/self/status")?)?);
    // What the process leaves out is the container's.
    assert_eq!(allowed(exec(&bundle, &Value::Null)?.succeeds()?)?, last);
    assert_eq!(allowed(exec(&bundle, &json!({"initial": last, "final": first}))?.succeeds()?)?, first);
    assert_eq!(allowed(exec(&bundle, &json!({"initial": first}))?.succeeds()?)?, first);
    let plain = bundle.pura(&["exec", "c1", "/bin/pura-probe", "read", "/proc/self/status"]).output()?;
    assert_eq!(allowed(plain.succeeds()?)?, last);
    bundle.delete()
}

#[test]
fn an_affinity_that_cannot_be_is_refused_by_field() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    for (part, list) in [("initial", "3-1"), ("final", "a"), ("final", "1024")] {
        let words = ["process.execCPUAffinity", list];
        exec(&bundle, &json!({ part: list }))?.fails(125, 803, &words)?;
        let mut other = Bundle::probing(&["true"])?;
        other.config["process"]["execCPUAffinity"] = json!({ part: list });
        other.is_refused(803, &words)?;
    }
    for part in ["initial", "final"] {
        let words = [&format!("(process.execCPUAffinity.{part})"), "none of the CPUs is there for it"];
        exec(&bundle, &json!({ part: "1023" }))?.fails(125, 510, &words)?;
    }
    bundle.delete()
}
