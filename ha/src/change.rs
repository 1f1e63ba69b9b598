//! Change and destroy (HA 2.3): one member decides, all members hold the result.
use std::slice;
use std::sync::Arc;

use prost::Message;
use spec::calls::Class;
use spec::messages::{
    Answer, Call, Destroy, Export, Join, ObjectRef, SealedRecord, SetAttributes, SetAttributesAnswer,
};
use spec::platform::Moment;
use spec::seam::MemberId;
use spec::{Ouid, Rv};

use crate::body::Body;
use crate::cost::Cost;
use crate::create::{acknowledged, holders};
use crate::desk::Desk;
use crate::errand::Errand;
use crate::error::Error;
use crate::group::Group;
use crate::member::Member;
use crate::ready::Given;
use crate::spread::{Goal, Settled};
use crate::verdict::OPEN_AGAIN_MS;

/// How long a destroy waits for members that do not hold the object to take its tombstone, each step in milliseconds.
const TOMBSTONE_MS: u64 = 1_000;

impl Group {
    /// Changes attributes (C_SetAttributeValue): one member changes the record, the others join it, until the
    /// minimum of copies holds it. A session object's new blob comes back and is stored nowhere. The tag is filled
    /// in here when it is empty.
    ///
    /// # Errors
    /// What the partition answered; `BelowMinimum` before anything was changed; `OutcomeUnknown` when the minimum
    /// did not acknowledge in time.
    pub fn change(&self, mut change: SetAttributes, ticket: &[u8]) -> Result<SetAttributesAnswer, Error> {
        if change.tag.is_empty() {
            change.tag = self.random_tag();
        }
        let deadline = self.deadline();
        let object = change.object.as_ref();
        let session = object.is_some_and(|object| !object.blob_hash.is_empty() || !object.blob.is_empty());
        let ouid = object.and_then(|object| Ouid::from_bytes(&object.ouid));
        if !session {
            self.ensure_minimum(deadline)?;
        }
        let mut desk = Desk::until(self, deadline);
        let view = arc_swap::Guard::into_inner(self.ready(&mut desk, deadline)?);
        let call = Call::SetAttributes(change);
        let class = if session { Class::Use } else { Class::Change };
        let errand = Errand { class, ..Errand::of(&call, deadline) };
        let body = Body::of(&view, ticket, call);
        let answered = match self.run(&mut desk, &body, errand, None).and_then(Given::answered) {
            // CKA_TRUSTED changes at the home member only (HA 1.3).
            Err(Error::Home(_)) => self.ask_member(&mut desk, &self.home(&view)?, &body, deadline)?,
            other => other?,
        };
        let Answer::SetAttributes(changed) = answered.answer else {
            return Err(Error::Peer(format!(
                "member {} answered a change with something else",
                answered.member
            )));
        };
        if let (false, true, Some(ouid)) = (session, self.settings().synchronize, ouid) {
            let records =
                self.changed_record(&view, answered.member, ouid, &changed.record, ticket, deadline)?;
            let join = Join { records, ..Join::default() };
            self.join_others(answered.member, &[ouid], join, ticket, deadline)?;
        }
        Ok(changed)
    }

    /// The changed record as it travels: the answer carries an encoded [`SealedRecord`]; a member that sent none is
    /// asked for it.
    fn changed_record(
        &self,
        view: &crate::view::View,
        writer: MemberId,
        ouid: Ouid,
        record: &[u8],
        ticket: &[u8],
        deadline: Moment,
    ) -> Result<Vec<SealedRecord>, Error> {
        match SealedRecord::decode(record) {
            Ok(record) if record.ouid == ouid.0 => return Ok(vec![record]),
            _ => {}
        }
        let unknown = |error: Error| {
            tracing::error!(member = %writer, "a change was made and could not be read back: {error}");
            Error::OutcomeUnknown("a change was made on one member and could not be read back".to_owned())
        };
        let member = view.member(writer).ok_or_else(|| unknown(Error::Deadline))?;
        let export = Export { ouids: vec![ouid.0.to_vec()], ..Export::default() };
        let body = Body::of(view, ticket, Call::Export(export));
        let mut desk = Desk::until(self, deadline);
        match self.ask_member(&mut desk, member, &body, deadline).map_err(unknown)?.answer {
            Answer::Export(exported) => Ok(exported.records),
            _ => Err(Error::Peer(format!("member {writer} answered Export with something else"))),
        }
    }

