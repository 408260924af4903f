//! Mount options: the words of spec 2.5, as flags. Pure.

use libc::{
    MOUNT_ATTR__ATIME as ATIME, MOUNT_ATTR_NOATIME as NOATIME, MOUNT_ATTR_NODEV as NODEV,
    MOUNT_ATTR_NODIRATIME as NODIRATIME, MOUNT_ATTR_NOEXEC as NOEXEC, MOUNT_ATTR_NOSUID as NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW as NOSYMFOLLOW, MOUNT_ATTR_RDONLY as RDONLY, MOUNT_ATTR_STRICTATIME as STRICTATIME,
    MS_DIRSYNC, MS_I_VERSION, MS_LAZYTIME, MS_MANDLOCK, MS_PRIVATE, MS_REC, MS_SHARED, MS_SILENT, MS_SLAVE,
    MS_SYNCHRONOUS, MS_UNBINDABLE,
};

/// What a word does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Sets attributes of the mount: `mount_setattr(2)`.
    Set(u64),
    /// Clears attributes of the mount.
    Clear(u64),
    /// Chooses how access times are kept: one enumeration, of which the last word wins. `MOUNT_ATTR_RELATIME` is 0.
    Time(u64),
    /// Sets attributes of the mount and of all below it.
    SetAll(u64),
    /// Clears attributes of the mount and of all below it.
    ClearAll(u64),
    /// Chooses how access times are kept, for the mount and all below it.
    TimeAll(u64),
    /// Sets a flag of the filesystem: `MS_*`.
    Super(u64),
    /// Clears a flag of the filesystem.
    SuperClear(u64),
    /// Sets the propagation.
    Propagation(u64),
    /// `bind`
    Bind,
    /// `rbind`
    BindAll,
    /// `remount`
    Remount,
    /// `tmpcopyup`
    CopyUp,
    /// `idmap`
    IdMap,
    /// `ridmap`
    IdMapAll,
    /// `copy-symlink`
    CopyLink,
    /// `src-nofollow`
    SourceItself,
    /// `dest-nofollow`
    TargetItself,
}

