//! What happens to a cgroup behind pura's back: killed, removed, divided, frozen, and controllers taken away.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::harness::{Bundle, Outcome, Pura, eventually, own_cgroup};

fn leaf(bundle: &Bundle) -> Result<PathBuf> {
    let state = bundle.state()?;
    Ok(PathBuf::from(state["pura"]["cgroup"].as_str().with_context(|| format!("no cgroup: {state}"))?))
}

/// A cgroup beside the caller's, for callers of pura.
fn beside(bundle: &Bundle, name: &str) -> Result<PathBuf> {
    let own = own_cgroup()?;
    let mark = bundle.dir().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let directory = own.parent().context("parent")?.join(format!("{name}-{mark}"));
    fs::create_dir(&directory)?;
    Ok(directory)
}

/// The same call, from that cgroup.
fn within(bundle: &Bundle, cgroup: &Path, pura: &Pura) -> Result<Outcome> {
    let enter = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", cgroup.display());
    bundle.through(&["sh", "-c", &enter, "sh"], pura).output()
}

/// A container whose root may divide its cgroup, and does what the script says there.
fn dividing(script: &str) -> Result<Bundle> {
    let mut bundle =
        Bundle::with_args(&["/bin/sh", "-c", &format!("{script}; echo ready; while :; do sleep 1000; done")])?;
    bundle.share("cgroup");
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    bundle.unmount("/sys/fs/cgroup");
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "rw"])?;
    Ok(bundle)
}

const GO_BELOW: &str = "cd /sys/fs/cgroup && mkdir -p sub/deep && echo 0 >sub/deep/cgroup.procs || exit";

#[test]
fn a_caller_whose_cgroup_was_once_killed_starts_containers_all_the_same() -> Result<()> {
    requires!(userns, cgroup);
    let bundle = Bundle::probing(&["sleep"])?;
    let killed = beside(&bundle, "killed")?;
    // Linux 5.14. Nobody is in it, and yet every child is killed that is born elsewhere (6.14).
    if fs::write(killed.join("cgroup.kill"), "1").is_ok() {
        within(&bundle, &killed, &bundle.with_bundle("create", &["c1"])?)?.succeeds_silently()?;
        let place = leaf(&bundle)?;
        assert_eq!(place.parent(), Some(killed.as_path()));
        within(&bundle, &killed, &bundle.pura(&["start", "c1"]))?.succeeds_silently()?;
        let exec = bundle.pura(&["exec", "c1", "/bin/pura-probe", "exit", "3"]);
        within(&bundle, &killed, &exec)?.ends(3)?;
        assert!(fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid()?))?.contains("killed-"));
        bundle.delete()?;
        assert!(!place.exists());
    }
    let mut once = Bundle::probing(&["exit", "4"])?;
    within(&once, &killed, &once.with_bundle("run", &["c1"])?)?.ends(4)?;
    // With hooks, another process joins what is joined, and clones.
    once.config["hooks"] = json!({"createRuntime": [{"path": "/bin/true"}]});
    within(&once, &killed, &once.with_bundle("run", &["c1"])?)?.ends(4)?;
    once.is_clean()?;
    Ok(fs::remove_dir(killed)?)
}

#[test]
fn containers_root_divides_its_cgroup_and_all_of_it_goes() -> Result<()> {
    requires!(userns, cgroup, busybox);
    for words in [&["delete", "--force", "c1"][..], &["kill", "--all", "c1", "KILL"]] {
        let bundle = dividing(GO_BELOW)?;
        let running = bundle.started()?;
        let place = leaf(&bundle)?;
        let below = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid()?))?;
        assert!(below.trim().ends_with("/sub/deep"), "{below}");
        bundle.verb("pause")?.succeeds_silently()?;
        assert_eq!(bundle.status()?, "paused");
        bundle.verb("resume")?.succeeds_silently()?;
        let ps = bundle.pura(&["ps", "--format", "json", "c1"]).output()?;
        assert!(ps.succeeds()?.contains(&bundle.pid()?.to_string()), "{ps:?}");
        bundle.pura(words).output()?.succeeds_silently()?;
        running.rest()?;
        bundle.delete()?;
        assert!(!place.exists());
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn exec_enters_a_cgroup_namespace_and_the_containers_cgroup() -> Result<()> {
    requires!(userns, cgroup, busybox);
    let bundle = dividing("true")?;
    let _running = bundle.started()?;
    let said = bundle.pura(&["exec", "c1", "/bin/sh", "-c", "cat /proc/self/cgroup"]).output()?;
    // The root of the namespace.
    assert!(said.succeeds()?.lines().any(|line| line == "0::/"), "{said:?}");
    bundle.delete()
}

