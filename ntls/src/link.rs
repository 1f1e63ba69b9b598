//! One link: the connection to one server, its outstanding requests, and the thread that reads from it.
//!
//! ```text
//!           first try                     Hello answered
//! Down("not tried yet") --> connecting ------------------> Up --(lost, silent, abandoned)--> Down(reason)
//!                             ^    | refused, no TLS, not registered, ...                        |
//!                             |    v                                                             |
//!                             +-- Down(reason), full jitter 50 ms .. 5 s <-----------------------+
//! ```
//!
//! Callers encrypt and write under the link's one lock, with writes that wait a few milliseconds at most; what the
//! socket does not take stays in the backlog, past 256 KiB of which the link refuses (HA 5 (4)); the reader thread
//! writes it later. Where the link stands is published for readers without the lock: every C_Sign asks. A request of which no encrypted byte was written ends with `NotSent`, any other with `Unknown`.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use spec::messages::{PartitionName, RequestHeader};
use spec::platform::{Lock, Moment, Park, Stream};
use spec::seam::{Event, Fault, MemberId, Reply, Standing, Tag, Waiter};
use zeroize::Zeroizing;

use crate::certificate::Identity;
use crate::channel::{Channel, Opening, READ_BYTES, ServerAddress, is_pause};
use crate::frame::{Frame, encode, request_head};
use crate::links::{Shared, retry_delay};
use crate::tls::ServerTrust;

/// Encrypted bytes that may wait before new requests are refused. One request more may be on top, whatever its
/// size.
const BACKLOG_BYTES_MAX: usize = 256 << 10;
/// How long one write may wait for room in the socket.
const WRITE_TURN: Duration = Duration::from_millis(5);
/// How often a caller tries to write its own backlog before it leaves that to the reader.
const WRITE_TURNS: u32 = 40;
/// How long the reader waits for bytes while nothing is to be written.
const READ_TURN: Duration = Duration::from_millis(250);
/// How long it waits while something is.
const BUSY_READ_TURN: Duration = Duration::from_millis(5);
/// How long a connection attempt may take, the resolution of names apart.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the handshake may take at most.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that lived so long past its Hello was a good one: the next tries begin with short delays. Shorter ones are those
/// of an appliance that closes as soon as it is asked.
const GOOD_LIFE: Duration = Duration::from_millis(100);
/// Shorter lives let the delays grow to those of this attempt, no further: whoever says Hello is there.
const SHORT_LIFE_ATTEMPT: u32 = 3;

/// One link.
pub(crate) struct Link {
    pub(crate) server: ServerAddress,
    state: Lock<State>,
    face: ArcSwap<Face>,
    /// The moment of the last byte from the server.
    heard: AtomicU64,
    park: Arc<dyn Park>,
}

/// What of the state is read without its lock; published whenever it changes.
struct Face {
    /// Since when it is up; `None` while it takes no requests.
    since: Option<Moment>,
    /// Why it is not up.
    reason: String,
    /// The partitions that the server offered last, in ascending order.
    serials: Vec<u64>,
}

impl Face {
    fn of(state: &State) -> Self {
        let mut serials: Vec<u64> = state.offers.iter().map(|offer| offer.serial).collect();
        serials.sort_unstable();
        let reason = match &state.up {
            None => Some(&state.reason),
            Some(up) => up.ended.as_ref().or(up.draining.as_ref()),
        };
        let since = state.up.as_ref().filter(|_| reason.is_none()).map(|up| up.since);
        Self { since, reason: reason.cloned().unwrap_or_default(), serials }
    }
}

struct State {
    up: Option<Up>,
    /// Why it is down, while it is.
    reason: String,
    settled: bool,
    /// What the server offered when it was last connected.
    offers: Vec<PartitionName>,
}

struct Up {
    channel: Channel,
    outstanding: HashMap<Tag, Pending>,
    since: Moment,
    pinged: bool,
    /// Set by whoever ends the connection; the reader does the rest.
    ended: Option<String>,
    /// Set by the server's Close: no new requests.
    draining: Option<String>,
}

struct Pending {
    waiter: Arc<Waiter>,
    /// Where the request begins among the encrypted bytes.
    start: u64,
    deadline: Moment,
    since: Moment,
}

/// What is delivered once the lock is free again.
type Deliveries = Vec<(Arc<Waiter>, Event)>;

fn deliver(all: Deliveries) {
    for (waiter, event) in all {
        waiter.deliver(event);
    }
}

impl Up {
    /// Ends the connection: the reader wakes and cleans up; what is outstanding ends at once.
    fn end(&mut self, reason: String) -> Deliveries {
        self.channel.stream().shutdown();
        self.ended.get_or_insert(reason);
        let sent = self.channel.sent();
        let fault = |start: u64| if start < sent { Fault::Unknown } else { Fault::NotSent };
        self.outstanding
            .drain()
            .map(|(tag, pending)| (pending.waiter, Event::Fault(tag, fault(pending.start))))
            .collect()
    }

