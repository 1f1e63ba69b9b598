//! A key's life over the network and the disk: made, stored, acknowledged; there and usable after the server's end.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod support;

use std::sync::Arc;

use ntls::ServerAddress;
use ntls::exchange::{Session, Target};
use ntls::instance::InstanceKey;
use ntls::tls::ServerTrust;
use spec::messages::{
    Answer, Call, How, KeyFunction, Login, Make, MakeAnswer, MakeKind, MechanismMessage, ObjectRef, Outcome,
    ReplyBody, Status, Store, Use,
};
use spec::value::{Attribute, Template};
use spec::{AttributeType, MechanismType, UserType};
use support::{CO_PIN, Client, House};

const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

/// An application instance at one server.
struct Application {
    session: Session,
    serial: u64,
    ticket: Vec<u8>,
}

fn connect(house: &House, client: &Client, trust: &Arc<ServerTrust>, instance: &InstanceKey) -> Application {
    let target = Target {
        server: ServerAddress { host: "127.0.0.1".into(), port: house.address().port() },
        identity: &client.identity,
        trust,
        instance,
        software: "test",
        timeout_ms: 20_000,
    };
    let mut application =
        Application { session: Session::open(&target).unwrap(), serial: house.serial, ticket: vec![] };
    let Some(Answer::Status(status)) = application.ask(Call::Status(Status::default())).answer else {
        panic!("a status is answered by a status")
    };
    let manifest = status.manifest.unwrap();
    application.session.in_group(&manifest.group, manifest.generation);
    application
}

impl Application {
    fn ask(&mut self, call: Call) -> ReplyBody {
        self.session.call(self.serial, call, &self.ticket).unwrap()
    }

    fn login(&mut self, pin: &[u8], tag: u8) -> ReplyBody {
        let login = Login { user: UserType::USER.0, pin: pin.to_vec(), tag: vec![tag; 16] };
        let reply = self.ask(Call::Login(login));
        if let Some(Answer::Login(answer)) = &reply.answer {
            self.ticket = answer.ticket.clone();
        }
        reply
    }

    fn make_pair(&mut self, tag: &[u8]) -> MakeAnswer {
        let token = Attribute::bool(AttributeType::TOKEN, true);
        let public = vec![token.clone(), Attribute::new(AttributeType::EC_PARAMS, P256)];
        let make = Make {
            kind: MakeKind::GENERATE_PAIR.0,
            mechanism: mechanism(MechanismType::EC_KEY_PAIR_GEN),
            templates: vec![Template { attributes: public }, Template { attributes: vec![token] }],
            source: None,
            tag: tag.to_vec(),
        };
        let reply = self.ask(Call::Make(make));
        match reply.answer {
            Some(Answer::Make(answer)) => answer,
            _ => panic!("outcome {}: {}", reply.outcome, reply.text),
        }
    }

    fn sign(&mut self, key: &[u8]) -> ReplyBody {
        let mut call = Use::default();
        call.function = KeyFunction::SIGN.0;
        call.mechanism = mechanism(MechanismType::ECDSA);
        call.key = Some(ObjectRef { ouid: key.to_vec(), ..ObjectRef::default() });
        call.how = How::WHOLE.0;
        call.data = vec![7; 32];
        self.ask(Call::Use(call))
    }
}

fn mechanism(number: MechanismType) -> Option<MechanismMessage> {
    Some(MechanismMessage { number: number.0, ..MechanismMessage::default() })
}

#[test]
fn an_acknowledged_key_signs_after_the_servers_restart_with_the_same_ticket() {
    let house = House::new("");
    let client = house.client("client1");
    let (trust, instance) = (house.trust(), InstanceKey::generate());
    let mut application = connect(&house, &client, &trust, &instance);
    assert_eq!(application.login(CO_PIN, 1).outcome, Outcome::OK.0);
    let made = application.make_pair(&[5; 16]);
    let key = made.outputs[1].ouid.clone();
    let store = Call::Store(Store { batch: made.batch, tag: vec![5; 16], provisional: false });
    let reply = application.ask(store.clone());
    assert_eq!(reply.outcome, Outcome::OK.0, "{}", reply.text);
    assert_eq!(application.sign(&key).outcome, Outcome::OK.0);
    let (before, ticket) = (application.session.last_header().clone(), application.ticket);
    let house = house.restart();
    let mut application = connect(&house, &client, &trust, &instance);
    application.ticket = ticket.clone();
    let reply = application.sign(&key);
    assert_eq!(reply.outcome, Outcome::OK.0, "{}", reply.text);
    assert!(matches!(reply.answer, Some(Answer::Use(answer)) if answer.output.len() == 64));
    let after = application.session.last_header().clone();
    assert_eq!((after.incarnation, after.seq), (before.incarnation, before.seq), "HA 1.5");
    assert_eq!(application.ask(store).outcome, Outcome::OK.0, "the same bytes may be stored for ever");
    let mut other = connect(&house, &client, &trust, &InstanceKey::generate());
    other.ticket = ticket;
    assert_ne!(other.sign(&key).outcome, Outcome::OK.0, "a ticket is of one instance");
}

#[test]
fn wrong_pins_are_counted_across_a_restart_and_delayed() {
    let house = House::new("");
    let client = house.client("client1");
    let (trust, instance) = (house.trust(), InstanceKey::generate());
    let mut application = connect(&house, &client, &trust, &instance);
    for tag in 1..=2 {
        assert_eq!(application.login(b"wrong-pin", tag).rv, spec::Rv::PIN_INCORRECT.0);
    }
    let house = house.restart();
    let mut application = connect(&house, &client, &trust, &instance);
    assert_eq!(application.login(b"wrong-pin", 3).rv, spec::Rv::PIN_INCORRECT.0);
    let reply = application.login(CO_PIN, 4);
    assert_eq!(reply.rv, spec::Rv::PIN_LOCKED.0, "the third failure begins a delay: {}", reply.text);
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    assert_eq!(application.login(CO_PIN, 5).outcome, Outcome::OK.0, "and destroys nothing");
}

#[test]
fn eight_links_sign_without_an_error_while_keys_are_created_and_clients_registered() {
    let house = House::new("");
    let client = house.client("client1");
    let (trust, instance) = (house.trust(), InstanceKey::generate());
    let mut maker = connect(&house, &client, &trust, &instance);
    maker.login(CO_PIN, 1);
    let create = |maker: &mut Application, tag: u8| {
        let made = maker.make_pair(&[tag; 16]);
        let store = Store { batch: made.batch, tag: vec![tag; 16], provisional: false };
        assert_eq!(maker.ask(Call::Store(store)).outcome, Outcome::OK.0);
        made.outputs[1].ouid.clone()
    };
    let key = create(&mut maker, 1);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let mut signer = connect(&house, &client, &trust, &instance);
            signer.ticket = maker.ticket.clone();
            let key = &key;
            scope.spawn(move || {
                for _ in 0..100 {
                    let reply = signer.sign(key);
                    assert_eq!(reply.outcome, Outcome::OK.0, "{}", reply.text);
                }
            });
        }
        for tag in 2..30 {
            create(&mut maker, tag);
            house.client(&format!("client{tag}"));
        }
    });
    let Some(Answer::Status(status)) = maker.ask(Call::Status(Status::default())).answer else {
        panic!("a status is answered by a status")
    };
    assert_eq!(status.objects, 2 * 29);
}
