//! A lock-free histogram of latencies: the 99th percentile and the mean of what one member lately took for one cost class
//! (HA 4.3).
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use spec::platform::Moment;

/// Times below 2 to this power of nanoseconds (about 8 microseconds) fall into the first bucket.
const OCTAVE_MIN: u32 = 13;
/// Octaves; the last ends after about a minute.
const OCTAVES: u32 = 23;
/// Buckets in an octave: a percentile is at most a quarter too great.
const SUB: u32 = 4;
const BUCKETS: usize = (OCTAVES * SUB) as usize;
/// So many samples make a percentile.
const SAMPLES_MIN: u32 = 100;
/// The percentile is found anew after so many samples.
const REFRESH: u32 = 32;
/// At so many samples every count is halved, so that the past fades.
const SAMPLES_MAX: u32 = 4_096;
/// It fades for who asks seldom, too: so many milliseconds after it was halved last, once there are so many samples.
const FADE_MS: u64 = 5_000;
const SAMPLES_FADING: u32 = 256;

/// See the head of this file. Readers and writers meet in atomics only; a count lost in a race is none missed.
/// In this order what every sample changes, but for its bucket, lies in one cache line.
#[repr(C)]
pub(crate) struct Histogram {
    p99_ns: AtomicU64,
    mean_ns: AtomicU64,
    /// When time was last seen to have come for a fade; 0 before that.
    faded: AtomicU64,
    samples: AtomicU32,
    fades: AtomicU32,
    counts: [AtomicU32; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU32::new(0) }; BUCKETS],
            samples: AtomicU32::new(0),
            p99_ns: AtomicU64::new(0),
            mean_ns: AtomicU64::new(0),
            faded: AtomicU64::new(0),
            fades: AtomicU32::new(0),
        }
    }
}

impl Histogram {
    /// Takes a time in nanoseconds that has ended now.
    pub(crate) fn record(&self, ns: u64, now: Moment) {
        let mean = self.mean_ns.load(Ordering::Relaxed);
        let new = if mean == 0 { ns } else { mean - mean / 16 + ns / 16 };
        self.mean_ns.store(new.max(1), Ordering::Relaxed);
        self.counts[bucket(ns)].fetch_add(1, Ordering::Relaxed);
        let samples = self.samples.fetch_add(1, Ordering::Relaxed) + 1;
        if samples >= SAMPLES_MIN && (samples == SAMPLES_MIN || samples.is_multiple_of(REFRESH)) {
            self.refresh();
        }
        if self.is_due(samples, now) {
            self.fade();
        }
    }

    /// The 99th percentile in nanoseconds, rounded up to a bucket's end; `None` before there are 100 samples.
    pub(crate) fn p99_ns(&self) -> Option<u64> {
        match self.p99_ns.load(Ordering::Relaxed) {
            0 => None,
            ns => Some(ns),
        }
    }

    /// The moving average in nanoseconds; 0 without samples.
    pub(crate) fn mean_ns(&self) -> u64 {
        self.mean_ns.load(Ordering::Relaxed)
    }

    fn refresh(&self) {
        let counts = || self.counts.iter().map(|count| u64::from(count.load(Ordering::Relaxed)));
        let total: u64 = counts().sum();
        // The smallest bucket's end that 99 of 100 samples do not pass.
        let wanted = total - total / 100;
        let mut sum = 0;
        let at = counts().position(|count| {
            sum += count;
            sum >= wanted
        });
        self.p99_ns.store(end_ns(at.unwrap_or(BUCKETS - 1)), Ordering::Relaxed);
    }

    /// Whether the past is to fade now: of several threads one hears yes.
    fn is_due(&self, samples: u32, now: Moment) -> bool {
        let last = self.faded.load(Ordering::Relaxed);
        let is_late = now.ms_since(Moment(last)) >= FADE_MS;
        let takes_it =
            || self.faded.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        match samples {
            0..SAMPLES_FADING => false,
            SAMPLES_MAX => {
                self.faded.store(now.0, Ordering::Relaxed);
                true
            }
            _ => is_late && takes_it() && last != 0,
        }
    }

    fn fade(&self) {
        // An odd count is rounded up at every other time: a single one neither stays for ever nor goes at once.
        let parity = self.fades.fetch_add(1, Ordering::Relaxed) % 2;
        let mut left = 0;
        for (count, up) in self.counts.iter().zip([parity, 1 - parity].into_iter().cycle()) {
            let half = (count.load(Ordering::Relaxed) + up) / 2;
            count.store(half, Ordering::Relaxed);
            left += half;
        }
        self.samples.store(left, Ordering::Relaxed);
    }
}