    /// Destroys a token object on every member (C_DestroyObject). Terminal, hence idempotent (HA 1.2).
    ///
    /// # Errors
    /// `Gone` when it was destroyed before or no member knows it; what the partition answered; `BelowMinimum` before
    /// anything was destroyed; `OutcomeUnknown` when the minimum did not acknowledge in time.
    pub fn destroy(&self, object: ObjectRef, ticket: &[u8]) -> Result<(), Error> {
        let ouid = Ouid::from_bytes(&object.ouid)
            .ok_or_else(|| Error::Ourselves("an ouid is not 16 bytes".to_owned()))?;
        let deadline = self.deadline();
        self.ensure_minimum(deadline)?;
        let view = arc_swap::Guard::into_inner(self.view());
        let bodies = [Body::of(&view, ticket, Call::Destroy(Destroy { object: Some(object) }))];
        if !self.settings().synchronize {
            return self.destroy_at_holder(&bodies[0], ouid, deadline);
        }
        let members: Vec<(Arc<Member>, usize)> =
            self.write_set(&view, MemberId(0)).into_iter().map(|member| (member, 0)).collect();
        let wanted = view.copies_wanted();
        let begun = self.platform.now();
        let goal = Goal {
            enough: wanted,
            deadline: self.write_deadline(deadline),
            lost_ms: self.settings().outage_wait_ms,
            sends_max: Some(view.seats.len() + 1),
        };
        loop {
            let settled = self.spread(&members, &bodies, &goal);
            let missed = self.missed_by(&settled, ouid);
            if missed.is_empty() {
                return self.destroyed(&view, ouid, settled, wanted, ticket, &bodies, deadline);
            }
            // Those that do not know the object do not decide that there is none (HA 3.1).
            let now = self.platform.now();
            if now >= begun.after_ms(self.settings().outage_wait_ms).min(goal.deadline) {
                return Err(self.undecided(&missed, now.since(begun)));
            }
            self.ensure_open()?;
            let mut desk = Desk::until(self, deadline);
            desk.pause(self.jitter_ms(OPEN_AGAIN_MS).max(1));
            self.look(&mut desk, false);
        }
    }

    /// When nobody has an answer to a destroy but that it does not know the object: the members that may know it.
    fn missed_by(&self, settled: &[(Arc<Member>, Settled)], ouid: Ouid) -> Vec<Arc<Member>> {
        let unknowing = |settled: &Settled| match settled {
            Settled::Missing | Settled::Open { maybe: false } => true,
            Settled::Done { .. } | Settled::Refused(_) | Settled::Open { maybe: true } => false,
        };
        if !settled.iter().all(|(_, settled)| unknowing(settled)) {
            return Vec::new();
        }
        let missing = settled.iter().filter(|(_, settled)| matches!(settled, Settled::Missing));
        let missing: Vec<Arc<Member>> = missing.map(|(member, _)| member.clone()).collect();
        if missing.is_empty() {
            // Nobody at all answered.
            return Vec::new();
        }
        let without: Vec<Arc<Member>> = missing.into_iter().filter(|member| !member.owes(ouid)).collect();
        self.who_may_know(&without)
    }

    /// Judges what became of a destroy.
    #[allow(clippy::too_many_arguments, reason = "what one write consists of")]
    fn destroyed(
        &self,
        view: &crate::view::View,
        ouid: Ouid,
        settled: Vec<(Arc<Member>, Settled)>,
        wanted: usize,
        ticket: &[u8],
        bodies: &[Body],
        deadline: Moment,
    ) -> Result<(), Error> {
        let copies = acknowledged(&settled);
        let mut refusal = None;
        let (mut fresh, mut maybe) = (false, false);
        let mut missing = Vec::new();
        for (member, settled) in &settled {
            match settled {
                Settled::Done { destroyed } => fresh |= !destroyed,
                Settled::Open { maybe: open } => maybe |= open,
                Settled::Missing => missing.push(member.clone()),
                Settled::Refused(error) => refusal = Some(error.clone()),
            }
        }
        if copies == 0 {
            if refusal.is_none() && maybe {
                // One of them may hold the tombstone: the destroy must go on.
                self.owe_rest(view, &holders(&settled), &[ouid], bodies, false);
            }
            return Err(match refusal {
                Some(error) => error,
                None if maybe => self.destroy_unknown(0, wanted),
                None if missing.is_empty() => Error::BelowMinimum { wanted, reachable: 0 },
                None => Error::Gone(ouid.0.to_vec()),
            });
        }
        let holder = settled.iter().find(|(_, settled)| matches!(settled, Settled::Done { .. }));
        let spread = match holder {
            Some((holder, _)) if !missing.is_empty() => {
                let enough = wanted.saturating_sub(copies).clamp(1, missing.len());
                self.spread_tombstone(view, holder, &missing, ouid, (ticket, &bodies[0]), (enough, deadline))
            }
            _ => 0,
        };
        self.owe_rest(view, &holders(&settled), &[ouid], bodies, copies + spread >= wanted);
        if copies + spread < wanted {
            return Err(self.destroy_unknown(copies + spread, wanted));
        }
        if !fresh && !maybe {
            return Err(Error::Gone(ouid.0.to_vec()));
        }
        Ok(())
    }

