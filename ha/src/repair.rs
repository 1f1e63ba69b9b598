//! Repair (HA 4.6 steps 1 to 3, without a lease): whoever differs gets what the others hold, before it is read.
//!
//! ```text
//! Compare all buckets -> differing buckets -> Compare their records -> Export from one holder of each state
//!   -> Join on everybody who holds another state -> credentials and manifest of the greatest epoch -> admitted
//! ```
//! Joins only move objects down the lattice (HA 1.2), so it does no harm that writes go on meanwhile: they reach the
//! returning member by themselves, because it is in the write set.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spec::Ouid;
use spec::messages::{Answer, Call, Compare, CompareAnswer, Export, Join};
use spec::platform::Moment;
use spec::seam::Standing;

use crate::desk::{Body, Desk};
use crate::error::Error;
use crate::group::Group;
use crate::member::{Member, Phase};

/// Buckets of the digest (HA 1.6).
const BUCKETS: u16 = 4_096;
/// Bytes of one bucket's digest.
const DIGEST_BYTES: usize = 32;
/// Buckets whose records are compared in one request.
const BUCKETS_AT_ONCE: usize = 64;
/// Records moved in one request.
const RECORDS_AT_ONCE: usize = 200;
/// A bucket that differs in two comparisons so far apart is a divergence, in milliseconds (HA 4.6).
const DIVERGENCE_MS: u64 = 2_000;
/// How long one request of a repair may take, in milliseconds.
const STEP_MS: u64 = 10_000;

/// Who takes part in a repair, and on which link it was judged.
struct Participant {
    member: Arc<Member>,
    since: Moment,
}

/// From one participant to others, by their places.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    source: usize,
    targets: Vec<usize>,
}

