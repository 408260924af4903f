//! An image full of traps: links in the place of what a runtime makes and reads, and files that never end.

use std::{
    fs,
    os::unix::fs::{FileExt as _, symlink},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Outside, is_judged, is_refusal};
use crate::{console::on_terminal, fallback::hidden, harness::Bundle};

#[test]
fn no_link_takes_the_place_of_proc_or_sys_wherever_it_leads() -> Result<()> {
    requires!(userns);
    // CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867.
    for name in ["proc", "sys"] {
        let bundle = Bundle::probing(&["true"])?;
        let outside = Outside::make(&bundle)?;
        fs::remove_dir(bundle.rootfs(name))?;
        for says in ["etc", "/etc", "../../../etc", "/", ".", &outside.path.to_string_lossy(), "nowhere", name] {
            symlink(says, bundle.rootfs(name))?;
            bundle.is_refused_with_any(&[306, 307], &[&format!("/{name}")]).with_context(|| says.to_owned())?;
            let outcome = hidden(&bundle, "38", "openat2", &bundle.with_bundle("run", &["c1"])?).output()?;
            is_refusal(&outcome)?;
            fs::remove_file(bundle.rootfs(name))?;
        }
        outside.is_untouched()?;
    }
    Ok(())
}

#[test]
fn a_dev_that_is_a_link_changes_nothing_where_it_leads() -> Result<()> {
    requires!(userns);
    // CVE-2026-41579, CVE-2026-47766: with a terminal and without, and no mount on /dev.
    for says_of in [|outside: &Outside| outside.path.clone(), |_: &Outside| "../../outside".into()] {
        for terminal in [false, true] {
            let mut bundle = Bundle::probing(&["true"])?;
            let outside = Outside::make(&bundle)?;
            bundle.unmount("/dev");
            bundle.config["process"]["terminal"] = terminal.into();
            fs::remove_dir(bundle.rootfs("dev"))?;
            symlink(says_of(&outside), bundle.rootfs("dev"))?;
            let words = bundle.with_bundle("run", &["c1"])?.words();
            let (shown, status) = on_terminal(&words, "")?;
            assert!(status == Some(125) && shown.contains("[PURA-"), "{status:?} {shown}");
            outside.is_untouched()?;
        }
    }
    Ok(())
}

#[test]
fn names_in_dev_that_are_links_change_nothing_where_they_lead() -> Result<()> {
    requires!(userns);
    // CVE-2026-88264, CVE-2026-88265.
    for name in ["console", "null", "ptmx", "pts", "fd", "stdin", "core", "shm"] {
        let mut bundle = Bundle::probing(&["true"])?;
        let outside = Outside::make(&bundle)?;
        bundle.unmount("/dev");
        bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"])?;
        bundle.config["process"]["terminal"] = true.into();
        symlink(outside.path.join(name), bundle.rootfs("dev").join(name))?;
        let words = bundle.with_bundle("run", &["c1"])?.words();
        let (shown, status) = on_terminal(&words, "")?;
        assert!([Some(0), Some(125)].contains(&status), "{name}: {status:?} {shown}");
        outside.is_untouched().context(name)?;
    }
    Ok(())
}

#[test]
fn terminals_come_from_a_devpts_or_not_at_all() -> Result<()> {
    requires!(userns);
    for kind in ["link", "file", "pipe", "directory"] {
        let mut bundle = Bundle::probing(&["true"])?;
        let outside = Outside::make(&bundle)?;
        let fake = bundle.path("fake");
        fs::create_dir(&fake)?;
        match kind {
            "link" => symlink(outside.path.join("ptmx"), fake.join("ptmx"))?,
            "file" => fs::write(fake.join("ptmx"), "")?,
            "pipe" => nix::unistd::mkfifo(&fake.join("ptmx"), nix::sys::stat::Mode::S_IRWXU)?,
            _ => fs::create_dir(fake.join("ptmx"))?,
        }
        bundle.unmount("/dev/pts");
        bundle.mount("/dev/pts", "bind", &fake.to_string_lossy(), &["bind"])?;
        bundle.config["process"]["terminal"] = true.into();
        let words = bundle.with_bundle("run", &["c1"])?.words();
        let (shown, status) = on_terminal(&words, "")?;
        assert!(status == Some(125) && shown.contains("[PURA-"), "{kind}: {status:?} {shown}");
        outside.is_untouched().context(kind)?;
    }
    Ok(())
}

