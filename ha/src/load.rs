//! How busy, how fast and how trustworthy in time one member is: what the choice of a member looks at (HA 4.3 to 4.5).
//! Atomics only: every call reads it.
//!
//! ```text
//! heard --silent for longer than ever--> suspect --any byte heard, or unread on our side--> heard       (its link)
//! working --no reply of a class for longer than ever, while the link is heard--> stuck in that class
//! stuck --a reply of that class--> working        stuck for 1 s --> one request is let through as a trial --> stuck anew
//! ```
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use spec::platform::Moment;
use spec::seam::{MemberId, Seam, Standing};

use crate::cost::{COSTS, Cost};
use crate::histogram::Histogram;

/// Below this no member counts as silent (HA 4.4).
const SILENCE_MIN: Duration = Duration::from_millis(25);
/// A link of which no percentile is known is silent after this.
const SILENCE_UNKNOWN: Duration = Duration::from_millis(300);
/// Work of which no percentile is known is stuck after this: past one second it would send progress (HA 4.4).
const STUCK_UNKNOWN: Duration = Duration::from_millis(2_500);
/// So many times the 99th percentile is silence (HA 4.4).
const SILENCE_FACTOR: u64 = 8;
/// A hedge waits for this at least (HA 4.3): longer than a period of the kernel's clock, since a sleep that ends before its
/// next tick has the processor's timer set anew, for each call.
/// DEVIATION: docs/adr/0006-deviations.md, item 10: the rule says 1 ms.
const HEDGE_MIN_NS: u64 = 5_000_000;
/// Work that takes longer is not hedged (HA 4.3).
const HEDGE_MAX_NS: u64 = 50_000_000;
/// Between two trials of a member that is stuck.
const TRIAL: Duration = Duration::from_secs(1);
/// How long tools show that work was stuck which nobody has tried since.
const STUCK_SHOWN: Duration = Duration::from_secs(10);
/// How long a returning member's share grows (HA 4.5).
const RAMP_MS: u64 = 5_000;
/// What it begins with, in percent.
const RAMP_PERCENT: u64 = 10;

/// What is known of the work of one class. Every call of the class writes here: in as few cache lines as may be, and in none
/// that calls of other classes look at.
#[derive(Default)]
#[repr(C, align(128))]
struct Lane {
    /// When a request of the class was last answered.
    worked: AtomicU64,
    /// Since when it is stuck; 0 when it is not.
    stuck: AtomicU64,
    histogram: Histogram,
}

/// See the head of this file. What calls change all the time shares no cache line with what they only look at elsewhere.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Load {
    outstanding: AtomicU32,
    latency_ns: AtomicU64,
    sampled: AtomicU64,
    window: AtomicU32,
    rest_until: AtomicU64,
    /// When it was found silent last; 0 for never. Whatever is heard later ends the suspicion.
    suspected: AtomicU64,
    /// When the oldest probe was sent that nothing heard has followed; 0 for none.
    probed: AtomicU64,
    /// When it returned to the read set; 0 when it has been there from the start.
    returned: AtomicU64,
    lanes: [Lane; COSTS],
}

impl Load {
    /// A request leaves for the member.
    pub(crate) fn begin(&self) {
        self.outstanding.fetch_add(1, Ordering::AcqRel);
    }

    /// A request to the member has ended.
    pub(crate) fn end(&self) {
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }

