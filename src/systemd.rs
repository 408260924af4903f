//! systemd, which makes the scopes of `--systemd-cgroup`. It is spoken to through a helper, `pura-systemd`, because D-Bus takes
//! more room than is left in this program (docs/design/0010); the helper is started when a bus is needed, and ends with its
//! use. What is asked for is decided in `plan::unit`.

pub mod message;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    error::{Code, Error, Result},
    host::{Maps, probe},
    launch::helper::{self, Started},
    plan::unit::{Facts, Unit},
};
use message::{Property, Reply, Request, Value};

const HELPER: &str = "pura-systemd";

/// How long the start of the helper is waited for.
const START: Duration = Duration::from_secs(10);

/// How long a bus is waited for. Not less: on a machine that is busy, one takes more than a second, and to do without puts the
/// container elsewhere.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a job of systemd's is waited for.
const JOB: Duration = Duration::from_secs(30);

/// Who asks: which systemd is theirs, and under which ids it may know them.
#[derive(Debug)]
struct Asker {
    is_root: bool,
    uids: Vec<u32>,
    /// `$XDG_RUNTIME_DIR`, or where it would be.
    runtime: PathBuf,
}

/// systemd, reached. Its helper ends when this is dropped.
#[derive(Debug)]
pub struct Manager {
    facts: Facts,
    link: BufReader<UnixStream>,
    has_refused: bool,
    _helper: Started,
}

/// Reaches the systemd of the caller: the system's for real root, else the user's own. The error says why that cannot be.
pub fn reach() -> std::result::Result<Manager, String> {
    let asker = Asker::own().map_err(|error| error.why().to_owned())?;
    let mut first = None;
    for (kind, place) in asker.places() {
        let is_there = kind == "address" || place.exists();
        match if is_there { Manager::open(kind, &place, &asker) } else { Err("does not exist".to_owned()) } {
            Ok(manager) => return Ok(manager),
            // The place that should have been it is the one to name.
            Err(why) => first = first.or(Some(format!("{} {why}", place.display()))),
        }
    }
    Err(first.unwrap_or_default())
}

/// Whether there is something that could be the way to it: one that is not is given up soon.
pub fn is_there() -> bool {
    let places = Asker::own().map(|asker| asker.places()).unwrap_or_default();
    places.iter().any(|(kind, place)| *kind == "address" || place.exists())
}

impl Asker {
    fn own() -> Result<Self> {
        let caller = probe::caller()?;
        let is_initial = probe::is_initial(probe::own_userns());
        let maps = if is_initial { Maps::default() } else { probe::maps(Path::new("/proc/self"))? };
        let outside = maps.uids.iter().find_map(|extent| extent.outside_of(caller.uid)).unwrap_or(caller.uid);
        let variable = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        let runtime = variable.unwrap_or_else(|| format!("/run/user/{outside}").into());
        let name = runtime.file_name().and_then(|name| name.to_str()?.parse().ok());
        // Where user namespaces are nested deeper, the map does not tell the outermost id.
        let mut uids: Vec<_> = std::iter::once(outside).chain(name).chain([caller.uid]).collect();
        uids.dedup();
        Ok(Self { is_root: is_initial && caller.uid == 0, uids, runtime })
    }

    /// Where systemd may be reached, in this order.
    fn places(&self) -> Vec<(&'static str, PathBuf)> {
        if self.is_root {
            return vec![("bus", "/run/dbus/system_bus_socket".into())];
        }
        let address = std::env::var_os("DBUS_SESSION_BUS_ADDRESS").filter(|address| !address.is_empty());
        let last = address.map(|address| ("address", address.into()));
        std::iter::once(("bus", self.runtime.join("bus"))).chain(last).collect()
    }
}

