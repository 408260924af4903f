//! /dev: the default devices, and traps in the image.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
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
    let script = "cd /dev && for name in fd stdin stdout stderr ptmx; do echo $name=$(readlink $name); done";
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", &script.replace("readlink", "busybox readlink")])?;
    let facts = bundle.facts()?;
    let links = [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")];
    for (name, target) in links {
        assert_eq!(facts.get(name)?, format!("/proc/self/{target}"), "{name}");
    }
    assert!(["pts/ptmx", "/dev/pts/ptmx"].contains(&facts.get("ptmx")?), "{facts:?}");
    bundle.unmount("/proc");
    let facts = bundle.facts()?;
    for (name, _) in links {
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
