//! Links against a small server: answers, faults, reconnection (HA 4.1, 4.5).
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ntls::frame::Frame;
use ntls::links::Links;
use ntls::platform::System;
use spec::messages::{HelloReply, PartitionName, WIRE_VERSION};
use spec::platform::Platform as _;
use spec::seam::{Event, Fault, MemberId, Seam as _, Standing, Tag};

mod support;
use support::{Act, MEMBER, SERIAL, Server, World, echo, next, request, until_up, waiter, within};

fn is_reply(event: Event, tag: Tag, wanted: &[u8]) -> bool {
    matches!(event, Event::Reply(found, reply) if found == tag && reply.body.as_slice() == wanted && reply.header.seq == 7)
}

#[test]
fn a_request_is_answered_over_the_preferred_hybrid_group() {
    let world = World::new();
    let server = Server::start(world.plan(echo()));
    let links = world.links(vec![server.name()]);
    assert_eq!(links.negotiated_group().as_deref(), Some("X25519MLKEM768"));
    let seen = links.partitions();
    assert_eq!((seen[0].serial, seen[0].label.as_str(), &seen[0].server), (SERIAL, "part", &server.name()));
    assert!(matches!(links.standing(MEMBER), Standing::Up { .. }));
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(b"hello".to_vec()), within(5_000));
    assert!(is_reply(next(&links, &waiter, 5_000), tag, b"hello"));
}

#[test]
fn the_header_is_written_anew_with_tag_partition_and_time_left() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|header, _| {
        vec![Act::Reply(format!("{} {}", header.partition, header.remaining_ms).into_bytes())]
    })));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    let body = request(Vec::new());
    let one = links.submit(&waiter, MEMBER, &body, within(3_000));
    let two = links.submit(&waiter, MEMBER, &body, within(3_000));
    assert_ne!(one, two);
    for _ in 0..2 {
        let Event::Reply(_, reply) = next(&links, &waiter, 5_000) else { panic!("no reply") };
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        let (partition, remaining) = text.split_once(' ').unwrap();
        assert_eq!(partition, SERIAL.to_string());
        assert!((2_000..=3_000).contains(&remaining.parse::<u32>().unwrap()), "{remaining}");
    }
}

#[test]
fn a_member_that_no_server_offers_is_not_sent_to() {
    let world = World::new();
    let server = Server::start(world.plan(echo()));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    let tag = links.submit(&waiter, MemberId(5), &request(vec![1]), within(5_000));
    assert!(matches!(next(&links, &waiter, 5_000), Event::Fault(found, Fault::NotSent) if found == tag));
    let Standing::Down { reason } = links.standing(MemberId(5)) else { panic!("up") };
    assert!(reason.contains("assignPartition"), "{reason}");
}

#[test]
fn a_connection_lost_after_the_request_is_an_unknown_outcome_and_comes_back() {
    let world = World::new();
    let drops = AtomicUsize::new(1);
    let server = Server::start(world.plan(Arc::new(move |_, body| {
        match drops.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => vec![Act::Drop],
            Err(_) => vec![Act::Reply(body.to_vec())],
        }
    })));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(5_000));
    assert!(matches!(next(&links, &waiter, 5_000), Event::Fault(found, Fault::Unknown) if found == tag));
    until_up(&links);
    let tag = links.submit(&waiter, MEMBER, &request(vec![2]), within(5_000));
    assert!(is_reply(next(&links, &waiter, 5_000), tag, &[2]));
}

#[test]
fn a_stopped_server_is_not_sent_to_and_found_again_at_the_same_address() {
    let world = World::new();
    let mut server = Server::start(world.plan(echo()));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    links.subscribe(&waiter);
    server.stop();
    let until = within(10_000);
    while matches!(links.standing(MEMBER), Standing::Up { .. }) {
        assert!(!matches!(links.wait(&waiter, until), Event::Deadline), "a subscriber hears of the loss");
    }
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(5_000));
    assert!(matches!(next(&links, &waiter, 5_000), Event::Fault(found, Fault::NotSent) if found == tag));
    let mut plan = world.plan(echo());
    plan.at = Some(server.address);
    let _again = Server::start(plan);
    until_up(&links);
    let tag = links.submit(&waiter, MEMBER, &request(vec![2]), within(5_000));
    assert!(is_reply(next(&links, &waiter, 5_000), tag, &[2]));
}

