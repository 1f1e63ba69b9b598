//! `vtl stats` against what programs really did: the live table, JSON and Prometheus' text tell the same counts.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use tests::lab::{Lab, Scene};

/// The rows of `vtl stats --json` for a scene's process.
fn rows(lab: &Lab, scene: &Scene) -> Vec<Value> {
    let shown: Value =
        serde_json::from_str(&lab.vtl_done(&["stats", "--json", "-pid", &pid(scene)])).unwrap();
    let page = &shown["processes"][0];
    assert_eq!((page["pid"].to_string(), page["all_lost"].as_bool()), (pid(scene), Some(false)), "{shown}");
    shown["calls"].as_array().unwrap().clone()
}

fn pid(scene: &Scene) -> String {
    scene.pid().to_string()
}

/// A count of one call, over all members or of one.
fn count(rows: &[Value], call: &str, field: &str, member: Option<&str>) -> u64 {
    let of_call = rows.iter().filter(|row| row["call"] == call);
    let of_member = of_call.filter(|row| member.is_none_or(|serial| is_member(row, serial)));
    of_member.map(|row| row[field].as_u64().unwrap()).sum()
}

/// Whether a row is of the member with this serial number.
fn is_member(row: &Value, serial: &str) -> bool {
    row["member"] == serial.parse::<u64>().unwrap()
}

/// The value of the one line of Prometheus' text with this name and these labels.
fn sample(text: &str, name: &str, labels: &[&str]) -> u64 {
    let mut lines = text.lines().filter(|line| {
        line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
    });
    let line = lines.next().unwrap_or_else(|| panic!("{name} with {labels:?} in\n{text}"));
    assert_eq!(lines.next(), None, "one line of {name} with {labels:?}");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The cells of the row of a call in a table.
fn cells<'a>(table: &'a str, call: &str) -> Vec<&'a str> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.rev().find(|cells| cells.contains(&call)).unwrap_or_else(|| panic!("a row of {call} in\n{table}"))
}

#[test]
fn table_json_and_prometheus_tell_every_call_of_a_quiet_program_exactly() {
    let lab = Lab::up(1);
    let mut scene = lab.scene("warm-sign", &["20"]);
    scene.expect("READY");
    // Log in, make a pair and store it, sign once.
    let before = rows(&lab, &scene);
    for call in ["Login", "Make", "Store", "Use"] {
        assert_eq!(count(&before, call, "answered", None), 1, "{call}: {before:?}");
    }
    scene.go();
    // Twenty length queries and twenty refused second Inits: nothing is sent.
    scene.expect("ASKED");
    assert_eq!(count(&rows(&lab, &scene), "Use", "answered", None), 1);
    scene.go();
    scene.expect("SIGNED");
    let after = rows(&lab, &scene);
    assert_eq!(count(&after, "Use", "answered", None), 21);
    for call in ["Login", "Make", "Store"] {
        assert_eq!(count(&after, call, "answered", None), 1, "{call}");
    }
    for field in ["errors", "busy", "cancelled", "hedges", "failovers", "evacuations", "taken_over"] {
        assert_eq!(count(&after, "Use", field, None), 0, "{field}");
    }
    let row = after.iter().find(|row| row["call"] == "Use").unwrap();
    let (p50, p999, max) = (&row["p50_ns"], &row["p999_ns"], &row["max_ns"]);
    assert!(0 < p50.as_u64().unwrap() && p50.as_u64() <= p999.as_u64() && max.as_u64().unwrap() > 0, "{row}");

    let text = lab.vtl_done(&["stats", "-prometheus", "-pid", &pid(&scene)]);
    let of_use = ["call=\"Use\"", &format!("pid=\"{}\"", pid(&scene)), "command=\"p11drive\""];
    let ended = |result: &str| sample(&text, "hatoki_sends_total", &[&of_use[..], &[result]].concat());
    assert_eq!((ended("result=\"answered\""), ended("result=\"lost\"")), (21, 0));
    assert_eq!(sample(&text, "hatoki_send_duration_seconds_count", &of_use), 21);
    let all = [&of_use[..], &["le=\"+Inf\""]].concat();
    assert_eq!(sample(&text, "hatoki_send_duration_seconds_bucket", &all), 21);
    assert_eq!(sample(&text, "hatoki_moves_total", &[&of_use[..], &["reason=\"failover\""]].concat()), 0);
    assert_eq!(sample(&text, "hatoki_group_all_lost", &[]), 0);

    // The live table: two looks in which nothing happens.
    let live = lab.vtl_done(&["stats", "-count", "2", "-pid", &pid(&scene)]);
    assert_eq!(live.lines().filter(|line| line.contains("p99.9")).count(), 2, "two tables:\n{live}");
    let row = cells(&live, "Use");
    assert_eq!((row[0], row[1], row[3]), (&*pid(&scene), "p11drive", &*lab.serials()[0]), "{live}");
    assert_eq!(row[4..9], ["up", "Use", "0.0", "21", "0"], "{live}");
    assert_eq!(row[row.len() - 2..], ["0", "0"], "no hedge, no failover: {live}");
    scene.go();
    scene.finish();
}

/// Waits until the rows show something.
fn eventually(lab: &Lab, scene: &Scene, what: &str, shows: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    for _ in 0..300 {
        let rows = rows(lab, scene);
        if shows(&rows) {
            return rows;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    panic!("{what} is never shown: {:?}", rows(lab, scene));
}

#[test]
fn requests_of_a_killed_and_of_a_frozen_member_are_shown_as_moved_to_the_other() {
    let lab = Lab::up(2);
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    scene.signatures_go_on();
    let serials = lab.serials();
    let (stays, goes) = (Some(serials[0].as_str()), Some(serials[1].as_str()));
    let moved = |rows: &[Value]| -> u64 {
        ["failovers", "hedges", "evacuations"].iter().map(|field| count(rows, "Use", field, goes)).sum()
    };
    let quiet = moved(&rows(&lab, &scene));
    lab.kill_now(2);
    let killed = eventually(&lab, &scene, "a failover", |rows| moved(rows) > quiet);
    assert!(count(&killed, "Use", "errors", goes) > 0, "what was under way was lost: {killed:?}");
    assert!(count(&killed, "Use", "taken_over", stays) > 0, "{killed:?}");
    // The state is that of the member, in every row of it.
    eventually(&lab, &scene, "the lost member", |rows| {
        rows.iter().any(|row| is_member(row, &serials[1]) && row["state"] == "lost")
    });
    let table = lab.vtl_done(&["stats", "-once", "-pid", &pid(&scene)]);
    assert!(table.lines().any(|line| line.contains(&serials[1]) && line.contains("lost")), "{table}");
    lab.lab("start", Some(2));
    lab.wait_until_equal(2);
    let answered = |rows: &[Value]| count(rows, "Use", "answered", goes);
    let back = answered(&rows(&lab, &scene));
    eventually(&lab, &scene, "work of the member that is back", |rows| answered(rows) > back + 100);
    let before = moved(&rows(&lab, &scene));
    lab.lab("stop", Some(2));
    eventually(&lab, &scene, "a hedge or an evacuation", |rows| moved(rows) > before);
    lab.lab("cont", Some(2));
    scene.signatures_go_on();
    let gone = pid(&scene);
    scene.finish_without_error();
    let after = lab.vtl(&["stats", "-once", "-pid", &gone]);
    assert_eq!(after.status.code(), Some(1), "a process that has ended counts nothing any more");
}
