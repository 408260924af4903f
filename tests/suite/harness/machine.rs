//! What the machine offers: the facts of `requires!`.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail};

use super::{command::PATH, own_gid, own_uid, probe_binary, text};

type Probe = fn() -> Result<()>;

/// The reason why this machine lacks `fact`, if it does. Each is found out once.
pub(crate) fn lacks(fact: &str) -> Result<Option<String>> {
    static KNOWN: OnceLock<Vec<(&str, Option<String>)>> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let probes: &[(&str, Probe)] = &[
            ("root", root),
            ("unprivileged", unprivileged),
            ("userns", userns),
            ("subids", subids),
            ("overlay", overlay),
            ("strace", strace),
            ("links", links),
            ("libseccomp", libseccomp),
            ("ps", ps),
            ("cgroup", cgroup),
            ("controllers", controllers),
            ("cpuset", || given(&["cpuset"])),
            ("hugetlb", || given(&["hugetlb"])),
            ("rdma", || given(&["rdma"])),
            ("podman", || installed("podman").and_then(|()| installed("conmon"))),
            ("slirp4netns", || installed("slirp4netns").and_then(|()| tun())),
            ("pasta", pasta),
            ("mqueue", mqueue),
            ("catatonit", || installed("catatonit").or_else(|_| installed("/usr/libexec/podman/catatonit"))),
            ("buildah", || installed("buildah")),
            ("containerd", || installed("containerd").and_then(|()| installed("ctr"))),
            ("docker", || installed("dockerd").and_then(|()| installed("docker"))),
            ("python", python),
        ];
        let why = |probe: Probe| probe().err().map(|why| format!("{why:#}"));
        let mut known: Vec<_> = probes.iter().map(|(name, probe)| (*name, why(*probe))).collect();
        known.push(("busybox", busybox().err().map(|why| format!("{why:#}"))));
        known
    });
    let known = known.iter().find(|(name, _)| *name == fact);
    Ok(known.with_context(|| format!("requires!({fact}): the harness knows no such fact"))?.1.clone())
}

/// Reports a skipped test, even when libtest hides the output of tests that pass.
pub(crate) fn skip(fact: &str, why: &str) -> Result<()> {
    if std::env::var("PURA_TEST_MUST").is_ok_and(|must| must.split(',').any(|word| word == fact)) {
        bail!("PURA_TEST_MUST names {fact}, which this machine lacks: {why}");
    }
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    Ok(writeln!(std::io::stderr(), "skipped: {test}: no {fact}: {}", why.trim())?)
}

fn root() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    let has_admin = u64::from_str_radix(effective.trim(), 16)? >> 21 & 1 == 1;
    let initial = fs::read_link("/proc/self/ns/user")?.as_os_str() == "user:[4026531837]";
    if own_uid() == 0 && has_admin && initial { Ok(()) } else { bail!("this is not real root") }
}

fn unprivileged() -> Result<()> {
    if own_uid() == 0 {
        bail!("this is root; run it through contrib/as-rootless");
    }
    Ok(())
}

fn userns() -> Result<()> {
    succeeds(Command::new(probe_binary()).arg("userns"))
}

fn overlay() -> Result<()> {
    let script = "mount -t tmpfs none /mnt && mkdir /mnt/l /mnt/u /mnt/w && mount -t overlay -o \
                  userxattr,lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w none /mnt/l";
    succeeds(Command::new("unshare").args(["--user", "--map-root-user", "--mount", "sh", "-c", script]))
}

/// iproute2, and network devices that an ordinary user can make in a network of their own.
fn links() -> Result<()> {
    let script = "ip link add outer type veth peer name peer";
    succeeds(Command::new("unshare").args(["--user", "--map-root-user", "--net", "sh", "-c", script]))
}

fn strace() -> Result<()> {
    succeeds(Command::new("strace").args(["-o", "/dev/null", "true"]))
}

/// ps(1), which wants more of /proc than some kernels have.
fn ps() -> Result<()> {
    succeeds(Command::new("ps").arg("-ef").stdout(Stdio::null()))
}

/// A cgroup of version 2, alone on the machine, in which the caller may make others.
fn cgroup() -> Result<()> {
    own_cgroup().map(drop)
}

/// The controllers that limits are tested with reach a cgroup of the caller's.
fn controllers() -> Result<()> {
    given(&["cpu", "io", "memory", "pids"])
}

fn given(wanted: &[&str]) -> Result<()> {
    let own = own_cgroup()?;
    let parent = own.parent().context("the cgroup has no parent")?;
    let given = fs::read_to_string(parent.join("cgroup.subtree_control"))?;
    let lacking = wanted.iter().find(|name| !given.split_whitespace().any(|g| g == **name));
    if let Some(name) = lacking {
        bail!("the controller {name} is not in {}", parent.display());
    }
    Ok(())
}