#[test]
fn an_abandoned_link_ends_what_is_outstanding_and_is_made_anew() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|_, body| match body {
        b"wait" => vec![],
        body => vec![Act::Reply(body.to_vec())],
    })));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(b"wait".to_vec()), within(60_000));
    let before = System.now();
    links.abandon(MEMBER, "a probe stayed unanswered");
    assert!(matches!(next(&links, &waiter, 5_000), Event::Fault(found, Fault::Unknown) if found == tag));
    assert!(System.now().since(before).as_millis() < 1_000);
    until_up(&links);
    let tag = links.submit(&waiter, MEMBER, &request(vec![2]), within(5_000));
    assert!(is_reply(next(&links, &waiter, 5_000), tag, &[2]));
}

#[test]
fn a_cancelled_request_is_told_to_the_member_and_heard_of_no_more() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|_, body| match body {
        b"wait" => vec![],
        body => vec![Act::Reply(body.to_vec())],
    })));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(b"wait".to_vec()), within(60_000));
    links.cancel(MEMBER, tag);
    assert_eq!(server.next_other(), Some(Frame::Cancel(tag.0)));
    links.abandon(MEMBER, "test");
    assert!(matches!(next(&links, &waiter, 300), Event::Deadline), "no fault for a cancelled request");
}

#[test]
fn progress_and_busy_are_passed_on() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|header, body| match body {
        b"busy" => vec![Act::Send(Frame::Busy(header.tag, 123))],
        body => vec![Act::Send(Frame::Progress(header.tag)), Act::Reply(body.to_vec())],
    })));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(b"long".to_vec()), within(5_000));
    assert!(matches!(next(&links, &waiter, 5_000), Event::Progress(found) if found == tag));
    assert!(is_reply(next(&links, &waiter, 5_000), tag, b"long"));
    let tag = links.submit(&waiter, MEMBER, &request(b"busy".to_vec()), within(5_000));
    assert!(matches!(next(&links, &waiter, 5_000), Event::Busy(found, 123) if found == tag));
}

