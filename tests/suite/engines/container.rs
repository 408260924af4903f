//! The life of Podman's containers, without root.

use std::fs;

use anyhow::{Result, ensure};

use super::{Engine, IMAGE, NAMES, screen::Screen};
use crate::harness::eventually;

#[test]
fn a_container_lives_through_all_its_verbs() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    for name in NAMES {
        let podman = Engine::new(name)?;
        let loops = "trap 'exit 5' TERM; trap 'echo one' USR1; echo up; while :; do sleep 0.05; done";
        podman.detach(&[], "c1", loops)?;
        podman.call(&["exec", "c1", "id", "-u"])?.must_end(0, "0")?;
        let user = ["exec", "-u", "1000", "-w", "/tmp", "-e", "A=b", "c1", "sh", "-c", "echo $(id -u) $PWD $A"];
        podman.call(&user)?.must_end(0, "1000 /tmp b")?;
        podman.call(&["exec", "c1", "sh", "-c", "exit 7"])?.must_end(7, "")?;
        podman.call(&["exec", "c1", "nocmd"])?.must_end(127, "executable file not found in $PATH")?;
        podman.call(&["exec", "-w", "/nodir", "c1", "true"])?.must_end(127, "no such file or directory")?;
        podman.call(&["exec", "-t", "c1", "tty"])?.must_end(0, "/dev/pts/0")?;
        podman
            .call(&["exec", "--privileged", "c1", "grep", "CapEff", "/proc/self/status"])?
            .must_end(0, "01ffffffffff")?;
        podman.call(&["exec", "-d", "c1", "touch", "/tmp/made"])?.must_end(0, "")?;
        eventually("the detached exec", || Ok(podman.call(&["exec", "c1", "test", "-e", "/tmp/made"])?.0.code() == 0))?;
        podman.call(&["top", "c1"])?.must_end(0, "trap")?;
        podman
            .call(&["inspect", "--format={{.State.Status}} {{.OCIRuntime}}", "c1"])?
            .must_end(0, &format!("running {name}"))?;
        fs::write(podman.path("tmp/in"), "copied\n")?;
        podman.call(&["cp", "in", "c1:/tmp/in"])?.must_end(0, "")?;
        podman.call(&["exec", "c1", "cat", "/tmp/in"])?.must_end(0, "copied")?;
        podman.call(&["cp", "c1:/etc/group", "out"])?.must_end(0, "")?;
        ensure!(fs::read_to_string(podman.path("tmp/out"))?.contains("user:x:1000"), "cp brought no file out");
        let committed = ["commit", "--quiet", "c1", "localhost/committed"];
        podman.call(&committed)?.must_end(0, "")?;
        podman
            .call(&["run", "--rm", "--network=none", "localhost/committed", "cat", "/tmp/in"])?
            .must_end(0, "copied")?;
        podman.call(&["diff", "c1"])?.must_end(0, "A /tmp/in")?;
        podman.call(&["kill", "-s", "USR1", "c1"])?.must_end(0, "c1")?;
        eventually("the trap", || Ok(podman.call(&["logs", "c1"])?.0.stdout.contains("one")))?;
        podman.call(&["stop", "c1"])?.must_end(0, "c1")?;
        podman.call(&["inspect", "--format={{.State.ExitCode}}", "c1"])?.must_end(0, "5")?;
        podman.call(&["start", "c1"])?.must_end(0, "c1")?;
        podman.call(&["restart", "-t", "1", "c1"])?.must_end(0, "c1")?;
        podman.call(&["rm", "-f", "-t", "0", "c1"])?.must_end(0, "c1")?;
        let left = fs::read_dir(podman.path("r/pura")).map(Iterator::count).unwrap_or_default();
        ensure!(left == 0, "{left} containers are left");
    }
    Ok(())
}

#[test]
fn a_deaf_program_is_killed_in_the_end() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    let podman = Engine::new("pura")?;
    podman.detach(&[], "c1", "exec sleep 1000")?;
    podman.call(&["stop", "--time=1", "c1"])?.must_end(0, "c1")?;
    podman.call(&["inspect", "--format={{.State.ExitCode}}", "c1"])?.must_end(0, "137")?;
    Ok(())
}

#[test]
fn the_members_of_a_pod_share_its_namespaces() -> Result<()> {
    requires!(userns, subids, busybox, podman, catatonit);
    for name in NAMES {
        let podman = Engine::new(name)?;
        podman.call(&["pod", "create", "--name=pod1", "--network=none", "--share=net,ipc,uts,pid"])?.must_end(0, "")?;
        podman.call(&["run", "-d", "--pod=pod1", "--name=m1", IMAGE, "sleep", "1000"])?.must_end(0, "")?;
        podman.call(&["run", "--rm", "--pod=pod1", IMAGE, "hostname"])?.must_end(0, "pod1")?;
        podman.call(&["run", "--rm", "--pod=pod1", IMAGE, "ps"])?.must_end(0, "sleep 1000")?;
        podman.call(&["pod", "rm", "-f", "-t", "0", "pod1"])?.must_end(0, "")?;
    }
    Ok(())
}

