//! Work on a link that is slow, cancelled, expired, too much, or fails: with a handler made for it. One file because all of it
//! is told by the bodies of that one handler.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
#[path = "support/gate.rs"]
mod gate;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use appliance::book::Book;
use appliance::handler::{Asker, Handler, Lane};
use appliance::link::{Limits, Lookup, Shared};
use appliance::listener::{Acceptor, Connections, listen};
use appliance::memory::Memory;
use appliance::registry::Registry;
use appliance::sightings::Sightings;
use appliance::workers::Workers;
use gate::Gate;
use ntls::frame::Frame;
use ntls::instance::InstanceKey;
use ntls::tls::{ServerTrust, server_config};
use partition::Reading;
use prost::Message;
use spec::messages::{Outcome, ReplyBody, ReplyHeader, RequestHeader};
use support::{Client, Raw};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use zeroize::Zeroizing;

const SERIAL: u64 = 7;

/// A body names its lane and how many milliseconds it takes: "i0", "c1500", "d20", "l500" (as a login); "p" panics; "r1000" is answered
/// with so many bytes, "e" with itself, "g" when the gate has been opened, all on the lane for the processor.
#[derive(Default)]
struct Scripted {
    ran: AtomicU64,
    gate: Gate,
}

impl Handler for Scripted {
    fn handle(
        &self,
        asker: &Asker,
        header: &RequestHeader,
        reading: &Reading<'_>,
        _: u64,
        reply: &mut Zeroizing<Vec<u8>>,
    ) -> ReplyHeader {
        let body = reading.body();
        assert_ne!(asker.client, [0; 32]);
        self.ran.fetch_add(1, Ordering::SeqCst);
        let header = ReplyHeader { seq: header.tag, ..self.standing() };
        if body[0] == b'e' {
            reply.extend_from_slice(body);
            return header;
        }
        let text = std::str::from_utf8(&body[1..]).unwrap();
        if body[0] == b'r' {
            *reply = Zeroizing::new(vec![0; text.parse().unwrap()]);
            return header;
        }
        assert_ne!(body[0], b'p', "a fault of ours");
        if body[0] == b'g' {
            self.gate.wait();
            return header;
        }
        std::thread::sleep(Duration::from_millis(text.parse().unwrap()));
        header
    }

    fn standing(&self) -> ReplyHeader {
        ReplyHeader {
            incarnation: 77,
            seq: 9,
            credential_epoch: 3,
            manifest_epoch: 4,
            ..ReplyHeader::default()
        }
    }

    fn lane(&self, _: &RequestHeader, reading: &Reading<'_>) -> Lane {
        match reading.body()[0] {
            b'i' | b'p' => Lane::Inline,
            b'd' => Lane::Disk,
            b'l' => Lane::Pin,
            _ => Lane::Crypto,
        }
    }

    fn requests(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn tidy(&self, _: u64) {}
}

struct One(Arc<Scripted>);

impl Lookup for One {
    fn handler(&self, serial: u64) -> Option<Arc<dyn Handler>> {
        (serial == SERIAL).then(|| self.0.clone() as Arc<dyn Handler>)
    }

    fn label(&self, _: u64) -> Option<String> {
        Some("par0".into())
    }

