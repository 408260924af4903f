//! Rules for what the kernel keeps with a process: scheduling, I/O priority, personality, memory policy, clocks.

use oci_spec::runtime::{
    Linux, LinuxMemoryPolicy, LinuxSchedulerPolicy as Policy, MemoryPolicyFlagType as Flag,
    MemoryPolicyModeType as Mode, Process, Scheduler,
};

use super::Faults;
use crate::error::Code;

/// Clocks that a time namespace can shift: `time_namespaces(7)`.
const CLOCKS: [&str; 2] = ["monotonic", "boottime"];

pub(super) fn process(process: &Process, faults: &mut Faults) {
    if let Some(scheduler) = process.scheduler() {
        self::scheduler(scheduler, faults);
    }
    if let Some(priority) = process.io_priority() {
        let level = priority.priority();
        if !(0..=7).contains(&level) {
            faults.add("process.ioPriority.priority", format!("{level} is not between 0 and 7"));
        }
    }
    if let Some(affinity) = process.exec_cpu_affinity() {
        for (key, cpus) in [("initial", affinity.initial()), ("final", affinity.cpu_affinity_final())] {
            if let Err(why) = cpu_list(cpus.as_deref().unwrap_or_default()) {
                faults.add(&format!("process.execCPUAffinity.{key}"), why);
            }
        }
    }
}

fn scheduler(scheduler: &Scheduler, faults: &mut Faults) {
    let policy = *scheduler.policy();
    let named = policy.to_string();
    let is_fair = matches!(policy, Policy::SchedOther | Policy::SchedBatch);
    let is_real_time = matches!(policy, Policy::SchedFifo | Policy::SchedRr);
    if policy == Policy::SchedIso {
        faults.add("process.scheduler.policy", "SCHED_ISO was never implemented by Linux");
    }
    // 0 is what the kernel has in a field that is not meant.
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        faults.add("process.scheduler.nice", format!("{nice} is not between -20 and 19"));
    } else if nice != 0 && !is_fair {
        faults.add("process.scheduler.nice", format!("{nice} has no meaning with {named}"));
    }
    let priority = scheduler.priority().unwrap_or(0);
    if is_real_time && !(1..=99).contains(&priority) {
        faults.add("process.scheduler.priority", format!("{priority} is not between 1 and 99"));
    } else if priority != 0 && !is_real_time {
        faults.add("process.scheduler.priority", format!("{priority} has no meaning with {named}"));
    }
    let [runtime, deadline, period] =
        [scheduler.runtime(), scheduler.deadline(), scheduler.period()].map(|time| time.unwrap_or(0));
    for (key, time) in [("runtime", runtime), ("deadline", deadline), ("period", period)] {
        if time != 0 && policy != Policy::SchedDeadline {
            faults.add(&format!("process.scheduler.{key}"), format!("{time} has no meaning with {named}"));
        }
    }
}

pub(super) fn linux(linux: &Linux, has_new_time: bool, faults: &mut Faults) {
    let flags = linux.personality().as_ref().and_then(|personality| personality.flags().as_ref());
    if let Some(flags) = flags.filter(|flags| !flags.is_empty()) {
        faults.add("linux.personality.flags", format!("{flags:?}: no flag is defined"));
    }
    if let Some(policy) = linux.memory_policy() {
        memory_policy(policy, faults);
    }
    let offsets: Vec<_> = linux.time_offsets().iter().flatten().collect();
    if !offsets.is_empty() && !has_new_time {
        faults.add_as(Code::NamespaceNeeded, "linux.timeOffsets", "offsets need a new time namespace");
    }
    for (clock, offset) in offsets {
        let key = format!("linux.timeOffsets.{clock}");
        if !CLOCKS.contains(&clock.as_str()) {
            faults.add(&key, format!("only {} can be shifted", CLOCKS.join(" and ")));
        }
        if let Some(nanosecs) = offset.nanosecs().filter(|nanosecs| *nanosecs > 999_999_999) {
            faults.add_as(Code::TimeOffsets, &key, format!("nanosecs {nanosecs} is not below 1000000000"));
        }
    }
}

/// What `set_mempolicy(2)` would refuse with a bare EINVAL.
fn memory_policy(policy: &LinuxMemoryPolicy, faults: &mut Faults) {
    let mode = policy.mode();
    let nodes = policy.nodes().as_deref().unwrap_or_default();
    // MPOL_PREFERRED takes nodes or none.
    let takes_none = matches!(mode, Mode::MpolDefault | Mode::MpolLocal);
    if takes_none && !nodes.is_empty() {
        faults.add("linux.memoryPolicy.nodes", format!("{nodes:?}, but {mode} takes no nodes"));
    } else if !takes_none && mode != Mode::MpolPreferred && nodes.is_empty() {
        faults.add("linux.memoryPolicy.nodes", format!("{mode} needs nodes"));
    }
    if let Err(why) = node_list(nodes) {
        faults.add("linux.memoryPolicy.nodes", why);
    }
    let flags = policy.flags().as_deref().unwrap_or_default();
    let has = |flag| flags.contains(&flag);
    if has(Flag::MpolFStaticNodes) && has(Flag::MpolFRelativeNodes) {
        faults.add("linux.memoryPolicy.flags", "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other");
    }
    if has(Flag::MpolFNumaBalancing) && !matches!(mode, Mode::MpolBind | Mode::MpolPreferredMany) {
        faults.add("linux.memoryPolicy.flags", format!("MPOL_F_NUMA_BALANCING has no meaning with {mode}"));
    }
    if !flags.is_empty() && nodes.is_empty() {
        faults.add("linux.memoryPolicy.flags", "flags are about nodes, and there are none");
    }
}

/// Nodes as `0-3,7`: a bit each.
pub fn node_list(text: &str) -> Result<[u64; 16], String> {
    number_list(text, "node")
}

/// CPUs in the same form.
pub fn cpu_list(text: &str) -> Result<[u64; 16], String> {
    number_list(text, "CPU")
}

fn number_list(text: &str, of: &str) -> Result<[u64; 16], String> {
    let mut bits = [0_u64; 16];
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |word: &str| {
            let digits = word.bytes().all(|byte| byte.is_ascii_digit()).then_some(word)?;
            digits.parse::<usize>().ok().filter(|node| *node < crate::sys::schedule::MOST_NODES)
        };
        let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
        let Some((from, to)) = range else {
            return Err(format!("{part:?} in {text:?} is no {of} from 0 to 1023, nor a range of them"));
        };
        for bit in from..=to {
            if let Some(word) = bits.get_mut(bit / 64) {
                *word |= 1 << (bit % 64);
            }
        }
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_numbers_and_ranges() {
        let bits = |text: &str| node_list(text).map(|nodes| (nodes[0], nodes[15]));
        assert_eq!(bits(""), Ok((0, 0)));
        assert_eq!(bits("0-3,7"), Ok((0b1000_1111, 0)));
        assert_eq!(bits("1023"), Ok((0, 1 << 63)));
        for wrong in ["1024", "3-1", "a", "-1", "1-", ",", "0,", " 1", "+1"] {
            assert!(bits(wrong).is_err(), "{wrong:?}");
        }
    }
}
