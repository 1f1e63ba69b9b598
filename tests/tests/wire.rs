//! Every refusal, tried by a raw wire client that skips the library.
#![allow(clippy::unwrap_used)]

use ntls::certificate::{self, Identity, Wanted};
use ntls::exchange::ExchangeError;
use ntls::frame::Frame;
use spec::messages::{
    Adopt, Answer, Call, ChangeManifest, Commit, Compare, Destroy, Discard, Export, Find, How, Join,
    KeyFunction, Login, Make, MakeKind, ObjectRef, Outcome, Plan, Random, ReplyBody, SetAttributes, SetPin,
    Store,
};
use spec::record::Stamp;
use spec::value::{Attribute, Template};
use spec::{AttributeType, MechanismType, Rv};
use tests::lab::Lab;
use tests::wire::{Client, Wire, aes_template, plain, token_ref, use_key};

fn rv(reply: &ReplyBody) -> Rv {
    assert_eq!(
        Outcome(reply.outcome),
        Outcome::RV,
        "wanted a code of the standard: outcome {} {}",
        reply.outcome,
        reply.text
    );
    Rv(reply.rv)
}

fn outcome(reply: &ReplyBody) -> Outcome {
    Outcome(reply.outcome)
}

#[test]
fn the_wire_refuses_what_the_library_would_never_send() {
    let lab = Lab::up(1);
    let client = Client::of(&lab);
    key_exchange_is_hybrid(&client);
    without_login(&client, &lab);
    pins_and_roles(&client, &lab);
    order_is_kept(&client, &lab);
    keys_keep_to_what_they_permit(&client, &lab);
    sealed_things_open_in_their_own_context_only(&client, &lab);
    groups_and_partitions_of_others(&client, &lab);
    bounds(&client, &lab);
    frames_that_are_none(&client);
    certificates_that_are_not_registered(&client);
    // After all that the appliance still serves.
    let mut wire = Wire::open(&client);
    wire.login(lab.value("P11_PIN"));
    let (_, private) = wire.pair(Vec::new());
    assert_eq!(outcome(&wire.sign(MechanismType::ECDSA, &private, How::WHOLE.0, &[1; 32])), Outcome::OK);
}

fn key_exchange_is_hybrid(client: &Client) {
    let session = client.connect().unwrap();
    assert_eq!(session.negotiated_group().as_deref(), Some("X25519MLKEM768"));
}

