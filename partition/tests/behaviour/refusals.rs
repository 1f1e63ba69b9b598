//! What a raw client may try: bounds, groups, recovering members, positions that are not reached.
use partition::Partition;
use prost::Message;
use spec::messages::*;
use spec::{Attribute, AttributeType as A, Template};

use crate::bench::*;

#[test]
fn bytes_that_are_no_request_are_malformed() {
    let bench = Bench::new();
    for body in [&b""[..], &[0xFF; 40], &[0xFF; 100], b"GET / HTTP/1.1", &[0x52, 0x7F]] {
        assert_eq!(Outcome(bench.raw(body).outcome), Outcome::MALFORMED, "{body:?}");
    }
}

#[test]
fn several_calls_in_one_request_are_malformed_and_change_nothing() {
    let bench = Bench::logged_in();
    let key = bench.key(vec![token()]);
    let destroy = || bench.body(Call::Destroy(Destroy { object: Some(key.clone()) }));
    let status = bench.body(Call::Status(Status::default()));
    for body in [[status.clone(), destroy()], [destroy(), status], [destroy(), destroy()]] {
        let body = body.concat();
        assert_eq!(Outcome(bench.raw(&body).outcome), Outcome::MALFORMED);
        assert_eq!(Partition::call_name(&body), None);
    }
    assert_eq!(bench.status().objects, 1);
}

#[test]
fn only_calls_of_tools_may_leave_the_group_open() {
    let bench = Bench::logged_in();
    let manifest = bench.partition.manifest();
    for (name, group, generation) in [
        ("none", vec![], 0),
        ("another", vec![9; 16], manifest.generation),
        ("another generation", manifest.group.clone(), manifest.generation + 1),
        ("a short one", manifest.group[..15].to_vec(), manifest.generation),
    ] {
        for call in every_call() {
            let number = call.number();
            let open = [10, 11, 12, 24, 25, 26, 27, 28, 29].contains(&number) && group.is_empty();
            let ticket = bench.ticket.clone();
            let body = RequestBody { group: group.clone(), generation, ticket, call: Some(call) };
            let outcome = Outcome(bench.raw(&body.encode_to_vec()).outcome);
            assert_eq!(outcome == Outcome::WRONG_GROUP, !open, "{name}, call {number}: {outcome:?}");
        }
    }
}

#[test]
fn ha_1_5_a_recovering_member_serves_neither_logins_nor_uses_until_it_is_repaired() {
    let bench = Bench::logged_in();
    let before = bench.partition.handle(&CALLER, &bench.header(), b"", NOW_MS).0;
    bench.partition.reincarnate(true).unwrap();
    let after = bench.partition.handle(&CALLER, &bench.header(), b"", NOW_MS).0;
    assert_ne!(after.incarnation, before.incarnation);
    assert!(bench.status().recovering);
    for call in every_call() {
        let number = call.number();
        let refused = [11, 12, 13, 14, 15, 16, 20, 21, 22].contains(&number);
        assert_eq!(bench.outcome(call) == Outcome::RECOVERING, refused, "call {number}");
    }
    bench.ok(Call::Join(Join { repaired: true, ..Join::default() }));
    assert!(!bench.status().recovering);
    bench.login(spec::UserType::USER, CO_PIN);
}

#[test]
fn ha_7_a_position_that_is_not_reached_is_behind_in_this_incarnation_only() {
    let bench = Bench::new();
    let standing = bench.partition.handle(&CALLER, &bench.header(), b"", NOW_MS).0;
    let ask = |incarnation, at_least| {
        let header = RequestHeader { incarnation, at_least, ..bench.header() };
        let body = bench.body(Call::Status(Status::default()));
        let reply = bench.partition.handle(&CALLER, &header, &body, NOW_MS).1;
        Outcome(ReplyBody::decode(reply.as_slice()).unwrap().outcome)
    };
    assert_eq!(ask(standing.incarnation, standing.seq), Outcome::OK);
    assert_eq!(ask(standing.incarnation, standing.seq + 1), Outcome::BEHIND);
    assert_eq!(ask(standing.incarnation ^ 2, standing.seq + 1), Outcome::OK);
}

