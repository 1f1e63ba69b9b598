//! One link: a client's TLS connection from its handshake to its end.
//!
//! ```text
//! Greeting --proved Hello--> Serving --stop--> Draining --nothing outstanding--> closed
//!     |                         |   what comes meanwhile is answered Busy
//!     +--refused: HelloReply    +--broken frame, silence, end of stream: closed, its work is dropped
//! ```
//! All requests that one read brings are decoded; short work runs here, the rest on lanes; everything that is ready is written
//! at once. A lane hands what it has finished to the link's task and holds nothing that one needs: links are served while lanes
//! are stuck. A link that had much to do lets the others have their turn (HA 4.5). Bodies that wait and replies that are not yet
//! sent are counted in bytes ([`Memory`]): what does not fit is answered Busy and is not executed (HA 4.5).
//!
//! ```text
//! Line = Wire + Link          drive.rs: the task that reads, waits and keeps time
//! ```
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ntls::frame::{Frame, FrameReader, encode, reply_head};
use partition::{LinkFacts, Reading};
use spec::messages::{Outcome, ReplyHeader, RequestHeader};
use spec::wipe::discard_zeroizing;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::clock::{Clock, Prospect};
use crate::greeting::{self, Greeted};
use crate::handler::{Asker, Handler, Lane, Trace, Work, now_ms, outcome, steady_ms, take_turn};
use crate::listener::Counted;
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
/// With so many bytes of replies unwritten, what comes is answered Busy.
const UNWRITTEN_BYTES_MAX: usize = 4 << 20;
/// So much of a frame comes in whatever is held; the rest of a longer one waits for room.
const FRAME_BYTES_FREE: usize = 64 << 10;
/// How long what is known of the asker, the wall time among it, is good for.
const ASKER_AGE: Duration = Duration::from_millis(20);
/// How long a client is asked to wait that has filled its window or memory, in milliseconds.
const BUSY_MS: u32 = 20;
/// The memory of a longer answer is not kept for the next one.
const ANSWER_BYTES_KEPT: usize = 4 << 10;

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
pub(crate) struct Finished {
    tag: u64,
    turn: Turn,
    _held: Held,
}

/// A request that runs or waits on a lane.
struct Outstanding {
    told: Instant,
    cancelled: Arc<AtomicBool>,
}

/// What a link waits for, beside news.
#[derive(Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) due: Option<Instant>,
    /// For work on lanes.
    pub(crate) work: bool,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// A link with its connection.
pub(crate) struct Line {
    pub(crate) wire: Wire,
    pub(crate) link: Link,
    /// Since when the socket has taken nothing of what there is.
    stuck: Option<Instant>,
}

/// A served link.
pub(crate) struct Link {
    shared: Arc<Shared>,
    reader: FrameReader,
    clock: Clock,
    client: Entrant,
    name: Arc<str>,
    instance: [u8; 32],
    owner: Owner,
    version: u32,
    outstanding: HashMap<u64, Outstanding>,
    sender: mpsc::UnboundedSender<Finished>,
    /// Where answers are put before they are sent; empty in between.
    answer: Zeroizing<Vec<u8>>,
    /// Who asks, as this batch and those right before it see it.
    asker: Option<Arc<Asker>>,
    /// When that was found out, and what the clock of partitions said then.
    asked: Instant,
    asked_ms: u64,
    /// The window and the queue that replies tell of now.
    told: (u32, u32),
    out: Outbox,
    memory: Arc<Memory>,
    /// Bytes that have come of a frame that is not whole.
    unfinished: usize,
    /// Those above what every link may have, for the process alone.
    partial: Held,
    /// It is one of the links that there are.
    _counted: Counted,
}

impl Line {
    /// A link that has been greeted, over its connection.
    pub(crate) fn new(
        wire: Wire,
        shared: Arc<Shared>,
        greeted: Greeted,
        sender: mpsc::UnboundedSender<Finished>,
    ) -> Line {
        let Greeted { client, instance, version, reader, counted, .. } = greeted;
        let share = shared.memory.share(client.identity);
        let memory = share.part(shared.limits.link_bytes);
        let (window, now) = (shared.window(), Instant::now());
        let link = Link {
            shared,
            reader,
            clock: Clock::new(now),
            unfinished: 0,
            partial: share.hold(0),
            name: client.name.as_str().into(),
            owner: Owner { client: client.identity, link: next_number() },
            client,
            instance,
            version,
            outstanding: HashMap::new(),
            sender,
            answer: Zeroizing::default(),
            asker: None,
            asked: now,
            asked_ms: 0,
            told: (window, 0),
            out: Outbox::new(&memory),
            memory,
            _counted: counted,
        };
        Line { wire, link, stuck: None }
    }

