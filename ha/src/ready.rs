//! Before a call is sent: deadlines, who can be read, and waiting for members while none can (DESIGN 2, HA 4.6).
use std::cell::Cell;
use std::sync::Arc;

use arc_swap::Guard;
use spec::messages::{Answer, Call, ReplyHeader, UseParts};
use spec::meter::News;
use spec::platform::Moment;
use spec::seam::{MemberId, Standing};

use crate::attempts::Attempts;
use crate::body::{Body, SentUse};
use crate::desk::Desk;
use crate::errand::{Errand, generates};
use crate::error::Error;
use crate::group::Group;
use crate::member::{Member, Phase, Seat};
use crate::output::Used;
use crate::reply::Reply;
use crate::route::{Candidate, Choice, Policy, choose};
use crate::view::View;

/// Between two looks at who can be reached, in milliseconds.
pub(crate) const LOOK_AGAIN_MS: u64 = 20;
/// How long members that carry no manifest of the group are given before the call fails, in milliseconds.
const REFUSED_WAIT_MS: u64 = 1_000;
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

/// An OK reply, where it was read.
pub(crate) struct Given {
    pub(crate) member: MemberId,
    pub(crate) header: ReplyHeader,
    pub(crate) reply: Box<Reply>,
}

/// Which members a choice leaves out besides those that cannot serve.
pub(crate) struct Without<'a> {
    /// Members that are passed over.
    pub(crate) passed_over: &'a dyn Fn(MemberId) -> bool,
    /// When given, only members that are not doubted and were heard since then are taken (HA 4.3, 4.4).
    pub(crate) sound_since: Option<Moment>,
}

impl Group {
    /// Runs a Read, Use or Make on one member, and on others when that one fails (HA 4.2). `ticket` may be empty.
    ///
    /// # Errors
    /// What the partition answered, or why nobody could be asked. `NeedBlob` and `PlanChanged` are for the caller to
    /// act upon and call again.
    pub fn any(&self, call: Call, ticket: &[u8]) -> Result<Answered, Error> {
        let deadline = self.deadline_of(&call);
        self.any_until(call, ticket, deadline)
    }

    /// As [`Group::any`], for a call that must have ended at this moment.
    pub(crate) fn any_until(&self, call: Call, ticket: &[u8], deadline: Moment) -> Result<Answered, Error> {
        let errand = Errand::of(&call, deadline);
        let mut desk = Desk::until(self, deadline);
        let view = self.ready(&mut desk, deadline)?;
        let body = Body::of(&view, ticket, call);
        self.run(&mut desk, &body, errand, Some(&view))?.answered()
    }

    /// As [`Group::any`], for a use in borrowed parts: encoded and answered without a copy but the one that travels
    /// (DESIGN 3).
    ///
    /// # Errors
    /// Those of [`Group::any`]. With an error after which the use is asked for once more, `sent` is what this one has been
    /// sent with: the next one is made of that (RULES 1.5).
    pub fn use_key(
        &self,
        parts: &UseParts<'_>,
        ticket: &[u8],
        sent: &mut Option<SentUse>,
    ) -> Result<Used, Error> {
        // One look at the group for the whole of a call that finds it in order.
        let begun = self.view();
        let mut desk = Desk::of_call(self, &begun);
        let errand = Errand::of_parts(parts, desk.end());
        let later = match self.is_ready(&mut desk, &begun, errand.deadline) {
            true => None,
            false => Some(self.wait_until_ready(&mut desk, errand.deadline)?),
        };
        let view = later.as_deref().unwrap_or(&begun);
        let body = Body::of_use(view, ticket, parts, errand.cost, desk.lend_body());
        let given = self.run(&mut desk, &body, errand, Some(view));
        if let Err(Error::NeedBlob(_) | Error::PlanChanged | Error::OnlyOlder) = given {
            *sent = Some(SentUse(body));
        } else {
            desk.take_body(body);
        }
        let Given { member, mut reply, .. } = given?;
        match reply.used.take() {
            Some(used) => {
                desk.take_reply(reply);
                Ok(used)
            }
            None => Err(Error::Peer(format!("member {member} answered a use with something else"))),
        }
    }

    /// Sends a body to one member after the other until one answers or a rule ends it; first to one of the view, if the call
    /// has just looked at one.
    pub(crate) fn run(
        &self,
        desk: &mut Desk<'_>,
        body: &Body,
        errand: Errand,
        view: Option<&View>,
    ) -> Result<Given, Error> {
        let given = Attempts::new(self, body, errand, view).run(desk);
        // The loser of a hedge or an evacuation is no longer wanted.
        desk.clear();
        self.take_newer_manifest(desk);
        given
    }

    /// When a call that begins now must have ended, unless it generates keys. A call has one deadline, however many
    /// requests it consists of (HA 4.2).
    pub(crate) fn deadline(&self) -> Moment {
        self.platform.now().after_ms(self.settings().call_ms_max)
    }

    /// When this call must have ended if it begins now.
    pub(crate) fn deadline_of(&self, call: &Call) -> Moment {
        match generates(call) {
            true => self.platform.now().after_ms(self.settings().generate_ms_max),
            false => self.deadline(),
        }
    }

