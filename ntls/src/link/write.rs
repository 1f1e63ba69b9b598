//! The writing of a link: its [`pen`](crate::pen) with the bytes and the socket.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spec::platform::Moment;
use spec::seam::Waiter;

use crate::link::Link;
use crate::links::Shared;
use crate::pen::{self, Desk, Ground};
use crate::up::{Pen, Up};

/// Which connection is to end, and why.
type End = (u64, String);

impl Link {
    /// Writes what waits, unless another thread is writing: that one writes ours, too ([`pen::flush`]).
    pub(crate) fn flush(&self, shared: &Shared) {
        if let Some((life, why)) = pen::flush(&Writing { link: self, shared }) {
            self.fail(shared, life, why);
        }
    }
}

struct Writing<'a> {
    link: &'a Link,
    shared: &'a Shared,
}

impl Ground for Writing<'_> {
    type Desk = Up;

    fn lock<T>(&self, act: impl FnOnce(&mut Up) -> T) -> Option<T> {
        self.link.state.lock().up.as_mut().map(act)
    }

    fn yield_now(&self) {
        self.shared.platform.yield_now();
    }

    fn now(&self) -> Moment {
        self.shared.platform.now()
    }

    fn write(&self, pen: &mut Pen) -> Result<bool, End> {
        let broken = |error| format!("the connection broke while it was written to: {error}");
        pen.outgoing.write(&*pen.stream).map_err(|error| (pen.life, broken(error)))
    }

    fn unblock(&self) {
        self.link.blocked.store(false, Ordering::Release);
    }

    fn block(&self) -> bool {
        self.link.blocked.swap(true, Ordering::AcqRel)
    }

    fn wake(&self, leader: Arc<Waiter>) {
        leader.park().unpark();
    }
}

impl Desk for Up {
    type Pen = Pen;
    type Leader = Arc<Waiter>;
    type End = End;

    fn take(&mut self) -> Option<Pen> {
        self.pen.take()
    }

    fn owns(&self, pen: &Pen) -> bool {
        pen.life == self.life
    }

    fn is_filled(pen: &Pen) -> bool {
        pen.outgoing.left() > 0
    }

    fn has_queued(&self) -> bool {
        self.channel.backlog() > 0
    }

    /// Others wait here, or have just heard.
    fn has_company(&self) -> bool {
        self.outstanding.len() > 1 || self.woken > 1
    }

    fn fill(&mut self, pen: &mut Pen) {
        self.woken = 0;
        self.channel.take(&mut pen.outgoing);
        self.handed = pen.outgoing.end();
    }

    /// Whoever writes the last of it ends a connection that says goodbye, and nobody waits for room just to say it.
    fn lay(&mut self, pen: Pen, full: Option<Moment>) -> Option<End> {
        let start = pen.outgoing.start();
        self.stuck = match (full, self.stuck) {
            (Some(_), Some(stuck)) if stuck.1 == start => Some(stuck),
            (full, _) => full.map(|now| (now, start)),
        };
        self.pen = Some(pen);
        self.goodbye.clone().map(|why| (self.life, why))
    }

    fn leader(&self) -> Option<Arc<Waiter>> {
        self.lead.leader().cloned()
    }
}
