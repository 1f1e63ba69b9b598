//! Processors: which we may use, how we keep ourselves and what we start on some of them, and what the host takes of them.
use std::fs;
use std::process::Command;

use crate::problem::Problem;
use crate::process;

/// The processors that we may use, in ascending order.
pub(super) fn allowed() -> Result<Vec<usize>, Problem> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let cpus = list.and_then(|list| listed(list.trim()));
    cpus.ok_or_else(|| {
        Problem("wanted a list of the processors that we may use, found none in /proc/self/status".into())
    })
}

/// The numbers of a list such as `0-1,4`.
fn listed(text: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        all.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(all)
}

/// From now on this program's first thread, and whatever process it starts, uses these.
pub(super) fn to(cpus: &[usize]) -> Result<(), Problem> {
    let list = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let own = std::process::id().to_string();
    process::run(Command::new("taskset").args(["--cpu-list", "--pid", &list, &own])).map(drop)
}

/// What the host of a virtual machine takes of its processors over a time.
pub(super) struct Steal([u64; 2]);

impl Steal {
    /// From now on.
    pub(super) fn begin() -> Self {
        Self(ticks())
    }

    /// Until now, as a share of the time that was not idle.
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    pub(super) fn share(&self) -> f64 {
        let [steal, busy] = ticks();
        let (steal, busy) = (steal.saturating_sub(self.0[0]), busy.saturating_sub(self.0[1]));
        steal as f64 / (steal + busy).max(1) as f64
    }
}

/// Stolen and busy clock ticks of all processors.
fn ticks() -> [u64; 2] {
    parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn parse(stat: &str) -> [u64; 2] {
    // cpu user nice system idle iowait irq softirq steal
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> =
        line.split_ascii_whitespace().skip(1).map(|word| word.parse().unwrap_or(0)).collect();
    let sum = |places: &[usize]| places.iter().filter_map(|place| fields.get(*place)).sum();
    [sum(&[7]), sum(&[0, 1, 2, 5, 6])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(listed("0-1,4"), Some(vec![0, 1, 4]));
        assert_eq!(listed("3"), Some(vec![3]));
        assert_eq!(listed("none"), None);
        assert!(!allowed().unwrap_or_default().is_empty());
    }

    #[test]
    fn stolen_time_is_told_from_work_and_idleness() {
        assert_eq!(parse("cpu  10 1 5 1000 7 2 3 40 0 0\ncpu0 1 2 3"), [40, 21]);
        assert_eq!(parse(""), [0, 0]);
    }
}
