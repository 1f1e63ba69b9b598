//! `haAdmin addMember`: an empty partition of the same domain joins a group (RULES 3.2, 3.3).
//!
//! ```text
//! home: ChangeManifest names the joiner -> home: Export credentials -> joiner: Adopt -> others: Join the manifest
//! -> repair until all hold the same (HA 4.7) -> the configuration
//! ```
//! Every step may be repeated; a run that was cut off is finished by running the command again.

use client::conf::{Configuration, Group, Serial};
use serde_json::json;
use spec::messages::{Adopt, Call, Join, StatusAnswer};
use spec::record::Manifest;
use zeroize::Zeroizing;

use crate::answer::{Answer, Failure};
use crate::arguments::AddMember;
use crate::asking::Asking;
use crate::census::{Census, Network};
use crate::gathered::Gathered;
use crate::members::{active, enter_group, manifest_of, named, newest, serials};
use crate::password;
use crate::place::{self, Place};

/// Adds the partition at the home, lets it adopt the group, tells the other members and writes the configuration.
pub(crate) fn run(
    place: &Place,
    network: &dyn Network,
    configuration: &Configuration,
    add: AddMember,
) -> Result<Answer, Failure> {
    let group = place::group(configuration, &add.group)?;
    let mut file = place.editable()?;
    let mut listed = group.members.clone();
    if !listed.contains(&add.serial) {
        listed.push(add.serial);
    }
    enter_group(place, &mut file, &group.label, group.serial, &listed)?;
    let mut census = Census::take(network, configuration);
    let manifest = newest(&mut census, &group.members, &group.label)?;
    let home = Serial(manifest.home);
    let status = Asking::new(census.needed(add.serial)?.appliance.as_mut(), add.serial).status()?;
    let adopted = refuse_unfit(&status, &manifest, group)?;
    census.needed(home)?;
    let secret = password::obtain(add.secret, &format!("the group {}", group.label))?;
    let ticket = login(&mut census, network, home, &secret)?;
    let mut joining = Joining { census: &mut census, network, manifest, home, ticket, serial: add.serial };
    if adopted {
        joining.name()?;
    } else {
        joining.adopt(&secret)?;
    }
    let mut complaints = joining.tell_others();
    let objects = joining.equalise(configuration);
    let (manifest, members) = (&joining.manifest, serials(&joining.manifest));
    enter_group(place, &mut file, &group.label, Serial(manifest.serial), &ordered(&listed, &members))?;
    file.save()?;
    let mut text = format!("Partition {} is a member of the HA group {}.\n", add.serial, group.label);
    match &objects {
        Ok(0) => {}
        Ok(count) => text.push_str(&format!("It holds {count} objects, like the others.\n")),
        Err(reason) => complaints.push(format!(
            "its contents are not complete yet: {reason}; an application that is logged in completes them, or run the command again"
        )),
    }
    let document = json!({
        "label": group.label, "serial": manifest.serial, "added": add.serial.0, "was_member": adopted,
        "members": members.iter().map(|serial| serial.0).collect::<Vec<_>>(), "objects": objects.ok(),
    });
    Ok(Answer { complaints, ..Answer::new(text, document) })
}

/// The members in this host's order of preference, then those it did not know.
fn ordered(listed: &[Serial], members: &[Serial]) -> Vec<Serial> {
    let known = listed.iter().filter(|serial| members.contains(serial));
    let new = members.iter().filter(|serial| !listed.contains(serial));
    known.chain(new).copied().collect()
}

/// Refuses a partition that cannot join. True when it has joined already.
fn refuse_unfit(status: &StatusAnswer, manifest: &Manifest, group: &Group) -> Result<bool, Failure> {
    let own = manifest_of(status.clone())?;
    if own.group == manifest.group {
        return Ok(true);
    }
    if named(&own) {
        let found = format!("it in the group {} with serial {}", own.label, own.serial);
        let wanted = format!("partition {} in no group", status.serial);
        return Err(Failure::new(
            wanted,
            found,
            format!("name another partition for the group {}", group.label),
        ));
    }
    if status.objects > 0 {
        let wanted = format!("partition {} empty, as a joining partition must be", status.serial);
        let found = format!("{} objects in it", status.objects);
        return Err(Failure::new(
            wanted,
            found,
            "name an empty partition, or create one with hsm partition create",
        ));
    }
    Ok(false)
}

