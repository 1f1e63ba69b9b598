//! The leadership protocol, checked over the interleavings by `loom`: callers, a socket, parking, time-outs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::{Lead, Same};

impl Same for usize {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

/// What the kernel does: bytes in a socket, tokens of parked or polling threads.
#[derive(Default)]
struct Kernel {
    /// Replies that have come and have not been read, by the number of the caller.
    socket: Vec<usize>,
    tokens: Vec<bool>,
    timed_out: Vec<bool>,
}

/// A link with its callers.
struct World {
    lead: Mutex<Lead<usize>>,
    kernel: Mutex<Kernel>,
    changed: Condvar,
    /// Replies in the mailboxes of the callers.
    mail: Vec<AtomicUsize>,
    /// Set when a leader hands over to whom it saw before it read, without reading the list again: to whether that left
    /// somebody behind in any run. What is left behind is taken up again, so that the run ends.
    broken: Option<std::sync::Arc<std::sync::atomic::AtomicBool>>,
}

impl World {
    fn new(callers: usize) -> Arc<Self> {
        Self::with(callers, None)
    }

    fn with(callers: usize, broken: Option<std::sync::Arc<std::sync::atomic::AtomicBool>>) -> Arc<Self> {
        let kernel =
            Kernel { tokens: vec![false; callers], timed_out: vec![false; callers], ..Kernel::default() };
        Arc::new(Self {
            lead: Mutex::new(Lead::new()),
            kernel: Mutex::new(kernel),
            changed: Condvar::new(),
            mail: (0..callers).map(|_| AtomicUsize::new(0)).collect(),
            broken,
        })
    }

    fn unpark(&self, caller: usize) {
        self.kernel.lock().unwrap().tokens[caller] = true;
        self.changed.notify_all();
    }

    /// The appliance answers.
    fn answer(&self, caller: usize) {
        self.kernel.lock().unwrap().socket.push(caller);
        self.changed.notify_all();
    }

    /// A parked thread wakes by its token or its time-out; a polling one by the socket, too. What it read.
    fn sleep(&self, caller: usize, polls: bool) -> Vec<usize> {
        let mut kernel = self.kernel.lock().unwrap();
        loop {
            if polls && !kernel.socket.is_empty() {
                return std::mem::take(&mut kernel.socket);
            }
            if std::mem::take(&mut kernel.tokens[caller]) || kernel.timed_out[caller] {
                return Vec::new();
            }
            kernel = self.changed.wait(kernel).unwrap();
        }
    }

    fn has_timed_out(&self, caller: usize) -> bool {
        self.kernel.lock().unwrap().timed_out[caller]
    }

    /// Waits for the reply, leading when it falls to this caller; whether it came before the time-out.
    fn wait(&self, caller: usize) -> bool {
        let mut seen = None;
        let answered = loop {
            let leads = self.lead.lock().unwrap().enter(&caller).0;
            if self.mail[caller].load(Ordering::Acquire) > 0 {
                break true;
            }
            if self.has_timed_out(caller) {
                break false;
            }
            if leads {
                seen = self.lead.lock().unwrap().list.last().copied();
            }
            for other in self.sleep(caller, leads) {
                self.mail[other].store(1, Ordering::Release);
                if other != caller {
                    self.unpark(other);
                }
            }
        };
        let mut lead = self.lead.lock().unwrap();
        let token = match &self.broken {
            Some(found) if lead.is_led_by(&caller) => {
                lead.leader = seen.filter(|seen| lead.list.contains(seen));
                let next = lead.leader;
                lead.list.retain(|listed| Some(*listed) != next);
                if lead.leader.is_none() && !lead.list.is_empty() {
                    found.store(true, Ordering::SeqCst);
                    lead.leader = lead.list.pop();
                }
                lead.leader
            }
            _ => lead.leave(&caller).token,
        };
        assert!(lead.leader.is_some() || lead.list.is_empty(), "HA 5 (2)");
        drop(lead);
        if let Some(next) = token {
            self.unpark(next);
        }
        answered
    }
}

/// Every run of the threads of a model that are interrupted at most three times.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn no_caller_waits_for_ever() {
    check(|| {
        let world = World::new(2);
        let other = world.clone();
        let thread = thread::spawn(move || {
            other.answer(1);
            assert!(other.wait(1));
        });
        world.answer(0);
        assert!(world.wait(0));
        thread.join().unwrap();
        let lead = world.lead.lock().unwrap();
        assert!(lead.leader.is_none() && lead.list.is_empty(), "nobody is left behind");
    });
}

#[test]
fn no_caller_waits_for_ever_when_replies_come_late() {
    check(|| {
        let world = World::new(2);
        let others: Vec<_> = (0..2)
            .map(|caller| {
                let world = world.clone();
                thread::spawn(move || assert!(world.wait(caller)))
            })
            .collect();
        world.answer(1);
        world.answer(0);
        for other in others {
            other.join().unwrap();
        }
    });
}

#[test]
fn a_caller_that_times_out_passes_its_token_on() {
    check(|| {
        let world = World::new(3);
        let (first, second) = (world.clone(), world.clone());
        let leader = thread::spawn(move || assert!(first.wait(0)));
        let late = thread::spawn(move || {
            second.wait(1);
        });
        // Caller 1 never gets a reply: it is given up, perhaps while it holds the token.
        world.answer(0);
        world.kernel.lock().unwrap().timed_out[1] = true;
        world.changed.notify_all();
        world.answer(2);
        assert!(world.wait(2));
        leader.join().unwrap();
        late.join().unwrap();
        let lead = world.lead.lock().unwrap();
        assert!(lead.leader.is_none() && lead.list.is_empty());
    });
}

#[test]
fn a_hand_over_without_reading_the_list_again_is_found() {
    let found = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = found.clone();
    check(move || {
        let world = World::with(2, Some(told.clone()));
        let other = world.clone();
        let thread = thread::spawn(move || {
            assert!(other.wait(1));
        });
        world.answer(0);
        assert!(world.wait(0));
        world.answer(1);
        thread.join().unwrap();
    });
    assert!(found.load(Ordering::SeqCst), "the planted break shows in some interleaving");
}

#[test]
fn the_last_in_the_list_gets_the_token_and_passes_it_on() {
    let mut lead = Lead::new();
    assert_eq!(lead.enter(&1), (true, true));
    assert_eq!(lead.enter(&1), (true, false));
    assert_eq!(lead.enter(&2), (false, true));
    assert_eq!(lead.enter(&3), (false, true));
    assert_eq!(lead.enter(&3), (false, false));
    assert_eq!(lead.leave(&1).token, Some(3));
    assert!(lead.is_led_by(&3), "the token is on its way");
    assert_eq!(lead.leave(&3).token, Some(2));
    assert!(!lead.leave(&3).was_there);
    assert_eq!(lead.leave(&2).token, None);
    assert!(lead.leader().is_none());
}
