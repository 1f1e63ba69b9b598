//! The vendor's spellings of verbs and options, turned into those that the parser knows.
//!
//! Verbs are understood in any case and with a leading dash (`haAdmin -newGroup`); long options with a single dash and
//! in any case (`-serialNum`). An option's value is never looked at: it is tied to its option by `=`.

use std::ffi::OsString;

/// Verbs of the first word.
const VERBS: [&str; 5] = ["createCert", "addServer", "listServers", "verify", "haAdmin"];
/// Verbs behind `haAdmin`.
const HA_VERBS: [&str; 3] = ["newGroup", "addMember", "show"];
/// Long options and whether a value follows.
const OPTIONS: [(&str, bool); 10] = [
    ("json", false),
    ("help", false),
    ("version", false),
    ("config", true),
    ("serialNum", true),
    ("label", true),
    ("password", true),
    ("group", true),
    ("n", true),
    ("c", true),
];
/// `-p` is the port of `addServer`; spelled out so that nobody takes it for a password.
const PORT: (&str, bool) = ("p", true);

/// The command line, program name included, in the parser's spelling.
pub(crate) fn normalised(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words = words;
    let mut result: Vec<OsString> = words.next().into_iter().collect();
    let mut verbs: &[&str] = &VERBS;
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else {
            result.push(word);
            continue;
        };
        if let Some(verb) = verb(text, verbs) {
            verbs = if verb == "haAdmin" { &HA_VERBS } else { &[] };
            result.push(verb.into());
            continue;
        }
        match option(text) {
            Some((name, true, None)) => {
                let mut joined = OsString::from(format!("--{name}"));
                if let Some(value) = words.next() {
                    joined.push("=");
                    joined.push(value);
                }
                result.push(joined);
            }
            Some((name, _, Some(value))) => result.push(format!("--{name}={value}").into()),
            Some((name, false, None)) => result.push(format!("--{name}").into()),
            None => result.push(word),
        }
    }
    result
}

fn verb(text: &str, verbs: &[&'static str]) -> Option<&'static str> {
    let bare = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).unwrap_or(text);
    verbs.iter().find(|verb| verb.eq_ignore_ascii_case(bare)).copied()
}

/// Name, whether a value follows, and the value when it is in the same word.
fn option(text: &str) -> Option<(&'static str, bool, Option<&str>)> {
    let bare = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    let (name, value) = match bare.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (bare, None),
    };
    let (name, has_value) =
        OPTIONS.iter().chain([&PORT]).find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some((name, *has_value, value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    fn of(line: &str) -> String {
        let words = normalised(line.split(' ').map(OsString::from));
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn verbs_lose_their_dash_and_get_their_case() {
        assert_eq!(of("vtl HAADMIN -newgroup"), "vtl haAdmin newGroup");
        assert_eq!(of("vtl haAdmin show"), "vtl haAdmin show");
        assert_eq!(of("vtl -CreateCert -n app"), "vtl createCert --n=app");
    }

    #[test]
    fn options_become_long_ones_tied_to_their_value() {
        assert_eq!(of("vtl addserver -N a -C b -p 9"), "vtl addServer --n=a --c=b --p=9");
        assert_eq!(
            of("vtl haAdmin addMember -GROUP=g -serialnum 7"),
            "vtl haAdmin addMember --group=g --serialNum=7"
        );
        assert_eq!(of("vtl -json listServers --config /x"), "vtl --json listServers --config=/x");
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
    }
}
