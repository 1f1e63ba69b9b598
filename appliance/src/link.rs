//! One link: a client's TLS connection from its handshake to its end.
//!
//! ```text
//! Greeting --proved Hello--> Serving --stop--> Draining --nothing outstanding--> closed
//!     |                         |   what comes meanwhile is answered Busy
//!     +--refused: HelloReply    +--broken frame, silence, end of stream: closed, its work is dropped
//! ```
//! Short work runs here; the rest on lanes that send what is finished back. Everything that is ready is written at
//! once. Bodies that wait and replies that are not yet sent are counted in bytes ([`Memory`]): what does not fit is
//! answered Busy and is not executed (HA 4.5).
use std::collections::HashMap;
use std::future::pending;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ntls::frame::{Frame, FrameReader, encode, reply_head};
use partition::LinkFacts;
use spec::messages::{Outcome, ReplyHeader, RequestHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use zeroize::{Zeroize, Zeroizing};

use crate::greeting::{self, Greeted};
use crate::handler::{Asker, Handler, Lane, Trace, Work, now_ms, outcome, take_turn};
use crate::listener::{Acceptor, Connections};
use crate::log;
use crate::memory::{Held, Memory};
use crate::outbox::Outbox;
use crate::registry::{Entrant, Registry};
use crate::sightings::Sightings;
use crate::workers::{Go, Owner, Workers};

/// Bytes read from TLS at once: one record.
const READ_BYTES: usize = 16 << 10;
/// A peer that takes nothing for so long is gone.
const WRITE_SECONDS: u64 = 30;
/// Work over this sends progress (HA 4.4).
const PROGRESS: Duration = Duration::from_secs(1);
/// How often outstanding work is looked at for progress.
const TICK: Duration = Duration::from_millis(200);
/// How long a draining link still answers Busy before it closes.
const DRAIN: Duration = Duration::from_millis(300);
/// With so many bytes of replies unwritten, what comes is answered Busy.
const UNWRITTEN_BYTES_MAX: usize = 4 << 20;
/// So much of a frame comes in whatever is held; the rest of a longer one waits for room.
const FRAME_BYTES_FREE: usize = 64 << 10;
/// How often a link whose frame has no room looks for some.
const STARVED: Duration = Duration::from_millis(20);
/// How long a client is asked to wait that has filled its window or its memory, in milliseconds.
const BUSY_MS: u32 = 20;
/// The least window that a link is granted, however many links there are.
const WINDOW_MIN: u32 = 4;

/// Finds what serves a partition.
pub trait Lookup: Send + Sync {
    /// The partition's handler, if it is here and open.
    fn handler(&self, serial: u64) -> Option<Arc<dyn Handler>>;
    /// The label under which links show it.
    fn label(&self, serial: u64) -> Option<String>;
    /// The appliance's label.
    fn appliance(&self) -> String;
}

/// The bounds of a link.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most requests outstanding.
    pub window: u32,
    /// Most bytes of bodies that wait and replies that are not yet sent.
    pub link_bytes: usize,
    /// Silence after which it is closed; `None` for never.
    pub idle: Option<Duration>,
    /// For handshake and Hello, and for the rest of a frame that has begun.
    pub handshake: Duration,
}

/// What all links share.
pub struct Shared {
    /// The clients.
    pub registry: Arc<Registry>,
    /// The partitions.
    pub lookup: Arc<dyn Lookup>,
    /// The TLS of new connections.
    pub acceptor: Arc<Acceptor>,
    /// Where peers' members were last seen (HA 1.5).
    pub seen: Arc<Sightings>,
    /// The lanes.
    pub workers: Workers,
    /// The bounds.
    pub limits: Limits,
    /// The links and handshakes there are.
    pub connections: Connections,
    /// What all links together may hold.
    pub memory: Arc<Memory>,
    /// Turns true when the server stops.
    pub stop: watch::Receiver<bool>,
}

impl Shared {
    /// The window that a link is granted now (HA 4.5): its part of what the lanes take.
    fn window(&self) -> u32 {
        let part = self.workers.capacity() / self.connections.count().max(1);
        u32::try_from(part).unwrap_or(u32::MAX).max(WINDOW_MIN).min(self.limits.window)
    }
}

/// How a turn on a lane ended.
enum Turn {
    /// It ran.
    Reply(ReplyHeader, Zeroizing<Vec<u8>>),
    /// It was cancelled before its turn.
    Cancelled,
    /// Too much was held when its turn came; it did not run.
    Busy,
}

/// What a lane sends back, with the bytes that it holds.
struct Finished {
    tag: u64,
    turn: Turn,
    _held: Held,
}

/// A request that runs or waits on a lane.
struct Outstanding {
    told: Instant,
    cancelled: Arc<AtomicBool>,
}

