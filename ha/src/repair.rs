//! Repair under the lease (HA 4.6 steps 1 to 3): whoever differs gets what the others hold, before it is read.
//!
//! ```text
//! lease -> mark (incarnation, seq) of every participant -> Compare all buckets -> differing buckets -> Compare their
//! records -> Export from one holder of each state -> Join on everybody who holds another state -> the newest
//! credentials and manifest -> whoever still stands where it was marked is admitted -> lease given back
//! ```
//! Joins only move objects down the lattice (HA 1.2), so it does no harm that writes go on meanwhile: they reach the
//! returning member by themselves, because it is in the write set. A process that may not repair admits a returner once
//! no bucket of it differs in two comparisons 2 s apart: unequal roots at an instant mean nothing.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spec::Ouid;
use spec::meter::News;
use spec::platform::Moment;
use spec::seam::MemberId;

use crate::error::Error;
use crate::group::Group;
use crate::lease::{Asked, Held};
use crate::member::{Member, Phase};
use crate::moves::{Participant, union};

/// A bucket that differs in two comparisons so far apart is a divergence, in milliseconds (HA 4.6).
const DIVERGENCE_MS: u64 = 2_000;

/// A lease that another process has is asked for again after so many milliseconds, or at its end.
const LEASE_AGAIN_MS: u32 = 1_000;

/// A repair that has begun and is not finished: it goes on with the next round, under the same lease.
pub(crate) struct UnderWay {
    participants: Vec<Participant>,
    lease: Held,
    /// What is left to do.
    buckets: Vec<u16>,
    /// Whether it brings everything that differs to one state, which admits returners.
    everything: bool,
    /// Whether every member that can be reached takes part.
    whole: bool,
    suspects: Vec<Ouid>,
    moved: u64,
}

impl Group {
    /// Repairs what can be repaired now: returning and unverified members, known divergences, suspected objects.
    /// Repairs nothing without the Crypto Officer's ticket (RULES 3.3), while another process has the lease, or in a group
    /// of one. No more is begun after `slice_ms` milliseconds of moving records; the rest is for the next round.
    pub(crate) fn repair_round(&self, slice_ms: u64) {
        if !self.settings().synchronize {
            return;
        }
        let under_way = self.under_way.lock().take();
        if let Some(repair) = under_way {
            // After a logout the lease runs out by itself.
            return self.repair_ticket().map_or((), |ticket| self.go_on(repair, &ticket, slice_ms));
        }
        let mut participants = self.participants();
        let (all, now) = (participants.len(), self.platform.now());
        if all < 2 {
            return;
        }
        let is_newcomer = |one: &Participant| one.newcomer;
        let found = self.has_diverged(&participants, participants.iter().any(is_newcomer));
        participants.retain(|one| !one.member.rests_from_repair(now));
        if participants.len() < 2 {
            return;
        }
        let newcomers = participants.iter().any(is_newcomer);
        // Without the one that a repair failed at, equality of the others says nothing about the group.
        let whole = participants.len() == all;
        // A returner that differs from nobody but a reference at which repair failed waits for that one.
        let waits = !whole && are_level(&participants);
        let Some(ticket) = self.repair_ticket() else { return };
        let suspects = self.take_suspects();
        let everything = newcomers && !waits || whole && (found || self.is_divergent());
        if !everything && suspects.is_empty() && !uneven(&participants) {
            return;
        }
        match self.begin_repair(participants, everything, whole, &suspects, &ticket) {
            Ok(Some(repair)) => self.go_on(repair, &ticket, slice_ms),
            // Another process has the lease.
            Ok(None) => self.suspect(&suspects),
            Err(error) => self.not_repaired(&suspects, &error),
        }
    }

