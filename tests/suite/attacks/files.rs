//! Files of the host that a caller names, and that somebody has put something else in the place of.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{Outside, is_refusal};
use crate::harness::{Bundle, Pura};

#[test]
fn a_pid_file_replaces_what_is_in_its_place_and_follows_nothing() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["true"])?;
    let outside = Outside::make(&bundle)?;
    let place = bundle.path("pid");
    let flags = ["--pid-file", &place.to_string_lossy(), "c1"];
    for kind in ["link", "dangling link", "pipe", "socket", "file"] {
        // The name that the file may have before it is complete is known, too.
        symlink(outside.canary(), bundle.path(".pid.c1"))?;
        match kind {
            "link" => symlink(outside.canary(), &place)?,
            "dangling link" => symlink(outside.path.join("new"), &place)?,
            "pipe" => mkfifo(&place, Mode::S_IRWXU)?,
            "socket" => drop(UnixListener::bind(&place)?),
            _ => fs::write(&place, "1")?,
        }
        bundle.with_bundle("create", &flags)?.output()?.succeeds_silently().context(kind)?;
        assert_eq!(fs::read_to_string(&place)?, bundle.pid()?.to_string(), "{kind}");
        assert!(fs::symlink_metadata(&place)?.is_file(), "{kind}");
        bundle.delete()?;
        outside.is_untouched().context(kind)?;
        drop(fs::remove_file(&place));
        drop(fs::remove_file(bundle.path(".pid.c1")));
    }
    Ok(())
}

#[test]
fn a_pid_file_that_cannot_be_written_leaves_no_container() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["true"])?;
    let outside = Outside::make(&bundle)?;
    fs::create_dir(bundle.path("directory"))?;
    symlink("loop", bundle.path("loop"))?;
    let long = format!("/tmp/{}", "x".repeat(300));
    let places = ["directory", "nowhere/pid", "loop/pid"].map(|name| bundle.path(name).display().to_string());
    for place in places.iter().map(String::as_str).chain([&*long, "/proc/pid", "/dev/full/x", "/"]) {
        let outcome = bundle.with_bundle("create", &["--pid-file", place, "c1"])?.output()?;
        is_refusal(&outcome).with_context(|| place.to_owned())?;
        bundle.is_clean()?;
    }
    assert!(bundle.path("directory").is_dir());
    outside.is_untouched()
}

#[test]
fn a_log_follows_no_link_waits_for_nobody_and_is_for_the_caller_alone() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["true"])?;
    bundle.write()?;
    let outside = Outside::make(&bundle)?;
    symlink(outside.canary(), bundle.path("link"))?;
    symlink(outside.path.join("new"), bundle.path("dangling"))?;
    mkfifo(&bundle.path("pipe"), Mode::S_IRWXU)?;
    fs::create_dir(bundle.path("directory"))?;
    drop(UnixListener::bind(bundle.path("socket"))?);
    let own = bundle.path("bundle").display().to_string();
    for name in ["link", "dangling", "pipe", "directory", "socket", "nowhere/log"] {
        let path = bundle.path(name).display().to_string();
        let words = ["--log", &path, "run", "-b", &own, "c1"];
        bundle.pura(&words).output()?.fails(125, 716, &[]).context(name)?;
        bundle.is_clean()?;
    }
    outside.is_untouched()?;
    // A message that breaks the line stays one, also where the line is text.
    let log = bundle.path("log");
    let words = ["--log", &log.to_string_lossy(), "state", "a\nlevel=error msg=forged\x1b[2J"];
    is_refusal(&bundle.pura(&words).output()?)?;
    let text = fs::read_to_string(&log)?;
    assert!(text.lines().count() == 1 && !text.contains('\x1b'), "{text:?}");
    assert_eq!(fs::metadata(&log)?.mode() & 0o777, 0o600);
    Ok(())
}

#[test]
fn a_state_directory_that_others_could_write_or_that_is_none_is_refused() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = Bundle::probing(&["true"])?;
    bundle.write()?;
    let outside = Outside::make(&bundle)?;
    for (name, mode) in [("world", 0o777), ("sticky", 0o1777), ("group", 0o770)] {
        fs::create_dir(bundle.path(name))?;
        fs::set_permissions(bundle.path(name), fs::Permissions::from_mode(mode))?;
    }
    symlink(&outside.path, bundle.path("link"))?;
    mkfifo(&bundle.path("pipe"), Mode::S_IRWXU)?;
    fs::write(bundle.path("file"), "")?;
    let own_bundle = bundle.path("bundle").display().to_string();
    let own = ["world", "sticky", "group", "link", "pipe", "file"].map(|name| bundle.path(name));
    for root in own
        .iter()
        .map(std::path::PathBuf::as_path)
        .chain(["/", "/etc", "/tmp", "/proc", "/proc/self/fd/0"].map(Path::new))
    {
        for words in [
            &["run", "-b", &own_bundle, "c1"][..],
            &["list"],
            &["state", "c1"],
            &["kill", "c1"],
            &["delete", "--force", "c1"],
        ] {
            let outcome = Pura::new(bundle.dir(), &["--root".as_ref(), root.as_os_str()]).args(words).output()?;
            is_refusal(&outcome).with_context(|| format!("{} {words:?}", root.display()))?;
        }
    }
    for (name, _) in [("world", 0), ("sticky", 0), ("group", 0)] {
        assert_eq!(fs::read_dir(bundle.path(name))?.count(), 0, "{name}");
    }
    outside.is_untouched()
}

#[test]
fn the_state_is_for_the_caller_alone_whatever_the_umask_is() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let root = bundle.path("fresh");
    bundle.write()?;
    let path = bundle.path("bundle").display().to_string();
    let pura = |words: &[&str]| Pura::new(bundle.dir(), &["--root".as_ref(), root.as_os_str()]).args(words);
    let create = pura(&["create", "-b", &path, "c1"]);
    bundle.through(&["sh", "-c", "umask 000; exec \"$@\"", "sh"], &create).output()?.succeeds_silently()?;
    let mode = |path: &Path| -> Result<u32> { Ok(fs::symlink_metadata(path)?.mode() & 0o777) };
    assert_eq!((mode(&root)?, mode(&root.join("c1"))?), (0o700, 0o700));
    for entry in fs::read_dir(root.join("c1"))? {
        let path = entry?.path();
        let is_socket = fs::symlink_metadata(&path)?.file_type().is_socket();
        assert!(mode(&path)?.trailing_zeros() >= 6 || is_socket, "{}: {:o}", path.display(), mode(&path)?);
    }
    pura(&["delete", "c1"]).output()?.succeeds_silently()
}

#[test]
fn a_console_socket_that_is_a_trap_is_refused_at_once() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["process"]["terminal"] = true.into();
    let outside = Outside::make(&bundle)?;
    mkfifo(&bundle.path("pipe"), Mode::S_IRWXU)?;
    symlink(bundle.path("pipe"), bundle.path("link to a pipe"))?;
    symlink(outside.canary(), bundle.path("link"))?;
    symlink("loop", bundle.path("loop"))?;
    fs::create_dir(bundle.path("directory"))?;
    let own =
        ["pipe", "link to a pipe", "link", "loop", "directory"].map(|name| bundle.path(name).display().to_string());
    let long = format!("/{}", "x".repeat(5000));
    for path in own.iter().map(String::as_str).chain(["/dev/null", "/dev/zero", "", &long]) {
        let flag = format!("--console-socket={path}");
        is_refusal(&bundle.with_bundle("create", &[&flag, "c1"])?.output()?).with_context(|| path.to_owned())?;
        bundle.is_clean()?;
    }
    outside.is_untouched()
}
