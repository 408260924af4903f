//! `run -- COMMAND`: no bundle, safe defaults, the host's own root below a layer that is thrown away.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Result;

use crate::harness::{Bundle, Facts, Outcome, own_uid, probe_binary, subordinate};

/// `pura run FLAGS -- COMMAND`
fn run(bundle: &Bundle, flags: &[&str], command: &[&str]) -> Result<Outcome> {
    bundle.pura(&[&["run"], flags, &["--"], command].concat()).output()
}

/// `pura run FLAGS --rootfs ROOT PROBE WORDS`: the same defaults on a root of the test's own. Warnings are allowed: there
/// may be no subordinate ids.
fn probe(bundle: &Bundle, flags: &[&str], words: &[&str]) -> Result<Outcome> {
    let root = bundle.rootfs("").display().to_string();
    let mark = format!("PURA_TEST={}", bundle.dir().display());
    let fixed = ["run", "--userns=single", "-e", &mark, "--rootfs", &root];
    bundle.pura(&[&fixed, flags, &["--", "/bin/pura-probe"], words].concat()).output()
}

#[test]
fn a_command_runs_on_the_hosts_own_root_and_returns_its_status() -> Result<()> {
    requires!(userns, overlay);
    let bundle = Bundle::new()?;
    for status in [0, 3] {
        let outcome = run(&bundle, &["--userns=single"], &["/bin/sh", "-c", &format!("echo hello; exit {status}")])?;
        assert_eq!(outcome.ends(status)?, "hello\n");
    }
    bundle.is_clean()
}

#[test]
fn what_the_command_writes_is_thrown_away() -> Result<()> {
    requires!(userns, overlay);
    let bundle = Bundle::new()?;
    let script =
        "echo new >/etc/pura-suite-file && cat /etc/pura-suite-file && rm /etc/passwd && ! test -e /etc/passwd";
    let outcome = run(&bundle, &["--userns=single"], &["/bin/sh", "-c", script])?;
    // Files of the host's root belong to nobody inside, so that an ordinary user may be refused even on the layer.
    if outcome.status.success() {
        assert_eq!(outcome.stdout, "new\n");
    }
    assert!(!Path::new("/etc/pura-suite-file").exists() && Path::new("/etc/passwd").exists());
    let outcome = probe(&bundle, &[], &["write", "/tmp/new"])?;
    outcome.succeeds()?;
    assert!(!bundle.rootfs("tmp/new").exists(), "the layer was not thrown away");
    bundle.is_clean()
}

#[test]
fn proc_sys_dev_pts_and_shm_are_there() -> Result<()> {
    requires!(userns, overlay);
    let facts = probe(&Bundle::new()?, &[], &["mounts"])?.facts()?;
    for (target, kind) in
        [("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")]
    {
        assert_eq!(facts.mount(target)?.kind, kind, "{target}");
    }
    Ok(())
}

#[test]
fn defaults_are_safe() -> Result<()> {
    requires!(userns, overlay);
    let facts = probe(&Bundle::new()?, &[], &["caps", "ns", "ids", "fds"])?.facts()?;
    assert_eq!(facts.get("NoNewPrivs")?, "1");
    assert_eq!((facts.get("CapInh")?, facts.get("CapAmb")?), ("0000000000000000", "0000000000000000"));
    let bounding = u64::from_str_radix(facts.get("CapBnd")?, 16)?;
    for (bit, name) in [(21, "SYS_ADMIN"), (16, "SYS_MODULE"), (12, "NET_ADMIN"), (19, "SYS_PTRACE"), (25, "SYS_TIME")]
    {
        assert_eq!(bounding >> bit & 1, 0, "{name}");
    }
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let own = fs::read_link(format!("/proc/self/ns/{kind}"))?;
        assert_ne!(facts.get(&format!("ns.{kind}"))?, own.to_string_lossy(), "{kind}");
    }
    let open: Vec<&str> = facts.below("fd.").into_iter().map(|(number, _)| number).collect();
    assert_eq!(open, ["0", "1", "2"]);
    Ok(())
}

#[test]
fn the_callers_home_is_hidden() -> Result<()> {
    requires!(userns, overlay);
    let bundle = Bundle::new()?;
    let home = bundle.path("home");
    fs::create_dir(&home)?;
    fs::write(home.join("secret"), "secret")?;
    let accounts = fs::read_to_string("/etc/passwd")?;
    let uid = own_uid().to_string();
    let home = accounts
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|words| words.get(2) == Some(&uid.as_str()));
    let Some(home) =
        home.and_then(|words| words.get(5).copied()).filter(|home| *home != "/" && Path::new(home).is_dir())
    else {
        return Ok(());
    };
    let script = format!("ls -A '{home}' 2>/dev/null || true");
    assert_eq!(run(&bundle, &["--userns=single"], &["/bin/sh", "-c", &script])?.succeeds()?, "");
    Ok(())
}

