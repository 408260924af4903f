//! Resource limits, the OOM score, the keyring.

use oci_spec::runtime::{PosixRlimit, PosixRlimitType as Type, Process};

use super::{Op, draft::Draft};
use crate::{
    error::{Code, Error, Result, Warning},
    host::OomScore,
};

/// Lets real root raise hard limits and lower OOM scores; not from inside a user namespace, so the parent does it.
const CAP_SYS_RESOURCE: u8 = 24;

impl Draft<'_> {
    /// What is written to our own `/proc` files.
    pub(super) fn early_limits(&mut self) -> Result<()> {
        let Some((score, own)) = self.oom_score() else { return Ok(()) };
        if score < own.own && self.may_raise() {
            self.plan.lowered_oom_score = Some(score);
            return Ok(());
        }
        if let Some(step) = self.set_oom_score(score, own)? {
            self.step_for(step, "process.oomScoreAdj");
        }
        Ok(())
    }

    /// The same for `exec`, whose child is born behind the container's `/proc`: the parent takes the score on, as who it
    /// still is, and the child inherits it.
    pub(super) fn inherited_score(&mut self) -> Result<()> {
        let Some((score, own)) = self.oom_score() else { return Ok(()) };
        let own = if self.may_raise() { OomScore { lowest: score, ..own } } else { own };
        let step = self.set_oom_score(score, own)?;
        self.plan.inherited.extend(step);
        Ok(())
    }

    /// What the config asks for, and what the caller has. Where that cannot be found out, it is none that could be asked
    /// for, so that the score is written, and the kernel decides.
    fn oom_score(&self) -> Option<(i32, OomScore)> {
        let score = self.spec.process().as_ref().and_then(Process::oom_score_adj)?;
        Some((score, self.host.named.oom_score.unwrap_or(OomScore { own: i32::MIN, lowest: score })))
    }

    fn set_oom_score(&mut self, score: i32, own: OomScore) -> Result<Option<Op>> {
        if score == own.own {
            return Ok(None);
        }
        if score >= own.lowest {
            let (file, line) = (self.text("/proc/self/oom_score_adj")?, self.text(score.to_string())?);
            return Ok(Some(Op::WriteProc { file, line }));
        }
        let own = own.own;
        let why = format!("it is below yours, {own}, and only real root may lower it");
        if !self.order.clamps {
            return Err(Error::new(Code::Rlimit, format!("set the OOM score {score}"), why).at("process.oomScoreAdj"));
        }
        self.warn(Warning::new(Code::Rlimit, format!("the OOM score stays {own}: {score} was asked for, {why}")));
        Ok(None)
    }

    fn may_raise(&self) -> bool {
        self.host.initial_userns && self.host.caller.has(CAP_SYS_RESOURCE)
    }

    /// The keyring, then the limits: those on open files and memory would hinder every step after them.
    pub(super) fn limits(&mut self) -> Result<()> {
        if self.order.new_keyring {
            self.step(Op::NewKeyring);
        }
        let Some(process) = self.spec.process() else { return Ok(()) };
        for (index, limit) in process.rlimits().iter().flatten().enumerate() {
            self.limit(index, limit)?;
        }
        Ok(())
    }

    fn limit(&mut self, index: usize, limit: &PosixRlimit) -> Result<()> {
        let (resource, mut soft, mut hard) = (number(limit.typ()), limit.soft(), limit.hard());
        let place = format!("process.rlimits[{index}]");
        let (_, own) = self.host.named.limits.get(index).copied().unwrap_or((hard, hard));
        if hard > own {
            if self.may_raise() {
                self.plan.raised.push((resource, soft, hard));
                return Ok(());
            }
            if !self.order.clamps {
                let what = format!("set {} to {soft} (hard {hard})", limit.typ());
                return Err(Error::new(Code::Rlimit, what, format!("your hard limit is {own}"))
                    .at(place)
                    .fix(format!("at most {own}")));
            }
            (soft, hard) = (soft.min(own), own);
            let what =
                format!("{} is {soft} (hard {hard}), because {} is above your hard limit", limit.typ(), limit.hard());
            self.warn(Warning::new(Code::Rlimit, what));
        }
        self.step_for(Op::Rlimit { resource, soft, hard }, place);
        Ok(())
    }
}

/// The kernel's number of a limit: `getrlimit(2)`.
pub fn number(limit: Type) -> u32 {
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
