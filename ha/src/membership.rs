//! Membership at run time (HA 2.6, 2.7): the manifest changes by compare-and-set at the home and is spread to all.
//!
//! ```text
//! read the newest manifest -> apply the change -> ChangeManifest at the home --epoch met another one--> read again
//!                                                   | OK, the sealed manifest
//!                                                   v
//!                                            Join on every other member -> known here
//! promote: the same at the new home, after the newest credentials were joined there; the old one need not answer
//! ```
use std::sync::Arc;

use spec::messages::{Answer, Call, ChangeManifest, Export, Join};
use spec::record::{Manifest, ManifestMember, MemberRole};
use spec::seam::{MemberId, Standing};

use crate::body::Body;
use crate::desk::Desk;
use crate::error::Error;
use crate::group::Group;
use crate::member::Member;

/// How often a change is made anew after somebody else has changed the manifest.
const TRIES_MAX: usize = 5;
/// How long one request of a promotion may take, in milliseconds.
const STEP_MS: u64 = 10_000;
/// The weight of a member that nobody gave another one.
const WEIGHT: u32 = 100;

/// A change of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The partition becomes a member. It serves once it has adopted the group (RULES 3.3), with what
    /// [`Group::change_members`] returns.
    Add {
        /// The partition.
        member: MemberId,
        /// Its role.
        role: MemberRole,
    },
    /// The member leaves the group; what it is doing, it finishes.
    Remove(MemberId),
    /// The member's role changes.
    Role {
        /// The member.
        member: MemberId,
        /// Its new role.
        role: MemberRole,
    },
    /// The member's share of the load changes.
    Weight {
        /// The member.
        member: MemberId,
        /// Its new share, relative to the others; 100 is usual, 0 is refused.
        weight: u32,
    },
    /// Another member becomes the home (HA 2.7). The present home decides; without it, see [`Group::promote`].
    Home(MemberId),
    /// The group's label changes: the token label.
    Label(String),
}

/// The manifest after a change.
#[derive(Clone, Debug)]
pub struct Changed {
    /// In clear.
    pub manifest: Manifest,
    /// Sealed, for `Adopt` on a partition that was added.
    pub sealed: Vec<u8>,
    /// Members that could not be told: they take it over when they are repaired.
    pub untold: Vec<MemberId>,
}

impl Group {
    /// Changes the manifest at the home by compare-and-set and spreads it to all members (HA 2.6). Somebody else's change
    /// at the same time is taken into account; a change that holds already is done. Demands a Crypto Officer's ticket.
    ///
    /// # Errors
    /// `Peer` when the change makes no sense (a member that is none, the home removed); `Home` when the home cannot be
    /// reached; `EpochChanged` when others change the manifest all the time; what the partition answered.
    pub fn change_members(&self, change: &Change, ticket: &[u8]) -> Result<Changed, Error> {
        let mut desk = Desk::new(self);
        drop(self.ready(&mut desk, self.deadline())?);
        for _ in 0..TRIES_MAX {
            let view = self.view().clone();
            let home = self.home(&view)?;
            let manifest = known(&view)?;
            let wanted = applied(&manifest, change)?;
            match self.set_manifest(&home, &manifest, wanted, ticket) {
                Err(Error::EpochChanged) => self.look(&mut desk, true),
                other => return other,
            }
        }
        Err(Error::EpochChanged)
    }

    /// Makes a member the home (HA 2.7), by the present home when it can be reached, else at the new one itself: the
    /// newest credentials of the members that can be reached are joined there first. Demands a Crypto Officer's ticket.
    ///
    /// # Errors
    /// `Peer` when it is no member; `Home` when it cannot be reached; what the partition answered.
    pub fn promote(&self, home: MemberId, ticket: &[u8]) -> Result<Changed, Error> {
        let mut desk = Desk::new(self);
        drop(self.ready(&mut desk, self.deadline())?);
        self.look(&mut desk, true);
        let change = Change::Home(home);
        if self.home(&self.view()).is_ok_and(|old| old.is_writable(&*self.seam)) {
            match self.change_members(&change, ticket) {
                Err(error @ (Error::Home(_) | Error::OutcomeUnknown(_))) => {
                    tracing::warn!("the present home does not answer, the new one takes over: {error}");
                }
                other => return other,
            }
        }
        let view = self.view().clone();
        let manifest = known(&view)?;
        let wanted = applied(&manifest, &change)?;
        let new = view.member(home).ok_or_else(|| no_member(home))?;
        self.bring_level(new, ticket)?;
        self.set_manifest(new, &manifest, wanted, ticket)
    }

