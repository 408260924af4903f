//! How long the seccomp compiler takes for the default profile of Podman: at most 0.15 ms, docs/performance.md.
//! `cargo bench --bench seccomp`

use std::hint::black_box;

use criterion::Criterion;
use pura::seccomp::{Machine, compile};

fn podman(bench: &mut Criterion) {
    let config = include_str!("../../tests/fixtures/engines/p6-net-none.json");
    let config: oci_spec::runtime::Spec = serde_json::from_str(config).unwrap_or_default();
    let profile = config.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let Some(profile) = profile else { return };
    bench.bench_function("podman", |timed| timed.iter(|| compile(black_box(profile), Machine::X86)));
}

fn main() {
    let mut bench = Criterion::default().configure_from_args();
    podman(&mut bench);
    bench.final_summary();
}