#[test]
fn flags_set_environment_directory_name_and_network() -> Result<()> {
    requires!(userns, overlay);
    let bundle = Bundle::new()?;
    let flags = ["-e", "A=b c", "-w", "/tmp", "--hostname", "inside", "--net"];
    let outcome = probe(&bundle, &flags, &["env", "cwd", "hostname", "ns"])?;
    // A person is told that /sys is not the container's own.
    assert!(outcome.stderr.contains("[PURA-311]"), "{outcome:#?}");
    assert_eq!(outcome.code(), 0);
    let facts = Facts::parse(&outcome.stdout);
    assert_eq!((facts.get("env.A")?, facts.get("cwd")?, facts.get("hostname")?), ("b c", "/tmp", "inside"));
    assert_eq!(facts.get("ns.net")?, fs::read_link("/proc/self/ns/net")?.to_string_lossy());
    Ok(())
}

#[test]
fn a_volume_is_bound_and_its_options_count() -> Result<()> {
    requires!(userns, overlay);
    let bundle = Bundle::new()?;
    fs::create_dir(bundle.path("data"))?;
    let data = bundle.path("data").display().to_string();
    probe(&bundle, &["-v", &format!("{data}:/data")], &["write", "/data/file", "kept"])?.succeeds()?;
    assert_eq!(fs::read_to_string(bundle.path("data/file"))?, "kept");
    assert_eq!(fs::metadata(bundle.path("data/file"))?.uid(), own_uid());
    let outcome = probe(&bundle, &["-v", &format!("{data}:/data:ro")], &["write", "/data/file"])?;
    assert!(outcome.code() == 1 && outcome.stderr.contains("Read-only file system"), "{outcome:#?}");
    let outcome = probe(&bundle, &["-v", "/nowhere:/data"], &["true"])?;
    outcome.fails(125, 304, &["/nowhere", "does not exist"])?;
    Ok(())
}

#[test]
fn read_only_refuses_writes() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::new()?;
    let outcome = probe(&bundle, &["--read-only"], &["write", "/root/file"])?;
    assert!(outcome.code() == 1 && outcome.stderr.contains("Read-only file system"), "{outcome:#?}");
    Ok(())
}

#[test]
fn the_single_id_is_the_callers_and_keep_id_keeps_it() -> Result<()> {
    requires!(unprivileged, userns, overlay);
    let bundle = Bundle::new()?;
    let facts = probe(&bundle, &[], &["ids", "maps"])?.facts()?;
    assert_eq!((facts.get("uid")?, facts.get("uid_map")?), ("0", format!("0 {} 1", own_uid()).as_str()));
    let root = bundle.rootfs("").display().to_string();
    let mark = format!("PURA_TEST={}", bundle.dir().display());
    let words = ["run", "--userns", "keep-id", "-e", &mark, "--rootfs", &root, "/bin/pura-probe", "ids"];
    let outcome = bundle.pura(&words).output()?;
    assert!(outcome.status.success(), "{outcome:#?}");
    assert!(
        outcome.stdout.contains(&format!("\nuid={0}\n", own_uid()))
            || outcome.stdout.starts_with(&format!("uid={}\n", own_uid()))
    );
    Ok(())
}

#[test]
fn a_name_is_the_id_and_without_one_an_id_is_made_up_that_a_detached_run_prints() -> Result<()> {
    requires!(userns, overlay);
    let bundle = Bundle::new()?;
    let root = bundle.rootfs("").display().to_string();
    let mark = format!("PURA_TEST={}", bundle.dir().display());
    let mut printed = Vec::new();
    for name in [&["--name", "c1"][..], &[]] {
        let words =
            [&["run", "-d", "--userns=single", "-e", &mark, "--rootfs", &root], name, &["/bin/pura-probe", "sleep"]]
                .concat();
        let mut running = bundle.pura(&words).spawn()?;
        let outcome = running.wait()?;
        assert!(outcome.status.success(), "{outcome:#?}");
        let mut lines = [running.line()?, running.line()?].to_vec();
        lines.retain(|line| line != "ready");
        printed.append(&mut lines);
    }
    let listed = bundle.pura(&["list", "-q"]).output()?;
    let ids: Vec<&str> = listed.succeeds()?.lines().collect();
    assert!(ids.len() == 2 && ids.contains(&"c1"), "{ids:?}");
    printed.sort_unstable();
    assert_eq!(printed, ids);
    for id in ids {
        bundle.pura(&["delete", "--force", id]).output()?.succeeds_silently()?;
    }
    Ok(())
}

