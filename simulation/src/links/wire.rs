//! One simulated connection: bytes that travel, arrive in pieces, wait, break off.
//!
//! ```text
//! Connecting --SYN arrives where somebody listens--> Open --reset, or both sides have ended--> of no more use
//!     '--nobody listens--> Refused        a way: written -> in transit -> arrived -> read, never more than the window
//! ```
use std::any::Any;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use spec::platform::Stream;

use super::desk::Desk;
use super::ledger::Ledger;
use super::server::{Connection, Server};
use super::{MS, S, US};
use crate::world::World;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the server.
    Up,
    /// To the application.
    Down,
}

/// What all connections have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// How long bytes travel at least, in nanoseconds.
    pub(crate) delay: u64,
    /// Bytes of one way that have been sent and not been read, at most.
    pub(crate) window: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    Refused,
}

/// A connection between a process and a server.
pub(crate) struct Wire {
    pub(crate) number: u64,
    pub(crate) process: usize,
    pub(crate) server: Arc<Server>,
    world: Arc<World>,
    ledger: Arc<Ledger>,
    line: Line,
    state: Mutex<State>,
    far: OnceLock<Weak<Connection>>,
}

struct State {
    phase: Phase,
    up: Lane,
    down: Lane,
    /// What the application's side hears once it has read what has arrived.
    error: Option<ErrorKind>,
    /// The application has ended it.
    shut: bool,
    /// Nobody is at the other end, and nobody says so before something arrives there.
    forsaken: bool,
    pollers: Vec<usize>,
    /// Where on the way down the replies to requests end.
    marks: VecDeque<(u64, u64)>,
}

#[derive(Default)]
struct Lane {
    /// What the sender has and the window does not take yet.
    waiting: VecDeque<u8>,
    transit: VecDeque<(u64, Vec<u8>)>,
    arrived: VecDeque<u8>,
    /// Bytes that have arrived since the beginning, and bytes that were sent.
    delivered: u64,
    sent: u64,
    last_at: u64,
    held_from: u64,
    held_until: u64,
    /// Bytes come one by one, nearly.
    trickles: bool,
    /// The connection breaks once so many bytes more have arrived.
    fuse: Option<u64>,
    /// The sender ends behind what it has sent; the receiver knows.
    fin: bool,
    ended: bool,
}

impl Lane {
    fn on_the_way(&self) -> usize {
        self.transit.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + self.arrived.len()
    }
}