/// A served link.
struct Link {
    shared: Arc<Shared>,
    client: Entrant,
    name: Arc<str>,
    instance: [u8; 32],
    owner: Owner,
    version: u32,
    outstanding: HashMap<u64, Outstanding>,
    sender: mpsc::UnboundedSender<Finished>,
    out: Outbox,
    memory: Arc<Memory>,
    /// Bytes that have come of a frame that is not whole.
    unfinished: usize,
    /// Those above what every link may have, for the process alone.
    partial: Held,
    /// When progress is looked at next.
    look: Instant,
    draining: Option<Instant>,
    peer_closed: bool,
}

/// Serves a link that has been greeted until its end; the answer says why it ended, for the log.
///
/// # Errors
/// When it ended otherwise than by the peer's or our own orderly close.
pub(crate) async fn serve(
    mut stream: TlsStream<TcpStream>,
    shared: Arc<Shared>,
    greeted: Greeted,
) -> Result<(), String> {
    let Greeted { client, instance, version, software, reader, rest, counted } = greeted;
    if log::allow(&client.name, ("links", 1)) {
        tracing::info!(client = client.name, peer = client.replicator, software, version, "a link is up");
    }
    let (sender, finished) = mpsc::unbounded_channel();
    let share = shared.memory.share(client.identity);
    let memory = share.part(shared.limits.link_bytes);
    let partial = share.hold(0);
    let owner = Owner { client: client.identity, link: next_number() };
    let link = Link {
        shared,
        unfinished: 0,
        partial,
        name: client.name.as_str().into(),
        client,
        instance,
        owner,
        version,
        outstanding: HashMap::new(),
        sender,
        out: Outbox::new(&memory),
        memory,
        look: Instant::now(),
        draining: None,
        peer_closed: false,
    };
    let end = link.run(&mut stream, reader, rest, finished).await;
    // Best effort: the peer may be gone.
    let _ = timeout(Duration::from_secs(1), stream.shutdown()).await;
    drop(counted);
    end
}

/// Links are numbered from the start of the process.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Nobody waits any longer for what a lost link asked for.
impl Drop for Link {
    fn drop(&mut self) {
        for work in self.outstanding.values() {
            work.cancelled.store(true, Ordering::Relaxed);
        }
    }
}

