//! Somebody exchanges names on a volume while containers that share it are made: a hundred starts for each race.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use anyhow::Result;
use serde_json::json;

use super::{Outside, is_judged, racer};
use crate::{console::on_terminal, harness::Bundle};

const STARTS: usize = 100;

/// A bundle with a volume on `destination`: a directory `d`, an empty file `f`, and a link `l` that says `says`.
fn with_volume(words: &[&str], destination: &str, says: &Path) -> Result<(Bundle, std::path::PathBuf)> {
    let mut bundle = Bundle::probing(words)?;
    let volume = bundle.path("volume");
    fs::create_dir_all(volume.join("d"))?;
    fs::write(volume.join("f"), "")?;
    symlink(says, volume.join("l"))?;
    bundle.unmount(destination);
    bundle.mount(destination, "bind", &volume.to_string_lossy(), &["rbind"])?;
    Ok((bundle, volume))
}

#[test]
fn no_exchange_of_a_directory_for_a_link_leads_a_mount_or_a_mount_point_out() -> Result<()> {
    requires!(userns);
    // CVE-2021-30465, CVE-2024-45310: as the host sees it, and as the container does.
    for is_absolute in [true, false] {
        let (mut bundle, volume) = with_volume(&["mounts"], "/vol", Path::new("../outside"))?;
        let outside = Outside::make(&bundle)?;
        if is_absolute {
            fs::remove_file(volume.join("l"))?;
            symlink(&outside.path, volume.join("l"))?;
        }
        let mine = bundle.path("mine");
        fs::write(&mine, "mine")?;
        bundle.mount("/vol/d/new/directory", "tmpfs", "tmpfs", &["size=4k"])?;
        bundle.mount("/vol/d/new/file", "bind", &mine.to_string_lossy(), &["bind"])?;
        bundle.mount("/vol/d/canary", "bind", &mine.to_string_lossy(), &["bind"])?;
        bundle.mount("/vol/d", "tmpfs", "tmpfs", &["size=8k"])?;
        let racer = racer(&bundle, "swap", [&volume.join("d"), &volume.join("l")])?;
        let mut ran = 0;
        for _ in 0..STARTS / 2 {
            let outcome = bundle.run()?;
            ran += usize::from(is_judged(&outcome)?);
            assert!(!outcome.stdout.contains(" /outside "), "the host's directory was bound: {outcome:#?}");
        }
        drop(racer);
        outside.is_untouched()?;
        assert!(ran > 0, "not one of them ran");
    }
    Ok(())
}

#[test]
fn no_link_that_is_planted_where_a_mount_point_is_made_leads_out() -> Result<()> {
    requires!(userns);
    let (mut bundle, volume) = with_volume(&["cwd"], "/vol", Path::new("d"))?;
    let outside = Outside::make(&bundle)?;
    let mine = bundle.path("mine");
    fs::write(&mine, "mine")?;
    bundle.mount("/vol/file", "bind", &mine.to_string_lossy(), &["bind"])?;
    bundle.config["process"]["cwd"] = "/vol/cwd".into();
    let racers = [
        racer(&bundle, "plant", [&outside.canary(), &volume.join("file")])?,
        racer(&bundle, "plant", [&outside.path, &volume.join("cwd")])?,
    ];
    for _ in 0..STARTS {
        let outcome = bundle.run()?;
        if is_judged(&outcome)? {
            let cwd = outcome.facts()?.get("cwd")?.to_owned();
            let is_inside = cwd == "/vol/cwd" || cwd == outside.path.to_string_lossy();
            assert!(is_inside, "the working directory is {cwd}");
        }
    }
    drop(racers);
    outside.is_untouched()
}

#[test]
fn no_exchange_of_the_working_directory_leads_out() -> Result<()> {
    requires!(userns, busybox);
    let (mut bundle, volume) = with_volume(&["cwd"], "/vol", Path::new("../../../../../../outside"))?;
    let outside = Outside::make(&bundle)?;
    bundle.config["process"]["cwd"] = "/vol/d".into();
    let racer = racer(&bundle, "swap", [&volume.join("d"), &volume.join("l")])?;
    bundle.args(&["/bin/sh", "-c", "busybox readlink /proc/self/cwd; ls; echo left >here"]);
    for _ in 0..STARTS {
        let outcome = bundle.run()?;
        if is_judged(&outcome)? {
            let is_inside = outcome.stdout.starts_with("/vol/") || outcome.stdout.starts_with("/outside");
            assert!(is_inside && !outcome.stdout.contains("canary"), "{outcome:#?}");
        }
    }
    drop(racer);
    outside.is_untouched()
}

