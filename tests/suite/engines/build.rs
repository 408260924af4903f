//! `podman build` without root.

use std::fs;

use anyhow::{Result, ensure};

use super::{Engine, NAMES};

#[test]
fn an_image_is_built() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    for name in NAMES {
        let podman = Engine::new(name)?;
        let file = "FROM localhost/busybox\nRUN echo built >/etc/built\nRUN --mount=type=tmpfs,destination=/t touch \
                    /t/x\nRUN --mount=type=cache,target=/c touch /c/x\nRUN --mount=type=bind,source=.,target=/from test \
                    -e /from/Containerfile\nRUN --mount=type=secret,id=s1 cat /run/secrets/s1 >/etc/saw\nRUN \
                    --mount=type=secret,id=s1,dst=/s1,mode=0444,uid=5 stat -c '%a %u' /s1 >>/etc/saw\nUSER 1000\nRUN id -u \
                    >/tmp/id\n";
        fs::write(podman.path("tmp/hush"), "hush\n")?;
        fs::write(podman.path("tmp/Containerfile"), file)?;
        let build = ["build", "--network=none", "--secret=id=s1,src=hush", "--tag=localhost/built", "."];
        podman.call(&build)?.must_end(0, "localhost/built")?;
        let run = ["run", "--rm", "--network=none", "localhost/built", "cat", "/etc/built", "/etc/saw", "/tmp/id"];
        podman.call(&run)?.must_end(0, "built\nhush\n444 5\n1000")?;
        fs::write(podman.path("tmp/Containerfile"), "FROM localhost/busybox\nRUN exit 3\n")?;
        let failed = podman.call(&build)?;
        ensure!(failed.0.code() != 0, "a RUN that fails fails the build: {failed:?}");
    }
    Ok(())
}
