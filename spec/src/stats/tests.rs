//! Tests of the metrics page's format.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use super::*;

fn page() -> (Layout, Vec<u64>) {
    let layout = Layout::new(2);
    let birth = Birth { pid: 7, started_ticks: 11, created_ms: 1_000, serial: 1_111, label: "prod ä" };
    let words = new_page(&layout, &birth);
    (layout, words)
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn a_new_page_reads_back_empty() {
    let (_, words) = page();
    let page = read(&bytes(&words)).unwrap();
    assert_eq!((page.pid, page.started_ticks, page.created_ms, page.serial), (7, 11, 1_000, 1_111));
    assert_eq!(page.label, "prod ä");
    assert!(page.members.is_empty() && !page.divergent && !page.is_all_lost);
}

#[test]
fn what_is_counted_stands_in_its_row() {
    let (layout, mut words) = page();
    let used = column_of(14).unwrap();
    let at = layout.member(1);
    words[at + member::SERIAL] = 42;
    words[at + member::STATE] = State::Recovering.number();
    words[at + member::ATTEMPTS_FAILED] = 3;
    let cell = layout.call(1, used);
    let ended = [Ended::Answered, Ended::Declined, Ended::Busy, Ended::Lost, Ended::Cancelled];
    let moved = [Moved::Failover, Moved::Hedge, Moved::Evacuation, Moved::Busy];
    for (count, place) in ended.map(ended_word).into_iter().chain(moved.map(moved_word)).enumerate() {
        words[cell + place] = count as u64 + 1;
    }
    words[cell + HISTOGRAM + bucket_of(50_000)] = 1;
    let page = read(&bytes(&words)).unwrap();
    let [member] = &page.members[..] else { panic!("one member") };
    assert_eq!((member.serial, member.state, member.attempts_failed), (42, State::Recovering, 3));
    let [call] = &member.calls[..] else { panic!("one call") };
    assert_eq!((call.number, call.name()), (14, Some("Use")));
    assert_eq!((call.answered, call.declined, call.busy, call.lost, call.cancelled), (1, 2, 3, 4, 5));
    assert_eq!((call.failovers, call.hedges, call.evacuations, call.busy_moves), (6, 7, 8, 9));
    assert_eq!((call.count(), call.errors()), (15, 6));
    assert_eq!(call.histogram.quantile_ns(500), Some(bucket_end_ns(bucket_of(50_000))));
}

#[test]
fn every_time_lies_before_the_end_of_its_bucket_and_not_before_that_of_the_one_before() {
    let mut times: Vec<u64> =
        (0..64).flat_map(|shift| [1_u64 << shift, (1 << shift) - 1, 5 << shift >> 2]).collect();
    times.push(u64::MAX - 1);
    for ns in times {
        let at = bucket_of(ns);
        assert!(ns < bucket_end_ns(at), "{ns} in {at}");
        assert!(at == 0 || ns >= bucket_end_ns(at - 1), "{ns} in {at}");
    }
    assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    for at in 1..BUCKETS - 1 {
        let (begin, end) = (bucket_end_ns(at - 1), bucket_end_ns(at));
        assert!(end > begin && (end - begin) * 4 <= begin, "bucket {at} from {begin} to {end}");
    }
}

#[test]
fn quantiles_and_differences_follow_from_the_counts() {
    let mut histogram = Histogram::default();
    assert_eq!(histogram.quantile_ns(990), None);
    histogram.counts[3] = 99;
    histogram.counts[9] = 1;
    assert_eq!(histogram.quantile_ns(990), Some(bucket_end_ns(3)));
    assert_eq!(histogram.quantile_ns(991), Some(bucket_end_ns(9)));
    assert_eq!(histogram.quantile_ns(0), Some(bucket_end_ns(3)));
    let mut later = histogram.clone();
    later.counts[9] = 4;
    assert_eq!(later.since(&histogram).total(), 3);
    later.add(&histogram);
    assert_eq!(later.total(), 203);
}

#[test]
fn what_is_no_page_is_told_apart_and_never_read_beyond() {
    let (layout, words) = page();
    let whole = bytes(&words);
    assert_eq!(read(b""), Err(Fault::NoPage));
    assert_eq!(read(b"Chrystoki.conf"), Err(Fault::NoPage));
    for cut in [8, 16, HEADER_WORDS * 8 - 1, HEADER_WORDS * 8, whole.len() - 1] {
        let fault = read(&whole[..cut]);
        assert!(matches!(fault, Err(Fault::Short { .. })), "{cut}: {fault:?}");
    }
    let with = |place: usize, value: u64| {
        let mut words = words.clone();
        words[place] = value;
        read(&bytes(&words))
    };
    assert_eq!(with(header::FORMAT, 2), Err(Fault::Format(2)));
    for (place, value) in [
        (header::MEMBERS, 0),
        (header::MEMBERS, u64::MAX),
        (header::CALLS, 33),
        (header::BUCKETS, 105),
        (header::PID, u64::MAX),
    ] {
        assert_eq!(with(place, value), Err(Fault::Header), "{place} {value}");
    }
    assert!(
        matches!(with(header::MEMBERS, 3), Err(Fault::Short { wanted, .. }) if wanted > layout.bytes() as u64)
    );
    let mut longer = whole.clone();
    longer.extend_from_slice(b"more");
    assert!(read(&longer).is_ok());
}

#[test]
fn any_bytes_behind_a_right_beginning_are_read_without_a_fault_of_ours() {
    let (layout, _) = page();
    for fill in [0_u8, 1, 0x7f, 0xff] {
        let mut words = vec![u64::from_ne_bytes([fill; 8]); layout.words()];
        words[..6].copy_from_slice(&[MAGIC, FORMAT, 2, calls::CALLS.len() as u64, BUCKETS as u64, 7]);
        let page = read(&bytes(&words)).unwrap();
        assert!(page.members.len() <= 2);
        for call in page.members.iter().flat_map(|member| &member.calls) {
            let _ = (call.count(), call.errors(), call.histogram.quantile_ns(999));
        }
    }
}

#[test]
fn names_of_pages_are_read_back_and_other_names_are_not() {
    assert_eq!(parse_file_name(&file_name(4_321, 11_000)), Some((4_321, 11_000)));
    for other in
        ["stats", "stats-1", "stats--1", "stats-1-", "stats-+1-2", "stats-1-2.tmp", "stats-99999999999-1"]
    {
        assert_eq!(parse_file_name(other), None, "{other}");
    }
    assert_eq!(folder(None, 1000), Path::new("/tmp/hatoki-1000"));
    assert_eq!(folder(Some(Path::new("")), 1000), Path::new("/tmp/hatoki-1000"));
    assert_eq!(folder(Some(Path::new("/run/user/1000")), 1000), Path::new("/run/user/1000/hatoki-1000"));
}

#[test]
fn every_call_of_the_table_has_a_column() {
    let (_, words) = page();
    for row in calls::CALLS {
        let column = column_of(row.number).unwrap();
        assert_eq!(words[header::CALL_NUMBERS + column], u64::from(row.number));
    }
    const { assert!(header::CALL_NUMBERS + CALLS_MAX <= HEADER_WORDS) };
    assert!(calls::CALLS.len() <= CALLS_MAX);
    assert!(Layout::new(MEMBERS_MAX).bytes() <= BYTES_MAX);
}

#[test]
fn the_start_of_a_process_is_found_behind_any_name() {
    let fields: Vec<String> = (3..=52).map(|number: u32| (number * 10).to_string()).collect();
    let stat = format!("77 (a) b (c) {}\n", fields.join(" "));
    assert_eq!(started_ticks(&stat), Some(220));
    for other in ["", "77", "77 (a) S 1 2", "77 (a) S x x x x x x x x x x x x x x x x x x x x x"] {
        assert_eq!(started_ticks(other), None, "{other}");
    }
}
