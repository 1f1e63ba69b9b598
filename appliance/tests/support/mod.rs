//! What the tests of the appliance share: a server in this process, and a client that can misbehave.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use appliance::appliance::Appliance;
use appliance::config::Config;
use appliance::handler::now_ms;
use appliance::server::Server;
use ntls::certificate::{Identity, Wanted, self_signed};
use ntls::frame::{Frame, FrameReader, encode};
use ntls::instance::{EXPORTER_LABEL, InstanceKey};
use ntls::platform::System;
use ntls::tls::{ServerTrust, client_config};
use prost::Message;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustls::{ClientConnection, StreamOwned};
use spec::messages::{Call, Hello, HelloReply, ReplyBody, RequestBody, RequestHeader, Status, WIRE_VERSION};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

pub const SO_PIN: &[u8] = b"so-pin-1";
pub const CO_PIN: &[u8] = b"co-pin-1";

/// A client's certificate and key, in PEM and ready for use.
pub struct Client {
    pub name: String,
    pub pem: String,
    pub identity: Identity,
}

impl Client {
    pub fn new(name: &str) -> Client {
        Self::at(name, now_ms())
    }

    /// A certificate of ten days from some moment on.
    pub fn at(name: &str, now_ms: u64) -> Client {
        let made = self_signed(&Wanted { name, hosts: &[], now_ms, days: 10 }).unwrap();
        let identity = Identity::from_pem(made.certificate_pem.as_bytes(), made.key_pem.as_bytes()).unwrap();
        Client { name: name.to_owned(), pem: made.certificate_pem, identity }
    }
}

/// A server in this process, with a partition of the label "par0".
pub struct House {
    pub place: TempDir,
    pub appliance: Arc<Appliance>,
    pub serial: u64,
    pub runtime: Runtime,
    pub server: Option<Server>,
    /// What the opening of its folder took.
    pub opening: Duration,
}

pub fn config(place: &TempDir, more: &str) -> Config {
    let text = format!(
        "data_dir = \"data\"\nlisten = [\"127.0.0.1:0\"]\nargon2_memory_kib = 64\nargon2_passes = 1\n\
         stop_seconds = 5\n{more}"
    );
    let text =
        if more.contains("handshake_seconds") { text } else { format!("{text}\nhandshake_seconds = 2") };
    Config::parse(&text, &place.path().join("hsmd.toml")).unwrap()
}

impl House {
    pub fn new(more: &str) -> House {
        let place = tempfile::tempdir().unwrap();
        let (appliance, opening) = open(&place, more);
        appliance.domains.create("default").unwrap();
        let serial = appliance.partitions.create("par0", "default", SO_PIN, CO_PIN).unwrap().serial;
        House { opening, ..Self::serve(place, appliance, serial) }
    }

    pub fn serve(place: TempDir, appliance: Appliance, serial: u64) -> House {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let appliance = Arc::new(appliance);
        let server = runtime.block_on(Server::start(appliance.clone())).unwrap();
        House { place, appliance, serial, runtime, server: Some(server), opening: Duration::ZERO }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.as_ref().unwrap().addresses()[0]
    }

    /// A registered client to whom the partition is assigned.
    pub fn client(&self, name: &str) -> Client {
        let client = Client::new(name);
        self.appliance.registry.register(name, &client.pem).unwrap();
        self.appliance.registry.assign(name, self.serial).unwrap();
        client
    }

    pub fn trust(&self) -> Arc<ServerTrust> {
        let pem = std::fs::read(self.appliance.identity.certificate_path()).unwrap();
        Arc::new(ServerTrust::from_pem(&pem, "server.pem").unwrap())
    }

    pub fn raw(&self, client: &Client) -> Raw {
        Raw::connect(self.address(), client, &self.trust())
    }

    /// A link that has said Hello, from the source address 127.0.0.`source`.
    pub fn link_from(&self, source: u8, client: &Client) -> Raw {
        let stream = connect_from(source, self.address());
        let mut raw = Raw::over(stream, self.address(), client, &self.trust());
        assert_eq!(raw.hello(&InstanceKey::generate()).refusal, "");
        raw
    }

    /// A link that has said Hello.
    pub fn link(&self, client: &Client) -> (Raw, HelloReply) {
        let mut raw = self.raw(client);
        let reply = raw.hello(&InstanceKey::generate());
        assert_eq!(reply.refusal, "");
        (raw, reply)
    }

    /// Waits until the server has so many links and no handshake in progress.
    pub fn settle(&self, connections: usize) {
        for _ in 0..500 {
            let all = &self.appliance.connections;
            if all.count() == connections && all.handshakes() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("wanted {connections} connections, found {}", self.appliance.connections.count());
    }

    /// The same folder served anew, all memory lost; on another port.
    pub fn restart(mut self) -> House {
        self.stop();
        let House { place, appliance, serial, runtime, .. } = self;
        runtime.shutdown_timeout(Duration::from_secs(10));
        drop(Arc::into_inner(appliance).expect("a stopped server has let go of everything"));
        let (appliance, opening) = open(&place, "");
        House { opening, ..Self::serve(place, appliance, serial) }
    }

    pub fn stop(&mut self) {
        self.runtime.block_on(self.server.take().unwrap().stop());
    }
}

/// The appliance of a folder, and what it took to open it.
fn open(place: &TempDir, more: &str) -> (Appliance, Duration) {
    let (config, begun) = (config(place, more), Instant::now());
    (Appliance::open(config).unwrap(), begun.elapsed())
}

/// A connection from the source address 127.0.0.`source`.
pub fn connect_from(source: u8, to: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from(([127, 0, 0, source], 0))).unwrap();
    connect(&socket, &to).unwrap();
    TcpStream::from(socket)
}

