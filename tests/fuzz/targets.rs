//! What reads the bytes of others, each with the rules that its answers keep.

use std::{
    ffi::OsString,
    os::{fd::AsFd as _, unix::ffi::OsStringExt as _},
    path::Path,
};

use nix::errno::Errno;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::{
    Target, Verdict,
    corpus::{CONFIGS, PROFILE, texts},
    fuzz, is_one_line, lists, mutation, seccomp, tree,
};
use crate::{
    bundle,
    cli::{self, UsernsMode, Verb},
    error::Error,
    host::Host,
    init::home,
    launch::link::Report,
    plan::{
        Plan,
        options::{self, Effect, WORDS},
        resources,
        sample::{self, OWN_USERNS},
        unit,
    },
    signal, spec,
    store::{Glance, Id, Intent, testing::Store},
};

/// An error is for people; whatever is refused is refused in one line.
fn refused(error: &Error) -> Verdict {
    is_one_line(&error.to_string())
}

/// What is printed of a plan has lines, and nothing else that a terminal obeys.
fn is_printable(text: &str) -> Verdict {
    match text.chars().find(|character| character.is_control() && *character != '\n') {
        Some(found) => Err(format!("the plan has {found:?} in it: {text:?}")),
        None => Ok(()),
    }
}

/// What `exec --process` and `update --resources` would read of the same.
fn parts(input: &[u8]) -> Verdict {
    let Ok(whole) = serde_json::from_slice::<Value>(input) else { return Ok(()) };
    for (pointer, opening, closing) in
        [("/process", "\"process\":", ""), ("/linux/resources", "\"linux\":{\"resources\":", "}")]
    {
        let Some(part) = whole.pointer(pointer) else { continue };
        match bundle::part(part.to_string().as_bytes(), Path::new("part.json"), opening, closing) {
            Ok((_, warnings)) => warnings.iter().try_for_each(|warning| is_one_line(&warning.to_string()))?,
            Err(error) => refused(&error)?,
        }
    }
    Ok(())
}

/// Reading, judging, compiling and printing, for callers of four kinds.
fn config(input: &[u8]) -> Verdict {
    parts(input)?;
    let (spec, warnings) = match bundle::parse(input, Path::new("config.json")) {
        Ok(read) => read,
        Err(error) => return refused(&error),
    };
    for warning in warnings {
        is_one_line(&warning.to_string())?;
    }
    // What is kept with the container is read again by later verbs.
    if bundle::recorded(input).ok().as_ref() != Some(&spec) {
        return Err("it is read otherwise when it is recorded".to_owned());
    }
    if let Err(error) = spec::validate(&spec) {
        return refused(&error);
    }
    for (host, mode) in [
        (sample::user(), UsernsMode::Unset),
        (sample::root(), UsernsMode::Auto),
        (sample::nested(), UsernsMode::Unset),
        (sample::user(), UsernsMode::Single),
    ] {
        planned(&spec, &host, mode)?;
    }
    scoped(&spec)
}

/// The plan of an accepted config; nothing where the host stands in the way.
fn planned(spec: &Spec, host: &Host, mode: UsernsMode) -> Verdict {
    let plan = match sample::compile(spec, host.clone(), mode, true, OWN_USERNS) {
        Ok(plan) => plan,
        Err(error) => return refused(&error),
    };
    let text = plan.to_string();
    is_printable(&text)?;
    // Maps have no order of their own, and a plan has one.
    let again = sample::compile(&spec.clone(), host.clone(), mode, true, OWN_USERNS).map(|plan| plan.to_string());
    if again.as_deref() != Ok(&text) {
        return Err(format!("two plans of one config:\n{text}\n{again:?}"));
    }
    for warning in plan.warnings() {
        is_one_line(&warning.to_string())?;
    }
    explained(&plan)
}

/// Each step can fail.
fn explained(plan: &Plan) -> Verdict {
    for step in 0..=plan.ops().len() {
        let step = u32::try_from(step).unwrap_or(u32::MAX);
        for errno in [Errno::EPERM, Errno::ENOENT, Errno::EINVAL, Errno::UnknownErrno] {
            is_one_line(&plan.explain(step, errno).to_string())?;
        }
        is_one_line(&plan.explain_warning(step, Errno::ENOSYS).to_string())?;
    }
    Ok(())
}