    /// Takes the lease and finds out what differs; `None` while another process has the lease.
    fn begin_repair(
        &self,
        participants: Vec<Participant>,
        everything: bool,
        whole: bool,
        suspects: &[Ouid],
        ticket: &[u8],
    ) -> Result<Option<UnderWay>, Error> {
        if self.platform.now().0 < self.lease_again.load(Ordering::Acquire) {
            return Ok(None);
        }
        let members = participants.iter().map(|one| one.member.clone()).collect();
        let lease = match self.take_lease(members, ticket)? {
            Asked::Granted(lease) => lease,
            Asked::Taken(left_ms) => {
                tracing::debug!(left_ms, "another process repairs the group");
                let again_ms = self.jitter_ms(left_ms.min(LEASE_AGAIN_MS).into());
                self.lease_again.store(self.platform.now().after_ms(again_ms).0, Ordering::Release);
                return Ok(None);
            }
        };
        let buckets = match everything {
            true => self.differing_buckets(&participants).map(|differing| union(&differing)),
            false => Ok(suspects.iter().map(Ouid::bucket).collect()),
        };
        match buckets {
            Ok(buckets) => {
                let (buckets, suspects) = (buckets.into_iter().collect(), suspects.to_vec());
                Ok(Some(UnderWay { participants, lease, buckets, everything, whole, suspects, moved: 0 }))
            }
            Err(error) => {
                self.give_back(lease, ticket);
                Err(error)
            }
        }
    }

    /// One slice of a repair; what is left is kept for the next round. Every returner ends with a Join that tells it that
    /// it has been compared (HA 1.5).
    fn go_on(&self, mut repair: UnderWay, ticket: &[u8], slice_ms: u64) {
        let until = self.platform.now().after_ms(slice_ms);
        let UnderWay { participants, lease, buckets, .. } = &mut repair;
        let outcome = self.move_some(participants, buckets, lease, ticket, until).and_then(|moved| {
            repair.moved += moved;
            let finished = repair.buckets.is_empty();
            if finished { self.level(&repair.participants, ticket).map(|()| true) } else { Ok(false) }
        });
        match outcome {
            Ok(false) => *self.under_way.lock() = Some(repair),
            Ok(true) => {
                self.repaired(&repair);
                self.give_back(repair.lease, ticket);
            }
            Err(error) => {
                self.give_back(repair.lease, ticket);
                self.not_repaired(&repair.suspects, &error);
            }
        }
    }

