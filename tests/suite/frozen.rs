//! A container whose cgroup is frozen. Where there is no cgroup that the tester may make, there is nothing to freeze.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::Result;
use serde_json::json;

use crate::harness::{Bundle, Running, eventually, processes, skip};

/// A running container and its cgroup; nothing when it has none.
fn with_cgroup(bundle: &Bundle) -> Result<(Running, Option<PathBuf>)> {
    let running = bundle.started()?;
    let state = bundle.state()?;
    Ok((running, state["pura"]["cgroup"].as_str().map(PathBuf::from)))
}

fn no_cgroup(bundle: &Bundle) -> Result<()> {
    bundle.delete()?;
    skip("cgroup", "the tester may make no cgroup")
}

#[test]
fn a_container_is_paused_only_while_it_is_frozen() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let (_running, cgroup) = with_cgroup(&bundle)?;
    let Some(cgroup) = cgroup else { return no_cgroup(&bundle) };
    assert_eq!(bundle.status()?, "running");
    fs::write(cgroup.join("cgroup.freeze"), "1")?;
    bundle.becomes("paused")?;
    let before = bundle.state()?;
    bundle.verb("delete")?.fails(1, 708, &["container is paused, not stopped"])?;
    bundle.pura(&["exec", "c1", "/bin/pura-probe", "true"]).output()?.fails(125, 612, &["container is paused"])?;
    assert_eq!(bundle.state()?, before);
    fs::write(cgroup.join("cgroup.freeze"), "0")?;
    bundle.becomes("running")?;
    bundle.verb("kill")?.succeeds_silently()?;
    bundle.becomes("stopped")?;
    bundle.verb("delete")?.succeeds_silently()?;
    assert!(!cgroup.exists(), "its cgroup is left");
    Ok(())
}

#[test]
fn kill_and_delete_with_force_end_a_paused_container() -> Result<()> {
    requires!(userns);
    for words in [&["kill", "c1", "KILL"][..], &["kill", "--all", "c1", "KILL"], &["delete", "--force", "c1"]] {
        let bundle = Bundle::probing(&["sleep"])?;
        let (running, cgroup) = with_cgroup(&bundle)?;
        let Some(cgroup) = cgroup else { return no_cgroup(&bundle) };
        fs::write(cgroup.join("cgroup.freeze"), "1")?;
        bundle.becomes("paused")?;
        bundle.pura(words).output()?.succeeds_silently()?;
        running.rest()?;
        bundle.delete()?;
        bundle.is_clean()?;
        assert!(!cgroup.exists(), "its cgroup is left");
    }
    Ok(())
}

#[test]
fn delete_with_force_beats_a_fork_bomb_by_its_cgroup() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["bomb"])?;
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NPROC", "soft": 200, "hard": 200}]);
    bundle.share("pid");
    bundle.unmount("/proc");
    let (_running, cgroup) = with_cgroup(&bundle)?;
    let Some(cgroup) = cgroup else { return no_cgroup(&bundle) };
    eventually("it has become many", || Ok(processes(bundle.dir())?.len() > 50))?;
    let begin = Instant::now();
    bundle.delete()?;
    assert!(begin.elapsed().as_secs() < 10, "it took {:?}", begin.elapsed());
    bundle.is_clean()?;
    assert!(!cgroup.exists(), "its cgroup is left");
    Ok(())
}