/// Limits and the scope, which systemd makes.
fn scoped(spec: &Spec) -> Verdict {
    let wanted = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let writes = match wanted.map(|wanted| resources::writes(wanted, &resources::Now::default())).transpose() {
        Ok(writes) => writes.unwrap_or_default(),
        Err(error) => return refused(&error),
    };
    let facts = unit::Facts { version: 252, cgroup: "/user.slice".to_owned(), is_user: true };
    match unit::decide(spec, &facts, "c1", "pura-c1.9", &writes) {
        Ok(unit) => is_printable(&unit.to_string()),
        Err(error) => refused(&error),
    }
}

/// Annotations that are `GVariant` text: a line "property: text", in a config that is good.
fn annotation(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let (name, value) = text.split_once(':').unwrap_or((&text, ""));
    let key = format!("org.systemd.property.{name}");
    let spec = json!({"ociVersion": "1.3.0", "annotations": {key: value}});
    let Ok(spec) = serde_json::from_value::<Spec>(spec) else { return Ok(()) };
    match spec::validate(&spec) {
        Ok(()) => scoped(&spec),
        Err(error) => refused(&error),
    }
}

/// Options of a mount, with commas between them.
fn mount(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let words: Vec<_> = text.split(',').map(str::to_owned).collect();
    let sorted = options::parse(&words);
    if let Some(word) = sorted.data.iter().find(|word| WORDS.iter().any(|(known, _)| known == word)) {
        return Err(format!("{word:?} reaches the filesystem"));
    }
    // The last word wins, whatever stands before it.
    for (word, effect) in WORDS {
        let all = options::parse(&[words.as_slice(), &[(*word).to_owned()]].concat());
        let holds = match effect {
            Effect::Set(flag) => all.set & flag != 0 && all.clear & flag == 0,
            Effect::Clear(flag) => all.set & flag == 0 && all.clear & flag != 0,
            Effect::SetAll(flag) => all.set_all & flag != 0 && all.clear_all & flag == 0,
            Effect::ClearAll(flag) => all.set_all & flag == 0 && all.clear_all & flag != 0,
            Effect::Super(flag) => all.super_flags & flag != 0,
            Effect::SuperClear(flag) => all.super_flags & flag == 0,
            Effect::Propagation(flags) => all.propagation == Some(*flags),
            _ => true,
        };
        if !holds {
            return Err(format!("{word:?} at the end does not win: {all:?}"));
        }
    }
    for (kind, source) in [("tmpfs", "tmpfs"), ("", "/volumes/a"), ("proc", "proc"), ("overlay", "overlay")] {
        let mounts = json!([{"destination": "/m", "type": kind, "source": source, "options": words}]);
        let spec = json!({"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "mounts": mounts,
            "process": {"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0}}, "linux": {"namespaces": [{"type": "mount"}]}});
        config(spec.to_string().as_bytes())?;
    }
    Ok(())
}

/// Records and intents, as `list` and `delete` find them.
fn state(input: &[u8]) -> Verdict {
    thread_local!(static STORE: Store = {
        let store = Store::new();
        store.claim("c1").unwrap().keep();
        store
    });
    STORE.with(|store| {
        let (directory, root, id) = (store.path("c1"), store.root(), Id::parse("c1".as_ref()).unwrap());
        for name in ["state.json", "intent"] {
            std::fs::write(directory.join(name), input).unwrap();
        }
        let entry = store.entry("c1");
        let (record, mut glance) = (entry.record(), Glance::into(&root));
        let brief = glance.brief(&id).map(|brief| (brief.bundle.into_owned(), brief.owner.into_owned(), brief.init));
        let whole = record
            .as_ref()
            .map(|record| (record.bundle.to_string_lossy().into_owned(), record.owner.clone(), record.init));
        // The brief looks at less, but must not show what the record is not.
        if whole.is_some() && whole != brief {
            return Err(format!("{whole:?} at a glance is {brief:?}"));
        }
        drop((entry.status(), entry.traces(), entry.is_damaged()));
        let again = record.as_ref().map(|record| serde_json::from_slice(&serde_json::to_vec(record).unwrap()).unwrap());
        if again != record {
            return Err("a record does not survive".to_owned());
        }
        let Some(intent) = Intent::parse(&String::from_utf8_lossy(input)) else { return Ok(()) };
        let again = Intent::parse(
            &(intent.line().unwrap() + &intent.init.map(crate::store::Identity::line).unwrap_or_default()),
        );
        if again == Some(intent) { Ok(()) } else { Err("an intent does not survive".to_owned()) }
    })
}

/// Packets of the link.
fn packet(input: &[u8]) -> Verdict {
    match Report::decode(input) {
        Some(report) if Report::decode(&report.encode()) != Some(report) => Err(format!("{report:?} does not survive")),
        Some(_) if input.len() != 12 => Err(format!("{} bytes are a packet", input.len())),
        _ => Ok(()),
    }
}

/// The image's `/etc/passwd`, against a reading of it that has all the memory it wants.
fn passwd(input: &[u8]) -> Verdict {
    thread_local!(static ROOT: tempfile::TempDir = {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        root
    });
    ROOT.with(|root| {
        std::fs::write(root.path().join("etc/passwd"), input).unwrap();
        let directory = std::fs::File::open(root.path()).unwrap();
        for uid in [0, 1, 7, 1000, u32::MAX] {
            let mut found = [0; home::LONGEST];
            let length = home::find(directory.as_fd(), uid, &mut found);
            let wanted = lists::home(input, uid);
            if found[..length] != *[b"HOME=".as_slice(), &wanted].concat() {
                return Err(format!("the home of {uid} is {:?}", String::from_utf8_lossy(&found[..length])));
            }
        }
        Ok(())
    })
}

/// argv, a word a line.
fn command_line(input: &[u8]) -> Verdict {
    let words = input.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec()));
    let argv: Vec<_> = [OsString::from("pura")].into_iter().chain(words).collect();
    cli::is_foreground(&argv);
    let request = match cli::parse(&argv) {
        Ok(request) => request,
        Err(error) => return refused(&error),
    };
    let judged = match request.verb {
        Verb::Update(update) => update.flags.resources().map(drop),
        Verb::Kill { signal: Some(word), .. } => signal::parse(&word).map(drop),
        Verb::Start { id } | Verb::State { id } => Id::parse(&id).map(drop),
        _ => Ok(()),
    };
    judged.or_else(|error| refused(&error))
}

#[test]
fn a_config_is_refused_in_one_line_or_has_one_plan() {
    let target = Target { name: "config", inputs: 600, mutate: tree::json, judge: config };
    fuzz(&target, texts(&CONFIGS));
}

#[test]
fn options_of_a_mount_mean_what_the_last_of_them_says() {
    let target = Target { name: "mount", inputs: 150, mutate: mutation::bytes, judge: mount };
    let all = WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(",");
    let given = [
        &all,
        "",
        "ro,nosuid,nodev",
        "mode=755,size=64k",
        "lowerdir=/a:/b,upperdir=/c,workdir=/d",
        "rbind,rro,rslave",
        "idmap=uids=0-1-1;gids=0-1-1,bind",
        "ridmap=uids=@0-0-10#20-30-1;gids=@0-0-10,rbind",
        "remount,rw,hidepid=2",
    ];
    fuzz(&target, texts(&given));
}

#[test]
fn an_annotation_is_a_property_or_refused_in_one_line() {
    let target = Target { name: "annotation", inputs: 2000, mutate: mutation::bytes, judge: annotation };
    let given = [
        "TimeoutStopUSec:uint64 5000000",
        "TimeoutStopSec:1.5",
        "After:['a.service', \"b.service\"]",
        "KillSignal:int32 15",
        "SendSIGHUP:true",
        "Description:'a \\'b\\' \\u00e9 \\n'",
        "CollectMode:\"inactive\"",
        "Wants:@as []",
        "KillMode:'mixed'",
        "RuntimeMaxSec:18446744073709551615",
    ];
    fuzz(&target, texts(&given));
}

#[test]
fn maps_and_accounts_are_read_as_the_kernel_and_shadow_read_them() {
    let target = Target { name: "lists", inputs: 2000, mutate: mutation::bytes, judge: lists::judge };
    let given = [
        "         0       1000          1\n         1     100000      65536\n",
        "0 0 4294967295\n",
        "0 1 1\n1 2 1\n5 1 1\n",
        "alice:100000:65536\n1000:300000:10\nbob:165536:65536\nalice:400000:5\n",
        "root:x:0:0:root:/root:/bin/sh\n",
        "alice:x:1000:100::/home/alice:/bin/sh\n",
        "0: alice 100000 65536\n1: alice 300000 10\n",
        "passwd: files\nsubid: sss\n",
    ];
    fuzz(&target, texts(&given));
}

#[test]
fn a_filter_returns_what_the_profile_says() {
    let target = Target { name: "seccomp", inputs: 300, mutate: seccomp::mutate, judge: seccomp::judge };
    fuzz(&target, [texts(&[PROFILE]), seccomp::seeds()].concat());
}

#[test]
fn a_damaged_state_is_none_or_one() {
    let target = Target { name: "state", inputs: 1000, mutate: tree::json, judge: state };
    let identity = crate::store::Identity { pid: i32::MAX, start_time: 4 };
    let record = serde_json::to_string(&crate::store::testing::record("c1", identity)).unwrap();
    let intent = crate::store::testing::intent().line().unwrap();
    let full = r#"{"version":1,"bootId":"b","creator":{"pid":3,"startTime":4},"bundle":"/b","cgroup":"/sys/fs/cgroup/x",
        "cgroupStays":true,"unit":"a.scope","resctrl":{"directory":"/r","own":true,"monitoring":"/m"},"pidFile":"/p"}"#;
    fuzz(&target, texts(&[&record, &intent, &(intent.clone() + "7 8\n"), &full.replace('\n', "")]));
}

