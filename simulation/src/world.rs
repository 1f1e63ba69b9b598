//! The scheduler: virtual time, one thread at a time, everything decided by the seed.
//!
//! ```text
//! Ready <--token, moment come-- Parked      the baton goes from thread to thread at Platform calls only
//!   '---work ends---> Done                  events (the network, faults) happen between two holders
//! ```
//! Each thread of the application is a thread of the system that waits for its baton. With nobody ready, time jumps to
//! the next event or to the end of the shortest sleep.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use spec::platform::when_contended;

use crate::chance::Chance;

/// What happens at a moment without a thread: a frame arrives, a member crashes.
type Event = Box<dyn FnOnce() + Send>;

/// More hand-overs than any honest run needs.
const STEPS_MAX: u64 = 3_000_000;

/// One simulated world.
pub(crate) struct World {
    state: Mutex<State>,
}

struct State {
    now: u64,
    chance: Chance,
    /// Who goes on is drawn, or by priorities.
    priorities: Option<Priorities>,
    threads: Vec<Thread>,
    current: usize,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    steps: u64,
    trace: u64,
    failure: Option<String>,
    aborted: bool,
    judged: bool,
    paused_until: Vec<u64>,
    paused: Vec<u64>,
    /// Processes whose threads end at their next step.
    ending: Vec<bool>,
    /// The process that is to fork.
    to_fork: Option<usize>,
    story: Option<Vec<String>>,
}

/// Of the threads that are ready the one with the highest priority goes on; they begin with random ones.
enum Priorities {
    /// Probabilistic concurrency testing (Burckhardt et al., ASPLOS 2010): at a few points of a run the thread whose turn it is
    /// gets the lowest priority.
    Few {
        /// The steps at which that happens, the next one last.
        change_at: Vec<u64>,
        /// The lowest given so far.
        lowest: u64,
    },
    /// A thread that gives way gets another one now and then, and now and then anybody goes on.
    Many,
}

impl Priorities {
    /// For half of all runs.
    fn draw(chance: &mut Chance) -> Option<Self> {
        match chance.below(4) {
            0 => {
                // Among how many steps is drawn, too: runs are of all lengths.
                let within = 1 << chance.between(9, 14);
                let points = chance.between(1, 5);
                let mut change_at: Vec<u64> = (0..points).map(|_| chance.below(within)).collect();
                change_at.sort_unstable_by(|one, other| other.cmp(one));
                Some(Priorities::Few { change_at, lowest: u64::MAX >> 1 })
            }
            1 => Some(Priorities::Many),
            _ => None,
        }
    }

    /// The priority of a thread that waits for what another one must do first, if it changes: it must not keep it from that.
    fn of_waiting(&mut self, chance: &mut Chance) -> Option<u64> {
        match self {
            Priorities::Few { lowest, .. } => {
                *lowest -= 1;
                Some(*lowest)
            }
            Priorities::Many => chance.once_in(8).then(|| chance.bits() >> 32),
        }
    }

    /// The priority of the thread whose turn it is at this step, if it changes.
    fn of_next(&mut self, step: u64) -> Option<u64> {
        match self {
            Priorities::Few { change_at, lowest } => {
                change_at.pop_if(|at| *at <= step)?;
                *lowest -= 1;
                Some(*lowest)
            }
            Priorities::Many => None,
        }
    }
}

struct Thread {
    run: Run,
    process: usize,
    baton: Arc<Condvar>,
    priority: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Run {
    Ready,
    Parked { until: u64 },
    Done,
}

thread_local! {
    static ME: RefCell<Option<(Arc<World>, usize)>> = const { RefCell::new(None) };
}

/// What a thread unwinds with that belongs to an image of a process which is no more.
struct Ended;

/// The process of the thread that runs the simulation itself; it is never paused.
pub(crate) const OBSERVER: usize = 0;

impl World {
    /// A world whose first thread is the caller's, as [`OBSERVER`]. `story` keeps every event in words.
    pub(crate) fn enter(seed: u64, processes: usize, story: bool) -> Arc<World> {
        when_contended(give_way);
        let mut chance = Chance::new(seed);
        let priorities = Priorities::draw(&mut chance);
        let world = Arc::new(World {
            state: Mutex::new(State {
                now: 1_000_000_000,
                chance,
                priorities,
                threads: vec![Thread {
                    run: Run::Ready,
                    process: OBSERVER,
                    baton: Arc::default(),
                    priority: u64::MAX,
                }],
                current: 0,
                events: BTreeMap::new(),
                sequence: 0,
                steps: 0,
                trace: 0,
                failure: None,
                aborted: false,
                judged: false,
                paused_until: vec![0; processes + 1],
                paused: vec![0; processes + 1],
                ending: vec![false; processes + 1],
                to_fork: None,
                story: story.then(Vec::new),
            }),
        });
        ME.with(|me| *me.borrow_mut() = Some((world.clone(), 0)));
        world
    }

