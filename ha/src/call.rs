//! The life of one call: submitted, waited for, sent again elsewhere (HA 4.1, 4.2, 4.5).
//!
//! ```text
//! chosen -> sent -> Reply -> answered | the member cannot (UNKNOWN, RECOVERING, ...) -> chosen anew
//!            |---> NotSent -> chosen anew, as often as the time allows
//!            |---> Busy    -> moved once, then waits with jitter
//!            |---> Unknown -> chosen anew, at most members + 1 sends that may have executed
//!            |---> silent  -> a probe; unanswered for 1 s -> the link is abandoned -> Unknown
//!            '---> ReceiveTimeout without reply or progress -> Unknown
//! nobody to choose -> waits up to OutageWaitMs -> Outage
//! ```
use std::sync::Arc;

use prost::Message;
use spec::Ouid;
use spec::calls::{self, Class};
use spec::messages::{Answer, Call, Outcome, ReplyBody, ReplyHeader, RequestBody, RequestHeader};
use spec::platform::Moment;
use spec::seam::{Event, Fault, MemberId, Outgoing, Standing, Tag, Waiter};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::group::{Group, View};
use crate::member::Member;
use crate::route::{Candidate, Choice, choose};

/// A member that has said nothing for so long while it owes a reply is probed, in milliseconds.
const SILENCE_MS: u64 = 300;
/// A probe unanswered for so long gives the link up, in milliseconds.
pub(crate) const PROBE_MS: u64 = 1_000;
/// Between two looks at who can be reached, in milliseconds.
const LOOK_AGAIN_MS: u64 = 20;
/// How long members that carry no manifest of the group are given before the call fails, in milliseconds.
const REFUSED_WAIT_MS: u64 = 1_000;
/// How long a process's first call waits for a majority of the members to appear, in milliseconds.
const SETTLE_MS: u64 = 200;

/// An encoded request body, shared by all its sends (RULES 1.5).
#[derive(Clone)]
pub(crate) struct Body(pub(crate) Arc<Zeroizing<Vec<u8>>>);

impl Body {
    /// Encodes a call into a buffer of exactly its length, so that no copy of a secret is left behind by growth.
    pub(crate) fn encode(group: &[u8], generation: u64, ticket: &[u8], call: Call) -> Body {
        let body =
            RequestBody { group: group.to_vec(), generation, ticket: ticket.to_vec(), call: Some(call) };
        let mut bytes = Zeroizing::new(Vec::with_capacity(body.encoded_len()));
        body.encode(&mut *bytes).expect("a vector takes what is encoded");
        Body(Arc::new(bytes))
    }

    /// Encodes a call for the group as it is known.
    pub(crate) fn of(view: &View, ticket: &[u8], call: Call) -> Body {
        let generation = view.manifest.as_ref().map_or(0, |manifest| manifest.generation);
        Body::encode(&view.group(), generation, ticket, call)
    }
}

/// A call that succeeded.
pub struct Answered {
    /// Who answered.
    pub member: MemberId,
    /// The member's standing with the answer.
    pub header: ReplyHeader,
    /// The answer; of the kind of the call.
    pub answer: Answer,
}

/// How one send ended.
#[allow(clippy::large_enum_variant, reason = "moved once or twice; a box would allocate for every request")]
pub(crate) enum End {
    /// A reply that could be read.
    Reply(ReplyHeader, ReplyBody),
    /// Not executed; the member asks for so many milliseconds of patience.
    Busy(u32),
    /// No byte left.
    NotSent,
    /// It may have been executed.
    Unknown,
}

/// One request on its way.
struct Open {
    tag: Tag,
    member: Arc<Member>,
    place: usize,
    sent: Moment,
    quiet_since: Moment,
    patience: Moment,
    is_probe: bool,
}

/// The desk of one calling thread: its mailbox and its requests on their way. Dropping it cancels them.
pub(crate) struct Desk<'a> {
    group: &'a Group,
    waiter: Arc<Waiter>,
    open: Vec<Open>,
    trace: u64,
    attempts: u32,
}

impl<'a> Desk<'a> {
    /// A desk with nothing on it.
    pub(crate) fn new(group: &'a Group) -> Self {
        let waiter = Waiter::new(&group.platform);
        Self { group, waiter, open: Vec::new(), trace: group.number(), attempts: 0 }
    }

    /// Sends a body to a member; its end is told with `place`.
    pub(crate) fn send(&mut self, member: &Arc<Member>, body: &Body, place: usize, deadline: Moment) {
        let attempt = self.attempts;
        self.attempts = attempt.saturating_add(1);
        member.begin();
        self.submit(member, body, place, attempt, deadline, false);
    }