    fn flush(&mut self) -> Deliveries {
        match self.channel.flush(WRITE_TURN) {
            Ok(_) => Vec::new(),
            Err(error) => self.end(format!("the connection broke while it was written to: {error}")),
        }
    }

    fn send(&mut self, frame: &Frame) -> Deliveries {
        self.channel.queue(&[&encode(frame)]);
        self.flush()
    }
}

impl Link {
    pub(crate) fn new(server: ServerAddress, park: Arc<dyn Park>) -> Self {
        let reason = format!("{server} has not been tried yet");
        let state = State { up: None, reason, settled: false, offers: Vec::new() };
        let face = ArcSwap::from_pointee(Face::of(&state));
        Self { server, state: Lock::new(state), face, heard: AtomicU64::new(0), park }
    }

    /// Publishes the state; called with its lock held.
    fn publish(&self, state: &State) {
        self.face.store(Arc::new(Face::of(state)));
    }

    /// Publishes the end of a connection that a write has met; called with the lock held.
    fn publish_end(&self, state: &State) {
        if state.up.as_ref().is_some_and(|up| up.ended.is_some()) && self.face.load().since.is_some() {
            self.publish(state);
        }
    }

    pub(crate) fn offers(&self) -> Vec<PartitionName> {
        self.state.lock().offers.clone()
    }

    fn heard(&self) -> Moment {
        Moment(self.heard.load(Ordering::Acquire))
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.state.lock().settled
    }

    pub(crate) fn is_up(&self) -> bool {
        self.face.load().since.is_some()
    }

    /// Whether requests for this partition can be sent now.
    pub(crate) fn leads_to(&self, member: MemberId) -> bool {
        let face = self.face.load();
        face.since.is_some() && face.serials.binary_search(&member.0).is_ok()
    }

    pub(crate) fn key_exchange_group(&self) -> Option<String> {
        self.state.lock().up.as_ref().and_then(|up| up.channel.key_exchange_group())
    }

    pub(crate) fn standing(&self) -> Standing {
        let face = self.face.load();
        match face.since {
            Some(since) => Standing::Up { since, heard: self.heard() },
            None => Standing::Down { reason: face.reason.clone() },
        }
    }

    /// As [`standing`](Self::standing), for one partition of the server.
    pub(crate) fn standing_of(&self, member: MemberId) -> Standing {
        let face = self.face.load();
        if face.since.is_some() && face.serials.binary_search(&member.0).is_err() {
            let reason = format!(
                "{} no longer offers partition {member}: assign it with `hsm client assignPartition`",
                self.server
            );
            return Standing::Down { reason };
        }
        self.standing()
    }

    pub(crate) fn why_down(&self) -> Option<String> {
        match self.standing() {
            Standing::Up { .. } => None,
            Standing::Down { reason } => Some(reason),
        }
    }

    /// Queues a request and writes what the socket takes; whether it is on its way (otherwise it is `NotSent`).
    pub(crate) fn submit(
        &self,
        waiter: &Arc<Waiter>,
        tag: Tag,
        header: &RequestHeader,
        body: &Zeroizing<Vec<u8>>,
        (since, deadline): (Moment, Moment),
    ) -> bool {
        let deliveries = {
            let mut state = self.state.lock();
            let Some(up) = state.up.as_mut().filter(|up| up.ended.is_none() && up.draining.is_none()) else {
                return false;
            };
            if up.channel.backlog() > BACKLOG_BYTES_MAX {
                return false;
            }
            let start = up.channel.queue(&[&request_head(header, body.len()), body]);
            up.outstanding.insert(tag, Pending { waiter: waiter.clone(), start, deadline, since });
            let deliveries = up.flush();
            self.publish_end(&state);
            deliveries
        };
        deliver(deliveries);
        self.push(tag);
        true
    }

    /// Writes the backlog as long as this request is in it, giving the lock away between tries.
    fn push(&self, tag: Tag) {
        for _ in 0..WRITE_TURNS {
            let deliveries = {
                let mut state = self.state.lock();
                let Some(up) = state.up.as_mut() else { return };
                if !up.outstanding.contains_key(&tag) || up.channel.backlog() == 0 {
                    return;
                }
                let deliveries = up.flush();
                self.publish_end(&state);
                deliveries
            };
            deliver(deliveries);
        }
    }

    /// Cancels a request; whether it was outstanding here.
    pub(crate) fn cancel(&self, tag: Tag) -> bool {
        let deliveries = {
            let mut state = self.state.lock();
            let Some(up) = state.up.as_mut() else { return false };
            if up.outstanding.remove(&tag).is_none() {
                return false;
            }
            let deliveries = up.send(&Frame::Cancel(tag.0));
            self.publish_end(&state);
            deliveries
        };
        deliver(deliveries);
        true
    }

