//! `pura doctor`: what of this machine stands in the way, why, and what to do. Everything is tried for real; nothing is
//! changed, and nothing is left.

mod check;
mod facts;
mod trial;

use std::{fmt::Write as _, io::IsTerminal as _};

use serde_json::{Value, json};

use crate::{
    cli::{Globals, Remedy},
    error::{Code, Error, Result, Warning},
};

/// How a check came out; the worst of all is that of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// It could not be tried, for a reason that another check has.
    Skip,
    /// Well.
    Ok,
    /// Something is weaker than it could be.
    Warn,
    /// Containers cannot run.
    Fail,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Skip => "2",
            Self::Ok => "32",
            Self::Warn => "33",
            Self::Fail => "31",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
struct Check {
    id: &'static str,
    status: Status,
    /// What is said when there is no problem.
    good: String,
    /// Worst first.
    problems: Vec<(Status, Warning)>,
    facts: Vec<(&'static str, Value)>,
}

impl Check {
    fn new(id: &'static str, good: String) -> Self {
        Self { id, status: Status::Ok, good, problems: Vec::new(), facts: Vec::new() }
    }

    fn add(&mut self, status: Status, problem: Warning) {
        self.status = self.status.max(status);
        let place = self.problems.iter().position(|(other, _)| *other < status).unwrap_or(self.problems.len());
        self.problems.insert(place, (status, problem));
    }

    fn fail(&mut self, problem: Warning) {
        self.add(Status::Fail, problem);
    }

    fn warn(&mut self, problem: Warning) {
        self.add(Status::Warn, problem);
    }

    fn fact(&mut self, name: &'static str, value: Value) {
        self.facts.push((name, value));
    }

    /// The worst problem.
    fn first(&self) -> Option<&Warning> {
        self.problems.first().map(|(_, problem)| problem)
    }

    /// The worst problem in words, and the others behind it, each with its code.
    fn finding(&self) -> String {
        let mut others = self.problems.iter();
        let Some((_, worst)) = others.next() else { return self.good.clone() };
        let mut finding = worst.what().to_owned();
        for (_, other) in others {
            let _ = write!(finding, "; also: {} [PURA-{:03}]", other.what(), other.code() as u32);
        }
        finding
    }
}

/// Carries the verb out: the text, and the exit status.
pub fn doctor(globals: &Globals, remedy: Remedy) -> Result<(String, u8)> {
    if remedy == Remedy::Profile {
        return Ok((profile()?, 0));
    }
    let checks = check::all(&facts::gather(globals)?);
    let worst = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok);
    let text = match remedy {
        Remedy::Table => table(&checks),
        Remedy::Json => document(&checks, worst)?,
        Remedy::Script | Remedy::Profile => script(&checks)?,
    };
    let status = match worst {
        Status::Skip | Status::Ok => 0,
        Status::Warn => 1,
        Status::Fail => 2,
    };
    Ok((text, if remedy == Remedy::Script { 0 } else { status }))
}

fn table(checks: &[Check]) -> String {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut text = String::new();
    for check in checks {
        let word = check.status.word().to_uppercase();
        let (on, off) =
            if colours { (format!("\x1b[{}m", check.status.colour()), "\x1b[0m") } else { (String::new(), "") };
        let _ = write!(text, "{:<11} {on}{word:<4}{off}  {}", check.id, check.finding());
        if let Some(problem) = check.first() {
            let _ = write!(text, "  [PURA-{:03}]", problem.code() as u32);
            if let Some(fix) = problem.remedy() {
                let _ = write!(text, "  fix: {fix}");
            }
        }
        text.push('\n');
    }
    text
}

fn document(checks: &[Check], worst: Status) -> Result<String> {
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            let problem = check.first();
            let facts: serde_json::Map<_, _> =
                check.facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            json!({
                "id": check.id,
                "status": check.status.word(),
                "finding": check.finding(),
                "code": problem.map(|problem| format!("PURA-{:03}", problem.code() as u32)),
                "fix": problem.and_then(Warning::remedy),
                "facts": facts
            })
        })
        .collect();
    let whole = json!({ "version": 1, "pura": env!("CARGO_PKG_VERSION"), "status": worst.word(), "checks": checks });
    let text = serde_json::to_string_pretty(&whole);
    text.map(|text| text + "\n").map_err(|error| Error::new(Code::Bug, "print the checks", error.to_string()))
}

/// What root would have to do, as a script that nobody has run.
fn script(checks: &[Check]) -> Result<String> {
    let mut text = "#!/bin/sh\n# What root can do about the findings of pura doctor. Read it first: nothing of it has been done.\nset -e\n".to_owned();
    for (check, (_, problem)) in
        checks.iter().flat_map(|check| check.problems.iter().map(move |problem| (check, problem)))
    {
        let _ = write!(text, "\n# {}: {} [PURA-{:03}]\n", check.id, problem.what(), problem.code() as u32);
        let fix = problem.remedy().unwrap_or_default();
        if problem.code() == Code::UsernsAppArmor {
            let _ = write!(
                text,
                "cat >/etc/apparmor.d/pura <<'END'\n{}END\napparmor_parser -r /etc/apparmor.d/pura\n",
                profile()?
            );
        } else if problem.code() == Code::Controller {
            text.push_str(
                "mkdir -p /etc/systemd/system/user@.service.d\n\
                 printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' >/etc/systemd/system/user@.service.d/delegate.conf\n\
                 systemctl daemon-reload\n",
            );
        } else if let Some(command) = fix.strip_prefix("sudo ") {
            let _ = writeln!(text, "{}", command.split(", ").next().unwrap_or_default());
        } else if !fix.is_empty() {
            let _ = writeln!(text, "# {fix}");
        }
    }
    Ok(text)
}

/// A profile for the running binary, by path: hosts that restrict user namespaces exempt only programs with one.
fn profile() -> Result<String> {
    use crate::error::Context as _;
    let path = std::fs::read_link("/proc/self/exe").doing(Code::Proc, || "read /proc/self/exe".to_owned())?;
    let path = path.to_string_lossy();
    let escaped = path.chars().fold(String::new(), |mut escaped, letter| {
        // Patterns and variables of apparmor.d(5).
        if "\\\"*?[]{}^,@".contains(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
        escaped
    });
    Ok(format!(
        "# Lets pura use the user namespaces that it makes: it stays unconfined otherwise.\n\
         abi <abi/4.0>,\n\nprofile pura \"{escaped}\" flags=(unconfined) {{\n  userns,\n\n  include if exists <local/pura>\n}}\n"
    ))
}

#[cfg(test)]
mod tests;
