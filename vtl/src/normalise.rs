//! The vendor's spellings of verbs and options, turned into those that the parser knows.
//!
//! Verbs are understood in any case and with a leading dash (`haAdmin -newGroup`); long options with a single dash and
//! in any case (`-serialNum`). An option's value is never looked at: it is tied to its option by `=`. What verbs and
//! options there are is read from the parser's own definition.

use std::ffi::OsString;

use clap::{Arg, Command};

/// The command line, program name included, in the parser's spelling.
pub(crate) fn normalised(mut definition: Command, words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    definition.build();
    let mut words = words;
    let mut result: Vec<OsString> = words.next().into_iter().collect();
    let mut command = &definition;
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else {
            result.push(word);
            continue;
        };
        if let Some(verb) = verb(command, text) {
            result.push(verb.get_name().into());
            command = verb;
            continue;
        }
        let Some((name, has_value, value)) = option(command, text) else {
            result.push(word);
            continue;
        };
        match (has_value, value) {
            (_, Some(value)) => result.push(format!("--{name}={value}").into()),
            (false, None) => result.push(format!("--{name}").into()),
            (true, None) => {
                let mut joined = OsString::from(format!("--{name}"));
                if let Some(value) = words.next() {
                    joined.push("=");
                    joined.push(value);
                }
                result.push(joined);
            }
        }
    }
    result
}

/// The word without its dash or dashes.
fn bare(text: &str) -> Option<&str> {
    text.strip_prefix("--").or_else(|| text.strip_prefix('-'))
}

fn verb<'a>(command: &'a Command, text: &str) -> Option<&'a Command> {
    let name = bare(text).unwrap_or(text);
    command.get_subcommands().find(|verb| {
        verb.get_name().eq_ignore_ascii_case(name)
            || verb.get_all_aliases().any(|alias| alias.eq_ignore_ascii_case(name))
    })
}

/// Name, whether a value follows, and the value when it is in the same word.
fn option<'a, 'b>(command: &'a Command, text: &'b str) -> Option<(&'a str, bool, Option<&'b str>)> {
    let bare = bare(text)?;
    let (name, value) = match bare.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (bare, None),
    };
    let known = |argument: &&Arg| {
        let spelled = |long: &str| long.eq_ignore_ascii_case(name);
        argument.get_long().is_some_and(spelled)
            || argument.get_all_aliases().unwrap_or_default().into_iter().any(spelled)
    };
    let argument = command.get_arguments().find(known)?;
    Some((argument.get_long()?, argument.get_action().takes_values(), value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::arguments::Arguments;

    fn of(line: &str) -> String {
        let words = normalised(Arguments::command(), line.split(' ').map(OsString::from));
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn verbs_lose_their_dash_and_get_their_case() {
        assert_eq!(of("vtl HAADMIN -newgroup"), "vtl haAdmin newGroup");
        assert_eq!(of("vtl haAdmin show"), "vtl haAdmin show");
        assert_eq!(of("vtl -CreateCert -n app"), "vtl createCert --n=app");
        assert_eq!(of("vtl haadmin halog -ENABLE"), "vtl haAdmin haLog --enable");
        assert_eq!(of("vtl haadmin createGroup"), "vtl haAdmin newGroup");
    }

    #[test]
    fn options_become_long_ones_tied_to_their_value() {
        assert_eq!(of("vtl addserver -N a -C b -p 9"), "vtl addServer --n=a --c=b --p=9");
        assert_eq!(
            of("vtl haAdmin addMember -GROUP=g -serialnum 7"),
            "vtl haAdmin addMember --group=g --serialNum=7"
        );
        assert_eq!(of("vtl haAdmin addMember -serialNumber 7"), "vtl haAdmin addMember --serialNum=7");
        assert_eq!(of("vtl -json listServers --config /x"), "vtl --json listServers --config=/x");
        assert_eq!(of("vtl listServers -JSON -Config /x"), "vtl listServers --json --config=/x");
        assert_eq!(of("vtl haAdmin autoRecovery -retry -1"), "vtl haAdmin autoRecovery --retry=-1");
        assert_eq!(of("vtl haAdmin newGroup -help"), "vtl haAdmin newGroup --help");
    }

    #[test]
    fn values_are_not_looked_at() {
        let line = "vtl haAdmin newGroup -label -newGroup -password show -serialNum -label";
        assert_eq!(of(line), "vtl haAdmin newGroup --label=-newGroup --password=show --serialNum=-label");
    }

    #[test]
    fn what_is_not_known_stays_for_the_parser_to_refuse() {
        assert_eq!(of("vtl fly -high 3"), "vtl fly -high 3");
        assert_eq!(of("vtl verify show"), "vtl verify show");
        assert_eq!(of("vtl haAdmin newGroup -password"), "vtl haAdmin newGroup --password");
        assert_eq!(of("vtl verify -serialNum 3"), "vtl verify -serialNum 3");
    }
}
