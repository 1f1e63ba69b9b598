//! Create = make, then store (HA 2.1, 2.2).
//!
//! ```text
//! minimum reachable? -- no --> BelowMinimum, nothing made
//!   | yes
//! Make on any member -> batch
//!   |
//! Store (provisional when more than one copy is wanted) on the write set
//!   |-- minimum not reached, no Commit sent --> Discard every copy; the call fails
//!   | minimum acknowledged
//! Commit: from the first one on only forward ---- minimum not acknowledged in time --> OutcomeUnknown, goes on as debt
//!   | minimum acknowledged
//! success; whoever has not acknowledged owes it (HA 2.5)
//! ```
use std::sync::Arc;
use std::time::Duration;

use spec::messages::{Answer, Call, Commit, Discard, Make, MakeAnswer, MakeKind, Store};
use spec::planted::{self, Bug};
use spec::platform::Moment;
use spec::record::MemberRole;
use spec::seam::MemberId;
use spec::{AttributeType, Ouid};

use crate::body::Body;
use crate::desk::Desk;
use crate::error::Error;
use crate::group::Group;
use crate::member::{Member, Phase, Seat};
use crate::spread::{Goal, Settled};
use crate::view::View;

/// How long a write waits for the minimum of members to be reachable before it fails, in milliseconds (at most
/// `OutageWaitMs`): a link that is just being set up again is no reason to fail.
const MINIMUM_WAIT_MS: u64 = 2_000;
/// How long the tombstones of a failed create are sent, in milliseconds.
const DISCARD_MS: u64 = 1_000;

impl Group {
    /// Makes objects (C_GenerateKey, C_GenerateKeyPair, C_CreateObject, C_CopyObject) and stores the token objects
    /// among them on the minimum of copies. Session objects come back as blobs and are stored nowhere. The tag of
    /// the `Make` is filled in here when it is empty.
    ///
    /// # Errors
    /// `BelowMinimum` before anything was made; `OutcomeUnknown` when the commit could not be finished in time;
    /// otherwise nothing was created.
    pub fn create(&self, mut make: Make, ticket: &[u8]) -> Result<MakeAnswer, Error> {
        if make.tag.is_empty() {
            make.tag = self.random_tag();
        }
        let tag = make.tag.clone();
        let stores = stores(&make);
        let make = Call::Make(make);
        let deadline = self.deadline_of(&make);
        if stores {
            self.ensure_minimum(deadline)?;
        }
        let answered = self.any_until(make, ticket, deadline)?;
        let Answer::Make(made) = answered.answer else {
            return Err(Error::Peer(format!(
                "member {} answered a Make with something else",
                answered.member
            )));
        };
        if !made.batch.is_empty() {
            self.store(&made, &tag, ticket, answered.member, deadline)?;
        }
        Ok(made)
    }

    /// 16 random bytes that name one write.
    pub(crate) fn random_tag(&self) -> Vec<u8> {
        let mut tag = vec![0; 16];
        self.platform.random(&mut tag);
        tag
    }

    /// Waits shortly until the minimum of members can be reached, or fails before anything is done (HA 2.2).
    pub(crate) fn ensure_minimum(&self, deadline: Moment) -> Result<(), Error> {
        let mut desk = Desk::until(self, deadline);
        drop(self.ready(&mut desk, deadline)?);
        let start = self.platform.now();
        let wait_ms = MINIMUM_WAIT_MS.min(self.settings().outage_wait_ms);
        loop {
            self.ensure_open()?;
            let view = self.view();
            let wanted = view.copies_wanted();
            let reachable = view.seats.iter().filter(|seat| seat.member.is_writable(&*self.seam)).count();
            if reachable >= wanted {
                // Before the view of the write is looked at: who is not in that view lacks the write (see `Member::set_late`).
                self.begin_to_write();
                return Ok(());
            }
            drop(view);
            if self.platform.now() >= start.after_ms(wait_ms).min(deadline) {
                let error = Error::BelowMinimum { wanted, reachable };
                tracing::error!("nothing is written: {error}");
                return Err(error);
            }
            desk.pause(20);
        }
    }