#[test]
fn what_is_done_to_a_pipe_of_the_config_is_never_done_to_a_file_of_the_host() -> Result<()> {
    requires!(userns);
    // Owner and mode of a new pipe, while somebody puts a link to a private file in its place.
    let (mut bundle, volume) = with_volume(&["true"], "/vol", Path::new("d"))?;
    let outside = Outside::make(&bundle)?;
    let secret = bundle.path("secret");
    fs::write(&secret, "secret")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    bundle.config["linux"]["devices"] = json!([{"path": "/vol/pipe", "type": "p", "fileMode": 0o666}]);
    let racer = racer(&bundle, "pounce", [&secret, &volume.join("pipe")])?;
    for _ in 0..2 * STARTS {
        is_judged(&bundle.run()?)?;
        let mode = fs::metadata(&secret)?.permissions().mode() & 0o777;
        assert!(mode == 0o600, "the host's file has become {mode:o}");
    }
    drop(racer);
    outside.is_untouched()
}

#[test]
fn no_exchange_of_a_masked_directory_shows_something_on_the_others() -> Result<()> {
    requires!(userns, busybox);
    let (mut bundle, volume) = with_volume(&["cwd"], "/vol", Path::new("d"))?;
    let decoy = volume.join("decoy");
    fs::create_dir(&decoy)?;
    fs::write(decoy.join("shown"), "")?;
    fs::create_dir_all(bundle.rootfs("second"))?;
    bundle.config["linux"]["maskedPaths"] = json!(["/vol/d", "/second"]);
    bundle.args(&["/bin/sh", "-c", "busybox ls /second"]);
    let racer = racer(&bundle, "swap", [&volume.join("d"), &decoy])?;
    for _ in 0..STARTS {
        let outcome = bundle.run()?;
        assert!(!is_judged(&outcome)? || outcome.stdout.is_empty(), "{outcome:#?}");
    }
    drop(racer);
    Ok(())
}

#[test]
fn no_exchange_in_a_dev_that_others_share_fakes_a_device_or_a_mask() -> Result<()> {
    requires!(userns);
    // CVE-2025-31133: what masks a file is /dev/null, whatever somebody makes of that name meanwhile.
    for (verb, name) in [("swap", "null"), ("plant", "zero"), ("pounce", "null")] {
        let (mut bundle, volume) = with_volume(&["read", "/etc/passwd"], "/dev", Path::new("d"))?;
        let outside = Outside::make(&bundle)?;
        let (node, link) = (volume.join(name), volume.join("link"));
        symlink(outside.canary(), &link)?;
        bundle.config["linux"]["maskedPaths"] = json!(["/etc/passwd", "/proc/keys", "/proc/sysrq-trigger"]);
        let racer = if verb == "swap" {
            fs::write(&node, "")?;
            racer(&bundle, verb, [&node, &link])?
        } else {
            racer(&bundle, verb, [&outside.canary(), &node])?
        };
        for _ in 0..STARTS / 3 {
            let outcome = bundle.run()?;
            assert!(!is_judged(&outcome)? || outcome.stdout.is_empty(), "a mask shows something: {outcome:#?}");
        }
        drop(racer);
        outside.is_untouched()?;
    }
    Ok(())
}

#[test]
fn no_exchange_of_the_console_leads_out() -> Result<()> {
    requires!(userns, busybox);
    // CVE-2025-52565, CVE-2026-88264.
    let (mut bundle, volume) = with_volume(&["true"], "/dev", Path::new("d"))?;
    let outside = Outside::make(&bundle)?;
    bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"])?;
    bundle.config["process"]["terminal"] = true.into();
    bundle.args(&["/bin/busybox", "stat", "-c", "%t", "/dev/console"]);
    let words = bundle.with_bundle("run", &["c1"])?.words();
    let racer = racer(&bundle, "pounce", [&outside.canary(), &volume.join("console")])?;
    for _ in 0..STARTS / 3 {
        // 88: a terminal's major number, 136. Whatever else is there by then, the racer put there.
        let (shown, status) = on_terminal(&words, "")?;
        assert!(status != Some(0) || ["88\n", "0\n"].contains(&shown.as_str()), "{shown} {status:?}");
    }
    drop(racer);
    outside.is_untouched()
}

#[test]
fn a_root_that_is_exchanged_meanwhile_is_one_of_both_and_whole() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["read", "/etc/which"])?;
    let outside = Outside::make(&bundle)?;
    let (first, second) = (bundle.path("bundle/rootfs"), bundle.path("bundle/second"));
    assert!(Command::new("cp").arg("-a").arg(&first).arg(&second).status()?.success());
    fs::write(first.join("etc/which"), "first")?;
    fs::write(second.join("etc/which"), "second")?;
    symlink("second", bundle.path("bundle/link"))?;
    let racer = racer(&bundle, "swap", [&first, &bundle.path("bundle/link")])?;
    let mut seen = BTreeSet::new();
    for _ in 0..STARTS {
        let outcome = bundle.run()?;
        if is_judged(&outcome)? {
            assert!(["first", "second"].contains(&outcome.stdout.as_str()), "{outcome:#?}");
            seen.insert(outcome.stdout);
        }
    }
    drop(racer);
    assert!(!seen.is_empty(), "not one of them ran");
    outside.is_untouched()
}
