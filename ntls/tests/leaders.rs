//! Links driven by their callers (HA 5): leadership, hand-over, backlog, several links, settings at run time.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ntls::frame::Frame;
use ntls::links::Links;
use ntls::platform::System;
use spec::platform::Platform as _;
use spec::seam::{Event, Fault, Seam as _, Standing, Tag};

mod support;
use support::{Act, Behaviour, MEMBER, Pair, Server, World, echo, next, request, until_up, waiter, within};

/// Answers "slow..." after 300 ms and everything else at once; the connection stands still meanwhile.
fn slow_or_echo() -> Behaviour {
    Arc::new(|_, body| match body.starts_with(b"slow") {
        true => vec![Act::Sleep(300), Act::Reply(body.to_vec())],
        false => vec![Act::Reply(body.to_vec())],
    })
}

fn body_of(event: Event, tag: Tag) -> Vec<u8> {
    match event {
        Event::Reply(found, reply) if found == tag => reply.body.to_vec(),
        _ => panic!("no reply to {tag:?}"),
    }
}

/// Links that nobody but their callers drives.
fn untended(world: &World, server: &Server, links_per_member: usize) -> Arc<Links> {
    let mut settings = world.settings(vec![server.name()]);
    settings.links_per_member = links_per_member;
    let links = Links::new(System::shared(), settings);
    until_up(&links);
    let (waiter, until) = (waiter(), within(10_000));
    links.subscribe(&waiter);
    while links.links_up() < links_per_member {
        assert!(!matches!(links.wait(&waiter, until), Event::Deadline), "all links come up");
    }
    links
}

#[test]
fn no_thread_is_needed_and_lost_links_come_back_by_the_callers_alone() {
    let world = World::new();
    let mut server = Server::start(world.plan(echo()));
    let links = untended(&world, &server, 2);
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(5_000));
    assert_eq!(body_of(next(&links, &waiter, 5_000), tag), [1]);
    server.stop();
    // The first caller after the loss finds out, at the latest by its own request.
    let tag = links.submit(&waiter, MEMBER, &request(vec![2]), within(5_000));
    assert!(matches!(next(&links, &waiter, 5_000), Event::Fault(found, _) if found == tag));
    let mut plan = world.plan(echo());
    plan.at = Some(server.address);
    let _again = Server::start(plan);
    until_up(&links);
    let tag = links.submit(&waiter, MEMBER, &request(vec![3]), within(5_000));
    assert_eq!(body_of(next(&links, &waiter, 5_000), tag), [3]);
}

#[test]
fn a_leader_whose_own_reply_comes_first_hands_over_to_one_that_waits_on() {
    let world = World::new();
    let server = Server::start(world.plan(slow_or_echo()));
    let links = untended(&world, &server, 1);
    thread::scope(|scope| {
        for round in 0..5 {
            let (first, second) = (waiter(), waiter());
            // Both are on one link; the quick one leads, since it waits first.
            let quick = links.submit(&first, MEMBER, &request(b"quick".to_vec()), within(10_000));
            let slow = links.submit(&second, MEMBER, &request(b"slow".to_vec()), within(10_000));
            let links = &links;
            let leader = scope.spawn(move || body_of(next(links, &first, 10_000), quick));
            let follower = scope.spawn(move || body_of(next(links, &second, 10_000), slow));
            assert_eq!(leader.join().unwrap(), b"quick", "round {round}");
            assert_eq!(follower.join().unwrap(), b"slow", "round {round}");
        }
    });
}

#[test]
fn a_waiter_that_times_out_leaves_no_one_behind() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|_, body| match body {
        b"never" => vec![],
        body => vec![Act::Sleep(20), Act::Reply(body.to_vec())],
    })));
    let links = untended(&world, &server, 1);
    thread::scope(|scope| {
        for thread in 0..4u64 {
            let links = &links;
            // Gives up again and again, leading or not, with the token or without.
            scope.spawn(move || {
                for round in 0..50 {
                    let waiter = waiter();
                    let tag = links.submit(&waiter, MEMBER, &request(b"never".to_vec()), within(60_000));
                    assert!(matches!(next(links, &waiter, 1 + (thread + round) % 5), Event::Deadline));
                    links.cancel(MEMBER, tag);
                }
            });
            scope.spawn(move || {
                for round in 0..10u64 {
                    let waiter = waiter();
                    let body = round.to_be_bytes().to_vec();
                    let tag = links.submit(&waiter, MEMBER, &request(body.clone()), within(30_000));
                    assert_eq!(body_of(next(links, &waiter, 30_000), tag), body, "thread {thread}");
                }
            });
        }
    });
}

