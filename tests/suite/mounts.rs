//! mounts: destinations, sources, types, options.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use anyhow::Result;
use serde_json::json;

use crate::harness::Bundle;

/// A base whose program prints its mounts, with a directory and a file to be bound from.
fn bundle() -> Result<Bundle> {
    let bundle = Bundle::probing(&["mounts"])?;
    fs::create_dir_all(bundle.path("bundle/source/below"))?;
    fs::write(bundle.path("bundle/source/file"), "from outside")?;
    Ok(bundle)
}

#[test]
fn of_two_mounts_on_one_destination_the_later_is_visible() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.mount("/mnt", "tmpfs", "first", &["size=4k"])?;
    bundle.mount("/mnt", "tmpfs", "second", &["size=8k"])?;
    bundle.mount("/mnt/below", "tmpfs", "third", &["size=16k"])?;
    let facts = bundle.facts()?;
    assert!(facts.mount("/mnt")?.data.contains(&"size=8k".to_owned()), "{facts:?}");
    assert!(facts.mount("/mnt/below")?.data.contains(&"size=16k".to_owned()), "{facts:?}");
    Ok(())
}

#[test]
fn a_relative_destination_starts_at_the_root() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.mount("mnt/x", "tmpfs", "tmpfs", &[])?;
    bundle.facts()?.mount("/mnt/x")?;
    Ok(())
}

#[test]
fn destinations_stay_inside_the_root() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    let outside = bundle.path("outside");
    fs::create_dir(&outside)?;
    symlink(&outside, bundle.rootfs("absolute"))?;
    symlink("../../../../../../../../tmp", bundle.rootfs("dots"))?;
    bundle.mount("/absolute/a", "tmpfs", "tmpfs", &[])?;
    bundle.mount("/dots/b", "tmpfs", "tmpfs", &[])?;
    bundle.mount("/../../../c", "tmpfs", "tmpfs", &[])?;
    let facts = bundle.facts()?;
    facts.mount(&format!("{}/a", outside.display()))?;
    facts.mount("/tmp/b")?;
    facts.mount("/c")?;
    assert_eq!(fs::read_dir(&outside)?.count(), 0, "something was made outside");
    Ok(())
}

#[test]
fn a_bind_of_a_file_makes_a_file_and_of_a_directory_a_directory() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.mount("/new/file", "bind", "source/file", &["bind"])?;
    bundle.mount("/new/dir", "none", &bundle.path("bundle/source").to_string_lossy(), &["rbind", "ro"])?;
    bundle.args(&["/bin/pura-probe", "stat", "/new/file", "/new/dir", "/new/dir/file"]);
    let facts = bundle.facts()?;
    assert!(facts.get("/new/file")?.starts_with("file "), "{facts:?}");
    assert!(facts.get("/new/dir")?.starts_with("directory "), "{facts:?}");
    bundle.args(&["/bin/pura-probe", "read", "/new/file"]);
    assert_eq!(bundle.run()?.succeeds()?, "from outside");
    bundle.args(&["/bin/pura-probe", "write", "/new/dir/file"]);
    let outcome = bundle.run()?;
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:#?}");
    Ok(())
}

#[test]
fn a_missing_bind_source_does_not_look_like_a_missing_program() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.mount("/data", "bind", "/nowhere/source", &["bind"])?;
    let index = bundle.config["mounts"].as_array().map_or(0, Vec::len) - 1;
    bundle
        .is_refused(304, &["bind \"/nowhere/source\" on \"/data\"", &format!("mounts[{index}]"), "does not exist"])?;
    let outcome = bundle.create()?;
    assert!(!outcome.stderr.contains("no such file") && !outcome.stderr.contains("not found"), "{outcome:#?}");
    Ok(())
}

#[test]
fn a_file_is_not_bound_over_a_directory() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.mount("/tmp", "bind", "source/file", &["bind"])?;
    bundle.is_refused_with_any(&[306, 307], &["/tmp", "not a directory"])
}

#[test]
fn every_attribute_shows_and_the_last_of_two_wins() -> Result<()> {
    requires!(userns);
    let cases: [(&[&str], &[&str], &[&str]); 10] = [
        (&["ro"], &["ro"], &["rw"]),
        (&["rw", "ro"], &["ro"], &["rw"]),
        (&["ro", "rw"], &["rw"], &["ro"]),
        (&["nosuid", "nodev", "noexec"], &["nosuid", "nodev", "noexec"], &[]),
        (&["nosuid", "suid", "noexec", "exec"], &[], &["nosuid", "noexec"]),
        (&["noatime"], &["noatime"], &["relatime"]),
        (&["noatime", "relatime"], &["relatime"], &["noatime"]),
        (&["noatime", "strictatime"], &[], &["noatime", "relatime"]),
        (&["nodiratime"], &["nodiratime"], &[]),
        (&["defaults", ""], &["rw"], &[]),
    ];
    for (words, shown, hidden) in cases {
        let mut bundle = bundle()?;
        bundle.mount("/t", "tmpfs", "tmpfs", words)?;
        // The host's access times are locked in a user namespace; its other flags may be, so that more than asked shows.
        let is_bindable = !words.iter().any(|word| word.ends_with("atime"));
        if is_bindable {
            bundle.mount("/b", "bind", "source", &[&["bind"], words].concat())?;
        }
        let facts = bundle.facts()?;
        let mount = facts.mount("/t")?;
        let is_so = shown.iter().all(|word| mount.has(word)) && !hidden.iter().any(|word| mount.has(word));
        assert!(is_so, "{words:?}: {mount:?}");
        if is_bindable {
            let mount = facts.mount("/b")?;
            assert!(shown.iter().all(|word| mount.has(word)), "{words:?}: {mount:?}");
        }
    }
    Ok(())
}