    /// Whether a repair waits for the next round.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.lock().is_some()
    }

    fn not_repaired(&self, suspects: &[Ouid], error: &Error) {
        match error {
            _ if self.is_closed() => {}
            Error::TicketDead | Error::Rv(_) => {
                tracing::warn!("the login of this process does not permit repair: a Crypto Officer's does");
                self.set_repair_ticket(None);
            }
            error => {
                self.suspect(suspects);
                tracing::warn!("repair could not be finished and is tried again: {error}");
            }
        }
    }

    fn repaired(&self, repair: &UnderWay) {
        let (participants, moved) = (&repair.participants, repair.moved);
        if repair.everything {
            self.admit_all(participants, repair.whole);
        }
        participants.iter().filter(|one| one.failed.is_none()).for_each(|one| one.member.repair_done());
        tracing::info!(moved, members = participants.len(), "repair is done");
        if moved > 0 {
            self.settings().meter.news(&News::Repaired { records: moved });
        }
    }

    /// Admits everybody who took what it lacked and still stands where it was marked, once it holds what every reference
    /// held (HA 4.6 (3)). `whole` tells that every member that can be reached took part.
    pub(crate) fn admit_all(&self, participants: &[Participant], whole: bool) {
        // A reference whose store went elsewhere meanwhile proves nothing about the others.
        let references = participants.iter().filter(|one| one.reference);
        let proven = references.clone().all(|one| one.still_stands(self)) && self.all_took_part(participants);
        let level = participants.iter().filter(|one| one.still_stands(self));
        let others: Vec<&Arc<Member>> = level.clone().map(|one| &one.member).collect();
        let everybody = level.clone().filter(|one| one.failed.is_none()).count() == self.view().seats.len();
        let whole_ones = level.clone().filter(|one| one.failed.is_none()).map(|one| &one.member);
        let late_may_serve = self.may_late_serve(whole_ones);
        let may_serve = |member: &Member| !member.is_late() || late_may_serve;
        for one in level.filter(|one| proven && one.failed.is_none() && may_serve(&one.member)) {
            one.member.compared();
            self.acquit(&one.member, &others, everybody, one.number);
            self.decide(&one.member, one.since, Phase::Admitted);
        }
        if proven && whole && participants.iter().all(|one| one.failed.is_none()) {
            self.set_divergent(false);
            *self.last_difference.lock() = None;
        }
    }

    /// Whether every reference took part: one that was left out because repair had failed at it may hold more.
    fn all_took_part(&self, participants: &[Participant]) -> bool {
        let took_part = |member: &Member| participants.iter().any(|one| one.member.id == member.id);
        let view = self.view();
        let members = view.seats.iter().map(|seat| &seat.member);
        members.filter(|member| self.is_reference(member)).all(|member| took_part(member))
    }

    /// Whether a bucket of the members differs now and differed two seconds ago (HA 4.6): unequal roots at one instant
    /// mean nothing. With newcomers among them, those that no bucket keeps apart from the references are admitted.
    fn has_diverged(&self, participants: &[Participant], newcomers: bool) -> bool {
        let mut roots = participants.iter().filter_map(|one| one.member.report().map(|report| report.root));
        let first = roots.next();
        if roots.all(|root| Some(&root) == first.as_ref()) {
            *self.last_difference.lock() = None;
            if !newcomers {
                self.set_divergent(false);
            }
            return false;
        }
        let now = self.platform.now();
        let ids = participants.iter().map(|one| (one.member.id, one.since, one.mark.0)).collect::<Vec<_>>();
        let too_soon = |last: &Difference| last.ids == ids && now < last.at.after_ms(DIVERGENCE_MS);
        if self.last_difference.lock().as_ref().is_some_and(too_soon) {
            return false;
        }
        let Ok(differing) = self.differing_buckets(participants) else { return false };
        let now = self.platform.now();
        let mut last = self.last_difference.lock();
        let before = match last.take() {
            Some(before) if before.ids == ids => before,
            _ => {
                *last = Some(Difference { at: now, ids, buckets: differing });
                return false;
            }
        };
        if now < before.at.after_ms(DIVERGENCE_MS) {
            *last = Some(before);
            return false;
        }
        *last = Some(Difference { at: now, ids, buckets: differing.clone() });
        drop(last);
        if newcomers {
            self.admit_those_level(participants, &before.buckets, &differing);
            return false;
        }
        let diverged = !union(&before.buckets).is_disjoint(&union(&differing));
        if diverged {
            self.set_divergent(true);
        }
        diverged
    }

    /// Admits the newcomers that hold what every reference held at the first of two comparisons: each bucket of the two was
    /// equal in one of them. What a participant differs in is told against the first one, so that two which do not differ
    /// from that one are equal.
    fn admit_those_level(
        &self,
        participants: &[Participant],
        before: &[BTreeSet<u16>],
        now: &[BTreeSet<u16>],
    ) {
        let references = participants.iter().enumerate().filter(|(_, one)| one.reference);
        let references: Vec<(usize, &Participant)> = references.collect();
        for (place, one) in participants.iter().enumerate().filter(|(_, one)| one.newcomer) {
            let level = |other: usize| {
                let differed: BTreeSet<&u16> = before[place].union(&before[other]).collect();
                now[place].union(&now[other]).all(|bucket| !differed.contains(bucket))
            };
            let recovering = one.member.report().is_some_and(|report| report.recovering);
            if recovering || one.member.is_rolled_back() || references.is_empty() || !one.still_stands(self) {
                continue;
            }
            if references.iter().all(|(other, _)| level(*other)) {
                for (_, reference) in &references {
                    one.member.caught.up_with(one.since, &reference.member, reference.mark.0, one.mark.0);
                }
                one.member.compared();
                self.decide(&one.member, one.since, Phase::Admitted);
            }
        }
    }
}

/// In which buckets each participant differed from the first one, and when.
pub(crate) struct Difference {
    at: Moment,
    /// The participants, their links and their incarnations.
    ids: Vec<(MemberId, Moment, u64)>,
    buckets: Vec<BTreeSet<u16>>,
}

/// Whether credentials are of different epochs or manifests not the same.
fn uneven(participants: &[Participant]) -> bool {
    participants.windows(2).any(|pair| {
        let (one, other) = (&pair[0].member, &pair[1].member);
        one.credential_epoch() != other.credential_epoch() || one.manifest_age() != other.manifest_age()
    })
}

/// Whether no content differs, no store waits for the word that it was compared, and credentials and manifests are the same.
fn are_level(participants: &[Participant]) -> bool {
    let reports: Vec<_> = participants.iter().filter_map(|one| one.member.report()).collect();
    reports.len() == participants.len()
        && reports.windows(2).all(|pair| pair[0].root == pair[1].root)
        && reports.iter().all(|report| !report.recovering)
        && !uneven(participants)
}