/// A client that sends whatever it is told to.
pub struct Raw {
    pub tls: StreamOwned<ClientConnection, TcpStream>,
    reader: FrameReader,
    inbox: VecDeque<Frame>,
}

impl Raw {
    pub fn connect(address: SocketAddr, client: &Client, trust: &Arc<ServerTrust>) -> Raw {
        Self::over(TcpStream::connect(address).unwrap(), address, client, trust)
    }

    /// TLS over a connection that is there.
    pub fn over(stream: TcpStream, address: SocketAddr, client: &Client, trust: &Arc<ServerTrust>) -> Raw {
        let config = client_config(&System::shared(), &client.identity, trust).unwrap();
        let name = rustls_pki_types::ServerName::from(address.ip());
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { tls: StreamOwned::new(connection, stream), reader: FrameReader::new(), inbox: VecDeque::new() }
    }

    /// Sends bytes inside TLS; a server that has closed already is no fault here.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.tls.write_all(bytes);
        let _ = self.tls.flush();
    }

    pub fn send_frame(&mut self, frame: &Frame) {
        self.send(&encode(frame));
    }

    pub fn exporter(&mut self) -> [u8; 32] {
        while self.tls.conn.is_handshaking() {
            self.tls.conn.complete_io(&mut self.tls.sock).unwrap();
        }
        self.tls.conn.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap()
    }

    pub fn hello(&mut self, instance: &InstanceKey) -> HelloReply {
        let proof = instance.prove(&self.exporter());
        self.hello_with(instance.public().to_vec(), proof)
    }

    pub fn hello_with(&mut self, instance: Vec<u8>, proof: Vec<u8>) -> HelloReply {
        self.hello_in(WIRE_VERSION, instance, proof)
    }

    pub fn hello_in(&mut self, version: u32, instance: Vec<u8>, proof: Vec<u8>) -> HelloReply {
        let software = "test\nclient".to_owned();
        self.send_frame(&Frame::Hello(Hello { version, capabilities: 0, instance, proof, software }));
        match self.receive() {
            Some(Frame::HelloReply(reply)) => reply,
            other => panic!("wanted a HelloReply, found {other:?}"),
        }
    }

    /// Receives until so many frames have come, and answers in how many records they did.
    pub fn records_of(&mut self, frames: usize) -> usize {
        let mut records = 0;
        while self.inbox.len() < frames {
            let mut record = vec![0; 5];
            self.tls.sock.read_exact(&mut record).unwrap();
            record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
            self.tls.sock.read_exact(&mut record[5..]).unwrap();
            let mut rest = record.as_slice();
            while !rest.is_empty() {
                self.tls.conn.read_tls(&mut rest).unwrap();
                self.tls.conn.process_new_packets().unwrap();
            }
            records += 1;
            let mut plain = Vec::new();
            // It ends where nothing more has come.
            let _ = self.tls.conn.reader().read_to_end(&mut plain);
            let mut bytes = plain.as_slice();
            while let Some(frame) = self.reader.take(&mut bytes).unwrap() {
                self.inbox.push_back(frame);
            }
        }
        records
    }

    /// The next frame, or `None` when the server has closed the link.
    pub fn receive(&mut self) -> Option<Frame> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.inbox.pop_front() {
                return Some(frame);
            }
            match self.tls.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => {
                    let mut bytes = &buffer[..count];
                    while let Some(frame) = self.reader.take(&mut bytes).unwrap() {
                        self.inbox.push_back(frame);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("the server is silent")
                }
                Err(_) => return None,
            }
        }
    }

    pub fn send_request(&mut self, tag: u64, partition: u64, remaining_ms: u32, body: Vec<u8>) {
        let header = RequestHeader { tag, partition, remaining_ms, ..RequestHeader::default() };
        self.send_frame(&Frame::Request(header, Zeroizing::new(body)));
    }

    /// Sends one request and waits for its reply.
    pub fn ask(&mut self, tag: u64, partition: u64) -> ReplyBody {
        self.send_request(tag, partition, 10_000, status_body());
        match self.receive() {
            Some(Frame::Reply(header, body)) if header.tag == tag => {
                ReplyBody::decode(body.as_slice()).unwrap()
            }
            other => panic!("wanted the reply to {tag}, found {other:?}"),
        }
    }

    /// Reads until the server has closed; what came before is answered.
    pub fn until_closed(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.receive()).collect()
    }
}

pub fn status_body() -> Vec<u8> {
    RequestBody { call: Some(Call::Status(Status::default())), ..RequestBody::default() }.encode_to_vec()
}
