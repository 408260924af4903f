//! The program's environment, and how it is found.

use std::fs;

use anyhow::Result;
use serde_json::json;

use crate::harness::{Bundle, own_gid, own_uid};

#[test]
fn the_environment_arrives_byte_for_byte_and_nothing_of_the_callers_leaks() -> Result<()> {
    requires!(userns, busybox);
    let mut bundle = Bundle::with_args(&["/bin/busybox", "env"])?;
    let mark = format!("PURA_TEST={}", bundle.dir().display());
    let env = [&mark, "A=b c", "EMPTY=", "UTF=ä€😀", "EQUALS=a=b=c", "QUOTES='\"`$x", "A=again", "HOME=/h"];
    bundle.config["process"]["env"] = json!(env);
    let run = bundle.with_bundle("run", &["c1"])?.env("LEAK", "1").env("NOTIFY_SOCKET", "/n").env("LISTEN_FDS", "0");
    let outcome = run.output()?;
    assert_eq!(outcome.succeeds()?.lines().collect::<Vec<_>>(), env);
    Ok(())
}

#[test]
fn home_comes_from_the_containers_passwd_when_it_is_not_set() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["env"])?;
    assert_eq!(bundle.facts()?.get("env.HOME")?, "/root");
    bundle.map(&[(1000, own_uid(), 1)], &[(1000, own_gid(), 1)]);
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    assert_eq!(bundle.facts()?.get("env.HOME")?, "/home/user");
    bundle.push("/process/env", "HOME=/elsewhere".into())?;
    assert_eq!(bundle.facts()?.all("env.HOME"), ["/elsewhere"]);
    Ok(())
}

#[test]
fn an_account_with_a_number_for_a_name_has_no_effect() -> Result<()> {
    requires!(unprivileged, userns);
    let mut bundle = Bundle::probing(&["ids"])?;
    fs::write(bundle.rootfs("etc/passwd"), "1000:x:0:0::/evil:/bin/sh\n")?;
    bundle.map(&[(1000, own_uid(), 1)], &[(1000, own_gid(), 1)]);
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    assert_eq!(bundle.facts()?.get("uid")?, "1000");
    Ok(())
}

#[test]
fn a_passwd_file_that_is_a_trap_does_not_hang() -> Result<()> {
    requires!(userns);
    let bundle = Bundle::probing(&["true"])?;
    let passwd = bundle.rootfs("etc/passwd");
    fs::remove_file(&passwd)?;
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU)?;
    bundle.run()?.succeeds_silently()?;
    fs::remove_file(&passwd)?;
    std::os::unix::fs::symlink("passwd", &passwd)?;
    bundle.run()?.succeeds_silently()
}

#[test]
fn an_entry_without_an_equals_sign_is_an_error() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::new()?;
    bundle.push("/process/env", "NOTHING".into())?;
    bundle.is_refused(803, &["process.env", "NOTHING"])
}

#[test]
fn the_program_is_found_by_the_path_of_the_config_and_never_by_the_callers() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::with_args(&["pura-probe", "cwd"])?;
    let own = bundle.rootfs("bin").display().to_string();
    bundle.with_bundle("run", &["c1"])?.env("PATH", &own).output()?.facts()?;
    let mark = format!("PURA_TEST={}", bundle.dir().display());
    bundle.config["process"]["env"] = json!(["PATH=/nowhere:/bin", &mark]);
    bundle.facts()?;
    bundle.config["process"]["env"] = json!(["PATH=/nowhere", &mark]);
    let run = bundle.with_bundle("run", &["c1"])?.env("PATH", own + ":/bin").output()?;
    run.fails(127, 601, &["\"pura-probe\": executable file not found in $PATH: no such file or directory"])?;
    Ok(())
}

#[test]
fn a_relative_program_starts_at_the_working_directory() -> Result<()> {
    requires!(userns);
    let mut bundle = Bundle::with_args(&["./pura-probe", "cwd"])?;
    bundle.config["process"]["cwd"] = "/bin".into();
    assert_eq!(bundle.facts()?.get("cwd")?, "/bin");
    Ok(())
}
