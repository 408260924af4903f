//! The user namespace, id maps, and the other namespaces: new, inherited, joined.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::harness::{Bundle, Facts, own_gid, own_uid, subordinate};

#[test]
fn a_config_without_user_entry_gets_a_user_namespace() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["ids", "maps", "ns"])?;
    bundle.share_user();
    let facts = bundle.facts()?;
    assert!(facts.get("uid_map")?.starts_with(&format!("0 {} 1", own_uid())), "{facts:?}");
    assert!(facts.get("gid_map")?.starts_with(&format!("0 {} 1", own_gid())), "{facts:?}");
    assert_eq!(facts.get("uid")?, "0");
    assert_ne!(facts.get("ns.user")?, own("user")?);
    Ok(())
}

#[test]
fn automatic_maps_hold_the_subordinate_ids() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut bundle = Bundle::probing(&["maps"])?;
    bundle.share_user();
    let facts = bundle.facts()?;
    let [uids, gids] = [subordinate("uid")?, subordinate("gid")?].map(|first| format!("1 {first} "));
    assert!(facts.all("uid_map").iter().any(|line| line.starts_with(&uids)), "{facts:?}");
    assert!(facts.all("gid_map").iter().any(|line| line.starts_with(&gids)), "{facts:?}");
    assert_eq!(facts.get("setgroups")?, "allow");
    Ok(())
}

#[test]
fn a_single_id_is_written_directly_and_denies_setgroups() -> Result<()> {
    requires!(unprivileged, userns);
    let facts = Bundle::probing(&["maps"])?.facts()?;
    assert_eq!(facts.all("uid_map"), [format!("0 {} 1", own_uid())]);
    assert_eq!(facts.all("gid_map"), [format!("0 {} 1", own_gid())]);
    assert_eq!(facts.get("setgroups")?, "deny");
    Ok(())
}

#[test]
fn a_map_of_the_callers_id_to_1000_runs_as_1000() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["ids", "maps"])?;
    bundle.map(&[(1000, own_uid(), 1)], &[(1000, own_gid(), 1)]);
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let facts = bundle.facts()?;
    for (name, id) in [("uid", "1000"), ("suid", "1000"), ("gid", "1000"), ("sgid", "1000"), ("groups", "1000")] {
        assert_eq!(facts.get(name)?, id, "{name}");
    }
    Ok(())
}

#[test]
fn a_map_of_ten_lines_is_ten_lines_inside() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut bundle = Bundle::probing(&["maps"])?;
    let lines = |own: u32, first: u32| -> Vec<(u32, u32, u32)> {
        let others = (1..10).map(|line| (line * 2, first + 100 - line * 3, 1));
        std::iter::once((0, own, 1)).chain(others).collect()
    };
    let (uids, gids) = (lines(own_uid(), subordinate("uid")?), lines(own_gid(), subordinate("gid")?));
    bundle.map(&uids, &gids);
    let facts = bundle.facts()?;
    let shown = |lines: &[(u32, u32, u32)]| -> Vec<String> {
        let mut lines: Vec<String> =
            lines.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}")).collect();
        lines.sort();
        lines
    };
    for (name, lines) in [("uid_map", &uids), ("gid_map", &gids)] {
        let mut inside = facts.all(name);
        inside.sort_unstable();
        assert_eq!(inside, shown(lines), "{name}");
    }
    Ok(())
}

#[test]
fn mapped_ids_need_no_id_0() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut bundle = Bundle::probing(&["ids"])?;
    bundle.map(&[(5, subordinate("uid")?, 10)], &[(5, subordinate("gid")?, 10)]);
    bundle.config["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9, 10]});
    let facts = bundle.facts()?;
    assert_eq!((facts.get("uid")?, facts.get("gid")?, facts.get("groups")?), ("7", "8", "9,10"));
    Ok(())
}

#[test]
fn ids_outside_the_map_fail_before_any_process() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::new()?;
    for (user, id) in [(json!({"uid": 1000, "gid": 0}), "1000"), (json!({"uid": 0, "gid": 4711}), "4711")] {
        bundle.config["process"]["user"] = user;
        bundle.is_refused(120, &["process.user", id])?;
    }
    Ok(())
}

#[test]
fn a_group_outside_the_map_fails_where_groups_can_be_set() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut bundle = Bundle::new()?;
    bundle.map(&[(0, own_uid(), 1), (1, subordinate("uid")?, 10)], &[(0, own_gid(), 1), (1, subordinate("gid")?, 10)]);
    bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [44]});
    bundle.is_refused(120, &["44"])
}