#[test]
fn a_destination_that_is_a_link_is_what_it_leads_to_inside() -> Result<()> {
    requires!(userns);
    // CVE-2015-1335, CVE-2015-3627, CVE-2015-3629, CVE-2019-18837: links to the host's directory and file, links to links,
    // dangling ones, and dots in the destination.
    let mut bundle = Bundle::probing(&["true"])?;
    let outside = Outside::make(&bundle)?;
    let source = bundle.path("source");
    fs::create_dir(&source)?;
    fs::write(source.join("file"), "mine")?;
    let dots = format!("../../../../../../../../../..{}", outside.path.display());
    symlink(&outside.path, bundle.rootfs("absolute"))?;
    symlink(&dots, bundle.rootfs("relative"))?;
    symlink("absolute", bundle.rootfs("again"))?;
    symlink(outside.path.join("new"), bundle.rootfs("dangling"))?;
    symlink(outside.canary(), bundle.rootfs("file"))?;
    let good = bundle.config.clone();
    let file = source.join("file");
    for destination in [
        "/absolute",
        "/relative",
        "/again",
        "/dangling",
        "/file",
        "/absolute/new",
        "/relative/canary",
        "/again/a/b/c",
        "/etc/../relative/../outside/new",
        &format!("/{dots}/new"),
        &format!("{dots}/canary"),
    ] {
        let (source, file) = (source.to_string_lossy(), file.to_string_lossy());
        for (kind, source, options) in
            [("tmpfs", "tmpfs", &[][..]), ("bind", &*source, &["bind"]), ("bind", &*file, &["bind"])]
        {
            bundle.config.clone_from(&good);
            bundle.mount(destination, kind, source, options)?;
            let run = || bundle.with_bundle("run", &["c1"]);
            for outcome in [run()?.output()?, hidden(&bundle, "38", "openat2,move_mount", &run()?).output()?] {
                is_judged(&outcome)?;
                outside.is_untouched().with_context(|| format!("{destination} {kind} {source}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_device_of_the_config_stays_inside_whatever_its_path_says() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    let outside = Outside::make(&bundle)?;
    symlink(&outside.path, bundle.rootfs("link"))?;
    let dots = format!("/../../../../../../../..{}", outside.path.display());
    for directory in ["/link", "/link/new", &dots, "/dev/../link", "/dev/../../../../link/.."] {
        for (kind, name) in [("c", "made"), ("c", "canary"), ("p", "made"), ("p", "canary")] {
            bundle.config["linux"]["devices"] =
                json!([{"path": format!("{directory}/{name}"), "type": kind, "major": 1, "minor": 3}]);
            is_judged(&bundle.run()?)?;
            outside.is_untouched().with_context(|| format!("{directory}/{name}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_working_directory_is_made_inside_whatever_is_on_its_way() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["cwd"])?;
    let outside = Outside::make(&bundle)?;
    symlink(&outside.path, bundle.rootfs("link"))?;
    symlink("../../../../../../../../link", bundle.rootfs("etc/up"))?;
    symlink(outside.canary(), bundle.rootfs("file"))?;
    for cwd in ["/link", "/link/a/b", "/etc/up/c", "/file", "/file/d", "/etc/../../../../link/e"] {
        bundle.config["process"]["cwd"] = cwd.into();
        is_judged(&bundle.run()?)?;
        outside.is_untouched().context(cwd)?;
    }
    // Deeper than any path may be.
    bundle.config["process"]["cwd"] = "/d".repeat(3000).into();
    is_refusal(&bundle.run()?)
}

#[test]
fn a_passwd_file_costs_neither_time_nor_memory_and_is_never_the_hosts() -> Result<()> {
    requires!(userns, busybox);
    // CVE-2026-47262, CVE-2022-1708, CVE-2022-31030.
    let words = ["/bin/sh", "-c", "echo home=$HOME"];
    for kind in ["sparse", "many", "endless line", "device", "directory", "link", "pipe", "loop", "etc"] {
        let mut bundle = Bundle::with_args(&words)?;
        let outside = Outside::make(&bundle)?;
        let passwd = bundle.rootfs("etc/passwd");
        fs::remove_file(&passwd)?;
        fs::write(bundle.path("stolen"), "root:x:0:0::/stolen:/bin/sh\n")?;
        match kind {
            "sparse" => {
                fs::File::create(&passwd)?.write_at(b"\nroot:x:0:0::/late:/bin/sh\n", 3 << 30)?;
            }
            "many" => fs::write(&passwd, "user:x:1000:1000::/home:/bin/sh\n".repeat(600_000))?,
            "endless line" => fs::write(&passwd, "x".repeat(40 << 20))?,
            "device" => symlink("/dev/zero", &passwd)?,
            "directory" => fs::create_dir(&passwd)?,
            "link" => symlink(bundle.path("stolen"), &passwd)?,
            "pipe" => nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU)?,
            "loop" => symlink("passwd", &passwd)?,
            _ => {
                fs::remove_dir_all(bundle.rootfs("etc"))?;
                fs::rename(bundle.path("stolen"), outside.path.join("passwd"))?;
                symlink(&outside.path, bundle.rootfs("etc"))?;
            }
        }
        bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_AS", "soft": 64 << 20, "hard": 64 << 20}]);
        let begin = Instant::now();
        let outcome = bundle.run()?;
        assert_eq!(outcome.succeeds()?, "home=/\n", "{kind}");
        assert!(begin.elapsed() < Duration::from_secs(8), "{kind}: it took {:?}", begin.elapsed());
    }
    Ok(())
}

#[test]
fn nothing_of_the_image_is_loaded_into_pura() -> Result<()> {
    requires!(unprivileged, userns, strace);
    // CVE-2019-14271, CVE-2022-1227: libraries of the image in the runtime's own process.
    let bundle = Bundle::probing(&["true"])?;
    let file = bundle.path("trace");
    let words = ["strace", "-f", "-o", &file.to_string_lossy(), "-e", "trace=open,openat,openat2,execve,execveat"];
    let run = bundle.with_bundle("run", &["c1"])?;
    bundle.through(&words, &run).output()?.succeeds_silently()?;
    let trace = fs::read_to_string(file)?;
    let programs: Vec<_> = trace.lines().filter(|line| line.contains("execve")).collect();
    assert!(programs.len() == 2, "pura, and the program: {programs:?}");
    for word in [".so", "ld.so", "nsswitch", "locale"] {
        assert!(!trace.contains(word), "{word} in {trace}");
    }
    Ok(())
}
