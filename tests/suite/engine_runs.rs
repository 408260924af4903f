//! The configs that engines really send, run: each in the situation that it was captured in.
//!
//! Rootless engines call the runtime as root of a user namespace of their own, with the subordinate ids; so does this.
//! What existed on the capturing machine alone is replaced, by one rule for all of them: the root, sources of binds below
//! the engines' directories, namespaces, ids above those that a tester has, the program. Devices that this host lacks are
//! left out, and so are limits, which need a delegated cgroup.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use crate::{
    engine_configs::FIXTURES,
    harness::{Bundle, Facts},
};

/// Directories that only the capturing machine had.
const ENGINES_OWN: [&str; 5] =
    ["/home/user", "/run/user", "/run/containers", "/var/lib/containers", "/var/tmp/buildah"];

/// Sources that are directories, by their destinations.
const DIRECTORIES: [&str; 8] = ["/dev/shm", "/run/secrets", "/cache", "/v", "/v1", "/v2", "/v2b", "/e"];

/// Captured without a seccomp profile; from the others the engine's default was taken out.
const UNCONFINED: [&str; 3] = ["p4-privileged", "p4root-privileged", "p4-security-opt"];

/// What cannot run for an ordinary user, with the code of the error, and why.
const REFUSED: [(&str, u32, &str); 2] = [
    ("p4root-uidmap-idmap", 312, "only real root maps the ids of a file system of the host"),
    ("p6-idmap", 312, "only real root maps the ids of a file system of the host"),
];

/// Ids that every tester has: its own, and the subordinate ones that `requires!(subids)` promises.
const IDS: u64 = 60_000;

/// A bundle with the config, as above.
fn adapted(name: &str, text: &str) -> Result<Bundle> {
    let mut bundle = Bundle::new()?;
    let mut config: Value = serde_json::from_str(text)?;
    config["root"]["path"] = "rootfs".into();
    mounts(&bundle, &mut config)?;
    ids(&mut config["linux"])?;
    config["mounts"].as_array_mut().into_iter().flatten().try_for_each(ids)?;
    let linux = config["linux"].as_object_mut().context("linux")?;
    linux.remove("resources");
    if let Some(devices) = linux.get_mut("devices").and_then(Value::as_array_mut) {
        devices.retain(is_on_host);
    }
    for namespace in linux["namespaces"].as_array_mut().context("namespaces")? {
        if namespace["path"].is_string() && namespace["type"] == "network" {
            namespace["path"] = json!(bundle.path("net"));
        }
    }
    if !linux.contains_key("seccomp") && !UNCONFINED.contains(&name) {
        let of = if name.starts_with("p6") { "p6-net-none" } else { "p4-net-none" };
        let (_, text) = FIXTURES.iter().find(|(known, _)| *known == of).context("profile")?;
        linux.insert("seccomp".to_owned(), serde_json::from_str::<Value>(text)?["linux"]["seccomp"].clone());
    }
    // Hooks have a test of their own.
    config.as_object_mut().context("config")?.remove("hooks");
    let process = config["process"].as_object_mut().context("process")?;
    process.insert("terminal".to_owned(), false.into());
    process.insert("args".to_owned(), json!(["/bin/pura-probe", "all"]));
    let env = process["env"].as_array_mut().context("env")?;
    env.push(format!("PURA_TEST={}", bundle.dir().display()).into());
    bundle.config = config;
    Ok(bundle)
}

/// Leads the mappings of an object to ids that the tester has.
fn ids(of: &mut Value) -> Result<()> {
    for key in ["uidMappings", "gidMappings"] {
        for line in of.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            let (host, size) = (line["hostID"].as_u64().context("hostID")?, line["size"].as_u64().context("size")?);
            let host = if host < IDS { host } else { 1 };
            line["hostID"] = host.into();
            line["size"] = size.min(IDS - host).into();
        }
    }
    Ok(())
}

