//! The life of one call: submitted, waited for, sent again elsewhere (HA 4.1 to 4.5).
//!
//! ```text
//! chosen -> sent -> Reply -> answered | the member cannot (UNKNOWN, RECOVERING, ...) -> chosen anew
//!            |---> NotSent -> chosen anew, as often as the time allows
//!            |---> Busy    -> moved once, then waits with jitter, then stands in line
//!            |---> Unknown -> chosen anew, at most members + 1 sends that may have executed
//!            |---> slow    -> Read, Use: hedged within the budget; the first answer counts, the loser is cancelled
//!            |---> silent, stuck -> Read, Use: sent to a member heard within the last second as well; a probe decides
//!            |---> FAILED  -> chosen anew, never the same member; failed by every member: that answer
//!            |---> CKR_MECHANISM_INVALID -> chosen anew among those that may have the mechanism
//!            '---> ReceiveTimeout without reply or progress -> Unknown
//! nobody to choose -> waits up to OutageWaitMs -> Outage
//! ```
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spec::Rv;
use spec::calls::Class;
use spec::messages::{Outcome, ReplyHeader};
use spec::meter::Moved;
use spec::planted::{self, Bug};
use spec::platform::Moment;
use spec::record::MemberRole;
use spec::seam::{MemberId, Standing};

use crate::avoid::Avoided;
use crate::body::Body;
use crate::desk::{Desk, End, Heard};
use crate::errand::Errand;
use crate::error::Error;
use crate::group::Group;
use crate::line::InLine;
use crate::meaning::Meaning;
use crate::member::{Member, Seat};
use crate::ready::{Given, LOOK_AGAIN_MS, Without};
use crate::reply::Reply;
use crate::route::Choice;
use crate::view::View;

/// A request is moved only to a member heard from within so many milliseconds (HA 4.4).
pub(crate) const HEARD_MS: u64 = 1_000;
/// How long the first in line waits for room before it looks again, in milliseconds.
const FIRST_IN_LINE_MS: u64 = 4;
/// The same for those behind, who are woken when their turn comes.
const IN_LINE_MS: u64 = 100;
/// An answer may take so many times what answers take on average before it counts as late: under overload they differ much, and a
/// signature that comes too late is worth nothing (measured: docs/ha.md).
const LATE_FACTOR: f32 = 8.0;

/// The attempts of one call.
pub(crate) struct Attempts<'a> {
    pub(crate) group: &'a Group,
    /// The members as the call has just seen them, until it has waited.
    view: Option<&'a View>,
    pub(crate) errand: Errand,
    pub(crate) body: Cow<'a, Body>,
    pub(crate) avoid: Avoided,
    /// Sends that may have executed and have ended.
    pub(crate) executed: usize,
    /// Whom the last send went to that ended without a decision, and why the next one goes elsewhere.
    moved_from: Option<(MemberId, Moved)>,
    /// Members that do not offer the mechanism, by their own word.
    unable: Vec<Arc<Member>>,
    busy_moved: bool,
    in_line: Option<InLine<'a>>,
    /// How much time the call had left when it joined the line.
    left_at_joining: Duration,
    nobody_since: Option<Moment>,
    pub(crate) open_since: Option<Moment>,
    rebuilt: bool,
}

impl<'a> Attempts<'a> {
    /// Nothing is sent yet.
    pub(crate) fn new(group: &'a Group, body: &'a Body, errand: Errand, view: Option<&'a View>) -> Self {
        Self {
            group,
            view,
            errand,
            body: Cow::Borrowed(body),
            avoid: Avoided::default(),
            executed: 0,
            moved_from: None,
            unable: Vec::new(),
            busy_moved: false,
            in_line: None,
            left_at_joining: Duration::ZERO,
            nobody_since: None,
            open_since: None,
            rebuilt: false,
        }
    }

