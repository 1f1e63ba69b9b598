//! Each sealed thing in each wrong context (RULES 3.1): batches, tickets, session objects, running states.
use spec::messages::{
    Answer, Call, Commit, Destroy, How, KeyFunction, Make, MakeKind, MechanismMessage, ObjectRef, Outcome,
    SetAttributes, Store, Use,
};
use spec::value::{Attribute, Template};
use spec::{AttributeType, KeyType, Mechanism, MechanismType, ObjectClass, Parameters, Rv};
use tests::lab::Lab;
use tests::wire::{Client, Wire, aes_template, create, tag, token_ref, use_key, with_blob};

use crate::{officer, outcome, rv};

pub(crate) fn sealed_things_open_in_their_own_context_only(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
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

/// A request changed by a closure: `Use` wipes itself, so it cannot be taken apart by `..`.
fn changed(from: &Use, change: impl FnOnce(&mut Use)) -> Use {
    let mut other = from.clone();
    change(&mut other);
    other
}

/// A running state is of one key, function, mechanism, parameters, part and instance.
pub(crate) fn running_states(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let mut secret = |value: &[u8]| {
        let key = create(vec![
            Attribute::ulong(AttributeType::CLASS, ObjectClass::SECRET_KEY.0),
            Attribute::ulong(AttributeType::KEY_TYPE, KeyType::GENERIC_SECRET.0),
            Attribute::bool(AttributeType::TOKEN, true),
            Attribute::bool(AttributeType::SIGN, true),
            Attribute::bool(AttributeType::VERIFY, true),
            Attribute::new(AttributeType::VALUE, value.to_vec()),
        ]);
        wire.stored(key).remove(0)
    };
    let (key, other_key) = (secret(b"secret"), secret(b"other"));
    let zero = use_key(KeyFunction::SIGN, MechanismType::SHA256_HMAC, &key, How::STREAM.0, b"one ");
    let ticket = wire.ticket.clone();
    let mut state_after = |wanted: &Use| {
        let reply = wire.call(Call::Use(wanted.clone()));
        match &reply.answer {
            Some(Answer::Use(answer)) => answer.state.clone(),
            _ => panic!("wanted a state: {}", reply.text),
        }
    };
    let state = state_after(&zero);
    let one = changed(&zero, |wanted| (wanted.part, wanted.state) = (1, state.clone()));
    let later = state_after(&one);
    let short = Mechanism {
        mechanism_type: MechanismType::SHA256_HMAC_GENERAL,
        parameters: Parameters::MacGeneral { mac_bytes: 8 },
    };
    let mechanism = |mechanism: &Mechanism| Some(MechanismMessage::from(mechanism));
    let wrong = [
        ("another key", changed(&one, |wanted| wanted.key = Some(other_key))),
        ("another function", changed(&one, |wanted| wanted.function = KeyFunction::VERIFY.0)),
        (
            "another mechanism",
            changed(&one, |wanted| {
                wanted.mechanism = mechanism(&Mechanism::plain(MechanismType::SHA512_HMAC));
            }),
        ),
        ("other parameters", changed(&one, |wanted| wanted.mechanism = mechanism(&short))),
        ("another part", changed(&one, |wanted| wanted.part = 2)),
        ("the state of another part", changed(&one, |wanted| wanted.state = later.clone())),
        ("a ticket", changed(&one, |wanted| wanted.state = ticket)),
        ("a cut state", changed(&one, |wanted| wanted.state.truncate(state.len() - 1))),
        ("a bent state", changed(&one, |wanted| wanted.state[state.len() / 2] ^= 1)),
    ];
    for (what, wanted) in wrong {
        assert_eq!(outcome(&wire.call(Call::Use(wanted))), Outcome::NOT_OPENED, "{what}");
    }
    for (what, wanted) in [
        ("a first part with a state", changed(&one, |wanted| wanted.part = 0)),
        ("a later part without one", changed(&one, |wanted| wanted.state.clear())),
    ] {
        assert_eq!(outcome(&wire.call(Call::Use(wanted))), Outcome::MALFORMED, "{what}");
    }
    let mut other = Client::of(lab);
    other.instance = ntls::instance::InstanceKey::generate();
    let mut stranger = officer(&other, lab);
    assert_eq!(outcome(&stranger.call(Call::Use(one.clone()))), Outcome::NOT_OPENED, "another instance");
    assert_eq!(outcome(&wire.call(Call::Use(one))), Outcome::OK, "the right one");
}

/// RULES 2.2: a blob is asked for once, opens for its instance and login only, and is what its hash says.
pub(crate) fn session_objects(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let make = |value: u8| {
        let mut template = aes_template(false, &[value; 32]).attributes;
        template.push(Attribute::bool(AttributeType::EXTRACTABLE, false));
        create(template)
    };
    let (key, other) = (wire.stored(make(1)).remove(0), wire.stored(make(2)).remove(0));
    let read = |wire: &mut Wire, object: &ObjectRef| wire.attributes(object, &[AttributeType::CLASS]);
    let unseen = ObjectRef { blob: Vec::new(), ..key.clone() };
    let reply = read(&mut wire, &unseen);
    assert_eq!((outcome(&reply), &reply.object), (Outcome::NEED_BLOB, &key.ouid));
    let mislabelled = ObjectRef { blob_hash: other.blob_hash.clone(), ..key.clone() };
    assert_eq!(outcome(&read(&mut wire, &mislabelled)), Outcome::MALFORMED, "another blob's hash");
    for at in [0, 1, 30, key.blob.len() - 1] {
        let mut blob = key.blob.clone();
        blob[at] ^= 1;
        let bent = with_blob(&key.ouid, &blob);
        assert_eq!(outcome(&read(&mut wire, &bent)), Outcome::NOT_OPENED, "byte {at}");
    }
    let renamed = with_blob(&other.ouid, &key.blob);
    assert_eq!(outcome(&read(&mut wire, &renamed)), Outcome::NOT_OPENED, "another object's name");
    assert_eq!(outcome(&read(&mut wire, &with_blob(&key.ouid, &[9]))), Outcome::NOT_OPENED);
    let ticket = with_blob(&key.ouid, &wire.ticket);
    assert_eq!(outcome(&read(&mut wire, &ticket)), Outcome::NOT_OPENED, "a ticket");
    for _ in 0..2 {
        // The second time it is cached, which changes nothing for others.
        assert_eq!(outcome(&read(&mut wire, &key)), Outcome::OK);
        let ticket = wire.ticket.clone();
        wire.login(lab.value("P11_PIN"));
        assert_eq!(outcome(&read(&mut wire, &key)), Outcome::NOT_OPENED, "another login");
        wire.ticket.clear();
        assert_eq!(rv(&read(&mut wire, &key)), Rv::OBJECT_HANDLE_INVALID, "no login");
        wire.ticket = ticket;
    }
    let weaker = Template::from(vec![Attribute::bool(AttributeType::EXTRACTABLE, true)]);
    let change = SetAttributes { object: Some(key), template: Some(weaker), tag: tag(), seen: None };
    assert_eq!(rv(&wire.call(Call::SetAttributes(change))), Rv::ATTRIBUTE_READ_ONLY);
}
