//! Comparison and repair on demand, for `vtl haAdmin compare` and `synchronize` and for appliances among each other
//! (HA 4.6, 4.7).
use std::collections::BTreeSet;

use spec::seam::{MemberId, Standing};

use crate::desk::Desk;
use crate::error::Error;
use crate::group::Group;
use crate::lease::Asked;
use crate::member::{Member, Phase};
use crate::moves::{BUCKETS_AT_ONCE, Participant, union, ways};

/// How long a demanded repair waits for another repairer to end, in milliseconds.
const OTHER_REPAIRER_MS: u64 = 30_000;

/// One member beside the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// The member's serial number.
    pub member: u64,
    /// Why it could not be compared; the rest is then empty.
    pub absent: Option<String>,
    /// Live token objects, by its last answer to Status.
    pub objects: u64,
    /// Records in quarantine (HA 1.7).
    pub quarantined: u64,
    /// Buckets of 4,096 in which it differs from another member (HA 1.6).
    pub buckets: u64,
    /// Records that another member holds and it does not.
    pub missing: u64,
    /// Records that it and another member hold in different states.
    pub different: u64,
    /// Whether another member's credentials are newer (HA 2.7).
    pub credentials_behind: bool,
    /// Whether another member's manifest is newer (HA 2.6).
    pub manifest_behind: bool,
}

/// The members beside each other. Writes under way show as differences: what differs twice, some seconds apart, is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// One for each member of the group.
    pub members: Vec<Compared>,
    /// Records of which not every compared member holds the same state.
    pub records: u64,
}

impl Comparison {
    /// Whether every compared member holds the same objects, credentials and manifest.
    pub fn is_equal(&self) -> bool {
        let level = |one: &Compared| !one.credentials_behind && !one.manifest_behind && one.buckets == 0;
        self.records == 0 && self.members.iter().filter(|one| one.absent.is_none()).all(level)
    }
}

/// What a demanded repair did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Members that were compared.
    pub members: Vec<MemberId>,
    /// Members that could not be repaired, each with the reason.
    pub left_out: Vec<(MemberId, String)>,
    /// Records carried from one member to others; in a dry run, those that would be.
    pub moved: u64,
}