fn bucket(ns: u64) -> usize {
    let ns = ns.max(1);
    let octave = ns.ilog2();
    if octave < OCTAVE_MIN {
        return 0;
    }
    let sub = (ns >> (octave - SUB.ilog2())) & u64::from(SUB - 1);
    let at = (octave - OCTAVE_MIN) * SUB + u32::try_from(sub).unwrap_or(0);
    (at as usize).min(BUCKETS - 1)
}

/// The first time in nanoseconds that falls into a later bucket.
fn end_ns(bucket: usize) -> u64 {
    let next = bucket as u64 + 1;
    let (octave, sub) = (next / u64::from(SUB), next % u64::from(SUB));
    (u64::from(SUB) + sub) << (octave + u64::from(OCTAVE_MIN - SUB.ilog2()))
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Records so many times in a row, with so many milliseconds between them; the moment after the last.
    fn take(histogram: &Histogram, times: u64, ns: u64, begun: Moment, apart_ms: u64) -> Moment {
        let at = |turn: u64| begun.after_ms(turn * apart_ms);
        (0..times).for_each(|turn| histogram.record(ns, at(turn)));
        at(times)
    }

    #[test]
    fn there_is_no_percentile_before_a_hundred_samples() {
        let histogram = Histogram::default();
        let now = take(&histogram, 99, MS, Moment(1), 0);
        assert_eq!(histogram.p99_ns(), None);
        histogram.record(MS, now);
        let p99 = histogram.p99_ns().unwrap_or(0);
        assert!((MS..=MS * 5 / 4 + 1).contains(&p99), "{p99}");
        assert_eq!(histogram.mean_ns(), MS);
    }

    #[test]
    fn the_percentile_leaves_one_in_a_hundred_out() {
        let histogram = Histogram::default();
        for round in 0..1_600_u64 {
            histogram.record(if round.is_multiple_of(100) { 50 * MS } else { MS }, Moment(1));
        }
        assert!(histogram.p99_ns().is_some_and(|p99| p99 < 2 * MS));
        for round in 0..1_600_u64 {
            histogram.record(if round.is_multiple_of(20) { 50 * MS } else { MS }, Moment(1));
        }
        assert!(histogram.p99_ns().is_some_and(|p99| p99 > 50 * MS));
    }

    #[test]
    fn the_past_fades() {
        let histogram = Histogram::default();
        let now = take(&histogram, 4_096, 40 * MS, Moment(1), 0);
        take(&histogram, 400_000, MS, now, 0);
        assert!(histogram.p99_ns().is_some_and(|p99| p99 < 2 * MS));
    }

    /// What an overload has taught goes within three minutes also where ten requests a second are made: silence is measured
    /// by it (HA 4.4).
    #[test]
    fn the_past_fades_in_time_for_who_asks_seldom() {
        let histogram = Histogram::default();
        let now = take(&histogram, 4_000, 1_000 * MS, Moment(1), 2);
        assert!(histogram.p99_ns().is_some_and(|p99| p99 > 1_000 * MS));
        take(&histogram, 1_800, 40 * MS, now, 100);
        assert!(histogram.p99_ns().is_some_and(|p99| p99 < 80 * MS), "{:?}", histogram.p99_ns());
    }

    /// One in fifty is slow: the percentile says so after any number of fades.
    #[test]
    fn what_is_seldom_does_not_fade_away_while_it_goes_on() {
        let histogram = Histogram::default();
        for turn in 0..20_000_u64 {
            let ns = if turn.is_multiple_of(50) { 50 * MS } else { MS };
            histogram.record(ns, Moment(1).after_ms(turn * 100));
            assert!(turn < 400 || histogram.p99_ns().is_some_and(|p99| p99 > 50 * MS), "turn {turn}");
        }
    }

    #[test]
    fn every_time_lies_below_the_end_of_its_bucket_and_not_below_a_fourth_of_it_less() {
        let mut ns = 1_u64;
        while ns < 60_000 * MS {
            let end = end_ns(bucket(ns));
            assert!(ns < end, "{ns} in a bucket that ends at {end}");
            assert!(ns < 1 << OCTAVE_MIN || end - ns <= ns / 4 + 1, "{ns}: {end}");
            ns += ns / 7 + 1;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