    /// Runs the call to its end.
    pub(crate) fn run(&mut self, desk: &mut Desk<'_>) -> Result<Given, Error> {
        loop {
            self.ended_by_close(desk)?;
            if desk.now() >= self.errand.deadline {
                self.executed += desk.flights();
                return Err(self.of_doubtful_end(self.avoid.last().unwrap_or(Error::Deadline)));
            }
            if desk.is_waiting() {
                if let Some(given) = self.wait(desk)? {
                    return Ok(given);
                }
                continue;
            }
            if self.stands_behind(desk) {
                self.view = None;
                continue;
            }
            let begun = self.view.take();
            let later = if begun.is_none() { Some(self.group.view()) } else { None };
            let view = begun.or(later.as_deref().map(|view| &**view)).expect("looked at before or just now");
            let passed_over = |id| self.avoid.contains(id);
            let without = Without { passed_over: &passed_over, sound_since: None };
            let now = desk.now();
            match self.group.choose(view, desk.settings().policy, &self.errand, &without, now) {
                Choice::Take(place) => {
                    let seat = &view.seats[place];
                    if seat.role == MemberRole::Standby && !self.group.standby_serves.load(Ordering::Relaxed)
                    {
                        self.group.watch_standby();
                    }
                    self.give_up_if_late(&seat.member)?;
                    self.in_line = None;
                    self.start(desk, view, &seat.member);
                }
                Choice::Full => self.wait_for_room(desk),
                Choice::Nobody => {
                    drop(later);
                    self.in_line = None;
                    self.nobody(desk)?;
                }
            }
        }
    }

    /// Ends the call when the group is closed: a write that may have been executed has no known outcome.
    pub(crate) fn ended_by_close(&self, desk: &Desk<'_>) -> Result<(), Error> {
        self.group.ensure_open().map_err(|closed| match self.errand.class {
            Class::Store | Class::Change | Class::Destroy if self.executed + desk.flights() > 0 => {
                Error::OutcomeUnknown("the library was finalized while the request was on its way".to_owned())
            }
            _ => closed,
        })
    }

    /// Waits for a turn when others stand in line (HA 4.5); whether it waited.
    fn stands_behind(&mut self, desk: &mut Desk<'_>) -> bool {
        let line = &self.group.line;
        if self.in_line.is_none() && line.is_occupied() {
            self.join_line(desk);
        }
        let behind = self.in_line.as_ref().is_some_and(|place| !place.is_first());
        if behind {
            desk.rest(self.group.platform.now().after_ms(IN_LINE_MS).min(self.errand.deadline));
        }
        behind
    }

    #[cold]
    fn join_line(&mut self, desk: &mut Desk<'_>) {
        let left = self.errand.deadline.since(self.group.platform.now());
        self.in_line = Some(self.group.line.join(&desk.waiter()));
        self.left_at_joining = left;
    }

    /// Ends a call that has stood in line for so long that the member's answer would come too late (HA 4.5): a member's
    /// time that is spent on it is lost to one behind. What is expected is a guess, so a call is never given up in the
    /// first half of its time, nor when the member has nothing else to do.
    fn give_up_if_late(&self, member: &Member) -> Result<(), Error> {
        if self.in_line.is_none() || member.load.outstanding() == 0 {
            return Ok(());
        }
        let expected = Duration::from_nanos(member.load.expected_ns(self.errand.cost)).mul_f32(LATE_FACTOR);
        let left = self.errand.deadline.since(self.group.platform.now());
        match left < expected.min(self.left_at_joining / 2) {
            true => Err(self.of_doubtful_end(Error::Deadline)),
            false => Ok(()),
        }
    }

    #[cold]
    fn wait_for_room(&mut self, desk: &mut Desk<'_>) {
        if self.in_line.is_none() {
            self.join_line(desk);
        }
        self.nobody_since = None;
        let ms = self.group.jitter_ms(FIRST_IN_LINE_MS).max(1);
        desk.rest(self.group.platform.now().after_ms(ms).min(self.errand.deadline));
    }

    /// The first send, or the next after all before it have ended.
    fn start(&mut self, desk: &mut Desk<'_>, view: &View, member: &Arc<Member>) {
        let (group, cost) = (self.group, self.errand.cost);
        let now = desk.now();
        member.load.begin_trial(cost, now);
        if let Some((from, why)) = self.moved_from.take() {
            desk.settings().meter.moved(from, member.id, self.body.call, why);
        }
        self.send(desk, member);
        if self.errand.may_be_doubled() {
            group.budget.earn(member.load.expected_ns(cost));
            if let Some(after) = member.load.hedge_after(cost) {
                desk.requests().for_each(|open| open.hedge_at = open.sent.after(after));
            }
        }
        group.look_after_suspects(desk, view, now);
    }

