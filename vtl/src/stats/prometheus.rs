//! The pages in Prometheus' text exposition format, version 0.0.4.

use std::fmt::Write;

use spec::stats::{Call, Member, State, bucket_end_ns};

use super::gather::Read;

/// A series of one page or of one member of it.
struct Series<T> {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&T) -> u64,
}

const OF_PAGES: [Series<Read>; 7] = [
    Series {
        name: "hatoki_group_divergent",
        kind: "gauge",
        help: "1 while the contents of the members are known to differ.",
        value: |read| u64::from(read.page.divergent),
    },
    Series {
        name: "hatoki_group_all_lost",
        kind: "gauge",
        help: "1 while no member can be reached.",
        value: |read| u64::from(read.page.is_all_lost),
    },
    Series {
        name: "hatoki_group_outages_total",
        kind: "counter",
        help: "How often no member could be reached.",
        value: |read| read.page.all_lost,
    },
    Series {
        name: "hatoki_group_standby",
        kind: "gauge",
        help: "1 while standby members serve because no active one can be read.",
        value: |read| u64::from(read.page.is_standby),
    },
    Series {
        name: "hatoki_group_standby_served_total",
        kind: "counter",
        help: "How often standby members began to serve.",
        value: |read| read.page.standby_served,
    },
    Series {
        name: "hatoki_group_records_repaired_total",
        kind: "counter",
        help: "Records that the process has moved in repairs.",
        value: |read| read.page.repaired,
    },
    Series {
        name: "hatoki_group_not_counted_total",
        kind: "counter",
        help: "Reports about members for which the page has no room.",
        value: |read| read.page.not_counted,
    },
];

const OF_MEMBERS: [Series<Member>; 4] = [
    Series {
        name: "hatoki_member_lost_total",
        kind: "counter",
        help: "How often the member was lost.",
        value: |member| member.lost,
    },
    Series {
        name: "hatoki_member_suspected_total",
        kind: "counter",
        help: "How often the member was suspected.",
        value: |member| member.suspected,
    },
    Series {
        name: "hatoki_member_admitted_total",
        kind: "counter",
        help: "How often the member was admitted.",
        value: |member| member.admitted,
    },
    Series {
        name: "hatoki_member_attempts_failed_total",
        kind: "counter",
        help: "Attempts to reach the member that have failed.",
        value: |member| member.attempts_failed,
    },
];

const STATES: [State; 6] =
    [State::Unknown, State::Up, State::Recovering, State::Suspected, State::Lost, State::Left];

