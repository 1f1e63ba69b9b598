//! The test that reads the tree: arrows between crates, unsafe, bans, lengths, leftovers, citations.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The allowed arrows of docs/architecture.md; whatever is not named here sees everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("spec", &[]),
    ("digests", &["awsraw", "spec"]),
    ("awsraw", &[]),
    ("ha", &["spec"]),
    ("ntls", &["spec"]),
    ("partition", &["digests", "awsraw", "spec"]),
    ("client", &["ha", "ntls", "digests", "spec"]),
    ("pkcs11", &["client", "spec"]),
    ("vtl", &["client", "ha", "ntls", "spec"]),
    ("appliance", &["partition", "ha", "ntls", "spec"]),
];

/// Where Rust meets C, and where tests play the C caller.
const UNSAFE_ALLOWED: &[&str] =
    &["pkcs11/src/abi", "awsraw/", "tests/", "benches/", "fuzz/", "pkcs11/tests", "xtask/src/c_caller"];

/// The floor of HA 8: these crates reach clock, chance, threads and sockets through Platform only.
const BEHIND_PLATFORM: &[&str] = &["client/src", "ha/src", "ntls/src"];
/// What implements Platform, and what asks the wall clock of certificates outside of calls.
const PLATFORM_ITSELF: &[&str] = &["ntls/src/platform.rs", "ntls/src/certificate.rs"];
const BANNED_BEHIND_PLATFORM: &[&str] = &[
    "std::thread",
    "std::net",
    "Instant::now",
    "SystemTime::now",
    "Mutex::new",
    "RwLock::new",
    "parking_lot",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every Rust file with its path relative to the root.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, root: &Path, all: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                walk(&path, root, all);
            } else if name.ends_with(".rs") {
                let relative = path.strip_prefix(root).unwrap().display().to_string();
                all.push((relative, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = root();
    let mut all = Vec::new();
    for (member, _) in manifests() {
        walk(&root.join(member), &root, &mut all);
    }
    all.sort();
    all
}

/// Each member's folder and manifest.
fn manifests() -> BTreeMap<String, String> {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = workspace.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    members
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split('"').next())
        .map(|member| {
            (member.to_owned(), std::fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap())
        })
        .collect()
}

/// The part of a file in front of its unit tests.
fn product_part(text: &str) -> &str {
    text.find("#[cfg(test)]").map_or(text, |at| &text[..at])
}

fn report(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn every_member_has_a_comment_and_arrows_point_down() {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifests = manifests();
    let mut wrong = Vec::new();
    for member in manifests.keys() {
        let line = workspace.lines().find(|line| line.trim().starts_with(&format!("\"{member}\""))).unwrap();
        if !line.contains('#') {
            wrong.push(format!("{member} stands without a comment in Cargo.toml"));
        }
    }
    for (member, allowed) in ARROWS {
        let manifest = &manifests[*member];
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or("").split("\n[").next().unwrap();
        for other in manifests.keys() {
            let package = if other == "pkcs11" { "hatoki" } else { other };
            let named = dependencies.lines().any(|line| {
                line.starts_with(&format!("{package}.")) || line.starts_with(&format!("{package} "))
            });
            if named && !allowed.contains(&other.as_str()) {
                wrong.push(format!("{member} -> {other}"));
            }
        }
    }
    report("arrows that docs/architecture.md does not allow", &wrong);
}

#[test]
fn unsafe_stands_only_where_rust_meets_c_and_says_why() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let allowed = UNSAFE_ALLOWED.iter().any(|prefix| path.starts_with(prefix));
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let is_unsafe = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|word| code.contains(word));
            if is_unsafe && !allowed && !code.contains('"') {
                wrong.push(format!("{path}:{}", index + 1));
            }
        }
    }
    for (member, _) in ARROWS.iter().filter(|(member, _)| !["pkcs11", "awsraw"].contains(member)) {
        let head = ["lib.rs", "main.rs"]
            .iter()
            .find_map(|name| std::fs::read_to_string(root().join(member).join("src").join(name)).ok());
        if !head.unwrap_or_default().contains("#![forbid(unsafe_code)]") {
            wrong.push(format!("{member} does not forbid unsafe code"));
        }
    }
    report("unsafe outside its places", &wrong);
}

