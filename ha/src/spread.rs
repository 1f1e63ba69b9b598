//! The same bytes to several members until enough of them have acknowledged (HA 2.1, 2.2, 4.2).
//!
//! ```text
//! each member:  step 0 -> step 1 -> ... -> Done          (Store, then Commit)
//!                 ^---- UNKNOWN at a later step: it does not hold the batch, the first step is sent again
//!               DESTROYED -> Done      UNKNOWN at step 0 -> Missing      any other refusal -> Refused
//!               Busy, NotSent, Unknown -> sent again while there is time
//! ```
use std::sync::Arc;

use spec::messages::{Outcome, ReplyBody};
use spec::platform::Moment;

use crate::body::Body;
use crate::desk::{Desk, End};
use crate::error::Error;
use crate::group::Group;
use crate::meaning::Meaning;
use crate::member::Member;

/// Once enough have acknowledged, the others are waited for so long, in milliseconds; what they have not
/// acknowledged then is their debt.
const GRACE_MS: u64 = 250;
/// Before the same bytes go to the same member again, in milliseconds.
const AGAIN_MS: u64 = 20;
/// A member that claims so often not to hold what it has just stored is given up.
const RESTARTS_MAX: u32 = 3;

/// When a spread ends.
pub(crate) struct Goal {
    /// So many acknowledgements suffice.
    pub(crate) enough: usize,
    /// It ends at this moment in any case.
    pub(crate) deadline: Moment,
    /// It ends when `enough` could not be reached by the reachable members for so many milliseconds.
    pub(crate) lost_ms: u64,
    /// At most so many sends that may have executed; `None` for Store, which may be repeated for ever (HA 4.2).
    pub(crate) sends_max: Option<usize>,
}

/// What became of one member.
pub(crate) enum Settled {
    /// It acknowledged every step, or holds the tombstone.
    Done {
        /// Whether it held the tombstone before this call sent anything to it.
        destroyed: bool,
    },
    /// It will not.
    Refused(Error),
    /// It does not hold the object (UNKNOWN at the first step).
    Missing,
    /// It has not answered.
    Open {
        /// Whether something may have been executed.
        maybe: bool,
    },
}

/// One member's part of a spread.
pub(crate) struct Part<'a> {
    /// The member.
    pub(crate) member: Arc<Member>,
    /// Where it begins.
    pub(crate) step: usize,
    /// What it gets, in order.
    pub(crate) bodies: &'a [Body],
}

struct Job<'a> {
    member: Arc<Member>,
    bodies: &'a [Body],
    step: usize,
    settled: Settled,
    on_way: bool,
    again_at: Moment,
    restarts: u32,
    /// Whether a send of this call may have been executed unheard.
    unsure: bool,
}

impl Job<'_> {
    fn is_open(&self) -> bool {
        matches!(self.settled, Settled::Open { .. })
    }

    fn is_done(&self) -> bool {
        matches!(self.settled, Settled::Done { .. })
    }
}

impl Group {
    /// Sends the bodies in order to each member, beginning with the step that it names, all members at once.
    pub(crate) fn spread(
        &self,
        members: &[(Arc<Member>, usize)],
        bodies: &[Body],
        goal: &Goal,
    ) -> Vec<(Arc<Member>, Settled)> {
        let part =
            |(member, step): &(Arc<Member>, usize)| Part { member: member.clone(), step: *step, bodies };
        self.spread_each(&members.iter().map(part).collect::<Vec<_>>(), goal)
    }

    /// The same with other bodies for each member; the answers are in the order of the parts.
    pub(crate) fn spread_each(&self, parts: &[Part<'_>], goal: &Goal) -> Vec<(Arc<Member>, Settled)> {
        let now = self.platform.now();
        let jobs = parts.iter().map(|part| Job {
            member: part.member.clone(),
            bodies: part.bodies,
            step: part.step,
            settled: Settled::Open { maybe: false },
            on_way: false,
            again_at: now,
            restarts: 0,
            unsure: false,
        });
        let mut spread = Spread { group: self, goal, jobs: jobs.collect(), unanswered: 0 };
        spread.run(&mut Desk::new(self));
        let settled = |job: Job<'_>| match job.settled {
            Settled::Open { maybe } => {
                (job.member, Settled::Open { maybe: maybe || job.on_way || job.unsure })
            }
            settled => (job.member, settled),
        };
        spread.jobs.into_iter().map(settled).collect()
    }
}

struct Spread<'a> {
    group: &'a Group,
    goal: &'a Goal,
    jobs: Vec<Job<'a>>,
    unanswered: usize,
}

