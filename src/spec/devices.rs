//! Rules of `linux.devices`: config-linux.md, "Devices".

use oci_spec::runtime::{Linux, LinuxDeviceType as Type};

use super::Faults;

pub(super) fn check(linux: &Linux, faults: &mut Faults) {
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let key = format!("linux.devices[{index}]");
        if !device.path().is_absolute() {
            faults.add(&key, format!("path {:?} is not absolute", device.path()));
        }
        let (kind, bits) = match device.typ() {
            Type::A => {
                faults.add(&key, "type \"a\" is none of c, b, u, p");
                continue;
            }
            Type::P => ("p", libc::S_IFIFO),
            Type::B => ("b", libc::S_IFBLK),
            Type::C => ("c", libc::S_IFCHR),
            Type::U => ("u", libc::S_IFCHR),
        };
        // No driver has the major number 0; it is what the field reads as when it is missing.
        if device.typ() != Type::P && (device.major() <= 0 || device.minor() < 0) {
            faults.add(&key, format!("type {kind:?} needs a major and a minor number"));
        }
        // As stat(2) has it, the mode may carry the type.
        let mode = device.file_mode().unwrap_or(0);
        if mode & !0o7777 != 0 && mode & !0o7777 != bits {
            faults.add(&key, format!("fileMode {mode} (octal {mode:o}) is no mode of type {kind:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_may_carry_the_type_and_no_other() {
        for (kind, mode, faulty) in [
            ("p", 0o666, 0),
            ("p", 0o10666, 0),
            ("p", 0o20666, 1),
            ("c", 0o20666, 0),
            ("b", 0o20666, 1),
            ("u", 0o1_000_000, 1),
        ] {
            let json = format!(r#"{{"devices":[{{"path":"/x","type":"{kind}","major":1,"fileMode":{mode}}}]}}"#);
            let mut faults = Faults::default();
            check(&serde_json::from_str(&json).unwrap(), &mut faults);
            assert_eq!(faults.0.len(), faulty, "{json}");
        }
    }
}
