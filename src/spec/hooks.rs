//! Hooks: `config.md` "POSIX-platform Hooks".

use std::os::unix::ffi::OsStrExt as _;

use oci_spec::runtime::Spec;

use super::Faults;
use crate::hooks::Kind;

/// Judges every hook, whatever its kind, before any runs.
pub(super) fn check(spec: &Spec, faults: &mut Faults) {
    for kind in Kind::ALL {
        for (index, hook) in kind.of(spec).iter().enumerate() {
            let key = |field: &str| format!("hooks.{}[{index}].{field}", kind.name());
            if !hook.path().is_absolute() {
                faults.add(&key("path"), format!("{:?} is not absolute", hook.path()));
            }
            if let Some(timeout) = hook.timeout().filter(|timeout| *timeout <= 0) {
                faults.add(&key("timeout"), format!("{timeout} is no time: it has to be above 0"));
            }
            let path = ("path", hook.path().as_os_str().as_bytes());
            let args = hook.args().iter().flatten().map(|word| ("args", word.as_bytes()));
            let env = hook.env().iter().flatten().map(|word| ("env", word.as_bytes()));
            for (field, _) in [path].into_iter().chain(args).chain(env).filter(|(_, bytes)| bytes.contains(&0)) {
                faults.add(&key(field), "it contains a NUL byte");
            }
            for variable in hook.env().iter().flatten().filter(|text| text.find('=').is_none_or(|at| at == 0)) {
                faults.add(&key("env"), format!("{variable:?} is not NAME=VALUE"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::validate;

    #[test]
    fn a_hook_has_an_absolute_path_and_a_time_above_zero() {
        for (hook, wanted) in [
            (r#"{"path":"/h","timeout":1,"env":["A="]}"#, ""),
            (r#"{"path":"h"}"#, r#"hooks.poststop[0].path: "h" is not absolute"#),
            (r#"{"path":""}"#, r#"hooks.poststop[0].path: "" is not absolute"#),
            (r#"{"path":"/h","timeout":0}"#, "hooks.poststop[0].timeout: 0 is no time"),
            (r#"{"path":"/h","timeout":-1}"#, "hooks.poststop[0].timeout: -1 is no time"),
            (r#"{"path":"/h","args":["a\u0000"]}"#, "hooks.poststop[0].args: it contains a NUL byte"),
            (r#"{"path":"/h","env":["=x"]}"#, r#"hooks.poststop[0].env: "=x" is not NAME=VALUE"#),
        ] {
            let json = format!(r#"{{"ociVersion":"1.3.0","root":{{"path":"r"}},"hooks":{{"poststop":[{hook}]}}}}"#);
            let judged = validate(&serde_json::from_str(&json).unwrap());
            let text = judged.map_or_else(|error| error.to_string(), |()| String::new());
            assert!(text.contains(wanted) && text.is_empty() == wanted.is_empty(), "{hook}: {text}");
        }
    }
}
