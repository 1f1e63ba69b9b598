//! `haAdmin replaceMember`: an empty partition takes the place of a member, alive or lost (HA 2.6, 2.7).
//!
//! ```text
//! another home, if the old one is lost with it -> addMember -> role and weight of the old one, its place in this host's order
//! -> repair until all that answer hold the same -> removeMember
//! ```
//! The old member leaves only when the new one holds what the others hold: the group never has fewer copies than before.
//! A run that was cut off is finished by running the command again.

use client::conf::options::STANDBY_MEMBERS;
use client::conf::{Configuration, Group, Serial};
use ha::{Change, MemberState};
use serde_json::json;
use spec::record::{Manifest, ManifestMember};
use spec::seam::MemberId;
use zeroize::Zeroizing;

use super::add_member;
use super::membership::{list, no_member, remove, standby_key, successor, untold};
use crate::answer::{Answer, Failure};
use crate::arguments::{AddMember, RemoveMember, ReplaceMember, Secret};
use crate::census::Network;
use crate::gathered::Gathered;
use crate::members::{enter_group, serials};
use crate::password;
use crate::place::{self, Place};

/// See the head of this file.
pub(crate) fn run(
    place: &Place,
    network: &dyn Network,
    configuration: &Configuration,
    given: ReplaceMember,
) -> Result<Answer, Failure> {
    let group = place::group(configuration, &given.group)?;
    let (old, new) = (given.serial, given.new);
    if old == new {
        let wanted = "another partition in the place of the member";
        return Err(Failure::new(wanted, format!("{old} twice"), "name a new one with -newSerialNum"));
    }
    let gathered = Gathered::new(network, configuration, group)?;
    let manifest = gathered.manifest()?;
    let named = serials(&manifest);
    let is_left = !named.contains(&old) && !group.members.contains(&old);
    if is_left && !named.contains(&new) {
        return Err(no_member(old, group, &manifest));
    }
    let password = password::obtain(given.secret, &format!("the group {}", group.label))?;
    let ticket = gathered.login(&password)?;
    let answers = gathered
        .members()
        .iter()
        .any(|one| one.id.0 == old.0 && matches!(one.state, MemberState::Up | MemberState::Unverified));
    // A home that answers gives its role up when it leaves, once nothing can go wrong any more.
    if manifest.home == old.0 && !answers {
        gathered.promote(successor(&gathered, &manifest, old)?, &ticket)?;
    }
    drop(gathered);
    let secret = || Secret { password: Some(Zeroizing::clone(&password)) };
    let add = AddMember { group: given.group.clone(), serial: new, secret: secret() };
    let added = add_member::run(place, network, configuration, add)?;
    if added.document["objects"].is_null() {
        let wanted = format!("partition {new} with all that the group holds before {old} leaves");
        let found = added.complaints.join("; ");
        return Err(Failure::new(wanted, found, "run the command again: both are members until then"));
    }
    let widened = place.configuration()?;
    let mut complaints = added.complaints;
    if let Some(before) = manifest.members.iter().find(|member| member.serial == old.0) {
        complaints.extend(inherit(network, &widened, group, before, new, &password)?);
    }
    keep_order(place, group, old, new)?;
    if is_left {
        complaints.push(format!("{old} is no member of {}: nobody was removed", group.label));
    } else {
        let ordered = place.configuration()?;
        level(network, &ordered, group, old, &ticket)?;
        let gone = RemoveMember { group: given.group, serial: old, secret: secret() };
        complaints.extend(remove(place, network, &ordered, gone)?.complaints);
    }
    let after = Gathered::new(network, &place.configuration()?, group)?.manifest()?;
    let text = if is_left {
        format!("Partition {new} is a member of the HA group {}.\n", group.label)
    } else {
        format!(
            "Partition {new} has taken the place of {old} in the HA group {}; {old} still holds the group's keys until its \
             partition is deleted on its appliance.\n",
            group.label
        )
    };
    let document = json!({
        "label": group.label, "serial": group.serial.0, "removed": (!is_left).then_some(old.0), "added": new.0,
        "home": after.home,
        "members": serials(&after).iter().map(|serial| serial.0).collect::<Vec<_>>(),
        "objects": added.document["objects"],
    });
    Ok(Answer { complaints, ..Answer::new(text, document) })
}