    /// When a write that begins now gives up waiting for acknowledgements: two silences and one outage later, and not past
    /// the deadline of the call that it is part of.
    pub(crate) fn write_deadline(&self, deadline: Moment) -> Moment {
        let settings = self.settings();
        let ms = settings.receive_timeout_ms.saturating_mul(2).saturating_add(settings.outage_wait_ms);
        self.platform.now().after_ms(ms).min(deadline)
    }

    /// Waits until the manifest is known and, at the start of a process, until a majority of the members has been
    /// judged or 200 ms have passed.
    pub(crate) fn ready(&self, desk: &mut Desk<'_>, deadline: Moment) -> Result<Guard<Arc<View>>, Error> {
        let view = self.view();
        match self.is_ready(desk, &view, deadline) {
            true => Ok(view),
            false => self.wait_until_ready(desk, deadline),
        }
    }

    /// Whether this view, at which the call has just looked, can serve it.
    fn is_ready(&self, desk: &mut Desk<'_>, view: &View, deadline: Moment) -> bool {
        if !self.is_settled() {
            return false;
        }
        if self.tend_in_call(deadline) {
            // Time has passed, and others may be the members.
            desk.refresh();
            return false;
        }
        view.manifest.is_some()
    }

    #[cold]
    fn wait_until_ready(&self, desk: &mut Desk<'_>, deadline: Moment) -> Result<Guard<Arc<View>>, Error> {
        let mut start = None;
        loop {
            let view = self.view();
            if view.manifest.is_some() && self.is_settled() {
                return Ok(view);
            }
            let start = *start.get_or_insert_with(|| self.platform.now());
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
            Some((phase == Phase::Refused).then(|| seat.member.refusal()))
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
                self.settings().meter.news(&News::AllLost);
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

    /// Chooses a member of the read set that may serve the errand.
    pub(crate) fn choose(
        &self,
        view: &View,
        policy: Policy,
        errand: &Errand,
        without: &Without<'_>,
        now: Moment,
    ) -> Choice {
        let newest = if errand.newest_credentials { self.newest_credentials(view, without) } else { 0 };
        // All callers count together: not where nobody asks whose turn it is.
        let drawn = Cell::new(None);
        let turn = || {
            let turn = drawn.get().unwrap_or_else(|| self.next_turn());
            drawn.set(Some(turn));
            turn
        };
        let among = |able: bool| {
            let candidates = view.seats.iter().enumerate().filter_map(|(place, seat)| {
                let lacks = |mechanism| seat.member.lacks_mechanism(mechanism);
                let is_old = newest > 0 && seat.member.credential_epoch() < newest;
                let is_out = is_old || able && errand.mechanism.is_some_and(lacks);
                if is_out { None } else { self.candidate(place, seat, errand, without, now) }
            });
            choose(policy, turn, candidates)
        };
        match among(true) {
            // Where nobody can do it, a member's refusal is the answer: not beside a request that is under way.
            Choice::Nobody if without.sound_since.is_none() => among(false),
            choice => choice,
        }
    }

    fn newest_credentials(&self, view: &View, without: &Without<'_>) -> u64 {
        let members = view.seats.iter().map(|seat| &seat.member);
        let able = members.filter(|member| {
            member.is_readable(&*self.seam) || self.logs_in(member) && !(without.passed_over)(member.id)
        });
        able.map(|member| member.credential_epoch()).max().unwrap_or(0)
    }

    /// Whether a member that lacks objects, or was not compared yet, may serve logins: its credentials may be the newest
    /// ones, and tickets of older ones would be dead there (HA 2.7). Not one whose store went back (HA 1.5).
    fn logs_in(&self, member: &Member) -> bool {
        let restored = || member.report().is_none_or(|report| report.recovering);
        let phase = member.phase(&*self.seam);
        matches!(phase, Some(Phase::Recovering | Phase::Fresh)) && !member.is_rolled_back() && !restored()
    }

    fn candidate(
        &self,
        place: usize,
        seat: &Seat,
        errand: &Errand,
        without: &Without<'_>,
        now: Moment,
    ) -> Option<Candidate> {
        let (member, seam) = (&seat.member, &*self.seam);
        let Standing::Up { since, heard } = seam.standing(member.id) else { return None };
        match member.phase_on(since) {
            Phase::Admitted | Phase::Unverified => {}
            Phase::Recovering | Phase::Fresh if errand.newest_credentials && self.logs_in(member) => {}
            Phase::Fresh | Phase::Recovering | Phase::Refused => return None,
        }
        if (without.passed_over)(member.id) || errand.object.is_some_and(|object| member.owes(object)) {
            return None;
        }
        let load = &member.load;
        let doubtful = load.is_suspect(member.id, seam, heard) || load.is_stuck(errand.cost, now);
        if without.sound_since.is_some_and(|since| doubtful || heard < since) {
            return None;
        }
        Some(Candidate {
            place,
            role: seat.role,
            weight: seat.weight,
            preference: seat.preference,
            outstanding: load.outstanding(),
            window: load.window(),
            latency_ns: load.latency_ns(now),
            resting: load.is_resting(now),
            doubtful,
            ramp_percent: load.ramp_percent(now),
        })
    }
}

impl Given {
    /// The answer.
    pub(crate) fn answered(self) -> Result<Answered, Error> {
        let Given { member, header, reply } = self;
        match reply.into_answer() {
            Some(answer) => Ok(Answered { member, header, answer }),
            None => Err(Error::Peer(format!("member {member} answered OK without an answer"))),
        }
    }
}
