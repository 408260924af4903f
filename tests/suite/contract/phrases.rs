//! What engines look for in the line of an error, and which class of failure they take it for.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::harness::{Bundle, Outcome, judged, own_uid};

/// The class that podman puts an error of create and exec into, and with it 126 or 127. The first that matches.
fn podman(text: &str) -> &'static str {
    let matches = |pattern: &str| regex_lite::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text));
    if matches("(?i).*permission denied.*|.*operation not permitted.*") {
        "denied"
    } else if matches("(?i).*executable file not found in.*|.*no such file or directory.*|.*open executable.*") {
        "missing"
    } else if matches("`/proc/[a-z0-9-].+/attr.*`") {
        "attribute"
    } else {
        "other"
    }
}

/// Whether podman says 127 of it, and not 126.
fn podman_says_127(text: &str) -> bool {
    let text = text.to_lowercase();
    ["not found", "executable path is empty", "no such file"].iter().any(|phrase| text.contains(phrase))
}

/// Whether CRI-O takes it for the end of the container.
fn is_gone_for_crio(text: &str) -> bool {
    ["no such process", "container not running", "invalid process"].iter().any(|phrase| text.contains(phrase))
}

/// What containerd makes of a failed kill.
fn containerd_kill(text: &str) -> &'static str {
    let lower = text.to_lowercase();
    let is_over = ["os: process already finished", "container not running"].iter().any(|phrase| text.contains(phrase))
        || lower.contains("no such process");
    if is_over {
        "finished"
    } else if text.contains("does not exist") {
        "no such container"
    } else {
        "unknown"
    }
}

/// The exit status that Docker reports for a container that could not be created or started.
fn docker(text: &str) -> i32 {
    let text = text.to_lowercase();
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if has(&["permission denied", "is a directory"]) {
        126
    } else if has(&["not a directory", "executable file not found", "no such file or directory"]) {
        127
    } else {
        128
    }
}

/// What spoils a bundle.
type Change = fn(&mut Bundle) -> Result<()>;

/// A failure, and what each engine is to make of it.
struct Row {
    what: &'static str,
    outcome: Outcome,
    status: i32,
    phrases: &'static [&'static str],
    podman: &'static str,
    docker: i32,
    containerd: &'static str,
    is_gone: bool,
}

