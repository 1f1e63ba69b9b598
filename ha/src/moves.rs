//! What a repair moves: digests compared, records carried from one holder of each state to everybody who holds another
//! one (HA 1.6, 4.6).
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spec::Ouid;
use spec::messages::{Answer, Call, Compare, CompareAnswer, Export, Join, SealedRecord};
use spec::platform::Moment;
use spec::seam::Standing;

use crate::body::Body;
use crate::desk::Desk;
use crate::error::Error;
use crate::group::Group;
use crate::lease::Held;
use crate::member::{Member, Phase};

/// Buckets of the digest (HA 1.6).
pub(crate) const BUCKETS: u16 = 4_096;
/// Bytes of one bucket's digest.
const DIGEST_BYTES: usize = 32;
/// Buckets whose records are compared in one request.
pub(crate) const BUCKETS_AT_ONCE: usize = 64;
/// Records moved in one request.
const RECORDS_AT_ONCE: usize = 200;
/// How long one request of a repair may take, in milliseconds.
const STEP_MS: u64 = 10_000;

/// Who takes part in a repair, on which link it was judged, and where its store stood at the mark (HA 4.6).
pub(crate) struct Participant {
    pub(crate) member: Arc<Member>,
    pub(crate) since: Moment,
    /// Whether it is a reference (see `admission`), and whether it waits to be admitted.
    pub(crate) reference: bool,
    pub(crate) newcomer: bool,
    /// Its incarnation and seq when the repair began.
    pub(crate) mark: (u64, u64),
    /// The number of the mark: what was owed before it was acknowledged by others before they were compared.
    pub(crate) number: u64,
    /// Why it does not take what it lacks.
    pub(crate) failed: Option<Error>,
}

impl Participant {
    /// Whether it stands on the link and the store on which it was marked, so that what was carried counts.
    pub(crate) fn still_stands(&self, group: &Group) -> bool {
        let same_link =
            matches!(group.seam.standing(self.member.id), Standing::Up { since, .. } if since == self.since);
        let (incarnation, seq) = self.member.position();
        same_link && incarnation == self.mark.0 && seq >= self.mark.1
    }
}

/// From one participant to others, by their places.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) source: usize,
    pub(crate) targets: Vec<usize>,
}

impl Way {
    /// Whether a target is left that takes records.
    fn leads_somewhere(&self, participants: &[Participant]) -> bool {
        self.targets.iter().any(|target| participants[*target].failed.is_none())
    }
}

/// Who holds which state of an object: digests by the place of the participant.
pub(crate) type States = BTreeMap<Ouid, BTreeMap<usize, Vec<u8>>>;

impl Group {
    /// Every member whose link is up and that has been judged as one of the group; references first, since what a
    /// participant differs in is told against the first one.
    pub(crate) fn participants(&self) -> Vec<Participant> {
        let (view, number) = (self.view(), self.number());
        let judged = view.seats.iter().filter_map(|seat| {
            let member = seat.member.clone();
            let Standing::Up { since, .. } = self.seam.standing(member.id) else { return None };
            let newcomer = match member.phase_on(since) {
                Phase::Admitted => false,
                Phase::Unverified | Phase::Recovering => true,
                Phase::Fresh | Phase::Refused => return None,
            };
            let reference = !newcomer && self.is_reference(&member);
            let mark = member.position();
            Some(Participant { member, since, reference, newcomer, mark, number, failed: None })
        });
        let mut participants: Vec<Participant> = judged.collect();
        participants.sort_by_key(|one| !one.reference);
        participants
    }

    /// The digests of all buckets of each participant, or of the records of the named ones.
    fn digests(&self, participants: &[Participant], buckets: &[u16]) -> Result<Vec<CompareAnswer>, Error> {
        let compare = Compare { buckets: buckets.iter().map(|bucket| u32::from(*bucket)).collect() };
        let mut answers = Vec::with_capacity(participants.len());
        for Participant { member, .. } in participants {
            match self.step(member, Call::Compare(compare.clone()), &[])? {
                Answer::Compare(answer) => answers.push(answer),
                _ => return Err(odd(member, "Compare")),
            }
        }
        Ok(answers)
    }

    /// For each participant, the buckets in which it differs from the first one.
    pub(crate) fn differing_buckets(
        &self,
        participants: &[Participant],
    ) -> Result<Vec<BTreeSet<u16>>, Error> {
        let answers = self.digests(participants, &[])?;
        let digest = |answer: &CompareAnswer, bucket: u16| {
            let at = usize::from(bucket) * DIGEST_BYTES;
            answer.buckets.get(at..at + DIGEST_BYTES).map(<[u8]>::to_vec)
        };
        let Some(first) = answers.first() else { return Ok(Vec::new()) };
        let differing = |answer: &CompareAnswer| {
            let differs = |bucket: &u16| {
                let own = digest(answer, *bucket);
                own.is_none() || own != digest(first, *bucket)
            };
            (0..BUCKETS).filter(differs).collect()
        };
        Ok(answers.iter().map(differing).collect())
    }

