//! Podman without root. Some is done twice, since Podman treats the name `crun` in ways of its own.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{Engine, IMAGE};
use crate::harness::own_uid;

/// Options of `run`, a script, its status, and what the output contains.
type Row = (&'static [&'static str], &'static str, i32, &'static str);

const NAMES: [&str; 2] = ["pura", "crun"];

/// Runs each row, and the first two under the other name too.
fn hold(rows: &[Row]) -> Result<()> {
    for (name, rows) in [("pura", rows), ("crun", rows.get(..2).unwrap_or(rows))] {
        let podman = Engine::new(name)?;
        let volume = podman.path("volume").to_string_lossy().into_owned();
        for (options, script, status, words) in rows {
            let options: Vec<_> = options.iter().map(|word| word.replace("VOLUME", &volume)).collect();
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            let words = words.replace("UID", &own_uid().to_string());
            podman.run(&options, script)?.must_end(*status, &words).context(name)?;
        }
    }
    Ok(())
}

#[test]
fn statuses_and_output_arrive() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    hold(&[
        (&[], "echo out", 0, "out"),
        (&[], "echo err >&2", 0, "err"),
        (&[], "exit 7", 7, ""),
        (&[], "sh -c 'kill -9 $$'; exit $?", 137, ""),
        (&["--init"], "ps", 0, "podman-init"),
        (&["--env", "A=b", "--workdir", "/tmp", "--hostname", "web"], "echo $A $PWD $(hostname)", 0, "b /tmp web"),
        (&["--user", "1000", "--umask", "077"], "id; umask", 0, "uid=1000(user) gid=1000(user)"),
        (&["--tty"], "tty", 0, "/dev/pts/0"),
        (&["--log-driver=none"], "echo quiet", 0, "quiet"),
        (&["--health-cmd=none"], "echo no check", 0, "no check"),
    ])
}

#[test]
fn a_program_that_cannot_run_has_the_status_that_podman_promises() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    for name in NAMES {
        let podman = Engine::new(name)?;
        let run = |words: &[&str]| podman.call(&[&["run", "--rm", "--network=none", IMAGE][..], words].concat());
        run(&["nocmd"])?.must_end(127, "executable file not found in $PATH")?;
        run(&["/no/such/command"])?.must_end(127, "no such file or directory")?;
        run(&["/etc"])?.must_end(126, "is a directory")?;
        run(&["/etc/passwd"])?.must_end(126, "permission denied")?;
    }
    Ok(())
}

#[test]
fn user_namespaces_have_the_maps_that_podman_asks_for() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    let map = "tr -s ' ' </proc/self/uid_map";
    hold(&[
        (&[], map, 0, " 0 UID 1"),
        (&["--userns=keep-id"], "id -u", 0, "UID"),
        (&["--userns=auto"], map, 0, " 0 1 1024"),
        (&["--userns=nomap"], map, 0, " 0 1 "),
        (&["--userns=host"], map, 0, " 0 UID 1"),
        (&["--uidmap=0:1:1000", "--gidmap=0:1:1000"], map, 0, " 0 1 1000"),
        (&["--uidmap=0:0:1", "--uidmap=1:5:100"], map, 0, " 1 5 100"),
        (&["--userns=keep-id", "--group-add=keep-groups"], "id -u", 0, "UID"),
    ])
}

#[test]
fn confinement_is_what_podman_asks_for() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    let field = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t\\n' '  '";
    hold(&[
        (&[], field, 0, "Seccomp: 2"),
        (&["--cap-drop=all", "--cap-add=chown"], field, 0, "CapEff: 0000000000000001"),
        (&["--privileged"], field, 0, "CapEff: 000001ffffffffff"),
        (&["--security-opt=no-new-privileges"], field, 0, "NoNewPrivs: 1"),
        (&["--security-opt=seccomp=unconfined"], field, 0, "Seccomp: 0"),
        (&["--user=1000", "--cap-add=net_raw"], field, 0, "CapEff: 0000000000002000"),
        (&["--ulimit=nofile=30:30"], "ulimit -n", 0, "30"),
        (&["--oom-score-adj=500"], "cat /proc/self/oom_score_adj", 0, "500"),
        (&["--sysctl=net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward", 0, "1"),
        (&["--read-only"], "touch /x", 1, "Read-only file system"),
        (&["--read-only"], "touch /tmp/x && echo made", 0, "made"),
        (&["--security-opt=mask=/etc"], "ls /etc | wc -l", 0, "0"),
        (&["--security-opt=unmask=ALL"], "ls /proc/acpi /proc/scsi >/dev/null; echo done", 0, "done"),
        (&["--security-opt=proc-opts=hidepid=2"], "mount | grep ' /proc '", 0, "hidepid"),
    ])
}

#[test]
fn namespaces_are_shared_as_podman_asks_for() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    hold(&[
        (&["--pid=host"], "[ $(ls -d /proc/[0-9]* | wc -l) -gt 3 ] && echo many", 0, "many"),
        (&["--uts=host"], "hostname >/dev/null && echo named", 0, "named"),
        (&["--network=host"], "ls /sys/class/net", 0, "lo"),
        (&["--cgroupns=host"], "echo cgroup", 0, "cgroup"),
        (&["--cgroups=disabled"], "echo none", 0, "none"),
        (&["--cgroups=no-conmon"], "echo none", 0, "none"),
    ])
}