#[test]
fn maps_that_no_kernel_takes_fail() -> Result<()> {
    requires!(userns);
    let (uid, gid) = (own_uid(), own_gid());
    let mut bundle = Bundle::new()?;
    let bad: [&[(u32, u32, u32)]; 4] =
        [&[(0, uid, 0)], &[(0, uid, 1), (0, uid + 1, 1)], &[(0, uid, 1), (1, uid, 1)], &[(0, u32::MAX - 1, 10)]];
    for lines in bad {
        bundle.map(lines, &[(0, gid, 1)]);
        bundle.is_refused_with_any(&[115, 803], &["uidMappings"])?;
        bundle.map(&[(0, uid, 1)], lines);
        bundle.is_refused_with_any(&[115, 803], &["gidMappings"])?;
    }
    let many: Vec<(u32, u32, u32)> = (0..341).map(|line| (line * 2, 100_000 + line * 3, 1)).collect();
    bundle.map(&many, &many);
    bundle.is_refused_with_any(&[115, 803], &["340"])
}

#[test]
fn ids_that_are_not_the_callers_are_named() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::new()?;
    bundle.map(&[(0, own_uid(), 1), (1, 4_000_000_000, 5)], &[(0, own_gid(), 1), (1, 4_000_000_000, 5)]);
    bundle.is_refused(112, &["4000000000"])
}

#[test]
fn mappings_come_in_pairs_and_need_a_user_namespace() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    let good = bundle.config.clone();
    bundle.config["linux"].as_object_mut().context("linux")?.remove("gidMappings");
    bundle.is_refused_with_any(&[803, 115], &["gidMappings"])?;
    bundle.config.clone_from(&good);
    bundle.share("user");
    bundle.is_refused_with_any(&[803, 806], &["Mappings"])
}

#[test]
fn a_user_namespace_of_the_config_is_made_under_inherit_too_and_that_is_told() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["true"])?;
    bundle.write()?;
    let call = |flags: &[&str]| {
        let words = [flags, &["run", "--userns=inherit", "-b"]].concat();
        bundle.pura(&words).args(&[bundle.path("bundle")]).args(&["c1"]).output()
    };
    call(&[])?.succeeds_silently()?;
    call(&["--strict"])?.fails(125, 218, &["--userns=inherit has no effect", "linux.namespaces"])?;
    bundle.is_clean()
}

#[test]
fn who_may_make_no_namespace_without_a_user_namespace_is_told_so_and_nothing_else() -> Result<()> {
    requires!(unprivileged);
    let bundle = Bundle::new()?;
    let call = |verb: &str| bundle.pura(&[verb, "--userns=inherit", "--", "true"]).output();
    call("run")?.fails(125, 213, &["cannot use --userns=inherit", "CAP_SYS_ADMIN", "fix: --userns=auto"])?;
    call("plan")?.fails(1, 213, &["cannot use --userns=inherit"])?;
    bundle.is_clean()
}

#[test]
fn the_owners_of_the_root_never_change() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["write", "/tmp/new"])?;
    bundle.share_user();
    let owners = |path: &Path| -> Result<(u32, u32)> {
        let meta = fs::symlink_metadata(path)?;
        Ok((meta.uid(), meta.gid()))
    };
    let names = ["", "bin", "bin/pura-probe", "etc/passwd", "tmp"];
    let before: Vec<_> = names.iter().map(|name| owners(&bundle.rootfs(name))).collect::<Result<_>>()?;
    bundle.run()?.succeeds_silently()?;
    let after: Vec<_> = names.iter().map(|name| owners(&bundle.rootfs(name))).collect::<Result<_>>()?;
    assert_eq!(before, after);
    assert_eq!(owners(&bundle.rootfs("tmp/new"))?, (own_uid(), own_gid()));
    Ok(())
}

