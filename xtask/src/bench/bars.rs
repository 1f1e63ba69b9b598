//! The bars: what is wanted of the figures, and what was found.
use serde::Serialize;

use super::cells::Cell;
use super::contestant::{LIBRARY, SOFTHSM, group_of};
use super::results::{Results, Window};

/// What a bar compares.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Figure {
    /// The median latency, as a ratio to SoftHSM2's.
    Latency(Cell),
    /// The rate, as a ratio to SoftHSM2's.
    Rate(Cell),
    /// The rate, as a ratio to the library's.
    RateOfLibrary(Cell),
    /// Processor time of client and members for one signature, less the library's for the same, in microseconds.
    OutsideCryptography(Cell),
    /// Processor time of the dispatch at one thread, in nanoseconds.
    Dispatch,
    /// Allocations of the dispatch.
    DispatchAllocations,
    /// Locks that the dispatch takes, those included that no other call ever waits for.
    DispatchLocks,
    /// The most expensive dispatch of 1, 2 and 8 threads, as a ratio to that of one.
    DispatchGrowth,
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bar {
    /// Its name for `--only` and programs.
    name: &'static str,
    /// The work, for people.
    text: &'static str,
    /// What the number is.
    unit: &'static str,
    figure: Figure,
    wanted: Wanted,
}

const P256_1: Cell = Cell::new(1, "p256-sign", 1);
const P256_32: Cell = Cell::new(1, "p256-sign", 32);
const RSA_8: Cell = Cell::new(1, "rsa2048-sign", 8);
const P256_32_ON_TWO: Cell = Cell::new(2, "p256-sign", 32);
const RSA_8_ON_TWO: Cell = Cell::new(2, "rsa2048-sign", 8);

const fn bar(
    name: &'static str,
    text: &'static str,
    unit: &'static str,
    figure: Figure,
    wanted: Wanted,
) -> Bar {
    Bar { name, text, unit, figure, wanted }
}

const TIMES: &str = "x SoftHSM2";
const OF_LIBRARY: &str = "x library";

const BARS: &[Bar] = &[
    bar(
        "p256-sign/1t/1cpu/p50",
        "P-256 sign, 1 thread, one CPU: p50",
        TIMES,
        Figure::Latency(P256_1),
        Wanted::AtMost(0.8),
    ),
    bar(
        "p256-sign/32t/1cpu",
        "P-256 sign, 32 threads, one CPU",
        TIMES,
        Figure::Rate(P256_32),
        Wanted::AtLeast(2.0),
    ),
    bar(
        "rsa2048-sign/8t/1cpu",
        "RSA-2048 sign, 8 threads, one CPU",
        TIMES,
        Figure::Rate(RSA_8),
        Wanted::AtLeast(2.3),
    ),
    bar(
        "rsa2048-sign/8t/1cpu/library",
        "the same, of the library",
        OF_LIBRARY,
        Figure::RateOfLibrary(RSA_8),
        Wanted::AtLeast(0.9),
    ),
    bar(
        "p256-sign/32t/2cpu",
        "P-256 sign, 32 threads, two CPUs",
        TIMES,
        Figure::Rate(P256_32_ON_TWO),
        Wanted::AtLeast(2.5),
    ),
    bar(
        "p256-sign/32t/2cpu/library",
        "the same, of the library",
        OF_LIBRARY,
        Figure::RateOfLibrary(P256_32_ON_TWO),
        Wanted::AtLeast(0.5),
    ),
    bar(
        "rsa2048-sign/8t/2cpu",
        "RSA-2048 sign, 8 threads, two CPUs",
        TIMES,
        Figure::Rate(RSA_8_ON_TWO),
        Wanted::AtLeast(4.0),
    ),
    bar(
        "rsa2048-sign/8t/2cpu/library",
        "the same, of the library",
        OF_LIBRARY,
        Figure::RateOfLibrary(RSA_8_ON_TWO),
        Wanted::AtLeast(0.8),
    ),
    bar(
        "gcm-1k/32t/1cpu",
        "AES-256-GCM 1 KiB, 32 threads, one CPU",
        TIMES,
        Figure::Rate(Cell::new(1, "gcm-1k", 32)),
        Wanted::AtLeast(0.8),
    ),
    bar(
        "digest-1k/1t/1cpu",
        "SHA-256 of 1 KiB",
        TIMES,
        Figure::Rate(Cell::new(1, "digest-1k", 1)),
        Wanted::AtLeast(1.5),
    ),
    bar(
        "session/1t/1cpu",
        "session open and close",
        TIMES,
        Figure::Rate(Cell::new(1, "session", 1)),
        Wanted::AtLeast(1.0),
    ),
    bar(
        "random-32/1t/1cpu",
        "random 32 B",
        TIMES,
        Figure::Rate(Cell::new(1, "random-32", 1)),
        Wanted::AtLeast(0.5),
    ),
    bar(
        "p256-sign/1t/1cpu/cpu",
        "CPU per remote call outside cryptography, 1 caller",
        "us",
        Figure::OutsideCryptography(P256_1),
        Wanted::AtMost(22.0),
    ),
    bar(
        "p256-sign/32t/1cpu/cpu",
        "the same, 32 callers",
        "us",
        Figure::OutsideCryptography(P256_32),
        Wanted::AtMost(8.0),
    ),
    bar("dispatch/time", "dispatch over a null link", "ns", Figure::Dispatch, Wanted::AtMost(400.0)),
    bar(
        "dispatch/allocations",
        "the same: allocations",
        "per call",
        Figure::DispatchAllocations,
        Wanted::AtMost(0.0),
    ),
    bar("dispatch/locks", "the same: locks", "per call", Figure::DispatchLocks, Wanted::AtMost(0.0)),
    bar(
        "dispatch/threads",
        "the same: most of 1, 2 and 8 threads",
        "x one thread",
        Figure::DispatchGrowth,
        Wanted::AtMost(1.15),
    ),
];

