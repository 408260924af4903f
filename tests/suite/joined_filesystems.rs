//! `/proc` and `/dev/mqueue` of joined namespaces that belong to the caller's user namespace, in a container with another.

use std::fs;

use anyhow::Result;
use serde_json::json;

use crate::{
    fallback::hidden,
    harness::{Bundle, Outcome},
};

/// A container in the caller's PID and IPC namespaces and in a user namespace of its own.
fn member(words: &[&str]) -> Result<Bundle> {
    let mut bundle = Bundle::probing(words)?;
    bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
    for (kind, file) in [("pid", "pid"), ("ipc", "ipc")] {
        bundle.share(kind);
        bundle.push("/linux/namespaces", json!({"type": kind, "path": format!("/proc/self/ns/{file}")}))?;
    }
    fs::create_dir(bundle.path("queues"))?;
    Ok(bundle)
}

/// Runs it in new namespaces, whose process 1 is a shell, and which have a queue with the name "outer".
fn run(bundle: &Bundle, flags: &[&str]) -> Result<Outcome> {
    let script = "mount -t mqueue mqueue \"$1\" && : >\"$1/outer\" || exit 99; shift; \"$@\"; exit $?";
    let queues = bundle.path("queues");
    let shell = ["sh", "-c", script, "first", &queues.to_string_lossy()];
    let words = [&["unshare", "--pid", "--fork", "--mount-proc", "--ipc"], flags, &shell].concat();
    let pura = bundle.with_bundle("run", &["c1"])?;
    bundle.through(&words, &pura).output()
}

/// Whatever the flags of `unshare` and whoever calls.
fn shows_both(flags: &[&str]) -> Result<()> {
    let hook = json!([{"path": "/bin/true"}]);
    for hooks in [json!({}), json!({"createRuntime": hook})] {
        let mut bundle = member(&[])?;
        bundle.config["hooks"] = hooks;
        bundle.args(&["/bin/pura-probe", "read", "/proc/1/cmdline"]);
        assert!(run(&bundle, flags)?.succeeds()?.starts_with("sh\0-c\0"), "process 1 is the caller's");
        bundle.args(&["/bin/pura-probe", "stat", "/dev/mqueue/outer"]);
        assert!(run(&bundle, flags)?.facts()?.get("/dev/mqueue/outer")?.starts_with("file "));
        bundle.args(&["/bin/pura-probe", "mounts", "ns"]);
        let facts = run(&bundle, flags)?.facts()?;
        let (proc, queues) = (facts.mount("/proc")?, facts.mount("/dev/mqueue")?);
        assert_eq!((proc.kind.as_str(), queues.kind.as_str()), ("proc", "mqueue"));
        for word in ["nosuid", "nodev", "noexec"] {
            assert!(proc.has(word) && queues.has(word), "{facts:?}");
        }
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn proc_and_mqueue_of_the_callers_joined_namespaces_are_there_in_a_new_user_namespace() -> Result<()> {
    requires!(unprivileged, userns);
    shows_both(&["--user", "--map-root-user"])
}

#[test]
fn root_sees_proc_and_mqueue_of_joined_namespaces_too() -> Result<()> {
    requires!(root);
    shows_both(&[])
}

#[test]
fn root_joins_the_namespaces_of_the_host_and_has_its_proc_and_mqueue() -> Result<()> {
    requires!(root);
    let mut bundle = member(&["read", "/proc/1/comm"])?;
    bundle.share_user();
    assert_eq!(bundle.run()?.succeeds()?, fs::read_to_string("/proc/1/comm")?);
    bundle.args(&["/bin/pura-probe", "mounts"]);
    let facts = bundle.facts()?;
    assert_eq!((&*facts.mount("/proc")?.kind, &*facts.mount("/dev/mqueue")?.kind), ("proc", "mqueue"));
    Ok(())
}

#[test]
fn options_of_a_joined_proc_are_taken_and_unknown_ones_refused() -> Result<()> {
    requires!(unprivileged, userns);
    let flags = ["--user", "--map-root-user"];
    let mut bundle = member(&["mounts"])?;
    bundle.config["mounts"][0]["options"] = json!(["ro", "nosuid", "subset=pid"]);
    assert!(run(&bundle, &flags)?.facts()?.mount("/proc")?.has("ro"));
    bundle.args(&["/bin/pura-probe", "stat", "/proc/meminfo"]);
    assert_ne!(run(&bundle, &flags)?.code(), 0, "only processes are in there");
    for options in [["unheard-of"], ["hidepid=often"]] {
        bundle.config["mounts"][0]["options"] = json!(options);
        run(&bundle, &flags)?.fails(125, 308, &["mount proc on \"/proc\"", options[0]])?;
    }
    bundle.is_clean()
}

#[test]
fn a_masked_proc_of_the_caller_is_not_uncovered_by_a_join() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = member(&["mounts"])?;
    // The second user namespace gets the cover together with what is covered, and may not separate them.
    let script =
        "mount -t tmpfs none /proc/sys && exec unshare --user --map-root-user --mount --pid --fork --ipc \"$@\"";
    let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"];
    let pura = bundle.with_bundle("run", &["c1"])?;
    bundle.through(&words, &pura).output()?.fails(125, 341, &["an outer container masks /proc"])?;
    bundle.is_clean()
}

#[test]
fn without_fsopen_a_joined_proc_is_an_error_that_says_so() -> Result<()> {
    requires!(unprivileged, userns);
    let bundle = member(&["mounts"])?;
    let pura = hidden(&bundle, "38", "fsopen", &bundle.with_bundle("run", &["c1"])?);
    let words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--ipc"];
    bundle.through(&words, &pura).output()?.fails(125, 902, &["mount proc on \"/proc\""])?;
    bundle.is_clean()
}
