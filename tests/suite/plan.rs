//! `plan` prints, and does nothing.

use anyhow::Result;

use crate::harness::Bundle;

#[test]
fn a_plan_is_numbered_names_what_the_config_says_and_makes_nothing() -> Result<()> {
    let mut bundle = Bundle::probing(&["write", "/tmp/ran"])?;
    bundle.mount("/made/for/it", "tmpfs", "tmpfs", &["size=4k"])?;
    let outcome = bundle.with_bundle("plan", &[])?.output()?;
    let plan = outcome.succeeds()?;
    for word in ["/made/for/it", "size=4k", "proc", "/bin/pura-probe", "pura"] {
        assert!(plan.contains(word), "no {word} in {plan}");
    }
    let numbered = plan.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit())).count();
    assert!(numbered > 10, "{plan}");
    assert!(!bundle.rootfs("tmp/ran").exists() && !bundle.rootfs("made").exists());
    bundle.is_clean()
}

#[test]
fn a_plan_is_the_same_each_time_and_the_dry_run_is_the_plan() -> Result<()> {
    let bundle = Bundle::new()?;
    let first = bundle.with_bundle("plan", &["c1"])?.output()?;
    let again = bundle.with_bundle("plan", &["c1"])?.output()?;
    let dry = bundle.with_bundle("run", &["--dry-run", "c1"])?.output()?;
    assert_eq!(first.succeeds()?, again.succeeds()?);
    assert_eq!(first.succeeds()?, dry.succeeds()?);
    bundle.is_clean()
}

#[test]
fn a_plan_without_a_bundle_needs_no_privilege_either() -> Result<()> {
    let bundle = Bundle::new()?;
    let outcome = bundle.pura(&["plan", "--", "/bin/true"]).output()?;
    assert!(outcome.status.success() && outcome.stdout.contains("/bin/true"), "{outcome:#?}");
    bundle.is_clean()
}

#[test]
fn a_bad_config_has_no_plan() -> Result<()> {
    let mut bundle = Bundle::new()?;
    bundle.config["ociVersion"] = "2.0.0".into();
    bundle.with_bundle("plan", &[])?.output()?.fails(1, 805, &["2.0.0"])?;
    Ok(())
}