#[test]
fn clock_chance_threads_and_sockets_are_reached_through_platform() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let behind = BEHIND_PLATFORM.iter().any(|prefix| path.starts_with(prefix));
        if !behind || path.contains("test") || PLATFORM_ITSELF.contains(&path.as_str()) {
            continue;
        }
        for (index, line) in product_part(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for banned in BANNED_BEHIND_PLATFORM {
                if code.contains(banned) {
                    wrong.push(format!("{path}:{} has {banned}", index + 1));
                }
            }
        }
    }
    report("Platform is passed by (HA 8)", &wrong);
}

/// docs/adr/0013-release-profile.md.
#[test]
fn release_builds_are_not_exposed_to_a_compiler_that_confuses_moved_arguments() {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let of = |key: &str| {
        let line = workspace.lines().find(|line| line.starts_with(key)).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    };
    let minor: u32 = of("rust-version").split('.').nth(1).unwrap().parse().unwrap();
    let (_, profile) = workspace.split_once("[profile.release]").unwrap();
    let profile = profile.split("\n[").next().unwrap();
    assert!(minor >= 97 || profile.lines().any(|line| line == "opt-level = \"s\""), "{profile}");
    // For C and for loops over numbers only (docs/adr/0013-release-profile.md).
    let others = workspace.lines().filter_map(|line| line.strip_prefix("[profile.release.package."));
    let others: Vec<&str> = others.map(|line| line.trim_end_matches(']')).collect();
    let known = ["aws-lc-sys", "libsqlite3-sys", "argon2", "blake2", "sha1", "sha2"];
    assert!(minor >= 97 || others.iter().all(|other| known.contains(other)), "{others:?}");
    assert!(!workspace.contains("[profile.bench]"), "measured is what is shipped");
}

#[test]
fn no_leftovers() {
    // Put together so that this file does not hold the words itself.
    let words = [
        ["todo", "!("],
        ["unimplemented", "!("],
        ["dbg", "!("],
        ["FIX", "ME"],
        ["XX", "X "],
        ["#[ign", "ore"],
    ];
    let words: Vec<String> = words.iter().map(|parts| parts.concat()).collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                wrong.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    report("leftovers", &wrong);
}

#[test]
fn every_file_says_what_it_is_and_has_one_subject() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("//!") {
            wrong.push(format!("{path} does not say what it is in its first line"));
        }
        let length = product_part(&text).lines().count();
        let reason = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .any(|line| line.contains("One file because"));
        if length > 600 && !reason {
            wrong.push(format!(
                "{path} has {length} lines and its head does not say why (\"One file because ...\")"
            ));
        }
    }
    report("files", &wrong);
}

#[test]
fn a_function_fits_a_screen() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let trimmed = line.trim_start();
            let begins = [
                "fn ",
                "pub fn ",
                "pub(crate) fn ",
                "pub(super) fn ",
                "async fn ",
                "pub async fn ",
                "const fn ",
                "pub const fn ",
            ]
            .iter()
            .any(|word| trimmed.starts_with(word));
            if !begins || trimmed.ends_with(';') {
                continue;
            }
            let indent = line.len() - trimmed.len();
            let close = format!("{}}}", " ".repeat(indent));
            let Some(end) = lines[start..].iter().position(|line| **line == close) else { continue };
            if end + 1 > 70 {
                wrong.push(format!("{path}:{} is {} lines long", start + 1, end + 1));
            }
        }
    }
    report("functions longer than 70 lines", &wrong);
}

/// The numbers of a rules file: lines that begin with `1.2 ` or `**1.2`.
fn rules(name: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("docs/rules").join(name)).unwrap();
    let mut all = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim_start_matches(['*', '#', ' ']);
        let number: String = line.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let number = number.trim_end_matches('.');
        if !number.is_empty() {
            all.insert(number.to_owned());
        }
    }
    all
}

