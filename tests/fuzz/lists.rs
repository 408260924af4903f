//! Id maps, subordinate ids and accounts: texts of lines and fields. Each reading has another one beside it, which says the same
//! in more words.

use super::{Verdict, is_one_line};
use crate::{
    host::{
        account,
        ids::{self, Extent},
    },
    init::home::LONGEST,
    plan::ids::check_lines,
};

/// One text, read as each of them.
pub(super) fn judge(input: &[u8]) -> Verdict {
    let map = ids::parse(input);
    if ids::parse(ids::lines(&map).as_bytes()) != map {
        return Err(format!("{map:?} does not survive"));
    }
    if map.iter().any(|extent| extent.count == 0) {
        return Err(format!("a line of no ids in {map:?}"));
    }
    is_one_line(&ids::ranges(&map, |extent| extent.inside))?;
    if let Err(why) = check_lines(&map) {
        is_one_line(&why)?;
        if is_map(&map) {
            return Err(format!("{map:?} is refused: {why}"));
        }
    } else if is_map(&map) {
        translated(&map)?;
    } else {
        return Err(format!("{map:?} is accepted"));
    }
    let text = String::from_utf8_lossy(input).into_owned();
    for range in account::ranges(&text, Some("alice"), "1000").into_iter().chain(account::listed(&text)) {
        if range.count == 0 {
            return Err("a range of no ids".to_owned());
        }
    }
    if account::free(&[text.clone(), String::new()]) < 100_000 {
        return Err("advice names ids that are the system's".to_owned());
    }
    account::has_other_source(&text);
    drop(account::entry(&text, 1000));
    Ok(())
}

/// What `map_write` of `kernel/user_namespace.c` asks of a map, with numbers that cannot overflow.
fn is_map(map: &[Extent]) -> bool {
    let end = |first: u32, count: u32| u64::from(first) + u64::from(count);
    let sides = [|extent: &Extent| extent.inside, |extent: &Extent| extent.outside];
    let fits =
        map.iter().all(|extent| extent.count > 0 && sides.iter().all(|side| end(side(extent), extent.count) < 1 << 32));
    let disjoint = sides.iter().all(|side| {
        let mut ranges: Vec<_> =
            map.iter().map(|extent| (u64::from(side(extent)), end(side(extent), extent.count))).collect();
        ranges.sort_unstable();
        ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0)
    });
    (1..=340).contains(&map.len()) && fits && disjoint
}

/// Each id goes out and comes back, and the ends of an extent are where they are.
fn translated(map: &[Extent]) -> Verdict {
    for extent in map {
        for offset in [0, extent.count / 2, extent.count - 1] {
            let (inside, outside) = (extent.inside + offset, extent.outside + offset);
            if extent.outside_of(inside) != Some(outside) || extent.inside_of(outside) != Some(inside) {
                return Err(format!("{extent:?} does not map {inside} to {outside}"));
            }
        }
        if extent.inside.checked_sub(1).and_then(|before| extent.outside_of(before)).is_some()
            || extent.outside_of(extent.inside + extent.count).is_some()
        {
            return Err(format!("{extent:?} maps more than it has"));
        }
    }
    Ok(())
}

/// The home of an id in `passwd(5)`: of the first line of that id with a home that fits.
pub(super) fn home(passwd: &[u8], uid: u32) -> Vec<u8> {
    let of = |line: &[u8]| {
        let fields: Vec<_> = line.split(|byte| *byte == b':').collect();
        let (number, home) = (fields.get(2)?, fields.get(5)?);
        let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
        let is_wanted = is_number && str::from_utf8(number).ok()?.parse() == Ok(uid);
        (is_wanted && !home.is_empty() && home.len() < LONGEST - 5).then(|| home.to_vec())
    };
    passwd.split(|byte| *byte == b'\n').find_map(of).unwrap_or_else(|| b"/".to_vec())
}
