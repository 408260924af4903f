//! Masked and read-only paths, and what paths of the config mean.

use std::path::{Component, Path, PathBuf};

use super::{Op, draft::Draft};
use crate::error::{Code, Error, Result};

impl Draft<'_> {
    /// Covers the masked paths, then makes the others read-only: a masked path needs nothing more.
    pub(super) fn masks(&mut self) -> Result<()> {
        let Some(linux) = self.spec.linux() else { return Ok(()) };
        let mut seen: Vec<PathBuf> = Vec::new();
        let masked = linux.masked_paths().iter().flatten().enumerate().map(|(index, path)| (true, index, path));
        let read_only = linux.readonly_paths().iter().flatten().enumerate().map(|(index, path)| (false, index, path));
        for (is_masked, index, path) in masked.chain(read_only) {
            let place = format!("linux.{}[{index}]", if is_masked { "maskedPaths" } else { "readonlyPaths" });
            let inside = inside(Path::new(path));
            if inside == Path::new("/") {
                // A cover over the root would hide nothing: whoever is in the root is below the cover. To make it
                // read-only is the last thing that is done to it.
                if is_masked {
                    return Err(Error::new(Code::Field, format!("mask {path:?}"), "it is the root itself").at(place));
                }
                continue;
            }
            // Engines list some twice; a second cover would only cover the first.
            if seen.contains(&inside) {
                continue;
            }
            seen.push(inside);
            let text = self.text(path)?;
            self.step_for(if is_masked { Op::Mask(text) } else { Op::ReadOnly(text) }, place);
        }
        Ok(())
    }

    /// The position of the root itself in `linux.readonlyPaths`.
    pub(super) fn readonly_everything(&self) -> Option<usize> {
        let paths = self.spec.linux().as_ref()?.readonly_paths().as_ref()?;
        paths.iter().position(|path| inside(Path::new(path)) == Path::new("/"))
    }
}

/// A path of the config as the container sees it, from its root on: `x`, `/x/`, `/./x` and `/y/../x` are all `/x`.
///
/// Only to compare the config's own words: links of the image may make it another one.
pub(super) fn inside(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_however_it_is_written() {
        for path in ["x", "/x", "/x/", "//x", "/./x", "/y/../x", "../x", "/../../x/."] {
            assert_eq!(inside(Path::new(path)), Path::new("/x"), "{path}");
        }
        for path in ["", "/", "//", ".", "/..", "x/.."] {
            assert_eq!(inside(Path::new(path)), Path::new("/"), "{path}");
        }
    }

    fn covers(linux: &serde_json::Value) -> Vec<String> {
        let spec = serde_json::json!({"ociVersion": "1.3.0", "root": {"path": "r"}, "linux": linux});
        let spec = serde_json::from_value(spec).unwrap();
        let mode = crate::cli::UsernsMode::Single;
        match crate::plan::sample::compile(&spec, crate::plan::sample::user(), mode, false, 0) {
            Ok(plan) => {
                let steps = plan.ops().iter().zip(&plan.places).filter(|(_, place)| place.contains("Paths["));
                steps.map(|(op, _)| plan.describe(*op)).collect()
            }
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn each_path_is_covered_once_and_the_root_is_no_path_to_cover() {
        let twice = serde_json::json!({"maskedPaths": ["/a", "/a/"], "readonlyPaths": ["/a", "/b", "//b"]});
        assert_eq!(covers(&twice), [r#"mask "/a""#, r#"make "/b" read-only"#]);
        let all = serde_json::json!({"readonlyPaths": ["/"]});
        assert_eq!(covers(&all), ["set mount attributes: +ro, recursively"]);
        let masked = covers(&serde_json::json!({"maskedPaths": ["/x/.."]})).concat();
        assert!(masked.contains("linux.maskedPaths[0]") && masked.contains("the root itself"), "{masked}");
    }
}