/// Every word that means something to pura; whatever else stands among the options is for the filesystem.
pub const WORDS: &[(&str, Effect)] = &[
    ("", Effect::Nothing),
    ("defaults", Effect::Nothing),
    ("ro", Effect::Set(RDONLY)),
    ("rw", Effect::Clear(RDONLY)),
    ("nosuid", Effect::Set(NOSUID)),
    ("suid", Effect::Clear(NOSUID)),
    ("nodev", Effect::Set(NODEV)),
    ("dev", Effect::Clear(NODEV)),
    ("noexec", Effect::Set(NOEXEC)),
    ("exec", Effect::Clear(NOEXEC)),
    ("nosymfollow", Effect::Set(NOSYMFOLLOW)),
    ("symfollow", Effect::Clear(NOSYMFOLLOW)),
    ("nodiratime", Effect::Set(NODIRATIME)),
    ("diratime", Effect::Clear(NODIRATIME)),
    ("noatime", Effect::Time(NOATIME)),
    ("atime", Effect::Time(0)),
    ("relatime", Effect::Time(0)),
    ("norelatime", Effect::Time(STRICTATIME)),
    ("strictatime", Effect::Time(STRICTATIME)),
    ("nostrictatime", Effect::Time(0)),
    ("rro", Effect::SetAll(RDONLY)),
    ("rrw", Effect::ClearAll(RDONLY)),
    ("rnosuid", Effect::SetAll(NOSUID)),
    ("rsuid", Effect::ClearAll(NOSUID)),
    ("rnodev", Effect::SetAll(NODEV)),
    ("rdev", Effect::ClearAll(NODEV)),
    ("rnoexec", Effect::SetAll(NOEXEC)),
    ("rexec", Effect::ClearAll(NOEXEC)),
    ("rnosymfollow", Effect::SetAll(NOSYMFOLLOW)),
    ("rsymfollow", Effect::ClearAll(NOSYMFOLLOW)),
    ("rnodiratime", Effect::SetAll(NODIRATIME)),
    ("rdiratime", Effect::ClearAll(NODIRATIME)),
    ("rnoatime", Effect::TimeAll(NOATIME)),
    ("ratime", Effect::TimeAll(0)),
    ("rrelatime", Effect::TimeAll(0)),
    ("rnorelatime", Effect::TimeAll(STRICTATIME)),
    ("rstrictatime", Effect::TimeAll(STRICTATIME)),
    ("rnostrictatime", Effect::TimeAll(0)),
    ("sync", Effect::Super(MS_SYNCHRONOUS)),
    ("async", Effect::SuperClear(MS_SYNCHRONOUS)),
    ("dirsync", Effect::Super(MS_DIRSYNC)),
    ("lazytime", Effect::Super(MS_LAZYTIME)),
    ("nolazytime", Effect::SuperClear(MS_LAZYTIME)),
    ("iversion", Effect::Super(MS_I_VERSION)),
    ("noiversion", Effect::SuperClear(MS_I_VERSION)),
    ("mand", Effect::Super(MS_MANDLOCK)),
    ("nomand", Effect::SuperClear(MS_MANDLOCK)),
    ("silent", Effect::Super(MS_SILENT)),
    ("loud", Effect::SuperClear(MS_SILENT)),
    ("bind", Effect::Bind),
    ("rbind", Effect::BindAll),
    ("remount", Effect::Remount),
    ("private", Effect::Propagation(MS_PRIVATE)),
    ("rprivate", Effect::Propagation(MS_PRIVATE | MS_REC)),
    ("shared", Effect::Propagation(MS_SHARED)),
    ("rshared", Effect::Propagation(MS_SHARED | MS_REC)),
    ("slave", Effect::Propagation(MS_SLAVE)),
    ("rslave", Effect::Propagation(MS_SLAVE | MS_REC)),
    ("unbindable", Effect::Propagation(MS_UNBINDABLE)),
    ("runbindable", Effect::Propagation(MS_UNBINDABLE | MS_REC)),
    ("tmpcopyup", Effect::CopyUp),
    ("idmap", Effect::IdMap),
    ("ridmap", Effect::IdMapAll),
    ("copy-symlink", Effect::CopyLink),
    ("src-nofollow", Effect::SourceItself),
    ("dest-nofollow", Effect::TargetItself),
];

/// The options of one mount, sorted by what they are for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of its own")]
pub struct Options {
    /// Attributes to set, `MOUNT_ATTR_*`.
    pub set: u64,
    /// Attributes to clear; those that a word asked for, not all others.
    pub clear: u64,
    /// The same for all mounts below.
    pub set_all: u64,
    /// The same for all mounts below.
    pub clear_all: u64,
    /// Flags of the filesystem, `MS_*`.
    pub super_flags: u64,
    /// `MS_SHARED` and the like, with `MS_REC`.
    pub propagation: Option<u64>,
    /// `bind` or `rbind`.
    pub bind: bool,
    /// `rbind`
    pub recursive: bool,
    /// `remount`
    pub remount: bool,
    /// `tmpcopyup`
    pub copy_up: bool,
    /// `idmap` or `ridmap`, the latter true.
    pub id_map: Option<bool>,
    /// The maps in crun's form, which older Podman writes: what follows `idmap=`.
    pub id_map_lines: Option<String>,
    /// `copy-symlink`
    pub copy_link: bool,
    /// `src-nofollow`
    pub source_itself: bool,
    /// `dest-nofollow`
    pub target_itself: bool,
    /// For the filesystem, as written.
    pub data: Vec<String>,
}

/// Sorts the words of a mount.
pub fn parse(words: &[String]) -> Options {
    let mut options = Options::default();
    for word in words {
        match (WORDS.iter().find(|(known, _)| known == word), word.split_once('=')) {
            (Some((_, effect)), _) => options.apply(*effect),
            (None, Some((name @ ("idmap" | "ridmap"), lines))) => {
                options.id_map = Some(name == "ridmap");
                options.id_map_lines = Some(lines.to_owned());
            }
            (None, _) => options.data.push(word.clone()),
        }
    }
    options
}

