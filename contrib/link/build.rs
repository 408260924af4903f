//! Links the released binary without tables for unwinding: nothing of it unwinds. docs/design/0009-no-unwinding.md.

fn main() {
    println!("cargo:rerun-if-changed=contrib/link");
    // Tests unwind, and whoever debugs wants to see where from.
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    for argument in [format!("-T,{root}/contrib/link/release.ld"), "--no-eh-frame-hdr".to_owned()] {
        println!("cargo:rustc-link-arg-bin=pura=-Wl,{argument}");
    }
}
