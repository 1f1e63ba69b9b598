//! The clock of a link: when it is looked at again though nothing happens, and what it finds then.
//!
//! ```text
//! work runs           -> a look at its progress, again and again
//! nothing runs        -> the end of a silence that is too long
//! nothing runs, drain -> the end of the link
//! no room for a frame -> another look for some
//! ```
//! An alarm whose turn changes nothing would ring at once again: each of these does (a test walks through all of them).
use std::time::{Duration, Instant};

/// How often outstanding work is looked at for progress.
const TICK: Duration = Duration::from_millis(200);
/// How long a draining link still answers Busy before it closes.
const DRAIN: Duration = Duration::from_millis(300);
/// How often a link whose frame has no room looks for some.
const STARVED: Duration = Duration::from_millis(20);

/// The times of a link.
pub(crate) struct Clock {
    /// When something last came, or was last waited for.
    pub(crate) heard: Instant,
    /// When progress is looked at next.
    look: Instant,
    /// Since when no new requests are taken.
    draining: Option<Instant>,
    peer_closed: bool,
    /// Requests ran or waited when the last turn ended.
    worked: bool,
}

/// What a link has before it.
#[derive(Clone, Copy)]
pub(crate) struct Prospect {
    /// Requests run or wait on lanes.
    pub(crate) works: bool,
    /// The longest silence now.
    pub(crate) silence: Option<Duration>,
    /// What comes of a frame has no room.
    pub(crate) starved: bool,
}

impl Clock {
    pub(crate) fn new(now: Instant) -> Self {
        Self { heard: now, look: now, draining: None, peer_closed: false, worked: false }
    }

    /// The end of a turn: when the next one is due without news. A client that waits for its answer is not silent: its silence
    /// begins when there is nothing more to wait for.
    pub(crate) fn alarm(&mut self, now: Instant, before: Prospect) -> Option<Instant> {
        if before.works || self.worked {
            self.heard = now;
        }
        self.worked = before.works;
        let quiet = if before.works {
            Some(self.look)
        } else {
            let drained = self.draining.map(|since| since + DRAIN);
            before.silence.map(|limit| self.heard + limit).into_iter().chain(drained).min()
        };
        let starved = before.starved.then(|| now + STARVED);
        quiet.into_iter().chain(starved).min()
    }

    /// Whether progress is looked at now; if so, the next time is later.
    pub(crate) fn looks(&mut self, now: Instant) -> bool {
        let due = now >= self.look;
        if due {
            self.look = now + TICK;
        }
        due
    }

    /// The limit that a silence has reached, of a link with nothing to do.
    pub(crate) fn silent_for(&self, now: Instant, before: Prospect) -> Option<Duration> {
        before.silence.filter(|limit| !before.works && now.duration_since(self.heard) >= *limit)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// No new requests from now on. What drains already has no more time by this.
    pub(crate) fn drain(&mut self, now: Instant) {
        self.draining.get_or_insert(now);
    }

    /// The peer sends no more requests.
    pub(crate) fn close_by_peer(&mut self, now: Instant) {
        self.peer_closed = true;
        self.drain(now);
    }

    /// Whether a draining link has nothing left to do.
    pub(crate) fn is_done(&self, now: Instant, works: bool) -> bool {
        let over = |since| self.peer_closed || now.duration_since(since) >= DRAIN;
        !works && self.draining.is_some_and(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The turns of a link that nobody talks to until its end, at most so many; when work ends is said.
    fn turns(mut clock: Clock, begun: Instant, work_ends: Duration, mut before: Prospect) -> (u32, Duration) {
        let (mut now, mut turns, mut rings) = (begun, 0, false);
        loop {
            before.works = now < begun + work_ends;
            let is_silent = rings && clock.silent_for(now, before).is_some();
            clock.looks(now);
            if is_silent || clock.is_done(now, before.works) {
                return (turns, now - begun);
            }
            turns += 1;
            let finished = before.works.then(|| begun + work_ends);
            let alarm = clock.alarm(now, before);
            rings = finished.is_none() || alarm < finished;
            let next = alarm.into_iter().chain(finished).min();
            let Some(next) = next.filter(|_| turns < 10_000) else { return (turns, now - begun) };
            now = now.max(next);
        }
    }

    /// A client that says goodbye, keeps its connection and leaves slow work behind must not keep a processor busy.
    #[test]
    fn ha_4_5_no_alarm_rings_again_at_once() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        for case in 0..48_u32 {
            let begun = start + 10 * second;
            let mut clock = Clock::new(begun);
            match case % 3 {
                0 => {}
                1 => clock.drain(begun),
                _ => clock.close_by_peer(begun),
            }
            let work_ends = [Duration::ZERO, second * 3][case as usize / 3 % 2];
            let starved = case / 6 % 2 == 1;
            let silence = [None, Some(second), Some(second * 2), Some(second * 5)][case as usize / 12];
            let before = Prospect { works: false, silence, starved };
            let (turns, ended) = turns(clock, begun, work_ends, before);
            let most = if starved { 8_000 / 20 } else { 8_000 / 200 };
            let endless = case % 3 == 0 && silence.is_none();
            assert!(turns <= most + 5 || starved && endless, "{turns} turns in {ended:?}, case {case}");
            let wanted = match (case % 3, silence) {
                // Who waits for an answer is not silent.
                (0, Some(limit)) => Some(work_ends + limit),
                (0, None) => None,
                (1, limit) => Some(work_ends.max(limit.map_or(DRAIN, |limit| limit.min(DRAIN)))),
                _ => Some(work_ends),
            };
            assert!(wanted.is_none_or(|wanted| wanted == ended), "ended after {ended:?}, case {case}");
        }
    }
}