impl Group {
    /// Compares all members that can be reached. Sends nothing that changes anything; needs no ticket.
    /// `progress` hears how many of the buckets that differ are done.
    ///
    /// # Errors
    /// `Outage`, or what a member answered instead of digests.
    pub fn compare(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Comparison, Error> {
        self.look_at_all()?;
        let participants = self.participants();
        let differing = self.differing_buckets(&participants)?;
        let mut comparison = Comparison::default();
        for seat in &self.view().seats {
            comparison.members.push(self.compared(&seat.member, &participants));
        }
        let all: Vec<u16> = union(&differing).into_iter().collect();
        // A bucket in which the first participant differs from the others is one in which all of them differ from it.
        let mut buckets: Vec<BTreeSet<u16>> = differing;
        if let Some(first) = buckets.first_mut() {
            first.extend(&all);
        }
        let entry = |comparison: &mut Comparison, place: usize, change: &dyn Fn(&mut Compared)| {
            let id = participants[place].member.id.0;
            comparison.members.iter_mut().filter(|one| one.member == id).for_each(change);
        };
        for (place, own) in buckets.iter().enumerate() {
            entry(&mut comparison, place, &|one| one.buckets = own.len() as u64);
        }
        for (at, chunk) in all.chunks(BUCKETS_AT_ONCE).enumerate() {
            progress((at * BUCKETS_AT_ONCE) as u64, all.len() as u64);
            for held in self.states(&participants, chunk)?.into_values() {
                let states: BTreeSet<&Vec<u8>> = held.values().collect();
                if states.len() == 1 && held.len() == participants.len() {
                    continue;
                }
                comparison.records += 1;
                for place in 0..participants.len() {
                    match held.contains_key(&place) {
                        false => entry(&mut comparison, place, &|one| one.missing += 1),
                        true if states.len() > 1 => entry(&mut comparison, place, &|one| one.different += 1),
                        true => {}
                    }
                }
            }
        }
        progress(all.len() as u64, all.len() as u64);
        Ok(comparison)
    }

    /// Brings all members that can be reached to one state, as repair does by itself (HA 4.6); in a dry run only counts.
    /// `progress` hears how many buckets of how many are done. Demands a Crypto Officer's ticket (RULES 3.3).
    ///
    /// # Errors
    /// `Peer` when another repairer does not end within half a minute, when replication is switched off, or when a member
    /// fails; what the partition answered.
    pub fn synchronize(
        &self,
        ticket: &[u8],
        dry_run: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Summary, Error> {
        if !self.settings().synchronize {
            return Err(Error::Peer(
                "replication is switched off (HASynchronize = 0): switch it on to synchronise".to_owned(),
            ));
        }
        self.look_at_all()?;
        let mut participants = self.participants();
        let buckets: Vec<u16> = union(&self.differing_buckets(&participants)?).into_iter().collect();
        let mut summary = Summary::default();
        if dry_run {
            for (at, chunk) in buckets.chunks(BUCKETS_AT_ONCE).enumerate() {
                progress((at * BUCKETS_AT_ONCE) as u64, buckets.len() as u64);
                let states = self.states(&participants, chunk)?;
                summary.moved +=
                    ways(&states, participants.len()).values().map(|ouids| ouids.len() as u64).sum::<u64>();
            }
            progress(buckets.len() as u64, buckets.len() as u64);
        } else {
            summary.moved = self.repair_on_demand(&mut participants, &buckets, ticket, progress)?;
        }
        for one in &participants {
            match &one.failed {
                None => summary.members.push(one.member.id),
                Some(error) => summary.left_out.push((one.member.id, error.to_string())),
            }
        }
        for seat in &self.view().seats {
            let id = seat.member.id;
            if !participants.iter().any(|one| one.member.id == id) {
                summary.left_out.push((id, self.absence(&seat.member)));
            }
        }
        Ok(summary)
    }

    fn repair_on_demand(
        &self,
        participants: &mut [Participant],
        buckets: &[u16],
        ticket: &[u8],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64, Error> {
        let members = participants.iter().map(|one| one.member.clone()).collect::<Vec<_>>();
        let give_up = self.platform.now().after_ms(OTHER_REPAIRER_MS);
        let mut lease = loop {
            match self.take_lease(members.clone(), ticket)? {
                Asked::Granted(lease) => break lease,
                Asked::Taken(left_ms) if self.platform.now() >= give_up => {
                    return Err(Error::Peer(format!(
                        "another process repairs the group and holds the lease for {left_ms} ms: wait and repeat"
                    )));
                }
                Asked::Taken(left_ms) => {
                    self.ensure_open()?;
                    Desk::new(self).pause(self.jitter_ms(u64::from(left_ms).clamp(20, 1_000)));
                }
            }
        };
        let moved = self
            .move_all(participants, buckets, &mut lease, ticket, progress)
            .and_then(|moved| self.level(participants, ticket).map(|()| moved));
        self.give_back(lease, ticket);
        let moved = moved?;
        self.admit_all(participants, true);
        Ok(moved)
    }

    /// Judges every member that can be reached; errs when none can.
    fn look_at_all(&self) -> Result<(), Error> {
        let mut desk = Desk::new(self);
        drop(self.ready(&mut desk, self.deadline())?);
        self.look(&mut desk, true);
        Ok(())
    }

    fn compared(&self, member: &Member, participants: &[Participant]) -> Compared {
        let others = || participants.iter().map(|one| &one.member);
        let mut compared = Compared { member: member.id.0, ..Compared::default() };
        if !others().any(|other| other.id == member.id) {
            compared.absent = Some(self.absence(member));
            return compared;
        }
        if let Some(report) = member.report() {
            (compared.objects, compared.quarantined) = (report.objects, report.quarantined);
        }
        compared.credentials_behind =
            others().any(|other| other.credential_epoch() > member.credential_epoch());
        compared.manifest_behind = others().any(|other| other.manifest_age() > member.manifest_age());
        compared
    }

    /// Why a member takes no part.
    fn absence(&self, member: &Member) -> String {
        match self.seam.standing(member.id) {
            Standing::Down { reason } => reason,
            Standing::Up { since, .. } => match member.phase_on(since) {
                Phase::Refused => member.refusal(),
                Phase::Fresh | Phase::Recovering | Phase::Unverified | Phase::Admitted => {
                    format!("member {} has not answered in time", member.id)
                }
            },
        }
    }
}
