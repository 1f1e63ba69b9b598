//! Threads for work that must not stop a link: bounded lanes for the processor, for what takes seconds of it, for PIN
//! checks and for the disk, each with a queue that is fair by client, then by link (HA 4.5).
//!
//! ```text
//! submit -- a thread is free --> runs          a thread that is done takes the next in turn
//!        -- none is          --> waits         the lane is full: whoever has queued most loses his newest, told Busy
//! ```
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::task::spawn_blocking;

use crate::fair::FairQueue;
pub use crate::fair::Owner;

/// Requests that may wait for each thread of a lane; more are told to come again (HA 4.5).
const WAITING_PER_THREAD: usize = 256;
/// Threads that may wait for the disk at once: those of one partition for one another, partitions side by side.
const DISK_THREADS: usize = 64;
/// The least threads for what takes seconds: one client may have all but one of them, and somebody else's turn never waits
/// for what one client has begun.
const SLOW_THREADS_MIN: usize = 2;
/// The least and the longest patience that a busy lane asks for, in milliseconds.
const BUSY_MS: (u64, u64) = (5, 1_000);
/// A thread of a lane that has nothing to do goes after so long.
const REST: Duration = Duration::from_millis(100);
/// What a piece of work is taken to cost before one has been measured, in nanoseconds.
const COST_NS: u64 = 1_000_000;

/// What a piece of work is told when its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// To run. Whoever waited hears what such work takes at present: what cannot be done in its time is not begun.
    Run(Duration),
    /// That it gave way to another client's: it does not run, and is to be told Busy.
    PushedOut,
}

/// Answers whether it did the work, and so tells what work costs.
type Job = Box<dyn FnOnce(Go) -> bool + Send>;

/// One lane.
struct Pool {
    threads: usize,
    /// Threads that one client may have at once.
    client_threads: usize,
    queue: Arc<Queue>,
}

/// What waits and what runs.
struct Queue {
    state: Mutex<State>,
    /// Something was handed to a thread that rests.
    handed: Condvar,
    /// How much waits; changed under the lock, read without it.
    waiting: AtomicUsize,
}

struct State {
    running: usize,
    /// How many of them each client has; those that have none are left out.
    of_client: HashMap<[u8; 32], usize>,
    queue: FairQueue<Job>,
    /// Threads that have nothing to do and have not gone yet.
    resting: usize,
    /// Work for some of them: never more than they are.
    handed: Vec<([u8; 32], Job)>,
    /// The moving average of what a piece of work takes, in nanoseconds.
    cost_ns: u64,
}

impl State {
    fn may_run(&self, client: &[u8; 32], client_threads: usize) -> bool {
        self.of_client.get(client).is_none_or(|running| *running < client_threads)
    }

    fn begin(&mut self, client: [u8; 32]) {
        self.running += 1;
        *self.of_client.entry(client).or_default() += 1;
    }

    fn end(&mut self, client: &[u8; 32]) {
        self.running -= 1;
        if let Some(running) = self.of_client.get_mut(client) {
            *running -= 1;
            if *running == 0 {
                self.of_client.remove(client);
            }
        }
    }
}

impl Pool {
    fn new(threads: usize, client_threads: usize) -> Self {
        let state = State {
            running: 0,
            of_client: HashMap::new(),
            queue: FairQueue::default(),
            resting: 0,
            handed: Vec::new(),
            cost_ns: COST_NS,
        };
        let (handed, waiting) = (Condvar::new(), AtomicUsize::new(0));
        let queue = Queue { state: Mutex::new(state), handed, waiting };
        Self { threads, client_threads, queue: Arc::new(queue) }
    }

    fn waiting_max(&self) -> usize {
        self.threads.saturating_mul(WAITING_PER_THREAD)
    }

