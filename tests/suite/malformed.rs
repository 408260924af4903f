//! Malformed and hostile configs, as tables. Each row is refused by `create` with one line that names what is wrong, and
//! nothing is left: no state, process, cgroup, mount or temporary file, and the host is as before. Rows of `accepted` are
//! taken.
//!
//! A row changes the base of the harness by a JSON merge patch (RFC 7396: null removes). In it `$DIR` is the test's
//! directory, which has a `fifo` and a `loop`, a link to itself, as the root has; `$UID` is the tester; `$A65` is a name
//! of 65 bytes.

mod accepted;
mod linux;
mod mounts;
mod process;

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use crate::harness::{Bundle, own_uid};

/// What is wrong, how the config differs, the code, and what the line says.
type Row = (&'static str, &'static str, u32, &'static [&'static str]);

/// The same with the whole text of config.json.
type Case = (String, Vec<u8>, u32, Vec<String>);

/// The longest that a row may take, on a busy machine.
const LONGEST: Duration = Duration::from_secs(8);

/// The longest line of an error: some screens, whatever the config holds.
const LONGEST_LINE: usize = 12_000;

/// A bundle with what the rows speak of.
fn prepared() -> Result<Bundle> {
    let bundle = Bundle::probing(&["sleep"])?;
    nix::unistd::mkfifo(&bundle.path("fifo"), nix::sys::stat::Mode::S_IRWXU)?;
    symlink("loop", bundle.path("loop"))?;
    symlink("loop", bundle.rootfs("loop"))?;
    Ok(bundle)
}

/// A config that differs from the base as the row says.
fn patched(bundle: &Bundle, patch: &str) -> Result<Value> {
    let text = patch
        .replace("$DIR", &bundle.dir().to_string_lossy())
        .replace("$UID", &own_uid().to_string())
        .replace("$A65", &"a".repeat(65));
    let mut config = bundle.config.clone();
    merge(&mut config, serde_json::from_str(&text).with_context(|| text.clone())?);
    Ok(config)
}

