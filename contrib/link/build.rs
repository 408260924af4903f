//! Links the released binary without tables for unwinding, docs/design/0009-no-unwinding.md, and with its relocations packed,
//! docs/design/0011-packed-relocations.md.

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
    if unpacks_relocations() {
        println!("cargo:rustc-link-arg-bin=pura=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether the C library that is linked in knows `DT_RELR`: glibc 2.36. An older one would start with wrong addresses.
#[expect(clippy::disallowed_methods, reason = "that is for what pura starts; this runs where pura is built")]
fn unpacks_relocations() -> bool {
    let Ok(asked) = std::process::Command::new("getconf").arg("GNU_LIBC_VERSION").output() else { return false };
    let text = String::from_utf8_lossy(&asked.stdout);
    let version = text.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
    let number = |part: &str| part.parse::<u32>().unwrap_or(0);
    version.is_some_and(|(major, minor)| (number(major), number(minor)) >= (2, 36))
}
