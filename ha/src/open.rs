//! One request on its way, and when it must be looked after (HA 4.3, 4.4).
//!
//! ```text
//! calm --nothing is known of how long it takes, and nothing heard--> Quiet (a probe, nothing more) --no answer--> Silent
//! calm --nothing heard from the member for longer than ever, nothing unread here--> Silent (its link)
//! calm --heard, but no work of this class answered since it was sent--> Stuck (its workers)
//! Silent, Stuck --progress--> calm
//! ```
use std::sync::Arc;
use std::time::Duration;

use spec::platform::Moment;
use spec::seam::{Seam, Standing, Tag};

use crate::cost::Cost;
use crate::member::Member;

/// Work that sends progress frames, one a second, is silent when they stay out (HA 4.4).
const PROGRESS: Duration = Duration::from_millis(2_500);
/// A probe to a member that is merely quiet is given so long.
const PROBED: Duration = Duration::from_millis(100);
/// The least time between two looks at one request.
const LOOK_MIN: Duration = Duration::from_millis(1);

/// Why a request is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// The member is quiet, and nothing is known of how long such work takes: it is asked whether it is there.
    Quiet,
    /// The member's link is silent.
    Silent,
    /// The member answers other things and not this kind of work.
    Stuck,
}

/// One request on its way.
pub(crate) struct Open {
    pub(crate) tag: Tag,
    pub(crate) member: Arc<Member>,
    /// The caller's word for it.
    pub(crate) place: usize,
    /// When the link that took it came up, if one was.
    pub(crate) link: Option<Moment>,
    /// The member's incarnation and seq known when it was sent: its reply cannot be older (HA 1.5).
    pub(crate) floor: (u64, u64),
    pub(crate) sent: Moment,
    /// When it was sent or last reported progress.
    pub(crate) alive: Moment,
    /// When it is given up.
    pub(crate) patience: Moment,
    pub(crate) deadline: Moment,
    pub(crate) is_probe: bool,
    pub(crate) call: u32,
    pub(crate) cost: Cost,
    /// How long the link may be silent, and how long the work may stay unanswered.
    pub(crate) silence: Duration,
    pub(crate) stuck_after: Duration,
    /// When to look again whether it is silent or stuck.
    pub(crate) look_at: Moment,
    /// When it is slow enough for a hedge; `NEVER` when it has had its chance.
    pub(crate) hedge_at: Moment,
    pub(crate) doubt: Option<Doubt>,
    /// Whether it was sent elsewhere because of the doubt.
    pub(crate) moved: bool,
}

impl Open {
    /// Whether it should be sent elsewhere too and has not been.
    pub(crate) fn wants_to_move(&self) -> bool {
        matches!(self.doubt, Some(Doubt::Silent | Doubt::Stuck)) && !self.moved
    }

    /// The next moment at which something must be done about it.
    pub(crate) fn due(&self) -> Moment {
        if self.is_probe { self.patience } else { self.patience.min(self.look_at) }
    }

    /// The member works on it.
    pub(crate) fn progress(&mut self, now: Moment, receive_timeout_ms: u64) {
        self.alive = now;
        self.doubt = None;
        self.silence = self.silence.max(PROGRESS);
        self.stuck_after = self.stuck_after.max(PROGRESS);
        self.look_at = now.after(PROGRESS);
        self.patience = self.deadline.min(now.after_ms(receive_timeout_ms));
    }

    /// Looks whether it is silent or stuck, and says when to look again; the doubt, if there is one.
    pub(crate) fn look(&mut self, seam: &dyn Seam, now: Moment) -> Option<Doubt> {
        self.doubt = None;
        let (since, doubt) = match seam.standing(self.member.id) {
            // Its end is on its way.
            Standing::Down { .. } => (now.after(self.silence), None),
            // It has spoken and we have not listened: our stall, not the member's (HA 5 (3)).
            Standing::Up { .. } if seam.has_unread(self.member.id) => (now.after(self.silence), None),
            Standing::Up { heard, .. } => self.judge(heard, now),
        };
        self.look_at = since.max(now.after(LOOK_MIN));
        self.doubt = doubt;
        doubt
    }

    fn judge(&self, heard: Moment, now: Moment) -> (Moment, Option<Doubt>) {
        let silent_at = heard.max(self.alive).after(self.silence);
        if now >= silent_at {
            let load = &self.member.load;
            let answers_late = load.unanswered_probe(heard).is_some_and(|probed| now >= probed.after(PROBED));
            return match load.knows(self.cost) || answers_late {
                true => (now.after(self.silence), Some(Doubt::Silent)),
                false => (now.after(PROBED), Some(Doubt::Quiet)),
            };
        }
        let worked = self.member.load.worked(self.cost);
        let stuck_at = worked.max(self.alive).after(self.stuck_after);
        if now >= stuck_at {
            return (now.after(self.stuck_after), Some(Doubt::Stuck));
        }
        (silent_at.min(stuck_at), None)
    }
}