/// RFC 7396.
fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    for (key, value) in patch {
        let Some(fields) = into.as_object_mut() else { return };
        if value.is_null() {
            fields.remove(&key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn refuses(tables: &[&[Row]]) -> Result<()> {
    requires!(userns);
    let bundle = prepared()?;
    let mut cases = Vec::new();
    for (name, patch, code, words) in tables.iter().copied().flatten() {
        let text = serde_json::to_vec_pretty(&patched(&bundle, patch)?)?;
        cases.push(((*name).to_owned(), text, *code, words.iter().map(|word| (*word).to_owned()).collect()));
    }
    refuses_texts(&bundle, cases)
}

/// Tries every case before it complains, so that one run shows all that is wrong.
fn refuses_texts(bundle: &Bundle, cases: Vec<Case>) -> Result<()> {
    fs::write(bundle.path("bundle/config.json"), "")?;
    let before = surroundings(bundle)?;
    let mark = format!("malformed-{}", bundle.dir().file_name().context("name")?.to_string_lossy());
    let mut wrong = Vec::new();
    for (index, (name, text, code, words)) in cases.into_iter().enumerate() {
        fs::write(bundle.path("bundle/config.json"), text)?;
        let id = format!("{mark}.{index}");
        if let Err(why) = is_refused(bundle, &id, code, &words) {
            wrong.push(format!("{name}: {why:#}"));
            bundle.pura(&["delete", "--force", &id]).output()?;
        }
    }
    ensure!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
    bundle.is_clean()?;
    ensure!(!has_cgroup(Path::new("/sys/fs/cgroup"), &mark), "a cgroup is left");
    ensure!(surroundings(bundle)? == before, "something outside has changed");
    Ok(())
}

fn is_refused(bundle: &Bundle, id: &str, code: u32, words: &[String]) -> Result<()> {
    let pid_file = bundle.path("pid");
    let begin = Instant::now();
    let create = bundle.pura(&["create", "--bundle"]).args(&[bundle.path("bundle")]).args(&["--pid-file"]);
    let outcome = create.args(&[&pid_file]).args(&[id]).output()?;
    ensure!(begin.elapsed() < LONGEST, "it took {:?}", begin.elapsed());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let line = outcome.fails(1, code, &words)?;
    ensure!(line.len() < LONGEST_LINE, "a line of {} bytes: {}", line.len(), line.get(..200).unwrap_or_default());
    ensure!(!pid_file.exists(), "a pid-file is left");
    for place in ["state", "tmp"] {
        ensure!(fs::read_dir(bundle.path(place))?.next().is_none(), "something is left in {place}");
    }
    Ok(())
}

/// What a create must not change: names, mounts, and the bundle but for mount points in its root.
fn surroundings(bundle: &Bundle) -> Result<Vec<String>> {
    let mut facts = vec![nix::unistd::gethostname()?.to_string_lossy().into_owned()];
    for file in ["/proc/sys/kernel/domainname", "/proc/self/mountinfo", "/proc/sys/kernel/pid_max"] {
        facts.push(fs::read_to_string(file)?);
    }
    for directory in [bundle.path("bundle"), bundle.path("fifo").with_file_name("state")] {
        for entry in fs::read_dir(directory)? {
            facts.push(entry?.path().display().to_string());
        }
    }
    facts.push(fs::read_to_string(bundle.rootfs("etc/passwd"))?);
    Ok(facts)
}

fn has_cgroup(directory: &Path, mark: &str) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.any(|entry| entry.file_name().to_string_lossy().contains(mark) || has_cgroup(&entry.path(), mark))
}

#[test]
fn bad_fields_at_the_top_are_refused() -> Result<()> {
    refuses(&[process::TOP, process::HOOKS])
}

#[test]
fn bad_processes_are_refused() -> Result<()> {
    refuses(&[process::PROCESS, process::LIMITS])
}

#[test]
fn bad_mounts_are_refused() -> Result<()> {
    refuses(&[mounts::ROWS])
}

#[test]
fn bad_namespaces_and_maps_are_refused() -> Result<()> {
    refuses(&[linux::NAMESPACES, linux::MAPS])
}

#[test]
fn bad_devices_and_resources_are_refused() -> Result<()> {
    refuses(&[linux::DEVICES, linux::RESOURCES])
}

#[test]
fn bad_settings_of_the_kernel_and_filters_are_refused() -> Result<()> {
    refuses(&[linux::KERNEL, linux::SECCOMP])
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_no_json_or_has_a_key_twice_is_refused_by_its_place() -> Result<()> {
    requires!(userns);
    let bundle = prepared()?;
    let whole = serde_json::to_string_pretty(&bundle.config)?;
    let utf16 = |bytes: fn(u16) -> [u8; 2]| whole.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let with = |from: &str, to: &str| -> Result<Vec<u8>> {
        ensure!(whole.contains(from), "the base has no {from}");
        Ok(whole.replacen(from, to, 1).into_bytes())
    };
    let bytes = |from: &str, to: &[u8]| -> Result<Vec<u8>> {
        let at = whole.find(from).with_context(|| from.to_owned())?;
        Ok([&whole.as_bytes()[..at], to, &whole.as_bytes()[at + from.len()..]].concat())
    };
    let syntax: Vec<(&str, Vec<u8>)> = vec![
        ("an empty file", Vec::new()),
        ("blanks", b" \n\t\r\n".to_vec()),
        ("a zero byte", vec![0]),
        ("a file of zeros", vec![0; 4096]),
        ("one bracket", b"{".to_vec()),
        ("half of it", whole.as_bytes()[..whole.len() / 2].to_vec()),
        ("all but the last bracket", whole.trim_end().as_bytes()[..whole.trim_end().len() - 1].to_vec()),
        ("garbage behind", format!("{whole}x").into_bytes()),
        ("a zero byte behind", format!("{whole}\0").into_bytes()),
        ("two documents", format!("{whole}{whole}").into_bytes()),
        ("a byte order mark", format!("\u{feff}{whole}").into_bytes()),
        ("UTF-16, low byte first", utf16(u16::to_le_bytes)),
        ("UTF-16, high byte first", utf16(u16::to_be_bytes)),
        ("a missing comma", with("\"rootfs\"\n", "\"rootfs\" \"x\"\n")?),
        ("a comma too many", with("\"pura\",", "\"pura\",,")?),
        ("a comma at the end", with("\"rootfs\"\n", "\"rootfs\",\n")?),
        ("a missing colon", with("\"hostname\":", "\"hostname\"")?),
        ("a comment", with("\"hostname\":", "// name\n\"hostname\":")?),
        ("single quotes", with("\"pura\"", "'pura'")?),
        ("a bare word", with("\"pura\"", "pura")?),
        ("a control character", with("\"pura\"", "\"pu\u{1}ra\"")?),
        ("a line break in a string", with("\"pura\"", "\"pu\nra\"")?),
        ("an unknown escape", with("\"pura\"", "\"\\x70ura\"")?),
        ("half a character", with("\"pura\"", "\"\\ud800\"")?),
        ("no character", bytes("\"pura\"", b"\"\xff\xfe\"")?),
        ("no character in a key", bytes("\"hostname\"", b"\"host\xc3\"")?),
        ("NaN", with("\"uid\": 0", "\"uid\": NaN")?),
        ("infinity", with("\"uid\": 0", "\"uid\": 1e999")?),
        ("a leading zero", with("\"uid\": 0", "\"uid\": 00")?),
        ("a leading plus", with("\"uid\": 0", "\"uid\": +0")?),
        ("a hexadecimal number", with("\"uid\": 0", "\"uid\": 0x0")?),
        ("a number that ends early", with("\"uid\": 0", "\"uid\": 0.")?),
        ("100000 levels", format!("{{\"hostname\":{}", "[".repeat(100_000)).into_bytes()),
        ("100000 levels of objects", "{\"a\":".repeat(100_000).into_bytes()),
        (
            "what is no JSON behind an unknown capability",
            with("\"noNewPrivileges\"", "\"capabilities\": {\"bounding\": [\"CAP_X\"]}, x \"noNewPrivileges\"")?,
        ),
        ("what is no JSON behind a wrong type", with("\"hostname\": \"pura\"", "\"hostname\": 5, x")?),
    ];
    let line = vec!["config.json: line ".to_owned(), " column ".to_owned()];
    let syntax = syntax.into_iter().map(|(name, text)| (name.to_owned(), text, 802, line.clone()));
    let fields: Vec<(&str, Vec<u8>, &str)> = vec![
        ("null", b"null".to_vec(), "invalid type: null"),
        ("a string", b"\"config\"".to_vec(), "invalid type: string"),
        ("an array", b"[]".to_vec(), "the config is an array"),
        ("a number as large as a star", with("\"uid\": 0", "\"uid\": 1e20")?, "process.user.uid: invalid type"),
        ("a null where a string belongs", with("\"PATH=/bin\"", "null")?, "process.env[0]: invalid type: null"),
        (
            "a null in a map",
            with("\"hostname\":", "\"annotations\": {\"a\": null}, \"hostname\":")?,
            "annotations.a: invalid type",
        ),
        (
            "a null in the place of a mount",
            with("\"mounts\": [", "\"mounts\": [null,")?,
            "mounts[0]: invalid type: null",
        ),
        (
            "a null in the place of a user",
            with("\"user\": {", "\"user\": null, \"x\": {")?,
            "process.user: invalid type: null",
        ),
        ("a null in the place of a uid", with("\"uid\": 0", "\"uid\": null")?, "process.user.uid: invalid type: null"),
        ("two host names", with("\"hostname\":", "\"hostname\": \"a\", \"hostname\":")?, "hostname: duplicate field"),
        (
            "a key twice, once by escapes",
            with("\"hostname\":", "\"host\\u006eame\": \"a\", \"hostname\":")?,
            "duplicate field",
        ),
        (
            "two processes",
            with("\"root\":", "\"process\": {\"cwd\": \"/\", \"user\": {}}, \"root\":")?,
            "process: duplicate field",
        ),
        ("two cwds", with("\"cwd\":", "\"cwd\": \"/x\", \"cwd\":")?, "process.cwd: duplicate field `cwd`"),
        ("two uids", with("\"uid\":", "\"uid\": 5, \"uid\":")?, "process.user.uid: duplicate field `uid`"),
        (
            "two privileges",
            with("\"noNewPrivileges\":", "\"noNewPrivileges\": false, \"noNewPrivileges\":")?,
            "process.noNewPrivileges: duplicate",
        ),
        (
            "two destinations",
            with("\"destination\": \"/dev\"", "\"destination\": \"/x\", \"destination\": \"/dev\"")?,
            "].destination: duplicate",
        ),
        (
            "two types",
            with("\"type\": \"pid\"", "\"type\": \"ipc\", \"type\": \"pid\"")?,
            "linux.namespaces[0].type: duplicate",
        ),
        ("two sizes", with("\"size\": 1", "\"size\": 1, \"size\": 1")?, "idMappings[0].size: duplicate"),
        (
            "an annotation twice",
            with("\"hostname\":", "\"annotations\": {\"a\": \"1\", \"a\": \"2\"}, \"hostname\":")?,
            "annotations.a: duplicate field `a`",
        ),
        (
            "a parameter twice",
            with("\"namespaces\":", "\"sysctl\": {\"net.a\": \"1\", \"net.a\": \"2\"}, \"namespaces\":")?,
            "linux.sysctl[\"net.a\"]: duplicate field `net.a`",
        ),
        (
            "a key twice behind an unknown capability",
            with("\"hostname\":", "\"hostname\": \"a\", \"hostname\":")
                .and_then(|text| Ok(String::from_utf8(text)?))?
                .replacen(
                    "\"noNewPrivileges\"",
                    "\"capabilities\": {\"bounding\": [\"CAP_X\"]}, \"noNewPrivileges\"",
                    1,
                )
                .into_bytes(),
            "hostname: duplicate field `hostname`",
        ),
        (
            "a NUL in a key",
            with("\"hostname\":", "\"annotations\": {\"a\\u0000\": \"\"}, \"hostname\":")?,
            "a string contains a NUL",
        ),
    ];
    let fields = fields.into_iter().map(|(name, text, word)| (name.to_owned(), text, 803, vec![word.to_owned()]));
    refuses_texts(&bundle, syntax.chain(fields).collect())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn absurd_lengths_are_refused_in_a_line_that_can_be_read() -> Result<()> {
    requires!(userns);
    let bundle = prepared()?;
    let long = |length: usize| "x".repeat(length);
    let part = format!("/{}", long(300));
    let path = format!("/{}", "abcdefg/".repeat(700));
    let line = |id: u32| json!({"containerID": id, "hostID": id, "size": 1});
    let lines: Value = (0..341).map(line).collect();
    let mounts: Value = (0..100_001).map(|_| json!({"destination": "/x"})).collect();
    let variables: Value = (0..50_000).map(|_| json!("bad")).collect();
    let words: Value = (0..70).map(|_| json!(long(100_000))).collect();
    let tmpfs = |destination: &str| json!({"mounts": [{"destination": destination, "type": "tmpfs"}]});
    let bind = |source: &str| json!({"mounts": [{"destination": "/x", "type": "bind", "source": source}]});
    let rows: Vec<(&str, Value, u32, &[&str])> = vec![
        ("a root of 5000 bytes", json!({"root": {"path": path}}), 301, &["name too long"]),
        ("a cwd of 5000 bytes", json!({"process": {"cwd": path}}), 611, &["name too long"]),
        ("a cwd with a part of 300 bytes", json!({"process": {"cwd": part}}), 611, &["name too long"]),
        ("a destination of 5000 bytes", tmpfs(&path), 306, &["mounts[0]", "name too long"]),
        ("a destination with a part of 300 bytes", tmpfs(&part), 306, &["mounts[0]", "name too long"]),
        ("a source of 5000 bytes", bind(&path), 803, &["mounts[0]", "name too long"]),
        ("a source with a part of 300 bytes", bind(&part), 313, &["mounts[0]", "name too long"]),
        (
            "a namespace's path of 5000 bytes",
            json!({"hostname": null, "linux": {"namespaces": [{"type": "user"}, {"type": "ipc", "path": path}]}}),
            217,
            &["name too long"],
        ),
        (
            "a device of 5000 bytes",
            json!({"linux": {"devices": [{"path": path, "type": "p"}]}}),
            340,
            &["name too long"],
        ),
        ("a mask of 5000 bytes", json!({"linux": {"maskedPaths": [path]}}), 309, &["name too long"]),
        ("a host name of a megabyte", json!({"hostname": long(1 << 20)}), 803, &["hostname: it is over 64 bytes"]),
        (
            "an argument of a megabyte",
            json!({"process": {"args": ["/bin/pura-probe", long(1 << 20)]}}),
            616,
            &["process.args[1]"],
        ),
        (
            "a variable of a megabyte",
            json!({"process": {"env": [format!("A={}", long(1 << 20))]}}),
            616,
            &["process.env[0]"],
        ),
        ("arguments of seven megabytes", json!({"process": {"args": words}}), 616, &["process.args"]),
        ("a program of 5000 bytes", json!({"process": {"args": [path]}}), 603, &["name too long"]),
        (
            "a limit of a megabyte",
            json!({"process": {"rlimits": [{"type": long(1 << 20)}]}}),
            803,
            &["process.rlimits[0].type"],
        ),
        ("a version of a megabyte", json!({"ociVersion": long(1 << 20)}), 805, &["ociVersion"]),
        ("a relative cwd of a megabyte", json!({"process": {"cwd": long(1 << 20)}}), 803, &["process.cwd"]),
        (
            "a type of a megabyte",
            json!({"mounts": [{"destination": "/x", "type": long(1 << 20)}]}),
            308,
            &["mounts[0]"],
        ),
        (
            "an option of a megabyte",
            json!({"mounts": [{"destination": "/x", "type": "tmpfs", "options": [long(1 << 20)]}]}),
            308,
            &["mounts[0]"],
        ),
        (
            "50000 variables without =",
            json!({"process": {"env": variables}}),
            803,
            &["process.env[0]", "and 49984 more"],
        ),
        ("341 lines of a map", json!({"linux": {"uidMappings": lines, "gidMappings": lines}}), 115, &["340"]),
        ("100001 mounts", json!({"mounts": mounts}), 803, &["mounts", "100001"]),
    ];
    let mut cases = Vec::new();
    for (name, patch, code, words) in rows {
        let mut config = bundle.config.clone();
        merge(&mut config, patch);
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        cases.push((name.to_owned(), serde_json::to_vec(&config)?, code, words));
    }
    let size = format!("{{\"hostname\": \"{}\"}}", long(33 << 20)).into_bytes();
    cases.push(("a file over 32 MiB".to_owned(), size, 801, vec!["over 32 MiB".to_owned()]));
    refuses_texts(&bundle, cases)
}

#[test]
fn a_config_that_is_no_file_is_refused_and_nobody_waits() -> Result<()> {
    let bundle = prepared()?;
    let config = bundle.path("bundle/config.json");
    let refused = |words: &[&str]| -> Result<()> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        is_refused(&bundle, "c1", 801, &words)
    };
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU)?;
    refused(&["config.json", "not a regular file"])?;
    fs::remove_file(&config)?;
    fs::create_dir(&config)?;
    refused(&["config.json", "not a regular file"])?;
    fs::remove_dir(&config)?;
    for (target, word) in
        [("config.json", "symbolic links"), ("nowhere", "does not exist"), ("/dev/null", "not a regular")]
    {
        symlink(target, &config)?;
        refused(&["config.json", word])?;
        fs::remove_file(&config)?;
    }
    bundle.is_clean()
}

#[test]
fn all_faults_of_a_config_are_in_the_one_line() -> Result<()> {
    let mut bundle = prepared()?;
    bundle.config = patched(
        &bundle,
        r#"{"root":{"path":""},"process":{"cwd":"relative","env":["NOTHING"],"oomScoreAdj":5000,"user":{"umask":600}},
            "mounts":[{"destination":"/proc/self"}],"annotations":{"":"x"},"hooks":{"poststop":[{"path":"h","timeout":0}]},
            "linux":{"namespaces":[{"type":"user"},{"type":"user"}],"maskedPaths":["m"],"devices":[{"path":"d","type":"c","minor":1}],
                     "sysctl":{"net.x":"1\n2"},"memoryPolicy":{"mode":"MPOL_BIND"},
                     "seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_KILL"}]}}}"#,
    )?;
    let words = [
        "root.path: ",
        "hostname: ",
        "process.cwd: ",
        "process.env[0]: ",
        "process.user.umask: ",
        "process.oomScoreAdj: ",
        "mounts[0].destination: ",
        "linux.seccomp.syscalls[0].names: ",
        "linux.namespaces[1]: ",
        "linux.devices[0]: ",
        "linux.sysctl[",
        "linux.memoryPolicy.nodes: ",
        "linux.maskedPaths[0]: ",
        "annotations: ",
        "hooks.poststop[0].path: ",
    ];
    bundle.is_refused(803, &words)
}

