//! The workers, one for each command and config, and the table of what they found.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc::{Sender, channel},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    choice::Choice,
    judge::Row,
    op::{Config, Op},
};

/// Sweeps all that was chosen. Status 1 when a point is not as it should be.
pub(crate) fn sweep(choice: &Choice) -> Result<ExitCode> {
    let begin = Instant::now();
    let mut units: VecDeque<(Config, Op)> =
        choice.configs.iter().flat_map(|config| choice.ops.iter().map(|op| (*config, *op))).collect();
    let (send, receive) = channel();
    let (mut running, mut rows, mut failed) = (0, Vec::new(), 0);
    let out = &mut std::io::stdout();
    loop {
        while running < choice.jobs.max(1)
            && let Some((config, op)) = units.pop_front()
        {
            start(config, op, send.clone())?;
            running += 1;
        }
        if running == 0 {
            break;
        }
        match receive.recv()? {
            Told::Row(row) => {
                print(&mut *out, &row, choice.is_verbose)?;
                rows.push(*row);
            }
            Told::End(is_good) => {
                running -= 1;
                failed += u32::from(!is_good);
            }
        }
    }
    let sum = |of: fn(&Row) -> u32| rows.iter().map(of).sum::<u32>();
    let faults = rows.iter().map(|row| row.faults.len()).sum::<usize>();
    writeln!(out, "\n{HEAD}\n{:<8}{:<14}{:<15}{}", "all", "", "", numbers(|of| sum(of)))?;
    writeln!(
        out,
        "{faults} points not as they should be, {failed} workers failed, {:.0} s",
        begin.elapsed().as_secs_f64()
    )?;
    Ok(if faults == 0 && failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const HEAD: &str = "config  op            fault          points missed success  clean cleaned warned  leaks  hangs panics   open silent broken";

fn numbers(sum: impl Fn(fn(&Row) -> u32) -> u32) -> String {
    let columns: [fn(&Row) -> u32; 12] = [
        |row| row.points,
        |row| row.missed,
        |row| row.succeeded,
        |row| row.clean,
        |row| row.cleaned,
        |row| row.warned,
        |row| row.leaks,
        |row| row.hangs,
        |row| row.panics,
        |row| row.open,
        |row| row.silent,
        |row| row.broken,
    ];
    columns.into_iter().map(|column| format!("{:>7}", sum(column))).collect::<Vec<_>>().concat()
}

fn print(out: &mut impl std::io::Write, row: &Row, is_verbose: bool) -> Result<()> {
    writeln!(out, "{:<8}{:<14}{:<15}{}", row.config, row.op, row.fault, numbers(|of| of(row)))?;
    for fault in &row.faults {
        writeln!(out, "  {fault}")?;
    }
    for note in row.notes.iter().filter(|_| is_verbose) {
        writeln!(out, "  note: {note}")?;
    }
    Ok(out.flush()?)
}

enum Told {
    Row(Box<Row>),
    End(bool),
}

/// Starts a worker, which has processes and orphans of its own, and passes on what it finds.
fn start(config: Config, op: Op, told: Sender<Told>) -> Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    words.extend(["--config".to_owned(), config.to_string(), "--op".to_owned(), op.to_string()]);
    let mut command = Command::new(std::env::current_exe()?);
    let child = command.arg("worker").args(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    std::thread::spawn(move || {
        let is_good = listen(child, &told).inspect_err(|error| {
            drop(writeln!(std::io::stderr(), "pura-sweep: {error:#}"));
        });
        told.send(Told::End(is_good.is_ok()))
    });
    Ok(())
}

fn listen(mut child: Child, told: &Sender<Told>) -> Result<()> {
    for line in BufReader::new(child.stdout.take().context("stdout")?).lines() {
        told.send(Told::Row(Box::new(serde_json::from_str(&line?)?)))?;
    }
    let status = child.wait()?;
    ensure!(status.success(), "a worker: {status}");
    Ok(())
}