    /// The caller's thread leaves the world.
    pub(crate) fn leave() {
        ME.with(|me| *me.borrow_mut() = None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since the world began, and one second.
    pub(crate) fn now(&self) -> u64 {
        self.state().now
    }

    /// As [`World::now`], for a thread that asks: asking takes half a microsecond, and now and then another goes on.
    pub(crate) fn tick(&self) -> u64 {
        let mut state = self.state();
        state.now += 500;
        let (now, switch) = (state.now, state.chance.once_in(24));
        drop(state);
        if switch {
            self.give_way();
        }
        now
    }

    /// Something by chance.
    pub(crate) fn chance<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut self.state().chance)
    }

    /// Lets an event happen in so many nanoseconds.
    pub(crate) fn after(&self, delay: u64, event: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        state.sequence += 1;
        let key = (state.now + delay, state.sequence);
        state.events.insert(key, Box::new(event));
    }

    /// Notes what happened, for the trace that two runs of a seed share.
    pub(crate) fn note(&self, what: u64, text: impl FnOnce() -> String) {
        let mut state = self.state();
        let (now, current) = (state.now, state.current as u64);
        for part in [now, current, what] {
            state.trace = (state.trace ^ part).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
        }
        if state.story.is_some() {
            let line = format!("{:>12.6} s  thread {current}  {}", now as f64 / 1e9, text());
            state.story.iter_mut().for_each(|story| story.push(line.clone()));
        }
    }

    /// The first thing that went wrong stands, until the world is judged.
    pub(crate) fn fail(&self, what: String) {
        if self.state().judged {
            return;
        }
        self.note(u64::MAX, || format!("FAILED: {what}"));
        let mut state = self.state();
        state.failure.get_or_insert(what);
    }

    /// What happens from now on proves nothing more: processes that were killed unwind.
    pub(crate) fn judge(&self) {
        self.state().judged = true;
    }

    /// What went wrong first.
    pub(crate) fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    /// Whether the run was given up because it did not end.
    pub(crate) fn is_aborted(&self) -> bool {
        self.state().aborted
    }

    /// A number that two runs of one seed have in common.
    pub(crate) fn trace(&self) -> u64 {
        self.state().trace
    }

    /// The story so far, if one is kept.
    pub(crate) fn story(&self) -> Vec<String> {
        self.state().story.clone().unwrap_or_default()
    }

    /// Whether the world has been judged.
    pub(crate) fn is_judged(&self) -> bool {
        self.state().judged
    }

    /// The threads of a process do nothing for so long.
    pub(crate) fn pause(&self, process: usize, nanoseconds: u64) {
        let mut state = self.state();
        let until = state.now + nanoseconds;
        state.paused_until[process] = state.paused_until[process].max(until);
        state.paused[process] += nanoseconds;
    }

    /// A thread of a process does nothing for so long by itself.
    pub(crate) fn excuse(&self, process: usize, nanoseconds: u64) {
        self.state().paused[process] += nanoseconds;
    }

    /// The threads of a process do nothing any more, until they may unwind.
    pub(crate) fn freeze(&self, process: usize) {
        self.state().paused_until[process] = u64::MAX;
    }

    /// Whether a process was killed.
    pub(crate) fn is_frozen(&self, process: usize) -> bool {
        self.state().paused_until[process] == u64::MAX
    }

    /// The threads of a process that was killed may unwind.
    pub(crate) fn thaw(&self, process: usize) {
        let mut state = self.state();
        state.paused_until[process] = 0;
    }

