//! Hooks: when and where each runs, what it is told, and what its failure means.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{Bundle, Facts, eventually, own_uid, probe_binary};

const OUTSIDE: [&str; 4] = ["prestart", "createRuntime", "poststart", "poststop"];
const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that runs a script: with the host's shell where the host is seen, else with busybox.
fn shell(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

/// A file for hooks to write to, as the host sees it.
fn notes(bundle: &Bundle) -> PathBuf {
    bundle.path("notes")
}

fn noted(bundle: &Bundle) -> String {
    fs::read_to_string(notes(bundle)).unwrap_or_default()
}

/// A hook that notes a word.
fn note(bundle: &Bundle, word: &str) -> Value {
    shell(&format!("echo {word} >>{}", notes(bundle).display()))
}

/// A bundle whose program notes that it ran, and with one hook that fails, and a poststop hook that notes that.
fn failing(kind: &str) -> Result<Bundle> {
    let mut bundle = Bundle::probing(&["write", "/tmp/ran"])?;
    bundle.config["hooks"] = json!({"poststop": [note(&bundle, "poststop")]});
    bundle.config["hooks"][kind] = json!([shell("exit 3")]);
    Ok(bundle)
}

#[test]
fn a_failing_hook_of_create_fails_it_and_runs_poststop() -> Result<()> {
    requires!(userns, busybox);
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let bundle = failing(kind)?;
        let place = format!("cannot run the hook \"/bin/sh\" (hooks.{kind}[0]): it failed: exit status 3");
        bundle.is_refused(614, &[&place])?;
        assert_eq!(noted(&bundle), "poststop\n", "{kind}");
        bundle.run()?.fails(125, 614, &[&place])?;
        assert_eq!(noted(&bundle), "poststop\npoststop\n", "{kind}");
        assert!(!bundle.rootfs("tmp/ran").exists(), "{kind}: the program ran");
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn a_failing_start_container_hook_fails_start_and_the_program_never_runs() -> Result<()> {
    requires!(userns, busybox);
    let bundle = failing("startContainer")?;
    let words = ["cannot run the hook \"/bin/sh\" (hooks.startContainer[0]): it failed: exit status 3"];
    let _running = bundle.created()?;
    bundle.verb("start")?.fails(1, 614, &words)?;
    assert_eq!(noted(&bundle), "poststop\n");
    bundle.verb("state")?.fails(1, 703, &[])?;
    bundle.run()?.fails(125, 614, &words)?;
    assert_eq!(noted(&bundle), "poststop\npoststop\n");
    assert!(!bundle.rootfs("tmp/ran").exists(), "the program ran");
    bundle.is_clean()
}

#[test]
fn a_failing_poststart_hook_fails_start_and_ends_the_program() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = failing("poststart")?;
    bundle.args(&["/bin/pura-probe", "sleep"]);
    let words = ["hooks.poststart[0]): it failed: exit status 3"];
    let running = bundle.created()?;
    bundle.verb("start")?.fails(1, 614, &words)?;
    running.rest()?;
    bundle.verb("state")?.fails(1, 703, &[])?;
    bundle.delete()?;
    assert_eq!(noted(&bundle), "poststop\n");
    bundle.is_clean()?;
    let mut run = bundle.with_bundle("run", &["c1"])?.spawn()?;
    run.wait()?.fails(125, 614, &words)?;
    assert_eq!(noted(&bundle), "poststop\npoststop\n");
    bundle.is_clean()?;
    let log = bundle.path("pid");
    let detached = bundle.with_bundle("run", &["--detach", "--pid-file", &log.to_string_lossy(), "c1"])?;
    detached.output()?.stderr.contains("PURA-614").then_some(()).context("run --detach succeeded")?;
    assert!(!log.exists(), "a pid-file is left");
    bundle.is_clean()
}

#[test]
fn a_failing_poststop_hook_is_a_warning_or_strictly_an_error_and_the_later_ones_run() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["exit", "7"])?;
    let fails = json!({"path": "/no/such/hook"});
    bundle.config["hooks"] = json!({"poststop": [shell("exit 3"), note(&bundle, "second"), fails]});
    bundle.run()?.ends(7)?;
    assert_eq!(noted(&bundle), "second\n");
    let wanted = ["hooks.poststop[0]): it failed: exit status 3", "hooks.poststop[2]): does not exist", "PURA-614"];
    for strict in [false, true] {
        let _running = bundle.created()?;
        let log = bundle.path("log").to_string_lossy().into_owned();
        let flags = if strict { &["--strict"][..] } else { &[] };
        let words = [flags, &["--log-level", "warning", "--log", &log, "delete", "--force", "c1"]].concat();
        let outcome = bundle.pura(&words).output()?;
        // The container is gone all the same.
        bundle.is_clean()?;
        if strict {
            outcome.fails(1, 614, &wanted[..1])?;
        } else {
            outcome.succeeds_silently()?;
        }
        let text = fs::read_to_string(log)?;
        assert!(wanted.iter().all(|wanted| text.contains(wanted)), "{text}");
    }
    bundle.run_strictly()?.fails(125, 614, &wanted[..1])?;
    assert_eq!(noted(&bundle), "second\n".repeat(4));
    bundle.is_clean()
}

