//! Links over real TLS: who is let in, what is refused, what no client can break.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use appliance::appliance::Appliance;
use appliance::book::{ClientRow, Kept};
use appliance::handler::now_ms;
use ntls::ServerAddress;
use ntls::certificate::fingerprint;
use ntls::exchange::{ExchangeError, Session, Target};
use ntls::frame::{FRAME_BYTES_MAX, Frame, encode};
use ntls::instance::InstanceKey;
use spec::messages::{Answer, Call, Outcome, Status, WIRE_VERSION};
use support::{Client, House, config, connect_from, status_body};

fn open(house: &House, client: &Client) -> Result<Session, ExchangeError> {
    let server = ServerAddress { host: "127.0.0.1".into(), port: house.address().port() };
    let (trust, instance) = (house.trust(), InstanceKey::generate());
    let target = Target {
        server,
        identity: &client.identity,
        trust: &trust,
        instance: &instance,
        software: "test",
        timeout_ms: 10_000,
    };
    Session::open(&target)
}

fn refusal(house: &House, client: &Client) -> String {
    open(house, client).err().expect("the link is refused").to_string()
}

#[test]
fn an_assigned_client_reaches_its_partition() {
    let house = House::new("");
    let client = house.client("client1");
    let mut session = open(&house, &client).unwrap();
    let hello = session.hello().clone();
    assert_eq!((hello.client.as_str(), hello.partitions.len()), ("client1", 1));
    assert_eq!((hello.partitions[0].serial, hello.partitions[0].label.as_str()), (house.serial, "par0"));
    assert_eq!(session.negotiated_group().unwrap(), "X25519MLKEM768");
    let reply = session.call(house.serial, Call::Status(Status::default()), &[]).unwrap();
    match reply.answer {
        Some(Answer::Status(status)) => {
            assert_eq!((status.serial, status.label.as_str()), (house.serial, "par0"))
        }
        _ => panic!("wanted a Status answer, found outcome {}", reply.outcome),
    }
    assert_eq!(session.last_header().window, 256);
}

#[test]
fn unregistered_and_same_name_certificates_are_refused() {
    let house = House::new("");
    let client = house.client("client1");
    let stranger = Client::new("stranger");
    let impostor = Client::new("client1");
    for other in [&stranger, &impostor] {
        let error = refusal(&house, other);
        assert!(error.contains("hsm client register"), "{error}");
    }
    open(&house, &client).unwrap();
}

#[test]
fn an_expired_registered_certificate_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let appliance = Appliance::open(config(&place, "")).unwrap();
    let client = Client::at("client1", now_ms() - 20 * 86_400_000);
    let der = client.identity.certificate().der();
    // It was valid when it was registered.
    let row = ClientRow {
        name: "client1".into(),
        identity: fingerprint(der),
        certificates: vec![Kept::new(der)],
        authorities: vec![],
        partitions: vec![],
    };
    appliance.book.add_client(&row).unwrap();
    drop(appliance);
    let appliance = Appliance::open(config(&place, "")).unwrap();
    let error = refusal(&House::serve(place, appliance, 0), &client);
    assert!(error.contains("vtl createCert"), "{error}");
}

#[test]
fn a_partition_that_is_not_assigned_is_refused_until_it_is() {
    let house = House::new("");
    let client = Client::new("client1");
    house.appliance.registry.register("client1", &client.pem).unwrap();
    let (mut link, hello) = house.link(&client);
    assert_eq!(hello.partitions, []);
    for serial in [house.serial, 0, 1, u64::MAX] {
        let reply = link.ask(serial ^ 5, serial);
        assert_eq!(reply.outcome, Outcome::NO_PARTITION.0);
        assert!(reply.text.contains("assignPartition"), "{}", reply.text);
    }
    house.appliance.registry.assign("client1", house.serial).unwrap();
    match link.receive() {
        Some(Frame::HelloReply(reply)) => assert_eq!(reply.partitions[0].serial, house.serial),
        other => panic!("wanted the new offer, found {other:?}"),
    }
    assert_eq!(link.ask(2, house.serial).outcome, Outcome::OK.0);
}

#[test]
fn a_hello_without_the_proof_of_this_connection_is_refused() {
    let house = House::new("");
    let client = house.client("client1");
    let instance = InstanceKey::generate();
    let mut other = house.raw(&client);
    let replayed = instance.prove(&other.exporter());
    let proofs = [vec![], vec![0; 64], replayed];
    for proof in proofs {
        let mut link = house.raw(&client);
        link.exporter();
        let reply = link.hello_with(instance.public().to_vec(), proof);
        assert!(reply.refusal.contains("proof") && reply.partitions.is_empty(), "{}", reply.refusal);
        assert!(link.until_closed().is_empty());
    }
    let mut link = house.raw(&client);
    let proof = instance.prove(&link.exporter());
    let reply = link.hello_with(InstanceKey::generate().public().to_vec(), proof);
    assert!(!reply.refusal.is_empty(), "the proof of another instance");
}

