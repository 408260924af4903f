//! The plan as `pura plan` prints it, a line for each step, whatever the config has in its names.

use std::fmt;

use super::super::{Input, Plan, ids::UserNamespace, namespaces};
use crate::error::line;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print_ids(f)?;
        let new = i32::try_from(self.clone_flags).unwrap_or(0) & !libc::CLONE_NEWUSER;
        let made =
            if new == 0 { "no namespace".to_owned() } else { format!("new {}", namespaces::names(new).join(", ")) };
        line(f, format_args!("clone: {made}"))?;
        self.print_outside(f)?;
        for (step, (op, place)) in self.ops.iter().zip(&self.places).enumerate() {
            let place = if place.is_empty() { String::new() } else { format!("  ({place})") };
            line(f, format_args!("{step:3}  {}{place}", self.describe(*op)))?;
        }
        self.warnings.iter().try_for_each(|warning| line(f, format_args!("warning: {warning}")))?;
        self.notes.iter().try_for_each(|note| line(f, format_args!("note: {note}")))
    }
}

impl Plan {
    fn print_ids(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match &self.ids.user_namespace {
            UserNamespace::Create { writer, .. } => format!("new; ids written by {}", writer.name()),
            UserNamespace::Join { index, .. } => format!("joined (linux.namespaces[{index}])"),
            UserNamespace::JoinOwner { index, .. } => format!("the owner of linux.namespaces[{index}], joined"),
            UserNamespace::Reuse => "the caller's, which is not the initial one".to_owned(),
            UserNamespace::Inherit => "none of its own (--userns=inherit)".to_owned(),
        };
        line(f, format_args!("user namespace: {how}"))?;
        let UserNamespace::Create { maps, .. } = &self.ids.user_namespace else { return Ok(()) };
        for (kind, extents) in [("uid", &maps.uids), ("gid", &maps.gids)] {
            for extent in extents {
                let (inside, outside, count) = (extent.inside, extent.outside, extent.count);
                line(f, format_args!("  {kind} {inside} inside = {outside} outside, {count} ids"))?;
            }
        }
        Ok(())
    }

    /// What the parent does.
    fn print_outside(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, kind) in &self.joined_first {
            line(f, format_args!("joined before clone: {}", namespaces::name(*kind)))?;
        }
        for (_, shown) in &self.shown {
            line(f, format_args!("mounted before clone: {}, of the joined namespace  ({})", shown.kind, shown.place))?;
        }
        for (_, input) in &self.inputs {
            match input {
                Input::Namespace(_) | Input::Owner(_) | Input::Directory(_) | Input::Output(_) | Input::Program(_) => {}
                Input::Mapped(tree) => {
                    line(f, format_args!("idmapped before clone: {:?}  ({})", tree.path, tree.place))?;
                }
                Input::Node(node) => {
                    let (major, minor) = (libc::major(node.device), libc::minor(node.device));
                    line(f, format_args!("made before clone: device {major}:{minor}  ({})", node.place))?;
                }
            }
        }
        for parameter in &self.parameters {
            line(f, format_args!("set before clone: {} to {:?}  (linux.sysctl)", parameter.key, parameter.value))?;
        }
        for device in &self.moved_devices {
            line(f, format_args!("moved at the end: {device}  ({})", device.place()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{cli::UsernsMode, plan::sample};

    #[test]
    fn a_name_with_control_characters_is_in_its_own_line_and_spelt_out() {
        let config = r#"{"ociVersion":"1.3.0","root":{"path":"r"},"process":{"args":["x"],"cwd":"/","user":{"uid":0,"gid":0}},
            "linux":{"namespaces":[{"type":"mount"}]},
            "mounts":[{"destination":"/m","type":"tmpfs","options":["a\n 99  drop everything\u001b[2J"]}]}"#;
        let spec = serde_json::from_str(config).unwrap();
        let plan = sample::compile(&spec, sample::user(), UsernsMode::Unset, true, 0).unwrap();
        let text = plan.to_string();
        assert!(text.contains(r"mount tmpfs (a\n 99  drop everything\u{1b}[2J)"), "{text}");
    }
}
