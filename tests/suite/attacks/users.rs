//! Other users of the machine. Real root plays them all.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
};

use anyhow::{Context as _, Result};

use super::{is_refusal, picture};
use crate::harness::{Bundle, Outcome, Pura, pura_binary};

const VICTIM: u32 = 12_345;
const ATTACKER: u32 = 12_346;

/// pura as another user, who may read the binary: with a script that prepares, in mounts of its own.
fn as_user(bundle: &Bundle, uid: u32, prepare: &str, words: &[&str]) -> Result<Outcome> {
    let copy = bundle.path("pura-copy");
    if !copy.exists() {
        fs::copy(pura_binary(), &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(bundle.dir(), fs::Permissions::from_mode(0o755))?;
        chown(bundle.path("tmp"), Some(VICTIM), Some(VICTIM))?;
    }
    let copy = copy.display().to_string();
    let script = format!("{prepare}; exec setpriv --reuid={uid} --regid={uid} --clear-groups --inh-caps=-all \"$@\"");
    let front = ["unshare", "--mount", "--propagation", "private", "sh", "-e", "-c", &script, "sh", &copy];
    let words: Vec<_> = front.iter().chain(words).map(Into::into).collect();
    Pura::through(bundle.dir(), &words).output()
}

/// A container of the victim's that waits, with its state in `state`.
fn victims() -> Result<Bundle> {
    waiting(VICTIM)
}

/// The same of any user.
fn waiting(uid: u32) -> Result<Bundle> {
    let mut bundle = Bundle::probing(&["sleep"])?;
    bundle.map(&[(0, uid, 1)], &[(0, uid, 1)]);
    bundle.write()?;
    for path in ["state", "bundle", "bundle/rootfs"].map(|name| bundle.path(name)) {
        chown(path, Some(uid), Some(uid))?;
    }
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        chown(bundle.rootfs(name), Some(uid), Some(uid))?;
    }
    fs::set_permissions(bundle.path("state"), fs::Permissions::from_mode(0o700))?;
    let (state, path) = (bundle.path("state").display().to_string(), bundle.path("bundle").display().to_string());
    as_user(&bundle, uid, "true", &["--root", &state, "create", "-b", &path, "c1"])?.succeeds_silently()?;
    Ok(bundle)
}

#[test]
fn root_sees_that_two_users_have_containers_of_the_same_id() -> Result<()> {
    requires!(root);
    let users = [(VICTIM, waiting(VICTIM)?), (ATTACKER, waiting(ATTACKER)?)];
    let call = |(uid, bundle): &(u32, Bundle), words: &[&str]| {
        let state = bundle.path("state").display().to_string();
        as_user(bundle, *uid, "true", &[&["--root", &state], words].concat())
    };
    let pid = |user: &(u32, Bundle)| -> Result<i64> {
        let list: serde_json::Value = serde_json::from_str(call(user, &["list", "--format", "json"])?.succeeds()?)?;
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
        list[0]["pid"].as_i64().context("pid")
    };
    let pids = [pid(&users[0])?, pid(&users[1])?];
    assert_ne!(pids[0], pids[1]);
    for user in &users {
        call(user, &["start", "c1"])?.succeeds_silently()?;
    }
    // The end of one is not that of the other, nor of its name.
    call(&users[0], &["delete", "--force", "c1"])?.succeeds_silently()?;
    assert_eq!(pid(&users[1])?, pids[1]);
    call(&users[0], &["delete", "c1"])?.fails(1, 703, &["does not exist"])?;
    call(&users[1], &["delete", "--force", "c1"])?.succeeds_silently()?;
    users.iter().try_for_each(|(_, bundle)| bundle.is_clean())
}

#[test]
fn root_sees_that_nobody_else_reads_or_controls_a_container() -> Result<()> {
    requires!(root);
    let bundle = victims()?;
    let state = bundle.path("state").display().to_string();
    let before = picture(&bundle.path("state/c1"))?;
    for verb in [
        &["state", "c1"][..],
        &["list"],
        &["start", "c1"],
        &["kill", "c1", "KILL"],
        &["delete", "--force", "c1"],
        &["exec", "c1", "/bin/pura-probe", "true"],
        &["ps", "c1"],
    ] {
        // Closed, and even if its directory could be entered.
        for open in ["true", &format!("chmod 755 {state}")] {
            let outcome = as_user(&bundle, ATTACKER, open, &[&["--root", &state], verb].concat())?;
            is_refusal(&outcome).with_context(|| format!("{verb:?}"))?;
            fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
        }
    }
    assert_eq!(picture(&bundle.path("state/c1"))?, before);
    as_user(&bundle, VICTIM, "true", &["--root", &state, "delete", "--force", "c1"])?.succeeds_silently()
}

