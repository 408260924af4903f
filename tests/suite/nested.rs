//! pura inside another user namespace, where its caller is root: what a container in a container, or an engine's own
//! user namespace, is.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::harness::{Bundle, Facts, Outcome, Pura, own_uid, pura_binary};

/// Runs the bundle's container below `unshare FLAGS`. The namespaces of the caller are in the facts too, as `outer.KIND`.
fn nested(bundle: &Bundle, flags: &[&str]) -> Result<Facts> {
    let run = bundle.with_bundle("run", &["c1"])?;
    let script = "for kind in user net ipc uts; do echo outer.$kind=$(readlink /proc/self/ns/$kind); done; exec \"$@\"";
    let words = [&["unshare", "--user"], flags, &["sh", "-c", script, "sh"]].concat();
    bundle.through(&words, &run).output()?.facts()
}

#[test]
fn a_caller_who_is_root_of_a_user_namespace_shares_it_and_mounts_sysfs_and_mqueue_for_real() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["ns", "mounts", "maps"])?;
    bundle.share_user();
    let facts = nested(&bundle, &["--map-root-user"])?;
    assert_eq!(facts.get("ns.user")?, facts.get("outer.user")?);
    for kind in ["net", "ipc", "uts"] {
        assert_ne!(facts.get(&format!("ns.{kind}"))?, facts.get(&format!("outer.{kind}"))?);
    }
    assert_eq!(facts.mount("/sys")?.kind, "sysfs");
    assert_eq!(facts.mount("/dev/mqueue")?.kind, "mqueue");
    Ok(())
}

#[test]
fn a_network_namespace_of_the_callers_is_joined_together_with_a_new_user_namespace() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["ns", "ids"])?;
    bundle.unmount("/sys");
    bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
    bundle.share("network");
    bundle.push("/linux/namespaces", json!({"type": "network", "path": "/proc/self/ns/net"}))?;
    let facts = nested(&bundle, &["--map-root-user", "--net"])?;
    assert_eq!(facts.get("ns.net")?, facts.get("outer.net")?);
    assert_ne!(facts.get("ns.user")?, facts.get("outer.user")?);
    assert_eq!(facts.get("uid")?, "0");
    Ok(())
}

#[test]
fn maps_are_written_without_the_mappers_where_the_caller_is_root() -> Result<()> {
    requires!(unprivileged, userns, subids);
    // Nobody gave these ids to root in /etc/subuid of the outer namespace: the mappers would refuse.
    let lines = [(0, 0, 1), (1, 40, 10), (100, 3000, 5)];
    let mut bundle = Bundle::probing(&["ids", "maps"])?;
    bundle.map(&lines, &lines);
    bundle.config["process"]["user"] = json!({"uid": 3, "gid": 4, "additionalGids": [5]});
    let facts = nested(&bundle, &["--map-root-user", "--map-auto"])?;
    for name in ["uid_map", "gid_map"] {
        assert_eq!(facts.all(name), ["0 0 1", "1 40 10", "100 3000 5"], "{name}");
    }
    assert_eq!((facts.get("uid")?, facts.get("gid")?, facts.get("groups")?), ("3", "4", "5"));
    assert_eq!(facts.get("setgroups")?, "allow");
    Ok(())
}

#[test]
fn nothing_of_a_nested_container_is_left() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["ns"])?;
    bundle.share_user();
    nested(&bundle, &["--map-root-user"])?;
    assert!(!Path::new(&bundle.path("state/c1")).exists());
    bundle.is_clean()
}

#[test]
fn a_cgroup_that_can_be_written_belongs_to_the_user_inside() -> Result<()> {
    requires!(unprivileged, userns, subids, busybox, cgroup);
    let script = "for file in . cgroup.procs cgroup.threads; do stat -c owner=%u /sys/fs/cgroup/$file; done";
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
    bundle.share_user();
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "rw"])?;
    let facts = nested(&bundle, &["--map-root-user", "--map-auto"])?;
    assert_eq!(facts.all("owner"), ["1000", "1000", "1000"]);
    Ok(())
}

/// A bundle whose container needs a user namespace of its own below that of its caller, who is root there.
fn below_root(words: &[&str]) -> Result<Bundle> {
    let mut bundle = Bundle::probing(words)?;
    bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
    Ok(bundle)
}

/// Runs a call of pura where /proc is as in a container of an engine with its defaults: masked, and in parts read-only.
fn under_masks(bundle: &Bundle, pura: &Pura) -> Result<Outcome> {
    let script = "mount -t proc proc /proc && mount --bind /dev/null /proc/version && mount --bind /proc/sys /proc/sys && \
                  mount -o remount,bind,ro /proc/sys && exec \"$@\"";
    let unshare = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"];
    bundle.through(&[&unshare[..], &["sh", "-c", script, "sh"]].concat(), pura).output()
}

#[test]
fn create_names_what_masks_proc_and_run_shows_the_outer_one_with_its_masks() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = below_root(&["mounts"])?;
    let create = bundle.with_bundle("create", &["c1"])?;
    under_masks(&bundle, &create)?.fails(1, 341, &["masks /proc", "unmask=ALL", "org.pura.proc=bind"])?;
    let facts = under_masks(&bundle, &bundle.with_bundle("run", &["c1"])?)?.facts()?;
    for (target, option) in [("/proc", "rw"), ("/proc/version", "rw"), ("/proc/sys", "ro")] {
        assert!(facts.mount(target)?.has(option), "{target} {:?}", facts.mount(target));
    }
    let strict = bundle.pura(&["--strict", "run", "--bundle"]).args(&[bundle.path("bundle")]).args(&["c1"]);
    under_masks(&bundle, &strict)?.fails(125, 342, &["an outer container masks /proc"])?;
    // Options that the outer one does not have.
    bundle.unmount("/proc");
    bundle.mount("/proc", "proc", "proc", &["hidepid=2"])?;
    under_masks(&bundle, &bundle.with_bundle("run", &["c1"])?)?.fails(125, 341, &["masks /proc"])?;
    bundle.is_clean()
}

