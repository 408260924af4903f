//! Machines that are broken in one way each, in namespaces of the test's own: `run` names the cause, and `doctor` the same.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Bundle, own_uid};

/// What a row starts from: root of a user namespace who has lost its capabilities there, as in many an outer container,
/// so that pura has to make another. The setup is shell; `$FILES` is a directory of the test's own.
const FRAME: &str = "FILES=$1; shift; set -e; SETUP; \
                     exec setpriv NNP --inh-caps=-all --bounding-set=-all,+setfcap \"$@\"";

/// Ranges for root, in both files.
const RANGES: &str =
    "echo root:100000:65536 >$FILES/ids; for kind in uid gid; do mount --bind $FILES/ids /etc/sub$kind; done";

/// Copies of the mappers that are found first, on a filesystem of its own: the options are the row's.
fn copies(options: &str) -> String {
    format!(
        "{RANGES}; mount -t tmpfs -o mode=755{options} none /mnt; cp /usr/bin/newuidmap /usr/bin/newgidmap /mnt; \
         chmod 4755 /mnt/new*; PATH=/mnt:$PATH"
    )
}

fn script(setup: &str, flags: &str) -> String {
    FRAME.replace("SETUP", setup).replace("NNP", flags)
}

/// `pura WORDS` on the broken machine; the state is in a directory of the test's own.
fn on(bundle: &Bundle, script: &str, pura: &crate::harness::Pura) -> Result<crate::harness::Outcome> {
    let files = bundle.path("files");
    fs::create_dir_all(&files)?;
    let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", &files.to_string_lossy()];
    bundle.through(&words, pura).output()
}

/// Insists that doctor has the code in the named check, with the status, and exits accordingly.
fn is_diagnosed(bundle: &Bundle, script: &str, id: &str, status: &str, code: u32) -> Result<()> {
    let outcome = on(bundle, script, &bundle.pura(&["doctor", "--json"]))?;
    let whole: serde_json::Value = serde_json::from_str(&outcome.stdout).with_context(|| format!("{outcome:?}"))?;
    let all = whole["checks"].as_array().context("checks")?;
    let check = all.iter().find(|check| check["id"] == id).context("the check")?;
    let said = format!("{} {} {}", check["status"], check["code"], check["finding"]);
    ensure!(said.starts_with(&format!("\"{status}\" ")) && said.contains(&format!("PURA-{code:03}")), "{id}: {said}");
    ensure!(outcome.code() == if status == "fail" { 2 } else { 1 } || whole["status"] == "fail", "{outcome:?}");
    Ok(())
}

/// `run` fails with the code, and doctor has it as a failure.
fn fails(setup: &str, flags: &str, id: &str, code: u32, words: &[&str]) -> Result<()> {
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    let script = script(setup, flags);
    let outcome = on(&bundle, &script, &bundle.with_bundle("run", &["c1"])?)?;
    outcome.fails(125, code, words).with_context(|| setup.to_owned())?;
    is_diagnosed(&bundle, &script, id, "fail", code).with_context(|| setup.to_owned())?;
    bundle.is_clean()
}

/// `run` succeeds with the code as a warning, and doctor has it as one.
fn warns(setup: &str, id: &str, code: u32, words: &[&str]) -> Result<()> {
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    let script = script(setup, "");
    on(&bundle, &script, &bundle.with_bundle("run", &["c1"])?)?
        .succeeds_silently()
        .with_context(|| setup.to_owned())?;
    bundle.write()?;
    let bundled = bundle.path("bundle").display().to_string();
    let strictly = bundle.pura(&["--strict", "run", "-b", &bundled, "c1"]);
    on(&bundle, &script, &strictly)?.fails(125, code, words).with_context(|| setup.to_owned())?;
    is_diagnosed(&bundle, &script, id, "warn", code).with_context(|| setup.to_owned())?;
    bundle.is_clean()
}