#[test]
fn exec_goes_where_init_is_when_the_containers_cgroup_holds_no_processes_any_more() -> Result<()> {
    requires!(userns, controllers, busybox);
    let mut bundle = dividing(&format!("{GO_BELOW}; echo +pids >cgroup.subtree_control || exit"))?;
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 100}});
    let _running = bundle.started()?;
    let said = bundle.pura(&["exec", "c1", "/bin/sh", "-c", "cat /proc/self/cgroup"]).output()?;
    assert!(said.succeeds()?.trim().ends_with("/sub/deep"), "{said:?}");
    bundle.pura(&["exec", "--cgroup", "/", "c1", "/bin/true"]).output()?.fails(
        125,
        406,
        &["--cgroup \"/\"", "can hold no processes"],
    )?;
    bundle.delete()
}

#[test]
fn a_container_whose_cgroup_others_killed_and_removed_is_stopped_and_deleted() -> Result<()> {
    requires!(userns, cgroup);
    let bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.started()?;
    let place = leaf(&bundle)?;
    bundle.pura(&["kill", "c1", "KILL"]).output()?.succeeds_silently()?;
    running.rest()?;
    bundle.becomes("stopped")?;
    eventually("it can be removed", || Ok(fs::remove_dir(&place).is_ok() || !place.exists()))?;
    assert_eq!(bundle.status()?, "stopped");
    bundle.pura(&["kill", "--all", "c1", "KILL"]).output()?.succeeds_silently()?;
    bundle.verb("pause")?.fails(1, 612, &["container not running"])?;
    bundle.pura(&["update", "--pids-limit", "5", "c1"]).output()?.fails(1, 612, &["container not running"])?;
    bundle.verb("delete")?.succeeds_silently()?;
    bundle.is_clean()
}

#[test]
fn who_lives_in_a_cgroup_that_was_only_intended_is_not_killed() -> Result<()> {
    requires!(userns, cgroup);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let shared = beside(&bundle, "shared")?;
    fs::write(shared.join("cgroup.procs"), bundle.pid()?.to_string())?;
    // What a create leaves that was killed before it made anything.
    let known = fs::read_to_string(bundle.path("state/c1/intent"))?;
    let mut intent: serde_json::Value = serde_json::from_str(known.lines().next().context("no intent")?)?;
    intent["cgroup"] = shared.to_string_lossy().into();
    fs::create_dir(bundle.path("state/c2"))?;
    fs::write(bundle.path("state/c2/intent"), format!("{intent}\n"))?;
    bundle.pura(&["delete", "--force", "c2"]).output()?.fails(1, 731, &["c2"])?;
    assert_eq!(bundle.status()?, "running");
    bundle.delete()?;
    fs::remove_dir(shared)?;
    bundle.pura(&["delete", "--force", "c2"]).output()?.succeeds_silently()?;
    bundle.is_clean()
}

#[test]
fn update_gives_a_controller_on_again_that_was_taken_away_or_says_why_not() -> Result<()> {
    requires!(userns, controllers);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 50}});
    let parent = beside(&bundle, "withdrawn")?;
    let path = format!("/{}/leaf", parent.strip_prefix("/sys/fs/cgroup")?.display());
    bundle.config["linux"]["cgroupsPath"] = path.into();
    let _running = bundle.started()?;
    let place = leaf(&bundle)?;
    let update = || bundle.pura(&["update", "--pids-limit", "20", "c1"]).output();
    fs::write(parent.join("cgroup.subtree_control"), "-pids")?;
    assert!(!place.join("pids.max").exists());
    update()?.succeeds_silently()?;
    assert_eq!(fs::read_to_string(place.join("pids.max"))?.trim(), "20");
    fs::write(parent.join("cgroup.subtree_control"), "-pids")?;
    // Somebody lives there now: it can give nothing on.
    let enter = format!("echo $$ >{}/cgroup.procs && echo in && exec sleep 100", parent.display());
    let words = ["sh", "-c", &enter].map(std::ffi::OsString::from);
    let mut squatter = Pura::through(bundle.dir(), &words).spawn()?;
    assert_eq!(squatter.line()?, "in");
    update()?.fails(1, 407, &["pids.max", "processes live in"])?;
    squatter.signal(nix::sys::signal::Signal::SIGKILL)?;
    squatter.wait()?;
    assert_eq!(bundle.status()?, "running");
    bundle.delete()?;
    Ok(fs::remove_dir(parent)?)
}

#[test]
fn what_cannot_move_any_more_is_deleted_whoever_has_frozen_it() -> Result<()> {
    requires!(userns, cgroup);
    let mut bundle = Bundle::probing(&["trap"])?;
    let above = beside(&bundle, "frozen")?;
    bundle.config["linux"]["cgroupsPath"] = format!("/{}/leaf", above.strip_prefix("/sys/fs/cgroup")?.display()).into();
    let _running = bundle.started()?;
    fs::write(above.join("cgroup.freeze"), "1")?;
    bundle.becomes("paused")?;
    bundle.verb("resume")?.fails(1, 409, &["a cgroup above the container's is frozen", "cgroup.freeze"])?;
    bundle.delete()?;
    assert!(!above.join("leaf").exists());
    bundle.is_clean()?;
    Ok(fs::remove_dir(above)?)
}