    fn submit(
        &mut self,
        member: &Arc<Member>,
        body: &Body,
        place: usize,
        attempt: u32,
        deadline: Moment,
        is_probe: bool,
    ) {
        let now = self.group.platform.now();
        let remaining_ms = u32::try_from(deadline.since(now).as_millis()).unwrap_or(u32::MAX);
        let header = RequestHeader {
            partition: member.id.0,
            attempt,
            remaining_ms,
            group_epoch: self.group.view().manifest.as_ref().map_or(0, |manifest| manifest.epoch),
            trace: self.trace,
            ..RequestHeader::default()
        };
        let request = Outgoing { header, body: body.0.clone() };
        let tag = self.group.seam.submit(&self.waiter, member.id, &request, deadline);
        let patience = if is_probe {
            now.after_ms(PROBE_MS)
        } else {
            deadline.min(now.after_ms(self.group.settings.receive_timeout_ms))
        };
        self.open.push(Open {
            tag,
            member: member.clone(),
            place,
            sent: now,
            quiet_since: now,
            patience,
            is_probe,
        });
    }

    /// Whether requests are on their way.
    pub(crate) fn is_waiting(&self) -> bool {
        self.open.iter().any(|open| !open.is_probe)
    }

    /// Gives up everything on its way.
    pub(crate) fn clear(&mut self) {
        for open in self.open.drain(..) {
            self.group.seam.cancel(open.member.id, open.tag);
            if open.is_probe { open.member.end_probe() } else { open.member.end() }
        }
    }

    /// The next request that ends, or `None` once the moment has come.
    pub(crate) fn next(&mut self, until: Moment) -> Option<(usize, Arc<Member>, End)> {
        loop {
            let wake = self.open.iter().map(|open| open.due()).fold(until, Moment::min);
            let (tag, end) = match self.waiter.wait(wake) {
                Event::Reply(tag, reply) => (tag, read_reply(reply.header, &reply.body)),
                Event::Busy(tag, ms) => (tag, End::Busy(ms)),
                Event::Fault(tag, Fault::NotSent) => (tag, End::NotSent),
                Event::Fault(tag, Fault::Unknown) => (tag, End::Unknown),
                Event::Progress(tag) => {
                    self.progress(tag);
                    continue;
                }
                Event::Woken => continue,
                Event::Deadline => match self.overdue() {
                    Some(ended) => return Some(ended),
                    None if self.group.platform.now() >= until => return None,
                    None => continue,
                },
            };
            if let Some(ended) = self.ended(tag, end) {
                return Some(ended);
            }
        }
    }

    /// Waits so many milliseconds; nothing may be on its way.
    pub(crate) fn pause(&mut self, ms: u64) {
        let until = self.group.platform.now().after_ms(ms);
        while self.group.platform.now() < until {
            self.waiter.wait(until);
        }
    }

    fn progress(&mut self, tag: Tag) {
        let now = self.group.platform.now();
        if let Some(open) = self.open.iter_mut().find(|open| open.tag == tag) {
            open.quiet_since = now;
            open.patience = now.after_ms(self.group.settings.receive_timeout_ms);
        }
    }

    /// Takes an ended request off the desk; `None` for a probe and for what is no longer there.
    fn ended(&mut self, tag: Tag, end: End) -> Option<(usize, Arc<Member>, End)> {
        let at = self.open.iter().position(|open| open.tag == tag)?;
        let open = self.open.swap_remove(at);
        if let End::Reply(header, _) = &end {
            open.member.note(header);
        }
        if open.is_probe {
            open.member.end_probe();
            return None;
        }
        let now = self.group.platform.now();
        open.member.end();
        match &end {
            End::Reply(..) => open.member.sample(now, open.sent),
            End::Busy(ms) => open.member.rest(now.after_ms(u64::from(*ms))),
            End::NotSent | End::Unknown => {}
        }
        Some((open.place, open.member, end))
    }