#[test]
fn a_kind_of_namespace_of_which_none_may_be_made_is_named_with_its_sysctl() -> Result<()> {
    requires!(unprivileged, userns);
    let zero = |kind: &str| format!("echo 0 >/proc/sys/user/max_{kind}_namespaces");
    fails(
        &zero("user"),
        "",
        "userns",
        203,
        &["user.max_user_namespaces is 0", "not about disk space", "fix: sudo sysctl"],
    )?;
    fails(&zero("mnt"), "", "userns", 213, &["user.max_mnt_namespaces is 0"])?;
    for kind in ["pid", "net", "ipc", "uts"] {
        fails(&zero(kind), "", "namespaces", 213, &[&format!("user.max_{kind}_namespaces is 0"), "fix: sudo sysctl"])?;
    }
    Ok(())
}

#[test]
fn only_a_cgroup_namespace_is_done_without() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["ns"])?;
    bundle.share_user();
    bundle.push("/linux/namespaces", serde_json::json!({"type": "cgroup"}))?;
    let script = script("echo 0 >/proc/sys/user/max_cgroup_namespaces", "");
    let facts = on(&bundle, &script, &bundle.with_bundle("run", &["c1"])?)?.facts()?;
    assert_eq!(facts.get("ns.cgroup")?, fs::read_link("/proc/self/ns/cgroup")?.to_string_lossy());
    let bundled = bundle.path("bundle").display().to_string();
    let strictly = bundle.pura(&["--strict", "--userns=single", "run", "-b", &bundled, "c1"]);
    on(&bundle, &script, &strictly)?.fails(125, 214, &["the host's cgroup path"])?;
    is_diagnosed(&bundle, &script, "namespaces", "warn", 214)
}

#[test]
fn nesting_that_is_too_deep_is_said_to_be_that() -> Result<()> {
    requires!(unprivileged, userns);
    let deeper = "cat >$FILES/deeper <<'END'\n\
                  unshare --user --map-root-user true 2>/dev/null && exec unshare --user --map-root-user sh \"$0\" \"$@\"\n\
                  exec setpriv --inh-caps=-all --bounding-set=-all,+setfcap \"$@\"\nEND\n\
                  exec sh $FILES/deeper \"$@\"";
    fails(deeper, "", "userns", 204, &["nested 33 deep", "not about disk space"])
}

#[test]
fn a_chroot_and_a_caller_without_an_id_are_told_from_each_other() -> Result<()> {
    requires!(unprivileged, userns);
    let chroot = "mount --rbind / /mnt; set -- chroot /mnt setpriv --bounding-set=-all,+setfcap \"$@\"; exec \"$@\"";
    fails(chroot, "", "userns", 207, &["chroot", "fix: pivot_root"])?;
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    let run = bundle.with_bundle("run", &["c1"])?;
    let outcome = bundle.through(&["unshare", "--user"], &run).output()?;
    outcome.fails(125, 208, &["your own uid or gid is not mapped"])?;
    bundle.is_clean()
}

#[test]
fn a_read_only_or_masked_proc_is_named() -> Result<()> {
    requires!(unprivileged, userns);
    fails("mount -o remount,bind,ro /proc", "", "userns", 901, &["/proc is mounted read-only"])?;
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    let script = script("mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys", "");
    is_diagnosed(&bundle, &script, "proc", "warn", 341)?;
    is_diagnosed(
        &bundle,
        "shift; mount -t tmpfs none /sys/firmware; exec setpriv --inh-caps=-all --bounding-set=-all,+setfcap \"$@\"",
        "sys",
        "warn",
        311,
    )
}

#[test]
fn root_that_may_not_map_itself_is_told_of_the_capability() -> Result<()> {
    requires!(unprivileged, userns);
    fails("exec setpriv --inh-caps=-all --bounding-set=-all \"$@\"", "", "userns", 107, &["CAP_SETFCAP", "fix: "])
}

#[test]
fn newuidmap_without_power_is_told_in_which_of_four_ways() -> Result<()> {
    requires!(unprivileged, userns, subids);
    fails(RANGES, "", "ids", 101, &["setuid bit", "fix: sudo chmod u+s /usr/bin/new"])?;
    fails(&copies(""), "--no-new-privs", "ids", 102, &["no_new_privs", "fix: NoNewPrivileges=no"])?;
    fails(&copies(",nosuid"), "", "ids", 103, &["mounted nosuid (/mnt)"])?;
    fails(&copies(""), "", "ids", 104, &["bounding set", "fix: --cap-add"])
}

