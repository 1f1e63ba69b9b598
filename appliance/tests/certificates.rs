//! Certificates change while links are up, and nothing is dropped: the server's, a client's, an authority's.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod support;

use std::sync::Arc;
use std::time::Duration;

use ntls::certificate::fingerprint_text;
use ntls::exchange::{ExchangeError, Session, Target};
use ntls::frame::Frame;
use ntls::instance::InstanceKey;
use ntls::tls::ServerTrust;
use prost::Message;
use spec::messages::{Answer, Outcome, ReplyBody};
use support::{Client, House, status_body};

fn open(house: &House, client: &Client, trust: &Arc<ServerTrust>) -> Result<Session, ExchangeError> {
    Session::open(&Target {
        server: ntls::ServerAddress { host: "127.0.0.1".into(), port: house.address().port() },
        identity: &client.identity,
        trust,
        instance: &InstanceKey::generate(),
        software: "test",
        timeout_ms: 5_000,
    })
}

#[test]
fn a_new_server_certificate_is_put_into_service_and_links_that_are_up_go_on() {
    let house = House::new("");
    let client = house.client("client1");
    let identity = &house.appliance.identity;
    let old_pem = std::fs::read(identity.certificate_path()).unwrap();
    let old = Arc::new(ServerTrust::from_pem(&old_pem, "old").unwrap());
    let (mut link, _) = house.link(&client);
    identity.prepare(20).unwrap();
    let both_pem = [old_pem, std::fs::read(identity.next_path()).unwrap()].concat();
    let both = Arc::new(ServerTrust::from_pem(&both_pem, "both").unwrap());
    for trust in [&old, &both] {
        open(&house, &client, trust).expect("the old one is in service still");
    }
    house.appliance.activate_certificate(None).unwrap();
    assert_eq!(link.ask(1, house.serial).outcome, Outcome::OK.0, "the link that was up");
    open(&house, &client, &both).expect("both were trusted during the overlap");
    let error = open(&house, &client, &old).err().unwrap().to_string();
    assert!(error.contains("vtl addServer"), "{error}");
    let reply = link.ask(2, house.serial);
    let Some(Answer::Status(status)) = reply.answer else { panic!("a status is answered by a status") };
    let day_ms = 86_400_000;
    let days = (status.server_certificate_ends_ms - appliance::handler::now_ms()) / day_ms;
    assert_eq!(days, 19, "Status tells of the one in service");
    let client_days = (status.client_certificate_ends_ms - appliance::handler::now_ms()) / day_ms;
    assert_eq!(client_days, 9);
    assert!(house.restart().appliance.identity.next().is_none());
}

#[test]
fn a_client_changes_its_certificate_with_overlap_and_only_links_of_the_removed_one_end() {
    let house = House::new("");
    let old = house.client("client1");
    let new = Client::new("client1");
    let (mut first, _) = house.link(&old);
    assert!(open(&house, &new, &house.trust()).is_err());
    let registry = &house.appliance.registry;
    registry.add_certificate("client1", &new.pem).unwrap();
    let (mut second, offered) = house.link(&new);
    assert_eq!(offered.partitions.len(), 1, "what is assigned is the client's, not the certificate's");
    assert_eq!(first.ask(1, house.serial).outcome, Outcome::OK.0);
    registry
        .remove_certificate("client1", &fingerprint_text(&old.identity.certificate().fingerprint()))
        .unwrap();
    let told = first.until_closed();
    assert!(
        told.iter()
            .any(|frame| matches!(frame, Frame::Close(reason) if reason.contains("no longer registered")))
    );
    assert_eq!(second.ask(1, house.serial).outcome, Outcome::OK.0);
    assert!(open(&house, &old, &house.trust()).is_err());
}

#[test]
fn what_runs_when_a_certificate_is_removed_is_answered_first() {
    let house = House::new("");
    let old = house.client("client1");
    let new = Client::new("client1");
    house.appliance.registry.add_certificate("client1", &new.pem).unwrap();
    let (mut link, _) = house.link(&old);
    for tag in 1..=20 {
        link.send_request(tag, house.serial, 10_000, status_body());
    }
    std::thread::sleep(Duration::from_millis(50));
    let fingerprint = fingerprint_text(&old.identity.certificate().fingerprint());
    house.appliance.registry.remove_certificate("client1", &fingerprint).unwrap();
    let frames = link.until_closed();
    let replies = frames.iter().filter(|frame| match frame {
        Frame::Reply(_, body) => ReplyBody::decode(body.as_slice()).unwrap().outcome == Outcome::OK.0,
        _ => false,
    });
    assert_eq!(replies.count(), 20);
}
