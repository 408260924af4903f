//! JSON, changed as a tree, so that most of it still means what it did.

use serde_json::{Map, Value, json};

use super::{corpus::Corpus, mutation, random::Random};

/// A text of the corpus with some changes of its tree, and sometimes of its bytes.
pub(super) fn json(corpus: &Corpus, random: &mut Random) -> Vec<u8> {
    let Ok(mut tree) = serde_json::from_slice::<Value>(corpus.pick(random)) else {
        return mutation::bytes(corpus, random);
    };
    let other = serde_json::from_slice::<Value>(corpus.pick(random)).unwrap_or_default();
    for _ in 0..=random.below(4) {
        change(&mut tree, &other, random);
    }
    let mut text = serde_json::to_vec(&tree).unwrap_or_default();
    if random.once_in(8) {
        mutation::scratch(&mut text, random);
    }
    text
}

/// Changes one node: most often one deep in the tree, where the most are.
fn change(tree: &mut Value, other: &Value, random: &mut Random) {
    let count = count(tree);
    let wanted = random.below(count);
    let Some(node) = find(tree, &mut { wanted }) else { return };
    match random.below(10) {
        0 => *node = hostile(random),
        // What the same key has elsewhere, which is of the right type.
        1 | 2 => graft(node, other, random),
        3 | 4 => shuffle(node, random),
        5 => {
            let inner = node.take();
            *node = if random.once_in(2) { json!([inner]) } else { json!({"path": inner}) };
        }
        _ => twist(node, random),
    }
}

fn count(tree: &Value) -> usize {
    1 + match tree {
        Value::Array(all) => all.iter().map(count).sum(),
        Value::Object(all) => all.values().map(count).sum(),
        _ => 0,
    }
}

fn find<'a>(tree: &'a mut Value, wanted: &mut usize) -> Option<&'a mut Value> {
    if *wanted == 0 {
        return Some(tree);
    }
    *wanted -= 1;
    match tree {
        Value::Array(all) => all.iter_mut().find_map(|inner| find(inner, wanted)),
        Value::Object(all) => all.values_mut().find_map(|inner| find(inner, wanted)),
        _ => None,
    }
}

fn hostile(random: &mut Random) -> Value {
    match random.below(14) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(""),
        3 => json!({}),
        4 => json!([]),
        5 => json!(*random.pick(&[-1_i64, 0, 1, 4096, 65535, i64::MAX, i64::MIN, i64::from(i32::MIN)])),
        6 => json!(*random.pick(&[u64::MAX, 1 << 32, (1 << 32) - 1, (1 << 31) - 1, 1 << 31, 1 << 63])),
        7 => json!(1.5),
        8 => json!("a".repeat(*random.pick(&[255, 256, 4095, 4096, 5000, 20_000]))),
        9 => json!("\u{1b}[31m\n\r\u{85}\u{2028}"),
        10 => json!("/proc/../sys/./x//"),
        11 => json!("\0"),
        12 => json!(vec!["x"; random.below(400)]),
        _ => (0..random.below(100)).fold(json!("x"), |inner, _| json!([inner])),
    }
}

/// Puts keys of another object into one, or other elements into an array.
fn graft(node: &mut Value, other: &Value, random: &mut Random) {
    let mut other = other.clone();
    let wanted = random.below(count(&other));
    let Some(found) = find(&mut other, &mut { wanted }) else { return };
    match (node, found.take()) {
        (Value::Object(to), Value::Object(from)) => to.extend(from),
        (Value::Array(to), Value::Array(from)) => to.extend(from),
        (Value::Array(to), from) => to.push(from),
        (Value::Object(to), from) => {
            let key = to.keys().nth(random.below(to.len())).cloned();
            to.insert(key.unwrap_or_default(), from);
        }
        (to, from) => *to = from,
    }
}

/// Removes, repeats or exchanges what a node has.
fn shuffle(node: &mut Value, random: &mut Random) {
    match node {
        Value::Array(all) if !all.is_empty() => {
            let (at, with) = (random.below(all.len()), random.below(all.len()));
            match random.below(3) {
                0 => drop(all.remove(at)),
                1 => all.insert(with, all[at].clone()),
                _ => all.swap(at, with),
            }
        }
        Value::Object(all) if !all.is_empty() => shuffle_keys(all, random),
        _ => {}
    }
}

fn shuffle_keys(all: &mut Map<String, Value>, random: &mut Random) {
    let keys: Vec<_> = all.keys().cloned().collect();
    let (key, with) = (random.pick(&keys), random.pick(&keys));
    let Some(taken) = all.remove(key) else { return };
    match random.below(3) {
        0 => {}
        1 => drop(all.insert(mutation::text(key, random), taken)),
        _ => {
            let there = all.insert(with.clone(), taken);
            all.insert(key.clone(), there.unwrap_or_default());
        }
    }
}

/// Changes a leaf a little; of what has leaves, one.
fn twist(node: &mut Value, random: &mut Random) {
    match node {
        Value::Null => *node = hostile(random),
        Value::Bool(is) => *is = !*is,
        Value::Number(number) => {
            let value = number.as_i64().unwrap_or_default();
            let near = [
                value.wrapping_add(1),
                value.wrapping_sub(1),
                value.wrapping_neg(),
                value.wrapping_mul(2),
                value ^ 1 << 31,
            ];
            *node = if random.once_in(3) { hostile(random) } else { json!(*random.pick(&near)) };
        }
        Value::String(text) if random.once_in(4) => *text = random.pick(&TEXTS).to_string(),
        Value::String(text) => *text = mutation::text(text, random),
        Value::Array(all) => {
            let at = random.below(all.len());
            if let Some(inner) = all.get_mut(at) {
                twist(inner, random);
            }
        }
        Value::Object(all) => {
            let at = random.below(all.len());
            if let Some(inner) = all.values_mut().nth(at) {
                twist(inner, random);
            }
        }
    }
}

/// Values that have a meaning in one place or another.
const TEXTS: [&str; 48] = [
    "user",
    "pid",
    "mount",
    "network",
    "ipc",
    "uts",
    "cgroup",
    "time",
    "/proc/1/ns/net",
    "/proc/self/ns/user",
    "bind",
    "rbind",
    "ro",
    "rro",
    "idmap",
    "ridmap=uids=0-1-1;gids=0-1-1",
    "idmap=uids=@0-1-4294967295#1-2-3",
    "tmpcopyup",
    "copy-symlink",
    "remount",
    "src-nofollow",
    "dest-nofollow",
    "tmpfs",
    "proc",
    "sysfs",
    "mqueue",
    "devpts",
    "cgroup2",
    "overlay",
    "/",
    "/dev",
    "/proc",
    "/proc/sys",
    "/sys/fs/cgroup",
    "/dev/pts",
    "rootfs",
    "..",
    "b",
    "c",
    "p",
    "u",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_ERRNO",
    "CAP_SYS_ADMIN",
    "RLIMIT_NOFILE",
    "max",
    "0-3",
    "user.slice:x:y",
];