#[test]
fn a_missing_mapper_costs_ids_and_is_an_error_only_where_they_are_needed() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let setup = format!("{RANGES}; mount --bind /dev/null /usr/bin/newuidmap");
    warns(&setup, "ids", 110, &["not installed", "fix: apt install uidmap"])?;
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.map(&[(0, 100_000, 10)], &[(0, 100_000, 10)]);
    let outcome = on(&bundle, &script(&setup, ""), &bundle.with_bundle("run", &["c1"])?)?;
    outcome.fails(125, 105, &["not installed", "fix: apt install uidmap"])?;
    Ok(())
}

#[test]
fn a_powerless_mapper_first_in_path_is_passed_over() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut bundle = Bundle::probing(&["maps"])?;
    bundle.share_user();
    let run = bundle.with_bundle("run", &["c1"])?;
    let script = "cp /usr/bin/newuidmap /usr/bin/newgidmap \"$1\"; PATH=$1:$PATH; shift; exec \"$@\"";
    let files = bundle.path("bundle").display().to_string();
    let facts = bundle.through(&["sh", "-c", script, "sh", &files], &run).output()?.facts()?;
    assert!(facts.all("uid_map").len() > 1, "{facts:?}");
    Ok(())
}

#[test]
fn subordinate_ids_that_are_not_there_or_one_sided_cost_ids_and_a_free_range_is_named() -> Result<()> {
    requires!(unprivileged, userns);
    let ranges = |uid: &str, gid: &str| {
        format!(
            "echo '{uid}' >$FILES/uid; echo '{gid}' >$FILES/gid; for kind in uid gid; do mount --bind $FILES/$kind /etc/sub$kind; done"
        )
    };
    let other = "nobody:100000:65536";
    warns(
        &ranges("", ""),
        "ids",
        110,
        &["no subordinate ids for root", "fix: sudo usermod --add-subuids 100000-165535"],
    )?;
    warns(&ranges(other, other), "ids", 110, &["fix: sudo usermod --add-subuids 165536-231071"])?;
    warns(&ranges("root:100000:65536", ""), "ids", 113, &["uids without gids", "--add-subgids 165536-231071 root"])?;
    warns(&ranges("", "root:100000:65536"), "ids", 113, &["or the reverse"])?;
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    bundle.write()?;
    let bundled = bundle.path("bundle").display().to_string();
    let strictly = bundle.pura(&["--strict", "run", "-b", &bundled, "c1"]);
    let outcome =
        bundle.through(&["unshare", "--user", "--map-user=54321", "--map-group=54321"], &strictly).output()?;
    outcome.fails(125, 117, &["uid 54321 has no account name"])?;
    bundle.is_clean()
}

#[test]
fn a_range_with_the_callers_own_id_is_split_and_said() -> Result<()> {
    requires!(unprivileged, userns, subids);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    let script = script(&RANGES.replace("100000", "0"), "");
    let bundled = bundle.path("bundle").display().to_string();
    bundle.write()?;
    let strictly = bundle.pura(&["--strict", "run", "-b", &bundled, "c1"]);
    on(&bundle, &script, &strictly)?.fails(125, 114, &["your own id 0", "split"])?;
    Ok(())
}

#[test]
fn doctor_judges_the_machine_of_the_test_as_run_does() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["true"])?;
    let outcome = bundle.pura(&["doctor"]).output()?;
    ensure!(outcome.code() < 2 && outcome.stderr.is_empty(), "{outcome:?}");
    ensure!(outcome.stdout.contains("userns      OK"), "{}", outcome.stdout);
    let json: serde_json::Value = serde_json::from_str(&bundle.pura(&["doctor", "--json"]).output()?.stdout)?;
    assert_eq!(json["checks"][1]["facts"]["uid"], own_uid());
    bundle.run()?.succeeds_silently()
}

