//! One link: a client's TLS connection from its handshake to its end.
//!
//! ```text
//! Greeting --proved Hello--> Serving --stop--> Draining --nothing outstanding--> closed
//!     |                         |   what comes meanwhile is answered Busy
//!     +--refused: HelloReply    +--broken frame, silence, end of stream: closed, its work is dropped
//! ```
//! All requests that one read brings are decoded; short work runs here, the rest on lanes that send what is finished back;
//! everything that is ready is written at once. A link that had much to do lets the others have their turn (HA 4.5). Bodies that wait and replies that are not yet sent are counted in bytes ([`Memory`]): what does not fit is
//! answered Busy and is not executed (HA 4.5).
use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ntls::frame::{Frame, FrameReader, encode, reply_head};
use partition::LinkFacts;
use spec::messages::{Outcome, ReplyHeader, RequestHeader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{sleep_until, timeout, timeout_at};
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::greeting::{self, Greeted};
use crate::handler::{Asker, Handler, Lane, Trace, Work, now_ms, outcome, take_turn};
use crate::log;
use crate::memory::{Held, Memory};
use crate::outbox::Outbox;
use crate::registry::Entrant;
pub use crate::shared::{Limits, Lookup, Shared};
use crate::wire::{BATCH_BYTES, Batch, Wire};
use crate::workers::{Go, Owner};

/// A peer that takes nothing for so long is gone.
const WRITE: Duration = Duration::from_secs(30);
/// Work over this sends progress (HA 4.4).
const PROGRESS: Duration = Duration::from_secs(1);
/// How often outstanding work is looked at for progress.
const TICK: Duration = Duration::from_millis(200);
/// A link that has worked for so long without a pause lets the others have their turn.
const TURN: Duration = Duration::from_micros(500);
/// How long a draining link still answers Busy before it closes.
const DRAIN: Duration = Duration::from_millis(300);
/// With so many bytes of replies unwritten, what comes is answered Busy.
const UNWRITTEN_BYTES_MAX: usize = 4 << 20;
/// So much of a frame comes in whatever is held; the rest of a longer one waits for room.
const FRAME_BYTES_FREE: usize = 64 << 10;
/// How often a link whose frame has no room looks for some.
const STARVED: Duration = Duration::from_millis(20);
/// How long what is known of the asker, the wall time among it, is good for.
const ASKER_AGE: Duration = Duration::from_millis(20);
/// Later than any alarm.
const FAR: Duration = Duration::from_secs(86_400);
/// How long a client is asked to wait that has filled its window or memory, in milliseconds.
const BUSY_MS: u32 = 20;

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
    /// Who asks, as this batch and those right before it see it.
    asker: Option<Arc<Asker>>,
    /// When that was found out.
    asked: Instant,
    /// The window and the queue that replies tell of now.
    told: (u32, u32),
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
    stream: TlsStream<TcpStream>,
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
    let window = shared.window();
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
        asker: None,
        asked: Instant::now(),
        told: (window, 0),
        out: Outbox::new(&memory),
        memory,
        look: Instant::now(),
        draining: None,
        peer_closed: false,
    };
    let mut wire = Wire::new(stream);
    let end = link.run(&mut wire, reader, rest, finished).await;
    // Best effort: the peer may be gone.
    let _ = timeout(Duration::from_secs(1), wire.shutdown()).await;
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

/// Hands the receiver back once something has been published.
async fn next_change(mut changes: watch::Receiver<u64>) -> watch::Receiver<u64> {
    if changes.changed().await.is_err() {
        pending::<()>().await;
    }
    changes
}

impl Link {
    async fn run(
        mut self,
        wire: &mut Wire,
        mut reader: FrameReader,
        rest: Zeroizing<Vec<u8>>,
        mut finished: mpsc::UnboundedReceiver<Finished>,
    ) -> Result<(), String> {
        let mut stop = self.shared.stop.clone();
        let mut stopping = pin!(stopped(&mut stop));
        let mut assignments = pin!(next_change(self.shared.registry.changes()));
        let mut alarm = pin!(sleep_until((Instant::now() + FAR).into()));
        let mut heard = Instant::now();
        // What changed between the greeting and the subscription to changes is told now; then what came behind the Hello.
        self.offer_anew();
        let taken = self.take(&mut reader, &rest, heard);
        self.tell_why(wire, taken).await?;
        self.take_batch(wire, &mut reader, Batch::empty(), heard).await?;
        loop {
            self.flush(wire).await?;
            if self.is_done() {
                return Ok(());
            }
            if wire.has_ended() {
                return self.ended(&reader);
            }
            if Instant::now() >= self.look {
                self.tell_progress();
            }
            let starved = self.is_starved();
            // An alarm that is too early costs one turn; one that is set anew for each request costs more.
            let due = self.alarm(&reader, heard, starved);
            if let Some(due) = due.filter(|due| alarm.is_elapsed() || alarm.deadline() > (*due).into()) {
                alarm.as_mut().reset(due.into());
            }
            tokio::select! {
                biased;
                Some(done) = finished.recv() => {
                    self.tell_standing();
                    self.finish(done);
                    while self.out.len() < UNWRITTEN_BYTES_MAX
                        && let Ok(done) = finished.try_recv()
                    {
                        self.finish(done);
                    }
                }
                () = &mut stopping, if self.draining.is_none() => self.drain("hsmd is stopping"),
                changes = &mut assignments => {
                    assignments.set(next_change(changes));
                    self.offer_anew();
                }
                read = wire.read(), if !starved => {
                    let batch = read.map_err(|error| broken(&error))?;
                    heard = Instant::now();
                    self.take_batch(wire, &mut reader, batch, heard).await?;
                    if heard.elapsed() >= TURN {
                        self.flush(wire).await?;
                        yield_now().await;
                    }
                }
                () = &mut alarm, if due.is_some() => self.alarmed(&reader, heard)?,
            }
            self.out.count();
        }
    }