    fn submit(&self, owner: Owner, work: impl FnOnce(Go) -> bool + Send + 'static) -> Result<(), Full> {
        let mut state = self.queue.state.lock();
        if state.running < self.threads && state.may_run(&owner.client, self.client_threads) {
            state.begin(owner.client);
            if state.resting > state.handed.len() {
                state.handed.push((owner.client, Box::new(work)));
                drop(state);
                self.queue.handed.notify_one();
                return Ok(());
            }
            drop(state);
            let (queue, client_threads) = (self.queue.clone(), self.client_threads);
            spawn_blocking(move || work_off(&queue, client_threads, (owner.client, Box::new(work))));
            return Ok(());
        }
        let mut pushed_out = None;
        if state.queue.len() >= self.waiting_max() {
            pushed_out = state.queue.push_out(&owner.client);
            if pushed_out.is_none() {
                return Err(Full { after_ms: after_ms(&state, &owner, self.threads) });
            }
        }
        state.queue.push(owner, Box::new(work));
        self.queue.waiting.store(state.queue.len(), Ordering::Relaxed);
        drop(state);
        if let Some(job) = pushed_out {
            job(Go::PushedOut);
        }
        Ok(())
    }
}

/// How long a client is asked to wait: until what it has queued itself may be done.
fn after_ms(state: &State, owner: &Owner, threads: usize) -> u32 {
    let queued = u64::try_from(state.queue.len_of(&owner.client)).unwrap_or(u64::MAX);
    let threads = u64::try_from(threads.max(1)).unwrap_or(1);
    let ms = state.cost_ns.saturating_mul(queued) / threads / 1_000_000;
    u32::try_from(ms.clamp(BUSY_MS.0, BUSY_MS.1)).expect("a second in milliseconds fits 32 bits")
}

/// Runs a piece of work and then those whose turn comes, until none has come for a while.
fn work_off(shared: &Queue, client_threads: usize, (client, job): ([u8; 32], Job)) {
    let mut next = Some((client, job, Duration::ZERO));
    while let Some((client, job, cost)) = next {
        let begun = Instant::now();
        // A request's own panic is answered by its handler; any other must not cost the lane a thread.
        let worked = catch_unwind(AssertUnwindSafe(|| job(Go::Run(cost)))).unwrap_or_else(|_| {
            tracing::error!("work on a lane failed by a fault of hsmd; please report it");
            false
        });
        let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut state = shared.state.lock();
        if worked {
            state.cost_ns = state.cost_ns - state.cost_ns / 8 + took / 8;
        }
        let cost = Duration::from_nanos(state.cost_ns);
        state.end(&client);
        let State { queue, of_client, .. } = &mut *state;
        next = queue
            .pop(|client| of_client.get(client).is_none_or(|running| *running < client_threads))
            .map(|(client, job)| (client, job, cost));
        if let Some((client, ..)) = &next {
            state.begin(*client);
            shared.waiting.store(state.queue.len(), Ordering::Relaxed);
        } else {
            next = rest(shared, state).map(|(client, job)| (client, job, Duration::ZERO));
        }
    }
}

/// Waits for work to be handed over; none has come for [`REST`]. It spares two wake-ups through the runtime for each piece of
/// work when they come one by one.
fn rest(shared: &Queue, mut state: MutexGuard<'_, State>) -> Option<([u8; 32], Job)> {
    state.resting += 1;
    let until = Instant::now() + REST;
    let mut is_late = false;
    loop {
        // Whoever goes looks once more, so that nothing that was handed over stays behind.
        let handed = state.handed.pop();
        if handed.is_some() || is_late {
            state.resting -= 1;
            return handed;
        }
        is_late = shared.handed.wait_until(&mut state, until).timed_out();
    }
}

/// The lane's queue is full and holds no more of others than of this client; nothing was started.
#[derive(Debug, PartialEq, Eq)]
pub struct Full {
    /// How long to wait before coming again, in milliseconds.
    pub after_ms: u32,
}

/// The lanes of a server.
pub struct Workers {
    crypto: Pool,
    slow: Pool,
    pin: Pool,
    disk: Pool,
}

impl Workers {
    /// Lanes with so many threads for the processor, and as many for PIN checks: a slow disk stops logins, not signing.
    /// What takes seconds leaves one of the processor's cores to all else, and one client leaves a thread to the others.
    pub fn new(crypto_threads: usize) -> Self {
        let slow_threads = crypto_threads.saturating_sub(1).max(SLOW_THREADS_MIN);
        Self {
            crypto: Pool::new(crypto_threads, crypto_threads),
            slow: Pool::new(slow_threads, slow_threads - 1),
            pin: Pool::new(crypto_threads, crypto_threads),
            disk: Pool::new(DISK_THREADS, DISK_THREADS),
        }
    }