impl Spread<'_> {
    fn run(&mut self, desk: &mut Desk<'_>) {
        let mut grace: Option<Moment> = None;
        let mut lost: Option<Moment> = None;
        while !self.group.is_closed() {
            let done = self.jobs.iter().filter(|job| job.is_done()).count();
            let open = self.jobs.iter().filter(|job| job.is_open()).count();
            // Without hope nothing more is sent; what is on its way is still waited for.
            let hopeless = done + open < self.goal.enough || self.is_refused(done);
            if !hopeless {
                self.send_due(desk);
            }
            let now = self.group.platform.now();
            if open == 0 || now >= self.goal.deadline {
                return;
            }
            let mut until = self.goal.deadline;
            if hopeless || done >= self.goal.enough {
                let end = *grace.get_or_insert(now.after_ms(GRACE_MS));
                let idle = if hopeless { !desk.is_waiting() } else { self.reachable_open() == 0 };
                if now >= end || idle {
                    return;
                }
                until = until.min(end);
            } else if done + self.reachable_open() < self.goal.enough {
                let end = lost.get_or_insert(now).after_ms(self.goal.lost_ms);
                if now >= end {
                    return;
                }
                until = until.min(end);
            } else {
                lost = None;
            }
            let waiting = self.jobs.iter().filter(|job| job.is_open() && !job.on_way);
            // A job whose moment has passed and that was not sent waits for its member to be reachable again.
            let again =
                waiting.map(|job| if job.again_at > now { job.again_at } else { now.after_ms(AGAIN_MS) });
            until = again.fold(until, Moment::min);
            if let Some((place, _, end)) = desk.next(until) {
                self.ended(place, end);
            }
        }
    }

    /// Whether every member that can be reached has refused: members that cannot be are not waited for.
    fn is_refused(&self, done: usize) -> bool {
        let refused = |job: &Job<'_>| matches!(job.settled, Settled::Refused(_) | Settled::Missing);
        done == 0 && self.jobs.iter().any(refused) && self.reachable_open() == 0
    }

    fn reachable_open(&self) -> usize {
        let group = self.group;
        self.jobs
            .iter()
            .filter(|job| job.is_open() && (job.on_way || job.member.is_writable(&*group.seam)))
            .count()
    }

    fn send_due(&mut self, desk: &mut Desk<'_>) {
        let now = self.group.platform.now();
        for (place, job) in self.jobs.iter_mut().enumerate() {
            let due = job.is_open() && !job.on_way && job.again_at <= now;
            let allowed = self.goal.sends_max.is_none_or(|max| self.unanswered < max);
            if due && allowed && job.member.is_writable(&*self.group.seam) {
                desk.send(
                    &job.member,
                    &job.bodies[job.step],
                    place,
                    usize::from(job.unsure),
                    self.goal.deadline,
                );
                job.on_way = true;
            }
        }
    }

    fn ended(&mut self, place: usize, end: End) {
        let now = self.group.platform.now();
        let again = now.after_ms(AGAIN_MS);
        let job = &mut self.jobs[place];
        job.on_way = false;
        match end {
            End::Busy(ms) => job.again_at = now.after_ms(self.group.jitter_ms(u64::from(ms)).max(1)),
            End::NotSent => job.again_at = again,
            End::Unknown => {
                job.unsure = true;
                job.again_at = again;
                self.unanswered += 1;
            }
            End::Reply(_, reply) => replied(job, &reply, again),
        }
    }
}

fn replied(job: &mut Job<'_>, reply: &ReplyBody, again: Moment) {
    let Some(error) = Error::of_reply(job.member.id, reply) else {
        job.step += 1;
        job.settled = match job.step == job.bodies.len() {
            true => Settled::Done { destroyed: false },
            false => Settled::Open { maybe: true },
        };
        return;
    };
    match Meaning::of(Outcome(reply.outcome)) {
        Meaning::Destroyed => job.settled = Settled::Done { destroyed: !job.unsure },
        Meaning::Missing if job.step == 0 => job.settled = Settled::Missing,
        Meaning::Missing if job.restarts < RESTARTS_MAX => {
            job.step = 0;
            job.restarts += 1;
        }
        Meaning::Later => job.again_at = again,
        // Another member's copy is its own affair: this one will not take the write.
        Meaning::Missing
        | Meaning::Done
        | Meaning::Decided
        | Meaning::Behind
        | Meaning::Failed
        | Meaning::Recovering
        | Meaning::OtherGroup => {
            tracing::warn!(member = %job.member.id, "{error}");
            job.settled = Settled::Refused(error);
        }
    }
}
