//! The life of one call: submitted, waited for, sent again elsewhere (HA 4.1, 4.2, 4.5).
//!
//! ```text
//! chosen -> sent -> Reply -> answered | the member cannot (UNKNOWN, RECOVERING, ...) -> chosen anew
//!            |---> NotSent -> chosen anew, as often as the time allows
//!            |---> Busy    -> moved once, then waits with jitter
//!            |---> Unknown -> chosen anew, at most members + 1 sends that may have executed
//!            |---> silent  -> a probe; unanswered for 1 s -> the link is abandoned -> Unknown
//!            |---> FAILED  -> chosen anew, never the same member; failed by every member: that answer
//!            '---> ReceiveTimeout without reply or progress -> Unknown
//! nobody to choose -> waits up to OutageWaitMs -> Outage
//! ```
use std::sync::Arc;

use prost::Message;
use spec::Ouid;
use spec::calls::{self, Class};
use spec::messages::{Answer, Call, MakeKind, Outcome, ReplyBody, ReplyHeader, RequestBody};
use spec::platform::Moment;
use spec::seam::MemberId;

use crate::avoid::Avoided;
use crate::desk::{Body, Desk, End};
use crate::error::Error;
use crate::group::Group;
use crate::member::Member;
use crate::route::{Candidate, Choice, choose};
use crate::view::View;

/// Between two looks at who can be reached, in milliseconds.
const LOOK_AGAIN_MS: u64 = 20;
/// How long members that carry no manifest of the group are given before the call fails, in milliseconds.
const REFUSED_WAIT_MS: u64 = 1_000;
/// How long members that fail or do not answer are asked about an object that another member misses, in milliseconds
/// (at most `OutageWaitMs`).
const OPEN_MS_MAX: u64 = 2_000;
/// Between two such questions, in milliseconds.
const OPEN_AGAIN_MS: u64 = 200;
/// How long a process's first call waits for a majority of the members to appear, in milliseconds.
const SETTLE_MS: u64 = 200;

/// A call that succeeded.
pub struct Answered {
    /// Who answered.
    pub member: MemberId,
    /// The member's standing with the answer.
    pub header: ReplyHeader,
    /// The answer; of the kind of the call.
    pub answer: Answer,
}

/// The class of a call, by the table (HA 4.2).
pub(crate) fn class_of(call: &Call) -> Class {
    calls::call(call.number()).map_or(Class::Role, |row| row.class)
}

/// The token object that a call speaks of: a member that owes a write of it does not serve it (HA 2.5).
fn object_of(call: &Call) -> Option<Ouid> {
    let object = match call {
        Call::Plan(plan) => plan.key.as_ref(),
        Call::Use(one) => one.key.as_ref(),
        Call::Make(make) => make.source.as_ref(),
        Call::GetAttributes(get) => get.object.as_ref(),
        Call::SetAttributes(set) => set.object.as_ref(),
        Call::Destroy(destroy) => destroy.object.as_ref(),
        Call::Status(_)
        | Call::Login(_)
        | Call::SetPin(_)
        | Call::Random(_)
        | Call::Store(_)
        | Call::Commit(_)
        | Call::Discard(_)
        | Call::Find(_)
        | Call::ChangeManifest(_)
        | Call::Adopt(_)
        | Call::Compare(_)
        | Call::Export(_)
        | Call::Join(_)
        | Call::Lease(_) => None,
    };
    object.and_then(|object| Ouid::from_bytes(&object.ouid))
}

/// Whether the call makes new keys, which may take long.
fn generates(call: &Call) -> bool {
    matches!(call, Call::Make(make) if make.kind == MakeKind::GENERATE.0 || make.kind == MakeKind::GENERATE_PAIR.0)
}

impl Group {
    /// Runs a Read, Use or Make on one member, and on others when that one fails (HA 4.2). `ticket` may be empty.
    ///
    /// # Errors
    /// What the partition answered, or why nobody could be asked. `NeedBlob` and `PlanChanged` are for the caller to
    /// act upon and call again.
    pub fn any(&self, call: Call, ticket: &[u8]) -> Result<Answered, Error> {
        let deadline = if generates(&call) {
            self.platform.now().after_ms(self.settings().generate_ms_max)
        } else {
            self.deadline()
        };
        let (class, object) = (class_of(&call), object_of(&call));
        let mut desk = Desk::new(self);
        let view = self.ready(&mut desk, deadline)?;
        let body = Body::of(&view, ticket, call);
        drop(view);
        self.run(&mut desk, &body, Errand { class, object, deadline, newest_credentials: false })
    }