    /// The members that a write goes to: all that are not of another group, so that one whose link comes back in time
    /// gets it too (HA 2.4), or without replication the one that made it (HA 2.9).
    pub(crate) fn write_set(&self, view: &View, maker: MemberId) -> Vec<Arc<Member>> {
        let left_out = |seat: &&Seat| seat.role == MemberRole::Standby && planted::is(Bug::StandbyLeftOut);
        let seats = view.seats.iter().filter(|seat| !left_out(seat));
        let members = seats.map(|seat| seat.member.clone());
        members
            .filter(|member| {
                if self.settings().synchronize {
                    member.phase(&*self.seam) != Some(Phase::Refused)
                } else {
                    member.id == maker
                }
            })
            .collect()
    }

    /// Stores a batch on the write set and commits it.
    fn store(
        &self,
        made: &MakeAnswer,
        tag: &[u8],
        ticket: &[u8],
        maker: MemberId,
        deadline: Moment,
    ) -> Result<(), Error> {
        let view = arc_swap::Guard::into_inner(self.view());
        let wanted = view.copies_wanted();
        let provisional = wanted > 1;
        let store = Store { batch: made.batch.clone(), tag: tag.to_vec(), provisional };
        let token_ouids =
            || made.outputs.iter().filter(|output| output.token).map(|output| output.ouid.clone());
        let ouids: Vec<Ouid> = token_ouids().filter_map(|ouid| Ouid::from_bytes(&ouid)).collect();
        let mut bodies = vec![Body::of(&view, ticket, Call::Store(store))];
        if provisional {
            let commit = Commit { ouids: token_ouids().collect(), tag: tag.to_vec() };
            bodies.push(Body::of(&view, ticket, Call::Commit(commit)));
        }
        let deadline = self.write_deadline(deadline);
        let members: Vec<(Arc<Member>, usize)> =
            self.write_set(&view, maker).into_iter().map(|member| (member, 0)).collect();
        let goal = self.goal_of_store(provisional, wanted, deadline);
        let stored = self.spread(&members, &bodies[..1], &goal);
        let copies = acknowledged(&stored);
        if copies < wanted {
            return Err(self.not_stored(
                &view,
                stored,
                provisional,
                ticket,
                tag,
                token_ouids().collect(),
                wanted,
                deadline,
            ));
        }
        if !provisional {
            self.owe_rest(&view, &holders(&stored), &ouids, &bodies, true);
            return Ok(());
        }
        // From here on only forward (HA 2.2).
        let goal = Goal { lost_ms: self.settings().outage_wait_ms, deadline, ..goal };
        let committed = self.commit(&view, stored, &bodies, &ouids, &goal);
        let copies = acknowledged(&committed);
        if copies < wanted && planted::is(Bug::TombstoneAfterCommit) {
            let all = token_ouids().collect();
            return Err(self.not_stored(&view, committed, true, ticket, tag, all, wanted, deadline));
        }
        if copies < wanted {
            let what =
                format!("{copies} of {wanted} members acknowledged the commit of a new object in time");
            tracing::error!("outcome unknown: {what}; the create goes on in the background");
            return Err(Error::OutcomeUnknown(what));
        }
        Ok(())
    }

    /// When a Store ends.
    fn goal_of_store(&self, provisional: bool, wanted: usize, deadline: Moment) -> Goal {
        let outage_wait_ms = self.settings().outage_wait_ms;
        if !provisional {
            // A lost acknowledgement may hide a finished create: it is pursued like a Commit.
            return Goal { enough: wanted, deadline, lost_ms: outage_wait_ms, sends_max: None };
        }
        // Copies that must be taken back are taken back before the call ends.
        let now = self.platform.now();
        let left = deadline.since(now);
        let reserve = (left / 4).min(Duration::from_millis(DISCARD_MS));
        let lost_ms = MINIMUM_WAIT_MS.min(outage_wait_ms);
        Goal { enough: wanted, deadline: now.after(left - reserve), lost_ms, sends_max: None }
    }

    /// Commits what was stored, and stores it again where it is missing; whoever has not acknowledged owes it.
    fn commit(
        &self,
        view: &View,
        stored: Vec<(Arc<Member>, Settled)>,
        bodies: &[Body],
        ouids: &[Ouid],
        goal: &Goal,
    ) -> Vec<(Arc<Member>, Settled)> {
        let members: Vec<(Arc<Member>, usize)> = stored
            .into_iter()
            .filter_map(|(member, settled)| match settled {
                Settled::Done { .. } => Some((member, 1)),
                Settled::Open { .. } | Settled::Missing => Some((member, 0)),
                Settled::Refused(_) => None,
            })
            .collect();
        let committed = self.spread(&members, bodies, goal);
        let enough = acknowledged(&committed) >= goal.enough;
        self.owe_rest(view, &holders(&committed), ouids, bodies, enough);
        committed
    }