    fn appliance(&self) -> String {
        "hsm1".into()
    }
}

struct Stage {
    _place: TempDir,
    _runtime: Runtime,
    handler: Arc<Scripted>,
    stop: watch::Sender<bool>,
    connections: Connections,
    memory: Arc<Memory>,
    address: SocketAddr,
    client: Client,
    other: Client,
    trust: Arc<ServerTrust>,
}

fn stage(window: u32, crypto_threads: usize) -> Stage {
    bounded(window, crypto_threads, 64 << 20, 64 << 20)
}

fn bounded(window: u32, crypto_threads: usize, link_bytes: usize, bytes: usize) -> Stage {
    let place = tempfile::tempdir().unwrap();
    let (book, _) = Book::open(&place.path().join("appliance.sqlite")).unwrap();
    let domain = appliance::book::DomainRow { name: "d".into(), wrapped: vec![1], fingerprint: vec![1] };
    book.add_domain(&domain).unwrap();
    let row = appliance::book::PartitionRow { serial: SERIAL, label: "par0".into(), domain: "d".into() };
    book.add_partition(&row).unwrap();
    let book = Arc::new(book);
    let registry = Arc::new(Registry::load(book.clone()).unwrap());
    let client = Client::new("client1");
    registry.register("client1", &client.pem).unwrap();
    registry.assign("client1", SERIAL).unwrap();
    let other = Client::new("client2");
    registry.register("client2", &other.pem).unwrap();
    registry.assign("client2", SERIAL).unwrap();
    let (server, handler) = (Client::new("server"), Arc::new(Scripted::default()));
    let acceptor = Arc::new(Acceptor::new(server_config(&server.identity, registry.clone()).unwrap(), 1));
    let seen = Arc::new(Sightings::load(book.clone()).unwrap());
    let (stop, stopping) = watch::channel(false);
    let memory = Memory::new(bytes);
    let connections = Connections::new(10, 10, 10);
    let shared = Arc::new(Shared {
        registry,
        acceptor,
        seen,
        lookup: Arc::new(One(handler.clone())),
        workers: Workers::new(crypto_threads),
        limits: Limits { window, link_bytes, idle: None, handshake: Duration::from_secs(2) },
        connections: connections.clone(),
        memory: memory.clone(),
        stop: stopping,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(listen(listener, shared));
    let trust = Arc::new(ServerTrust::from_pem(server.pem.as_bytes(), "server.pem").unwrap());
    Stage {
        _place: place,
        _runtime: runtime,
        handler,
        stop,
        connections,
        memory,
        address,
        client,
        other,
        trust,
    }
}

impl Stage {
    fn link(&self) -> Raw {
        self.link_of(&self.client)
    }

    fn link_of(&self, client: &Client) -> Raw {
        let mut raw = Raw::connect(self.address, client, &self.trust);
        raw.hello(&InstanceKey::generate());
        raw
    }

    /// Waits until so many requests have been started.
    fn until_ran(&self, count: u64) {
        while self.handler.ran.load(Ordering::SeqCst) < count {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The next frame that is no progress, however slow the machine.
fn receive(link: &mut Raw) -> Option<Frame> {
    loop {
        match link.receive() {
            Some(Frame::Progress(_)) => {}
            other => return other,
        }
    }
}

fn reply_tag(frame: Option<Frame>) -> u64 {
    match frame {
        Some(Frame::Reply(header, _)) => header.tag,
        other => panic!("wanted a reply, found {other:?}"),
    }
}

fn reply_outcome(frame: Option<Frame>) -> Outcome {
    match frame {
        Some(Frame::Reply(_, body)) => Outcome(ReplyBody::decode(body.as_slice()).unwrap().outcome),
        other => panic!("wanted a reply, found {other:?}"),
    }
}

/// The outcome of a reply that was made outside the partition and yet carries its standing (HA 1.5).
fn standing_and_outcome(frame: Option<Frame>) -> Outcome {
    if let Some(Frame::Reply(header, _)) = &frame {
        let found = (header.incarnation, header.seq, header.credential_epoch, header.manifest_epoch);
        assert_eq!(found, (77, 9, 3, 4));
    }
    reply_outcome(frame)
}

#[test]
fn slow_work_stops_neither_pings_nor_short_work_and_tells_progress() {
    let stage = stage(16, 1);
    let mut link = stage.link();
    link.send_request(1, SERIAL, 10_000, b"c2500".to_vec());
    link.send_request(2, SERIAL, 10_000, b"i0".to_vec());
    link.send_frame(&Frame::Ping(9));
    link.send_request(3, SERIAL, 10_000, b"d1".to_vec());
    assert_eq!(reply_tag(link.receive()), 2);
    assert_eq!(link.receive(), Some(Frame::Pong(9)));
    assert_eq!(reply_tag(link.receive()), 3);
    let mut progress = 0;
    loop {
        match link.receive() {
            Some(Frame::Progress(1)) => progress += 1,
            other => {
                assert_eq!(reply_tag(other), 1);
                break;
            }
        }
    }
    assert!((2..=3).contains(&progress), "one a second for 2.5 seconds, found {progress}");
}

#[test]
fn pin_checks_that_wait_do_not_stop_signing() {
    let stage = stage(16, 1);
    let mut link = stage.link();
    for tag in 1..=3 {
        link.send_request(tag, SERIAL, 10_000, b"l700".to_vec());
    }
    stage.until_ran(1);
    link.send_request(4, SERIAL, 10_000, b"c0".to_vec());
    assert_eq!(reply_tag(link.receive()), 4);
    assert_eq!(stage.handler.ran.load(Ordering::SeqCst), 2, "of three PIN checks one runs at a time");
}

#[test]
fn progress_is_told_on_a_busy_link_too() {
    let stage = stage(16, 1);
    let mut link = stage.link();
    link.send_request(1, SERIAL, 10_000, b"c1700".to_vec());
    let mut seen = false;
    for number in 0.. {
        link.send_frame(&Frame::Ping(number));
        match link.receive() {
            Some(Frame::Pong(_)) => {}
            Some(Frame::Progress(1)) => seen = true,
            other => {
                assert_eq!(reply_tag(other), 1);
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(seen);
}

#[test]
fn more_than_the_window_is_answered_busy_and_not_executed() {
    let stage = stage(2, 1);
    let mut link = stage.link();
    for tag in 1..=4 {
        link.send_request(tag, SERIAL, 10_000, b"c300".to_vec());
    }
    assert!(matches!(link.receive(), Some(Frame::Busy(3, ms)) if ms > 0));
    assert!(matches!(link.receive(), Some(Frame::Busy(4, _))));
    assert_eq!(reply_tag(link.receive()), 1);
    assert_eq!(reply_tag(link.receive()), 2);
    assert_eq!(stage.handler.ran.load(Ordering::SeqCst), 2);
    link.send_request(5, SERIAL, 10_000, b"c0".to_vec());
    assert_eq!(reply_tag(link.receive()), 5);
}

#[test]
fn cancelled_work_is_not_started_and_its_answer_not_sent() {
    let stage = stage(16, 1);
    let mut link = stage.link();
    link.send_request(1, SERIAL, 10_000, b"c800".to_vec());
    link.send_request(2, SERIAL, 10_000, b"c0".to_vec());
    stage.until_ran(1);
    link.send_frame(&Frame::Cancel(1));
    link.send_frame(&Frame::Cancel(2));
    link.send_frame(&Frame::Cancel(77));
    link.send_request(3, SERIAL, 10_000, b"c0".to_vec());
    assert_eq!(reply_tag(link.receive()), 3);
    assert_eq!(stage.handler.ran.load(Ordering::SeqCst), 2, "1 was running, 2 never ran, 3 ran");
}

#[test]
fn what_a_lost_link_asked_for_is_not_started() {
    let stage = stage(16, 1);
    let (mut lost, mut link) = (stage.link(), stage.link());
    lost.send_request(1, SERIAL, 60_000, b"g".to_vec());
    lost.send_request(2, SERIAL, 60_000, b"c0".to_vec());
    lost.send_frame(&Frame::Ping(1));
    assert_eq!(receive(&mut lost), Some(Frame::Pong(1)));
    stage.until_ran(1);
    drop(lost);
    // Its own task sees the end of a link: only then does the lane become free.
    while stage.connections.count() > 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
    link.send_request(3, SERIAL, 60_000, b"c0".to_vec());
    stage.handler.gate.open();
    assert_eq!(reply_tag(receive(&mut link)), 3);
    assert_eq!(stage.handler.ran.load(Ordering::SeqCst), 2, "1 was running, 2 never ran, 3 ran");
}

#[test]
fn what_has_expired_in_the_queue_is_not_executed() {
    let stage = stage(16, 1);
    let mut link = stage.link();
    link.send_request(1, SERIAL, 10_000, b"c300".to_vec());
    stage.until_ran(1);
    link.send_request(2, SERIAL, 50, b"c0".to_vec());
    assert_eq!(reply_tag(link.receive()), 1);
    assert_eq!(standing_and_outcome(link.receive()), Outcome::EXPIRED);
    assert_eq!(stage.handler.ran.load(Ordering::SeqCst), 1);
}

#[test]
fn a_fault_of_ours_fails_one_request_only() {
    let stage = stage(16, 1);
    let mut link = stage.link();
    link.send_request(1, SERIAL, 10_000, b"p0".to_vec());
    assert_eq!(standing_and_outcome(link.receive()), Outcome::FAILED);
    link.send_request(2, SERIAL, 10_000, b"cx".to_vec());
    assert_eq!(standing_and_outcome(link.receive()), Outcome::FAILED);
    link.send_request(3, SERIAL, 10_000, b"i0".to_vec());
    assert_eq!(reply_outcome(link.receive()), Outcome::OK);
}

#[test]
fn a_tag_that_is_outstanding_is_refused_with_the_link() {
    let stage = stage(16, 1);
    let mut link = stage.link();
    link.send_request(1, SERIAL, 10_000, b"c200".to_vec());
    link.send_request(1, SERIAL, 10_000, b"c200".to_vec());
    assert!(matches!(link.until_closed().as_slice(), [Frame::Close(reason)] if reason.contains("tag")));
}

#[test]
fn a_stop_finishes_what_runs_and_answers_busy_to_what_comes() {
    let stage = stage(16, 1);
    let mut link = stage.link();
    link.send_request(1, SERIAL, 10_000, b"c700".to_vec());
    stage.until_ran(1);
    stage.stop.send_replace(true);
    assert!(matches!(link.receive(), Some(Frame::Close(reason)) if reason.contains("stopping")));
    link.send_request(2, SERIAL, 10_000, b"i0".to_vec());
    assert!(matches!(link.receive(), Some(Frame::Busy(2, _))));
    assert_eq!(reply_tag(link.receive()), 1);
    assert!(link.until_closed().is_empty());
    let gone = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        stage.connections.count() == 0
    });
    assert!(gone);
}

#[test]
fn many_requests_in_one_write_are_all_answered() {
    let stage = stage(1000, 2);
    let mut link = stage.link();
    let mut bytes = Vec::new();
    for tag in 0..500 {
        let header =
            RequestHeader { tag, partition: SERIAL, remaining_ms: 10_000, ..RequestHeader::default() };
        let lane: &[u8] = if tag % 5 == 0 { b"c0" } else { b"i0" };
        bytes.extend_from_slice(&ntls::frame::encode(&Frame::Request(header, Zeroizing::new(lane.to_vec()))));
    }
    link.send(&bytes);
    let mut tags: Vec<u64> = (0..500).map(|_| reply_tag(link.receive())).collect();
    tags.sort_unstable();
    assert_eq!(tags, (0..500).collect::<Vec<_>>());
}

#[test]
fn the_short_requests_of_one_record_are_answered_in_one() {
    const REQUESTS: u64 = 200;
    let stage = stage(1000, 2);
    let mut link = stage.link();
    let request = |tag| {
        let header =
            RequestHeader { tag, partition: SERIAL, remaining_ms: 10_000, ..RequestHeader::default() };
        ntls::frame::encode(&Frame::Request(header, Zeroizing::new(b"i0".to_vec())))
    };
    let all: Vec<u8> = (0..REQUESTS).flat_map(|tag| request(tag).to_vec()).collect();
    assert!(all.len() <= 16 << 10, "one record");
    link.send(&all);
    assert_eq!(link.records_of(REQUESTS as usize), 1);
    let tags: Vec<u64> = (0..REQUESTS).map(|_| reply_tag(link.receive())).collect();
    assert_eq!(tags, (0..REQUESTS).collect::<Vec<_>>(), "in their order");
    // One after the other they come in one each.
    for tag in 0..3 {
        link.send(&request(tag));
        assert_eq!(link.records_of(1), 1);
        assert_eq!(reply_tag(link.receive()), tag);
    }
}

const MIB: usize = 1 << 20;
const PART: usize = 64 << 10;

/// Of so many answers, how many are replies with a body of at least `bytes` and how many are Busy.
fn replies_and_busy(link: &mut Raw, bytes: usize, answers: usize) -> (usize, usize) {
    let (mut replies, mut busy, mut rest) = (0, 0, answers);
    while rest > 0 {
        rest -= 1;
        match link.receive() {
            Some(Frame::Reply(_, body)) => replies += usize::from(body.len() >= bytes),
            Some(Frame::Busy(..)) => busy += 1,
            Some(Frame::Progress(_)) => rest += 1,
            other => panic!("wanted a reply or Busy, found {other:?}"),
        }
    }
    (replies, busy)
}

#[test]
fn waiting_requests_hold_no_more_than_the_link_may_and_the_rest_is_not_executed() {
    let stage = bounded(256, 1, 4 * PART, 64 * MIB);
    let mut link = stage.link();
    link.send_request(0, SERIAL, 60_000, b"g".to_vec());
    stage.until_ran(1);
    for tag in 1..=40 {
        link.send_request(tag, SERIAL, 60_000, vec![b'e'; PART - 100]);
    }
    assert_eq!(replies_and_busy(&mut link, PART - 100, 36), (0, 36));
    stage.handler.gate.open();
    assert_eq!(replies_and_busy(&mut link, PART - 100, 5), (4, 0));
    assert_eq!(stage.handler.ran.load(Ordering::SeqCst), 5);
    link.send_request(41, SERIAL, 60_000, vec![b'e'; PART]);
    assert_eq!(replies_and_busy(&mut link, PART, 1), (1, 0), "what was held is free again");
}

#[test]
fn links_together_hold_no_more_than_the_process_may() {
    let stage = bounded(256, 1, 4 * PART, 6 * PART);
    let (mut first, mut second) = (stage.link(), stage.link());
    first.send_request(0, SERIAL, 60_000, b"g".to_vec());
    stage.until_ran(1);
    for link in [&mut first, &mut second] {
        for tag in 1..=10 {
            link.send_request(tag, SERIAL, 60_000, vec![b'e'; PART - 100]);
        }
        link.send_frame(&Frame::Ping(1));
        let busy = std::iter::from_fn(|| link.receive()).take_while(|frame| *frame != Frame::Pong(1)).count();
        assert!(busy >= 6, "found {busy}");
    }
    stage.handler.gate.open();
    for (link, wanted) in [(&mut first, 5), (&mut second, 2)] {
        assert_eq!(replies_and_busy(link, 1, wanted).1, 0);
    }
    assert_eq!(stage.handler.ran.load(Ordering::SeqCst), 1 + 4 + 2);
}

#[test]
fn a_client_that_reads_nothing_gets_no_more_replies_made_than_the_bound() {
    let stage = bounded(256, 2, 4 * MIB, 64 * MIB);
    let mut link = stage.link();
    for tag in 0..200 {
        link.send_request(tag, SERIAL, 60_000, format!("r{MIB}").into_bytes());
    }
    std::thread::sleep(Duration::from_millis(1_500));
    // The bound, what is being written (4 MiB), a reply for each thread, and what the kernel's buffers take (6 + 4 MiB).
    let ran = stage.handler.ran.load(Ordering::SeqCst);
    assert!((4..=4 + 5 + 2 + 10).contains(&ran), "{ran} replies of 1 MiB were made");
    let held = stage.memory.held();
    assert!(held <= 12 * MIB, "{held} bytes are held");
    let (replies, busy) = replies_and_busy(&mut link, MIB, 200);
    assert_eq!((replies + busy, replies as u64), (200, stage.handler.ran.load(Ordering::SeqCst)));
    drop(link);
    let free = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        stage.memory.held() == 0
    });
    assert!(free, "{} bytes are held for nobody", stage.memory.held());
}

#[test]
fn frames_that_never_end_hold_no_more_than_the_process_may() {
    let stage = bounded(16, 1, 64 * MIB, 4 * PART);
    let mut good = stage.link();
    good.send_request(1, SERIAL, 10_000, b"c0".to_vec());
    assert_eq!(reply_tag(good.receive()), 1);
    let header =
        RequestHeader { tag: 1, partition: SERIAL, remaining_ms: 10_000, ..RequestHeader::default() };
    let whole = ntls::frame::encode(&Frame::Request(header, Zeroizing::new(vec![b'e'; 16 * PART])));
    let unfinished = [(); 3].map(|()| {
        let mut link = stage.link();
        link.send(&whole[..6 * PART]);
        link
    });
    let full = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(2));
        stage.memory.held() + (16 << 10) > 4 * PART
    });
    assert!(full, "{} bytes are held", stage.memory.held());
    std::thread::sleep(Duration::from_millis(200));
    let held = stage.memory.held();
    assert!(held <= 4 * PART, "{held} bytes are held");
    good.send_request(2, SERIAL, 10_000, vec![b'e'; PART / 2]);
    assert!(matches!(good.receive(), Some(Frame::Busy(2, _))));
    drop(unfinished);
    let free = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        stage.memory.held() == 0
    });
    assert!(free, "{} bytes are held for nobody", stage.memory.held());
    good.send_request(3, SERIAL, 10_000, b"c0".to_vec());
    assert_eq!(reply_tag(good.receive()), 3);
}