/// A counter of one call, with the label that tells it from its sisters.
type Counter = (&'static str, fn(&Call) -> u64);

const RESULTS: [Counter; 5] = [
    ("answered", |call| call.answered),
    ("declined", |call| call.declined),
    ("busy", |call| call.busy),
    ("lost", |call| call.lost),
    ("cancelled", |call| call.cancelled),
];

const REASONS: [Counter; 4] = [
    ("failover", |call| call.failovers),
    ("hedge", |call| call.hedges),
    ("evacuation", |call| call.evacuations),
    ("busy", |call| call.busy_moves),
];

/// All pages.
pub(crate) fn render(pages: &[Read]) -> String {
    let mut text = String::new();
    for series in &OF_PAGES {
        head(&mut text, series.name, series.kind, series.help);
        for read in pages {
            let _ = writeln!(text, "{}{{{}}} {}", series.name, of_page(read), (series.value)(read));
        }
    }
    head(
        &mut text,
        "hatoki_member_state",
        "gauge",
        "1 for the state that the member is in, 0 for the others.",
    );
    for (read, member) in members(pages) {
        for state in STATES {
            let (labels, is) = (of_member(read, member), u8::from(member.state == state));
            let _ = writeln!(text, "hatoki_member_state{{{labels},state=\"{state}\"}} {is}");
        }
    }
    for series in &OF_MEMBERS {
        head(&mut text, series.name, series.kind, series.help);
        for (read, member) in members(pages) {
            let labels = of_member(read, member);
            let _ = writeln!(text, "{}{{{labels}}} {}", series.name, (series.value)(member));
        }
    }
    calls(&mut text, pages);
    text
}

fn calls(text: &mut String, pages: &[Read]) {
    let sets: [(&str, &str, &str, &[Counter]); 2] = [
        ("hatoki_sends_total", "result", "Requests sent to the member, by how they ended.", &RESULTS),
        (
            "hatoki_moves_total",
            "reason",
            "Requests that another member was asked for too, by reason.",
            &REASONS,
        ),
    ];
    for (name, label, help, counters) in sets {
        head(text, name, "counter", help);
        for (labels, call) in every_call(pages) {
            for (word, value) in counters {
                let _ = writeln!(text, "{name}{{{labels},{label}=\"{word}\"}} {}", value(call));
            }
        }
    }
    head(text, "hatoki_taken_over_total", "counter", "Requests that came to the member from another one.");
    for (labels, call) in every_call(pages) {
        let _ = writeln!(text, "hatoki_taken_over_total{{{labels}}} {}", call.taken_over);
    }
    let name = "hatoki_send_duration_seconds";
    head(text, name, "histogram", "Time from a send to the reply that ended it.");
    for (labels, call) in every_call(pages) {
        histogram(text, name, &labels, call);
    }
}

/// One bucket for each doubling from about 1 µs to about 69 s: a quarter of those of the page, at their exact ends.
fn histogram(text: &mut String, name: &str, labels: &str, call: &Call) {
    let mut sum = 0_u64;
    for (at, count) in call.histogram.counts.iter().enumerate() {
        sum = sum.saturating_add(*count);
        let end = bucket_end_ns(at);
        if at % 4 == 0 && end != u64::MAX {
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{}\"}} {sum}", seconds(end));
        }
    }
    let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {sum}");
    let _ = writeln!(text, "{name}_sum{{{labels}}} {}", seconds(call.sum_ns));
    let _ = writeln!(text, "{name}_count{{{labels}}} {sum}");
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn members(pages: &[Read]) -> impl Iterator<Item = (&Read, &Member)> {
    pages.iter().flat_map(|read| read.page.members.iter().map(move |member| (read, member)))
}

fn every_call(pages: &[Read]) -> impl Iterator<Item = (String, &Call)> {
    members(pages).flat_map(|(read, member)| {
        member.calls.iter().map(move |call| {
            let name = call.name().map_or_else(|| call.number.to_string(), str::to_owned);
            (format!("{},call=\"{}\"", of_member(read, member), escaped(&name)), call)
        })
    })
}

fn of_page(read: &Read) -> String {
    format!(
        "pid=\"{}\",command=\"{}\",group=\"{}\",group_serial=\"{}\"",
        read.page.pid,
        escaped(&read.command),
        escaped(&read.page.label),
        read.page.serial
    )
}

fn of_member(read: &Read, member: &Member) -> String {
    format!("{},member=\"{}\"", of_page(read), member.serial)
}

/// A label's value: backslash, quote and line end are escaped, other control characters replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            c if c.is_control() => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Nanoseconds as seconds, exactly.
fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::stats::gather::tests::page;

    fn text() -> String {
        let page = spec::stats::read(&page(7, 900, 10)).unwrap();
        render(&[Read { page, command: "app".to_owned() }])
    }

    #[test]
    fn every_series_has_help_and_type_once_and_every_value_belongs_to_one() {
        let text = text();
        let mut known = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(known.insert(name.to_owned()) && ["counter", "gauge", "histogram"].contains(&kind));
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            } else if !line.starts_with("# HELP ") {
                let name = line.split('{').next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                assert!(known.contains(base.unwrap_or(name)), "{line}");
                assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn buckets_rise_to_the_count_and_labels_are_escaped() {
        let text = text();
        let labels = "pid=\"7\",command=\"app\",group=\"prod\\\"ha?\",group_serial=\"1111\",member=\"42\"";
        let with = |rest: &str| format!("{rest}\n").replace("LABELS", labels);
        for line in [
            "hatoki_sends_total{LABELS,call=\"Use\",result=\"answered\"} 10",
            "hatoki_sends_total{LABELS,call=\"Use\",result=\"lost\"} 2",
            "hatoki_moves_total{LABELS,call=\"Use\",reason=\"hedge\"} 3",
            "hatoki_member_state{LABELS,state=\"up\"} 1",
            "hatoki_member_state{LABELS,state=\"lost\"} 0",
            "hatoki_send_duration_seconds_bucket{LABELS,call=\"Use\",le=\"0.000032768\"} 0",
            "hatoki_send_duration_seconds_bucket{LABELS,call=\"Use\",le=\"0.000065536\"} 10",
            "hatoki_send_duration_seconds_bucket{LABELS,call=\"Use\",le=\"+Inf\"} 10",
            "hatoki_send_duration_seconds_sum{LABELS,call=\"Use\"} 0.0005",
            "hatoki_send_duration_seconds_count{LABELS,call=\"Use\"} 10",
        ] {
            assert!(text.contains(&with(line)), "{line} in\n{text}");
        }
    }
}
