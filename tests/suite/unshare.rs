//! `pura unshare` and `pura map`: the ids of a new container, without one.

use std::{fs, os::unix::fs::MetadataExt as _};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::harness::{Bundle, Outcome, own_gid, own_uid, subordinate};

/// `pura unshare FLAGS -- COMMAND`
fn unshare(bundle: &Bundle, flags: &[&str], command: &[&str]) -> Result<Outcome> {
    bundle.pura(&[&["unshare"], flags, &["--"], command].concat()).output()
}

#[test]
fn unshare_runs_a_program_of_the_host_with_the_ids_of_a_container_and_returns_its_status() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let bundle = Bundle::probing(&["maps"])?;
    let script = "id -u; id -g; cat /proc/self/uid_map; echo $PURA_TEST; exit 7";
    let outcome = unshare(&bundle, &[], &["sh", "-c", script])?;
    let lines: Vec<_> = outcome.ends(7)?.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    let own = own_uid().to_string();
    assert_eq!((&lines[0], &lines[1], &lines[2]), (&vec!["0"], &vec!["0"], &vec!["0", own.as_str(), "1"]));
    assert_eq!(lines[3][1], subordinate("uid")?.to_string());
    assert_eq!(lines.last().context("a last line")?[0], bundle.dir().to_string_lossy(), "the environment is kept");
    let mut bundle = bundle;
    bundle.share_user();
    let maps = bundle.facts()?;
    let inside: Vec<_> = lines[2..lines.len() - 1].iter().map(|line| line.join(" ")).collect();
    assert_eq!(maps.all("uid_map"), inside, "the maps of a container");
    Ok(())
}

#[test]
fn files_of_subordinate_ids_can_be_seen_and_removed() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let bundle = Bundle::new()?;
    let tree = bundle.path("tree");
    let named = tree.display().to_string();
    let make = "mkdir -m 700 $0 && touch $0/file && chown 1000:1000 $0/file $0";
    unshare(&bundle, &[], &["sh", "-c", make, &named])?.succeeds_silently()?;
    assert_eq!(fs::metadata(&tree)?.uid(), subordinate("uid")? + 999);
    assert!(fs::read_dir(&tree).is_err(), "not the caller's outside");
    let mapped = bundle.pura(&["map", &named]).output()?;
    let wanted = format!(
        "uid {} outside is 1000 inside\ngid {} outside is 1000 inside\n",
        subordinate("uid")? + 999,
        subordinate("gid")? + 999
    );
    assert_eq!(mapped.succeeds()?, wanted);
    unshare(&bundle, &[], &["rm", "-r", &named])?.succeeds_silently()?;
    assert!(!tree.exists());
    Ok(())
}

#[test]
fn the_program_is_the_process_that_was_called_and_mounts_stay_inside() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::new()?;
    let mut running = bundle.pura(&["unshare", "--userns=single", "sh", "-c", "echo $$; exec sleep 60"]).spawn()?;
    assert_eq!(running.line()?, running.pid.to_string());
    running.signal(Signal::SIGTERM)?;
    assert_eq!(running.wait()?.code(), 128 + 15);
    let target = bundle.path("mnt");
    fs::create_dir(&target)?;
    let script = "mount -t tmpfs none \"$0\" && touch \"$0/file\"";
    unshare(&bundle, &["--userns=single"], &["sh", "-c", script, &target.to_string_lossy()])?.succeeds_silently()?;
    assert_eq!(fs::read_dir(&target)?.count(), 0);
    Ok(())
}

#[test]
fn the_modes_are_those_of_run() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let bundle = Bundle::new()?;
    let ids = |flags: &[&str]| unshare(&bundle, flags, &["sh", "-c", "id -u; wc -l </proc/self/uid_map"]);
    assert_eq!(ids(&["--userns=single"])?.succeeds()?, "0\n1\n");
    let own = own_uid().to_string();
    assert!(ids(&["--userns=keep-id"])?.succeeds()?.starts_with(&format!("{own}\n")));
    unshare(&bundle, &["--userns=inherit"], &["true"])?;
    let refused = unshare(&bundle, &["--userns=inherit"], &["true"])?;
    assert!(refused.code() == 125 && refused.stderr.contains("fix: --userns=auto"), "{refused:?}");
    Ok(())
}

