//! A program inside that may trace looks into whoever joins: CVE-2016-9962, CVE-2019-5736.

use std::{ffi::OsString, fs, process::Command};

use anyhow::Result;
use serde_json::json;

use crate::harness::{Bundle, Pura, pura_binary};

/// A container whose root may do everything that root inside may, with a scanner of processes in it.
fn watched() -> Result<Bundle> {
    let mut bundle = Bundle::probing(&["scan", "/tmp/stop"])?;
    let all = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN", "CAP_KILL"];
    bundle.config["process"]["capabilities"] = json!({"bounding": all, "permitted": all, "effective": all});
    Ok(bundle)
}

/// Makes `count` calls of exec by `call` while the scanner looks; what it has seen and could do.
fn scanned(bundle: &Bundle, count: usize, call: impl Fn(&[&str]) -> Pura) -> Result<(usize, Vec<String>)> {
    let running = bundle.started()?;
    for _ in 0..count {
        call(&["exec", "c1", "/bin/pura-probe", "true"]).output()?.succeeds_silently()?;
    }
    fs::write(bundle.rootfs("tmp/stop"), "")?;
    let lines = running.rest()?;
    bundle.delete()?;
    fs::remove_file(bundle.rootfs("tmp/stop"))?;
    let seen = lines.iter().filter(|line| line.starts_with("seen=")).count();
    Ok((seen, lines.into_iter().filter(|line| line.starts_with("hit=")).collect()))
}

#[test]
fn a_process_that_joins_shows_a_tracer_inside_nothing() -> Result<()> {
    requires!(userns);
    let bundle = watched()?;
    let (seen, hits) = scanned(&bundle, 60, |words| bundle.pura(words))?;
    assert!(seen > 0, "the scanner saw nobody join");
    assert!(hits.is_empty(), "it could: {hits:?}");
    Ok(())
}

#[test]
fn the_scanner_would_see_who_does_not_hide() -> Result<()> {
    requires!(userns, strace);
    // The same with a prctl(2) that succeeds and does nothing: were there no hits, the test above would be worth nothing.
    let bundle = watched()?;
    let words = ["strace", "-f", "-o", "/dev/null", "-e", "trace=prctl", "-e", "inject=prctl:retval=0"];
    let (seen, hits) = scanned(&bundle, 20, |exec| bundle.through(&words, &bundle.pura(exec)))?;
    assert!(seen > 0 && !hits.is_empty(), "{seen} seen, {hits:?}");
    Ok(())
}

#[test]
fn a_binary_that_the_container_owns_is_the_same_after_all_that_it_tried() -> Result<()> {
    requires!(userns);
    let bundle = watched()?;
    let copy = bundle.path("pura-copy");
    assert!(Command::new("cp").arg(pura_binary()).arg(&copy).status()?.success());
    let before = fs::read(&copy)?;
    let call = |words: &[&str]| {
        let front: [OsString; 3] = [copy.clone().into(), "--root".into(), bundle.path("state").into()];
        Pura::through(bundle.dir(), &front.into_iter().chain(words.iter().map(Into::into)).collect::<Vec<_>>())
    };
    let (seen, hits) = scanned(&bundle, 30, call)?;
    assert!(seen > 0 && hits.is_empty(), "{seen} seen, {hits:?}");
    assert!(fs::read(&copy)? == before, "pura's binary has changed");
    Ok(())
}

#[test]
fn a_container_that_joins_shows_a_tracer_inside_nothing() -> Result<()> {
    requires!(userns);
    let first = watched()?;
    let running = first.started()?;
    let pid = first.pid()?;
    let mut second = Bundle::probing(&["true"])?;
    second.share_user();
    second.share("pid");
    for (kind, file) in [("user", "user"), ("pid", "pid")] {
        second.push("/linux/namespaces", json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}))?;
    }
    for _ in 0..40 {
        second.run()?.succeeds_silently()?;
    }
    fs::write(first.rootfs("tmp/stop"), "")?;
    let lines = running.rest()?;
    first.delete()?;
    let hits: Vec<_> = lines.iter().filter(|line| line.starts_with("hit=")).collect();
    assert!(lines.iter().any(|line| line.starts_with("seen=")), "the scanner saw nobody join");
    assert!(hits.is_empty(), "it could: {hits:?}");
    Ok(())
}
