//! `Chrystoki.conf.example`, rendered from the options table.

use std::fmt::Write;

use super::document::indexed_key;
use super::options::{Row, TABLE};

const HEAD: &str = "\
# Chrystoki.conf: every option that libhatoki.so reads, with meaning, unit, range, default and the effect of a wrong
# value. Rendered from the table in client/src/conf/options.rs; a test compares the two.
#
# The file is looked for in the folder that ChrystokiConfigurationPath names, else in /etc. A relative path is relative
# to that folder. Sections `Name = {` … `}` hold entries `key = value;`. Names compare without case; of repeated keys
# the last one counts; a value runs to `;` and needs no quotes. Comments begin with # or //. NN is a number from 00 to
# 99. An absent or empty value means the default. Other keys of the vendor's client may stay; they change nothing here.
# Refused means: C_Initialize returns CKR_GENERAL_ERROR and the log says file, line, column, wanted and found.
";

/// The text of the example file.
pub fn render() -> String {
    let mut text = HEAD.to_owned();
    let mut section = "";
    for row in TABLE {
        if row.section != section {
            if !section.is_empty() {
                text.push_str("}\n");
            }
            section = row.section;
            let _ = write!(text, "\n{section} = {{\n");
        }
        render_row(&mut text, row);
    }
    text.push_str("}\n");
    text
}

fn render_row(text: &mut String, row: &Row) {
    let unit = if row.unit.is_empty() { String::new() } else { format!(" Unit: {}.", row.unit) };
    let default = if row.default.is_empty() { "none" } else { row.default };
    let key = indexed_key(row.key, 0).replace("<label>", "prodha");
    let value = row.example;
    let facts = format!(
        "{}{unit} Range: {}. Default: {default}. Wrong value: {}.",
        row.meaning,
        row.range(),
        row.wrong_effect()
    );
    for line in wrapped(&facts) {
        let _ = writeln!(text, "   # {line}");
    }
    let _ = writeln!(text, "   {key} = {value};");
}

/// Lines of at most 110 characters.
fn wrapped(text: &str) -> Vec<String> {
    const LINE_CHARS_MAX: usize = 110;
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let full =
            lines.last().is_some_and(|line| line.chars().count() + 1 + word.chars().count() > LINE_CHARS_MAX);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use std::path::Path;

    use super::super::configuration::Configuration;
    use super::super::document::Document;
    use super::super::parse::parse;
    use super::*;

    fn file() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../Chrystoki.conf.example")
    }

    #[test]
    fn the_example_file_is_the_rendered_table() {
        if std::env::var_os("HATOKI_RENDER").is_some() {
            std::fs::write(file(), render()).unwrap();
        }
        let found = std::fs::read_to_string(file()).unwrap_or_default();
        assert!(
            found == render(),
            "Chrystoki.conf.example differs; run HATOKI_RENDER=1 cargo test -p client example"
        );
    }

    #[test]
    fn the_example_is_accepted_without_a_warning_and_holds_every_row() {
        let document: Document = parse(render().as_bytes(), Path::new("/x/Chrystoki.conf")).unwrap();
        let configuration = Configuration::from_document(&document, Path::new("/x/Chrystoki.conf")).unwrap();
        assert_eq!(configuration.warnings, []);
        for row in TABLE {
            let key = indexed_key(row.key, 0).replace("<label>", "prodha");
            assert_eq!(document.value(row.section, &key), Some(row.example), "{} {}", row.section, row.key);
        }
    }

    #[test]
    fn an_empty_file_means_the_defaults_of_the_table() {
        let file = Path::new("/x/Chrystoki.conf");
        let example = Configuration::from_bytes(render().as_bytes(), file).unwrap();
        let empty = Configuration::from_bytes(b"", file).unwrap();
        assert_eq!(example.hatoki, empty.hatoki);
        assert_eq!(example.recovery, empty.recovery);
        assert_eq!(example.ha_log, empty.ha_log);
        assert_eq!(example.receive_timeout_ms, empty.receive_timeout_ms);
        assert_eq!(example.default_timeout_ms, empty.default_timeout_ms);
        assert_eq!(example.keypair_timeout_ms, empty.keypair_timeout_ms);
        assert_eq!(example.probe_timeout_ms, empty.probe_timeout_ms);
    }
}