#[test]
fn a_mapper_that_fails_is_quoted() -> Result<()> {
    requires!(unprivileged, userns);
    let setup = format!(
        "{RANGES}; mount -t tmpfs -o mode=755 none /mnt; printf '#!/bin/sh\\necho the moon is full >&2; exit 1\\n' >/mnt/newuidmap; \
         cp /mnt/newuidmap /mnt/newgidmap; chmod 4755 /mnt/new*; export PATH=/mnt:$PATH; \
         exec setpriv --securebits +noroot --inh-caps=-all \"$@\""
    );
    fails(&setup, "", "ids", 106, &["the moon is full"])
}

#[test]
fn a_getsubids_that_fails_is_done_without_and_said() -> Result<()> {
    requires!(unprivileged, userns);
    let setup = "mount -t tmpfs -o mode=755 none /mnt; mkdir /mnt/etc; cp /etc/passwd /etc/group /mnt/etc; \
                 echo subid: sss >/mnt/etc/nsswitch.conf; : >/mnt/etc/subuid; : >/mnt/etc/subgid; mount --bind /mnt/etc /etc; \
                 printf '#!/bin/sh\\nexit 1\\n' >/mnt/getsubids; chmod 755 /mnt/getsubids; export PATH=/mnt:$PATH";
    warns(setup, "ids", 116, &["getsubids failed", "/etc/subuid and /etc/subgid were used instead"])
}

#[test]
fn a_root_that_cannot_be_entered_is_named() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["true"])?;
    // EBUSY, as the kernel says of a root that is in use.
    let hidden = |pura: &crate::harness::Pura| crate::fallback::hidden(&bundle, "16", "pivot_root", pura);
    hidden(&bundle.with_bundle("run", &["c1"])?).output()?.fails(125, 315, &["pivot_root", "busy"])?;
    hidden(&bundle.with_bundle("run", &["--no-pivot", "c1"])?).output()?.succeeds_silently()?;
    let doctor = hidden(&bundle.pura(&["doctor"])).output()?;
    ensure!(doctor.stdout.contains("[PURA-315]  fix: --no-pivot"), "{}", doctor.stdout);
    bundle.is_clean()
}

#[test]
fn an_overlay_over_overlays_is_too_much_and_the_tree_is_read_only() -> Result<()> {
    requires!(unprivileged, userns, overlay);
    let bundle = Bundle::new()?;
    fs::create_dir_all(bundle.rootfs("run"))?;
    let root = bundle.rootfs("").display().to_string();
    let script = "mount -t tmpfs none /mnt; mkdir /mnt/u1 /mnt/w1 /mnt/m1 /mnt/u2 /mnt/w2 /mnt/m2; \
                  mount -t overlay -o userxattr,lowerdir=$1,upperdir=/mnt/u1,workdir=/mnt/w1 none /mnt/m1 && \
                  mount -t overlay -o userxattr,lowerdir=/mnt/m1,upperdir=/mnt/u2,workdir=/mnt/w2 none /mnt/m2 || exit 99; \
                  shift; exec \"$@\"";
    let unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", &root];
    for (strict, status) in [(false, 1), (true, 125)] {
        let flags: &[&str] = if strict { &["--strict"] } else { &[] };
        let words = ["run", "--rootfs", "/mnt/m2", "--", "/bin/pura-probe", "write", "/new"];
        let outcome = bundle.through(&unshare, &bundle.pura(&[flags, &words].concat())).output()?;
        // The kernel of the machine may allow more of them.
        if outcome.code() == 99 {
            return crate::harness::skip("overlay", "the kernel refuses even two overlays");
        }
        ensure!(outcome.code() == status && outcome.stderr.contains("[PURA-316]"), "{outcome:?}");
        ensure!(!bundle.rootfs("new").exists(), "{outcome:?}");
    }
    bundle.is_clean()
}

#[test]
fn a_device_on_a_mount_without_devices_is_named() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    bundle.config["linux"]["devices"] = serde_json::json!([{"path": "/dev/zero", "type": "c", "major": 1, "minor": 5}]);
    let script = script("mount --rbind /dev /dev; mount -o remount,bind,nosuid,noexec,nodev /dev", "");
    let outcome = on(&bundle, &script, &bundle.with_bundle("run", &["c1"])?)?;
    outcome.fails(125, 318, &["linux.devices[0]", "/dev/zero", "nodev"])?;
    bundle.is_clean()
}