impl Options {
    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Set(flag) => change(&mut self.set, &mut self.clear, flag),
            Effect::Clear(flag) => change(&mut self.clear, &mut self.set, flag),
            Effect::Time(value) => (self.set, self.clear) = (self.set & !ATIME | value, self.clear | ATIME),
            Effect::SetAll(flag) => change(&mut self.set_all, &mut self.clear_all, flag),
            Effect::ClearAll(flag) => change(&mut self.clear_all, &mut self.set_all, flag),
            Effect::TimeAll(value) => {
                (self.set_all, self.clear_all) = (self.set_all & !ATIME | value, self.clear_all | ATIME);
            }
            Effect::Super(flag) => self.super_flags |= flag,
            Effect::SuperClear(flag) => self.super_flags &= !flag,
            Effect::Propagation(flags) => self.propagation = Some(flags),
            Effect::Bind => self.bind = true,
            Effect::BindAll => (self.bind, self.recursive) = (true, true),
            Effect::Remount => self.remount = true,
            Effect::CopyUp => self.copy_up = true,
            Effect::IdMap => self.id_map = Some(false),
            Effect::IdMapAll => self.id_map = Some(true),
            Effect::CopyLink => self.copy_link = true,
            Effect::SourceItself => self.source_itself = true,
            Effect::TargetItself => self.target_itself = true,
        }
    }

    /// The attributes as `MS_*`, for `mount(2)`, and the flags of the filesystem with them.
    pub fn mount_flags(&self) -> u64 {
        // In the order in which they are applied to a mount that is there: the recursive ones last.
        let set = self.set & !self.clear_all | self.set_all;
        let plain = FLAGS.iter().filter(|(attribute, _)| set & attribute != 0).fold(0, |flags, (_, flag)| flags | flag);
        let time = match set & ATIME {
            NOATIME => libc::MS_NOATIME,
            STRICTATIME => libc::MS_STRICTATIME,
            _ if (self.clear | self.clear_all) & ATIME != 0 => libc::MS_RELATIME,
            _ => 0,
        };
        plain | time | self.super_flags
    }

    /// The attributes that a word asks to clear, as `MS_*`: what a remount does not keep.
    pub fn cleared_flags(&self) -> u64 {
        let clear = self.clear | self.clear_all;
        let plain =
            FLAGS.iter().filter(|(attribute, _)| clear & attribute != 0).fold(0, |flags, (_, flag)| flags | flag);
        let time = if clear & ATIME == 0 { 0 } else { libc::MS_NOATIME | libc::MS_RELATIME };
        plain | time
    }
}

/// Attributes and their flags, which say the same.
const FLAGS: [(u64, u64); 6] = [
    (RDONLY, libc::MS_RDONLY),
    (NOSUID, libc::MS_NOSUID),
    (NODEV, libc::MS_NODEV),
    (NOEXEC, libc::MS_NOEXEC),
    (NODIRATIME, libc::MS_NODIRATIME),
    (NOSYMFOLLOW, MS_NOSYMFOLLOW),
];

/// Not in libc: include/uapi/linux/mount.h, since Linux 5.10.
const MS_NOSYMFOLLOW: u64 = 256;

