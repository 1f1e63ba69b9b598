//! The vendor's spellings made ours: `-soPin` is `--soPin`, verbs and options are found in any case.
use std::collections::HashMap;
use std::ffi::OsString;

use clap::Command;

/// The words and options of a command and all below it, under their lower-case spellings.
#[derive(Default)]
struct Vocabulary {
    verbs: HashMap<String, String>,
    /// The right spelling, and whether a value follows.
    options: HashMap<String, (String, bool)>,
}

impl Vocabulary {
    fn learn(&mut self, command: &Command) {
        for argument in command.get_arguments() {
            if let Some(long) = argument.get_long() {
                let takes_value = argument.get_action().takes_values();
                self.options.insert(long.to_lowercase(), (long.to_owned(), takes_value));
            }
        }
        for below in command.get_subcommands() {
            self.verbs.insert(below.get_name().to_lowercase(), below.get_name().to_owned());
            self.learn(below);
        }
    }
}

/// Rewrites a command line; what is not known stays as it is, for clap to complain about.
pub(super) fn normalise(command: &Command, words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut vocabulary = Vocabulary::default();
    let mut built = command.clone();
    built.build();
    vocabulary.learn(&built);
    let mut words = words.into_iter();
    let mut out = Vec::new();
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else {
            out.push(word);
            continue;
        };
        let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-').filter(|rest| rest.len() > 1));
        let Some(name) = name else {
            out.push(vocabulary.verbs.get(&text.to_lowercase()).map_or_else(|| text.into(), OsString::from));
            continue;
        };
        let (name, given) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
        match vocabulary.options.get(&name.to_lowercase()) {
            None => out.push(word),
            Some((long, false)) => out.push(format!("--{long}").into()),
            // The value is taken as it stands, whatever it looks like.
            Some((long, true)) => match given.map(OsString::from).or_else(|| words.next()) {
                None => out.push(format!("--{long}").into()),
                Some(value) => {
                    let mut whole = OsString::from(format!("--{long}="));
                    whole.push(value);
                    out.push(whole);
                }
            },
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::tool::arguments::Arguments;

    fn normal(line: &[&str]) -> Vec<String> {
        let words = normalise(&Arguments::command(), line.iter().map(OsString::from));
        words.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn the_vendors_spellings_are_understood() {
        assert_eq!(
            normal(&["Client", "assignpartition", "-CLIENT", "c1", "-partition", "par0"]),
            ["client", "assignPartition", "--client=c1", "--partition=par0"]
        );
        assert_eq!(normal(&["init", "-label=x", "-nodomain"]), ["init", "--label=x", "--noDomain"]);
        assert_eq!(normal(&["--JSON", "show"]), ["--json", "show"]);
        assert_eq!(normal(&["-h"]), ["-h"]);
        assert_eq!(normal(&["show", "-help"]), ["show", "--help"]);
    }

    #[test]
    fn values_stay_as_they_are_whatever_they_look_like() {
        assert_eq!(
            normal(&["partition", "create", "-sopin", "-Show", "-copin", "LIST=x", "-partition", "Show"]),
            ["partition", "create", "--soPin=-Show", "--coPin=LIST=x", "--partition=Show"]
        );
    }

    #[test]
    fn what_is_not_known_is_left_for_the_parser() {
        assert_eq!(normal(&["frobnicate", "-x", "-what", "--"]), ["frobnicate", "-x", "-what", "--"]);
        assert!(Arguments::command().try_get_matches_from(["hsm", "frobnicate"]).is_err());
        Arguments::command().debug_assert();
    }
}