    /// Acts on everything whose moment has come: gives up a request, starts a probe, abandons a link whose probe
    /// was not answered.
    fn overdue(&mut self) -> Option<(usize, Arc<Member>, End)> {
        let now = self.group.platform.now();
        let seam = self.group.seam.clone();
        for at in 0..self.open.len() {
            let open = &mut self.open[at];
            if open.due() > now {
                continue;
            }
            let (tag, member) = (open.tag, open.member.clone());
            if open.is_probe {
                let heard =
                    matches!(seam.standing(member.id), Standing::Up { heard, .. } if heard > open.sent);
                seam.cancel(member.id, tag);
                self.ended(tag, End::Unknown);
                if !heard {
                    tracing::warn!(member = %member.id, "a probe was not answered for {PROBE_MS} ms: the link is given up");
                    seam.abandon(member.id, "a probe was not answered for one second");
                }
                return None;
            }
            if now >= open.patience {
                seam.cancel(member.id, tag);
                tracing::warn!(member = %member.id, "no reply within the receive timeout: the request moves on");
                return self.ended(tag, End::Unknown);
            }
            open.quiet_since = match seam.standing(member.id) {
                Standing::Up { heard, .. } if heard.after_ms(SILENCE_MS) > now => heard,
                _ => now,
            };
            if open.quiet_since == now && member.begin_probe() {
                let probe = self.group.probe.clone();
                self.submit(&member, &probe, 0, 0, now.after_ms(PROBE_MS), true);
                return None;
            }
        }
        None
    }
}

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Open {
    /// The next moment at which something must be done about it.
    fn due(&self) -> Moment {
        if self.is_probe { self.patience } else { self.patience.min(self.quiet_since.after_ms(SILENCE_MS)) }
    }
}

/// A reply that cannot be read counts as a failure of the member.
fn read_reply(header: ReplyHeader, body: &[u8]) -> End {
    let body = ReplyBody::decode(body).unwrap_or_else(|error| ReplyBody {
        outcome: Outcome::FAILED.0,
        text: format!("its reply cannot be read ({error}): is it of a later release?"),
        ..ReplyBody::default()
    });
    End::Reply(header, body)
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
        | Call::Join(_) => None,
    };
    object.and_then(|object| Ouid::from_bytes(&object.ouid))
}

impl Group {
    /// Runs a Read, Use or Make on one member, and on others when that one fails (HA 4.2). `ticket` may be empty.
    ///
    /// # Errors
    /// What the partition answered, or why nobody could be asked. `NeedBlob` and `PlanChanged` are for the caller to
    /// act upon and call again.
    pub fn any(&self, call: Call, ticket: &[u8]) -> Result<Answered, Error> {
        let deadline = self.deadline();
        let (class, object) = (class_of(&call), object_of(&call));
        let mut desk = Desk::new(self);
        let view = self.ready(&mut desk, deadline)?;
        let body = Body::of(&view, ticket, call);
        drop(view);
        self.run(&mut desk, &body, Errand { class, object, deadline, newest_credentials: false })
    }

    /// When a call that begins now must have ended.
    pub(crate) fn deadline(&self) -> Moment {
        self.platform.now().after_ms(self.settings.call_ms_max)
    }