    /// Requests of this process that the member has not answered.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Acquire)
    }

    /// How many requests it lets this process have outstanding; 0 when it has not said.
    pub(crate) fn window(&self) -> u32 {
        self.window.load(Ordering::Relaxed)
    }

    /// Takes the window of a reply.
    pub(crate) fn set_window(&self, window: u32) {
        if self.window.load(Ordering::Relaxed) != window {
            self.window.store(window, Ordering::Relaxed);
        }
    }

    /// A request of a class was answered: its latency counts.
    pub(crate) fn answered(&self, cost: Cost, now: Moment, sent: Moment) {
        self.took(cost, now, sent);
        let lane = &self.lanes[cost.place()];
        // Of two that end at once either moment serves; one that was held up does not take it back.
        if lane.worked.load(Ordering::Relaxed) < now.0 {
            lane.worked.store(now.0, Ordering::Release);
        }
        if lane.stuck.load(Ordering::Relaxed) != 0 {
            lane.stuck.store(0, Ordering::Release);
        }
    }

    /// A request of a class took so long at least: answered then, or no longer wanted.
    pub(crate) fn took(&self, cost: Cost, now: Moment, sent: Moment) {
        let took = now.ns_since(sent);
        self.lanes[cost.place()].histogram.record(took, now);
        let old = self.latency_ns.load(Ordering::Relaxed);
        let new = if old == 0 { took } else { old - old / 8 + took / 8 };
        self.latency_ns.store(new.max(1), Ordering::Relaxed);
        self.sampled.store(now.0, Ordering::Relaxed);
    }

    /// The moving average of the latency in nanoseconds, halved for each second without a sample, so that a member
    /// once slow is tried again.
    pub(crate) fn latency_ns(&self, now: Moment) -> u64 {
        let idle = now.ms_since(Moment(self.sampled.load(Ordering::Relaxed))) / 1_000;
        self.latency_ns.load(Ordering::Relaxed) >> idle.min(63)
    }

    /// What a request of the class is expected to take, in nanoseconds; 0 when nothing is known.
    pub(crate) fn expected_ns(&self, cost: Cost) -> u64 {
        self.lanes[cost.place()].histogram.mean_ns()
    }

    /// When a request of the class is slow enough for a hedge: after the 99th percentile, at least 5 ms; `None` without
    /// 100 samples and above 50 ms of expected work (HA 4.3).
    pub(crate) fn hedge_after(&self, cost: Cost) -> Option<Duration> {
        let histogram = &self.lanes[cost.place()].histogram;
        let p99 = histogram.p99_ns()?;
        (histogram.mean_ns() <= HEDGE_MAX_NS).then(|| Duration::from_nanos(p99.max(HEDGE_MIN_NS)))
    }

    /// How long the link must be silent while a request of the class is outstanding to be suspected: 8 times the 99th
    /// percentile, at least 25 ms (HA 4.4). And how long a request of the class may stay unanswered on a link that is heard
    /// before its work counts as stuck.
    pub(crate) fn bounds(&self, cost: Cost) -> (Duration, Duration) {
        match self.lanes[cost.place()].histogram.p99_ns() {
            Some(p99) => {
                let patience = Duration::from_nanos(p99.saturating_mul(SILENCE_FACTOR)).max(SILENCE_MIN);
                (patience, patience)
            }
            None => (SILENCE_UNKNOWN, STUCK_UNKNOWN),
        }
    }

    /// Whether enough is known of the class to tell what is slow.
    pub(crate) fn knows(&self, cost: Cost) -> bool {
        self.lanes[cost.place()].histogram.p99_ns().is_some()
    }

    /// When a request of the class was last answered.
    pub(crate) fn worked(&self, cost: Cost) -> Moment {
        Moment(self.lanes[cost.place()].worked.load(Ordering::Acquire))
    }

    /// The member's work of the class is stuck; whether that is news.
    pub(crate) fn set_stuck(&self, cost: Cost, now: Moment) -> bool {
        self.lanes[cost.place()].stuck.swap(now.0.max(1), Ordering::AcqRel) == 0
    }

    /// Whether the member's work of the class is stuck and no trial is due.
    pub(crate) fn is_stuck(&self, cost: Cost, now: Moment) -> bool {
        match self.lanes[cost.place()].stuck.load(Ordering::Acquire) {
            0 => false,
            since => now < Moment(since).after(TRIAL),
        }
    }

    /// A request of the class goes to the member: if it is stuck, that is the trial, and the next is due a second later.
    pub(crate) fn begin_trial(&self, cost: Cost, now: Moment) {
        let stuck = &self.lanes[cost.place()].stuck;
        if stuck.load(Ordering::Relaxed) != 0 {
            stuck.store(now.0.max(1), Ordering::Release);
        }
    }

    /// The member's link is silent since before this moment; whether that is news.
    pub(crate) fn set_suspect(&self, now: Moment, heard: Moment) -> bool {
        self.suspected.swap(now.0.max(1), Ordering::AcqRel) < heard.0.max(1)
    }

    /// Whether it was ever suspected on this link: cheap to ask before `is_suspect`.
    pub(crate) fn was_suspected(&self) -> bool {
        self.suspected.load(Ordering::Relaxed) != 0
    }

    /// Whether the member is suspected and nothing was heard since, nor lies unread on our side (HA 4.4, 5 (3)).
    pub(crate) fn is_suspect(&self, id: MemberId, seam: &dyn Seam, heard: Moment) -> bool {
        let suspected = self.suspected.load(Ordering::Acquire);
        suspected != 0 && heard.0 <= suspected && !seam.has_unread(id)
    }

    /// Whether a request of the class should rather go elsewhere: the member is suspected, or stuck in that class with no
    /// trial due.
    pub(crate) fn is_doubted(&self, id: MemberId, seam: &dyn Seam, cost: Cost, now: Moment) -> bool {
        match seam.standing(id) {
            Standing::Up { heard, .. } => self.is_suspect(id, seam, heard) || self.is_stuck(cost, now),
            Standing::Down { .. } => false,
        }
    }

    /// A member that is suspected, or was found stuck in any class within the last seconds, as tools show it.
    pub(crate) fn looks_doubtful(&self, id: MemberId, seam: &dyn Seam, now: Moment) -> bool {
        let lately = |stuck: u64| stuck != 0 && now < Moment(stuck).after(STUCK_SHOWN);
        match seam.standing(id) {
            Standing::Up { heard, .. } => {
                self.is_suspect(id, seam, heard)
                    || self.lanes.iter().any(|lane| lately(lane.stuck.load(Ordering::Acquire)))
            }
            Standing::Down { .. } => false,
        }
    }

    /// Whether a probe should be sent now: none is on its way that nothing heard has followed.
    pub(crate) fn begin_probe(&self, now: Moment, heard: Moment) -> bool {
        let probed = self.probed.load(Ordering::Acquire);
        let free = probed == 0 || heard.0 > probed;
        free && self
            .probed
            .compare_exchange(probed, now.0.max(1), Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// When the probe was sent that nothing heard has followed.
    pub(crate) fn unanswered_probe(&self, heard: Moment) -> Option<Moment> {
        let probed = self.probed.load(Ordering::Acquire);
        (probed != 0 && heard.0 <= probed).then_some(Moment(probed))
    }

    /// The member has another link: what was suspected of the old one says nothing about it.
    pub(crate) fn new_link(&self) {
        self.suspected.store(0, Ordering::Release);
        self.probed.store(0, Ordering::Release);
        self.lanes.iter().for_each(|lane| lane.stuck.store(0, Ordering::Release));
    }

    /// The member asked for patience (HA 4.5).
    pub(crate) fn rest(&self, until: Moment) {
        self.rest_until.fetch_max(until.0, Ordering::AcqRel);
    }

    /// Whether that patience is not over.
    pub(crate) fn is_resting(&self, now: Moment) -> bool {
        self.rest_until.load(Ordering::Acquire) > now.0
    }

    /// The member returns to the read set: its share grows from now on (HA 4.5).
    pub(crate) fn begin_ramp(&self, now: Moment) {
        self.returned.store(now.0.max(1), Ordering::Release);
    }

    /// How many requests of a hundred it may be given: from 10 to 100 in 5 s after its return (HA 4.5).
    pub(crate) fn ramp_percent(&self, now: Moment) -> u32 {
        let returned = self.returned.load(Ordering::Acquire);
        if returned == 0 {
            return 100;
        }
        let ms = u64::try_from(now.since(Moment(returned)).as_millis()).unwrap_or(u64::MAX);
        if ms >= RAMP_MS {
            self.returned.store(0, Ordering::Release);
            return 100;
        }
        u32::try_from(RAMP_PERCENT + (100 - RAMP_PERCENT) * ms / RAMP_MS).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn latency_fades_while_the_member_is_not_used() {
        let load = Load::default();
        let second = 1_000_000_000;
        load.answered(Cost::Short, Moment(8_000), Moment(0));
        assert_eq!(load.latency_ns(Moment(8_000)), 8_000);
        assert_eq!(load.latency_ns(Moment(8_000 + 3 * second)), 1_000);
        load.answered(Cost::Short, Moment(9_000), Moment(9_000));
        assert_eq!(load.latency_ns(Moment(9_000)), 7_000);
    }

    fn with_samples(ms: u64) -> Load {
        let load = Load::default();
        (0..100).for_each(|_| load.answered(Cost::Short, Moment(ms * MS), Moment(0)));
        load
    }

    #[test]
    fn silence_and_hedge_have_their_floors_and_classes_do_not_mix() {
        let load = with_samples(0);
        assert_eq!(load.bounds(Cost::Short).0, SILENCE_MIN);
        assert_eq!(load.hedge_after(Cost::Short), Some(Duration::from_millis(5)));
        assert_eq!(load.bounds(Cost::Private), (SILENCE_UNKNOWN, STUCK_UNKNOWN));
        assert_eq!(load.hedge_after(Cost::Private), None);
        let load = with_samples(10);
        assert!((80..=100).contains(&load.bounds(Cost::Short).0.as_millis()));
        assert_eq!(with_samples(60).hedge_after(Cost::Short), None, "more than 50 ms of expected work");
    }

    #[test]
    fn a_stuck_member_gets_one_trial_a_second() {
        let load = Load::default();
        assert!(load.set_stuck(Cost::Short, Moment(5 * MS)) && !load.set_stuck(Cost::Short, Moment(6 * MS)));
        assert!(
            load.is_stuck(Cost::Short, Moment(900 * MS)) && !load.is_stuck(Cost::Private, Moment(7 * MS))
        );
        let late = Moment(1_100 * MS);
        assert!(!load.is_stuck(Cost::Short, late));
        load.begin_trial(Cost::Short, late);
        assert!(load.is_stuck(Cost::Short, late));
        load.answered(Cost::Short, late, late);
        assert!(!load.is_stuck(Cost::Short, late));
        load.begin_trial(Cost::Short, late);
        assert!(!load.is_stuck(Cost::Short, late), "a trial of what works marks nothing");
    }

    #[test]
    fn one_probe_is_on_its_way_until_something_is_heard() {
        let load = Load::default();
        assert!(load.begin_probe(Moment(10), Moment(3)) && !load.begin_probe(Moment(11), Moment(3)));
        assert_eq!(load.unanswered_probe(Moment(3)), Some(Moment(10)));
        assert_eq!(load.unanswered_probe(Moment(12)), None);
        assert!(load.begin_probe(Moment(13), Moment(12)));
    }

    #[test]
    fn the_share_of_a_returning_member_grows_for_five_seconds() {
        let load = Load::default();
        assert_eq!(load.ramp_percent(Moment(0)), 100);
        load.begin_ramp(Moment(MS));
        assert_eq!(load.ramp_percent(Moment(MS)), 10);
        assert_eq!(load.ramp_percent(Moment(2_501 * MS)), 55);
        assert_eq!(load.ramp_percent(Moment(5_001 * MS)), 100);
        assert_eq!(load.ramp_percent(Moment(5_002 * MS)), 100);
    }
}