    /// Who holds which state of every object in the buckets.
    pub(crate) fn states(&self, participants: &[Participant], buckets: &[u16]) -> Result<States, Error> {
        let mut states = States::new();
        for (place, answer) in self.digests(participants, buckets)?.into_iter().enumerate() {
            for record in answer.records {
                if let Some(ouid) = Ouid::from_bytes(&record.ouid) {
                    states.entry(ouid).or_default().insert(place, record.digest);
                }
            }
        }
        Ok(states)
    }

    /// Carries the records from their source to all targets of the way; a target that does not take them is left out
    /// from then on.
    pub(crate) fn carry(
        &self,
        participants: &mut [Participant],
        way: &Way,
        ouids: &[Ouid],
        ticket: &[u8],
    ) -> Result<(), Error> {
        let source = participants[way.source].member.clone();
        let strange = |what: &str| {
            source.repair_failed(self.platform.now());
            Error::Peer(format!("member {} {what}", source.id))
        };
        let mut wanted: BTreeSet<Vec<u8>> = ouids.iter().map(|ouid| ouid.0.to_vec()).collect();
        // A member answers as many records as fit into one reply; the rest is asked for again.
        while !wanted.is_empty() && way.leads_somewhere(participants) {
            let export = Export { ouids: wanted.iter().cloned().collect(), ..Export::default() };
            let Answer::Export(answer) = self.step(&source, Call::Export(export), ticket)? else {
                return Err(odd(&source, "Export"));
            };
            if answer.records.is_empty() {
                return Err(strange("does not give out records that it has listed"));
            }
            let before = wanted.len();
            wanted.retain(|ouid| !answer.records.iter().any(|record| record.ouid == *ouid));
            if wanted.len() == before {
                return Err(strange("gives out records that it was not asked for"));
            }
            for target in &way.targets {
                self.hand_over(&mut participants[*target], &answer.records, ticket)?;
            }
        }
        Ok(())
    }

    fn hand_over(
        &self,
        target: &mut Participant,
        records: &[SealedRecord],
        ticket: &[u8],
    ) -> Result<(), Error> {
        if target.failed.is_some() {
            return Ok(());
        }
        let join = Join { records: records.to_vec(), ..Join::default() };
        match self.step(&target.member, Call::Join(join), ticket) {
            Ok(_) => Ok(()),
            Err(error) if is_of_the_caller(&error) => Err(error),
            Err(error) => {
                tracing::warn!(member = %target.member.id, "the member does not take what it lacks: {error}");
                target.failed = Some(error);
                Ok(())
            }
        }
    }

    /// The newest credentials and the newest manifest to those with older ones (HA 2.6, 2.7), and the word to everybody
    /// who waits for it that it has been compared.
    pub(crate) fn level(&self, participants: &[Participant], ticket: &[u8]) -> Result<(), Error> {
        let members = || participants.iter().map(|one| &one.member);
        let newest = members().max_by_key(|member| member.credential_epoch());
        let (Some(credentials), Some(manifest)) =
            (newest, members().max_by_key(|member| member.manifest_age()))
        else {
            return Ok(());
        };
        let (credential_epoch, manifest_age) = (credentials.credential_epoch(), manifest.manifest_age());
        if is_contested(participants) {
            self.level_contested(participants, ticket)?;
        }
        let (mut sealed_credentials, mut sealed_manifest) = (None, None);
        for one in participants.iter().filter(|one| one.failed.is_none()) {
            let member = &one.member;
            let mut join =
                Join { repaired: member.phase_on(one.since) == Phase::Recovering, ..Join::default() };
            if member.credential_epoch() < credential_epoch {
                join.credentials = self.sealed(&mut sealed_credentials, credentials, true, ticket)?;
            }
            if member.manifest_age() < manifest_age {
                join.manifest = self.sealed(&mut sealed_manifest, manifest, false, ticket)?;
            }
            if join != Join::default() {
                self.step(member, Call::Join(join), ticket)?;
            }
        }
        Ok(())
    }