    /// Sends a body to one member after the other until one answers or a rule ends it.
    pub(crate) fn run(&self, desk: &mut Desk<'_>, body: &Body, errand: Errand) -> Result<Answered, Error> {
        Attempts {
            group: self,
            errand,
            body: body.clone(),
            avoid: Vec::new(),
            executed: 0,
            busy_moved: false,
            nobody_since: None,
            last: None,
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

    /// Ends a wait for members after `OutageWaitMs` or at the call's deadline.
    pub(crate) fn outage(&self, since: Moment, now: Moment, deadline: Moment) -> Result<(), Error> {
        if now >= since.after_ms(self.settings.outage_wait_ms) || now >= deadline {
            let waited_ms = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
            for member in self.status().members {
                tracing::error!(member = %member.id, state = ?member.state, "no member can serve the call");
            }
            return Err(Error::Outage { waited_ms });
        }
        Ok(())
    }

    /// Chooses a member of the read set that may serve the errand and is not to be avoided.
    fn choose(&self, view: &View, errand: &Errand, avoid: &[MemberId]) -> Choice {
        let now = self.platform.now();
        let seats = view.seats.iter().enumerate().filter(|(_, seat)| {
            let member = &seat.member;
            member.is_readable(&*self.seam)
                && !avoid.contains(&member.id)
                && !errand.object.is_some_and(|object| member.owes(object))
        });
        let newest = if errand.newest_credentials {
            seats.clone().map(|(_, seat)| seat.member.credential_epoch()).max().unwrap_or(0)
        } else {
            0
        };
        choose(seats.filter(|(_, seat)| seat.member.credential_epoch() >= newest).map(|(place, seat)| {
            Candidate {
                place,
                role: seat.role,
                weight: seat.weight,
                outstanding: seat.member.outstanding(),
                window: seat.member.window(),
                latency_ns: seat.member.latency_ns(now),
                resting: seat.member.is_resting(now),
            }
        }))
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

/// The attempts of one call.
struct Attempts<'a> {
    group: &'a Group,
    errand: Errand,
    body: Body,
    avoid: Vec<MemberId>,
    executed: usize,
    busy_moved: bool,
    nobody_since: Option<Moment>,
    last: Option<Error>,
    rebuilt: bool,
}

impl Attempts<'_> {
    fn run(mut self, desk: &mut Desk<'_>) -> Result<Answered, Error> {
        loop {
            if self.group.platform.now() >= self.errand.deadline {
                return Err(self.last.unwrap_or(Error::Deadline));
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

    /// One send to its end; `None` when another attempt follows.
    fn send(&mut self, desk: &mut Desk<'_>, member: &Arc<Member>) -> Result<Option<Answered>, Error> {
        desk.send(member, &self.body, 0, self.errand.deadline);
        let Some((_, _, end)) = desk.next(Moment::NEVER) else { return Ok(None) };
        match end {
            End::Reply(header, reply) => self.replied(desk, member, header, reply),
            End::Busy(ms) => {
                if std::mem::replace(&mut self.busy_moved, true) {
                    desk.pause(self.group.jitter_ms(u64::from(ms)).max(1));
                }
                Ok(None)
            }
            End::NotSent => {
                self.avoid.push(member.id);
                Ok(None)
            }
            End::Unknown => {
                self.avoid.push(member.id);
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
        let Some(error) = Error::of_reply(member.id, &reply) else {
            return answered(member.id, header, reply).map(Some);
        };
        self.nobody_since = None;
        match outcome {
            Outcome::UNKNOWN | Outcome::BEHIND => self.ask_others(desk, member, error),
            Outcome::RECOVERING | Outcome::NO_PARTITION | Outcome::FAILED => {
                if outcome == Outcome::RECOVERING {
                    member.demote();
                }
                tracing::warn!(member = %member.id, "{error}: another member is asked");
                self.avoid.push(member.id);
                self.last = Some(error);
                Ok(None)
            }
            Outcome::EXPIRED => Ok(None),
            Outcome::WRONG_GROUP => self.rebuild(desk, member, error),
            _ => Err(error),
        }
    }

    /// A member misses the object or is behind: all the others of the read set are asked in parallel, and only their
    /// agreement is final (HA 3.1).
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
            desk.send(member, &self.body, place, self.errand.deadline);
        }
        let mut verdict = error;
        while desk.is_waiting() {
            let Some((_, member, end)) = desk.next(self.errand.deadline) else { break };
            let End::Reply(header, reply) = end else { continue };
            match (Outcome(reply.outcome), Error::of_reply(member.id, &reply)) {
                (_, None) => {
                    if let Some(object) = self.errand.object {
                        group.suspect(&[object]);
                    }
                    return answered(member.id, header, reply).map(Some);
                }
                (Outcome::DESTROYED, Some(gone)) => return Err(gone),
                (Outcome::UNKNOWN, Some(_)) => {}
                (
                    Outcome::RECOVERING | Outcome::NO_PARTITION | Outcome::FAILED | Outcome::EXPIRED,
                    Some(_),
                ) => {}
                (_, Some(other)) => verdict = other,
            }
        }
        Err(verdict)
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
            self.avoid.push(member.id);
            self.last = Some(error);
            return Ok(None);
        }
        let mut old = RequestBody::decode(self.body.0.as_slice())
            .map_err(|error| Error::Ourselves(format!("a body of our own cannot be read: {error}")))?;
        if let Some(call) = old.call.take() {
            self.body = Body::of(&view, &old.ticket, call);
        }
        Ok(None)
    }

    /// Nobody can be chosen: looks for members that can be admitted, and waits up to `OutageWaitMs`.
    fn nobody(&mut self, desk: &mut Desk<'_>) -> Result<(), Error> {
        let now = self.group.platform.now();
        let since = *self.nobody_since.get_or_insert(now);
        self.group.outage(since, now, self.errand.deadline).map_err(|outage| match self.last.take() {
            Some(error) => error,
            None => outage,
        })?;
        self.group.look(desk, false);
        let view = self.group.view();
        let free = !matches!(self.group.choose(&view, &self.errand, &self.avoid), Choice::Nobody);
        if free {
            return Ok(());
        }
        desk.pause(LOOK_AGAIN_MS);
        self.avoid.clear();
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