#[test]
fn poststop_runs_when_init_is_gone_and_before_delete_returns() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["sleep"])?;
    let own = notes(&bundle);
    // Nobody may have reaped it yet.
    let script =
        "if grep '^State:' /proc/$(cat FILE.pid)/status | grep -qv Z; then echo alive; else echo gone; fi >>FILE";
    let script = script.replace("FILE", &own.to_string_lossy());
    bundle.config["hooks"] = json!({"poststop": [shell(&script)]});
    let _running = bundle.started()?;
    fs::write(own.with_extension("pid"), bundle.pid()?.to_string())?;
    bundle.delete()?;
    assert_eq!(noted(&bundle), "gone\n");
    bundle.delete()?;
    assert_eq!(noted(&bundle), "gone\n", "a second delete ran it again");
    Ok(())
}

#[test]
fn poststop_runs_once_when_another_verb_deletes_what_run_waits_for() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["hooks"] = json!({"poststop": [note(&bundle, "poststop")]});
    let mut running = bundle.with_bundle("run", &["c1"])?.spawn()?;
    assert_eq!(running.line()?, "ready");
    bundle.delete()?;
    running.wait()?;
    assert_eq!(noted(&bundle), "poststop\n");
    bundle.is_clean()
}

#[test]
fn a_relative_path_and_a_time_that_is_none_are_refused_for_every_kind() -> Result<()> {
    for kind in KINDS {
        for (hook, word) in [
            (json!({"path": "bin/true"}), "path: \"bin/true\" is not absolute"),
            (json!({"path": "/bin/true", "timeout": 0}), "timeout: 0 is no time"),
            (json!({"path": "/bin/true", "timeout": -5}), "timeout: -5 is no time"),
        ] {
            let mut bundle = Bundle::new()?;
            bundle.config["hooks"] = json!({ kind: [shell("true"), hook] });
            bundle.is_refused(803, &[&format!("hooks.{kind}[1].{word}")])?;
        }
    }
    Ok(())
}

#[test]
fn hooks_run_in_their_order_and_kinds_in_the_order_of_life() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["true"])?;
    // The file of the root is seen from everywhere; outside it has another path.
    let file = bundle.rootfs("tmp/notes");
    for kind in KINDS {
        let path = if kind == "startContainer" { "/tmp/notes".to_owned() } else { file.display().to_string() };
        let hooks = ["1", "2"].map(|number| shell(&format!("echo {kind}{number} >>{path}")));
        bundle.config["hooks"][kind] = json!(hooks);
    }
    let wanted: Vec<_> = KINDS.iter().flat_map(|kind| [format!("{kind}1"), format!("{kind}2")]).collect();
    bundle.run()?.succeeds_silently()?;
    let order =
        |file: &PathBuf| -> Result<Vec<String>> { Ok(fs::read_to_string(file)?.lines().map(str::to_owned).collect()) };
    assert_eq!(order(&file)?, wanted);
    fs::remove_file(&file)?;
    let running = bundle.created()?;
    assert_eq!(order(&file)?, wanted[..6], "after create");
    bundle.verb("start")?.succeeds_silently()?;
    assert_eq!(order(&file)?, wanted[..10], "after start");
    running.rest()?;
    bundle.delete()?;
    assert_eq!(order(&file)?, wanted);
    Ok(())
}

