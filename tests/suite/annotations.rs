//! Annotations that ask for something: done, or refused. All others are only given back.

use std::fs;

use anyhow::Result;
use serde_json::json;

use crate::harness::{Bundle, subordinate};

#[test]
fn annotations_that_ask_for_what_is_not_done_are_refused() -> Result<()> {
    let mut bundle = Bundle::new()?;
    for key in ["run.oci.handler", "org.pura.unheard-of"] {
        bundle.config["annotations"] = json!({key: "1"});
        bundle.is_refused(804, &[key])?;
    }
    Ok(())
}

#[test]
fn a_value_that_means_nothing_is_refused() -> Result<()> {
    let mut bundle = Bundle::new()?;
    for key in ["org.pura.overlay", "org.pura.proc", "org.pura.root-emulation", "run.oci.mount_context_type"] {
        bundle.config["annotations"] = json!({key: "bogus"});
        bundle.is_refused(803, &[key, "\"bogus\" is none of"])?;
    }
    Ok(())
}

#[test]
fn annotations_that_mean_nothing_to_pura_are_given_back_unchanged() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["sleep"])?;
    let annotations = json!({
        "run.oci.seccomp.receiver": "/nowhere", "run.oci.seccomp.plugins": "a:b", "run.oci.systemd.force_cgroup_v1": "1",
        "org.criu.config": "/nowhere", "module.wasm.image/variant": "compat", "krun.cpus": "2", "com.example": "\u{e4} \"x\""
    });
    bundle.config["annotations"] = annotations.clone();
    let _running = bundle.started()?;
    assert_eq!(bundle.state()?["annotations"], annotations);
    bundle.delete()
}

#[test]
fn a_bound_proc_is_the_outer_one_with_its_masks_and_a_warning() -> Result<()> {
    requires!(userns);
    let outer = format!("/proc/{}/comm", std::process::id());
    let mut bundle = Bundle::probing(&["read", &outer])?;
    bundle.config["annotations"] = json!({"org.pura.proc": "bind"});
    assert_eq!(bundle.run()?.succeeds()?, fs::read_to_string(&outer)?);
    bundle.run_strictly()?.fails(125, 342, &["/proc"])?;
    bundle.args(&["/bin/pura-probe", "read", "/proc/version"]);
    bundle.config["linux"]["maskedPaths"] = json!(["/proc/version"]);
    assert_eq!(bundle.run()?.succeeds()?, "");
    Ok(())
}

#[test]
fn run_binds_proc_for_a_command() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::new()?;
    let outer = format!("/proc/{}/comm", std::process::id());
    let outcome = bundle.pura(&["run", "--proc=bind", "--", "cat", &outer]).output()?;
    assert_eq!((outcome.code(), outcome.stdout), (0, fs::read_to_string(&outer)?), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("PURA-342"), "{}", outcome.stderr);
    bundle.pura(&["run", "--proc=new", "--", "true"]).output()?.fails(125, 1, &["--proc \"new\" is none of bind"])?;
    bundle.is_clean()
}

#[test]
fn an_overlay_keeps_the_root_of_a_bundle_as_it_is() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["write", "/etc/passwd", "gone"])?;
    fs::write(bundle.rootfs("etc/kept"), "kept")?;
    let before = fs::read(bundle.rootfs("etc/passwd"))?;
    bundle.config["annotations"] = json!({"org.pura.overlay": "1"});
    bundle.run_strictly()?.succeeds_silently()?;
    assert_eq!(fs::read(bundle.rootfs("etc/passwd"))?, before);
    bundle.args(&["/bin/pura-probe", "sleep"]);
    let _running = bundle.started()?;
    let exec = |words: &[&str]| bundle.pura(&["exec", "c1", "/bin/pura-probe"]).args(words).output();
    exec(&["write", "/etc/new"])?.succeeds_silently()?;
    assert_eq!(exec(&["read", "/etc/kept"])?.succeeds()?, "kept");
    assert!(!bundle.rootfs("etc/new").exists());
    bundle.delete()
}

#[test]
fn a_context_type_is_no_way_around_an_error_of_the_label() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.config["annotations"] = json!({"run.oci.mount_context_type": "rootcontext"});
    bundle.run()?.succeeds_silently()?;
    if fs::metadata("/sys/fs/selinux/enforce").is_err() {
        bundle.config["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0".into();
        bundle.is_refused(508, &["linux.mountLabel", "SELinux is off"])?;
    }
    Ok(())
}

#[test]
fn an_overlay_is_made_by_a_root_that_the_caller_is_not() -> Result<()> {
    requires!(unprivileged, userns, subids, overlay);
    let mut bundle = Bundle::new()?;
    let line = |kind| -> Result<(u32, u32, u32)> { Ok((0, subordinate(kind)?, 1000)) };
    bundle.map(&[line("uid")?], &[line("gid")?]);
    bundle.config["annotations"] = json!({"org.pura.overlay": "1"});
    bundle.args(&["/bin/pura-probe", "mounts"]);
    assert_eq!(bundle.run_strictly()?.facts()?.mount("/")?.kind, "overlay");
    bundle.is_clean()
}
