//! One link: a connection to a server, driven by the threads that wait for its replies (HA 5).
//!
//! ```text
//!         its turn to be tried                Hello answered
//! down --------------------------> dialled ------------------> up --Close, or to be retired--> draining
//!   ^                                 | refused, no TLS, ...    | lost, silent, abandoned          | nothing outstanding
//!   `---- full jitter 50 ms .. 5 s <--+-------------------------+----------------------------------+--> gone, if retired
//! ```
//!
//! The invariants of HA 5:
//! (1) a thread that leads a link never parks: it polls the links it leads and its own eventfd; a parked thread leads
//! nothing. (2) If a waiter is registered, a leader exists or a hand-over token is on its way; flag, list and token change
//! under one short lock that is never held across a system call. A leader stepping down clears the flag, then reads the
//! list again. A waiter timing out leaves the list and passes on any token given to it (`lead`). (3) A link is never
//! stolen, only abandoned; a leader with an old heartbeat and a readable socket is *our* stall, not the member's. (4) Writes
//! are non-blocking; past 256 KiB of backlog a link refuses. (5) Replies are found by tag and moved into the mailbox of
//! their caller; a leader never touches a caller's own memory. (6) The leader reads, decrypts, splits and wakes; each
//! caller decodes its own. (7) Thread cancellation is off for the length of a call (`pkcs11`).
//!
//! Leadership carries the [`Reader`], the right to write the [`Pen`] (`pen`): whoever has taken them out of the link has the
//! role, and nobody else can read or write.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use spec::messages::RequestHeader;
use spec::planted::{self, Bug};
use spec::platform::{Lock, Moment, Platform, Stream};
use spec::seam::{Event, Fault, Tag, Waiter};
use zeroize::Zeroizing;

use crate::channel::{READ_BYTES, is_pause};
use crate::dial::Opened;
use crate::frame::{Frame, encode, request_head};
use crate::lead::{Lead, Left};
use crate::links::{Shared, retry_delay};
use crate::server::{Public, SHORT_BYTES_MAX};
use crate::up::{News, Outstanding, Pen, Pending, Up, unlist};

mod clock;
mod write;

/// Bytes that may wait before new requests are refused. One request more may be on top, whatever its size.
pub(crate) const BACKLOG_BYTES_MAX: usize = 256 << 10;
/// A connection that lived so long past its Hello was a good one: the next tries begin with short delays. Shorter ones are
/// those of an appliance that closes as soon as it is asked.
const GOOD_LIFE: Duration = Duration::from_millis(100);
/// Shorter lives let the delays grow to those of this attempt, no further: whoever says Hello is there.
const SHORT_LIFE_ATTEMPT: u32 = 3;

/// What a retired link says at its end.
const DONE: &str = "this link has done its work";

/// One link.
pub(crate) struct Link {
    /// Unique for the life of the process, but for numbers far apart.
    pub(crate) number: u32,
    pub(crate) server: Arc<Public>,
    state: Lock<State>,
    /// Whether it takes requests.
    open: AtomicBool,
    /// Whether a newer link takes its place as soon as that one is up.
    retired: AtomicBool,
    /// Requests that have not ended, and how many of them are long.
    load: AtomicU32,
    long: AtomicU32,
    /// When the last request was queued.
    used: AtomicU64,
    /// Whether bytes wait for room in the socket: the leader polls for that, too.
    blocked: AtomicBool,
    /// Whether the thread in the background watches the idle socket.
    watched: AtomicBool,
}

struct State {
    up: Option<Up>,
    /// Counts the connections that this link has had.
    lives: u64,
    attempt: u32,
    next_try: Moment,
    dialled: bool,
}

/// What a leader reads with.
pub(crate) struct Reader {
    buffer: Vec<u8>,
    news: Vec<News>,
}

/// The role of the leader, in the hands of the thread that has it.
pub(crate) struct Held {
    pub(crate) link: Arc<Link>,
    pub(crate) stream: Arc<dyn Stream>,
    life: u64,
    reader: Option<Box<Reader>>,
}