#[test]
fn hooks_of_the_caller_see_its_namespaces_and_the_mounts_made_below_the_old_root() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["true"])?;
    let own = notes(&bundle);
    // The pid is the only number of the state.
    let script = format!(
        "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); cd {0}; \
         for n in user mnt net pid uts ipc; do readlink /proc/self/ns/$n; done >ns; \
         readlink /proc/$pid/root >root; cat /proc/$pid/mountinfo >mounts; id -u >uid; hostname >host",
        own.display()
    );
    for kind in ["prestart", "createRuntime"] {
        fs::create_dir_all(&own)?;
        bundle.config["hooks"] = json!({ kind: [shell(&script)] });
        bundle.run()?.succeeds_silently()?;
        let read = |name: &str| fs::read_to_string(own.join(name));
        for (line, name) in read("ns")?.lines().zip(["user", "mnt", "net", "pid", "uts", "ipc"]) {
            assert_eq!(line, fs::read_link(format!("/proc/self/ns/{name}"))?.to_string_lossy(), "{kind}");
        }
        assert_eq!((read("root")?.as_str(), read("uid")?.trim()), ("/\n", own_uid().to_string().as_str()), "{kind}");
        let mounts = read("mounts")?;
        for target in ["proc", "dev", "dev/null", "sys"] {
            assert!(mounts.contains(&format!(" {} ", bundle.rootfs(target).display())), "{kind}: {target}: {mounts}");
        }
        assert_ne!(read("host")?.trim(), "pura", "{kind}");
        fs::remove_dir_all(&own)?;
    }
    Ok(())
}

#[test]
fn hooks_of_the_caller_see_its_network_even_when_the_container_joins_another() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["ns"])?;
    bundle.share_user();
    bundle.share("network");
    bundle.push("/linux/namespaces", json!({"type": "network", "path": "/NETWORK"}))?;
    for kind in OUTSIDE {
        bundle.config["hooks"][kind] =
            json!([shell(&format!("readlink /proc/self/ns/net >>{}", notes(&bundle).display()))]);
    }
    let run = bundle.with_bundle("run", &["c1"])?;
    // Root of a user namespace that owns the joined one, and not the one that the caller is in: who has left that one
    // cannot come back.
    let script = "config=$1; shift; unshare --net sleep 60 & pid=$!
        until other=$(readlink /proc/$pid/ns/net) && [ \"$other\" != \"$(readlink /proc/self/ns/net)\" ]; do :; done
        sed -i \"s#/NETWORK#/proc/$pid/ns/net#\" \"$config\"; \"$@\"; status=$?
        kill $pid; echo \"joined=$other\"; exit $status";
    let config = bundle.path("bundle/config.json");
    let words = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", &config.to_string_lossy()];
    let facts = bundle.through(&words, &run).output()?.facts()?;
    let own = fs::read_link("/proc/self/ns/net")?.to_string_lossy().into_owned();
    assert_eq!(noted(&bundle).lines().collect::<Vec<_>>(), [own.as_str(); 4]);
    let joined = facts.get("joined")?;
    assert!(
        joined != own && facts.below("ns.").iter().any(|(name, value)| *name == "net" && joined.contains(value)),
        "{facts:?}"
    );
    Ok(())
}

