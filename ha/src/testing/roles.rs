//! Login and PIN changes (HA 2.7, 4.2; RULES 2.5, 2.9).
use spec::messages::{Login, Outcome, SetPin};
use spec::record::State;
use spec::{Ouid, Rv};

use super::{Fate, TICKET, World};
use crate::error::Error;
use crate::group::Group;

const STATUS: u32 = 10;
const LOGIN: u32 = 11;
const SET_PIN: u32 = 12;

fn login(group: &Group, pin: &[u8]) -> Result<Vec<u8>, Error> {
    group.login(Login { user: 1, pin: pin.to_vec(), tag: Vec::new() }, &[])
}

fn set_pin(group: &Group, old: &[u8], new: &[u8], ticket: &[u8]) -> Result<(), Error> {
    group.set_pin(SetPin { user: 1, old: old.to_vec(), new: new.to_vec(), tag: Vec::new() }, ticket)
}

fn tries(world: &World) -> usize {
    (1..=3).map(|member| world.model(member, |model| model.tries.len())).sum()
}

#[test]
fn a_wrong_pin_spends_one_try_and_two_at_most_when_a_reply_was_lost() {
    let faults = [
        (Fate::Fine, 1),
        (Fate::NotSent, 1),
        (Fate::LostBefore, 1),
        (Fate::LostAfter, 2),
        (Fate::Busy(20), 1),
    ];
    for (fate, spent) in faults {
        let world = World::new(3);
        let group = world.group();
        world.script(1, LOGIN, fate);
        assert_eq!(login(&group, b"wrong-pin"), Err(Error::Rv(Rv::PIN_INCORRECT)), "{fate:?}");
        assert_eq!(tries(&world), spent, "{fate:?}");
        assert_eq!(login(&group, b"1234567").unwrap(), TICKET, "{fate:?}");
    }
}

#[test]
fn a_login_whose_replies_are_lost_is_sent_to_two_members_at_most() {
    let world = World::new(3);
    let group = world.group();
    (1..=3).for_each(|member| world.script(member, LOGIN, Fate::LostAfter));
    assert!(matches!(login(&group, b"1234567"), Err(Error::OutcomeUnknown(_))));
    assert_eq!(world.executed(LOGIN).len(), 2);
}

#[test]
fn a_login_goes_on_freely_while_nothing_was_sent() {
    let world = World::new(3);
    let group = world.group();
    (1..=2).for_each(|member| (0..3).for_each(|_| world.script(member, LOGIN, Fate::NotSent)));
    assert_eq!(login(&group, b"1234567").unwrap(), TICKET);
}

#[test]
fn a_pin_change_is_made_at_the_home_and_reaches_the_others() {
    for ticket in [TICKET, &[]] {
        for fate in [Fate::Fine, Fate::NotSent, Fate::LostBefore, Fate::LostAfter] {
            let world = World::new(3);
            let group = world.group();
            world.script(1, SET_PIN, fate);
            set_pin(&group, b"1234567", b"7654321", ticket).unwrap();
            assert!(world.sent(SET_PIN).iter().all(|member| *member == 1));
            assert!((1..=3).all(|member| world.model(member, |model| model.pin == b"7654321")), "{fate:?}");
        }
    }
}

#[test]
fn a_pin_is_not_tried_on_a_member_whose_credentials_are_behind() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    world.down(1);
    world.down(2);
    world.up(1);
    world.tend(&group, 1);
    world.model(1, |model| (model.credential_epoch, model.pin) = (2, b"7654321".to_vec()));
    world.tend(&group, 1);
    for _ in 0..4 {
        assert_eq!(login(&group, b"7654321").unwrap(), TICKET);
    }
    assert_eq!(tries(&world), 0);
}

#[test]
fn ha_2_7_a_login_goes_to_the_newest_credentials_though_that_member_lacks_objects() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    world.down(1);
    (2..=3).for_each(|member| world.model(member, |model| model.put(Ouid([6; 16]), State::Committed)));
    world.tend(&group, 1);
    world.up(1);
    world.model(1, |model| (model.credential_epoch, model.pin) = (2, b"7654321".to_vec()));
    world.tend(&group, 1);
    let home = group.view().seats[0].member.clone();
    assert!(!home.is_readable(&*group.seam), "it was not repaired: nobody is logged in");
    world.forget();
    assert_eq!(login(&group, b"7654321").unwrap(), TICKET);
    assert_eq!((world.sent(LOGIN), tries(&world)), (vec![1], 0));
    // When it does not answer, a PIN is tried where it is known.
    world.down(1);
    assert_eq!(login(&group, b"1234567").unwrap(), TICKET);
}