#[test]
fn a_pod_is_played_from_a_file_of_kubernetes() -> Result<()> {
    requires!(userns, subids, busybox, podman, catatonit);
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p1\nspec:\n  hostNetwork: true\n  containers:\n  - name: m\n    \
               image: localhost/busybox:latest\n    command: [sh, -c, \"id; exec sleep 1000\"]\n    securityContext:\n      \
               runAsUser: 1000\n      readOnlyRootFilesystem: true\n";
    for name in NAMES {
        let podman = Engine::new(name)?;
        fs::write(podman.path("tmp/pod.yaml"), pod)?;
        podman.call(&["play", "kube", "pod.yaml"])?.must_end(0, "")?;
        eventually("its output", || Ok(podman.call(&["logs", "p1-m"])?.0.stdout.contains("uid=1000(user)")))?;
        podman.call(&["exec", "p1-m", "touch", "/x"])?.must_end(1, "Read-only file system")?;
        podman.call(&["pod", "stop", "-t", "0", "p1"])?.must_end(0, "")?;
        podman.call(&["pod", "rm", "-f", "p1"])?.must_end(0, "")?;
    }
    Ok(())
}

#[test]
fn a_paused_container_stands_still_until_it_is_resumed() -> Result<()> {
    requires!(userns, subids, busybox, podman, cgroup);
    for name in NAMES {
        let podman = Engine::new(name)?;
        let status =
            || anyhow::Ok(podman.call(&["inspect", "--format={{.State.Status}}", "c1"])?.0.stdout.trim().to_owned());
        podman.detach(&[], "c1", "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; exec sleep 1000")?;
        // Its time as the cgroup has it: Podman finds that by /proc.
        let asked = ["stats", "--no-stream", "--format={{.Name}} {{.CPUNano}}", "c1"];
        let used = || -> Result<u64> {
            let told = podman.call(&asked)?;
            let told = told.must_end(0, "c1 ")?;
            Ok(told.rsplit(' ').next().unwrap_or_default().parse()?)
        };
        eventually("its use of the processor", || Ok(used()? > 1_000_000))?;
        podman.call(&["pause", "c1"])?.must_end(0, "c1")?;
        ensure!(status()? == "paused", "{}", status()?);
        podman.call(&["exec", "c1", "true"])?.must_fail()?;
        podman.call(&["unpause", "c1"])?.must_end(0, "c1")?;
        ensure!(status()? == "running", "{}", status()?);
        podman.call(&["exec", "c1", "true"])?.must_end(0, "")?;
        podman.call(&["commit", "--quiet", "--pause", "c1", "localhost/still"])?.must_end(0, "")?;
        ensure!(status()? == "running", "{}", status()?);
        podman.call(&["pause", "c1"])?.must_end(0, "c1")?;
        podman.call(&["rm", "-f", "-t", "0", "c1"])?.must_end(0, "c1")?;
    }
    Ok(())
}

#[test]
fn a_health_check_runs_when_it_is_called() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    for name in NAMES {
        let podman = Engine::new(name)?;
        let check = ["--health-cmd=test -e /tmp/well", "--health-interval=disable"];
        podman.detach(&check, "c1", "sleep 1000")?;
        podman.call(&["healthcheck", "run", "c1"])?.must_end(1, "unhealthy")?;
        podman.call(&["exec", "c1", "touch", "/tmp/well"])?.must_end(0, "")?;
        podman.call(&["healthcheck", "run", "c1"])?.must_end(0, "")?;
    }
    Ok(())
}

#[test]
fn a_window_that_changes_its_size_is_noticed_inside() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    let program = "echo up on $(tty); until [ \"$(stty size 2>/dev/null)\" = '44 99' ]; do sleep 0.02; done; echo wide; read \
                   -r word; echo got $word; exit 4";
    for name in NAMES {
        let podman = Engine::new(name)?;
        let watch = |words: &[&str]| -> Result<()> {
            let mut screen = Screen::new(&podman, &[words, &["sh", "-c", program]].concat())?;
            screen.shows("up on /dev/pts/")?;
            screen.resizes("44", "99")?;
            screen.shows("wide")?;
            screen.types("a word")?;
            screen.shows("got a word")?;
            screen.ends(4)
        };
        watch(&["podman", "run", "-it", "--rm", "--network=none", IMAGE])?;
        podman.detach(&[], "c1", "sleep 1000")?;
        watch(&["podman", "exec", "-it", "c1"])?;
    }
    Ok(())
}

#[test]
fn what_ends_is_waited_for_logged_and_restarted() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    for name in NAMES {
        let podman = Engine::new(name)?;
        podman.detach(&[], "c1", "echo first; echo second; exit 9")?;
        podman.call(&["wait", "c1"])?.must_end(0, "9")?;
        let logs = podman.call(&["logs", "--tail=1", "c1"])?;
        ensure!(logs.must_end(0, "")? == "second", "{logs:?}");
        podman.call(&["start", "--attach", "c1"])?.must_end(9, "second")?;
        podman.call(&["kill", "c1"])?.must_fail()?;
        podman.detach(&["--restart=on-failure:2"], "c2", "exit 6")?;
        eventually("two more starts", || {
            let told = podman.call(&["inspect", "--format={{.RestartCount}} {{.State.Status}}", "c2"])?;
            Ok(told.must_end(0, "")? == "2 exited")
        })?;
        podman.detach(&["--stop-signal=INT"], "c3", "trap 'exit 8' INT; while :; do sleep 0.05; done")?;
        podman.call(&["stop", "--time=50", "c3"])?.must_end(0, "c3")?;
        podman.call(&["inspect", "--format={{.State.ExitCode}}", "c3"])?.must_end(0, "8")?;
        podman.detach(&[], "c4", "exec sleep 1000")?;
        podman.call(&["kill", "--signal=SIGKILL", "c4"])?.must_end(0, "c4")?;
        podman.call(&["wait", "c4"])?.must_end(0, "137")?;
        podman.call(&["run", "--rm", "--network=none", "--timeout=1", IMAGE, "sleep", "1000"])?.must_fail()?;
    }
    Ok(())
}