/// Adds a flag to one mask and takes it from the other: the last word wins.
fn change(to: &mut u64, from: &mut u64, flag: u64) {
    *to |= flag;
    *from &= !flag;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Options {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn no_known_word_reaches_the_filesystem() {
        for (word, _) in WORDS {
            assert!(of(&[word]).data.is_empty(), "{word}");
        }
        assert_eq!(of(&["size=4k", "mode=755", "bogus"]).data, ["size=4k", "mode=755", "bogus"]);
    }

    #[test]
    fn the_last_word_wins() {
        assert_eq!((of(&["ro", "rw"]).set, of(&["ro", "rw"]).clear), (0, RDONLY));
        assert_eq!((of(&["rw", "ro"]).set, of(&["rw", "ro"]).clear), (RDONLY, 0));
        assert_eq!(of(&["noatime", "strictatime"]).set, STRICTATIME);
        assert_eq!(of(&["strictatime", "relatime"]).mount_flags(), libc::MS_RELATIME);
    }

    #[test]
    fn every_attribute_has_its_word_its_opposite_and_both_recursive() {
        for (word, opposite, set, clear) in [
            ("ro", "rw", RDONLY, 0),
            ("nosuid", "suid", NOSUID, 0),
            ("nodev", "dev", NODEV, 0),
            ("noexec", "exec", NOEXEC, 0),
            ("nosymfollow", "symfollow", NOSYMFOLLOW, 0),
            ("nodiratime", "diratime", NODIRATIME, 0),
            ("noatime", "atime", NOATIME, ATIME),
            ("norelatime", "relatime", STRICTATIME, ATIME),
            ("strictatime", "nostrictatime", STRICTATIME, ATIME),
        ] {
            let set_it = Options { set, clear, ..Options::default() };
            let clear_it = Options { clear: set | clear, ..Options::default() };
            let all = |one: &Options| Options { set_all: one.set, clear_all: one.clear, ..Options::default() };
            assert_eq!((of(&[word]), of(&[&format!("r{word}")])), (set_it.clone(), all(&set_it)), "{word}");
            assert_eq!(
                (of(&[opposite]), of(&[&format!("r{opposite}")])),
                (clear_it.clone(), all(&clear_it)),
                "{opposite}"
            );
        }
    }

    #[test]
    fn every_flag_of_the_filesystem_has_its_word_and_its_opposite() {
        for (word, opposite, flag) in [
            ("sync", "async", MS_SYNCHRONOUS),
            ("lazytime", "nolazytime", MS_LAZYTIME),
            ("iversion", "noiversion", MS_I_VERSION),
            ("mand", "nomand", MS_MANDLOCK),
            ("silent", "loud", MS_SILENT),
            ("dirsync", "defaults", MS_DIRSYNC),
        ] {
            assert_eq!(of(&[word]), Options { super_flags: flag, ..Options::default() }, "{word}");
            assert_eq!(of(&[opposite]), Options::default(), "{opposite}");
        }
        assert_eq!(of(&["sync", "async", ""]), Options::default());
    }

    #[test]
    fn every_propagation_has_its_word_and_the_recursive_one() {
        for (word, flag) in
            [("private", MS_PRIVATE), ("shared", MS_SHARED), ("slave", MS_SLAVE), ("unbindable", MS_UNBINDABLE)]
        {
            assert_eq!(of(&[word]).propagation, Some(flag), "{word}");
            assert_eq!(of(&[&format!("r{word}")]).propagation, Some(flag | MS_REC), "{word}");
        }
    }

    #[test]
    fn words_of_their_own_are_remembered() {
        assert_eq!(
            (of(&["idmap"]).id_map, of(&["ridmap"]).id_map, of(&["ro"]).id_map),
            (Some(false), Some(true), None)
        );
        let lines = of(&["ridmap=uids=0-1-1;gids=0-1-1"]);
        assert_eq!((lines.id_map, lines.id_map_lines.as_deref()), (Some(true), Some("uids=0-1-1;gids=0-1-1")));
        assert!(of(&["copy-symlink"]).copy_link && of(&["src-nofollow"]).source_itself);
        assert!(of(&["dest-nofollow"]).target_itself && of(&["tmpcopyup"]).copy_up && of(&["remount"]).remount);
    }

    #[test]
    fn recursive_words_are_kept_apart() {
        let options = of(&["rro", "nosuid"]);
        assert_eq!((options.set, options.set_all), (NOSUID, RDONLY));
        assert_eq!(of(&["ro", "noatime", "rrw", "ratime"]).mount_flags(), libc::MS_RELATIME);
        assert_eq!(of(&["rw", "rro"]).mount_flags(), libc::MS_RDONLY);
    }

    #[test]
    fn mount_flags_have_the_numbers_of_mount_2() {
        let flags = of(&["ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow", "sync"]).mount_flags();
        let wanted = libc::MS_RDONLY
            | libc::MS_NOSUID
            | libc::MS_NODEV
            | libc::MS_NOEXEC
            | libc::MS_NOATIME
            | 256
            | MS_SYNCHRONOUS;
        assert_eq!(flags, wanted);
    }

    #[test]
    fn bind_and_rbind_together_are_recursive() {
        assert!(of(&["bind", "rbind"]).recursive && of(&["rbind"]).bind);
    }
}
