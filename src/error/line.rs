//! Words of others in lines for people: they end no line, and give a terminal no orders.

use std::fmt::{self, Write};

/// A sink in which control characters become what Rust writes for them: `\n`, `\u{1b}`.
#[derive(Debug)]
pub struct Line<W>(pub W);

impl<W: Write> Write for Line<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.split_inclusive(char::is_control).try_for_each(|part| {
            let harmless = part.trim_end_matches(char::is_control);
            self.0.write_str(harmless)?;
            part.chars()
                .filter(|last| last.is_control())
                .try_for_each(|last| write!(self.0, "{}", last.escape_default()))
        })
    }
}

/// Writes a whole line, its end included.
pub fn line(f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>) -> fmt::Result {
    Line(&mut *f).write_fmt(text)?;
    f.write_char('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_line_or_order_a_terminal_is_spelt_out() {
        for (text, wanted) in [
            ("", ""),
            ("plain é\u{2028}", "plain é\u{2028}"),
            ("a\nb\t", "a\\nb\\t"),
            ("\u{1b}[2J\0\u{85}\r\u{7f}x", "\\u{1b}[2J\\u{0}\\u{85}\\r\\u{7f}x"),
        ] {
            let mut line = Line(String::new());
            line.write_str(text).unwrap();
            assert_eq!(line.0, wanted);
        }
    }
}
