//! Login, logout, PIN change (RULES 2.1, 2.5, 2.6).
use std::sync::{Arc, Mutex};

use client::{InitializeOptions, Module};
use ntls::platform::System;
use prost::Message;
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::messages::{Outcome, ReplyBody, ReplyHeader};
use spec::numbers::SessionState;
use spec::platform::Moment;
use spec::seam::{Event, MemberId, Outgoing, Reply, Seam, Standing, Tag, Waiter};
use spec::{Attribute, AttributeType as A, Rv, Template, UserType};
use zeroize::Zeroizing;

use crate::lab::{CO_PIN, Lab, SLOT, SO_PIN, rv};

/// The call number of Login.
const LOGIN: u32 = 11;

fn tries(lab: &Lab) -> u64 {
    lab.members.iter().map(|member| lab.seam.count(*member, LOGIN)).sum()
}

#[test]
fn session_rules_are_decided_before_a_try_is_spent() {
    let lab = Lab::new();
    let session = lab.session();
    let read_only = lab.read_only_session();
    assert_eq!(rv(lab.module.login(session, UserType::SO, Some(SO_PIN))), Rv::SESSION_READ_ONLY_EXISTS);
    assert_eq!(rv(lab.module.login(session, UserType(7), Some(CO_PIN))), Rv::USER_TYPE_INVALID);
    assert_eq!(rv(lab.module.login(session, UserType::USER, None)), Rv::ARGUMENTS_BAD);
    assert_eq!(rv(lab.module.login(session, UserType::USER, Some(&[b'1'; 256]))), Rv::PIN_LEN_RANGE);
    assert_eq!(
        rv(lab.module.login(session, UserType::CONTEXT_SPECIFIC, Some(CO_PIN))),
        Rv::OPERATION_NOT_INITIALIZED
    );
    assert_eq!(tries(&lab), 0);
    lab.module.close_session(read_only).unwrap();
    lab.module.login(session, UserType::SO, Some(SO_PIN)).unwrap();
    assert_eq!(tries(&lab), 1);
    assert_eq!(lab.module.session_info(session).unwrap().state, SessionState::RW_SO_FUNCTIONS);
    assert_eq!(rv(lab.module.open_session(SLOT, SERIAL_SESSION)), Rv::SESSION_READ_WRITE_SO_EXISTS);
    assert_eq!(rv(lab.module.login(session, UserType::SO, Some(SO_PIN))), Rv::USER_ALREADY_LOGGED_IN);
    assert_eq!(
        rv(lab.module.login(session, UserType::USER, Some(CO_PIN))),
        Rv::USER_ANOTHER_ALREADY_LOGGED_IN
    );
    assert_eq!(tries(&lab), 1);
}

#[test]
fn a_wrong_pin_spends_one_try_in_the_group() {
    let lab = Lab::new();
    let session = lab.session();
    assert_eq!(rv(lab.module.login(session, UserType::USER, Some(b"wrong pin"))), Rv::PIN_INCORRECT);
    assert_eq!(tries(&lab), 1);
    assert_eq!(lab.module.session_info(session).unwrap().state, SessionState::RW_PUBLIC_SESSION);
    lab.module.login(session, UserType::USER, Some(CO_PIN)).unwrap();
}

#[test]
fn logout_ends_private_handles_and_private_session_objects_and_leaves_public_ones() {
    let lab = Lab::new();
    let session = lab.user();
    let (_, private) = lab.p256(session, true);
    let public = lab.data(session, true, "public").unwrap();
    let public_session = lab.data(session, false, "mine").unwrap();
    let private_session = lab.aes(session, false);
    lab.module.logout(session).unwrap();
    assert_eq!(rv(lab.module.logout(session)), Rv::USER_NOT_LOGGED_IN);
    for gone in [private, private_session] {
        assert_eq!(rv(lab.module.get_attributes(session, gone, &[A::CLASS])), Rv::OBJECT_HANDLE_INVALID);
    }
    for there in [public, public_session] {
        lab.module.get_attributes(session, there, &[A::CLASS]).unwrap();
    }
    lab.module.login(session, UserType::USER, Some(CO_PIN)).unwrap();
    let class = Attribute::ulong(A::CLASS, spec::ObjectClass::PRIVATE_KEY.0);
    let found = lab.find(session, vec![class]);
    assert_eq!(found.len(), 1);
    assert_ne!(found[0], private);
}

#[test]
fn the_login_ends_with_the_last_session_and_not_before() {
    let lab = Lab::new();
    let first = lab.user();
    let second = lab.read_only_session();
    lab.module.close_session(first).unwrap();
    assert_eq!(lab.module.session_info(second).unwrap().state, SessionState::RO_USER_FUNCTIONS);
    lab.module.close_all_sessions(SLOT).unwrap();
    let third = lab.session();
    assert_eq!(lab.module.session_info(third).unwrap().state, SessionState::RW_PUBLIC_SESSION);
}