    /// The threads of a process that stood still since a fork end at their next step: they are no part of the child.
    pub(crate) fn end_threads(&self, process: usize) {
        {
            let mut state = self.state();
            (state.ending[process], state.paused_until[process]) = (true, 0);
        }
        let is_over = |state: &State| {
            state.threads.iter().all(|thread| thread.process != process || thread.run == Run::Done)
        };
        while !self.is_aborted() && !is_over(&self.state()) {
            self.sleep(5_000_000);
        }
    }

    /// One thread of this process is to fork when it is in no call.
    pub(crate) fn wish_fork(&self, process: usize) {
        self.state().to_fork = Some(process);
    }

    /// Whether the caller's thread is the one to fork, once.
    pub(crate) fn takes_fork(&self, process: usize) -> bool {
        self.state().to_fork.take_if(|wanted| *wanted == process).is_some()
    }

    /// The caller's thread goes on as another process.
    pub(crate) fn become_process(&self, process: usize) {
        self.state().threads[me()].process = process;
    }

    /// How long the threads of a process have done nothing because it was paused, at most.
    pub(crate) fn paused(&self, process: usize) -> u64 {
        self.state().paused[process]
    }

    /// Starts a thread of a process; it waits for its first baton.
    pub(crate) fn spawn(self: &Arc<Self>, process: usize, work: Box<dyn FnOnce() + Send>) -> usize {
        let baton = Arc::<Condvar>::default();
        let id = {
            let mut state = self.state();
            // Above those of threads that were made to wait.
            let priority = u64::MAX - (state.chance.bits() >> 1);
            state.threads.push(Thread { run: Run::Ready, process, baton: baton.clone(), priority });
            state.threads.len() - 1
        };
        let world = self.clone();
        let started = std::thread::Builder::new().stack_size(4 << 20).spawn(move || {
            ME.with(|me| *me.borrow_mut() = Some((world.clone(), id)));
            world.wait_for_baton(id, &baton);
            if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
                && !panic.is::<Ended>()
            {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
                world.fail(format!("a thread panicked: {text}"));
            }
            world.state().threads[id].run = Run::Done;
            World::leave();
            world.hand_over(id);
        });
        started.expect("the host has room for another thread");
        id
    }

    /// Waits until a thread has ended.
    pub(crate) fn join(&self, thread: usize) {
        while !self.has_ended(thread) && !self.is_aborted() {
            self.sleep(5_000_000);
        }
    }

    /// Whether a thread has ended, or will never go on because its process was killed.
    pub(crate) fn has_ended(&self, thread: usize) -> bool {
        let state = self.state();
        let thread = &state.threads[thread];
        thread.run == Run::Done || state.paused_until[thread.process] == u64::MAX
    }

    /// The caller's thread sleeps so many nanoseconds.
    pub(crate) fn sleep(&self, nanoseconds: u64) {
        let until = self.state().now + nanoseconds;
        self.park(until);
    }

    /// The caller's thread waits until it is made ready or the moment has come.
    pub(crate) fn park(&self, until: u64) {
        let me = me();
        {
            let mut state = self.state();
            let until = until.max(state.now);
            state.threads[me].run = Run::Parked { until };
        }
        self.hand_over(me);
        self.go_on(me);
    }

    /// Makes a parked thread ready.
    pub(crate) fn wake(&self, thread: usize) {
        let mut state = self.state();
        if let Run::Parked { .. } = state.threads[thread].run {
            state.threads[thread].run = Run::Ready;
        }
    }

    /// Another thread may go on; the caller's stays ready.
    pub(crate) fn give_way(&self) {
        let me = me();
        {
            let mut state = self.state();
            if matches!(state.priorities, Some(Priorities::Many)) {
                state.lower(me);
            }
        }
        self.hand_over(me);
        self.go_on(me);
    }

    /// The caller's thread waits for what another one must do first.
    fn give_way_to_all(&self) {
        let me = me();
        {
            let mut state = self.state();
            // Time passes for one that tries in vain, so that a holder that sleeps wakes.
            state.now += 1_000;
            state.lower(me);
        }
        self.hand_over(me);
        self.go_on(me);
    }

