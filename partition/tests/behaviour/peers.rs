//! What a peer may do and what it is told (HA 1.5, 4.7; RULES 3.3), and members of unequal ability (DESIGN 2).
use partition::{LinkFacts, Settings};
use prost::Message;
use spec::messages::*;
use spec::{AttributeType as A, Mechanism, MechanismType as M, Rv};

use crate::bench::*;
use crate::restart::reopened;

fn peer() -> LinkFacts {
    LinkFacts { replicator: true, ..LinkFacts::default() }
}

/// A request without a ticket over a link of these facts.
fn over(link: &LinkFacts, bench: &Bench, call: Call) -> ReplyBody {
    let body = RequestBody { call: Some(call), ..RequestBody::default() }.encode_to_vec();
    let (_, reply) = bench.partition.handle_on(link, &bench.caller, &bench.header(), &body, bench.now_ms);
    ReplyBody::decode(reply.as_slice()).unwrap()
}

fn status_over(link: &LinkFacts, bench: &Bench) -> StatusAnswer {
    match over(link, bench, Call::Status(Status::default())).answer {
        Some(Answer::Status(status)) => status,
        _ => unreachable!("a status is answered by a status"),
    }
}

#[test]
fn ha_4_7_a_peer_compares_exports_joins_and_leases_without_a_ticket() {
    let home = Bench::logged_in();
    let other = home.joined(1002);
    let object = home.create(data(vec![token(), label("kept")])).remove(0);
    let lease = Call::Lease(Lease { holder: vec![3; 16], ms: 1_000 });
    for (call, without) in [
        (Call::Compare(Compare::default()), Outcome::OK),
        (Call::Export(Export { ouids: vec![object.ouid.clone()], ..Export::default() }), Outcome::RV),
        (lease, Outcome::RV),
    ] {
        assert_eq!(over(&peer(), &home, call.clone()).outcome, Outcome::OK.0, "call {}", call.number());
        assert_eq!(over(&LinkFacts::default(), &home, call.clone()).outcome, without.0, "{}", call.number());
    }
    let export = Export { ouids: vec![object.ouid.clone()], credentials: true, manifest: true };
    let Some(Answer::Export(export)) = over(&peer(), &home, Call::Export(export)).answer else {
        unreachable!("an export is answered by an export")
    };
    let join = Join {
        records: export.records,
        credentials: export.credentials,
        manifest: export.manifest,
        repaired: true,
    };
    assert_eq!(over(&LinkFacts::default(), &other, Call::Join(join.clone())).outcome, Outcome::RV.0);
    assert_eq!(over(&peer(), &other, Call::Join(join)).outcome, Outcome::OK.0);
    assert_eq!(other.status().root, home.status().root);
}

#[test]
fn ha_4_7_a_peer_may_do_nothing_else_even_with_a_ticket() {
    let home = Bench::logged_in();
    let key = home.create(ec_pair(vec![token()], vec![token()])).remove(1);
    let object = Some(key.clone());
    let ecdsa = Mechanism::plain(M::ECDSA_SHA256);
    let calls = [
        login(spec::UserType::USER, CO_PIN),
        Call::SetPin(SetPin::default()),
        plan(KeyFunction::SIGN, &ecdsa, &key),
        Call::Use(whole(KeyFunction::SIGN, &ecdsa, &key, b"m")),
        Call::Random(Random { bytes: 1 }),
        Call::Make(data(vec![token()])),
        Call::Store(Store::default()),
        Call::Commit(Commit::default()),
        Call::Discard(Discard::default()),
        Call::Find(Find::default()),
        Call::GetAttributes(GetAttributes { object: object.clone(), numbers: vec![A::LABEL.0] }),
        home.set(&key, vec![label("x")]),
        Call::Destroy(Destroy { object }),
        Call::ChangeManifest(ChangeManifest::default()),
        Call::Adopt(Adopt::default()),
    ];
    assert_eq!(calls.len() + 5, Call::NUMBERS.len(), "all but Status, Compare, Export, Join, Lease");
    let seq = home.store.seq().unwrap();
    for call in calls {
        let number = call.number();
        let body = home.body(call);
        let (_, reply) = home.partition.handle_on(&peer(), &home.caller, &home.header(), &body, home.now_ms);
        let reply = ReplyBody::decode(reply.as_slice()).unwrap();
        assert_eq!(
            (Outcome(reply.outcome), Rv(reply.rv)),
            (Outcome::RV, Rv::FUNCTION_REJECTED),
            "call {number}"
        );
    }
    assert_eq!(home.store.seq().unwrap(), seq, "nothing was written");
}

