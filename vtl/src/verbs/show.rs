//! `haAdmin show`: the groups, their members, and whether the members hold the same.

use std::collections::BTreeSet;
use std::fmt::Write;

use client::conf::{Configuration, Group, Serial};
use comfy_table::{Table, presets};
use serde::Serialize;
use spec::MechanismType;
use spec::messages::StatusAnswer;
use spec::record::Manifest;

use super::membership::role_word;

use crate::answer::{Answer, Failure, exit};
use crate::asking::Asking;
use crate::census::{Census, Network};
use crate::global::{Global, enabled, line, yes};
use crate::members::named;
use crate::slots::{Slots, number};

#[derive(Serialize)]
struct Document {
    global: Global,
    groups: Vec<GroupView>,
}

#[derive(Serialize)]
struct GroupView {
    label: String,
    number: u64,
    slot: Option<usize>,
    synchronization: bool,
    members: Vec<MemberView>,
    standby_members: Vec<u64>,
    /// None while not every member can be asked.
    needs_sync: Option<bool>,
    /// Whether all members that answer hold the same.
    equal_contents: bool,
    home: Option<u64>,
    manifest_epoch: Option<u64>,
}

#[derive(Serialize)]
struct MemberView {
    slot: Option<usize>,
    serial: u64,
    label: Option<String>,
    status: &'static str,
    role: Option<&'static str>,
    /// Whether this host's configuration makes it a standby, whatever its role.
    standby_here: bool,
    /// Its share of the load; 100 is usual.
    weight: Option<u32>,
    home: bool,
    /// Whether it holds what the reference holds: the home, or the first member that answers.
    equal: Option<bool>,
    seq: Option<u64>,
    objects: Option<u64>,
    root: Option<String>,
    /// Records of which two versions were seen that cannot both be right (HA 1.7).
    quarantined: Option<u64>,
    /// Mechanisms that another member offers and this one does not: requests for them go to the others.
    lacks: Vec<String>,
    software: Option<String>,
    /// When the certificate of its appliance ends, milliseconds since 1970.
    server_certificate_ends_ms: Option<u64>,
    /// Failed tries of each PIN on this member since its last success.
    failed_tries_user: Option<u32>,
    failed_tries_so: Option<u32>,
    reason: Option<String>,
}

/// Shows every group. Not good when a group has no member alive.
pub(crate) fn run(network: &dyn Network, configuration: &Configuration) -> Result<Answer, Failure> {
    let mut census = Census::take(network, configuration);
    let offered: Vec<u64> = census.offered().map(|name| name.serial).collect();
    let slots = Slots::new(configuration, offered);
    let mut complaints: Vec<String> = census.unreachable.iter().map(|one| one.complaint()).collect();
    let mut groups = Vec::new();
    for (at, group) in configuration.groups.iter().enumerate() {
        groups.push(view(&mut census, group, at, &slots, &mut complaints));
    }
    let good = groups.iter().all(|group| group.members.iter().any(|member| member.status == ALIVE));
    let document = Document { global: Global::of(configuration), groups };
    Ok(Answer { complaints, exit: exit(good), ..Answer::new(render(&document), &document) })
}

const ALIVE: &str = "alive";
const DOWN: &str = "down";

/// One member asked.
struct Asked {
    serial: Serial,
    answer: Result<(StatusAnswer, u64), String>,
}