fn without_login(client: &Client, lab: &Lab) {
    let mut officer = Wire::open(client);
    officer.login(lab.value("P11_PIN"));
    let (public, private) = officer.pair(Vec::new());
    let mut nobody = Wire::open(client);
    let refused = nobody.sign(MechanismType::ECDSA, &private, How::WHOLE.0, &[1; 32]);
    assert_ne!(outcome(&refused), Outcome::OK, "a private key was used without login");
    let refused = nobody.attributes(&private, &[AttributeType::LABEL]);
    assert_ne!(outcome(&refused), Outcome::OK, "a private object was read without login");
    let reply =
        nobody.call(Call::Find(Find { template: Some(Template::default()), after: Vec::new(), limit: 100 }));
    let Some(Answer::Find(found)) = &reply.answer else { panic!("wanted a page: {}", reply.text) };
    assert!(found.found.iter().all(|found| !found.private), "a search without login shows private objects");
    let generate = Make {
        kind: MakeKind::GENERATE.0,
        mechanism: Some(plain(MechanismType::AES_KEY_GEN)),
        templates: vec![Template::from(vec![
            Attribute::bool(AttributeType::TOKEN, true),
            Attribute::ulong(AttributeType::VALUE_LEN, 32),
        ])],
        source: None,
        tag: vec![1; 16],
    };
    assert_eq!(rv(&nobody.call(Call::Make(generate))), Rv::USER_NOT_LOGGED_IN);
    assert_ne!(outcome(&nobody.call(Call::Destroy(Destroy { object: Some(public.clone()) }))), Outcome::OK);
    let label = Template::from(vec![Attribute::new(AttributeType::LABEL, b"x".to_vec())]);
    let change = SetAttributes { object: Some(public), template: Some(label), tag: vec![1; 16], seen: None };
    assert_ne!(outcome(&nobody.call(Call::SetAttributes(change))), Outcome::OK);
    for call in [
        Call::Export(Export { ouids: vec![private.ouid.clone()], credentials: true, manifest: true }),
        Call::Join(Join { repaired: true, ..Join::default() }),
        Call::ChangeManifest(ChangeManifest {
            manifest: Some(nobody.manifest()),
            tag: vec![1; 16],
            expected_epoch: nobody.manifest().epoch,
        }),
    ] {
        let number = call.number();
        assert_eq!(rv(&nobody.call(call)), Rv::USER_NOT_LOGGED_IN, "call {number}");
    }
    let adopt = Adopt { group: vec![9; 16], generation: 0, manifest: vec![1; 80], credentials: vec![2; 80] };
    assert_ne!(outcome(&nobody.call(Call::Adopt(adopt))), Outcome::OK);
    let discard = Discard { ouids: vec![private.ouid.clone()], tag: vec![1; 16] };
    assert_ne!(outcome(&nobody.call(Call::Discard(discard))), Outcome::OK);
    // A batch of the officer's, whole and well, presented without the ticket.
    let create = Make {
        kind: MakeKind::CREATE.0,
        mechanism: None,
        templates: vec![aes_template(true, &[4; 32])],
        source: None,
        tag: vec![11; 16],
    };
    let batch = officer.make(create).batch;
    officer.ticket.clear();
    let store = Store { batch, tag: vec![11; 16], provisional: false };
    assert_eq!(rv(&officer.call(Call::Store(store))), Rv::USER_NOT_LOGGED_IN);
}

/// Roles: what the wire answers to PINs, and that a wrong one does not pass for a right one under the same tag.
fn pins_and_roles(client: &Client, lab: &Lab) {
    let mut wire = Wire::open(client);
    let pin = lab.value("P11_PIN").as_bytes();
    let login =
        |user: u64, pin: &[u8], tag: u8| Call::Login(Login { user, pin: pin.to_vec(), tag: vec![tag; 16] });
    assert_eq!(rv(&wire.call(login(1, b"not the PIN", 1))), Rv::PIN_INCORRECT);
    assert_eq!(rv(&wire.call(login(1, b"not the PIN", 1))), Rv::PIN_INCORRECT, "the same try, asked again");
    assert_eq!(wire.status().failed_tries_user, 1, "a resend spends no second try");
    assert_eq!(rv(&wire.call(login(77, pin, 2))), Rv::USER_TYPE_INVALID);
    assert_ne!(outcome(&wire.call(login(2, pin, 3))), Outcome::OK, "a context login is no login");
    assert_ne!(outcome(&wire.call(login(1, b"", 4))), Outcome::OK);
    assert_eq!(outcome(&wire.call(login(1, pin, 5))), Outcome::OK);
    assert_eq!(wire.status().failed_tries_user, 0, "a right PIN clears the count");
    let change =
        SetPin { user: 1, old: b"not the PIN".to_vec(), new: b"another-pin".to_vec(), tag: vec![6; 16] };
    assert_eq!(rv(&wire.call(Call::SetPin(change))), Rv::PIN_INCORRECT);
    let change = SetPin { user: 1, old: pin.to_vec(), new: b"1".to_vec(), tag: vec![7; 16] };
    assert_eq!(rv(&wire.call(Call::SetPin(change))), Rv::PIN_LEN_RANGE);
    assert_eq!(outcome(&wire.call(login(1, pin, 8))), Outcome::OK, "a refused change changes nothing");
}