#[test]
fn a_create_container_hook_runs_inside_and_is_found_outside() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["true"])?;
    let (own, hook) = (notes(&bundle), bundle.path("hook"));
    fs::copy("/bin/busybox", &hook).or_else(|_error| fs::copy("/usr/bin/busybox", &hook))?;
    let script = format!("readlink /proc/self/ns/net /proc/$PPID/ns/net; pwd; id -u; echo $PPID >{}", own.display());
    bundle.config["hooks"] = json!({"createContainer": [{"path": hook, "args": ["sh", "-c", format!("({script}) >{}.out", own.display())], "env": ["PATH=/usr/bin:/bin"]}]});
    bundle.run()?.succeeds_silently()?;
    let text = fs::read_to_string(own.with_extension("out"))?;
    let lines: Vec<&str> = text.lines().collect();
    // The host's /proc is what is seen there, so its own process is not found by number.
    let own_net = fs::read_link("/proc/self/ns/net")?.to_string_lossy().into_owned();
    assert!(lines.first().is_some_and(|net| *net != own_net), "{text}");
    assert!(text.contains(&format!("{}\n0\n", bundle.path("bundle").display())), "{text}");
    assert_eq!(noted(&bundle), "1\n", "its parent is not process 1");
    // The same path is nothing inside.
    bundle.config["hooks"] = json!({"startContainer": [{"path": hook}]});
    let place = format!("cannot run the hook {hook:?} (hooks.startContainer[0]): does not exist");
    bundle.run()?.fails(125, 614, &[&place])?;
    bundle.is_clean()
}

#[test]
fn a_start_container_hook_is_all_that_the_program_is() -> Result<()> {
    requires!(userns, busybox);
    let facts = ["ids", "caps", "maps", "ns", "umask", "rlimits", "mounts", "hostname", "signals", "oom"];
    let mut bundle = Bundle::probing(&facts)?;
    bundle.config["process"]["env"] = json!(["PATH=/bin", "A=1"]);
    bundle.config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}]);
    bundle.config["annotations"] = json!({"run.oci.hooks.stdout": notes(&bundle)});
    let words = [&["probe"], &facts[..]].concat();
    let probe = json!({"path": "/bin/pura-probe", "args": words});
    // Without an environment of its own it has the program's.
    let more = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo $A $(pwd) >/tmp/more"]});
    bundle.config["hooks"] = json!({"startContainer": [probe, more]});
    let outcome = bundle.run()?;
    assert_eq!(noted(&bundle), outcome.succeeds()?);
    assert!(noted(&bundle).contains("CapBnd=0000000000000020\n"), "{}", noted(&bundle));
    assert_eq!(fs::read_to_string(bundle.rootfs("tmp/more"))?, "1 /\n");
    Ok(())
}

#[test]
fn a_start_container_hook_is_confined_by_the_seccomp_filter() -> Result<()> {
    requires!(userns, busybox);
    for no_new_privs in [true, false] {
        let mut bundle = Bundle::new()?;
        bundle.config["process"]["noNewPrivileges"] = no_new_privs.into();
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]
        });
        let script = "mkdir /tmp/made 2>/tmp/said; exit 0";
        bundle.config["hooks"] = json!({"startContainer": [shell(script)]});
        bundle.run()?.succeeds()?;
        let said = fs::read_to_string(bundle.rootfs("tmp/said"))?;
        assert!(said.contains("No space left on device"), "{said}");
        assert!(!bundle.rootfs("tmp/made").exists());
    }
    Ok(())
}

#[test]
fn each_hook_reads_a_state_that_is_true() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["annotations"] = json!({"a": "\"x\"", "empty": ""});
    let file = |kind: &str| bundle.rootfs(&format!("tmp/{kind}"));
    let script = |kind: &str| {
        let path = if kind == "startContainer" { format!("/tmp/{kind}") } else { file(kind).display().to_string() };
        shell(&format!("cat >{path}"))
    };
    let hooks: serde_json::Map<_, _> = KINDS.iter().map(|kind| ((*kind).to_owned(), json!([script(kind)]))).collect();
    bundle.config["hooks"] = Value::Object(hooks);
    let _running = bundle.started()?;
    let pid = bundle.pid()?;
    bundle.delete()?;
    for (kind, status, pid) in [
        ("prestart", "creating", pid),
        ("createRuntime", "creating", pid),
        ("createContainer", "creating", 1),
        ("startContainer", "created", 1),
        ("poststart", "running", pid),
        ("poststop", "stopped", 0),
    ] {
        let state: Value = serde_json::from_slice(&fs::read(bundle.rootfs(&format!("tmp/{kind}")))?)?;
        let wanted = json!({"ociVersion": "1.3.0", "id": "c1", "status": status, "pid": pid,
            "bundle": bundle.path("bundle"), "annotations": bundle.config["annotations"]});
        assert_eq!(state, wanted, "{kind}");
    }
    Ok(())
}