#[test]
fn a_program_that_cannot_run_has_the_status_of_a_shell() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::new()?;
    let of = |command: &str| unshare(&bundle, &["--userns=single"], &[command]);
    of("no-such-program")?.fails(127, 601, &["no-such-program"])?;
    of("/no/such/program")?.fails(127, 602, &["/no/such/program"])?;
    of("/etc")?.fails(126, 604, &["is a directory"])?;
    of("/etc/passwd")?.fails(126, 603, &["permission denied"])?;
    Ok(())
}

#[test]
fn map_says_an_id_both_ways_and_what_is_not_mapped() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let bundle = Bundle::new()?;
    let map = |words: &[&str]| bundle.pura(&[&["map"], words].concat()).output();
    let first = subordinate("uid")?;
    let outcome = map(&["1"])?;
    let text = outcome.succeeds()?;
    assert!(text.starts_with(&format!("uid 1 inside is {first} outside\nuid 1 outside is not mapped")), "{text}");
    assert!(map(&[&first.to_string()])?.succeeds()?.contains(&format!("uid {first} outside is 1 inside\n")));
    assert!(map(&["--gid", &own_gid().to_string()])?.succeeds()?.contains("outside is 0 inside\n"));
    let outcome = map(&["--userns=single", "5"])?;
    assert!(outcome.succeeds()?.starts_with("uid 5 inside is not mapped (mapped: 0)\n"), "{outcome:?}");
    map(&["/no/such/file"])?.fails(1, 716, &["/no/such/file", "does not exist"])?;
    map(&["4294967295"])?.fails(2, 1, &["4294967295"])?;
    Ok(())
}

#[test]
fn without_an_id_of_the_callers_unshare_is_root_inside() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let bundle = Bundle::new()?;
    let outcome = bundle.pura(&["unshare", "--userns=nomap", "--", "id", "-u"]).output()?;
    assert_eq!(outcome.succeeds()?, "0\n");
    let groups = bundle.pura(&["unshare", "--userns=nomap", "--", "id", "-G"]).output()?;
    assert_eq!(groups.succeeds()?, "0\n");
    Ok(())
}

#[test]
fn without_a_user_namespace_of_ones_own_each_id_is_itself() -> Result<()> {
    requires!(unprivileged);
    let bundle = Bundle::new()?;
    let outcome = bundle.pura(&["map", "--userns=inherit", "5"]).output()?;
    if fs::read_to_string("/proc/self/uid_map")?.split_whitespace().last() == Some("4294967295") {
        assert_eq!(outcome.stdout, "uid 5 inside is 5 outside\nuid 5 outside is 5 inside\n", "{outcome:?}");
    }
    Ok(())
}

#[test]
fn map_knows_the_maps_of_a_running_container() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    let (uid, gid) = (own_uid(), own_gid());
    bundle.map(&[(7, uid, 1)], &[(9, gid, 1)]);
    bundle.config["process"]["user"] = serde_json::json!({"uid": 7, "gid": 9});
    let _running = bundle.started()?;
    let map = |words: &[&str]| bundle.pura(&[&["map", "--container", "c1"], words].concat()).output();
    assert!(map(&["7"])?.succeeds()?.starts_with(&format!("uid 7 inside is {uid} outside\n")));
    let own = bundle.dir().display().to_string();
    assert_eq!(map(&[&own])?.succeeds()?, format!("uid {uid} outside is 7 inside\ngid {gid} outside is 9 inside\n"));
    bundle.pura(&["map", "--container", "none", "1"]).output()?.fails(1, 703, &["does not exist"])?;
    bundle.pura(&["delete", "--force", "c1"]).output()?.succeeds_silently()
}
