//! The verbs behind `haAdmin` that change the group's manifest: `removeMember`, `promote`, `drain`, `weight`, and the
//! standby role (HA 2.6, 2.7).
//!
//! ```text
//! what this host can refuse -> the manifest at the home (compare-and-set, told to all members) -> the configuration
//! ```
//! A run that was cut off is finished by running the command again: a change that holds already is only spread.

use client::conf::options::STANDBY_MEMBERS;
use client::conf::{Configuration, Group, Serial};
use ha::{Change, Changed, MemberState};
use serde_json::json;
use spec::record::{Manifest, ManifestMember, MemberRole};
use spec::seam::MemberId;

use crate::answer::{Answer, Failure};
use crate::arguments::{Drain, Promote, RemoveMember, Secret, Standby, Weight};
use crate::census::Network;
use crate::gathered::Gathered;
use crate::members::{enter_group, serials};
use crate::password;
use crate::place::{self, Place};

/// `removeMember`: out of the manifest, then out of the configuration. When the home goes, another member becomes the home
/// first. Serial number and slot of the group stay, also when its first member goes.
pub(crate) fn remove(
    place: &Place,
    network: &dyn Network,
    configuration: &Configuration,
    remove: RemoveMember,
) -> Result<Answer, Failure> {
    let group = place::group(configuration, &remove.group)?;
    let left: Vec<Serial> = group.members.iter().copied().filter(|one| *one != remove.serial).collect();
    let gathered = Gathered::new(network, configuration, group)?;
    let manifest = gathered.manifest()?;
    let (named, listed) = (serials(&manifest).contains(&remove.serial), left.len() < group.members.len());
    if !named && !listed {
        return Err(no_member(remove.serial, group, &manifest));
    }
    if serials(&manifest).iter().all(|one| *one == remove.serial) || left.is_empty() {
        let wanted = format!("another member of the group {} that stays", group.label);
        return Err(Failure::new(wanted, "none", "take the whole group out with vtl haAdmin deleteGroup"));
    }
    let mut file = place.editable()?;
    file.document.set(
        STANDBY_MEMBERS.section,
        &standby_key(group),
        &list(group.standby.iter().copied().filter(|one| *one != remove.serial)),
    )?;
    enter_group(place, &mut file, &group.label, group.serial, &left)?;
    let (mut untold, mut home) = (Vec::new(), Serial(manifest.home));
    if named {
        let secret = password::obtain(remove.secret, &format!("the group {}", group.label))?;
        let ticket = gathered.login(&secret)?;
        if manifest.home == remove.serial.0 {
            home = successor(&gathered, &manifest, remove.serial)?;
            gathered.promote(home, &ticket)?;
        }
        let changed = gathered.change(&Change::Remove(MemberId(remove.serial.0)), &ticket)?;
        untold = untold_but(&changed, remove.serial);
    }
    if group.standby.iter().all(|one| *one == remove.serial) {
        file.document.remove(STANDBY_MEMBERS.section, &standby_key(group));
    }
    file.save()?;
    let text = format!(
        "Partition {} is no member of the HA group {} any more; it still holds the group's keys until its partition is deleted on its appliance.\n",
        remove.serial, group.label
    );
    let document = json!({
        "label": group.label, "serial": group.serial.0, "removed": remove.serial.0, "home": home.0,
        "members": left.iter().map(|serial| serial.0).collect::<Vec<_>>(),
    });
    Ok(Answer { complaints: untold, ..Answer::new(text, document) })
}

/// `promote`.
pub(crate) fn promote(
    network: &dyn Network,
    configuration: &Configuration,
    promote: Promote,
) -> Result<Answer, Failure> {
    let group = place::group(configuration, &promote.group)?;
    let gathered = Gathered::new(network, configuration, group)?;
    let before = gathered.manifest()?;
    member(&before, promote.serial, group)?;
    let secret = password::obtain(promote.secret, &format!("the group {}", group.label))?;
    let changed = gathered.promote(promote.serial, &gathered.login(&secret)?)?;
    let text = format!("Member {} is the home of the HA group {}.\n", promote.serial, group.label);
    let document = json!({
        "label": group.label, "home": changed.manifest.home, "home_before": before.home,
        "manifest_epoch": changed.manifest.epoch,
    });
    let mut answer = Answer { complaints: untold(&changed), ..Answer::new(text, document) };
    if before.home != promote.serial.0 && changed.untold.contains(&MemberId(before.home)) {
        answer.complaints.push(format!(
            "the old home {} could not be told: until it can, nobody may change PINs or members through it",
            before.home
        ));
    }
    Ok(answer)
}

/// `drain` and `drain -end`.
pub(crate) fn drain(
    network: &dyn Network,
    configuration: &Configuration,
    drain: Drain,
) -> Result<Answer, Failure> {
    let role = if drain.end { MemberRole::Active } else { MemberRole::Draining };
    set_role(network, configuration, &drain.group, drain.serial, role, drain.secret)
}

/// `weight`.
pub(crate) fn weight(
    network: &dyn Network,
    configuration: &Configuration,
    weight: Weight,
) -> Result<Answer, Failure> {
    let change = Change::Weight { member: MemberId(weight.serial.0), weight: weight.weight };
    let (group, changed) =
        change_member(network, configuration, &weight.group, weight.serial, &change, weight.secret)?;
    let text = format!("Member {} of {} has the weight {}.\n", weight.serial, group.label, weight.weight);
    let document = json!({
        "label": group.label, "member": weight.serial.0, "weight": weight.weight,
        "manifest_epoch": changed.manifest.epoch,
    });
    Ok(Answer { complaints: untold(&changed), ..Answer::new(text, document) })
}