fn view(
    census: &mut Census,
    group: &Group,
    at: usize,
    slots: &Slots,
    complaints: &mut Vec<String>,
) -> GroupView {
    let mut asked: Vec<Asked> = group.members.iter().map(|serial| ask(census, *serial)).collect();
    let manifest = newest(&asked);
    for member in manifest.iter().flat_map(|manifest| &manifest.members) {
        if !asked.iter().any(|one| one.serial.0 == member.serial) {
            complaints.push(format!(
                "group {}: the manifest names the member {}, the configuration does not; run vtl haAdmin addMember on this host",
                group.label, member.serial
            ));
            asked.push(ask(census, Serial(member.serial)));
        }
    }
    if manifest.is_none() && asked.iter().any(|one| one.answer.is_ok()) {
        complaints.push(format!(
            "group {}: no member has the group's manifest; run vtl haAdmin newGroup -label {} -serialNum {}",
            group.label, group.label, group.members[0]
        ));
    }
    let reference = reference(&asked, manifest.as_ref());
    let offered = offered_by_any(&asked);
    let members: Vec<MemberView> = asked
        .into_iter()
        .map(|one| member(one, group, manifest.as_ref(), reference.as_deref(), &offered, slots))
        .collect();
    let equal_contents = members.iter().all(|member| member.equal != Some(false));
    let all_alive = members.iter().all(|member| member.status == ALIVE);
    GroupView {
        label: group.label.clone(),
        number: group.serial.0,
        slot: slots.of_group(at),
        synchronization: group.synchronize,
        standby_members: members
            .iter()
            .filter(|one| one.role == Some("standby") || one.standby_here)
            .map(|one| one.serial)
            .collect(),
        needs_sync: if !equal_contents {
            Some(true)
        } else if all_alive {
            Some(false)
        } else {
            None
        },
        equal_contents,
        home: manifest.as_ref().map(|manifest| manifest.home),
        manifest_epoch: manifest.as_ref().map(|manifest| manifest.epoch),
        members,
    }
}

fn ask(census: &mut Census, serial: Serial) -> Asked {
    let answer = match census.needed(serial) {
        Ok(reached) => {
            let mut asking = Asking::new(reached.appliance.as_mut(), serial);
            asking.abilities().map(|status| (status, asking.seq())).map_err(|failure| failure.0)
        }
        Err(_) => Err("no server that answers holds it".to_owned()),
    };
    Asked { serial, answer }
}

fn newest(asked: &[Asked]) -> Option<Manifest> {
    let manifests = asked.iter().filter_map(|one| one.answer.as_ref().ok()?.0.manifest.clone());
    manifests.filter(named).max_by_key(|manifest| manifest.epoch)
}

/// The mechanisms that a member lists.
fn offers(status: &StatusAnswer) -> BTreeSet<u64> {
    status.mechanisms.iter().map(|facts| facts.number).collect()
}

fn offered_by_any(asked: &[Asked]) -> BTreeSet<u64> {
    asked.iter().filter_map(|one| one.answer.as_ref().ok()).flat_map(|(status, _)| offers(status)).collect()
}

/// The digest that the others are compared with: the home's, else that of the first member that answers.
fn reference(asked: &[Asked], manifest: Option<&Manifest>) -> Option<Vec<u8>> {
    let home = manifest.map(|manifest| manifest.home);
    let root = |one: &Asked| one.answer.as_ref().ok().map(|(status, _)| status.root.clone());
    asked.iter().find(|one| Some(one.serial.0) == home).and_then(root).or_else(|| asked.iter().find_map(root))
}

