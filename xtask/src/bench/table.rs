//! The tables for the terminal and for docs/performance.md, and the same for programs.
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::bars::Judged;
use super::contestant::{SOFTHSM, TLS};
use super::picture;
use super::results::{Results, Window};
use crate::cargo;
use crate::problem::Problem;
use crate::process;

/// What stands around the tables in the page.
const BEGIN: &str = "<!-- begin of what `cargo xtask bench` writes -->";
const END: &str = "<!-- end of what `cargo xtask bench` writes -->";

/// Everything for programs: the bars, each cell with each window, the dispatch, what failed.
pub(super) fn json(judged: &[Judged], results: &Results) -> String {
    let met: Vec<Option<bool>> = judged.iter().map(Judged::is_met).collect();
    let mut value = serde_json::json!({ "bars": judged, "results": results });
    for (place, met) in met.iter().enumerate() {
        value["bars"][place]["met"] = serde_json::json!(met);
    }
    value.to_string()
}

/// The bars and the cells for the terminal.
pub(super) fn text(judged: &[Judged], results: &Results) -> String {
    let rows = |table: &[Vec<String>]| -> String {
        let columns = table.first().map_or(0, Vec::len);
        let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        table.iter().map(line).collect()
    };
    let bulk = bulk(results);
    let bulk = if bulk.len() > 1 { format!("{}\n", rows(&bulk)) } else { String::new() };
    let fair = fair(results);
    let fair = if fair.len() > 1 { format!("{}\n", rows(&fair)) } else { String::new() };
    format!("{}\n{bulk}{fair}{}", rows(&bars(judged)), rows(&cells(results)))
}

/// A number with as many digits as are of use.
fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".into(),
        of if of >= 1_000.0 => format!("{value:.0}"),
        of if of >= 100.0 => format!("{value:.0}"),
        of if of >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The bars, with a heading.
fn bars(judged: &[Judged]) -> Vec<Vec<String>> {
    let mut table = vec![["work", "bar", "measured", "met"].map(str::to_owned).to_vec()];
    for judged in judged {
        let sign = if judged.more_is_better { "at least" } else { "at most" };
        let met = match judged.is_met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "not measured",
        };
        table.push(vec![
            judged.text.to_owned(),
            format!("{sign} {} {}", judged.bound, judged.unit),
            judged.measured.map_or_else(|| "-".into(), number),
            met.to_owned(),
        ]);
    }
    table
}

/// Every contestant of every cell, with a heading.
fn cells(results: &Results) -> Vec<Vec<String>> {
    let heading = [
        "work",
        "threads",
        "CPUs",
        "who",
        "per second",
        "x SoftHSM2",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "client CPU us",
        "member CPU us",
        "client allocations",
        "steal %",
    ];
    let mut table = vec![heading.map(str::to_owned).to_vec()];
    for measured in &results.cells {
        for series in &measured.series {
            let ratio = measured.ratio(&series.contestant, SOFTHSM, Window::rate);
            let figure = |of: fn(&Window) -> f64| number(series.median(of));
            table.push(vec![
                measured.cell.work.to_owned(),
                measured.cell.threads.to_string(),
                measured.cell.cpus.to_string(),
                series.contestant.clone(),
                figure(Window::rate),
                ratio.map_or_else(|| "-".into(), number),
                figure(Window::p50_us),
                figure(Window::p99_us),
                figure(Window::p999_us),
                figure(Window::own_cpu_us),
                figure(Window::others_cpu_us),
                series.allocations.map_or_else(|| "-".into(), number),
                format!("{:.0}", measured.steal * 100.0),
            ]);
        }
    }
    table
}

/// What carries much data, with a heading: how fast, beside one TLS connection that carries as much there and back.
fn bulk(results: &Results) -> Vec<Vec<String>> {
    let heading = [
        "work",
        "threads",
        "CPUs",
        "who",
        "MB/s",
        "x TLS",
        "x SoftHSM2",
        "client CPU us/MiB",
        "member CPU us/MiB",
    ];
    let mut table = vec![heading.map(str::to_owned).to_vec()];
    for measured in &results.cells {
        let Some(mib) = measured.cell.mib().map(f64::from) else { continue };
        for series in &measured.series {
            let ratio = |to: &str| {
                let ratio = measured.ratio(&series.contestant, to, Window::rate);
                ratio.map_or_else(|| "-".into(), number)
            };
            table.push(vec![
                measured.cell.work.to_owned(),
                measured.cell.threads.to_string(),
                measured.cell.cpus.to_string(),
                series.contestant.clone(),
                number(series.median(Window::rate) * mib * 1.048_576),
                ratio(TLS),
                ratio(SOFTHSM),
                number(series.median(Window::own_cpu_us) / mib),
                number(series.median(Window::others_cpu_us) / mib),
            ]);
        }
    }
    table
}

/// What a client with one thread gets beside a busy one, with a heading.
fn fair(results: &Results) -> Vec<Vec<String>> {
    let heading = ["work", "CPUs", "client", "threads", "per second", "p50 us", "p99 us", "p99.9 us"];
    let mut table = vec![heading.map(str::to_owned).to_vec()];
    for found in &results.fairness {
        for (series, threads) in
            [(&found.alone, 1), (&found.beside, 1), (&found.busy, super::fairness::THREADS)]
        {
            table.push(vec![
                found.work.to_owned(),
                found.cpus.to_string(),
                series.contestant.clone(),
                threads.to_string(),
                number(series.median(Window::rate)),
                number(series.median(Window::p50_us)),
                number(series.median(Window::p99_us)),
                number(series.median(Window::p999_us)),
            ]);
        }
    }
    table
}

