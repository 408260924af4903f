//! Idmapped mounts.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use crate::harness::{Bundle, own_gid, own_uid, subordinate, text};

fn lines(inside: u32, outside: u32, count: u32) -> Value {
    json!([{"containerID": inside, "hostID": outside, "size": count}])
}

/// A tmpfs of the container's own with a file in it on `/t`, and a bind of it on `/u`; the program shows the file there.
fn bundle(options: &[&str]) -> Result<Bundle> {
    let mut bundle = Bundle::probing(&["stat", "/u/file"])?;
    fs::create_dir(bundle.rootfs("t"))?;
    fs::write(bundle.rootfs("t/file"), "")?;
    bundle.mount("/t", "tmpfs", "tmpfs", &["tmpcopyup"])?;
    bundle.mount("/u", "bind", "rootfs/t", &[&["bind"], options].concat())?;
    Ok(bundle)
}

fn last(bundle: &mut Bundle) -> &mut Value {
    let index = bundle.config["mounts"].as_array().map_or(0, Vec::len) - 1;
    &mut bundle.config["mounts"][index]
}

/// Two ids inside: the caller's, and its first subordinate one.
fn two_ids(bundle: &mut Bundle) -> Result<(u32, u32)> {
    let (uid, gid) = (subordinate("uid")?, subordinate("gid")?);
    bundle.map(&[(0, own_uid(), 1), (1, uid, 1)], &[(0, own_gid(), 1), (1, gid, 1)]);
    Ok((uid, gid))
}

#[test]
fn a_file_system_of_the_container_is_mapped() -> Result<()> {
    requires!(unprivileged, userns, subids);
    // With and without the word, which Podman leaves away.
    for words in [&["idmap"][..], &["ridmap"], &[]] {
        let mut bundle = bundle(words)?;
        let (uid, gid) = two_ids(&mut bundle)?;
        last(&mut bundle)["uidMappings"] = lines(0, uid, 1);
        last(&mut bundle)["gidMappings"] = lines(0, gid, 1);
        let facts = bundle.facts()?;
        assert!(facts.get("/u/file")?.starts_with("file 644 1 1 "), "{words:?}: {facts:?}");
    }
    Ok(())
}

#[test]
fn the_maps_may_stand_in_the_options() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut relative = bundle(&["idmap=uids=@0-1-1;gids=@0-1-1"])?;
    two_ids(&mut relative)?;
    assert!(relative.facts()?.get("/u/file")?.starts_with("file 644 1 1 "));
    let (uid, gid) = (subordinate("uid")?, subordinate("gid")?);
    let mut absolute = bundle(&[&format!("ridmap=uids=0-{uid}-1;gids=0-{gid}-1")])?;
    two_ids(&mut absolute)?;
    assert!(absolute.facts()?.get("/u/file")?.starts_with("file 644 1 1 "));
    bundle(&["idmap=uids=0-1"])?.is_refused(308, &["/u", "uids=0-1"])
}

#[test]
fn a_new_file_system_is_mapped_too() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut bundle = bundle(&[])?;
    let (uid, gid) = two_ids(&mut bundle)?;
    bundle.unmount("/u");
    bundle.unmount("/t");
    bundle.mount("/t", "tmpfs", "tmpfs", &["tmpcopyup", "idmap"])?;
    last(&mut bundle)["uidMappings"] = lines(0, uid, 1);
    last(&mut bundle)["gidMappings"] = lines(0, gid, 1);
    bundle.args(&["/bin/pura-probe", "stat", "/t/file"]);
    assert!(bundle.facts()?.get("/t/file")?.starts_with("file 644 1 1 "));
    Ok(())
}

#[test]
fn the_map_of_the_container_changes_nothing_on_its_own_file_system() -> Result<()> {
    requires!(unprivileged, userns);
    assert!(bundle(&["idmap"])?.facts()?.get("/u/file")?.starts_with("file 644 0 0 "));
    Ok(())
}

#[test]
fn a_file_system_of_the_host_is_refused_by_its_type() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["true"])?;
    fs::create_dir(bundle.path("bundle/source"))?;
    bundle.mount("/v", "bind", "source", &["bind", "idmap"])?;
    let kind = std::process::Command::new("findmnt").args(["-n", "-o", "FSTYPE", "-T"]).arg(bundle.dir()).output()?;
    let kind = format!("filesystem {} ", text(&kind.stdout).trim());
    bundle.is_refused(312, &["/v", &kind, "without root", "--userns=keep-id"])
}

#[test]
fn maps_are_given_for_users_and_groups_and_lead_to_ids_of_the_container() -> Result<()> {
    requires!(unprivileged, userns);
    let mut one_sided = bundle(&["idmap"])?;
    last(&mut one_sided)["uidMappings"] = lines(0, own_uid(), 1);
    one_sided.is_refused(803, &["uidMappings and gidMappings"])?;
    let mut foreign = bundle(&["idmap"])?;
    last(&mut foreign)["uidMappings"] = lines(0, 0, 1);
    last(&mut foreign)["gidMappings"] = lines(0, 0, 1);
    foreign.is_refused(312, &["/u", "0 0 1"])
}

#[test]
fn root_maps_a_file_system_of_the_host() -> Result<()> {
    requires!(root);
    for (words, explicit) in [(&["bind", "idmap"][..], false), (&["rbind"], true)] {
        let mut bundle = Bundle::probing(&["stat", "/v/file"])?;
        bundle.map(&[(0, 200_000, 1000)], &[(0, 200_000, 1000)]);
        fs::create_dir(bundle.path("bundle/source"))?;
        fs::write(bundle.path("bundle/source/file"), "")?;
        // Root of the container owns nothing of the image, whose ids are not mapped.
        fs::create_dir(bundle.rootfs("v"))?;
        bundle.mount("/v", "bind", "source", words)?;
        if explicit {
            last(&mut bundle)["uidMappings"] = lines(0, 200_005, 1);
            last(&mut bundle)["gidMappings"] = lines(0, 200_006, 1);
        }
        let (uid, gid) = if explicit { (5, 6) } else { (0, 0) };
        let facts = bundle.facts()?;
        assert!(facts.get("/v/file")?.starts_with(&format!("file 644 {uid} {gid} ")), "{facts:?}");
    }
    Ok(())
}

#[test]
fn root_has_nothing_to_map_with_without_mappings_and_a_user_namespace() -> Result<()> {
    requires!(root);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    fs::create_dir(bundle.path("bundle/source"))?;
    bundle.mount("/v", "bind", "source", &["bind", "idmap"])?;
    bundle.write()?;
    let words = ["--userns=inherit", "create", "-b"];
    let outcome = bundle.pura(&words).args(&[bundle.path("bundle")]).args(&["c1"]).output()?;
    outcome.fails_with_any(1, &[312], &["/v", "neither mappings nor a user namespace"])?;
    bundle.is_clean()
}