fn member(
    asked: Asked,
    group: &Group,
    manifest: Option<&Manifest>,
    reference: Option<&[u8]>,
    offered: &BTreeSet<u64>,
    slots: &Slots,
) -> MemberView {
    let entry =
        manifest.and_then(|manifest| manifest.members.iter().find(|one| one.serial == asked.serial.0));
    let view = MemberView {
        slot: slots.of_partition(asked.serial),
        serial: asked.serial.0,
        label: None,
        status: DOWN,
        role: entry.map(|entry| role_word(entry.role())),
        standby_here: group.standby.contains(&asked.serial),
        weight: entry.map(|entry| entry.weight),
        home: manifest.is_some_and(|manifest| manifest.home == asked.serial.0),
        equal: None,
        seq: None,
        objects: None,
        root: None,
        quarantined: None,
        lacks: Vec::new(),
        software: None,
        server_certificate_ends_ms: None,
        failed_tries_user: None,
        failed_tries_so: None,
        reason: None,
    };
    match asked.answer {
        Err(reason) => MemberView { reason: Some(reason), ..view },
        Ok((status, seq)) => MemberView {
            status: ALIVE,
            equal: Some(Some(status.root.as_slice()) == reference && !status.recovering),
            seq: Some(seq),
            objects: Some(status.objects),
            root: Some(status.root.iter().map(|byte| format!("{byte:02x}")).collect()),
            quarantined: Some(status.quarantined),
            lacks: offered
                .difference(&offers(&status))
                .map(|number| MechanismType(*number).to_string())
                .collect(),
            software: Some(status.software.clone()).filter(|software| !software.is_empty()),
            server_certificate_ends_ms: Some(status.server_certificate_ends_ms).filter(|ends| *ends != 0),
            failed_tries_user: Some(status.failed_tries_user),
            failed_tries_so: Some(status.failed_tries_so),
            reason: status.recovering.then(|| "recovering".to_owned()),
            label: Some(status.label),
            ..view
        },
    }
}

fn render(document: &Document) -> String {
    let mut text = String::from("\n ================ HA Global Configuration Settings ===============\n\n");
    for (name, value) in document.global.lines() {
        line(&mut text, name, &value);
    }
    text.push_str("\n ================ HA Group and Member Information ================\n");
    for group in &document.groups {
        render_group(&mut text, group);
    }
    if document.groups.is_empty() {
        text.push_str("\n    There is no HA group in the configuration.\n");
    }
    text
}

fn render_group(text: &mut String, group: &GroupView) {
    let join = |serials: Vec<u64>| match serials.as_slice() {
        [] => "<none>".to_owned(),
        list => list.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    };
    text.push('\n');
    for (name, value) in [
        ("HA Group Label", group.label.clone()),
        ("HA Group Number", group.number.to_string()),
        ("HA Group Slot #", number(group.slot)),
        ("Synchronization", enabled(group.synchronization).to_owned()),
        ("Group Members", join(group.members.iter().map(|member| member.serial).collect())),
        ("Needs sync", group.needs_sync.map_or("unknown while a member is down", yes).to_owned()),
        ("Standby Members", join(group.standby_members.clone())),
        ("Equal contents", yes(group.equal_contents).to_owned()),
        ("Home", group.home.map_or("unknown".to_owned(), |home| home.to_string())),
    ] {
        line(text, name, &value);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "  Slot #",
        "Member S/N",
        "Member Label",
        "Status",
        "Equal",
        "Role",
        "Weight",
        "Seq",
        "Objects",
    ]);
    let dash = || "------".to_owned();
    for member in &group.members {
        let mut role = member.role.map_or_else(dash, str::to_owned);
        for (holds, word) in [(member.home, ", home"), (member.standby_here, ", standby here")] {
            role.push_str(if holds { word } else { "" });
        }
        let status = match (&member.reason, member.status) {
            (Some(reason), ALIVE) => format!("{ALIVE} ({reason})"),
            (_, status) => status.to_owned(),
        };
        table.add_row([
            format!("  {}", number(member.slot)),
            member.serial.to_string(),
            member.label.clone().unwrap_or_else(dash),
            status,
            member.equal.map_or_else(dash, |equal| yes(equal).to_owned()),
            role,
            member.weight.map_or_else(dash, |weight| weight.to_string()),
            member.seq.map_or_else(dash, |seq| seq.to_string()),
            member.objects.map_or_else(dash, |objects| objects.to_string()),
        ]);
    }
    let _ = writeln!(text, "\n{}", table.trim_fmt());
    for member in group.members.iter().filter(|member| !member.lacks.is_empty()) {
        let lacks = member.lacks.join(", ");
        let _ = writeln!(text, "    Member {} does not offer {lacks}: the others do it.", member.serial);
    }
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