fn mounts(bundle: &Bundle, config: &mut Value) -> Result<()> {
    let own = bundle.path("bundle/sources");
    fs::create_dir(&own)?;
    let all = config["mounts"].as_array_mut().context("mounts")?;
    // Devices and cgroup hierarchies that this host lacks.
    all.retain(|mount| {
        let source = mount["source"].as_str().unwrap_or_default();
        !["/dev/", "/sys/"].iter().any(|of| source.starts_with(of)) || Path::new(source).exists()
    });
    for (index, mount) in all.iter_mut().enumerate() {
        let source = mount["source"].as_str().unwrap_or_default().to_owned();
        let destination = mount["destination"].as_str().unwrap_or_default().to_owned();
        let is_engines = ENGINES_OWN.iter().any(|of| source.starts_with(of));
        let replacement = own.join(index.to_string());
        if source == "/etc/mtab" {
            symlink("/proc/mounts", &replacement)?;
        } else if is_engines && DIRECTORIES.contains(&destination.as_str()) {
            fs::create_dir(&replacement)?;
        } else if is_engines {
            fs::write(&replacement, "")?;
        } else {
            continue;
        }
        mount["source"] = json!(replacement);
        for option in mount["options"].as_array_mut().into_iter().flatten() {
            for kind in ["upperdir", "workdir"] {
                if option.as_str().is_some_and(|word| word.starts_with(kind)) {
                    let directory = own.join(format!("{index}.{kind}"));
                    fs::create_dir(&directory)?;
                    *option = format!("{kind}={}", directory.display()).into();
                }
            }
        }
    }
    Ok(())
}

/// Whether a device of `linux.devices` is at its place here too.
fn is_on_host(device: &Value) -> bool {
    let found = device["path"].as_str().and_then(|path| fs::metadata(path).ok());
    found.is_some_and(|found| {
        let is_kind = if device["type"] == "b" {
            found.file_type().is_block_device()
        } else {
            found.file_type().is_char_device()
        };
        let numbers = [major(found.rdev()), minor(found.rdev())];
        is_kind && [&device["major"], &device["minor"]].map(Value::as_u64) == numbers.map(Some)
    })
}

/// The program found what its config says.
fn holds(name: &str, config: &Value, facts: &Facts) -> Result<()> {
    let user = &config["process"]["user"];
    for (fact, id) in [("uid", &user["uid"]), ("gid", &user["gid"])] {
        ensure!(facts.get(fact)? == id.as_u64().unwrap_or(0).to_string(), "{name}: {fact}: {facts:?}");
    }
    let hostname = config["hostname"].as_str().unwrap_or_default();
    ensure!(hostname.is_empty() || facts.get("hostname")? == hostname, "{name}: {facts:?}");
    let filter = if config["linux"]["seccomp"].is_object() { "2" } else { "0" };
    ensure!(facts.get("Seccomp")? == filter, "{name}: {facts:?}");
    let new_privileges = if config["process"]["noNewPrivileges"] == true { "1" } else { "0" };
    ensure!(facts.get("NoNewPrivs")? == new_privileges, "{name}: {facts:?}");
    let bounding = config["process"]["capabilities"]["bounding"].as_array().map_or(0, Vec::len);
    let found = u64::from_str_radix(facts.get("CapBnd")?, 16)?.count_ones();
    ensure!(usize::try_from(found)? == bounding, "{name}: {bounding} capabilities: {facts:?}");
    ensure!(facts.mount("/")?.has("ro") == (config["root"]["readonly"] == true), "{name}: {facts:?}");
    for mount in config["mounts"].as_array().into_iter().flatten() {
        let destination = mount["destination"].as_str().unwrap_or_default();
        let is_link = mount["options"].as_array().is_some_and(|all| all.contains(&"copy-symlink".into()));
        if !is_link {
            facts.mount(destination).with_context(|| name.to_owned())?;
        }
    }
    for namespace in config["linux"]["namespaces"].as_array().into_iter().flatten() {
        let is_joined = namespace["path"].is_string();
        if namespace["type"] == "pid" && !is_joined {
            ensure!(facts.get("pid")? == "1", "{name}: {facts:?}");
        }
        if namespace["type"] == "network" && facts.get("outer.net").is_ok() {
            ensure!((facts.get("ns.net")? == facts.get("outer.net")?) == is_joined, "{name}: {facts:?}");
        }
    }
    Ok(())
}