#[test]
fn state_tells_while_hooks_run_what_they_are_told() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["sleep"])?;
    let state = bundle.pura(&["state", "c1"]).words();
    let state: Vec<_> = state.iter().map(|word| word.to_string_lossy()).collect();
    let script = format!("{} >{}", state.join(" "), notes(&bundle).display());
    for (kind, status) in [("createRuntime", "creating"), ("poststart", "running")] {
        bundle.config["hooks"] = json!({ kind: [shell(&script)] });
        let _running = bundle.started()?;
        let told: Value = serde_json::from_str(&noted(&bundle))?;
        assert_eq!(told["status"], status, "{kind}");
        bundle.delete()?;
    }
    // Inside nobody can ask; outside a look at it while the hook waits shows it.
    fs::create_dir(bundle.rootfs("wait"))?;
    let fifo = bundle.rootfs("wait/fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666))?;
    bundle.config["hooks"] = json!({"startContainer": [shell("echo >/tmp/there; read x </wait/fifo")]});
    let running = bundle.created()?;
    let mut start = bundle.pura(&["start", "c1"]).spawn()?;
    eventually("the hook runs", || Ok(bundle.rootfs("tmp/there").exists()))?;
    assert_eq!(bundle.status()?, "created");
    fs::write(&fifo, "\n")?;
    start.wait()?.succeeds_silently()?;
    assert_eq!((running.line()?.as_str(), bundle.status()?.as_str()), ("ready", "running"));
    bundle.delete()
}

#[test]
fn the_environment_and_the_arguments_of_a_hook_are_exactly_its_own() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["true"])?;
    let own = notes(&bundle);
    fs::create_dir(&own)?;
    for kind in KINDS {
        let file = if kind == "startContainer" { "/tmp/env".to_owned() } else { format!("{}/{kind}", own.display()) };
        let script = format!("tr '\\0' '\\n' </proc/self/environ >{file}; echo $0 $1 >>{file}");
        let tr = if kind == "startContainer" { "/bin/busybox tr " } else { "/usr/bin/tr " };
        let words = json!(["sh", "-c", script.replace("tr ", tr), "zero", "one"]);
        bundle.config["hooks"][kind] = json!([{"path": "/bin/sh", "args": words, "env": ["A=1", "B=x y"]}]);
    }
    bundle.run()?.succeeds_silently()?;
    for kind in KINDS {
        let file = if kind == "startContainer" { bundle.rootfs("tmp/env") } else { own.join(kind) };
        // tr is another program, and the shell adds what every shell adds for it.
        let text = fs::read_to_string(&file)?;
        let lines: Vec<_> = text
            .lines()
            .filter(|line| !["PWD=", "_=", "SHLVL=", "OLDPWD="].iter().any(|own| line.starts_with(own)))
            .collect();
        assert_eq!(lines, ["A=1", "B=x y", "zero one"], "{kind}");
    }
    // Exactly: seen by a program that adds nothing.
    let probe = json!({"path": probe_binary(), "args": ["probe", "env"], "env": ["A=1"]});
    bundle.config["hooks"] = json!({"createRuntime": [probe]});
    bundle.config["annotations"] = json!({"run.oci.hooks.stdout": notes(&bundle).join("probe")});
    bundle.run()?.succeeds_silently()?;
    let facts = Facts::parse(&fs::read_to_string(notes(&bundle).join("probe"))?);
    assert_eq!(facts.below("env."), [("A", "1")]);
    Ok(())
}

