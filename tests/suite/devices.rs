//! /dev: the default devices, and traps in the image.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::Path,
};

use anyhow::Result;

use crate::harness::Bundle;

const DEFAULT: [(&str, &str); 6] =
    [("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0")];

#[test]
fn default_devices_have_the_right_numbers() -> Result<()> {
    requires!(userns);
    let paths: Vec<String> = DEFAULT.iter().map(|(name, _)| format!("/dev/{name}")).collect();
    let words: Vec<&str> = std::iter::once("stat").chain(paths.iter().map(String::as_str)).collect();
    let facts = Bundle::probing(&words)?.facts()?;
    for (name, numbers) in DEFAULT {
        let shown = facts.get(&format!("/dev/{name}"))?;
        assert!(shown.starts_with("character 666 ") && shown.ends_with(&format!(" {numbers}")), "{name}: {shown}");
    }
    Ok(())
}

#[test]
fn default_devices_open_for_writing() -> Result<()> {
    requires!(userns);
    for name in ["null", "zero", "random", "urandom"] {
        Bundle::probing(&["write", &format!("/dev/{name}"), "x"])?.run()?.succeeds_silently()?;
    }
    Ok(())
}

#[test]
fn the_links_are_there_exactly_when_proc_is() -> Result<()> {
    requires!(userns, busybox);
    let script = "cd /dev && for name in fd stdin stdout stderr core ptmx; do echo $name=$(readlink $name); done";
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", &script.replace("readlink", "busybox readlink")])?;
    let facts = bundle.facts()?;
    let links = [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")];
    for (name, target) in links {
        assert_eq!(facts.get(name)?, format!("/proc/self/{target}"), "{name}");
    }
    // A kernel may be built without it.
    let core = if Path::new("/proc/kcore").exists() { "/proc/kcore" } else { "" };
    assert_eq!(facts.get("core")?, core);
    assert!(["pts/ptmx", "/dev/pts/ptmx"].contains(&facts.get("ptmx")?), "{facts:?}");
    bundle.unmount("/proc");
    let facts = bundle.facts()?;
    for name in links.map(|(name, _)| name).iter().chain(&["core"]) {
        assert_eq!(facts.get(name)?, "", "{name}");
    }
    Ok(())
}

#[test]
fn ptmx_opens_the_devpts_of_the_container() -> Result<()> {
    requires!(userns, busybox);
    let script = "exec 3<>/dev/ptmx && ls /dev/pts";
    let bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
    let outcome = bundle.run()?;
    assert_eq!(outcome.succeeds()?.split_whitespace().collect::<Vec<_>>(), ["0", "ptmx"]);
    Ok(())
}

#[test]
fn links_in_the_image_lead_nothing_outside() -> Result<()> {
    requires!(userns);
    // /dev itself, with a tmpfs to be mounted there, and single devices where the image's own /dev is used.
    let outside_of = |bundle: &Bundle| -> Result<_> {
        let outside = bundle.path("outside");
        fs::create_dir(&outside)?;
        fs::write(outside.join("file"), "precious")?;
        Ok(outside)
    };
    let bundle = Bundle::probing(&["true"])?;
    let outside = outside_of(&bundle)?;
    fs::remove_dir(bundle.rootfs("dev"))?;
    symlink(&outside, bundle.rootfs("dev"))?;
    let outcome = bundle.run()?;
    assert!(outcome.status.success() || outcome.code() == 125, "{outcome:#?}");
    assert_eq!(fs::read_dir(&outside)?.count(), 1, "something was made outside");
    for name in ["null", "console", "ptmx", "stdout"] {
        let mut bundle = Bundle::probing(&["true"])?;
        let outside = outside_of(&bundle)?;
        bundle.unmount("/dev");
        symlink(outside.join("file"), bundle.rootfs("dev").join(name))?;
        let outcome = bundle.run()?;
        assert!(outcome.status.success() || outcome.code() == 125, "{outcome:#?}");
        assert_eq!(fs::read_to_string(outside.join("file"))?, "precious", "{name}");
        assert_eq!(fs::read_dir(&outside)?.count(), 1, "something was made outside");
    }
    Ok(())
}

#[test]
fn standard_streams_that_are_devices_keep_their_owner() -> Result<()> {
    requires!(userns);
    let before = fs::metadata("/dev/null")?;
    Bundle::probing(&["true"])?.run()?.succeeds_silently()?;
    let after = fs::metadata("/dev/null")?;
    assert_eq!((before.uid(), before.gid(), before.mode()), (after.uid(), after.gid(), after.mode()));
    Ok(())
}

#[test]
fn device_rules_of_an_ordinary_user_are_moot() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["write", "/dev/null", "x"])?;
    bundle.config["linux"]["resources"] = serde_json::json!({"devices": [{"allow": false, "access": "rwm"}]});
    bundle.run()?.succeeds_silently()
}