/// Provisional objects, running states and plans out of their place.
fn order_is_kept(client: &Client, lab: &Lab) {
    let mut wire = Wire::open(client);
    wire.login(lab.value("P11_PIN"));
    let make = Make {
        kind: MakeKind::CREATE.0,
        mechanism: None,
        templates: vec![aes_template(true, &[6; 32])],
        source: None,
        tag: vec![12; 16],
    };
    let made = wire.make(make);
    let store = Store { batch: made.batch.clone(), tag: vec![12; 16], provisional: true };
    assert_eq!(outcome(&wire.call(Call::Store(store.clone()))), Outcome::OK);
    let ouid = made.outputs[0].ouid.clone();
    let read = wire.attributes(&token_ref(&ouid), &[AttributeType::CLASS]);
    assert_ne!(outcome(&read), Outcome::OK, "a provisional object can be read");
    let commit = |ouids: Vec<Vec<u8>>| Call::Commit(Commit { ouids, tag: vec![12; 16] });
    let twice = wire.call(commit(vec![ouid.clone(), ouid.clone()]));
    assert_ne!(outcome(&twice), Outcome::OK, "one object twice in a commit");
    let discard = Call::Discard(Discard { ouids: vec![ouid.clone()], tag: vec![12; 16] });
    assert_eq!(outcome(&wire.call(discard)), Outcome::OK);
    assert_eq!(outcome(&wire.call(commit(vec![ouid.clone()]))), Outcome::DESTROYED);
    assert_eq!(outcome(&wire.call(Call::Store(store))), Outcome::DESTROYED, "a late Store after a Discard");
    let (_, private) = wire.pair(Vec::new());
    let mut old_plan = use_key(KeyFunction::SIGN, MechanismType::ECDSA, &private, How::WHOLE.0, &[1; 32]);
    old_plan.plan = Some(Stamp { ms: 1, counter: 0, incarnation: 1 });
    assert_eq!(outcome(&wire.call(Call::Use(old_plan))), Outcome::PLAN_CHANGED);
    let mut stream =
        use_key(KeyFunction::SIGN, MechanismType::ECDSA_SHA256, &private, How::STREAM.0, &[1; 32]);
    stream.state = wire.ticket.clone();
    stream.part = 1;
    assert_ne!(outcome(&wire.call(Call::Use(stream))), Outcome::OK, "a ticket as a running state");
    let chain = use_key(KeyFunction::SIGN, MechanismType::ECDSA, &private, How::CHAIN.0, &[1; 15]);
    assert_ne!(outcome(&wire.call(Call::Use(chain))), Outcome::OK, "a chain of what has no blocks");
}

fn keys_keep_to_what_they_permit(client: &Client, lab: &Lab) {
    let mut wire = Wire::open(client);
    wire.login(lab.value("P11_PIN"));
    let hash_and_sign_only = Attribute::new(
        AttributeType::ALLOWED_MECHANISMS,
        MechanismType::ECDSA_SHA256.0.to_le_bytes().to_vec(),
    );
    let (public, private) = wire.pair(vec![hash_and_sign_only]);
    let digest = [7; 32];
    // RULES 1.4: a hand-made prehashed request for a key that is allowed only the hash-and-sign form.
    assert_ne!(
        outcome(&wire.sign(MechanismType::ECDSA_SHA256, &private, How::PREHASH.0, &digest)),
        Outcome::OK
    );
    assert_eq!(rv(&wire.sign(MechanismType::ECDSA, &private, How::WHOLE.0, &digest)), Rv::MECHANISM_INVALID);
    assert_eq!(
        outcome(&wire.sign(MechanismType::ECDSA_SHA256, &private, How::WHOLE.0, b"data")),
        Outcome::OK
    );
    assert_ne!(outcome(&wire.sign(MechanismType::ECDSA_SHA256, &public, How::WHOLE.0, b"data")), Outcome::OK);
    let decrypt = use_key(KeyFunction::DECRYPT, MechanismType::ECDSA, &private, How::WHOLE.0, &[1; 32]);
    assert_ne!(outcome(&wire.call(Call::Use(decrypt))), Outcome::OK);
    let reply = wire.attributes(&private, &[AttributeType::VALUE, AttributeType::SENSITIVE]);
    let Some(Answer::GetAttributes(values)) = &reply.answer else {
        panic!("wanted attributes: {}", reply.text)
    };
    assert_eq!(Rv(values.values[0].rv), Rv::ATTRIBUTE_SENSITIVE);
    assert!(values.values[0].value.is_empty(), "a sensitive value left the member");
    for (kind, value) in [
        (AttributeType::SENSITIVE, false),
        (AttributeType::EXTRACTABLE, true),
        (AttributeType::TRUSTED, true),
    ] {
        let template = Template::from(vec![Attribute::bool(kind, value)]);
        let change = SetAttributes {
            object: Some(private.clone()),
            template: Some(template),
            tag: vec![8; 16],
            seen: None,
        };
        assert_ne!(
            outcome(&wire.call(Call::SetAttributes(change))),
            Outcome::OK,
            "{kind:?} was turned to {value}"
        );
    }
    let by_value = Template::from(vec![Attribute::new(AttributeType::VALUE, vec![0; 32])]);
    let reply = wire.call(Call::Find(Find { template: Some(by_value), after: Vec::new(), limit: 10 }));
    if let Some(Answer::Find(found)) = &reply.answer {
        assert!(found.found.is_empty(), "a sensitive value can be searched for");
    }
}