    fn send(&mut self, desk: &mut Desk<'_>, member: &Arc<Member>) {
        desk.send(member, &self.body, 0, self.executed + desk.flights(), self.errand.deadline);
    }

    fn wait(&mut self, desk: &mut Desk<'_>) -> Result<Option<Given>, Error> {
        match desk.hear(desk.next_hedge().min(self.errand.deadline)) {
            Some(Heard::Ended(_, member, end)) => {
                let given = self.ended(desk, &member, end);
                desk.take_member(member);
                given
            }
            Some(Heard::Look) => {
                self.evacuate(desk);
                Ok(None)
            }
            None => {
                self.hedge(desk);
                Ok(None)
            }
        }
    }

    /// Sends the request to a second member too when it is slower than it ever is, within the budget (HA 4.3).
    #[cold]
    fn hedge(&mut self, desk: &mut Desk<'_>) {
        let now = self.group.platform.now();
        let due = desk.requests().find(|open| open.hedge_at <= now);
        let Some(from) = due.map(|open| open.member.id) else { return };
        desk.requests().for_each(|open| open.hedge_at = Moment::NEVER);
        if desk.flights() > 1 || !self.may_send_more(desk) {
            return;
        }
        let Some(member) = self.another(desk, Moment(0)) else { return };
        let expected = member.load.expected_ns(self.errand.cost);
        if self.group.budget.take(expected) {
            desk.settings().meter.moved(from, member.id, self.body.call, Moved::Hedge);
            self.send(desk, &member);
        }
    }

