//! `listSlots`: the slots as applications see them (RULES 2.12).

use std::fmt::Write;

use client::conf::{Configuration, Serial};
use comfy_table::{Table, presets};
use serde_json::json;

use crate::answer::{Answer, Failure};
use crate::census::{Census, Network, Unreachable};
use crate::slots::Slots;

/// Groups first; servers are asked only when their partitions have slots of their own.
pub(crate) fn run(network: &dyn Network, configuration: &Configuration) -> Result<Answer, Failure> {
    let census = if configuration.ha_only { None } else { Some(Census::take(network, configuration)) };
    let label = |serial: Serial| {
        let mut names = census.iter().flat_map(Census::offered);
        names.find(|name| name.serial == serial.0).map(|name| name.label.clone())
    };
    let offered: Vec<u64> = census.iter().flat_map(Census::offered).map(|name| name.serial).collect();
    let slots = Slots::new(configuration, offered);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["Slot", "Description", "Label", "Serial #", "Status"]);
    let mut list = Vec::new();
    let mut row = |slot: usize, description: &str, label: String, serial: Serial, present: bool| {
        let status = if present { "Present" } else { "Not present" };
        table.add_row([
            slot.to_string(),
            description.to_owned(),
            label.clone(),
            serial.to_string(),
            status.to_owned(),
        ]);
        list.push(json!({
            "slot": slot, "description": description, "label": label, "serial": serial.0, "present": present,
        }));
    };
    for (place, group) in configuration.groups.iter().enumerate() {
        if let Some(slot) = slots.of_group(place) {
            row(slot, "HA Virtual Card Slot", group.label.clone(), group.serial, true);
        }
    }
    for (slot, serial) in slots.partitions() {
        let told = label(serial);
        row(slot, "Net Token Slot", told.clone().unwrap_or_default(), serial, told.is_some());
    }
    let text = match list.as_slice() {
        [] => "There is no slot.\n".to_owned(),
        _ => {
            let mut text = String::new();
            let _ = writeln!(text, "{}", table.trim_fmt());
            text
        }
    };
    let complaints =
        census.iter().flat_map(|one| one.unreachable.iter().map(Unreachable::complaint)).collect();
    Ok(Answer { complaints, ..Answer::new(text, json!({ "slots": list })) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::testing::{World, configuration};

    const GROUP: &str =
        "VirtualToken = { VirtualToken00Label = g; VirtualToken00Members = 1000000000001; }\n";

    #[test]
    fn groups_are_listed_without_asking_a_server_while_only_they_are_shown() {
        let world = World::new(2, "pin");
        world.stop("hsm0");
        let answer = run(&world, &configuration(2, GROUP)).unwrap();
        assert!(answer.complaints.is_empty());
        assert_eq!(answer.document["slots"].as_array().unwrap().len(), 1);
        assert_eq!(answer.document["slots"][0]["serial"], 11_000_000_000_001_u64);
    }

    #[test]
    fn partitions_stand_behind_the_groups_with_their_standing() {
        let world = World::new(2, "pin");
        world.stop("hsm1");
        let text = format!("{GROUP}HAConfiguration = {{ HAOnly = 0; }}\n");
        let answer = run(&world, &configuration(2, &text)).unwrap();
        let rows: Vec<_> = answer.document["slots"].as_array().unwrap().clone();
        let seen: Vec<_> =
            rows.iter().map(|row| (row["serial"].as_u64(), row["present"].as_bool())).collect();
        assert_eq!(
            seen,
            [
                (Some(11_000_000_000_001), Some(true)),
                (Some(1_000_000_000_001), Some(false)),
                (Some(1_000_000_000_000), Some(true))
            ]
        );
        assert_eq!(answer.complaints, ["server hsm1 cannot be reached: connection refused"]);
    }
}