    /// Runs work on the processor's lane, in turn. Call it inside a runtime.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn crypto(&self, owner: Owner, work: impl FnOnce(Go) -> bool + Send + 'static) -> Result<(), Full> {
        self.crypto.submit(owner, work)
    }

    /// Runs work that takes seconds on its lane, in turn. Call it inside a runtime.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn slow(&self, owner: Owner, work: impl FnOnce(Go) -> bool + Send + 'static) -> Result<(), Full> {
        self.slow.submit(owner, work)
    }

    /// Runs work on the lane of PIN checks, in turn. Call it inside a runtime.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn pin(&self, owner: Owner, work: impl FnOnce(Go) -> bool + Send + 'static) -> Result<(), Full> {
        self.pin.submit(owner, work)
    }

    /// Runs work on the disk's lane, in turn. Call it inside a runtime.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn disk(&self, owner: Owner, work: impl FnOnce(Go) -> bool + Send + 'static) -> Result<(), Full> {
        self.disk.submit(owner, work)
    }

    /// How many requests wait for a thread.
    pub fn waiting(&self) -> u32 {
        let pools = [&self.crypto, &self.slow, &self.pin, &self.disk];
        let waiting: usize = pools.iter().map(|pool| pool.queue.waiting.load(Ordering::Relaxed)).sum();
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }

    /// How many requests the processor's lane takes before it answers Busy: what windows are granted from (HA 4.5).
    pub fn capacity(&self) -> usize {
        self.crypto.threads + self.crypto.waiting_max()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn owner(client: u8) -> Owner {
        Owner { client: [client; 32], link: client.into() }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap()
    }

    #[test]
    fn the_lane_runs_so_many_at_once_then_queues_then_refuses() {
        let (runtime, workers) = (runtime(), Workers::new(2));
        let (started, starts) = mpsc::channel();
        let gate = Arc::new(parking_lot::Mutex::new(()));
        let closed = gate.lock();
        runtime.block_on(async {
            for _ in 0..2 + 2 * WAITING_PER_THREAD {
                let (gate, started) = (gate.clone(), started.clone());
                let work = move |_| {
                    started.send(()).unwrap();
                    drop(gate.lock());
                    true
                };
                workers.crypto(owner(1), work).unwrap();
            }
            let full = workers.crypto(owner(1), |_| true).unwrap_err();
            assert!((5..=1_000).contains(&full.after_ms), "{full:?}");
            assert_eq!(workers.disk(owner(1), |_| true), Ok(()), "the other lanes are free");
            assert_eq!(workers.pin(owner(1), |_| true), Ok(()), "the other lanes are free");
        });
        starts.recv().unwrap();
        starts.recv().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(starts.try_recv().is_err(), "never more than two at once");
        assert_eq!(workers.waiting(), u32::try_from(2 * WAITING_PER_THREAD).unwrap());
        drop(closed);
        for _ in 0..2 * WAITING_PER_THREAD {
            starts.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        }
    }

    #[test]
    fn ha_4_5_a_client_that_has_filled_the_lane_gives_way_to_another_and_hears_of_it() {
        let (runtime, workers) = (runtime(), Workers::new(1));
        let (told, tells) = mpsc::channel();
        let gate = Arc::new(parking_lot::Mutex::new(()));
        let closed = gate.lock();
        let submit = |client: u8, number: usize| {
            let (gate, told) = (gate.clone(), told.clone());
            let work = move |go| {
                let runs = go != Go::PushedOut;
                told.send((client, number, runs)).unwrap();
                if runs {
                    drop(gate.lock());
                }
                runs
            };
            workers.crypto(owner(client), work)
        };
        runtime.block_on(async {
            (0..=WAITING_PER_THREAD).for_each(|number| submit(1, number).unwrap());
            assert!(submit(1, 9_999).is_err(), "its own queue is full");
            submit(2, 0).unwrap();
        });
        let mut first_two = [tells.recv().unwrap(), tells.recv().unwrap()];
        first_two.sort_unstable_by_key(|(_, number, _)| *number);
        let newest = (1, WAITING_PER_THREAD, false);
        assert_eq!(first_two, [(1, 0, true), newest], "the newest gave way");
        drop(closed);
        assert_eq!(tells.recv().unwrap(), (1, 1, true));
        assert_eq!(tells.recv().unwrap(), (2, 0, true), "the other one's turn came at once");
    }

    #[test]
    fn ha_4_5_who_waited_hears_what_work_takes_and_what_was_dropped_does_not_count() {
        let (runtime, workers) = (runtime(), Workers::new(1));
        let (told, tells) = mpsc::channel();
        runtime.block_on(async {
            for works in [true, false, true] {
                let told = told.clone();
                let work = move |go| {
                    told.send(go).unwrap();
                    std::thread::sleep(Duration::from_millis(if works { 80 } else { 0 }));
                    works
                };
                workers.crypto(owner(1), work).unwrap();
            }
        });
        let cost = || match tells.recv_timeout(Duration::from_secs(10)).unwrap() {
            Go::Run(cost) => cost,
            Go::PushedOut => panic!("there is room"),
        };
        assert_eq!(cost(), Duration::ZERO, "a thread was free");
        let second = cost();
        assert!(second >= Duration::from_millis(10), "{second:?}");
        assert_eq!(cost(), second, "what did nothing tells nothing");
    }

    #[test]
    fn one_client_never_holds_every_thread_of_the_slow_lane_nor_any_of_the_others() {
        for crypto_threads in [1, 2, 4] {
            let (runtime, workers) = (runtime(), Workers::new(crypto_threads));
            let own = crypto_threads.saturating_sub(1).max(2) - 1;
            let (told, tells) = mpsc::channel();
            let gate = Arc::new(parking_lot::Mutex::new(()));
            let closed = gate.lock();
            let slow = |client: u8| {
                let (gate, told) = (gate.clone(), told.clone());
                let work = move |_| {
                    told.send(client).unwrap();
                    drop(gate.lock());
                    true
                };
                workers.slow(owner(client), work).unwrap();
            };
            let next = || tells.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
            runtime.block_on(async {
                (0..20).for_each(|_| slow(1));
                (0..own).for_each(|_| assert_eq!(next(), 1));
                slow(2);
                assert_eq!(next(), 2, "a thread was left for it");
                let told = told.clone();
                workers.crypto(owner(1), move |_| told.send(9).is_ok()).unwrap();
                assert_eq!(next(), 9, "its own short work goes on");
            });
            assert!(tells.try_recv().is_err(), "no more than {own} at once");
            drop(closed);
            (own..20).for_each(|_| assert_eq!(next(), 1, "all of it runs in the end"));
        }
    }

    #[test]
    fn whatever_is_handed_to_a_thread_that_rests_is_run() {
        let (runtime, workers) = (runtime(), Workers::new(2));
        let (told, tells) = mpsc::channel();
        runtime.block_on(async {
            for number in 0..400_u32 {
                for client in 1..=2 {
                    let told = told.clone();
                    workers.crypto(owner(client), move |_| told.send(number).is_ok()).unwrap();
                }
                // Some come while threads rest, some while they go.
                let pause = if number % 40 == 0 { REST } else { Duration::from_micros(50) };
                for _ in 1..=2 {
                    assert_eq!(tells.recv_timeout(Duration::from_secs(10)), Ok(number));
                }
                std::thread::sleep(pause);
            }
        });
        let state = workers.crypto.queue.state.lock();
        assert!(state.running <= 2 && state.resting <= 2 && state.handed.is_empty());
    }

    #[test]
    fn a_panic_costs_the_lane_no_thread() {
        let workers = Workers::new(1);
        let (told, tells) = mpsc::channel();
        let runtime = runtime();
        runtime.block_on(async {
            workers.crypto(owner(1), |_| panic!("on purpose")).unwrap();
            workers.crypto(owner(1), move |_| told.send(()).is_ok()).unwrap();
        });
        tells.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    }
}