    /// The minimum was not reached and no Commit has been sent: every copy that may exist is tombstoned.
    #[allow(clippy::too_many_arguments, reason = "what one write consists of")]
    fn not_stored(
        &self,
        view: &View,
        stored: Vec<(Arc<Member>, Settled)>,
        provisional: bool,
        ticket: &[u8],
        tag: &[u8],
        ouids: Vec<Vec<u8>>,
        wanted: usize,
        deadline: Moment,
    ) -> Error {
        let reachable = acknowledged(&stored);
        let mut refusal = None;
        let mut copies = Vec::new();
        for (member, settled) in stored {
            match settled {
                Settled::Done { .. } | Settled::Open { maybe: true } => copies.push((member, 0)),
                Settled::Refused(error) => refusal = Some(error),
                Settled::Missing | Settled::Open { maybe: false } => {}
            }
        }
        if !provisional && !copies.is_empty() {
            let what = "the store of a new object was sent and not acknowledged in time".to_owned();
            tracing::error!("outcome unknown: {what}");
            return Error::OutcomeUnknown(what);
        }
        if !copies.is_empty() {
            let discard = Body::of(view, ticket, Call::Discard(Discard { ouids, tag: tag.to_vec() }));
            let deadline = self.platform.now().after_ms(DISCARD_MS).min(deadline);
            let goal = Goal { enough: copies.len(), deadline, lost_ms: 0, sends_max: Some(copies.len() + 1) };
            self.spread(&copies, &[discard], &goal);
        }
        if let Err(closed) = self.ensure_open() {
            return closed;
        }
        let error = refusal.unwrap_or(Error::BelowMinimum { wanted, reachable });
        tracing::error!("nothing was created, the copies stored so far are taken back: {error}");
        error
    }
}

/// The members that have acknowledged.
pub(crate) fn holders(settled: &[(Arc<Member>, Settled)]) -> Vec<MemberId> {
    let done = settled.iter().filter(|(_, settled)| matches!(settled, Settled::Done { .. }));
    done.map(|(member, _)| member.id).collect()
}

/// How many members have acknowledged.
pub(crate) fn acknowledged(settled: &[(Arc<Member>, Settled)]) -> usize {
    holders(settled).len()
}

/// Whether a `Make` may give token objects: a template says so, or a copy takes over CKA_TOKEN of a token object.
fn stores(make: &Make) -> bool {
    let copies_token = make.kind == MakeKind::COPY.0
        && make.source.as_ref().is_some_and(|source| source.blob_hash.is_empty() && source.blob.is_empty());
    make.templates.iter().any(|template| template.bool(AttributeType::TOKEN).unwrap_or(copies_token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::messages::ObjectRef;
    use spec::{Attribute, Template};

    #[test]
    fn only_token_objects_need_the_minimum() {
        let template = |token: Option<bool>| {
            Template::from(
                token
                    .map(|token| Attribute::bool(AttributeType::TOKEN, token))
                    .into_iter()
                    .collect::<Vec<_>>(),
            )
        };
        let make = |kind: MakeKind, token: Option<bool>, source: Option<ObjectRef>| Make {
            kind: kind.0,
            templates: vec![template(token)],
            source,
            ..Make::default()
        };
        assert!(stores(&make(MakeKind::GENERATE, Some(true), None)));
        assert!(!stores(&make(MakeKind::GENERATE, Some(false), None)));
        assert!(!stores(&make(MakeKind::CREATE, None, None)));
        assert!(stores(&make(MakeKind::COPY, None, Some(ObjectRef::default()))));
        assert!(!stores(&make(MakeKind::COPY, Some(false), Some(ObjectRef::default()))));
        let session = ObjectRef { blob_hash: vec![1; 32], ..ObjectRef::default() };
        assert!(!stores(&make(MakeKind::COPY, None, Some(session))));
    }
}
