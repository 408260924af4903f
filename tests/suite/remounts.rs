//! What happens to a mount once it is there: propagation, remounts, read-only for good.

use std::fs;

use anyhow::Result;
use serde_json::json;

use crate::harness::Bundle;

/// A base whose program prints its mounts, with a file to be bound.
fn bundle() -> Result<Bundle> {
    let bundle = Bundle::probing(&["mounts"])?;
    fs::write(bundle.path("bundle/file"), "from outside")?;
    Ok(bundle)
}

#[test]
fn a_file_has_a_propagation_as_a_directory_has() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.config["linux"]["rootfsPropagation"] = "rslave".into();
    for word in ["rprivate", "shared", "unbindable"] {
        bundle.mount(&format!("/p/{word}"), "bind", "file", &["bind", word])?;
    }
    let facts = bundle.facts()?;
    assert_eq!(facts.mount("/p/rprivate")?.propagation, "");
    assert!(facts.mount("/p/shared")?.propagation.starts_with("shared:"), "{facts:?}");
    assert_eq!(facts.mount("/p/unbindable")?.propagation, "unbindable");
    Ok(())
}

#[test]
fn a_file_is_remounted_as_a_directory_is() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.mount("/f", "bind", "file", &["bind"])?;
    bundle.mount("/f", "bind", "file", &["remount", "bind", "ro", "noexec"])?;
    let mount = bundle.facts()?.mount("/f")?;
    assert!(mount.has("ro") && mount.has("noexec"), "{mount:?}");
    Ok(())
}

#[test]
fn a_remount_gives_back_what_it_says_and_keeps_the_rest() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.mount("/m", "tmpfs", "tmpfs", &["ro", "nosuid", "size=4k"])?;
    bundle.mount("/m", "tmpfs", "tmpfs", &["remount", "rw", "size=8k"])?;
    let mount = bundle.facts()?.mount("/m")?;
    assert!(mount.has("rw") && mount.has("nosuid") && mount.data.contains(&"size=8k".to_owned()), "{mount:?}");
    Ok(())
}

#[test]
fn a_remount_of_nothing_makes_nothing() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.mount("/absent", "none", "none", &["remount", "bind", "ro"])?;
    bundle.is_refused(306, &["/absent", "does not exist"])?;
    assert!(!bundle.rootfs("absent").exists(), "a mount point was made");
    Ok(())
}

#[test]
fn a_read_only_tmpfs_holds_what_the_config_puts_into_it() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.mount("/m", "tmpfs", "tmpfs", &["ro"])?;
    bundle.mount("/m/below", "tmpfs", "tmpfs", &[])?;
    bundle.mount("/m/file", "bind", "file", &["bind"])?;
    bundle.config["process"]["cwd"] = "/m/cwd".into();
    let facts = bundle.facts()?;
    assert!(facts.mount("/m")?.has("ro") && facts.mount("/m/below")?.has("rw"), "{facts:?}");
    bundle.args(&["/bin/pura-probe", "write", "/m/new", "x"]);
    assert_ne!(bundle.run()?.code(), 0);
    bundle.args(&["/bin/pura-probe", "write", "/m/below/new", "x"]);
    bundle.run()?.succeeds_silently()
}

#[test]
fn a_read_only_dev_has_its_devices() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.unmount("/dev");
    bundle.mount("/dev", "tmpfs", "tmpfs", &["ro", "nosuid", "mode=755"])?;
    assert!(bundle.facts()?.mount("/dev")?.has("ro"));
    bundle.args(&["/bin/pura-probe", "write", "/dev/null", "x"]);
    bundle.run()?.succeeds_silently()?;
    bundle.args(&["/bin/pura-probe", "write", "/dev/new", "x"]);
    assert_ne!(bundle.run()?.code(), 0);
    Ok(())
}

#[test]
fn readonly_paths_may_name_everything() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.config["linux"]["readonlyPaths"] = json!(["/"]);
    let facts = bundle.facts()?;
    for target in ["/", "/dev", "/dev/shm", "/proc"] {
        assert!(facts.mount(target)?.has("ro"), "{target}: {facts:?}");
    }
    // A cover over the root would show the same, and hold back nobody.
    bundle.args(&["/bin/pura-probe", "write", "/tmp/new", "x"]);
    assert_ne!(bundle.run()?.code(), 0);
    Ok(())
}

#[test]
fn a_mount_on_a_device_wins_however_its_destination_is_written() -> Result<()> {
    requires!(userns);
    for destination in ["/dev/null", "dev/null", "/dev//./null"] {
        let mut bundle = Bundle::probing(&["stat", "/dev/null"])?;
        bundle.mount(destination, "bind", "/dev/zero", &["bind"])?;
        let shown = bundle.facts()?.get("/dev/null")?.to_owned();
        assert!(shown.ends_with(" 1:5"), "{destination}: {shown}");
    }
    Ok(())
}
