//! What only real root can show. The promise is the same: no capability in the initial user namespace.

mod device_rules;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use anyhow::Result;
use serde_json::json;

use crate::harness::{Bundle, Pura};

/// A base without a user namespace, as rootful engines send it.
fn rootful(words: &[&str]) -> Result<Bundle> {
    let mut bundle = Bundle::probing(words)?;
    bundle.share_user();
    Ok(bundle)
}

#[test]
fn real_root_gets_a_user_namespace_with_the_identity_map() -> Result<()> {
    requires!(root);
    let facts = rootful(&["ids", "maps", "ns"])?.facts()?;
    assert_eq!(facts.all("uid_map"), ["0 0 4294967295"]);
    assert_eq!(facts.all("gid_map"), ["0 0 4294967295"]);
    assert_ne!(facts.get("ns.user")?, fs::read_link("/proc/self/ns/user")?.to_string_lossy());
    assert_eq!(facts.get("uid")?, "0");
    Ok(())
}

#[test]
fn inherit_keeps_the_callers_user_namespace_and_warns_in_the_log() -> Result<()> {
    requires!(root);
    let bundle = rootful(&["ns"])?;
    bundle.write()?;
    let log = bundle.path("log");
    let words = ["--userns=inherit", "--log-level", "warning", "--log", &log.to_string_lossy(), "run", "-b"];
    let facts = bundle.pura(&words).args(&[bundle.path("bundle")]).args(&["c1"]).output()?.facts()?;
    assert_eq!(facts.get("ns.user")?, fs::read_link("/proc/self/ns/user")?.to_string_lossy());
    assert!(fs::read_to_string(log)?.contains("PURA-218"));
    Ok(())
}

#[test]
fn a_created_container_has_its_namespaces_for_good() -> Result<()> {
    requires!(root);
    let bundle = rootful(&["sleep"])?;
    let running = bundle.created()?;
    let pid = bundle.pid()?;
    let namespaces = || -> Result<Vec<String>> {
        let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
        kinds.iter().map(|kind| Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string())).collect()
    };
    let (before, cgroup) = (namespaces()?, fs::read_to_string(format!("/proc/{pid}/cgroup"))?);
    bundle.verb("start")?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    assert_eq!(namespaces()?, before);
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/cgroup"))?, cgroup);
    bundle.delete()
}

#[test]
fn the_cgroup_becomes_the_containers_users_when_it_can_be_written_inside() -> Result<()> {
    requires!(root);
    for (options, wanted) in [(["nosuid", "rw"], 1000), (["nosuid", "ro"], 0)] {
        let mut bundle = rootful(&["sleep"])?;
        bundle.config["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1000});
        bundle.push("/linux/namespaces", serde_json::json!({"type": "cgroup"}))?;
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &options)?;
        let _running = bundle.started()?;
        let state = bundle.state()?;
        let leaf = std::path::PathBuf::from(state["pura"]["cgroup"].as_str().unwrap_or_default());
        for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
            assert_eq!(fs::metadata(leaf.join(name))?.uid(), wanted, "{name}");
        }
        assert_eq!(fs::metadata(leaf.join("cgroup.events"))?.uid(), 0);
        bundle.delete()?;
        assert!(!leaf.exists());
    }
    Ok(())
}

#[test]
fn default_devices_are_there_for_root_too() -> Result<()> {
    requires!(root);
    let facts = rootful(&["stat", "/dev/null", "/dev/urandom"])?.facts()?;
    assert!(facts.get("/dev/null")?.ends_with(" 1:3") && facts.get("/dev/urandom")?.ends_with(" 1:9"), "{facts:?}");
    Ok(())
}

#[test]
fn a_network_device_moves_to_a_namespace_that_root_owns_and_to_a_new_one() -> Result<()> {
    requires!(root, busybox, links);
    // In a network of root's own, so that nothing happens to the machine's.
    let setup = "ip link add outer type veth peer name peer && ip addr add 10.9.8.7/24 dev outer || exit 99";
    let join = "unshare --net sh -c 'echo; exec sleep 60' >\"$config.said\" & pid=$!
        until [ -s \"$config.said\" ]; do :; done; sed -i \"s#/NETWORK#/proc/$pid/ns/net#\" \"$config\"";
    for (path, before) in [("/NETWORK", join), ("", "pid=")] {
        let mut bundle = Bundle::with_args(&["/bin/busybox", "ip", "addr"])?;
        bundle.share_user();
        bundle.share("network");
        bundle.push("/linux/namespaces", json!({"type": "network", "path": path}))?;
        bundle.config["linux"]["netDevices"] = json!({"outer": {"name": "inner"}});
        let script = format!(
            "config=$1; shift; {setup}\n{before}\n\"$@\"; status=$?\n[ -z \"$pid\" ] || kill $pid\nexit $status"
        );
        let config = bundle.path("bundle/config.json");
        let words = ["unshare", "--net", "sh", "-c", &script, "sh", &config.to_string_lossy()];
        let run = bundle.with_bundle("run", &["c1"])?;
        let outcome = bundle.through(&words, &run).output()?;
        let text = outcome.succeeds()?;
        let line = text.lines().find(|line| line.contains("inner@")).unwrap_or_default();
        assert!(line.contains(",UP") && text.contains("10.9.8.7/24"), "{path:?}: {text}");
    }
    Ok(())
}

/// The first account with enough subordinate ids: its name and its ids.
fn account() -> Result<(String, u32, u32, u32)> {
    let ranges = fs::read_to_string("/etc/subuid")?;
    let accounts = fs::read_to_string("/etc/passwd")?;
    let found = ranges.lines().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let (first, count) = rest.split_once(':')?;
        let account = accounts.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let mut ids = account.split(':').skip(2).map(|id| id.parse().ok());
        let enough = count.parse::<u32>().is_ok_and(|count| count >= 60_000);
        enough.then_some((name.to_owned(), ids.next()??, ids.next()??, first.parse().ok()?))
    });
    anyhow::Context::context(found, "no account has subordinate ids; contrib/as-rootless makes one")
}

