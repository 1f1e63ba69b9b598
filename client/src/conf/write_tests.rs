//! Tests of editing: what stays, what changes, and how the file is replaced.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

const FILE: &str = "# by hand\nLunaSA Client = {\n  # first\n  ServerName00 = a; // old\n  ServerPort00 = 1792;\n}\n\n# end\n";

fn document(text: &str) -> Document {
    parse(text.as_bytes(), Path::new("c")).unwrap()
}

#[test]
fn setting_a_value_changes_that_value_alone() {
    let mut edited = document(FILE);
    edited.set("lunasa client", "SERVERNAME00", "b c/d").unwrap();
    assert_eq!(edited.to_text(), FILE.replace("= a;", "= b c/d;"));
}

#[test]
fn a_new_key_goes_to_the_end_of_its_section_in_the_sections_indentation() {
    let mut edited = document(FILE);
    edited.set("LunaSA Client", "ServerName01", "b").unwrap();
    assert_eq!(edited.to_text(), FILE.replace("1792;\n", "1792;\n  ServerName01 = b;\n"));
}

#[test]
fn a_new_section_goes_to_the_end_of_the_file() {
    let mut edited = document(FILE);
    edited.set("HASynchronize", "g", "1").unwrap();
    assert_eq!(edited.to_text(), format!("{FILE}HASynchronize = {{\n   g = 1;\n}}\n"));
    let mut edited = document("A = {}");
    edited.set("B", "k", "").unwrap();
    edited.set("a", "k", "1").unwrap();
    assert_eq!(edited.to_text(), "A = {\n   k = 1;\n}\nB = {\n   k = ;\n}\n");
}

#[test]
fn the_occurrence_in_force_is_the_one_that_is_set_and_removal_takes_all() {
    let text = "A = {\n   k = 1;\n}\nA = {\n   K = 2; // why\n   l = 3;\n}\n";
    let mut edited = document(text);
    edited.set("A", "k", "9").unwrap();
    assert_eq!(edited.to_text(), text.replace("= 2", "= 9"));
    assert!(edited.remove("a", "k"));
    assert_eq!(edited.to_text(), "A = {\n}\nA = {\n   // why\n   l = 3;\n}\n");
    assert!(!edited.remove("a", "k"));
}

#[test]
fn tabs_are_read_and_never_written() {
    let edited = document("LunaSA\tClient\t=\t{\n\tServerName00\t=\ta\tb ;\t# x\ty\n}\n");
    assert_eq!(edited.value("LunaSA Client", "ServerName00"), Some("a b"));
    assert_eq!(edited.to_text(), "LunaSA Client = {\n   ServerName00 = a b ;   # x   y\n}\n");
}

#[test]
fn line_ends_of_the_file_are_kept() {
    let mut edited = document("A = {\r\n  k = 1;\r\n}\r\n");
    edited.set("A", "l", "2").unwrap();
    edited.set("B", "m", "3").unwrap();
    assert_eq!(edited.to_text(), "A = {\r\n  k = 1;\r\n  l = 2;\r\n}\r\nB = {\r\n   m = 3;\r\n}\r\n");
}

#[test]
fn names_and_values_that_the_grammar_cannot_hold_are_refused() {
    let mut edited = document("");
    for value in ["a;b", "a\nb", "a\tb", " a", "{", "x\u{7}"] {
        assert!(edited.set("A", "k", value).is_err(), "{value:?}");
    }
    for name in ["", "a=b", "a;b", "{", "}", "#a", "//a", " a", "a\nb"] {
        assert!(edited.set("A", name, "1").is_err(), "{name:?}");
        assert!(edited.set(name, "k", "1").is_err(), "{name:?}");
    }
    let text = edited.set("A", "k", "a;b").unwrap_err().to_string();
    assert!(text.starts_with("value of k: wanted ") && text.contains("found `a;b`"), "{text}");
    assert_eq!(edited.to_text(), "");
}

#[test]
fn the_next_number_of_a_list_is_one_more_than_the_greatest_and_then_the_least_free() {
    let patterns = ["ServerNameNN", "ServerPortNN"];
    let next = |text: &str| document(text).next_index("LunaSA Client", &patterns);
    assert_eq!(next(""), Some(0));
    assert_eq!(next("LunaSA Client = { ServerName00 = a; ServerPort04 = 1; ServerHtl09 = 0; }"), Some(5));
    assert_eq!(next("LunaSA Client = { ServerName00 = a; ServerName99 = b; }"), Some(1));
    let full: String = (0..100).map(|index| format!("ServerName{index:02} = a; ")).collect();
    assert_eq!(next(&format!("LunaSA Client = {{ {full} }}")), None);
}

#[test]
fn the_file_is_replaced_with_the_same_mode_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Chrystoki.conf");
    fs::write(&path, FILE).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let mut file = EditableFile::open(&path).unwrap();
    file.document.set("LunaSA Client", "ServerName01", "b").unwrap();
    let configuration = file.save().unwrap();
    assert_eq!(configuration.servers.len(), 2);
    file.document.set("LunaSA Client", "ServerName02", "c").unwrap();
    assert_eq!(file.save().unwrap().servers.len(), 3);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_new_file_is_made_readable_for_applications() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Chrystoki.conf");
    let mut file = EditableFile::open(&path).unwrap();
    file.document.set("Hatoki", "LogLevel", "info").unwrap();
    file.save().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "Hatoki = {\n   LogLevel = info;\n}\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
}

