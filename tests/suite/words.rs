//! Words of mounts[].options that only show on a mount of the container's own: on the host's, flags may be locked.

use std::fs;

use anyhow::Result;

use crate::harness::Bundle;

#[test]
fn every_word_of_the_specification_is_accepted_on_a_bind_too() -> Result<()> {
    requires!(userns);
    let words = "defaults ro rw nosuid suid nodev dev noexec exec nosymfollow symfollow noatime atime relatime norelatime \
                 strictatime nostrictatime nodiratime diratime sync async dirsync lazytime nolazytime iversion noiversion \
                 mand nomand silent loud private rprivate shared rshared slave rslave unbindable runbindable rro rrw \
                 rnosuid rsuid rnodev rdev rnoexec rexec rnosymfollow rsymfollow rnodiratime rdiratime rnoatime ratime \
                 rrelatime rnorelatime rstrictatime rnostrictatime rbind src-nofollow copy-symlink";
    let mut bundle = Bundle::probing(&["mounts"])?;
    fs::create_dir(bundle.rootfs("base"))?;
    bundle.mount("/base", "tmpfs", "tmpfs", &["size=4k"])?;
    for word in words.split_whitespace() {
        bundle.mount(&format!("/b/{word}"), "bind", "rootfs/base", &["bind", word])?;
    }
    let facts = bundle.facts()?;
    for word in words.split_whitespace() {
        let mount = facts.mount(&format!("/b/{word}"))?;
        assert!(mount.data.contains(&"size=4k".to_owned()), "{word}: {mount:?}");
        let shown = word.strip_prefix('r').filter(|rest| rest.starts_with("no")).unwrap_or(word);
        if ["nosuid", "nodev", "noexec", "nosymfollow", "noatime", "nodiratime"].contains(&shown) {
            assert!(mount.has(shown), "{word}: {mount:?}");
        }
        assert_eq!(mount.has("ro"), ["ro", "rro"].contains(&word), "{word}: {mount:?}");
    }
    Ok(())
}

#[test]
fn a_slave_follows_the_mount_that_it_is_bound_from() -> Result<()> {
    requires!(userns);
    for word in ["slave", "rslave"] {
        let mut bundle = Bundle::probing(&["mounts"])?;
        fs::create_dir(bundle.rootfs("from"))?;
        bundle.mount("/from", "tmpfs", "tmpfs", &["rshared"])?;
        bundle.mount("/to", "bind", "rootfs/from", &["rbind", word])?;
        let facts = bundle.facts()?;
        let from = facts.mount("/from")?.propagation;
        assert_eq!(facts.mount("/to")?.propagation, from.replace("shared:", "master:"), "{word}: {facts:?}");
        assert!(from.starts_with("shared:"), "{word}: {facts:?}");
    }
    Ok(())
}

#[test]
fn the_recursive_words_of_propagation_show() -> Result<()> {
    requires!(userns);
    for (word, wanted) in [("rshared", "shared:"), ("runbindable", "unbindable"), ("rprivate", "")] {
        let mut bundle = Bundle::probing(&["mounts"])?;
        bundle.mount("/p", "tmpfs", "tmpfs", &["shared", word])?;
        let propagation = bundle.facts()?.mount("/p")?.propagation;
        let is_so = propagation.starts_with(wanted) && propagation.is_empty() == wanted.is_empty();
        assert!(is_so, "{word}: {propagation}");
    }
    Ok(())
}

#[test]
fn of_two_words_the_recursive_one_is_applied_last() -> Result<()> {
    requires!(userns);
    for (words, shown) in [(["ro", "rrw"], "rw"), (["rrw", "ro"], "rw"), (["rw", "rro"], "ro")] {
        let mut bundle = Bundle::probing(&["mounts"])?;
        fs::create_dir(bundle.rootfs("t"))?;
        bundle.mount("/t", "tmpfs", "tmpfs", &words)?;
        bundle.mount("/b", "bind", "rootfs/t", &["bind", words[0], words[1]])?;
        let facts = bundle.facts()?;
        for target in ["/t", "/b"] {
            assert!(facts.mount(target)?.has(shown), "{words:?} on {target}: {facts:?}");
        }
    }
    Ok(())
}