#[test]
fn eight_threads_each_get_their_own_answers() {
    let world = World::new();
    let server = Server::start(world.plan(echo()));
    let links = world.links(vec![server.name()]);
    let threads: Vec<_> = (0..8u32)
        .map(|thread| {
            let links = links.clone();
            thread::spawn(move || {
                let waiter = waiter();
                for round in 0..200u32 {
                    let body = [thread.to_be_bytes(), round.to_be_bytes()].concat();
                    let tag = links.submit(&waiter, MEMBER, &request(body.clone()), within(20_000));
                    assert!(
                        is_reply(next(&links, &waiter, 20_000), tag, &body),
                        "thread {thread}, round {round}"
                    );
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_silent_server_is_given_up_after_the_receive_timeout_and_pinged_before() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|_, _| vec![])));
    let mut settings = world.settings(vec![server.name()]);
    settings.receive_timeout_ms = 1_000;
    let links = Links::new(System::shared(), settings);
    until_up(&links);
    let waiter = waiter();
    let before = System.now();
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(60_000));
    assert!(matches!(next(&links, &waiter, 10_000), Event::Fault(found, Fault::Unknown) if found == tag));
    let waited = System.now().since(before).as_millis();
    assert!((1_000..3_000).contains(&waited), "{waited} ms");
    assert!(matches!(server.next_other(), Some(Frame::Ping(_))));
}

#[test]
fn a_server_s_ping_is_answered() {
    let world = World::new();
    let mut plan = world.plan(echo());
    plan.greeting = vec![Frame::Ping(77)];
    let server = Server::start(plan);
    let _links = world.links(vec![server.name()]);
    assert_eq!(server.next_other(), Some(Frame::Pong(77)));
}

#[test]
fn a_later_hello_reply_changes_the_offer() {
    let world = World::new();
    let mut plan = world.plan(echo());
    let partitions = vec![PartitionName { serial: 42, label: "new".into() }];
    plan.greeting =
        vec![Frame::HelloReply(HelloReply { version: WIRE_VERSION, partitions, ..HelloReply::default() })];
    let server = Server::start(plan);
    let links = Links::new(System::shared(), world.settings(vec![server.name()]));
    let (waiter, until) = (waiter(), within(10_000));
    links.subscribe(&waiter);
    while !matches!(links.standing(MemberId(42)), Standing::Up { .. }) {
        assert!(!matches!(links.wait(&waiter, until), Event::Deadline));
    }
    assert!(
        matches!(links.standing(MEMBER), Standing::Down { reason } if reason.contains("no longer offers"))
    );
}

#[test]
fn a_closing_server_gets_no_new_requests_and_still_answers_old_ones() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|_, body| {
        vec![Act::Send(Frame::Close("upgrade".into())), Act::Sleep(200), Act::Reply(body.to_vec()), Act::Drop]
    })));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    links.subscribe(&waiter);
    let old = links.submit(&waiter, MEMBER, &request(vec![1]), within(5_000));
    let until = within(10_000);
    while !matches!(links.standing(MEMBER), Standing::Down { reason } if reason.contains("upgrade")) {
        assert!(!matches!(links.wait(&waiter, until), Event::Deadline));
    }
    let new = links.submit(&waiter, MEMBER, &request(vec![2]), within(5_000));
    assert!(matches!(next(&links, &waiter, 5_000), Event::Fault(found, Fault::NotSent) if found == new));
    assert!(is_reply(next(&links, &waiter, 5_000), old, &[1]));
}

#[test]
fn a_large_request_goes_and_a_stalled_socket_refuses_more_than_its_backlog() {
    let world = World::new();
    let large = vec![5; 8 << 20];
    let asleep = Arc::new(Mutex::new(()));
    let sleep = asleep.clone();
    let (tell, falls_asleep) = std::sync::mpsc::channel();
    let server = Server::start(world.plan(Arc::new(move |_, body| match body.first() {
        Some(5) => vec![Act::Reply(body.len().to_be_bytes().to_vec())],
        _ => {
            tell.send(()).unwrap();
            drop(sleep.lock());
            vec![Act::Reply(vec![1])]
        }
    })));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(large.clone()), within(20_000));
    assert!(is_reply(next(&links, &waiter, 20_000), tag, &large.len().to_be_bytes()));
    // Now the server sleeps and reads nothing, until the test has submitted: submitting waits for no network.
    let held = asleep.lock().unwrap();
    let asleep = links.submit(&waiter, MEMBER, &request(vec![6]), within(20_000));
    falls_asleep.recv().unwrap();
    let first = links.submit(&waiter, MEMBER, &request(large.clone()), within(20_000));
    let second = links.submit(&waiter, MEMBER, &request(large.clone()), within(20_000));
    drop(held);
    assert!(matches!(next(&links, &waiter, 5_000), Event::Fault(found, Fault::NotSent) if found == second));
    assert!(is_reply(next(&links, &waiter, 10_000), asleep, &[1]));
    assert!(
        is_reply(next(&links, &waiter, 20_000), first, &large.len().to_be_bytes()),
        "the reader wrote the rest"
    );
}