#[test]
fn a_type_without_path_is_a_new_namespace_and_an_absent_one_is_the_callers() -> Result<()> {
    requires!(userns);
    let kinds =
        [("pid", "pid"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt"), ("network", "net"), ("user", "user")];
    let facts = Bundle::probing(&["ns"])?.facts()?;
    for (_, file) in kinds {
        assert_ne!(facts.get(&format!("ns.{file}"))?, own(file)?, "{file}");
    }
    for (kind, file) in [("ipc", "ipc"), ("uts", "uts"), ("network", "net")] {
        let mut bundle = Bundle::probing(&["ns"])?;
        bundle.share(kind);
        match kind {
            "ipc" => bundle.unmount("/dev/mqueue"),
            "network" => bundle.unmount("/sys"),
            _ => drop(bundle.config.as_object_mut().and_then(|config| config.remove("hostname"))),
        }
        let facts = bundle.facts()?;
        assert_eq!(facts.get(&format!("ns.{file}"))?, own(file)?, "{file}");
    }
    Ok(())
}

#[test]
fn a_cgroup_namespace_is_new_when_asked_for() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["ns"])?;
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    assert_ne!(bundle.facts()?.get("ns.cgroup")?, own("cgroup")?);
    Ok(())
}

#[test]
fn an_absent_mount_namespace_is_private_all_the_same() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["ns"])?;
    bundle.share("mount");
    assert_ne!(bundle.facts()?.get("ns.mnt")?, own("mnt")?);
    Ok(())
}

#[test]
fn a_member_of_a_pod_joins_the_namespaces_of_another_container() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let pid = bundle.pid()?;
    let mut member = Bundle::probing(&["ns"])?;
    member.share_user();
    for kind in ["network", "ipc", "uts"] {
        member.share(kind);
        let file = if kind == "network" { "net" } else { kind };
        member.push("/linux/namespaces", json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}))?;
    }
    member.config.as_object_mut().context("config")?.remove("hostname");
    let facts = member.facts()?;
    for file in ["net", "ipc", "uts", "user"] {
        let of_other = fs::read_link(format!("/proc/{pid}/ns/{file}"))?;
        assert_eq!(facts.get(&format!("ns.{file}"))?, of_other.to_string_lossy(), "{file}");
    }
    bundle.delete()
}

#[test]
fn a_joined_pid_namespace_has_the_other_containers_processes() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let pid = bundle.pid()?;
    let mut member = Bundle::probing(&["session", "ns", "read", "/proc/1/cmdline"])?;
    member.args(&["/bin/pura-probe", "session", "ns"]);
    member.share_user();
    member.share("pid");
    member.push("/linux/namespaces", json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}))?;
    let facts = member.facts()?;
    assert_eq!(facts.get("ns.pid")?, fs::read_link(format!("/proc/{pid}/ns/pid"))?.to_string_lossy());
    assert_ne!(facts.get("pid")?, "1");
    bundle.delete()
}

#[test]
fn a_namespace_path_that_is_none_fails_at_once() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    bundle.share("network");
    let fifo = bundle.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR)?;
    let good = bundle.config.clone();
    let cases = [
        ("/proc/self/ns/uts".to_owned(), &[217, 803][..]),
        (fifo.to_string_lossy().into_owned(), &[217]),
        ("/etc/passwd".to_owned(), &[217]),
        ("/nowhere/net".to_owned(), &[217]),
        ("proc/self/ns/net".to_owned(), &[217, 803]),
    ];
    for (path, codes) in cases {
        bundle.push("/linux/namespaces", json!({"type": "network", "path": path}))?;
        bundle.is_refused_with_any(codes, &[&path])?;
        bundle.config.clone_from(&good);
    }
    Ok(())
}

#[test]
fn a_type_that_is_named_twice_fails() -> Result<()> {
    requires!(userns);
    for kind in ["pid", "network", "ipc", "uts", "mount", "user"] {
        let mut bundle = Bundle::new()?;
        bundle.push("/linux/namespaces", json!({"type": kind}))?;
        bundle.is_refused(803, &["namespaces", kind])?;
    }
    Ok(())
}

#[test]
fn strict_turns_the_lack_of_subordinate_ids_into_an_error_only_where_they_lack() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut bundle = Bundle::probing(&["maps"])?;
    bundle.share_user();
    let facts: Facts = bundle.run_strictly()?.facts()?;
    assert!(facts.all("uid_map").len() > 1, "{facts:?}");
    Ok(())
}

#[test]
fn inherit_without_privilege_is_told_of_auto() -> Result<()> {
    requires!(unprivileged);
    let mut bundle = Bundle::new()?;
    bundle.share_user();
    let outcome = bundle.with_bundle("run", &["--userns=inherit", "c1"])?.output()?;
    outcome.fails(125, 213, &["operation not permitted", "fix: --userns=auto"])?;
    bundle.is_clean()
}

/// The tester's own namespace.
fn own(kind: &str) -> Result<String> {
    Ok(fs::read_link(format!("/proc/self/ns/{kind}"))?.to_string_lossy().into_owned())
}