    /// Lets due events happen, chooses who goes on, and waits until the caller is chosen again.
    fn hand_over(&self, me: usize) {
        loop {
            let mut state = self.state();
            state.steps += 1;
            if state.steps > STEPS_MAX && !state.aborted {
                state.aborted = true;
                state.failure.get_or_insert_with(|| "the run does not come to an end".into());
                state.threads[0].run = Run::Ready;
            }
            if !state.aborted
                && let Some(event) = state.due_event()
            {
                drop(state);
                event();
                continue;
            }
            let Some(next) = state.choose() else {
                state.jump();
                continue;
            };
            state.current = next;
            let done = state.threads[me].run == Run::Done;
            if next == me {
                return;
            }
            let baton = state.threads[next].baton.clone();
            let own = state.threads[me].baton.clone();
            drop(state);
            baton.notify_one();
            if !done {
                self.wait_for_baton(me, &own);
            }
            return;
        }
    }

    /// What a thread does when it has the baton again.
    fn go_on(&self, me: usize) {
        let ends = {
            let state = self.state();
            state.ending[state.threads[me].process]
        };
        if ends && !std::thread::panicking() {
            std::panic::resume_unwind(Box::new(Ended));
        }
    }

    fn wait_for_baton(&self, me: usize, baton: &Condvar) {
        let mut state = self.state();
        while state.current != me {
            state = baton.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn due_event(&mut self) -> Option<Event> {
        let key = *self.events.keys().next().filter(|(at, _)| *at <= self.now)?;
        self.events.remove(&key)
    }

    /// Who goes on; `None` when nobody is ready.
    fn choose(&mut self) -> Option<usize> {
        if self.aborted {
            return Some(0);
        }
        let now = self.now;
        let mut ready = Vec::new();
        for (id, thread) in self.threads.iter_mut().enumerate() {
            if matches!(thread.run, Run::Parked { until } if until <= now) {
                thread.run = Run::Ready;
            }
            if thread.run == Run::Ready && self.paused_until[thread.process] <= now {
                ready.push(id);
            }
        }
        if ready.is_empty() {
            return None;
        }
        let Some(priorities) = &mut self.priorities else {
            return Some(ready[self.chance.place(ready.len())]);
        };
        if matches!(priorities, Priorities::Many) && self.chance.once_in(16) {
            return Some(ready[self.chance.place(ready.len())]);
        }
        loop {
            let next = ready.iter().copied().max_by_key(|id| self.threads[*id].priority)?;
            match priorities.of_next(self.steps) {
                Some(lower) => self.threads[next].priority = lower,
                None => return Some(next),
            }
        }
    }

    /// A thread waits: its priority changes where there are priorities.
    fn lower(&mut self, thread: usize) {
        let State { priorities, chance, threads, .. } = self;
        if let Some(priority) = priorities.as_mut().and_then(|priorities| priorities.of_waiting(chance)) {
            threads[thread].priority = priority;
        }
    }

    /// Nobody is ready: on to the next moment at which something can happen.
    fn jump(&mut self) {
        let paused = |thread: &Thread| self.paused_until[thread.process];
        let threads = self.threads.iter().filter_map(|thread| match thread.run {
            Run::Ready => Some(paused(thread)),
            Run::Parked { until } => Some(until.max(paused(thread))),
            Run::Done => None,
        });
        let next = threads.chain(self.events.keys().map(|(at, _)| *at)).min();
        match next.filter(|next| *next < u64::MAX) {
            Some(next) => self.now = self.now.max(next),
            None => {
                self.failure.get_or_insert_with(|| "every thread waits for ever".into());
                self.aborted = true;
            }
        }
    }
}

fn me() -> usize {
    ME.with(|me| me.borrow().as_ref().map_or(0, |(_, id)| *id))
}

/// The thread of the caller.
pub(crate) fn current_thread() -> usize {
    me()
}

/// For [`when_contended`]: the holder of the lock must get the baton.
fn give_way() {
    let world = ME.with(|me| me.borrow().as_ref().map(|(world, _)| world.clone()));
    match world {
        Some(world) => world.give_way_to_all(),
        None => std::thread::yield_now(),
    }
}
