//! Work on a link that is slow, cancelled, expired, too much, or fails: with a handler made for it.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use appliance::book::Book;
use appliance::handler::{Asker, Handler, Lane};
use appliance::link::{Limits, Lookup, Shared};
use appliance::listener::{Connections, listen};
use appliance::registry::Registry;
use appliance::workers::Workers;
use ntls::frame::Frame;
use ntls::instance::InstanceKey;
use ntls::tls::{ServerTrust, server_config};
use prost::Message;
use spec::messages::{Outcome, ReplyBody, ReplyHeader, RequestHeader};
use support::{Client, Raw};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

const SERIAL: u64 = 7;

/// A body names its lane and how many milliseconds it takes: "i0", "c1500", "d20"; "p" panics.
#[derive(Default)]
struct Scripted {
    ran: AtomicU64,
}

impl Handler for Scripted {
    fn handle(
        &self,
        asker: &Asker,
        header: &RequestHeader,
        body: &[u8],
        _: u64,
    ) -> (ReplyHeader, Zeroizing<Vec<u8>>) {
        assert_ne!(asker.client, [0; 32]);
        self.ran.fetch_add(1, Ordering::SeqCst);
        let text = std::str::from_utf8(&body[1..]).unwrap();
        assert_ne!(body[0], b'p', "a fault of ours");
        std::thread::sleep(Duration::from_millis(text.parse().unwrap()));
        (
            ReplyHeader { seq: header.tag, ..ReplyHeader::default() },
            Zeroizing::new(ReplyBody::default().encode_to_vec()),
        )
    }

    fn lane(&self, body: &[u8]) -> Lane {
        match body[0] {
            b'i' | b'p' => Lane::Inline,
            b'd' => Lane::Disk,
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
    address: SocketAddr,
    client: Client,
    trust: Arc<ServerTrust>,
}

fn stage(window: u32, crypto_threads: usize) -> Stage {
    let place = tempfile::tempdir().unwrap();
    let (book, _) = Book::open(&place.path().join("appliance.sqlite")).unwrap();
    let domain = appliance::book::DomainRow { name: "d".into(), wrapped: vec![1], fingerprint: vec![1] };
    book.add_domain(&domain).unwrap();
    let row = appliance::book::PartitionRow { serial: SERIAL, label: "par0".into(), domain: "d".into() };
    book.add_partition(&row).unwrap();
    let registry = Arc::new(Registry::load(Arc::new(book)).unwrap());
    let client = Client::new("client1");
    registry.register("client1", &client.pem).unwrap();
    registry.assign("client1", SERIAL).unwrap();
    let (server, handler) = (Client::new("server"), Arc::new(Scripted::default()));
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&server.identity, registry.clone()).unwrap()));
    let (stop, stopping) = watch::channel(false);
    let shared = Arc::new(Shared {
        registry,
        lookup: Arc::new(One(handler.clone())),
        workers: Workers::new(crypto_threads),
        limits: Limits { window, idle: None, handshake: Duration::from_secs(2) },
        stop: stopping,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Connections::new(10);
    runtime.spawn(listen(listener, acceptor, shared, connections.clone()));
    let trust = Arc::new(ServerTrust::from_pem(server.pem.as_bytes(), "server.pem").unwrap());
    Stage { _place: place, _runtime: runtime, handler, stop, connections, address, client, trust }
}

impl Stage {
    fn link(&self) -> Raw {
        let mut raw = Raw::connect(self.address, &self.client, &self.trust);
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
    lost.send_request(1, SERIAL, 10_000, b"c1000".to_vec());
    lost.send_request(2, SERIAL, 10_000, b"c0".to_vec());
    lost.send_frame(&Frame::Ping(1));
    assert_eq!(lost.receive(), Some(Frame::Pong(1)));
    stage.until_ran(1);
    drop(lost);
    // The end of a link is seen by its own task: before the lane is free again.
    link.send_request(3, SERIAL, 10_000, b"c0".to_vec());
    assert_eq!(reply_tag(link.receive()), 3);
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
    assert_eq!(reply_outcome(link.receive()), Outcome::EXPIRED);
    assert_eq!(stage.handler.ran.load(Ordering::SeqCst), 1);
}

#[test]
fn a_fault_of_ours_fails_one_request_only() {
    let stage = stage(16, 1);
    let mut link = stage.link();
    link.send_request(1, SERIAL, 10_000, b"p0".to_vec());
    assert_eq!(reply_outcome(link.receive()), Outcome::FAILED);
    link.send_request(2, SERIAL, 10_000, b"cx".to_vec());
    assert_eq!(reply_outcome(link.receive()), Outcome::FAILED);
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
