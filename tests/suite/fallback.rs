//! Newer system calls, hidden: as on an old kernel, ENOSYS, or in a container of an old engine, EPERM. What the program
//! sees has to be the same, or an error has to say what is missing.

use std::{collections::BTreeMap, ffi::OsString, fs, os::unix::fs::symlink};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::harness::{Bundle, Facts, Outcome, Pura, probe_binary};

const ENOSYS: &str = "38";
const EPERM: &str = "1";

/// Every call that pura can do without, when it starts a container.
pub(crate) const ALL: &str =
    "clone3,openat2,open_tree,move_mount,mount_setattr,close_range,pidfd_open,pidfd_send_signal,fsopen";

/// The call, with the named system calls hidden.
pub(crate) fn hidden(bundle: &Bundle, errno: &str, calls: &str, pura: &Pura) -> Pura {
    let words = [probe_binary().into(), OsString::from("without"), errno.into(), calls.into()];
    bundle.through(&words, pura)
}

fn run_without(bundle: &Bundle, errno: &str, calls: &str) -> Result<Outcome> {
    hidden(bundle, errno, calls, &bundle.with_bundle("run", &["c1"])?).output()
}

fn verb_without(bundle: &Bundle, calls: &str, words: &[&str]) -> Result<Outcome> {
    hidden(bundle, ENOSYS, calls, &bundle.pura(words)).output()
}

/// What the program reports, in an order of its own, without what differs from one start to the next, and without mounts
/// that others cover.
fn seen(outcome: &Outcome) -> Result<Vec<String>> {
    let mut visible = BTreeMap::new();
    for line in outcome.succeeds()?.lines() {
        let line = line.split_once(" shared:").map_or_else(|| line.to_owned(), |(mount, _)| format!("{mount} shared"));
        let is_new = ["ns.", "fd.1=", "fd.2="].iter().any(|prefix| line.starts_with(prefix));
        let target =
            line.strip_prefix("mount=").map_or(line.as_str(), |mount| mount.split(' ').next().unwrap_or(mount));
        if !is_new {
            visible.insert(target.to_owned(), line);
        }
    }
    Ok(visible.into_values().collect())
}

/// Something of everything that a newer system call is used for.
fn rich() -> Result<Bundle> {
    let mut bundle = Bundle::new()?;
    fs::create_dir_all(bundle.path("bundle/source/deep"))?;
    fs::write(bundle.path("bundle/source/file"), "from outside")?;
    symlink("file", bundle.path("bundle/source/link"))?;
    fs::create_dir_all(bundle.rootfs("covered/deep"))?;
    fs::write(bundle.rootfs("covered/file"), "")?;
    fs::write(bundle.rootfs("secret"), "secret")?;
    // A mount point behind links, one of which leads out.
    symlink("/way/there", bundle.rootfs("shortcut"))?;
    symlink("../../../../bundle", bundle.rootfs("out"))?;
    bundle.mount("/b/plain", "bind", "source", &["bind", "nosuid", "nodev"])?;
    bundle.mount("/b/strict", "bind", "source", &["bind", "ro", "noexec"])?;
    bundle.mount("/b/file", "bind", "source/file", &["bind", "ro", "nosymfollow"])?;
    bundle.mount("/b/shared", "bind", "source", &["bind", "rshared"])?;
    bundle.mount("/b/link", "bind", "source/link", &["bind", "src-nofollow"])?;
    bundle.mount("/b/dev", "bind", "/dev", &["rbind", "rro", "rnoexec"])?;
    bundle.mount("/shortcut/x", "bind", "source", &["rbind", "ro"])?;
    bundle.mount("/out/y", "tmpfs", "tmpfs", &["ro"])?;
    bundle.mount("/covered", "tmpfs", "tmpfs", &["tmpcopyup"])?;
    bundle.mount("/t", "tmpfs", "tmpfs", &["nosuid"])?;
    bundle.mount("/t/a b", "tmpfs", "tmpfs", &["noexec", "noatime"])?;
    bundle.mount("/t/a b/c", "tmpfs", "tmpfs", &[])?;
    bundle.mount("/t", "none", "none", &["remount", "bind", "nodev", "noatime", "nodiratime"])?;
    bundle.config["linux"]["maskedPaths"] =
        json!(["/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware", "/secret", "/b/plain/deep"]);
    bundle.config["linux"]["readonlyPaths"] =
        json!(["/proc/sys", "/proc/bus", "/proc/sysrq-trigger", "/t", "/etc/passwd"]);
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    bundle.config["linux"]["devices"] = json!([{"path": "/dev/other/full", "type": "c", "major": 1, "minor": 7}]);
    bundle.config["root"]["readonly"] = true.into();
    bundle.config["process"]["cwd"] = "/shortcut".into();
    Ok(bundle)
}