#[test]
fn words_after_the_command_are_the_commands() -> Result<()> {
    requires!(userns, overlay);
    let bundle = Bundle::new()?;
    let outcome = run(&bundle, &["--userns=single"], &["/bin/echo", "--version", "-e", "--", "x"])?;
    assert_eq!(outcome.succeeds()?, "--version -e -- x\n");
    Ok(())
}

#[test]
fn a_missing_command_is_127_and_a_missing_root_125() -> Result<()> {
    requires!(userns, overlay);
    let bundle = Bundle::new()?;
    let outcome = run(&bundle, &["--userns=single"], &["pura-no-such-command"])?;
    outcome.fails(127, 601, &["\"pura-no-such-command\": executable file not found in $PATH"])?;
    let outcome = bundle.pura(&["run", "--userns=single", "--rootfs", "/nowhere", "true"]).output()?;
    outcome.fails(125, 301, &["/nowhere"])?;
    assert!(probe_binary().exists());
    bundle.is_clean()
}

#[test]
fn an_error_names_the_option_and_no_place_in_a_config() -> Result<()> {
    requires!(userns, overlay);
    let bundle = Bundle::new()?;
    let root = bundle.rootfs("").display().to_string();
    let file = bundle.rootfs("bin/pura-probe").display().to_string();
    let cases: [(&[&str], &[u32], &str); 4] = [
        (&["-v", "/nowhere/source:/data", "--rootfs", &root], &[304], "(--volume \"/nowhere/source:/data\")"),
        (&["-w", "relative", "--rootfs", &root], &[1], "--workdir \"relative\" is no absolute path"),
        (&["-w", "/bin/pura-probe", "--rootfs", &root], &[611], "(--workdir)"),
        (&["--rootfs", &file], &[301], "(--rootfs)"),
    ];
    for (flags, codes, named) in cases {
        let words = [&["run", "--userns=single"], flags, &["--", "/bin/pura-probe", "ids"]].concat();
        let outcome = bundle.pura(&words).output()?;
        let line = outcome.stderr.lines().last().unwrap_or_default();
        let is_coded = codes.iter().any(|code| line.ends_with(&format!(" [PURA-{code:03}]")));
        assert!(is_coded && line.contains(named) && outcome.status.code() == Some(125), "{outcome:#?}");
    }
    bundle.is_clean()
}

#[test]
fn nomap_leaves_the_caller_out_of_the_map() -> Result<()> {
    requires!(unprivileged, userns, subids, overlay);
    let bundle = Bundle::new()?;
    let script = "cat /proc/self/uid_map; id -u; touch /tmp/own && stat -c %u /tmp/own";
    let outcome = run(&bundle, &["--userns=nomap"], &["/bin/sh", "-c", script])?;
    let mut lines = outcome.succeeds()?.lines();
    let map: Vec<u32> =
        lines.next().unwrap_or_default().split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    assert!(map[0] == 0 && map[1] == subordinate("uid")? && map[2] >= 60000, "{map:?}");
    assert_eq!(lines.collect::<Vec<_>>(), ["0", "0"]);
    bundle.is_clean()
}

#[test]
fn keep_groups_makes_no_setgroups_call() -> Result<()> {
    requires!(unprivileged, userns, subids, overlay);
    let bundle = Bundle::new()?;
    let plan = |flags: &[&str]| -> Result<String> {
        Ok(bundle.pura(&[&["plan"], flags, &["--", "true"]].concat()).output()?.succeeds()?.to_owned())
    };
    assert!(plan(&[])?.contains("drop the supplementary groups"));
    assert!(!plan(&["--keep-groups"])?.contains("drop the supplementary groups"));
    let count = fs::read_to_string("/proc/self/status")?
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .unwrap_or_default()
        .split_whitespace()
        .count();
    let outcome = run(&bundle, &["--keep-groups"], &["/bin/grep", "Groups:", "/proc/self/status"])?;
    assert_eq!(outcome.succeeds()?.split_whitespace().count(), count + 1, "{}", outcome.stdout);
    bundle.is_clean()
}
