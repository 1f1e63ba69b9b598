//! What is no request, breaks a bound, lacks a part or means another group, as it crosses the wire. Every row of these
//! refusals stands in `partition/tests/behaviour/refusals.rs`, where they are decided.
use prost::Message as _;
use spec::messages::{
    Adopt, Call, Commit, Compare, Destroy, Find, Make, MakeKind, Outcome, Plan, Random, RequestBody,
    SealedRecord, Status,
};
use spec::value::{Attribute, Template};
use spec::{AttributeType, MechanismType};
use tests::lab::Lab;
use tests::wire::{Client, generate, plain, tag, token_ref};

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
    // RULES 3.1: a call that uses keys names the group; one of tools may leave it open.
    let mut wire = officer(client, lab);
    let ask = |call: Call| {
        let body =
            RequestBody { group: Vec::new(), generation: 0, ticket: wire.ticket.clone(), call: Some(call) };
        body.encode_to_vec()
    };
    let (random, status) = (ask(Call::Random(Random { bytes: 1 })), ask(Call::Status(Status::default())));
    assert_eq!(outcome(&wire.raw(&random)), Outcome::WRONG_GROUP);
    assert_eq!(outcome(&wire.raw(&status)), Outcome::OK);
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
    for body in [&b""[..], b"GET / HTTP/1.1"] {
        assert_eq!(outcome(&wire.raw(body)), Outcome::MALFORMED, "{body:?}");
    }
    let key = wire.stored(generate(
        MechanismType::AES_KEY_GEN,
        vec![Attribute::bool(AttributeType::TOKEN, true), Attribute::ulong(AttributeType::VALUE_LEN, 32)],
    ));
    let destroy = wire.body(Call::Destroy(Destroy { object: Some(key[0].clone()) }));
    let status = wire.body(Call::Status(Status::default()));
    assert_eq!(outcome(&wire.raw(&[status, destroy].concat())), Outcome::MALFORMED);
    let read = wire.attributes(&key[0], &[AttributeType::CLASS]);
    assert_eq!(outcome(&read), Outcome::OK, "neither of two calls in one request was carried out");
}

/// Calls without their parts, or past their bounds: one for each kind of field that has bounds.
pub(crate) fn calls_without_their_parts(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let wide = Template { attributes: vec![Attribute::new(AttributeType::LABEL, b"x".to_vec()); 129] };
    let calls = vec![
        Call::Plan(Plan::default()),
        Call::Commit(Commit { ouids: vec![vec![1; 15]], tag: tag() }),
        Call::Find(Find { template: Some(wide), ..Find::default() }),
        Call::Join(spec::messages::Join {
            records: vec![SealedRecord::default(); 1001],
            ..Default::default()
        }),
    ];
    for call in calls {
        let number = call.number();
        let reply = wire.call(call);
        assert_eq!(outcome(&reply), Outcome::MALFORMED, "call {number}: {}", reply.text);
        assert!(!reply.text.is_empty(), "call {number} does not say what was wanted");
    }
}