/// Runs the same container with and without the calls; by both errnos.
fn is_the_same_without(calls: &str) -> Result<()> {
    let bundle = rich()?;
    let with = seen(&run_without(&bundle, ENOSYS, "")?)?;
    for errno in [ENOSYS, EPERM] {
        let without = seen(&run_without(&bundle, errno, calls)?)?;
        let differ = |one: &[String], other: &[String]| -> Vec<String> {
            one.iter().filter(|line| !other.contains(line)).cloned().collect()
        };
        assert_eq!(differ(&with, &without), differ(&without, &with), "{calls} {errno}");
        assert_eq!(with, without, "{calls} {errno}");
    }
    Ok(())
}

#[test]
fn a_container_is_the_same_without_clone3() -> Result<()> {
    requires!(userns);
    is_the_same_without("clone3")
}

#[test]
fn a_container_is_the_same_without_openat2() -> Result<()> {
    requires!(userns);
    is_the_same_without("openat2")
}

#[test]
fn a_container_is_the_same_without_open_tree() -> Result<()> {
    requires!(userns);
    is_the_same_without("open_tree")?;
    is_the_same_without("open_tree,move_mount")
}

#[test]
fn a_container_is_the_same_without_move_mount() -> Result<()> {
    requires!(userns);
    is_the_same_without("move_mount")
}

#[test]
fn a_container_is_the_same_without_mount_setattr() -> Result<()> {
    requires!(userns);
    is_the_same_without("mount_setattr")
}

#[test]
fn a_container_is_the_same_without_close_range() -> Result<()> {
    requires!(userns);
    is_the_same_without("close_range")
}

#[test]
fn a_container_is_the_same_without_fsopen() -> Result<()> {
    requires!(userns);
    is_the_same_without("fsopen")
}

#[test]
fn a_container_is_the_same_without_all_of_them() -> Result<()> {
    requires!(userns);
    is_the_same_without(ALL)
}

#[test]
fn what_is_masked_or_read_only_is_so_without_the_newer_mount_calls() -> Result<()> {
    requires!(userns);
    let mut bundle = rich()?;
    for (words, status) in [
        (&["read", "/secret"][..], 0),
        (&["write", "/secret", "x"], 0),
        (&["write", "/t/a b/c/new", "x"], 1),
        (&["write", "/proc/sys/kernel/hostname", "x"], 1),
        (&["write", "/etc/passwd", "x"], 1),
        (&["write", "/b/strict/new", "x"], 1),
        (&["write", "/b/plain/deep/new", "x"], 1),
        (&["write", "/b/plain/new", "x"], 0),
    ] {
        bundle.args(&[&["/bin/pura-probe"], words].concat());
        let outcome = run_without(&bundle, ENOSYS, "openat2,open_tree,move_mount,mount_setattr")?;
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (status, ""), "{words:?}: {}", outcome.stderr);
    }
    assert_eq!(fs::read_to_string(bundle.rootfs("secret"))?, "secret");
    Ok(())
}

#[test]
fn links_of_the_image_stay_inside_without_openat2() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    symlink(bundle.dir(), bundle.rootfs("absolute"))?;
    symlink("../../../../../../..", bundle.rootfs("relative"))?;
    bundle.mount("/absolute/x", "tmpfs", "tmpfs", &[])?;
    bundle.mount("/relative/relative/y", "tmpfs", "tmpfs", &[])?;
    run_without(&bundle, ENOSYS, "openat2")?.succeeds_silently()?;
    assert!(!bundle.path("x").exists() && bundle.rootfs("y").is_dir());
    // Where openat2 refuses a link, so do we.
    fs::remove_dir(bundle.rootfs("proc"))?;
    symlink("/tmp", bundle.rootfs("proc"))?;
    for calls in ["", "openat2"] {
        run_without(&bundle, ENOSYS, calls)?.fails(125, 307, &["/proc", "it is a link"])?;
    }
    Ok(())
}

#[test]
fn a_kernel_parameter_that_cannot_be_written_safely_is_refused() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    run_without(&bundle, ENOSYS, "openat2,statx")?.fails(125, 902, &["net.ipv4.ip_forward", "lacks a system call"])?;
    Ok(())
}

