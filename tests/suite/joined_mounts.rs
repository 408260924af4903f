//! A container in the mount namespace of others: with a root of its own, and nothing in there that was not before.

use std::fs;

use anyhow::Result;
use serde_json::json;

use crate::harness::{Bundle, Outcome};

/// A container that joins the mount namespace of process `pid`, and with it the user namespace that owns that.
fn joining(pid: i32, words: &[&str]) -> Result<Bundle> {
    let mut bundle = Bundle::probing(words)?;
    bundle.share_user();
    bundle.share("mount");
    bundle.push("/linux/namespaces", json!({"type": "mount", "path": format!("/proc/{pid}/ns/mnt")}))?;
    Ok(bundle)
}

fn mounts_of(pid: i32) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/mountinfo"))?)
}

fn mount_namespace(pid: i32) -> Result<String> {
    Ok(fs::read_link(format!("/proc/{pid}/ns/mnt"))?.to_string_lossy().into_owned())
}

fn exec(bundle: &Bundle, words: &[&str]) -> Result<Outcome> {
    bundle.pura(&["exec", "c1", "/bin/pura-probe"]).args(words).output()
}

#[test]
fn the_program_is_in_the_joined_mount_namespace_and_others_there_notice_nothing() -> Result<()> {
    requires!(userns);
    let first = Bundle::probing(&["sleep"])?;
    let _first = first.started()?;
    let pid = first.pid()?;
    let before = mounts_of(pid)?;
    let mut second = joining(pid, &["sleep"])?;
    second.config["linux"]["maskedPaths"] = json!(["/etc/hidden"]);
    second.config["linux"]["rootfsPropagation"] = json!("unbindable");
    second.mount("/data", "tmpfs", "tmpfs", &["unbindable"])?;
    fs::write(second.rootfs("etc/mine"), "mine")?;
    fs::write(second.rootfs("etc/hidden"), "hidden")?;
    let _second = second.started()?;
    assert_eq!(mount_namespace(second.pid()?)?, mount_namespace(pid)?);
    assert_eq!(mounts_of(pid)?, before);
    assert_eq!(exec(&first, &["stat", "/etc/mine"])?.code(), 1, "the first one's root has become the second one's");

    let facts = exec(&second, &["ns", "cwd"])?.facts()?;
    assert_eq!(facts.get("ns.mnt")?, mount_namespace(pid)?);
    assert_eq!(exec(&second, &["read", "/etc/mine"])?.succeeds()?, "mine");
    assert_eq!(exec(&second, &["read", "/etc/hidden"])?.succeeds()?, "");
    assert_eq!(exec(&second, &["read", "/proc/1/comm"])?.succeeds()?, "pura-probe\n");
    exec(&second, &["write", "/data/file"])?.succeeds_silently()?;

    second.pura(&["kill", "c1", "TERM"]).output()?.succeeds_silently()?;
    second.becomes("stopped")?;
    second.verb("delete")?.succeeds_silently()?;
    assert_eq!(mounts_of(pid)?, before);
    first.delete()
}

#[test]
fn a_created_container_in_a_joined_mount_namespace_takes_an_exec() -> Result<()> {
    requires!(userns);
    let first = Bundle::probing(&["sleep"])?;
    let _first = first.started()?;
    let second = joining(first.pid()?, &["sleep"])?;
    fs::write(second.rootfs("etc/mine"), "mine")?;
    let running = second.created()?;
    assert_eq!(exec(&second, &["read", "/etc/mine"])?.succeeds()?, "mine");
    second.verb("start")?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    // Its root does not need the first one to live on.
    first.delete()?;
    assert_eq!(exec(&second, &["read", "/etc/mine"])?.succeeds()?, "mine");
    second.delete()
}

#[test]
fn a_joined_mount_namespace_shows_none_of_its_mounts_to_a_container() -> Result<()> {
    requires!(userns);
    let first = Bundle::probing(&["sleep"])?;
    let _first = first.started()?;
    let second = joining(first.pid()?, &["mounts"])?;
    assert_eq!(second.run()?.succeeds()?, "");
    first.delete()
}

#[test]
fn a_mount_namespace_that_the_container_has_no_power_over_is_refused() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["ns"])?;
    bundle.share("mount");
    bundle.push("/linux/namespaces", json!({"type": "mount", "path": "/proc/self/ns/mnt"}))?;
    bundle.is_refused(217, &["linux.namespaces", "mount", "join the user namespace that owns it"])
}

#[test]
fn real_root_may_join_its_own_mount_namespace_if_it_inherits_the_user_namespace() -> Result<()> {
    requires!(root);
    let bundle = joining(i32::try_from(std::process::id())?, &["ns"])?;
    bundle.write()?;
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    let call = bundle.pura(&["--userns=inherit", "run", "-b"]).args(&[bundle.path("bundle")]).args(&["c1"]);
    assert_eq!(call.output()?.facts()?.get("ns.mnt")?, mount_namespace(i32::try_from(std::process::id())?)?);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo")?, before);
    Ok(())
}
