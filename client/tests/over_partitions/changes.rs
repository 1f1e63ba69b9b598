//! Keys that others change while this application uses them (RULES 1.1).
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use client::InitializeOptions;
use ntls::platform::System;
use partition::Caller;
use partition::in_process::InProcess;
use prost::Message;
use spec::messages::{Call, Outcome, ReplyBody, RequestBody, RequestHeader, SetAttributes};
use spec::platform::{Moment, Platform};
use spec::seam::{MemberId, Outgoing, Seam, Standing, Tag, Waiter};
use spec::{Attribute, AttributeType as A, Mechanism, MechanismType as M, Rv, Template};

use crate::lab::{Lab, ROOM, bytes, rv};

/// A seam on which another application changes the key just before each of so many uses arrives.
struct Changing {
    inner: Arc<InProcess>,
    left: AtomicU64,
    uses: AtomicU64,
    /// What the last change is besides.
    to: Vec<Attribute>,
}

impl Changing {
    fn change(&self, member: MemberId, body: &[u8]) {
        let RequestBody { group, generation, ticket, call } = RequestBody::decode(body).unwrap();
        let Some(Call::Use(used)) = call else { return };
        self.uses.fetch_add(1, Ordering::Relaxed);
        let Ok(left) =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
        else {
            return;
        };
        let mut template = if left == 1 { self.to.clone() } else { Vec::new() };
        template.push(Attribute::new(A::LABEL, left.to_be_bytes().to_vec()));
        let set = SetAttributes {
            object: used.key.clone(),
            template: Some(Template::from(template)),
            tag: vec![u8::try_from(left).unwrap(); 16],
            ..SetAttributes::default()
        };
        let body = RequestBody { group, generation, ticket, call: Some(Call::SetAttributes(set)) };
        let header = RequestHeader { partition: member.0, ..RequestHeader::default() };
        let caller = Caller { client: [7; 32], instance: [8; 32] };
        let partition = self.inner.partition(member).unwrap();
        let (_, reply) = partition.handle(&caller, &header, &body.encode_to_vec(), System.wall_ms());
        let reply = ReplyBody::decode(reply.as_slice()).unwrap();
        assert_eq!(Outcome(reply.outcome), Outcome::OK, "{}", reply.text);
    }
}

impl Seam for Changing {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag {
        self.change(member, &request.body);
        self.inner.submit(waiter, member, request, deadline)
    }

    fn cancel(&self, member: MemberId, tag: Tag) {
        self.inner.cancel(member, tag);
    }

    fn standing(&self, member: MemberId) -> Standing {
        self.inner.standing(member)
    }

    fn abandon(&self, member: MemberId, reason: &str) {
        self.inner.abandon(member, reason);
    }

    fn subscribe(&self, waiter: &Arc<Waiter>) {
        self.inner.subscribe(waiter);
    }
}

/// A signature with a key that changes before each of so many uses; how many uses it took.
fn sign(changes: u64, to: Vec<Attribute>) -> (client::Result<client::Produced>, u64) {
    let lab = Lab::with(1, true, false);
    lab.module.finalize().unwrap();
    let (left, uses) = (AtomicU64::new(0), AtomicU64::new(0));
    let seam = Arc::new(Changing { inner: lab.seam.clone(), left, uses, to });
    let options = InitializeOptions { may_create_threads: false };
    lab.module.initialize_over(seam.clone(), Arc::new(System), lab.configuration(), options).unwrap();
    let session = lab.user();
    let (_, key) = lab.p256(session, true);
    lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
    seam.left.store(changes, Ordering::Relaxed);
    let answer = lab.module.sign(session, b"data", ROOM);
    (answer, seam.uses.load(Ordering::Relaxed))
}

#[test]
fn rules_1_1_a_key_that_changes_again_while_it_is_planned_again_signs() {
    // So does one of which the member that plans holds an older state than the member that signs.
    for (changes, uses_wanted) in [(0, 1), (1, 2), (2, 3), (9, 3)] {
        let (answer, uses) = sign(changes, Vec::new());
        assert_eq!((bytes(answer).len(), uses), (64, uses_wanted), "{changes} changes");
    }
}

#[test]
fn rules_1_1_a_use_that_names_no_plan_is_checked_like_any_other() {
    let (answer, uses) = sign(3, vec![Attribute::bool(A::SIGN, false)]);
    assert_eq!((rv(answer), uses), (Rv::FUNCTION_REJECTED, 3));
}