#[test]
fn covers_take_a_proc_without_the_newer_mount_calls() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.unmount("/proc");
    bundle.config["linux"]["maskedPaths"] = json!(["/etc/passwd"]);
    run_without(&bundle, ENOSYS, "")?.succeeds_silently()?;
    run_without(&bundle, ENOSYS, "open_tree")?.fails(125, 902, &["mask \"/etc/passwd\"", "lacks a system call"])?;
    Ok(())
}

#[test]
fn an_empty_file_of_the_image_becomes_a_device_without_the_newer_mount_calls() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["stat", "/dev/null", "/dev/zero"])?;
    bundle.unmount("/dev");
    fs::write(bundle.rootfs("dev/null"), "")?;
    let facts = Facts::parse(run_without(&bundle, ENOSYS, ALL)?.succeeds()?);
    assert!(facts.get("/dev/null")?.ends_with(" 1:3") && facts.get("/dev/zero")?.ends_with(" 1:5"), "{facts:?}");
    Ok(())
}

#[test]
fn a_terminal_is_the_same_without_all_of_them() -> Result<()> {
    requires!(userns, busybox);
    let script = "tty; stty size; test -c /dev/console && echo console; exit 5";
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
    bundle.config["process"]["terminal"] = true.into();
    for calls in ["open_tree", "openat2", ALL] {
        let words = hidden(&bundle, ENOSYS, calls, &bundle.with_bundle("run", &["c1"])?).words();
        let (shown, status) = crate::console::on_terminal(&words, "")?;
        assert_eq!((shown.as_str(), status), ("/dev/pts/0\n33 77\nconsole\n", Some(5)), "{calls}");
    }
    Ok(())
}

#[test]
fn throw_away_layers_are_read_only_where_overlays_are_not_without_the_newer_mount_calls() -> Result<()> {
    requires!(userns, overlay);
    let bundle = Bundle::new()?;
    let pura = bundle.pura(&["run", "--userns=single", "--", "/bin/sh", "-c", "echo hello"]);
    for calls in ["open_tree,move_mount", "open_tree,move_mount,mount_setattr,openat2"] {
        assert_eq!(hidden(&bundle, ENOSYS, calls, &pura).output()?.succeeds()?, "hello\n", "{calls}");
    }
    bundle.is_clean()
}

#[test]
fn a_locked_flag_is_explained_without_mount_setattr() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["true"])?;
    fs::create_dir(bundle.path("bundle/source"))?;
    bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
    bundle.mount("/m", "bind", "source", &["rbind", "exec"])?;
    let script = "mount -t tmpfs -o nosuid,nodev,noexec none \"$0\" && exec \"$@\"";
    let source = bundle.path("bundle/source").display().to_string();
    for calls in ["mount_setattr", "open_tree"] {
        let pura = hidden(&bundle, ENOSYS, calls, &bundle.with_bundle("run", &["c1"])?);
        let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, &source];
        bundle.through(&words, &pura).output()?.fails(125, 310, &["/m", "a flag of the source is locked"])?;
    }
    Ok(())
}

#[test]
fn an_idmapped_mount_is_refused_by_name_without_mount_setattr() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    fs::create_dir(bundle.rootfs("t"))?;
    bundle.mount("/t", "tmpfs", "tmpfs", &[])?;
    bundle.mount("/u", "bind", "rootfs/t", &["bind", "idmap=uids=@0-0-1;gids=@0-0-1"])?;
    let outcome = run_without(&bundle, ENOSYS, "mount_setattr")?;
    outcome.fails(125, 902, &["idmap the mount", "lacks a system call"])?;
    Ok(())
}

#[test]
fn a_time_namespace_is_refused_by_name_without_clone3() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.push("/linux/namespaces", json!({"type": "time"}))?;
    for errno in [ENOSYS, EPERM] {
        run_without(&bundle, errno, "clone3")?.fails(125, 902, &["time namespace", "clone3"])?;
    }
    // Made later, it needs no clone3.
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1, "nanosecs": 0}});
    run_without(&bundle, ENOSYS, "clone3")?.succeeds_silently()
}

#[test]
fn a_filter_that_forbids_namespaces_or_mounts_is_named() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    for calls in ["clone,clone3", "unshare", "mount"] {
        run_without(&bundle, EPERM, calls)?.fails(125, 202, &["a seccomp filter forbids it", "seccomp=unconfined"])?;
    }
    Ok(())
}

