//! A group's manifest and its entry in the configuration.

use client::conf::document::{Entry, index_of, indexed_key};
use client::conf::options::{GROUP_LABEL, GROUP_MEMBERS, GROUP_SERIAL, SYNCHRONIZE};
use client::conf::{Configuration, EditableFile, Serial};
use spec::messages::StatusAnswer;
use spec::record::{Manifest, ManifestMember, MemberRole};

use crate::answer::Failure;
use crate::asking::Asking;
use crate::census::Census;
use crate::place::Place;

/// Weight of a member that takes an equal share.
pub(crate) const USUAL_WEIGHT: u32 = 100;

/// An active member with the usual weight.
pub(crate) fn active(serial: Serial) -> ManifestMember {
    ManifestMember { serial: serial.0, role: MemberRole::Active as i32, weight: USUAL_WEIGHT }
}

/// The members' serials in the manifest's order.
pub(crate) fn serials(manifest: &Manifest) -> Vec<Serial> {
    manifest.members.iter().map(|member| Serial(member.serial)).collect()
}

/// Whether a group has been made of the partition: it has a name besides those it was born with.
pub(crate) fn named(manifest: &Manifest) -> bool {
    manifest.serial != 0 && !manifest.label.is_empty()
}

/// The manifest in a partition's standing. Errs for an appliance that tells none.
pub(crate) fn manifest_of(status: StatusAnswer) -> Result<Manifest, Failure> {
    let serial = status.serial;
    status.manifest.ok_or_else(|| {
        let wanted = format!("a manifest in the standing of partition {serial}");
        Failure::new(wanted, "none", "see that the appliance is of a release that works together with vtl")
    })
}

/// The newest manifest among the members that can be reached. Errs when none can.
pub(crate) fn newest(census: &mut Census, members: &[Serial], label: &str) -> Result<Manifest, Failure> {
    let mut newest: Option<Manifest> = None;
    for serial in members {
        let Some(reached) = census.holder(*serial) else { continue };
        let Ok(status) = Asking::new(reached.appliance.as_mut(), *serial).status() else { continue };
        let Some(manifest) = status.manifest.filter(named) else { continue };
        if newest.as_ref().is_none_or(|other| other.epoch < manifest.epoch) {
            newest = Some(manifest);
        }
    }
    newest.ok_or_else(|| {
        let mut found = "none that answers with one".to_owned();
        for unreachable in &census.unreachable {
            found = format!("{found}, {}", unreachable.complaint());
        }
        let wanted = format!("a member of the group {label} with the group's manifest");
        Failure::new(wanted, found, "see that its servers run; a group is made with vtl haAdmin newGroup")
    })
}

/// Puts a group into the configuration, or brings its entry up to date; nothing is saved yet. Errs when the result
/// would be refused on reading, so that this is known before an appliance is changed.
pub(crate) fn enter_group(
    place: &Place,
    file: &mut EditableFile,
    label: &str,
    serial: Serial,
    members: &[Serial],
) -> Result<(), Failure> {
    let section = GROUP_LABEL.section;
    let known = |entry: &&Entry| {
        entry.section.eq_ignore_ascii_case(section) && entry.value.eq_ignore_ascii_case(label)
    };
    let index = file.document.entries().filter(known).find_map(|entry| index_of(GROUP_LABEL.key, &entry.key));
    let patterns = [GROUP_LABEL.key, GROUP_SERIAL.key, GROUP_MEMBERS.key];
    let index = index.or_else(|| file.document.next_index(section, &patterns)).ok_or_else(|| {
        Failure::new(
            "a free number for the group",
            "100 groups in the configuration",
            "remove one that is not used",
        )
    })?;
    let list = members.iter().map(Serial::to_string).collect::<Vec<_>>().join(", ");
    file.document.set(section, &indexed_key(GROUP_LABEL.key, index), label)?;
    file.document.set(section, &indexed_key(GROUP_SERIAL.key, index), &serial.to_string())?;
    file.document.set(section, &indexed_key(GROUP_MEMBERS.key, index), &list)?;
    if file.document.value(SYNCHRONIZE.section, label).is_none() {
        file.document.set(SYNCHRONIZE.section, label, "1")?;
    }
    Configuration::from_bytes(file.document.to_text().as_bytes(), &place.file())?;
    Ok(())
}