#[test]
fn one_caller_waits_on_two_links_at_once() {
    let world = World::new();
    let server = Server::start(world.plan(slow_or_echo()));
    let links = untended(&world, &server, 2);
    let waiter = waiter();
    // The second goes to the link with nothing outstanding, so it does not stand behind the first.
    let slow = links.submit(&waiter, MEMBER, &request(b"slow".to_vec()), within(10_000));
    let quick = links.submit(&waiter, MEMBER, &request(b"quick".to_vec()), within(10_000));
    assert_eq!(body_of(next(&links, &waiter, 10_000), quick), b"quick");
    assert_eq!(body_of(next(&links, &waiter, 10_000), slow), b"slow");
}

#[test]
fn what_the_socket_did_not_take_is_written_by_the_leader_when_there_is_room() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|_, body| match body.first() {
        Some(0) => vec![Act::Sleep(500), Act::Reply(vec![0])],
        _ => vec![Act::Reply(body.len().to_be_bytes().to_vec())],
    })));
    let links = untended(&world, &server, 1);
    let (first, second) = (waiter(), waiter());
    // The server sleeps and reads nothing, so most of the large request stays behind.
    let asleep = links.submit(&first, MEMBER, &request(vec![0]), within(20_000));
    thread::sleep(Duration::from_millis(100));
    let large = links.submit(&second, MEMBER, &request(vec![1; 12 << 20]), within(20_000));
    let other = links.clone();
    let leader = thread::spawn(move || body_of(next(&other, &first, 20_000), asleep));
    assert_eq!(body_of(next(&links, &second, 20_000), large), (12usize << 20).to_be_bytes());
    assert_eq!(leader.join().unwrap(), [0]);
}

#[test]
fn a_link_given_up_while_it_is_led_ends_for_leader_and_followers() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|_, body| match body {
        b"never" => vec![],
        body => vec![Act::Reply(body.to_vec())],
    })));
    let links = untended(&world, &server, 1);
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let links = &links;
                scope.spawn(move || {
                    let waiter = waiter();
                    let tag = links.submit(&waiter, MEMBER, &request(b"never".to_vec()), within(60_000));
                    assert!(matches!(next(links, &waiter, 30_000), Event::Fault(found, Fault::Unknown) if found == tag));
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(100));
        links.abandon(MEMBER, "test");
        waiting.into_iter().for_each(|one| one.join().unwrap());
    });
    until_up(&links);
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(vec![9]), within(5_000));
    assert_eq!(body_of(next(&links, &waiter, 5_000), tag), [9]);
}

#[test]
fn a_leader_busy_with_its_own_reply_keeps_nobody_waiting() {
    let world = World::new();
    let server = Server::start(world.plan(slow_or_echo()));
    let links = untended(&world, &server, 1);
    let (first, second) = (waiter(), waiter());
    let quick = links.submit(&first, MEMBER, &request(b"quick".to_vec()), within(10_000));
    assert_eq!(body_of(next(&links, &first, 10_000), quick), b"quick");
    // The first caller decodes for ever now; it holds no role.
    let other = links.submit(&second, MEMBER, &request(b"slow".to_vec()), within(10_000));
    assert_eq!(body_of(next(&links, &second, 10_000), other), b"slow");
}

#[test]
fn bytes_that_nobody_has_read_are_ours() {
    let world = World::new();
    let server = Server::start(world.plan(echo()));
    let links = untended(&world, &server, 1);
    let waiter = waiter();
    assert!(!links.has_unread(MEMBER));
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(60_000));
    let until = within(10_000);
    while !links.has_unread(MEMBER) {
        assert!(System.now() < until, "the reply comes, and nobody reads it");
        thread::yield_now();
    }
    assert_eq!(body_of(next(&links, &waiter, 5_000), tag), [1]);
    assert!(!links.has_unread(MEMBER));
}

/// A generator for tests.
fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    *state >> 33
}