    fn destroy_unknown(&self, copies: usize, wanted: usize) -> Error {
        let what = format!("{copies} of {wanted} members acknowledged the destroy of an object in time");
        tracing::error!("outcome unknown: {what}; it goes on in the background");
        Error::OutcomeUnknown(what)
    }

    /// Members that do not hold the object get what a holder has of it, so that a late copy cannot bring it back, and are then
    /// asked to destroy it: the holder's store may have been put back to an image without the tombstone. How many hold the
    /// tombstone then. Without the right to move records they are left to repair.
    fn spread_tombstone(
        &self,
        view: &crate::view::View,
        holder: &Arc<Member>,
        missing: &[Arc<Member>],
        ouid: Ouid,
        (ticket, destroy): (&[u8], &Body),
        (enough, deadline): (usize, Moment),
    ) -> usize {
        self.suspect(&[ouid]);
        let export = Export { ouids: vec![ouid.0.to_vec()], ..Export::default() };
        let mut desk = Desk::until(self, deadline);
        let body = Body::of(view, ticket, Call::Export(export));
        let soon = || self.platform.now().after_ms(TOMBSTONE_MS).min(deadline);
        let Ok(answered) = self.ask_member(&mut desk, holder, &body, soon()) else { return 0 };
        let Answer::Export(exported) = answered.answer else { return 0 };
        let join = Join { records: exported.records, ..Join::default() };
        let join = Body::of(view, ticket, Call::Join(join));
        // One that refuses or is lost keeps none of the others from it.
        let mut members = missing.to_vec();
        for (body, sends_max) in [(&join, None), (destroy, Some(missing.len() + 1))] {
            let goal = Goal { enough: enough.min(members.len()), deadline: soon(), lost_ms: 0, sends_max };
            let each: Vec<(Arc<Member>, usize)> = members.into_iter().map(|member| (member, 0)).collect();
            let settled = self.spread(&each, slice::from_ref(body), &goal).into_iter();
            let done = settled.filter(|(_, settled)| matches!(settled, Settled::Done { .. }));
            members = done.map(|(member, _)| member).collect();
        }
        members.len()
    }

    /// Without replication an object lives on one member: the one that answers for it (HA 2.9).
    fn destroy_at_holder(&self, destroy: &Body, ouid: Ouid, deadline: Moment) -> Result<(), Error> {
        let errand = Errand {
            class: Class::Destroy,
            object: Some(ouid),
            mechanism: None,
            cost: Cost::Other,
            deadline,
            newest_credentials: false,
        };
        self.run(&mut Desk::until(self, deadline), destroy, errand, None).map(drop)
    }

    /// Joins what one member has written on the others, until the minimum of copies holds it.
    pub(crate) fn join_others(
        &self,
        writer: MemberId,
        ouids: &[Ouid],
        join: Join,
        ticket: &[u8],
        deadline: Moment,
    ) -> Result<(), Error> {
        if !self.settings().synchronize {
            return Ok(());
        }
        let view = arc_swap::Guard::into_inner(self.view());
        let wanted = view.copies_wanted().saturating_sub(1);
        let bodies = [Body::of(&view, ticket, Call::Join(join))];
        let others = self.write_set(&view, writer).into_iter().filter(|member| member.id != writer);
        let others: Vec<(Arc<Member>, usize)> = others.map(|member| (member, 0)).collect();
        let deadline = self.write_deadline(deadline);
        let goal =
            Goal { enough: wanted, deadline, lost_ms: self.settings().outage_wait_ms, sends_max: None };
        let settled = self.spread(&others, &bodies, &goal);
        if forbidden(&settled) {
            // Moving records needs a Crypto Officer's ticket (RULES 3.3), and this caller is the security officer.
            tracing::warn!(
                "the change is held by one member until a Crypto Officer's process repairs the others"
            );
            self.suspect(ouids);
            return Ok(());
        }
        let copies = acknowledged(&settled);
        let mut holders = holders(&settled);
        holders.push(writer);
        self.owe_rest(&view, &holders, ouids, &bodies, copies >= wanted);
        if copies < wanted {
            let what = format!("{} of {} members hold a change in time", copies + 1, wanted + 1);
            tracing::error!("outcome unknown: {what}; it goes on in the background");
            return Err(Error::OutcomeUnknown(what));
        }
        Ok(())
    }
}

/// Whether the members refuse to join because of who asks.
fn forbidden(settled: &[(Arc<Member>, Settled)]) -> bool {
    let refused = |settled: &Settled| matches!(settled, Settled::Refused(Error::Rv(Rv::USER_NOT_LOGGED_IN)));
    acknowledged(settled) == 0 && settled.iter().any(|(_, settled)| refused(settled))
}