#[test]
fn a_filter_that_takes_a_privilege_is_refused_to_one_without_it() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    bundle.config["process"]["noNewPrivileges"] = false.into();
    bundle.config["linux"]["seccomp"] = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW"});
    let bundled = bundle.path("bundle").display().to_string();
    bundle.write()?;
    let run = bundle.pura(&["--userns=inherit", "run", "-b", &bundled, "c1"]);
    run.output()?.fails(125, 507, &["linux.seccomp", "CAP_SYS_ADMIN", "fix: \"noNewPrivileges\": true"])?;
    bundle.is_clean()
}

#[test]
fn a_machine_without_a_place_for_state_is_told_of_each_candidate() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = Bundle::new()?;
    let pura = crate::harness::pura_binary().display().to_string();
    // What is below /tmp is gone once there is another one.
    let script = "mount -t tmpfs none /mnt; cp $2 /mnt/pura; mount -t tmpfs -o ro none /run; mount -t tmpfs -o ro none /tmp; \
                  cd /; exec env XDG_RUNTIME_DIR=/nowhere setpriv --inh-caps=-all --bounding-set=-all,+setfcap /mnt/pura $3 run -- true";
    for flags in ["", "--strict"] {
        let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", "", &pura, flags];
        let words: Vec<std::ffi::OsString> = words.iter().map(Into::into).collect();
        let outcome = crate::harness::Pura::through(bundle.dir(), &words).output()?;
        outcome.fails(125, 701, &["/nowhere/pura", "/run/user/", "/tmp/pura-", "fix: --root DIR"])?;
    }
    Ok(())
}

#[test]
fn containers_that_end_with_the_session_are_told_of_before_they_are_left() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    bundle.write()?;
    let bundled = bundle.path("bundle").display().to_string();
    let setup = "mount -t tmpfs -o mode=755 none /run; mkdir -p /run/systemd/users /run/user/0; : >/run/systemd/users/0; \
                 chmod 700 /run/user/0; export XDG_RUNTIME_DIR=/run/user/0";
    let call = |words: &[&str]| on(&bundle, &script(setup, ""), &crate::harness::Pura::new(bundle.dir(), words));
    for (flags, code) in [(&["run", "--detach"][..], Some(770)), (&["create"], Some(770)), (&["run"], None)] {
        let strictly = call(&[&["--strict", "--userns=single"], flags, &["-b", &bundled, "c1"]].concat())?;
        match code {
            Some(code) => {
                strictly.fails(1, code, &["end with your last session", "fix: loginctl enable-linger"])?;
            }
            None => strictly.succeeds_silently()?,
        }
    }
    // With a directory of its own it has nothing to do with sessions.
    let words = ["--strict", "--userns=single", "run", "--detach", "-b", &bundled, "c1"];
    on(&bundle, &script(setup, ""), &bundle.pura(&words))?.succeeds_silently()?;
    bundle.becomes("stopped")?;
    bundle.delete()?;
    bundle.is_clean()
}

#[test]
fn a_filesystem_without_locks_is_said_and_a_link_stands_for_them() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    // EOPNOTSUPP
    let hidden = |pura: &crate::harness::Pura| crate::fallback::hidden(&bundle, "95", "flock", pura);
    let bundled = bundle.path("bundle").display().to_string();
    let strictly = bundle.pura(&["--strict", "run", "-b", &bundled, "c1"]);
    hidden(&strictly).output()?.fails(125, 715, &["knows no locks", "fix: --root DIR"])?;
    let mut running = hidden(&bundle.with_bundle("create", &["c1"])?).spawn()?;
    running.wait()?.succeeds_silently()?;
    hidden(&bundle.with_bundle("create", &["c1"])?).output()?.fails(1, 705, &["c1"])?;
    hidden(&bundle.pura(&["start", "c1"])).output()?.succeeds_silently()?;
    assert_eq!(running.line()?, "ready");
    hidden(&bundle.pura(&["delete", "c1"])).output()?.fails(1, 708, &["c1"])?;
    // One whose maker is dead, as after SIGKILL.
    std::os::unix::fs::symlink("4194304-1-", bundle.path("state/c1/lock"))?;
    hidden(&bundle.pura(&["delete", "--force", "c1"])).output()?.succeeds_silently()?;
    assert_eq!(fs::read_dir(bundle.path("state"))?.count(), 0);
    bundle.is_clean()
}

