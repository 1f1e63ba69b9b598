//! Login, tries, tickets, SetPin (RULES 2.5 to 2.8; HA 2.7, 4.2).
use partition::{Caller, Settings};
use spec::flags::token as flags;
use spec::messages::*;
use spec::{Rv, UserType};

use crate::bench::*;

fn failed(bench: &Bench) -> u32 {
    bench.status().failed_tries_user
}

#[test]
fn the_right_pin_gives_a_ticket_and_spends_no_try() {
    let bench = Bench::new();
    assert!(!bench.login(UserType::USER, CO_PIN).is_empty());
    assert!(!bench.login(UserType::SO, SO_PIN).is_empty());
    assert_eq!(failed(&bench), 0);
}

#[test]
fn a_wrong_pin_spends_one_try_and_success_forgets_them() {
    let bench = Bench::new();
    assert_eq!(bench.rv(login(UserType::USER, b"wrong")), Rv::PIN_INCORRECT);
    assert_eq!(bench.rv(login(UserType::USER, &[b'x'; 300])), Rv::PIN_INCORRECT);
    assert_eq!((failed(&bench), bench.status().failed_tries_so), (2, 0));
    assert_ne!(bench.status().token_flags & flags::USER_PIN_COUNT_LOW, 0);
    bench.login(UserType::USER, CO_PIN);
    assert_eq!(failed(&bench), 0);
    assert_eq!(bench.status().token_flags & flags::USER_PIN_COUNT_LOW, 0);
}

#[test]
fn ha_4_2_the_same_tag_with_the_same_wrong_pin_spends_one_try() {
    let bench = Bench::new();
    let call = login(UserType::USER, b"wrong");
    assert_eq!(bench.rv(call.clone()), Rv::PIN_INCORRECT);
    assert_eq!(bench.rv(call), Rv::PIN_INCORRECT);
    assert_eq!(failed(&bench), 1);
}

#[test]
fn the_same_tag_with_another_pin_is_another_try() {
    let bench = Bench::new();
    let tag = tag();
    for pin in [&b"guess1"[..], b"guess2", b"guess3"] {
        let call = Call::Login(Login { user: UserType::USER.0, pin: pin.to_vec(), tag: tag.clone() });
        assert_eq!(bench.rv(call), Rv::PIN_INCORRECT);
    }
    assert_eq!(failed(&bench), 3);
}

#[test]
fn after_three_failures_a_delay_runs_that_spends_no_try_and_passes() {
    let mut bench = Bench::new();
    (0..3).for_each(|_| assert_eq!(bench.rv(login(UserType::USER, b"wrong")), Rv::PIN_INCORRECT));
    let reply = bench.send(login(UserType::USER, CO_PIN));
    assert_eq!(Rv(reply.rv), Rv::PIN_LOCKED);
    assert!(reply.text.contains("1 s"), "{}", reply.text);
    assert_eq!(failed(&bench), 3);
    assert_ne!(bench.status().token_flags & flags::USER_PIN_LOCKED, 0);
    let other = Caller { client: [7; 32], ..CALLER };
    let mine = std::mem::replace(&mut bench.caller, other);
    bench.login(UserType::USER, CO_PIN);
    bench.caller = mine;
    bench.now_ms += 1_000;
    assert_eq!(bench.rv(login(UserType::USER, b"wrong")), Rv::PIN_INCORRECT);
    bench.now_ms += 1_999;
    assert_eq!(bench.rv(login(UserType::USER, CO_PIN)), Rv::PIN_LOCKED);
    bench.now_ms += 1;
    bench.login(UserType::USER, CO_PIN);
    assert_eq!(failed(&bench), 0);
}

#[test]
fn users_without_a_pin_and_unknown_users_are_refused() {
    let bench = Bench::new();
    for user in [UserType::CONTEXT_SPECIFIC, UserType::CRYPTO_USER, UserType(77)] {
        assert_eq!(bench.rv(login(user, CO_PIN)), Rv::USER_TYPE_INVALID);
    }
}

#[test]
fn rules_2_6_a_ticket_is_dead_for_another_client_instance_role_or_group() {
    let mut bench = Bench::logged_in();
    let find = || Call::Find(Find { template: None, after: vec![], limit: 1 });
    assert_eq!(bench.outcome(find()), Outcome::OK);
    let good = bench.ticket.clone();
    for caller in [Caller { client: [7; 32], ..CALLER }, Caller { instance: [7; 32], ..CALLER }] {
        bench.caller = caller;
        assert_eq!(bench.outcome(find()), Outcome::TICKET_DEAD);
    }
    bench.caller = CALLER;
    for role in [0, 1, 3, 255] {
        bench.ticket[0] = role;
        assert_eq!(bench.outcome(find()), Outcome::TICKET_DEAD);
    }
    for length in [1, 2, good.len() - 1] {
        bench.ticket = good[..length].to_vec();
        assert_eq!(bench.outcome(find()), Outcome::TICKET_DEAD);
    }
    bench.ticket = Bench::with(1002, Settings::for_tests()).login(UserType::USER, CO_PIN);
    assert_eq!(bench.outcome(find()), Outcome::TICKET_DEAD, "of another group of the same domain");
}

