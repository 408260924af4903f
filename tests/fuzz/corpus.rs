//! What mutations begin with.

use super::random::Random;

/// Inputs that were given, and those that reached something new.
#[derive(Debug, Default)]
pub(super) struct Corpus {
    pub(super) inputs: Vec<Vec<u8>>,
    /// How many of them were given.
    pub(super) seeds: usize,
}

impl Corpus {
    /// One of them: half of the time of those that were given, which are the most like real ones.
    pub(super) fn pick<'a>(&'a self, random: &mut Random) -> &'a [u8] {
        let end = if random.once_in(2) { self.seeds.min(self.inputs.len()) } else { self.inputs.len() };
        &self.inputs[random.below(end)]
    }
}

/// Texts, as bytes; those with an empty line between them are several.
pub(super) fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

macro_rules! fixtures {
    ($($name:literal)*) => { [$(include_str!(concat!("../fixtures/", $name, ".json"))),*] };
}

/// Configs as the specification and engines write them, and one with every field that pura carries out.
pub(super) const CONFIGS: [&str; 16] = [
    include_str!("corpus/every-field.json"),
    fixtures!("spec-examples/config")[0],
    fixtures!("engines/p4-mounts")[0],
    fixtures!("engines/p4-keep-id")[0],
    fixtures!("engines/p4-hooks")[0],
    fixtures!("engines/p4-resources")[0],
    fixtures!("engines/p4-systemd")[0],
    fixtures!("engines/p4-sysctl")[0],
    fixtures!("engines/p4-tty")[0],
    fixtures!("engines/p4-user-cap")[0],
    fixtures!("engines/p4root-device")[0],
    fixtures!("engines/p4root-join")[0],
    fixtures!("engines/p4root-privileged")[0],
    fixtures!("engines/p4root-uidmap-idmap")[0],
    fixtures!("engines/p6-idmap")[0],
    fixtures!("engines/p6-userns-auto")[0],
];

/// The profile of an engine.
pub(super) const PROFILE: &str = fixtures!("seccomp/podman")[0];
