//! `podman run` without root, and its options. All is done twice, since Podman treats the name `crun` in ways of its own.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{Engine, IMAGE, NAMES};
use crate::harness::{lacks, own_uid};

/// Options of `run`, a script, its status, and what the output contains.
type Row = (&'static [&'static str], &'static str, i32, &'static str);

/// Runs each row, under both names.
fn hold(rows: &[Row]) -> Result<()> {
    hold_after(|_| Ok(()), rows)
}

/// As `hold`, after something was prepared.
fn hold_after(prepare: fn(&Engine) -> Result<()>, rows: &[Row]) -> Result<()> {
    for name in NAMES {
        let podman = Engine::new(name)?;
        prepare(&podman)?;
        let volume = podman.path("volume").to_string_lossy().into_owned();
        for (options, script, status, words) in rows {
            let options: Vec<_> = options.iter().map(|word| word.replace("VOLUME", &volume)).collect();
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            let words = words.replace("UID", &own_uid().to_string());
            let mut answer = podman.run(&options, script)?;
            // Of some thousand runs one brought the right status and not a byte of what the program, which had ended at
            // once, had written into conmon's pipe. Not so twice.
            let is_silent = answer.0.stdout.is_empty() && answer.0.stderr.is_empty();
            if !words.is_empty() && is_silent && answer.0.code() == *status {
                answer = podman.run(&options, script)?;
            }
            answer.must_end(*status, &words).context(name)?;
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
        (&["--personality=LINUX32"], "uname -m", 0, "i686"),
        (&["--group-add=5", "--group-add=user"], "id", 0, "groups=5,1000(user)"),
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
        (&["--cgroupns=private"], "tail -n 1 /proc/self/cgroup", 0, "0::/"),
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
        // The host's file system cannot be mapped without root; that is an error, and no missing program.
        (&["--userns=keep-id", "--volume=VOLUME:/v:idmap"], read, 126, "[PURA-312]"),
        (&["--userns=keep-id", "--mount=type=bind,source=VOLUME,destination=/v,idmap"], read, 126, "[PURA-312]"),
        (&["--mount=type=bind,source=VOLUME,destination=/v"], read, 0, "of the host"),
        (&["--mount=type=bind,src=VOLUME,dst=/v,ro"], "touch /v/x", 1, "Read-only file system"),
        (&["--mount=type=bind,src=VOLUME,dst=/v,bind-propagation=rslave"], read, 0, "of the host"),
        (&["--mount=type=bind,src=VOLUME,dst=/v,bind-nonrecursive"], read, 0, "of the host"),
        (&["--mount=type=volume,source=named,destination=/v"], "cat /v/x", 0, "kept"),
        (&["--mount=type=volume,source=named,destination=/v,ro=true"], "touch /v/y", 1, "Read-only file system"),
        (&["--mount=type=devpts,destination=/v,uid=1,gid=1,mode=666"], "mount | grep ' /v '", 0, "mode=666"),
        (&["--mount=type=tmpfs,destination=/v,tmpfs-mode=700"], "stat -c %a /v", 0, "700"),
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
fn an_image_is_mounted_as_a_volume() -> Result<()> {
    requires!(userns, subids, busybox, podman, overlay);
    let read = "cat /v/etc/group; touch /v/x";
    hold(&[
        (&["--mount=type=image,source=localhost/busybox,destination=/v"], read, 1, "user:x:1000"),
        (&["--mount=type=image,source=localhost/busybox,destination=/v,rw=true"], read, 0, "user:x:1000"),
    ])
}

#[test]
fn a_secret_is_a_file_or_a_variable() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    let make = |podman: &Engine| {
        fs::write(podman.path("tmp/secret"), "hush\n")?;
        podman.call(&["secret", "create", "s1", "secret"])?.must_end(0, "")?;
        Ok(())
    };
    hold_after(
        make,
        &[
            (&["--secret=s1"], "cat /run/secrets/s1", 0, "hush"),
            (&["--secret=s1,type=mount,target=/s,mode=0400,uid=1000,gid=5"], "stat -c '%a %u %g' /s", 0, "400 1000 5"),
            (&["--secret=s1,type=env,target=S"], "echo $S", 0, "hush"),
        ],
    )
}

#[test]
fn the_hosts_message_queues_are_shared() -> Result<()> {
    requires!(userns, subids, busybox, podman, mqueue);
    let host = fs::read_link("/proc/self/ns/ipc")?;
    for name in NAMES {
        let podman = Engine::new(name)?;
        let shared = podman.run(&["--ipc=host"], "mount | grep ' /dev/mqueue ' && readlink /proc/self/ns/ipc")?;
        shared.must_end(0, &host.to_string_lossy()).and_then(|_| shared.must_end(0, "type mqueue"))?;
    }
    Ok(())
}

#[test]
fn a_network_of_slirp4netns_is_there_before_the_program() -> Result<()> {
    requires!(userns, subids, busybox, podman, slirp4netns);
    hold(&[
        (&["--network=slirp4netns"], "ip addr show tap0", 0, "10.0.2.100"),
        (&["--network=slirp4netns"], "cat /etc/resolv.conf", 0, "10.0.2.3"),
        (&["--network=slirp4netns:cidr=10.9.8.0/24"], "ip addr show tap0", 0, "10.9.8.100"),
        (&["--network=slirp4netns", "--userns=keep-id"], "ip addr show tap0", 0, "10.0.2.100"),
        (&["--network=slirp4netns", "--publish=127.0.0.1::80"], "ip route", 0, "10.0.2.2"),
    ])
}

#[test]
fn a_network_of_pasta_is_there_before_the_program() -> Result<()> {
    requires!(userns, subids, busybox, podman, pasta);
    let count = "ls /sys/class/net | wc -l";
    hold(&[(&["--network=pasta"], count, 0, "2"), (&["--network=pasta", "--userns=keep-id"], count, 0, "2")])
}

#[test]
fn descriptors_are_preserved_and_no_others() -> Result<()> {
    requires!(userns, subids, busybox, podman);
    let open = "exec 3<../volume/file 4<../volume/file 5</; exec podman \"$@\"";
    // That of `ls` itself, which is gone when it asks for its target, comes behind them.
    let list = ["sh", "-c", "cat <&4; cat <&3; ls /proc/self/fd | wc -l"];
    for name in NAMES {
        let podman = Engine::new(name)?;
        let run = ["-c", open, "sh", "run", "--rm", "--network=none", "--preserve-fds=2", IMAGE];
        let shown = podman.call_by("sh", &[&run[..], &list].concat())?;
        ensure!(shown.must_end(0, "")? == "of the host\nof the host\n6", "{shown:?}");
        podman.detach(&[], "c1", "sleep 1000")?;
        let exec = ["-c", open, "sh", "exec", "--preserve-fds=2", "c1"];
        let shown = podman.call_by("sh", &[&exec[..], &list].concat())?;
        ensure!(shown.must_end(0, "")? == "of the host\nof the host\n6", "{shown:?}");
    }
    Ok(())
}

#[test]
fn a_directory_is_the_root_file_system() -> Result<()> {
    requires!(userns, subids, busybox, podman, overlay);
    for name in NAMES {
        let podman = Engine::new(name)?;
        let root = podman.path("image").to_string_lossy().into_owned();
        let run = |root: &str, script: &str| {
            podman.call(&["run", "--rm", "--network=none", "--rootfs", root, "/bin/sh", "-c", script])
        };
        run(&format!("{root}:O"), "touch /gone && cat /etc/group")?.must_end(0, "user:x:1000")?;
        run(&root, "ls /gone; touch /made")?.must_end(0, "No such file")?;
        fs::metadata(podman.path("image/made")).context("what the container made is not there")?;
    }
    Ok(())
}

#[test]
fn limits_are_honoured_or_refused_by_name() -> Result<()> {
    requires!(userns, subids, busybox, podman, cgroup);
    let limits = [
        ("--memory=64m", "memory", "memory.max", "67108864"),
        ("--cpus=0.5", "cpu", "cpu.max", "50000 100000"),
        ("--pids-limit=20", "pids", "pids.max", "20"),
    ];
    let has_controllers = lacks("controllers")?.is_none();
    for name in NAMES {
        let podman = Engine::new(name)?;
        for (option, controller, file, value) in limits {
            let answer = podman.run(&[option], &format!("cat /sys/fs/cgroup/{file}"))?;
            if has_controllers {
                answer.must_end(0, value)?;
            } else {
                answer.must_end(126, &format!("there is no {controller} controller"))?;
            }
        }
        let options: &[&str] = if has_controllers { &["--memory=128m"] } else { &[] };
        podman.detach(options, "c1", "sleep 1000")?;
        let answer = podman.call(&["update", "--memory=64m", "c1"])?;
        if has_controllers {
            answer.must_end(0, "")?;
            podman.call(&["exec", "c1", "cat", "/sys/fs/cgroup/memory.max"])?.must_end(0, "67108864")?;
        } else {
            answer.must_end(125, "there is no memory controller")?;
            podman.call(&["exec", "c1", "true"])?.must_end(0, "")?;
        }
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