#[test]
fn calls_without_their_parts_or_past_their_bounds_are_malformed() {
    let bench = Bench::logged_in();
    let object = Some(ObjectRef { ouid: vec![1; 16], ..ObjectRef::default() });
    let wide = Template { attributes: vec![Attribute::new(A::LABEL, b"x"); 129] };
    let long = Template { attributes: vec![Attribute::new(A::LABEL, vec![0; (256 << 10) + 1])] };
    let calls = vec![
        Call::Login(Login::default()),
        Call::SetPin(SetPin::default()),
        Call::Plan(Plan::default()),
        Call::Plan(Plan { function: 5, ..Plan::default() }),
        Call::Use(Use::default()),
        Call::Use(changed!(Use::default(); how: 5)),
        Call::Make(Make::default()),
        Call::Make(Make { kind: 9, tag: tag(), templates: vec![Template::default()], ..Make::default() }),
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
        Call::Lease(Lease { holder: vec![1; 15], ms: 1 }),
        Call::Lease(Lease { holder: vec![1; 16], ms: 60_001 }),
    ];
    for (at, call) in calls.into_iter().enumerate() {
        let reply = bench.send(call);
        assert_eq!(Outcome(reply.outcome), Outcome::MALFORMED, "{at}: {}", reply.text);
        assert!(!reply.text.is_empty(), "{at}");
    }
}

#[test]
fn calls_that_change_what_lasts_are_refused_without_a_login() {
    let mut bench = Bench::logged_in();
    bench.ticket.clear();
    for call in every_call().into_iter().filter(|call| [24, 25, 27, 28, 29].contains(&call.number())) {
        assert_eq!(bench.rv(call), spec::Rv::USER_NOT_LOGGED_IN);
    }
    bench.ticket = bench.login(spec::UserType::SO, SO_PIN);
    for call in every_call().into_iter().filter(|call| [24, 25, 27, 28, 29].contains(&call.number())) {
        assert_eq!(bench.rv(call), spec::Rv::USER_NOT_LOGGED_IN, "the security officer is no Crypto Officer");
    }
}

/// One of each call, in the order of the table.
pub fn every_call() -> Vec<Call> {
    let tag = tag();
    let calls = vec![
        Call::Status(Status::default()),
        Call::Login(changed!(Login::default(); tag: tag.clone())),
        Call::SetPin(changed!(SetPin::default(); tag: tag.clone())),
        Call::Plan(Plan::default()),
        Call::Use(Use::default()),
        Call::Random(Random { bytes: 1 }),
        Call::Make(Make { tag: tag.clone(), ..Make::default() }),
        Call::Store(Store { tag: tag.clone(), ..Store::default() }),
        Call::Commit(Commit { tag: tag.clone(), ouids: vec![vec![1; 16]] }),
        Call::Discard(Discard { tag: tag.clone(), ouids: vec![vec![1; 16]] }),
        Call::Find(Find::default()),
        Call::GetAttributes(GetAttributes::default()),
        Call::SetAttributes(SetAttributes { tag: tag.clone(), ..SetAttributes::default() }),
        Call::Destroy(Destroy::default()),
        Call::ChangeManifest(ChangeManifest { tag, ..ChangeManifest::default() }),
        Call::Adopt(Adopt::default()),
        Call::Compare(Compare::default()),
        Call::Export(Export::default()),
        Call::Join(Join::default()),
        Call::Lease(Lease { holder: vec![1; 16], ms: 1_000 }),
    ];
    assert_eq!(calls.iter().map(Call::number).collect::<Vec<_>>(), Call::NUMBERS);
    calls
}

#[test]
fn the_cost_of_every_call_is_known() {
    let bench = Bench::new();
    for call in every_call() {
        let number = call.number();
        let cost = Partition::cost(&bench.body(call));
        let writes = [17, 18, 19, 22, 23, 24, 25, 28].contains(&number);
        assert_eq!(cost == partition::Cost::Disk, writes, "call {number}");
    }
}
