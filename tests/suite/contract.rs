//! What engines rely on, from their side of the call: podman, conmon, Buildah, CRI-O, containerd, Docker. Without any of
//! them: their arguments, their surroundings, and what they look for in what comes back. docs/contract.md is the list.

mod calls;
mod ends;
mod execs;
mod outputs;
mod phrases;
mod streams;
mod surroundings;

use std::ffi::OsString;

use anyhow::Result;

use crate::harness::{Bundle, Outcome, Pura};

/// A caller of pura that does what takes a program of its own; `{pura}` is a list of the words up to the verb.
fn python(bundle: &Bundle, script: &str, words: &[&str]) -> Result<Outcome> {
    bundle.write()?;
    let pura = bundle.pura::<&str>(&[]).words();
    let pura: Vec<_> = pura.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let prelude = "import os, sys, json, time, ctypes, socket, select, signal, subprocess\n\
        pura = json.loads(sys.argv[1]); bundle = sys.argv[2]; words = sys.argv[3:]\n\
        quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)\n\
        libc = ctypes.CDLL(None)\n\
        def call(*verb, **more):\n    return subprocess.run(pura + list(verb), timeout=50, **more)\n\
        def init():\n    return json.loads(subprocess.check_output(pura + ['state', 'c1']))['pid']\n";
    let script = format!("{prelude}{script}");
    let mut all: Vec<OsString> = ["/usr/bin/python3", "-c", &script].map(Into::into).into();
    all.extend([serde_json::to_string(&pura)?.into(), bundle.path("bundle").into()]);
    all.extend(words.iter().map(Into::into));
    Pura::through(bundle.dir(), &all).output()
}

/// `pura WORDS` with both outputs in one file, as go-runc and CRI-O read them.
fn combined(bundle: &Bundle, words: &[&str]) -> Result<Outcome> {
    bundle.through(&["sh", "-c", "exec \"$@\" 2>&1", "sh"], &bundle.pura(words)).output()
}