#[test]
fn requests_before_the_hello_are_not_answered() {
    let house = House::new("");
    let client = house.client("client1");
    let mut link = house.raw(&client);
    link.send_request(1, house.serial, 10_000, status_body());
    assert!(link.until_closed().is_empty());
}

#[test]
fn broken_frames_close_their_link_and_harm_no_other() {
    let house = House::new("");
    let client = house.client("client1");
    let (mut good, _) = house.link(&client);
    let oversized = (FRAME_BYTES_MAX as u32 + 1).to_be_bytes();
    let mut flipped = encode(&Frame::Ping(1)).to_vec();
    flipped[4] ^= 0x40;
    let broken: [&[u8]; 9] = [
        &oversized,
        &[0xff; 5],
        &[0, 0, 0, 0, 3],
        &[0, 0, 0, 1, 0],
        &[0, 0, 0, 1, 11],
        &[0, 0, 0, 2, 8, 1],
        &flipped,
        &encode(&Frame::Pong(1))[..12].iter().map(|b| b ^ 0xff).collect::<Vec<_>>(),
        &encode(&Frame::Busy(1, 1)),
    ];
    for (case, bytes) in broken.iter().enumerate() {
        let (mut link, _) = house.link(&client);
        link.send(bytes);
        // A length that is oversized shows with the byte behind it.
        link.send(&[3]);
        let last = link.until_closed();
        assert!(matches!(last.as_slice(), [] | [Frame::Close(_)]), "case {case}: {last:?}");
        assert_eq!(good.ask(case as u64 + 1, house.serial).outcome, Outcome::OK.0);
    }
    house.settle(1);
}

#[test]
fn a_frame_that_never_ends_is_given_up_and_a_cut_one_too() {
    let house = House::new("");
    let client = house.client("client1");
    let (mut link, _) = house.link(&client);
    let whole = encode(&Frame::Ping(7));
    link.send(&whole[..9]);
    let start = Instant::now();
    assert!(link.until_closed().is_empty());
    assert!(start.elapsed() >= Duration::from_secs(1), "it was waited for");
    let (mut link, _) = house.link(&client);
    link.send(&whole[..9]);
    drop(link);
    house.settle(0);
}

#[test]
fn a_tag_in_use_hostile_bodies_and_a_second_hello_are_no_harm() {
    let house = House::new("");
    let client = house.client("client1");
    let (mut link, _) = house.link(&client);
    let bodies = [vec![], vec![0xff; 100], vec![0x52; 70_000], status_body()[..1].to_vec()];
    for (tag, body) in bodies.into_iter().enumerate() {
        link.send_request(tag as u64, house.serial, 10_000, body);
        assert!(matches!(link.receive(), Some(Frame::Reply(header, _)) if header.tag == tag as u64));
    }
    let instance = InstanceKey::generate();
    let hello =
        spec::messages::Hello { version: 1, instance: instance.public().to_vec(), ..Default::default() };
    link.send_frame(&Frame::Hello(hello));
    assert!(matches!(link.until_closed().as_slice(), [Frame::Close(_)]));
}

#[test]
fn a_port_scan_and_a_silent_peer_are_put_out() {
    let house = House::new("");
    let mut scan = TcpStream::connect(house.address()).unwrap();
    scan.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = scan.read_to_end(&mut rest);
    let silent = TcpStream::connect(house.address()).unwrap();
    let client = house.client("client1");
    let mut no_hello = house.raw(&client);
    no_hello.exporter();
    let start = Instant::now();
    assert!(no_hello.until_closed().is_empty());
    house.settle(0);
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(silent);
}

#[test]
fn pings_are_answered_and_garbage_on_the_socket_ends_the_link_alone() {
    let house = House::new("");
    let client = house.client("client1");
    let (mut link, _) = house.link(&client);
    for number in [0, 1, u64::MAX] {
        link.send_frame(&Frame::Ping(number));
        assert_eq!(link.receive(), Some(Frame::Pong(number)));
    }
    link.tls.sock.write_all(&[0x17, 3, 3, 0, 40]).unwrap();
    link.tls.sock.write_all(&[9; 40]).unwrap();
    assert!(link.until_closed().is_empty());
    let (mut link, _) = house.link(&client);
    assert_eq!(link.ask(1, house.serial).outcome, Outcome::OK.0);
}

