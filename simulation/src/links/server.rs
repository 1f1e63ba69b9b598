//! A simulated server: TLS by rustls and frames over a [`Wire`], without input or output of its own, in front of a
//! [`Service`] that answers, is busy, is slow.
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ntls::frame::{Frame, FrameReader, encode};
use ntls::instance::{is_proved, server_exporter};
use rustls::ServerConnection;
use spec::messages::{Hello, HelloReply, PartitionName, ReplyHeader, RequestHeader, WIRE_VERSION};
use zeroize::Zeroizing;

use super::ledger::Ledger;
use super::papers;
use super::service::{Done, Job, Service, Taken};
use super::wire::{Way, Wire};
use super::{MS, S};
use crate::world::World;

/// Work over this sends progress (HA 4.4).
const PROGRESS: u64 = S;
/// How long a draining connection still answers Busy.
const DRAIN: u64 = 300 * MS;

/// A server and its host.
pub(crate) struct Server {
    pub(crate) number: usize,
    world: Arc<World>,
    ledger: Arc<Ledger>,
    service: Arc<dyn Service>,
    /// The partitions that it offers when nothing is wrong.
    all: Vec<u64>,
    inside: Mutex<Inside>,
}

struct Inside {
    /// Counts the lives of the server: what it answers is of one of them.
    life: u64,
    /// Whether the host answers packets, and whether somebody listens there.
    there: bool,
    listens: bool,
    paused_until: u64,
    offers: Vec<u64>,
    connections: Vec<Arc<Connection>>,
}

/// How connections end with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// The process ends: its connections are ended in order.
    Process,
    /// The process is killed with unread bytes: its connections are reset.
    Killed,
    /// The host is gone without a word.
    Host,
    /// The server goes on, and serves what was connected as the one that it was.
    Twin,
}

impl Server {
    /// A server that offers these partitions.
    pub(crate) fn new(
        world: &Arc<World>,
        ledger: &Arc<Ledger>,
        service: Arc<dyn Service>,
        (number, offers): (usize, Vec<u64>),
    ) -> Arc<Self> {
        let inside = Inside {
            life: 1,
            there: true,
            listens: true,
            paused_until: 0,
            offers: offers.clone(),
            connections: Vec::new(),
        };
        Arc::new(Self {
            number,
            world: world.clone(),
            ledger: ledger.clone(),
            service,
            all: offers,
            inside: Mutex::new(inside),
        })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its host answers packets.
    pub(crate) fn is_there(&self) -> bool {
        self.inside().there
    }

    /// Whether it takes connections.
    pub(crate) fn listens(&self) -> bool {
        self.inside().listens
    }

    /// A connection has come up.
    pub(crate) fn accept(self: &Arc<Self>, wire: &Arc<Wire>) -> Weak<Connection> {
        let mut tls = ServerConnection::new(papers::config()).expect("the configuration is a good one");
        tls.set_buffer_limit(None);
        let talk = Talk {
            tls,
            frames: FrameReader::new(),
            outstanding: BTreeMap::new(),
            room: vec![0; 16 << 10],
            draining: false,
        };
        let mut inside = self.inside();
        let connection = Arc::new(Connection {
            server: Arc::downgrade(self),
            world: self.world.clone(),
            ledger: self.ledger.clone(),
            wire: wire.clone(),
            life: inside.life,
            serves: self.service.life(self.number),
            talk: Mutex::new(Some(talk)),
        });
        inside.connections.retain(|connection| connection.talk().is_some());
        inside.connections.push(connection.clone());
        Arc::downgrade(&connection)
    }

    /// Connections that are open.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        let inside = self.inside();
        inside.connections.iter().filter(|connection| connection.talk().is_some()).cloned().collect()
    }

    /// Does nothing for so long.
    pub(crate) fn pause(&self, nanoseconds: u64) {
        let until = self.world.now() + nanoseconds;
        let mut inside = self.inside();
        inside.paused_until = inside.paused_until.max(until);
    }

    /// The partitions that it offers when nothing is wrong.
    pub(crate) fn all(&self) -> &[u64] {
        &self.all
    }

    /// Offers other partitions from now on, and says so.
    pub(crate) fn offer(&self, offers: Vec<u64>) {
        self.inside().offers = offers;
        for connection in self.connections() {
            connection.say(&Frame::HelloReply(self.greeting()));
        }
    }

    fn greeting(&self) -> HelloReply {
        let offers = self.inside().offers.clone();
        let named = |serial| PartitionName { serial, label: format!("part{serial}") };
        HelloReply {
            version: WIRE_VERSION,
            appliance: format!("hsm{}", self.number),
            client: "application".into(),
            partitions: offers.into_iter().map(named).collect(),
            ..HelloReply::default()
        }
    }