#[test]
fn ha_4_5_a_client_with_much_queued_on_several_links_delays_another_by_one_turn() {
    let stage = stage(64, 1);
    let (mut first, mut second) = (stage.link(), stage.link());
    let mut other = stage.link_of(&stage.other);
    for tag in 1..=30 {
        first.send_request(tag, SERIAL, 20_000, b"c30".to_vec());
        second.send_request(tag, SERIAL, 20_000, b"c30".to_vec());
    }
    stage.until_ran(3);
    other.send_request(1, SERIAL, 20_000, b"c0".to_vec());
    assert_eq!(reply_tag(other.receive()), 1);
    let ran = stage.handler.ran.load(Ordering::SeqCst);
    assert!(ran < 15, "{ran} of 60 ran before the other client's one");
}

#[test]
fn ha_4_4_short_work_is_answered_while_every_thread_is_stuck_and_tells_the_queue() {
    let stage = stage(64, 1);
    let mut link = stage.link();
    for tag in 1..=4 {
        link.send_request(tag, SERIAL, 20_000, b"c1500".to_vec());
        link.send_request(10 + tag, SERIAL, 20_000, b"l1500".to_vec());
    }
    stage.until_ran(2);
    let mut prober = stage.link_of(&stage.other);
    prober.send_request(1, SERIAL, 1_000, b"i0".to_vec());
    match prober.receive() {
        Some(Frame::Reply(header, _)) => assert_eq!(header.queue, 6, "three wait on each of two lanes"),
        other => panic!("wanted a reply, found {other:?}"),
    }
    assert_eq!(
        stage.handler.ran.load(Ordering::SeqCst),
        3,
        "what is stuck has not ended, or the next would run"
    );
}

