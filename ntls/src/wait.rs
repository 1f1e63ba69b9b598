//! How a waiting thread drives the links (HA 5): it leads those of its links that nobody leads, does the background work
//! if that falls to it, polls both, and parks only when it has neither.
//!
//! ```text
//! join (lists, tokens) -> mailbox -> poll or park -> read, flush, tick -> join ...      any exit leaves all lists
//! ```
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spec::platform::{Moment, Watched};
use spec::seam::{Event, Waiter};

use crate::duty::Duty;
use crate::link::{Held, Link, Turn};
use crate::links::Shared;

/// How often a leader looks at deadlines and silence, in milliseconds.
const TICK_MS: u64 = 100;

/// The waiter's next event, or `Deadline` once the moment has come.
pub(crate) fn wait(shared: &Arc<Shared>, waiter: &Arc<Waiter>, until: Moment) -> Event {
    if let Some(event) = waiter.take() {
        return event;
    }
    let mut lent = Lent {
        shared,
        waiter,
        held: Vec::new(),
        entered: Vec::new(),
        duty: None,
        watched: Vec::new(),
        watches: false,
    };
    lent.run(until)
}

/// A thread lent to the links. Dropping it gives back every role.
struct Lent<'a> {
    shared: &'a Arc<Shared>,
    waiter: &'a Arc<Waiter>,
    held: Vec<Held>,
    /// The links in whose lists the waiter may stand. Its requests there may have ended meanwhile.
    entered: Vec<Arc<Link>>,
    duty: Option<Box<Duty>>,
    watched: Vec<Watched>,
    /// Whether idle sockets are watched, too.
    watches: bool,
}

impl Lent<'_> {
    fn run(&mut self, until: Moment) -> Event {
        let platform = &self.shared.platform;
        let mut ticked = platform.now();
        loop {
            self.join();
            if let Some(event) = self.waiter.take() {
                return event;
            }
            let now = platform.now();
            if now >= until {
                return Event::Deadline;
            }
            if now >= ticked.after_ms(TICK_MS) {
                ticked = now;
                self.held.iter().for_each(|held| held.link.tick(self.shared));
            }
            let mut next = until;
            if !self.held.is_empty() {
                next = next.min(ticked.after_ms(TICK_MS));
            }
            if let Some(duty) = self.duty.as_mut() {
                next = next.min(duty.begin(self.shared, now, self.watches));
            }
            if self.held.is_empty() && self.duty.is_none() {
                self.waiter.park().park(next);
            } else {
                self.poll(next);
            }
        }
    }

    /// Stands in the list of every link with requests of this waiter, and takes the roles that fall to it.
    fn join(&mut self) {
        let mut index = 0;
        while let Some(place) = self.waiter.place(index) {
            index = index.saturating_add(1);
            if self.held.iter().any(|held| held.link.number == place) {
                continue;
            }
            let Some(link) = self.shared.link(place) else { continue };
            match link.enter(self.waiter) {
                Some(held) => self.held.push(held),
                None if self.entered.iter().any(|entered| entered.number == place) => {}
                None => self.entered.push(link),
            }
        }
        if self.duty.is_none() && !self.shared.is_closing() {
            let (may, watches) = self.shared.may_work(index == 0);
            self.watches = watches;
            if may {
                self.duty = self.shared.seat.enter(self.waiter);
            }
        }
    }

    fn poll(&mut self, next: Moment) {
        self.watched.clear();
        self.watched
            .extend(self.held.iter().map(|held| Watched::new(held.stream.clone(), held.link.is_blocked())));
        if let Some(duty) = &self.duty {
            duty.watched(&mut self.watched);
        }
        self.shared.platform.poll(&mut self.watched, self.waiter.park(), next);
        let (shared, watched) = (self.shared, &self.watched);
        let led = self.held.len();
        let mut found = watched.iter();
        self.held.retain_mut(|held| {
            let Some(one) = found.next() else { return true };
            if one.writable {
                held.link.flush(shared);
            }
            !one.readable || matches!(held.read(shared), Turn::Led)
        });
        if let Some(duty) = self.duty.as_mut() {
            duty.turn(shared, self.waiter, watched.get(led..).unwrap_or_default());
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        for held in self.held.drain(..) {
            held.step_down(self.waiter);
        }
        if self.duty.is_some() {
            self.shared.seat.leave(self.waiter, self.duty.take());
        }
        // Whom a leader has taken off its list already is nowhere any more.
        if self.waiter.listed().load(Ordering::Acquire) == 0 {
            return;
        }
        for link in self.entered.drain(..) {
            link.leave(self.waiter);
        }
        self.shared.seat.leave(self.waiter, None);
    }
}