#[test]
fn two_hundred_links_work_at_once() {
    let house = House::new("");
    let clients: Vec<Client> = (0..8).map(|number| house.client(&format!("client{number}"))).collect();
    let (house, clients) = (&house, &clients);
    let mut links: Vec<_> = std::thread::scope(|scope| {
        // From four addresses: one may have 64 handshakes in progress.
        let openers: Vec<_> = (0..200_usize)
            .map(|number| {
                let source = (number % 4) as u8 + 1;
                scope.spawn(move || house.link_from(source, &clients[number % clients.len()]))
            })
            .collect();
        openers.into_iter().map(|opener| opener.join().unwrap()).collect()
    });
    assert_eq!(house.appliance.connections.count(), 200);
    for round in 0..3 {
        for link in &mut links {
            link.send_request(round, house.serial, 60_000, status_body());
        }
        for link in &mut links {
            assert!(matches!(link.receive(), Some(Frame::Reply(header, _)) if header.tag == round));
        }
    }
    drop(links);
    house.settle(0);
}

#[test]
fn more_links_than_allowed_are_refused_and_come_in_later() {
    let house = House::new("links_max = 4");
    let client = house.client("client1");
    let (first, _) = house.link(&client);
    let (_second, _) = house.link(&client);
    assert!(open(&house, &client).is_err(), "it has as many as it leaves free");
    drop(first);
    house.settle(1);
    open(&house, &client).unwrap();
}

#[test]
fn an_idle_link_is_closed_when_so_configured() {
    let house = House::new("idle_seconds = 2");
    let client = house.client("client1");
    let (mut link, _) = house.link(&client);
    std::thread::sleep(Duration::from_millis(1_000));
    assert_eq!(link.ask(1, house.serial).outcome, Outcome::OK.0);
    let start = Instant::now();
    assert!(link.until_closed().is_empty());
    assert!(start.elapsed() > Duration::from_millis(1_500));
}

#[test]
fn a_stop_closes_links_in_order_and_frees_everything() {
    let mut house = House::new("");
    let client = house.client("client1");
    let (mut link, _) = house.link(&client);
    assert_eq!(link.ask(1, house.serial).outcome, Outcome::OK.0);
    house.stop();
    assert!(matches!(link.until_closed().as_slice(), [Frame::Close(reason)] if reason.contains("stopping")));
    assert!(!house.appliance.config.admin_socket.exists());
    assert!(TcpStream::connect(house.appliance.listening.read()[0]).is_err());
}

#[test]
fn silent_connections_keep_no_client_out() {
    let house = House::new("links_max = 4\nhandshakes_max = 100\nhandshake_seconds = 600");
    let client = house.client("client1");
    let silent: Vec<_> = (0..300).map(|_| connect_from(1, house.address())).collect();
    let (mut first, mut second) = (house.link_from(2, &client), house.link_from(2, &client));
    for link in [&mut first, &mut second] {
        assert_eq!(link.ask(1, house.serial).outcome, Outcome::OK.0);
    }
    let connections = &house.appliance.connections;
    assert_eq!((connections.count(), connections.handshakes()), (2, 64), "and no more than 64 of an address");
    let others: Vec<_> = (0..100).map(|_| connect_from(3, house.address())).collect();
    let ended = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        connections.handshakes() == 100
    });
    assert!(ended, "handshakes_max, found {}", connections.handshakes());
    drop((silent, others));
    house.settle(2);
}

#[test]
fn a_link_too_many_hears_why_and_whose_bound_it_met() {
    let house = House::new("links_max = 3\nlinks_per_client_max = 1");
    let clients = ["client1", "client2", "client3", "client4"].map(|name| house.client(name));
    let (_first, _) = house.link(&clients[0]);
    let error = refusal(&house, &clients[0]);
    assert!(error.contains("this client has 1 links") && error.contains("links_per_client_max"), "{error}");
    // However often the first one tries, the others come in.
    let (_second, _) = house.link(&clients[1]);
    let (_third, _) = house.link(&clients[2]);
    let error = refusal(&house, &clients[3]);
    assert!(error.contains("the appliance has 3 links") && error.contains("links_max"), "{error}");
    house.settle(3);
}

#[test]
fn a_newer_client_is_answered_in_our_version_and_version_0_is_refused() {
    let house = House::new("");
    let client = house.client("client1");
    for (version, wanted) in [(WIRE_VERSION + 9, WIRE_VERSION), (WIRE_VERSION, WIRE_VERSION), (0, 0)] {
        let instance = InstanceKey::generate();
        let mut link = house.raw(&client);
        let proof = instance.prove(&link.exporter());
        let reply = link.hello_in(version, instance.public().to_vec(), proof);
        if wanted == 0 {
            assert!(reply.refusal.contains("version"), "{}", reply.refusal);
        } else {
            assert_eq!((reply.version, reply.refusal.as_str()), (wanted, ""));
        }
    }
}