    /// Sends requests of silent and stuck members to others too, but only to members heard from within the last second;
    /// when there are none the others are asked whether they are there (HA 4.4).
    #[cold]
    fn evacuate(&mut self, desk: &mut Desk<'_>) {
        if !self.errand.may_be_doubled() {
            return;
        }
        let now = self.group.platform.now();
        let lately = if planted::is(Bug::EvacuationToSilent) { now.0 } else { HEARD_MS * 1_000_000 };
        let heard_lately = Moment(now.0.saturating_sub(lately));
        let unmoved = |desk: &mut Desk<'_>| {
            let open = desk.requests().find(|open| open.wants_to_move());
            open.map(|open| open.member.id)
        };
        while let Some(from) = unmoved(desk) {
            if !self.may_send_more(desk) {
                return;
            }
            let Some(member) = self.another(desk, heard_lately) else {
                return self.group.call_for_others(desk, heard_lately);
            };
            desk.requests().filter(|open| open.member.id == from).for_each(|open| open.moved = true);
            desk.settings().meter.moved(from, member.id, self.body.call, Moved::Evacuation);
            self.send(desk, &member);
        }
    }

    /// A sound member that was heard since this moment and has not got this request, as the policy chooses.
    fn another(&self, desk: &Desk<'_>, heard_since: Moment) -> Option<Arc<Member>> {
        let view = self.group.view();
        let passed_over = |id| self.avoid.contains(id) || desk.is_asking(id);
        let without = Without { passed_over: &passed_over, sound_since: Some(heard_since) };
        match self.group.choose(
            &view,
            desk.settings().policy,
            &self.errand,
            &without,
            self.group.platform.now(),
        ) {
            Choice::Take(place) => Some(view.seats[place].member.clone()),
            Choice::Full | Choice::Nobody => None,
        }
    }

    /// At most members + 1 sends may have executed, and only where the class allows more than one (HA 4.2).
    fn sends_max(&self) -> usize {
        match self.errand.class {
            Class::Read | Class::Use | Class::Make | Class::Store | Class::Change | Class::Destroy => {
                self.group.view().seats.len() + 1
            }
            // Login: one other member with the same tag.
            Class::Role => 2,
            Class::Local => 1,
        }
    }

    fn may_send_more(&self, desk: &Desk<'_>) -> bool {
        self.executed + desk.flights() < self.sends_max()
    }

    fn ended(&mut self, desk: &mut Desk<'_>, member: &Arc<Member>, end: End) -> Result<Option<Given>, Error> {
        match end {
            End::Reply(header, reply) => self.replied(desk, member, header, reply),
            End::Busy(ms) => {
                self.busy(desk, member, ms);
                Ok(None)
            }
            End::NotSent => {
                self.lost(member);
                Ok(None)
            }
            End::Unknown => {
                self.nobody_since = None;
                self.lost(member);
                self.count_executed(desk).map(|()| None)
            }
        }
    }

    /// The member wants patience: another one is asked at once the first time, and after a while from then on (HA 4.5).
    #[cold]
    fn busy(&mut self, desk: &mut Desk<'_>, member: &Arc<Member>, ms: u32) {
        self.nobody_since = None;
        self.moved_from = Some((member.id, Moved::Busy));
        let moved = std::mem::replace(&mut self.busy_moved, true);
        if moved && !desk.is_waiting() && !planted::is(Bug::BusyWithoutBound) {
            desk.pause(self.group.jitter_ms(u64::from(ms)).max(1));
        }
    }

    #[cold]
    fn lost(&mut self, member: &Arc<Member>) {
        self.moved_from = Some((member.id, Moved::Failover));
        self.avoid.lost(member.id);
    }

    /// Counts a send that may have executed; ends the call with the last one that the class allows (HA 4.2).
    #[cold]
    pub(crate) fn count_executed(&mut self, desk: &Desk<'_>) -> Result<(), Error> {
        self.executed += 1;
        if desk.is_waiting() || self.executed < self.sends_max() {
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
        reply: Box<Reply>,
    ) -> Result<Option<Given>, Error> {
        let error = Error::of_reply(member.id, &reply);
        if member.is_rolled_back() && (error.is_some() || self.errand.class == Class::Role) {
            return self.disbelieve(desk, member).map(|()| None);
        }
        let Some(error) = error else {
            self.learn_abilities();
            return Ok(Some(Given { member: member.id, header, reply }));
        };
        self.refused(desk, member, Outcome(reply.outcome), error)
    }

    /// The member answered with an error: what it means decides who is asked next.
    #[cold]
    fn refused(
        &mut self,
        desk: &mut Desk<'_>,
        member: &Arc<Member>,
        outcome: Outcome,
        error: Error,
    ) -> Result<Option<Given>, Error> {
        self.moved_from = Some((member.id, Moved::Failover));
        match Meaning::of(outcome) {
            Meaning::Missing | Meaning::Behind => {
                self.executed += desk.flights();
                desk.clear();
                self.ask_others(desk, member, error)
            }
            Meaning::Recovering => {
                member.demote();
                self.avoid.unable(member.id, error);
                Ok(None)
            }
            meaning @ (Meaning::Failed | Meaning::Later) => {
                tracing::warn!(member = %member.id, "{error}: another member is asked");
                // A failed login may have spent a try: two members at most (HA 4.2).
                if meaning == Meaning::Failed && self.errand.class == Class::Role {
                    self.count_executed(desk).map_err(|_| error.clone())?;
                }
                self.avoid.failed(member.id, error);
                Ok(None)
            }
            Meaning::OtherGroup => self.rebuild(desk, member, error),
            Meaning::Decided if self.may_lie_elsewhere(member, &error) => {
                self.unable.push(member.clone());
                self.avoid.failed(member.id, error);
                Ok(None)
            }
            Meaning::Done | Meaning::Decided | Meaning::Destroyed => {
                // What the last member refuses too, nobody has.
                if error != Error::Rv(Rv::MECHANISM_INVALID) {
                    self.learn_abilities();
                }
                Err(error)
            }
        }
    }

    /// Whether another member may have the mechanism that this one refused: one that lists it, or has listed nothing.
    #[cold]
    fn may_lie_elsewhere(&self, member: &Member, error: &Error) -> bool {
        let lacks = *error == Error::Rv(Rv::MECHANISM_INVALID);
        let Some(mechanism) = self.errand.mechanism.filter(|_| lacks) else {
            return false;
        };
        let may = |other: &Member| {
            let lists = other.offers().is_none_or(|listed| listed.contains(&mechanism));
            lists && !other.refused_mechanisms().contains(&mechanism)
        };
        self.group.view().seats.iter().map(|seat| &seat.member).any(|other| {
            other.id != member.id
                && !self.avoid.contains(other.id)
                && other.is_readable(&*self.group.seam)
                && may(other)
        })
    }

    /// A member has the mechanism that others have refused: they are passed over from now on.
    fn learn_abilities(&mut self) {
        if let Some(mechanism) = self.errand.mechanism.filter(|_| !self.unable.is_empty()) {
            self.pass_over_the_unable(mechanism);
        }
    }

    #[cold]
    fn pass_over_the_unable(&mut self, mechanism: u64) {
        self.unable.drain(..).for_each(|member| member.has_refused(mechanism));
        self.group.compare_abilities();
    }

    /// The reply shows that the member's store went back: its refusals and its logins are not believed (HA 1.5).
    #[cold]
    fn disbelieve(&mut self, desk: &Desk<'_>, member: &Arc<Member>) -> Result<(), Error> {
        let text =
            format!("member {} is not the one that it was and is not used until it is repaired", member.id);
        if self.errand.class == Class::Role {
            self.count_executed(desk)?;
        }
        self.avoid.unable(member.id, Error::Peer(text));
        Ok(())
    }

    /// The group has another generation than the one that the body names: nothing was executed, and the body is made
    /// once more for the group as it now is.
    #[cold]
    fn rebuild(
        &mut self,
        desk: &mut Desk<'_>,
        member: &Arc<Member>,
        error: Error,
    ) -> Result<Option<Given>, Error> {
        if desk.is_waiting() {
            self.avoid.failed(member.id, error);
            return Ok(None);
        }
        self.group.look(desk, true);
        let view = self.group.view();
        let mut old = self.body.read()?;
        let same = old.group == view.group() && old.generation == view.generation();
        if std::mem::replace(&mut self.rebuilt, true) || same {
            self.avoid.failed(member.id, error);
            return Ok(None);
        }
        if let Some(call) = old.call.take() {
            self.body = Cow::Owned(Body::of(&view, &old.ticket, call));
        }
        Ok(None)
    }

    /// Nobody can be chosen: looks for members that can be admitted, and waits up to `OutageWaitMs`; not when every
    /// member that can be read has failed the request.
    #[cold]
    fn nobody(&mut self, desk: &mut Desk<'_>) -> Result<(), Error> {
        let group = self.group;
        let now = group.platform.now();
        let since = *self.nobody_since.get_or_insert(now);
        group.outage(since, now, self.errand.deadline).map_err(|outage| match outage {
            Error::Outage { .. } => self.avoid.last().unwrap_or(outage),
            closed => closed,
        })?;
        group.look(desk, false);
        let view = group.view();
        if view.seats.iter().any(|seat| seat.member.debts() > 0 && seat.member.is_writable(&*group.seam)) {
            // The only members left may be those that owe the object.
            group.pay_now(self.errand.deadline);
            desk.refresh();
        }
        let passed_over = |id| self.avoid.contains(id);
        let without = Without { passed_over: &passed_over, sound_since: None };
        if !matches!(
            group.choose(&view, desk.settings().policy, &self.errand, &without, group.platform.now()),
            Choice::Nobody
        ) {
            return Ok(());
        }
        if let Some(failure) = self.avoid.failed_by_all(group.readable(&view)) {
            return Err(failure);
        }
        drop(view);
        desk.pause(LOOK_AGAIN_MS);
        self.avoid.forgive();
        Ok(())
    }
}

impl Group {
    /// Asks all members of the read set that this desk is not asking whether they are there; those that were heard since the
    /// moment are.
    pub(crate) fn call_for_others(&self, desk: &mut Desk<'_>, since: Moment) {
        let was_heard = |member: &Member| matches!(self.seam.standing(member.id), Standing::Up { heard, .. } if heard > since);
        for Seat { member, .. } in &self.view().seats {
            if !desk.is_asking(member.id) && member.is_readable(&*self.seam) && !was_heard(member) {
                desk.probe(member);
            }
        }
    }

    /// Members that were suspected by calls that have ended and have not been heard since: a probe decides about them too
    /// (HA 4.4). What is stuck on a link that is heard is left to trials: a probe would say nothing about it.
    fn look_after_suspects(&self, desk: &mut Desk<'_>, view: &View, now: Moment) {
        for Seat { member, .. } in view.seats.iter().filter(|seat| seat.member.load.was_suspected()) {
            let Standing::Up { heard, .. } = self.seam.standing(member.id) else { continue };
            if member.load.is_suspect(member.id, &*self.seam, heard) {
                self.judge_probe(member, now);
                desk.probe(member);
            }
        }
    }
}