#[test]
fn volumes_mounts_and_devices_are_as_podman_asks_for() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    let read = "cat /v/file";
    hold(&[
        (&["--volume=VOLUME:/v"], "cat /v/file; echo more >>/v/file && echo written", 0, "written"),
        (&["--volume=VOLUME:/v:ro"], "echo more >/v/file", 1, "Read-only file system"),
        (&["--volume=VOLUME:/v:z"], read, 0, "of the host"),
        (&["--volume=VOLUME:/v:U"], "stat -c %u /v/file", 0, "0"),
        (&["--volume=VOLUME:/v:O"], "echo thrown away >/v/new && cat /v/file", 0, "of the host"),
        (&["--volume=VOLUME:/v:nosuid,nodev,noexec"], "mount | grep ' /v '", 0, "nosuid,nodev,noexec"),
        (&["--volume=VOLUME:/v:exec"], read, 0, "of the host"),
        (&["--volume=VOLUME:/v:rslave"], read, 0, "of the host"),
        (&["--volume=VOLUME:/v:shared"], read, 0, "of the host"),
        (&["--volume=VOLUME:/v:bind"], read, 0, "of the host"),
        (&["--volume=VOLUME/file:/etc/file"], "cat /etc/file", 0, "of the host"),
        (&["--volume=named:/named"], "echo kept >/named/x && cat /named/x", 0, "kept"),
        (&["--tmpfs=/t:size=1m,mode=1777"], "mount | grep ' /t '", 0, "size=1024k"),
        (&["--tmpfs=/etc:tmpcopyup"], "cat /etc/passwd", 0, "user:x:1000"),
        (&["--mount=type=tmpfs,destination=/t,tmpfs-size=1m"], "mount | grep ' /t '", 0, "size=1024k"),
        (&["--mount=type=devpts,destination=/p"], "ls /p", 0, "ptmx"),
        (&["--device=/dev/null:/dev/other"], "echo gone >/dev/other; cat /dev/other && echo null", 0, "null"),
        (&["--shm-size=1m"], "df /dev/shm | grep 1024", 0, "/dev/shm"),
        (&["--systemd=always"], "mount | grep ' /run '", 0, "tmpfs"),
    ])
}

#[test]
fn a_container_lives_through_all_its_verbs() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    for name in NAMES {
        let podman = Engine::new(name)?;
        let loops = "trap 'exit 5' TERM; trap 'echo one' USR1; echo up; while :; do sleep 0.05; done";
        podman.call(&["run", "-d", "--name=c1", "--network=none", IMAGE, "sh", "-c", loops])?.must_end(0, "")?;
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
        crate::harness::eventually("the detached exec", || {
            Ok(podman.call(&["exec", "c1", "test", "-e", "/tmp/made"])?.0.code() == 0)
        })?;
        podman.call(&["top", "c1"])?.must_end(0, "trap")?;
        podman
            .call(&["inspect", "--format={{.State.Status}} {{.OCIRuntime}}", "c1"])?
            .must_end(0, &format!("running {name}"))?;
        fs::write(podman.path("tmp/in"), "copied\n")?;
        podman.call(&["cp", "in", "c1:/tmp/in"])?.must_end(0, "")?;
        podman.call(&["exec", "c1", "cat", "/tmp/in"])?.must_end(0, "copied")?;
        podman.call(&["kill", "-s", "USR1", "c1"])?.must_end(0, "c1")?;
        crate::harness::eventually("the trap", || Ok(podman.call(&["logs", "c1"])?.0.stdout.contains("one")))?;
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
    podman.call(&["run", "-d", "--name=c1", "--network=none", IMAGE, "sleep", "1000"])?.must_end(0, "")?;
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
fn an_image_is_built() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    for name in NAMES {
        let podman = Engine::new(name)?;
        let file = "FROM localhost/busybox\nRUN echo built >/etc/built\nRUN --mount=type=tmpfs,destination=/t touch \
                    /t/x\nRUN --mount=type=cache,target=/c touch /c/x\nUSER 1000\nRUN id -u >/tmp/id\n";
        fs::write(podman.path("tmp/Containerfile"), file)?;
        let build = ["build", "--network=none", "--tag=localhost/built", "."];
        podman.call(&build)?.must_end(0, "localhost/built")?;
        let run = ["run", "--rm", "--network=none", "localhost/built", "cat", "/etc/built", "/tmp/id"];
        podman.call(&run)?.must_end(0, "built\n1000")?;
        fs::write(podman.path("tmp/Containerfile"), "FROM localhost/busybox\nRUN exit 3\n")?;
        let failed = podman.call(&build)?;
        ensure!(failed.0.code() != 0, "a RUN that fails fails the build: {failed:?}");
    }
    Ok(())
}

#[test]
fn pura_runs_in_containers_of_podman_and_names_what_is_in_the_way() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    let podman = Engine::new("pura")?;
    let bin = format!("{}:/p:ro", podman.path("bin").display());
    let bare = ["--cap-drop=all", "--security-opt=no-new-privileges"];
    let rows: [(&[&str], i32, &str); 6] = [
        (&[], 0, "[PURA-907]"),
        (&["--security-opt=seccomp=unconfined", "--security-opt=unmask=ALL"], 0, "ran as 0"),
        (&["--privileged"], 0, "ran as 0"),
        (&["--user=1000"], 0, "ran as 0"),
        (&[bare[0], bare[1], "--user=1000"], 0, "ran as 0"),
        (&bare, 125, "--cap-add SETFCAP"),
    ];
    for (options, status, words) in rows {
        let options = [options, &["-v", &bin]].concat();
        podman.run(&options, "/p/pura run -- sh -c 'echo ran as $(id -u)'")?.must_end(status, words)?;
    }
    Ok(())
}