/// The new member gets role and weight of the old one.
fn inherit(
    network: &dyn Network,
    configuration: &Configuration,
    group: &Group,
    before: &ManifestMember,
    new: Serial,
    password: &Zeroizing<String>,
) -> Result<Vec<String>, Failure> {
    let gathered = Gathered::new(network, configuration, place::group(configuration, &group.label)?)?;
    let manifest: Manifest = gathered.manifest()?;
    let member = MemberId(new.0);
    let Some(now) = manifest.members.iter().find(|one| one.serial == new.0) else {
        return Err(no_member(new, group, &manifest));
    };
    let (role, weight) = (now.role() != before.role(), now.weight != before.weight && before.weight > 0);
    let changes = [
        role.then(|| Change::Role { member, role: before.role() }),
        weight.then_some(Change::Weight { member, weight: before.weight }),
    ];
    let mut complaints = Vec::new();
    if role || weight {
        let ticket = gathered.login(password)?;
        for change in changes.into_iter().flatten() {
            complaints.extend(untold(&gathered.change(&change, &ticket)?));
        }
    }
    Ok(complaints)
}

/// Nothing that the old member alone holds is lost with it.
fn level(
    network: &dyn Network,
    configuration: &Configuration,
    group: &Group,
    old: Serial,
    ticket: &[u8],
) -> Result<(), Failure> {
    let gathered = Gathered::new(network, configuration, place::group(configuration, &group.label)?)?;
    gathered.manifest()?;
    gathered.equalise(ticket).map_err(|found| {
        let wanted = format!("the members level before {old} leaves");
        Failure::new(wanted, found, "run the command again: both are members until then")
    })
}