#[test]
fn status_tells_what_the_link_knows_and_to_peers_alone_where_the_appliance_has_seen_members() {
    let bench = Bench::new();
    let seen =
        SeenMember { serial: 1001, incarnation: 5, seq: 6, root: vec![7; 32], ..SeenMember::default() };
    let known = LinkFacts {
        server_certificate_ends_ms: 11,
        client_certificate_ends_ms: 12,
        wall_ms: 13,
        seen: vec![seen.clone(), SeenMember { serial: 9_009, ..seen.clone() }],
        replicator: false,
    };
    let told = status_over(&known, &bench);
    assert_eq!(
        (told.server_certificate_ends_ms, told.client_certificate_ends_ms, told.wall_ms),
        (11, 12, 13)
    );
    assert_eq!(told.seen, []);
    assert_eq!(
        status_over(&LinkFacts { replicator: true, ..known }, &bench).seen,
        [seen],
        "of this group's members"
    );
    let header = bench.partition.header();
    assert_eq!((told.incarnation, told.seq), (header.incarnation, header.seq));
}

#[test]
fn ha_1_5_a_store_that_went_back_or_was_cloned_is_known_by_what_others_have_seen() {
    let bench = Bench::logged_in();
    bench.create(data(vec![token()]));
    let status = bench.status();
    let (incarnation, seq, root) = (status.incarnation, status.seq, status.root);
    let contradicts = |serial, incarnation, seq, root: &[u8]| {
        let seen = SeenMember { serial, incarnation, seq, root: root.to_vec(), ..SeenMember::default() };
        bench.partition.contradicts(&seen)
    };
    assert!(!contradicts(1001, incarnation, seq, &root), "that is where it is");
    assert!(!contradicts(1001, incarnation, seq - 1, &[9; 32]), "it was there and went on");
    assert!(contradicts(1001, incarnation, seq + 1, &root), "it went back");
    assert!(contradicts(1001, incarnation, seq, &[9; 32]), "another one is there as well");
    assert!(!contradicts(1001, incarnation ^ 2, seq + 9, &[9; 32]), "another incarnation");
    assert!(!contradicts(1002, incarnation, seq + 9, &[9; 32]), "another member");
}

#[test]
fn ha_1_5_an_operator_ends_the_recovering_state_and_it_stays_ended() {
    let bench = Bench::logged_in();
    assert!(!bench.partition.adopt_as_it_is().unwrap(), "nothing to end");
    bench.partition.reincarnate(true).unwrap();
    assert_eq!(bench.outcome(Call::Random(Random { bytes: 1 })), Outcome::RECOVERING);
    assert!(bench.partition.adopt_as_it_is().unwrap());
    bench.ok(Call::Random(Random { bytes: 1 }));
    assert!(!reopened(bench).status().recovering);
}

#[test]
fn mechanisms_that_are_switched_off_are_neither_listed_nor_carried_out() {
    let settings = Settings {
        mechanisms_off: vec![M::ECDSA_SHA256, M::AES_KEY_GEN, M::RSA_PKCS],
        ..Settings::for_tests()
    };
    let mut bench = Bench::with(1001, settings);
    bench.ticket = bench.login(spec::UserType::USER, CO_PIN);
    let listed: Vec<u64> = bench.status().mechanisms.iter().map(|facts| facts.number).collect();
    assert!(!listed.contains(&M::ECDSA_SHA256.0) && listed.contains(&M::ECDSA.0));
    assert_eq!(bench.rv(Call::Make(generate(M::AES_KEY_GEN, vec![]))), Rv::MECHANISM_INVALID);
    let key = bench.create(ec_pair(vec![token()], vec![token()])).remove(1);
    let off = Mechanism::plain(M::ECDSA_SHA256);
    assert_eq!(bench.rv(plan(KeyFunction::SIGN, &off, &key)), Rv::MECHANISM_INVALID);
    assert_eq!(bench.rv(Call::Use(whole(KeyFunction::SIGN, &off, &key, b"m"))), Rv::MECHANISM_INVALID);
    bench.ok(plan(KeyFunction::SIGN, &Mechanism::plain(M::ECDSA_SHA384), &key));
    // RULES 1.4: without the raw form a digest from outside would grant something new.
    let rsa = bench.create(rsa_pair(vec![token()], vec![token()])).remove(1);
    let Answer::Plan(plan) = bench.ok(plan(KeyFunction::SIGN, &Mechanism::plain(M::SHA256_RSA_PKCS), &rsa))
    else {
        unreachable!("a plan is answered by a plan")
    };
    assert_ne!(plan.how, How::PREHASH.0);
}