/// All bars, or those whose names contain one of the words.
pub(super) fn chosen(only: &[String]) -> Vec<Bar> {
    BARS.iter().copied().filter(|bar| super::is_named(bar.name, only)).collect()
}

impl Bar {
    /// Whether it is about the dispatch alone.
    pub(super) fn needs_dispatch(&self) -> bool {
        self.cell().is_none()
    }

    /// The cell that it is about, if it is about one.
    pub(super) fn cell(&self) -> Option<Cell> {
        match self.figure {
            Figure::Latency(cell)
            | Figure::Rate(cell)
            | Figure::RateOfLibrary(cell)
            | Figure::OutsideCryptography(cell) => Some(cell),
            Figure::Dispatch
            | Figure::DispatchAllocations
            | Figure::DispatchLocks
            | Figure::DispatchGrowth => None,
        }
    }

    fn measured(&self, results: &Results) -> Option<f64> {
        let own = group_of(2);
        match self.figure {
            Figure::Latency(cell) => results.cell(cell)?.ratio(&own, SOFTHSM, Window::p50_us),
            Figure::Rate(cell) => results.cell(cell)?.ratio(&own, SOFTHSM, Window::rate),
            Figure::RateOfLibrary(cell) => results.cell(cell)?.ratio(&own, LIBRARY, Window::rate),
            Figure::OutsideCryptography(cell) => {
                let measured = results.cell(cell)?;
                let library = measured.of(LIBRARY)?.median(Window::cpu_us);
                Some(measured.of(&own)?.median(Window::cpu_us) - library)
            }
            Figure::Dispatch => results.dispatch.first().map(|one| one.cpu_ns),
            Figure::DispatchAllocations => {
                results.dispatch.iter().map(|one| one.allocations).max_by(f64::total_cmp)
            }
            #[allow(clippy::cast_precision_loss, reason = "a handful")]
            Figure::DispatchLocks => results.locks.as_ref().map(|places| places.len() as f64),
            Figure::DispatchGrowth => {
                let few = results.dispatch.iter().filter(|one| one.threads <= 8);
                let most = few.map(|one| one.cpu_ns).max_by(f64::total_cmp)?;
                Some(most / results.dispatch.first()?.cpu_ns)
            }
        }
    }
}

/// A bar with what was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Judged {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) unit: &'static str,
    /// The bound.
    pub(super) bound: f64,
    /// Whether more is better.
    pub(super) more_is_better: bool,
    /// `None` when it was not measured.
    pub(super) measured: Option<f64>,
}

impl Judged {
    /// Whether it is met, if it was measured.
    pub(super) fn is_met(&self) -> Option<bool> {
        self.reached().map(|reached| reached >= 1.0)
    }