    /// The first turn: what changed between the greeting and the subscription to changes is told now; then what came behind
    /// the Hello is answered.
    pub(crate) fn begin(&mut self, rest: &[u8]) -> Result<Option<Wait>, String> {
        self.link.offer_anew();
        let Line { wire, link, .. } = self;
        let taken = link.take(rest).and_then(|()| wire.give_out(|bytes| link.take(bytes)));
        self.tell_why(taken)?;
        self.settle(Instant::now())
    }

    /// Everything that one read has brought.
    pub(crate) fn take_batch(&mut self, batch: &Batch, now: Instant) -> Result<(), String> {
        let Line { wire, link, .. } = self;
        link.clock.heard = now;
        if now.duration_since(link.asked) >= ASKER_AGE {
            link.asker = None;
        }
        link.tell_standing();
        let taken = wire.open(batch, |bytes| link.take(bytes));
        self.tell_why(taken)
    }

    /// Work that has been finished, and what else has.
    pub(crate) fn take_finished(&mut self, done: Finished, mut more: impl FnMut() -> Option<Finished>) {
        self.link.tell_standing();
        let mut next = Some(done);
        while let Some(done) = next {
            self.link.finish(done);
            next = if self.link.out.len() < UNWRITTEN_BYTES_MAX { more() } else { None };
        }
    }

    /// The end of a turn: sends what there is and says what to wait for; nothing when the link is over.
    pub(crate) fn settle(&mut self, now: Instant) -> Result<Option<Wait>, String> {
        if self.link.clock.looks(now) {
            self.link.tell_progress(now);
        }
        self.flush(now)?;
        if let Some(since) = self.stuck {
            if now.duration_since(since) >= WRITE {
                return Err(format!("the client takes no replies for {} s", WRITE.as_secs()));
            }
            // What cannot be sent stays in the account of its work.
            return Ok(Some(Wait { due: Some(since + WRITE), work: false, read: false, write: true }));
        }
        if self.link.clock.is_done(now, !self.link.outstanding.is_empty()) {
            return Ok(None);
        }
        if self.wire.has_ended() {
            return self.link.ended().map(|()| None);
        }
        let starved = self.link.is_starved();
        let before = self.link.prospect(starved);
        let due = self.link.clock.alarm(now, before);
        Ok(Some(Wait { due, work: before.works, read: !starved, write: false }))
    }

    /// Writes what the socket takes.
    fn flush(&mut self, now: Instant) -> Result<(), String> {
        if self.wire.send(&mut self.link.out).map_err(|error| broken(&error))? {
            self.stuck = None;
            self.link.out.sent();
        } else {
            self.stuck.get_or_insert(now);
        }
        Ok(())
    }

    /// A link that ends by the client's fault says so.
    fn tell_why(&mut self, taken: Result<(), String>) -> Result<(), String> {
        if let Err(reason) = &taken {
            self.link.close(reason);
            let _ = self.flush(Instant::now());
        }
        taken
    }

    /// The link is over: nobody waits any longer for what is not done.
    pub(crate) fn end(&mut self) {
        self.link.cancel_all();
    }

    /// Writes the last words and ends our direction.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.wire.send(&mut self.link.out)? {
            ready!(self.wire.poll_writable(context))?;
        }
        self.wire.poll_end(context)
    }
}

/// Links are numbered from the start of the process.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Nobody waits any longer for what a lost link asked for.
impl Drop for Link {
    fn drop(&mut self) {
        self.cancel_all();
    }
}

