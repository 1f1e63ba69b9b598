//! Appliances that keep step without any client (HA 1.5, 4.7): three servers, real links, no application.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use appliance::appliance::Appliance;
use appliance::handler::{Handler, now_ms};
use appliance::partitions::Slot;
use partition::{Caller, LinkFacts};
use prost::Message;
use spec::messages::*;
use spec::record::{ManifestMember, MemberRole};
use spec::{Attribute, AttributeType as A, ObjectClass, Rv, UserType};
use support::{CO_PIN, House, SO_PIN, config};

const CALLER: Caller = Caller { client: [1; 32], instance: [2; 32] };

fn tag() -> Vec<u8> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes().to_vec()
}

/// A member, spoken to inside its house.
struct Member<'a>(&'a House);

impl Member<'_> {
    fn handler(&self) -> Arc<dyn Handler> {
        let Slot { handler, .. } = self.0.appliance.partitions.find(&self.0.serial.to_string()).unwrap();
        handler.unwrap()
    }

    fn send(&self, ticket: &[u8], call: Call) -> ReplyBody {
        let handler = self.handler();
        let partition = handler.partition().unwrap();
        let manifest = partition.manifest();
        let (group, generation, ticket) = (manifest.group, manifest.generation, ticket.to_vec());
        let body = RequestBody { group, generation, ticket, call: Some(call) }.encode_to_vec();
        let header = RequestHeader { remaining_ms: 10_000, ..RequestHeader::default() };
        let (_, reply) = partition.handle_on(&LinkFacts::default(), &CALLER, &header, &body, now_ms());
        ReplyBody::decode(reply.as_slice()).unwrap()
    }

    fn ok(&self, ticket: &[u8], call: Call) -> Answer {
        let reply = self.send(ticket, call);
        assert_eq!(reply.outcome, Outcome::OK.0, "{}", reply.text);
        reply.answer.unwrap()
    }

    fn login(&self, pin: &[u8]) -> Result<Vec<u8>, Outcome> {
        let mut login = Login::default();
        (login.user, login.pin, login.tag) = (UserType::USER.0, pin.to_vec(), tag());
        let reply = self.send(&[], Call::Login(login));
        match reply.answer {
            Some(Answer::Login(answer)) => Ok(answer.ticket),
            _ => Err(Outcome(reply.outcome)),
        }
    }

    fn create(&self, ticket: &[u8], label: &str) -> Vec<u8> {
        let template = vec![
            Attribute::ulong(A::CLASS, ObjectClass::DATA.0),
            Attribute::bool(A::TOKEN, true),
            Attribute::new(A::LABEL, label.as_bytes()),
        ];
        let tag = tag();
        let make = Make {
            kind: MakeKind::CREATE.0,
            mechanism: None,
            templates: vec![template.into()],
            source: None,
            tag: tag.clone(),
        };
        let Answer::Make(made) = self.ok(ticket, Call::Make(make)) else { unreachable!("answered alike") };
        self.ok(ticket, Call::Store(Store { batch: made.batch, tag, provisional: false }));
        made.outputs[0].ouid.clone()
    }

    fn status(&self) -> StatusAnswer {
        match self.ok(&[], Call::Status(Status::default())) {
            Answer::Status(status) => status,
            _ => unreachable!("answered alike"),
        }
    }
}

/// Gives `to` the domain of `from`.
fn share_domain(from: &Appliance, to: &Appliance) {
    let request = to.domains.export_request("default").unwrap();
    let export = from.domains.export("default", &request.text).unwrap();
    to.domains.import(&export.text).unwrap();
}

/// Servers with a member each of one group, made by hand, that know each other as peers.
fn houses(count: usize) -> Vec<House> {
    let mut houses: Vec<House> = Vec::new();
    for _ in 0..count {
        let place = tempfile::tempdir().unwrap();
        let appliance = Appliance::open(config(&place, "")).unwrap();
        match houses.first() {
            None => drop(appliance.domains.create("default").unwrap()),
            Some(first) => share_domain(&first.appliance, &appliance),
        }
        let serial = appliance.partitions.create("par0", "default", SO_PIN, CO_PIN).unwrap().serial;
        houses.push(House::serve(place, appliance, serial));
    }
    group(&houses);
    introduce(&houses);
    houses
}

