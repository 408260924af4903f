//! The root file system, masked and read-only paths, and the working directory.

use std::{fs, os::unix::fs::symlink};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::harness::{Bundle, own_gid, own_uid, skip, subordinate};

#[test]
fn a_missing_root_and_a_root_that_is_a_file_are_refused() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    for path in ["nowhere", "config.json", "/nowhere/at/all"] {
        bundle.config["root"]["path"] = path.into();
        bundle.is_refused(301, &[path])?;
    }
    bundle.config.as_object_mut().context("config")?.remove("root");
    bundle.is_refused_with_any(&[301, 803], &["root"])
}

#[test]
fn a_root_that_is_a_link_is_what_the_link_leads_to() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    let target = fs::canonicalize(bundle.rootfs("."))?;
    symlink("rootfs", bundle.path("bundle/link"))?;
    symlink(bundle.path("bundle/link"), bundle.path("bundle/again"))?;
    symlink("nowhere", bundle.path("bundle/dangling"))?;
    for path in ["link", "again"] {
        bundle.config["root"] = json!({"path": path, "readonly": path == "again"});
        let _running = bundle.started()?;
        assert_eq!(bundle.state()?["rootfs"], json!(target), "{path}");
        bundle.delete()?;
    }
    bundle.config["root"]["path"] = "dangling".into();
    bundle.is_refused(301, &["dangling", "does not exist"])?;
    let link = bundle.path("bundle/link").display().to_string();
    let words = ["run", "--userns=single", "--rootfs", &link, "--read-only", "--", "/bin/pura-probe", "true"];
    bundle.pura(&words).output()?.succeeds_silently()
}

#[test]
fn a_root_that_the_caller_may_not_enter_is_named_and_not_what_should_be_in_it() -> Result<()> {
    requires!(unprivileged, userns);
    if fs::read_dir("/root").is_ok() {
        return skip("closed /root", "everybody may read it");
    }
    let mut bundle = Bundle::new()?;
    bundle.config["root"]["path"] = "/root".into();
    bundle.is_refused(301, &["\"/root\" (root.path)", "you may not enter it: permission denied"])
}

#[test]
fn a_relative_root_starts_at_the_bundle_and_not_at_the_working_directory() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["cwd"])?;
    let run = bundle.with_bundle("run", &["c1"])?.cwd(std::path::Path::new("/"));
    assert_eq!(run.output()?.facts()?.get("cwd")?, "/");
    let mut bundle = Bundle::probing(&["cwd"])?;
    bundle.config["root"]["path"] = json!(bundle.rootfs(""));
    bundle.facts()?;
    Ok(())
}

#[test]
fn the_root_is_the_only_thing_there_is() -> Result<()> {
    requires!(userns);
    let facts = Bundle::probing(&["mounts"])?.facts()?;
    let targets: Vec<String> = facts.mounts().into_iter().map(|mount| mount.target).collect();
    let known = ["/", "/proc", "/dev", "/sys"];
    let is_known = |target: &String| known.contains(&target.as_str()) || target.starts_with("/dev/");
    assert!(targets.iter().all(is_known), "{targets:?}");
    assert_eq!(targets.iter().filter(|target| *target == "/").count(), 1, "{targets:?}");
    Ok(())
}

#[test]
fn a_read_only_root_refuses_writes_and_yet_has_its_mount_points() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["mounts"])?;
    bundle.config["root"]["readonly"] = true.into();
    bundle.mount("/made/for/it", "tmpfs", "tmpfs", &[])?;
    let facts = bundle.facts()?;
    assert!(facts.mount("/")?.has("ro"), "{facts:?}");
    assert!(facts.mount("/made/for/it")?.has("rw"), "{facts:?}");
    bundle.args(&["/bin/pura-probe", "write", "/tmp/file"]);
    let outcome = bundle.run()?;
    assert!(outcome.code() == 1 && outcome.stderr.contains("Read-only file system"), "{outcome:#?}");
    bundle.args(&["/bin/pura-probe", "write", "/made/for/it/file"]);
    bundle.run()?.succeeds_silently()
}

#[test]
fn the_propagation_of_the_root_is_what_the_config_says() -> Result<()> {
    requires!(userns);
    for (word, wanted) in
        [("", ""), ("private", ""), ("rprivate", ""), ("shared", "shared:"), ("unbindable", "unbindable")]
    {
        let mut bundle = Bundle::probing(&["mounts"])?;
        if !word.is_empty() {
            bundle.config["linux"]["rootfsPropagation"] = word.into();
        }
        let propagation = bundle.facts()?.mount("/")?.propagation;
        let is_so = if wanted.is_empty() { propagation.is_empty() } else { propagation.starts_with(wanted) };
        assert!(is_so, "{word:?} gives {propagation:?}");
    }
    let mut bundle = Bundle::new()?;
    bundle.config["linux"]["rootfsPropagation"] = "sideways".into();
    bundle.is_refused_with_any(&[802, 803], &["sideways"])
}