#[test]
fn a_host_name_that_a_filter_forbids_is_an_error_of_create_and_a_warning_of_run() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["hostname"] = "inside".into();
    let forbidden = "a seccomp filter forbids";
    hidden(&bundle, EPERM, "sethostname", &bundle.with_bundle("create", &["c1"])?).output()?.fails(
        1,
        907,
        &["set the host name \"inside\"", forbidden, "seccomp=unconfined"],
    )?;
    run_without(&bundle, EPERM, "sethostname")?.succeeds_silently()?;
    bundle.write()?;
    let strict = bundle.pura(&["--strict", "run", "--bundle"]).args(&[bundle.path("bundle")]).args(&["c1"]);
    hidden(&bundle, EPERM, "sethostname", &strict).output()?.fails(125, 907, &[forbidden])?;
    run_without(&bundle, EPERM, "pivot_root")?.fails(125, 907, &["pivot_root", forbidden])?;
    bundle.is_clean()
}

#[test]
fn hooks_end_in_time_without_pidfds() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["true"])?;
    let notes = bundle.path("notes");
    let hook = |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], "timeout": 1}]);
    let note = format!("echo ran >>{}", notes.display());
    bundle.config["hooks"] =
        json!({"createRuntime": hook(&note), "createContainer": hook(&note), "startContainer": hook("true")});
    run_without(&bundle, ENOSYS, "pidfd_open,pidfd_send_signal")?.succeeds_silently()?;
    assert_eq!(fs::read_to_string(notes)?, "ran\nran\n");
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let unlimited = json!([{"path": "/bin/sh", "args": ["sh", "-c", "sleep 0.1"], "env": ["PATH=/usr/bin:/bin"]}]);
        bundle.config["hooks"] = json!({kind: unlimited});
        run_without(&bundle, ENOSYS, "pidfd_open,pidfd_send_signal")?.succeeds_silently()?;
        bundle.config["hooks"] = json!({kind: hook("exec sleep 1000")});
        let outcome = run_without(&bundle, ENOSYS, "pidfd_open,pidfd_send_signal")?;
        assert!(outcome.code() != 0 && outcome.stderr.contains(kind), "{kind}: {}", outcome.stderr);
    }
    bundle.is_clean()
}

#[test]
fn a_container_lives_and_dies_without_pidfd_open() -> Result<()> {
    requires!(userns);
    for calls in ["pidfd_open", "pidfd_open,setns"] {
        let bundle = Bundle::probing(&["sleep"])?;
        let _running = bundle.started()?;
        assert_eq!(bundle.status()?, "running");
        verb_without(&bundle, calls, &["kill", "c1", "0"])?.succeeds_silently()?;
        verb_without(&bundle, calls, &["kill", "c1", "TERM"])?.succeeds_silently()?;
        bundle.becomes("stopped")?;
        verb_without(&bundle, calls, &["kill", "c1", "TERM"])?.fails(1, 706, &["container not running"])?;
        verb_without(&bundle, calls, &["delete", "c1"])?.succeeds_silently()?;
        let _again = bundle.started()?;
        verb_without(&bundle, calls, &["delete", "--force", "c1"])?.succeeds_silently()?;
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn exec_is_in_every_namespace_without_pidfd_open_or_clone3() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.started()?;
    let init = bundle.pid()?;
    for calls in ["pidfd_open", "clone3", ALL] {
        let facts = verb_without(&bundle, calls, &["exec", "c1", "/bin/pura-probe", "ns", "ids"])?.facts()?;
        for kind in ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup"] {
            let of_init = fs::read_link(format!("/proc/{init}/ns/{kind}"))?;
            assert_eq!(facts.get(&format!("ns.{kind}"))?, of_init.to_string_lossy(), "{calls} {kind}");
        }
    }
    verb_without(&bundle, "setns", &["exec", "c1", "/bin/pura-probe", "true"])?.fails(125, 902, &["join", "setns"])?;
    bundle.delete()
}

#[test]
fn no_process_is_signalled_without_pidfd_send_signal() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    // With a cgroup of its own, the kernel ends it by that.
    let words = ["--cgroup-manager", "disabled", "create", "-b"];
    let mut running = bundle.pura(&words).args(&[bundle.path("bundle")]).args(&["c1"]).spawn()?;
    running.wait()?.succeeds_silently()?;
    bundle.verb("start")?.succeeds_silently()?;
    for calls in ["pidfd_send_signal", "pidfd_open,pidfd_send_signal"] {
        for words in [&["kill", "c1", "TERM"][..], &["delete", "--force", "c1"]] {
            verb_without(&bundle, calls, words)?.fails(1, 902, &["\"c1\"", "lacks pidfd_send_signal"])?;
        }
    }
    assert_eq!(bundle.status()?, "running");
    bundle.delete()
}