#[test]
fn sixty_four_threads_over_two_links_with_random_cancels_all_get_their_own_answers() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_122);
    println!("SEED={seed}");
    let world = World::new();
    let server = Server::start(world.plan(echo()));
    let links = untended(&world, &server, 2);
    let answered = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..64u64 {
            let (links, answered) = (&links, &answered);
            scope.spawn(move || {
                let mut chance = seed ^ thread;
                let mailbox = waiter();
                for round in 0..60u64 {
                    let mut open: HashMap<Tag, Vec<u8>> = HashMap::new();
                    for part in 0..=step(&mut chance) % 3 {
                        let body = [thread.to_be_bytes(), round.to_be_bytes(), part.to_be_bytes()].concat();
                        let sent = links.submit(&mailbox, MEMBER, &request(body.clone()), within(60_000));
                        open.insert(sent, body);
                    }
                    if step(&mut chance).is_multiple_of(4) {
                        let tag = *open.keys().next().unwrap();
                        links.cancel(MEMBER, tag);
                        open.remove(&tag);
                    }
                    while !open.is_empty() {
                        match next(links, &mailbox, 60_000) {
                            Event::Reply(tag, reply) => {
                                // The reply to a cancelled request may have been in the mailbox already.
                                if let Some(body) = open.remove(&tag) {
                                    assert_eq!(body, *reply.body);
                                    answered.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                            _ => panic!("thread {thread}, round {round}: no reply"),
                        }
                    }
                }
            });
        }
    });
    assert!(answered.load(Ordering::Relaxed) > 64 * 60 / 2);
}

#[test]
fn servers_come_and_go_at_run_time_without_a_lost_request() {
    let world = World::new();
    let named = |name: &'static str| {
        world.plan(Arc::new(move |_, body| match body.starts_with(b"slow") {
            true => vec![Act::Sleep(400), Act::Reply(name.into())],
            false => vec![Act::Reply(name.into())],
        }))
    };
    let (old, new) = (Server::start(named("old")), Server::start(named("new")));
    let links = world.links(vec![old.name()]);
    let (begun, asked) = (waiter(), waiter());
    let slow = links.submit(&begun, MEMBER, &request(b"slow".to_vec()), within(10_000));
    links.configure(world.settings(vec![new.name()]));
    assert_eq!(links.servers().len(), 1);
    until_up(&links);
    let tag = links.submit(&asked, MEMBER, &request(vec![1]), within(5_000));
    assert_eq!(body_of(next(&links, &asked, 5_000), tag), b"new");
    assert_eq!(body_of(next(&links, &begun, 5_000), slow), b"old", "what was begun ends in order");
    assert!(matches!(old.next_other(), Some(Frame::Close(_))), "the old link says goodbye");
}

#[test]
fn a_new_client_certificate_is_taken_up_under_load_without_a_fault() {
    let world = World::new();
    let second = Pair::new("client");
    let mut plan = world.plan(echo());
    plan.known.push(second.der());
    let server = Server::start(plan);
    let links = world.links(vec![server.name()]);
    let stop = Mutex::new(false);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (links, stop) = (&links, &stop);
                scope.spawn(move || {
                    let waiter = waiter();
                    let mut count = 0;
                    while !*stop.lock().unwrap() {
                        let tag = links.submit(&waiter, MEMBER, &request(vec![7]), within(20_000));
                        assert_eq!(body_of(next(links, &waiter, 20_000), tag), [7]);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(100));
        std::fs::write(world.path("client.pem"), &second.certificate).unwrap();
        std::fs::write(world.path("clientKey.pem"), &second.key).unwrap();
        links.configure(world.settings(vec![server.name()]));
        // The old link says goodbye once the new one has taken over.
        assert!(matches!(server.next_other(), Some(Frame::Close(_))));
        assert!(matches!(links.standing(MEMBER), Standing::Up { .. }));
        *stop.lock().unwrap() = true;
        let counts: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        assert!(counts > 0);
    });
}

#[test]
fn a_full_link_that_nobody_waits_on_takes_requests_again_once_its_server_reads() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|_, body| match body.first() {
        Some(0) => vec![Act::Sleep(500), Act::Reply(vec![0])],
        first => vec![Act::Reply(first.into_iter().copied().collect())],
    })));
    let links = untended(&world, &server, 1);
    let waiter = waiter();
    // The server sleeps and reads nothing, and whoever filled the link has no more patience.
    let asleep = links.submit(&waiter, MEMBER, &request(vec![0]), within(20_000));
    thread::sleep(Duration::from_millis(100));
    let large = links.submit(&waiter, MEMBER, &request(vec![1; 12 << 20]), within(20_000));
    links.cancel(MEMBER, asleep);
    links.cancel(MEMBER, large);
    let until = within(10_000);
    loop {
        let tag = links.submit(&waiter, MEMBER, &request(vec![2]), until);
        match waiter.take() {
            Some(Event::Fault(found, fault)) => {
                assert_eq!((found, fault), (tag, Fault::NotSent), "it is full")
            }
            Some(_) => panic!("nobody has read an answer"),
            None => return assert_eq!(body_of(next(&links, &waiter, 10_000), tag), [2]),
        }
        assert!(System.now() < until, "the link is full for ever");
        thread::sleep(Duration::from_millis(20));
    }
}
