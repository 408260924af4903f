//! create, start, and the end of a container.

use anyhow::Result;
use crate::harness::Bundle;

#[test]
fn the_suite_can_tell_what_is_inside() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::new()?;
    let facts = bundle.facts()?;
    eprintln!("{facts:?}");
    Ok(())
}