impl Manager {
    fn open(kind: &str, place: &Path, asker: &Asker) -> std::result::Result<Self, String> {
        let program = helper::own(HELPER).ok_or("cannot be spoken to: pura-systemd is not installed beside pura")?;
        let words: Vec<_> = [kind.to_owned(), place.to_string_lossy().into_owned()]
            .into_iter()
            .chain(asker.uids.iter().map(ToString::to_string))
            .collect();
        let (helper, link) = helper::converse(&program, &words)
            .map_err(|errno| format!("cannot be spoken to: {} does not start: {errno}", program.display()))?;
        let facts = Facts { version: 0, cgroup: String::new(), is_user: !asker.is_root };
        let mut manager = Self { facts, link: BufReader::new(link), has_refused: false, _helper: helper };
        manager.hear(START).map_err(|why| format!("cannot be spoken to: {} {why}", program.display()))?;
        match manager.hear(ANSWER)? {
            Reply::Ready { version, cgroup } => {
                (manager.facts.version, manager.facts.cgroup) = (version, cgroup);
                Ok(manager)
            }
            Reply::Failed(why) | Reply::Refused(why) => Err(format!("gives no access: {why}")),
            Reply::Started | Reply::Done => Err("answers what was not asked".to_owned()),
        }
    }

    /// Whether it has taken nothing on of what it was asked for.
    pub fn has_refused(&self) -> bool {
        self.has_refused
    }

    /// What a plan has to know of it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Starts a unit with this process in it; returns when it runs.
    pub fn start(&mut self, unit: &Unit, process: u32) -> Result<()> {
        let mut properties = unit.properties.clone();
        properties.push(Property::new("PIDs", Value::Processes(vec![process])));
        self.ask("start", &Request::Start { unit: unit.name.clone(), properties })
    }

    /// Sets properties of a unit until it ends.
    pub fn set(&mut self, unit: &str, properties: Vec<Property>) -> Result<()> {
        self.ask("set properties of", &Request::Set { unit: unit.to_owned(), properties })
    }

    /// Moves a process into a unit, or into a cgroup below it.
    pub fn attach(&mut self, unit: &str, below: String, process: u32) -> Result<()> {
        self.ask("enter", &Request::Attach { unit: unit.to_owned(), below, process })
    }

    /// Stops a unit, if it is there; returns when it is gone.
    pub fn stop(&mut self, unit: &str) -> Result<()> {
        self.ask("stop", &Request::Stop { unit: unit.to_owned() })
    }

    fn ask(&mut self, verb: &str, request: &Request) -> Result<()> {
        let (Request::Start { unit, .. }
        | Request::Set { unit, .. }
        | Request::Attach { unit, .. }
        | Request::Stop { unit }) = request;
        let failed = |why: String| Error::new(Code::Systemd, format!("{verb} the systemd unit {unit}"), why);
        let line = serde_json::to_string(request).map_err(|error| failed(error.to_string()))?;
        writeln!(self.link.get_mut(), "{line}").map_err(|error| failed(error.to_string()))?;
        match self.hear(JOB) {
            Ok(Reply::Done) => Ok(()),
            Ok(Reply::Refused(why)) => {
                self.has_refused = true;
                Err(failed(format!("systemd says: {why}")))
            }
            Ok(Reply::Failed(why)) => Err(failed(format!("systemd says: {why}"))),
            Ok(Reply::Started | Reply::Ready { .. }) => Err(failed("systemd answers what was not asked".to_owned())),
            Err(why) => Err(failed(format!("systemd {why}"))),
        }
    }

    fn hear(&mut self, limit: Duration) -> std::result::Result<Reply, String> {
        let mut line = String::new();
        let read = self.link.get_ref().set_read_timeout(Some(limit)).and_then(|()| self.link.read_line(&mut line));
        match read {
            Ok(0) => Err("has closed the connection".to_owned()),
            Ok(_) => serde_json::from_str(&line).map_err(|error| format!("answers nonsense: {error}")),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(format!("does not answer within {} s", limit.as_secs()))
            }
            Err(error) => Err(format!("cannot be heard: {error}")),
        }
    }
}
