//! `pura run`: the whole life of a container, top to bottom.

use std::{io::Write as _, time::Instant};

use super::Call;
use crate::{
    bundle::{self, Bundle},
    cli::{Run, ZeroConfig},
    container::Making,
    error::Result,
    plan::Assembly,
    spec,
    store::Id,
    supervise,
    usage::Usage,
    zero_config,
};

/// Runs the program of a bundle and returns its exit status.
pub(super) fn bundle(call: Call<'_>, run: &Run) -> Result<u8> {
    let id = Id::parse(&run.create.id)?;
    let bundle = bundle::open_unless_command(&run.create, "run")?;
    live(call, run, &id, &bundle, Source::Bundle)
}

/// Runs a command without a bundle.
pub(super) fn command(call: Call<'_>, zero: &ZeroConfig) -> Result<u8> {
    let id = zero_config::id(zero)?;
    let (bundle, assembly) = zero_config::bundle(zero, call.globals.userns)?;
    live(call, &zero.run, &id, &bundle, Source::Command(assembly.as_ref()))
        .map_err(|error| zero_config::at_option(zero, error))
}

/// Where a config comes from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// An engine, or a person who wrote it.
    Bundle,
    /// The command line of a person.
    Command(Option<&'a Assembly>),
}

fn live(call: Call<'_>, run: &Run, id: &Id, bundle: &Bundle, source: Source<'_>) -> Result<u8> {
    spec::require_program(&bundle.spec).map_err(|error| bundle.with_unknown_keys(error))?;
    let (assembly, loud) = match source {
        Source::Bundle => (None, false),
        Source::Command(assembly) => (assembly, true),
    };
    let making = Making {
        globals: call.globals,
        create: &run.create,
        id,
        bundle,
        waits: false,
        detached: run.detach,
        limiting: run.limiting,
        reaped: run.reaped,
        assembly,
        loud,
        log: call.log,
        preserved: call.preserved,
    };
    // What init and the mappers do before the program runs is in the kernel's account too.
    let begin = Instant::now();
    let mut made = making.make()?;
    if run.detach {
        made.keep();
        if loud {
            // A person has to be told which one it is. No failure: the container runs.
            drop(writeln!(std::io::stdout(), "{id}"));
        }
        return Ok(0);
    }
    let status = supervise::wait(&mut made.container, call.log)?;
    if run.stats {
        // Who cannot be told, because standard error is closed, does not look.
        drop(writeln!(std::io::stderr(), "pura: {}", Usage::since(begin, made.cgroup())));
    }
    if run.keep {
        made.keep();
    } else if made.remove()? {
        // Else another verb has removed it, and run them.
        making.hooks().stopped(call.log)?;
    }
    Ok(status)
}
