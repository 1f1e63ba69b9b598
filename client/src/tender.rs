//! The background thread "tender": probes, admission and repair, round after round (DESIGN 3, HA 4.6), and between the
//! rounds the background work of the links (HA 5). It is started with the first group. When the application forbids threads,
//! or the system gives none, the calls drive the links and do the groups' background work, a little about once a second.
//!
//! ```text
//! none --first group--> (round over all groups -> wait until the earliest wish, or woken) --stop--> joined
//!   '---no thread may or can be had--> calls tend each group
//! ```
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use ha::Group;
use ntls::links::Links;
use spec::platform::{Joiner, Lock, Moment, Park, Platform};
use spec::seam::{Event, Seam, Waiter};

use crate::drive::Drive;
use crate::process::Process;

/// The longest time between two looks after what is no group's, in milliseconds.
const UPKEEP_MS: u64 = 500;

/// The thread and what it looks after.
#[derive(Default)]
pub(crate) struct Tender {
    running: Lock<Option<Running>>,
    /// No thread may or can be had: calls do the work.
    is_absent: AtomicBool,
}

struct Running {
    shared: Arc<Shared>,
    thread: Box<dyn Joiner>,
}

struct Shared {
    platform: Arc<dyn Platform>,
    process: Weak<Process>,
    seam: Arc<dyn Seam>,
    links: Option<Arc<Links>>,
    waiter: Arc<Waiter>,
    groups: Lock<Vec<Arc<Group>>>,
    stopped: AtomicBool,
    ended: AtomicBool,
    /// Where the one that stops it waits for its end.
    end: Arc<dyn Park>,
}

/// How long `stop` waits for the thread, in milliseconds. One that sits in the resolution of a name is left alone then:
/// it ends by itself, and touches nothing but what it holds.
const STOP_MS: u64 = 1_000;

impl Tender {
    /// Looks after one more group from now on. Answers who is to be woken for it, once the caller holds no lock.
    pub(crate) fn tend(&self, process: &Process, drive: &Drive, group: &Arc<Group>) -> Option<Arc<Waiter>> {
        if !process.may_create_threads {
            self.leave_to_calls(group);
            return None;
        }
        let mut running = self.running.lock();
        if let Some(running) = &*running {
            running.shared.groups.lock().push(group.clone());
            return Some(running.shared.waiter.clone());
        }
        let shared = Arc::new(Shared {
            platform: process.platform.clone(),
            process: process.weak(),
            seam: drive.seam.clone(),
            links: drive.links.clone(),
            waiter: Waiter::new(&process.platform),
            groups: Lock::new(vec![group.clone()]),
            stopped: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            end: process.platform.parker(),
        });
        drive.seam.subscribe(&shared.waiter);
        let work = shared.clone();
        match process.platform.spawn("hatoki-tender", Box::new(move || work.run())) {
            Ok(thread) => *running = Some(Running { shared, thread }),
            Err(error) => {
                tracing::error!(
                    "wanted a thread for probes and repair, the system refused: {error}; calls look after the \
                     members instead, about once a second"
                );
                self.leave_to_calls(group);
            }
        }
        None
    }

    fn leave_to_calls(&self, group: &Group) {
        self.is_absent.store(true, Ordering::Release);
        group.tend_in_calls();
    }

    /// Whether calls do the work of the thread, since there is none.
    pub(crate) fn is_absent(&self) -> bool {
        self.is_absent.load(Ordering::Acquire)
    }

    /// Looks after this group no more.
    pub(crate) fn forget(&self, group: &Arc<Group>) {
        if let Some(running) = &*self.running.lock() {
            running.shared.groups.lock().retain(|other| !Arc::ptr_eq(other, group));
        }
    }

    /// Lets the thread end after its round.
    pub(crate) fn tell_to_stop(&self) {
        let shared = self.running.lock().as_ref().map(|running| running.shared.clone());
        if let Some(shared) = shared {
            shared.stopped.store(true, Ordering::Release);
            shared.waiter.wake();
        }
    }

    /// Stops and joins the thread; returns within about a second.
    pub(crate) fn stop(&self) {
        let Some(running) = self.running.lock().take() else { return };
        running.shared.stopped.store(true, Ordering::Release);
        running.shared.waiter.wake();
        let until = running.shared.platform.now().after_ms(STOP_MS);
        while !running.shared.ended.load(Ordering::Acquire) {
            if running.shared.platform.now() >= until {
                return;
            }
            running.shared.end.park(until);
        }
        running.thread.join();
    }
}

impl Shared {
    /// The work of a second that is no group's.
    fn upkeep(&self) {
        if let Some(process) = self.process.upgrade().filter(|_| !self.stopped.load(Ordering::Acquire)) {
            process.world().upkeep(&process);
        }
    }

    fn run(&self) {
        self.rounds();
        self.ended.store(true, Ordering::Release);
        self.end.unpark();
    }

    fn rounds(&self) {
        let _attendance = self.links.as_ref().map(|links| links.attend());
        while !self.stopped.load(Ordering::Acquire) {
            let groups = self.groups.lock().clone();
            let next = groups.iter().map(|group| group.tend()).min();
            self.upkeep();
            let now = self.platform.now();
            let next = next.unwrap_or(Moment::NEVER).min(now.after_ms(UPKEEP_MS)).max(now.after_ms(1));
            match self.seam.wait(&self.waiter, next) {
                Event::Woken | Event::Deadline => {}
                Event::Reply(..) | Event::Progress(_) | Event::Busy(..) | Event::Fault(..) => {}
            }
        }
    }
}
