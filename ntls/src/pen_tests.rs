//! The pen of a link, checked over the interleavings by `loom`: callers that queue, a socket that fills and empties, a leader
//! that polls, a connection that is replaced. The writing is the real one; the queue, the socket and the poll are those of the
//! model. Each break of it is found.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::*;

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Break {
    Nothing,
    /// A writer that has written lays the pen down without another look at the queue.
    LooksOnce,
    /// Everybody has a pen.
    ManyPens,
    /// Nobody is told that the socket takes no more.
    TellsNobody,
    /// A pen is laid down on the desk of another connection.
    KeepsOldPens,
}

/// The bytes in hand, and the connection that they belong to.
struct Pen {
    life: u8,
    bytes: Vec<u8>,
}

/// What lies under the lock.
struct Table {
    life: u8,
    pen: Option<Pen>,
    queued: Vec<u8>,
    /// All that was ever queued on this connection, in order.
    all: Vec<u8>,
    has_written: bool,
    broken: Break,
}

impl Desk for Table {
    type Pen = Pen;
    type Leader = ();
    type End = ();

    fn take(&mut self) -> Option<Pen> {
        let made = || (self.broken == Break::ManyPens).then(|| Pen { life: self.life, bytes: Vec::new() });
        self.pen.take().or_else(made)
    }

    fn owns(&self, pen: &Pen) -> bool {
        pen.life == self.life || self.broken == Break::KeepsOldPens
    }

    fn is_filled(pen: &Pen) -> bool {
        !pen.bytes.is_empty()
    }

    fn has_queued(&self) -> bool {
        let looks = !self.has_written || self.broken != Break::LooksOnce;
        looks && !self.queued.is_empty()
    }

    fn has_company(&self) -> bool {
        true
    }

    fn fill(&mut self, pen: &mut Pen) {
        self.has_written = true;
        pen.bytes.append(&mut self.queued);
    }

    fn lay(&mut self, pen: Pen, _full: Option<Moment>) -> Option<()> {
        assert_eq!(pen.life, self.life, "a pen of a connection that is gone lies on the desk");
        self.has_written = false;
        self.pen = Some(pen);
        None
    }

    fn leader(&self) -> Option<()> {
        Some(())
    }
}

/// What the kernel does: a socket with so much room, what its peer has, and the token of the leader.
struct Kernel {
    room: usize,
    arrived: Vec<u8>,
    token: bool,
    /// Threads that may yet do something.
    others: usize,
}

struct World {
    table: Mutex<Table>,
    kernel: Mutex<Kernel>,
    changed: Condvar,
    blocked: AtomicBool,
    writing: AtomicBool,
    broken: Break,
}

impl World {
    fn new(broken: Break, room: usize, others: usize) -> Arc<Self> {
        let pen = Some(Pen { life: 1, bytes: Vec::new() });
        let (queued, all) = (Vec::new(), Vec::new());
        Arc::new(Self {
            table: Mutex::new(Table { life: 1, pen, queued, all, has_written: false, broken }),
            kernel: Mutex::new(Kernel { room, arrived: Vec::new(), token: false, others }),
            changed: Condvar::new(),
            blocked: AtomicBool::new(false),
            writing: AtomicBool::new(false),
            broken,
        })
    }

    /// A caller queues its request and writes, as `Link::submit` does.
    fn submit(&self, byte: u8) {
        {
            let mut table = self.table.lock().unwrap();
            table.queued.push(byte);
            table.all.push(byte);
        }
        assert!(flush(self).is_none());
    }

    fn change(&self, change: impl FnOnce(&mut Kernel)) {
        change(&mut self.kernel.lock().unwrap());
        self.changed.notify_all();
    }

    /// Leads until nothing can come any more: polls for its token and, when bytes wait for that, for room.
    fn lead(&self) {
        loop {
            let for_writing = self.blocked.load(Ordering::Acquire);
            let mut kernel = self.kernel.lock().unwrap();
            let has_room = loop {
                if for_writing && kernel.room > 0 {
                    break true;
                }
                if std::mem::take(&mut kernel.token) {
                    break false;
                }
                if kernel.others == 0 {
                    return;
                }
                kernel = self.changed.wait(kernel).unwrap();
            };
            drop(kernel);
            if has_room {
                assert!(flush(self).is_none());
                // It polls in vain while another thread has the pen in hand.
                thread::yield_now();
            }
        }
    }

    /// Everything was written once, in the order of the queue, and the pen lies on the desk.
    fn is_at_rest(&self) {
        let table = self.table.lock().unwrap();
        assert!(table.queued.is_empty(), "bytes are queued that nobody writes");
        assert!(table.pen.as_ref().is_some_and(|pen| pen.bytes.is_empty()), "bytes wait that nobody writes");
        assert_eq!(self.kernel.lock().unwrap().arrived, table.all);
        assert!(!self.blocked.load(Ordering::Acquire), "the leader polls for room in vain");
    }
}

