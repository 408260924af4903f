//! `pura list`: the caller's containers.

use std::fmt::Write as _;

use super::Call;
use crate::{
    cli::ListFormat,
    error::{Code, Error, Result},
    state::State,
    store::{Glance, Roots},
};

/// The containers of every state directory of the caller's; damaged entries, and those of others, are left out.
pub(super) fn list(call: Call<'_>, format: ListFormat, quiet: bool) -> Result<String> {
    let roots = Roots::find(call.globals)?;
    if format == ListFormat::Table && !quiet {
        // A person; programs take no directory for no containers.
        roots.insist()?;
    }
    if format == ListFormat::Table || quiet {
        return table(&roots, quiet);
    }
    let mut states = Vec::new();
    for root in roots.existing()? {
        let mut glance = Glance::into(&root);
        states.extend(root.ids().iter().filter_map(|id| State::glance(&mut glance, &root, id)));
    }
    let json = serde_json::to_string(&states);
    json.map(|json| json + "\n").map_err(|error| Error::new(Code::Bug, "list the containers", error.to_string()))
}

fn table(roots: &Roots, quiet: bool) -> Result<String> {
    let mut table = Table::default();
    table.row([&"ID", &"PID", &"STATUS", &"BUNDLE", &"CREATED", &"OWNER"]);
    for root in roots.existing()? {
        let mut glance = Glance::into(&root);
        for id in root.ids() {
            if let Some(brief) = glance.brief(&id) {
                if quiet {
                    table.row([&id, &"", &"", &"", &"", &""]);
                    continue;
                }
                let status = brief.status(&root, &id);
                let pid = State::pid(status, brief.init);
                table.row([&id, &pid, &status, &brief.bundle, &brief.created, &brief.owner]);
            } else if let Some(state) = State::find(&root, &id) {
                let bundle = state.bundle.display();
                table.row([&state.id, &state.pid, &state.status, &bundle, &state.created, &state.owner]);
            }
        }
    }
    Ok(if quiet { table.first_column() } else { table.text() })
}

const COLUMNS: usize = 6;

/// Cells one after the other: a list of many is to cost no allocation for each.
#[derive(Default)]
struct Table {
    cells: String,
    /// Of each cell: where it ends, and how wide it is.
    ends: Vec<(usize, usize)>,
    widths: [usize; COLUMNS],
}

impl Table {
    fn row(&mut self, row: [&dyn std::fmt::Display; COLUMNS]) {
        for (cell, widest) in row.into_iter().zip(&mut self.widths) {
            let start = self.cells.len();
            let _ = write!(self.cells, "{cell}");
            let width = self.cells.get(start..).unwrap_or_default().chars().count();
            *widest = width.max(*widest);
            self.ends.push((self.cells.len(), width));
        }
    }

    /// Each cell with its width, row by row.
    fn rows(&self) -> impl Iterator<Item = impl Iterator<Item = (&str, usize)>> {
        let mut start = 0;
        self.ends.chunks(COLUMNS).map(move |row| {
            let last = row.last().map_or(start, |(end, _)| *end);
            let first = std::mem::replace(&mut start, last);
            row.iter().scan(first, |from, (end, width)| {
                let cell = self.cells.get(std::mem::replace(from, *end)..*end);
                Some((cell.unwrap_or_default(), *width))
            })
        })
    }

    fn first_column(&self) -> String {
        let mut text = String::new();
        for (cell, _) in self.rows().skip(1).filter_map(|mut row| row.next()) {
            text.push_str(cell);
            text.push('\n');
        }
        text
    }

    fn text(&self) -> String {
        let wide = self.widths.iter().sum::<usize>() + 2 * COLUMNS;
        let mut text = String::with_capacity(self.ends.len() / COLUMNS * wide);
        for row in self.rows() {
            for ((cell, width), widest) in row.zip(self.widths) {
                text.push_str(cell);
                text.extend(std::iter::repeat_n(' ', widest - width + 2));
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_columns_as_wide_as_their_widest_cell() {
        let mut table = Table::default();
        table.row([&"ID", &"PID", &"STATUS", &"BUNDLE", &"CREATED", &"OWNER"]);
        table.row([&"ä", &7, &"running", &"/b", &"", &"me"]);
        table.row([&"long-id", &12345, &"stopped", &"/", &"", &""]);
        let wanted = "ID       PID    STATUS   BUNDLE  CREATED  OWNER\n\
                      ä        7      running  /b               me\n\
                      long-id  12345  stopped  /\n";
        assert_eq!(table.text(), wanted);
        assert_eq!(table.first_column(), "ä\nlong-id\n");
        assert_eq!(Table::default().text(), "");
    }
}