    /// When a call that begins now must have ended, unless it generates keys.
    pub(crate) fn deadline(&self) -> Moment {
        self.platform.now().after_ms(self.settings().call_ms_max)
    }

    /// When a write that begins now gives up waiting for acknowledgements: two silences and one outage later.
    pub(crate) fn write_deadline(&self) -> Moment {
        let ms = self
            .settings()
            .receive_timeout_ms
            .saturating_mul(2)
            .saturating_add(self.settings().outage_wait_ms);
        self.platform.now().after_ms(ms.min(self.settings().call_ms_max))
    }

    /// Sends a body to one member after the other until one answers or a rule ends it.
    pub(crate) fn run(&self, desk: &mut Desk<'_>, body: &Body, errand: Errand) -> Result<Answered, Error> {
        Attempts {
            group: self,
            errand,
            body: body.clone(),
            avoid: Avoided::default(),
            executed: 0,
            busy_moved: false,
            nobody_since: None,
            open_since: None,
            rebuilt: false,
        }
        .run(desk)
    }

    /// Waits until the manifest is known and, at the start of a process, until a majority of the members has been
    /// judged or 200 ms have passed.
    pub(crate) fn ready(
        &self,
        desk: &mut Desk<'_>,
        deadline: Moment,
    ) -> Result<arc_swap::Guard<Arc<View>>, Error> {
        let start = self.platform.now();
        loop {
            let view = self.view();
            if view.manifest.is_some() && self.is_settled() {
                return Ok(view);
            }
            self.look(desk, false);
            let view = self.view();
            let judged = view.seats.iter().filter(|seat| seat.member.is_readable(&*self.seam)).count();
            let now = self.platform.now();
            let late = now >= self.born.after_ms(SETTLE_MS);
            if view.manifest.is_some() && (judged > view.seats.len() / 2 || (late && judged > 0)) {
                self.settle();
                return Ok(view);
            }
            if let Some(refusal) = self.only_refused(&view).filter(|_| now >= start.after_ms(REFUSED_WAIT_MS))
            {
                return Err(Error::NoGroup(refusal));
            }
            self.outage(start, now, deadline)?;
            desk.pause(if late { LOOK_AGAIN_MS } else { 2 });
        }
    }

    /// The reason when members answer but none is of the group.
    fn only_refused(&self, view: &View) -> Option<String> {
        let mut refusals = view.seats.iter().filter_map(|seat| {
            let phase = seat.member.phase(&*self.seam)?;
            Some((phase == crate::member::Phase::Refused).then(|| seat.member.refusal()))
        });
        let first = refusals.next()??;
        refusals.all(|refusal| refusal.is_some()).then_some(first)
    }

    /// Ends a wait for members after `OutageWaitMs`, at the call's deadline or when the group is closed. The operator
    /// is told of an outage once.
    pub(crate) fn outage(&self, since: Moment, now: Moment, deadline: Moment) -> Result<(), Error> {
        self.ensure_open()?;
        if now >= since.after_ms(self.settings().outage_wait_ms) || now >= deadline {
            let waited_ms = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
            if self.tells_outage() {
                for member in self.status().members {
                    tracing::error!(member = %member.id, state = ?member.state, "no member can serve the call");
                }
            }
            return Err(Error::Outage { waited_ms });
        }
        Ok(())
    }

    /// The members of the read set.
    pub(crate) fn readable(&self, view: &View) -> impl Iterator<Item = MemberId> {
        let members = view.seats.iter().map(|seat| &seat.member);
        members.filter(|member| member.is_readable(&*self.seam)).map(|member| member.id)
    }

