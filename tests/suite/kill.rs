//! kill: which signal reaches whom.

use std::ffi::OsString;

use anyhow::Result;
use serde_json::json;

use crate::{
    console::on_terminal,
    harness::{Bundle, Pura, eventually, processes},
};

#[test]
fn each_spelling_of_a_signal_arrives_as_that_signal() -> Result<()> {
    requires!(userns);
    let spellings: [(&[&str], i32); 9] = [
        (&[], 15),
        (&["TERM"], 15),
        (&["SIGTERM"], 15),
        (&["term"], 15),
        (&["15"], 15),
        (&["USR1"], 10),
        (&["RTMIN+3"], 37),
        (&["SIGRTMIN+3"], 37),
        (&["64"], 64),
    ];
    for (words, number) in spellings {
        let bundle = Bundle::probing(&["trap"])?;
        let mut running = bundle.with_bundle("run", &["c1"])?.spawn()?;
        assert_eq!(running.line()?, "ready");
        bundle.pura(&[&["kill", "c1"], words].concat()).output()?.succeeds_silently()?;
        running.wait()?.ends(64 + number)?;
    }
    Ok(())
}

#[test]
fn a_signal_may_be_an_option_as_for_kill() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["trap"])?;
    let mut running = bundle.with_bundle("run", &["c1"])?.spawn()?;
    assert_eq!(running.line()?, "ready");
    bundle.pura(&["kill", "-s", "USR1", "c1", "TERM"]).output()?.fails(2, 1, &["both --signal and \"TERM\""])?;
    bundle.pura(&["kill", "-s", "USR1", "c1"]).output()?.succeeds_silently()?;
    running.wait()?.ends(64 + libc::SIGUSR1)?;
    Ok(())
}

#[test]
fn nine_and_kill_and_sigkill_are_alike() -> Result<()> {
    requires!(userns);
    for word in ["9", "KILL", "SIGKILL"] {
        let bundle = Bundle::probing(&["trap"])?;
        let _running = bundle.started()?;
        bundle.pura(&["kill", "c1", word]).output()?.succeeds_silently()?;
        bundle.becomes("stopped")?;
        bundle.verb("delete")?.succeeds_silently()?;
    }
    Ok(())
}

#[test]
fn an_unknown_signal_is_an_error_and_nothing_is_sent() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["trap"])?;
    let _running = bundle.started()?;
    for word in ["BOGUS", "SIGBOGUS", "65", "-1", "+9", "0x9", " 9", "", "RTMIN+99", "SIG", "4294967305"] {
        let outcome = bundle.pura(&["kill", "--", "c1", word]).output()?;
        outcome.fails(1, 807, &[&format!("unknown signal \"{word}\"")])?;
    }
    assert_eq!(bundle.status()?, "running");
    bundle.delete()
}

#[test]
fn signal_0_only_asks() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["trap"])?;
    let _running = bundle.started()?;
    bundle.pura(&["kill", "c1", "0"]).output()?.succeeds_silently()?;
    assert_eq!(bundle.status()?, "running");
    bundle.delete()
}

#[test]
fn a_signal_that_process_1_does_not_get_is_told_on_a_terminal_only() -> Result<()> {
    requires!(userns, busybox);
    let bundle = Bundle::with_args(&["/bin/sh", "-c", "echo ready; exec sleep 1000"])?;
    let _running = bundle.started()?;
    eventually("sleep runs", || Ok(bundle.pura(&["ps", "c1"]).output()?.stdout.contains("sleep 1000")))?;
    for (signal, is_lost) in [("TERM", true), ("INT", true), ("0", false), ("CONT", false), ("WINCH", false)] {
        let kill = bundle.pura(&["kill", "c1", signal]);
        let (shown, status) = on_terminal(&kill.words(), "")?;
        assert_eq!(status, Some(0), "{shown}");
        let words = format!("process 1 of the container has no handler for SIG{signal}");
        assert_eq!(shown.contains(&words) && shown.contains("pura kill c1 KILL [PURA-615]"), is_lost, "{shown}");
        // An engine, which reads it.
        kill.output()?.succeeds_silently()?;
    }
    bundle.delete()
}

#[test]
fn kill_of_a_stopped_container_says_no_such_process() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["true"])?;
    let running = bundle.created()?;
    bundle.verb("start")?.succeeds_silently()?;
    running.rest()?;
    bundle.becomes("stopped")?;
    bundle.verb("kill")?.fails(1, 706, &["\"c1\"", "container not running", "no such process"])?;
    bundle.pura(&["kill", "--all", "c1", "KILL"]).output()?.succeeds_silently()?;
    bundle.delete()
}

