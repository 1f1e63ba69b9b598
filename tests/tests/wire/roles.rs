//! Logins, tries of PINs, tickets (RULES 2.5, 2.6; HA 4.2).
use std::time::{Duration, Instant};

use spec::flags::token;
use spec::messages::{
    Adopt, Answer, Call, ChangeManifest, Destroy, Discard, Export, Find, How, Join, Lease, Login, Make,
    MakeKind, Outcome, SetAttributes, SetPin, Store,
};
use spec::value::{Attribute, Template};
use spec::{AttributeType, MechanismType, Rv};
use tests::lab::Lab;
use tests::wire::{Client, Wire, aes_template, create, plain, tag};

use crate::{officer, outcome, rv};

pub(crate) fn without_login(client: &Client, lab: &Lab) {
    let mut officer = Wire::open(client);
    officer.login(lab.value("P11_PIN"));
    let (public, private) = officer.pair(Vec::new());
    let mut nobody = Wire::open(client);
    let refused = nobody.sign(MechanismType::ECDSA, &private, How::WHOLE.0, &[1; 32]);
    assert_ne!(outcome(&refused), Outcome::OK, "a private key was used without login");
    let refused = nobody.attributes(&private, &[AttributeType::LABEL]);
    assert_ne!(outcome(&refused), Outcome::OK, "a private object was read without login");
    let reply =
        nobody.call(Call::Find(Find { template: Some(Template::default()), after: Vec::new(), limit: 100 }));
    let Some(Answer::Find(found)) = &reply.answer else { panic!("wanted a page: {}", reply.text) };
    assert!(found.found.iter().all(|found| !found.private), "a search without login shows private objects");
    let generate = Make {
        kind: MakeKind::GENERATE.0,
        mechanism: Some(plain(MechanismType::AES_KEY_GEN)),
        templates: vec![Template::from(vec![
            Attribute::bool(AttributeType::TOKEN, true),
            Attribute::ulong(AttributeType::VALUE_LEN, 32),
        ])],
        source: None,
        tag: vec![1; 16],
    };
    assert_eq!(rv(&nobody.call(Call::Make(generate))), Rv::USER_NOT_LOGGED_IN);
    assert_ne!(outcome(&nobody.call(Call::Destroy(Destroy { object: Some(public.clone()) }))), Outcome::OK);
    let label = Template::from(vec![Attribute::new(AttributeType::LABEL, b"x".to_vec())]);
    let change = SetAttributes { object: Some(public), template: Some(label), tag: vec![1; 16], seen: None };
    assert_ne!(outcome(&nobody.call(Call::SetAttributes(change))), Outcome::OK);
    for call in [
        Call::Export(Export { ouids: vec![private.ouid.clone()], credentials: true, manifest: true }),
        Call::Join(Join { repaired: true, ..Join::default() }),
        Call::Lease(Lease { holder: vec![1; 16], ms: 1 }),
        Call::ChangeManifest(ChangeManifest {
            manifest: Some(nobody.manifest()),
            tag: vec![1; 16],
            expected_epoch: nobody.manifest().epoch,
        }),
    ] {
        let number = call.number();
        assert_eq!(rv(&nobody.call(call)), Rv::USER_NOT_LOGGED_IN, "call {number}");
    }
    let adopt = Adopt { group: vec![9; 16], generation: 0, manifest: vec![1; 80], credentials: vec![2; 80] };
    assert_ne!(outcome(&nobody.call(Call::Adopt(adopt))), Outcome::OK);
    let discard = Discard { ouids: vec![private.ouid.clone()], tag: vec![1; 16] };
    assert_ne!(outcome(&nobody.call(Call::Discard(discard))), Outcome::OK);
    // A batch of the officer's, whole and well, presented without the ticket.
    let create = Make {
        kind: MakeKind::CREATE.0,
        mechanism: None,
        templates: vec![aes_template(true, &[4; 32])],
        source: None,
        tag: vec![11; 16],
    };
    let batch = officer.make(create).batch;
    officer.ticket.clear();
    let store = Store { batch, tag: vec![11; 16], provisional: false };
    assert_eq!(rv(&officer.call(Call::Store(store))), Rv::USER_NOT_LOGGED_IN);
}

/// RULES 2.6: what changes what lasts wants the Crypto Officer; so do private objects.
pub(crate) fn the_security_officer_is_no_crypto_officer(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let (_, private) = wire.pair(Vec::new());
    let manifest = wire.manifest();
    wire.login_as(0, lab.value("P11_SO_PIN"));
    for call in [
        Call::Export(Export { ouids: vec![private.ouid.clone()], credentials: true, manifest: true }),
        Call::Join(Join { repaired: true, ..Join::default() }),
        Call::Lease(Lease { holder: vec![1; 16], ms: 1 }),
        Call::ChangeManifest(ChangeManifest {
            expected_epoch: manifest.epoch,
            manifest: Some(manifest),
            tag: tag(),
        }),
        Call::Make(create(vec![
            Attribute::ulong(AttributeType::CLASS, spec::ObjectClass::DATA.0),
            Attribute::bool(AttributeType::TOKEN, true),
            Attribute::bool(AttributeType::PRIVATE, true),
        ])),
    ] {
        let number = call.number();
        assert_eq!(rv(&wire.call(call)), Rv::USER_NOT_LOGGED_IN, "call {number}");
    }
    let used = wire.sign(MechanismType::ECDSA, &private, How::WHOLE.0, &[1; 32]);
    assert_eq!(rv(&used), Rv::USER_NOT_LOGGED_IN);
    let read = wire.attributes(&private, &[AttributeType::LABEL]);
    assert_eq!(rv(&read), Rv::OBJECT_HANDLE_INVALID);
}