/// Returns when the server stops.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A server that is gone without a word has stopped too.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Link {
    async fn run(
        mut self,
        stream: &mut TlsStream<TcpStream>,
        mut reader: FrameReader,
        rest: Zeroizing<Vec<u8>>,
        mut finished: mpsc::UnboundedReceiver<Finished>,
    ) -> Result<(), String> {
        let mut stop = self.shared.stop.clone();
        let mut assignments = self.shared.registry.changes();
        let mut buffer = Zeroizing::new(vec![0; READ_BYTES]);
        let mut heard = Instant::now();
        // What changed between the greeting and the subscription to changes is told now.
        self.offer_anew();
        self.take(&mut reader, &rest)?;
        loop {
            self.flush(stream).await?;
            if self.is_done() {
                return Ok(());
            }
            if Instant::now() >= self.look {
                self.tell_progress();
            }
            let starved = self.is_starved();
            tokio::select! {
                biased;
                Some(done) = finished.recv() => {
                    self.finish(done);
                    while self.out.len() < UNWRITTEN_BYTES_MAX
                        && let Ok(done) = finished.try_recv()
                    {
                        self.finish(done);
                    }
                }
                () = stopped(&mut stop), if self.draining.is_none() => self.drain("hsmd is stopping"),
                Ok(()) = assignments.changed() => self.offer_anew(),
                read = stream.read(&mut buffer), if !starved => match read {
                    Ok(0) => return self.ended(&reader),
                    Ok(count) => {
                        heard = Instant::now();
                        let taken = self.take(&mut reader, &buffer[..count]);
                        buffer[..count].zeroize();
                        if let Err(reason) = taken {
                            self.close(&reason);
                            let _ = self.flush(stream).await;
                            return Err(reason);
                        }
                    }
                    // Frames have lengths: an end without TLS's goodbye (a killed process) can cut off nothing unseen.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return self.ended(&reader),
                    Err(error) => return Err(format!("the connection broke: {error}")),
                },
                () = self.alarm(&reader, heard, starved) => self.alarmed(&reader, heard)?,
            }
        }
    }

    /// Wakes for progress, the end of draining and silence, whichever is first.
    async fn alarm(&self, reader: &FrameReader, heard: Instant, starved: bool) {
        let drained = self.draining.map(|since| since + DRAIN);
        let quiet = if self.outstanding.is_empty() {
            self.silence(reader).map(|limit| heard + limit)
        } else {
            Some(self.look)
        };
        let starved = starved.then(|| Instant::now() + STARVED);
        match [quiet, drained, starved].into_iter().flatten().min() {
            Some(at) => sleep_until(at.into()).await,
            None => pending().await,
        }
    }

    /// Takes room for the next read of a long frame; whether there is none, so that it must wait.
    fn is_starved(&mut self) -> bool {
        let Some(above) = self.unfinished.checked_sub(FRAME_BYTES_FREE) else { return false };
        !self.partial.grow(above + READ_BYTES)
    }

    fn alarmed(&self, reader: &FrameReader, heard: Instant) -> Result<(), String> {
        match self.silence(reader) {
            Some(limit) if heard.elapsed() >= limit && self.outstanding.is_empty() => {
                Err(format!("silent for {} s", limit.as_secs()))
            }
            _ => Ok(()),
        }
    }

    /// One Progress a second for each request that runs or waits for longer.
    fn tell_progress(&mut self) {
        let now = Instant::now();
        self.look = now + TICK;
        for (tag, work) in &mut self.outstanding {
            if now.duration_since(work.told) >= PROGRESS && !work.cancelled.load(Ordering::Relaxed) {
                work.told = now;
                self.out.push(&encode(&Frame::Progress(*tag)));
            }
        }
    }

    /// The longest silence now: short within a frame, as configured between frames.
    fn silence(&self, reader: &FrameReader) -> Option<Duration> {
        if reader.is_between_frames() { self.shared.limits.idle } else { Some(self.shared.limits.handshake) }
    }

    /// Whether a draining link has nothing left to do.
    fn is_done(&self) -> bool {
        match self.draining {
            Some(since) => self.outstanding.is_empty() && (self.peer_closed || since.elapsed() >= DRAIN),
            None => false,
        }
    }

    fn ended(&self, reader: &FrameReader) -> Result<(), String> {
        if reader.is_between_frames() {
            Ok(())
        } else {
            Err("the connection ended within a frame".to_owned())
        }
    }

    fn drain(&mut self, reason: &str) {
        self.draining = Some(Instant::now());
        self.close(reason);
    }

    fn close(&mut self, reason: &str) {
        self.out.push(&encode(&Frame::Close(reason.to_owned())));
    }

    /// Registrations or assignments have changed: the client learns what it may use now. A certificate that is no longer
    /// registered ends the link, once what runs has ended.
    fn offer_anew(&mut self) {
        let Some(client) = self.shared.registry.renewed(&self.client) else {
            if self.draining.is_none() {
                tracing::info!(
                    client = self.client.name,
                    "a link ends: its certificate is no longer registered"
                );
                self.drain("this certificate is no longer registered");
            }
            return;
        };
        if client.partitions != self.client.partitions {
            self.client = client;
            let reply = greeting::reply(&self.shared, &self.client, self.version);
            self.out.push(&encode(&Frame::HelloReply(reply)));
        }
    }

    fn take(&mut self, reader: &mut FrameReader, mut bytes: &[u8]) -> Result<(), String> {
        self.unfinished += bytes.len();
        while let Some(frame) = reader.take(&mut bytes).map_err(|error| error.to_string())? {
            self.unfinished = bytes.len();
            self.partial.resize(0);
            match frame {
                Frame::Ping(number) => self.out.push(&encode(&Frame::Pong(number))),
                Frame::Request(header, body) => self.request(header, body)?,
                Frame::Cancel(tag) => {
                    if let Some(work) = self.outstanding.get(&tag) {
                        work.cancelled.store(true, Ordering::Relaxed);
                    }
                }
                Frame::Pong(_) => {}
                Frame::Close(_) => {
                    self.peer_closed = true;
                    self.draining.get_or_insert_with(Instant::now);
                }
                Frame::Hello(_)
                | Frame::HelloReply(_)
                | Frame::Reply(..)
                | Frame::Progress(_)
                | Frame::Busy(..) => {
                    return Err(format!("wanted a frame that a client sends, found {:?}", frame.kind()));
                }
            }
        }
        Ok(())
    }

    fn request(&mut self, header: RequestHeader, body: Zeroizing<Vec<u8>>) -> Result<(), String> {
        let tag = header.tag;
        if self.outstanding.contains_key(&tag) {
            return Err(format!("wanted a new tag, found {tag}, which is outstanding"));
        }
        let window = usize::try_from(self.shared.limits.window).unwrap_or(usize::MAX);
        let full = self.outstanding.len() >= window || self.out.len() >= UNWRITTEN_BYTES_MAX;
        let held = if full || self.draining.is_some() { None } else { self.memory.take(body.len()) };
        let Some(held) = held else {
            self.busy(tag, BUSY_MS);
            return Ok(());
        };
        let Some(handler) = self.assigned(header.partition) else {
            let text = format!(
                "partition {} is not assigned to client {} or not open here; run `hsm client assignPartition` on the \
                 appliance",
                header.partition, self.client.name
            );
            // A standing is told to assigned clients alone.
            let trace = Trace(header.trace);
            if log::allow(&self.client.name, ("no partition", 0)) {
                tracing::info!(%trace, client = self.client.name, partition = header.partition, "a request was refused: {text}");
            }
            let (reply, body) = outcome(tag, ReplyHeader::default(), Outcome::NO_PARTITION, &text);
            self.reply(reply, body);
            return Ok(());
        };
        let lane = handler.lane(&body);
        let work = Work { asker: self.asker(), header, body, received: Instant::now() };
        match lane {
            Lane::Inline => {
                let (_, (reply, body)) = take_turn(&*handler, &work, Duration::ZERO);
                self.reply(reply, body);
            }
            Lane::Crypto | Lane::Slow | Lane::Pin | Lane::Disk => self.delegate(lane, handler, work, held),
        }
        Ok(())
    }

    fn asker(&self) -> Asker {
        let replicator = self.client.replicator;
        Asker {
            name: self.name.clone(),
            client: self.client.identity,
            instance: self.instance,
            link: LinkFacts {
                replicator,
                server_certificate_ends_ms: self.shared.acceptor.ends_ms(),
                client_certificate_ends_ms: self.client.certificate_ends_ms,
                wall_ms: now_ms(),
                seen: if replicator { self.shared.seen.all() } else { Vec::new() },
            },
        }
    }

    fn assigned(&self, serial: u64) -> Option<Arc<dyn Handler>> {
        if self.client.partitions.binary_search(&serial).is_err() {
            return None;
        }
        self.shared.lookup.handler(serial)
    }

    fn delegate(&mut self, lane: Lane, handler: Arc<dyn Handler>, work: Work, mut held: Held) {
        let (tag, now) = (work.header.tag, work.received);
        let cancelled = Arc::new(AtomicBool::new(false));
        let (dropped, sender) = (cancelled.clone(), self.sender.clone());
        let job = move |go| {
            let mut worked = false;
            let turn = match go {
                Go::PushedOut => Turn::Busy,
                Go::Run(_) if dropped.load(Ordering::Relaxed) => Turn::Cancelled,
                Go::Run(_) if held.is_over() => Turn::Busy,
                Go::Run(cost) => {
                    let (ran, (header, body)) = take_turn(&*handler, &work, cost);
                    worked = ran;
                    Turn::Reply(header, body)
                }
            };
            drop(work);
            held.resize(if let Turn::Reply(_, body) = &turn { body.len() } else { 0 });
            // The link may have ended meanwhile.
            let _ = sender.send(Finished { tag, turn, _held: held });
            worked
        };
        let accepted = match lane {
            Lane::Disk => self.shared.workers.disk(self.owner, job),
            Lane::Pin => self.shared.workers.pin(self.owner, job),
            Lane::Slow => self.shared.workers.slow(self.owner, job),
            Lane::Crypto | Lane::Inline => self.shared.workers.crypto(self.owner, job),
        };
        match accepted {
            Ok(()) => {
                self.outstanding.insert(tag, Outstanding { told: now, cancelled });
            }
            Err(full) => self.busy(tag, full.after_ms),
        }
    }

    fn finish(&mut self, done: Finished) {
        let cancelled =
            self.outstanding.remove(&done.tag).is_none_or(|work| work.cancelled.load(Ordering::Relaxed));
        match done.turn {
            _ if cancelled => {}
            Turn::Reply(header, body) => self.reply(header, body),
            Turn::Busy => self.busy(done.tag, BUSY_MS),
            Turn::Cancelled => {}
        }
    }

    fn busy(&mut self, tag: u64, after_ms: u32) {
        self.out.push(&encode(&Frame::Busy(tag, after_ms)));
    }

    fn reply(&mut self, header: ReplyHeader, body: Zeroizing<Vec<u8>>) {
        let header =
            ReplyHeader { window: self.shared.window(), queue: self.shared.workers.waiting(), ..header };
        self.out.push_reply(&reply_head(&header, body.len()), body);
    }

    async fn flush(&mut self, stream: &mut TlsStream<TcpStream>) -> Result<(), String> {
        if self.out.len() == 0 {
            return Ok(());
        }
        let write = async {
            while let Some(piece) = self.out.pop() {
                stream.write_all(&piece).await?;
            }
            stream.flush().await
        };
        let written = timeout(Duration::from_secs(WRITE_SECONDS), write).await;
        self.out.sent();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the connection broke: {error}")),
            Err(_) => Err(format!("the client takes no replies for {WRITE_SECONDS} s")),
        }
    }
}