    /// Ends, and begins anew as another one once [`rise`](Self::rise) is called.
    pub(crate) fn die(&self, death: Death) {
        let connections = self.connections();
        {
            let mut inside = self.inside();
            inside.life += 1;
            if death == Death::Twin {
                return;
            }
            inside.listens = false;
            inside.there = death != Death::Host;
        }
        for connection in connections {
            match death {
                Death::Process => connection.wire.finish(),
                Death::Killed => connection.wire.reset(),
                Death::Host | Death::Twin => {}
            }
            connection.end();
        }
    }

    /// Is there, listens and works, from now on.
    pub(crate) fn rise(&self) {
        let mut inside = self.inside();
        (inside.there, inside.listens, inside.paused_until) = (true, true, 0);
    }

    /// Ends what an earlier life of the server still serves.
    pub(crate) fn forget_twins(&self) {
        let life = self.inside().life;
        for connection in self.connections().iter().filter(|connection| connection.life < life) {
            connection.end();
        }
    }
}

/// The server's end of a connection.
pub(crate) struct Connection {
    server: Weak<Server>,
    world: Arc<World>,
    ledger: Arc<Ledger>,
    wire: Arc<Wire>,
    life: u64,
    /// The life of the service's work that it leads to.
    serves: u64,
    talk: Mutex<Option<Talk>>,
}

struct Talk {
    tls: ServerConnection,
    frames: FrameReader,
    /// By tag.
    outstanding: BTreeMap<u64, Running>,
    room: Vec<u8>,
    draining: bool,
}

struct Running {
    /// In the ledger.
    number: u64,
    job: Job,
    cancelled: bool,
}

impl Talk {
    /// The frames that these bytes complete.
    fn receive(&mut self, mut bytes: &[u8]) -> Result<Vec<Frame>, String> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes).map_err(|error| error.to_string())?;
            self.tls.process_new_packets().map_err(|error| error.to_string())?;
            while let Ok(count) = self.tls.reader().read(&mut self.room) {
                let mut plain = &self.room[..count];
                if plain.is_empty() {
                    break;
                }
                while let Some(frame) = self.frames.take(&mut plain).map_err(|error| error.to_string())? {
                    frames.push(frame);
                }
            }
        }
        Ok(frames)
    }

    /// The records for a frame, or what the handshake wants to say.
    fn seal(&mut self, frame: Option<&Frame>) -> Vec<u8> {
        if let Some(frame) = frame {
            self.tls.writer().write_all(&encode(frame)).expect("a buffer without a limit takes everything");
        }
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).expect("a vector takes everything");
        }
        records
    }
}

