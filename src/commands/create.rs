//! `pura create`: everything but the program.

use super::Call;
use crate::{
    bundle,
    cli::{Create, Limiting},
    container::Making,
    error::Result,
    store::Id,
};

/// Makes a container that waits for `start`.
pub(super) fn create(call: Call<'_>, create: &Create) -> Result<u8> {
    let id = Id::parse(&create.id)?;
    let bundle = bundle::open(create)?;
    let making = Making {
        globals: call.globals,
        create,
        id: &id,
        bundle: &bundle,
        waits: true,
        limiting: Limiting::Strict,
        reaped: false,
        detached: true,
        assembly: None,
        loud: false,
        log: call.log,
        preserved: call.preserved,
    };
    making.make()?.keep();
    Ok(0)
}
