//! Who the members are: a picture replaced as a whole when the manifest or this host's preferences change (HA 2.6).
use std::sync::Arc;

use spec::meter::News;
use spec::record::{Manifest, MemberRole};
use spec::seam::MemberId;

use crate::debt::Debts;
use crate::group::Group;
use crate::member::{Member, Seat};
use crate::settings::GroupSettings;

/// Of so many partitions that have left the group it is kept what they owe.
const LEFT_MAX: usize = 8;

/// Who the members are.
pub(crate) struct View {
    /// Counts the views of the group.
    pub(crate) number: u64,
    /// The settings in force.
    pub(crate) settings: Arc<GroupSettings>,
    /// The manifest with the greatest epoch seen.
    pub(crate) manifest: Option<Manifest>,
    /// The members.
    pub(crate) seats: Vec<Seat>,
    /// What partitions owe that have left the group, the last to leave last: they may be added again with their old stores.
    left: Vec<(MemberId, Arc<Debts>)>,
    /// How many of the members a write may have left out at most that was acknowledged before this view was: those that
    /// have left the group since may be who holds it (HA 2.2, 3.1).
    pub(crate) left_out: usize,
}

impl View {
    /// The view before any manifest is known.
    pub(crate) fn of_configuration(settings: Arc<GroupSettings>, old: Option<&View>) -> View {
        let seats = settings.members.iter().map(|id| {
            let member = old.map_or_else(|| Member::new(*id), |old| old.member_to_be(*id));
            seat(&settings, member, MemberRole::Active, 100)
        });
        let seats: Vec<Seat> = seats.collect();
        let (number, left_out) = old.map_or((0, 0), |old| (old.number + 1, old.left_out()));
        let left = old.map_or_else(Vec::new, |old| old.left_by(&seats));
        View { number, settings, manifest: None, seats, left, left_out }
    }

    /// The view of a manifest; members already known are kept.
    pub(crate) fn of_manifest(settings: Arc<GroupSettings>, old: &View, manifest: Manifest) -> View {
        let seats = match settings.serial {
            Some(_) => manifest
                .members
                .iter()
                .map(|entry| {
                    let member = old.member_to_be(MemberId(entry.serial));
                    seat(&settings, member, entry.role(), entry.weight)
                })
                .collect(),
            None => View::of_configuration(settings.clone(), Some(old)).seats,
        };
        let (number, left_out) = (old.number + 1, old.left_out());
        let left = if old.is_before(&manifest) { Vec::new() } else { old.left_by(&seats) };
        View { number, settings, manifest: Some(manifest), seats, left, left_out }
    }

    /// The same members, of which no acknowledged write has left one out so far.
    pub(crate) fn with_none_left_out(&self) -> View {
        View {
            number: self.number + 1,
            settings: self.settings.clone(),
            manifest: self.manifest.clone(),
            seats: self.seats.clone(),
            left: self.left.clone(),
            left_out: 0,
        }
    }

    /// The member of this id in the view that follows: this one's, or a new one, which owes what it owed when it left.
    fn member_to_be(&self, id: MemberId) -> Arc<Member> {
        self.member(id).cloned().unwrap_or_else(|| {
            let owed = self.left.iter().find(|(left, _)| *left == id).map(|(_, debts)| debts.clone());
            Member::with_debts(id, owed.unwrap_or_default())
        })
    }

    /// Whether the manifest is of another group or generation: nothing that was written before it is there any more.
    fn is_before(&self, manifest: &Manifest) -> bool {
        let is_other =
            |old: &Manifest| (old.generation, &old.group) != (manifest.generation, &manifest.group);
        self.manifest.as_ref().is_some_and(is_other)
    }

    /// What those owe who are not among the members that follow. Calls of before may still add to it; where more partitions have
    /// left than are kept, those are forgotten first that owed nothing.
    fn left_by(&self, seats: &[Seat]) -> Vec<(MemberId, Arc<Debts>)> {
        let now = self.seats.iter().map(|seat| (seat.member.id, seat.member.debts.clone()));
        let mut left: Vec<_> = self.left.iter().cloned().chain(now).collect();
        left.retain(|(id, _)| !seats.iter().any(|seat| seat.member.id == *id));
        while left.len() > LEFT_MAX {
            let forgotten = left.iter().position(|(_, debts)| debts.number() == 0).unwrap_or(0);
            let (member, debts) = left.remove(forgotten);
            if debts.number() > 0 {
                tracing::warn!(
                    %member, writes = debts.number(),
                    "more than {LEFT_MAX} partitions have left the group while they lacked writes: what this one lacks is \
                     forgotten; empty it before it is added again (hsm partition)"
                );
            }
        }
        left
    }

