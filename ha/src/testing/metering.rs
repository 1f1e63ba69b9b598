//! What the routing reports (the `Meter`).
use std::sync::Arc;
use std::time::Duration;

use spec::Ouid;
use spec::meter::{Ended, Meter, Moved, News};
use spec::platform::Lock;
use spec::record::State;
use spec::seam::MemberId;

use super::{Fate, TICKET, World, one_use};
use crate::group::Group;
use crate::route::Policy;

const USE: u32 = 14;

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Notes {
    ended: Lock<Vec<(u64, u32, Ended, Duration)>>,
    moved: Lock<Vec<(u64, u64, Moved)>>,
    news: Lock<Vec<News>>,
}

impl Meter for Notes {
    fn ended(&self, member: MemberId, call: u32, ended: Ended, took: Duration) {
        self.ended.lock().push((member.0, call, ended, took));
    }

    fn moved(&self, from: MemberId, to: MemberId, _: u32, why: Moved) {
        self.moved.lock().push((from.0, to.0, why));
    }

    fn news(&self, news: &News) {
        self.news.lock().push(news.clone());
    }
}

fn noted() -> (Arc<World>, Arc<Group>, Arc<Notes>, Ouid) {
    let world = World::new(3);
    let ouid = Ouid([0x42; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    let notes = Arc::new(Notes::default());
    let meter = notes.clone();
    let group = world.group_with(move |settings| {
        settings.meter = meter;
        settings.policy = Policy::PrimaryFirst;
    });
    world.tend(&group, 1);
    (0..150).for_each(|_| drop(group.any(one_use(ouid), TICKET).unwrap()));
    notes.ended.lock().clear();
    (world, group, notes, ouid)
}

#[test]
fn every_send_ends_once_with_its_time_and_every_move_has_its_reason() {
    let fates = [
        (Fate::Fine, vec![(1, Ended::Answered)], None),
        (Fate::NotSent, vec![(1, Ended::Lost), (2, Ended::Answered)], Some(Moved::Failover)),
        (Fate::LostAfter, vec![(1, Ended::Lost), (2, Ended::Answered)], Some(Moved::Failover)),
        (Fate::Busy(1), vec![(1, Ended::Busy), (2, Ended::Answered)], Some(Moved::Busy)),
        (
            Fate::Answer(spec::messages::Outcome::FAILED),
            vec![(1, Ended::Declined), (2, Ended::Answered)],
            Some(Moved::Failover),
        ),
        (Fate::Slow(20), vec![(2, Ended::Answered), (1, Ended::Cancelled)], Some(Moved::Hedge)),
    ];
    for (fate, ends, moved) in fates {
        let (world, group, notes, ouid) = noted();
        world.script(1, USE, fate);
        group.any(one_use(ouid), TICKET).unwrap();
        let ended: Vec<(u64, Ended)> =
            notes.ended.lock().iter().map(|(member, _, ended, _)| (*member, *ended)).collect();
        assert_eq!(ended, ends, "{fate:?}");
        assert!(notes.ended.lock().iter().all(|(_, call, ..)| *call == USE));
        let moves: Vec<Moved> = notes.moved.lock().iter().map(|(.., why)| *why).collect();
        assert_eq!(moves, moved.into_iter().collect::<Vec<_>>(), "{fate:?}");
    }
}

#[test]
fn an_evacuation_and_what_becomes_of_its_member_are_told() {
    let (world, group, notes, ouid) = noted();
    while group.budget.take(1) {}
    world.freeze(1);
    (0..3).for_each(|_| drop(group.any(one_use(ouid), TICKET).unwrap()));
    assert_eq!(*notes.moved.lock(), [(1, 2, Moved::Evacuation)]);
    world.tend(&group, 3);
    world.up(1);
    world.tend(&group, 2);
    let news: Vec<News> = notes.news.lock().clone();
    let member = MemberId(1);
    let at = |wanted: &dyn Fn(&News) -> bool| news.iter().rposition(wanted);
    let suspected = at(&|news| *news == News::Suspected { member });
    let lost = at(&|news| matches!(news, News::Lost { member: MemberId(1), .. }));
    let admitted = at(&|news| *news == News::Admitted { member });
    assert!(suspected.is_some() && suspected < lost && lost < admitted, "{news:?}");
    assert_eq!(news.iter().filter(|news| matches!(news, News::Suspected { .. })).count(), 1, "{news:?}");
}

#[test]
fn an_outage_a_divergence_and_a_repair_are_news() {
    let (world, group, notes, ouid) = noted();
    (1..=3).for_each(|member| world.down(member));
    assert!(group.any(one_use(ouid), TICKET).is_err());
    assert!(notes.news.lock().contains(&News::AllLost));
    (1..=3).for_each(|member| world.up(member));
    world.model(3, |model| model.put(Ouid([5; 16]), State::Committed));
    world.tend(&group, 3);
    assert!(notes.news.lock().contains(&News::Divergent { divergent: true }));
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 2);
    let news = notes.news.lock();
    assert!(news.contains(&News::Divergent { divergent: false }), "{news:?}");
    assert!(news.iter().any(|news| matches!(news, News::Repaired { records } if *records > 0)), "{news:?}");
}

#[test]
fn ha_2_4_standby_members_that_begin_to_serve_and_rest_again_are_news_once() {
    let (world, group, notes, ouid) = noted();
    let mut manifest = group.manifest().unwrap();
    (manifest.epoch, manifest.members[2].role) = (2, spec::record::MemberRole::Standby as i32);
    (1..=3).for_each(|member| world.model(member, |model| model.manifest = manifest.clone()));
    world.tend(&group, 2);
    let told = || {
        let all = notes.news.lock().clone();
        let standby = |news: &News| matches!(news, News::StandbyServes { .. } | News::ActiveServes);
        all.into_iter().filter(standby).collect::<Vec<_>>()
    };
    let serve = || (0..5).for_each(|_| drop(group.any(one_use(ouid), TICKET).unwrap()));
    serve();
    assert_eq!(told(), []);
    (1..=2).for_each(|member| world.down(member));
    serve();
    let promoted = News::StandbyServes { members: vec![MemberId(3)] };
    assert_eq!(told(), std::slice::from_ref(&promoted), "with the first request");
    world.tend(&group, 3);
    serve();
    // All gone and the same one back is no news about standby.
    world.down(3);
    world.tend(&group, 2);
    world.up(3);
    world.tend(&group, 2);
    serve();
    assert_eq!(told(), std::slice::from_ref(&promoted));
    world.up(1);
    world.tend(&group, 2);
    serve();
    assert_eq!(told(), [promoted.clone(), News::ActiveServes]);
    world.down(1);
    world.tend(&group, 1);
    assert_eq!(told(), [promoted.clone(), News::ActiveServes, promoted], "by the background work");
}

#[test]
fn members_that_come_and_go_are_news() {
    let (_, group, notes, _) = noted();
    let mut manifest = group.manifest().unwrap();
    manifest.epoch = 2;
    manifest.members.truncate(2);
    group.learn(&manifest);
    manifest.epoch = 3;
    manifest.members.push(spec::record::ManifestMember { serial: 9, role: 0, weight: 100 });
    group.learn(&manifest);
    let news = notes.news.lock();
    assert!(news.contains(&News::Left { member: MemberId(3) }));
    assert!(news.contains(&News::Joined { member: MemberId(9) }));
}