    /// How much of the bar is reached: 1 is the bar itself, more is better.
    pub(super) fn reached(&self) -> Option<f64> {
        let measured = self.measured?;
        match (self.more_is_better, measured > 0.0) {
            (true, _) => Some(measured / self.bound),
            (false, true) => Some(self.bound / measured),
            // Less than nothing is not wanted.
            (false, false) => Some(1.0),
        }
    }
}

/// Every bar with what was found.
pub(super) fn judge(bars: &[Bar], results: &Results) -> Vec<Judged> {
    let one = |bar: &Bar| {
        let (bound, more_is_better) = match bar.wanted {
            Wanted::AtMost(bound) => (bound, false),
            Wanted::AtLeast(bound) => (bound, true),
        };
        let measured = bar.measured(results);
        Judged { name: bar.name, text: bar.text, unit: bar.unit, bound, more_is_better, measured }
    };
    bars.iter().map(one).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::results::Series;
    use super::*;

    fn results(own: Window, softhsm: Window, library: Window) -> Results {
        let series = [(group_of(2), own), (SOFTHSM.into(), softhsm), (LIBRARY.into(), library)]
            .map(|(contestant, window)| Series { windows: vec![window], ..Series::of(&contestant) });
        let mut results = Results::default();
        results.add(P256_1, series.to_vec(), 0.0);
        results
    }

    fn found<'a>(judged: &'a [Judged], name: &str) -> &'a Judged {
        judged.iter().find(|judged| judged.name == name).unwrap()
    }

    #[test]
    fn every_cell_of_a_bar_is_measured_in_both_kinds_of_run() {
        for cell in BARS.iter().filter_map(Bar::cell) {
            assert!(super::super::cells::all(true).contains(&cell), "{}", cell.name());
            assert!(super::super::cells::all(false).contains(&cell), "{}", cell.name());
        }
    }

    #[test]
    fn words_choose_bars_by_their_names() {
        let names: Vec<&str> = chosen(&["p256-sign/32t/2cpu".into()]).iter().map(|bar| bar.name).collect();
        assert_eq!(names, ["p256-sign/32t/2cpu", "p256-sign/32t/2cpu/library"]);
        assert!(chosen(&["nothing".into()]).is_empty());
        assert_eq!(chosen(&[]), BARS);
    }

    #[test]
    fn a_latency_is_met_below_its_bar_and_missed_above() {
        let window = |p50_ns| Window { operations: 1, span_ns: 1, p50_ns, ..Window::default() };
        for (p50_ns, is_met) in [(79, true), (80, true), (81, false)] {
            let judged = judge(BARS, &results(window(p50_ns), window(100), window(1)));
            assert_eq!(found(&judged, "p256-sign/1t/1cpu/p50").is_met(), Some(is_met), "{p50_ns}");
        }
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let judged = judge(BARS, &Results::default());
        assert!(judged.iter().all(|judged| judged.measured.is_none() && judged.is_met().is_none()));
    }

    #[test]
    fn time_outside_of_cryptography_is_that_of_client_and_members_less_the_librarys() {
        let window = |own_cpu_ns, others_cpu_ns| Window {
            operations: 1,
            own_cpu_ns,
            others_cpu_ns,
            ..Window::default()
        };
        let judged = judge(BARS, &results(window(15_000, 30_000), window(1, 0), window(20_000, 0)));
        let judged = found(&judged, "p256-sign/1t/1cpu/cpu");
        assert!((judged.measured.unwrap() - 25.0).abs() < 1e-9);
        assert_eq!(judged.is_met(), Some(false));
    }

    #[test]
    fn no_allocation_meets_a_bar_of_none() {
        let mut results = Results::default();
        let one = super::super::dispatch::Dispatch { threads: 1, cpu_ns: 300.0, allocations: 0.0 };
        let at = |threads, cpu_ns| super::super::dispatch::Dispatch { threads, cpu_ns, ..one };
        results.dispatch = vec![one, at(8, 450.0), at(32, 900.0)];
        let judged = judge(BARS, &results);
        assert_eq!(found(&judged, "dispatch/allocations").is_met(), Some(true));
        assert_eq!(found(&judged, "dispatch/time").is_met(), Some(true));
        assert_eq!(found(&judged, "dispatch/threads").is_met(), Some(false));
        // At 32 threads it is told, and no bar is about it.
        assert_eq!(found(&judged, "dispatch/threads").measured, Some(1.5));
    }
}