fn sealed_things_open_in_their_own_context_only(client: &Client, lab: &Lab) {
    let mut wire = Wire::open(client);
    wire.login(lab.value("P11_PIN"));
    let generate = |token: bool| Make {
        kind: MakeKind::CREATE.0,
        mechanism: None,
        templates: vec![aes_template(token, &[5; 32])],
        source: None,
        tag: vec![4; 16],
    };
    let made = wire.make(generate(true));
    let store = |batch: &[u8], tag: u8| {
        Call::Store(Store { batch: batch.to_vec(), tag: vec![tag; 16], provisional: false })
    };
    assert_ne!(outcome(&wire.call(store(&made.batch, 5))), Outcome::OK, "a batch under another tag");
    let mut bent = made.batch.clone();
    let last = bent.len() - 1;
    bent[last] ^= 1;
    assert_ne!(outcome(&wire.call(store(&bent, 4))), Outcome::OK, "a batch with one bit flipped");
    assert_ne!(outcome(&wire.call(store(&wire.ticket.clone(), 4))), Outcome::OK, "a ticket as a batch");
    let blob = wire.make(generate(false)).outputs[0].clone();
    assert_ne!(outcome(&wire.call(store(&blob.blob, 4))), Outcome::OK, "a session object as a batch");
    let commit = Commit { ouids: vec![made.outputs[0].ouid.clone()], tag: vec![4; 16] };
    assert_eq!(outcome(&wire.call(Call::Commit(commit))), Outcome::UNKNOWN, "a commit of what is not held");
    assert_eq!(outcome(&wire.call(store(&made.batch, 4))), Outcome::OK);
    // Another application instance on the same host: neither ticket nor session object is its own.
    let mut other = Client::of(lab);
    other.instance = ntls::instance::InstanceKey::generate();
    let mut stranger = Wire::open(&other);
    stranger.ticket.clone_from(&wire.ticket);
    let object = token_ref(&made.outputs[0].ouid);
    assert_ne!(
        outcome(&stranger.call(Call::Destroy(Destroy { object: Some(object) }))),
        Outcome::OK,
        "a stolen ticket"
    );
    stranger.ticket.clear();
    stranger.login(lab.value("P11_PIN"));
    let stolen = ObjectRef { ouid: blob.ouid.clone(), blob: blob.blob.clone(), ..Default::default() };
    assert_ne!(
        outcome(&stranger.attributes(&stolen, &[AttributeType::CLASS])),
        Outcome::OK,
        "a stolen session object"
    );
}

