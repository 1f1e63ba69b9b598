//! One number for each call of the application, on the wire of all its requests.
use std::collections::BTreeSet;
use std::sync::Arc;

use client::InitializeOptions;
use ntls::platform::System;
use partition::in_process::InProcess;
use spec::platform::{Lock, Moment};
use spec::seam::{Event, MemberId, Outgoing, Seam, Standing, Tag, Waiter};
use spec::{Mechanism, MechanismType as M};

use crate::lab::{Lab, ROOM, bytes};

/// Notes the trace of every request that goes through.
struct Noting {
    inner: Arc<InProcess>,
    traces: Lock<Vec<u64>>,
}

impl Seam for Noting {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag {
        self.traces.lock().push(request.header.trace);
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

    fn wait(&self, waiter: &Arc<Waiter>, until: Moment) -> Event {
        self.inner.wait(waiter, until)
    }

    fn has_unread(&self, member: MemberId) -> bool {
        self.inner.has_unread(member)
    }
}

#[test]
fn all_requests_of_one_call_bear_its_number_and_those_of_another_call_another_one() {
    let lab = Lab::new();
    lab.module.finalize().unwrap();
    let seam = Arc::new(Noting { inner: lab.seam.clone(), traces: Lock::default() });
    let options = InitializeOptions { may_create_threads: false };
    lab.module.initialize_over(seam.clone(), Arc::new(System), lab.configuration(), options).unwrap();
    let session = lab.user();
    let (_, key) = lab.p256(session, true);
    let traces = || std::mem::take(&mut *seam.traces.lock()).into_iter().collect::<BTreeSet<_>>();
    traces();
    let create = || {
        let _trace = lab.module.trace();
        lab.data(session, true, "x").unwrap();
        spec::trace::current().unwrap()
    };
    // Make, Store and Commit on three members.
    let first = create();
    assert_eq!(traces(), BTreeSet::from([first]));
    let second = create();
    assert_eq!(traces(), BTreeSet::from([second]));
    assert_ne!(first, second);
    let _trace = lab.module.trace();
    lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
    bytes(lab.module.sign(session, b"m", ROOM));
    assert_eq!(traces(), BTreeSet::from([spec::trace::current().unwrap()]));
}
