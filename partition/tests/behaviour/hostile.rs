//! Hostile bytes never panic and never get an answer that they have no right to.
use std::sync::OnceLock;

use proptest::prelude::*;
use spec::messages::*;

use crate::bench::*;
use crate::refusals::every_call;

/// One bench for all cases: nothing that these requests may do harms it.
fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        let bench = Bench::logged_in();
        bench.key(vec![token(), label("target")]);
        bench.create(ec_pair(vec![token()], vec![token()]));
        bench
    })
}

/// A bench that holds objects, public and private, and a provisional batch, with requests that name all of them.
struct Target {
    bench: Bench,
    seeds: Vec<Vec<u8>>,
    digests: Vec<partition::digest_tree::Digest>,
}

fn target() -> &'static Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    TARGET.get_or_init(Target::new)
}

impl Target {
    fn new() -> Self {
        let mut bench = Bench::logged_in();
        bench.create(ec_pair(vec![token()], vec![token()]));
        let public = bench.create(data(vec![token(), no(spec::AttributeType::PRIVATE)])).remove(0);
        let make = ec_pair(vec![token()], vec![token()]);
        let tag = make.tag.clone();
        let made = bench.make(make);
        let ouids: Vec<_> = made.outputs.iter().map(|made| made.ouid.clone()).collect();
        bench.ok(Call::Store(Store { batch: made.batch.clone(), tag: tag.clone(), provisional: true }));
        let fresh = data(vec![token()]);
        let fresh_tag = fresh.tag.clone();
        let fresh = bench.make(fresh).batch.clone();
        let Answer::Export(export) = bench.ok(Call::Export(Export {
            ouids: vec![public.ouid.clone()],
            credentials: true,
            manifest: true,
        })) else {
            unreachable!("an export is answered by an export")
        };
        let manifest = bench.partition.manifest();
        let mut calls = vec![
            Call::Store(Store { batch: fresh, tag: fresh_tag, provisional: false }),
            Call::Commit(Commit { ouids: ouids.clone(), tag: tag.clone() }),
            Call::Discard(Discard { ouids, tag: tag.clone() }),
            Call::Store(Store { batch: made.batch.clone(), tag: tag.clone(), provisional: false }),
            Call::ChangeManifest(ChangeManifest {
                expected_epoch: manifest.epoch,
                manifest: Some(manifest.clone()),
                tag,
            }),
            Call::Join(Join { records: export.records.clone(), repaired: true, ..Join::default() }),
        ];
        for found in bench.find(vec![]) {
            let object = ObjectRef { ouid: found.ouid.clone(), ..ObjectRef::default() };
            calls.push(Call::Destroy(Destroy { object: Some(object) }));
        }
        let mut seeds = seeds_of(&bench);
        seeds.extend(calls.into_iter().map(|call| bench.body(call)));
        bench.ticket.clear();
        let digests = bench.store.digest(0, 4095).unwrap();
        Self { bench, seeds, digests }
    }
}

/// Well-formed requests to start from.
fn seeds() -> &'static Vec<Vec<u8>> {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| seeds_of(bench()))
}

fn seeds_of(bench: &Bench) -> Vec<Vec<u8>> {
    let found = bench.find(vec![]);
    let objects = found.iter().map(|found| ObjectRef { ouid: found.ouid.clone(), ..ObjectRef::default() });
    let session = bench.key(vec![]);
    let mechanism = spec::Mechanism::plain(spec::MechanismType::ECDSA_SHA256);
    let mut calls = every_call();
    for object in objects.chain([session]) {
        calls.push(Call::Use(whole(KeyFunction::SIGN, &mechanism, &object, b"data")));
        calls.push(plan(KeyFunction::SIGN, &mechanism, &object));
        calls.push(bench.set(&object, vec![label("x")]));
        let numbers = vec![0, 3, 0x11];
        calls.push(Call::GetAttributes(GetAttributes { object: Some(object), numbers }));
    }
    calls.push(Call::Make(ec_pair(vec![token()], vec![])));
    calls.push(Call::Make(data(vec![label("x")])));
    calls.into_iter().map(|call| bench.body(call)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..600)) {
        bench().raw(&body);
        partition::Partition::cost(&body);
    }

    #[test]
    fn mutated_requests_never_panic(
        seed in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut body = seeds()[seed.index(seeds().len())].clone();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        bench().raw(&body);
        partition::Partition::cost(&body);
    }

    #[test]
    fn without_a_ticket_no_mutated_request_changes_anything(
        seed in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let Target { bench, seeds, digests } = target();
        let mut request: RequestBody =
            prost::Message::decode(seeds[seed.index(seeds.len())].as_slice()).unwrap();
        request.ticket.clear();
        let mut body = prost::Message::encode_to_vec(&request);
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let seq = bench.store.seq().unwrap();
        bench.raw(&body);
        prop_assert_eq!(bench.store.seq().unwrap(), seq);
        prop_assert_eq!(&bench.store.digest(0, 4095).unwrap(), digests);
    }
}

#[test]
fn with_a_ticket_the_same_requests_do_change_things() {
    let Target { bench, seeds, .. } = Target::new();
    let mut changing = std::collections::BTreeSet::new();
    for seed in seeds {
        let seq = bench.store.seq().unwrap();
        bench.raw(&seed);
        if bench.store.seq().unwrap() > seq {
            let request: RequestBody = prost::Message::decode(seed.as_slice()).unwrap();
            changing.insert(request.call.as_ref().unwrap().number());
        }
    }
    let (store, commit, set, destroy, manifest) = (17, 18, 22, 23, 24);
    assert_eq!(changing.into_iter().collect::<Vec<_>>(), [store, commit, set, destroy, manifest]);
}