#[test]
fn delete_with_force_ends_all_in_a_cgroup_without_pidfd_send_signal() -> Result<()> {
    requires!(userns, cgroup);
    for calls in ["pidfd_send_signal", "pidfd_open,pidfd_send_signal"] {
        let bundle = Bundle::probing(&["sleep"])?;
        let _running = bundle.started()?;
        verb_without(&bundle, calls, &["delete", "--force", "c1"])?.succeeds_silently()?;
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn features_are_the_same_whatever_is_hidden() -> Result<()> {
    let bundle = Bundle::new()?;
    let features = bundle.pura(&["features"]);
    let (with, calls) = (features.words(), format!("{ALL},statx,setns,seccomp"));
    let with = Pura::through(bundle.dir(), &with).output()?;
    for errno in [ENOSYS, EPERM] {
        let without = hidden(&bundle, errno, &calls, &features).output()?;
        assert_eq!(without.succeeds()?, with.succeeds()?);
    }
    Ok(())
}

#[test]
fn the_launcher_hides_what_it_is_told_to() -> Result<()> {
    let bundle = Bundle::new()?;
    for (errno, calls, wanted) in [(ENOSYS, "mkdir,mkdirat", "errno=38\n"), (EPERM, "mkdir,mkdirat", "errno=1\n")] {
        let path = bundle.path("made");
        let made = Pura::through(bundle.dir(), &[probe_binary().into(), "mkdir".into(), path.clone().into()]);
        assert_eq!(hidden(&bundle, errno, calls, &made).output()?.succeeds()?, wanted);
        assert!(!path.exists());
    }
    Ok(())
}

/// The cgroup of a process, in the hierarchy of version 2.
fn cgroup_of(pid: i32) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(text.lines().find(|line| line.starts_with("0::")).context("no cgroup v2")?.to_owned())
}

/// A base of real root with a cgroup namespace, and whether this machine gives it a cgroup.
fn rootful(words: &[&str]) -> Result<(Bundle, bool)> {
    let mut bundle = Bundle::probing(words)?;
    bundle.share_user();
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    let plan = bundle.with_bundle("plan", &[])?.output()?;
    let has_leaf = plan.stdout.lines().any(|line| line.starts_with("cgroup: /"));
    Ok((bundle, has_leaf))
}

mod root {
    use super::*;

    #[test]
    fn init_is_in_its_cgroup_before_all_else_without_clone3() -> Result<()> {
        requires!(root);
        for errno in [ENOSYS, EPERM] {
            let (bundle, has_leaf) = rootful(&["sleep"])?;
            let pura = bundle.with_bundle("create", &["c1"])?;
            hidden(&bundle, errno, "clone3", &pura).output()?.succeeds_silently()?;
            let created = cgroup_of(bundle.pid()?)?;
            assert_eq!(has_leaf, created.contains("/pura-c1."), "{created}");
            bundle.verb("start")?.succeeds()?;
            assert_eq!(cgroup_of(bundle.pid()?)?, created);
            // A further process is born there too.
            let words = ["exec", "--detach", "c1", "/bin/pura-probe", "sleep"];
            let pid_file = bundle.path("pid");
            let pura = bundle.pura(&["exec", "--pid-file"]).args(&[&pid_file]).args(&words[1..]);
            hidden(&bundle, errno, "clone3", &pura).output()?.succeeds()?;
            assert_eq!(cgroup_of(fs::read_to_string(pid_file)?.trim().parse()?)?, created);
            bundle.delete()?;
        }
        Ok(())
    }

    #[test]
    fn the_cgroup_namespace_is_rooted_in_the_cgroup_without_clone3() -> Result<()> {
        requires!(root);
        let (mut bundle, _) = rootful(&["read", "/proc/self/cgroup"])?;
        bundle.config["process"]["args"] = json!(["/bin/pura-probe", "read", "/proc/self/cgroup"]);
        for calls in ["", "clone3"] {
            let outcome = run_without(&bundle, ENOSYS, calls)?;
            assert!(outcome.succeeds()?.lines().any(|line| line == "0::/"), "{calls}: {outcome:?}");
        }
        bundle.is_clean()
    }
}
