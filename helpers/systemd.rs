//! `pura-systemd bus|address PLACE UID...`: speaks to systemd over D-Bus for pura, which has no room for that.
//!
//! `bus` is the path of a message bus's socket, `address` a D-Bus address. Each uid is one that the other
//! side may know us by: in a user namespace that is not the one that the kernel shows us. What is asked for comes in on
//! standard input and is answered on standard output (`pura::systemd::message`). It decides nothing, and ends with pura.

use std::{
    io::{self, BufRead as _, Write as _},
    os::unix::net::UnixStream,
    pin::Pin,
    process::ExitCode,
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use pura::systemd::message::{Property, Reply, Request, Value};
use zbus::{Connection, OwnedObjectPath, Variant, connection::Builder, export::futures_core::Stream as _};

/// How long one call may take: systemd's own default for starting a unit is 90 s. pura itself is less patient.
const LIMIT: Duration = Duration::from_mins(1);

type Settings<'a> = Vec<(&'a str, Variant<'a>)>;

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &Settings<'_>,
        auxiliary: &[(&str, Settings<'_>)],
    ) -> zbus::Result<OwnedObjectPath>;
    fn set_unit_properties(&self, name: &str, runtime: bool, properties: &Settings<'_>) -> zbus::Result<()>;
    fn attach_processes_to_unit(&self, name: &str, below: &str, processes: &[u32]) -> zbus::Result<()>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn version(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn control_group(&self) -> zbus::Result<String>;
}

fn main() -> ExitCode {
    // Whatever the bus does, nothing of this outlives pura.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    match say(&Reply::Started).and_then(|()| zbus::block_on(serve())) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody listens any more.
        Err(_) => ExitCode::FAILURE,
    }
}

fn say(reply: &Reply) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(reply)?)?;
    stdout.flush()
}

async fn serve() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (manager, mut jobs) = match reach(&words).await {
        Ok((ready, manager, jobs)) => {
            say(&ready)?;
            (manager, jobs)
        }
        Err(error) => return say(&Reply::Failed(explain(&error))),
    };
    for line in io::stdin().lock().lines() {
        let request = serde_json::from_str(&line?)?;
        let done = answer(&manager, &mut jobs, &request).await;
        say(&done.map_or_else(|failure| failure, |()| Reply::Done))?;
    }
    Ok(())
}

/// Connects, as the first of the uids that is taken, and asks for what pura has to know before it decides.
async fn reach(words: &[String]) -> zbus::Result<(Reply, ManagerProxy<'static>, JobRemovedStream)> {
    let [kind, place, uids @ ..] = words else {
        return Err(zbus::Error::Failure("pura-systemd is for pura".to_owned()));
    };
    let mut connected = Err(zbus::Error::Unsupported);
    for uid in uids.iter().filter_map(|uid| uid.parse().ok()) {
        connected = connect(kind, place, uid).await;
        if !matches!(connected, Err(zbus::Error::Handshake(_))) {
            break;
        }
    }
    let manager = ManagerProxy::new(&connected?).await?;
    // Before the first job: its end must not be missed.
    let jobs = manager.receive_job_removed().await?;
    manager.subscribe().await?;
    let version = manager.version().await?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    let cgroup = manager.control_group().await?;
    let ready = Reply::Ready { version: digits.parse().unwrap_or(0), cgroup: cgroup.trim_end_matches('/').to_owned() };
    Ok((ready, manager, jobs))
}

async fn connect(kind: &str, place: &str, uid: u32) -> zbus::Result<Connection> {
    let builder = if kind == "address" { Builder::address(place) } else { Builder::unix_stream(dial(place)?) };
    builder.user_id(uid).method_timeout(LIMIT).build().await
}

/// Connects to a bus whose owner means the same processes as we do by their ids: one that was bound into a container does not,
/// and would move a stranger.
fn dial(place: &str) -> zbus::Result<UnixStream> {
    let stream = UnixStream::connect(place)?;
    // Who is in no PID namespace of ours has no id here: `unix(7)`.
    match getsockopt(&stream, PeerCredentials).map_err(io::Error::from)?.pid() {
        0 => Err(zbus::Error::Failure("it is in another PID namespace than pura".to_owned())),
        _ => Ok(stream),
    }
}

async fn answer(manager: &ManagerProxy<'_>, jobs: &mut JobRemovedStream, request: &Request) -> Result<(), Reply> {
    let refused = |error: zbus::Error| Reply::Refused(explain(&error));
    let failed = |error: zbus::Error| Reply::Failed(explain(&error));
    match request {
        Request::Start { unit, properties } => {
            let job = manager.start_transient_unit(unit, "fail", &settings(properties), &[]).await.map_err(refused)?;
            match end(jobs, &job).await.map_err(failed)?.as_str() {
                "done" => Ok(()),
                result => Err(Reply::Failed(format!("its job has ended with {result:?}"))),
            }
        }
        Request::Set { unit, properties } => {
            manager.set_unit_properties(unit, true, &settings(properties)).await.map_err(refused)
        }
        Request::Attach { unit, below, process } => {
            manager.attach_processes_to_unit(unit, below, &[*process]).await.map_err(refused)
        }
        Request::Stop { unit } => {
            match manager.stop_unit(unit, "replace").await {
                Ok(job) => end(jobs, &job).await.map(drop).map_err(failed)?,
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(refused(error)),
            }
            match manager.reset_failed_unit(unit).await {
                Err(error) if !is_absent(&error) => Err(failed(error)),
                _ => Ok(()),
            }
        }
    }
}

/// Waits for the end of a job; its result.
async fn end(jobs: &mut JobRemovedStream, job: &OwnedObjectPath) -> zbus::Result<String> {
    while let Some(signal) = std::future::poll_fn(|task| Pin::new(&mut *jobs).poll_next(task)).await {
        let ended = signal.args()?;
        if ended.job() == job {
            return Ok(ended.result().clone());
        }
    }
    Err(zbus::Error::Failure("the bus has closed the connection".to_owned()))
}

fn settings(properties: &[Property]) -> Settings<'_> {
    let variant = |value: &Value| match value {
        Value::Number(number) => Variant::from(*number),
        Value::Integer(number) => Variant::from(*number),
        Value::Switch(is_on) => Variant::from(*is_on),
        Value::Text(text) => Variant::from(text.clone()),
        Value::Texts(texts) => Variant::from(texts.clone()),
        Value::Mask(bytes) => Variant::from(bytes.clone()),
        Value::Processes(ids) => Variant::from(ids.clone()),
    };
    properties.iter().map(|property| (property.name.as_str(), variant(&property.value))).collect()
}

fn is_absent(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit")
}

/// What systemd says, without the name of the error where it says something.
fn explain(error: &zbus::Error) -> String {
    let text = if let zbus::Error::MethodError(_, Some(text), _) = error { text.clone() } else { error.to_string() };
    text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}
