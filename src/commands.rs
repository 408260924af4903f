//! One file per verb; this one only chooses.

mod completion;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod living;
mod map;
mod pause;
mod plan;
mod ps;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod unshare;
mod update;
mod wait;

#[cfg(test)]
pub(crate) use spec::config as default_spec;

use std::{io::Write as _, os::fd::RawFd};

use crate::{
    cli::{Globals, Request, Verb},
    error::{Code, Context as _, Result},
    log::Log,
};

/// What every verb may need besides its own words.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Options that hold for every verb.
    pub globals: &'a Globals,
    /// Where warnings go.
    pub log: &'a Log,
    /// Descriptors that a program inherits.
    pub preserved: &'a [RawFd],
}

/// Carries out the request; the value is the exit status.
pub fn dispatch(request: &Request, log: &Log, preserved: &[RawFd]) -> Result<u8> {
    let call = Call { globals: &request.globals, log, preserved };
    match &request.verb {
        Verb::Create(create) => create::create(call, create),
        Verb::Run(run) => run::bundle(call, run),
        Verb::ZeroConfig(zero) => run::command(call, zero),
        Verb::Plan(of) => say(&plan::plan(call, of)?),
        Verb::Exec(exec) => exec::exec(call, exec),
        Verb::Start { id } => start::start(call, id),
        Verb::State { id } => say(&state::state(call, id)?),
        Verb::Wait { id } => say(&wait::wait(call, id)?),
        Verb::Kill { id, signal, all, regex } => {
            kill::kill(call, id, signal.as_deref(), kill::Reach { all: *all, regex: *regex })
        }
        Verb::Delete { id, force, regex } => delete::delete(call, id, *force, *regex),
        Verb::Pause { id } => pause::pause(call, id),
        Verb::Resume { id } => resume::resume(call, id),
        Verb::Update(update) => update::update(call, update),
        Verb::Events(events) => events::events(call, events),
        Verb::Ps(ps) => say(&ps::ps(call, ps)?),
        Verb::List { format, quiet } => say(&list::list(call, *format, *quiet)?),
        Verb::Spec { bundle, file } => spec::spec(bundle, file.as_deref()),
        Verb::Unshare { command } => unshare::unshare(call, command),
        Verb::Map(map) => say(&map::map(call, map)?),
        Verb::Doctor(remedy) => {
            let (text, status) = crate::doctor::doctor(call.globals, *remedy)?;
            say(&text).map(|_zero| status)
        }
        Verb::Completion { shell } => say(&completion::completion(*shell)),
        Verb::Features => say(&features::features()?),
        Verb::Say(text) => say(text),
    }
}

fn say(text: &str) -> Result<u8> {
    let mut stdout = std::io::stdout();
    // Nobody flushes for us at the end.
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.doing(Code::FileRefused, || "write to standard output".to_owned())?;
    Ok(0)
}
