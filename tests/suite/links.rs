//! Binds of links: copy-symlink, src-nofollow, dest-nofollow.

use std::{fs, os::unix::fs::symlink};

use anyhow::Result;

use crate::{fallback::hidden, harness::Bundle};

/// A link `source/link` to `file`, which says "from outside".
fn bundle() -> Result<Bundle> {
    let bundle = Bundle::probing(&["mounts"])?;
    fs::create_dir(bundle.path("bundle/source"))?;
    fs::write(bundle.path("bundle/source/file"), "from outside")?;
    symlink("file", bundle.path("bundle/source/link"))?;
    Ok(bundle)
}

#[test]
fn copy_symlink_makes_the_same_link() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.mount("/new/link", "bind", "source/link", &["bind", "copy-symlink"])?;
    // Twice: the second time it is there already.
    for _ in 0..2 {
        bundle.facts()?;
        assert_eq!(fs::read_link(bundle.rootfs("new/link"))?, std::path::Path::new("file"));
    }
    fs::remove_file(bundle.rootfs("new/link"))?;
    symlink("other", bundle.rootfs("new/link"))?;
    bundle.is_refused(306, &["/new", "something else is there"])
}

#[test]
fn copy_symlink_of_what_is_no_link_is_a_bind() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.mount("/f", "bind", "source/file", &["bind", "copy-symlink"])?;
    bundle.args(&["/bin/pura-probe", "read", "/f"]);
    assert_eq!(bundle.run()?.succeeds()?, "from outside");
    Ok(())
}

#[test]
fn src_nofollow_binds_the_link_itself() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    bundle.mount("/f", "bind", "source/link", &["bind"])?;
    bundle.mount("/l", "bind", "source/link", &["bind", "src-nofollow"])?;
    bundle.args(&["/bin/pura-probe", "stat", "/f", "/l"]);
    let facts = bundle.facts()?;
    assert!(facts.get("/f")?.starts_with("file ") && facts.get("/l")?.starts_with("link "), "{facts:?}");
    Ok(())
}

#[test]
fn dest_nofollow_mounts_on_the_link_itself_which_must_exist() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    symlink("target", bundle.rootfs("there"))?;
    fs::write(bundle.rootfs("target"), "the target")?;
    bundle.mount("/there", "bind", "source/file", &["bind", "dest-nofollow"])?;
    bundle.args(&["/bin/pura-probe", "read", "/target"]);
    assert_eq!(bundle.run()?.succeeds()?, "the target");
    bundle.args(&["/bin/pura-probe", "stat", "/there"]);
    assert!(bundle.facts()?.get("/there")?.starts_with("file "));
    bundle.unmount("/there");
    bundle.mount("/missing", "bind", "source/file", &["bind", "dest-nofollow"])?;
    bundle.is_refused(306, &["/missing", "does not exist"])
}

#[test]
fn words_that_contradict_each_other_are_refused() -> Result<()> {
    requires!(userns);
    for words in [&["bind", "copy-symlink", "src-nofollow"][..], &["bind", "copy-symlink", "dest-nofollow"]] {
        let mut bundle = bundle()?;
        bundle.mount("/l", "bind", "source/link", words)?;
        bundle.is_refused(308, &["/l", "copy-symlink"])?;
    }
    let mut bundle = bundle()?;
    bundle.mount("/l", "tmpfs", "tmpfs", &["src-nofollow"])?;
    bundle.is_refused(308, &["/l", "src-nofollow"])
}

#[test]
fn no_destination_leads_into_proc_by_a_link_of_the_image() -> Result<()> {
    requires!(userns);
    for (says, name, below) in
        [("/proc", "to-proc", "/self/attr"), ("../proc/1", "deep", "/attr"), ("/proc", "all", "")]
    {
        let mut bundle = bundle()?;
        symlink(says, bundle.rootfs(name))?;
        let good = bundle.config.clone();
        let destination = format!("/{name}{below}");
        for (kind, options) in [("tmpfs", &[][..]), ("bind", &["bind"])] {
            bundle.config.clone_from(&good);
            bundle.mount(&destination, kind, "source", options)?;
            bundle.is_refused(307, &[&destination, "links in the image lead into /proc"])?;
            let run = bundle.with_bundle("run", &["c1"])?;
            let outcome = hidden(&bundle, "38", "openat2", &run).output()?;
            assert!(outcome.stderr.contains("links in the image lead into /proc"), "{outcome:#?}");
        }
        bundle.is_clean()?;
    }
    Ok(())
}

#[test]
fn a_destination_by_a_link_that_does_not_lead_into_proc_is_good() -> Result<()> {
    requires!(userns);
    let mut bundle = bundle()?;
    symlink("/real", bundle.rootfs("link"))?;
    bundle.mount("/link/made", "tmpfs", "tmpfs", &[])?;
    assert_eq!(bundle.facts()?.mount("/real/made")?.kind, "tmpfs");
    Ok(())
}
