//! Make, store, commit, discard, destroy in every wrong order; positions; leases (HA 1.2, 2, 3.1, 4.6, 7).
use spec::messages::{
    Answer, Call, Commit, Destroy, Discard, Export, GetAttributes, How, KeyFunction, Lease, Make, MakeKind,
    Outcome, RequestHeader, Status, Store,
};
use spec::record::Stamp;
use spec::{AttributeType, MechanismType, Rv};
use tests::lab::Lab;
use tests::wire::{Client, aes_template, tag, token_ref, use_key};

use crate::{officer, outcome, rv};

/// Provisional objects, running states and plans out of their place.
pub(crate) fn order_is_kept(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
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

/// What was committed is never discarded, what is not held is unknown, what is destroyed stays so, and a batch is all
/// or nothing.
pub(crate) fn batches_and_tombstones(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let key = || Make {
        kind: MakeKind::CREATE.0,
        mechanism: None,
        templates: vec![aes_template(true, &[6; 32])],
        source: None,
        tag: tag(),
    };
    let make = key();
    let made = wire.make(make.clone());
    let ouid = made.outputs[0].ouid.clone();
    let store =
        |provisional| Call::Store(Store { batch: made.batch.clone(), tag: make.tag.clone(), provisional });
    let discard = |ouid: &[u8]| Call::Discard(Discard { ouids: vec![ouid.to_vec()], tag: tag() });
    let destroy = |ouid: &[u8]| Call::Destroy(Destroy { object: Some(token_ref(ouid)) });
    // HA 2.8: a tombstone is minted only by a member that holds the record.
    assert_eq!(outcome(&wire.call(discard(&ouid))), Outcome::UNKNOWN);
    assert_eq!(outcome(&wire.call(destroy(&ouid))), Outcome::UNKNOWN);
    assert_eq!(outcome(&wire.call(store(true))), Outcome::OK);
    let more = Commit { ouids: vec![ouid.clone(), vec![0xee; 16]], tag: make.tag.clone() };
    assert_eq!(outcome(&wire.call(Call::Commit(more))), Outcome::UNKNOWN, "all of it or none");
    let read = wire.attributes(&token_ref(&ouid), &[AttributeType::CLASS]);
    assert_eq!(outcome(&read), Outcome::UNKNOWN, "a provisional object is invisible");
    let twice = Discard { ouids: vec![ouid.clone(); 2], tag: tag() };
    assert_eq!(outcome(&wire.call(Call::Discard(twice))), Outcome::MALFORMED);
    let ticket = std::mem::take(&mut wire.ticket);
    let commit = || Call::Commit(Commit { ouids: vec![ouid.clone()], tag: make.tag.clone() });
    assert_eq!(rv(&wire.call(commit())), Rv::USER_NOT_LOGGED_IN);
    assert_eq!(rv(&wire.call(discard(&ouid))), Rv::USER_NOT_LOGGED_IN);
    wire.ticket = ticket;
    assert_eq!(outcome(&wire.call(commit())), Outcome::OK);
    assert_eq!(rv(&wire.call(discard(&ouid))), Rv::ACTION_PROHIBITED, "HA 2.2: committed, never discarded");
    assert_eq!(outcome(&wire.call(destroy(&ouid))), Outcome::OK);
    for late in [store(false), store(true), commit()] {
        let number = late.number();
        assert_eq!(outcome(&wire.call(late)), Outcome::DESTROYED, "call {number} after the tombstone");
    }
    let read = wire.attributes(&token_ref(&ouid), &[AttributeType::CLASS]);
    assert_eq!(outcome(&read), Outcome::DESTROYED);
}

/// HA 3.1, 7: who asks for more than this member has hears that it is behind, and is not served.
pub(crate) fn positions_that_are_not_reached(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let (_, private) = wire.pair(Vec::new());
    wire.status();
    let standing = wire.session.last_header().clone();
    let under = |incarnation, at_least| RequestHeader { incarnation, at_least, ..RequestHeader::default() };
    let mut ask = |header: RequestHeader| {
        let sign = use_key(KeyFunction::SIGN, MechanismType::ECDSA, &private, How::WHOLE.0, &[1; 32]);
        let status = Call::Status(Status::default());
        [Call::Use(sign), status].map(|call| outcome(&wire.call_under(header.clone(), call)))
    };
    assert_eq!(ask(under(standing.incarnation, standing.seq)), [Outcome::OK; 2]);
    assert_eq!(ask(under(standing.incarnation, standing.seq + 1_000)), [Outcome::BEHIND; 2]);
    assert_eq!(ask(under(standing.incarnation, u64::MAX)), [Outcome::BEHIND; 2]);
    assert_eq!(ask(under(standing.incarnation ^ 2, u64::MAX)), [Outcome::OK; 2], "of another incarnation");
    let reply = wire.attributes(&private, &[AttributeType::LABEL]);
    let Some(Answer::GetAttributes(held)) = &reply.answer else { panic!("wanted attributes") };
    let newer = held.version.map(|stamp| Stamp { ms: stamp.ms + 1_000, ..stamp });
    let mut later = private.clone();
    later.least = newer;
    assert_eq!(outcome(&wire.attributes(&later, &[AttributeType::LABEL])), Outcome::BEHIND);
    let mut planned = use_key(KeyFunction::SIGN, MechanismType::ECDSA, &private, How::WHOLE.0, &[1; 32]);
    planned.plan = newer;
    assert_eq!(outcome(&wire.call(Call::Use(planned))), Outcome::BEHIND);
    let read = GetAttributes { object: Some(token_ref(&[0x77; 16])), numbers: Vec::new() };
    assert_eq!(outcome(&wire.call(Call::GetAttributes(read))), Outcome::UNKNOWN);
    // What is not held is left out of an export, not invented.
    let export = Export { ouids: vec![vec![0x77; 16]], ..Export::default() };
    let reply = wire.call(Call::Export(export));
    let Some(Answer::Export(export)) = &reply.answer else { panic!("wanted an export: {}", reply.text) };
    assert!(export.records.is_empty() && export.credentials.is_empty() && export.manifest.is_empty());
}

/// HA 4.6: one repairer at a time, named by 16 bytes, for a minute at most.
pub(crate) fn leases(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let lease = |holder: &[u8], ms| Call::Lease(Lease { holder: holder.to_vec(), ms });
    for (holder, ms) in [(&[1; 15][..], 1), (&[1; 17], 1), (&[], 1), (&[1; 16], 60_001), (&[1; 16], u32::MAX)]
    {
        let bytes = holder.len();
        assert_eq!(outcome(&wire.call(lease(holder, ms))), Outcome::MALFORMED, "{bytes} bytes, {ms} ms");
    }
    let mut granted = |holder: u8, ms| {
        let reply = wire.call(lease(&[holder; 16], ms));
        match &reply.answer {
            Some(Answer::Lease(answer)) => answer.granted,
            _ => panic!("wanted a lease: {}", reply.text),
        }
    };
    // The library's own repairs take the lease for moments.
    while !granted(1, 60_000) {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(!granted(2, 60_000), "another repairer while one is at work");
    assert!(!granted(2, 0), "another gives back what it does not hold");
    assert!(!granted(2, 1), "and gets nothing by it");
    assert!(!granted(1, 0), "given back");
    assert!(granted(2, 1_000), "free again");
    granted(2, 0);
}
