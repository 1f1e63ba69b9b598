//! One session in two threads: an error of the application that must stay one answer, not corruption (RULES 1.3).
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use client::{InitializeOptions, Module};
use ntls::platform::System;
use partition::in_process::InProcess;
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::platform::Moment;
use spec::seam::{MemberId, Outgoing, Seam, Standing, Tag, Waiter};
use spec::{Mechanism, MechanismType as M, Rv, UserType};

use crate::lab::{CO_PIN, Lab, ROOM, SLOT, bytes, rv};

/// A seam that holds requests back while it is shut.
struct Gate {
    inner: Arc<InProcess>,
    shut: Mutex<bool>,
    changed: Condvar,
    someone_waits: AtomicBool,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.changed.notify_all();
    }
}

impl Seam for Gate {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag {
        let mut shut = self.shut.lock().unwrap();
        while *shut {
            self.someone_waits.store(true, Ordering::Release);
            shut = self.changed.wait(shut).unwrap();
        }
        drop(shut);
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

#[test]
fn a_second_thread_in_a_call_hears_operation_active_and_the_first_gets_its_signature() {
    let lab = Lab::new();
    let gate = Arc::new(Gate {
        inner: lab.seam.clone(),
        shut: Mutex::new(false),
        changed: Condvar::new(),
        someone_waits: AtomicBool::new(false),
    });
    let module = Module::new();
    let options = InitializeOptions { may_create_threads: false };
    module.initialize_over(gate.clone(), Arc::new(System), lab.configuration(), options).unwrap();
    let session = module.open_session(SLOT, SERIAL_SESSION | RW_SESSION).unwrap();
    module.login(session, UserType::USER, Some(CO_PIN)).unwrap();
    let (public, private) = {
        let (public, private) = crate::lab::p256_templates(false);
        module.generate_key_pair(session, Mechanism::plain(M::EC_KEY_PAIR_GEN), public, private).unwrap()
    };
    let mechanism = || Some(Mechanism::plain(M::ECDSA_SHA256));
    module.sign_init(session, mechanism(), private).unwrap();
    gate.set(true);
    let signature = std::thread::scope(|scope| {
        let first = scope.spawn(|| bytes(module.sign(session, b"message", ROOM)));
        while !gate.someone_waits.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        assert_eq!(rv(module.sign(session, b"other", ROOM)), Rv::OPERATION_ACTIVE);
        assert_eq!(rv(module.sign_update(session, b"other")), Rv::OPERATION_ACTIVE);
        assert_eq!(rv(module.sign_init(session, mechanism(), private)), Rv::OPERATION_ACTIVE);
        assert_eq!(
            rv(module.session_cancel(session, spec::flags::mechanism::SIGN)),
            Rv::OPERATION_CANCEL_FAILED
        );
        module.digest_init(session, Some(Mechanism::plain(M::SHA256))).unwrap();
        gate.set(false);
        first.join().unwrap()
    });
    module.verify_init(session, mechanism(), public).unwrap();
    module.verify(session, b"message", &signature).unwrap();
    assert_eq!(rv(module.sign(session, b"message", ROOM)), Rv::OPERATION_NOT_INITIALIZED);
}
