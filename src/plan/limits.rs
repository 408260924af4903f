//! Resource limits, the OOM score, the keyring.

use oci_spec::runtime::PosixRlimitType as Type;

use super::{Op, draft::Draft};
use crate::error::Result;

impl Draft<'_> {
    /// What is written to our own `/proc` files.
    pub(super) fn early_limits(&mut self) -> Result<()> {
        let Some(score) = self.spec.process().as_ref().and_then(oci_spec::runtime::Process::oom_score_adj) else {
            return Ok(());
        };
        let (file, line) = (self.text("/proc/self/oom_score_adj")?, self.text(score.to_string())?);
        self.step_for(Op::WriteProc { file, line }, "process.oomScoreAdj");
        Ok(())
    }

    /// The keyring, then the limits: those on open files and memory would hinder every step after them.
    pub(super) fn limits(&mut self) -> Result<()> {
        if self.order.new_keyring {
            self.step(Op::NewKeyring);
        }
        let Some(process) = self.spec.process() else { return Ok(()) };
        for (index, limit) in process.rlimits().iter().flatten().enumerate() {
            let op = Op::Rlimit { resource: number(limit.typ()), soft: limit.soft(), hard: limit.hard() };
            self.step_for(op, format!("process.rlimits[{index}]"));
        }
        Ok(())
    }
}

/// The kernel's number of a limit: `getrlimit(2)`.
pub(super) fn number(limit: Type) -> u32 {
    match limit {
        Type::RlimitCpu => libc::RLIMIT_CPU,
        Type::RlimitFsize => libc::RLIMIT_FSIZE,
        Type::RlimitData => libc::RLIMIT_DATA,
        Type::RlimitStack => libc::RLIMIT_STACK,
        Type::RlimitCore => libc::RLIMIT_CORE,
        Type::RlimitRss => libc::RLIMIT_RSS,
        Type::RlimitNproc => libc::RLIMIT_NPROC,
        Type::RlimitNofile => libc::RLIMIT_NOFILE,
        Type::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        Type::RlimitAs => libc::RLIMIT_AS,
        Type::RlimitLocks => libc::RLIMIT_LOCKS,
        Type::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        Type::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        Type::RlimitNice => libc::RLIMIT_NICE,
        Type::RlimitRtprio => libc::RLIMIT_RTPRIO,
        Type::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

/// The name of a limit in config.json.
pub(super) fn name(resource: u32) -> String {
    let all = [
        Type::RlimitCpu,
        Type::RlimitFsize,
        Type::RlimitData,
        Type::RlimitStack,
        Type::RlimitCore,
        Type::RlimitRss,
        Type::RlimitNproc,
        Type::RlimitNofile,
        Type::RlimitMemlock,
        Type::RlimitAs,
        Type::RlimitLocks,
        Type::RlimitSigpending,
        Type::RlimitMsgqueue,
        Type::RlimitNice,
        Type::RlimitRtprio,
        Type::RlimitRttime,
    ];
    all.into_iter()
        .find(|limit| number(*limit) == resource)
        .map_or_else(|| resource.to_string(), |limit| limit.to_string())
}