#[test]
fn processes_that_are_used_up_are_named() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = Bundle::probing(&["true"])?;
    let run = bundle.with_bundle("run", &["c1"])?;
    let outcome = bundle.through(&["prlimit", "--nproc=1"], &run).output()?;
    outcome.fails(125, 903, &["your processes are used up", "RLIMIT_NPROC"])?;
    bundle.is_clean()
}

#[test]
fn a_binary_that_cannot_be_protected_starts_no_container() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    bundle.write()?;
    let bundled = bundle.path("bundle").display().to_string();
    let words = [crate::harness::pura_binary(), crate::harness::probe_binary()].map(|path| path.display().to_string());
    // No file in memory, no mounts, and no directory that takes a file which may be executed.
    let setup = format!(
        "mount -t tmpfs none /mnt; mkdir /mnt/bin; cp {} {} /mnt/bin; chmod 555 /mnt/bin; \
         for directory in /tmp /var/tmp /dev/shm; do mount --rbind $directory $directory; \
         mount -o remount,bind,nosuid,nodev,noexec $directory; done; \
         set -- /mnt/bin/pura-probe without 1 memfd_create,open_tree /mnt/bin/pura --root $FILES/state run -b {bundled} c1",
        words[0], words[1]
    );
    let outcome = on(&bundle, &script(&setup, ""), &bundle.pura(&["run"]))?;
    outcome.fails(125, 904, &["keep pura's binary from the container", "fix: install it", "/usr/local/bin"])?;
    bundle.is_clean()
}

#[test]
fn state_that_is_lost_is_made_up_for_by_the_cgroup() -> Result<()> {
    requires!(userns, cgroup);
    let bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.started()?;
    let pid = bundle.pid()?;
    for entry in fs::read_dir(bundle.path("state/c1"))? {
        fs::remove_file(entry?.path())?;
    }
    let log = bundle.path("log").display().to_string();
    bundle.pura(&["--log", &log, "--log-level", "warning", "delete", "--force", "c1"]).output()?.succeeds()?;
    let said = fs::read_to_string(&log)?;
    ensure!(said.contains("PURA-713") && said.contains("is killed"), "{said}");
    crate::harness::eventually("its end", || Ok(!std::path::Path::new(&format!("/proc/{pid}")).exists()))?;
    drop(running);
    bundle.is_clean()
}

#[test]
fn a_cgroup_that_cannot_be_removed_is_named_and_the_entry_stays() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    requires!(unprivileged, userns, cgroup);
    let bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.started()?;
    let own = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid()?))?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).context("cgroup")?.to_owned();
    // A name of its own below: whoever removes the leaf has to get past it.
    let below = std::path::PathBuf::from(format!("/sys/fs/cgroup{own}/below"));
    fs::create_dir_all(below.join("deeper"))?;
    let set = |mode| fs::set_permissions(&below, fs::Permissions::from_mode(mode));
    set(0o555)?;
    let outcome = bundle.pura(&["delete", "--force", "c1"]).output();
    set(0o755)?;
    outcome?.fails(1, 731, &["c1"])?;
    assert_eq!(bundle.status()?, "stopped");
    bundle.delete()?;
    drop(running);
    bundle.is_clean()
}

#[test]
fn a_keyring_that_cannot_be_had_is_a_warning() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["true"])?;
    bundle.write()?;
    let hidden = |pura: &crate::harness::Pura| crate::fallback::hidden(&bundle, "122", "keyctl", pura);
    hidden(&bundle.with_bundle("run", &["c1"])?).output()?.succeeds_silently()?;
    let bundled = bundle.path("bundle").display().to_string();
    let strictly = bundle.pura(&["--strict", "run", "-b", &bundled, "c1"]);
    hidden(&strictly).output()?.fails(125, 521, &["the caller's session keys stay reachable inside"])?;
    bundle.is_clean()
}
