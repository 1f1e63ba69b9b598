//! What was asked, executed, answered and heard, and what of it contradicts what (HA 4.1).
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::MS;
use crate::world::World;

/// A reply that has come is heard by its caller within so many nanoseconds, unless something of its process stands still.
const HEARD_WITHIN: u64 = 5 * MS;

/// How a request has ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Reply,
    Busy,
    NotSent,
    Unknown,
    /// Its caller has given it up.
    Cancelled,
}

#[derive(Default)]
struct Entry {
    executed: u32,
    busy: bool,
    /// When the last byte of its reply lay in the socket of its process.
    arrived: Option<u64>,
    end: Option<End>,
}

/// All requests of a world, by their numbers.
pub(crate) struct Ledger {
    world: Arc<World>,
    entries: Mutex<Vec<Entry>>,
}

impl Ledger {
    /// An empty one.
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self { world: world.clone(), entries: Mutex::default() })
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is about to be submitted; its number.
    pub(crate) fn begin(&self) -> u64 {
        let mut entries = self.entries();
        entries.push(Entry::default());
        entries.len() as u64 - 1
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.entries().len() as u64
    }

    fn with<T>(&self, number: u64, change: impl FnOnce(&mut Entry) -> T) -> T {
        let index = usize::try_from(number).expect("requests are numbered as they are listed");
        change(&mut self.entries()[index])
    }

    /// A server executes it.
    pub(crate) fn executed(&self, number: u64) {
        let (count, end) = self.with(number, |entry| {
            entry.executed += 1;
            (entry.executed, entry.end)
        });
        if count > 1 {
            self.world.fail(format!("request {number} was submitted once and executed twice"));
        }
        if end == Some(End::NotSent) {
            self.world.fail(format!("request {number} is executed, although it was called not sent"));
        }
    }

    /// A server answers Busy to it.
    pub(crate) fn busy(&self, number: u64) {
        self.with(number, |entry| entry.busy = true);
    }

    /// The last byte of its reply lies in the socket of its process.
    pub(crate) fn arrived(&self, number: u64) {
        let now = self.world.now();
        self.with(number, |entry| entry.arrived = Some(now));
    }

    /// Whether its caller has heard its reply.
    pub(crate) fn was_answered(&self, number: u64) -> bool {
        self.with(number, |entry| entry.end == Some(End::Reply))
    }

    /// Whether its caller has heard of an end, or has given it up.
    pub(crate) fn has_ended(&self, number: u64) -> bool {
        self.with(number, |entry| entry.end.is_some())
    }

    /// Its caller waits until a moment that has come, since `since`; `stalled` as for [`Self::ended`].
    pub(crate) fn waits(&self, number: u64, since: u64, stalled: impl Fn(u64, u64) -> bool) {
        let arrived = self.with(number, |entry| entry.arrived);
        self.judge_waiting(number, "it waits on", arrived, since, stalled);
    }

    fn judge_waiting(
        &self,
        number: u64,
        end: &str,
        arrived: Option<u64>,
        since: u64,
        stalled: impl Fn(u64, u64) -> bool,
    ) {
        let now = self.world.now();
        if let Some(arrived) = arrived {
            let from = arrived.max(since);
            let late = now.saturating_sub(from);
            if late > HEARD_WITHIN && !stalled(from, now) {
                let late_ms = late / MS;
                self.world.fail(format!(
                    "the reply to request {number} lay in the socket for {late_ms} ms while its caller waited ({end})"
                ));
            }
        }
    }

    /// Its caller has heard of an end after it had given it up.
    pub(crate) fn ended_after_all(&self, number: u64, end: End) {
        let found = self.with(number, |entry| {
            entry.end = Some(end);
            (entry.executed, entry.busy)
        });
        self.judge(number, end, found);
    }

    fn judge(&self, number: u64, end: End, (executed, busy): (u32, bool)) {
        match end {
            End::NotSent if executed > 0 => {
                self.world.fail(format!("request {number} was executed and is called not sent"));
            }
            End::Reply if executed == 0 => {
                self.world.fail(format!("request {number} was answered without being executed"));
            }
            End::Busy if !busy => self.world.fail(format!("request {number}: Busy comes from nowhere")),
            End::NotSent | End::Reply | End::Busy | End::Unknown | End::Cancelled => {}
        }
    }

    /// Its caller has heard its end; `since` is when it began to wait, `stalled` whether something of the process stood
    /// still between two moments.
    pub(crate) fn ended(&self, number: u64, end: End, since: u64, stalled: impl Fn(u64, u64) -> bool) {
        let (before, executed, busy, arrived) =
            self.with(number, |entry| (entry.end.replace(end), entry.executed, entry.busy, entry.arrived));
        if let Some(before) = before {
            self.world.fail(format!("request {number} ended twice: {before:?}, then {end:?}"));
        }
        self.judge(number, end, (executed, busy));
        // Also one that was given up: its reply had come and its caller slept on.
        let arrived = arrived.filter(|_| end != End::NotSent);
        self.judge_waiting(number, &format!("{end:?}"), arrived, since, stalled);
    }
}
