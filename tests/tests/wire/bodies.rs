//! What is no request, breaks a bound, lacks a part or means another group.
use prost::Message as _;
use spec::messages::{
    Adopt, Call, ChangeManifest, Commit, Compare, Destroy, Discard, Export, Find, GetAttributes, Join, Lease,
    Login, Make, MakeKind, ObjectRef, Outcome, Plan, Random, RequestBody, SealedRecord, SetAttributes,
    SetPin, Status, Store, Use,
};
use spec::value::{Attribute, Template};
use spec::{AttributeType, MechanismType};
use tests::lab::Lab;
use tests::wire::{Client, create, generate, plain, tag, token_ref};

use crate::{officer, outcome};

pub(crate) fn groups_and_partitions_of_others(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let serial = wire.serial;
    wire.serial = serial + 1;
    assert_eq!(outcome(&wire.call(Call::Random(Random { bytes: 8 }))), Outcome::NO_PARTITION);
    wire.serial = serial;
    wire.session.in_group(&[9; 16], 0);
    assert_eq!(outcome(&wire.call(Call::Random(Random { bytes: 8 }))), Outcome::WRONG_GROUP);
    let adopt = Adopt { group: vec![9; 16], generation: 0, manifest: vec![1; 80], credentials: vec![2; 80] };
    assert_ne!(outcome(&wire.call(Call::Adopt(adopt))), Outcome::OK);
    // RULES 2.9, 3.1: only calls of tools may leave the group open, and none may name another.
    let manifest = officer(client, lab).manifest();
    let mut wire = officer(client, lab);
    for (name, group, generation) in [
        ("none", Vec::new(), 0),
        ("another", vec![9; 16], manifest.generation),
        ("another generation", manifest.group.clone(), manifest.generation + 1),
        ("a short one", manifest.group[..15].to_vec(), manifest.generation),
    ] {
        for call in every_call() {
            let number = call.number();
            let open = [10, 11, 12, 24, 25, 26, 27, 28, 29].contains(&number) && group.is_empty();
            let ticket = wire.ticket.clone();
            let body = RequestBody { group: group.clone(), generation, ticket, call: Some(call) };
            let reply = wire.raw(&body.encode_to_vec());
            assert_eq!(
                outcome(&reply) == Outcome::WRONG_GROUP,
                !open,
                "{name}, call {number}: outcome {} {}",
                reply.outcome,
                reply.text
            );
        }
    }
}

/// One of each call, without its parts.
fn every_call() -> Vec<Call> {
    let calls = vec![
        Call::Status(Status::default()),
        Call::Login(Login::default()),
        Call::SetPin(SetPin::default()),
        Call::Plan(Plan::default()),
        Call::Use(Use::default()),
        Call::Random(Random { bytes: 1 }),
        Call::Make(Make { tag: tag(), ..Make::default() }),
        Call::Store(Store { tag: tag(), ..Store::default() }),
        Call::Commit(Commit { tag: tag(), ouids: vec![vec![1; 16]] }),
        Call::Discard(Discard { tag: tag(), ouids: vec![vec![1; 16]] }),
        Call::Find(Find::default()),
        Call::GetAttributes(GetAttributes::default()),
        Call::SetAttributes(SetAttributes { tag: tag(), ..SetAttributes::default() }),
        Call::Destroy(Destroy::default()),
        Call::ChangeManifest(ChangeManifest::default()),
        Call::Adopt(Adopt::default()),
        Call::Compare(Compare::default()),
        Call::Export(Export::default()),
        Call::Join(Join::default()),
        Call::Lease(Lease::default()),
    ];
    assert_eq!(calls.iter().map(Call::number).collect::<Vec<_>>(), Call::NUMBERS, "one of each call");
    calls
}

pub(crate) fn bounds(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
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
}