    /// Sets the manifest at one member and tells all the others.
    fn set_manifest(
        &self,
        home: &Arc<Member>,
        known: &Manifest,
        wanted: Manifest,
        ticket: &[u8],
    ) -> Result<Changed, Error> {
        let holds = wanted == *known;
        let change =
            ChangeManifest { expected_epoch: known.epoch, manifest: Some(wanted), tag: self.random_tag() };
        // What holds already is asked for again without a new epoch, so that a repeated command still spreads it.
        let answer = if holds {
            self.exported_manifest(home, known, ticket)?
        } else {
            let body = Body::of(&self.view(), ticket, Call::ChangeManifest(change));
            let asked = self.ask_member(&mut Desk::new(self), home, &body, self.deadline())?;
            let Answer::ChangeManifest(answer) = asked.answer else {
                return Err(odd(home.id, "ChangeManifest"));
            };
            (answer.manifest.ok_or_else(|| odd(home.id, "ChangeManifest"))?, answer.sealed)
        };
        let (manifest, sealed) = answer;
        let before = self.view().clone();
        self.learn(&manifest);
        let mut untold = Vec::new();
        // Those who leave are told too: they must know that they serve no more.
        let after = self.view().clone();
        let leaving = before.seats.iter().filter(|seat| after.member(seat.member.id).is_none());
        for member in after.seats.iter().chain(leaving).map(|seat| &seat.member) {
            if member.id != home.id && !self.tell_manifest(member, &sealed, ticket) {
                untold.push(member.id);
            }
        }
        Ok(Changed { manifest, sealed, untold })
    }

    /// Joins a sealed manifest on one member that can be reached; whether it took it.
    fn tell_manifest(&self, member: &Arc<Member>, sealed: &[u8], ticket: &[u8]) -> bool {
        if matches!(self.seam.standing(member.id), Standing::Down { .. }) {
            return false;
        }
        let join = Join { manifest: sealed.to_vec(), ..Join::default() };
        let body = Body::of(&self.view(), ticket, Call::Join(join));
        let deadline = self.platform.now().after_ms(STEP_MS);
        let told = self.ask_member(&mut Desk::new(self), member, &body, deadline);
        if let Err(error) = &told {
            tracing::warn!(member = %member.id, "the member could not be told of the group's change: {error}");
        }
        told.is_ok()
    }

    fn exported_manifest(
        &self,
        home: &Arc<Member>,
        known: &Manifest,
        ticket: &[u8],
    ) -> Result<(Manifest, Vec<u8>), Error> {
        let export = Export { manifest: true, ..Export::default() };
        let body = Body::of(&self.view(), ticket, Call::Export(export));
        match self.ask_member(&mut Desk::new(self), home, &body, self.deadline())?.answer {
            Answer::Export(answer) => Ok((known.clone(), answer.manifest)),
            _ => Err(odd(home.id, "Export")),
        }
    }

    /// Joins the newest credentials among the members that can be reached on one of them (HA 2.7).
    fn bring_level(&self, member: &Arc<Member>, ticket: &[u8]) -> Result<(), Error> {
        let view = self.view().clone();
        let reachable =
            view.seats.iter().map(|seat| &seat.member).filter(|other| other.is_writable(&*self.seam));
        let Some(newest) = reachable.max_by_key(|other| other.credential_epoch()) else { return Ok(()) };
        if newest.credential_epoch() <= member.credential_epoch() {
            return Ok(());
        }
        let deadline = self.platform.now().after_ms(STEP_MS);
        let export = Body::of(&view, ticket, Call::Export(Export { credentials: true, ..Export::default() }));
        let Answer::Export(answer) = self.ask_member(&mut Desk::new(self), newest, &export, deadline)?.answer
        else {
            return Err(odd(newest.id, "Export"));
        };
        let join = Join { credentials: answer.credentials, ..Join::default() };
        let body = Body::of(&view, ticket, Call::Join(join));
        self.ask_member(&mut Desk::new(self), member, &body, deadline).map(drop)
    }
}