#[test]
fn the_death_of_init_during_start_container_hooks_is_no_start() -> Result<()> {
    requires!(userns, busybox);
    for deadly in ["memfd_create", "sendmsg"] {
        let mut bundle = Bundle::probing(&["sleep"])?;
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": [deadly], "action": "SCMP_ACT_KILL_PROCESS"}]
        });
        bundle.config["hooks"] =
            json!({"startContainer": [{"path": "/bin/true"}], "poststart": [note(&bundle, "poststart")]});
        let words = ["cannot run the hooks.startContainer: init was killed while they ran", "linux.seccomp"];
        let running = bundle.created()?;
        bundle.verb("start")?.fails(1, 614, &words)?;
        running.rest()?;
        bundle.run()?.fails(125, 614, &words)?;
        assert_eq!(noted(&bundle), "", "{deadly}");
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn a_delete_during_start_container_hooks_is_no_start() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["hooks"] = json!({
        "startContainer": [shell("echo >/tmp/hooked; exec sleep 1000")], "poststart": [note(&bundle, "poststart")]
    });
    let running = bundle.created()?;
    let mut start = bundle.pura(&["start", "c1"]).spawn()?;
    eventually("the hook runs", || Ok(bundle.rootfs("tmp/hooked").exists()))?;
    bundle.pura(&["delete", "--force", "c1"]).output()?.succeeds_silently()?;
    start.wait()?.fails(1, 614, &["init was killed while they ran"])?;
    running.rest()?;
    assert_eq!(noted(&bundle), "");
    bundle.is_clean()
}

#[test]
fn a_hook_past_its_time_is_killed_with_all_it_started_and_fails() -> Result<()> {
    requires!(userns, busybox);
    for kind in ["createRuntime", "createContainer", "startContainer", "poststart"] {
        let mut bundle = Bundle::probing(&["sleep"])?;
        let mut hook = shell("sleep 1000 & sleep 1000; exit 0");
        hook["timeout"] = 1.into();
        hook["env"] = json!(["PATH=/usr/bin:/bin", format!("PURA_TEST={}", bundle.dir().display())]);
        bundle.config["hooks"] = json!({ kind: [hook] });
        let begin = Instant::now();
        let mut run = bundle.with_bundle("run", &["c1"])?.spawn()?;
        run.wait()?.fails(125, 614, &[&format!("hooks.{kind}[0]): it took longer than 1 s, and was killed")])?;
        assert!(begin.elapsed().as_secs() < 30, "{kind}");
        bundle.is_clean().with_context(|| kind.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_signal_ends_the_wait_for_a_hook_that_hangs() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["hooks"] =
        json!({"createRuntime": [shell(&format!("echo >{}; exec sleep 1000", notes(&bundle).display()))]});
    let mut create = bundle.with_bundle("create", &["c1"])?.spawn()?;
    eventually("the hook runs", || Ok(notes(&bundle).exists()))?;
    create.signal(nix::sys::signal::Signal::SIGTERM)?;
    create.wait()?.fails(1, 614, &["hooks.createRuntime[0]): a signal interrupted it"])?;
    bundle.is_clean()
}

#[test]
fn a_hook_may_ignore_its_input_and_its_output_reaches_nobody() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["exit", "5"])?;
    bundle.config["annotations"] = json!({"large": "x".repeat(200_000)});
    for kind in KINDS {
        bundle.config["hooks"][kind] = json!([shell("exec <&-; echo out; echo err >&2"), {"path": "/bin/true"}]);
    }
    bundle.run()?.ends(5)?;
    let outcome = bundle.run()?;
    assert!(outcome.stdout.is_empty(), "{outcome:?}");
    let running = bundle.created()?;
    bundle.verb("start")?.succeeds_silently()?;
    ensure!(running.rest()?.is_empty(), "a hook wrote to the program's output");
    bundle.becomes("stopped")?;
    bundle.verb("delete")?.succeeds_silently()
}