/// The engine's id for root of the container; 0 when the engine's own root has another one in the container, or none.
fn root_of(config: &Value) -> String {
    let lines = || config["linux"]["uidMappings"].as_array().into_iter().flatten();
    let first = lines().find(|line| line["containerID"] == 0).and_then(|line| line["hostID"].as_u64());
    let maps_engine = lines().any(|line| line["hostID"] == 0);
    first.filter(|_| !maps_engine).unwrap_or(0).to_string()
}

/// Whether a config joins namespaces of another container.
fn joins_a_container(config: &Value) -> bool {
    let all = config["linux"]["namespaces"].as_array().into_iter().flatten();
    all.into_iter().any(|namespace| namespace["path"].as_str().is_some_and(|path| path.ends_with("/ipc")))
}

#[test]
fn every_captured_config_runs_as_its_engine_would_run_it_but_for_a_few() -> Result<()> {
    requires!(unprivileged, userns, subids, overlay);
    // The network of the container, which the engine has made, and another for the engine; the image belongs to the
    // container's root.
    let script = "echo outer.net=$(readlink /proc/self/ns/net); cd \"$0\" && ln -s /proc/$$/ns/net net && \
                  chown -R $1 bundle/rootfs && shift && unshare --net \"$@\"";
    let engine = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--net", "sh", "-c", script];
    for (name, text) in FIXTURES {
        let bundle = adapted(name, text)?;
        if joins_a_container(&bundle.config) {
            continue;
        }
        let (directory, owner) = (bundle.dir().to_string_lossy().into_owned(), root_of(&bundle.config));
        let engine = [&engine[..], &[&directory, &owner]].concat();
        let outcome = bundle.through(&engine, &bundle.with_bundle("run", &["c1"])?).output()?;
        match REFUSED.iter().find(|(known, ..)| known == name) {
            Some((_, code, why)) => {
                ensure!(
                    outcome.code() == 125 && outcome.stderr.contains(&format!("PURA-{code}")),
                    "{why}: {outcome:#?}"
                );
            }
            None => holds(name, &bundle.config, &outcome.facts().with_context(|| (*name).to_owned())?)?,
        }
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn captured_members_of_a_pod_run_in_the_namespaces_of_another_container() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut members = 0;
    for (name, text) in FIXTURES {
        let mut bundle = adapted(name, text)?;
        if !joins_a_container(&bundle.config) {
            continue;
        }
        members += 1;
        let mut infra = Bundle::probing(&["sleep"])?;
        infra.share_user();
        let running = infra.started()?;
        let pid = infra.pid()?;
        for namespace in bundle.config["linux"]["namespaces"].as_array_mut().context("namespaces")? {
            let kind = namespace["type"].as_str().unwrap_or_default();
            let file = if kind == "network" { "net" } else { kind };
            if namespace["path"].is_string() {
                namespace["path"] = format!("/proc/{pid}/ns/{file}").into();
            }
        }
        let facts = bundle.facts().with_context(|| (*name).to_owned())?;
        holds(name, &bundle.config, &facts)?;
        for file in ["ipc", "net", "pid", "user", "uts"] {
            let of_infra = fs::read_link(format!("/proc/{pid}/ns/{file}"))?;
            assert_eq!(facts.get(&format!("ns.{file}"))?, of_infra.to_string_lossy(), "{name}: {file}");
        }
        drop(running);
        infra.delete()?;
    }
    assert_eq!(members, 2);
    Ok(())
}

mod root {
    use super::*;

    #[test]
    fn captured_configs_of_root_run_for_root() -> Result<()> {
        requires!(root, overlay);
        for (name, text) in FIXTURES.iter().filter(|(name, _)| name.contains("root")) {
            let bundle = adapted(name, text)?;
            if joins_a_container(&bundle.config) {
                continue;
            }
            // As the engine does with an image for a container of other ids.
            let owner = root_of(&bundle.config);
            let status = std::process::Command::new("chown").args(["-R", &owner]).arg(bundle.rootfs("")).status()?;
            ensure!(status.success(), "chown: {status}");
            let outcome = bundle.with_bundle("run", &["c1"])?.output()?;
            holds(name, &bundle.config, &outcome.facts().with_context(|| (*name).to_owned())?)?;
            bundle.is_clean()?;
        }
        Ok(())
    }
}
