//! How an answer comes into the hands of a waiting caller, checked over the interleavings by `loom`: posted and announced by one
//! thread, found, slept for or polled for by the other, while its time may run out. The waiting, the mailbox and the token are the
//! real ones; the clock, the kernel and the word of the token are those of the model. Between posting and announcing, and between two
//! looks of the caller, another thread may come in; each look, and each posting, is one step here.
#![allow(clippy::unwrap_used)]
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

use loom::thread;
use spec::messages::ReplyHeader;
use spec::platform::{Joiner, Park, Platform, Stream};
use spec::seam::{Reply, Tag};

use super::*;
use crate::instance::InstanceKey;
use crate::links::{LinkSettings, Links};
use crate::token::tests::{Break, UNTIL, World, check};
use crate::token::{self, Ground as _};

impl Park for World {
    fn park(&self, until: Moment) {
        if self.broken == Break::ForgetsLate {
            token::forget(self);
        }
        token::park(self, until);
    }

    fn unpark(&self) {
        token::unpark(self);
    }

    fn forget(&self) {
        token::forget(self);
    }
}

/// A platform with one place to wait, and nothing to connect to.
struct Stage(Arc<World>);

impl Platform for Stage {
    fn now(&self) -> Moment {
        self.0.now()
    }

    fn wall_ms(&self) -> u64 {
        0
    }

    fn random(&self, _: &mut [u8]) {}

    fn spawn(&self, _: &str, _: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Joiner>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn thread(&self) -> u64 {
        0
    }

    fn yield_now(&self) {}

    fn parker(&self) -> Arc<dyn Park> {
        self.0.clone()
    }

    fn poll(&self, watched: &mut [Watched], _: &dyn Park, _: Moment) {
        assert!(watched.is_empty(), "there are no sockets");
        token::poll(&*self.0, || self.0.look());
    }

    fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn connect(&self, _: SocketAddr, _: bool) -> io::Result<Arc<dyn Stream>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Links to no server, and a caller's mailbox.
struct Scene {
    world: Arc<World>,
    links: Arc<Links>,
    waiter: Arc<Waiter>,
    /// Whether the caller has requests, and parks; one without does the background work, and polls.
    parks: bool,
}

impl Scene {
    fn new(broken: Break, parks: bool, answers: u32) -> Arc<Self> {
        static SETTINGS: OnceLock<LinkSettings> = OnceLock::new();
        let settings = SETTINGS.get_or_init(|| LinkSettings {
            servers: Vec::new(),
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            server_ca_file: PathBuf::new(),
            links_per_member: 1,
            may_spawn: false,
            receive_timeout_ms: 20_000,
            tcp_keep_alive: false,
            software: String::new(),
            instance: Arc::new(InstanceKey::generate()),
        });
        let world = World::new(broken);
        let platform: Arc<dyn Platform> = Arc::new(Stage(world.clone()));
        let waiter = Waiter::new(&platform);
        let links = Links::new(platform, settings.clone());
        if parks {
            (0..answers).for_each(|place| drop(waiter.expect(place)));
        }
        Arc::new(Self { world, links, waiter, parks })
    }

    /// The answer to the request of this number comes.
    fn answer(&self, number: u32) {
        let reply = Reply { header: ReplyHeader::default(), body: Default::default() };
        let event = Event::Reply(Tag(number.into()), reply);
        self.world.word.step();
        if self.parks {
            self.waiter.settle(number, event);
        } else {
            self.waiter.deliver(event);
        }
    }

    /// The number of the next answer; none when its time has passed.
    fn wait(&self) -> Option<u64> {
        self.world.word.step();
        match wait(&self.links.shared, &self.waiter, UNTIL) {
            Event::Reply(Tag(number), _) => Some(number),
            Event::Deadline => None,
            _ => panic!("wanted an answer or the deadline"),
        }
    }

    /// Nothing is left, and nobody stands anywhere any more.
    fn is_at_rest(&self) {
        assert!(self.waiter.take().is_none(), "an event is left, or comes twice");
        assert!(self.waiter.listed().load(Ordering::Acquire) == 0 && self.links.shared.seat.is_sound());
    }
}

fn spawn(scene: &Arc<Scene>, act: impl FnOnce(&Scene) + 'static) -> thread::JoinHandle<()> {
    let scene = scene.clone();
    thread::spawn(move || act(&scene))
}

/// Two threads answer at once.
fn two_answers(broken: Break, parks: bool) {
    check(2, move || {
        let scene = Scene::new(broken, parks, 2);
        let others = [0, 1].map(|number| spawn(&scene, move |scene| scene.answer(number)));
        let mut heard = [(); 2].map(|()| scene.wait());
        heard.sort_unstable();
        assert_eq!(heard, [Some(0), Some(1)]);
        others.into_iter().for_each(|other| other.join().unwrap());
        scene.is_at_rest();
    });
}

/// One thread answers twice, and the caller may find the first answer before its token.
fn two_answers_in_turn(broken: Break, parks: bool) {
    check(3, move || {
        let scene = Scene::new(broken, parks, 2);
        let other = spawn(&scene, |scene| (0..2).for_each(|number| scene.answer(number)));
        assert_eq!([(); 2].map(|()| scene.wait()), [Some(0), Some(1)]);
        other.join().unwrap();
        scene.is_at_rest();
    });
}

#[test]
fn ha_5_a_caller_takes_every_answer_once_and_in_order() {
    for parks in [true, false] {
        two_answers(Break::Nothing, parks);
        two_answers_in_turn(Break::Nothing, parks);
    }
}

#[test]
fn ha_5_an_answer_that_races_the_deadline_is_taken_once_or_found_later() {
    for parks in [true, false] {
        check(3, move || {
            let scene = Scene::new(Break::Nothing, parks, 1);
            let others =
                [spawn(&scene, |scene| scene.answer(0)), spawn(&scene, |scene| scene.world.time_out())];
            let heard = scene.wait();
            others.into_iter().for_each(|other| other.join().unwrap());
            let found = scene.wait();
            assert!(
                (heard, found) == (Some(0), None) || (heard, found) == (None, Some(0)),
                "{heard:?} {found:?}"
            );
            scene.is_at_rest();
        });
    }
}

#[test]
fn ha_5_a_wake_without_news_of_a_request_hides_no_answer() {
    for parks in [true, false] {
        check(2, move || {
            let scene = Scene::new(Break::Nothing, parks, 1);
            let others = [
                spawn(&scene, |scene| scene.answer(0)),
                spawn(&scene, |scene| {
                    scene.world.word.step();
                    scene.waiter.wake();
                }),
            ];
            let heard = [(); 2].map(|()| wait(&scene.links.shared, &scene.waiter, UNTIL));
            assert_eq!(heard.iter().filter(|event| matches!(event, Event::Reply(..))).count(), 1);
            assert_eq!(heard.iter().filter(|event| matches!(event, Event::Woken)).count(), 1);
            others.into_iter().for_each(|other| other.join().unwrap());
            scene.is_at_rest();
        });
    }
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_sees_a_caller_that_is_not_woken() {
    two_answers_in_turn(Break::WakesNobody, true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_sees_a_caller_whose_poll_is_not_ended() {
    two_answers_in_turn(Break::NeverRings, false);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_sees_a_caller_that_forgets_what_it_has_not_looked_for() {
    two_answers_in_turn(Break::ForgetsLate, true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_sees_a_caller_that_does_not_look_for_a_token() {
    two_answers_in_turn(Break::Overwrites, true);
}