/// Bytes that are no request, and several requests in one.
pub(crate) fn what_is_no_request(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    for body in [&b""[..], &[0xff; 40], &[0xff; 100], b"GET / HTTP/1.1", &[0x52, 0x7f]] {
        assert_eq!(outcome(&wire.raw(body)), Outcome::MALFORMED, "{body:?}");
    }
    let key = wire.stored(generate(
        MechanismType::AES_KEY_GEN,
        vec![Attribute::bool(AttributeType::TOKEN, true), Attribute::ulong(AttributeType::VALUE_LEN, 32)],
    ));
    let destroy = wire.body(Call::Destroy(Destroy { object: Some(key[0].clone()) }));
    let status = wire.body(Call::Status(Status::default()));
    for two in [[&status, &destroy], [&destroy, &status], [&destroy, &destroy]] {
        assert_eq!(outcome(&wire.raw(&[two[0].as_slice(), two[1]].concat())), Outcome::MALFORMED);
    }
    let read = wire.attributes(&key[0], &[AttributeType::CLASS]);
    assert_eq!(outcome(&read), Outcome::OK, "two calls in one request carried out neither");
}

/// Calls without their parts, or past their bounds.
pub(crate) fn calls_without_their_parts(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let object = Some(ObjectRef { ouid: vec![1; 16], ..ObjectRef::default() });
    let wide = Template { attributes: vec![Attribute::new(AttributeType::LABEL, b"x".to_vec()); 129] };
    let long = Template { attributes: vec![Attribute::new(AttributeType::LABEL, vec![0; (256 << 10) + 1])] };
    let kind = |kind: u32| Make { kind, tag: tag(), templates: vec![Template::default()], ..Make::default() };
    let mut unknown_way = Use::default();
    unknown_way.how = 5;
    let calls = vec![
        Call::Login(Login::default()),
        Call::SetPin(SetPin::default()),
        Call::Plan(Plan::default()),
        Call::Plan(Plan { function: 5, ..Plan::default() }),
        Call::Use(Use::default()),
        Call::Use(unknown_way),
        Call::Make(Make::default()),
        Call::Make(kind(9)),
        Call::Make(Make { kind: MakeKind::GENERATE_PAIR.0, tag: tag(), ..Make::default() }),
        Call::Make(Make { templates: vec![wide.clone()], ..create(vec![]) }),
        Call::Make(Make { templates: vec![long], ..create(vec![]) }),
        Call::Store(Store::default()),
        Call::Commit(Commit { ouids: vec![], tag: tag() }),
        Call::Commit(Commit { ouids: vec![vec![1; 15]], tag: tag() }),
        Call::Commit(Commit { ouids: vec![vec![1; 16]; 17], tag: tag() }),
        Call::Discard(Discard { ouids: vec![vec![]], tag: tag() }),
        Call::Find(Find { template: Some(wide), ..Find::default() }),
        Call::Find(Find { after: vec![1], ..Find::default() }),
        Call::GetAttributes(GetAttributes::default()),
        Call::GetAttributes(GetAttributes { object, numbers: vec![0; 257] }),
        Call::SetAttributes(SetAttributes::default()),
        Call::Destroy(Destroy::default()),
        Call::ChangeManifest(ChangeManifest::default()),
        Call::Adopt(Adopt::default()),
        Call::Compare(Compare { buckets: vec![4096] }),
        Call::Compare(Compare { buckets: vec![0; 4097] }),
        Call::Compare(Compare { buckets: vec![7, 8, 7] }),
        Call::Export(Export { ouids: vec![vec![]; 1], ..Export::default() }),
        Call::Export(Export { ouids: vec![vec![1; 16]; 1001], ..Export::default() }),
        Call::Join(Join { records: vec![SealedRecord::default(); 1001], ..Join::default() }),
        Call::Lease(Lease::default()),
    ];
    for (at, call) in calls.into_iter().enumerate() {
        let number = call.number();
        let reply = wire.call(call);
        assert_eq!(outcome(&reply), Outcome::MALFORMED, "row {at}, call {number}: {}", reply.text);
        assert!(!reply.text.is_empty(), "row {at} does not say what was wanted");
    }
}
