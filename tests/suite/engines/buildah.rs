//! Buildah without root.

use anyhow::Result;

use super::{Engine, NAMES};

#[test]
fn a_working_container_runs_programs_and_becomes_an_image() -> Result<()> {
    requires!(userns, subids, busybox, podman, buildah);
    for name in NAMES {
        let engine = Engine::new(name)?;
        let buildah = |words: &[&str]| engine.call_by("buildah", words);
        let run = |options: &[&str], program: &[&str]| {
            buildah(&[&["run", "--network=none"][..], options, &["working", "--"], program].concat())
        };
        buildah(&["from", "--quiet", "--name=working", super::IMAGE])?.must_end(0, "working")?;
        run(&[], &["sh", "-c", "echo made >/made; id -u"])?.must_end(0, "0")?;
        run(&[], &["sh", "-c", "exit 7"])?.must_end(7, "")?;
        run(&["--user=1000"], &["id"])?.must_end(0, "uid=1000(user)")?;
        run(&["--terminal"], &["tty"])?.must_end(0, "/dev/pts/0")?;
        let volume = format!("--volume={}:/v:ro", engine.path("volume").display());
        run(&[&volume], &["cat", "/v/file"])?.must_end(0, "of the host")?;
        run(&["--cap-drop=all"], &["grep", "CapEff", "/proc/self/status"])?.must_end(0, "0000000000000000")?;
        run(&[], &["nocmd"])?.must_fail()?;
        buildah(&["commit", "--quiet", "working", "localhost/committed"])?.must_end(0, "")?;
        buildah(&["rm", "working"])?.must_end(0, "")?;
        engine.call(&["run", "--rm", "--network=none", "localhost/committed", "cat", "/made"])?.must_end(0, "made")?;
    }
    Ok(())
}
