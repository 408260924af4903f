//! Kernel parameters: config-linux.md "Sysctl". Only what belongs to a namespace of the container's own may be set.

use oci_spec::runtime::LinuxNamespaceType as Kind;

use super::{Op, Parameter, Slot, draft::Draft, ids::UserNamespace};
use crate::error::{Code, Error, Result, Warning};

/// Parameters of the IPC namespace, besides `fs.mqueue`: `ipc_namespaces(7)`.
const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];

/// Its ids have to be mapped: `icmp(7)`.
const PING_RANGE: &str = "net/ipv4/ping_group_range";

/// Whose a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Ipc,
    Network,
    Uts,
    User,
    Machine,
}

impl Draft<'_> {
    /// Sets all parameters, in the order of their names.
    pub(super) fn sysctls(&mut self) {
        let linux = self.spec.linux().as_ref();
        let mut all: Vec<_> = linux.and_then(|linux| linux.sysctl().as_ref()).into_iter().flatten().collect();
        all.sort_unstable();
        let mut is_open = false;
        for (key, value) in all {
            let set = self.sysctl(key, value, &mut is_open);
            self.keep(set);
        }
    }

    /// One of them. `is_open`: the procfs that it is written through.
    fn sysctl(&mut self, key: &str, value: &str, is_open: &mut bool) -> Result<()> {
        let file = file(key).ok_or_else(|| refuse(Code::Sysctl, key, value, "it is not the name of a parameter"))?;
        let parent_writes = self.check(key, value, &file)?;
        let value = if file == PING_RANGE { self.ping_range(key, value)? } else { value.to_owned() };
        if parent_writes {
            self.plan.parameters.push(Parameter { key: key.to_owned(), file: format!("sys/{file}"), value });
            return Ok(());
        }
        let place = format!("linux.sysctl[{key:?}]");
        if file == "kernel/domainname" {
            // The file belongs to the host's root; the system call asks whose the namespace is.
            let name = self.text(value)?;
            self.step_for(Op::Domainname(name), place);
            return Ok(());
        }
        if !std::mem::replace(is_open, true) {
            self.step_for(Op::OpenProc(Slot::TREE), "linux.sysctl");
        }
        let (file, value, key) = (self.text(format!("sys/{file}"))?, self.text(value)?, self.text(key)?);
        self.step_for(Op::Sysctl { proc: Slot::TREE, file, value, key }, place);
        Ok(())
    }

    /// Refuses a parameter of the host; whether the parent has to write it.
    fn check(&self, key: &str, value: &str, file: &str) -> Result<bool> {
        let kind = match owner(file) {
            Owner::Machine => {
                let why = "it is a setting of the whole machine, or belongs to no namespace of the container";
                return Err(refuse(Code::Sysctl, key, value, why));
            }
            Owner::User => {
                let is_own = !matches!(self.plan.ids.user_namespace, UserNamespace::Reuse | UserNamespace::Inherit);
                let why = "the user namespace is the caller's";
                return if is_own { Ok(false) } else { Err(refuse(Code::Sysctl, key, value, why)) };
            }
            Owner::Ipc => (Kind::Ipc, libc::CLONE_NEWIPC, "ipc"),
            Owner::Network => (Kind::Network, libc::CLONE_NEWNET, "network"),
            Owner::Uts => (Kind::Uts, libc::CLONE_NEWUTS, "uts"),
        };
        let (kind, flag, name) = kind;
        match self.namespace(kind) {
            None => Err(refuse(Code::Sysctl, key, value, format!("the {name} namespace is the host's"))),
            Some((_, None)) => Ok(false),
            Some((index, Some(_))) => {
                let joined = self.host.named.namespaces.get(index).and_then(Option::as_ref);
                if joined.is_none_or(|joined| self.host.named.host_namespaces.contains(&joined.inode)) {
                    let why = format!("the joined {name} namespace is the host's");
                    return Err(refuse(Code::Sysctl, key, value, why));
                }
                let by_parent = self.plan.joined_first.iter().any(|(_, first)| *first == flag);
                let is_shared = matches!(self.plan.ids.user_namespace, UserNamespace::Reuse | UserNamespace::Inherit);
                Ok(by_parent && !is_shared)
            }
        }
    }

    /// The range of groups that may ping: the kernel refuses ids that are not mapped.
    fn ping_range(&mut self, key: &str, value: &str) -> Result<String> {
        let mut numbers = value.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(low)), Some(Ok(high)), None) = (numbers.next(), numbers.next(), numbers.next()) else {
            return Err(refuse(Code::SysctlValue, key, value, "it is not two numbers"));
        };
        if self.plan.ids.is_gid_mapped(low) && self.plan.ids.is_gid_mapped(high) {
            return Ok(value.to_owned());
        }
        let maps = self.plan.ids.maps.as_ref();
        let ends = maps.into_iter().flat_map(|maps| &maps.gids).map(|extent| extent.inside + (extent.count - 1));
        let last = ends.filter(|end| (low..=high).contains(end)).max();
        match last.filter(|_| self.order.clamps && self.plan.ids.is_gid_mapped(low)) {
            Some(last) => {
                self.warn(Warning::new(
                    Code::PingRange,
                    format!("groups above {last} may not ping: {key} {value:?} ends at a group that is not mapped"),
                ));
                Ok(format!("{low} {last}"))
            }
            None => Err(refuse(Code::OptionIdUnmapped, key, value, "it names a group that is not mapped")),
        }
    }
}