#[test]
fn every_word_of_the_specification_is_accepted() -> Result<()> {
    requires!(userns);
    let common = "defaults ro rw nosuid suid nodev dev noexec exec nosymfollow symfollow noatime atime relatime norelatime \
                  strictatime nostrictatime nodiratime diratime sync async dirsync lazytime nolazytime iversion \
                  noiversion mand nomand silent loud private rprivate shared rshared slave rslave unbindable \
                  runbindable rro rrw rnosuid rsuid rnodev rdev rnoexec rexec rnosymfollow rsymfollow rnodiratime \
                  rdiratime rnoatime ratime rrelatime rnorelatime rstrictatime rnostrictatime";
    let mut bundle = bundle()?;
    // One mount for each word: of a tmpfs inside, whose flags are not locked, and a bind of it.
    bundle.mount("/base", "tmpfs", "tmpfs", &[])?;
    for word in common.split_whitespace() {
        bundle.mount(&format!("/t/{word}"), "tmpfs", "tmpfs", &[word])?;
    }
    let facts = bundle.facts()?;
    for word in common.split_whitespace() {
        facts.mount(&format!("/t/{word}"))?;
    }
    Ok(())
}

#[test]
fn each_propagation_word_shows() -> Result<()> {
    requires!(userns);
    let words = [
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
    ];
    let mut bundle = bundle()?;
    for (word, _) in words {
        bundle.mount(&format!("/p/{word}"), "tmpfs", "tmpfs", &[word])?;
    }
    let facts = bundle.facts()?;
    for (word, wanted) in words {
        let propagation = facts.mount(&format!("/p/{word}"))?.propagation;
        assert!(
            propagation.starts_with(wanted) && propagation.is_empty() == wanted.is_empty(),
            "{word}: {propagation}"
        );
    }
    Ok(())
}

#[test]
fn ro_leaves_submounts_writable_and_rro_does_not() -> Result<()> {
    requires!(userns);
    // A submount on the caller's side needs a mount namespace of the caller's: the caller is nested here.
    for (word, is_writable) in [("ro", true), ("rro", false)] {
        let mut bundle = bundle()?;
        bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
        bundle.mount("/m", "bind", "source", &["rbind", word])?;
        let run = bundle.with_bundle("run", &["c1"])?;
        let below = bundle.path("bundle/source/below");
        let script = "mount -t tmpfs none \"$0\" && exec \"$@\"";
        let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script];
        let words = words.iter().map(AsRef::as_ref).chain([below.as_os_str()]).collect::<Vec<_>>();
        let facts = bundle.through(&words, &run).output()?.facts()?;
        assert!(facts.mount("/m")?.has("ro"), "{facts:?}");
        assert_eq!(facts.mount("/m/below")?.has("rw"), is_writable, "{word}: {facts:?}");
    }
    Ok(())
}

#[test]
fn locked_flags_stay_and_clearing_them_is_an_error() -> Result<()> {
    requires!(userns);
    let nested = |bundle: &Bundle| -> Result<_> {
        let run = bundle.with_bundle("create", &["c1"])?;
        let source = bundle.path("bundle/source");
        let script = "mount -t tmpfs -o nosuid,nodev,noexec none \"$0\" && exec \"$@\"";
        let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script];
        let words = words.iter().map(AsRef::as_ref).chain([source.as_os_str()]).collect::<Vec<_>>();
        bundle.through(&words, &run).output()
    };
    for (word, is_refused) in [("rbind", false), ("exec", true), ("suid", true), ("dev", true)] {
        let mut bundle = bundle()?;
        bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
        bundle.mount("/m", "bind", "source", &["rbind", word])?;
        let outcome = nested(&bundle)?;
        if is_refused {
            outcome.fails(1, 310, &["/m", word])?;
            bundle.is_clean()?;
        } else {
            outcome.succeeds_silently()?;
            bundle.delete()?;
        }
    }
    Ok(())
}

#[test]
fn an_unknown_option_is_data_of_a_file_system_and_an_error_on_a_bind() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    let good = bundle.config.clone();
    bundle.mount("/t", "tmpfs", "tmpfs", &["size=4k", "mode=711"])?;
    let facts = bundle.facts()?;
    assert!(facts.mount("/t")?.data.contains(&"size=4k".to_owned()), "{facts:?}");
    bundle.config.clone_from(&good);
    bundle.mount("/t", "tmpfs", "tmpfs", &["bogus=1"])?;
    bundle.is_refused(308, &["/t", "bogus"])?;
    bundle.config.clone_from(&good);
    bundle.mount("/b", "bind", "source", &["bind", "size=4k"])?;
    bundle.is_refused_with_any(&[308, 803], &["/b", "size=4k"])
}