    pub(crate) fn abandon(&self, reason: &str) {
        let deliveries = {
            let mut state = self.state.lock();
            let Some(up) = state.up.as_mut() else { return };
            let deliveries = up.end(format!("{} was given up: {reason}", self.server));
            self.publish_end(&state);
            deliveries
        };
        deliver(deliveries);
    }

    /// Ends the connection in order and wakes the thread, which sees that all is closing.
    pub(crate) fn stop(&self) {
        let deliveries = {
            let mut state = self.state.lock();
            let deliveries = state.up.as_mut().map(|up| {
                up.channel.close("the client is stopping");
                up.end("the client is stopping".into())
            });
            self.publish_end(&state);
            deliveries.unwrap_or_default()
        };
        deliver(deliveries);
        self.park.unpark();
    }

    /// Notes why the link is down and tells the subscribers.
    pub(crate) fn fail(&self, shared: &Shared, reason: String) {
        let news;
        let deliveries = {
            let mut state = self.state.lock();
            let deliveries = state.up.take().map(|mut up| up.end(reason.clone())).unwrap_or_default();
            news = state.reason != reason && !shared.is_closing();
            state.reason.clone_from(&reason);
            state.settled = true;
            self.publish(&state);
            deliveries
        };
        // Members behind the other links go on serving: news, not an alarm.
        match (news, shared.any_up()) {
            (true, true) => tracing::info!(server = %self.server, reason, "link down"),
            (true, false) => tracing::warn!(server = %self.server, reason, "link down, and no other is up"),
            (false, _) => {}
        }
        deliver(deliveries);
        shared.changed();
    }

    /// The thread: connects, reads, reconnects, until all is closing.
    pub(crate) fn serve(link: &Arc<Self>, shared: &Arc<Shared>) {
        let platform = &shared.platform;
        let mut attempt = 0;
        while !shared.is_closing() {
            match link.connect(shared) {
                Ok(channel_since) => {
                    let reason = link.read(shared);
                    link.fail(shared, reason);
                    let was_good = platform.now().since(channel_since) >= GOOD_LIFE;
                    attempt = if was_good { 0 } else { attempt.min(SHORT_LIFE_ATTEMPT) };
                }
                Err(reason) => link.fail(shared, reason),
            }
            let until = platform.now().after(retry_delay(platform.as_ref(), attempt));
            attempt = attempt.saturating_add(1);
            while !shared.is_closing() && platform.now() < until {
                link.park.park(until);
            }
        }
    }

