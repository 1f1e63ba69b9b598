//! `stats`: what running processes count of their groups, read from their metrics pages without disturbing them.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::answer::{Answer, Failure};
use crate::arguments::Stats;
use crate::place::Place;
use crate::stats::{self, Gathered, HEADS, Row, plain};

/// Where the system tells of processes.
const PROC: &str = "/proc";

/// Once as a table, as JSON or for Prometheus; otherwise a table that is renewed until the tool is stopped.
pub(crate) fn run(place: &Place, given: &Stats, json: bool) -> Result<Answer, Failure> {
    let folders = folders(place, given)?;
    let look = || narrowed(stats::gather(&folders, Path::new(PROC)), given);
    if json || given.once || given.prometheus {
        return once(look(), &folders, given);
    }
    live(look, given)
}

/// The folder of the option, else `StatsPath` of the configuration, else the usual ones of this user.
fn folders(place: &Place, given: &Stats) -> Result<Vec<PathBuf>, Failure> {
    if let Some(folder) = &given.folder {
        return Ok(vec![folder.clone()]);
    }
    let configured = match place.has_file() {
        true => place.configuration()?.hatoki.stats,
        false => client::conf::Stats::Default,
    };
    match configured {
        client::conf::Stats::Default => Ok(stats::folders()),
        client::conf::Stats::Folder(folder) => Ok(vec![folder]),
        client::conf::Stats::Off => {
            let wanted = "a folder of metrics pages";
            Err(Failure::new(wanted, "StatsPath = off", "name one with -folder, or change the configuration"))
        }
    }
}

fn narrowed(mut gathered: Gathered, given: &Stats) -> Gathered {
    let is_wanted = |page: &spec::stats::Page| {
        given.pid.is_none_or(|pid| page.pid == pid)
            && given
                .group
                .as_ref()
                .is_none_or(|group| *group == page.label || *group == page.serial.to_string())
    };
    gathered.pages.retain(|read| is_wanted(&read.page));
    gathered
}

fn once(gathered: Gathered, folders: &[PathBuf], given: &Stats) -> Result<Answer, Failure> {
    if gathered.pages.is_empty() && (given.pid.is_some() || given.group.is_some()) {
        let wanted = "a running process of that number and group that counts";
        let found = format!("none in {}", list(folders));
        return Err(Failure::new(wanted, found, "see vtl stats -once for those there are"));
    }
    // Rates since the page was made: its age is the time that was counted.
    let present_ms = now_ms();
    let rows: Vec<Row> = gathered
        .pages
        .iter()
        .flat_map(|read| {
            let age_ms = present_ms.saturating_sub(read.page.created_ms).max(1);
            stats::rows(std::slice::from_ref(read), &[], Duration::from_millis(age_ms).as_secs_f64())
        })
        .collect();
    let text = match given.prometheus {
        true => stats::prometheus(&gathered.pages),
        false if rows.is_empty() => format!("No running process counts anything in {}.\n", list(folders)),
        false => table(&rows),
    };
    let document = json!({ "processes": processes(&gathered), "calls": rows });
    Ok(Answer { complaints: gathered.complaints, ..Answer::new(text, document) })
}

fn now_ms() -> u64 {
    ntls::platform::System::shared().wall_ms()
}

/// What a page tells beside its calls.
fn processes(gathered: &Gathered) -> Vec<Value> {
    let member = |member: &spec::stats::Member| {
        json!({
            "serial": member.serial, "state": member.state.to_string(), "since_ms": member.since_ms,
            "lost": member.lost, "suspected": member.suspected, "admitted": member.admitted,
            "attempts_failed": member.attempts_failed,
        })
    };
    let process = |read: &stats::Read| {
        let page = &read.page;
        json!({
            "pid": page.pid, "command": read.command, "group": plain(&page.label),
            "group_serial": page.serial, "created_ms": page.created_ms, "divergent": page.divergent,
            "repaired": page.repaired, "outages": page.all_lost, "all_lost": page.is_all_lost,
            "standby_served": page.standby_served, "standby_serves": page.is_standby,
            "not_counted": page.not_counted, "members": page.members.iter().map(member).collect::<Vec<_>>(),
        })
    };
    gathered.pages.iter().map(process).collect()
}