impl Connection {
    fn talk(&self) -> MutexGuard<'_, Option<Talk>> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn later(self: &Arc<Self>, delay: u64, what: impl FnOnce(&Arc<Connection>) + Send + 'static) {
        let weak = Arc::downgrade(self);
        self.world.after(delay, move || {
            if let Some(connection) = weak.upgrade() {
                what(&connection);
            }
        });
    }

    /// How long the server still does nothing.
    fn paused(&self) -> u64 {
        let until = self.server.upgrade().map_or(0, |server| server.inside().paused_until);
        until.saturating_sub(self.world.now())
    }

    /// The server knows nothing of it any more; what was running there may have come to its end.
    pub(crate) fn end(&self) {
        self.wire.forsake();
        let talk = self.talk().take();
        for running in talk.iter().flat_map(|talk| talk.outstanding.values()) {
            if self.world.chance(|chance| chance.once_in(2)) {
                drop(self.run(running));
            }
        }
    }

    /// Sends one frame.
    pub(crate) fn say(self: &Arc<Self>, frame: &Frame) {
        self.send(Some(frame), None);
    }

    fn send(self: &Arc<Self>, frame: Option<&Frame>, ends: Option<u64>) {
        if let Some(talk) = self.talk().as_mut() {
            let records = talk.seal(frame);
            let end = records.len() as u64;
            let ends: Vec<(u64, u64)> = ends.map(|request| (end, request)).into_iter().collect();
            self.wire.answer(records, &ends);
        }
    }

    /// Takes what has arrived.
    pub(crate) fn look(self: &Arc<Self>) {
        let paused = self.paused();
        if paused > 0 {
            return self.later(paused, |connection| connection.look());
        }
        let (bytes, ended) = self.wire.take();
        let received = match self.talk().as_mut() {
            Some(talk) => talk.receive(&bytes),
            None => return,
        };
        match received {
            Ok(frames) => {
                self.send(None, None);
                frames.into_iter().for_each(|frame| self.take(frame));
            }
            Err(error) => {
                self.world.fail(format!("server {} hears what is no frame: {error}", self.wire.server.number))
            }
        }
        if ended {
            self.wire.finish();
            self.end();
        }
    }

    fn take(self: &Arc<Self>, frame: Frame) {
        match frame {
            Frame::Hello(hello) => self.greet(&hello),
            Frame::Request(header, body) => self.request(header, body),
            Frame::Cancel(tag) => {
                if let Some(talk) = self.talk().as_mut()
                    && let Some(running) = talk.outstanding.get_mut(&tag)
                {
                    running.cancelled = true;
                }
            }
            Frame::Ping(number) => self.say(&Frame::Pong(number)),
            Frame::Pong(_) => {}
            Frame::Close(_) => self.drain(),
            other => self.world.fail(format!("server {} hears {other:?}", self.wire.server.number)),
        }
    }

    fn greet(self: &Arc<Self>, hello: &Hello) {
        let exporter = self.talk().as_ref().and_then(|talk| server_exporter(&talk.tls).ok());
        let proved = exporter.is_some_and(|exporter| is_proved(&hello.instance, &hello.proof, &exporter));
        if !proved {
            self.world.fail("a Hello does not prove its instance".into());
        }
        self.say(&Frame::HelloReply(self.wire.server.greeting()));
    }

    fn request(self: &Arc<Self>, header: RequestHeader, body: Zeroizing<Vec<u8>>) {
        let server = &self.wire.server;
        let tag = header.tag;
        let job = Job { process: self.wire.process, server: server.number, life: self.serves, header, body };
        let Some(draining) = self.talk().as_ref().map(|talk| talk.draining) else { return };
        let (number, nanoseconds) = match server.service.take(&job, draining) {
            Taken::Runs { number, nanoseconds } => (number, nanoseconds),
            Taken::Busy { number, ms } => {
                self.ledger.busy(number);
                return self.send(Some(&Frame::Busy(tag, ms)), Some(number));
            }
            Taken::Breaks => return self.break_off(),
            Taken::Strange => {
                return self.world.fail("the bytes of a request are not those that were submitted".into());
            }
        };
        let running = Running { number, job, cancelled: false };
        let twin = self.talk().as_mut().and_then(|talk| talk.outstanding.insert(tag, running));
        if twin.is_some() {
            self.world.fail(format!("request {number} has the tag of another one that runs"));
        }
        self.later(nanoseconds, move |connection| connection.execute(tag));
        self.later(PROGRESS, move |connection| connection.progress(tag));
    }

    /// The server breaks it.
    fn break_off(self: &Arc<Self>) {
        self.wire.reset();
        self.end();
    }

    /// Executes a request; what came of it.
    fn run(&self, running: &Running) -> Option<Done> {
        let done = self.wire.server.service.execute(running.number, &running.job);
        if done.is_some() {
            self.ledger.executed(running.number);
        }
        done
    }

    fn progress(self: &Arc<Self>, tag: u64) {
        let runs = self
            .talk()
            .as_ref()
            .is_some_and(|talk| talk.outstanding.get(&tag).is_some_and(|running| !running.cancelled));
        if runs {
            self.say(&Frame::Progress(tag));
            self.later(PROGRESS, move |connection| connection.progress(tag));
        }
    }

    fn execute(self: &Arc<Self>, tag: u64) {
        let paused = self.paused();
        if paused > 0 {
            return self.later(paused, move |connection| connection.execute(tag));
        }
        let found = self.talk().as_mut().and_then(|talk| talk.outstanding.remove(&tag));
        let Some(running) = found else { return };
        let number = running.number;
        // What was cancelled may have been running already.
        let runs = !running.cancelled || self.world.chance(|chance| chance.once_in(2));
        if runs {
            self.world.note(number, || format!("request {number} is executed"));
        }
        let done = if runs { self.run(&running) } else { None };
        match done {
            Some(Done { reply: None, .. }) => return self.break_off(),
            Some(Done { reply: Some((header, body)), broken_within }) if !running.cancelled => {
                let header = ReplyHeader { tag, ..header };
                self.reply(&Frame::Reply(header, body), number, broken_within);
            }
            Some(_) | None => {}
        }
        self.leave();
    }

    /// Sends a reply; the connection breaks within it where that is wanted.
    fn reply(self: &Arc<Self>, frame: &Frame, number: u64, broken_within: bool) {
        let Some(records) = self.talk().as_mut().map(|talk| talk.seal(Some(frame))) else { return };
        let end = records.len() as u64;
        if broken_within {
            let bytes = self.world.chance(|chance| chance.between(1, end.max(2) - 1));
            self.wire.light(Way::Down, bytes);
        }
        self.wire.answer(records, &[(end, number)]);
    }

    /// Takes no more requests; ends once what runs has ended.
    pub(crate) fn say_goodbye(self: &Arc<Self>) {
        self.say(&Frame::Close("this server is stopping".into()));
        self.drain();
    }

    fn drain(self: &Arc<Self>) {
        if let Some(talk) = self.talk().as_mut() {
            talk.draining = true;
        }
        self.later(DRAIN, |connection| connection.leave());
    }

    fn leave(self: &Arc<Self>) {
        let mut ends = false;
        if let Some(talk) = self.talk().as_mut().filter(|talk| talk.draining && talk.outstanding.is_empty()) {
            talk.tls.send_close_notify();
            ends = true;
        }
        if ends {
            self.send(None, None);
            self.wire.finish();
            self.end();
        }
    }
}