    fn connect(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<Moment, String> {
        let settings = &shared.settings;
        let identity = Identity::load(&settings.certificate_file, &settings.key_file).map_err(|error| {
            format!("no client certificate: {error}; make one with `vtl createCert` and register it")
        })?;
        let trust = Arc::new(ServerTrust::load(&settings.server_ca_file).map_err(|error| error.0)?);
        let (channel, hello) = Channel::open(&Opening {
            platform: &shared.platform,
            server: &self.server,
            identity: &identity,
            trust: &trust,
            instance: &settings.instance,
            software: &settings.software,
            keep_alive: settings.tcp_keep_alive,
            connect_timeout: CONNECT_TIMEOUT,
            handshake_timeout: HANDSHAKE_TIMEOUT.min(Duration::from_millis(settings.receive_timeout_ms)),
            stop: &|| shared.is_closing(),
        })?;
        let now = shared.platform.now();
        let serials: Vec<u64> = hello.partitions.iter().map(|partition| partition.serial).collect();
        {
            let mut state = self.state.lock();
            if shared.closing.load(Ordering::Acquire) {
                return Err("the client is stopping".into());
            }
            state.offers = hello.partitions;
            state.settled = true;
            state.up = Some(Up {
                channel,
                outstanding: HashMap::new(),
                since: now,
                pinged: false,
                ended: None,
                draining: None,
            });
            self.heard.store(now.0, Ordering::Release);
            self.publish(&state);
        }
        shared.route(self, serials.into_iter());
        tracing::info!(server = %self.server, appliance = hello.appliance, client = hello.client, "link up");
        shared.changed();
        Ok(now)
    }

    /// Reads until the connection ends; the reason.
    fn read(self: &Arc<Self>, shared: &Arc<Shared>) -> String {
        let Some(stream) = self.state.lock().up.as_ref().map(|up| up.channel.stream()) else {
            return "the connection is gone".into();
        };
        let stream: Arc<dyn Stream> = stream;
        let mut cipher = vec![0; READ_BYTES];
        // A short first turn: frames may have come along with the HelloReply.
        let mut turn = BUSY_READ_TURN;
        loop {
            let outcome = stream.read(&mut cipher, turn);
            let mut deliveries = Vec::new();
            let mut offers = None;
            let step = {
                let mut state = self.state.lock();
                let Some(up) = state.up.as_mut() else { return "the connection is gone".into() };
                let step = match outcome {
                    _ if up.ended.is_some() => Err(up.ended.clone().unwrap_or_default()),
                    Ok(0) => Err(match &up.draining {
                        Some(reason) => reason.clone(),
                        None => format!("{} closed the connection", self.server),
                    }),
                    Ok(count) => {
                        self.heard.store(shared.platform.now().0, Ordering::Release);
                        up.pinged = false;
                        let received = up.channel.received(cipher.get(..count).unwrap_or_default());
                        // Whole frames in front of what cannot be read still count.
                        up.frames(&mut deliveries, &mut offers).and(received)
                    }
                    Err(error) if is_pause(&error) => up
                        .frames(&mut deliveries, &mut offers)
                        .and_then(|()| up.tick(shared, self.heard(), &mut deliveries)),
                    Err(error) => Err(format!("the connection to {} broke: {error}", self.server)),
                };
                deliveries.extend(up.flush());
                turn = if up.channel.backlog() > 0 { BUSY_READ_TURN } else { READ_TURN };
                if let Some(offers) = &offers {
                    state.offers.clone_from(offers);
                }
                if offers.is_some() || state.up.as_ref().is_some_and(|up| up.draining.is_some()) {
                    self.publish(&state);
                }
                self.publish_end(&state);
                step
            };
            deliver(deliveries);
            if let Err(reason) = step {
                return reason;
            }
            if let Some(offers) = offers {
                shared.route(self, offers.iter().map(|offer| offer.serial));
                shared.changed();
            }
        }
    }
}

impl Up {
    /// Carries out what the server sent.
    fn frames(
        &mut self,
        out: &mut Deliveries,
        offers: &mut Option<Vec<PartitionName>>,
    ) -> Result<(), String> {
        while let Some(frame) = self.channel.next_frame() {
            match frame {
                Frame::Reply(header, body) => {
                    let tag = Tag(header.tag);
                    if let Some(pending) = self.outstanding.remove(&tag) {
                        out.push((pending.waiter, Event::Reply(tag, Reply { header, body })));
                    }
                }
                Frame::Busy(tag, ms) => {
                    if let Some(pending) = self.outstanding.remove(&Tag(tag)) {
                        out.push((pending.waiter, Event::Busy(Tag(tag), ms)));
                    }
                }
                Frame::Progress(tag) => {
                    if let Some(pending) = self.outstanding.get(&Tag(tag)) {
                        out.push((pending.waiter.clone(), Event::Progress(Tag(tag))));
                    }
                }
                Frame::Ping(number) => {
                    self.channel.queue(&[&encode(&Frame::Pong(number))]);
                }
                Frame::Pong(_) => {}
                // The appliance says anew what it offers, after an assignment has changed.
                Frame::HelloReply(reply) => *offers = Some(reply.partitions),
                Frame::Close(reason) => {
                    self.draining = Some(format!("the appliance is closing the link: {reason}"))
                }
                Frame::Hello(_) | Frame::Request(..) | Frame::Cancel(_) => {
                    return Err(format!("wanted a frame of an appliance, found a {:?} frame", frame.kind()));
                }
            }
        }
        Ok(())
    }

    /// Nothing came for a while: requests past their deadline end, and silence is looked at.
    fn tick(&mut self, shared: &Shared, heard: Moment, out: &mut Deliveries) -> Result<(), String> {
        let now = shared.platform.now();
        let late: Vec<Tag> = self
            .outstanding
            .iter()
            .filter(|(_, pending)| pending.deadline <= now)
            .map(|(tag, _)| *tag)
            .collect();
        for tag in late {
            if let Some(pending) = self.outstanding.remove(&tag) {
                self.channel.queue(&[&encode(&Frame::Cancel(tag.0))]);
                // Its bytes are among those that will be written, so it may yet be executed.
                out.push((pending.waiter, Event::Fault(tag, Fault::Unknown)));
            }
        }
        // Silence counts from the oldest outstanding request or the last byte, whichever is later.
        let Some(oldest) = self.outstanding.values().map(|pending| pending.since).min() else {
            return Ok(());
        };
        let silent = now.since(oldest.max(heard));
        let bound = Duration::from_millis(shared.settings.receive_timeout_ms);
        if silent >= bound {
            return Err(format!("no answer for {} ms (ReceiveTimeout)", bound.as_millis()));
        }
        if !self.pinged && silent.saturating_mul(2) >= bound {
            self.pinged = true;
            self.channel.queue(&[&encode(&Frame::Ping(now.0))]);
        }
        Ok(())
    }
}
