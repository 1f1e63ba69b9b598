//! How fair members are between clients (HA 4.5): what a client with one thread gets beside another client that does the same
//! with many threads as fast as it can, and what it gets alone.
//!
//! ```text
//! quiet client:   [ alone ]       [ beside ]          in turn
//! busy client:                [ ---- 32 threads ---- ]
//! ```
use std::time::Duration;

use serde::Serialize;

use super::Pace;
use super::cells::Cell;
use super::contestant::Contestant;
use super::results::Series;
use crate::problem::Problem;

/// Threads of the busy client.
pub(super) const THREADS: usize = 32;
/// Short work, which runs on the thread of its link, and long work, for which there is a pool.
const WORKS: &[&str] = &["p256-sign", "rsa2048-sign"];

/// What was found of one kind of work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Fairness {
    pub(super) cpus: usize,
    pub(super) work: &'static str,
    /// The quiet client alone.
    pub(super) alone: Series,
    /// The quiet client beside the busy one.
    pub(super) beside: Series,
    /// The busy one meanwhile.
    pub(super) busy: Series,
}

/// The cells that it is made of, as `--only` names them.
pub(super) fn cells(cpus: usize) -> impl Iterator<Item = (Cell, String)> {
    WORKS.iter().map(move |work| (Cell::new(cpus, work, 1), format!("fair/{work}/{cpus}cpu")))
}

/// Measures one kind of work.
pub(super) fn measure(
    (quiet, busy): (&mut Contestant, &mut Contestant),
    cell: Cell,
    pace: Pace,
) -> Result<Result<Fairness, String>, Problem> {
    let crowd = Cell::new(cell.cpus, cell.work, THREADS);
    let mut all = ["quiet, alone", "quiet, beside the busy one", "busy"].map(Series::of);
    for _ in 0..pace.windows {
        let alone = quiet.run(cell, pace.warm, pace.span)?;
        // Busy from before the other one begins until after it has ended.
        busy.ask(crowd, pace.warm, pace.span + 2 * pace.warm)?;
        std::thread::sleep(pace.warm + Duration::from_millis(20));
        let beside = quiet.run(cell, pace.warm, pace.span)?;
        let crowded = busy.answer()?;
        for (series, window) in all.iter_mut().zip([alone, beside, crowded]) {
            match window {
                Ok(Some(window)) => series.windows.push(window),
                Ok(None) => return Ok(Err("not offered".into())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    let [alone, beside, busy] = all;
    Ok(Ok(Fairness { cpus: cell.cpus, work: cell.work, alone, beside, busy }))
}
