//! How a waiting thread drives the links (HA 5): what [`lent`](crate::lent) decides, done with sockets and parkers.
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spec::planted::{self, Bug};
use spec::platform::{Moment, Watched};
use spec::seam::{Event, Waiter};

use crate::duty::Duty;
use crate::lent::{Entered, Few, Ground, lend};
use crate::link::{Held, Link, Turn};
use crate::links::Shared;

/// The waiter's next event, or `Deadline` once the moment has come.
pub(crate) fn wait(shared: &Arc<Shared>, waiter: &Arc<Waiter>, until: Moment) -> Event {
    match waiter.take() {
        Some(event) => event,
        None => lend(&Thread { shared, waiter, watches: Cell::new(false) }, until),
    }
}

/// The calling thread.
struct Thread<'a> {
    shared: &'a Arc<Shared>,
    waiter: &'a Arc<Waiter>,
    /// Whether it watches idle sockets with the background work, too.
    watches: Cell<bool>,
}

impl Thread<'_> {
    /// Reads and writes what a poll has found ready; whether the link is still led.
    fn turn(&self, held: &mut Held, found: &Watched) -> bool {
        if found.writable {
            held.link.flush(self.shared);
        }
        !found.readable || matches!(held.read(self.shared), Turn::Led)
    }

    /// Polls several links, or links with the background work. It stands apart because that work takes pages of stack, which a call
    /// with one link would pass over each time.
    #[inline(never)]
    fn poll_all(&self, roles: &mut Few<(u32, Held)>, work: Option<&mut Box<Duty>>, until: Moment) {
        let platform = &self.shared.platform;
        let mut all: Vec<Watched> = roles.iter().map(|(_, held)| watched(held)).collect();
        if let Some(work) = &work {
            work.watched(&mut all);
        }
        platform.poll(&mut all, self.waiter.park(), until);
        let led = roles.len();
        let mut found = all.iter();
        roles.retain_mut(|(_, held)| found.next().is_none_or(|found| self.turn(held, found)));
        if let Some(work) = work {
            work.turn(self.shared, self.waiter, all.get(led..).unwrap_or_default());
        }
    }
}

fn watched(held: &Held) -> Watched {
    Watched::new(held.stream.clone(), held.link.is_blocked())
}

impl Ground for Thread<'_> {
    type Event = Event;
    type Role = Held;
    type Listed = Arc<Link>;
    type Work = Box<Duty>;

    fn take(&self) -> Option<Event> {
        self.waiter.take()
    }

    fn forget(&self) {
        self.waiter.park().forget();
    }

    fn late(&self) -> Event {
        Event::Deadline
    }

    fn now(&self) -> Moment {
        self.shared.platform.now()
    }

    fn place(&self, index: usize) -> Option<u32> {
        self.waiter.place(index)
    }

    fn enter(&self, place: u32) -> Entered<Held, Arc<Link>> {
        let Some(link) = self.shared.link(place) else { return Entered::Gone };
        match link.enter(self.waiter) {
            Some(held) => Entered::Leader(held),
            None => Entered::Listed(link),
        }
    }

    fn work(&self, for_news: bool) -> Option<Box<Duty>> {
        if self.shared.is_closing() {
            return None;
        }
        let (may, watches) = self.shared.may_work(for_news);
        self.watches.set(watches);
        if may { self.shared.seat.enter(self.waiter, || self.shared.may_work(for_news).0) } else { None }
    }

    fn begin(&self, work: &mut Box<Duty>, now: Moment) -> Moment {
        work.begin(self.shared, now, self.watches.get())
    }

    fn tick(&self, role: &Held) {
        role.link.tick(self.shared);
    }

    fn park(&self, until: Moment) {
        self.waiter.park().park(until);
    }

    fn poll(&self, roles: &mut Few<(u32, Held)>, work: Option<&mut Box<Duty>>, until: Moment) {
        let platform = &self.shared.platform;
        let alone = if work.is_none() && roles.len() == 1 { roles.iter().next() } else { None };
        // The usual case without a list on the heap.
        if let Some((_, held)) = alone {
            let mut one = [watched(held)];
            platform.poll(&mut one, self.waiter.park(), until);
            let [one] = one;
            return roles.retain_mut(|(_, held)| self.turn(held, &one));
        }
        self.poll_all(roles, work, until);
    }

    fn step_down(&self, role: Held) {
        role.step_down(self.shared, self.waiter);
    }

    fn leave_work(&self, work: Option<Box<Duty>>) {
        self.shared.seat.leave(self.waiter, work);
    }

    fn is_listed(&self) -> bool {
        self.waiter.listed().load(Ordering::Acquire) > 0
    }

    fn leave(&self, listed: Arc<Link>) {
        if planted::is(Bug::TokenKept) {
            // A token may come at this very moment.
            self.shared.platform.yield_now();
        }
        listed.leave(self.waiter);
    }
}

#[cfg(test)]
#[path = "wait_tests.rs"]
mod tests;