impl Ground for World {
    type Desk = Table;

    fn lock<T>(&self, act: impl FnOnce(&mut Table) -> T) -> Option<T> {
        Some(act(&mut self.table.lock().unwrap()))
    }

    /// Between two locks every other thread may run as it is.
    fn yield_now(&self) {}

    fn now(&self) -> Moment {
        Moment(0)
    }

    fn write(&self, pen: &mut Pen) -> Result<bool, ()> {
        assert!(!self.writing.swap(true, Ordering::AcqRel), "two threads write at once");
        let mut kernel = self.kernel.lock().unwrap();
        let count = kernel.room.min(pen.bytes.len());
        kernel.room -= count;
        kernel.arrived.extend(pen.bytes.drain(..count));
        drop(kernel);
        self.writing.store(false, Ordering::Release);
        Ok(pen.bytes.is_empty())
    }

    fn unblock(&self) {
        self.blocked.store(false, Ordering::Release);
    }

    fn block(&self) -> bool {
        self.blocked.swap(true, Ordering::AcqRel)
    }

    fn wake(&self, (): ()) {
        if self.broken != Break::TellsNobody {
            self.change(|kernel| kernel.token = true);
        }
    }
}

/// A thread that does this, and nothing afterwards.
fn spawn(world: &Arc<World>, act: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || {
        act(&world);
        world.change(|kernel| kernel.others -= 1);
    })
}

/// Every run of the threads of a model that are interrupted at most twice.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

/// A socket that takes everything.
fn three_callers_at_once(broken: Break) {
    check(move || {
        let world = World::new(broken, 9, 2);
        let others = [1, 2].map(|byte| spawn(&world, move |world| world.submit(byte)));
        world.submit(3);
        others.into_iter().for_each(|other| other.join().unwrap());
        world.is_at_rest();
    });
}

#[test]
fn ha_5_bytes_that_find_another_thread_writing_are_written_by_it() {
    three_callers_at_once(Break::Nothing);
}

#[test]
#[should_panic(expected = "bytes are queued that nobody writes")]
fn the_model_sees_a_writer_that_does_not_look_at_the_queue_again() {
    three_callers_at_once(Break::LooksOnce);
}

#[test]
#[should_panic(expected = "two threads write at once")]
fn the_model_sees_two_pens() {
    three_callers_at_once(Break::ManyPens);
}

/// A socket that takes one byte until its peer reads.
fn a_full_socket(broken: Break) {
    check(move || {
        let world = World::new(broken, 1, 2);
        let peer = spawn(&world, |world| world.change(|kernel| kernel.room += 9));
        let caller = spawn(&world, |world| world.submit(1));
        world.submit(2);
        world.lead();
        peer.join().unwrap();
        caller.join().unwrap();
        world.is_at_rest();
    });
}

#[test]
fn ha_5_4_what_a_full_socket_does_not_take_is_written_once_there_is_room() {
    a_full_socket(Break::Nothing);
}

#[test]
#[should_panic(expected = "bytes wait that nobody writes")]
fn the_model_sees_a_leader_that_is_not_told_of_a_full_socket() {
    a_full_socket(Break::TellsNobody);
}

/// The connection is lost and another one stands, while callers write.
fn another_connection(broken: Break, room: usize) {
    check(move || {
        let world = World::new(broken, room, 2);
        let caller = spawn(&world, |world| world.submit(1));
        let replaced = spawn(&world, |world| {
            let mut table = world.table.lock().unwrap();
            table.life = 2;
            table.pen = Some(Pen { life: 2, bytes: Vec::new() });
            (table.queued, table.all) = Default::default();
            world.blocked.store(false, Ordering::Release);
        });
        caller.join().unwrap();
        replaced.join().unwrap();
        let table = world.table.lock().unwrap();
        assert!(table.pen.as_ref().is_some_and(|pen| pen.life == 2), "the new connection has its pen");
    });
}

#[test]
fn ha_5_a_pen_of_a_connection_that_is_gone_goes_with_it() {
    another_connection(Break::Nothing, 9);
    another_connection(Break::Nothing, 0);
}

#[test]
#[should_panic(expected = "a connection that is gone")]
fn the_model_sees_a_pen_that_outlives_its_connection() {
    another_connection(Break::KeepsOldPens, 9);
}

#[test]
#[should_panic(expected = "a connection that is gone")]
fn the_model_sees_a_full_pen_that_outlives_its_connection() {
    another_connection(Break::KeepsOldPens, 0);
}