/// The numbers behind each mention of `HA ` or `RULES ` in a text: `HA 2.1`, and each of `HA 1.5, 1.6`.
fn citations<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let mut all = Vec::new();
    for (at, _) in
        text.match_indices(word).filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_alphanumeric()))
    {
        let mut rest = &text[at + word.len()..];
        loop {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let number = rest[..end].trim_end_matches('.');
            if number.is_empty() {
                break;
            }
            all.push(number);
            let Some(next) = rest[end..].strip_prefix(", ") else { break };
            // Behind a whole section's number a list is prose, not a citation.
            if !number.contains('.') || !next.starts_with(|c: char| c.is_ascii_digit()) {
                break;
            }
            rest = next;
        }
    }
    all
}

/// The project's own pages.
fn pages() -> Vec<(String, String)> {
    let root = root();
    let folders = ["", "docs", "docs/adr"];
    let mut all = Vec::new();
    for folder in folders {
        for entry in std::fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".md") {
                all.push((format!("{folder}/{name}"), std::fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    all.push((
        "docs/rules/STATUS.md".into(),
        std::fs::read_to_string(root.join("docs/rules/STATUS.md")).unwrap(),
    ));
    all
}

#[test]
fn every_cited_rule_exists() {
    let mut wrong = Vec::new();
    for (word, file) in [("HA ", "HA.md"), ("RULES ", "RULES.md")] {
        let known = rules(file);
        assert!(known.len() > 15, "{file} is read wrongly");
        for (path, text) in sources().into_iter().chain(pages()) {
            for number in citations(&text, word) {
                if !known.contains(number) {
                    wrong.push(format!("{path} cites {word}{number}"));
                }
            }
        }
    }
    report("citations of rules that do not exist", &wrong);
}

#[test]
fn every_deviation_in_code_stands_in_the_decision_and_is_marked() {
    let page = std::fs::read_to_string(root().join("docs/adr/0006-deviations.md")).unwrap();
    let decision = page.split("**Decision.**").nth(1).unwrap().split("**Alternatives.**").next().unwrap();
    let items: Vec<&str> = decision
        .lines()
        .filter_map(|line| line.split_once(". "))
        .map(|(number, _)| number)
        .filter(|number| number.parse::<u32>().is_ok())
        .collect();
    assert!(items.len() > 5, "the decision is read wrongly");
    let marked: Vec<String> = sources()
        .iter()
        .flat_map(|(path, text)| {
            text.lines().map(move |line| (path.clone(), line.to_owned())).collect::<Vec<_>>()
        })
        .filter(|(path, line)| !path.starts_with("tests/") && line.contains("DEVIATION:"))
        .map(|(_, line)| line)
        .collect();
    let mut wrong: Vec<String> = items
        .iter()
        .filter(|number| {
            !marked.iter().any(|line| line.contains(&format!("0006-deviations.md, item {number}")))
        })
        .map(|number| format!("item {number} has no marker in the code"))
        .collect();
    let named = |line: &&String| {
        items.iter().any(|number| line.contains(&format!("0006-deviations.md, item {number}")))
    };
    wrong.extend(
        marked.iter().filter(|line| !named(line)).map(|line| format!("no item for: {}", line.trim())),
    );
    report("deviations", &wrong);
}

#[test]
fn every_row_names_its_section() {
    assert!(spec::calls::CALLS.iter().all(|row| !row.section.is_empty()));
    assert!(spec::attributes::ROWS.iter().all(|row| !row.section.is_empty()));
    assert!(spec::mechanisms::ROWS.iter().all(|row| !row.section.is_empty()));
    assert!(spec::functions::ROWS.iter().all(|row| !row.section.is_empty()));
}

#[test]
fn the_rules_kept_here_are_whole() {
    for (file, last) in [("HA.md", "8"), ("RULES.md", "5")] {
        assert!(rules(file).contains(last), "{file} ends before section {last}");
    }
}
