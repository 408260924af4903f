//! `pura completion`: a script that completes the command line in a shell, made from the table of verbs and flags.

use std::fmt::Write as _;

use crate::cli::{
    Shell,
    table::{Flag, GLOBALS, VERBS, Value, Verb},
};

/// The script.
pub(super) fn completion(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

fn flags(verb: &Verb) -> impl Iterator<Item = &'static Flag> + use<> {
    shown(verb.flags.iter().flat_map(|group| group.iter()))
}

/// Without those that help does not show.
fn shown(flags: impl Iterator<Item = &'static Flag>) -> impl Iterator<Item = &'static Flag> {
    flags.filter(|flag| !flag.help.is_empty())
}

fn takes_id(verb: &Verb) -> bool {
    verb.name == "exec" || verb.name != "create" && verb.operands.iter().any(|operand| operand.name == "ID")
}

fn words(flags: impl Iterator<Item = &'static Flag>) -> String {
    let mut words = String::new();
    for flag in flags {
        let _ = flag.short.map(|short| write!(words, "-{short} "));
        let _ = write!(words, "--{} ", flag.long);
    }
    words + "--help"
}

fn names() -> Vec<&'static str> {
    VERBS.iter().map(|verb| verb.name).collect()
}

fn bash() -> String {
    let mut cases = String::new();
    for verb in VERBS {
        let ids = if takes_id(verb) { " ids=1" } else { "" };
        let _ = writeln!(cases, "    {}) words='{}'{ids} ;;", verb.name, words(flags(verb)));
    }
    let (names, globals) = (names(), words(shown(GLOBALS.iter())));
    let (either, all) = (names.join("|"), names.join(" "));
    format!(
        "_pura() {{\n  local word=${{COMP_WORDS[COMP_CWORD]}} verb= words= ids= at\n  \
         for ((at = 1; at < COMP_CWORD; at++)); do\n    case ${{COMP_WORDS[at]}} in\n      \
         --) return ;;\n      {either}) verb=${{verb:-${{COMP_WORDS[at]}}}} ;;\n    esac\n  done\n  \
         case $verb in\n    '') words='{all} {globals}' ;;\n{cases}  esac\n  \
         if [[ $ids && $word != -* ]]; then words=$(pura list --quiet 2>/dev/null); fi\n  \
         if [[ $ids || ! $verb || $word == -* ]]; then COMPREPLY=($(compgen -W \"$words\" -- \"$word\")); fi\n}}\n\
         complete -o default -F _pura pura\n"
    )
}

/// A word in single quotes, as all three shells read it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn zsh() -> String {
    let described = |text: &str| text.replace(['[', ']'], "").replace(':', "\\:");
    let options = |flags: &mut dyn Iterator<Item = &'static Flag>| {
        flags.fold(String::new(), |mut lines, flag| {
            let argument = match flag.value {
                Value::None => "",
                Value::One(_) | Value::Many(_) | Value::Optional(_) => ":value:_files",
            };
            let help = described(flag.help);
            for name in flag.short.map(|short| format!("-{short}")).into_iter().chain([format!("--{}", flag.long)]) {
                let _ = write!(lines, " \\\n      {}", quoted(&format!("*{name}[{help}]{argument}")));
            }
            lines
        })
    };
    let (mut verbs, mut cases) = (String::new(), String::new());
    for verb in VERBS {
        let _ = write!(verbs, " \\\n    {}", quoted(&format!("{}:{}", verb.name, described(verb.about))));
        let operand =
            if takes_id(verb) { "'1:container:($(pura list --quiet 2>/dev/null))'" } else { "'*:file:_files'" };
        let _ = writeln!(cases, "    {}) _arguments{} \\\n      {operand} ;;", verb.name, options(&mut flags(verb)));
    }
    let globals = options(&mut shown(GLOBALS.iter()));
    format!(
        "#compdef pura\n_pura() {{\n  local context state line\n  local -a verbs=({verbs})\n  \
         _arguments -C{globals} \\\n      '1:verb:->verb' '*::words:->words'\n  \
         case $state in\n    verb) _describe verb verbs ;;\n    words) case $line[1] in\n{cases}    esac ;;\n  esac\n}}\n\
         compdef _pura pura\n"
    )
}

fn fish() -> String {
    let option = |condition: &str, flag: &Flag| {
        let short = flag.short.map(|short| format!(" -s {short}")).unwrap_or_default();
        let value = if flag.takes_word() { " -r" } else { "" };
        format!("complete -c pura -n {condition} -l {}{short}{value} -d {}\n", flag.long, quoted(flag.help))
    };
    let mut script = String::new();
    for flag in shown(GLOBALS.iter()) {
        script += &option("__fish_use_subcommand", flag);
    }
    for verb in VERBS {
        let (name, about) = (verb.name, quoted(verb.about));
        let _ = writeln!(script, "complete -c pura -f -n __fish_use_subcommand -a {name} -d {about}");
        let condition = format!("'__fish_seen_subcommand_from {name}'");
        if takes_id(verb) {
            let _ = writeln!(script, "complete -c pura -f -n {condition} -a '(pura list --quiet 2>/dev/null)'");
        }
        flags(verb).for_each(|flag| script += &option(&condition, flag));
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_and_flag_is_completed_in_every_shell() {
        for (shell, dashes) in [(Shell::Bash, "--"), (Shell::Zsh, "--"), (Shell::Fish, "-l ")] {
            let script = completion(shell);
            for verb in VERBS {
                assert!(script.contains(verb.name), "{shell:?} {}", verb.name);
                assert!(flags(verb).all(|flag| script.contains(&format!("{dashes}{}", flag.long))), "{shell:?}");
            }
            assert!(!script.contains("no-subreaper"), "{shell:?}: what help does not show");
        }
    }

    #[test]
    fn a_quote_ends_no_word() {
        assert_eq!(quoted("the caller's"), "'the caller'\\''s'");
    }
}