fn known(view: &crate::view::View) -> Result<Manifest, Error> {
    view.manifest.clone().ok_or_else(|| {
        Error::NoGroup(
            "no member has told the group's manifest: make the group with vtl haAdmin newGroup".to_owned(),
        )
    })
}

fn odd(member: MemberId, call: &str) -> Error {
    Error::Peer(format!("member {member} answered {call} with something else"))
}

fn no_member(member: MemberId) -> Error {
    Error::Peer(format!("{member} is not a member of the group (vtl haAdmin show lists them)"))
}

/// The manifest with the change made in it.
fn applied(manifest: &Manifest, change: &Change) -> Result<Manifest, Error> {
    let mut wanted = manifest.clone();
    let entry = |wanted: &mut Manifest, id: MemberId, with: &dyn Fn(&mut ManifestMember)| {
        let found = wanted.members.iter_mut().find(|entry| entry.serial == id.0);
        found.map(with).ok_or_else(|| no_member(id))
    };
    match change {
        Change::Add { member, role } => {
            let set = |entry: &mut ManifestMember| entry.role = *role as i32;
            if entry(&mut wanted, *member, &set).is_err() {
                wanted.members.push(ManifestMember { serial: member.0, role: *role as i32, weight: WEIGHT });
            }
        }
        Change::Remove(member) if manifest.home == member.0 => {
            return Err(Error::Peer(format!(
                "{member} is the group's home: make another member the home first (vtl haAdmin promote)"
            )));
        }
        Change::Remove(member) => wanted.members.retain(|entry| entry.serial != member.0),
        Change::Role { member, role } => entry(&mut wanted, *member, &|entry| entry.role = *role as i32)?,
        Change::Weight { weight: 0, .. } => {
            return Err(Error::Peer("a weight of 0 was given: give one from 1 upwards".to_owned()));
        }
        Change::Weight { member, weight } => entry(&mut wanted, *member, &|entry| entry.weight = *weight)?,
        Change::Home(member) => {
            entry(&mut wanted, *member, &|_| {})?;
            wanted.home = member.0;
        }
        Change::Label(label) => wanted.label.clone_from(label),
    }
    Ok(wanted)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let member = |serial| ManifestMember { serial, role: 0, weight: WEIGHT };
        Manifest { members: (1..=3).map(member).collect(), home: 1, epoch: 4, ..Manifest::default() }
    }

    #[test]
    fn a_change_names_a_member_and_the_home_is_not_removed() {
        let role = MemberRole::Draining;
        let strange = MemberId(9);
        for change in [
            Change::Role { member: strange, role },
            Change::Weight { member: strange, weight: 5 },
            Change::Weight { member: MemberId(1), weight: 0 },
            Change::Home(strange),
            Change::Remove(MemberId(1)),
        ] {
            assert!(matches!(applied(&manifest(), &change), Err(Error::Peer(_))), "{change:?}");
        }
        assert_eq!(applied(&manifest(), &Change::Remove(strange)).unwrap(), manifest());
    }

    #[test]
    fn each_change_changes_its_own_field() {
        let changed = |change| applied(&manifest(), &change).unwrap();
        assert_eq!(changed(Change::Remove(MemberId(3))).members.len(), 2);
        let added = changed(Change::Add { member: MemberId(4), role: MemberRole::Standby });
        assert_eq!((added.members.len(), added.members[3].role()), (4, MemberRole::Standby));
        let again = changed(Change::Add { member: MemberId(3), role: MemberRole::Active });
        assert_eq!(again, manifest());
        let role = changed(Change::Role { member: MemberId(2), role: MemberRole::Draining });
        assert_eq!(role.members[1].role(), MemberRole::Draining);
        assert_eq!(changed(Change::Weight { member: MemberId(2), weight: 7 }).members[1].weight, 7);
        assert_eq!(changed(Change::Home(MemberId(2))).home, 2);
        assert_eq!(changed(Change::Label("new".to_owned())).label, "new");
    }
}
