//! `pura ps`: the processes of a container.

use std::{ffi::OsString, fs, path::Path, time::Duration};

use super::{Call, living};
use crate::{
    cgroup,
    cli::{ListFormat, Ps},
    error::{Code, Error, Result},
    launch::helper,
    state::Status,
    store::{Id, Record, Roots},
};

/// How long ps(1) may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The process ids as an array, or the lines of ps(1) about them.
pub(super) fn ps(call: Call<'_>, ps: &Ps) -> Result<String> {
    let roots = Roots::find(call.globals)?;
    let entry = roots.open(&Id::parse(&ps.id)?, "list the processes of")?;
    let is_stopped = entry.status() == Status::Stopped;
    let pids =
        if is_stopped { Vec::new() } else { processes(&living::open(call, &ps.id, "list the processes of")?.record) };
    match ps.format {
        ListFormat::Json => Ok(format!("{pids:?}\n").replace(' ', "")),
        ListFormat::Table => table(&pids, &ps.options),
    }
}

/// Every process of the container, in order.
pub(super) fn processes(record: &Record) -> Vec<i32> {
    let mut pids = match record.cgroup.as_deref() {
        Some(directory) => cgroup::processes(directory),
        None => in_namespace(record.init.pid),
    };
    pids.sort_unstable();
    pids
}

/// Without a cgroup, those in init's PID namespace; in its mount namespace when the former is the caller's too.
fn in_namespace(init: i32) -> Vec<i32> {
    let namespace = |process: &Path, kind: &str| fs::read_link(process.join("ns").join(kind)).ok();
    let of = |pid: &str, kind: &str| namespace(&Path::new("/proc").join(pid), kind);
    let init = init.to_string();
    let kind = if of(&init, "pid") == of("self", "pid") { "mnt" } else { "pid" };
    let Some(wanted) = of(&init, kind) else { return Vec::new() };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter(|entry| namespace(&entry.path(), kind).as_ref() == Some(&wanted))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The header and the lines whose PID is one of these: ps(1) knows no list of processes that goes with every option.
fn table(pids: &[i32], options: &[OsString]) -> Result<String> {
    let refuse = |why: &str| Error::new(Code::Helper, "list processes", why.to_owned());
    let defaults = [OsString::from("-ef")];
    let options = if options.is_empty() { &defaults[..] } else { options };
    let program = helper::find("ps").next();
    let program = program.ok_or_else(|| refuse("ps does not exist").fix("apt install procps; or --format json"))?;
    let words: Vec<_> = options.iter().map(OsString::as_os_str).collect();
    let said = helper::output(&program, &words, LIMIT);
    let said = said.ok_or_else(|| {
        let why = helper::complaint(&program, &words, LIMIT).unwrap_or_else(|| "it takes over 10 s".to_owned());
        refuse(&format!("ps fails with these options: {why}")).fix("options of ps(1), as -ef")
    })?;
    let mut lines = said.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or_else(|| refuse("what ps prints has no column PID").fix("options with a PID, as -ef"))?;
    let is_ours = |line: &&str| {
        line.split_whitespace()
            .nth(column)
            .and_then(|word| word.parse().ok())
            .is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok(std::iter::once(header).chain(lines.filter(is_ours)).fold(String::new(), |text, line| text + line + "\n"))
}