/// Renews the table until the reader has gone, or as often as was asked for.
fn live(look: impl Fn() -> Gathered, given: &Stats) -> Result<Answer, Failure> {
    let interval = Duration::from_secs(given.interval.into());
    let on_terminal = std::io::stdout().is_terminal();
    let (mut before, mut since) = (look(), Instant::now());
    let mut shown = 0;
    while given.count.is_none_or(|count| shown < count) {
        thread::sleep(interval);
        let (now, at) = (look(), Instant::now());
        let rows = stats::rows(&now.pages, &before.pages, at.duration_since(since).as_secs_f64());
        let mut text = if on_terminal { "\x1b[H\x1b[2J".to_owned() } else { String::new() };
        text.push_str(&if rows.is_empty() {
            "No running process counts anything.\n".to_owned()
        } else {
            table(&rows)
        });
        let mut out = std::io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            break;
        }
        (before, since) = (now, at);
        shown += 1;
    }
    Ok(Answer { complaints: before.complaints, ..Answer::new(String::new(), Value::Null) })
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(HEADS);
    for row in rows {
        table.add_row(row.cells());
    }
    format!("{}\n", table.trim_fmt())
}

fn list(folders: &[PathBuf]) -> String {
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::stats::tests::{Host, page};
    use crate::testing::Folder;

    fn given() -> Stats {
        Stats {
            once: true,
            prometheus: false,
            pid: None,
            group: None,
            folder: None,
            interval: 1,
            count: None,
        }
    }

    fn host() -> Host {
        let host = Host::new();
        host.run(7, 900, "signer");
        host.write("stats-7-1111", &page(7, 900, 10));
        host
    }

    #[test]
    fn one_look_is_a_table_a_document_and_prometheus_text() {
        let host = host();
        let answer = once(host.gather(), &[host.pages()], &given()).unwrap();
        for part in ["PID", "p99.9", "signer", "Use"] {
            assert!(answer.text.contains(part), "{part} in {}", answer.text);
        }
        assert_eq!(
            (&answer.document["calls"][0]["answered"], &answer.document["processes"][0]["pid"]),
            (&10.into(), &7.into())
        );
        assert_eq!(answer.document["processes"][0]["members"][0]["state"], "up");
        let prometheus = once(host.gather(), &[], &Stats { prometheus: true, ..given() }).unwrap();
        assert!(prometheus.text.starts_with("# HELP hatoki_"), "{}", prometheus.text);
    }

    #[test]
    fn a_process_and_a_group_that_are_not_there_are_a_failure_and_nobody_at_all_is_none() {
        let host = host();
        let of = |given: Stats| once(narrowed(host.gather(), &given), &[host.pages()], &given);
        assert!(of(Stats { pid: Some(7), group: Some("1111".to_owned()), ..given() }).unwrap().good());
        assert!(of(Stats { pid: Some(8), ..given() }).unwrap_err().0.contains("wanted a running process"));
        let empty = once(Host::new().gather(), &[host.pages()], &given()).unwrap();
        assert!(empty.good() && empty.text.contains("No running process counts anything in /"));
    }

    #[test]
    fn the_folder_is_that_of_the_option_of_the_configuration_or_of_the_user() {
        let folder = Folder::new(0);
        assert_eq!(folders(&folder.place(), &given()).unwrap(), stats::folders());
        folder.append("Hatoki = {\n   StatsPath = /srv/pages;\n}\n");
        assert_eq!(folders(&folder.place(), &given()).unwrap(), [PathBuf::from("/srv/pages")]);
        let option = Stats { folder: Some(PathBuf::from("/x")), ..given() };
        assert_eq!(folders(&folder.place(), &option).unwrap(), [PathBuf::from("/x")]);
        folder.append("Hatoki = {\n   StatsPath = off;\n}\n");
        assert!(folders(&folder.place(), &given()).unwrap_err().0.contains("found StatsPath = off"));
    }
}