impl Group {
    /// Repairs what can be repaired now: returning and unverified members, known divergences, suspected objects.
    /// Does nothing without the Crypto Officer's ticket (RULES 3.3) or in a group of one.
    pub(crate) fn repair_round(&self) {
        if !self.settings.synchronize {
            return;
        }
        let participants = self.participants();
        if participants.len() < 2 {
            return;
        }
        let admitted = |member: &Member| member.phase(&*self.seam) == Some(Phase::Admitted);
        let newcomers = participants.iter().any(|one| !admitted(&one.member));
        let found = !newcomers && self.has_diverged(&participants);
        let diverged = found || self.is_divergent();
        let Some(ticket) = self.repair_ticket() else { return };
        let suspects = self.take_suspects();
        let result = if newcomers || diverged {
            self.repair(&participants, None, &ticket)
        } else if !suspects.is_empty() {
            let buckets = suspects.iter().map(Ouid::bucket).collect();
            self.repair(&participants, Some(buckets), &ticket)
        } else if uneven(&participants) {
            self.repair(&participants, Some(BTreeSet::new()), &ticket)
        } else {
            return;
        };
        match result {
            Err(_) if self.is_closed() => {}
            Ok(moved) => {
                if newcomers || diverged {
                    self.admit_all(&participants);
                }
                tracing::info!(moved, members = participants.len(), "repair is done");
            }
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

    /// Every member whose link is up and that has been judged as one of the group.
    fn participants(&self) -> Vec<Participant> {
        let view = self.view();
        let judged = view.seats.iter().filter_map(|seat| match self.seam.standing(seat.member.id) {
            Standing::Down { .. } => None,
            Standing::Up { since, .. } => match seat.member.phase_on(since) {
                Phase::Admitted | Phase::Unverified | Phase::Recovering => {
                    Some(Participant { member: seat.member.clone(), since })
                }
                Phase::Fresh | Phase::Refused => None,
            },
        });
        judged.collect()
    }

    fn admit_all(&self, participants: &[Participant]) {
        for Participant { member, since } in participants {
            // A link that came up meanwhile keeps its own phase: it is judged anew.
            if matches!(self.seam.standing(member.id), Standing::Up { since: now, .. } if now == *since) {
                member.compared();
                member.decide(*since, Phase::Admitted);
            }
        }
        self.set_divergent(false);
        *self.last_difference.lock() = None;
    }

    /// Whether a bucket of the admitted members differs now and differed two seconds ago (HA 4.6): unequal roots at
    /// one instant mean nothing.
    fn has_diverged(&self, participants: &[Participant]) -> bool {
        let mut roots = participants.iter().filter_map(|one| one.member.report().map(|report| report.root));
        let first = roots.next();
        if roots.all(|root| Some(&root) == first.as_ref()) {
            *self.last_difference.lock() = None;
            self.set_divergent(false);
            return false;
        }
        let Ok(differing) = self.differing_buckets(participants) else { return false };
        let now = self.platform.now();
        let mut last = self.last_difference.lock();
        match &*last {
            Some((at, before)) if now >= at.after_ms(DIVERGENCE_MS) => {
                let diverged = !before.is_disjoint(&differing);
                *last = Some((now, differing));
                drop(last);
                if diverged {
                    self.set_divergent(true);
                }
                diverged
            }
            Some(_) => false,
            None => {
                *last = (!differing.is_empty()).then_some((now, differing));
                false
            }
        }
    }

    /// Brings the participants to one state in the named buckets (`None`: in all that differ); how many records
    /// were moved. Every returner ends with a Join that tells it that it has been compared (HA 1.5).
    fn repair(
        &self,
        participants: &[Participant],
        buckets: Option<BTreeSet<u16>>,
        ticket: &[u8],
    ) -> Result<usize, Error> {
        let buckets: Vec<u16> = match buckets {
            Some(buckets) => buckets.into_iter().collect(),
            None => self.differing_buckets(participants)?.into_iter().collect(),
        };
        let mut moved = 0;
        for chunk in buckets.chunks(BUCKETS_AT_ONCE) {
            for (way, ouids) in self.moves(participants, chunk)? {
                for some in ouids.chunks(RECORDS_AT_ONCE) {
                    self.carry(participants, &way, some, ticket)?;
                    moved += some.len();
                }
            }
        }
        self.level(participants, ticket)?;
        Ok(moved)
    }

    fn differing_buckets(&self, participants: &[Participant]) -> Result<BTreeSet<u16>, Error> {
        let answers = self.compare(participants, &[])?;
        let digest = |answer: &CompareAnswer, bucket: u16| {
            let at = usize::from(bucket) * DIGEST_BYTES;
            answer.buckets.get(at..at + DIGEST_BYTES).map(<[u8]>::to_vec)
        };
        let Some((first, rest)) = answers.split_first() else { return Ok(BTreeSet::new()) };
        Ok((0..BUCKETS)
            .filter(|bucket| {
                let own = digest(first, *bucket);
                own.is_none() || rest.iter().any(|other| digest(other, *bucket) != own)
            })
            .collect())
    }

    /// Which records must move, and from where to where: for each state of an object one holder sends it to everybody
    /// who holds another state or none.
    fn moves(
        &self,
        participants: &[Participant],
        buckets: &[u16],
    ) -> Result<BTreeMap<Way, Vec<Ouid>>, Error> {
        let mut states: BTreeMap<Ouid, BTreeMap<usize, Vec<u8>>> = BTreeMap::new();
        for (place, answer) in self.compare(participants, buckets)?.into_iter().enumerate() {
            for record in answer.records {
                if let Some(ouid) = Ouid::from_bytes(&record.ouid) {
                    states.entry(ouid).or_default().insert(place, record.digest);
                }
            }
        }
        let mut moves: BTreeMap<Way, Vec<Ouid>> = BTreeMap::new();
        for (ouid, held) in states {
            let mut sources: BTreeMap<&[u8], usize> = BTreeMap::new();
            for (place, digest) in &held {
                sources.entry(digest).or_insert(*place);
            }
            for (digest, source) in sources {
                let lacks = |place: &usize| held.get(place).is_none_or(|other| other != digest);
                let targets: Vec<usize> = (0..participants.len()).filter(lacks).collect();
                if !targets.is_empty() {
                    moves.entry(Way { source, targets }).or_default().push(ouid);
                }
            }
        }
        Ok(moves)
    }

    fn compare(&self, participants: &[Participant], buckets: &[u16]) -> Result<Vec<CompareAnswer>, Error> {
        let compare = Compare { buckets: buckets.iter().map(|bucket| u32::from(*bucket)).collect() };
        let mut answers = Vec::with_capacity(participants.len());
        for Participant { member, .. } in participants {
            match self.step(member, Call::Compare(compare.clone()), &[])? {
                Answer::Compare(answer) => answers.push(answer),
                _ => {
                    return Err(Error::Peer(format!(
                        "member {} answered Compare with something else",
                        member.id
                    )));
                }
            }
        }
        Ok(answers)
    }

    fn carry(
        &self,
        participants: &[Participant],
        way: &Way,
        ouids: &[Ouid],
        ticket: &[u8],
    ) -> Result<(), Error> {
        let source = &participants[way.source].member;
        let odd = |what: &str| Error::Peer(format!("member {} {what}", source.id));
        let mut wanted: BTreeSet<Vec<u8>> = ouids.iter().map(|ouid| ouid.0.to_vec()).collect();
        // A member answers as many records as fit into one reply; the rest is asked for again.
        while !wanted.is_empty() {
            let export = Export { ouids: wanted.iter().cloned().collect(), ..Export::default() };
            let Answer::Export(answer) = self.step(source, Call::Export(export), ticket)? else {
                return Err(odd("answered Export with something else"));
            };
            if answer.records.is_empty() {
                return Err(odd("does not give out records that it has listed"));
            }
            let before = wanted.len();
            wanted.retain(|ouid| !answer.records.iter().any(|record| record.ouid == *ouid));
            if wanted.len() == before {
                return Err(odd("gives out records that it was not asked for"));
            }
            for target in &way.targets {
                let join = Join { records: answer.records.clone(), ..Join::default() };
                self.step(&participants[*target].member, Call::Join(join), ticket)?;
            }
        }
        Ok(())
    }

    /// The credentials and the manifest of the greatest epoch to those with an older one (HA 2.6, 2.7), and the word
    /// to everybody who waits for it that it has been compared.
    fn level(&self, participants: &[Participant], ticket: &[u8]) -> Result<(), Error> {
        let newest =
            |epoch: fn(&Member) -> u64| participants.iter().map(|one| &one.member).max_by_key(|m| epoch(m));
        let (Some(credentials), Some(manifest)) =
            (newest(Member::credential_epoch), newest(Member::manifest_epoch))
        else {
            return Ok(());
        };
        let (mut sealed_credentials, mut sealed_manifest) = (None, None);
        for Participant { member, since } in participants {
            let mut join = Join { repaired: member.phase_on(*since) == Phase::Recovering, ..Join::default() };
            if member.credential_epoch() < credentials.credential_epoch() {
                join.credentials = self.sealed(&mut sealed_credentials, credentials, true, ticket)?;
            }
            if member.manifest_epoch() < manifest.manifest_epoch() {
                join.manifest = self.sealed(&mut sealed_manifest, manifest, false, ticket)?;
            }
            if join != Join::default() {
                self.step(member, Call::Join(join), ticket)?;
            }
        }
        Ok(())
    }

    /// The sealed credentials or manifest of a member, asked for once.
    fn sealed(
        &self,
        kept: &mut Option<Vec<u8>>,
        source: &Arc<Member>,
        credentials: bool,
        ticket: &[u8],
    ) -> Result<Vec<u8>, Error> {
        if let Some(sealed) = kept {
            return Ok(sealed.clone());
        }
        let export = Export { credentials, manifest: !credentials, ..Export::default() };
        let Answer::Export(answer) = self.step(source, Call::Export(export), ticket)? else {
            return Err(Error::Peer(format!("member {} answered Export with something else", source.id)));
        };
        let sealed = if credentials { answer.credentials } else { answer.manifest };
        *kept = Some(sealed.clone());
        Ok(sealed)
    }

    /// One request of a repair to one member.
    fn step(&self, member: &Arc<Member>, call: Call, ticket: &[u8]) -> Result<Answer, Error> {
        self.ensure_open()?;
        let body = Body::of(&self.view(), ticket, call);
        let deadline = self.platform.now().after_ms(STEP_MS);
        self.ask_member(&mut Desk::new(self), member, &body, deadline).map(|answered| answered.answer)
    }
}

/// Whether credentials or manifests are of different epochs.
fn uneven(participants: &[Participant]) -> bool {
    let differ = |epoch: fn(&Member) -> u64| {
        participants.windows(2).any(|pair| epoch(&pair[0].member) != epoch(&pair[1].member))
    };
    differ(Member::credential_epoch) || differ(Member::manifest_epoch)
}