fn refuse(code: Code, key: &str, value: &str, why: impl Into<String>) -> Error {
    Error::new(code, format!("set {key} to {value:?}"), why.into()).at(format!("linux.sysctl[{key:?}]"))
}

/// The file of a parameter below `/proc/sys`; none for what is no name. Both separators: `sysctl(8)`; the first one that
/// stands in the key separates, and the other one is part of a name (`net/ipv4/conf/eth0.1/forwarding`).
fn file(key: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@".contains(&byte);
    if !key.bytes().all(is_plain) {
        return None;
    }
    let by_dots = key.find(['.', '/']).is_some_and(|at| key.get(at..=at) == Some("."));
    let swapped = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let file: String = if by_dots { key.chars().map(swapped).collect() } else { key.to_owned() };
    // A path of a container's config must not lead out of /proc/sys (CVE-2022-0811).
    let is_inside = file.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    (is_inside && file.contains('/')).then_some(file)
}

fn owner(file: &str) -> Owner {
    match file.split_once('/') {
        Some(("net", _)) => Owner::Network,
        Some(("user", _)) => Owner::User,
        Some(("fs", name)) if name.starts_with("mqueue/") => Owner::Ipc,
        Some(("kernel", "domainname")) => Owner::Uts,
        Some(("kernel", name)) if IPC.contains(&name) => Owner::Ipc,
        _ => Owner::Machine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_name_the_same_file() {
        for (key, wanted) in [
            ("net.ipv4.ip_forward", Some("net/ipv4/ip_forward")),
            ("net/ipv4/ip_forward", Some("net/ipv4/ip_forward")),
            ("net.ipv4.conf.eth0/1.forwarding", Some("net/ipv4/conf/eth0.1/forwarding")),
            ("net/ipv4/conf/eth0.1/forwarding", Some("net/ipv4/conf/eth0.1/forwarding")),
            ("net/../kernel/core_pattern", None),
            ("net..kernel", None),
            ("net.//.kernel", None),
            ("/net/x", None),
            ("net", None),
            ("", None),
            ("kernel.shm_rmid_forced=1+kernel.core_pattern", None),
            ("net.x\nkernel.y", None),
        ] {
            assert_eq!(file(key).as_deref(), wanted, "{key}");
        }
    }

    #[test]
    fn only_parameters_of_namespaces_have_an_owner() {
        for (file, wanted) in [
            ("net/core/somaxconn", Owner::Network),
            ("kernel/sem", Owner::Ipc),
            ("fs/mqueue/msg_max", Owner::Ipc),
            ("user/max_net_namespaces", Owner::User),
            ("kernel/domainname", Owner::Uts),
            ("kernel/hostname", Owner::Machine),
            ("kernel/pid_max", Owner::Machine),
            ("kernel/core_pattern", Owner::Machine),
            ("fs/mqueuex", Owner::Machine),
            ("vm/overcommit_memory", Owner::Machine),
        ] {
            assert_eq!(owner(file), wanted, "{file}");
        }
    }
}
