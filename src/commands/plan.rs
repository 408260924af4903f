//! `pura plan`: everything that `pura run` decides, and nothing that it does.

use super::Call;
use crate::{
    bundle::{self, Bundle},
    cli::{Run, Verb},
    container::Making,
    error::{Code, Error, Result},
    plan::Assembly,
    store::Id,
    zero_config,
};

/// The numbered plan, as text.
pub(super) fn plan(call: Call<'_>, of: &Verb) -> Result<String> {
    if let Verb::Run(run) = of {
        let id = Id::parse(&run.create.id)?;
        // The id that a plan without words has.
        let is_unnamed = id.as_str() == "plan";
        let bundle =
            if is_unnamed { bundle::open(&run.create)? } else { bundle::open_unless_command(&run.create, "plan")? };
        return print(call, run, &id, &bundle, None);
    }
    if let Verb::ZeroConfig(zero) = of {
        let (bundle, assembly) = zero_config::bundle(zero, call.globals.userns)?;
        return print(call, &zero.run, &zero_config::id(zero)?, &bundle, assembly.as_ref())
            .map_err(|error| zero_config::at_option(zero, error));
    }
    Err(Error::new(Code::Bug, "plan", format!("there is no plan of {of:?}")))
}

fn print(call: Call<'_>, run: &Run, id: &Id, bundle: &Bundle, assembly: Option<&Assembly>) -> Result<String> {
    let making = Making {
        globals: call.globals,
        create: &run.create,
        id,
        bundle,
        waits: false,
        detached: false,
        limiting: run.limiting,
        reaped: run.reaped,
        assembly,
        loud: true,
        log: call.log,
        preserved: call.preserved,
    };
    let mut planned = making.plan()?;
    planned.plan.warnings.extend(bundle.unknown_keys());
    Ok(planned.to_string())
}
