//! `pura list`: the caller's containers.

use std::fmt::Write as _;

use super::Call;
use crate::{
    cli::ListFormat,
    error::{Code, Error, Result},
    state::State,
    store::Roots,
};

/// The containers of every state directory of the caller's; damaged entries, and those of others, are left out.
pub(super) fn list(call: Call<'_>, format: ListFormat, quiet: bool) -> Result<String> {
    let mut states = Vec::new();
    let roots = Roots::find(call.globals)?;
    if format == ListFormat::Table && !quiet {
        // A person; programs take no directory for no containers.
        roots.insist()?;
    }
    for root in roots.existing()? {
        for id in root.ids() {
            states.extend(State::glance(&root, &id));
        }
    }
    if quiet {
        return Ok(states.iter().fold(String::new(), |text, state| text + &state.id + "\n"));
    }
    match format {
        ListFormat::Table => Ok(table(&states)),
        ListFormat::Json => {
            let json = serde_json::to_string(&states);
            json.map(|json| json + "\n")
                .map_err(|error| Error::new(Code::Bug, "list the containers", error.to_string()))
        }
    }
}

fn table(states: &[State]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(states.iter().map(|state| {
        let bundle = state.bundle.display().to_string();
        [
            state.id.clone(),
            state.pid.to_string(),
            state.status.to_string(),
            bundle,
            state.created.clone(),
            state.owner.clone(),
        ]
    }));
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..6).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, wide)| format!("{cell:wide$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}