impl Wire {
    /// A connection that begins; `open` answers the first packet in time.
    pub(crate) fn begin(
        world: &Arc<World>,
        ledger: &Arc<Ledger>,
        line: Line,
        (number, process, server): (u64, usize, Arc<Server>),
    ) -> Arc<Self> {
        let state = State {
            phase: Phase::Connecting,
            up: Lane::default(),
            down: Lane::default(),
            error: None,
            shut: false,
            forsaken: false,
            pollers: Vec::new(),
            marks: VecDeque::new(),
        };
        let wire = Arc::new(Self {
            number,
            process,
            server,
            world: world.clone(),
            ledger: ledger.clone(),
            line,
            state: Mutex::new(state),
            far: OnceLock::new(),
        });
        wire.later(2 * line.delay, |wire| wire.knock());
        wire
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn later(self: &Arc<Self>, delay: u64, what: impl FnOnce(&Arc<Wire>) + Send + 'static) {
        let weak = Arc::downgrade(self);
        self.world.after(delay, move || {
            if let Some(wire) = weak.upgrade() {
                what(&wire);
            }
        });
    }

    /// The first packet, and again every second until it is answered.
    fn knock(self: &Arc<Self>) {
        let now = self.world.now();
        {
            let mut state = self.state();
            if state.shut || state.phase != Phase::Connecting {
                return;
            }
            if state.up.held_until.max(state.down.held_until) > now || !self.server.is_there() {
                drop(state);
                return self.later(S, |wire| wire.knock());
            }
            state.phase = if self.server.listens() { Phase::Open } else { Phase::Refused };
        }
        if self.state().phase == Phase::Open {
            let far = self.server.accept(self);
            self.far.get_or_init(|| far);
        }
        self.world.note(self.number, || format!("connection {} is answered", self.number));
        self.wake();
    }

    /// Wakes whoever polls it.
    fn wake(&self) {
        let pollers = std::mem::take(&mut self.state().pollers);
        pollers.into_iter().for_each(|thread| self.world.wake(thread));
    }

    fn lane(state: &mut State, way: Way) -> &mut Lane {
        match way {
            Way::Up => &mut state.up,
            Way::Down => &mut state.down,
        }
    }

    /// Bytes begin to travel.
    fn send(self: &Arc<Self>, state: &mut State, way: Way, bytes: Vec<u8>) {
        let jitter = self.world.chance(|chance| chance.below(self.line.delay / 4 + 1));
        let lane = Self::lane(state, way);
        let at = lane.last_at.max(self.world.now() + self.line.delay + jitter);
        lane.last_at = at;
        lane.sent += bytes.len() as u64;
        lane.transit.push_back((at, bytes));
        self.later(at - self.world.now(), move |wire| wire.arrive(way));
    }

    /// What is due arrives, as far as it may.
    fn arrive(self: &Arc<Self>, way: Way) {
        let now = self.world.now();
        let mut state = self.state();
        let is_void = match way {
            Way::Up => state.forsaken,
            Way::Down => state.error.is_some() || state.shut,
        };
        let lane = Self::lane(&mut state, way);
        if lane.held_until > now {
            let delay = lane.held_until - now;
            drop(state);
            return if delay < 1_000 * S {
                self.later(delay, move |wire| wire.arrive(way))
            };
        }
        let (mut burnt, mut again) = (false, None);
        while let Some((at, bytes)) = lane.transit.front_mut().filter(|(at, _)| *at <= now) {
            let mut most = bytes.len();
            if lane.trickles {
                most = most.min(self.world.chance(|chance| chance.place(60)) + 1);
            }
            if let Some(fuse) = lane.fuse {
                most = most.min(usize::try_from(fuse).unwrap_or(usize::MAX));
                lane.fuse = Some(fuse - most as u64);
                burnt = lane.fuse == Some(0);
            }
            let piece: Vec<u8> = bytes.drain(..most).collect();
            lane.delivered += piece.len() as u64;
            if !is_void {
                lane.arrived.extend(piece);
            }
            if bytes.is_empty() {
                lane.transit.pop_front();
            } else {
                let gap = self.world.chance(|chance| chance.between(100 * US, 3 * MS));
                *at = now + gap;
                again = Some(gap);
            }
            if burnt {
                break;
            }
        }
        lane.ended |= lane.fin && lane.transit.is_empty() && lane.waiting.is_empty();
        let delivered = lane.delivered;
        if way == Way::Down && !is_void {
            while state.marks.front().is_some_and(|(end, _)| *end <= delivered) {
                let mark = state.marks.pop_front();
                mark.into_iter().for_each(|(_, request)| self.ledger.arrived(request));
            }
        }
        drop(state);
        if let Some(gap) = again {
            self.later(gap, move |wire| wire.arrive(way));
        }
        self.told(way, burnt);
    }

    /// Whoever is at the end of the way looks.
    fn told(self: &Arc<Self>, way: Way, burnt: bool) {
        if burnt {
            return self.reset();
        }
        match (way, self.far.get().and_then(Weak::upgrade)) {
            (Way::Down, _) => self.wake(),
            (Way::Up, Some(far)) if !self.state().forsaken => far.look(),
            (Way::Up, _) => self.answer_reset(),
        }
    }

    /// Nobody is there any more for what has arrived: the host says so, if there is a host.
    fn answer_reset(self: &Arc<Self>) {
        if self.server.is_there() {
            self.later(self.line.delay, |wire| wire.break_off());
        }
    }

    /// Breaks for both sides; the server may hear of it a little later, and of what was on its way.
    pub(crate) fn reset(self: &Arc<Self>) {
        self.break_off();
        let delay = self.world.chance(|chance| if chance.once_in(2) { 0 } else { chance.below(2 * MS) });
        self.later(delay, |wire| {
            if let Some(far) = wire.far.get().and_then(Weak::upgrade) {
                far.end();
            }
        });
    }

    /// Breaks for the application's side.
    fn break_off(&self) {
        let drops = self.world.chance(|chance| chance.once_in(2));
        {
            let mut state = self.state();
            if state.error.is_some() {
                return;
            }
            state.error = Some(ErrorKind::ConnectionReset);
            if drops {
                state.down.arrived.clear();
            }
        }
        self.world.note(self.number, || format!("connection {} is reset", self.number));
        self.wake();
    }

    /// The other end is gone; nobody hears of it before something arrives there.
    pub(crate) fn forsake(&self) {
        self.state().forsaken = true;
    }

    /// Nothing arrives this way until then.
    pub(crate) fn hold(self: &Arc<Self>, way: Way, until: u64) {
        let mut state = self.state();
        let lane = Self::lane(&mut state, way);
        let now = self.world.now();
        if lane.held_until < now {
            lane.held_from = now;
        }
        lane.held_until = lane.held_until.max(until);
    }

    /// Whether nothing arrives at the server from one moment to another.
    pub(crate) fn was_held_up(&self, from: u64, to: u64) -> bool {
        let state = self.state();
        state.up.held_from <= from && state.up.held_until >= to
    }

    /// The network is well again.
    pub(crate) fn heal(self: &Arc<Self>) {
        {
            let mut state = self.state();
            for way in [Way::Up, Way::Down] {
                let lane = Self::lane(&mut state, way);
                (lane.held_until, lane.trickles, lane.fuse) = (0, false, None);
            }
        }
        self.later(0, |wire| wire.arrive(Way::Up));
        self.later(0, |wire| wire.arrive(Way::Down));
    }

    /// Bytes come one by one from now on, or as they are sent.
    pub(crate) fn trickle(&self, way: Way, trickles: bool) {
        Self::lane(&mut self.state(), way).trickles = trickles;
    }

    /// Breaks once so many bytes more have arrived.
    pub(crate) fn light(&self, way: Way, bytes: u64) {
        Self::lane(&mut self.state(), way).fuse = Some(bytes);
    }

    /// Whether it may still be of use.
    pub(crate) fn is_alive(&self) -> bool {
        let state = self.state();
        state.error.is_none() && !state.shut && state.phase == Phase::Open
    }

    /// Whether it may still be of use, now or once it is answered.
    pub(crate) fn is_open(&self) -> bool {
        let state = self.state();
        state.error.is_none() && !state.shut && state.phase != Phase::Refused
    }

    /// The application ends its side.
    pub(crate) fn shut(self: &Arc<Self>) {
        {
            let mut state = self.state();
            if state.shut {
                return;
            }
            state.shut = true;
            state.up.fin = true;
        }
        self.world.note(self.number, || format!("connection {} is shut", self.number));
        self.later(self.line.delay, |wire| wire.arrive(Way::Up));
        self.wake();
    }

    /// What has arrived at the server, and whether the application has ended its side.
    pub(crate) fn take(self: &Arc<Self>) -> (Vec<u8>, bool) {
        let taken = {
            let mut state = self.state();
            let all = state.up.arrived.drain(..).collect();
            (all, state.up.ended)
        };
        self.wake();
        taken
    }

    /// The server writes; the replies to these requests end at these distances from the beginning of the bytes.
    pub(crate) fn answer(self: &Arc<Self>, bytes: Vec<u8>, ends: &[(u64, u64)]) {
        let mut state = self.state();
        let start = state.down.sent + state.down.waiting.len() as u64;
        state.marks.extend(ends.iter().map(|(end, request)| (start + end, *request)));
        state.down.waiting.extend(bytes);
        self.fill(&mut state);
    }

    /// The server ends its side behind what it has written.
    pub(crate) fn finish(self: &Arc<Self>) {
        self.state().down.fin = true;
        self.later(self.line.delay, |wire| wire.arrive(Way::Down));
    }

    /// What the window has room for leaves the server.
    fn fill(self: &Arc<Self>, state: &mut State) {
        let room = self.line.window.saturating_sub(state.down.on_the_way());
        let count = room.min(state.down.waiting.len());
        if count > 0 {
            let bytes = state.down.waiting.drain(..count).collect();
            self.send(state, Way::Down, bytes);
        }
    }
}

/// The application's end.
pub(crate) struct Socket {
    wire: Arc<Wire>,
    desk: Arc<Desk>,
}

impl Socket {
    /// The end of a connection in the hands of a process.
    pub(crate) fn new(wire: Arc<Wire>, desk: Arc<Desk>) -> Self {
        desk.count_stream(1);
        Self { wire, desk }
    }