    /// The copies that a write needs (HA 2.2).
    pub(crate) fn copies_wanted(&self) -> usize {
        if self.settings.synchronize { self.settings.minimum.wanted(self.seats.len()) } else { 1 }
    }

    /// How many of the members an acknowledged write may have left out (HA 2.2), in this group and in those that it was
    /// before its members were last found to hold the same.
    pub(crate) fn left_out(&self) -> usize {
        self.left_out.max(self.seats.len().saturating_sub(self.copies_wanted()))
    }

    /// The home member's serial number.
    pub(crate) fn home(&self) -> Option<MemberId> {
        self.manifest.as_ref().map(|manifest| MemberId(manifest.home))
    }

    /// The group's id; empty before the manifest is known.
    pub(crate) fn group(&self) -> &[u8] {
        self.manifest.as_ref().map_or(&[], |manifest| &manifest.group)
    }

    /// The group's generation (RULES 2.9); 0 before the manifest is known.
    pub(crate) fn generation(&self) -> u64 {
        self.manifest.as_ref().map_or(0, |manifest| manifest.generation)
    }

    /// The manifest's epoch; 0 before it is known.
    pub(crate) fn epoch(&self) -> u64 {
        self.manifest.as_ref().map_or(0, |manifest| manifest.epoch)
    }

    /// The member of this id.
    pub(crate) fn member(&self, id: MemberId) -> Option<&Arc<Member>> {
        self.seats.iter().map(|seat| &seat.member).find(|member| member.id == id)
    }
}

/// How new a manifest is: the greater generation wins, then the greater epoch, then the greater tag, so that two changes of
/// one epoch end in one manifest everywhere (HA 2.6).
pub(crate) fn age(manifest: &Manifest) -> (u64, u64, Vec<u8>) {
    (manifest.generation, manifest.epoch, manifest.tag.clone())
}

/// A member's seat with this host's preferences.
fn seat(settings: &GroupSettings, member: Arc<Member>, role: MemberRole, weight: u32) -> Seat {
    let standby = role == MemberRole::Active && settings.standby.contains(&member.id);
    let preference = settings.members.iter().position(|id| *id == member.id).unwrap_or(usize::MAX);
    let role = if standby { MemberRole::Standby } else { role };
    Seat { member, role, weight, preference }
}

impl Group {
    /// Takes a manifest over when it is newer than the one known (see [`age`]).
    pub(crate) fn learn(&self, manifest: &Manifest) {
        self.snapshot.learn(manifest, |old, new| {
            tracing::info!(
                epoch = manifest.epoch,
                members = new.seats.len(),
                label = manifest.label,
                "the group's manifest is known"
            );
            let members = new.seats.iter().map(|seat| &seat.member);
            if old.is_before(manifest) {
                members.for_each(|member| {
                    member.debts.clear();
                    member.set_late(false);
                });
            } else if old.manifest.is_some() && self.has_begun_to_write() {
                // What this process has written under the manifest that was known, those lack who were not in it.
                members
                    .filter(|member| old.member(member.id).is_none())
                    .for_each(|member| member.set_late(true));
            }
            self.announce(old, new);
        });
    }

    /// Tells who has come and who has left.
    pub(crate) fn announce(&self, old: &View, new: &View) {
        let meter = &new.settings.meter;
        for gone in old.seats.iter().map(|seat| seat.member.id).filter(|id| new.member(*id).is_none()) {
            if old.manifest.is_some() {
                tracing::info!(member = %gone, "the member has left the group");
                meter.news(&News::Left { member: gone });
            } else {
                tracing::warn!(
                    member = %gone,
                    "the configuration names a member that the group's manifest does not: it is not used \
                     (vtl haAdmin addMember makes it one)"
                );
            }
        }
        for come in new.seats.iter().map(|seat| seat.member.id).filter(|id| old.member(*id).is_none()) {
            tracing::info!(member = %come, "the member has come to the group");
            meter.news(&News::Joined { member: come });
        }
    }
}