/// A device as `linux.devices` has it.
fn device(path: &str, kind: &str, numbers: (u32, u32)) -> serde_json::Value {
    serde_json::json!({"path": path, "type": kind, "major": numbers.0, "minor": numbers.1})
}

#[test]
fn a_device_of_the_config_is_found_by_number_and_put_anywhere() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["stat", "/dev/foo", "/deep/er/null", "/dev/zero", "/dev/full"])?;
    // /dev/zero: the host has another device of that name.
    bundle.config["linux"]["devices"] = serde_json::json!([
        device("/dev/foo", "c", (1, 3)),
        device("/deep/er/null", "u", (1, 3)),
        device("/dev/zero", "c", (1, 3)),
        device("/dev/full", "c", (1, 7)),
    ]);
    // The second time, what was made in the image is there already.
    for _ in 0..2 {
        let facts = bundle.facts()?;
        for (path, numbers) in
            [("/dev/foo", "1:3"), ("/deep/er/null", "1:3"), ("/dev/zero", "1:3"), ("/dev/full", "1:7")]
        {
            let is_it =
                facts.get(path)?.starts_with("character ") && facts.get(path)?.ends_with(&format!(" {numbers}"));
            assert!(is_it, "{path}: {facts:?}");
        }
    }
    bundle.args(&["/bin/pura-probe", "write", "/deep/er/null"]);
    bundle.run()?.succeeds_silently()
}

#[test]
fn a_device_goes_where_nothing_else_is() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["linux"]["devices"] = serde_json::json!([device("/file", "c", (1, 3))]);
    fs::write(bundle.rootfs("file"), "precious")?;
    bundle.is_refused(340, &["/file", "something else is there"])?;
    assert_eq!(fs::read_to_string(bundle.rootfs("file"))?, "precious");
    fs::remove_file(bundle.rootfs("file"))?;
    fs::create_dir(bundle.rootfs("file"))?;
    bundle.is_refused(340, &["/file", "something else is there"])
}

#[test]
fn a_device_that_the_host_lacks_is_refused_before_anything_is_made() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["linux"]["devices"] = serde_json::json!([device("/new/device", "c", (511, 77))]);
    bundle.is_refused(340, &["/new/device", "511:77"])?;
    assert!(!bundle.rootfs("new").exists());
    Ok(())
}

#[test]
fn root_makes_a_device_that_the_host_lacks() -> Result<()> {
    requires!(root);
    let mut bundle = Bundle::probing(&["stat", "/new/device"])?;
    bundle.share_user();
    bundle.config["linux"]["devices"] = serde_json::json!([device("/new/device", "b", (511, 77))]);
    let facts = bundle.facts()?;
    let found = facts.get("/new/device")?;
    assert!(found.starts_with("block 644 ") && found.ends_with(" 511:77"), "{facts:?}");
    Ok(())
}

#[test]
fn a_pipe_has_its_mode_and_owner() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["stat", "/dev/pipe", "/a/pipe"])?;
    // The type bits of stat(2) may be in the mode.
    bundle.config["linux"]["devices"] = serde_json::json!([
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o010_620, "uid": 0, "gid": 0},
        {"path": "/a/pipe", "type": "p"},
    ]);
    for _ in 0..2 {
        let facts = bundle.facts()?;
        assert!(facts.get("/dev/pipe")?.starts_with("fifo 620 0 0 "), "{facts:?}");
        assert!(facts.get("/a/pipe")?.starts_with("fifo 666 0 0 "), "{facts:?}");
    }
    Ok(())
}

#[test]
fn a_pipe_of_an_owner_who_is_not_mapped_is_refused() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["linux"]["devices"] = serde_json::json!([{"path": "/p", "type": "p", "uid": 7}]);
    bundle.is_refused(122, &["/p", "7:0"])
}

#[test]
fn a_device_without_numbers_is_refused() -> Result<()> {
    requires!(userns);
    for (kind, path) in [("c", "/dev/x"), ("b", "/dev/x"), ("c", "relative")] {
        let mut bundle = Bundle::probing(&["true"])?;
        bundle.config["linux"]["devices"] = serde_json::json!([{"path": path, "type": kind}]);
        bundle.is_refused(803, &["linux.devices[0]"])?;
    }
    Ok(())
}