impl Link {
    fn cancel_all(&mut self) {
        for work in self.outstanding.values() {
            work.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// The server stops: what runs is finished, and the client knows.
    pub(crate) fn stop(&mut self) {
        if !self.clock.is_draining() {
            self.drain("hsmd is stopping");
        }
    }

    /// Window and queue for the replies of this turn (HA 4.5).
    fn tell_standing(&mut self) {
        self.told = (self.shared.window(), self.shared.workers.waiting());
    }

    fn prospect(&self, starved: bool) -> Prospect {
        Prospect { works: !self.outstanding.is_empty(), silence: self.silence(), starved }
    }

    /// Takes room for the next read of a long frame; whether there is none, so that it must wait.
    fn is_starved(&mut self) -> bool {
        let Some(above) = self.unfinished.checked_sub(FRAME_BYTES_FREE) else { return false };
        !self.partial.grow(above + BATCH_BYTES)
    }

    /// It is the time that the link wanted to be looked at: one that is silent for too long ends.
    pub(crate) fn alarmed(&self, now: Instant) -> Result<(), String> {
        match self.clock.silent_for(now, self.prospect(false)) {
            Some(limit) => Err(format!("silent for {} s", limit.as_secs())),
            None => Ok(()),
        }
    }

    /// One Progress a second for each request that runs or waits for longer.
    fn tell_progress(&mut self, now: Instant) {
        for (tag, work) in &mut self.outstanding {
            if now.duration_since(work.told) >= PROGRESS && !work.cancelled.load(Ordering::Relaxed) {
                work.told = now;
                self.out.push(&encode(&Frame::Progress(*tag)));
            }
        }
    }

    /// The longest silence now: short within a frame, as configured between frames.
    fn silence(&self) -> Option<Duration> {
        if self.reader.is_between_frames() {
            self.shared.limits.idle
        } else {
            Some(self.shared.limits.handshake)
        }
    }

    fn ended(&self) -> Result<(), String> {
        if self.reader.is_between_frames() {
            Ok(())
        } else {
            Err("the connection ended within a frame".to_owned())
        }
    }

    /// No new requests from now on.
    pub(crate) fn drain(&mut self, reason: &str) {
        self.clock.drain(Instant::now());
        self.close(reason);
    }

    fn close(&mut self, reason: &str) {
        self.out.push(&encode(&Frame::Close(reason.to_owned())));
    }

    /// Registrations or assignments have changed: the client learns what it may use now. A certificate that is no longer
    /// registered ends the link, once what runs has ended.
    pub(crate) fn offer_anew(&mut self) {
        let Some(client) = self.shared.registry.renewed(&self.client) else {
            if !self.clock.is_draining() {
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

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        self.unfinished += bytes.len();
        while let Some(frame) = self.reader.take(&mut bytes).map_err(|error| error.to_string())? {
            self.unfinished = bytes.len();
            self.partial.resize(0);
            match frame {
                Frame::Ping(number) => self.out.push(&encode(&Frame::Pong(number))),
                Frame::Request(header, body) => {
                    if let Some(body) = self.request(header, body)? {
                        self.reader.lend(body);
                    }
                }
                Frame::Cancel(tag) => {
                    if let Some(work) = self.outstanding.get(&tag) {
                        work.cancelled.store(true, Ordering::Relaxed);
                    }
                }
                Frame::Pong(_) => {}
                Frame::Close(_) => {
                    self.clock.close_by_peer(Instant::now());
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
    ) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        let tag = header.tag;
        if self.outstanding.contains_key(&tag) {
            return Err(format!("wanted a new tag, found {tag}, which is outstanding"));
        }
        let window = usize::try_from(self.shared.limits.window).unwrap_or(usize::MAX);
        let full = self.outstanding.len() >= window || self.out.len() >= UNWRITTEN_BYTES_MAX;
        if full || self.clock.is_draining() || !self.memory.has_room(body.len()) {
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
            let none = ReplyHeader::default();
            let reply = outcome(tag, none, Outcome::NO_PARTITION, &text, &mut self.answer);
            self.reply(reply);
            return Ok(None);
        };
        let work = Work { asker: self.asker(), header, body, received: self.clock.heard };
        let reading = Reading::of(&work.body);
        let lane = handler.lane(&work.header, &reading);
        if lane == Lane::Inline {
            let since = self.clock.heard.duration_since(self.asked).as_millis();
            let now_ms = self.asked_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX));
            let (_, reply) =
                take_turn(&*handler, &work, &reading, (Duration::ZERO, now_ms), &mut self.answer);
            self.reply(reply);
            return Ok(Some(work.body));
        }
        match self.memory.take(work.body.len()) {
            Some(held) => self.delegate(lane, handler, work, held),
            None => self.busy(tag, BUSY_MS),
        }
        Ok(None)
    }

    fn asker(&mut self) -> Arc<Asker> {
        if let Some(asker) = &self.asker {
            return asker.clone();
        }
        let replicator = self.client.replicator;
        (self.asked, self.asked_ms) = (Instant::now(), steady_ms());
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
                    let mut body = Zeroizing::default();
                    let (ran, header) =
                        take_turn(&*handler, &work, &Reading::of(&work.body), (cost, steady_ms()), &mut body);
                    worked = ran;
                    Turn::Reply(header, body)
                }
            };
            // A long body takes its time.
            discard_zeroizing(work.body);
            held.resize(if let Turn::Reply(_, body) = &turn { body.len() } else { 0 });
            // The link may have ended meanwhile, and with it whoever hears of it.
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
            Turn::Reply(header, body) => {
                self.answer = body;
                self.reply(header);
            }
            Turn::Busy => self.busy(done.tag, BUSY_MS),
            Turn::Cancelled => {}
        }
    }

    fn busy(&mut self, tag: u64, after_ms: u32) {
        self.out.push(&encode(&Frame::Busy(tag, after_ms)));
    }

    /// Sends the answer with this header.
    fn reply(&mut self, header: ReplyHeader) {
        let (window, queue) = self.told;
        let header = ReplyHeader { window, queue, ..header };
        self.out.push_reply(&reply_head(&header, self.answer.len()), &mut self.answer);
        if self.answer.capacity() > ANSWER_BYTES_KEPT {
            self.answer = Zeroizing::default();
        }
    }
}

fn broken(error: &io::Error) -> String {
    format!("the connection broke: {error}")
}