#[test]
fn a_command_runs_where_proc_is_masked_and_sys_read_only() -> Result<()> {
    requires!(unprivileged, userns, overlay);
    let bundle = Bundle::new()?;
    // A user namespace of its own: with one id, because more of them are not asked for.
    let command =
        bundle.pura(&["run", "--userns=single", "--", "sh", "-c", "id -u && test -d /proc/1 && test -d /sys/class"]);
    let outcome = under_masks(&bundle, &command)?;
    assert!(outcome.code() == 0 && outcome.stdout == "0\n", "{outcome:#?}");
    assert!(outcome.stderr.contains("[PURA-342]"), "{outcome:#?}");
    bundle.is_clean()
}

#[test]
fn root_without_the_power_to_map_itself_is_told_so() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = below_root(&["true"])?;
    let run = bundle.with_bundle("run", &["c1"])?;
    for dropped in ["-all", "-setfcap"] {
        let unshare =
            ["unshare", "--user", "--map-root-user", "setpriv", "--bounding-set", dropped, "--inh-caps", dropped];
        let outcome = bundle.through(&unshare, &run).output()?;
        outcome.fails(125, 107, &["root without CAP_SETFCAP", "--cap-add SETFCAP"])?;
    }
    bundle.is_clean()
}

#[test]
fn containers_are_made_in_containers_four_deep() -> Result<()> {
    requires!(unprivileged, userns);
    // With all that a container can hold, its user namespace is used again; with no more than it takes to map root, each
    // makes one of its own.
    let all = ["SETFCAP", "SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "SYS_CHROOT", "DAC_OVERRIDE", "NET_ADMIN"];
    for held in [&all[..], &all[..1]] {
        let mut bundle = Bundle::new()?;
        let names: Vec<String> = held.iter().map(|name| format!("CAP_{name}")).collect();
        bundle.config["process"]["capabilities"] = json!({"bounding": names, "effective": names, "permitted": names});
        fs::copy(pura_binary(), bundle.rootfs("bin/pura"))?;
        let pura = |level: u32| -> Vec<String> {
            let words = ["/bin/pura", "--root", &format!("/tmp/{level}"), "run", "-b", &format!("/tmp/b{level}"), "c1"];
            words.map(str::to_owned).to_vec()
        };
        let mut config = bundle.config.clone();
        config["root"]["path"] = "/".into();
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "user");
        }
        for map in ["uidMappings", "gidMappings"] {
            config["linux"].as_object_mut().context("linux")?.remove(map);
        }
        for level in 2..=4 {
            let probe = ["/bin/pura-probe", "ids", "maps"].map(str::to_owned).to_vec();
            config["process"]["args"] = json!(if level == 4 { probe } else { pura(level + 1) });
            let directory = bundle.rootfs(&format!("tmp/b{level}"));
            fs::create_dir(&directory)?;
            fs::write(directory.join("config.json"), serde_json::to_vec(&config)?)?;
        }
        bundle.config["process"]["args"] = json!(pura(2));
        let outcome = bundle.run()?;
        // On its way, only that there are no subordinate ids inside.
        assert_eq!(outcome.code(), 0, "{outcome:#?}");
        let facts = Facts::parse(&outcome.stdout);
        assert_eq!(facts.get("uid")?, "0");
        let outside = if held.len() > 1 { own_uid() } else { 0 };
        assert_eq!(facts.get("uid_map")?, format!("0 {outside} 1"));
    }
    Ok(())
}

#[test]
fn a_command_inside_of_a_command_is_refused_by_name_and_runs_where_the_outer_one_allows_it() -> Result<()> {
    requires!(unprivileged, userns, overlay);
    let bundle = Bundle::new()?;
    fs::copy(pura_binary(), bundle.rootfs("bin/pura"))?;
    let root = bundle.rootfs("").display().to_string();
    let mark = format!("PURA_TEST={}", bundle.dir().display());
    let run = |flags: &[&str], command: &[&str]| {
        let fixed = ["run", "--userns=single", "-e", &mark, "--rootfs", &root];
        bundle.pura(&[&fixed, flags, &["--"], command].concat()).output()
    };
    let inner = [
        "/bin/pura",
        "--root",
        "/tmp/state",
        "run",
        "--userns=single",
        "--rootfs",
        "/",
        "--",
        "/bin/pura-probe",
        "ids",
        "maps",
    ];
    let outcome = run(&[], &inner)?;
    outcome.fails(125, 202, &["a container of pura's", "fix: start the outer one with pura run --nested"])?;
    let outcome = run(&["--nested"], &inner)?;
    assert_eq!(outcome.code(), 0, "{outcome:#?}");
    let facts = Facts::parse(&outcome.stdout);
    assert_eq!((facts.get("uid")?, facts.get("uid_map")?), ("0", "0 0 1"));
    bundle.is_clean()
}
