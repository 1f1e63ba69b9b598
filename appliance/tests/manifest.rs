//! The manifest of the package against its sources.
#![allow(clippy::unwrap_used)]
use std::fs;
use std::path::Path;

/// All sources in a folder and below, comments left out.
fn code(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &code(&path);
        } else {
            let source = fs::read_to_string(&path).unwrap();
            for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
                text += line;
                text.push('\n');
            }
        }
    }
    text
}

#[test]
fn every_dependency_is_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let manifest: toml::Table = toml::from_str(&manifest).unwrap();
    let (product, all) = (code(&root.join("src")), code(&root.join("src")) + &code(&root.join("tests")));
    for (section, code) in [("dependencies", &product), ("dev-dependencies", &all)] {
        for name in manifest[section].as_table().unwrap().keys() {
            let path = format!("{}::", name.replace('-', "_"));
            let used = code.match_indices(&path).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
            });
            assert!(
                used,
                "[{section}] {name}: wanted a use of {path}, found none; take it out of Cargo.toml"
            );
        }
    }
}
