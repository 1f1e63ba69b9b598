//! Who the members are: a picture replaced as a whole when the manifest or this host's preferences change (HA 2.6).
use std::sync::Arc;

use spec::meter::News;
use spec::record::{Manifest, MemberRole};
use spec::seam::MemberId;

use crate::group::Group;
use crate::member::{Member, Seat};
use crate::settings::GroupSettings;

/// Who the members are.
pub(crate) struct View {
    /// The manifest with the greatest epoch seen.
    pub(crate) manifest: Option<Manifest>,
    /// The members.
    pub(crate) seats: Vec<Seat>,
}

impl View {
    /// The view before any manifest is known.
    pub(crate) fn of_configuration(settings: &GroupSettings, old: Option<&View>) -> View {
        let known = |id: MemberId| old.and_then(|old| old.member(id)).cloned();
        let seats = settings.members.iter().map(|id| {
            let member = known(*id).unwrap_or_else(|| Member::new(*id));
            seat(settings, member, MemberRole::Active, 100)
        });
        View { manifest: None, seats: seats.collect() }
    }

    /// The view of a manifest; members already known are kept.
    fn of_manifest(settings: &GroupSettings, old: &View, manifest: Manifest) -> View {
        let seats = match settings.serial {
            Some(_) => manifest
                .members
                .iter()
                .map(|entry| {
                    let id = MemberId(entry.serial);
                    let member = old.member(id).cloned().unwrap_or_else(|| Member::new(id));
                    seat(settings, member, entry.role(), entry.weight)
                })
                .collect(),
            None => View::of_configuration(settings, Some(old)).seats,
        };
        View { manifest: Some(manifest), seats }
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
        let _turn = self.view_turn.lock();
        let old = self.view().clone();
        // A single partition may join a group meanwhile; a group keeps its id (see `belongs`).
        let older = |known: &Manifest| known.group == manifest.group && age(known) >= age(manifest);
        if old.manifest.as_ref().is_some_and(older) {
            return;
        }
        let new = View::of_manifest(&self.settings(), &old, manifest.clone());
        tracing::info!(
            epoch = manifest.epoch,
            members = new.seats.len(),
            label = manifest.label,
            "the group's manifest is known"
        );
        self.announce(&old, &new);
        self.set_view(new);
    }

    /// Tells who has come and who has left.
    fn announce(&self, old: &View, new: &View) {
        let meter = self.settings().meter.clone();
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

    /// Seats the members anew after the settings have changed.
    pub(crate) fn reseat(&self) {
        let _turn = self.view_turn.lock();
        let old = self.view().clone();
        let settings = self.settings();
        let new = match &old.manifest {
            Some(manifest) => View::of_manifest(&settings, &old, manifest.clone()),
            None => View::of_configuration(&settings, Some(&old)),
        };
        self.announce(&old, &new);
        self.set_view(new);
    }
}