/// What a read has come to.
pub(crate) enum Turn {
    /// The link is still led.
    Led,
    /// The connection is gone, and the leadership with it.
    Gone,
}

impl Link {
    pub(crate) fn new(number: u32, server: Arc<Public>) -> Self {
        let state = State { up: None, lives: 0, attempt: 0, next_try: Moment(0), dialled: false };
        Self {
            number,
            server,
            state: Lock::new(state),
            open: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            load: AtomicU32::new(0),
            long: AtomicU32::new(0),
            used: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            watched: AtomicBool::new(false),
        }
    }

    /// Whether it takes requests.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// A newer link is to take its place.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(crate) fn load(&self) -> u32 {
        self.load.load(Ordering::Relaxed)
    }

    /// Whether a reply may have to wait for that of a long request.
    pub(crate) fn has_long(&self) -> bool {
        self.long.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    pub(crate) fn used(&self) -> Moment {
        Moment(self.used.load(Ordering::Acquire))
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state.lock().up.is_some()
    }

    pub(crate) fn key_exchange_group(&self) -> Option<String> {
        self.look(|up| up.channel.key_exchange_group())?
    }

    /// The certificate that the server showed on this connection.
    pub(crate) fn peer(&self) -> Option<Vec<CertificateDer<'static>>> {
        self.look(|up| up.channel.peer())?
    }

    /// The socket, while it is up.
    pub(crate) fn stream(&self) -> Option<Arc<dyn Stream>> {
        self.look(|up| up.stream.clone())
    }

    /// The socket to watch while nobody leads and nothing was asked since `idle`; the next request ends the watch. A link that is
    /// idle keeps no memory of long requests.
    pub(crate) fn watch(&self, idle: Moment) -> Option<Arc<dyn Stream>> {
        let mut state = self.state.lock();
        let up = state.up.as_mut().filter(|up| up.lead.leader().is_none() && self.used() <= idle)?;
        if let Some(pen) = &mut up.pen {
            up.channel.shrink(&mut pen.outgoing);
        }
        self.watched.store(true, Ordering::Release);
        Some(up.stream.clone())
    }

    /// Whether it is to be tried now, or when; `None` when it is up, tried already, or not wanted any more.
    pub(crate) fn next_try(&self) -> Option<Moment> {
        let state = self.state.lock();
        (state.up.is_none() && !state.dialled && !self.is_retired()).then_some(state.next_try)
    }

    /// An attempt begins, unless one has.
    pub(crate) fn begin_dial(&self) -> bool {
        let mut state = self.state.lock();
        !std::mem::replace(&mut state.dialled, true) && state.up.is_none()
    }

    /// An attempt was broken off.
    pub(crate) fn stop_dial(&self) {
        self.state.lock().dialled = false;
    }

    /// An attempt has failed.
    pub(crate) fn refused(&self, shared: &Shared, reason: String) {
        let chance = chance(&*shared.platform);
        {
            let mut state = self.state.lock();
            state.dialled = false;
            state.put_off(shared.platform.now(), chance);
        }
        shared.link_down(self, reason);
    }

    /// An attempt has succeeded.
    pub(crate) fn opened(&self, shared: &Shared, opened: Opened) {
        let now = shared.platform.now();
        let mut state = self.state.lock();
        state.dialled = false;
        state.lives = state.lives.saturating_add(1);
        let handed = opened.outgoing.end();
        let life = state.lives;
        let pen = Pen { life, stream: opened.stream.clone(), outgoing: opened.outgoing };
        state.up = Some(Up {
            life,
            channel: opened.channel,
            stream: opened.stream,
            lead: Lead::new(),
            reader: Some(Box::new(Reader { buffer: vec![0; READ_BYTES], news: Vec::new() })),
            pen: Some(pen),
            handed,
            outstanding: Outstanding::default(),
            long: 0,
            woken: 0,
            since: now,
            heard: now,
            pinged: None,
            forgiven: false,
            stuck: None,
            draining: None,
            goodbye: None,
        });
        self.load.store(0, Ordering::Relaxed);
        self.long.store(0, Ordering::Relaxed);
        self.blocked.store(false, Ordering::Release);
        self.used.store(now.0, Ordering::Release);
        self.server.hear(now);
        self.open.store(true, Ordering::Release);
    }

    /// Queues a request and writes what the socket takes; whether it is on its way (otherwise it is `NotSent`).
    pub(crate) fn submit(
        self: &Arc<Self>,
        shared: &Shared,
        waiter: &Arc<Waiter>,
        header: &RequestHeader,
        body: &Zeroizing<Vec<u8>>,
        (since, deadline): (Moment, Moment),
    ) -> bool {
        let head = request_head(header, body.len());
        {
            let mut state = self.state.lock();
            let Some(up) = state.up.as_mut().filter(|up| up.takes_requests()) else { return false };
            if up.backlog() > BACKLOG_BYTES_MAX && !planted::is(Bug::BacklogUnbounded) {
                drop(state);
                // Perhaps nobody waits here any more who would write it out, or find that nothing takes it.
                self.tick(shared);
                return false;
            }
            let start = up.channel.queue(&[&head[..], body]);
            // The reply is written into the memory of one that this caller has read.
            if let Some(spare) = waiter.expect(self.number) {
                up.channel.lend(spare);
            }
            let is_long = body.len() > SHORT_BYTES_MAX;
            up.begin(Tag(header.tag), Pending { waiter: waiter.clone(), start, deadline, since, is_long });
            self.count(up);
        }
        self.used.store(since.0, Ordering::Release);
        if self.watched.swap(false, Ordering::AcqRel) {
            shared.stir();
        }
        self.flush(shared);
        true
    }

    /// Cancels a request; whether it was outstanding here.
    pub(crate) fn cancel(&self, shared: &Shared, tag: Tag) -> bool {
        let mut news = Vec::new();
        {
            let mut state = self.state.lock();
            let Some(up) = state.up.as_mut() else { return false };
            let Some(pending) = up.take(tag) else { return false };
            pending.waiter.forget(self.number);
            if !up.outstanding.values().any(|other| Arc::ptr_eq(&other.waiter, &pending.waiter)) {
                up.withdraw(&pending.waiter, &mut news);
            }
            up.channel.queue(&[&encode(&Frame::Cancel(tag.0))]);
            self.count(up);
        }
        self.tell(shared, &mut news);
        self.flush(shared);
        true
    }

    /// The waiter waits on this link from now on; the role of the leader, if it falls to it.
    pub(crate) fn enter(self: &Arc<Self>, waiter: &Arc<Waiter>) -> Option<Held> {
        let mut state = self.state.lock();
        let up = state.up.as_mut()?;
        let (leads, is_new) = up.lead.enter(waiter);
        if is_new {
            waiter.listed().fetch_add(1, Ordering::AcqRel);
        }
        let reader = up.reader.take_if(|_| leads)?;
        Some(Held { link: self.clone(), stream: up.stream.clone(), life: up.life, reader: Some(reader) })
    }

    /// The waiter waits on this link no more.
    pub(crate) fn leave(&self, waiter: &Arc<Waiter>) {
        let left = {
            let mut state = self.state.lock();
            let Some(up) = state.up.as_mut() else { return };
            let keeps = planted::is(Bug::TokenKept) && up.reader.is_some() && up.lead.is_led_by(waiter);
            let left = match keeps {
                true => Left { was_there: true, token: up.lead.leave_to(None) },
                false => up.lead.leave(waiter),
            };
            unlist(waiter, &left);
            left
        };
        if let Some(next) = left.token {
            next.park().unpark();
        }
    }

    /// Looks at it, while it is up.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Up) -> T) -> Option<T> {
        self.state.lock().up.as_ref().map(look)
    }

    /// Whether somebody leads.
    pub(crate) fn is_led(&self) -> bool {
        self.look(|up| up.lead.leader().is_some()).unwrap_or_default()
    }

    /// Takes no more requests; ends once those that are outstanding have ended.
    pub(crate) fn drain(&self, shared: &Shared, reason: &str) {
        self.open.store(false, Ordering::Release);
        self.retire();
        if let Some(up) = self.state.lock().up.as_mut() {
            up.draining.get_or_insert_with(|| reason.to_owned());
        }
        self.tick(shared);
    }

    /// Ends the connection in order; what is outstanding ends with a fault.
    pub(crate) fn close(&self, shared: &Shared, why: &str) {
        {
            let mut state = self.state.lock();
            let Some(up) = state.up.as_mut().filter(|up| up.goodbye.is_none()) else { return };
            up.channel.say_goodbye(why);
            up.draining.get_or_insert_with(|| why.to_owned());
            up.goodbye = Some(why.to_owned());
        }
        self.flush(shared);
    }

    /// Ends the connection at once.
    pub(crate) fn abandon(&self, shared: &Shared, reason: String) {
        if let Some(life) = self.look(|up| up.life) {
            self.fail(shared, life, reason);
        }
    }

    /// The connection of this life is gone: everything outstanding ends, everybody who waits here looks anew.
    #[cold]
    pub(crate) fn fail(&self, shared: &Shared, life: u64, reason: String) {
        let chance = chance(&*shared.platform);
        let up = {
            let mut state = self.state.lock();
            let Some(up) = state.up.take_if(|up| up.life == life) else { return };
            self.open.store(false, Ordering::Release);
            self.watched.store(false, Ordering::Release);
            self.load.store(0, Ordering::Relaxed);
            self.long.store(0, Ordering::Relaxed);
            let now = shared.platform.now();
            let was_good = now.since(up.since) >= GOOD_LIFE;
            state.attempt = if was_good { 0 } else { state.attempt.min(SHORT_LIFE_ATTEMPT) };
            state.put_off(now, chance);
            up
        };
        up.stream.shutdown();
        let reason = up.draining.unwrap_or(reason);
        let handed = if planted::is(Bug::WritingNotSent) { 0 } else { up.handed };
        let left = up.pen.as_ref().map_or(handed, |pen| pen.outgoing.start());
        // In the order of their submission.
        let mut outstanding: Vec<(Tag, Pending)> = up.outstanding.into_iter().collect();
        outstanding.sort_unstable_by_key(|(tag, _)| tag.0);
        for (tag, pending) in outstanding {
            let fault =
                if up.channel.has_left(pending.start, left) { Fault::Unknown } else { Fault::NotSent };
            pending.waiter.settle(self.number, Event::Fault(tag, fault));
        }
        for waiter in up.lead.into_all() {
            waiter.listed().fetch_sub(1, Ordering::AcqRel);
            waiter.park().unpark();
        }
        shared.link_lost(self, reason);
    }

    /// Whether it was to end what it had begun, and has.
    fn is_done(&self, up: &Up) -> bool {
        self.is_retired() && !self.is_open() && up.outstanding.is_empty()
    }

    /// Publishes how many requests are outstanding; under the lock.
    fn count(&self, up: &Up) {
        self.load.store(u32::try_from(up.outstanding.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.long.store(up.long, Ordering::Relaxed);
    }

    /// Tells what was found under the lock.
    fn tell(&self, shared: &Shared, news: &mut Vec<News>) {
        for one in news.drain(..) {
            match one {
                News::End(waiter, event) => waiter.settle(self.number, event),
                News::Progress(waiter, event) => waiter.deliver(event),
                News::Token(waiter) => waiter.park().unpark(),
                News::Offer(partitions) => shared.link_offers(self, partitions),
                News::Draining(reason) => {
                    self.open.store(false, Ordering::Release);
                    shared.link_drains(self, &reason);
                }
            }
        }
    }
}

impl State {
    /// The next try comes after a while (HA 4.5). Chance is drawn before the lock is taken: that may ask the system.
    fn put_off(&mut self, now: Moment, chance: u64) {
        self.next_try = now.after(retry_delay(chance, self.attempt));
        self.attempt = self.attempt.saturating_add(1);
    }
}

/// A number that nobody can foresee.
pub(crate) fn chance(platform: &dyn Platform) -> u64 {
    let mut chance = [0; 8];
    platform.random(&mut chance);
    u64::from_be_bytes(chance)
}

impl Held {
    /// Reads once, decrypts, splits and wakes (HA 5 (6)).
    pub(crate) fn read(&mut self, shared: &Shared) -> Turn {
        let Some(reader) = self.reader.as_mut() else { return Turn::Gone };
        let outcome = match self.stream.read(&mut reader.buffer) {
            Ok(0) => Err(format!("{} closed the connection", self.link.server.address)),
            Ok(count) => self.take(shared, count),
            Err(error) if is_pause(&error) => return Turn::Led,
            Err(error) => Err(format!("the connection to {} broke: {error}", self.link.server.address)),
        };
        match outcome {
            Ok(turn) => turn,
            Err(reason) => self.broken(shared, reason),
        }
    }

    #[cold]
    fn broken(&self, shared: &Shared, reason: String) -> Turn {
        // An alert that tells the peer is on its way at best.
        self.link.flush(shared);
        self.link.fail(shared, self.life, reason);
        Turn::Gone
    }

    fn take(&mut self, shared: &Shared, count: usize) -> Result<Turn, String> {
        let now = shared.platform.now();
        self.link.server.hear(now);
        let Some(reader) = self.reader.as_mut() else { return Ok(Turn::Gone) };
        let (outcome, answers, is_done) = {
            let mut state = self.link.state.lock();
            let Some(up) = state.up.as_mut().filter(|up| up.life == self.life) else { return Ok(Turn::Gone) };
            up.heard = now;
            (up.pinged, up.forgiven) = (None, false);
            let outcome = up
                .channel
                .received(reader.buffer.get(..count).unwrap_or_default())
                .and_then(|()| up.take_frames(&mut reader.news))
                .and_then(|()| match up.channel.has_ended() {
                    true => Err(format!("{} closed the connection", self.link.server.address)),
                    false => Ok(()),
                });
            self.link.count(up);
            (outcome, up.channel.backlog() > 0, self.link.is_done(up))
        };
        self.link.tell(shared, &mut reader.news);
        outcome?;
        if answers {
            self.link.flush(shared);
        }
        if is_done {
            self.link.close(shared, DONE);
            return Ok(Turn::Gone);
        }
        Ok(Turn::Led)
    }

    /// The role goes back: the flag is cleared, the list read again, the next one woken.
    pub(crate) fn step_down(mut self, shared: &Shared, waiter: &Arc<Waiter>) {
        let seen = planted::is(Bug::HandOverUnread).then(|| self.last(shared));
        let token = {
            let mut state = self.link.state.lock();
            let Some(up) = state.up.as_mut().filter(|up| up.life == self.life) else { return };
            up.reader = self.reader.take();
            let left = match seen {
                Some(seen) => Left { was_there: true, token: up.lead.leave_to(seen) },
                None => up.lead.leave(waiter),
            };
            unlist(waiter, &left);
            left.token
        };
        if let Some(next) = token {
            next.park().unpark();
        }
    }
    /// What must not be: who would get the token, read once and for all before the role is given back.
    fn last(&self, shared: &Shared) -> Option<Arc<Waiter>> {
        let seen = self.link.look(|up| up.lead.last()).flatten();
        shared.platform.yield_now();
        seen
    }
}

#[cfg(test)]
impl Link {
    /// As if it were up, with so many requests outstanding, and so many long ones.
    pub(crate) fn pretend(&self, load: u32, long: u32, is_blocked: bool) {
        self.open.store(true, Ordering::Relaxed);
        self.load.store(load, Ordering::Relaxed);
        self.long.store(long, Ordering::Relaxed);
        self.blocked.store(is_blocked, Ordering::Relaxed);
    }

    /// As if its connection had just ended.
    pub(crate) fn pretend_gone(&self) {
        self.open.store(false, Ordering::Release);
    }
}
