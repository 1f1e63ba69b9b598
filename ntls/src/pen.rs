//! Who writes for all: the pen of one link, without any input or output, so that it can be checked (`tests` below, by `loom`:
//! every run of few threads that are interrupted at most twice).
//!
//! ```text
//!              flush                        all is written
//! on the desk -------> in one thread's hands --------------> looks at the desk again --> something is queued: writes on
//!   ^  ^                      |                                  `--> nothing is: lays the pen down under the same lock
//!   |  '----------------------|----------------------------------------'
//!   '------------------------ the socket takes no more: lays it down with the rest, and tells the leader
//! ```
//! Whoever queues bytes and finds no pen may go: the thread that has it looks at the queue under the lock before it lays the
//! pen down. Bytes that no thread writes wait for room, and the leader polls for that (HA 5 (4)).
use spec::platform::Moment;

/// What lies under the lock of a link that is up.
pub(crate) trait Desk {
    /// The right to write, with the bytes that are being written.
    type Pen;
    /// Who polls for room.
    type Leader;
    /// Why the connection is to end once the pen lies here.
    type End;

    /// The pen, unless another thread has it.
    fn take(&mut self) -> Option<Self::Pen>;
    /// Whether the pen in hand is one of this connection, and not of one before it.
    fn owns(&self, pen: &Self::Pen) -> bool;
    /// Whether the pen has bytes that are not written yet.
    fn is_filled(pen: &Self::Pen) -> bool;
    /// Whether bytes are queued that are in no pen.
    fn has_queued(&self) -> bool;
    /// Whether others are likely to queue more soon.
    fn has_company(&self) -> bool;
    /// Moves all that is queued into an empty pen.
    fn fill(&mut self, pen: &mut Self::Pen);
    /// The pen lies here from now on; `full` when the socket took no more then.
    fn lay(&mut self, pen: Self::Pen, full: Option<Moment>) -> Option<Self::End>;
    /// Who leads, or has been given the token.
    fn leader(&self) -> Option<Self::Leader>;
}

/// What a writer needs of its link and of the world around it.
pub(crate) trait Ground {
    /// See there.
    type Desk: Desk;

    /// Does something under the lock of the link, while it is up.
    fn lock<T>(&self, act: impl FnOnce(&mut Self::Desk) -> T) -> Option<T>;
    /// Lets others run.
    fn yield_now(&self);
    /// The clock.
    fn now(&self) -> Moment;
    /// Writes as much as the socket takes, without the lock; whether all of it is gone.
    fn write(&self, pen: &mut PenOf<Self>) -> Result<bool, EndOf<Self>>;
    /// Nothing waits for room.
    fn unblock(&self);
    /// Bytes wait for room; whether some did before.
    fn block(&self) -> bool;
    /// The leader looks whether bytes wait for room.
    fn wake(&self, leader: <Self::Desk as Desk>::Leader);
}

type PenOf<G> = <<G as Ground>::Desk as Desk>::Pen;
type EndOf<G> = <<G as Ground>::Desk as Desk>::End;

/// What a writer does once the lock is free.
enum Next<D: Desk> {
    /// Lets those who are about to queue join it.
    Yield(D::Pen),
    /// Writes.
    Write(D::Pen),
    /// Nothing: all is written.
    Rest(Option<D::End>),
}

/// Writes what waits, unless another thread is writing: that one writes ours, too. Before the combined write one yield, when
/// other calls are in flight or have just ended, so that those callers join it with their next (HA 5). Answers why the
/// connection is to end, if it is.
pub(crate) fn flush<G: Ground>(ground: &G) -> Option<EndOf<G>> {
    let mut mine = None;
    let mut has_yielded = false;
    loop {
        // A pen of a connection that is gone stays in hand, and is dropped without the lock.
        let next = ground.lock(|desk| look(ground, desk, &mut mine, has_yielded))??;
        let mut pen = match next {
            Next::Rest(end) => return end,
            Next::Yield(pen) => {
                has_yielded = true;
                ground.yield_now();
                mine = Some(pen);
                continue;
            }
            Next::Write(pen) => pen,
        };
        match ground.write(&mut pen) {
            Ok(true) => mine = Some(pen),
            Ok(false) => return wait_for_room(ground, pen),
            Err(end) => return Some(end),
        }
    }
}

/// Under the lock; nothing when the pen is elsewhere, or is one of a connection that is gone.
fn look<G: Ground>(
    ground: &G,
    desk: &mut G::Desk,
    mine: &mut Option<PenOf<G>>,
    has_yielded: bool,
) -> Option<Next<G::Desk>> {
    if mine.as_ref().is_some_and(|pen| !desk.owns(pen)) {
        return None;
    }
    let mut pen = mine.take().or_else(|| desk.take())?;
    if !G::Desk::is_filled(&pen) {
        if !desk.has_queued() {
            ground.unblock();
            return Some(Next::Rest(desk.lay(pen, None)));
        }
        if !has_yielded && desk.has_company() {
            return Some(Next::Yield(pen));
        }
        desk.fill(&mut pen);
    }
    Some(Next::Write(pen))
}

/// The socket takes no more: the leader writes the rest when there is room.
fn wait_for_room<G: Ground>(ground: &G, pen: PenOf<G>) -> Option<EndOf<G>> {
    let now = ground.now();
    let mut mine = Some(pen);
    let (leader, end) = ground.lock(|desk| {
        let pen = mine.take_if(|pen| desk.owns(pen))?;
        let end = desk.lay(pen, Some(now));
        let was_blocked = ground.block();
        Some((if was_blocked { None } else { desk.leader() }, end))
    })??;
    if let Some(leader) = leader {
        ground.wake(leader);
    }
    end
}

#[cfg(test)]
#[path = "pen_tests.rs"]
mod tests;
