//! The word that somebody may have meant.

/// The nearest of `words`, if it is near: one letter in three may be missing, wrong, superfluous or in another case, and at
/// most three.
pub fn nearest<'a>(typed: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (typed.chars().count() / 3).clamp(1, 3);
    let near = words.into_iter().map(|word| (distance(typed, word), word));
    near.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

/// How many letters have to be changed, added or removed, or swapped with the next one; the case is nothing.
fn distance(typed: &str, word: &str) -> usize {
    let [typed, word] = [typed, word].map(|text| text.to_ascii_lowercase().into_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=word.len()).collect();
    for (at, letter) in typed.iter().enumerate() {
        let mut next = vec![at + 1];
        for (to, other) in word.iter().enumerate() {
            let cost = |costs: &[usize], column: usize| costs.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut least = (cost(&row, to + 1) + 1).min(cost(&next, to) + 1);
            least = least.min(cost(&row, to) + usize::from(letter != other));
            let is_swapped = at > 0 && to > 0 && typed.get(at - 1) == Some(other) && word.get(to - 1) == Some(letter);
            if is_swapped {
                least = least.min(cost(&before, to - 1) + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_near_when_a_slip_of_the_hand_made_it() {
        let words = ["run", "resume", "exec", "state", "start", "noNewPrivileges", "args"];
        for (typed, wanted) in [
            ("rnu", Some("run")),
            ("rum", Some("run")),
            ("exce", Some("exec")),
            ("stat", Some("state")),
            ("arg", Some("args")),
            ("no_new_privileges", Some("noNewPrivileges")),
            ("ARGS", Some("args")),
            ("checkpoint", None),
            ("", None),
            ("xyz", None),
        ] {
            assert_eq!(nearest(typed, words), wanted, "{typed}");
        }
    }
}
