//! A program types into the terminal of the caller: CVE-2016-10124, CVE-2017-5226, CVE-2019-10063, CVE-2023-28100.

use anyhow::Result;
use serde_json::json;

use crate::{
    console::on_terminal,
    harness::{Bundle, Program, skip},
};

const IOCTL: u64 = 16;
/// `TIOCSTI`, and with a bit above the 32 that the kernel looks at, which a filter of 64 bits must not be taken in by.
const INJECT: [u64; 2] = [0x5412, 0x1_0000_5412];
/// `TIOCLINUX`.
const SELECT: u64 = 0x541c;

/// A program that tries to type into its standard input by each request, and writes a byte for each errno.
fn typist(requests: &[u64]) -> Program {
    let mut program = Program::new();
    let text = program.string("X");
    for request in requests {
        program.call(IOCTL, &[0, *request, text]);
        program.keep_errno();
    }
    program
}

#[test]
fn nothing_inside_types_into_the_terminal_of_the_caller() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("x86_64", "the calls are those of that architecture");
    }
    requires!(userns);
    // The caller's own terminal is the program's standard input: it has a session of its own all the same.
    let mut bundle = Bundle::with_args(&["/bin/typist"])?;
    typist(&[INJECT[0], INJECT[1], SELECT]).write(&bundle.rootfs("bin/typist"))?;
    let run = bundle.with_bundle("run", &["c1"])?.words();
    bundle.args(&["/bin/pura-probe", "sleep"]);
    let exec = bundle.pura(&["exec", "c1", "/bin/typist"]).words();
    let (shown, _) = on_terminal(&run, "")?;
    let is_refused = |shown: &str| shown.len() == 3 && !shown.contains('X') && !shown.contains('\0');
    assert!(is_refused(&shown), "{shown:?}");
    let _running = bundle.started()?;
    let (shown, _) = on_terminal(&exec, "")?;
    assert!(is_refused(&shown), "{shown:?}");
    bundle.delete()
}

#[test]
fn a_filter_sees_through_a_request_with_bits_that_the_kernel_drops() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("x86_64", "the calls are those of that architecture");
    }
    requires!(userns);
    let mut bundle = Bundle::with_args(&["/bin/typist"])?;
    // An engine's way to say it that holds: whatever the bits above are.
    let test = json!([{"index": 1, "value": 0xffff_ffff_u64, "valueTwo": 0x5412, "op": "SCMP_CMP_MASKED_EQ"}]);
    let rule = json!([{"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": test}]);
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule});
    typist(&INJECT).write(&bundle.rootfs("bin/typist"))?;
    assert_eq!(bundle.run()?.succeeds()?.as_bytes(), [1, 1]);
    // And the profile of a command without a bundle; TCGETS, to tell its answer from that of what is no terminal.
    typist(&[INJECT[0], INJECT[1], SELECT, 0x5401]).write(&bundle.rootfs("bin/typist"))?;
    let rootfs = bundle.rootfs("").display().to_string();
    let outcome = bundle.pura(&["run", "--userns=single", "--rootfs", &rootfs, "--", "/bin/typist"]).output()?;
    assert_eq!(outcome.succeeds()?.as_bytes(), [1, 1, 1, 25]);
    Ok(())
}
