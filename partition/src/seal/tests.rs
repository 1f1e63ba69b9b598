//! The table test of RULES 3.1: every sealed thing in every wrong context is refused with one answer.
use spec::record::Ouid;
use zeroize::Zeroizing;

use super::*;

const ONE: [u8; 32] = [1; 32];
const TWO: [u8; 32] = [2; 32];
const LOGIN: [u8; 16] = [3; 16];
const OTHER_LOGIN: [u8; 16] = [4; 16];

fn sealer(domain: u8) -> Sealer {
    Sealer::new(&DomainSecret::new(Zeroizing::new([domain; 32])))
}

/// Every purpose, and for each field of its context one that differs in that field alone.
fn contexts() -> Vec<Context<'static>> {
    let group = |id, generation| Group { id: [id; 16], generation };
    let record = |ouid, format, maker| What::Record { ouid: Ouid([ouid; 16]), format, maker };
    let batch = |client, tag| What::Batch { client, tag };
    let blob = |client, instance, login| What::Blob { client, instance, login };
    let state = |client, instance, ouid, function, mechanism, part| What::RunningState {
        client,
        instance,
        ouid: Ouid([ouid; 16]),
        function,
        mechanism,
        part,
    };
    let ticket = |client, instance, role| What::Ticket { client, instance, role };
    let whats = [
        record(1, 1, 1),
        record(2, 1, 1),
        record(1, 2, 1),
        record(1, 1, 2),
        batch(&ONE, b"tag one"),
        batch(&TWO, b"tag one"),
        batch(&ONE, b"tag two"),
        blob(&ONE, &ONE, None),
        blob(&TWO, &ONE, None),
        blob(&ONE, &TWO, None),
        blob(&ONE, &ONE, Some(&LOGIN)),
        blob(&ONE, &ONE, Some(&OTHER_LOGIN)),
        state(&ONE, &ONE, 1, 1, b"mechanism", 1),
        state(&TWO, &ONE, 1, 1, b"mechanism", 1),
        state(&ONE, &TWO, 1, 1, b"mechanism", 1),
        state(&ONE, &ONE, 2, 1, b"mechanism", 1),
        state(&ONE, &ONE, 1, 2, b"mechanism", 1),
        state(&ONE, &ONE, 1, 1, b"parameter", 1),
        state(&ONE, &ONE, 1, 1, b"mechanism", 2),
        ticket(&ONE, &ONE, 1),
        ticket(&TWO, &ONE, 1),
        ticket(&ONE, &TWO, 1),
        ticket(&ONE, &ONE, 2),
        What::Credentials,
        What::Manifest,
    ];
    let groups = [group(1, 1), group(2, 1), group(1, 2)];
    groups.iter().flat_map(|group| whats.map(|what| Context { group: *group, what })).collect()
}

#[test]
fn rules_3_1_every_sealed_thing_opens_in_its_own_context_and_in_no_other() {
    let (sealer, contexts) = (sealer(1), contexts());
    for (sealed_for, context) in contexts.iter().enumerate() {
        let envelope = sealer.seal(context, b"content");
        for (opened_as, other) in contexts.iter().enumerate() {
            let opened = sealer.open(other, &envelope);
            if sealed_for == opened_as {
                assert_eq!(**opened.expect("its own context opens it"), *b"content");
            } else {
                assert!(opened.is_err(), "sealed for {context:?}, opened as {other:?}");
            }
        }
    }
}

#[test]
fn rules_3_1_another_domain_opens_nothing() {
    for context in contexts() {
        let envelope = sealer(1).seal(&context, b"content");
        assert!(sealer(2).open(&context, &envelope).is_err());
    }
}

#[test]
fn rules_3_1_a_changed_byte_or_length_anywhere_is_refused() {
    let (sealer, context) = (sealer(1), contexts()[0]);
    let envelope = sealer.seal(&context, b"content");
    assert_eq!(envelope.len(), b"content".len() + OVERHEAD_BYTES);
    for at in 0..envelope.len() {
        let mut changed = envelope.clone();
        changed[at] ^= 0x40;
        assert!(sealer.open(&context, &changed).is_err(), "byte {at}");
        assert!(sealer.open(&context, &envelope[..at]).is_err(), "cut at {at}");
    }
    let longer = [&envelope[..], &[0]].concat();
    assert!(sealer.open(&context, &longer).is_err());
}

#[test]
fn rules_3_1_nonces_do_not_repeat() {
    let (sealer, context) = (sealer(1), contexts()[0]);
    let nonces: std::collections::HashSet<Vec<u8>> = (0..1000)
        .map(|_| sealer.seal(&context, b"")[HEADER_BYTES..HEADER_BYTES + NONCE_BYTES].to_vec())
        .collect();
    assert_eq!(nonces.len(), 1000);
}