impl Row {
    /// A failure that says nothing of the program.
    fn new(what: &'static str, outcome: Outcome, phrases: &'static [&'static str]) -> Self {
        let (podman, docker, containerd) = ("other", 128, "unknown");
        Self { what, outcome, status: 1, phrases, podman, docker, containerd, is_gone: false }
    }

    /// One of the program.
    fn program(self, podman: &'static str, docker: i32) -> Self {
        Self { podman, docker, ..self }
    }

    fn status(self, status: i32) -> Self {
        Self { status, ..self }
    }

    fn gone(self) -> Self {
        Self { is_gone: true, containerd: "finished", ..self }
    }

    fn judge(&self) -> Result<()> {
        let line = self.outcome.stderr.as_str();
        ensure!(self.outcome.code() == self.status, "status {}", self.status);
        ensure!(line.starts_with("pura: cannot ") && line.lines().count() == 1 && line.ends_with("]\n"), "one line");
        for phrase in self.phrases {
            ensure!(line.contains(phrase), "{phrase:?}");
        }
        ensure!(podman(line) == self.podman, "for podman it is {:?}, not {:?}", podman(line), self.podman);
        ensure!(podman_says_127(line) == (self.podman == "missing"), "podman's exit status");
        ensure!(docker(line) == self.docker, "for docker it is {}, not {}", docker(line), self.docker);
        ensure!(containerd_kill(line) == self.containerd, "for containerd it is {:?}", containerd_kill(line));
        ensure!(is_gone_for_crio(line) == self.is_gone, "for CRI-O");
        let quotes = line.matches('`').count();
        ensure!(quotes == if self.podman == "attribute" { 2 } else { 0 }, "{quotes} back-quotes");
        ensure!(!line.contains('\u{1b}'), "colours");
        Ok(())
    }
}

fn judge(rows: impl IntoIterator<Item = Row>) -> Result<()> {
    rows.into_iter()
        .try_for_each(|row| judged(row.judge()).with_context(|| format!("{}: {:#?}", row.what, row.outcome)))
}

#[test]
fn a_container_that_is_not_there_does_not_exist() -> Result<()> {
    let bundle = Bundle::new()?;
    let verbs: [(&[&str], i32); 11] = [
        (&["pause", "c1"], 1),
        (&["resume", "c1"], 1),
        (&["ps", "--format", "json", "c1"], 1),
        (&["events", "--stats", "c1"], 1),
        (&["state", "c1"], 1),
        (&["start", "c1"], 1),
        (&["kill", "c1"], 1),
        (&["kill", "--all", "c1", "9"], 1),
        (&["delete", "c1"], 1),
        (&["exec", "c1", "true"], 125),
        (&["exec", "--detach", "c1", "true"], 1),
    ];
    for (words, status) in verbs {
        let row = Row::new("unknown id", bundle.pura(words).output()?, &["container \"c1\" does not exist"]);
        judge([Row { containerd: "no such container", ..row.status(status) }])?;
    }
    Ok(())
}

#[test]
fn the_wrong_status_has_the_words_of_engines() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.started()?;
    judge([
        Row::new("delete of a running one", bundle.verb("delete")?, &["not stopped"]),
        Row::new("create of an existing id", bundle.create()?, &["already exists"]),
        Row::new("start twice", bundle.verb("start")?, &["already running"]),
        Row::new("unknown signal", bundle.pura(&["kill", "c1", "BOGUS"]).output()?, &["unknown signal \"BOGUS\""]),
    ])?;
    bundle.pura(&["kill", "c1", "KILL"]).output()?.succeeds_silently()?;
    running.rest()?;
    bundle.becomes("stopped")?;
    let stopped = &["container not running"];
    judge([
        Row::new("kill", bundle.verb("kill")?, &["container not running", "no such process"]).gone(),
        Row::new("exec", bundle.pura(&["exec", "c1", "true"]).output()?, stopped).gone().status(125),
        Row::new("exec -d", bundle.pura(&["exec", "-d", "c1", "true"]).output()?, stopped).gone(),
        Row::new("start of a stopped one", bundle.verb("start")?, &["has stopped"]),
        Row::new("create of a stopped one's id", bundle.create()?, &["already exists"]),
    ])?;
    bundle.delete()
}

/// Programs that cannot run: what the line says, what podman and Docker take it for, and the status in the foreground.
const PROGRAMS: [(&str, &[&str], &str, i32, i32); 7] = [
    ("nocmd", &["\"nocmd\": executable file not found in $PATH: no such file or directory"], "missing", 127, 127),
    ("", &["\"\": executable file not found in $PATH: no such file or directory"], "missing", 127, 127),
    ("/x", &["\"/x\": no such file or directory"], "missing", 127, 127),
    ("/x/y/z", &["\"/x/y/z\": no such file or directory"], "missing", 127, 127),
    ("/etc/passwd", &["exec: \"/etc/passwd\": permission denied"], "denied", 126, 126),
    ("/etc", &["exec: \"/etc\": is a directory: permission denied"], "denied", 126, 126),
    ("./etc", &["exec: \"./etc\": is a directory: permission denied"], "denied", 126, 126),
];