fn set_pin(old: &[u8], new: &[u8]) -> Call {
    Call::SetPin(SetPin { user: UserType::USER.0, old: old.to_vec(), new: new.to_vec(), tag: tag() })
}

#[test]
fn set_pin_replaces_the_pin_and_keeps_tickets() {
    let bench = Bench::logged_in();
    assert_eq!(bench.rv(set_pin(CO_PIN, b"new pin")), Rv::OK);
    assert_eq!(bench.rv(login(UserType::USER, CO_PIN)), Rv::PIN_INCORRECT);
    bench.login(UserType::USER, b"new pin");
    assert_eq!(bench.outcome(Call::Find(Find::default())), Outcome::OK, "RULES 2.6: the ticket lives on");
}

#[test]
fn set_pin_resent_with_its_tag_is_ok_and_changes_nothing_more() {
    let bench = Bench::new();
    let call = set_pin(CO_PIN, b"new pin");
    assert_eq!(bench.rv(call.clone()), Rv::OK);
    let epoch =
        |bench: &Bench| bench.partition.handle(&CALLER, &bench.header(), b"", NOW_MS).0.credential_epoch;
    let before = epoch(&bench);
    assert_eq!(bench.rv(call), Rv::OK);
    assert_eq!((epoch(&bench), failed(&bench)), (before, 0));
}

#[test]
fn ha_4_2_set_pin_resent_while_the_first_still_runs_is_ok() {
    let bench = slow();
    let call = set_pin(CO_PIN, b"new pin");
    let start = std::sync::Barrier::new(4);
    let codes: Vec<Rv> = std::thread::scope(|scope| {
        let send = || {
            start.wait();
            bench.rv(call.clone())
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(send)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(codes, [Rv::OK; 4]);
    assert_eq!(failed(&bench), 0);
    bench.login(UserType::USER, b"new pin");
}

#[test]
fn set_pin_refuses_a_wrong_old_pin_and_lengths_out_of_bounds() {
    let bench = Bench::new();
    assert_eq!(bench.rv(set_pin(b"wrong", b"new pin")), Rv::PIN_INCORRECT);
    assert_eq!(failed(&bench), 1);
    assert_eq!(bench.rv(set_pin(CO_PIN, b"abc")), Rv::PIN_LEN_RANGE);
    assert_eq!(bench.rv(set_pin(CO_PIN, &[b'x'; 256])), Rv::PIN_LEN_RANGE);
    bench.login(UserType::USER, CO_PIN);
}

#[test]
fn ha_2_7_set_pin_away_from_the_home_names_the_home() {
    let home = Bench::logged_in();
    let other = home.joined(1002);
    let reply = other.send(set_pin(CO_PIN, b"new pin"));
    assert_eq!(Outcome(reply.outcome), Outcome::NOT_HOME);
    assert!(reply.text.contains("1001"), "{}", reply.text);
}

#[test]
fn ha_2_7_joined_credentials_of_a_greater_epoch_win_and_older_ones_do_not() {
    let home = Bench::logged_in();
    let other = home.joined(1002);
    let exported =
        || match home.ok(Call::Export(Export { ouids: vec![], credentials: true, manifest: false })) {
            Answer::Export(export) => export.credentials,
            _ => unreachable!("an export is answered by an export"),
        };
    let old = exported();
    home.ok(set_pin(CO_PIN, b"new pin"));
    let join = |credentials| Call::Join(Join { credentials, ..Join::default() });
    other.ok(join(exported()));
    other.login(UserType::USER, b"new pin");
    other.ok(join(old));
    other.login(UserType::USER, b"new pin");
}

/// The codes of the same login sent by so many threads at once, each with a tag of its own.
fn at_once(bench: &Bench, threads: usize, pin: &[u8]) -> Vec<Rv> {
    let start = std::sync::Barrier::new(threads);
    let one = || {
        start.wait();
        bench.rv(login(UserType::USER, pin))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A verifier slow enough that tries meet.
fn slow() -> Bench {
    Bench::with(1001, Settings { argon2_memory_kib: 4_096, ..Settings::for_tests() })
}

#[test]
fn ha_4_2_right_pins_at_the_same_time_are_no_failures_to_each_other() {
    let bench = slow();
    (0..2).for_each(|_| assert_eq!(bench.rv(login(UserType::USER, b"wrong")), Rv::PIN_INCORRECT));
    assert_eq!(at_once(&bench, 8, CO_PIN), [Rv::OK; 8]);
    assert_eq!(failed(&bench), 0);
}

#[test]
fn wrong_pins_at_the_same_time_are_counted_one_by_one_until_the_delay() {
    let bench = slow();
    let mut codes = at_once(&bench, 8, b"wrong");
    codes.sort_by_key(|rv| rv.0);
    let (incorrect, locked) = codes.split_at(3);
    assert_eq!((incorrect, locked), (&[Rv::PIN_INCORRECT; 3][..], &[Rv::PIN_LOCKED; 5][..]));
    assert_eq!(failed(&bench), 3);
}