/// The bundle's container, for that account, on a machine that root has changed: in mounts of the test's own, by a shell
/// script, in which `$USER` and `$UID_` are the account's, `$FIRST` its first subordinate id and `$FILES` a directory.
fn for_account(bundle: &Bundle, setup: &str, flags: &str) -> Result<crate::harness::Outcome> {
    let (name, uid, gid, first) = account()?;
    let run = bundle.with_bundle("run", &["c1"])?;
    let files = bundle.path("files").display().to_string();
    let groups = if flags.contains("--regid") { String::new() } else { format!("--regid={gid} --init-groups") };
    let script = format!(
        "set -e; USER={name}; UID_={uid}; FIRST={first}; FILES={files}; mkdir $FILES; both() {{ for kind in uid gid; do \
         printf '%s\\n' \"$@\" >$FILES/$kind; mount --bind $FILES/$kind /etc/sub$kind; done; }}; {setup}; \
         chown -R $UID_ {}; exec setpriv --reuid={uid} {groups} --inh-caps=-all {flags} \"$@\"",
        bundle.dir().display()
    );
    bundle.through(&["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"], &run).output()
}

#[test]
fn ranges_by_number_and_several_ranges_of_an_account_are_all_used() -> Result<()> {
    requires!(root);
    let first = account()?.3;
    for (setup, lines) in [
        ("both $UID_:$FIRST:65536", vec![format!("1 {first} 65536")]),
        (
            "both $USER:$FIRST:1000 $USER:$((FIRST + 30000)):1000",
            vec![format!("1 {first} 1000"), format!("1001 {} 1000", first + 30_000)],
        ),
    ] {
        let facts = for_account(&rootful(&["maps"])?, setup, "")?.facts()?;
        assert_eq!(facts.all("uid_map")[1..], lines, "{setup}");
        assert_eq!(facts.all("gid_map").len(), lines.len() + 1, "{setup}");
    }
    Ok(())
}

#[test]
fn the_shell_of_newgrp_and_a_lost_bounding_set_are_told_from_each_other() -> Result<()> {
    requires!(root);
    let bundle = rootful(&["true"])?;
    // Another group than that of the account, as newgrp(1) leaves it.
    for_account(&bundle, "true", "--regid=100 --clear-groups")?.fails(125, 111, &["gid 100", "newgrp", "fix: exit"])?;
    let bundle = rootful(&["true"])?;
    for_account(&bundle, "true", "--bounding-set=-setuid,-setgid")?.fails(125, 104, &["bounding set"])?;
    let bundle = rootful(&["true"])?;
    for_account(&bundle, "true", "--no-new-privs")?.fails(125, 102, &["no_new_privs"])?;
    Ok(())
}

#[test]
fn a_proc_that_hides_processes_of_others_is_no_obstacle_and_a_read_only_one_is() -> Result<()> {
    requires!(root);
    let hide = "mount -t proc -o hidepid=2 proc /proc";
    for_account(&rootful(&["true"])?, hide, "")?.succeeds_silently()?;
    let closed = "mount -o remount,bind,ro /proc";
    for_account(&rootful(&["true"])?, closed, "")?.fails(125, 901, &["read-only"])?;
    Ok(())
}

#[test]
fn a_binary_that_may_be_executed_but_not_read_serves_an_ordinary_user() -> Result<()> {
    requires!(root, overlay);
    let bundle = Bundle::new()?;
    let (binary, state, id) = (bundle.path("pura"), bundle.path("own"), "12345");
    fs::copy(crate::harness::pura_binary(), &binary)?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o111))?;
    fs::create_dir(&state)?;
    std::os::unix::fs::chown(&state, Some(12345), Some(12345))?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    fs::set_permissions(bundle.dir(), fs::Permissions::from_mode(0o755))?;
    let (binary, state) = (binary.to_string_lossy(), state.to_string_lossy());
    let user = ["setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--inh-caps=-all"];
    let run = [&*binary, "--root", &*state, "run", "--userns=single", "--", "cat", "/proc/self/uid_map"];
    let words: Vec<_> = user.iter().chain(&run).map(Into::into).collect();
    let outcome = Pura::through(bundle.dir(), &words).output()?;
    assert_eq!(outcome.succeeds()?.split_whitespace().collect::<Vec<_>>(), ["0", id, "1"]);
    Ok(())
}
