//! How long the seccomp compiler takes for the default profile of Podman: at most 0.15 ms, docs/performance.md.
//! `cargo bench --bench seccomp`

use std::hint::black_box;

use criterion::Criterion;
use pura::seccomp::{Machine, compile};

fn podman(bench: &mut Criterion) {
    let profile = include_str!("../../tests/fixtures/seccomp/podman.json");
    let Ok(profile) = serde_json::from_str(profile) else { std::process::abort() };
    bench.bench_function("podman", |timed| timed.iter(|| compile(black_box(&profile), Machine::X86)));
}

fn main() {
    let mut bench = Criterion::default().configure_from_args();
    podman(&mut bench);
    bench.final_summary();
}
