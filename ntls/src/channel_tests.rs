//! What of a request may have left, over the runs of records that carry several.
use rustls::ServerConnection;
use spec::platform::Platform;

use super::*;
use crate::certificate::{Wanted, self_signed};
use crate::platform::System;
use crate::tls::{ClientRegistry, Refusal, RegisteredClient, server_config};

struct Everybody;

impl ClientRegistry for Everybody {
    fn accept(&self, certificate_der: &[u8]) -> Result<RegisteredClient, Refusal> {
        Ok(RegisteredClient { name: "any".into(), id: crate::certificate::fingerprint(certificate_der) })
    }
}

/// A channel after its handshake with a server of the test's, with nothing left to write.
fn shaken() -> (Channel, Outgoing) {
    let made = self_signed(&Wanted {
        name: "both",
        hosts: &["127.0.0.1".into()],
        now_ms: System.wall_ms(),
        days: 2,
    })
    .unwrap();
    let identity = Identity::from_pem(made.certificate_pem.as_bytes(), made.key_pem.as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("CAFile.pem");
    std::fs::write(&file, &made.certificate_pem).unwrap();
    let trust = Arc::new(ServerTrust::load(&file).unwrap());
    let address = ServerAddress { host: "127.0.0.1".into(), port: 1 };
    let platform: Arc<dyn Platform> = System::shared();
    let mut channel = Channel::new(&platform, &address, &identity, &trust).unwrap();
    let config = server_config(&identity, Arc::new(Everybody)).unwrap();
    let mut server = ServerConnection::new(Arc::new(config)).unwrap();
    let mut outgoing = Outgoing::default();
    while channel.is_handshaking() || server.is_handshaking() {
        channel.take(&mut outgoing);
        let mut bytes = outgoing.bytes.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets().unwrap();
        }
        outgoing.written = outgoing.bytes.len();
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer).unwrap();
        }
        channel.received(&answer).unwrap();
    }
    channel.take(&mut outgoing);
    outgoing.written = outgoing.bytes.len();
    (channel, outgoing)
}

#[test]
fn ha_4_1_a_request_that_left_as_a_whole_is_never_not_sent() {
    let (mut channel, mut outgoing) = shaken();
    let first = channel.queue(&[b"first"]);
    channel.take(&mut outgoing);
    outgoing.written = outgoing.bytes.len();
    let second = channel.queue(&[b"second"]);
    // The second run is in the hands of the writer, and the socket takes none of it.
    channel.take(&mut outgoing);
    assert!(outgoing.left() > 0);
    assert!(channel.has_left(first, outgoing.start()), "the first run is gone");
    assert!(!channel.has_left(second, outgoing.start()), "of the second no byte is");
    outgoing.written = 1;
    assert!(channel.has_left(second, outgoing.start()), "one byte may be enough");
}

#[test]
fn records_of_a_long_request_take_memory_once_and_an_idle_link_gives_it_back() {
    let (mut channel, mut outgoing) = shaken();
    let body = vec![7; 1 << 20];
    let mut memory = Vec::new();
    for _ in 0..6 {
        channel.queue(&[&[1; 61], &body]);
        channel.take(&mut outgoing);
        assert!(outgoing.left() > body.len());
        memory.push((outgoing.bytes.as_ptr(), outgoing.bytes.capacity()));
        outgoing.written = outgoing.bytes.len();
    }
    let most = sealed_bytes_max(61 + body.len());
    assert!(memory.iter().all(|(_, room)| *room <= most), "nothing grows by doubling");
    let turns: Vec<_> = memory.chunks(2).collect();
    assert!(turns.windows(2).all(|pair| pair.first() == pair.last()), "two buffers in turn");
    channel.shrink(&mut outgoing);
    assert!(channel.cipher.capacity() + outgoing.bytes.capacity() <= 2 * READ_BYTES);
    channel.queue(&[b"short"]);
    channel.take(&mut outgoing);
    assert!(outgoing.left() > 0);
}

#[test]
fn memory_of_a_long_request_does_not_stay_under_short_ones() {
    let (mut channel, mut outgoing) = shaken();
    channel.queue(&[&vec![7; 1 << 20]]);
    for _ in 0..3 {
        channel.take(&mut outgoing);
        outgoing.written = outgoing.bytes.len();
        channel.queue(&[b"short"]);
    }
    assert!(channel.cipher.capacity() + outgoing.bytes.capacity() <= 2 * READ_BYTES);
}

#[test]
fn what_is_queued_only_has_not_left() {
    let (mut channel, outgoing) = shaken();
    let queued = channel.queue(&[b"queued"]);
    assert!(!channel.has_left(queued, outgoing.start()));
}