    /// Chooses a member of the read set that may serve the errand and is not to be avoided.
    fn choose(&self, view: &View, errand: &Errand, avoid: &Avoided) -> Choice {
        let now = self.platform.now();
        let seats = view.seats.iter().enumerate().filter(|(_, seat)| {
            let member = &seat.member;
            member.is_readable(&*self.seam)
                && !avoid.contains(member.id)
                && !errand.object.is_some_and(|object| member.owes(object))
        });
        let newest = if errand.newest_credentials {
            seats.clone().map(|(_, seat)| seat.member.credential_epoch()).max().unwrap_or(0)
        } else {
            0
        };
        let seats = seats.filter(|(_, seat)| seat.member.credential_epoch() >= newest);
        choose(
            self.settings().policy,
            self.next_turn(),
            seats.map(|(place, seat)| Candidate {
                place,
                role: seat.role,
                weight: seat.weight,
                preference: seat.preference,
                outstanding: seat.member.load.outstanding(),
                window: seat.member.load.window(),
                latency_ns: seat.member.load.latency_ns(now),
                resting: seat.member.load.is_resting(now),
                doubtful: seat.member.load.is_doubted(seat.member.id, &*self.seam),
                ramp_percent: seat.member.load.ramp_percent(now),
            }),
        )
    }
}

/// What the choice of members must know of a call.
#[derive(Clone, Copy)]
pub(crate) struct Errand {
    /// What may be done when an outcome is unknown.
    pub(crate) class: Class,
    /// The token object that it is about.
    pub(crate) object: Option<Ouid>,
    /// When it must have ended.
    pub(crate) deadline: Moment,
    /// Whether only members with the newest credentials may serve (RULES 2.5).
    pub(crate) newest_credentials: bool,
}

/// Why a member has not said whether it holds an object.
enum Silence {
    /// It asks for so many milliseconds of patience.
    Busy(u32),
    /// The request or its reply was lost.
    Lost,
    /// It answered this.
    Failed(Error),
}

/// The attempts of one call.
struct Attempts<'a> {
    group: &'a Group,
    errand: Errand,
    body: Body,
    avoid: Avoided,
    executed: usize,
    busy_moved: bool,
    nobody_since: Option<Moment>,
    open_since: Option<Moment>,
    rebuilt: bool,
}