#[test]
fn a_packet_is_a_report_or_nonsense() {
    let target = Target { name: "packet", inputs: 5000, mutate: mutation::bytes, judge: packet };
    let seeds = (0..12).map(|kind: u32| [kind.to_ne_bytes(), [1, 0, 0, 0], [2, 0, 0, 0]].concat());
    fuzz(&target, seeds.collect());
}

#[test]
fn a_home_is_what_the_images_passwd_says() {
    let target = Target { name: "passwd", inputs: 1000, mutate: mutation::bytes, judge: passwd };
    let given = [
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:/bin/false\n",
        "a:x:1000:100::/home/a:/bin/sh",
        "7:7:007:7:7:/seven\n",
        "b:x:1::::\nb:x:1:1:x:/second:\n",
        "\n\n::0::::\n",
        "c:x:4294967295:1::/last:\nd:x:4294967296:1::/over:\n",
    ];
    fuzz(&target, texts(&given));
}

#[test]
fn a_command_line_is_a_request_or_refused_in_one_line() {
    let target = Target { name: "command-line", inputs: 1000, mutate: mutation::bytes, judge: command_line };
    let given = [
        "run\n-b\n/b\nc1",
        "--root\n/r\n--log\n/l\n--log-format\njson\ncreate\n--bundle\n/b\n--pid-file\n/p\nc1",
        "--version",
        "--help",
        "run\n--\ntrue",
        "run\n-m\n1g\n--cpus\n1.5\n--pids-limit\n10\n-v\n/a:/b:ro\n-e\nA=b\n-p\n80:80\n--\nsh\n-c\ntrue",
        "exec\n-t\n--user\n1:2\n--cwd\n/\n--env\nA=b\n--cap\nCAP_KILL\nc1\nsh",
        "kill\nc1\nSIGTERM",
        "kill\n--all\nc1\n9",
        "delete\n--force\nc1",
        "update\n--memory\n1g\n--cpu-quota\n5\n--pids-limit\n-1\nc1",
        "update\n-r\n-\nc1",
        "events\n--stats\nc1",
        "ps\n-f\njson\nc1\n-ef",
        "list\n-q\n-f\njson",
        "wait\nc1",
        "--userns=keep-id\n--strict\n--cgroup-manager\nsystemd\nrun\nc1",
        "features",
        "spec\n--rootless",
        "start\nc1",
        "state\nc1",
        "plan\n--\ntrue",
        "doctor",
        "checkpoint\nc1",
        "run\n--hlep",
    ];
    fuzz(&target, texts(&given));
}
