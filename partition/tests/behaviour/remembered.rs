//! Logins after the first (RULES 2.5): no try reserved, so no write and no Argon2id, and no help to who guesses.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use partition::{Caller, Settings};
use spec::messages::*;
use spec::{Rv, UserType};

use crate::bench::*;
use crate::stores::Altered;

fn counting() -> (Bench, impl Fn() -> u64) {
    let store = Arc::new(Altered::default());
    let bench = Bench::over(store.clone(), 1001, Settings::for_tests());
    (bench, move || store.reserved.swap(0, Ordering::Relaxed))
}

#[test]
fn rules_2_5_logins_after_the_first_reserve_no_try() {
    let (bench, reserved) = counting();
    bench.login(UserType::USER, CO_PIN);
    assert_eq!(reserved(), 1);
    let tickets: Vec<_> = (0..3).map(|_| bench.login(UserType::USER, CO_PIN)).collect();
    assert_eq!(reserved(), 0);
    assert_ne!(tickets[0], tickets[1], "each login has a ticket of its own");
    bench.login(UserType::SO, SO_PIN);
    assert_eq!(reserved(), 1, "another role");
    let bench = Bench { caller: Caller { client: [7; 32], ..CALLER }, ..bench };
    bench.login(UserType::USER, CO_PIN);
    assert_eq!(reserved(), 1, "another client");
}

#[test]
fn rules_2_5_another_instance_of_the_client_is_remembered_too() {
    let (mut bench, reserved) = counting();
    bench.login(UserType::USER, CO_PIN);
    bench.caller.instance = [7; 32];
    bench.login(UserType::USER, CO_PIN);
    assert_eq!(reserved(), 1);
}

#[test]
fn rules_2_5_a_wrong_pin_spends_a_try_and_ends_what_was_remembered() {
    let (bench, reserved) = counting();
    bench.login(UserType::USER, CO_PIN);
    assert_eq!(bench.rv(login(UserType::USER, b"wrong")), Rv::PIN_INCORRECT);
    assert_eq!((bench.status().failed_tries_user, reserved()), (1, 2));
    bench.login(UserType::USER, CO_PIN);
    assert_eq!((bench.status().failed_tries_user, reserved()), (0, 1));
    bench.login(UserType::USER, CO_PIN);
    assert_eq!(reserved(), 0);
}

#[test]
fn rules_2_5_the_delay_after_failures_holds_for_a_pin_that_was_remembered() {
    let (bench, _) = counting();
    bench.login(UserType::USER, CO_PIN);
    (0..3).for_each(|_| assert_eq!(bench.rv(login(UserType::USER, b"wrong")), Rv::PIN_INCORRECT));
    assert_eq!(bench.rv(login(UserType::USER, CO_PIN)), Rv::PIN_LOCKED);
}

#[test]
fn rules_2_5_a_changed_pin_ends_what_was_remembered_of_the_old_one() {
    let (bench, reserved) = counting();
    bench.login(UserType::USER, CO_PIN);
    let set = SetPin { user: UserType::USER.0, old: CO_PIN.to_vec(), new: b"new pin".to_vec(), tag: tag() };
    assert_eq!(bench.rv(Call::SetPin(set)), Rv::OK);
    reserved();
    assert_eq!(bench.rv(login(UserType::USER, CO_PIN)), Rv::PIN_INCORRECT);
    bench.login(UserType::USER, b"new pin");
    assert_eq!(reserved(), 2);
}

#[test]
fn rules_2_5_a_pin_changed_at_the_home_ends_what_another_member_remembers() {
    let home = Bench::logged_in();
    let other = home.joined(1002);
    other.login(UserType::USER, CO_PIN);
    let set = SetPin { user: UserType::USER.0, old: CO_PIN.to_vec(), new: b"new pin".to_vec(), tag: tag() };
    home.ok(Call::SetPin(set));
    let export = Export { ouids: vec![], credentials: true, manifest: false };
    let Answer::Export(export) = home.ok(Call::Export(export)) else {
        unreachable!("an export is answered by an export")
    };
    other.ok(Call::Join(Join { credentials: export.credentials, ..Join::default() }));
    assert_eq!(other.rv(login(UserType::USER, CO_PIN)), Rv::PIN_INCORRECT);
    other.login(UserType::USER, b"new pin");
}
