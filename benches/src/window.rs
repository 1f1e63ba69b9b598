//! A window: so many threads that do one kind of work, each the next operation when the last one has ended, for so long; of long
//! operations each thread does one.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ::tests::p11::Failed;
use serde::Serialize;

use crate::counting;
use crate::histogram::Histogram;
use crate::processor;
use crate::work::{Contestant, Work};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Window {
    /// The work.
    pub work: Work,
    /// Threads.
    pub threads: usize,
    /// Before the measurement.
    pub warm: Duration,
    /// The measurement.
    pub span: Duration,
    /// Processes whose processor time is told too.
    pub others: Vec<u32>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Operations that ended within the window.
    pub operations: u64,
    /// Its length, in nanoseconds.
    pub span_ns: u64,
    /// Half of the operations took no longer, in nanoseconds.
    pub p50_ns: u64,
    /// The same for 99 of 100.
    pub p99_ns: u64,
    /// The same for 999 of 1,000.
    pub p999_ns: u64,
    /// Processor time of this process, in nanoseconds.
    pub own_cpu_ns: u64,
    /// Processor time of the other processes, in nanoseconds.
    pub others_cpu_ns: u64,
    /// How often the threads asked this program's allocator for memory: what a module does that was loaded by its path is not seen,
    /// nor what C code does.
    pub allocations: u64,
}

const WARM: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;
/// One operation of each thread is measured, however long it takes.
const ONE: u8 = 3;

/// Measures a window; `None` when the contestant does not offer the work.
///
/// # Errors
/// The first failure of any thread.
pub fn measure(contestant: &dyn Contestant, window: &Window) -> Result<Option<Report>, Failed> {
    let is_long = window.work.is_long();
    let first = if is_long { ONE } else { WARM };
    // Workers are made; and they begin, long operations when the clocks have been read.
    let (made, ready) = (Barrier::new(window.threads + 1), Barrier::new(window.threads + 1));
    let phase = AtomicU8::new(first);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..window.threads)
            .map(|number| {
                let (phase, made, ready) = (&phase, &made, &ready);
                scope.spawn(move || {
                    let worker = contestant.worker(window.work, number);
                    made.wait();
                    ready.wait();
                    worker?.map(|mut worker| work(&mut worker, phase)).transpose()
                })
            })
            .collect();
        made.wait();
        if !is_long {
            ready.wait();
            thread::sleep(window.warm);
        }
        let (others, own) = (processor::of_others(&window.others), processor::of_process());
        let begin = Instant::now();
        if is_long {
            ready.wait();
        } else {
            phase.store(MEASURED, Ordering::Relaxed);
            thread::sleep(window.span);
            phase.store(OVER, Ordering::Relaxed);
        }
        let mut end = Measured::until_now(window, begin, own, others);
        let all: Vec<_> =
            threads.into_iter().map(|thread| thread.join().expect("a worker does not panic")).collect();
        if is_long {
            end = Measured::until_now(window, begin, own, others);
        }
        let (mut histogram, mut allocations) = (Histogram::default(), 0);
        for one in all {
            match one? {
                Some((one, asked)) => {
                    histogram.merge(&one);
                    allocations += asked;
                }
                None => return Ok(None),
            }
        }
        Ok(Some(end.report(&histogram, allocations)))
    })
}

/// What clocks showed at the end of a window.
struct Measured {
    span: Duration,
    own: u64,
    others: u64,
}

impl Measured {
    fn until_now(window: &Window, begin: Instant, own: u64, others: u64) -> Self {
        let span = begin.elapsed();
        let own = processor::of_process() - own;
        Self { span, own, others: processor::of_others(&window.others).saturating_sub(others) }
    }

    fn report(&self, all: &Histogram, allocations: u64) -> Report {
        Report {
            operations: all.total(),
            span_ns: u64::try_from(self.span.as_nanos()).unwrap_or(u64::MAX),
            p50_ns: all.per_mille(500),
            p99_ns: all.per_mille(990),
            p999_ns: all.per_mille(999),
            own_cpu_ns: self.own,
            others_cpu_ns: self.others,
            allocations,
        }
    }
}

