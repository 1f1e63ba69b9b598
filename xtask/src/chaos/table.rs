//! The lines on the terminal and the table of docs/ha.md.
use std::fmt::Write as _;
use std::fs;

use super::figures::Figure;
use super::{Report, Row};
use crate::cargo;
use crate::lab::Network;
use crate::problem::Problem;

/// What stands around the table in the page.
const BEGIN: &str = "<!-- begin of what `cargo xtask chaos` writes -->";
const END: &str = "<!-- end of what `cargo xtask chaos` writes -->";

fn ms(us: u64) -> String {
    let tenths = us / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Signatures a second.
fn rate(report: &Report) -> u64 {
    report.signatures.saturating_mul(1_000_000) / report.span_us.max(1)
}

/// What made the fault.
fn maker(row: &Row) -> &'static str {
    match row.network {
        Network::Loopback => "host",
        Network::Namespaces => "kernel's network",
        Network::Proxied => "proxy",
    }
}

/// How soon the application was at work again after an outage of all.
fn resumed(during: &Report) -> Option<String> {
    let us = during.resumed_us?;
    Some(format!("every thread had signed {} ms after the first hsmd was started", ms(us)))
}

/// One line for the terminal.
pub(super) fn line(row: &Row) -> String {
    match &row.outcome {
        Err(why) => format!("{:<12} not played: {why}", row.fault.name),
        Ok((before, during)) => format!(
            "{:<12} {}: errors {}, stall {} ms (fault-free {}, above it {}), p99.9 {} ms (fault-free {}), {}/s (fault-free \
             {}/s), {} creates (longest {} ms){}{}",
            row.fault.name,
            maker(row),
            before.errors + during.errors,
            ms(during.stall_us),
            ms(before.stall_us),
            ms(during.stall_us.saturating_sub(before.stall_us)),
            ms(during.p999_us),
            ms(before.p999_us),
            rate(during),
            rate(before),
            during.creates,
            ms(during.create_us),
            resumed(during).map(|text| format!("; {text}")).unwrap_or_default(),
            during.last_error.as_ref().map(|error| format!("; last error: {error}")).unwrap_or_default(),
        ),
    }
}

fn rendered(rows: &[Row], figures: &[Figure]) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let mut text = format!(
        "Made by `cargo xtask chaos` ({build} build) of {} on a host of {cores} cores, which the three appliances, the application and the \
         proxies share.\n\n\
         | fault | made by | errors | longest stall, ms | the same, fault-free | above it | p99.9, ms | fault-free | longest create, \
         ms |\n|---|---|---|---|---|---|---|---|---|\n",
        cargo::state()
    );
    for row in rows {
        // Writing to a String does not fail.
        let _ = match &row.outcome {
            Err(why) => writeln!(text, "| {} | not played: {why} | | | | | | | |", row.fault.text),
            Ok((before, during)) => writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.fault.text,
                maker(row),
                before.errors + during.errors,
                ms(during.stall_us),
                ms(before.stall_us),
                ms(during.stall_us.saturating_sub(before.stall_us)),
                ms(during.p999_us),
                ms(before.p999_us),
                ms(during.create_us),
            ),
        };
    }
    let resumed =
        rows.iter().filter_map(|row| row.outcome.as_ref().ok()).find_map(|(_, during)| resumed(during));
    if let Some(resumed) = resumed {
        let _ = writeln!(text, "\nAfter all three were dead, {resumed}.");
    }
    for figure in figures {
        let _ = write!(text, "\n| {} | |\n|---|---|\n", figure.name);
        for (what, value) in &figure.lines {
            let _ = writeln!(text, "| {what} | {value} |");
        }
    }
    text
}

/// Puts the table into docs/ha.md.
pub(super) fn write(rows: &[Row], figures: &[Figure]) -> Result<(), Problem> {
    let path = cargo::root().join("docs/ha.md");
    let page = fs::read_to_string(&path).map_err(|error| Problem::at(&path, &error))?;
    let page = replaced(&page, &rendered(rows, figures))
        .ok_or_else(|| Problem(format!("{}: wanted the two marks of the table", path.display())))?;
    // In one step: whoever stops us finds the old page or the new one.
    let new = path.with_extension("md.new");
    fs::write(&new, page).and_then(|()| fs::rename(&new, &path)).map_err(|error| Problem::at(&path, &error))
}

fn replaced(page: &str, table: &str) -> Option<String> {
    let (head, rest) = page.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n{table}{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_takes_the_place_of_the_old_one_and_nothing_else() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(replaced(&page, "new\n"), Some(format!("a\n{BEGIN}\nnew\n{END}\nb\n")));
        assert_eq!(replaced("no marks", "new"), None);
    }

    #[test]
    fn microseconds_read_as_milliseconds() {
        assert_eq!((ms(12_345), ms(40)), ("12.3".into(), "0.0".into()));
    }
}
