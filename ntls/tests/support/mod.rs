//! A small appliance for tests: threads, rustls, and a closure that says what happens to each request.
#![allow(dead_code, unreachable_pub, reason = "each test binary is a crate and uses its part")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ntls::certificate::{Certificate, Identity, Wanted, self_signed};
use ntls::exchange::Target;
use ntls::frame::{Frame, FrameReader, encode};
use ntls::instance::{InstanceKey, is_proved, server_exporter};
use ntls::links::{LinkSettings, Links, ServerAddress};
use ntls::platform::System;
use ntls::tls::server_config;
use ntls::{ClientRegistry, Refusal, RegisteredClient};
use rustls::{ServerConnection, StreamOwned};
use spec::messages::{HelloReply, PartitionName, ReplyHeader, RequestHeader, WIRE_VERSION};
use spec::platform::{Moment, Platform};
use spec::seam::{Event, MemberId, Outgoing, Seam as _, Standing, Waiter};
use tempfile::TempDir;
use zeroize::Zeroizing;

/// The serial number of the partition that every test server offers.
pub const SERIAL: u64 = 1_234_567;
pub const MEMBER: MemberId = MemberId(SERIAL);
pub const YEAR_MS: u64 = 365 * 86_400_000;

/// A certificate and its key in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Pair {
    /// Self-signed, from now on.
    pub fn new(name: &str) -> Self {
        Self::at(name, System.wall_ms(), 10)
    }

    /// Self-signed, as if made at another time.
    pub fn at(name: &str, now_ms: u64, days: u32) -> Self {
        let created = self_signed(&Wanted { name, hosts: &["127.0.0.1".into()], now_ms, days }).unwrap();
        Self { certificate: created.certificate_pem, key: created.key_pem.to_string() }
    }

    pub fn identity(&self) -> Identity {
        Identity::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }

    pub fn der(&self) -> Vec<u8> {
        Certificate::all_from_pem(self.certificate.as_bytes(), "test").unwrap()[0].der().to_vec()
    }
}

/// Knows exactly these certificates.
pub struct Registry(pub Vec<Vec<u8>>);

impl ClientRegistry for Registry {
    fn accept(&self, certificate_der: &[u8]) -> Result<RegisteredClient, Refusal> {
        match self.0.iter().any(|known| known == certificate_der) {
            true => Ok(RegisteredClient {
                name: "test".into(),
                id: ntls::certificate::fingerprint(certificate_der),
            }),
            false => Err(Refusal::NotRegistered),
        }
    }
}

/// What a server does with a request.
pub enum Act {
    Send(Frame),
    /// Answers with these bytes.
    Reply(Vec<u8>),
    Sleep(u64),
    /// Drops the connection.
    Drop,
    /// Ends the TLS stream, sends a byte behind it and keeps the connection open.
    Behind,
}

pub type Behaviour = Arc<dyn Fn(&RequestHeader, &[u8]) -> Vec<Act> + Send + Sync>;

/// Answers every request with its own body.
pub fn echo() -> Behaviour {
    Arc::new(|_, body| vec![Act::Reply(body.to_vec())])
}

pub struct Server {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Every frame but requests.
    pub others: Mutex<Receiver<Frame>>,
    pub refusal: String,
}

/// How a server is made.
#[derive(Clone)]
pub struct Plan {
    pub pair: Pair,
    pub known: Vec<Vec<u8>>,
    pub behaviour: Behaviour,
    pub refusal: String,
    pub at: Option<SocketAddr>,
    /// Sent behind the HelloReply.
    pub greeting: Vec<Frame>,
}

impl Server {
    pub fn start(plan: Plan) -> Self {
        let listener = bind(plan.at);
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, others) = channel();
        let refusal = plan.refusal.clone();
        let thread_stop = stop.clone();
        let thread = thread::spawn(move || {
            let config = Arc::new(
                server_config(&plan.pair.identity(), Arc::new(Registry(plan.known.clone()))).unwrap(),
            );
            let mut served = Vec::new();
            while !thread_stop.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((socket, _)) => {
                        let (config, plan) = (config.clone(), plan.clone());
                        let (stop, tell) = (thread_stop.clone(), tell.clone());
                        served.push(thread::spawn(move || {
                            let _ = serve(socket, config, &plan, &stop, &tell);
                        }));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
            for thread in served {
                thread.join().unwrap();
            }
        });
        Self { address, stop, thread: Some(thread), others: Mutex::new(others), refusal }
    }

    pub fn name(&self) -> ServerAddress {
        ServerAddress { host: self.address.ip().to_string(), port: self.address.port() }
    }