/// The new member stands where the old one stood in this host's order, and is a standby here if the old one was.
fn keep_order(place: &Place, before: &Group, old: Serial, new: Serial) -> Result<(), Failure> {
    let configuration = place.configuration()?;
    let after = place::group(&configuration, &before.label)?;
    let instead = |serial: &Serial| if *serial == old { new } else { *serial };
    // The old one, if it is there still, stands last.
    let mut members: Vec<Serial> = Vec::new();
    for serial in before.members.iter().map(instead).chain(after.members.iter().copied()) {
        if after.members.contains(&serial) && !members.contains(&serial) {
            members.push(serial);
        }
    }
    let mut file = place.editable()?;
    enter_group(place, &mut file, &after.label, after.serial, &members)?;
    if before.standby.contains(&old) {
        let standby = list(before.standby.iter().map(instead));
        file.document.set(STANDBY_MEMBERS.section, &standby_key(after), &standby)?;
    }
    file.save()?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use spec::record::MemberRole;

    use super::*;
    use crate::arguments::{Drain, Weight};
    use crate::testing::{FIRST, Folder, World, new_group_of, secret};
    use crate::verbs::membership;

    const SECOND: Serial = Serial(FIRST.0 + 1);
    const THIRD: Serial = Serial(FIRST.0 + 2);

    /// A group of the first two of three partitions, with some objects.
    fn two() -> (Folder, World) {
        let (folder, world) = new_group_of(3, &[SECOND]);
        [FIRST, SECOND].iter().for_each(|serial| world.put(*serial, 7));
        (folder, world)
    }

    fn replace(folder: &Folder, world: &World, old: Serial, new: Serial) -> Result<Answer, Failure> {
        let given = ReplaceMember { group: "prodha".to_owned(), serial: old, new, secret: secret("pin") };
        run(&folder.place(), world, &folder.configuration(), given)
    }

    #[test]
    fn the_founder_is_replaced_and_keys_role_weight_order_and_serial_stay() {
        let (folder, world) = two();
        let group = || "prodha".to_owned();
        let weight = Weight { group: group(), serial: FIRST, weight: 30, secret: secret("pin") };
        membership::weight(&world, &folder.configuration(), weight).unwrap();
        let drain = Drain { group: group(), serial: FIRST, end: false, secret: secret("pin") };
        membership::drain(&world, &folder.configuration(), drain).unwrap();
        let before = folder.configuration().groups[0].clone();
        let answer = replace(&folder, &world, FIRST, THIRD).unwrap();
        assert!(answer.good() && answer.complaints.is_empty(), "{answer:?}");
        assert!(answer.text.contains("has taken the place"), "{answer:?}");
        let after = folder.configuration().groups[0].clone();
        assert_eq!((after.serial, after.members), (before.serial, vec![THIRD, SECOND]));
        let manifest = world.manifest(SECOND);
        assert_eq!((manifest.home, serials(&manifest)), (SECOND.0, vec![SECOND, THIRD]));
        let third = manifest.members.iter().find(|one| one.serial == THIRD.0).unwrap();
        assert_eq!((third.role(), third.weight), (MemberRole::Draining, 30));
        assert_eq!(world.objects(THIRD), 1);
        // Finished already: repeating it changes nothing.
        let epoch = manifest.epoch;
        let again = replace(&folder, &world, FIRST, THIRD).unwrap();
        assert!(again.good() && again.complaints[0].contains("nobody was removed"), "{again:?}");
        assert!(again.document["removed"].is_null() && answer.document["removed"] == FIRST.0, "{again:?}");
        assert_eq!(world.manifest(SECOND).epoch, epoch);
    }

    #[test]
    fn what_the_old_member_alone_holds_is_not_lost_by_a_run_that_is_finished_later() {
        let (folder, world) = two();
        let add = AddMember { group: "prodha".to_owned(), serial: THIRD, secret: secret("pin") };
        add_member::run(&folder.place(), &world, &folder.configuration(), add).unwrap();
        world.put(SECOND, 9);
        assert!(replace(&folder, &world, SECOND, THIRD).unwrap().good());
        assert_eq!((world.objects(FIRST), world.objects(THIRD)), (2, 2));
        assert_eq!(folder.configuration().groups[0].members, [FIRST, THIRD]);
    }

    #[test]
    fn a_dead_member_is_replaced_too() {
        let (folder, world) = two();
        world.stop("hsm0");
        let answer = replace(&folder, &world, FIRST, THIRD).unwrap();
        assert!(answer.good(), "{answer:?}");
        assert_eq!(serials(&world.manifest(THIRD)), [SECOND, THIRD]);
        assert_eq!((world.manifest(THIRD).home, world.objects(THIRD)), (SECOND.0, 1));
        assert_eq!(folder.configuration().groups[0].members, [THIRD, SECOND]);
    }

    #[test]
    fn nobody_leaves_for_a_partition_that_cannot_join_or_is_the_same() {
        let (folder, world) = two();
        world.put(THIRD, 9);
        let failure = replace(&folder, &world, SECOND, THIRD).unwrap_err();
        assert!(failure.0.contains("empty"), "{failure}");
        let failure = replace(&folder, &world, SECOND, SECOND).unwrap_err();
        assert!(failure.0.contains("twice"), "{failure}");
        let failure = replace(&folder, &world, THIRD, Serial(FIRST.0 + 9)).unwrap_err();
        assert!(failure.0.contains("in the group prodha"), "{failure}");
        let failure = replace(&folder, &world, FIRST, THIRD).unwrap_err();
        assert!(failure.0.contains("empty"), "{failure}");
        assert_eq!(
            (serials(&world.manifest(FIRST)), world.manifest(FIRST).home),
            (vec![FIRST, SECOND], FIRST.0)
        );
        assert_eq!(folder.configuration().groups[0].members, [FIRST, SECOND]);
    }
}
