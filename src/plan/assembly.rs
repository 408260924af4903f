//! A root that is put together from the host's: throw-away layers over trees that stay as they are.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use oci_spec::runtime::Spec;

use super::{Op, Slot, Target, draft::Draft};
use crate::error::Result;

/// What the root consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assembly {
    /// One tree, under one overlay.
    Over(PathBuf),
    /// An empty root with these entries. The host's own root needs that: an overlay over all of it would uncover what the
    /// mounts on it hide, which a user namespace may not do.
    Of(Vec<Layer>),
}

/// An entry of the root: its name, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layer {
    /// The host's directory of that name, under an overlay.
    Overlay(String),
    /// The host's directory of that name, with all that is mounted below it, read-only.
    ReadOnly(String),
    /// An empty directory.
    Empty(String),
    /// A link, and where it leads.
    Link(String, PathBuf),
}

impl Assembly {
    /// What a bundle asks for with the annotation `org.pura.overlay`: its root, under a throw-away layer.
    pub fn of_bundle(spec: &Spec, bundle: &Path) -> Option<Self> {
        spec.annotations().as_ref()?.get("org.pura.overlay")?;
        Some(Self::Over(bundle.join(spec.root().as_ref()?.path())))
    }
}

impl Draft<'_> {
    /// Builds the root on a tmpfs over the container's own state directory: seen by init alone, and gone with it.
    pub(super) fn assemble(&mut self, assembly: &Assembly) -> Result<()> {
        let scratch = self.slot()?;
        let state = self.text(self.order.state.as_os_str().as_bytes())?;
        self.step(Op::OpenPath { path: state, into: Slot::TARGET });
        let (kind, data) = (self.text("tmpfs")?, self.text("mode=0755")?);
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        self.step(Op::Mount { kind, source: kind, flags, data, on: Slot::TARGET });
        // Again, because the first descriptor is of what the tmpfs covers.
        self.step(Op::OpenPath { path: state, into: scratch });
        self.step(Op::Enter(scratch));
        for name in ["root", "upper", "work"] {
            let name = self.text(name)?;
            self.step(Op::MakeDirectory(name));
        }
        let root = self.text(self.order.state.join("root").as_os_str().as_bytes())?;
        match assembly {
            Assembly::Over(tree) => {
                self.step(Op::OpenPath { path: root, into: Slot::TARGET });
                self.overlay(tree, "")?;
                self.step(Op::OpenPath { path: root, into: Slot::ROOT });
            }
            Assembly::Of(layers) => {
                for name in layers.iter().filter_map(Layer::overlaid) {
                    for directory in ["upper", "work"] {
                        let name = self.text(format!("{directory}/{name}"))?;
                        self.step(Op::MakeDirectory(name));
                    }
                }
                self.step(Op::BindRoot { path: root, into: Slot::ROOT });
                self.step(Op::Enter(Slot::ROOT));
                layers.iter().try_for_each(|layer| self.entry(layer))?;
                layers.iter().try_for_each(|layer| self.layer(layer))?;
            }
        }
        Ok(())
    }

    /// The name of an entry, in the empty root, which is the current directory.
    fn entry(&mut self, layer: &Layer) -> Result<()> {
        match layer {
            Layer::Overlay(name) | Layer::ReadOnly(name) | Layer::Empty(name) => {
                let name = self.text(name)?;
                self.step(Op::MakeDirectory(name));
            }
            Layer::Link(name, target) => {
                let (name, target) = (self.text(name)?, self.text(target.as_os_str().as_bytes())?);
                self.step(Op::Link { target, name });
            }
        }
        Ok(())
    }

    /// What is on the name.
    fn layer(&mut self, layer: &Layer) -> Result<()> {
        let (Layer::Overlay(name) | Layer::ReadOnly(name)) = layer else { return Ok(()) };
        let tree = Path::new("/").join(name);
        let path = self.text(tree.as_os_str().as_bytes())?;
        if matches!(layer, Layer::Overlay(_)) {
            self.step(Op::FindTarget { path, target: Target::RealDirectory, into: Slot::TARGET });
            return self.overlay(&tree, name);
        }
        self.step(Op::OpenTree { path, recursive: true, into: Slot::TREE });
        let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
        self.step(Op::SetAttributes { mount: Slot::TREE, set, clear: 0, recursive: true, detached: true });
        self.step(Op::FindTarget { path, target: Target::RealDirectory, into: Slot::TARGET });
        self.step(Op::MoveMount { tree: Slot::TREE, path, on: Slot::TARGET, recursive: true });
        Ok(())
    }

    fn overlay(&mut self, tree: &Path, name: &str) -> Result<()> {
        let lower = self.text(tree.as_os_str().as_bytes())?;
        let layer = |directory: &str| escape(&self.order.state.join(directory).join(name));
        // trusted.* attributes are closed to a user namespace; GameOver(lay) is why others must not be taken over.
        let data = [
            b"userxattr,lowerdir=",
            escape(tree).as_slice(),
            b",upperdir=",
            &layer("upper"),
            b",workdir=",
            &layer("work"),
        ]
        .concat();
        let data = self.text(data)?;
        self.step(Op::MountOverlay { lower, data, on: Slot::TARGET });
        Ok(())
    }
}

impl Layer {
    fn overlaid(&self) -> Option<&str> {
        if let Self::Overlay(name) = self { Some(name) } else { None }
    }
}

/// overlayfs takes a comma as the end of an option and a colon as the end of a layer, unless a backslash precedes it.
fn escape(path: &Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_bytes();
    bytes.iter().flat_map(|byte| if b",:\\".contains(byte) { vec![b'\\', *byte] } else { vec![*byte] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_paths_are_escaped() {
        assert_eq!(escape(Path::new("/a,b:c\\d")), b"/a\\,b\\:c\\\\d");
    }
}
