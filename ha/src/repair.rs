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

use spec::Ouid;
use spec::meter::News;
use spec::platform::Moment;

use crate::error::Error;
use crate::group::Group;
use crate::lease::Asked;
use crate::member::Phase;
use crate::moves::{Participant, union};

/// A bucket that differs in two comparisons so far apart is a divergence, in milliseconds (HA 4.6).
const DIVERGENCE_MS: u64 = 2_000;

/// What a round has to do.
enum Work {
    /// Bring everything that differs to one state.
    All,
    /// Look into these buckets.
    Some(BTreeSet<u16>),
    /// Nothing.
    None,
}

impl Group {
    /// Repairs what can be repaired now: returning and unverified members, known divergences, suspected objects.
    /// Repairs nothing without the Crypto Officer's ticket (RULES 3.3), while another process has the lease, or in a group
    /// of one.
    pub(crate) fn repair_round(&self) {
        if !self.settings().synchronize {
            return;
        }
        let mut participants = self.participants();
        let (all, now) = (participants.len(), self.platform.now());
        participants.retain(|one| !one.member.rests_from_repair(now));
        if participants.len() < 2 {
            return;
        }
        let newcomers = participants.iter().any(|one| !one.reference);
        // Without the one that a repair failed at, equality of the others says nothing about the group.
        let whole = participants.len() == all;
        let found = whole && self.has_diverged(&participants, newcomers);
        let Some(ticket) = self.repair_ticket() else { return };
        let suspects = self.take_suspects();
        let everything = newcomers || found || whole && self.is_divergent();
        let work = if everything {
            Work::All
        } else if !suspects.is_empty() || uneven(&participants) {
            Work::Some(suspects.iter().map(Ouid::bucket).collect())
        } else {
            Work::None
        };
        match self.repair(&mut participants, &work, &ticket) {
            Err(_) if self.is_closed() => {}
            Ok(None) => self.suspect(&suspects),
            Ok(Some(moved)) => self.repaired(&participants, &work, moved, whole),
            Err(Error::TicketDead | Error::Rv(_)) => {
                tracing::warn!("the login of this process does not permit repair: a Crypto Officer's does");
                self.set_repair_ticket(None);
            }
            Err(error) => {
                self.suspect(&suspects);
                tracing::warn!("repair could not be finished and is tried again: {error}");
            }
        }
    }

    fn repaired(&self, participants: &[Participant], work: &Work, moved: u64, whole: bool) {
        match work {
            Work::None => return,
            Work::All => self.admit_all(participants, whole),
            Work::Some(_) => {}
        }
        participants.iter().filter(|one| one.failed.is_none()).for_each(|one| one.member.repair_done());
        tracing::info!(moved, members = participants.len(), "repair is done");
        if moved > 0 {
            self.settings().meter.news(&News::Repaired { records: moved });
        }
    }

    /// Admits everybody who took what it lacked and still stands where it was marked (HA 4.6 (3)). `whole` tells that
    /// every member that can be reached took part.
    pub(crate) fn admit_all(&self, participants: &[Participant], whole: bool) {
        // A reference whose store went elsewhere meanwhile proves nothing about the others.
        let references = participants.iter().filter(|one| one.reference);
        let proven =
            references.clone().next().is_none() || references.clone().all(|one| one.still_stands(self));
        for one in participants.iter().filter(|one| one.failed.is_none() && one.still_stands(self)) {
            if proven {
                one.member.compared();
                self.decide(&one.member, one.since, Phase::Admitted);
            }
        }
        if proven && whole && participants.iter().all(|one| one.failed.is_none()) {
            self.set_divergent(false);
            *self.last_difference.lock() = None;
        }
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
        let Ok(differing) = self.differing_buckets(participants) else { return false };
        let now = self.platform.now();
        let ids = participants.iter().map(|one| (one.member.id, one.since)).collect::<Vec<_>>();
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
        let lasting = |place: usize| !before.buckets[place].is_disjoint(&differing[place]);
        if newcomers {
            self.admit_those_level(participants, &lasting);
            return false;
        }
        let diverged = !union(&before.buckets).is_disjoint(&union(&differing));
        if diverged {
            self.set_divergent(true);
        }
        diverged
    }

    /// Admits the newcomers that differ from no reference for good. What a participant differs in is told against the
    /// first one, which is a reference unless there is none.
    fn admit_those_level(&self, participants: &[Participant], lasting: &dyn Fn(usize) -> bool) {
        let references = participants.iter().enumerate().filter(|(_, one)| one.reference);
        if !participants[0].reference || references.clone().any(|(place, _)| lasting(place)) {
            return;
        }
        for (place, one) in participants.iter().enumerate().filter(|(_, one)| !one.reference) {
            let recovering = one.member.report().is_some_and(|report| report.recovering);
            if !recovering && !one.member.is_rolled_back() && !lasting(place) && one.still_stands(self) {
                self.decide(&one.member, one.since, Phase::Admitted);
            }
        }
    }

    /// Brings the participants to one state; how many records were moved, `None` while another process has the lease.
    /// Every returner ends with a Join that tells it that it has been compared (HA 1.5).
    fn repair(
        &self,
        participants: &mut [Participant],
        work: &Work,
        ticket: &[u8],
    ) -> Result<Option<u64>, Error> {
        if matches!(work, Work::None) {
            return Ok(Some(0));
        }
        let members = participants.iter().map(|one| one.member.clone()).collect();
        let mut lease = match self.take_lease(members, ticket)? {
            Asked::Granted(lease) => lease,
            Asked::Taken(left_ms) => {
                tracing::debug!(left_ms, "another process repairs the group");
                return Ok(None);
            }
        };
        let moved = self.repair_under(participants, work, &mut lease, ticket);
        self.give_back(lease, ticket);
        moved.map(Some)
    }

    fn repair_under(
        &self,
        participants: &mut [Participant],
        work: &Work,
        lease: &mut crate::lease::Held,
        ticket: &[u8],
    ) -> Result<u64, Error> {
        let buckets: Vec<u16> = match work {
            Work::Some(buckets) => buckets.iter().copied().collect(),
            Work::All => union(&self.differing_buckets(participants)?).into_iter().collect(),
            Work::None => Vec::new(),
        };
        let moved = self.move_all(participants, &buckets, lease, ticket, &mut |_, _| {})?;
        self.level(participants, ticket)?;
        Ok(moved)
    }
}

/// In which buckets each participant differed from the first one, and when.
pub(crate) struct Difference {
    at: Moment,
    ids: Vec<(spec::seam::MemberId, Moment)>,
    buckets: Vec<BTreeSet<u16>>,
}

/// Whether credentials are of different epochs or manifests not the same.
fn uneven(participants: &[Participant]) -> bool {
    participants.windows(2).any(|pair| {
        let (one, other) = (&pair[0].member, &pair[1].member);
        one.credential_epoch() != other.credential_epoch() || one.manifest_age() != other.manifest_age()
    })
}