    /// Ends every connection and the listener.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub fn next_other(&self) -> Option<Frame> {
        self.others.lock().unwrap().recv_timeout(Duration::from_secs(5)).ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that was just in use may need a moment.
fn bind(at: Option<SocketAddr>) -> TcpListener {
    let at = at.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
    for _ in 0..200 {
        match TcpListener::bind(at) {
            Ok(listener) => return listener,
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
    panic!("{at} cannot be bound");
}

fn serve(
    socket: TcpStream,
    config: Arc<rustls::ServerConfig>,
    plan: &Plan,
    stop: &AtomicBool,
    tell: &Sender<Frame>,
) -> std::io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    let mut frames = FrameReader::new();
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Acquire) {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error),
        };
        let mut input = &buffer[..count];
        while let Some(frame) = frames.take(&mut input).map_err(std::io::Error::other)? {
            match frame {
                Frame::Hello(hello) => {
                    let exporter = server_exporter(&stream.conn).unwrap();
                    assert!(is_proved(&hello.instance, &hello.proof, &exporter));
                    stream.write_all(&encode(&Frame::HelloReply(offer(plan))))?;
                    for frame in &plan.greeting {
                        stream.write_all(&encode(frame))?;
                    }
                }
                Frame::Request(header, body) => {
                    for act in (plan.behaviour)(&header, &body) {
                        match act {
                            Act::Send(frame) => stream.write_all(&encode(&frame))?,
                            Act::Reply(bytes) => {
                                let header =
                                    ReplyHeader { tag: header.tag, seq: 7, ..ReplyHeader::default() };
                                stream.write_all(&encode(&Frame::Reply(header, Zeroizing::new(bytes))))?;
                            }
                            Act::Sleep(ms) => thread::sleep(Duration::from_millis(ms)),
                            Act::Drop => return Ok(()),
                            Act::Behind => {
                                stream.conn.send_close_notify();
                                stream.flush()?;
                                stream.sock.write_all(&[0])?;
                            }
                        }
                    }
                }
                other => {
                    let _ = tell.send(other);
                }
            }
        }
    }
    Ok(())
}

fn offer(plan: &Plan) -> HelloReply {
    HelloReply {
        version: WIRE_VERSION,
        appliance: "hsm1".into(),
        client: "test".into(),
        partitions: vec![PartitionName { serial: SERIAL, label: "part".into() }],
        refusal: plan.refusal.clone(),
        ..HelloReply::default()
    }
}

/// A client's files, and the pairs of both sides.
pub struct World {
    pub folder: TempDir,
    pub client: Pair,
    pub server: Pair,
}

impl World {
    pub fn new() -> Self {
        Self::with(Pair::new("client"), Pair::new("server"))
    }

    pub fn with(client: Pair, server: Pair) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("client.pem"), &client.certificate).unwrap();
        std::fs::write(folder.path().join("clientKey.pem"), &client.key).unwrap();
        std::fs::write(folder.path().join("CAFile.pem"), &server.certificate).unwrap();
        Self { folder, client, server }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A server that knows the client.
    pub fn plan(&self, behaviour: Behaviour) -> Plan {
        Plan {
            pair: self.server.clone(),
            known: vec![self.client.der()],
            behaviour,
            refusal: String::new(),
            at: None,
            greeting: Vec::new(),
        }
    }

    pub fn settings(&self, servers: Vec<ServerAddress>) -> LinkSettings {
        LinkSettings {
            may_spawn: true,
            servers,
            certificate_file: self.path("client.pem"),
            key_file: self.path("clientKey.pem"),
            server_ca_file: self.path("CAFile.pem"),
            links_per_member: 1,
            receive_timeout_ms: 20_000,
            tcp_keep_alive: true,
            software: "ntls tests".into(),
            instance: Arc::new(InstanceKey::generate()),
        }
    }

    pub fn links(&self, servers: Vec<ServerAddress>) -> Tended {
        let links = Tended::new(self.settings(servers));
        links.settle(within(10_000));
        links
    }

    /// Why a link to this server stays down.
    pub fn why_down(&self, server: ServerAddress) -> String {
        let links = self.links(vec![server]);
        match links.servers().remove(0).1 {
            Standing::Down { reason } => reason,
            Standing::Up { .. } => panic!("the link is up"),
        }
    }
}

/// Links with an attendant, as the client's tender is one; closed when dropped.
pub struct Tended {
    links: Arc<Links>,
    thread: Option<JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
}

impl Tended {
    pub fn new(settings: LinkSettings) -> Self {
        Self::over(System::shared(), settings)
    }

    pub fn over(platform: Arc<dyn Platform>, settings: LinkSettings) -> Self {
        let links = Links::new(platform, settings);
        let (stopped, waiter) = (Arc::new(AtomicBool::new(false)), waiter());
        links.subscribe(&waiter);
        let (work, stop) = (links.clone(), stopped.clone());
        let thread = thread::spawn(move || {
            let _attendance = work.attend();
            while !stop.load(Ordering::Acquire) {
                work.wait(&waiter, within(60_000));
            }
        });
        Self { links, thread: Some(thread), stopped }
    }
}

impl std::ops::Deref for Tended {
    type Target = Arc<Links>;

    fn deref(&self) -> &Arc<Links> {
        &self.links
    }
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.links.close();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

pub fn target<'a>(
    server: ServerAddress,
    identity: &'a Identity,
    trust: &'a Arc<ntls::tls::ServerTrust>,
    instance: &'a InstanceKey,
) -> Target<'a> {
    Target { server, identity, trust, instance, software: "ntls tests", timeout_ms: 5_000 }
}

pub fn within(ms: u64) -> Moment {
    System.now().after_ms(ms)
}

pub fn waiter() -> Arc<Waiter> {
    Waiter::new(&System::shared())
}

pub fn request(body: Vec<u8>) -> Outgoing {
    Outgoing { header: RequestHeader::default(), body: Arc::new(Zeroizing::new(body)) }
}

/// The next event that is not `Woken`.
pub fn next(links: &Links, waiter: &Arc<Waiter>, ms: u64) -> Event {
    let until = within(ms);
    loop {
        match links.wait(waiter, until) {
            Event::Woken => {}
            event => return event,
        }
    }
}

/// Waits until the member is up.
pub fn until_up(links: &Links) {
    let waiter = waiter();
    links.subscribe(&waiter);
    let until = within(20_000);
    while !matches!(links.standing(MEMBER), Standing::Up { .. }) {
        assert!(!matches!(links.wait(&waiter, until), Event::Deadline), "{:?}", links.standing(MEMBER));
    }
}