    /// Everything that one read has brought.
    async fn take_batch(
        &mut self,
        wire: &mut Wire,
        reader: &mut FrameReader,
        batch: Batch,
        now: Instant,
    ) -> Result<(), String> {
        if now.duration_since(self.asked) >= ASKER_AGE {
            self.asker = None;
        }
        self.tell_standing();
        let taken = wire.open(batch, |bytes| self.take(reader, bytes, now));
        self.tell_why(wire, taken).await
    }

    /// A link that ends by the client's fault says so.
    async fn tell_why(&mut self, wire: &mut Wire, taken: Result<(), String>) -> Result<(), String> {
        if let Err(reason) = &taken {
            self.close(reason);
            let _ = self.flush(wire).await;
        }
        taken
    }

    /// Window and queue for the replies of this turn (HA 4.5).
    fn tell_standing(&mut self) {
        self.told = (self.shared.window(), self.shared.workers.waiting());
    }

    /// When to look at progress, the end of draining and silence, whichever is first.
    fn alarm(&self, reader: &FrameReader, heard: Instant, starved: bool) -> Option<Instant> {
        let drained = self.draining.map(|since| since + DRAIN);
        let quiet = if self.outstanding.is_empty() {
            self.silence(reader).map(|limit| heard + limit)
        } else {
            Some(self.look)
        };
        let starved = starved.then(|| Instant::now() + STARVED);
        [quiet, drained, starved].into_iter().flatten().min()
    }

    /// Takes room for the next read of a long frame; whether there is none, so that it must wait.
    fn is_starved(&mut self) -> bool {
        let Some(above) = self.unfinished.checked_sub(FRAME_BYTES_FREE) else { return false };
        !self.partial.grow(above + BATCH_BYTES)
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
        self.asker = None;
        if client.partitions != self.client.partitions {
            self.client = client;
            let reply = greeting::reply(&self.shared, &self.client, self.version);
            self.out.push(&encode(&Frame::HelloReply(reply)));
        }
    }

    fn take(&mut self, reader: &mut FrameReader, mut bytes: &[u8], now: Instant) -> Result<(), String> {
        self.unfinished += bytes.len();
        while let Some(frame) = reader.take(&mut bytes).map_err(|error| error.to_string())? {
            self.unfinished = bytes.len();
            self.partial.resize(0);
            match frame {
                Frame::Ping(number) => self.out.push(&encode(&Frame::Pong(number))),
                Frame::Request(header, body) => {
                    if let Some(body) = self.request(header, body, now)? {
                        reader.lend(body);
                    }
                }
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

    /// Answers a request or gives it to a lane; answers the memory of a body that is of no more use.
    fn request(
        &mut self,
        header: RequestHeader,
        body: Zeroizing<Vec<u8>>,
        received: Instant,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        let tag = header.tag;
        if self.outstanding.contains_key(&tag) {
            return Err(format!("wanted a new tag, found {tag}, which is outstanding"));
        }
        let window = usize::try_from(self.shared.limits.window).unwrap_or(usize::MAX);
        let full = self.outstanding.len() >= window || self.out.len() >= UNWRITTEN_BYTES_MAX;
        if full || self.draining.is_some() || !self.memory.has_room(body.len()) {
            self.busy(tag, BUSY_MS);
            return Ok(Some(body));
        }
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
            return Ok(None);
        };
        let lane = handler.lane(&body);
        let held = if lane == Lane::Inline { None } else { Some(self.memory.take(body.len())) };
        let work = Work { asker: self.asker(), header, body, received };
        match held {
            None => {
                let (_, (reply, answer)) = take_turn(&*handler, &work, Duration::ZERO);
                self.reply(reply, answer);
                return Ok(Some(work.body));
            }
            Some(Some(held)) => self.delegate(lane, handler, work, held),
            Some(None) => self.busy(tag, BUSY_MS),
        }
        Ok(None)
    }

    fn asker(&mut self) -> Arc<Asker> {
        if let Some(asker) = &self.asker {
            return asker.clone();
        }
        let replicator = self.client.replicator;
        self.asked = Instant::now();
        let asker = Arc::new(Asker {
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
        });
        self.asker.insert(asker).clone()
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
        let (window, queue) = self.told;
        let header = ReplyHeader { window, queue, ..header };
        self.out.push_reply(&reply_head(&header, body.len()), body);
    }

    /// Writes everything there is to send.
    async fn flush(&mut self, wire: &mut Wire) -> Result<(), String> {
        let mut until = None;
        while !wire.send(&mut self.out).map_err(|error| broken(&error))? {
            let until = *until.get_or_insert_with(|| tokio::time::Instant::now() + WRITE);
            match timeout_at(until, wire.writable()).await {
                Ok(room) => room.map_err(|error| broken(&error))?,
                Err(_) => return Err(format!("the client takes no replies for {} s", WRITE.as_secs())),
            }
        }
        self.out.sent();
        Ok(())
    }
}

fn broken(error: &io::Error) -> String {
    format!("the connection broke: {error}")
}
