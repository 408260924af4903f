//! spec and features: what pura writes for people and tells engines.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::harness::{Bundle, Pura};

#[test]
fn the_config_that_spec_writes_runs_for_its_caller() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    let path = bundle.path("bundle");
    bundle.pura(&["spec", "--rootless"]).cwd(&path).output()?.succeeds_silently()?;
    bundle.config = serde_json::from_slice(&fs::read(path.join("config.json"))?)?;
    assert_eq!(bundle.config["process"]["args"][0], "sh");
    bundle.config["process"]["args"] = serde_json::json!(["/bin/pura-probe", "ids"]);
    let mark = format!("PURA_TEST={}", bundle.dir().display());
    bundle.push("/process/env", mark.into())?;
    assert_eq!(bundle.facts()?.get("uid")?, "0");
    Ok(())
}

#[test]
fn spec_never_overwrites() -> Result<()> {
    let bundle = Bundle::new()?;
    fs::write(bundle.path("bundle/config.json"), "precious")?;
    let outcome = bundle.pura(&["spec", "--bundle"]).args(&[bundle.path("bundle")]).output()?;
    outcome.fails(1, 716, &["config.json", "already exists"])?;
    assert_eq!(fs::read_to_string(bundle.path("bundle/config.json"))?, "precious");
    Ok(())
}

#[test]
fn spec_writes_to_another_name_or_to_standard_output() -> Result<()> {
    let bundle = Bundle::new()?;
    let outcome = bundle.pura(&["spec", "-f", "-"]).output()?;
    let config: Value = serde_json::from_str(outcome.succeeds()?)?;
    let capabilities = &config["process"]["capabilities"];
    for set in ["inheritable", "ambient"] {
        assert!(capabilities[set].as_array().is_none_or(Vec::is_empty), "{set}: {capabilities}");
    }
    assert_eq!(config["process"]["noNewPrivileges"], true);
    assert!(
        config["linux"]["namespaces"].as_array().is_some_and(|list| list.iter().any(|entry| entry["type"] == "user"))
    );
    let elsewhere = bundle.path("bundle/other.json");
    bundle.pura(&["spec", "-f", "other.json", "-b"]).args(&[bundle.path("bundle")]).output()?.succeeds_silently()?;
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(elsewhere)?)?, config);
    Ok(())
}

#[test]
fn features_is_one_document_that_needs_no_state_root() -> Result<()> {
    let bundle = Bundle::new()?;
    let outcome = Pura::new(bundle.dir(), &["--root", "/nowhere", "features"]).output()?;
    let features: Value = serde_json::from_str(outcome.succeeds()?)?;
    assert_eq!((&features["ociVersionMin"], &features["ociVersionMax"]), (&"1.0.0".into(), &"1.3.0".into()));
    let namespaces = features["linux"]["namespaces"].as_array().context("namespaces")?;
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
        assert!(namespaces.contains(&kind.into()), "{kind}");
    }
    let options = features["mountOptions"].as_array().context("mountOptions")?;
    assert!(options.contains(&"rro".into()) && options.iter().all(|word| !word.as_str().unwrap_or("=").contains('=')));
    for word in ["io.kubernetes", "ociVersion"] {
        assert!(features.get(word).is_none(), "{word}");
    }
    Ok(())
}

#[test]
fn create_accepts_both_advertised_versions_and_those_between() -> Result<()> {
    requires!(userns);
    for version in ["1.0.0", "1.0.2-dev", "1.1.0+build", "1.3.0", "1.9.0"] {
        let mut bundle = Bundle::probing(&["true"])?;
        bundle.config["ociVersion"] = version.into();
        bundle.run()?.succeeds_silently()?;
    }
    Ok(())
}

#[test]
fn every_advertised_mount_option_is_accepted_by_create() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["mounts"])?;
    let outcome = bundle.pura(&["features"]).output()?;
    let features: Value = serde_json::from_str(outcome.succeeds()?)?;
    let special = ["bind", "rbind", "remount", "idmap", "ridmap", "copy-symlink", "src-nofollow", "dest-nofollow"];
    let options = features["mountOptions"].as_array().context("mountOptions")?;
    let words: Vec<&str> = options.iter().filter_map(Value::as_str).filter(|word| !special.contains(word)).collect();
    for word in &words {
        bundle.mount(&format!("/t/{word}"), "tmpfs", "tmpfs", &[word])?;
    }
    assert!(words.len() > 40, "{words:?}");
    bundle.facts()?;
    Ok(())
}

/// A list of features.
fn listed(features: &Value, pointer: &str) -> Result<Vec<String>> {
    let list = features.pointer(pointer).and_then(Value::as_array).with_context(|| pointer.to_owned())?;
    Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

#[test]
fn everything_that_is_advertised_is_accepted_by_create() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    let outcome = bundle.pura(&["features"]).output()?;
    let features: Value = serde_json::from_str(outcome.succeeds()?)?;
    let agent = bundle.path("agent.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&agent)?;
    let capabilities = listed(&features, "/linux/capabilities")?;
    bundle.config["process"]["capabilities"] = serde_json::json!({
        "bounding": capabilities, "permitted": capabilities, "effective": capabilities,
        "inheritable": capabilities, "ambient": capabilities
    });
    let namespaces: Vec<_> =
        listed(&features, "/linux/namespaces")?.iter().map(|kind| serde_json::json!({"type": kind})).collect();
    assert_eq!(namespaces.len(), 8);
    bundle.config["linux"]["namespaces"] = namespaces.into();
    bundle.config["linux"]["uidMappings"] = Value::Null;
    bundle.config["linux"]["gidMappings"] = Value::Null;
    for kind in listed(&features, "/hooks")? {
        // Not under the filter, which is about the program.
        if kind != "startContainer" {
            bundle.config["hooks"][&kind] = serde_json::json!([{"path": "/bin/true"}]);
        }
    }
    // On calls that the program does not make.
    let rules: Vec<Value> = listed(&features, "/linux/seccomp/actions")?
        .iter()
        .flat_map(|action| {
            let name = |call: &str| serde_json::json!({"names": [call], "action": action});
            [name("quotactl"), name("swapon")]
        })
        .collect();
    let tests: Vec<Value> = listed(&features, "/linux/seccomp/operators")?
        .iter()
        .map(|operator| {
            serde_json::json!({"names": ["swapoff"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": operator}]})
        })
        .collect();
    assert_eq!((rules.len(), tests.len()), (18, 7));
    let syscalls = [rules, tests].concat();
    bundle.config["linux"]["seccomp"] = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": agent,
        "architectures": listed(&features, "/linux/seccomp/archs")?,
        "flags": listed(&features, "/linux/seccomp/supportedFlags")?,
        "syscalls": syscalls
    });
    let _created = bundle.created()?;
    bundle.delete()?;
    // Modes of memory, of which a kernel or a machine may lack one: told apart from those that pura does not know.
    for mode in listed(&features, "/linux/memoryPolicy/modes")? {
        let mut one = Bundle::probing(&["true"])?;
        let nodes = if matches!(mode.as_str(), "MPOL_DEFAULT" | "MPOL_LOCAL") { "" } else { "0" };
        one.config["linux"]["memoryPolicy"] = serde_json::json!({"mode": mode, "nodes": nodes});
        let outcome = one.run()?;
        assert!(outcome.status.success() || outcome.stderr.contains("PURA-511"), "{mode}: {outcome:?}");
    }
    Ok(())
}
