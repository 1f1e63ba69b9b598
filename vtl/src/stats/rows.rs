//! Rows for people and programs: one for each process, group, member and call.

use serde::Serialize;
use spec::stats::{Call, Histogram, Page};

use super::gather::Read;
use super::plain;

/// One call at one member, in one process.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) pid: u32,
    pub(crate) command: String,
    pub(crate) group: String,
    pub(crate) group_serial: u64,
    pub(crate) member: u64,
    pub(crate) state: String,
    pub(crate) call: String,
    /// Answers each second, since the last look or since the process began to count.
    pub(crate) rate_per_s: f64,
    pub(crate) answered: u64,
    /// Sends that were lost or answered without a decision.
    pub(crate) errors: u64,
    pub(crate) busy: u64,
    pub(crate) cancelled: u64,
    /// Within so many nanoseconds half of the calls were answered; null when none was, `u64::MAX` beyond all bounds.
    pub(crate) p50_ns: Option<u64>,
    pub(crate) p99_ns: Option<u64>,
    pub(crate) p999_ns: Option<u64>,
    pub(crate) max_ns: u64,
    pub(crate) mean_ns: Option<u64>,
    pub(crate) hedges: u64,
    pub(crate) failovers: u64,
    pub(crate) evacuations: u64,
    pub(crate) busy_moves: u64,
    pub(crate) taken_over: u64,
}

/// The heads of [`Row::cells`].
pub(crate) const HEADS: [&str; 14] = [
    "PID",
    "Command",
    "Group",
    "Member",
    "State",
    "Call",
    "Rate/s",
    "Answered",
    "Errors",
    "p50",
    "p99",
    "p99.9",
    "Hedges",
    "Failovers",
];

/// The rows of what was read, with rates and latencies of the time since `before`, `seconds` ago; for a page that was not
/// there then, since it was made. Members without calls have none.
pub(crate) fn rows(now: &[Read], before: &[Read], seconds: f64) -> Vec<Row> {
    let mut rows = Vec::new();
    for read in now {
        let earlier = before.iter().map(|read| &read.page).find(|page| is_same(page, &read.page));
        for member in &read.page.members {
            let earlier =
                earlier.and_then(|page| page.members.iter().find(|one| one.serial == member.serial));
            for call in &member.calls {
                let then = earlier.and_then(|one| one.calls.iter().find(|then| then.number == call.number));
                rows.push(Row {
                    pid: read.page.pid,
                    command: read.command.clone(),
                    group: plain(&read.page.label),
                    group_serial: read.page.serial,
                    member: member.serial,
                    state: member.state.to_string(),
                    ..row(call, then, seconds)
                });
            }
        }
    }
    rows
}

fn is_same(one: &Page, other: &Page) -> bool {
    (one.pid, one.serial, one.created_ms) == (other.pid, other.serial, other.created_ms)
}

/// The part of a row that one call tells. A second without any call shows the latencies of all before.
fn row(call: &Call, then: Option<&Call>, seconds: f64) -> Row {
    let recent = then.map(|then| call.histogram.since(&then.histogram)).filter(|recent| recent.total() > 0);
    let histogram: &Histogram = recent.as_ref().unwrap_or(&call.histogram);
    let since = |field: fn(&Call) -> u64| field(call).saturating_sub(then.map_or(0, field));
    Row {
        pid: 0,
        command: String::new(),
        group: String::new(),
        group_serial: 0,
        member: 0,
        state: String::new(),
        call: call.name().map_or_else(|| format!("call {}", call.number), str::to_owned),
        rate_per_s: rate(since(|call| call.answered), seconds),
        answered: call.answered,
        errors: call.errors(),
        busy: call.busy,
        cancelled: call.cancelled,
        p50_ns: histogram.quantile_ns(500),
        p99_ns: histogram.quantile_ns(990),
        p999_ns: histogram.quantile_ns(999),
        max_ns: call.max_ns,
        mean_ns: call.sum_ns.checked_div(call.answered),
        hedges: call.hedges,
        failovers: call.failovers,
        evacuations: call.evacuations,
        busy_moves: call.busy_moves,
        taken_over: call.taken_over,
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate is shown with one digit behind the point")]
fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

impl Row {
    /// The row of the table.
    pub(crate) fn cells(&self) -> [String; 14] {
        [
            self.pid.to_string(),
            self.command.clone(),
            self.group.clone(),
            self.member.to_string(),
            self.state.clone(),
            self.call.clone(),
            format!("{:.1}", self.rate_per_s),
            self.answered.to_string(),
            self.errors.to_string(),
            time(self.p50_ns),
            time(self.p99_ns),
            time(self.p999_ns),
            self.hedges.to_string(),
            self.failovers.saturating_add(self.evacuations).to_string(),
        ]
    }
}

/// A time for people, in the unit that fits.
fn time(ns: Option<u64>) -> String {
    match ns {
        None => "-".to_owned(),
        Some(u64::MAX) => "> 60 s".to_owned(),
        Some(ns) if ns < 1_000_000 => format!("{} us", ns / 1_000),
        Some(ns) if ns < 1_000_000_000 => format!("{}.{} ms", ns / 1_000_000, ns / 100_000 % 10),
        Some(ns) => format!("{}.{} s", ns / 1_000_000_000, ns / 100_000_000 % 10),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::stats::gather::tests::page;

    fn read(uses: u64) -> Vec<Read> {
        let page = spec::stats::read(&page(7, 900, uses)).unwrap();
        vec![Read { page, command: "app".to_owned() }]
    }

    #[test]
    fn rates_and_latencies_are_those_since_the_last_look() {
        let (before, now) = (read(100), read(600));
        let rows = rows(&now, &before, 2.0);
        let [row] = &rows[..] else { panic!("one row") };
        assert_eq!(
            (row.rate_per_s, row.answered, row.errors, row.hedges, row.failovers),
            (250.0, 600, 2, 3, 4)
        );
        assert!(row.p50_ns.unwrap() >= 50_000 && row.p99_ns == row.p50_ns);
        assert_eq!((row.mean_ns, row.max_ns), (Some(50_000), 60_000));
        assert_eq!((row.group.as_str(), row.call.as_str(), row.state.as_str()), ("prod\"ha?", "Use", "up"));
        assert_eq!(super::rows(&now, &now, 1.0)[0].rate_per_s, 0.0);
        assert_eq!(super::rows(&now, &[], 3.0)[0].rate_per_s, 200.0);
    }

    #[test]
    fn times_are_shown_in_the_unit_that_fits() {
        let shown = [None, Some(57_344), Some(1_550_000), Some(2_300_000_000), Some(u64::MAX)].map(time);
        assert_eq!(shown, ["-", "57 us", "1.5 ms", "2.3 s", "> 60 s"]);
    }
}