    /// Two members were made the home at one time: both may have set credentials, of one epoch too, which only a join can
    /// tell apart. Each member gets those of all the others.
    fn level_contested(&self, participants: &[Participant], ticket: &[u8]) -> Result<(), Error> {
        tracing::warn!(
            "two members were made the home at one time: one of the two changes is given up everywhere"
        );
        for source in participants {
            let credentials = self.sealed(&mut None, &source.member, true, ticket)?;
            let others = participants.iter().filter(|one| one.member.id != source.member.id);
            for one in others.filter(|one| one.failed.is_none()) {
                let join = Join { credentials: credentials.clone(), ..Join::default() };
                self.step(&one.member, Call::Join(join), ticket)?;
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
            return Err(odd(source, "Export"));
        };
        let sealed = if credentials { answer.credentials } else { answer.manifest };
        *kept = Some(sealed.clone());
        Ok(sealed)
    }

    /// Brings the participants to one state in the buckets; how many records were moved. `progress` hears how many
    /// buckets are done.
    pub(crate) fn move_all(
        &self,
        participants: &mut [Participant],
        buckets: &[u16],
        lease: &mut Held,
        ticket: &[u8],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64, Error> {
        let (mut moved, total) = (0, buckets.len() as u64);
        for (at, chunk) in buckets.chunks(BUCKETS_AT_ONCE).enumerate() {
            progress((at * BUCKETS_AT_ONCE) as u64, total);
            moved += self.move_some(participants, &mut chunk.to_vec(), lease, ticket, Moment::NEVER)?;
        }
        progress(total, total);
        Ok(moved)
    }

    /// As `move_all`, and stops once the moment has come and something is done: `buckets` are those left then. How many
    /// records were moved.
    pub(crate) fn move_some(
        &self,
        participants: &mut [Participant],
        buckets: &mut Vec<u16>,
        lease: &mut Held,
        ticket: &[u8],
        until: Moment,
    ) -> Result<u64, Error> {
        let mut moved = 0;
        while !buckets.is_empty() {
            let chunk = buckets[..buckets.len().min(BUCKETS_AT_ONCE)].to_vec();
            let states = self.states(participants, &chunk)?;
            for (way, ouids) in ways(&states, participants.len()) {
                for some in ouids.chunks(RECORDS_AT_ONCE) {
                    if !way.leads_somewhere(participants) {
                        break;
                    }
                    if moved > 0 && self.platform.now() >= until {
                        return Ok(moved);
                    }
                    self.renew_lease(lease, ticket)?;
                    self.carry(participants, &way, some, ticket)?;
                    moved += some.len() as u64;
                }
            }
            buckets.drain(..chunk.len());
            if self.platform.now() >= until {
                break;
            }
        }
        Ok(moved)
    }

    /// One request of a repair to one member. A member that fails it is left out of the next repairs for a while.
    ///
    /// # Errors
    /// What the member answered; `Deadline` when the time is used up that a call has for repair.
    pub(crate) fn step(&self, member: &Arc<Member>, call: Call, ticket: &[u8]) -> Result<Answer, Error> {
        self.ensure_open()?;
        let now = self.platform.now();
        let deadline = self.in_calls.step_ends(now, now.after_ms(STEP_MS));
        if now >= deadline {
            return Err(Error::Deadline);
        }
        let body = Body::of(&self.view(), ticket, call);
        let asked = self.ask_member(&mut Desk::new(self), member, &body, deadline);
        if asked.as_ref().is_err_and(|error| !is_of_the_caller(error)) {
            member.repair_failed(self.platform.now());
        }
        asked.map(|answered| answered.answer)
    }
}

/// Whether two manifests of one epoch differ: two members were made the home at one time.
fn is_contested(participants: &[Participant]) -> bool {
    let tags: BTreeSet<_> = participants.iter().map(|one| one.member.manifest_age()).collect();
    let epochs: BTreeSet<_> = tags.iter().map(|(generation, epoch, _)| (generation, epoch)).collect();
    epochs.len() < tags.len()
}

/// Which records must move, and from where to where: for each state of an object one holder sends it to everybody who
/// holds another state or none.
pub(crate) fn ways(states: &States, participants: usize) -> BTreeMap<Way, Vec<Ouid>> {
    let mut moves: BTreeMap<Way, Vec<Ouid>> = BTreeMap::new();
    for (ouid, held) in states {
        let mut sources: BTreeMap<&[u8], usize> = BTreeMap::new();
        for (place, digest) in held {
            sources.entry(digest).or_insert(*place);
        }
        for (digest, source) in sources {
            let lacks = |place: &usize| held.get(place).is_none_or(|other| other != digest);
            let targets: Vec<usize> = (0..participants).filter(lacks).collect();
            if !targets.is_empty() {
                moves.entry(Way { source, targets }).or_default().push(*ouid);
            }
        }
    }
    moves
}

/// All buckets in which any participant differs.
pub(crate) fn union(differing: &[BTreeSet<u16>]) -> BTreeSet<u16> {
    differing.iter().flatten().copied().collect()
}

fn odd(member: &Member, call: &str) -> Error {
    Error::Peer(format!("member {} answered {call} with something else", member.id))
}

/// Whether the caller's right to repair is at fault and not the member.
fn is_of_the_caller(error: &Error) -> bool {
    matches!(error, Error::TicketDead | Error::Rv(_) | Error::Ourselves(_))
}