#[test]
fn a_symbolic_link_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real.conf"), folder.path().join("Chrystoki.conf"));
    fs::write(&real, FILE).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let mut file = EditableFile::open(&link).unwrap();
    file.document.set("LunaSA Client", "ServerName00", "z").unwrap();
    file.save().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains("ServerName00 = z;"));
}

#[test]
fn a_file_changed_by_another_process_meanwhile_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Chrystoki.conf");
    fs::write(&path, FILE).unwrap();
    let mut file = EditableFile::open(&path).unwrap();
    file.document.set("LunaSA Client", "ServerName01", "b").unwrap();
    fs::write(&path, "# other\n").unwrap();
    let text = file.save().unwrap_err().to_string();
    assert!(text.contains("it has changed since it was read; run the command again"), "{text}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "# other\n");
}

#[test]
fn a_change_that_would_be_refused_later_is_refused_before_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Chrystoki.conf");
    fs::write(&path, FILE).unwrap();
    let mut file = EditableFile::open(&path).unwrap();
    file.document.set("Hatoki", "MinimumCopies", "0").unwrap();
    assert!(file.save().is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), FILE);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent/Chrystoki.conf");
    let text = replace(&path, b"", 0o644).unwrap_err().to_string();
    assert!(
        text.contains("wanted to replace the file, found: ") && text.contains("; run as a user"),
        "{text}"
    );
}

const WORD: &str = "[A-Za-z0-9_.]{1,8}";

fn trivia() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![Just(" ".to_owned()), Just("\n".to_owned()), "[#][ -~]{0,9}\n", "//[ -~é]{0,9}\n"],
        0..4,
    )
    .prop_map(|parts| parts.concat())
}

fn entry() -> impl Strategy<Value = String> {
    (WORD, " {0,2}", "[ -:<-z|}~é]{0,12}", trivia()).prop_map(|(key, pad, value, after)| {
        let value = if value.trim_start().starts_with('{') { String::new() } else { value };
        format!("{key}{pad}={pad}{value};{after}")
    })
}

fn section() -> impl Strategy<Value = String> {
    (WORD, WORD, trivia(), prop::collection::vec(entry(), 0..5), trivia())
        .prop_map(|(a, b, head, entries, after)| format!("{a} {b} = {{{head}{}}}{after}", entries.concat()))
}

fn valid_file() -> impl Strategy<Value = String> {
    (trivia(), prop::collection::vec(section(), 0..5)).prop_map(|(head, sections)| head + &sections.concat())
}

fn effective(document: &Document) -> Vec<(String, String, String)> {
    let mut all: Vec<_> =
        document.entries().map(|e| (e.section.to_ascii_lowercase(), e.key.to_ascii_lowercase())).collect();
    all.sort();
    all.dedup();
    all.into_iter().map(|(s, k)| (s.clone(), k.clone(), document.value(&s, &k).unwrap().to_owned())).collect()
}

proptest! {
    #[test]
    fn writing_what_was_parsed_gives_the_same_bytes(text in valid_file()) {
        prop_assert_eq!(document(&text).to_text(), text);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Configuration::from_bytes(&bytes, Path::new("c"));
    }

    #[test]
    fn arbitrary_text_near_the_grammar_never_panics_and_survives_writing(text in "[AaN0-2={};#/ \t\r\n,é\u{feff}]{0,60}") {
        if let Ok(parsed) = parse(text.as_bytes(), Path::new("c")) {
            let written = parsed.to_text();
            prop_assert!(!written.contains('\t'));
            let again = parse(written.as_bytes(), Path::new("c"));
            prop_assert!(again.is_ok(), "{:?}", again);
            prop_assert_eq!(effective(&again.unwrap()), effective(&parsed));
            let _ = Configuration::from_document(&parsed, Path::new("c"));
        }
    }

    #[test]
    fn one_edit_changes_one_value_and_keeps_every_comment(
        text in valid_file(), section in "[A-Ca-c] [A-Ca-c]", key in WORD, value in "[a-z0-9/ #]{0,8}"
    ) {
        let value = value.trim();
        let before = document(&text);
        let mut after = before.clone();
        after.set(&section, &key, value).unwrap();
        let reparsed = document(&after.to_text());
        prop_assert_eq!(effective(&reparsed), effective(&after));
        prop_assert_eq!(reparsed.value(&section, &key), Some(value));
        after.remove(&section, &key);
        let removed = document(&after.to_text());
        prop_assert_eq!(removed.value(&section, &key), None);
        let lower = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
        let others: Vec<_> =
            effective(&before).into_iter().filter(|(s, k, _)| (s, k) != (&lower.0, &lower.1)).collect();
        prop_assert_eq!(effective(&removed), others);
        let comments = |text: &str| text.matches('#').count();
        let value_marks: usize = before
            .entries()
            .filter(|e| e.is(&section, &key))
            .map(|e| e.value.matches('#').count())
            .sum();
        prop_assert_eq!(comments(&removed.to_text()) + value_marks, comments(&text));
    }
}
