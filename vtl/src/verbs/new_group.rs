//! `haAdmin newGroup`: makes a group of one partition, its home, and names it in the configuration (RULES 3.3).

use client::conf::{Configuration, Serial};
use serde_json::json;
use spec::record::Manifest;

use crate::answer::{Answer, Failure};
use crate::arguments::NewGroup;
use crate::asking::Asking;
use crate::census::{Census, Network};
use crate::members::{active, enter_group, manifest_of, named, serials};
use crate::password;
use crate::place::Place;

/// Longest label: that of a token.
const LABEL_BYTES_MAX: usize = 32;

/// Makes the group, or, when the partition is in a group of that label already (made from another client), only names
/// it in this configuration. Everything that can be refused on this host is refused before the appliance is changed.
pub(crate) fn run(
    place: &Place,
    network: &dyn Network,
    configuration: &Configuration,
    new: NewGroup,
) -> Result<Answer, Failure> {
    let own_serial = Serial::of_group(new.serial).ok_or_else(|| {
        let found = new.serial.to_string();
        Failure::new(
            "a serial number that fits 64 bits with a 1 before it",
            found,
            "name the serial that vtl verify shows",
        )
    })?;
    if !(1..=LABEL_BYTES_MAX).contains(&new.label.len()) {
        let found = format!("{} bytes", new.label.len());
        return Err(Failure::new("a label of 1 to 32 bytes", found, "choose another label"));
    }
    if let Some(group) = configuration.group(&new.label)
        && !group.members.contains(&new.serial)
    {
        let found = format!("a group {} without it", group.label);
        let action = "choose another label, or add the partition with vtl haAdmin addMember";
        return Err(Failure::new(format!("no group, or one of partition {}", new.serial), found, action));
    }
    let mut file = place.editable()?;
    enter_group(place, &mut file, &new.label, own_serial, &[new.serial])?;
    let mut census = Census::take(network, configuration);
    let reached = census.needed(new.serial)?;
    let mut asking = Asking::new(reached.appliance.as_mut(), new.serial);
    let manifest = manifest_of(asking.status()?)?;
    refuse_other_group(&manifest, &new)?;
    let secret = password::obtain(new.secret, &format!("partition {}", new.serial))?;
    asking.login(&secret, network.tag())?;
    let made = !named(&manifest);
    let manifest = if made {
        let named = Manifest {
            serial: own_serial.0,
            label: new.label.clone(),
            members: vec![active(new.serial)],
            home: new.serial.0,
            ..manifest.clone()
        };
        asking.change_manifest(manifest.epoch, named, network.tag())?.0
    } else {
        manifest
    };
    let mut members = serials(&manifest);
    members.retain(|serial| *serial != new.serial);
    members.insert(0, new.serial);
    enter_group(place, &mut file, &new.label, Serial(manifest.serial), &members)?;
    file.save()?;
    let what = if made { "made" } else { "already there; the configuration names it now" };
    let text = format!("HA group {} with serial {} is {what}.\n", new.label, manifest.serial);
    let document = json!({
        "label": new.label, "serial": manifest.serial, "made": made, "home": manifest.home,
        "members": members.iter().map(|serial| serial.0).collect::<Vec<_>>(),
    });
    Ok(Answer::new(text, document))
}

fn refuse_other_group(manifest: &Manifest, new: &NewGroup) -> Result<(), Failure> {
    if !named(manifest) || manifest.label == new.label {
        return Ok(());
    }
    let found = format!("it in the group {} with serial {}", manifest.label, manifest.serial);
    let action = format!(
        "name another partition, or use the label {} to name that group on this host",
        manifest.label
    );
    Err(Failure::new(format!("partition {} in no group", new.serial), found, action))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::testing::{FIRST, Folder, World, secret};

    fn make(folder: &Folder, world: &World, label: &str, pin: &str) -> Result<Answer, Failure> {
        let new = NewGroup { serial: FIRST, label: label.to_owned(), secret: secret(pin) };
        run(&folder.place(), world, &folder.configuration(), new)
    }

    #[test]
    fn a_group_of_one_is_made_at_its_home_and_named_in_the_configuration() {
        let (folder, world) = (Folder::new(2), World::new(2, "pin"));
        let answer = make(&folder, &world, "prodha", "pin").unwrap();
        assert!(answer.good() && answer.document["made"] == true);
        let manifest = world.manifest(FIRST);
        assert_eq!((manifest.label.as_str(), manifest.home, manifest.epoch), ("prodha", FIRST.0, 2));
        assert_eq!(manifest.serial, 11_000_000_000_000);
        let configuration = folder.configuration();
        let group = configuration.group("prodha").unwrap();
        assert_eq!((group.serial, group.members.as_slice()), (Serial(11_000_000_000_000), &[FIRST][..]));
        assert!(group.synchronize);
        assert!(folder.text().contains("HASynchronize = {\n   prodha = 1;\n}"), "{}", folder.text());
    }

    #[test]
    fn a_wrong_password_changes_nothing_and_is_tried_once() {
        let (folder, world) = (Folder::new(1), World::new(1, "pin"));
        let before = folder.text();
        let failure = make(&folder, &world, "prodha", "wrong").unwrap_err();
        assert!(
            failure.0.contains("CKR_PIN_INCORRECT") && failure.0.contains("counts as a try"),
            "{failure}"
        );
        assert_eq!((folder.text(), world.tries(FIRST), world.manifest(FIRST).epoch), (before, 1, 1));
    }

    #[test]
    fn a_group_made_from_another_client_is_named_here_with_all_its_members() {
        let (folder, world) = (Folder::new(1), World::new(1, "pin"));
        world.set_group(FIRST, "prodha", &[Serial(5), FIRST]);
        let answer = make(&folder, &world, "prodha", "pin").unwrap();
        assert_eq!(answer.document["made"], false);
        assert_eq!(folder.configuration().groups[0].members, [FIRST, Serial(5)]);
    }

    #[test]
    fn a_partition_of_another_group_is_refused_before_the_password_is_tried() {
        let (folder, world) = (Folder::new(1), World::new(1, "pin"));
        world.set_group(FIRST, "other", &[FIRST]);
        let failure = make(&folder, &world, "prodha", "wrong").unwrap_err();
        assert!(failure.0.contains("found it in the group other"), "{failure}");
        assert_eq!(world.tries(FIRST), 0);
    }

    #[test]
    fn a_label_that_the_file_cannot_hold_is_refused_before_the_appliance_is_asked() {
        let (folder, world) = (Folder::new(1), World::new(1, "pin"));
        for label in ["a;b", "a=b", "123456789012345678901234567890123", ""] {
            let failure = make(&folder, &world, label, "pin").unwrap_err();
            assert!(failure.0.contains("wanted"), "{failure}");
        }
        assert_eq!((world.tries(FIRST), world.manifest(FIRST).epoch), (0, 1));
    }

    #[test]
    fn an_unreachable_partition_is_a_failure_that_names_what_was_seen() {
        let (folder, world) = (Folder::new(2), World::new(2, "pin"));
        world.stop("hsm0");
        let failure = make(&folder, &world, "prodha", "pin").unwrap_err();
        assert!(
            failure.0.contains("found the partitions 1000000000001 and server hsm0 cannot be reached"),
            "{failure}"
        );
    }
}