fn leased(bench: &Bench, holder: u8, ms: u32) -> LeaseAnswer {
    match bench.ok(Call::Lease(Lease { holder: vec![holder; 16], ms })) {
        Answer::Lease(answer) => answer,
        _ => unreachable!("a lease is answered by a lease"),
    }
}

#[test]
fn ha_4_6_one_repairer_at_a_time_holds_the_lease_until_it_ends_or_is_given_back() {
    let mut bench = Bench::logged_in();
    assert_eq!(leased(&bench, 1, 5_000), LeaseAnswer { granted: true, left_ms: 5_000 });
    bench.now_ms += 1_000;
    assert_eq!(leased(&bench, 2, 5_000), LeaseAnswer { granted: false, left_ms: 4_000 });
    assert_eq!(leased(&bench, 2, 0), LeaseAnswer { granted: false, left_ms: 4_000 }, "not its to give back");
    assert!(leased(&bench, 1, 5_000).granted, "renewed");
    bench.now_ms += 5_000;
    assert!(leased(&bench, 2, 1_000).granted, "it ended");
    assert_eq!(leased(&bench, 2, 0), LeaseAnswer { granted: false, left_ms: 0 });
    assert!(leased(&bench, 1, 60_000).granted, "it was given back");
    bench.now_ms -= 3_600_000;
    assert!(leased(&bench, 2, 1_000).granted, "a clock that was set back makes no lease of an hour");
}

fn own_word(bench: &Bench) -> SeenMember {
    bench.status().own_word()
}

fn told(bench: &Bench, seen: Vec<SeenMember>) -> ReplyBody {
    over(&LinkFacts::default(), bench, Call::Status(Status { mechanisms: false, seen }))
}

#[test]
fn ha_1_5_a_store_that_went_back_hears_of_it_by_any_process_and_believes_a_proof_alone() {
    let store = std::sync::Arc::new(partition::store::MemoryStore::new());
    let mut home = Bench::over(store.clone(), 1001, Settings::for_tests());
    home.ticket = home.login(spec::UserType::USER, CO_PIN);
    let other = home.joined(1002);
    let image = std::sync::Arc::new(store.image());
    home.create(data(vec![token()]));
    let seen = own_word(&home);
    // The other member keeps what is proved and tells it to whoever asks; it tells nothing of itself and of strangers.
    let forged = SeenMember { seq: seen.seq + 1, ..seen.clone() };
    let stranger = SeenMember { serial: 9_009, ..seen.clone() };
    for carried in [vec![forged.clone()], vec![stranger], vec![own_word(&other)]] {
        assert_eq!(told(&other, carried).outcome, Outcome::OK.0);
        assert_eq!(other.status().seen, []);
    }
    told(&other, vec![seen.clone()]);
    assert_eq!(other.status().seen, std::slice::from_ref(&seen));
    let many = vec![seen.clone(); 257];
    assert_eq!(told(&other, many).outcome, Outcome::MALFORMED.0);
    // The member itself finds nothing wrong with where it is.
    told(&home, vec![seen.clone()]);
    assert!(!home.partition.is_recovering());
    let back = partition::Partition::open(image.clone(), domain(), 1001, Settings::for_tests()).unwrap();
    let back = Bench { partition: back, store: image, ..home };
    told(&back, vec![forged]);
    assert!(!back.partition.is_recovering(), "nobody can make the proof");
    told(&back, other.status().seen);
    assert!(back.partition.is_recovering());
    assert_ne!(own_word(&back).incarnation, seen.incarnation);
    let contradiction = back.partition.take_contradiction().unwrap();
    assert_eq!((contradiction.seen, contradiction.found_at), (seen.clone(), seen.seq - 1));
    // Once is enough.
    let incarnation = own_word(&back).incarnation;
    told(&back, vec![seen]);
    assert_eq!((own_word(&back).incarnation, back.partition.take_contradiction()), (incarnation, None));
}
