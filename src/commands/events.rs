//! `pura events`: what a container uses, again and again, and when the kernel ends one of its processes for want of
//! memory.

use std::{
    io::Write as _,
    os::fd::AsFd as _,
    path::Path,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::{Call, living};
use crate::{
    cgroup::{Watch, stats},
    cli::Events,
    error::{Code, Context as _, Error, Result},
    sys,
};

/// Prints one object a line until the container has stopped; with `--stats`, one in all.
pub(super) fn events(call: Call<'_>, events: &Events) -> Result<u8> {
    let living = living::open(call, &events.id, "watch")?;
    let directory = living.cgroup("watch", Code::NoCgroup)?;
    let id = living.record.id.as_str();
    if events.stats {
        say(&json!({ "type": "stats", "id": id, "data": stats::of(&directory) }))?;
        return Ok(0);
    }
    let what = || format!("watch {id:?}");
    let Some(init) = living.record.init.open().doing(Code::NotRunnable, what)? else {
        return Err(Error::new(Code::NotRunnable, what(), "container not running (stopped)"));
    };
    let mut seen = Seen { id, directory: &directory, kills: stats::oom_kills(&directory) };
    // Without the controller there is no such file, and no such end.
    let mut memory = Watch::of(&directory.join("memory.events")).ok();
    seen.tell_kills()?;
    let mut next = Instant::now() + events.interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let ended = {
            let mut wanted = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
            wanted.extend(memory.as_ref().map(Watch::wanted));
            let limit = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            sys::retry(|| poll(&mut wanted, limit)).doing(Code::Bug, what)?;
            wanted.first().and_then(PollFd::any) == Some(true)
        };
        if let Some(memory) = &mut memory {
            memory.arm();
        }
        seen.tell_kills()?;
        if ended {
            return Ok(0);
        }
        if Instant::now() >= next {
            say(&json!({ "type": "stats", "id": id, "data": stats::of(&directory) }))?;
            next = Instant::now() + events.interval;
        }
    }
}

/// What has been told already.
struct Seen<'a> {
    id: &'a str,
    directory: &'a Path,
    kills: u64,
}

impl Seen<'_> {
    fn tell_kills(&mut self) -> Result<()> {
        let kills = stats::oom_kills(self.directory);
        if kills > self.kills {
            self.kills = kills;
            say(&json!({ "type": "oom", "id": self.id }))?;
        }
        Ok(())
    }
}

fn say(event: &Value) -> Result<()> {
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(format!("{event}\n").as_bytes()).and_then(|()| stdout.flush());
    written.doing(Code::FileRefused, || "write to standard output".to_owned())
}
