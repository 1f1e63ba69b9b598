//! What was measured, and the figures of it: medians of windows, and ratios within one turn, which drift less.
use serde::{Deserialize, Serialize};

use super::cells::Cell;
use super::dispatch::Dispatch;
use super::fairness::Fairness;

/// One window, as `hatoki-load` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct Window {
    pub(super) operations: u64,
    pub(super) span_ns: u64,
    pub(super) p50_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) p999_ns: u64,
    /// Processor time of the contestant's process.
    pub(super) own_cpu_ns: u64,
    /// Processor time of its members.
    pub(super) others_cpu_ns: u64,
    /// Allocations of the contestant's threads that its program's allocator has seen: of a module that was loaded by its path, none.
    pub(super) allocations: u64,
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
impl Window {
    /// Operations a second.
    pub(super) fn rate(&self) -> f64 {
        self.operations as f64 * 1e9 / self.span_ns.max(1) as f64
    }

    fn each(&self, value: u64) -> f64 {
        value as f64 / self.operations.max(1) as f64
    }

    /// Half of the operations took no longer, in microseconds.
    pub(super) fn p50_us(&self) -> f64 {
        self.p50_ns as f64 / 1e3
    }

    /// The same for 99 of 100.
    pub(super) fn p99_us(&self) -> f64 {
        self.p99_ns as f64 / 1e3
    }

    /// The same for 999 of 1,000.
    pub(super) fn p999_us(&self) -> f64 {
        self.p999_ns as f64 / 1e3
    }

    /// Processor time of the contestant for each operation, in microseconds.
    pub(super) fn own_cpu_us(&self) -> f64 {
        self.each(self.own_cpu_ns) / 1e3
    }

    /// Processor time of its members for each operation, in microseconds.
    pub(super) fn others_cpu_us(&self) -> f64 {
        self.each(self.others_cpu_ns) / 1e3
    }

    /// Processor time of both.
    pub(super) fn cpu_us(&self) -> f64 {
        self.own_cpu_us() + self.others_cpu_us()
    }

    /// Allocations for each operation.
    pub(super) fn allocations_each(&self) -> f64 {
        self.each(self.allocations)
    }
}

/// The windows of one contestant in one cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Series {
    pub(super) contestant: String,
    pub(super) windows: Vec<Window>,
    /// Allocations of its threads for an operation, where they were counted.
    pub(super) allocations: Option<f64>,
    /// It does not offer the work, or has failed.
    #[serde(skip)]
    pub(super) is_over: bool,
}

impl Series {
    pub(super) fn of(contestant: &str) -> Self {
        Self { contestant: contestant.to_owned(), windows: Vec::new(), allocations: None, is_over: false }
    }

    /// The median of a figure over the windows.
    pub(super) fn median(&self, figure: impl Fn(&Window) -> f64) -> f64 {
        median(self.windows.iter().map(figure).collect())
    }
}

/// One cell with all who took part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Measured {
    pub(super) cell: Cell,
    pub(super) series: Vec<Series>,
    /// The share of the busy time that the host took.
    pub(super) steal: f64,
}

impl Measured {
    pub(super) fn of(&self, contestant: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.contestant == contestant)
    }

    /// The median of the ratios of a figure of two contestants, each ratio of one turn.
    pub(super) fn ratio(&self, of: &str, to: &str, figure: impl Fn(&Window) -> f64) -> Option<f64> {
        let (of, to) = (self.of(of)?, self.of(to)?);
        Some(median(of.windows.iter().zip(&to.windows).map(|(of, to)| figure(of) / figure(to)).collect()))
    }
}

/// All of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Results {
    pub(super) cells: Vec<Measured>,
    pub(super) dispatch: Vec<Dispatch>,
    /// Where the dispatch takes a lock, if that was counted.
    pub(super) locks: Option<Vec<String>>,
    /// What a client gets beside a busy one.
    pub(super) fairness: Vec<Fairness>,
    /// What could not be measured, and why.
    pub(super) failures: Vec<String>,
}

impl Results {
    pub(super) fn add(&mut self, cell: Cell, series: Vec<Series>, steal: f64) {
        self.cells.push(Measured { cell, series, steal });
    }

    pub(super) fn cell(&self, cell: Cell) -> Option<&Measured> {
        self.cells.iter().find(|measured| measured.cell == cell)
    }
}

/// The middle one; not a number when there is none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (middle, 0) => (values[middle - 1] + values[middle]) / 2.0,
        (middle, _) => values[middle],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn series(contestant: &str, operations: &[u64]) -> Series {
        let window =
            |operations| Window { operations, span_ns: 1_000_000_000, own_cpu_ns: 500, ..Window::default() };
        let windows = operations.iter().copied().map(window).collect();
        Series { windows, ..Series::of(contestant) }
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![5.0, 1.0, 3.0]).to_bits(), 3f64.to_bits());
        assert_eq!(median(vec![4.0, 1.0]).to_bits(), 2.5f64.to_bits());
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn ratios_are_taken_within_a_turn() {
        // The host slows down by half between the turns: the ratio stays, that of medians would not.
        let series = vec![series("a", &[100, 50, 50]), series("b", &[50, 25, 50])];
        let measured = Measured { cell: Cell::new(1, "session", 1), series, steal: 0.0 };
        let ratio = measured.ratio("a", "b", Window::rate).unwrap();
        assert_eq!(ratio.to_bits(), 2f64.to_bits());
        assert_eq!(measured.ratio("a", "c", Window::rate), None);
    }

    #[test]
    fn time_is_told_for_each_operation() {
        let window = Window { operations: 4, own_cpu_ns: 8_000, others_cpu_ns: 4_000, ..Window::default() };
        assert_eq!(window.cpu_us().to_bits(), 3f64.to_bits());
    }
}