fn markdown(table: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (place, row) in table.iter().enumerate() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if place == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
    text
}

fn page(judged: &[Judged], results: &Results, quick: bool) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let how = if quick { "cargo xtask bench --quick" } else { "cargo xtask bench" };
    let mut text = format!(
        "Made by `{how}` of {}{} on a host of {cores} processors ({}), which client and members share.\n\n",
        short_hash(),
        crate::cargo::state(),
        processor()
    );
    let _ = writeln!(text, "![How much of each bar is reached](performance.svg)\n");
    text.push_str(&markdown(&bars(judged)));
    text.push_str("\nThe dispatch, that is `C_SignInit` and `C_Sign` over a null link:\n\n");
    let mut dispatch = vec![["threads", "CPU ns", "allocations"].map(str::to_owned).to_vec()];
    let one = |one: &super::dispatch::Dispatch| {
        vec![one.threads.to_string(), number(one.cpu_ns), number(one.allocations)]
    };
    dispatch.extend(results.dispatch.iter().map(one));
    text.push_str(&markdown(&dispatch));
    if let Some(places) = results.locks.as_ref().filter(|places| !places.is_empty()) {
        let _ = writeln!(text, "\nIt takes a lock in {}.", places.join(", in "));
    }
    let bulk = bulk(results);
    if bulk.len() > 1 {
        let _ = writeln!(
            text,
            "\nMuch data, beside one TLS connection that carries as much there and back (`{TLS}`):\n"
        );
        text.push_str(&markdown(&bulk));
    }
    let fair = fair(results);
    if fair.len() > 1 {
        text.push_str(
            "\nA client with one thread beside another client that does the same with many (HA 4.5):\n\n",
        );
        text.push_str(&markdown(&fair));
    }
    text.push_str("\nEverything that was measured:\n\n");
    text.push_str(&markdown(&cells(results)));
    text
}

/// The last commit's own name and a comma; nothing of a state without history.
fn short_hash() -> String {
    let mut git = Command::new("git");
    let said = process::text(git.current_dir(cargo::root()).args(["log", "-1", "--format=%h"]));
    said.map_or_else(|_| String::new(), |hash| format!("{}, ", hash.trim()))
}

/// What the system calls its processors.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown".into(), |(_, name)| name.trim().to_owned())
}

/// Puts the tables into docs/performance.md, and the picture beside it.
pub(super) fn write(judged: &[Judged], results: &Results, quick: bool) -> Result<(), Problem> {
    let folder = cargo::root().join("docs");
    let path = folder.join("performance.md");
    let old = fs::read_to_string(&path).map_err(|error| Problem::at(&path, &error))?;
    let new = replaced(&old, &page(judged, results, quick))
        .ok_or_else(|| Problem(format!("{}: wanted the two marks of the tables", path.display())))?;
    let drawn = folder.join("performance.svg");
    fs::write(&drawn, picture::draw(judged)).map_err(|error| Problem::at(&drawn, &error))?;
    // In one step: whoever stops us finds the old page or the new one.
    let beside = path.with_extension("md.new");
    fs::write(&beside, new)
        .and_then(|()| fs::rename(&beside, &path))
        .map_err(|error| Problem::at(&path, &error))
}

fn replaced(page: &str, tables: &str) -> Option<String> {
    let (head, rest) = page.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n{tables}{END}{tail}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::cells::Cell;
    use super::super::results::Series;
    use super::*;

    fn results() -> Results {
        let window =
            Window { operations: 500, span_ns: 1_000_000_000, p50_ns: 2_000_000, ..Window::default() };
        let series = Series { windows: vec![window], allocations: Some(0.5), ..Series::of(SOFTHSM) };
        let mut results = Results::default();
        results.add(Cell::new(1, "session", 1), vec![series], 0.25);
        results
    }

    const MISSED: Judged = Judged {
        name: "a",
        text: "work",
        unit: "x SoftHSM2",
        bound: 2.0,
        more_is_better: true,
        measured: Some(1.5),
    };

    #[test]
    fn the_tables_take_the_place_of_the_old_ones_and_nothing_else() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(replaced(&page, "new\n"), Some(format!("a\n{BEGIN}\nnew\n{END}\nb\n")));
        assert_eq!(replaced("no marks", "new"), None);
    }

    #[test]
    fn a_missed_bar_is_told_in_every_form() {
        let (judged, results) = ([MISSED], results());
        assert!(text(&judged, &results).contains("at least 2 x SoftHSM2"));
        let page = page(&judged, &results, true);
        assert!(page.contains("| work | at least 2 x SoftHSM2 | 1.50 | **no** |"), "{page}");
        assert!(page.contains("| session | 1 | 1 | softhsm2 | 500 | 1.00 | 2000 | 0.00 |"), "{page}");
        assert!(page.contains("| 0.50 | 25 |\n"), "{page}");
        let value: serde_json::Value = serde_json::from_str(&json(&judged, &results)).unwrap();
        assert_eq!(
            (&value["bars"][0]["met"], &value["results"]["cells"][0]["steal"]),
            (&false.into(), &0.25.into())
        );
    }
}