#[test]
fn a_program_that_cannot_run_is_of_the_right_class_for_create_run_and_exec() -> Result<()> {
    requires!(userns);
    for (program, phrases, class, docker, status) in PROGRAMS {
        let mut bundle = Bundle::with_args(&[program])?;
        let pid_file = bundle.path("pid").display().to_string();
        let create = bundle.with_bundle("create", &["--pid-file", &pid_file, "c1"])?.output()?;
        let run = bundle.run()?;
        bundle.args(&["/bin/pura-probe", "sleep"]);
        let _running = bundle.started()?;
        let exec = bundle.pura(&["exec", "c1", program]).output()?;
        let detached = bundle.pura(&["exec", "-d", "--pid-file", &pid_file, "c1", program]).output()?;
        judge([
            Row::new("create", create, phrases).program(class, docker),
            Row::new("run", run, phrases).program(class, docker).status(status),
            Row::new("exec", exec, phrases).program(class, docker).status(status),
            Row::new("exec -d", detached, phrases).program(class, docker),
        ])?;
        assert!(!bundle.path("pid").exists(), "{program}: a failure left a pid-file");
        bundle.delete()?;
    }
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_entered_is_no_missing_program_unless_it_is_missing() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.started()?;
    let cwd = |cwd: &str| bundle.pura(&["exec", "--cwd", cwd, "c1", "/bin/pura-probe", "true"]).output();
    let missing = &["chdir to cwd \"/nodir\"", "no such file or directory"];
    judge([
        Row::new("exec", cwd("/nodir")?, missing).program("missing", 127).status(125),
        Row::new("exec", cwd("/etc/passwd")?, &["chdir to cwd", "not a directory"]).program("other", 127).status(125),
    ])?;
    drop(running);
    bundle.delete()?;
    bundle.config["process"]["cwd"] = "/etc/passwd".into();
    judge([Row::new("create", bundle.create()?, &["chdir to cwd", "not a directory"]).program("other", 127)])
}

#[test]
fn no_other_absence_is_taken_for_that_of_the_program() -> Result<()> {
    requires!(userns);
    let changes: [(&str, &[&str], Change); 8] = [
        ("bind source", &["does not exist"], |bundle| bundle.mount("/mnt", "bind", "/no/source", &["rbind"])),
        ("root", &["does not exist"], |bundle| {
            bundle.config["root"]["path"] = "/no/root".into();
            Ok(())
        }),
        ("namespace", &["does not exist"], |bundle| {
            bundle.share("network");
            bundle.push("/linux/namespaces", json!({"type": "network", "path": "/no/namespace"}))
        }),
        ("device", &["/dev/no-device", "no such device"], |bundle| {
            bundle.config["linux"]["devices"] =
                json!([{"path": "/dev/no-device", "type": "c", "major": 10, "minor": 250}]);
            Ok(())
        }),
        ("kernel parameter", &["kernel.no_such", "does not exist"], |bundle| {
            bundle.config["linux"]["sysctl"] = json!({"net.ipv4.no_such": "1"});
            Ok(())
        }),
        ("hook", &["does not exist"], |bundle| {
            bundle.config["hooks"] = json!({"createRuntime": [{"path": "/no/hook"}]});
            Ok(())
        }),
        ("agent", &["does not exist"], |bundle| {
            bundle.config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/agent",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
            });
            Ok(())
        }),
        ("filesystem", &["nofs"], |bundle| bundle.mount("/mnt", "nofs", "none", &[])),
    ];
    // Real root makes a device that the host has not.
    for (what, phrases, change) in changes.into_iter().filter(|(what, ..)| own_uid() != 0 || *what != "device") {
        let mut bundle = Bundle::probing(&["sleep"])?;
        change(&mut bundle)?;
        let outcome = bundle.create()?;
        let phrases = if what == "kernel parameter" { &["net.ipv4.no_such"][..] } else { phrases };
        let row = Row::new(what, outcome, phrases);
        // Nobody kills what could not be created.
        let containerd = containerd_kill(&row.outcome.stderr);
        judge([Row { containerd, ..row }])?;
        bundle.is_clean()?;
    }
    let bundle = Bundle::probing(&["sleep"])?;
    let calls: [&[&str]; 3] = [
        &["create", "--bundle", "/no/bundle", "c1"],
        &["exec", "-d", "--process", "/no/process", "c1"],
        &["--log", "/no/log", "state", "c1"],
    ];
    let _running = bundle.started()?;
    for words in calls {
        let row = Row::new("file", bundle.pura(words).output()?, &["does not exist"]);
        judge([Row { containerd: "no such container", ..row }])?;
    }
    bundle.delete()
}