#[test]
fn masked_paths_are_empty_and_missing_ones_skipped() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["stat", "/etc/passwd", "/root", "/root/secret"])?;
    fs::write(bundle.rootfs("root/secret"), "secret")?;
    bundle.config["linux"]["maskedPaths"] = json!(["/etc/passwd", "/root", "/nowhere", "/proc/keys", "/proc/keys"]);
    let outcome = bundle.run()?;
    assert!(outcome.code() == 1 && outcome.stdout.contains("/etc/passwd=character"), "{outcome:#?}");
    assert!(outcome.stderr.contains("/root/secret"), "{outcome:#?}");
    bundle.args(&["/bin/pura-probe", "read", "/etc/passwd"]);
    assert_eq!(bundle.run()?.succeeds()?, "");
    bundle.args(&["/bin/pura-probe", "write", "/root/new"]);
    let outcome = bundle.run()?;
    assert!(outcome.code() == 1 && outcome.stderr.contains("Read-only file system"), "{outcome:#?}");
    Ok(())
}

#[test]
fn read_only_paths_cover_the_mounts_below_them() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["mounts"])?;
    bundle.mount("/root/below", "tmpfs", "tmpfs", &[])?;
    bundle.config["linux"]["readonlyPaths"] = json!(["/root", "/proc/sys", "/nowhere"]);
    let facts = bundle.facts()?;
    for target in ["/root", "/root/below", "/proc/sys"] {
        assert!(facts.mount(target)?.has("ro"), "{target}: {facts:?}");
    }
    Ok(())
}

#[test]
fn relative_masked_and_read_only_paths_fail() -> Result<()> {
    requires!(userns);
    for field in ["maskedPaths", "readonlyPaths"] {
        let mut bundle = Bundle::new()?;
        bundle.config["linux"][field] = json!(["proc/keys"]);
        bundle.is_refused(803, &[field, "proc/keys"])?;
    }
    Ok(())
}

#[test]
fn a_missing_working_directory_is_made_inside_the_root_even_through_a_link_that_points_out() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["cwd"])?;
    bundle.config["process"]["cwd"] = "/a/b".into();
    assert_eq!(bundle.facts()?.get("cwd")?, "/a/b");
    assert!(bundle.rootfs("a/b").is_dir(), "the directory was not made");
    let outside = bundle.path("outside");
    symlink(&outside, bundle.rootfs("link"))?;
    bundle.config["process"]["cwd"] = "/link/c".into();
    let cwd = bundle.facts()?.get("cwd")?.to_owned();
    assert_eq!(cwd, format!("{}/c", outside.display()));
    assert!(!outside.exists(), "something was made outside");
    Ok(())
}

#[test]
fn a_relative_working_directory_or_one_that_leads_out_is_refused() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    for cwd in ["tmp", "", "./tmp"] {
        bundle.config["process"]["cwd"] = cwd.into();
        bundle.is_refused(803, &["cwd"])?;
    }
    for number in [3, 7, 9] {
        let cwd = format!("/proc/self/fd/{number}");
        bundle.config["process"]["cwd"] = cwd.as_str().into();
        bundle.is_refused_with_any(&[307, 611], &[&cwd])?;
    }
    bundle.config["process"]["cwd"] = "/etc/passwd".into();
    bundle.is_refused(611, &["chdir to cwd", "/etc/passwd"])
}

#[test]
fn the_host_name_and_the_domain_name_are_set_in_a_namespace_of_their_own() -> Result<()> {
    requires!(userns);
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut bundle = Bundle::probing(&["hostname"])?;
    bundle.config["hostname"] = "inside".into();
    bundle.config["domainname"] = "example.org".into();
    let facts = bundle.facts()?;
    assert_eq!((facts.get("hostname")?, facts.get("domainname")?), ("inside", "example.org"));
    bundle.share("uts");
    bundle.is_refused_with_any(&[803, 806], &["hostname", "uts"])?;
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname")?, host);
    Ok(())
}

#[test]
fn the_working_directory_is_entered_with_the_final_ids() -> Result<()> {
    requires!(unprivileged, userns, subids, busybox);
    let script = "mkdir -m 700 /home5 && chown 5:5 /home5 && ls -ldn /home5";
    let mut bundle = Bundle::with_args(&[
        "/bin/sh",
        "-c",
        &script.replace("mkdir", "busybox mkdir").replace("chown", "busybox chown"),
    ])?;
    let (uids, gids) = (subordinate("uid")?, subordinate("gid")?);
    bundle.map(&[(0, own_uid(), 1), (1, uids, 1000)], &[(0, own_gid(), 1), (1, gids, 1000)]);
    let own = ["CAP_CHOWN", "CAP_DAC_OVERRIDE"];
    bundle.config["process"]["capabilities"] = json!({"bounding": own, "permitted": own, "effective": own});
    bundle.run()?.succeeds()?;
    bundle.config["process"].as_object_mut().context("process")?.remove("capabilities");
    bundle.args(&["/bin/pura-probe", "cwd"]);
    bundle.config["process"]["cwd"] = "/home5".into();
    bundle.config["process"]["user"] = json!({"uid": 5, "gid": 5});
    assert_eq!(bundle.facts()?.get("cwd")?, "/home5");
    // And by nobody else, although the set-up might.
    bundle.config["process"]["user"] = json!({"uid": 6, "gid": 6});
    bundle.is_refused(611, &["chdir to cwd \"/home5\"", "permission denied"])
}
