//! `verify`: connects to every appliance and lists the partitions that this client may use.

use std::fmt::Write;

use client::conf::Configuration;
use comfy_table::{Table, presets};
use serde_json::json;

use crate::answer::{Answer, Failure};
use crate::census::{Census, Network, Unreachable, address};

/// The table of partitions; a complaint for each appliance that cannot be reached or gives none. Not good when there
/// is no partition at all.
pub(crate) fn run(network: &dyn Network, configuration: &Configuration) -> Result<Answer, Failure> {
    let census = Census::take(network, configuration);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["Slot", "Serial #", "Label", "Server"]);
    let (mut partitions, mut complaints) = (Vec::new(), Vec::new());
    for reached in &census.reached {
        let server = address(&reached.server);
        for name in &reached.partitions {
            let slot = partitions.len();
            table.add_row([slot.to_string(), name.serial.to_string(), name.label.clone(), server.clone()]);
            partitions.push(json!({
                "slot": slot, "serial": name.serial, "label": name.label,
                "server": reached.server.name, "port": reached.server.port,
            }));
        }
        if reached.partitions.is_empty() {
            let action = "assign one with hsm client assignPartition";
            complaints.push(format!("server {server} gives this client no partition; {action}"));
        }
    }
    complaints.extend(census.unreachable.iter().map(Unreachable::complaint));
    if configuration.servers.is_empty() {
        complaints.push("there is no server in the configuration; add one with vtl addServer".to_owned());
    }
    let unreachable: Vec<_> = census
        .unreachable
        .iter()
        .map(|one| json!({ "server": one.server.name, "port": one.server.port, "reason": one.reason }))
        .collect();
    let mut text = String::new();
    if partitions.is_empty() {
        text.push_str("No partition can be reached.\n");
    } else {
        let _ = writeln!(text, "The following partitions can be reached:\n\n{}", table.trim_fmt());
    }
    let good = !partitions.is_empty();
    let document = json!({ "partitions": partitions, "unreachable": unreachable });
    Ok(Answer { complaints, good, ..Answer::new(text, document) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::testing::{World, configuration};

    #[test]
    fn partitions_are_listed_and_unreachable_servers_named_with_the_reason() {
        let world = World::new(2, "pin");
        world.stop("hsm1");
        let answer = run(&world, &configuration(2, "")).unwrap();
        assert!(answer.good);
        assert!(answer.text.contains("Serial #") && answer.text.contains("1000000000000"), "{}", answer.text);
        assert_eq!(answer.complaints, ["server hsm1 cannot be reached: connection refused"]);
        assert_eq!(answer.document["partitions"][0]["serial"], 1_000_000_000_000_u64);
        assert_eq!(answer.document["unreachable"][0]["reason"], "connection refused");
    }

    #[test]
    fn no_partition_at_all_is_a_failure() {
        let world = World::new(1, "pin");
        world.stop("hsm0");
        assert!(!run(&world, &configuration(1, "")).unwrap().good);
        let none = run(&world, &configuration(0, "")).unwrap();
        assert!(!none.good && none.complaints[0].contains("add one with vtl addServer"));
    }
}
