//! Every call ends by its deadline, whatever it waits for and however many requests it consists of (HA 4.2).
use std::sync::Arc;

use spec::messages::{Login, Make, MakeKind, Outcome, SetAttributes, SetPin};
use spec::record::State;
use spec::{Attribute, AttributeType, Ouid, Template};

use super::{Fate, TICKET, World, one_use, reference};
use crate::error::Error;
use crate::group::Group;

/// `DefaultTimeOut` of these groups; every other bound is longer.
const CALL_MS: u64 = 3_000;
/// The numbers of all calls.
const CALLS: std::ops::RangeInclusive<u32> = 10..=29;
const OBJECT: Ouid = Ouid([0x42; 16]);

/// Three members with an object, judged; `change` may make them sick then.
fn world(change: impl Fn(&Arc<World>)) -> (Arc<World>, Arc<Group>) {
    let world = World::new(3);
    (1..=3).for_each(|member| world.model(member, |model| model.put(OBJECT, State::Committed)));
    let group = world.group_with(|settings| {
        settings.call_ms_max = CALL_MS;
        settings.generate_ms_max = CALL_MS;
        settings.outage_wait_ms = 20_000;
    });
    world.tend(&group, 1);
    change(&world);
    (world, group)
}

type Job = (&'static str, fn(&Group) -> Result<(), Error>);

fn jobs() -> Vec<Job> {
    vec![
        ("use", |group| group.any(one_use(OBJECT), TICKET).map(drop)),
        ("find", |group| group.find(&Template::default(), TICKET).map(drop)),
        ("create", |group| {
            let template = Template::from(vec![Attribute::bool(AttributeType::TOKEN, true)]);
            let make = Make { kind: MakeKind::GENERATE.0, templates: vec![template], ..Make::default() };
            group.create(make, TICKET).map(drop)
        }),
        ("change", |group| {
            let change = SetAttributes { object: Some(reference(OBJECT)), ..SetAttributes::default() };
            group.change(change, TICKET).map(drop)
        }),
        ("destroy", |group| group.destroy(reference(OBJECT), TICKET)),
        ("login", |group| {
            let login = Login { user: 1, pin: b"1234567".to_vec(), tag: Vec::new() };
            group.login(login, &[]).map(drop)
        }),
        ("change of a PIN", |group| {
            let (old, new) = (b"1234567".to_vec(), b"7654321".to_vec());
            group.set_pin(SetPin { user: 1, old, new, tag: Vec::new() }, &[])
        }),
    ]
}

/// Every member meets this fate in these calls, as often as they are sent.
fn always(world: &World, calls: impl Iterator<Item = u32> + Clone, fate: Fate) {
    for member in 1..=3 {
        for call in calls.clone() {
            (0..400).for_each(|_| world.script(member, call, fate));
        }
    }
}

/// Runs every job in such a world and looks at the time it took.
fn all_end(what: &str, change: impl Fn(&Arc<World>)) {
    for (name, job) in jobs() {
        let (world, group) = world(&change);
        let before = world.ms();
        let outcome = job(&group);
        let took = world.ms() - before;
        assert!(took <= CALL_MS + 20, "{name}, {what}: {outcome:?} after {took} ms");
    }
}

#[test]
fn ha_4_2_every_call_ends_by_its_deadline_when_nobody_answers() {
    all_end("frozen", |world| (1..=3).for_each(|member| world.freeze(member)));
    all_end("down", |world| (1..=3).for_each(|member| world.down(member)));
    all_end("unjudged and frozen", |world| {
        (1..=3).for_each(|member| {
            world.down(member);
            world.up(member);
            world.freeze(member);
        });
    });
}

#[test]
fn ha_4_2_every_call_ends_by_its_deadline_when_it_is_only_put_off() {
    for fate in [
        Fate::Busy(60_000),
        Fate::Busy(70),
        Fate::NotSent,
        Fate::LostBefore,
        Fate::Slow(1_300),
        Fate::Answer(Outcome::EXPIRED),
        Fate::Answer(Outcome::FAILED),
        Fate::Answer(Outcome::BEHIND),
        Fate::Answer(Outcome::UNKNOWN),
        Fate::Answer(Outcome::WRONG_GROUP),
        Fate::Answer(Outcome::RECOVERING),
    ] {
        all_end(&format!("{fate:?}"), |world| always(world, CALLS.filter(|call| *call != 10), fate));
        all_end(&format!("{fate:?} of Status too"), |world| always(world, CALLS, fate));
    }
}

#[test]
fn ha_4_2_the_second_half_of_a_write_has_what_the_first_has_left() {
    for second in [17, 18, 28] {
        for fate in [Fate::Silent, Fate::Busy(400), Fate::LostBefore] {
            all_end(&format!("{fate:?} in call {second}"), |world| {
                always(world, [12, 16, 22].into_iter(), Fate::Slow(2_500));
                always(world, std::iter::once(second), fate);
            });
        }
    }
}
