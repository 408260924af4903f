//! Fields of `linux` in their less usual forms: namespaces inherited or joined, the propagation of the root, a cgroup path
//! that leads astray; and the session keyring.

use std::fs;

use anyhow::Result;
use serde_json::json;

use crate::harness::{Bundle, Running};

/// The tester's own namespace.
fn own(kind: &str) -> Result<String> {
    Ok(fs::read_link(format!("/proc/self/ns/{kind}"))?.to_string_lossy().into_owned())
}

/// A running container, and a member bundle that joins its user namespace and those of `kinds`.
fn pod(kinds: &[(&str, &str)], words: &[&str]) -> Result<(Bundle, Running, Bundle)> {
    let mut first = Bundle::probing(&["sleep"])?;
    first.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    let running = first.started()?;
    let pid = first.pid()?;
    let mut member = Bundle::probing(words)?;
    member.share_user();
    for (kind, file) in [&[("user", "user")], kinds].concat() {
        member.share(kind);
        member.push("/linux/namespaces", json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}))?;
    }
    Ok((first, running, member))
}

#[test]
fn pid_cgroup_and_time_namespaces_without_an_entry_are_the_callers() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["ns"])?;
    bundle.share("pid");
    bundle.unmount("/proc");
    bundle.mount("/proc", "none", "/proc", &["rbind"])?;
    let facts = bundle.facts()?;
    for kind in ["pid", "cgroup", "time"] {
        assert_eq!(facts.get(&format!("ns.{kind}"))?, own(kind)?, "{kind}");
    }
    bundle.push("/linux/namespaces", json!({"type": "time"}))?;
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    let facts = bundle.facts()?;
    for kind in ["cgroup", "time"] {
        assert_ne!(facts.get(&format!("ns.{kind}"))?, own(kind)?, "{kind}");
    }
    Ok(())
}

#[test]
fn a_cgroup_namespace_is_joined_by_its_path() -> Result<()> {
    requires!(userns);
    let (first, running, member) = pod(&[("cgroup", "cgroup")], &["ns"])?;
    let facts = member.facts()?;
    let of_first = fs::read_link(format!("/proc/{}/ns/cgroup", first.pid()?))?;
    assert_eq!(facts.get("ns.cgroup")?, of_first.to_string_lossy());
    assert_ne!(facts.get("ns.cgroup")?, own("cgroup")?);
    drop(running);
    first.delete()
}

#[test]
fn proc_of_a_joined_pid_namespace_shows_its_processes() -> Result<()> {
    requires!(userns);
    let (first, running, member) = pod(&[("pid", "pid")], &["read", "/proc/1/cmdline"])?;
    assert_eq!(member.run()?.succeeds()?, "/bin/pura-probe\0sleep\0");
    drop(running);
    first.delete()
}

#[test]
fn a_pipe_in_the_place_of_a_namespace_of_any_kind_fails_at_once() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    bundle.share_user();
    let fifo = bundle.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR)?;
    let good = bundle.config.clone();
    for kind in ["pid", "ipc", "uts", "user", "cgroup", "time"] {
        bundle.share(kind);
        bundle.push("/linux/namespaces", json!({"type": kind, "path": fifo}))?;
        bundle.is_refused(217, &[kind, "fifo"])?;
        bundle.config.clone_from(&good);
    }
    Ok(())
}

#[test]
fn the_root_of_a_cgroup_namespace_is_the_cgroup_of_the_container() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["read", "/proc/self/cgroup"])?;
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}))?;
    let outcome = bundle.run()?;
    let cgroups = outcome.succeeds()?;
    assert!(!cgroups.is_empty() && cgroups.lines().all(|line| line.ends_with(":/")), "{cgroups}");
    Ok(())
}

#[test]
fn a_cgroup_path_that_leads_upwards_is_refused_whatever_the_host_has() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    for path in ["/a/../../b", "..", "a/..", "user.slice:pura:../x"] {
        bundle.config["linux"]["cgroupsPath"] = path.into();
        bundle.is_refused(803, &["linux.cgroupsPath", path])?;
    }
    Ok(())
}

#[test]
fn the_recursive_words_for_the_propagation_of_the_root_and_slave_apply() -> Result<()> {
    requires!(userns);
    let of = |word: &str| -> Result<String> {
        let mut bundle = Bundle::probing(&["mounts"])?;
        bundle.config["linux"]["rootfsPropagation"] = word.into();
        Ok(bundle.facts()?.mount("/")?.propagation)
    };
    for word in ["slave", "rslave"] {
        // Private where the host's own mount is.
        let propagation = of(word)?;
        assert!(propagation.is_empty() || propagation.starts_with("master:"), "{word}: {propagation}");
    }
    assert!(of("rshared")?.starts_with("shared:"));
    assert_eq!(of("runbindable")?, "unbindable");
    Ok(())
}

#[test]
fn a_full_quota_of_keys_is_a_warning() -> Result<()> {
    requires!(userns, strace);
    let bundle = Bundle::probing(&["true"])?;
    let tracer = ["strace", "--quiet=all", "-f", "-o", "/dev/null", "-e", "inject=keyctl:error=EDQUOT"];
    bundle.write()?;
    let log = bundle.path("log");
    let words = ["--log-level", "warning", "--log", &log.to_string_lossy(), "run", "-b"];
    let run = bundle.pura(&words).args(&[bundle.path("bundle")]).args(&["c1"]);
    bundle.through(&tracer, &run).output()?.succeeds_silently()?;
    let log = fs::read_to_string(log)?;
    assert!(log.contains("PURA-521") && log.lines().count() == 1, "{log}");
    Ok(())
}

#[test]
fn proc_of_an_inherited_pid_namespace_is_the_callers() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["read", "/proc/1/comm"])?;
    bundle.share("pid");
    let own = fs::read_to_string("/proc/1/comm")?;
    assert_eq!(bundle.run()?.succeeds()?, own);
    bundle.args(&["/bin/pura-probe", "ns", "mounts"]);
    let facts = bundle.facts()?;
    assert_eq!(facts.get("ns.pid")?, self::own("pid")?);
    assert!(facts.mount("/proc")?.has("nosuid") && facts.mount("/proc")?.has("noexec"), "{facts:?}");
    // A mask is a mask all the same.
    bundle.config["linux"]["maskedPaths"] = json!(["/proc/keys"]);
    bundle.args(&["/bin/pura-probe", "read", "/proc/keys"]);
    assert_eq!(bundle.run()?.succeeds()?, "");
    Ok(())
}