/// Roles: what the wire answers to PINs, and that a wrong one does not pass for a right one under the same tag.
pub(crate) fn pins_and_roles(client: &Client, lab: &Lab) {
    let mut wire = Wire::open(client);
    let pin = lab.value("P11_PIN").as_bytes();
    let login =
        |user: u64, pin: &[u8], tag: u8| Call::Login(Login { user, pin: pin.to_vec(), tag: vec![tag; 16] });
    assert_eq!(rv(&wire.call(login(1, b"not the PIN", 1))), Rv::PIN_INCORRECT);
    assert_eq!(rv(&wire.call(login(1, b"not the PIN", 1))), Rv::PIN_INCORRECT, "the same try, asked again");
    assert_eq!(wire.status().failed_tries_user, 1, "a resend spends no second try");
    assert_eq!(rv(&wire.call(login(77, pin, 2))), Rv::USER_TYPE_INVALID);
    for user in [2, 0x8000_0001] {
        assert_eq!(rv(&wire.call(login(user, pin, 3))), Rv::USER_TYPE_INVALID, "a user without a PIN");
    }
    assert_ne!(outcome(&wire.call(login(1, b"", 4))), Outcome::OK);
    assert_eq!(outcome(&wire.call(login(1, pin, 5))), Outcome::OK);
    assert_eq!(wire.status().failed_tries_user, 0, "a right PIN clears the count");
    let change =
        SetPin { user: 1, old: b"not the PIN".to_vec(), new: b"another-pin".to_vec(), tag: vec![6; 16] };
    assert_eq!(rv(&wire.call(Call::SetPin(change))), Rv::PIN_INCORRECT);
    let change = SetPin { user: 1, old: pin.to_vec(), new: b"1".to_vec(), tag: vec![7; 16] };
    assert_eq!(rv(&wire.call(Call::SetPin(change))), Rv::PIN_LEN_RANGE);
    let change = SetPin { user: 1, old: pin.to_vec(), new: vec![b'x'; 256], tag: vec![17; 16] };
    assert_eq!(rv(&wire.call(Call::SetPin(change))), Rv::PIN_LEN_RANGE);
    assert_eq!(outcome(&wire.call(login(1, pin, 8))), Outcome::OK, "a refused change changes nothing");
}

/// Three failures, one under a tag that was used before with another PIN, then a delay in which even the right PIN is
/// refused and nothing is counted.
pub(crate) fn failures_bring_a_delay_that_spends_no_try(client: &Client, lab: &Lab) {
    let mut wire = Wire::open(client);
    let login =
        |pin: &[u8], tag: Vec<u8>| Call::Login(Login { user: 1, pin: pin.to_vec(), tag: tag.clone() });
    let shared = tag();
    let mut begun = Instant::now();
    for pin in [&b"guess 1"[..], b"guess 2", &[b'x'; 300]] {
        begun = Instant::now();
        assert_eq!(rv(&wire.call(login(pin, shared.clone()))), Rv::PIN_INCORRECT);
    }
    assert_eq!(wire.status().failed_tries_user, 3, "the same tag with another PIN is another try");
    let right = lab.value("P11_PIN").as_bytes();
    let mut refused = 0;
    loop {
        let reply = wire.call(login(right, tag()));
        if outcome(&reply) == Outcome::OK {
            break;
        }
        assert_eq!(rv(&reply), Rv::PIN_LOCKED, "{}", reply.text);
        let status = wire.status();
        assert_eq!(status.failed_tries_user, 3, "a try within the delay is not counted");
        // The delay may end between the refusal and the look, but not within a second of the last guess.
        if begun.elapsed() < Duration::from_millis(990) {
            assert_ne!(status.token_flags & token::USER_PIN_LOCKED, 0, "the delay is shown while it runs");
        }
        refused += 1;
        assert!(begun.elapsed() < Duration::from_secs(60), "the delay after three failures does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    // A machine that slept a second between two calls has seen the delay end before it looked.
    assert!(refused > 0 || begun.elapsed() > Duration::from_secs(1), "there was no delay");
    assert_eq!(wire.status().failed_tries_user, 0);
}

/// RULES 2.6: a ticket that is cut, bent, or of another role or instance opens nothing.
pub(crate) fn tickets_of_others(client: &Client, lab: &Lab) {
    let mut wire = officer(client, lab);
    let find = || Call::Find(Find { template: None, after: Vec::new(), limit: 1 });
    assert_eq!(outcome(&wire.call(find())), Outcome::OK);
    let good = wire.ticket.clone();
    for role in [0, 1, 3, 255] {
        wire.ticket[0] = role;
        assert_eq!(outcome(&wire.call(find())), Outcome::TICKET_DEAD, "role {role}");
    }
    for length in [1, 2, good.len() - 1] {
        wire.ticket = good[..length].to_vec();
        assert_eq!(outcome(&wire.call(find())), Outcome::TICKET_DEAD, "{length} bytes of it");
    }
    for at in [1, good.len() / 2, good.len() - 1] {
        wire.ticket.clone_from(&good);
        wire.ticket[at] ^= 1;
        assert_eq!(outcome(&wire.call(find())), Outcome::TICKET_DEAD, "byte {at}");
    }
    let mut other = Client::of(lab);
    other.instance = ntls::instance::InstanceKey::generate();
    let mut stranger = Wire::open(&other);
    stranger.ticket.clone_from(&good);
    assert_eq!(outcome(&stranger.call(find())), Outcome::TICKET_DEAD, "another instance");
    wire.ticket = good;
    assert_eq!(outcome(&wire.call(find())), Outcome::OK);
}