#[test]
fn the_output_of_hooks_is_appended_to_the_files_of_the_annotations() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["true"])?;
    let (out, err) = (bundle.path("out"), bundle.path("bundle/err"));
    // A relative one starts in the bundle.
    bundle.config["annotations"] = json!({"run.oci.hooks.stdout": out, "run.oci.hooks.stderr": "err"});
    for kind in KINDS {
        bundle.config["hooks"][kind] = json!([shell(&format!("echo {kind}; echo {kind} >&2"))]);
    }
    fs::write(&out, "before\n")?;
    bundle.run()?.succeeds_silently()?;
    let all = KINDS.map(|kind| format!("{kind}\n")).concat();
    assert_eq!((fs::read_to_string(&out)?, fs::read_to_string(&err)?), (format!("before\n{all}"), all));
    assert_eq!(fs::metadata(&err)?.mode() & 0o777, 0o600);
    // Its last line is the reason.
    bundle.config["hooks"] = json!({"prestart": [shell("echo first >&2; echo 'no network' >&2; exit 2")]});
    bundle.is_refused(614, &["hooks.prestart[0]): it failed: exit status 2: no network; fix: see /"])?;
    // No link is followed.
    let victim = bundle.path("victim");
    fs::write(&victim, "precious")?;
    fs::remove_file(&out)?;
    std::os::unix::fs::symlink(&victim, &out)?;
    bundle.is_refused(716, &["write the output of hooks"])?;
    assert_eq!(fs::read_to_string(victim)?, "precious");
    Ok(())
}

#[test]
fn nothing_leaks_into_a_hook() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["true"])?;
    // All append to one file, in their order.
    let own = notes(&bundle);
    bundle.config["annotations"] = json!({"run.oci.hooks.stdout": own});
    for kind in KINDS {
        let probe = if kind == "startContainer" { PathBuf::from("/bin/pura-probe") } else { probe_binary() };
        bundle.config["hooks"][kind] = json!([{"path": probe, "args": ["probe", "fds", "signals"]}]);
    }
    let run = bundle.with_bundle("run", &["--preserve-fds", "6", "c1"])?;
    let words = ["sh", "-c", "trap '' HUP PIPE USR1 CHLD; exec 5</dev/null 8</dev/null 9</; exec \"$@\"", "sh"];
    bundle.through(&words, &run).output()?.succeeds_silently()?;
    let facts = Facts::parse(&noted(&bundle));
    let descriptors = facts.below("fd.");
    let numbers: Vec<_> = descriptors.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, ["0", "1", "2"].repeat(KINDS.len()), "{facts:?}");
    // Whatever is written in Rust ignores PIPE by itself.
    for (name, wanted) in [("SigBlk", "0000000000000000"), ("SigIgn", "0000000000001000")] {
        assert_eq!(facts.all(name), [wanted; KINDS.len()], "{name}");
    }
    Ok(())
}

#[test]
fn hooks_are_those_of_create_and_start_in_the_bundle_even_when_that_is_gone() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["hooks"] = json!({"poststop": [note(&bundle, "$PWD")]});
    let _running = bundle.created()?;
    fs::write(bundle.path("bundle/config.json"), "{}")?;
    bundle.delete()?;
    assert_eq!(noted(&bundle), format!("{}\n", bundle.path("bundle").display()));
    let _running = bundle.created()?;
    fs::rename(bundle.path("bundle"), bundle.path("elsewhere"))?;
    bundle.delete()?;
    assert!(noted(&bundle).ends_with("\n/\n"), "{}", noted(&bundle));
    Ok(())
}

#[test]
fn hooks_of_a_container_without_a_pid_namespace_know_the_callers_number() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.share("pid");
    bundle.unmount("/proc");
    bundle.mount("/proc", "none", "/proc", &["rbind"])?;
    bundle.config["hooks"] = json!({"createContainer": [shell(&format!("cat >{}", notes(&bundle).display()))]});
    let _running = bundle.started()?;
    let state: Value = serde_json::from_str(&noted(&bundle))?;
    assert_eq!(state["pid"], bundle.pid()?);
    bundle.delete()
}