#[test]
fn rules_2_9_a_pin_change_that_only_the_home_has_is_of_unknown_outcome() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    // Nobody is logged in, and the login that would prove the right to tell the others fails.
    (0..9).for_each(|_| world.script(1, LOGIN, Fate::Answer(Outcome::FAILED)));
    assert!(matches!(set_pin(&group, b"1234567", b"7654321", &[]), Err(Error::OutcomeUnknown(_))));
    assert!(world.model(1, |model| model.pin == b"7654321"));
}

#[test]
fn without_the_home_a_pin_change_fails_and_names_it() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    world.down(1);
    match set_pin(&group, b"1234567", b"7654321", TICKET) {
        Err(Error::Home(text)) => assert!(text.contains("member 1"), "{text}"),
        other => panic!("wanted Home, found {other:?}"),
    }
    assert!(world.ms() < 8_000);
}

#[test]
fn credentials_that_are_behind_are_levelled_with_a_ticket() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    world.model(1, |model| (model.credential_epoch, model.pin) = (2, b"7654321".to_vec()));
    world.tend(&group, 2);
    assert!(world.model(2, |model| model.credential_epoch == 1));
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 2);
    assert!((1..=3).all(|member| world.model(member, |model| model.pin == b"7654321")));
}

/// Three members of which all hold a changed PIN, but the home, which goes back to the image from before the change.
fn with_the_home_gone_back() -> (std::sync::Arc<World>, std::sync::Arc<Group>) {
    let world = World::new(3);
    let group = world.group();
    let image = world.model(1, |model| model.clone());
    set_pin(&group, b"1234567", b"7654321", TICKET).unwrap();
    (1..=3).for_each(|member| world.model(member, |model| model.put(Ouid([6; 16]), State::Committed)));
    world.tend(&group, 1);
    world.model(1, |model| *model = image);
    world.forget();
    (world, group)
}

fn home_error<T: std::fmt::Debug>(result: Result<T, Error>) {
    match result {
        Err(Error::Home(text)) => assert!(text.contains("member 1"), "{text}"),
        other => panic!("wanted Home, found {other:?}"),
    }
}

#[test]
fn ha_1_5_what_a_home_that_went_back_says_of_a_pin_is_not_believed() {
    // The old PIN is right for it, the new one is wrong.
    for old in [b"1234567", b"7654321"] {
        let (world, group) = with_the_home_gone_back();
        home_error(set_pin(&group, old, b"0000000", TICKET));
        assert_eq!(world.executed(SET_PIN), [1], "the reply showed it");
        home_error(set_pin(&group, old, b"0000000", TICKET));
        assert_eq!(world.executed(SET_PIN), [1], "it is not asked any more");
        assert!((2..=3).all(|member| world.model(member, |model| model.pin == b"7654321")));
    }
}

#[test]
fn ha_2_7_a_home_with_older_credentials_than_another_member_decides_about_no_pin() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    world.model(2, |model| (model.credential_epoch, model.pin) = (2, b"7654321".to_vec()));
    world.tend(&group, 1);
    home_error(set_pin(&group, b"1234567", b"0000000", TICKET));
    assert!(world.sent(SET_PIN).is_empty());
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 2);
    set_pin(&group, b"7654321", b"0000000", TICKET).unwrap();
    assert!((1..=3).all(|member| world.model(member, |model| model.pin == b"0000000")));
}

#[test]
fn ha_2_7_a_home_whose_newest_credentials_have_not_been_heard_of_is_asked_before_it_is_refused() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    // Another process has changed the PIN, and of that only the second member has told this one so far.
    for member in [1, 2] {
        world.model(member, |model| (model.credential_epoch, model.pin) = (2, b"7654321".to_vec()));
    }
    world.script(1, STATUS, Fate::Busy(1));
    world.tend(&group, 1);
    set_pin(&group, b"7654321", b"0000000", TICKET).unwrap();
    assert_eq!(world.executed(SET_PIN), [1]);
}

#[test]
fn ha_1_5_the_only_member_of_a_group_decides_about_its_pin_whatever_became_of_its_store() {
    let world = World::new(1);
    let group = world.group();
    let image = world.model(1, |model| model.clone());
    set_pin(&group, b"1234567", b"7654321", TICKET).unwrap();
    world.model(1, |model| *model = image);
    set_pin(&group, b"1234567", b"0000000", TICKET).unwrap();
}

/// The manifest changes at the home between its answer and the arrival of that, and another thread hears so from another
/// member.
#[test]
fn ha_2_7_a_pin_change_is_done_although_the_manifest_has_changed_since_its_answer() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    world.script(1, SET_PIN, Fate::Slow(300));
    let second = group.view().seats[1].member.clone();
    world.later(100, move |world| {
        (1..=3).for_each(|member| world.model(member, |model| model.manifest.epoch += 1));
        second.note(&world.model(2, |model| model.header()), None, (0, 0), false);
    });
    assert_eq!(set_pin(&group, b"1234567", b"7654321", TICKET), Ok(()));
    assert!((1..=3).all(|member| world.model(member, |model| model.pin == b"7654321")));
}