fn login(
    census: &mut Census,
    network: &dyn Network,
    serial: Serial,
    secret: &Zeroizing<String>,
) -> Result<Vec<u8>, Failure> {
    let mut asking = Asking::new(census.needed(serial)?.appliance.as_mut(), serial);
    asking.login(secret, network.tag())?;
    Ok(asking.ticket())
}

/// A partition on its way into a group.
struct Joining<'a> {
    census: &'a mut Census,
    network: &'a dyn Network,
    manifest: Manifest,
    home: Serial,
    /// The Crypto Officer's ticket of the group.
    ticket: Vec<u8>,
    serial: Serial,
}

impl Joining<'_> {
    /// Names the partition in the manifest and lets it adopt manifest and credentials; takes the name out again when
    /// the partition refuses.
    fn adopt(&mut self, secret: &Zeroizing<String>) -> Result<(), Failure> {
        let own_ticket = login(self.census, self.network, self.serial, secret)?;
        let before = self.manifest.clone();
        self.name()?;
        let sealed = self.at(self.home)?.export()?;
        let adopt = Adopt {
            group: self.manifest.group.clone(),
            generation: self.manifest.generation,
            manifest: sealed.manifest,
            credentials: sealed.credentials,
        };
        let joiner = self.census.needed(self.serial)?;
        let adopted =
            Asking::with_ticket(joiner.appliance.as_mut(), self.serial, own_ticket).call(Call::Adopt(adopt));
        match adopted {
            Ok(_) => Ok(()),
            Err(failure) => {
                self.take_back(before);
                Err(failure)
            }
        }
    }

    /// Names the partition in the manifest unless it is named there; one that has left the group comes back so.
    fn name(&mut self) -> Result<(), Failure> {
        if serials(&self.manifest).contains(&self.serial) {
            return Ok(());
        }
        let mut wider = self.manifest.clone();
        wider.members.push(active(self.serial));
        let (epoch, tag) = (self.manifest.epoch, self.network.tag());
        self.manifest = self.at(self.home)?.change_manifest(epoch, wider, tag)?.0;
        Ok(())
    }

    /// Best effort: a manifest that still names the partition does no harm and the next run goes on from there.
    fn take_back(&mut self, before: Manifest) {
        let (epoch, tag) = (self.manifest.epoch, self.network.tag());
        if epoch == before.epoch {
            return;
        }
        if let Ok(mut home) = self.at(self.home)
            && let Ok((manifest, _)) = home.change_manifest(epoch, before, tag)
        {
            self.manifest = manifest;
        }
    }

    /// Gives the manifest to the other members; those that cannot be told now hear of it from the others.
    fn tell_others(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        let sealed = match self.at(self.home).and_then(|mut home| home.export()) {
            Ok(sealed) => sealed.manifest,
            Err(failure) => return vec![failure.0],
        };
        for serial in serials(&self.manifest) {
            if serial == self.home {
                continue;
            }
            let join = Join { manifest: sealed.clone(), ..Join::default() };
            if let Err(failure) = self.at(serial).and_then(|mut member| member.call(Call::Join(join))) {
                complaints.push(format!("member {serial} does not know of the new member yet: {failure}"));
            }
        }
        complaints
    }

    /// Lets the group's repair bring the new member what the others hold; gives the number of its objects.
    fn equalise(&mut self, configuration: &Configuration) -> Result<u64, String> {
        let standing = |census: &mut Census, serial: Serial| {
            let reached = census.needed(serial)?;
            Asking::new(reached.appliance.as_mut(), serial).status()
        };
        let told = |failure: Failure| failure.0;
        let home = standing(self.census, self.home).map_err(told)?;
        let joiner = standing(self.census, self.serial).map_err(told)?;
        if joiner.root == home.root && !joiner.recovering {
            return Ok(joiner.objects);
        }
        let (members, serial) = (serials(&self.manifest), Serial(self.manifest.serial));
        Gathered::of(self.network, configuration, &self.manifest.label, serial, &members)
            .map_err(told)?
            .equalise(&self.ticket)?;
        standing(self.census, self.serial).map(|status| status.objects).map_err(told)
    }

    /// A member, with the group's ticket.
    fn at(&mut self, serial: Serial) -> Result<Asking<'_>, Failure> {
        let reached = self.census.needed(serial)?;
        Ok(Asking::with_ticket(reached.appliance.as_mut(), serial, self.ticket.clone()))
    }
}

#[cfg(test)]
#[path = "add_member_tests.rs"]
mod tests;
