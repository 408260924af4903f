//! Flags of the host's mounts that a user namespace may not take away. The caller is nested here, so that such mounts are
//! its own to make.

use std::fs;

use anyhow::Result;

use crate::harness::{Bundle, Outcome};

/// `pura VERB` by root of a user namespace of its own, who has run a script first: `$0` is the test's directory.
fn nested(bundle: &Bundle, verb: &str, script: &str) -> Result<Outcome> {
    let pura = bundle.with_bundle(verb, &["c1"])?;
    let script = format!("{script} && exec \"$@\"");
    let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script];
    let words = words.iter().map(AsRef::as_ref).chain([bundle.dir().as_os_str()]).collect::<Vec<_>>();
    bundle.through(&words, &pura).output()
}

fn bundle(words: &[&str]) -> Result<Bundle> {
    let mut bundle = Bundle::probing(words)?;
    bundle.map(&[(0, 0, 1)], &[(0, 0, 1)]);
    fs::create_dir(bundle.path("bundle/source"))?;
    Ok(bundle)
}

#[test]
fn a_read_only_root_keeps_the_locked_flags_of_its_filesystem() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle(&["mounts"])?;
    bundle.config["root"]["readonly"] = true.into();
    bundle.mount("/made", "tmpfs", "tmpfs", &[])?;
    let script = "mv \"$0/bundle/rootfs\" \"$0/image\" && mkdir \"$0/bundle/rootfs\" && \
        mount -t tmpfs -o nosuid,nodev none \"$0/bundle/rootfs\" && cp -a \"$0/image/.\" \"$0/bundle/rootfs\"";
    let facts = nested(&bundle, "run", script)?.facts()?;
    let root = facts.mount("/")?;
    assert!(["ro", "nosuid", "nodev"].iter().all(|flag| root.has(flag)), "{root:?}");
    assert!(facts.mount("/made")?.has("rw"), "{facts:?}");
    Ok(())
}

#[test]
fn a_locked_flag_stays_without_a_word_and_shows() -> Result<()> {
    requires!(userns);
    for words in [&["rbind"][..], &["rbind", "ro"], &["bind", "relatime"]] {
        let mut bundle = bundle(&["mounts"])?;
        bundle.mount("/m", "bind", "source", words)?;
        let outcome = nested(&bundle, "run", "mount -t tmpfs -o nosuid,nodev,noexec none \"$0/bundle/source\"")?;
        let mount = outcome.facts()?.mount("/m")?;
        assert!(["nosuid", "nodev", "noexec"].iter().all(|flag| mount.has(flag)), "{words:?}: {mount:?}");
    }
    Ok(())
}

#[test]
fn a_recursive_word_clears_no_locked_flag_either() -> Result<()> {
    requires!(userns);
    for (flag, word) in [("ro", "rrw"), ("ro", "rw"), ("noexec", "rexec"), ("nosuid", "rsuid"), ("nodev", "rdev")] {
        let mut bundle = bundle(&["true"])?;
        bundle.mount("/m", "bind", "source", &["rbind", word])?;
        let script = format!("mount -t tmpfs -o {flag} none \"$0/bundle/source\"");
        nested(&bundle, "create", &script)?.fails(1, 310, &["/m"])?;
        bundle.is_clean()?;
    }
    Ok(())
}