#[test]
fn options_may_be_missing_empty_or_redundant() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.push("/mounts", json!({"destination": "/a", "type": "tmpfs"}))?;
    bundle.push("/mounts", json!({"destination": "/b", "type": "tmpfs", "source": "tmpfs", "options": [""]}))?;
    bundle.mount("/c", "bind", "source", &["bind", "rbind"])?;
    let facts = bundle.facts()?;
    for target in ["/a", "/b", "/c"] {
        facts.mount(target)?;
    }
    Ok(())
}

#[test]
fn a_tmpfs_has_the_mode_of_what_it_covers_unless_it_says_otherwise() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    for (name, mode) in [("covered", 0o711), ("other", 0o700)] {
        fs::create_dir(bundle.rootfs(name))?;
        fs::set_permissions(bundle.rootfs(name), fs::Permissions::from_mode(mode))?;
    }
    bundle.mount("/covered", "tmpfs", "tmpfs", &[])?;
    bundle.mount("/other", "tmpfs", "tmpfs", &["mode=1777"])?;
    bundle.args(&["/bin/pura-probe", "stat", "/covered", "/other"]);
    let facts = bundle.facts()?;
    assert!(facts.get("/covered")?.starts_with("directory 711 "), "{facts:?}");
    assert!(facts.get("/other")?.starts_with("directory 1777 "), "{facts:?}");
    Ok(())
}

#[test]
fn tmpcopyup_keeps_what_it_covers() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = bundle()?;
    fs::create_dir_all(bundle.rootfs("up/dir"))?;
    fs::write(bundle.rootfs("up/dir/file"), "kept")?;
    symlink("dir/file", bundle.rootfs("up/link"))?;
    fs::set_permissions(bundle.rootfs("up/dir/file"), fs::Permissions::from_mode(0o640))?;
    bundle.mount("/up", "tmpfs", "tmpfs", &["tmpcopyup"])?;
    bundle.args(&["/bin/sh", "-c", "cat /up/link && /bin/pura-probe stat /up/dir/file && echo new >/up/dir/file"]);
    let outcome = bundle.run()?;
    assert!(outcome.succeeds()?.starts_with("kept/up/dir/file=file 640 0 0 4 "), "{outcome:#?}");
    assert_eq!(fs::read_to_string(bundle.rootfs("up/dir/file"))?, "kept");
    bundle.unmount("/up");
    bundle.mount("/up", "bind", "source", &["bind", "tmpcopyup"])?;
    bundle.is_refused_with_any(&[308, 803], &["/up", "tmpcopyup"])
}

#[test]
fn proc_and_sys_must_be_real_directories() -> Result<()> {
    requires!(userns);
    for name in ["proc", "sys"] {
        let bundle = bundle()?;
        fs::remove_dir(bundle.rootfs(name))?;
        symlink("/tmp", bundle.rootfs(name))?;
        bundle.is_refused_with_any(&[306, 307], &[&format!("/{name}")])?;
    }
    Ok(())
}

#[test]
fn below_proc_only_what_lxcfs_offers_is_a_destination() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    let good = bundle.config.clone();
    bundle.mount("/proc/meminfo", "bind", "source/file", &["bind"])?;
    bundle.facts()?.mount("/proc/meminfo")?;
    for destination in ["/proc/self", "/proc/sys", "/proc/self/attr"] {
        bundle.config.clone_from(&good);
        bundle.mount(destination, "bind", "source", &["bind"])?;
        bundle.is_refused_with_any(&[307, 803], &[destination])?;
    }
    Ok(())
}

#[test]
fn devpts_with_an_unmapped_group_mounts_all_the_same() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = bundle()?;
    bundle.unmount("/dev/pts");
    bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"])?;
    bundle.facts()?.mount("/dev/pts")?;
    bundle.run_strictly()?.fails(125, 314, &["gid=5"])?;
    Ok(())
}

#[test]
fn sysfs_without_a_network_namespace_of_its_own_is_the_hosts_and_read_only() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = bundle()?;
    bundle.share("network");
    assert!(bundle.facts()?.mount("/sys")?.has("ro"));
    Ok(())
}

#[test]
fn the_cgroup_file_system_mounts_with_and_without_a_namespace() -> Result<()> {
    requires!(userns);
    for has_namespace in [true, false] {
        let mut bundle = bundle()?;
        if has_namespace {
            bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
        }
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])?;
        bundle.facts()?.mount("/sys/fs/cgroup")?;
    }
    Ok(())
}

#[test]
fn a_type_that_needs_real_root_is_refused_by_name() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = bundle()?;
    bundle.mount("/e", "ext4", "/dev/nowhere", &[])?;
    bundle.is_refused_with_any(&[304, 305, 307], &["/e"])
}