/// How long so many threads take for so many operations together, for a tool that chooses the number itself; `None` when the
/// contestant does not offer the work to so many.
///
/// # Errors
/// The first failure of any thread.
pub fn time(
    contestant: &dyn Contestant,
    work: Work,
    threads: usize,
    operations: u64,
) -> Result<Option<Duration>, Failed> {
    let (ready, left) = (Barrier::new(threads), AtomicU64::new(operations));
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    let one = |number| -> Result<Option<(Instant, Instant)>, Failed> {
        let worker = contestant.worker(work, number);
        ready.wait();
        let Some(mut worker) = worker? else { return Ok(None) };
        let begin = Instant::now();
        while take() {
            worker()?;
        }
        Ok(Some((begin, Instant::now())))
    };
    thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = (0..threads).map(|number| scope.spawn(move || one(number))).collect();
        let spans = threads.into_iter().map(|thread| thread.join().expect("a worker does not panic"));
        // Those of all, or none if the work is not offered to one of them.
        let spans: Option<Vec<_>> = spans.collect::<Result<Vec<_>, _>>()?.into_iter().collect();
        let Some((begins, ends)) = spans.map(|spans| spans.into_iter().unzip::<_, _, Vec<_>, Vec<_>>())
        else {
            return Ok(None);
        };
        // From when the first one begins until the last one ends.
        let span = begins.into_iter().min().zip(ends.into_iter().max()).map(|(begin, end)| end - begin);
        Ok(Some(span.unwrap_or_default()))
    })
}

/// One thread: an operation counts when it ends within the window. Its latencies, and how often it asked for memory.
fn work(
    worker: &mut dyn FnMut() -> Result<(), Failed>,
    phase: &AtomicU8,
) -> Result<(Histogram, u64), Failed> {
    let (mut histogram, mut allocations) = (Histogram::default(), 0);
    let mut before = Instant::now();
    loop {
        let asked = counting::calls();
        worker()?;
        let now = Instant::now();
        match phase.load(Ordering::Relaxed) {
            WARM => {}
            now_measured @ (MEASURED | ONE) => {
                histogram.record(u64::try_from((now - before).as_nanos()).unwrap_or(u64::MAX));
                allocations += counting::calls() - asked;
                if now_measured == ONE {
                    return Ok((histogram, allocations));
                }
            }
            _ => return Ok((histogram, allocations)),
        }
        before = now;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::work::Worker;

    struct Sleeper;

    impl Contestant for Sleeper {
        fn worker(&self, work: Work, number: usize) -> Result<Option<Worker<'_>>, Failed> {
            let rest = move || {
                thread::sleep(Duration::from_millis(5));
                if work == Work::Find { Err(Failed { function: "rest", rv: number as u64 }) } else { Ok(()) }
            };
            Ok((work != Work::Session).then(|| Box::new(rest) as Worker<'_>))
        }
    }

    fn window(work: Work) -> Window {
        let (warm, span) = (Duration::from_millis(20), Duration::from_millis(200));
        Window { work, threads: 4, warm, span, others: vec![] }
    }

    #[test]
    fn all_threads_count_and_nothing_outside_of_the_window_does() {
        let report = measure(&Sleeper, &window(Work::Random)).unwrap().unwrap();
        assert!(report.operations <= 4 * (1 + report.span_ns / 5_000_000), "{report:?}");
        assert!(report.operations >= 4, "{report:?}");
        assert!(report.p50_ns >= 4_900_000 && report.p50_ns <= report.p999_ns, "{report:?}");
        assert!(report.span_ns >= 200_000_000);
    }

    #[test]
    fn of_a_long_operation_each_thread_does_one_and_the_window_lasts_as_long() {
        let report = measure(&Sleeper, &window(Work::Stream256m)).unwrap().unwrap();
        assert_eq!(report.operations, 4);
        assert!(report.span_ns >= report.p999_ns / 2 && report.span_ns < 200_000_000, "{report:?}");
    }

    #[test]
    fn so_many_operations_are_shared_by_the_threads() {
        let span = time(&Sleeper, Work::Random, 4, 20).unwrap().unwrap();
        assert!(span >= Duration::from_millis(25), "{span:?}");
        assert_eq!(time(&Sleeper, Work::Session, 4, 20), Ok(None));
        assert_eq!(time(&Sleeper, Work::Find, 1, 20).unwrap_err().function, "rest");
    }

    #[test]
    fn work_that_is_not_offered_and_work_that_fails_give_no_figures() {
        assert_eq!(measure(&Sleeper, &window(Work::Session)), Ok(None));
        assert_eq!(measure(&Sleeper, &window(Work::Find)).unwrap_err().function, "rest");
    }
}
