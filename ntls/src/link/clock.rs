//! What the passing of time means for a link: requests past their deadline, a peer that is silent, a stall of our own (HA 5).
use std::time::Duration;

use spec::platform::Moment;
use spec::seam::{Event, Fault, Tag};

use crate::frame::{Frame, encode};
use crate::link::{DONE, Link};
use crate::links::Shared;
use crate::up::{News, Up};

impl Link {
    /// Ends requests past their deadline, looks at silence, and ends a link that has nothing more to do.
    pub(crate) fn tick(&self, shared: &Shared) {
        let bound = Duration::from_millis(shared.settings.load().receive_timeout_ms);
        let mut news = Vec::new();
        let (life, outcome, is_done) = {
            let mut state = self.state.lock();
            let Some(up) = state.up.as_mut() else { return };
            // Frames may have come along with the HelloReply.
            let outcome = up.take_frames(&mut news);
            let outcome = outcome.map(|()| up.tick(shared.platform.now(), bound, &mut news));
            self.count(up);
            (up.life, outcome, self.is_done(up))
        };
        self.tell(shared, &mut news);
        self.flush(shared);
        match outcome {
            Err(reason) => self.fail(shared, life, reason),
            Ok(Some(_)) if self.is_our_stall(shared, life) => {}
            Ok(Some(silent)) => {
                self.fail(shared, life, format!("no answer for {} ms (ReceiveTimeout)", silent.as_millis()));
            }
            Ok(None) if is_done => self.close(shared, DONE),
            Ok(None) => {}
        }
    }

    /// Whether an answer of the peer that seemed silent lies unread, because this process did not run (HA 5 (3)).
    fn is_our_stall(&self, shared: &Shared, life: u64) -> bool {
        let is_unread = shared.has_unread(self.stream());
        let mut state = self.state.lock();
        let up = state.up.as_mut().filter(|up| up.life == life);
        is_unread && up.is_some_and(|up| up.forgive(shared.platform.now()))
    }
}

impl Up {
    /// Ends requests past their deadline and looks at silence; answers for how long the peer has been silent when that is
    /// too long.
    fn tick(&mut self, now: Moment, bound: Duration, news: &mut Vec<News>) -> Option<Duration> {
        let mut late: Vec<Tag> = self
            .outstanding
            .iter()
            .filter(|(_, pending)| pending.deadline <= now)
            .map(|(tag, _)| *tag)
            .collect();
        // In the order of their submission.
        late.sort_unstable_by_key(|tag| tag.0);
        for tag in late {
            self.channel.queue(&[&encode(&Frame::Cancel(tag.0))]);
            // Its bytes are among those that will be written, so it may yet be executed.
            self.end(tag, || Event::Fault(tag, Fault::Unknown), news);
        }
        // Silence counts from the oldest outstanding request or the last byte, whichever is later; without requests from when
        // the socket took the last byte of what they have left behind.
        let oldest = self.outstanding.values().map(|pending| pending.since).min();
        let oldest = oldest.or(self.stuck.map(|(since, _)| since))?;
        let silent = now.since(oldest.max(self.heard));
        match self.pinged {
            None if silent.saturating_mul(2) >= bound => {
                self.pinged = Some(now);
                self.channel.queue(&[&encode(&Frame::Ping(now.0))]);
                None
            }
            // The peer was asked, and had its time to answer: the silence is not ours alone (HA 5 (3)).
            Some(asked) if silent >= bound && now.since(asked).saturating_mul(2) >= bound => Some(silent),
            _ => None,
        }
    }

    /// What lies in the socket was not read: the stall is ours (HA 5 (3)), and the peer has the time of one question more.
    /// Only once, for a peer may send what never makes a record. Whether it is forgiven.
    fn forgive(&mut self, now: Moment) -> bool {
        self.pinged = Some(now);
        !std::mem::replace(&mut self.forgiven, true)
    }
}