#[test]
fn root_sees_that_what_others_plant_in_tmp_is_not_used() -> Result<()> {
    requires!(root);
    // Without a runtime directory the state is in /tmp, where everybody makes names.
    let bundle = Bundle::new()?;
    let rootfs = bundle.rootfs("").display().to_string();
    fs::create_dir(bundle.path("trap"))?;
    chown(bundle.path("trap"), Some(ATTACKER), Some(ATTACKER))?;
    let trap = bundle.path("trap").display().to_string();
    let place = format!("/tmp/pura-{VICTIM}");
    for plant in [
        format!("mkdir -m 777 {place}; chown {ATTACKER} {place}"),
        format!("mkdir -m 700 {place}; chown {ATTACKER} {place}"),
        format!("ln -s {trap} {place}; chown -h {ATTACKER} {place}"),
        format!("mkfifo -m 666 {place}"),
        format!("mkdir -m 777 {place}; chown {VICTIM} {place}"),
    ] {
        // A /tmp of the test's own; the test's directory stays where it is.
        let script = format!(
            "d={}; mkdir -p /run/pura-attack; mount --bind \"$d\" /run/pura-attack; mount -t tmpfs -o mode=1777 none /tmp; \
             mkdir -p \"$d\"; mount --bind /run/pura-attack \"$d\"; {plant}",
            bundle.dir().display()
        );
        let words = ["run", "--userns=single", "--rootfs", &rootfs, "--", "/bin/pura-probe", "true"];
        let outcome = as_user(&bundle, VICTIM, &script, &words)?;
        outcome.fails(125, 701, &[&place]).with_context(|| plant.clone())?;
        assert!(fs::read_dir(bundle.path("trap"))?.count() == 0, "{plant}");
    }
    drop(fs::remove_dir("/run/pura-attack"));
    Ok(())
}

#[test]
fn root_sees_that_no_terminal_goes_to_another_users_socket() -> Result<()> {
    requires!(root, python);
    let mut bundle = Bundle::probing(&["true"])?;
    bundle.share_user();
    bundle.config["process"]["terminal"] = true.into();
    let socket = bundle.path("socket");
    let listen = "import socket, os, sys; os.setuid(int(sys.argv[2])); s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); \
                  s.listen(1); print('ready', flush=True); s.accept(); s.recv(1)";
    fs::set_permissions(bundle.dir(), fs::Permissions::from_mode(0o777))?;
    let uid = ATTACKER.to_string();
    let words = ["/usr/bin/python3".as_ref(), "-c".as_ref(), listen.as_ref(), socket.as_os_str(), uid.as_ref()];
    let listener = Pura::through(bundle.dir(), &words.map(Into::into)).spawn()?;
    assert_eq!(listener.line()?, "ready");
    let outcome = bundle.with_bundle("create", &["--console-socket", &socket.to_string_lossy(), "c1"])?.output()?;
    outcome.fails(1, 613, &[&format!("uid {ATTACKER} listens there")])?;
    drop(listener);
    Ok(())
}

#[test]
fn root_is_not_led_by_a_link_of_a_user_who_shares_the_directory() -> Result<()> {
    requires!(root);
    let bundle = Bundle::probing(&["true"])?;
    let (shared, victim) = (bundle.path("shared"), bundle.path("victim"));
    fs::create_dir(&shared)?;
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777))?;
    fs::write(&victim, "precious")?;
    for name in ["log", "pid"] {
        symlink(&victim, shared.join(name))?;
        std::os::unix::fs::lchown(shared.join(name), Some(ATTACKER), Some(ATTACKER))?;
    }
    bundle.write()?;
    let (log, pid) = (shared.join("log").display().to_string(), shared.join("pid").display().to_string());
    let path = bundle.path("bundle").display().to_string();
    bundle.pura(&["--log", &log, "create", "-b", &path, "c1"]).output()?.fails(1, 716, &[])?;
    bundle.pura(&["create", "--pid-file", &pid, "-b", &path, "c1"]).output()?.succeeds_silently()?;
    assert_eq!(fs::read_to_string(&victim)?, "precious");
    bundle.delete()
}