#[test]
fn kill_of_a_missing_container_says_does_not_exist() -> Result<()> {
    let bundle = Bundle::new()?;
    bundle.verb("kill")?.fails(1, 703, &["container \"c1\" does not exist"])?;
    bundle.pura(&["kill", "--all", "c1", "KILL"]).output()?.fails(1, 703, &["container \"c1\" does not exist"])?;
    Ok(())
}

#[test]
fn kill_of_a_created_container_delivers() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let _running = bundle.created()?;
    bundle.pura(&["kill", "c1", "KILL"]).output()?.succeeds_silently()?;
    bundle.becomes("stopped")?;
    bundle.verb("delete")?.succeeds_silently()
}

#[test]
fn kill_all_ends_every_process_of_a_container() -> Result<()> {
    requires!(userns, busybox);
    let script = "for i in 1 2 3 4 5; do sleep 1000 & done; echo ready; wait";
    let bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
    let _running = bundle.started()?;
    eventually("all six run", || Ok(processes(bundle.dir())?.len() >= 6))?;
    bundle.pura(&["kill", "--all", "c1", "KILL"]).output()?.succeeds_silently()?;
    bundle.becomes("stopped")?;
    bundle.verb("delete")?.succeeds_silently()?;
    bundle.is_clean()
}

#[test]
fn kill_with_a_pattern_reaches_the_containers_that_match() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["annotations"] = json!({});
    for id in ["web1", "web2", "db1"] {
        bundle.with_bundle("create", &[id])?.output()?.succeeds_silently()?;
    }
    bundle.pura(&["kill", "--regex", "web.*", "KILL"]).output()?.succeeds_silently()?;
    let status = |id: &str| -> Result<bool> {
        let outcome = bundle.pura(&["state", id]).output()?;
        Ok(outcome.succeeds()?.contains("\"stopped\""))
    };
    eventually("both are stopped", || Ok(status("web1")? && status("web2")?))?;
    assert!(!status("db1")?, "db1 was killed too");
    bundle.pura(&["delete", "--force", "--regex", ".*"]).output()?.succeeds_silently()
}

#[test]
fn a_recycled_process_id_is_not_signalled_and_its_container_has_stopped() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
    bundle.write()?;
    let quoted = |words: &[&str]| bundle.pura(words).quoted();
    let create = quoted(&["create", "-b", &bundle.path("bundle").to_string_lossy()]);
    let (state, kill, delete) = (quoted(&["state", "c1"]), quoted(&["kill", "c1", "KILL"]), quoted(&["delete", "c1"]));
    // Process ids come one after the other, and in a PID namespace of one's own the next one can be chosen. A start time
    // counts 10 ms, in which nobody else can use up all ids; this waits for the next ones.
    let pid = bundle.path("pid").display().to_string();
    let script = format!(
        r#"{create} --pid-file {pid} c1 >/dev/null; read pid <{pid}; started=$(cut -d' ' -f22 /proc/$pid/stat); kill -9 $pid
        until [ ! -e /proc/$pid ] && [ "$(cut -d' ' -f1 /proc/uptime | tr -d .)" -gt "$started" ]; do sleep 0.01; done
        echo $((pid - 1)) >/proc/sys/kernel/ns_last_pid; sleep 1000 & [ $! = $pid ] && echo the same
        {state} | grep -o '"status": "[a-z]*"\|"pid": [0-9]*'
        {kill} 2>/dev/null; echo kill=$?
        {delete}; echo delete=$?; kill -0 $pid && echo alive"#
    );
    let words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "sh", "-c", &script];
    let words: Vec<OsString> = words.iter().map(Into::into).collect();
    let outcome = Pura::through(bundle.dir(), &words).output()?;
    let wanted = ["the same", "\"status\": \"stopped\"", "\"pid\": 0", "kill=1", "delete=0", "alive"];
    assert_eq!(outcome.succeeds()?.lines().collect::<Vec<_>>(), wanted);
    bundle.is_clean()
}

#[test]
fn kill_all_reaches_every_process_without_a_pid_namespace_too() -> Result<()> {
    requires!(userns, busybox);
    let script =
        "for i in 1 2 3; do (trap '' HUP; exec sleep 1000) & done; (sh -c 'sleep 1000 & exit') ; echo ready; wait";
    let mut bundle = Bundle::with_args(&["/bin/sh", "-c", script])?;
    bundle.share("pid");
    bundle.unmount("/proc");
    for signal in ["KILL", "TERM"] {
        let running = bundle.started()?;
        eventually("all five run", || Ok(processes(bundle.dir())?.len() >= 5))?;
        bundle.pura(&["kill", "--all", "c1", signal]).output()?.succeeds_silently()?;
        // Its end is that of the last one who had it open.
        running.rest()?;
        bundle.becomes("stopped")?;
        bundle.pura(&["kill", "--all", "c1", signal]).output()?.succeeds_silently()?;
        bundle.verb("delete")?.succeeds_silently()?;
        bundle.is_clean()?;
    }
    Ok(())
}
