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

impl<'a> Draft<'a> {
    /// Builds the root on a tmpfs over the container's own state directory: seen by init alone, and gone with it. The
    /// caller alone finds what it is made of; but if it has no id inside, it can make nothing, and the rest is for
    /// [`Draft::assemble_late`].
    pub(super) fn assemble(&mut self, assembly: &'a Assembly) -> Result<()> {
        let scratch = self.slot()?;
        let state = self.text(self.order.state.as_os_str().as_bytes())?;
        self.step(Op::OpenPath { path: state, into: Slot::TARGET });
        let owner = self.owner().filter(|_| self.caller_inside().is_none());
        let data = owner.map_or_else(|| "mode=0755".to_owned(), |(uid, gid)| format!("mode=0755,uid={uid},gid={gid}"));
        let (kind, data) = (self.text("tmpfs")?, self.text(data)?);
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        self.step(Op::Mount { kind, source: kind, flags, data, on: Slot::TARGET });
        // Again, because the first descriptor is of what the tmpfs covers.
        self.step(Op::OpenPath { path: state, into: scratch });
        if owner.is_none() {
            return self.layers(assembly, scratch, None);
        }
        let mut lower = None;
        if let Assembly::Over(tree) = assembly {
            let (path, into) = (self.text(tree.as_os_str().as_bytes())?, self.slot()?);
            self.step(Op::OpenTree { path, recursive: true, into });
            lower = Some(into);
        }
        self.late_assembly = Some((assembly, scratch, lower));
        Ok(())
    }

    /// The rest, once init is who owns what it makes.
    pub(super) fn assemble_late(&mut self) -> Result<()> {
        let Some((assembly, scratch, lower)) = self.late_assembly.take() else { return Ok(()) };
        self.layers(assembly, scratch, lower)
    }

    /// What is in the directory `scratch`. `lower` is the tree below, where its path leads nowhere any more.
    fn layers(&mut self, assembly: &Assembly, scratch: Slot, lower: Option<Slot>) -> Result<()> {
        self.step(Op::Enter(scratch));
        for name in ["root", "upper", "work"] {
            let name = self.text(name)?;
            self.step(Op::MakeDirectory(name));
        }
        let root = self.text("root")?;
        match assembly {
            Assembly::Over(tree) => {
                if let Some(lower) = lower {
                    let path = self.text("lower")?;
                    self.step(Op::MakeDirectory(path));
                    self.step(Op::OpenPath { path, into: Slot::TARGET });
                    self.step(Op::MoveMount { tree: lower, path, on: Slot::TARGET, recursive: true });
                }
                self.step(Op::OpenPath { path: root, into: Slot::TARGET });
                self.overlay(tree, if lower.is_some() { Path::new("../lower") } else { tree }, "")?;
                // A mount is made from within the directory that it covers.
                self.step(Op::Enter(scratch));
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
            return self.overlay(&tree, &tree, name);
        }
        self.step(Op::OpenTree { path, recursive: true, into: Slot::TREE });
        let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
        self.step(Op::SetAttributes { mount: Slot::TREE, set, clear: 0, recursive: true, detached: true });
        self.step(Op::FindTarget { path, target: Target::RealDirectory, into: Slot::TARGET });
        self.step(Op::MoveMount { tree: Slot::TREE, path, on: Slot::TARGET, recursive: true });
        Ok(())
    }

    /// Of a tree, which is found at `lower`.
    fn overlay(&mut self, tree: &Path, lower: &Path, name: &str) -> Result<()> {
        // Seen from the mount point. Where the caller has no id inside, an absolute path leads nowhere.
        let scratch = Path::new(if name.is_empty() { ".." } else { "../.." });
        let layer = |directory: &str| escape(&scratch.join(directory).join(name));
        // trusted.* attributes are closed to a user namespace; GameOver(lay) is why others must not be taken over.
        let data = [
            b"userxattr,lowerdir=",
            escape(lower).as_slice(),
            b",upperdir=",
            &layer("upper"),
            b",workdir=",
            &layer("work"),
        ]
        .concat();
        let (data, tree) = (self.text(data)?, self.text(tree.as_os_str().as_bytes())?);
        self.step(Op::MountOverlay { lower: tree, data, on: Slot::TARGET });
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