#[test]
fn a_file_over_a_directory_is_what_docker_asks_about() -> Result<()> {
    requires!(userns);
    for (destination, is_file) in [("/tmp", true), ("/etc/passwd", false)] {
        let mut bundle = Bundle::probing(&["sleep"])?;
        let source = bundle.path("source");
        if is_file {
            fs::write(&source, "")?;
        } else {
            fs::create_dir(&source)?;
        }
        bundle.mount(destination, "bind", &source.to_string_lossy(), &["rbind"])?;
        let row = Row::new(destination, bundle.create()?, &["mounts[", "not a directory"]).program("other", 127);
        judge([row])?;
    }
    Ok(())
}

#[test]
fn a_label_that_cannot_be_set_names_the_attribute_in_back_quotes() -> Result<()> {
    requires!(userns);
    if fs::metadata("/sys/fs/selinux/enforce").is_ok() {
        return crate::harness::skip("selinux", "it is on");
    }
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.config["process"]["selinuxLabel"] = "u:r:t:s0".into();
    judge([Row::new("label", bundle.create()?, &["`/proc/self/attr/exec`"]).program("attribute", 128)])
}

#[test]
fn a_cgroup_that_is_not_empty_is_said_to_be() -> Result<()> {
    requires!(userns, cgroup);
    let first = Bundle::probing(&["sleep"])?;
    let _running = first.created()?;
    let leaf = first.state()?["pura"]["cgroup"].as_str().unwrap_or_default().to_owned();
    let mut second = Bundle::probing(&["sleep"])?;
    second.config["linux"]["cgroupsPath"] = leaf.trim_start_matches("/sys/fs/cgroup").into();
    judge([Row::new("cgroup", second.create()?, &["is not empty"])])?;
    first.delete()
}

#[test]
fn a_paused_container_and_one_that_cannot_be_paused_have_the_words_of_engines() -> Result<()> {
    requires!(userns, cgroup);
    let bundle = Bundle::probing(&["sleep"])?;
    let running = bundle.started()?;
    let exec = |flags: &[&str]| bundle.pura(&[&["exec"], flags, &["c1", "true"]].concat()).output();
    judge([Row::new("resume of a running one", bundle.verb("resume")?, &["not paused"])])?;
    bundle.verb("pause")?.succeeds_silently()?;
    judge([
        Row::new("pause twice", bundle.verb("pause")?, &["already paused"]),
        Row::new("exec", exec(&[])?, &["paused"]).status(125),
        Row::new("exec -d", exec(&["-d"])?, &["paused"]),
        Row::new("delete", bundle.verb("delete")?, &["not stopped"]),
        Row::new("start", bundle.verb("start")?, &["already running"]),
    ])?;
    bundle.pura(&["kill", "c1", "KILL"]).output()?.succeeds_silently()?;
    running.rest()?;
    bundle.becomes("stopped")?;
    let file = bundle.path("resources");
    fs::write(&file, "{}")?;
    let update = bundle.pura(&["update", "--resources", &file.to_string_lossy(), "c1"]).output()?;
    let stopped = &["container not running"];
    judge([
        Row::new("pause", bundle.verb("pause")?, stopped).gone(),
        Row::new("resume", bundle.verb("resume")?, stopped).gone(),
        Row::new("update", update, stopped).gone(),
        Row::new("events", bundle.verb("events")?, stopped).gone(),
    ])?;
    bundle.delete()
}

#[test]
fn without_a_cgroup_the_reason_is_no_missing_program() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["sleep"])?;
    bundle.write()?;
    let path = bundle.path("bundle").display().to_string();
    let create = ["--cgroup-manager", "disabled", "create", "--bundle", &path, "c1"];
    bundle.pura(&create).output()?.succeeds_silently()?;
    bundle.verb("start")?.succeeds_silently()?;
    let file = bundle.path("resources");
    fs::write(&file, "{\"pids\": {\"limit\": 7}}")?;
    let update = bundle.pura(&["update", "--resources", &file.to_string_lossy(), "c1"]).output()?;
    let none = &["no cgroup of its own"];
    judge([Row::new("pause", bundle.verb("pause")?, none), Row::new("update", update, none)])?;
    bundle.delete()
}