/// `addStandby`, `removeStandby` and `standbyMembers`: for this host alone in the configuration, or for every host in the
/// manifest.
pub(crate) fn standby(
    place: &Place,
    network: Option<&dyn Network>,
    configuration: &Configuration,
    given: Standby,
    standby: bool,
) -> Result<Answer, Failure> {
    if let Some(network) = network {
        let role = if standby { MemberRole::Standby } else { MemberRole::Active };
        return set_role(network, configuration, &given.group, given.serial, role, given.secret);
    }
    let group = place::group(configuration, &given.group)?;
    let mut wanted: Vec<Serial> = group.standby.iter().copied().filter(|one| *one != given.serial).collect();
    if !group.members.contains(&given.serial) {
        let found = list(group.members.iter().copied());
        let wanted = format!("{} among the members of {} on this host", given.serial, group.label);
        return Err(Failure::new(wanted, found, "name one of them"));
    }
    if standby {
        wanted.push(given.serial);
    }
    if group.members.iter().all(|one| wanted.contains(one)) {
        let found = "every member as a standby";
        return Err(Failure::new("a regular member that stays", found, "leave at least one regular member"));
    }
    place.change(|_, document| {
        match wanted.as_slice() {
            [] => {
                document.remove(STANDBY_MEMBERS.section, &standby_key(group));
            }
            some => {
                document.set(STANDBY_MEMBERS.section, &standby_key(group), &list(some.iter().copied()))?;
            }
        }
        Ok(())
    })?;
    let what = if standby { "a standby" } else { "a regular member" };
    let text = format!("Member {} of {} is {what} for this host.\n", given.serial, group.label);
    let document = json!({
        "label": group.label, "member": given.serial.0, "everywhere": false,
        "standby_members": wanted.iter().map(|serial| serial.0).collect::<Vec<_>>(),
    });
    Ok(Answer::new(text, document))
}

fn set_role(
    network: &dyn Network,
    configuration: &Configuration,
    group: &str,
    serial: Serial,
    role: MemberRole,
    secret: Secret,
) -> Result<Answer, Failure> {
    let change = Change::Role { member: MemberId(serial.0), role };
    let (group, changed) = change_member(network, configuration, group, serial, &change, secret)?;
    let word = role_word(role);
    let text = format!("Member {serial} of {} is {word} for every host.\n", group.label);
    let document = json!({
        "label": group.label, "member": serial.0, "role": word, "everywhere": true,
        "manifest_epoch": changed.manifest.epoch,
    });
    let mut answer = Answer { complaints: untold(&changed), ..Answer::new(text, document) };
    if !changed.manifest.members.iter().any(|member| member.role() == MemberRole::Active) {
        answer.complaints.push("the group has no active member now: its standbys serve".to_owned());
    }
    Ok(answer)
}

/// One change about one member that there is.
fn change_member<'a>(
    network: &dyn Network,
    configuration: &'a Configuration,
    group: &str,
    serial: Serial,
    change: &Change,
    secret: Secret,
) -> Result<(&'a Group, Changed), Failure> {
    let group = place::group(configuration, group)?;
    let gathered = Gathered::new(network, configuration, group)?;
    member(&gathered.manifest()?, serial, group)?;
    let secret = password::obtain(secret, &format!("the group {}", group.label))?;
    let changed = gathered.change(change, &gathered.login(&secret)?)?;
    Ok((group, changed))
}

/// The role's word for people and programs.
pub(crate) fn role_word(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Active => "active",
        MemberRole::Standby => "standby",
        MemberRole::Draining => "draining",
    }
}

/// The member that becomes the home when the home goes: the first active one that is in use, else any that is.
pub(super) fn successor(
    gathered: &Gathered,
    manifest: &Manifest,
    leaving: Serial,
) -> Result<Serial, Failure> {
    let members = gathered.members();
    let candidates = || {
        members.iter().filter(|one| {
            one.id.0 != leaving.0 && matches!(one.state, MemberState::Up | MemberState::Unverified)
        })
    };
    let found = candidates().find(|one| one.role == MemberRole::Active).or_else(|| candidates().next());
    found.map(|one| Serial(one.id.0)).ok_or_else(|| {
        let wanted = format!("a member in use that becomes the home instead of {leaving}");
        let found = format!("none among {}", list(serials(manifest).into_iter()));
        Failure::new(wanted, found, "see that another member runs (vtl haAdmin show)")
    })
}

fn member<'a>(manifest: &'a Manifest, serial: Serial, group: &Group) -> Result<&'a ManifestMember, Failure> {
    let found = manifest.members.iter().find(|member| member.serial == serial.0);
    found.ok_or_else(|| no_member(serial, group, manifest))
}

pub(super) fn no_member(serial: Serial, group: &Group, manifest: &Manifest) -> Failure {
    let found = format!("the members {}", list(serials(manifest).into_iter()));
    Failure::new(format!("{serial} in the group {}", group.label), found, "name one of them")
}

pub(super) fn untold(changed: &Changed) -> Vec<String> {
    let sentence = |member: &MemberId| {
        format!("member {member} could not be told of the change; it hears of it when it is repaired")
    };
    changed.untold.iter().map(sentence).collect()
}

/// The same without a member that has left: nobody needs it to know.
fn untold_but(changed: &Changed, gone: Serial) -> Vec<String> {
    let rest = changed.untold.iter().copied().filter(|member| member.0 != gone.0).collect();
    untold(&Changed { untold: rest, ..changed.clone() })
}

pub(super) fn standby_key(group: &Group) -> String {
    STANDBY_MEMBERS.key.replace("<label>", &group.label)
}

pub(super) fn list(serials: impl Iterator<Item = Serial>) -> String {
    serials.map(|serial| serial.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