#[test]
fn ha_4_5_a_client_that_holds_all_the_memory_it_can_makes_no_other_hear_busy() {
    let mib = 1 << 20;
    let stage = bounded(64, 1, 64 * mib, 48 * mib);
    let (mut greedy, mut other) = (stage.link(), stage.link_of(&stage.other));
    greedy.send_request(1, SERIAL, 60_000, b"g".to_vec());
    stage.until_ran(1);
    for tag in 2..=40 {
        let mut body = vec![b'e'; mib];
        body[1] = u8::try_from(tag).unwrap();
        greedy.send_request(tag, SERIAL, 60_000, body);
    }
    let first_busy = match receive(&mut greedy) {
        Some(Frame::Busy(tag, _)) => tag,
        other => panic!("wanted Busy for what is above its share, found {other:?}"),
    };
    assert!((20..=28).contains(&first_busy), "half of 48 MiB, found {first_busy}");
    other.send_request(1, SERIAL, 60_000, vec![b'e'; mib]);
    stage.handler.gate.open();
    assert_eq!(reply_tag(receive(&mut other)), 1);
}

#[test]
fn ha_4_5_windows_are_granted_from_capacity() {
    let stage = stage(65_536, 1);
    let granted = |link: &mut Raw| {
        link.send_request(1, SERIAL, 20_000, b"i0".to_vec());
        match link.receive() {
            Some(Frame::Reply(header, _)) => header.window,
            other => panic!("wanted a reply, found {other:?}"),
        }
    };
    let mut first = stage.link();
    let alone = granted(&mut first);
    let mut second = stage.link_of(&stage.other);
    assert_eq!((alone, granted(&mut second), granted(&mut first)), (257, 128, 128));
}
