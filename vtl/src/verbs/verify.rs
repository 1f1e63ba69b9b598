//! `verify`: connects to every appliance, lists the partitions that this client may use, and tells of certificates
//! that end soon.

use std::fmt::Write;

use client::conf::{Configuration, Serial};
use comfy_table::{Table, presets};
use ntls::certificate::Certificate;
use serde_json::{Value, json};

use crate::answer::{Answer, Failure, exit};
use crate::asking::Asking;
use crate::census::{Census, Network, Reached, Unreachable, address};
use crate::expiry;
use crate::pem;
use crate::slots::{Slots, number};

const NEW_SERVER_CERTIFICATE: &str = "make a new one there with hsm sysconf regenCert, give it to the clients with vtl addServer, then hsm sysconf activateCert";
const NEW_CLIENT_CERTIFICATE: &str = "make a new one with vtl createCert, add it everywhere with hsm client addCertificate, and change over with vtl useCert";

/// The table of partitions, numbered as applications see them; a complaint for each appliance that cannot be reached or
/// gives none, and for each certificate that ends within 30 days. Fails when there is no partition at all.
pub(crate) fn run(network: &dyn Network, configuration: &Configuration) -> Result<Answer, Failure> {
    let mut census = Census::take(network, configuration);
    let offered: Vec<u64> = census.offered().map(|name| name.serial).collect();
    let slots = Slots::new(configuration, offered);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["Slot", "Serial #", "Label", "Server"]);
    let (mut partitions, mut complaints) = (Vec::new(), Vec::new());
    for reached in &census.reached {
        let server = address(&reached.server);
        for name in &reached.partitions {
            let slot = slots.of_partition(Serial(name.serial));
            table.add_row([number(slot), name.serial.to_string(), name.label.clone(), server.clone()]);
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
    let certificates = certificates(network, configuration, &mut census, &mut complaints);
    let unreachable: Vec<_> = census
        .unreachable
        .iter()
        .map(|one| json!({ "server": one.server.name, "port": one.server.port, "reason": one.reason }))
        .collect();
    let good = !partitions.is_empty();
    let mut text = String::new();
    if good {
        let _ = writeln!(text, "The following partitions can be reached:\n\n{}", table.trim_fmt());
    } else {
        text.push_str("No partition can be reached.\n");
    }
    let document =
        json!({ "partitions": partitions, "unreachable": unreachable, "certificates": certificates });
    Ok(Answer { complaints, exit: exit(good), ..Answer::new(text, document) })
}

/// The ends of the client's certificate and of the servers'; a complaint for each that is near or past.
fn certificates(
    network: &dyn Network,
    configuration: &Configuration,
    census: &mut Census,
    complaints: &mut Vec<String>,
) -> Vec<Value> {
    let now_ms = network.now_ms();
    let mut list = Vec::new();
    let own = configuration.client_certificate.as_deref().and_then(|file| pem::certificates(file).ok());
    if let Some(own) = own.as_ref().and_then(|all| all.first()) {
        list.push(json!({
            "of": "client", "name": own.name(), "ends": own.not_after_text(), "ends_ms": expiry::ends_ms(own),
            "fingerprint_sha256": own.fingerprint_text(),
        }));
        let whose = format!("this client ({})", own.name());
        complaints.extend(expiry::warning(&whose, expiry::ends_ms(own), now_ms, NEW_CLIENT_CERTIFICATE));
    }
    for reached in &mut census.reached {
        let Some(ends_ms) = server_certificate_ends_ms(reached) else { continue };
        let server = address(&reached.server);
        list.push(json!({
            "of": "server", "server": reached.server.name, "port": reached.server.port,
            "ends": Certificate::time_text(ends_ms), "ends_ms": ends_ms,
        }));
        let whose = format!("server {server}");
        complaints.extend(expiry::warning(&whose, ends_ms, now_ms, NEW_SERVER_CERTIFICATE));
    }
    list
}

/// What the appliance says of its own certificate; `None` when it says nothing.
fn server_certificate_ends_ms(reached: &mut Reached) -> Option<u64> {
    let serial = Serial(reached.partitions.first()?.serial);
    let status = Asking::new(reached.appliance.as_mut(), serial).status().ok()?;
    (status.server_certificate_ends_ms != 0).then_some(status.server_certificate_ends_ms)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use ntls::certificate::{Wanted, self_signed};

    use super::*;
    use crate::testing::{FIRST, Folder, NOW_MS, World, configuration};

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn partitions_are_listed_and_unreachable_servers_named_with_the_reason() {
        let world = World::new(2, "pin");
        world.stop("hsm1");
        let answer = run(&world, &configuration(2, "")).unwrap();
        assert!(answer.good());
        assert!(answer.text.contains("Serial #") && answer.text.contains("1000000000000"), "{}", answer.text);
        assert_eq!(answer.complaints, ["server hsm1 cannot be reached: connection refused"]);
        assert_eq!(answer.document["partitions"][0]["serial"], 1_000_000_000_000_u64);
        assert_eq!(answer.document["unreachable"][0]["reason"], "connection refused");
    }

    #[test]
    fn no_partition_at_all_is_a_failure() {
        let world = World::new(1, "pin");
        world.stop("hsm0");
        assert!(!run(&world, &configuration(1, "")).unwrap().good());
        let none = run(&world, &configuration(0, "")).unwrap();
        assert!(!none.good() && none.complaints[0].contains("add one with vtl addServer"));
    }

    #[test]
    fn rules_2_12_rows_carry_the_numbers_of_the_slots_that_applications_see() {
        let world = World::new(3, "pin");
        let slots = |text: &str| {
            let answer = run(&world, &configuration(3, text)).unwrap();
            let rows = answer.document["partitions"].as_array().unwrap().clone();
            rows.iter().map(|row| row["slot"].as_u64()).collect::<Vec<_>>()
        };
        assert_eq!(slots(""), [Some(0), Some(1), Some(2)]);
        let group = "VirtualToken = { VirtualToken00Label = g; VirtualToken00Members = 1000000000002; }\n";
        assert_eq!(slots(group), [None, None, None]);
        let shown = format!("{group}HAConfiguration = {{ HAOnly = 0; }}\n");
        assert_eq!(slots(&shown), [Some(2), Some(3), Some(1)]);
    }

    #[test]
    fn certificates_that_end_soon_are_warned_about() {
        let (folder, world) = (Folder::new(2), World::new(2, "pin"));
        let file = folder.place().join("app.pem");
        let wanted = Wanted { name: "app", hosts: &[], now_ms: NOW_MS, days: 9 };
        std::fs::write(&file, self_signed(&wanted).unwrap().certificate_pem).unwrap();
        let mut configuration = folder.configuration();
        configuration.client_certificate = Some(file);
        world.set_certificate_end(FIRST, NOW_MS - 5);
        world.set_certificate_end(Serial(FIRST.0 + 1), NOW_MS + 60 * DAY_MS);
        let answer = run(&world, &configuration).unwrap();
        assert!(answer.good());
        assert_eq!(answer.complaints.len(), 2, "{answer:?}");
        assert!(
            answer.complaints[0].starts_with("the certificate of this client (app) ends in 9 days; make")
        );
        assert!(answer.complaints[1].starts_with("the certificate of server hsm0 has ended; make"));
        let certificates = answer.document["certificates"].as_array().unwrap();
        let ends: Vec<_> = certificates.iter().map(|one| one["ends_ms"].as_u64().unwrap()).collect();
        assert_eq!(ends, [NOW_MS + 9 * DAY_MS, NOW_MS - 5, NOW_MS + 60 * DAY_MS]);
    }
}
