//! Whole plans, of configs as engines send them, against the files in `tests/fixtures/plans`: a change of the compiler
//! shows in review as a change of what containers do.
//!
//! `PURA_BLESS=1 PURA_TEST_AS=root cargo test --lib golden` writes the files anew; a new one has to be there, empty.

use std::fmt::Write as _;

use oci_spec::runtime::Spec;
use serde_json::Value;

use super::{
    Plan,
    sample::{self, OWN_USERNS},
};
use crate::cli::UsernsMode;

/// A captured config. What this version refuses (PURA-804) is grafted out, so that the plan is of all the rest.
fn captured(text: &str) -> Spec {
    let mut config: Value = serde_json::from_str(text).unwrap();
    for (object, keys) in [
        ("/linux", ["seccomp", "sysctl", "devices", "resources"].as_slice()),
        ("/process", &["apparmorProfile", "selinuxLabel"]),
        ("", &["hooks"]),
    ] {
        let object = config.pointer_mut(object).and_then(Value::as_object_mut).unwrap();
        object.retain(|key, _| !keys.contains(&key.as_str()));
    }
    let spec = serde_json::from_value(config).unwrap();
    crate::spec::validate(&spec).unwrap();
    spec
}

/// Line by line: `-` is wanted, `+` is found. No attempt at the shortest one, which a plan's numbered lines do not need.
fn difference(wanted: &str, found: &str) -> String {
    let (wanted, found): (Vec<_>, Vec<_>) = (wanted.lines().collect(), found.lines().collect());
    let mut text = String::new();
    for at in 0..wanted.len().max(found.len()) {
        let (was, is) = (wanted.get(at), found.get(at));
        if was != is {
            for (sign, line) in [('-', was), ('+', is)].into_iter().filter_map(|(sign, line)| Some((sign, line?))) {
                let _ = writeln!(text, "{sign} {line}");
            }
        }
    }
    text
}

/// Compares the plan with the file, or writes the file.
fn check(name: &str, wanted: &str, found: &Plan) {
    let found = found.to_string();
    if std::env::var_os("PURA_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/plans");
        std::fs::write(format!("{path}/{name}.plan"), &found).unwrap();
        return;
    }
    let fix = "if that is what you want: PURA_BLESS=1 PURA_TEST_AS=root cargo test --lib golden";
    assert!(wanted == found, "the plan {name} has changed; {fix}\n{}", difference(wanted, &found));
}

/// One test: the file's name, then what `sample::compile` takes.
macro_rules! check {
    ($name:literal, $spec:expr, $host:ident, $mode:ident, $owner:expr) => {
        check(
            $name,
            include_str!(concat!("../../tests/fixtures/plans/", $name, ".plan")),
            &sample::compile($spec, sample::$host(), UsernsMode::$mode, true, $owner).unwrap(),
        )
    };
}

macro_rules! engine {
    ($name:literal) => {
        captured(include_str!(concat!("../../tests/fixtures/engines/", $name, ".json")))
    };
}

#[test]
fn golden_plan_of_what_spec_writes() {
    let mut spec = crate::commands::default_spec();
    // Its one number that depends on the caller.
    let limits = r#"[{"type":"RLIMIT_NOFILE","soft":1024,"hard":1024}]"#;
    spec.process_mut().as_mut().unwrap().set_rlimits(serde_json::from_str(limits).unwrap());
    check!("spec", &spec, user, Unset, 0);
    check!("spec-single-id", &spec, user, Single, 0);
}

#[test]
fn golden_plans_of_rootless_podman() {
    check!("p4-net-none", &engine!("p4-net-none"), nested, Unset, 0);
    check!("p4-keep-id", &engine!("p4-keep-id"), nested, Unset, 0);
    check!("p4-tty", &engine!("p4-tty"), nested, Unset, OWN_USERNS);
    check!("p6-userns-auto", &engine!("p6-userns-auto"), nested, Unset, 0);
    check!("p4-pod-userns", &engine!("p4-pod-userns"), nested, Unset, 30);
}

#[test]
fn golden_plans_of_podman_under_root() {
    check!("p4root-net-none", &engine!("p4root-net-none"), root, Unset, 0);
    check!("p4root-join", &engine!("p4root-join"), root, Unset, OWN_USERNS);
    check!("p4root-join-owner", &engine!("p4root-join"), root, Unset, 30);
}

#[test]
fn a_difference_shows_what_was_and_what_is() {
    assert_eq!(difference("a\nb\nc\n", "a\nx\n"), "- b\n+ x\n- c\n");
    assert_eq!(difference("a\n", "a\n"), "");
}