#[test]
fn a_new_pin_holds_on_every_member_and_the_login_goes_on() {
    let lab = Lab::new();
    let session = lab.user();
    let read_only = lab.read_only_session();
    assert_eq!(rv(lab.module.set_pin(read_only, Some(CO_PIN), Some(b"new pin"))), Rv::SESSION_READ_ONLY);
    lab.module.set_pin(session, Some(CO_PIN), Some(b"new pin")).unwrap();
    let key = lab.aes(session, false);
    lab.module.get_attributes(session, key, &[A::CLASS]).unwrap();
    lab.module.logout(session).unwrap();
    for down in lab.members.clone() {
        lab.seam.set_down(down, true);
        lab.module.login(session, UserType::USER, Some(b"new pin")).unwrap();
        lab.module.logout(session).unwrap();
        lab.seam.set_down(down, false);
    }
    assert_eq!(rv(lab.module.login(session, UserType::USER, Some(CO_PIN))), Rv::PIN_INCORRECT);
}

#[test]
fn a_ticket_is_good_on_every_member() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.aes(session, true);
    for survivor in lab.members.clone() {
        lab.all_down(true);
        lab.seam.set_down(survivor, false);
        lab.module.get_attributes(session, key, &[A::KEY_TYPE]).unwrap();
    }
    assert_eq!(tries(&lab), 1);
}

#[test]
fn of_several_logins_at_once_one_wins_and_the_others_are_already_logged_in() {
    let lab = Lab::new();
    let sessions: Vec<_> = (0..4).map(|_| lab.session()).collect();
    let answers: Vec<Rv> = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter()
            .map(|session| scope.spawn(|| lab.module.login(*session, UserType::USER, Some(CO_PIN))))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap().map_or_else(|error| error.rv(), |()| Rv::OK))
            .collect()
    });
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert_eq!(
        answers.iter().filter(|answer| **answer == Rv::USER_ALREADY_LOGGED_IN).count(),
        3,
        "{answers:?}"
    );
}

/// A seam that does something once, after a request has been sent and before the caller hears of the answer. With
/// `dead` that request never reaches its member: the answer is that its ticket is dead.
struct Meanwhile {
    inner: Arc<dyn Seam>,
    once: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    dead: bool,
}

impl Seam for Meanwhile {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag {
        let once = self.once.lock().unwrap().take();
        let Some(once) = once else { return self.inner.submit(waiter, member, request, deadline) };
        if !self.dead {
            let tag = self.inner.submit(waiter, member, request, deadline);
            once();
            return tag;
        }
        once();
        let tag = Tag(u64::MAX);
        let header = ReplyHeader { tag: tag.0, incarnation: 1, ..ReplyHeader::default() };
        let body = ReplyBody { outcome: Outcome::TICKET_DEAD.0, ..ReplyBody::default() };
        waiter.deliver(Event::Reply(tag, Reply { header, body: Zeroizing::new(body.encode_to_vec()) }));
        tag
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

fn module_over(lab: &Lab, dead: bool) -> (Arc<Meanwhile>, Arc<Module>) {
    let seam = Arc::new(Meanwhile { inner: lab.seam.clone(), once: Mutex::new(None), dead });
    let module = Arc::new(Module::new());
    let options = InitializeOptions { may_create_threads: false };
    module.initialize_over(seam.clone(), Arc::new(System), lab.configuration(), options).unwrap();
    (seam, module)
}

#[test]
fn a_dead_ticket_ends_its_own_login_and_not_the_next_one() {
    for again in [false, true] {
        let lab = Lab::new();
        let (seam, module) = module_over(&lab, true);
        let session = module.open_session(SLOT, SERIAL_SESSION | RW_SESSION).unwrap();
        module.login(session, UserType::USER, Some(CO_PIN)).unwrap();
        let other = module.clone();
        *seam.once.lock().unwrap() = Some(Box::new(move || {
            if again {
                other.logout(session).unwrap();
                other.login(session, UserType::USER, Some(CO_PIN)).unwrap();
            }
        }));
        module.find_init(session, Template { attributes: Vec::new() }).unwrap_err();
        let state = if again { SessionState::RW_USER_FUNCTIONS } else { SessionState::RW_PUBLIC_SESSION };
        assert_eq!(module.session_info(session).unwrap().state, state, "logged in again: {again}");
    }
}

#[test]
fn a_login_whose_last_session_was_closed_meanwhile_leaves_nobody_logged_in() {
    let lab = Lab::new();
    let (seam, module) = module_over(&lab, false);
    let session = module.open_session(SLOT, SERIAL_SESSION | RW_SESSION).unwrap();
    let closing = module.clone();
    *seam.once.lock().unwrap() = Some(Box::new(move || closing.close_all_sessions(SLOT).unwrap()));
    assert_eq!(rv(module.login(session, UserType::USER, Some(CO_PIN))), Rv::SESSION_HANDLE_INVALID);
    assert_eq!(tries(&lab), 1, "the PIN was tried, the session was closed meanwhile");
    let next = module.open_session(SLOT, SERIAL_SESSION | RW_SESSION).unwrap();
    assert_eq!(module.session_info(next).unwrap().state, SessionState::RW_PUBLIC_SESSION);
    module.login(next, UserType::USER, Some(CO_PIN)).unwrap();
}
