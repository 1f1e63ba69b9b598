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

/// Well-formed requests to start from.
fn seeds() -> &'static Vec<Vec<u8>> {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let bench = bench();
        let found = bench.find(vec![]);
        let objects =
            found.iter().map(|found| ObjectRef { ouid: found.ouid.clone(), ..ObjectRef::default() });
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
    })
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
        static BARE: OnceLock<Bench> = OnceLock::new();
        let bare = BARE.get_or_init(Bench::new);
        let manifest = bare.partition.manifest();
        let mut request: RequestBody =
            prost::Message::decode(seeds()[seed.index(seeds().len())].as_slice()).unwrap();
        (request.group, request.generation) = (manifest.group, manifest.generation);
        request.ticket.clear();
        let mut body = prost::Message::encode_to_vec(&request);
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let seq = bare.store.seq().unwrap();
        bare.raw(&body);
        prop_assert_eq!(bare.store.seq().unwrap(), seq);
    }
}