    /// Whether a read would answer something, and whether a write would.
    pub(crate) fn readiness(&self) -> (bool, bool) {
        let state = self.wire.state();
        let over = state.error.is_some() || state.shut || state.phase == Phase::Refused;
        let room = state.phase == Phase::Open && state.up.on_the_way() < self.wire.line.window;
        (over || !state.down.arrived.is_empty() || state.down.ended, over || room)
    }

    /// The thread is woken when something happens.
    pub(crate) fn polled_by(&self, thread: usize, polls: bool) {
        let mut state = self.wire.state();
        state.pollers.retain(|other| *other != thread);
        if polls {
            state.pollers.push(thread);
        }
    }
}

impl Stream for Socket {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.desk.enter_system("read");
        self.desk.lead_on();
        let short = self.wire.world.chance(|chance| chance.once_in(16).then(|| chance.place(200) + 1));
        let mut state = self.wire.state();
        if state.phase == Phase::Refused {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        if state.shut {
            return Ok(0);
        }
        let count = state.down.arrived.len().min(buffer.len()).min(short.unwrap_or(usize::MAX));
        if count == 0 {
            return match state.error {
                Some(error) => Err(error.into()),
                None if state.down.ended => Ok(0),
                None => Err(ErrorKind::WouldBlock.into()),
            };
        }
        for (to, from) in buffer.iter_mut().zip(state.down.arrived.drain(..count)) {
            *to = from;
        }
        self.wire.fill(&mut state);
        Ok(count)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.desk.enter_system("write");
        let short = self.wire.world.chance(|chance| chance.once_in(16).then(|| chance.place(2_000) + 1));
        let count = {
            let mut state = self.wire.state();
            match (state.phase, state.error) {
                (Phase::Refused, _) => return Err(ErrorKind::ConnectionRefused.into()),
                (_, Some(error)) => return Err(error.into()),
                _ if state.shut => return Err(ErrorKind::BrokenPipe.into()),
                (Phase::Connecting, _) => return Err(ErrorKind::WouldBlock.into()),
                (Phase::Open, None) => {}
            }
            let room = self.wire.line.window.saturating_sub(state.up.on_the_way());
            let count = room.min(bytes.len()).min(short.unwrap_or(usize::MAX));
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.wire.send(&mut state, Way::Up, bytes[..count].to_vec());
            count
        };
        // Written, and the thread that wrote does not know it yet.
        self.desk.enter_system("written");
        Ok(count)
    }

    fn shutdown(&self) {
        self.wire.shut();
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.wire.shut();
        self.desk.count_stream(-1);
    }
}

/// The socket of a stream that the simulation made.
pub(crate) fn socket(stream: &dyn Stream) -> &Socket {
    (stream as &dyn Any).downcast_ref::<Socket>().expect("a platform polls streams that it made itself")
}