fn group(houses: &[House]) {
    let home = Member(&houses[0]);
    let ticket = home.login(CO_PIN).unwrap();
    let handler = home.handler();
    let mut manifest = handler.partition().unwrap().manifest();
    manifest.serial = 1_234_567_890_123;
    let member =
        |house: &House| ManifestMember { serial: house.serial, role: MemberRole::Active as i32, weight: 100 };
    manifest.members = houses.iter().map(member).collect();
    let expected_epoch = manifest.epoch;
    home.ok(
        &ticket,
        Call::ChangeManifest(ChangeManifest { expected_epoch, manifest: Some(manifest), tag: tag() }),
    );
    let export = Export { ouids: vec![], credentials: true, manifest: true };
    let Answer::Export(export) = home.ok(&ticket, Call::Export(export)) else {
        unreachable!("answered alike")
    };
    let manifest = handler.partition().unwrap().manifest();
    for house in &houses[1..] {
        let joiner = Member(house);
        let ticket = joiner.login(CO_PIN).unwrap();
        joiner.ok(
            &ticket,
            Call::Adopt(Adopt {
                group: manifest.group.clone(),
                generation: manifest.generation,
                manifest: export.manifest.clone(),
                credentials: export.credentials.clone(),
            }),
        );
    }
}

/// Each is a peer of each; those that listen elsewhere than before are told of.
fn introduce(houses: &[House]) {
    for (at, house) in houses.iter().enumerate() {
        for (other_at, other) in houses.iter().enumerate().filter(|(other_at, _)| *other_at != at) {
            let pem = std::fs::read_to_string(other.appliance.identity.certificate_path()).unwrap();
            let (name, port) = (format!("hsm{other_at}"), other.address().port());
            house.appliance.registry.add_peer(&name, "127.0.0.1", port, "default", &pem).unwrap();
        }
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(40), "not within 40 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn equal(houses: &[House]) -> bool {
    let roots: Vec<_> = houses.iter().map(|house| Member(house).status().root).collect();
    roots.windows(2).all(|pair| pair[0] == pair[1])
}

#[test]
fn ha_4_7_members_that_differ_are_made_equal_by_their_appliances_without_any_client() {
    let mut houses = houses(3);
    let members: Vec<_> = houses.iter().map(Member).collect();
    let ticket = members[0].login(CO_PIN).unwrap();
    let kept: Vec<_> =
        members.iter().enumerate().map(|(at, m)| m.create(&ticket, &format!("of {at}"))).collect();
    until("each holds what the others have made", || {
        members.iter().all(|member| member.status().objects == 3) && equal(&houses)
    });
    // A tombstone on one, a PIN changed at the home: both reach the others.
    let destroy = Destroy { object: Some(ObjectRef { ouid: kept[0].clone(), ..ObjectRef::default() }) };
    members[1].ok(&ticket, Call::Destroy(destroy));
    let mut set = SetPin::default();
    (set.user, set.old, set.new, set.tag) =
        (UserType::USER.0, CO_PIN.to_vec(), b"another-pin".to_vec(), tag());
    members[0].ok(&ticket, Call::SetPin(set));
    until("the destroyed is gone everywhere and the new PIN holds everywhere", || {
        members.iter().all(|member| member.status().objects == 2)
            && equal(&houses)
            && members.iter().all(|member| member.login(b"another-pin").is_ok())
    });
    let get = GetAttributes {
        object: Some(ObjectRef { ouid: kept[0].clone(), ..ObjectRef::default() }),
        numbers: vec![A::LABEL.0],
    };
    let ticket = members[2].login(b"another-pin").unwrap();
    assert_eq!(members[2].send(&ticket, Call::GetAttributes(get)).outcome, Outcome::DESTROYED.0);
    houses.iter_mut().for_each(House::stop);
}

#[test]
fn rules_3_3_a_peer_does_over_its_link_what_repair_needs_and_nothing_else() {
    let mut houses = houses(2);
    let pem = std::fs::read_to_string(houses[1].appliance.identity.certificate_path()).unwrap();
    let identity = ntls::certificate::Identity::load(
        &houses[1].appliance.identity.certificate_path(),
        &houses[1].appliance.identity.key_path(),
    )
    .unwrap();
    let peer = support::Client { name: "hsm1".into(), pem, identity };
    let (mut link, offered) = houses[0].link(&peer);
    assert_eq!(offered.partitions.iter().map(|one| one.serial).collect::<Vec<_>>(), [houses[0].serial]);
    let mut ask = |number: u64, call: Call| {
        let body = RequestBody { call: Some(call), ..RequestBody::default() }.encode_to_vec();
        link.send_request(number, houses[0].serial, 10_000, body);
        match link.receive() {
            Some(ntls::frame::Frame::Reply(_, body)) => ReplyBody::decode(body.as_slice()).unwrap(),
            other => panic!("wanted a reply, found {other:?}"),
        }
    };
    assert_eq!(ask(1, Call::Compare(Compare::default())).outcome, Outcome::OK.0);
    let export = Export { credentials: true, manifest: true, ..Export::default() };
    assert_eq!(ask(2, Call::Export(export)).outcome, Outcome::OK.0);
    let mut login = Login::default();
    (login.user, login.pin, login.tag) = (UserType::USER.0, CO_PIN.to_vec(), tag());
    let refused = ask(3, Call::Login(login));
    assert_eq!((refused.outcome, refused.rv), (Outcome::RV.0, Rv::FUNCTION_REJECTED.0));
    // Whoever is no longer a peer is out, and so is its link.
    houses[0].appliance.registry.remove_peer("hsm1", None).unwrap();
    link.until_closed();
    houses.iter_mut().for_each(House::stop);
}

/// Stops a server, changes its folder, and serves it anew.
fn reborn(mut house: House, change: impl FnOnce(&std::path::Path)) -> House {
    house.stop();
    let House { place, appliance, serial, runtime, .. } = house;
    runtime.shutdown_timeout(Duration::from_secs(10));
    drop(Arc::into_inner(appliance).expect("a stopped server has let go of everything"));
    change(&place.path().join("data/partitions"));
    let appliance = Appliance::open(config(&place, "")).unwrap();
    House::serve(place, appliance, serial)
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn ha_1_5_a_store_that_was_brought_back_from_an_older_image_is_found_out_at_its_start_and_recovers() {
    let mut houses = houses(2);
    let image = tempfile::tempdir().unwrap();
    let ticket = Member(&houses[0]).login(CO_PIN).unwrap();
    Member(&houses[0]).create(&ticket, "before");
    until("both hold it", || equal(&houses) && Member(&houses[1]).status().objects == 1);
    let second = houses.pop().unwrap();
    let second = reborn(second, |folder| copy(folder, image.path()));
    houses.push(second);
    introduce(&houses);
    let doomed = Member(&houses[0]).create(&ticket, "doomed");
    until("both hold both", || equal(&houses) && Member(&houses[1]).status().objects == 2);
    let destroy = Destroy { object: Some(ObjectRef { ouid: doomed, ..ObjectRef::default() }) };
    Member(&houses[0]).ok(&ticket, Call::Destroy(destroy));
    until("it is gone from both", || equal(&houses) && Member(&houses[1]).status().objects == 1);
    let before = Member(&houses[1]).status();
    until("the other one has seen it there", || {
        let seen = houses[0].appliance.seen.all();
        seen.iter().any(|seen| seen.serial == before.serial && seen.seq >= before.seq)
    });
    let second = reborn(houses.pop().unwrap(), |folder| copy(image.path(), folder));
    // Its first look came before its listener: it never served the older image.
    let after = Member(&second).status();
    assert_ne!(after.incarnation, before.incarnation, "it took another incarnation");
    houses.push(second);
    introduce(&houses);
    until("it was repaired from its peer", || {
        equal(&houses) && !Member(&houses[1]).status().recovering && Member(&houses[1]).status().objects == 1
    });
    assert!(Member(&houses[1]).login(CO_PIN).is_ok());
    houses.iter_mut().for_each(House::stop);
}

#[test]
fn ha_1_5_an_operator_lets_a_recovering_partition_serve_as_it_is() {
    let mut house = House::new("");
    let member = Member(&house);
    let hsm =
        |verb| appliance::admin::verbs::carry_out(&house.appliance, verb).map_err(|error| error.to_string());
    let adopt = || appliance::admin::protocol::Verb::PartitionAdopt { partition: "par0".into() };
    let error = hsm(adopt()).unwrap_err();
    assert!(error.contains("nothing to adopt"), "{error}");
    member.handler().partition().unwrap().reincarnate(true).unwrap();
    assert_eq!(member.login(CO_PIN), Err(Outcome::RECOVERING));
    let shown = hsm(adopt()).unwrap();
    assert_eq!(shown["recovering"], false);
    assert!(member.login(CO_PIN).is_ok());
    house.stop();
}
