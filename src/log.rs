//! The log file of `--log`, and where warnings go: engines parse stderr, so only people get them there.

mod service;

use std::{
    fs::{File, OpenOptions},
    io::{IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
};

use crate::{
    cli::{Globals, LogFormat, LogLevel},
    clock,
    error::{Code, Context as _, Error, Result, Warning},
};
use service::Service;

/// The log of one invocation; without `--log` it writes nowhere and costs no system call.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<File>,
    service: Option<Service>,
    format: LogFormat,
    level: LogLevel,
    strict: bool,
}

impl Log {
    /// Opens the file at start-up, because engines open it whatever happens; appends, because several calls share it.
    pub fn open(globals: &Globals) -> Result<Self> {
        let open = |path: &std::path::PathBuf| {
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
            let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path);
            let opened = file.doing(Code::FileRefused, || format!("write the log {path:?}"));
            opened.map_err(|error| error.fix("--log with a file that you may write, and no link"))
        };
        let file = globals.log.as_ref().map(open).transpose()?;
        let service = globals.log_service.as_ref().and_then(Service::connect);
        Ok(Self { file, service, format: globals.log_format, level: globals.log_level, strict: globals.strict })
    }

    /// Whether degradations are errors.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// The final error.
    pub fn error(&self, error: &Error) {
        self.line("error", &error.to_string(), Some(error.code()));
    }

    /// Degradations: errors under `--strict`; else lines of the log at its level, and of stderr where a person looks:
    /// on a terminal, and when `loud`.
    pub fn warn(&self, warnings: &[Warning], loud: bool) -> Result<()> {
        if let Some(first) = warnings.first().filter(|_| self.strict) {
            return Err(first.clone().into_error());
        }
        for warning in warnings {
            self.tell(warning, loud);
        }
        Ok(())
    }

    /// Whether anybody hears a warning that is not loud.
    pub fn hears_warnings(&self) -> bool {
        self.level >= LogLevel::Warning || std::io::stderr().is_terminal()
    }

    /// A warning that is no degradation.
    pub fn tell(&self, warning: &Warning, loud: bool) {
        if self.level >= LogLevel::Warning {
            self.line("warning", &warning.to_string(), Some(warning.code()));
        }
        let mut stderr = std::io::stderr();
        if loud || stderr.is_terminal() {
            // In one write, so that nothing comes between.
            drop(stderr.write_all(format!("pura: warning: {warning}\n").as_bytes()));
        }
    }

    fn line(&self, level: &str, message: &str, code: Option<Code>) {
        let code = code.map(|code| format!("PURA-{:03}", code as u32)).unwrap_or_default();
        if let Some(service) = &self.service {
            service.line(if level == "error" { 3 } else { 4 }, message, &code);
        }
        let Some(mut file) = self.file.as_ref() else { return };
        let time = clock::now();
        // JSON's escapes serve the text form too: a message never breaks the line.
        let quoted = serde_json::to_string(message).unwrap_or_default();
        let line = match self.format {
            LogFormat::Json => {
                format!("{{\"level\":\"{level}\",\"msg\":{quoted},\"time\":\"{time}\",\"code\":\"{code}\"}}\n")
            }
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={quoted}\n"),
        };
        // One write, so that lines of several processes do not mix; a full disk must not hide the error itself.
        drop(file.write_all(line.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_log_is_appended_json_and_only_the_error_by_default() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "before\n").unwrap();
        let globals = Globals { log: Some(path.clone()), log_format: LogFormat::Json, ..Globals::default() };
        let log = Log::open(&globals).unwrap();
        log.warn(&[Warning::new(Code::SingleId, "weaker")], false).unwrap();
        log.error(&Error::new(Code::Bug, "a\n\"b\"", "c"));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (2, "before"));
        let entry: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!((&entry["level"], &entry["code"]), (&"error".into(), &"PURA-999".into()));
        assert_eq!(entry["msg"], "cannot a\\n\"b\": c [PURA-999]");
    }

    #[test]
    fn a_line_of_text_stays_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let globals = Globals { log: Some(path.clone()), log_level: LogLevel::Warning, ..Globals::default() };
        let log = Log::open(&globals).unwrap();
        log.warn(&[Warning::new(Code::SingleId, "a\n\"b\"")], false).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("time=\"2") && text.lines().count() == 1, "{text}");
        assert!(text.ends_with(" level=warning msg=\"a\\\\n\\\"b\\\" [PURA-110]\"\n"), "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_an_error_and_a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("elsewhere", &link).unwrap();
        for path in [link, directory.path().join("absent/log"), directory.path().to_owned()] {
            let error = Log::open(&Globals { log: Some(path), ..Globals::default() }).unwrap_err();
            assert!(error.code() == Code::FileRefused && !error.to_string().contains("no such file"), "{error}");
        }
        assert!(!directory.path().join("elsewhere").exists());
    }

    #[test]
    fn strict_makes_a_warning_an_error() {
        let log = Log::open(&Globals { strict: true, ..Globals::default() }).unwrap();
        assert!(log.warn(&[], false).is_ok());
        assert_eq!(log.warn(&[Warning::new(Code::SingleId, "weaker")], false).unwrap_err().code(), Code::SingleId);
    }
}