fn groups_and_partitions_of_others(client: &Client, lab: &Lab) {
    let mut wire = Wire::open(client);
    wire.login(lab.value("P11_PIN"));
    let serial = wire.serial;
    wire.serial = serial + 1;
    assert_eq!(outcome(&wire.call(Call::Random(Random { bytes: 8 }))), Outcome::NO_PARTITION);
    wire.serial = serial;
    wire.session.in_group(&[9; 16], 0);
    assert_eq!(outcome(&wire.call(Call::Random(Random { bytes: 8 }))), Outcome::WRONG_GROUP);
    let adopt = Adopt { group: vec![9; 16], generation: 0, manifest: vec![1; 80], credentials: vec![2; 80] };
    assert_ne!(outcome(&wire.call(Call::Adopt(adopt))), Outcome::OK);
}

fn bounds(client: &Client, lab: &Lab) {
    let mut wire = Wire::open(client);
    wire.login(lab.value("P11_PIN"));
    assert_ne!(outcome(&wire.call(Call::Random(Random { bytes: (1 << 20) + 1 }))), Outcome::OK);
    assert_ne!(outcome(&wire.call(Call::Compare(Compare { buckets: vec![4096] }))), Outcome::OK);
    let huge = Template::from(vec![Attribute::new(AttributeType::LABEL, vec![b'a'; 1 << 20]); 8]);
    let make = Make {
        kind: MakeKind::CREATE.0,
        mechanism: None,
        templates: vec![huge],
        source: None,
        tag: vec![1; 16],
    };
    assert_ne!(outcome(&wire.call(Call::Make(make))), Outcome::OK);
    let plan =
        Plan { function: 99, mechanism: Some(plain(MechanismType::ECDSA)), key: Some(token_ref(&[1; 16])) };
    assert_ne!(outcome(&wire.call(Call::Plan(plan))), Outcome::OK);
    let garbled = wire.session.call_bytes(wire.serial, &[0xff; 100]).unwrap();
    assert_eq!(outcome(&garbled), Outcome::MALFORMED);
    let empty = wire.session.call_bytes(wire.serial, &[]).unwrap();
    assert_eq!(outcome(&empty), Outcome::MALFORMED);
}

fn frames_that_are_none(client: &Client) {
    let oversized = [0xffu8, 0xff, 0xff, 0xff, 3];
    let unknown_kind = [0u8, 0, 0, 1, 200];
    let truncated_header = [0u8, 0, 0, 5, 3, 1, 2, 3, 4];
    let second_hello = [0u8, 0, 0, 1, 1];
    for bytes in [&oversized[..], &unknown_kind, &truncated_header, &second_hello] {
        let mut session = client.connect().unwrap();
        session.send_bytes(bytes).unwrap();
        let closed = |heard: Result<Frame, ExchangeError>| {
            matches!(heard, Ok(Frame::Close(_)) | Err(ExchangeError::Lost(_)))
        };
        assert!(closed(session.receive()), "the link stays open after {bytes:?}");
    }
    // Half a frame, and then silence: the link may wait, the appliance goes on.
    let mut session = client.connect().unwrap();
    session.send_bytes(&[0, 0, 1]).unwrap();
}

fn certificates_that_are_not_registered(client: &Client) {
    let now_ms = u64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
    )
    .unwrap();
    let same_name = client.identity.certificate().name().to_owned();
    for (name, days, at) in [
        ("nobody", 10, now_ms),
        (same_name.as_str(), 10, now_ms),
        (same_name.as_str(), 1, now_ms - 9 * 86_400_000),
    ] {
        let made = certificate::self_signed(&Wanted { name, hosts: &[], now_ms: at, days }).unwrap();
        let identity = Identity::from_pem(made.certificate_pem.as_bytes(), made.key_pem.as_bytes()).unwrap();
        let stranger = Client {
            configuration: client.configuration.clone(),
            identity,
            trust: client.trust.clone(),
            instance: ntls::instance::InstanceKey::generate(),
        };
        let Err(error) = stranger.connect() else {
            panic!("a certificate of {name} that is not registered was accepted")
        };
        assert!(error.to_string().contains("regist") || error.to_string().contains("expired"), "{error}");
    }
}
