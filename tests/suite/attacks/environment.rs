//! A hostile environment: programs first in PATH, variables, rights that the file of pura has and its caller has not.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
};

use anyhow::Result;

use super::{Outside, is_refusal};
use crate::harness::{Bundle, pura_binary};

/// A directory with a script under each name.
fn fakes(bundle: &Bundle, names: &[&str], script: &str) -> Result<String> {
    let directory = bundle.path("fakes");
    fs::create_dir(&directory)?;
    for name in names {
        let path = directory.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(directory.display().to_string())
}

#[test]
fn a_mapper_that_says_it_has_mapped_and_has_not_is_not_believed() -> Result<()> {
    requires!(unprivileged, userns, subids);
    // Does nothing; takes ids of another container; maps the caller alone.
    for script in ["exit 0", "echo \"$@\" >\"$TMPDIR/said\"; exit 0", "echo 0 1000 1 >/proc/$1/uid_map; exit 0"] {
        let mut bundle = Bundle::probing(&["maps"])?;
        bundle.share_user();
        let path = fakes(&bundle, &["newuidmap", "newgidmap"], script)?;
        let run = bundle.with_bundle("run", &["c1"])?.env("PATH", format!("{path}:/usr/bin:/bin"));
        let outcome = run.output()?;
        // The true one may have been preferred; then the map is the caller's.
        if outcome.code() == 0 {
            assert!(outcome.facts()?.all("uid_map").len() > 1, "{outcome:#?}");
        } else {
            is_refusal(&outcome)?;
        }
        drop(fs::remove_file(bundle.path("tmp/said")));
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn no_variable_of_the_caller_changes_where_pura_looks_or_what_it_runs() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["env"])?;
    let outside = Outside::make(&bundle)?;
    let run = bundle.with_bundle("run", &["c1"])?;
    let outside_path = outside.path.display().to_string();
    let names = [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "GCONV_PATH",
        "LOCPATH",
        "MALLOC_TRACE",
        "GLIBC_TUNABLES",
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "RUST_LOG",
        "RUST_BACKTRACE",
        "_CONTAINERS_USERNS_CONFIGURED",
        "_CONTAINERS_ROOTLESS_UID",
        "_LIBCONTAINER_INITPIPE",
        "CRUN_ROOT",
        "HOME",
        "USER",
        "TMPDIR",
        "DBUS_SESSION_BUS_ADDRESS",
        "IFS",
        "ENV",
        "BASH_ENV",
    ];
    let hostile = names.iter().fold(run, |run, name| run.env(name, &outside_path));
    let facts = hostile.env("XDG_RUNTIME_DIR", "../../../../outside\n").env("PATH", "").output()?.facts()?;
    let seen: Vec<_> = facts.below("env.").into_iter().map(|(name, _)| name.to_owned()).collect();
    assert!(seen.iter().all(|name| ["PATH", "PURA_TEST", "HOME"].contains(&name.as_str())), "{seen:?}");
    outside.is_untouched()
}

#[test]
fn no_socket_without_a_path_is_open_while_a_container_runs() -> Result<()> {
    requires!(unprivileged, userns, busybox);
    // CVE-2020-15257. In a network of the test's own, which the container shares.
    let mut bundle = Bundle::with_args(&["/bin/busybox", "grep", "-c", "@", "/proc/net/unix"])?;
    bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
    bundle.share("network");
    bundle.unmount("/sys");
    let run = bundle.with_bundle("run", &["c1"])?;
    let outcome = bundle.through(&["unshare", "--user", "--map-root-user", "--net"], &run).output()?;
    assert!(outcome.stdout == "0\n", "{outcome:#?}");
    Ok(())
}

/// A copy of pura that others may call, made by root of a user namespace with the ids 0 and 1, and its call as user 1.
fn as_another(bundle: &Bundle, prepare: &str) -> Result<crate::harness::Outcome> {
    let copy = bundle.path("pura-copy");
    assert!(Command::new("cp").arg(pura_binary()).arg(&copy).status()?.success());
    fs::set_permissions(bundle.dir(), fs::Permissions::from_mode(0o755))?;
    let script = format!("{prepare}; exec setpriv --reuid=1 --regid=1 --clear-groups --inh-caps=-all \"$0\" --version");
    let words = ["unshare", "--user", "--map-root-user", "--map-auto", "sh", "-c", &script];
    let words = words.iter().map(Into::into).chain([copy.into()]).collect::<Vec<_>>();
    crate::harness::Pura::through(bundle.dir(), &words).output()
}

#[test]
fn pura_does_nothing_with_rights_that_its_caller_has_not() -> Result<()> {
    requires!(unprivileged, userns, subids);
    // CVE-2020-5291, CVE-2026-41163.
    let bundle = Bundle::new()?;
    as_another(&bundle, "true")?.succeeds()?;
    for (prepare, fix) in [
        ("chmod u+s \"$0\"", "chmod ug-s"),
        ("chmod g+s \"$0\"", "chmod ug-s"),
        ("setcap cap_sys_admin=ep \"$0\"", "setcap -r"),
        ("setcap cap_setuid=p \"$0\"", "setcap -r"),
    ] {
        if prepare.starts_with("setcap")
            && !["/sbin/setcap", "/usr/sbin/setcap"].iter().any(|path| fs::exists(path).is_ok_and(|is| is))
        {
            continue;
        }
        let bundle = Bundle::new()?;
        as_another(&bundle, prepare)?.fails(1, 920, &[fix])?;
    }
    Ok(())
}

#[test]
fn a_runtime_directory_that_is_a_link_or_open_to_others_is_not_used() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = Bundle::probing(&["true"])?;
    bundle.write()?;
    let outside = Outside::make(&bundle)?;
    let runtime = bundle.path("runtime");
    fs::create_dir(&runtime)?;
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700))?;
    symlink(&outside.path, runtime.join("pura"))?;
    let id = format!("pura-attack-{}", std::process::id());
    let path = bundle.path("bundle").display().to_string();
    let words = ["run", "-b", &path, &id];
    let pura = crate::harness::Pura::new(bundle.dir(), &words).env("XDG_RUNTIME_DIR", &runtime);
    pura.output()?.succeeds_silently()?;
    outside.is_untouched()
}

#[test]
fn an_overlay_takes_a_root_for_one_directory_whatever_its_name_is() -> Result<()> {
    requires!(userns, overlay);
    // A comma ends an option of mount(2), and a colon a layer.
    let bundle = Bundle::probing(&["true"])?;
    let outside = Outside::make(&bundle)?;
    let root = bundle.path("root,upperdir=outside:x\\,y");
    fs::rename(bundle.path("bundle/rootfs"), &root)?;
    let root = root.display().to_string();
    let words = ["run", "--rootfs", &root, "--", "/bin/pura-probe", "write", "/written"];
    bundle.pura(&words).output()?.succeeds_silently()?;
    assert!(!std::path::Path::new(&root).join("written").exists());
    outside.is_untouched()
}