impl Attempts<'_> {
    fn run(mut self, desk: &mut Desk<'_>) -> Result<Answered, Error> {
        loop {
            self.ended_by_close()?;
            if self.group.platform.now() >= self.errand.deadline {
                return Err(self.avoid.last().unwrap_or(Error::Deadline));
            }
            let view = self.group.view();
            match self.group.choose(&view, &self.errand, &self.avoid) {
                Choice::Take(place) => {
                    let member = view.seats[place].member.clone();
                    drop(view);
                    if let Some(answered) = self.send(desk, &member)? {
                        return Ok(answered);
                    }
                }
                Choice::Full => desk.pause(self.group.jitter_ms(4).max(1)),
                Choice::Nobody => self.nobody(desk)?,
            }
        }
    }

    /// Ends the call when the group is closed: a write that may have been executed has no known outcome.
    fn ended_by_close(&self) -> Result<(), Error> {
        self.group.ensure_open().map_err(|closed| match self.errand.class {
            Class::Store | Class::Change | Class::Destroy if self.executed > 0 => {
                Error::OutcomeUnknown("the library was finalized while the request was on its way".to_owned())
            }
            _ => closed,
        })
    }

    /// One send to its end; `None` when another attempt follows.
    fn send(&mut self, desk: &mut Desk<'_>, member: &Arc<Member>) -> Result<Option<Answered>, Error> {
        desk.send(member, &self.body, 0, self.executed, self.errand.deadline);
        let Some((_, _, end)) = desk.next(Moment::NEVER) else {
            self.executed += 1;
            desk.clear();
            return Ok(None);
        };
        match end {
            End::Reply(header, reply) => self.replied(desk, member, header, reply),
            End::Busy(ms) => {
                self.nobody_since = None;
                if std::mem::replace(&mut self.busy_moved, true) {
                    desk.pause(self.group.jitter_ms(u64::from(ms)).max(1));
                }
                Ok(None)
            }
            End::NotSent => {
                self.avoid.lost(member.id);
                Ok(None)
            }
            End::Unknown => {
                self.nobody_since = None;
                self.avoid.lost(member.id);
                self.count_executed()?;
                Ok(None)
            }
        }
    }

    /// Counts a send that may have executed: at most members + 1 of them, and only where the class allows another
    /// (HA 4.2).
    fn count_executed(&mut self) -> Result<(), Error> {
        self.executed += 1;
        let sends_max = match self.errand.class {
            Class::Read | Class::Use | Class::Make | Class::Store | Class::Change | Class::Destroy => {
                self.group.view().seats.len() + 1
            }
            // Login: one other member with the same tag.
            Class::Role => 2,
            Class::Local => 1,
        };
        if self.executed < sends_max {
            return Ok(());
        }
        let text = format!("the request was sent {} times and never answered", self.executed);
        Err(match self.errand.class {
            Class::Local | Class::Read | Class::Use | Class::Make => Error::Peer(text),
            Class::Store | Class::Change | Class::Destroy | Class::Role => Error::OutcomeUnknown(text),
        })
    }

    fn replied(
        &mut self,
        desk: &mut Desk<'_>,
        member: &Arc<Member>,
        header: ReplyHeader,
        reply: ReplyBody,
    ) -> Result<Option<Answered>, Error> {
        let outcome = Outcome(reply.outcome);
        let error = Error::of_reply(member.id, &reply);
        if member.is_rolled_back() && (error.is_some() || self.errand.class == Class::Role) {
            return self.disbelieve(member).map(|()| None);
        }
        let Some(error) = error else {
            return answered(member.id, header, reply).map(Some);
        };
        match outcome {
            Outcome::UNKNOWN | Outcome::BEHIND => self.ask_others(desk, member, error),
            Outcome::RECOVERING => {
                member.demote();
                self.avoid.unable(member.id, error);
                Ok(None)
            }
            Outcome::NO_PARTITION | Outcome::FAILED | Outcome::EXPIRED => {
                tracing::warn!(member = %member.id, "{error}: another member is asked");
                // A failed login may have spent a try: two members at most (HA 4.2).
                if outcome == Outcome::FAILED && self.errand.class == Class::Role {
                    self.count_executed().map_err(|_| error.clone())?;
                }
                self.avoid.failed(member.id, error);
                Ok(None)
            }
            Outcome::WRONG_GROUP => self.rebuild(desk, member, error),
            _ => Err(error),
        }
    }

    /// The reply shows that the member's store went back: its refusals and its logins are not believed (HA 1.5).
    fn disbelieve(&mut self, member: &Arc<Member>) -> Result<(), Error> {
        let text =
            format!("member {} went back to an older state and is not used until it is repaired", member.id);
        if self.errand.class == Class::Role {
            self.count_executed()?;
        }
        self.avoid.unable(member.id, Error::Peer(text));
        Ok(())
    }

    /// A member misses the object or is behind: all the others of the read set are asked in parallel, and only their
    /// agreement is final (HA 3.1). A member that gave no verdict and is still of the read set keeps the question
    /// open: it is put again for a while, and an object is never called gone without it.
    fn ask_others(
        &mut self,
        desk: &mut Desk<'_>,
        first: &Arc<Member>,
        error: Error,
    ) -> Result<Option<Answered>, Error> {
        let group = self.group;
        let others: Vec<Arc<Member>> = group
            .view()
            .seats
            .iter()
            .map(|seat| seat.member.clone())
            .filter(|member| member.id != first.id && member.is_readable(&*group.seam))
            .collect();
        for (place, member) in others.iter().enumerate() {
            desk.send(member, &self.body, place, self.executed, self.errand.deadline);
        }
        let mut verdict = error;
        let mut open: Vec<(Arc<Member>, Silence)> = Vec::new();
        while desk.is_waiting() {
            let Some((_, member, end)) = desk.next(self.errand.deadline) else {
                desk.clear();
                self.ended_by_close()?;
                return Err(Error::Deadline);
            };
            let (header, reply) = match end {
                End::Reply(header, reply) => (header, reply),
                End::Busy(ms) => {
                    open.push((member, Silence::Busy(ms)));
                    continue;
                }
                End::Unknown => {
                    self.executed += 1;
                    open.push((member, Silence::Lost));
                    continue;
                }
                End::NotSent => {
                    open.push((member, Silence::Lost));
                    continue;
                }
            };
            match (Outcome(reply.outcome), Error::of_reply(member.id, &reply)) {
                (_, None) => {
                    if let Some(object) = self.errand.object {
                        group.suspect(&[object]);
                    }
                    return answered(member.id, header, reply).map(Some);
                }
                (Outcome::DESTROYED, Some(gone)) => return Err(gone),
                (Outcome::UNKNOWN, Some(_)) => {}
                (Outcome::RECOVERING, Some(_)) => member.demote(),
                (Outcome::NO_PARTITION | Outcome::FAILED | Outcome::EXPIRED, Some(error)) => {
                    open.push((member, Silence::Failed(error)));
                }
                (_, Some(other)) => verdict = other,
            }
        }
        open.retain(|(member, _)| member.is_readable(&*group.seam));
        if open.is_empty() { Err(verdict) } else { self.put_again(desk, &open).map(|()| None) }
    }

    /// Members that can be reached have not had their say: waits before they are asked again, or ends the call.
    fn put_again(&mut self, desk: &mut Desk<'_>, open: &[(Arc<Member>, Silence)]) -> Result<(), Error> {
        let now = self.group.platform.now();
        let since = *self.open_since.get_or_insert(now);
        let busy_ms = open.iter().filter_map(|(_, silence)| match silence {
            Silence::Busy(ms) => Some(u64::from(*ms)),
            Silence::Lost | Silence::Failed(_) => None,
        });
        // A busy member is patiently waited for; one that fails is given less time.
        let (bound_ms, pause_ms) = match busy_ms.min() {
            Some(ms) => (self.group.settings().outage_wait_ms, ms),
            None => (OPEN_MS_MAX.min(self.group.settings().outage_wait_ms), OPEN_AGAIN_MS),
        };
        if now >= since.after_ms(bound_ms) {
            let (member, silence) = &open[0];
            let why = match silence {
                Silence::Busy(_) => "is busy".to_owned(),
                Silence::Lost => "did not answer".to_owned(),
                Silence::Failed(error) => format!("gave no verdict ({error})"),
            };
            return Err(Error::Peer(format!(
                "a member does not know the object, and member {} that may hold it {why}: repair or remove it",
                member.id
            )));
        }
        desk.pause(self.group.jitter_ms(pause_ms).max(1));
        Ok(())
    }

    /// The group has another generation than the one that the body names: nothing was executed, and the body is made
    /// once more for the group as it now is.
    fn rebuild(
        &mut self,
        desk: &mut Desk<'_>,
        member: &Arc<Member>,
        error: Error,
    ) -> Result<Option<Answered>, Error> {
        self.group.look(desk, true);
        let view = self.group.view();
        let current = Body::of(&view, &[], Call::Status(spec::messages::Status { mechanisms: false }));
        let same = |body: &Body| {
            RequestBody::decode(body.0.as_slice()).ok().map(|body| (body.group.clone(), body.generation))
        };
        if std::mem::replace(&mut self.rebuilt, true) || same(&current) == same(&self.body) {
            self.avoid.failed(member.id, error);
            return Ok(None);
        }
        let mut old = RequestBody::decode(self.body.0.as_slice())
            .map_err(|error| Error::Ourselves(format!("a body of our own cannot be read: {error}")))?;
        if let Some(call) = old.call.take() {
            self.body = Body::of(&view, &old.ticket, call);
        }
        Ok(None)
    }

    /// Nobody can be chosen: looks for members that can be admitted, and waits up to `OutageWaitMs`; not when every
    /// member that can be read has failed the request.
    fn nobody(&mut self, desk: &mut Desk<'_>) -> Result<(), Error> {
        let now = self.group.platform.now();
        let since = *self.nobody_since.get_or_insert(now);
        self.group.outage(since, now, self.errand.deadline).map_err(|outage| match outage {
            Error::Outage { .. } => self.avoid.last().unwrap_or(outage),
            closed => closed,
        })?;
        self.group.look(desk, false);
        let view = self.group.view();
        if view.seats.iter().any(|seat| seat.member.debts() > 0 && seat.member.is_writable(&*self.group.seam))
        {
            // The only members left may be those that owe the object.
            self.group.pay_now(self.errand.deadline);
        }
        let free = !matches!(self.group.choose(&view, &self.errand, &self.avoid), Choice::Nobody);
        if free {
            return Ok(());
        }
        if let Some(failure) = self.avoid.failed_by_all(self.group.readable(&view)) {
            return Err(failure);
        }
        desk.pause(LOOK_AGAIN_MS);
        self.avoid.forgive();
        Ok(())
    }
}

/// The answer of an OK reply.
pub(crate) fn answered(member: MemberId, header: ReplyHeader, reply: ReplyBody) -> Result<Answered, Error> {
    match reply.answer {
        Some(answer) => Ok(Answered { member, header, answer }),
        None => Err(Error::Peer(format!("member {member} answered OK without an answer"))),
    }
}