#[test]
fn what_was_never_written_is_not_sent_when_the_link_is_given_up() {
    let world = World::new();
    let (tell, falls_asleep) = std::sync::mpsc::channel();
    let server = Server::start(world.plan(Arc::new(move |_, _| {
        tell.send(()).unwrap();
        vec![Act::Sleep(2_000)]
    })));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    let asleep = links.submit(&waiter, MEMBER, &request(vec![6]), within(20_000));
    falls_asleep.recv().unwrap();
    // Fill the socket until something stays behind; all but the last one are written at least partly.
    let mut tags = vec![asleep];
    loop {
        let tag = links.submit(&waiter, MEMBER, &request(vec![7; 200 << 10]), within(20_000));
        if matches!(links.wait(&waiter, System.now()), Event::Fault(found, Fault::NotSent) if found == tag) {
            break;
        }
        tags.push(tag);
    }
    links.abandon(MEMBER, "test");
    let mut faults = Vec::new();
    for _ in 0..tags.len() {
        let Event::Fault(tag, fault) = next(&links, &waiter, 5_000) else { panic!("no fault") };
        faults.push((tag.0, fault));
    }
    faults.sort_by_key(|(tag, _)| *tag);
    assert_eq!(faults.first().map(|(_, fault)| *fault), Some(Fault::Unknown));
    assert_eq!(faults.last().map(|(_, fault)| *fault), Some(Fault::NotSent), "{faults:?}");
    let first_unsent = faults.iter().position(|(_, fault)| *fault == Fault::NotSent).unwrap();
    assert!(
        faults.iter().skip(first_unsent).all(|(_, fault)| *fault == Fault::NotSent),
        "in order: {faults:?}"
    );
}

#[test]
fn a_request_past_its_deadline_ends_once() {
    let world = World::new();
    let server =
        Server::start(world.plan(Arc::new(|_, body| vec![Act::Sleep(1_500), Act::Reply(body.to_vec())])));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(200));
    assert!(matches!(next(&links, &waiter, 5_000), Event::Fault(found, Fault::Unknown) if found == tag));
    assert!(matches!(next(&links, &waiter, 2_000), Event::Deadline), "the late reply is dropped");
}

#[test]
fn close_ends_what_is_outstanding_and_tells_the_server() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|_, _| vec![])));
    let nobody = ntls::ServerAddress { host: "127.0.0.1".into(), port: 1 };
    let links = world.links(vec![server.name(), nobody]);
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(60_000));
    let before = System.now();
    links.close();
    assert!(System.now().since(before).as_millis() < 2_000);
    assert!(matches!(next(&links, &waiter, 100), Event::Fault(found, Fault::Unknown) if found == tag));
    assert!(matches!(server.next_other(), Some(Frame::Close(_))), "the server is told");
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(60_000));
    assert!(matches!(next(&links, &waiter, 100), Event::Fault(found, Fault::NotSent) if found == tag));
}

#[test]
fn while_the_link_to_a_partition_is_down_another_server_that_offers_it_is_asked() {
    let world = World::new();
    let named = |name: &'static str| world.plan(Arc::new(move |_, _| vec![Act::Reply(name.into())]));
    let mut servers = [Server::start(named("first")), Server::start(named("second"))];
    let links = world.links(servers.iter().map(Server::name).collect());
    let waiter = waiter();
    let asked = |links: &Links| {
        links.submit(&waiter, MEMBER, &request(vec![1]), within(5_000));
        let event = next(links, &waiter, 5_000);
        let reply = match event {
            Event::Reply(_, reply) => reply,
            Event::Fault(_, fault) => panic!("a fault instead of a reply: {fault:?}; {:?}", links.servers()),
            _ => panic!("something else than a reply"),
        };
        reply.body.to_vec()
    };
    let routed = asked(&links);
    let at = usize::from(routed == b"second");
    servers[at].stop();
    let until = within(5_000);
    while matches!(links.servers()[at].1, Standing::Up { .. }) {
        assert!(System.now() < until, "the loss is seen");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(links.standing(MEMBER), Standing::Up { .. }));
    assert_ne!(asked(&links), routed);
}

#[test]
fn a_server_that_sends_no_frames_is_dropped() {
    let world = World::new();
    let server =
        Server::start(world.plan(Arc::new(|_, _| vec![Act::Send(Frame::Cancel(1)), Act::Sleep(500)])));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(60_000));
    assert!(matches!(next(&links, &waiter, 5_000), Event::Fault(found, Fault::Unknown) if found == tag));
    let (_, standing) = links.servers().remove(0);
    assert!(
        matches!(standing, Standing::Down { reason } if reason.contains("wanted a frame of an appliance"))
    );
}
