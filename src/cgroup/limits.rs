//! Limits, written to the files of a cgroup.

use std::{
    borrow::Cow,
    fs, io,
    path::{Path, PathBuf},
};

use nix::errno::Errno;

use super::leaf::write_line;
use crate::{
    error::{Code, Error, Result, Warning, plain},
    plan::resources::{Absent, Write},
};

/// The error of one limit.
pub(super) fn cannot(limit: &Write, code: Code, why: impl Into<Cow<'static, str>>) -> Error {
    Error::new(code, format!("set {} to {}", limit.file, limit.value), why)
        .at(format!("linux.resources.{}", limit.place))
}

/// The warnings about lines that only ask, where there is no cgroup to write them to.
pub(super) fn unset(writes: &[Write]) -> Vec<Warning> {
    writes.iter().filter(|write| matches!(write.absent, Absent::Warn | Absent::Wish)).map(absent).collect()
}

fn absent(write: &Write) -> Warning {
    let (code, why) = match write.absent {
        Absent::Wish => (Code::NoCgroup, "it cannot be had here, and without --cgroup=besteffort the error says why"),
        Absent::Refuse | Absent::Warn | Absent::Skip => (Code::Controller, "there is no such file here"),
    };
    let what = format!("{} is not set to {}: {why}", write.file, write.value);
    Warning::new(code, format!("{what} (linux.resources.{})", write.place))
}

/// Writes all lines to a leaf that nobody lives in yet.
pub fn apply(directory: &Path, writes: &[Write]) -> Result<Vec<Warning>> {
    let (lines, warnings) = present(directory, writes)?;
    write_all(&lines, &mut Vec::new()).map(|()| warnings)
}

/// Writes all lines to the cgroup of a container that runs, or none: on an error what was there before is back.
pub fn change(directory: &Path, writes: &[Write]) -> Result<Vec<Warning>> {
    let (lines, warnings) = present(directory, writes)?;
    let mut before = Vec::new();
    let done = write_all(&lines, &mut before);
    if done.is_err() {
        for (file, text) in before.iter().rev() {
            restore(file, text);
        }
    }
    done.map(|()| warnings)
}

/// A line whose file is there.
struct Line<'a> {
    write: &'a Write,
    file: PathBuf,
    value: &'a str,
}

/// The lines whose files are there; nothing has been written when one is missing that must not be.
fn present<'a>(directory: &Path, writes: &'a [Write]) -> Result<(Vec<Line<'a>>, Vec<Warning>)> {
    let (mut lines, mut warnings) = (Vec::new(), Vec::new());
    for write in writes {
        let first = (write.file.as_str(), write.value.as_str());
        let second = write.instead.as_ref().map(|(file, value)| (file.as_str(), value.as_str()));
        let found = [Some(first), second].into_iter().flatten().find(|(file, _)| directory.join(file).exists());
        match (found, &write.absent) {
            (Some((file, value)), _) => lines.push(Line { write, file: directory.join(file), value }),
            (None, Absent::Skip) => {}
            (None, Absent::Warn | Absent::Wish) => warnings.push(absent(write)),
            (None, Absent::Refuse) => {
                let why = format!("the kernel has no such limit: {} does not exist", write.file);
                return Err(cannot(write, Code::LimitRefused, why));
            }
        }
    }
    Ok((lines, warnings))
}

/// Writes the lines in order, and notes what was there. A burst may be above the old quota, and so has to wait for the new
/// one; the other way round it has to come first.
fn write_all(lines: &[Line<'_>], before: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let mut late = None;
    for line in lines {
        before.push((line.file.clone(), fs::read_to_string(&line.file).unwrap_or_default()));
        match write_line(&line.file, line.value) {
            Err(error) if line.write.file == "cpu.max.burst" && error.raw_os_error() == Some(libc::EINVAL) => {
                late = Some(line);
            }
            done => done.map_err(|error| refused(line, &error))?,
        }
    }
    late.map_or(Ok(()), |line| write_line(&line.file, line.value).map_err(|error| refused(line, &error)))
}

fn refused(line: &Line<'_>, error: &io::Error) -> Error {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    let why = if matches!(errno, Errno::EINVAL | Errno::ERANGE) {
        "the kernel takes no such value here".to_owned()
    } else if errno == Errno::ENODEV {
        "there is no such device".to_owned()
    } else {
        format!("the kernel refuses it: {}", plain(errno))
    };
    cannot(line.write, Code::LimitRefused, why)
}

/// Best effort, line by line. A device that was not listed had no limit.
fn restore(file: &Path, text: &str) {
    if file.file_name().is_some_and(|name| name == "io.max") {
        for listed in fs::read_to_string(file).unwrap_or_default().lines() {
            let device = listed.split(' ').next().unwrap_or_default();
            drop(write_line(file, &format!("{device} rbps=max wbps=max riops=max wiops=max")));
        }
    }
    if text.trim().is_empty() {
        drop(write_line(file, ""));
    }
    for line in text.lines() {
        drop(write_line(file, line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &str, value: &str, absent: Absent) -> Write {
        Write { file: file.to_owned(), value: value.to_owned(), place: "x".to_owned(), absent, instead: None }
    }

    /// Files stand for those of the kernel, as far as they take whatever is written.
    fn directory(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in files {
            fs::write(directory.path().join(name), "").unwrap();
        }
        directory
    }

    #[test]
    fn a_missing_file_is_an_error_before_anything_is_written_a_warning_or_nothing() {
        let cgroup = directory(&["a"]);
        let line = write("a", "1", Absent::Refuse);
        let warnings =
            apply(cgroup.path(), &[line.clone(), write("b", "2", Absent::Warn), write("c", "3", Absent::Skip)])
                .unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(fs::read_to_string(cgroup.path().join("a")).unwrap(), "1\n");
        let again = write("a", "9", Absent::Refuse);
        let error = apply(cgroup.path(), &[again, write("b", "2", Absent::Refuse)]).unwrap_err();
        assert_eq!(error.code(), Code::LimitRefused);
        assert_eq!(fs::read_to_string(cgroup.path().join("a")).unwrap(), "1\n");
    }

    #[test]
    fn the_second_file_is_for_kernels_without_the_first() {
        let weight = Write { instead: Some(("new".to_owned(), "20".to_owned())), ..write("old", "2", Absent::Refuse) };
        for (files, wanted) in [(&["old", "new"][..], ("2\n", "")), (&["new"], ("", "20\n"))] {
            let cgroup = directory(files);
            apply(cgroup.path(), std::slice::from_ref(&weight)).unwrap();
            let text = |name: &str| fs::read_to_string(cgroup.path().join(name)).unwrap_or_default();
            assert_eq!((text("old").as_str(), text("new").as_str()), wanted);
        }
    }
}