#[test]
fn unusual_configs_are_accepted() -> Result<()> {
    accepts(accepted::ODD, true)
}

#[test]
fn unknown_and_empty_and_absent_fields_are_accepted() -> Result<()> {
    accepts(accepted::IGNORED, false)
}

/// A row of a config that is taken: its name, how it differs, and the warning. `"$NULL"` is a null.
type Good = (&'static str, &'static str, &'static str);

/// Plans, and creates and deletes where a plan does not show all.
fn accepts(rows: &[Good], creates: bool) -> Result<()> {
    requires!(userns);
    let mut bundle = prepared()?;
    let base = bundle.config.clone();
    let mut wrong = Vec::new();
    for (name, patch, warning) in rows {
        bundle.config.clone_from(&base);
        let mut config = patched(&bundle, patch)?;
        put_nulls(&mut config);
        bundle.config = config;
        if let Err(why) = is_accepted(&bundle, warning, creates) {
            wrong.push(format!("{name}: {why:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
    bundle.is_clean()
}

fn is_accepted(bundle: &Bundle, warning: &str, creates: bool) -> Result<()> {
    let plan = bundle.with_bundle("plan", &["c1"])?.output()?;
    let stdout = plan.succeeds()?;
    ensure!(!stdout.is_empty() && stdout.contains(warning), "no {warning:?}: {stdout}");
    if !creates {
        return Ok(());
    }
    bundle.create()?.succeeds_silently()?;
    bundle.verb("delete")?.succeeds_silently()
}

fn put_nulls(value: &mut Value) {
    match value {
        Value::String(text) if text == "$NULL" => *value = Value::Null,
        Value::Array(all) => all.iter_mut().for_each(put_nulls),
        Value::Object(fields) => fields.values_mut().for_each(put_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