/// Where the caller is, when it may make cgroups there and beside.
pub(crate) fn own_cgroup() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/")).context("there is no cgroup of version 2")?;
    let own = Path::new("/sys/fs/cgroup").join(own);
    let is_ours = |directory: &Path| nix::unistd::access(directory, nix::unistd::AccessFlags::W_OK).is_ok();
    if own.join("cgroup.events").exists() && is_ours(&own) && own.parent().is_some_and(is_ours) {
        return Ok(own);
    }
    bail!("{} is not delegated to this user", own.display())
}

/// libseccomp and its Python module: Debian's python3-seccomp.
fn libseccomp() -> Result<()> {
    succeeds(Command::new("/usr/bin/python3").args(["-c", "import seccomp"]))
}

/// A program of that name is there.
fn installed(program: &str) -> Result<()> {
    succeeds(Command::new(program).arg("--version").env("PATH", PATH).env("HOME", std::env::temp_dir()))
}

/// A device for networks without root.
fn tun() -> Result<()> {
    fs::File::options().read(true).write(true).open("/dev/net/tun").context("/dev/net/tun")?;
    Ok(())
}

/// pasta, and a Podman that knows it: one of 4.4 or later.
fn pasta() -> Result<()> {
    installed("pasta").and_then(|()| tun())?;
    let [major, minor] = podman_version()?;
    if (major, minor) < (4, 4) {
        bail!("Podman {major}.{minor} does not know pasta");
    }
    Ok(())
}

/// The first two numbers of Podman's version.
fn podman_version() -> Result<[u32; 2]> {
    let told = Command::new("podman")
        .arg("--version")
        .env("PATH", PATH)
        .env("HOME", std::env::temp_dir())
        .output()
        .context("podman")?;
    let told = text(&told.stdout);
    let mut numbers = told.split([' ', '.']).filter_map(|word| word.parse().ok());
    let next = |numbers: &mut dyn Iterator<Item = u32>| numbers.next().with_context(|| told.clone());
    Ok([next(&mut numbers)?, next(&mut numbers)?])
}

/// The host's message queues have a place in its /dev.
fn mqueue() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some("/dev/mqueue")) {
        bail!("nothing is mounted on /dev/mqueue");
    }
    Ok(())
}

/// Python, which makes system calls that take unsafe code.
fn python() -> Result<()> {
    succeeds(Command::new("/usr/bin/python3").args(["-c", ""]))
}

/// The static busybox, for tests that need a shell inside.
pub(crate) fn busybox() -> Result<&'static str> {
    let path = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| fs::metadata(path).is_ok());
    let path = path.context("busybox is not installed")?;
    let mut head = Vec::new();
    fs::File::open(path)?.take(4096).read_to_end(&mut head)?;
    let is_dynamic = head.windows(8).any(|bytes| bytes == b"ld-linux" || bytes == b"/ld-musl");
    if is_dynamic {
        bail!("{path} needs shared libraries; install busybox-static");
    }
    Ok(path)
}

/// The caller's subordinate ids work: newuidmap writes a map with them.
fn subids() -> Result<()> {
    let (uids, gids) = (subordinate("uid")?, subordinate("gid")?);
    let held = ["--user", "sh", "-c", "echo; read -r line"];
    let mut holder = Command::new("unshare").args(held).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut ready = [0];
    holder.stdout.as_mut().context("stdout")?.read_exact(&mut ready)?;
    let map = |mapper: &str, own: u32, first: u32| {
        let words = [holder.id(), 0, own, 1, 1, first, 10].map(|word| word.to_string());
        succeeds(Command::new(mapper).args(words).env("PATH", PATH))
    };
    let mapped = map("newuidmap", own_uid(), uids).and_then(|()| map("newgidmap", own_gid(), gids));
    drop(holder.stdin.take());
    holder.wait()?;
    mapped
}

/// First of the caller's subordinate ids; there are at least 60000.
pub(crate) fn subordinate(kind: &str) -> Result<u32> {
    let file = format!("/etc/sub{kind}");
    let number = own_uid().to_string();
    let accounts = fs::read_to_string("/etc/passwd")?;
    let account = accounts.lines().map(|line| line.split(':')).find(|words| words.clone().nth(2) == Some(&number));
    let name = account.and_then(|mut words| words.next()).unwrap_or_default();
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    let line = text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|words| match words[..] {
        [owner, first, count] if owner == name || owner == number => Some((first.to_owned(), count.to_owned())),
        _ => None,
    });
    let (first, count) = line.with_context(|| format!("{file} has no line for {name}"))?;
    if count.parse::<u32>()? < 60_000 {
        bail!("{file} gives {name} only {count} ids");
    }
    Ok(first.parse()?)
}

fn succeeds(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| command.get_program().display().to_string())?;
    if output.status.success() { Ok(()) } else { bail!("{}: {}", output.status, text(&output.stderr)) }
}
