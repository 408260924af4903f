//! The manual page, made of the table and of the prose in docs/man: a test keeps docs/man/pura.1 up to date.
//!
//! `PURA_BLESS=1 PURA_TEST_AS=root cargo test --lib manual` writes it anew.

use std::{fmt::Write as _, fs, path::Path};

use super::table::{Flag, GLOBALS, Operand, VERBS, Value, Verb};

/// Text as roff takes it: `groff(7)`.
fn plain(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

/// A flag with its value, in bold and italics.
fn tag(flag: &Flag) -> String {
    let long = plain(flag.long);
    let short = flag.short.map_or_else(String::new, |short| format!("\\fB\\-{short}\\fR, "));
    let value = match flag.value {
        Value::None => String::new(),
        Value::One(name) | Value::Many(name) => format!(" \\fI{}\\fR", plain(name)),
        Value::Optional(name) => format!("[=\\fI{}\\fR]", plain(name)),
    };
    let again = if matches!(flag.value, Value::Many(_)) { " ..." } else { "" };
    format!("{short}\\fB\\-\\-{long}\\fR{value}{again}")
}

/// Flags with their help; those without are accepted for engines, and have no effect.
fn flags(page: &mut String, flags: impl Iterator<Item = &'static Flag>) {
    for flag in flags.filter(|flag| !flag.help.is_empty()) {
        let _ = writeln!(page, ".TP\n{}\n{}.", tag(flag), plain(flag.help));
    }
}

fn operand(operand: &Operand) -> String {
    let name = if operand.rest { "WORDS ..." } else { operand.name };
    if operand.required { format!("\\fI{name}\\fR") } else { format!("[\\fI{name}\\fR]") }
}

fn verb(page: &mut String, verb: &'static Verb) {
    let operands: Vec<_> = verb.operands.iter().map(operand).collect();
    let has_flags = verb.flags.iter().any(|group| !group.is_empty());
    let options = if has_flags { " [\\fIoptions\\fR]" } else { "" };
    let _ = writeln!(page, ".SS pura {}", verb.name);
    let _ = writeln!(page, "\\fBpura {}\\fR{options} {}", verb.name, operands.join(" "));
    let _ = writeln!(page, ".PP\n{}.", plain(verb.about));
    if !verb.details.is_empty() {
        let lines: Vec<_> = verb.details.lines().map(plain).collect();
        let _ = writeln!(page, ".PP\n.nf\n{}\n.fi", lines.join("\n"));
    }
    // Those of run are the same.
    if verb.name == "plan" {
        let _ = writeln!(page, ".PP\nThe options are those of \\fBpura run\\fR.");
        return;
    }
    flags(page, verb.flags.iter().copied().flatten());
}

fn page(docs: &Path) -> String {
    let prose = |name: &str| fs::read_to_string(docs.join(name)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".\\\" Made of src/cli/table.rs, prose.roff and end.roff: see src/cli/manual.rs.\n.TH PURA 1 \"\" \"pura {version}\"\n\
         .SH NAME\npura \\- rootless OCI container runtime\n\
         .SH SYNOPSIS\n\\fBpura\\fR [\\fIglobal options\\fR] \\fIVERB\\fR [\\fIoptions\\fR] [\\fIoperands\\fR]\n"
    );
    page += &prose("prose.roff");
    page += ".SH GLOBAL OPTIONS\nThey stand before the verb.\n";
    flags(&mut page, GLOBALS.iter());
    page += ".SH VERBS\n";
    for known in VERBS {
        verb(&mut page, known);
    }
    page + &prose("end.roff")
}

#[test]
fn the_manual_page_says_what_the_command_line_takes() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man");
    let (file, page) = (docs.join("pura.1"), page(&docs));
    if std::env::var_os("PURA_BLESS").is_some() {
        fs::write(&file, &page).unwrap();
    }
    let fix = "PURA_BLESS=1 PURA_TEST_AS=root cargo test --lib manual";
    assert_eq!(fs::read_to_string(&file).unwrap_or_default(), page, "fix: {fix}");
}
